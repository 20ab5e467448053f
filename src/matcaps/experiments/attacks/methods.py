"""Adversarial attacks in the L∞ norm: FGSM, BIM and PGD, and random noise for comparison.

Each takes a network's input images and returns images of the same shape, dtype and device, in which no value differs
by more than ``epsilon`` or is outside ``bounds``. The network's parameters get no gradient, its mode stays
unchanged, and no global random state is used: random numbers depend on the seed and the image's index.
"""

from torch import Tensor, nn

from matcaps.data.random import make_keys
from matcaps.experiments.attacks.objectives import margins_and_gradients, margins_of, prepared
from matcaps.experiments.attacks.space import (
    NOISE,
    PGD,
    Bounds,
    check_attack,
    check_space,
    check_whole,
    image_numbers,
    project,
    uniform_noise,
)


def fgsm(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: Bounds,
    *,
    targets: Tensor | None = None,
    objective: str = "loss",
) -> Tensor:
    """One step of size ε along the sign of the gradient (Goodfellow, Shlens and Szegedy 2015).

    The spread loss and its gradient are 0 where the margin is met: such images are returned unchanged. The
    objective ``"logits"`` has no such hinge.

    Args:
        network: gives :class:`~matcaps.Capsules` or logits ``[B, classes]``.
        images: ``[B, C, H, W]``, floating point, as the network takes them.
        labels: ``[B]``, int64, the true classes.
        epsilon: largest change of a value, in units of the network's input.
        bounds: lowest and highest valid input, each broadcastable to ``images``; see
            :func:`matcaps.experiments.attacks.input_bounds`.
        targets: ``[B]``, int64: the classes that the network should predict; None: any wrong class.
        objective: ``"loss"`` increases the loss that such a network is trained with, the spread loss with margin 0.9 or
            the cross-entropy; ``"logits"`` increases the margin between class logits, for capsules in float64.

    Returns:
        ``[B, C, H, W]``, the adversarial images.

    Raises:
        ValueError: shapes, ε, bounds or objective do not fit.
        TypeError: images or classes have the wrong dtype.
        RuntimeError: the gradient is not finite.
    """
    return bim(
        network, images, labels, epsilon, bounds, num_steps=1, step_size=epsilon, targets=targets, objective=objective
    )


def bim(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: Bounds,
    *,
    num_steps: int = 10,
    step_size: float | None = None,
    targets: Tensor | None = None,
    objective: str = "loss",
) -> Tensor:
    """Several smaller steps along the sign of the gradient, each clipped to the ball (Kurakin et al. 2017).

    Args:
        num_steps: number of gradient steps.
        step_size: None for ``1.25·ε/num_steps``: Kurakin et al. take 1.25·ε steps of one grey level, so that an image
            reaches the edge of the ball even if a fifth of the steps is lost.

    The other arguments, the result and the errors are as in :func:`fgsm`.
    """
    low, high = check_attack(images, labels, epsilon, bounds, targets, objective)
    check_whole("num_steps", num_steps, 1)
    step_size = 1.25 * epsilon / num_steps if step_size is None else step_size
    current = images.detach().clone()
    with prepared(network, images, objective) as net:
        for _ in range(num_steps):
            _, gradient = margins_and_gradients(net, current, labels, targets, objective)
            current = project(current + step_size * gradient.sign().to(images), images, epsilon, low, high)
    return current


def pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: Bounds,
    *,
    num_steps: int = 20,
    num_restarts: int = 2,
    step_size: float | None = None,
    random_start: bool = True,
    targets: Tensor | None = None,
    objective: str = "logits",
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent from random starts, keeping each image's first success (Madry et al. 2018).

    An image is finished as soon as it is misclassified (or its target is predicted), at once if it is misclassified
    unchanged. For other images, the result is the image with the best margin (Carlini and Wagner 2017) of all steps.

    Args:
        num_steps: number of gradient steps from one start.
        num_restarts: number of starts.
        step_size: None for ``2.5·ε/num_steps``, so that steps can reach the far side of the ball (Madry et al.).
        random_start: whether to start at a random point of the ball, or at the image.
        seed: of the starts.
        indices: ``[B]`` integers that identify the images, so that an image's starts do not depend on the batch it
            is in; None: 0, 1, ....

    The other arguments, the result and the errors are as in :func:`fgsm`.
    """
    low, high = check_attack(images, labels, epsilon, bounds, targets, objective)
    check_whole("num_steps", num_steps, 1)
    check_whole("num_restarts", num_restarts, 1)
    step_size = 2.5 * epsilon / num_steps if step_size is None else step_size
    numbers = image_numbers(images, indices)
    with prepared(network, images, objective) as net:
        best = images.detach().clone()
        best_margins = margins_of(net, best, labels, targets)
        for restart in range(num_restarts):
            rows = (best_margins <= 0).nonzero().flatten()  # the images without success so far
            current = images[rows]
            if random_start:
                noise = uniform_noise(make_keys(seed, PGD + restart, numbers[rows.cpu().numpy()]), current)
                current = project(current + epsilon * noise, current, epsilon, low[rows], high[rows])
            for step in range(num_steps + 1):
                if not len(rows):
                    break
                some_targets = None if targets is None else targets[rows]
                if step == num_steps:
                    margins, gradient = margins_of(net, current, labels[rows], some_targets), None
                else:
                    margins, gradient = margins_and_gradients(net, current, labels[rows], some_targets, objective)
                better = margins > best_margins[rows]
                best[rows[better]], best_margins[rows[better]] = current[better], margins[better]
                if gradient is not None:
                    current = current + step_size * gradient.sign().to(images)
                    current = project(current, images[rows], epsilon, low[rows], high[rows])
                unsolved = best_margins[rows] <= 0
                rows, current = rows[unsolved], current[unsolved]
    return best


def random_noise(
    images: Tensor, epsilon: float, bounds: Bounds, *, seed: int = 0, indices: Tensor | None = None
) -> Tensor:
    """Change every value by −ε or ε at random, as much as FGSM but in a random direction; a control.

    Args:
        images: ``[B, C, H, W]``, floating point.
        epsilon: size of the change.
        bounds: lowest and highest valid input.
        seed: of the signs.
        indices: ``[B]`` integers that identify the images; None: 0, 1, ....
    """
    low, high = check_space(images, epsilon, bounds)
    noise = uniform_noise(make_keys(seed, NOISE, image_numbers(images, indices)), images)
    return project(images + epsilon * (1 - 2 * (noise < 0).to(images)), images, epsilon, low, high)
