"""The numbers of a figure, as files."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from matcaps.models.files import whole_file


def to_arrays(result: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Convert a result (a dataclass or mapping of tensors and plain values) to arrays by dotted name; None is left out.

    Args:
        result: what a function of this package returned.
        prefix: put before each name.
    """
    if isinstance(result, Tensor):
        return {prefix: result.detach().cpu().numpy()}
    if isinstance(result, Mapping):
        items = [(str(name), value) for name, value in result.items()]
    elif isinstance(result, list | tuple) and result and is_dataclass(result[0]):
        items = [(str(place), value) for place, value in enumerate(result)]
    elif is_dataclass(result):
        items = [(field.name, getattr(result, field.name)) for field in fields(result)]
    else:
        return {} if result is None else {prefix: np.asarray(result)}
    arrays: dict[str, np.ndarray] = {}
    for name, value in items:
        arrays |= to_arrays(value, f"{prefix}.{name}" if prefix else name)
    return arrays


def save_arrays(path: Path, result: Any) -> Path:
    """Write a result as a compressed NPZ file, whole or not at all; nothing in it is pickled."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **to_arrays(result))  # type: ignore[arg-type]
    return path
