"""Does a pose turn as a toy turns? One linear map for a turn of 20°, fitted on some views, judged on others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matcaps.capsules import POSE_COMPONENTS
from matcaps.data import ImageDataset
from matcaps.inspect.probe import PENALTIES, principal_components

STEP = 2
"""A turn of 20° in smallNORB's labels, tens of degrees."""

CIRCLE = 36
_FEWEST = 32  # pairs to fit on: a map of sixteen numbers to sixteen has 256


@dataclass(frozen=True, eq=False)
class TurnProbe:
    """How much of the change that a turn of 20° makes in features one linear map foretells, toy by toy.

    A share of 1 means that the map foretells the features of the turned toy; 0, that it does no better than to say that
    nothing changes; below 0, worse.

    Attributes:
        features: the names of the features.
        linear: ``[features]``, the share with a map of all numbers to all and an offset, over all toys.
        linear_by_toy: ``[features, toys]``.
        left: ``[features]``, the share with one 4×4 matrix that multiplies the pose from the left, as a change of the
            viewpoint does in the votes' equation; NaN for features that are no poses.
        left_by_toy: ``[features, toys]``.
        toys: ``[toys, 2]``, int64: each toy's class and instance.
        num_fit: pairs of views that the maps were fitted on, all toys together.
        num_test: pairs that they were judged by: views of other elevations.
    """

    features: tuple[str, ...]
    linear: Tensor
    linear_by_toy: Tensor
    left: Tensor
    left_by_toy: Tensor
    toys: Tensor
    num_fit: int
    num_test: int

    def to_dict(self) -> dict[str, Any]:
        """All values in a form that JSON can hold."""
        return {
            "degrees": 10 * STEP,
            "share_of_change": {
                name: {
                    "linear": float(self.linear[row]),
                    "linear by toy": self.linear_by_toy[row].tolist(),
                    **(
                        {}
                        if self.left[row].isnan()
                        else {"left 4x4": float(self.left[row]), "left 4x4 by toy": self.left_by_toy[row].tolist()}
                    ),
                }
                for row, name in enumerate(self.features)
            },
            "toys": self.toys.tolist(),
            "num_fit": self.num_fit,
            "num_test": self.num_test,
        }


def turn_probe(
    features: Mapping[str, Tensor], dataset: ImageDataset, *, poses: tuple[str, ...] = ("pose",)
) -> TurnProbe:
    """Fit, for each toy, one map from a view's features to those of the view 20° further round; judge it elsewhere.

    A pair of views has one toy, elevation and lighting. Maps are fitted by ridge regression on every other elevation,
    beginning with the lowest, and judged on those between; the penalty is chosen within the views fitted on, one
    elevation left out at a time. Other features than poses are reduced to sixteen numbers by the principal components
    of the views fitted on, so that all maps have as many numbers.

    Args:
        features: by name, ``[N, F]``, one row for each image of the data set; of poses F = 16.
        dataset: smallNORB, with the attributes ``instance``, ``elevation``, ``azimuth`` and ``lighting``.
        poses: the names of those features that are 4×4 poses, rows first.

    Raises:
        ValueError: the labels are missing, the rows do not fit, or too few views have one 20° further round.
    """
    for name in ("instance", "elevation", "azimuth", "lighting"):
        if name not in dataset.attributes or not bool((dataset.attributes[name] >= 0).all()):
            raise ValueError(f"dataset must have known {name}; {dataset.name}'s {dataset.split} part has not")
    for name, values in features.items():
        is_pose = name in poses
        if values.ndim != 2 or len(values) != len(dataset) or (is_pose and values.shape[1] != POSE_COMPONENTS):
            wanted = f"[{len(dataset)}, {POSE_COMPONENTS if is_pose else 'F'}]"
            raise ValueError(f"features {name!r} must have shape {wanted}; got {list(values.shape)}")
    before, after = _pairs(dataset)
    toy = dataset.labels * 1000 + dataset.attributes["instance"]
    elevation = dataset.attributes["elevation"]
    known = toy[before].unique().tolist()
    shape = len(features), len(known)
    errors = {kind: torch.full(shape, torch.nan, dtype=torch.float64) for kind in ("linear", "left")}
    changes = torch.zeros(shape, dtype=torch.float64)
    num_fit = num_test = 0
    for column, which in enumerate(known):
        own = toy[before] == which
        first, second = before[own], after[own]
        fit = elevation[first] % 2 == 0
        if int(fit.sum()) < _FEWEST or int((~fit).sum()) < 1:
            label, instance = divmod(which, 1000)
            raise ValueError(
                f"toy {instance} of class {dataset.classes[label]!r} must have {_FEWEST} pairs of views 20° apart at "
                f"even elevations and some at odd ones; got {int(fit.sum())} and {int((~fit).sum())}: take all images"
            )
        num_fit, num_test = num_fit + int(fit.sum()), num_test + int((~fit).sum())
        groups = elevation[first][fit]
        for row, (name, values) in enumerate(features.items()):
            values = values.double()
            _, both = principal_components(
                values[first[fit]], torch.cat([values[first], values[second]]), POSE_COMPONENTS
            )
            here, there = both.chunk(2)
            changes[row, column] = (there - here)[~fit].square().sum()
            kinds = {"linear": (here, there), **({"left": (_columns(here), _columns(there))} if name in poses else {})}
            for kind, (x, y) in kinds.items():
                repeat = len(x) // len(here)  # four columns a pose
                rows = fit.repeat_interleave(repeat)
                found = _map(x[rows], y[rows], groups.repeat_interleave(repeat), offset=kind == "linear")
                errors[kind][row, column] = (found(x[~rows]) - y[~rows]).square().sum()
    return TurnProbe(
        features=tuple(features),
        linear=1 - errors["linear"].sum(1) / changes.sum(1),
        linear_by_toy=1 - errors["linear"] / changes,
        left=1 - errors["left"].sum(1) / changes.sum(1),
        left_by_toy=1 - errors["left"] / changes,
        toys=torch.tensor([divmod(which, 1000) for which in known]),
        num_fit=num_fit,
        num_test=num_test,
    )


def _pairs(dataset: ImageDataset) -> tuple[Tensor, Tensor]:
    """Places of views, and of the views of the same toy, elevation and lighting 20° further round."""
    names = ("instance", "elevation", "lighting", "azimuth")
    rows = torch.stack([dataset.labels, *(dataset.attributes[name] for name in names)], 1).tolist()
    places = {tuple(row): place for place, row in enumerate(rows)}
    found = [
        (place, places[turned])
        for *rest, azimuth in rows
        for place in [places[*rest, azimuth]]
        if (turned := (*rest, (azimuth + STEP) % CIRCLE)) in places
    ]
    pairs = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _columns(poses: Tensor) -> Tensor:
    """Each pose's four columns as rows: ``[N, 16]`` to ``[4 N, 4]``. A matrix from the left maps each by itself."""
    return poses.unflatten(1, (4, 4)).transpose(1, 2).flatten(0, 1)


def _map(x: Tensor, y: Tensor, groups: Tensor, *, offset: bool) -> Any:
    """The ridge regression of y on x, whose penalty leaves out one group at a time; towards no change."""
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for group in groups.unique():
        out = groups == group
        if out.all():
            continue
        for place, penalty in enumerate(PENALTIES):
            errors[place] += (_ridge(x[~out], y[~out], penalty, offset=offset)(x[out]) - y[out]).square().sum()
    return _ridge(x, y, PENALTIES[int(errors.argmin())], offset=offset)


def _ridge(x: Tensor, y: Tensor, penalty: float, *, offset: bool) -> Any:
    mean_x, mean_y = (x.mean(0), y.mean(0)) if offset else (torch.zeros_like(x[0]), torch.zeros_like(y[0]))
    centred, change = x - mean_x, (y - mean_y) - (x - mean_x)  # what is penalised is the change
    gram = centred.T @ centred / len(x)
    scale = gram.diagonal().mean().clamp_min(1e-12)
    solved = torch.linalg.solve(
        gram + penalty * scale * torch.eye(len(gram), dtype=gram.dtype), centred.T @ change / len(x)
    )
    return lambda other: mean_y + (other - mean_x) + (other - mean_x) @ solved
