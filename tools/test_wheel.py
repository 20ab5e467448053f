#!/usr/bin/env python3
"""Build the wheel, install it away from the sources, and show there that it works; then again without a compiler.

    .venv/bin/python tools/test_wheel.py

The tests of a checkout run on an editable install and cannot see a file that a wheel lacks. Here the wheel goes into a
fresh environment that borrows what .venv holds (torch, pytest), with a working folder outside of the checkout. A line
for each thing shown; stops at the first that fails. Everything lies in one temporary folder, which goes at the end.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = "matcaps/routing/_native.so"
FOREIGN = re.compile(r"(^|/)(tests|benchmarks|native|docs|tools)/|\.(cpp|h|pyc)$|CMakeLists")
"""What has no place in a wheel."""

# An editable install answers before sys.path does: whatever runs says first which copy it is.
FROM_WHEEL = """
import sys, matcaps
from pathlib import Path
where = Path(matcaps.__file__).resolve()
assert where.is_relative_to(Path(sys.prefix).resolve()), f"this tests {where}, which is not the wheel"
"""

CORE_LOADED = """
from matcaps.routing import native
assert native.LIBRARY, native.MISSING
core = Path(native.LIBRARY.path).resolve()
assert core.is_relative_to(Path(sys.prefix).resolve()), f"this loaded {core}, which is not the wheel's"
print(f"{matcaps.__version__}, {native.LIBRARY.target} code on {native.LIBRARY.threading}")
"""

TRAINING_STEP = """
import torch
torch.manual_seed(0)
assert matcaps.routing.resolve_implementation("cpu", torch.float32) == implementation
network = matcaps.create_model("quickstart")
images, labels = torch.randn(8, 1, 28, 28), torch.randint(10, (8,))
network.calibrate(images)
optimizer = torch.optim.Adam(network.parameters(), 1e-2)
losses = []
for _ in range(4):
    loss = matcaps.losses.spread_loss(network(images).activations, labels, margin=0.5)
    optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
print(f"a training loss from {losses[0]:.3f} to {losses[-1]:.3f} in 4 steps")
"""

CUDA_SOURCES = """
from matcaps.routing import cuda
if cuda.MISSING:
    print(f"not looked at: {cuda.MISSING}")
else:
    from matcaps.routing import cuda_program
    assert "KERNEL" in cuda_program.source()
    print(f"{len(cuda_program.source().splitlines())} lines of CUDA C++")
"""

NATIVE_REFUSED = """
from matcaps.routing import native
assert native.LIBRARY is None
try:
    matcaps.routing.conv_em_routing(
        torch.randn(1, 5, 5, 2, 4, 4), torch.rand(1, 5, 5, 2), torch.randn(3, 3, 2, 3, 4, 4), torch.zeros(3),
        torch.zeros(3), inverse_temperature=[1.0], implementation="native",
    )
except RuntimeError as error:
    assert "no compiled CPU core" in str(error), error
    print(error)
else:
    raise AssertionError("implementation='native' routed without a core")
"""


class Environment:
    """A fresh environment with one wheel in it, beside the packages of the environment that runs this script."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        self.command = folder / "bin" / "matcaps"
        self._work = folder / "work"
        self._work.mkdir()
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # Behind its own packages, and as a plain folder: the editable install's .pth file in it is not read.
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def install(self, wheel: Path) -> None:
        call([sys.executable, "-m", "pip", "--python", self.python, "install", "--no-deps", "--no-index", "-q", wheel])

    def run(self, *arguments: str | Path, program: Path | None = None) -> str:
        return call([program or self.python, *arguments], self._work, {"OMP_NUM_THREADS": "1"})

    def copy_tests(self, folder: str) -> None:
        """Copy some of the tests, with pyproject.toml for pytest's settings."""
        shutil.copy(ROOT / "pyproject.toml", self._work)
        shutil.copytree(ROOT / folder, self._work / folder, ignore=shutil.ignore_patterns("__pycache__"))


def call(command: Sequence[str | Path], folder: Path = ROOT, changes: dict[str, str] | None = None) -> str:
    """Run a command; return what it prints, or stop with it where it fails."""
    inherited = {name: value for name, value in os.environ.items() if not re.match(r"PYTHONPATH|MATCAPS_", name)}
    # tempfile's folder is ours by now: whatever compiles or caches during a test leaves it there
    environment = {**inherited, "TMPDIR": tempfile.gettempdir(), **(changes or {})}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nfailed with {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def build_wheel(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """Build in an environment of its own, as pip does for users; torch is not in it."""
    call([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "--wheel-dir", folder, ROOT], ROOT, changes)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path, *, core: bool) -> str:
    platform = wheel.stem.removeprefix("matcaps-").split("-", 1)[1]
    kind = r"py3-none-(?!any$)\w+" if core else r"py3-none-any"
    assert re.fullmatch(kind, platform), f"{wheel.name}: the name should end in {kind}"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert "\nRequires-Dist: torch" in archive.read(metadata).decode(), "the metadata ask for no torch"
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if is_package_data(path)}
    assert sources <= names, f"{wheel.name} lacks {sorted(sources - names)}"
    assert (CORE in names) == core, f"{wheel.name}: the compiled core is {'missing' if core else 'in it'}"
    foreign = sorted(name for name in names if FOREIGN.search(name))
    assert not foreign, f"{wheel.name} holds {foreign}"
    return f"{wheel.name}, {wheel.stat().st_size / 1024:.0f} KB, {len(names)} files"


def check_sdist(folder: Path) -> str:
    """Pack the sources: what git ignores, such as .venv, stays out."""
    tools = folder / "packer"
    # from within the checkout, so that pip finds the requirement as the build does
    (required,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    call([sys.executable, "-m", "pip", "install", "-q", "--target", tools, required])
    pack = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    call([sys.executable, "-c", pack], ROOT, {"PYTHONPATH": str(tools)})
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = (
        call(["git", "ls-files"]).split()
        if (ROOT / ".git").exists()
        else [name for name in names if name[:5] != ".venv"]
    )
    foreign = sorted(names - set(tracked) - {"PKG-INFO", ".gitignore"})
    assert not foreign, f"{packed.name} holds {foreign[:5]} and {len(foreign)} in all that git does not track"
    needed = [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "native/CMakeLists.txt",
        "src/matcaps/py.typed",
        "src/matcaps/routing/cuda_kernels/common.cuh",
        "tests/test_cli.py",
    ]
    assert names.issuperset(needed), f"{packed.name} lacks {sorted(set(needed) - names)}"
    return f"{packed.name}, {packed.stat().st_size / 1024:.0f} KB, {len(names)} files"


def is_package_data(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".so")


def show(what: str, result: str) -> None:
    print(f"{what}: {result.strip()}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="matcaps-wheel-") as temporary:
        tempfile.tempdir = temporary
        folder = Path(temporary)
        wheel = build_wheel(folder / "compiled")
        show("wheel", check_contents(wheel, core=True))
        installed = Environment(folder / "with-core")
        installed.install(wheel)
        show("import", installed.run("-c", FROM_WHEEL + CORE_LOADED))
        show("native", installed.run("-c", FROM_WHEEL + "implementation = 'native'" + TRAINING_STEP))
        show("kernels for GPUs", installed.run("-c", FROM_WHEEL + CUDA_SOURCES))
        assert "quickstart" in installed.run("summary", "quickstart", program=installed.command)
        show("command", installed.run("--help", program=installed.command).splitlines()[0])
        for part in ("tests/routing", "tests/support"):
            installed.copy_tests(part)
        # the emulated kernels, compiled once more without pytest's cache, are the same by value as in the checkout
        few = "not test_cuda_values and not test_cuda_faults and not test_cuda_sanitizers"
        tests = installed.run("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-k", few, "tests/routing")
        show("tests", tests.splitlines()[-1].strip("= "))

        show("sources", check_sdist(folder / "sources"))

        # A compiler that always fails is no compiler, wherever CMake would look for another.
        plain = build_wheel(folder / "plain", {"CC": "/bin/false", "CXX": "/bin/false"})
        show("wheel without a compiler", check_contents(plain, core=False))
        without = Environment(folder / "without-core")
        without.install(plain)
        show("reference without a core", without.run("-c", FROM_WHEEL + "implementation = 'reference'" + TRAINING_STEP))
        show("native without a core", without.run("-c", FROM_WHEEL + "import torch" + NATIVE_REFUSED))
        report = " ".join(without.run("doctor", program=without.command).split())
        assert "routing on cpu reference" in report, report
        assert "compiled core not available: this installation of matcaps has no compiled CPU core" in report, report
        show("doctor", "says that the compiled core is not available, and why")


if __name__ == "__main__":
    main()
