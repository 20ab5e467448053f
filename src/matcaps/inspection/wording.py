"""What measures of agreement say, in sentences that follow from the numbers and claim nothing else."""

import itertools
from collections.abc import Sequence

from matcaps._numbers import short_number
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
    """Whether votes for the true class come together, and more than those for the wrong one; whether it gains votes."""
    number, changes = found.num_images, []
    said = []
    for place, weighed in enumerate(("weighed by assignment", "weighed by assignment × activation")):
        true, wrong = found.mean_distance[place].tolist()
        changes.append((_change(true), _change(wrong)))
        said.append(
            f"{weighed} {arrows(true)} for the true class ({_moves(true)}) and {arrows(wrong)} for the wrong class "
            f"with most data ({_moves(wrong)})"
        )
    if found.mean_distance.shape[2] == 1:
        judgement = "With one iteration votes cannot come together"
    elif not all(true <= -_NOTICEABLE for true, _ in changes):  # NaN, too
        judgement = "Votes for the true class do not come together"
    elif all(not wrong - true < _NOTICEABLE for true, wrong in changes):
        judgement = "Votes for the true class come together, more than those for the wrong class"
    else:
        judgement = "Votes for the true class come together, but no more than those for the wrong class"
    weight = (found.counts.sum(-1) + found.beyond)[1, 0].tolist()
    held = {1: "gains votes", -1: "loses votes", 0: "keeps as many votes"}[_direction(weight)]
    images = "one image" if number == 1 else f"{number} images"
    sentence = (
        f"{judgement}; the true class {held} ({arrows(weight)} by weight); mean distance on {images} by iteration, in "
        f"pose units: {'; '.join(said)}"
    )
    if number > 1:
        nearer = found.true_is_nearer[1].tolist()
        sentence += f"; the true class's is the smaller of the two on {arrows(nearer, 100)} % of the images"
    return sentence


def arrows(values: Sequence[float], factor: float = 1.0) -> str:
    """Numbers by iteration: ``"20 → 30.8 → 59"``."""
    return " → ".join(short_number(factor * value).replace("-", "−") for value in values)


def _rises(values: Sequence[float]) -> bool:
    return all(after > before for before, after in itertools.pairwise(values))


def _change(values: Sequence[float]) -> float:
    """From the first iteration to the last, as a part of the first."""
    return values[-1] / max(values[0], 1e-20) - 1


def _direction(values: Sequence[float]) -> int:
    """From the first iteration to the last: 1 up, -1 down, 0 neither, or not known."""
    change = _change(values)
    return 1 if change >= _NOTICEABLE else -1 if change <= -_NOTICEABLE else 0


def _moves(distances: Sequence[float]) -> str:
    """What votes do from the first iteration to the last."""
    change, direction = _change(distances), _direction(distances)
    if not direction:
        return "about the same"
    if direction > 0:
        return f"{100 * change:.0f} % farther"
    steady = ", with every iteration" if _rises([-one for one in distances]) else ""
    return f"{-100 * change:.0f} % closer{steady}"
