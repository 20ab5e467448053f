"""Writers that no command reaches without a download or a GPU, as programs in the folder that holds ``run``."""

import hashlib
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from matcaps.cli.endings import report_failed
from matcaps.data.download import fetch as download
from matcaps.data.sources import DataFile, DataSource
from matcaps.models import create_model
from matcaps.routing.cuda_program import _keep


def save() -> int:
    """Save a model over an earlier one."""
    torch.manual_seed(1)
    network = create_model("baseline-cnn", channels1=2, channels2=2, hidden_units=8, num_classes=3)
    return _told(lambda: network.save_pretrained("run", classes=["new", "newer", "newest"]))


def fetch() -> int:
    """Download two files."""
    Path("mirror").mkdir(exist_ok=True)
    files = []
    for name in ("one", "two"):
        content = name.encode() * 100_000
        (Path("mirror") / name).write_bytes(content)
        url = (Path("mirror") / name).resolve().as_uri()
        files.append(DataFile(name, len(content), hashlib.sha256(content).hexdigest(), 0, "", (url,)))
    return _told(lambda: download("small", "run", source=DataSource("small", "", "", tuple(files))))


def cache() -> int:
    """Keep compiled kernels, or go without."""
    return _told(lambda: _keep(Path("run/kernels/one.cubin"), b"kernel" * 1000))


def careless() -> int:
    """Write in place, and print a traceback: what the sweep must not let pass."""
    try:
        with open("run/careless.json", "w", buffering=1) as file:
            file.write('{"numbers": [\n')
            file.write("1]}\n")
    except OSError:
        traceback.print_exc()
        return 1
    return 0


def _told(work: Callable[[], object]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except OSError as error:
        return report_failed("data", error)
    return 0
