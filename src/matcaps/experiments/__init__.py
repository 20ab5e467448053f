"""Experiments: each a function from networks and data to a record, plain values that JSON can hold."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.experiments.attack_settings import AttackSettings

if TYPE_CHECKING:
    from matcaps.experiments.attack_images import input_bounds
    from matcaps.experiments.attack_methods import bim, fgsm, pgd, random_noise
    from matcaps.experiments.attack_square import square_attack
    from matcaps.experiments.attacks import attack_networks

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("bim", "fgsm", "pgd", "random_noise"), f"{__name__}.attack_methods"),
        "square_attack": f"{__name__}.attack_square",
        "attack_networks": f"{__name__}.attacks",
        "input_bounds": f"{__name__}.attack_images",
    },
)

__all__ = [
    "AttackSettings",
    "attack_networks",
    "bim",
    "fgsm",
    "input_bounds",
    "pgd",
    "random_noise",
    "square_attack",
]
