"""What measures of agreement say, in sentences that follow from the numbers and claim nothing else."""

import itertools
from collections.abc import Sequence

from matcaps.inspection.agreement import RoutingAgreement
from matcaps.inspection.contrast import VoteContrast

_NOTICEABLE = 0.05
"""Part by which a distance or a share must differ to be said to."""


def agreement_in_words(measured: RoutingAgreement) -> list[str]:
    """Whether routing brings the true class's votes together and gives it data; the judgement first, then why.

    Example:
        >>> from matcaps import create_model
        >>> from matcaps.data.loader import Batch
        >>> import torch
        >>> from matcaps.inspection import routing_agreement
        >>> batch = Batch(torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 0]), torch.arange(4))
        >>> found = routing_agreement(create_model("quickstart", in_channels=1, num_classes=3, iterations=1), [batch])
        >>> agreement_in_words(found)[0]
        'With one iteration nothing is routed: every class has the same data'
    """
    return measures_in_words(
        measured.share_true, measured.log_deviation_gap, measured.nearest_is_true, measured.changed[1:], measured.chance
    )


def measures_in_words(
    share_true: Sequence[float],
    log_deviation_gap: Sequence[float],
    nearest_is_true: Sequence[float],
    changed: Sequence[float],
    chance: float,
) -> list[str]:
    """:func:`agreement_in_words` of the numbers alone; ``changed`` from the second iteration on."""
    if len(share_true) == 1:
        return ["With one iteration nothing is routed: every class has the same data"]
    end, gap = share_true[-1], log_deviation_gap[-1]
    gains = _rises(share_true) and end > chance * (1 + _NOTICEABLE)
    tightens = _rises([-one for one in log_deviation_gap]) and gap < 0
    if gains and tightens:
        judgement = "Routing gives the true class data and brings its votes together, with every iteration"
    elif gains:
        judgement = "Routing gives the true class data, but does not bring its votes together with every iteration"
    elif tightens:
        judgement = "Routing brings the true class's votes together, but does not give it data with every iteration"
    else:
        judgement = "Routing neither gives the true class data nor brings its votes together with every iteration"
    if gains:
        of_share = "it gains with every iteration"
    elif end > chance * (1 + _NOTICEABLE):
        of_share = "it ends with more than chance"
    elif end < chance * (1 - _NOTICEABLE):
        of_share = "it ends with less than chance"
    else:
        of_share = "it ends with about what chance gives"
    if tightens:
        of_gap = "they are closer together with every iteration"
    elif gap < 0:
        of_gap = "they end closer together than the others', but not by coming closer with every iteration"
    else:
        of_gap = "they end no closer together than the others'"
    sentences = [
        judgement,
        f"The true class's share of the data by iteration is {arrows(share_true, 100)} % (chance "
        f"{100 * chance:.3g} %): {of_share}",
        f"ln σ of its votes, less that of the others', is {arrows(log_deviation_gap)}: {of_gap}",
        f"Its votes lie nearest to their mean on {arrows(nearest_is_true, 100)} % of the images (chance "
        f"{100 * chance:.3g} %)",
    ]
    if changed:
        sentences.append(f"From one iteration to the next {arrows(changed, 100)} % of the answers change")
    return sentences


def contrast_in_words(found: VoteContrast) -> str:
    """How far the votes for the true class and for the wrong one lie from their mean, and whether they come closer."""
    number = found.num_images
    images = "on one image" if number == 1 else f"mean of {number} images"
    said = [f"Distance of votes to their mean by iteration, in pose units, {images}"]
    for place, weighed in enumerate(("weighed by assignment", "weighed by assignment × activation")):
        true, wrong = found.mean_distance[place].tolist()
        said.append(
            f"{weighed}: {arrows(true)} for the true class, which {_moves(true)}, and {arrows(wrong)} for the wrong "
            f"class with most data, which {_moves(wrong)}"
        )
    nearer = found.true_is_nearer[1].tolist()
    if number > 1:
        said.append(f"the true class's distance is the smaller on {arrows(nearer, 100)} % of the images")
    return "; ".join(said)


def arrows(values: Sequence[float], factor: float = 1.0) -> str:
    """Numbers by iteration: ``"20 → 30.8 → 59"``."""
    return " → ".join(f"{factor * value:.3g}".replace("-", "−") for value in values)


def _rises(values: Sequence[float]) -> bool:
    return all(after > before for before, after in itertools.pairwise(values))


def _moves(distances: Sequence[float]) -> str:
    """What votes do from the first iteration to the last."""
    if len(distances) == 1:
        return "has one iteration alone"
    change = distances[-1] / max(distances[0], 1e-20) - 1
    if not abs(change) >= _NOTICEABLE:  # NaN, too
        return "hardly changes"
    if change > 0:
        return f"ends {100 * change:.0f} % farther"
    steady = " with every iteration" if _rises([-one for one in distances]) else ""
    return f"comes {-100 * change:.0f} % closer{steady and ',' + steady}"
