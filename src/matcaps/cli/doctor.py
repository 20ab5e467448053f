"""What an installation has, and what it lacks."""

import importlib.metadata
import platform
from pathlib import Path

import torch

import matcaps
from matcaps.data import data_root
from matcaps.data.files import missing_files
from matcaps.routing import cuda, native, resolve_implementation

_PACKAGES = ("lightning", "torchmetrics", "safetensors", "huggingface_hub", "tensorboard", "jsonargparse")


def examine(root: str | None = None) -> dict[str, str]:
    """Return findings by name, each one line for people.

    Args:
        root: folder that holds the data sets.
    """
    findings = {
        "matcaps": f"{matcaps.__version__} in {Path(matcaps.__file__).parent}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
    }
    for package in _PACKAGES:
        try:
            findings[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            findings[package] = f"missing: pip install {package}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        findings["gpu"] = f"{', '.join(names)} (CUDA {torch.version.cuda})"
    else:
        findings["gpu"] = "none that torch can use"
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        findings[f"routing on {device}"] = resolve_implementation(device, torch.float32)
    findings["compiled core"] = native.describe()
    findings["CUDA kernels"] = _describe_cuda_kernels()
    findings["data root"] = str(data_root(root))
    for name in ("mnist", "fashion-mnist", "smallnorb"):
        missing = missing_files(name, root)
        findings[name] = f"{len(missing)} files missing: matcaps data fetch {name}" if missing else "there"
    return findings


def _describe_cuda_kernels() -> str:
    reason = cuda.why_not(torch.device("cuda"))
    if reason is not None:
        return f"cannot be compiled: {reason}"
    from matcaps.routing import cuda_program

    folder = cuda_program.cache_folder()
    kept = len(list(folder.glob("*.cubin"))) if folder.is_dir() else 0
    return f"compiled when first used, by NVRTC {cuda_program.nvrtc_version()}; {kept} kept in {folder}"
