"""A stand-in for a GPU: the CUDA kernels compiled by the machine's C++ compiler, their threads taking turns."""

import ctypes
import hashlib
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from matcaps.routing.cuda_launch import Arguments, Cut, Shape, constants

HERE = Path(__file__).parent
KERNELS = Path(__file__).parents[3] / "src" / "matcaps" / "routing" / "cuda_kernels"
COMPILER = shutil.which("g++") or shutil.which("clang++") or ""


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
    """Compiles into a folder, each routing once.

    Args:
        folder: for what is compiled.
        options: of the compiler, such as ``"-fsanitize=address"``.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.get = lru_cache(maxsize=None)(self._get)

    def __call__(self, shape: Shape, cut: Cut) -> Emulated:
        return self.get(shape, cut)

    def _get(self, shape: Shape, cut: Cut) -> Emulated:
        sources = [
            path.read_text() for path in sorted([*KERNELS.iterdir(), HERE / "emulator.h", HERE / "emulated.cpp"])
        ]
        key = hashlib.sha256("\0".join([constants(shape, cut), *self.options, *sources]).encode()).hexdigest()[:20]
        library = self.folder / f"{key}.so"
        if not library.exists():
            build = self.folder / key
            build.mkdir(parents=True, exist_ok=True)
            (build / "constants.h").write_text(f"#pragma once\n{constants(shape, cut)}")
            command = [
                COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-w", "-DMATCAPS_EMULATED", "-fPIC", "-shared",
                *self.options,
                f"-I{build}", f"-I{KERNELS}", f"-I{HERE}", str(HERE / "emulated.cpp"), "-o", str(build / "out.so"),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (build / "out.so").replace(library)
        return Emulated(ctypes.CDLL(str(library)))
