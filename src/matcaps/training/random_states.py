"""The states of a process's random numbers, as plain values and tensors for a checkpoint."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of torch, numpy and Python in this process, and of its GPU if ``device`` is one.

    matcaps itself draws from torch's alone; a callback may use the others.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, next_gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": next_gauss},
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set the states that :func:`random_states` gave; those that are missing stay as they are."""
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "numpy" in states:
        np.random.set_state(_of_numpy(states["numpy"]))
    if "python" in states:
        random.setstate(_of_python(states["python"]))
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def check_random_states(states: Mapping[str, Any]) -> None:
    """Raise what setting these states would raise, and set nothing.

    Raises:
        LookupError, RuntimeError, TypeError, ValueError: a state is damaged.
    """
    if "torch" in states:
        torch.Generator().set_state(states["torch"])
    if "numpy" in states:
        np.random.RandomState().set_state(_of_numpy(states["numpy"]))
    if "python" in states:
        random.Random().setstate(_of_python(states["python"]))


def _of_numpy(state: Mapping[str, Any]) -> tuple[str, Any, int, int, float]:
    keys = state["keys"].numpy().astype(np.uint32)
    return "MT19937", keys, state["position"], state["has_gauss"], state["gauss"]


def _of_python(state: Mapping[str, Any]) -> tuple[int, tuple[int, ...], float | None]:
    return state["version"], tuple(state["words"].tolist()), state["gauss"]
