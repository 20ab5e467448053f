"""Compare errors on novel viewpoints at matched error on familiar ones; imports no torch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class ViewpointErrors(NamedTuple):
    """Errors in per cent after an epoch.

    Attributes:
        epoch: the epoch, from 1.
        familiar: on test objects from viewpoints that were trained on.
        novel: on test objects from other viewpoints.
    """

    epoch: int
    familiar: float
    novel: float


def read_curve(metrics: Sequence[Mapping[str, str]]) -> list[ViewpointErrors]:
    """The errors by epoch from the rows of a run's metrics, of the epochs in which the parts were watched.

    Args:
        metrics: rows with ``epoch``, ``familiar_test/accuracy`` and ``test/accuracy``.
    """
    curve: list[ViewpointErrors] = []
    for row in metrics:
        familiar, novel = row.get("familiar_test/accuracy"), row.get("test/accuracy")
        if familiar and novel:
            curve.append(ViewpointErrors(int(row["epoch"]), 100 * (1 - float(familiar)), 100 * (1 - float(novel))))
    return curve


def match_familiar(curves: Mapping[str, Sequence[ViewpointErrors]]) -> dict[str, ViewpointErrors]:
    """Find the epoch at which each network's error on familiar viewpoints equals that of the others.

    Hinton et al. (2018, section 5) stop the capsules where they match the CNN. Here the error to match is the largest
    final one: the network with that error is compared at its end, and each other at the epoch whose
    error on familiar viewpoints is nearest to it.

    Args:
        curves: by the network's name; none may be empty.

    Returns:
        By the network's name the errors at that epoch.

    Raises:
        ValueError: a curve is empty.
    """
    for name, curve in curves.items():
        if not curve:
            raise ValueError(
                f"curves must have at least one epoch each; {name!r} has none: train it with watched_parts"
            )
    target = max(curve[-1].familiar for curve in curves.values())
    return {name: min(curve, key=lambda one: abs(one.familiar - target)) for name, curve in curves.items()}
