"""Whether files are whole, and whether two folders hold the same, but for what depends on the clock."""

import csv
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from matcaps.training.checkpoint_files import read_checkpoint

_OF_THE_CLOCK = {"train_seconds", "images_per_second", "train/images_per_second", "finished", "seconds"}
_OF_THE_MOMENT = {"command", "commit", "commits"}
"""The command says ``--resume``; git may not answer in time."""


def results(folder: Path) -> Iterator[Path]:
    """A folder's files under their final names, but those that others write bit by bit: TensorBoard and Optuna."""
    for path in sorted(folder.rglob("*")):
        others = path.suffix in (".partial", ".lock", ".log", ".new") or path.name.startswith(("events.", ".run"))
        if path.is_file() and not others:
            yield path


def read(path: Path) -> Any:
    """A file's content, without what depends on the clock; an error if it is not whole."""
    match path.suffix:
        case ".json":
            return _timeless(json.loads(path.read_text(encoding="utf-8")))
        case ".yaml":
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = [_timeless(row) for row in csv.DictReader(file)]
            assert all(None not in row and None not in row.values() for row in rows), "a row is cut"
            return rows
        case ".ckpt":
            return _digest(_timeless(read_checkpoint(path)))
        case ".safetensors":
            return {name: tensor.tolist() for name, tensor in load_file(path).items()}
        case ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "it has no end"
            return None
        case ".png":
            with Image.open(path) as image:
                image.load()
        case ".svg":
            ElementTree.parse(path)
        case ".npz":
            with np.load(path) as arrays:
                return {name: arrays[name].tolist() for name in arrays}
        case ".pt2":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None, "it is damaged"
            return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, Any]:
    """What a folder's files hold, by their names."""
    return {path.relative_to(folder).as_posix(): read(path) for path in results(folder)}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = _OF_THE_CLOCK | _OF_THE_MOMENT
        return {name: _timeless(inner) for name, inner in value.items() if name not in left_out}
    return [_timeless(inner) for inner in value] if isinstance(value, list | tuple) else value


def _digest(value: Any) -> str:
    """A digest of tensors and plain values."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{list(part.shape)}".encode() + part.contiguous().numpy().tobytes())
        elif isinstance(part, dict):
            for name, inner in part.items():
                found.update(repr(name).encode())
                add(inner)
        elif isinstance(part, list):
            found.update(b"[")
            for inner in part:
                add(inner)
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()
