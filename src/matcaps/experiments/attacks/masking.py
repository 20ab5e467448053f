"""Signs that a network only hides its gradient, so that gradient-based attacks prove nothing.

Athalye, Carlini and Wagner (2018, section 3.1) and Carlini et al. (2019, section 3) list them: one step does better
than many, transfer better than the white box, search better than gradients; a large ε does not suffice; a larger ε does
not help. Here they are numbers. A sign means that the accuracy under the attack does not measure robustness; the
absence of signs does not prove robustness.
"""

from collections.abc import Sequence
from typing import Any

NOTABLE_DIFFERENCE = 0.05
"""Differences of accuracy up to this, or of one image, count as chance. This is our choice; there is no published
value."""

Curves = dict[str, dict[str, dict[str, list[float]]]]


def masking_checks(
    epsilons: Sequence[float],
    curves: Curves,
    num_images: int,
    strong: dict[str, Any],
    gradients: dict[str, dict[str, float]],
    is_source: bool,
) -> dict[str, dict[str, Any]]:
    """Compare the accuracies under the attacks.

    Args:
        epsilons: the ε of the curves.
        curves: ``curves[attack][aim][box]``, accuracies, one for each ε.
        num_images: images per accuracy.
        strong: the record of the stronger attacks, with ``num_images``, ``epsilons``, ``accuracy`` by attack and ε,
            and ``large_epsilon``.
        gradients: the record of the gradients by objective.
        is_source: whether the network is the one that made the black box's images.

    Returns:
        By name a dict of ``value``, the measured value (None if there was nothing to compare); ``threshold``, above
        which it is a sign; ``sign_of_masking``, whether it is; ``why``, a sentence.
    """
    bim = curves["bim"]["untargeted"]["white_box"]
    accuracy, strong_epsilons = strong["accuracy"], strong["epsilons"]
    few, many = (max(NOTABLE_DIFFERENCE, 1 / count) for count in (strong["num_images"], num_images))

    zero = gradients["loss"]["zero_images"]
    checks = {
        "zero_gradient": _check(
            zero, 0.01, f"the loss has a gradient of exactly 0, so no direction, for {zero:.0%} of the images"
        ),
        "one_step_beats_many": _compare(
            epsilons, bim, curves["fgsm"]["untargeted"]["white_box"], many, "BIM", "FGSM, its single step,"
        ),
        "accuracy_rises_with_epsilon": _rise(epsilons, bim, many),
    }
    if is_source:
        checks["transfer_beats_white_box"] = _check(None, many, "the network made the black box's images itself")
    else:
        boxes = [
            _compare(
                epsilons, box["white_box"], box["black_box"], many, f"{name.upper()} in the white box", "its transfer"
            )
            for name, box in ((name, curves[name]["untargeted"]) for name in curves)
        ]
        checks["transfer_beats_white_box"] = max(boxes, key=lambda check: check["value"])
    for name, weaker, stronger in (
        ("logits_beat_loss", "bim", "pgd"),
        ("square_beats_bim", "bim", "square"),
        ("square_beats_pgd", "pgd", "square"),
        ("noise_beats_pgd", "pgd", "noise"),
    ):
        checks[name] = _compare(
            strong_epsilons, accuracy[weaker], accuracy[stronger], few, _NAMES[weaker], _NAMES[stronger]
        )
    remaining = strong["large_epsilon"]["pgd"]
    checks["large_epsilon"] = _check(
        remaining,
        0.0,
        f"PGD on logits leaves {remaining:.0%} right at ε = {strong['large_epsilon']['epsilon']:g}, where nothing "
        "should be",
    )
    return checks


_NAMES = {
    "bim": "BIM on the loss",
    "pgd": "PGD on logits",
    "square": "the square attack, without a gradient,",
    "noise": "random noise",
}


def _check(value: float | None, threshold: float, why: str) -> dict[str, Any]:
    sign = value is not None and value > threshold
    return {"value": value, "threshold": threshold, "sign_of_masking": sign, "why": why}


def _compare(
    epsilons: Sequence[float],
    weaker: list[float],
    stronger: list[float],
    threshold: float,
    weaker_name: str,
    stronger_name: str,
) -> dict[str, Any]:
    """The largest difference over ε between the accuracies under the first and the second attack."""
    differences = [round(a - b, 10) for a, b in zip(weaker, stronger, strict=True)]
    attacked = [i for i, epsilon in enumerate(epsilons) if epsilon > 0] or [0]
    value, i = max((differences[i], i) for i in attacked)  # if several are equal, the largest ε
    return _check(
        value,
        threshold,
        f"at ε = {epsilons[i]:g} {weaker_name} leaves {weaker[i]:.0%} right and {stronger_name} {stronger[i]:.0%}",
    )


def _rise(epsilons: Sequence[float], accuracies: list[float], threshold: float) -> dict[str, Any]:
    """The largest rise of accuracy from a smaller ε to a larger one."""
    rises = [(0.0, 0, 0)]
    for i in range(1, len(accuracies)):
        least = min(range(i), key=accuracies.__getitem__)
        rises.append((round(accuracies[i] - accuracies[least], 10), least, i))
    value, least, i = max(rises, key=lambda rise: rise[0])
    if value <= 0:
        return _check(0.0, threshold, "what BIM leaves right never rises with ε")
    return _check(
        value,
        threshold,
        f"BIM leaves {accuracies[least]:.0%} right at ε = {epsilons[least]:g} and {accuracies[i]:.0%} at "
        f"ε = {epsilons[i]:g}",
    )
