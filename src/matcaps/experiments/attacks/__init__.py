"""Adversarial attacks, and how well networks withstand them, as a record of plain values."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.experiments.attacks.settings import AttackSettings

if TYPE_CHECKING:
    from matcaps.experiments.attacks.images import input_bounds
    from matcaps.experiments.attacks.methods import bim, fgsm, pgd, random_noise
    from matcaps.experiments.attacks.square import square_attack
    from matcaps.experiments.attacks.suite import attack_networks

_MODULES = {
    "images": ("input_bounds",),
    "methods": ("bim", "fgsm", "pgd", "random_noise"),
    "square": ("square_attack",),
    "suite": ("attack_networks",),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = ["AttackSettings", "attack_networks", "bim", "fgsm", "input_bounds", "pgd", "random_noise", "square_attack"]
