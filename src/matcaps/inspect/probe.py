"""A linear probe: how well a linear function of features predicts some targets, on data that it was not fitted on."""

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties to choose from; the features' variance is 1."""


@dataclass(frozen=True, eq=False)
class Probe:
    """The result of :func:`linear_probe`.

    Attributes:
        r_squared: ``[T]``, R² of each target on the test part: 1 − squared error / squared deviation from the test
            part's own mean. 0 is as good as predicting that mean; below 0 is worse.
        squared_error: ``[T]``, summed over the test part.
        squared_deviation: ``[T]``, from the mean, summed over the test part.
        predictions: ``[M, T]``, on the test part.
        penalty: the ridge penalty, chosen on the fit part.
    """

    r_squared: Tensor
    squared_error: Tensor
    squared_deviation: Tensor
    predictions: Tensor
    penalty: float


def linear_probe(
    fit_features: Tensor,
    fit_targets: Tensor,
    test_features: Tensor,
    test_targets: Tensor,
    *,
    groups: Tensor | None = None,
) -> Probe:
    """Fit targets by ridge regression with an intercept, in closed form, and test the fit on other data.

    Features are standardised by the fit part. The penalty is the one of :data:`PENALTIES` with the smallest error in
    a cross-validation within the fit part, one for all targets, each counted in units of its variance.

    Args:
        fit_features: ``[N, F]``.
        fit_targets: ``[N, T]``.
        test_features: ``[M, F]``.
        test_targets: ``[M, T]``.
        groups: ``[N]``, int64: rows of one group, such as one object, are left out together in the
            cross-validation; None for five groups of every fifth row.

    Raises:
        ValueError: a shape does not fit, or a part has fewer than two rows.
    """
    fit_features, test_features = fit_features.double(), test_features.double()
    fit_targets, test_targets = fit_targets.double(), test_targets.double()
    for name, features, targets in (("fit", fit_features, fit_targets), ("test", test_features, test_targets)):
        if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or len(features) < 2:
            raise ValueError(
                f"the {name} part must have features [N, F] and targets [N, T], N at least 2; "
                f"got {list(features.shape)} and {list(targets.shape)}"
            )
    if groups is None or len(groups.unique()) < 2:
        groups = torch.arange(len(fit_features)) % 5
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64)
    scale = fit_targets.var(0, correction=0).clamp_min(1e-12)
    for group in groups.unique():
        left_out = groups == group
        if left_out.all():
            continue
        predictions = _ridge(fit_features[~left_out], fit_targets[~left_out], fit_features[left_out], PENALTIES)
        errors += ((predictions - fit_targets[left_out]) ** 2 / scale).sum((1, 2))
    penalty = PENALTIES[int(errors.argmin())]
    predictions = _ridge(fit_features, fit_targets, test_features, (penalty,))[0]
    squared_error = ((predictions - test_targets) ** 2).sum(0)
    squared_deviation = ((test_targets - test_targets.mean(0)) ** 2).sum(0)
    return Probe(
        r_squared=1 - squared_error / squared_deviation,
        squared_error=squared_error,
        squared_deviation=squared_deviation,
        predictions=predictions,
        penalty=penalty,
    )


def principal_components(fit_features: Tensor, test_features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Project features ``[N, F]`` and ``[M, F]`` on the principal components of the first: ``[N, width]`` and so on.

    Features no wider than ``width`` stay as they are.
    """
    if fit_features.shape[1] <= width:
        return fit_features, test_features
    fit_features, test_features = fit_features.double(), test_features.double()
    mean = fit_features.mean(0)
    spread = fit_features - mean
    _, vectors = torch.linalg.eigh(spread.T @ spread)
    axes = vectors[:, -width:]
    return spread @ axes, (test_features - mean) @ axes


def _ridge(features: Tensor, targets: Tensor, others: Tensor, penalties: tuple[float, ...]) -> Tensor:
    """Predictions ``[penalties, M, T]`` for other features, from one decomposition."""
    mean, deviation = features.mean(0), features.std(0, correction=0)
    deviation = torch.where(deviation > 1e-12, deviation, 1)
    standard, target_mean = (features - mean) / deviation, targets.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(standard.T @ standard / len(features))
    projected = vectors.T @ (standard.T @ (targets - target_mean)) / len(features)
    others = ((others - mean) / deviation) @ vectors
    return torch.stack(
        [others @ (projected / (eigenvalues.clamp_min(0) + penalty)[:, None]) + target_mean for penalty in penalties]
    )
