"""The GPU path's kernels compile for NVIDIA GPUs down to machine code, on a machine that has none; and the cache of it.

``make test`` compiles four routings, ``make test-cuda`` all of them for every architecture.
"""

import itertools
import os
import re
from pathlib import Path

import pytest
import torch

from matcaps.routing import cuda, cuda_launch
from matcaps.routing.cuda_launch import Plan
from tests.support.cuda import plan_of_sizes
from tests.support.cuda_cases import needs_all

if cuda.MISSING is not None:
    pytest.skip(cuda.MISSING, allow_module_level=True)
from matcaps.routing import cuda_program

try:
    cuda_program.nvrtc_version()
except Exception as error:
    pytest.skip(f"NVRTC cannot be loaded: {error}", allow_module_level=True)

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")

LAYERS = {  # batch, height, width, children, parents, kernel, stride
    "paper-small ConvCaps1": (128, 14, 14, 8, 16, 3, 2),
    "paper-small ConvCaps2": (128, 6, 6, 16, 16, 3, 1),
    "paper-small ClassCaps": (128, 4, 4, 16, 5, None, 1),
    "paper ConvCaps1": (128, 14, 14, 32, 32, 3, 2),
    "awkward": (2, 5, 7, 3, 33, 2, 1),
    "one of each": (1, 3, 3, 1, 1, 3, 1),
}


def plan_of(
    layer: str, competition: str = "child", rule: int = 0, iterations: int = 3, dtype=torch.float32, limit: int = 227
) -> Plan:
    *sizes, stride = LAYERS[layer]
    options = {"stride": stride, "child": competition == "child", "rule": rule}
    return plan_of_sizes(*sizes, iterations, **options, dtype=dtype, limit=limit * 1024)


def resources_of(plan: Plan, architecture: str) -> dict[str, tuple[int, int]]:
    """Registers of a thread, and bytes of spills, by kernel."""
    text = cuda_launch.constants(plan.shape, plan.cut) + cuda_program.source()
    code, said = cuda_program.compile_source(text, architecture, "--ptxas-options=-v")
    assert code.startswith(b"\x7fELF")
    found = {}
    for part in said.split("Compiling entry function '")[1:]:
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        assert spills is not None, part
        assert registers is not None, part
        found[part[: part.index("'")]] = (int(registers[1]), int(spills[1]) + int(spills[2]))
    return found


SPILLS = 64
"""Bytes that a thread may spill where a cut has two blocks share a processor's registers: what no loop uses. What is
used at every child must stay in registers, and is hundreds of bytes. In float64, made for checks, more may spill."""


def check(plan: Plan, architecture: str) -> None:
    found = resources_of(plan, architecture)
    if plan.shape.child_competition:
        assert found.keys() == {
            "iterate_first", "iterate_later", "compete", "iterate_back", "compete_back", "sweep", "gather"
        }  # fmt: skip
    else:
        assert found.keys() == {"route_windows", "route_windows_back", "sweep", "gather"}
    for kernel, (registers, spilled) in found.items():
        threads = plan.cut.sweep_threads if kernel == "sweep" else plan.cut.threads
        assert 0 < registers <= 255, kernel
        assert threads * -(-registers // 8) * 8 <= 65536, f"{kernel}: a block has more registers than a processor"
        assert spilled <= SPILLS or plan.shape.double, f"{kernel} spills {spilled} bytes"


FEW = [
    ("sm_90", "paper-small ConvCaps1", {}),
    ("sm_100", "paper-small ClassCaps", {"rule": 2}),
    ("sm_80", "awkward", {"competition": "window", "rule": 1, "iterations": 2}),
    ("sm_89", "one of each", {"iterations": 1, "dtype": torch.float64}),
]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_kernels_compile_and_hardly_spill(case):
    architecture, layer, options = case
    check(plan_of(layer, **options), architecture)


@needs_all
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("competition", ["child", "window"])
def test_every_layer_compiles_for_every_architecture(architecture, layer, competition):
    if LAYERS[layer][5] is None and competition == "child":
        pytest.skip("the children of class capsules have one window")
    number = list(itertools.product(LAYERS, ARCHITECTURES)).index((layer, architecture))
    check(plan_of(layer, competition, rule=number % 3), architecture)


@needs_all
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_compiles_in_double(layer):
    check(plan_of(layer, dtype=torch.float64), "sm_90")


LIMITS = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}
"""KB of shared memory that a block can have, by architecture: NVIDIA's table of compute capabilities."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_fit_the_shared_memory_of_every_architecture(architecture):
    for layer, dtype in itertools.product(LAYERS, (torch.float32, torch.float64)):
        plan = plan_of(layer, dtype=dtype, limit=LIMITS[architecture])
        assert cuda_launch.shared_bytes(plan.shape, plan.cut) <= LIMITS[architecture] * 1024, layer
        assert cuda_launch.sweep_bytes(plan.shape, plan.cut) <= LIMITS[architecture] * 1024, layer


def test_what_the_compiler_writes_into_is_its_own():
    """An empty word of NVRTC's is written into one byte, and Python has one object for each of those."""
    code, said = cuda_program.compile_source('extern "C" __global__ void f(float* x) { x[0] = 1; }', "sm_90")
    assert said == ""
    assert code.startswith(b"\x7fELF")
    assert [bytes([value])[0] for value in range(256)] == [*range(256)]


def test_forward_and_backward_are_programs_of_their_own():
    plan = plan_of("one of each")
    text = cuda_launch.constants(plan.shape, plan.cut) + cuda_program.source()
    for part, other in (("FORWARD", "BACKWARD"), ("BACKWARD", "FORWARD")):
        _, said = cuda_program.compile_source(f"#define MATCAPS_{other} 0\n{text}", "sm_90", "--ptxas-options=-v")
        kernels = set(re.findall(r"Compiling entry function '(\w+)'", said))
        assert kernels
        assert {cuda_program.part_of(kernel).upper() for kernel in kernels} == {part}


def test_what_only_a_gradient_needs_refuses_no_forward_pass():
    sizes = 1, 5, 5, 32, 32, 3, 7
    with pytest.raises(ValueError, match="32 parents and 7 iterations"):
        plan_of_sizes(*sizes, limit=99 * 1024)
    plan = plan_of_sizes(*sizes, limit=99 * 1024, wants_backward=False)
    assert cuda_launch.shared_bytes(plan.shape, plan.cut) <= 99 * 1024


def test_what_does_not_compile_says_why():
    with pytest.raises(RuntimeError, match=r"implementation='cuda': compiling the kernels failed: (.|\n)*error: "):
        cuda_program.compile_source("this is no C++", "sm_90")


def test_the_source_is_every_file_of_the_folder():
    folder = Path(cuda_program.__file__).with_name("cuda_kernels")
    assert {path.name for path in folder.glob("*.cuh")} == set(cuda_program.SOURCES)
    assert "#include" not in cuda_program.source()


class Cache:
    """A cache's folder, and a stand-in for the compiler that counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = plan_of("one of each")
        self.compiled = 0

    def compile(self, text: str, architecture: str, *options: str) -> tuple[bytes, str]:
        self.compiled += 1
        return f"{architecture} {len(text)}".encode() * 100, ""

    def get(self, architecture: str = "sm_90") -> bytes:
        return cuda_program.machine_code(self.plan.shape, self.plan.cut, architecture)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Cache:
    made = Cache(tmp_path / "some" / "cache")
    monkeypatch.setenv("MATCAPS_CUDA_CACHE", str(made.folder))
    monkeypatch.setattr(cuda_program, "compile_source", made.compile)
    return made


def test_what_is_compiled_is_kept(cache):
    first = cache.get()
    (path,) = cache.files
    assert path.suffix == ".cubin"
    assert cache.get() == first
    assert cache.compiled == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:32],
        lambda content: content[:-1],
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: b"\0" * len(content),
    ],
    ids=["empty", "of a part of the digest", "without code", "cut short", "one bit", "zeros"],
)
def test_a_damaged_file_is_built_again(cache, damage):
    good = cache.get()
    (path,) = cache.files
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert cache.get() == good
    assert cache.compiled == 2
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_no_error(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MATCAPS_CUDA_CACHE", str(tmp_path / "file" / "cache"))
    assert cache.get() == cache.get()
    assert cache.compiled == 2


def test_a_full_disk_leaves_nothing_behind(cache, monkeypatch):
    def fail(*paths):
        raise OSError("no space left on the device")

    monkeypatch.setattr(os, "replace", fail)
    good = cache.get()
    assert cache.files == []
    monkeypatch.undo()
    monkeypatch.setenv("MATCAPS_CUDA_CACHE", str(cache.folder))
    monkeypatch.setattr(cuda_program, "compile_source", cache.compile)
    assert cache.get() == good
    assert len(cache.files) == 1


def test_files_appear_whole(cache, monkeypatch):
    """A process that reads while another writes finds all of a file or no file."""
    replace, seen = os.replace, []

    def watch(source, target):
        seen.append((Path(source).parent == cache.folder, Path(target).exists(), Path(source).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    cache.get()
    (path,) = cache.files
    assert seen == [(True, False, path.read_bytes())]


def test_another_compiler_architecture_source_or_cut_is_another_file(cache, monkeypatch):
    cache.get()
    cache.get("sm_80")
    with monkeypatch.context() as patch:
        patch.setattr(cuda_program, "nvrtc_version", lambda: "99.0")
        cache.get()
    with monkeypatch.context() as patch:
        changed = cuda_program.source() + "\n// changed"
        patch.setattr(cuda_program, "source", lambda: changed)
        cache.get()
    cache.plan = plan_of("awkward")
    cache.get()
    assert cache.compiled == len(cache.files) == 5
