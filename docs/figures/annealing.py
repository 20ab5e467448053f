"""What annealing does to assignments: between two parents, and in a layer of a new network."""

import math

import torch
from matplotlib.figure import Figure

import matcaps
from matcaps.routing import trace_em_routing

from .style import Theme, legend, new

FACTORS = (1.0, 1 / 4, 1 / 16)


def share_of_second(shift: float, annealing: float) -> float:
    """What a child gives to the second of two parents whose votes of it lie ``shift`` deviations from the first's mean.

    Both parents have a Gaussian of deviation 1 in all 16 components, four deviations apart in one of them, and equal
    activations.
    """
    mean = torch.zeros(2, 16)
    mean[1, 0] = 4
    crowd = 2000
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(crowd, 1, 16, generator=generator)
    votes = torch.cat([mean + around, mean[:1].expand(2, 16)[None].clone()])
    votes[-1, :, 0] = shift
    ones = torch.ones(len(votes))
    zeros = torch.zeros(2)
    states = trace_em_routing(votes, ones, zeros, zeros, inverse_temperature=[1e-9, 1e-9], annealing=annealing)
    return float(states[1].assignment[-1, 1])


def largest_assignment(annealing: float) -> float:
    """Mean over children of the largest share that any parent of a window has of them, after one E-step."""
    torch.manual_seed(0)
    network = matcaps.create_model("paper-small", in_channels=2, annealing=annealing, competition="window").eval()
    images = torch.randn(4, 2, 32, 32)
    with torch.no_grad():
        network.calibrate(images)
        children = network.primary_capsules(network.stem(images))
        states = network.conv_capsules1.trace(children)
    return float(states[1].assignment.amax(dim=-1).mean())


def draw(theme: Theme) -> Figure:
    figure, (curve, layer) = new(theme, 1, 2, 2.9)
    shifts = torch.linspace(-4, 8, 49).tolist()
    for factor, colour in zip(FACTORS, theme.colours, strict=False):
        name = f"annealing {'1' if factor == 1 else f'1/{round(1 / factor)}'}"
        curve.plot(shifts, [share_of_second(shift, factor) for shift in shifts], color=colour, label=name)
    curve.set_xlabel("vote, in deviations")
    curve.set_ylabel("share of the parent at 4")
    curve.set_ylim(-0.03, 1.03)
    legend(curve, theme)
    factors = [2.0**-power for power in range(8)]
    layer.plot(
        [-math.log2(factor) for factor in factors],
        [largest_assignment(f) for f in factors],
        "o-",
        color=theme.colours[0],
    )
    layer.axhline(1 / 16, color=theme.faint, linewidth=1, linestyle="--")
    layer.text(0, 1 / 16 + 0.02, "16 equal shares", color=theme.text, fontsize=8)
    layer.set_xticks(range(8))
    layer.set_xticklabels(["1"] + [f"1/{2**power}" for power in range(1, 8)])
    layer.set_ylim(0, 1.03)
    layer.set_xlabel("annealing")
    layer.set_ylabel("largest share, mean")
    return figure
