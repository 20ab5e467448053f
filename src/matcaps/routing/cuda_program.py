"""The CUDA kernels on a machine with a GPU: compiled by NVRTC when first used, kept on disk, and launched.

NVRTC, NVIDIA's compiler as a library, makes machine code of a routing's kernels in some seconds, without a CUDA
toolkit, and on a machine without a GPU, too (:func:`compile_source`). Imported when a routing first asks for it.
"""

import ctypes
import hashlib
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch
from cuda.bindings import driver, nvrtc  # pyright: ignore[reportAttributeAccessIssue]
from platformdirs import user_cache_dir

from matcaps.routing.cuda_launch import Arguments, Cut, Shape, constants

SOURCES = ("platform.cuh", "common.cuh", "forward.cuh", "backward.cuh", "sweep.cuh")

_lock = threading.Lock()


@lru_cache(maxsize=1)
def source() -> str:
    """All kernels as one text, without the constants of a routing."""
    folder = Path(__file__).with_name("cuda_kernels")
    parts = (folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES)
    lines = (line for part in parts for line in part.splitlines())
    return "\n".join(line for line in lines if not line.startswith(("#include", "#pragma once")))


def _check(result: tuple, what: str, log: str = "") -> object:
    status, *values = result
    if int(status) != 0:
        name = getattr(status, "name", str(status))
        raise RuntimeError(f"implementation='cuda': {what} failed: {name}{log}")
    return values[0] if len(values) == 1 else values


def nvrtc_version() -> str:
    """NVRTC's version, such as ``"13.0"``."""
    major, minor = _check(nvrtc.nvrtcVersion(), "asking NVRTC for its version")  # type: ignore[misc]
    return f"{major}.{minor}"


def compile_source(text: str, architecture: str, *options: str) -> tuple[bytes, str]:
    """Machine code for an architecture such as ``"sm_90"``, and the compiler's messages.

    Raises:
        RuntimeError: the compiler failed; its messages are in the error.
    """
    program = _check(nvrtc.nvrtcCreateProgram(text.encode(), b"matcaps_routing.cu", 0, [], []), "NVRTC")
    flags = [f"--gpu-architecture={architecture}", "--std=c++17", *options]
    status = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    size = _check(nvrtc.nvrtcGetProgramLogSize(program), "NVRTC")
    log = bytes(int(size) + 1)  # type: ignore[call-overload] # of its own: NVRTC writes into it
    _check(nvrtc.nvrtcGetProgramLog(program, log), "NVRTC")
    messages = log.rstrip(b"\0").decode(errors="replace").strip()
    _check(status, "compiling the kernels", f"\n{messages}")
    size = _check(nvrtc.nvrtcGetCUBINSize(program), "NVRTC")
    code = bytes(int(size))  # type: ignore[call-overload]
    _check(nvrtc.nvrtcGetCUBIN(program, code), "NVRTC")
    _check(nvrtc.nvrtcDestroyProgram(program), "NVRTC")
    return code, messages


def cache_folder() -> Path:
    """Where machine code is kept; the environment variable ``MATCAPS_CUDA_CACHE`` names another folder."""
    named = os.environ.get("MATCAPS_CUDA_CACHE")
    return Path(named).expanduser() if named else Path(user_cache_dir("matcaps")) / "cuda"


def machine_code(shape: Shape, cut: Cut, architecture: str, part: str | None = None) -> bytes:
    """A routing's machine code, from the cache; what the cache lacks is compiled and added to it.

    Args:
        shape: its geometry.
        cut: how its work is cut.
        architecture: such as ``"sm_90"``.
        part: ``"forward"`` or ``"backward"``; None: the kernels of both.
    """
    wanted = "" if part is None else f"#define MATCAPS_{_OTHER[part].upper()} 0\n"
    text = wanted + constants(shape, cut) + source()
    key = hashlib.sha256("\0".join((text, architecture, nvrtc_version())).encode()).hexdigest()
    path = cache_folder() / f"{key[:40]}.cubin"
    try:
        kept = path.read_bytes()
        digest, code = kept[:32], kept[32:]
        if code and hashlib.sha256(code).digest() == digest:
            return code
    except OSError:
        pass
    code, _ = compile_source(text, architecture)
    _keep(path, hashlib.sha256(code).digest() + code)
    return code


_OTHER = {"forward": "backward", "backward": "forward"}
_FORWARD = ("iterate_first", "iterate_later", "compete", "route_windows")


def part_of(kernel: str) -> str:
    """The part of a routing's program that has a kernel."""
    return "forward" if kernel in _FORWARD else "backward"


@lru_cache(maxsize=1)
def _compilers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="matcaps-nvrtc")


def _keep(path: Path, content: bytes) -> None:
    """Write a whole file or none; if the folder cannot be written to, the next process only compiles again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)
    except OSError:
        pass


class Program:
    """The kernels of a routing on one device. Forward and backward are compiled separately, when first needed.

    Args:
        shape: its geometry.
        cut: how its work is cut.
        device: whose current stream kernels go to.
    """

    def __init__(self, shape: Shape, cut: Cut, device: torch.device) -> None:
        self._sizes = shape, cut
        self._device = device
        self._codes: dict[str, Future[bytes]] = {}
        self._modules: dict[str, object] = {}
        self._functions: dict[tuple[str, int], object] = {}

    def prepare(self, part: str) -> None:
        """Start compiling ``"forward"`` or ``"backward"`` in a background thread."""
        with _lock:
            if part not in self._codes:
                major, minor = torch.cuda.get_device_capability(self._device)
                self._codes[part] = _compilers().submit(machine_code, *self._sizes, f"sm_{major}{minor}", part)

    def _module(self, part: str) -> object:
        module = self._modules.get(part)
        if module is None:
            self.prepare(part)
            try:
                code = self._codes[part].result()
            except BaseException:
                with _lock:
                    self._codes.pop(part, None)  # so that the next call tries again
                raise
            module = self._modules[part] = _check(driver.cuModuleLoadData(code), "loading the kernels")
        return module

    def function(self, name: str, shared: int) -> object:
        """A kernel that may have so many bytes of shared memory."""
        function = self._functions.get((name, shared))
        if function is None:
            function = _check(
                driver.cuModuleGetFunction(self._module(part_of(name)), name.encode()), f"looking {name} up"
            )
            if shared > 48 * 1024:
                attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                _check(driver.cuFuncSetAttribute(function, attribute, shared), f"giving {name} its shared memory")
            self._functions[name, shared] = function
        return function

    def resources(self, name: str) -> dict[str, int]:
        """Registers of a thread, and bytes that it spills."""
        function = self.function(name, 0)
        attributes = driver.CUfunction_attribute
        wanted = {
            "registers": attributes.CU_FUNC_ATTRIBUTE_NUM_REGS,
            "spilled": attributes.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
        }
        return {key: int(_check(driver.cuFuncGetAttribute(at, function), "asking")) for key, at in wanted.items()}  # type: ignore[call-overload]

    def launch(self, name: str, arguments: Arguments, grid: tuple[int, int, int], threads: int, shared: int) -> None:
        """Start a kernel on the device's current stream."""
        function = self.function(name, shared)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        pointer = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        _check(
            driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, ctypes.addressof(pointer), 0),
            f"starting {name}",
        )


@lru_cache(maxsize=1024)
def _program(shape: Shape, cut: Cut, index: int) -> Program:
    return Program(shape, cut, torch.device("cuda", index))


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block can have on a device."""
    return _shared_limit(_index(device))


@lru_cache(maxsize=64)
def _shared_limit(index: int) -> int:
    _check(driver.cuInit(0), "starting CUDA")
    attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    device = _check(driver.cuDeviceGet(index), "finding the GPU")
    return int(_check(driver.cuDeviceGetAttribute(attribute, device), "asking the GPU"))  # type: ignore[call-overload]


def program_for(shape: Shape, cut: Cut, device: torch.device) -> Program:
    """The kernels of a routing on a device; each part is compiled or read from the cache when first needed."""
    index = _index(device)
    _make_context_current(index)
    return _program(shape, cut, index)


@lru_cache(maxsize=64)
def _context(index: int) -> object:
    _check(driver.cuInit(0), "starting CUDA")
    return _check(
        driver.cuDevicePrimaryCtxRetain(_check(driver.cuDeviceGet(index), "finding the GPU")), "using the GPU"
    )


def _make_context_current(index: int) -> None:
    """Use torch's own context: a thread that has not yet used the GPU, such as autograd's, has none."""
    torch.cuda.init()
    _check(driver.cuCtxSetCurrent(_context(index)), "using the GPU")
