"""The square attack: an adversarial attack that uses only class scores."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from matcaps.data.random import make_keys, uniform
from matcaps.experiments.attacks.objectives import margins_of, prepared
from matcaps.experiments.attacks.space import SQUARE, Bounds, check_attack, check_whole, image_numbers, project

# When the squares are halved, in ten-thousandths of the queries (Andriushchenko et al. 2020, section 4).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@torch.no_grad()
def square_attack(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    bounds: Bounds,
    *,
    num_queries: int = 500,
    initial_share: float = 0.8,
    targets: Tensor | None = None,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Random squares of ±ε, kept if they help; uses only class scores (Andriushchenko et al. 2020, L∞).

    The first query is the image itself, which stays unchanged if it is misclassified; the second is a pattern of
    vertical stripes; each later one is a square in one random colour of {−ε, ε}. If a square would change nothing, its
    colours are inverted, so that no query is wasted (the authors draw again). Squares shrink with time.

    Args:
        num_queries: how often the network may be run on one image.
        initial_share: share of the image that the first squares cover; 0.8 as in AutoAttack (Croce and Hein 2020).
        seed: of stripes and squares.
        indices: ``[B]`` integers that identify the images; None: 0, 1, ....

    The other arguments, the result and the errors are as in :func:`matcaps.experiments.attacks.fgsm`; the
    objective is the margin between class logits, for capsules in float64.
    """
    low, high = check_attack(images, labels, epsilon, bounds, targets, "logits")
    check_whole("num_queries", num_queries, 2)
    if not 0 < initial_share <= 1:
        raise ValueError(f"initial_share must lie above 0 and at most at 1; got {initial_share}")
    channels, height, width = images.shape[1:]
    keys = make_keys(seed, SQUARE, image_numbers(images, indices))
    rows_of_pixels = torch.arange(height, device=images.device)[:, None]
    columns_of_pixels = torch.arange(width, device=images.device)

    def signs(values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.where(values < 0.5, -1.0, 1.0)).to(images).reshape(-1, *shape)

    with prepared(network, images, "logits") as net:
        best, margins = images.clone(), margins_of(net, images, labels, targets)
        stripes = signs(uniform(keys[:, None], np.arange(channels * width)), (channels, 1, width))
        rows = (margins <= 0).nonzero().flatten()
        if len(rows):
            best[rows] = project(images + epsilon * stripes, images, epsilon, low, high)[rows]
            margins[rows] = margins_of(net, best[rows], labels[rows], None if targets is None else targets[rows])
        for query in range(2, num_queries):
            rows = (margins <= 0).nonzero().flatten()
            if not len(rows):
                break
            side = _square_side(initial_share, query / num_queries, height, width)
            draws = channels * width + (query - 2) * (2 + channels) + np.arange(2 + channels)
            values = uniform(keys[rows.cpu().numpy(), None], draws)
            places = torch.from_numpy(values[:, :2] * [height - side + 1, width - side + 1]).long().to(images.device)
            top, left = places.T[:, :, None, None, None]
            inside = (rows_of_pixels >= top) & (rows_of_pixels < top + side)
            inside = inside & (columns_of_pixels >= left) & (columns_of_pixels < left + side)
            colours = signs(values[:, 2:], (channels, 1, 1))
            around = images[rows], epsilon, low[rows], high[rows]
            proposal = torch.where(inside, project(images[rows] + epsilon * colours, *around), best[rows])
            inverted = torch.where(inside, project(images[rows] - epsilon * colours, *around), best[rows])
            wasted = (proposal == best[rows]).flatten(1).all(dim=1)
            proposal = torch.where(wasted[:, None, None, None], inverted, proposal)
            proposed = margins_of(net, proposal, labels[rows], None if targets is None else targets[rows])
            better = proposed > margins[rows]
            best[rows[better]], margins[rows[better]] = proposal[better], proposed[better]
    return best


def _square_side(initial_share: float, progress: float, height: int, width: int) -> int:
    """Side of the squares, in pixels, after a share ``progress`` of the queries."""
    share = initial_share / 2 ** sum(progress * 10_000 > place for place in _HALVINGS)
    return min(max(1, round(math.sqrt(share * height * width))), height, width)
