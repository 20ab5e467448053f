"""Finds, loads and calls the compiled CPU core, a library with a plain C interface (``native/src/matcaps.h``)."""

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

LIBRARY_VARIABLE = "MATCAPS_NATIVE_LIBRARY"
"""Environment variable: the library's path, or ``off`` to use none."""

TARGET_VARIABLE = "MATCAPS_NATIVE_TARGET"
"""Environment variable: the instruction set to use instead of the best that the processor has: baseline, avx2, avx512
or neon. For bit-identical results on different processors, and for tests."""

ABI = 4
"""The version of the interface that this file uses; the library must have the same."""

_MESSAGE_SIZE = 512

_Fork = ctypes.c_void_p


_INTEGERS = "one_window", "child_competition", "activation_rule", "double_precision", "threads", "reserved"


class Problem(ctypes.Structure):
    """``matcaps_problem``: one routing of a batch, forward or backward."""

    _fields_ = (
        *[
            (name, ctypes.c_int64)
            for name in (
                "batch",
                "height",
                "width",
                "child_types",
                "parent_types",
                "kernel_size",
                "stride",
                "iterations",
            )
        ],
        *[(name, ctypes.c_int32) for name in _INTEGERS],
        *[(name, ctypes.c_double) for name in ("variance_floor", "annealing")],
        *[
            (name, ctypes.c_void_p)
            for name in (
                "poses",
                "activations",
                "weight",
                "beta_use",
                "beta_activation",
                "inverse_temperature",
                "coordinates",
                "state",
                "out_poses",
                "out_activations",
                "grad_out_poses",
                "grad_out_activations",
                "grad_poses",
                "grad_activations",
                "grad_weight",
                "grad_beta_use",
                "grad_beta_activation",
                "grad_inverse_temperature",
                "grad_coordinates",
            )
        ],
    )


class Library:
    """The loaded library. Its functions release the GIL, and a failure in one of its threads raises here."""

    def __init__(self, path: Path):
        self.path = path
        self._functions = ctypes.CDLL(str(path))
        abi = self._functions.matcaps_abi()
        if abi != ABI:
            raise OSError(f"{path} has interface {abi}, this matcaps needs {ABI}: install matcaps again")
        self._functions.matcaps_target.restype = ctypes.c_char_p
        self._functions.matcaps_lanes.restype = ctypes.c_int64
        self._functions.matcaps_state_size.restype = ctypes.c_int64
        self._functions.matcaps_set_fork.argtypes = [_Fork]
        self._functions.matcaps_fma_peak.argtypes = [
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_double,
            ctypes.POINTER(ctypes.c_double),
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        for function in (self._functions.matcaps_exp, self._functions.matcaps_log):
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
            function.restype = None
        self._openmp = _openmp_of_torch()
        self.share_threads(True)

    @property
    def target(self) -> str:
        """The instruction set in use, such as ``"avx2"``."""
        return self._functions.matcaps_target().decode()

    @property
    def threading(self) -> str:
        """Whose threads it runs on."""
        return f"torch's OpenMP, {self._openmp[0]}" if self._openmp and self._shares else "its own"

    def lanes(self, dtype: torch.dtype) -> int:
        """How many parents stand side by side in a vector: the saved state is laid out in them."""
        return self._functions.matcaps_lanes(int(dtype == torch.float64))

    def state_size(self, problem: Problem) -> int:
        """How many elements one image's state has; of the problem, its sizes alone are read, and must make sense."""
        return self._functions.matcaps_state_size(ctypes.byref(problem))

    def set_target(self, name: str) -> bool:
        """Use another instruction set; False where this machine or this build lacks it."""
        return bool(self._functions.matcaps_set_target(name.encode()))

    def share_threads(self, share: bool) -> None:
        """Run on the threads of torch's OpenMP runtime, where it was found, or on threads of its own."""
        self._shares = share and self._openmp is not None
        self._functions.matcaps_set_fork(self._openmp[1] if self._openmp and share else None)

    def forward(self, problem: Problem) -> None:
        """Route forward."""
        self._call(self._functions.matcaps_forward, ctypes.byref(problem))

    def backward(self, problem: Problem) -> None:
        """Compute the gradients of a routing."""
        self._call(self._functions.matcaps_backward, ctypes.byref(problem))

    def fail_in_task(self, threads: int) -> None:
        """Raise what a failure inside one of its threads raises; for tests."""
        self._call(self._functions.matcaps_fail_in_task, threads)

    def fma_peak(
        self,
        threads: int,
        dtype: torch.dtype = torch.float32,
        seconds: float = 0.2,
        *,
        loads: int = 0,
        memory: int = 0,
    ) -> float:
        """Measure the floating-point operations a second of fused multiply-adds.

        Args:
            threads: how many threads do so at once.
            dtype: float32 or float64.
            seconds: how long.
            loads: of each four multiply-adds, how many load a vector from memory, 0 to 4.
            memory: bytes from which each thread loads, one after the other, again and again.
        """
        rate = ctypes.c_double()
        is_double = int(dtype == torch.float64)
        self._call(self._functions.matcaps_fma_peak, threads, is_double, loads, memory, seconds, ctypes.byref(rate))
        return rate.value

    def elementwise(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply the core's own ``"exp"`` or ``"log"``; for tests."""
        if name not in ("exp", "log") or x.dtype not in (torch.float32, torch.float64) or x.device.type != "cpu":
            raise ValueError(f"the core has exp and log of float32 and float64 on the CPU; got {name}, {x.dtype}")
        x = x.contiguous()
        out = torch.empty_like(x)
        function = getattr(self._functions, f"matcaps_{name}")
        function(x.data_ptr(), out.data_ptr(), x.numel(), int(x.dtype == torch.float64))
        return out

    def _call(self, function, *arguments) -> None:
        message = ctypes.create_string_buffer(_MESSAGE_SIZE)
        if function(*arguments, message, ctypes.c_size_t(_MESSAGE_SIZE)):
            raise RuntimeError(f"the native CPU core failed: {message.value.decode(errors='replace')}")


def load() -> Library | str:
    """Load the library; return it, or the reason why it cannot be used. Never raises."""
    wanted = os.environ.get(LIBRARY_VARIABLE)
    if wanted == "off":
        return f"the environment variable {LIBRARY_VARIABLE} is 'off'"
    path = Path(wanted) if wanted else _find()
    if path is None:
        return (
            "this installation of matcaps has no compiled CPU core: at the installation there was no C++ compiler, or "
            "it failed: install GCC or Clang, then install matcaps again (pip install -v shows what failed)"
        )
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        return f"the compiled CPU core could not be loaded: {error}"
    target = os.environ.get(TARGET_VARIABLE)
    if target and not library.set_target(target):
        return (
            f"the environment variable {TARGET_VARIABLE} asks for {target!r}, which this build or processor lacks: "
            f"unset it for {library.target}"
        )
    return library


def _find() -> Path | None:
    suffix = ".dll" if sys.platform == "win32" else ".so"
    here = Path(__file__).with_name("_native" + suffix)
    if here.exists():
        return here
    # An editable install keeps what was compiled among the installed packages, away from the sources.
    import importlib.metadata  # slow, and seldom needed

    try:
        installed = importlib.metadata.distribution("matcaps").locate_file(f"matcaps/routing/_native{suffix}")
    except importlib.metadata.PackageNotFoundError:
        return None
    installed = Path(str(installed))
    return installed if installed.exists() else None


def _openmp_of_torch() -> tuple[str, int] | None:
    """Return the name of the OpenMP runtime that torch has loaded and the address of its ``GOMP_parallel``.

    Two runtimes in one process slow each other down; so the library starts threads of its own only without torch's.
    """
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for path in _openmp_candidates():
        try:
            runtime = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            address = ctypes.cast(runtime.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        if address:
            return Path(path).name, address
    return None


def _openmp_candidates() -> list[str]:
    name = re.compile(r"lib(gomp|iomp5|omp)\b")
    ours = sorted(str(path) for path in (Path(torch.__file__).parent / "lib").glob("lib*omp*") if name.match(path.name))
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    except OSError:
        loaded = set()
    return ours + sorted(path for path in loaded if name.match(Path(path).name) and path not in ours)
