"""A stand-in for a GPU: the CUDA kernels compiled by the machine's C++ compiler, their threads taking turns."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from matcaps.routing import cuda_launch
from matcaps.routing.cuda_launch import SHARED_LIMIT, Arguments, Cut, Plan, Shape, constants, plan_for
from matcaps.routing.operators import OperatorOptions
from matcaps.routing.spec import RoutingInputs

HERE = Path(__file__).parent
KERNELS = Path(cuda_launch.__file__).with_name("cuda_kernels")
COMPILER = shutil.which("g++") or shutil.which("clang++") or ""


def plan_of_sizes(
    batch: int, height: int, width: int, children: int, parents: int, kernel: int | None = 3, iterations: int = 3,
    *, stride: int = 1, child: bool = True, rule: int = 0, dtype: torch.dtype = torch.float32,
    limit: int = SHARED_LIMIT, wants_backward: bool = True,
) -> Plan:  # fmt: skip
    """The plan for tensors of these sizes, which are on no device; without a kernel of class capsules."""
    poses = torch.empty(batch, height, width, children, 4, 4, device="meta", dtype=dtype)
    beta = poses.new_empty(parents)
    inputs = RoutingInputs(
        poses,
        poses[..., 0, 0],
        poses.new_empty([*([kernel] * 2 if kernel else []), children, parents, 4, 4]),
        beta,
        beta,
        poses.new_empty(iterations),
        None if kernel else poses.new_empty(height, width, 16),
    )
    options = OperatorOptions(stride, child, rule, 5e-4, 1.0)
    return plan_for(inputs, options, limit, wants_backward=wants_backward)


class Emulated:
    """The kernels of one routing; as :class:`matcaps.routing.cuda_program.Program`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._launch = library.launch
        self._launch.argtypes = [
            ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_uint] * 3, ctypes.c_int, ctypes.c_size_t
        ]  # fmt: skip

    def launch(self, name: str, arguments: Arguments, grid: tuple[int, int, int], threads: int, shared: int) -> None:
        assert self._launch(name.encode(), ctypes.addressof(arguments), *grid, threads, shared) == 0, name


class Emulator:
    """Compiles into a folder, each routing once; several processes may share it.

    Args:
        folder: for what is compiled.
        options: of the compiler, such as ``"-O2"``; most of a test's time is the compiler's, so without one nothing is
            optimised.
        kernels: the folder of the kernels' sources.
    """

    def __init__(self, folder: Path, *options: str, kernels: Path = KERNELS) -> None:
        self.folder = folder
        self.options = options
        self.kernels = kernels
        self.get = lru_cache(maxsize=None)(self._get)

    def __call__(self, shape: Shape, cut: Cut) -> Emulated:
        return self.get(shape, cut)

    def _get(self, shape: Shape, cut: Cut) -> Emulated:
        sources = sorted([*self.kernels.iterdir(), HERE / "emulator.h", HERE / "emulated.cpp"])
        texts = [
            constants(shape, cut),
            COMPILER,
            *self.options,
            *(path.read_text(encoding="utf-8") for path in sources),
        ]
        key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]
        library = self.folder / f"{key}.so"
        if not library.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as build:
                compile_kernels(shape, cut, Path(build), "-fPIC", "-shared", *self.options, kernels=self.kernels)
                Path(build, "out").replace(library)
        return Emulated(ctypes.CDLL(str(library)))


def compile_kernels(
    shape: Shape, cut: Cut, build: Path, *options: str, kernels: Path = KERNELS, source: Path = HERE / "emulated.cpp"
) -> Path:
    """Compile a routing's kernels to ``build / "out"``; ``source`` is what includes them."""
    (build / "constants.h").write_text(f"#pragma once\n{constants(shape, cut)}")
    command = [
        COMPILER, "-std=c++17", "-O0", "-ffp-contract=off", "-w", "-DMATCAPS_EMULATED", *options,
        f"-I{build}", f"-I{kernels}", f"-I{HERE}", str(source),
        "-o", str(build / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return build / "out"


def edited_kernels(folder: Path, edits: Mapping[str, tuple[str, str]]) -> Path:
    """A copy of the kernels' sources in which a text of a file, which is there once, is another: a fault to be seen."""
    shutil.copytree(KERNELS, folder)
    for name, (old, new) in edits.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    return folder
