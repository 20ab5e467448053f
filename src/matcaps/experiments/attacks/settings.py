"""Settings of the experiment with adversarial attacks; imports no torch."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from matcaps._numbers import is_finite


def _check_whole(settings: object, name: str, least: int) -> None:
    value = getattr(settings, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def _is_epsilon(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value) and value >= 0


@dataclass(frozen=True)
class AttackSettings:
    """The attacks' strength and numbers of images.

    The paper gives the attacks and a figure over ε (Hinton et al. 2018, section 5.1), but neither the number of steps
    nor that of images. Every ε is the largest change of a value of the network's input, in the input's own units:
    standard deviations of the image where images are normalised one by one, the full range where they are scaled.

    Args:
        epsilons: the ε of the curves, ascending.
        objective: what FGSM and BIM increase in the curves: "loss", as in the paper, or "logits".
        num_images: images of the curves, evenly over the classes.
        bim_steps: steps of BIM, each of 1.25·ε/steps (the ratio of Kurakin et al. 2017).
        strong_epsilons: the ε of the stronger attacks, ascending, above 0.
        num_strong_images: images of the stronger attacks, evenly over the classes.
        pgd_steps: steps of PGD from one start, each of 2.5·ε/steps (Madry et al. 2018).
        pgd_restarts: random starts of PGD.
        square_queries: how many class scores of one image the square attack may compute.
        large_epsilon: an ε at which a working attack brings the accuracy to 0.
        batch_size: images at a time; changes results only by rounding.
        seed: chooses images, wrong classes, starts and squares.

    Raises:
        ValueError: a value is out of range.
    """

    epsilons: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    objective: Literal["loss", "logits"] = "loss"
    num_images: int = 200
    bim_steps: int = 10
    strong_epsilons: tuple[float, ...] = (0.1, 0.2)
    num_strong_images: int = 50
    pgd_steps: int = 20
    pgd_restarts: int = 2
    square_queries: int = 500
    large_epsilon: float = 2.0
    batch_size: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epsilons", "strong_epsilons"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values or not all(map(_is_epsilon, values)):
                raise ValueError(f"{name} must be one or more finite numbers of at least 0; got {values!r}")
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must ascend; got {values!r}: sort them and remove duplicates")
            object.__setattr__(self, name, tuple(map(float, values)))  # YAML files contain lists
        if not self.strong_epsilons[0] > 0:
            raise ValueError(f"strong_epsilons must be above 0; got {self.strong_epsilons!r}: remove the 0")
        if not (_is_epsilon(self.large_epsilon) and self.large_epsilon > 0):
            raise ValueError(f"large_epsilon must be a finite number above 0; got {self.large_epsilon!r}")
        if self.objective not in ("loss", "logits"):
            raise ValueError(f"objective must be loss or logits; got {self.objective!r}")
        for name in ("num_images", "bim_steps", "num_strong_images", "pgd_steps", "pgd_restarts", "batch_size"):
            _check_whole(self, name, 1)
        _check_whole(self, "square_queries", 2)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ValueError(f"seed must be a whole number; got {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings in a form that JSON and YAML can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
