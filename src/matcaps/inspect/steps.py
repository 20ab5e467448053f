"""The EM iterations of one parent: its votes and its Gaussian, projected to a plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from matcaps.data.names import short_name
from matcaps.inspect.access import inspects
from matcaps.inspect.display import Display
from matcaps.inspect.inspection import Inspection
from matcaps.inspect.style import COLOURS, HEAT, new_figure
from matcaps.models import EMCapsNet


@dataclass(frozen=True, eq=False)
class EMSteps:
    """One parent's votes and Gaussian, projected to two dimensions.

    Attributes:
        layer: the parent's layer.
        parent: its type.
        position: row and column of the parent; None for a class capsule, which has none.
        points: ``[N, 2]``, the projected votes, relative to the votes' own centre.
        child_activations: ``[N]``, in [0, 1].
        assignment: ``[T, N]``, in [0, 1], of each child to this parent in each M-step.
        means: ``[T, 2]``, the projected means.
        covariances: ``[T, 2, 2]``, of the projected Gaussians.
        activations: ``[T]``, the parent's.
        masses: ``[T]``, how much data the parent has: assignment times the child's activation, summed.
        explained: ``[2]``, the shares of the votes' variance that lie along the two axes.
        axes: ``[2, 16]``, the two directions in pose space, each of length 1.
    """

    layer: str
    parent: int
    position: tuple[int, int] | None
    points: Tensor
    child_activations: Tensor
    assignment: Tensor
    means: Tensor
    covariances: Tensor
    activations: Tensor
    masses: Tensor
    explained: Tensor
    axes: Tensor


@inspects
def em_steps(
    network: EMCapsNet,
    image: Tensor,
    parent: int,
    *,
    layer: str = "class_capsules",
    position: tuple[int, int] | None = None,
) -> EMSteps:
    """Project one parent's votes on their two principal axes, and its Gaussians with them.

    The axes are those along which the votes spread most, each weighted by its child's activation as the first M-step
    weighs them; they stay the same through all iterations. A Gaussian of 16 independent components is no longer
    aligned with the axes once it is projected.

    Args:
        network: on any device; the results are on the CPU.
        image: ``[1, C, H, W]``, prepared as the network takes it.
        parent: the parent's type; in the class layer, the class.
        layer: a routed layer.
        position: row and column of the parent in a convolutional layer's map.

    Raises:
        ValueError: there is no such layer, parent or position.
    """
    votes, states = network.votes(image, layer), network.trace(image)[layer]
    below = {"conv_capsules1": "primary_capsules", "conv_capsules2": "conv_capsules1"}.get(layer, "conv_capsules2")
    children = network.layer_outputs(image)[below].activations
    if layer == "class_capsules":
        if position is not None:
            raise ValueError(f"position must be None for a class capsule; got {position}")
        place: tuple[int, ...] = (0,)
        activations_N = children.flatten()
    else:
        rows, columns = votes.shape[1:3]
        if position is None or not (0 <= position[0] < rows and 0 <= position[1] < columns):
            raise ValueError(f"position must be a row below {rows} and a column below {columns}; got {position}")
        place = (0, *position)
        convolution = network.get_submodule(layer)
        kernel_size, stride = convolution.weight.shape[0], convolution.stride  # type: ignore[union-attr]
        top, left = stride * position[0], stride * position[1]  # type: ignore[operator]
        activations_N = children[0, top : top + kernel_size, left : left + kernel_size].flatten()
    num_parents = votes.shape[-2]
    if not 0 <= parent < num_parents:
        raise ValueError(f"parent must be from 0 to {num_parents - 1}; got {parent}")
    votes_NP = votes[place][:, parent]
    means_TP, variances_TP, activation_T, mass_T, assignment_TN = (
        torch.stack(values)
        for values in zip(
            *(
                (
                    state.mean[place][parent],
                    state.variance[place][parent],
                    state.activation[place][parent],
                    state.mass[place][parent],
                    state.assignment[place][:, parent],
                )
                for state in states
            ),
            strict=True,
        )
    )
    weights = activations_N / activations_N.sum().clamp_min(1e-20)
    centre = weights @ votes_NP
    spread = votes_NP - centre
    eigenvalues, eigenvectors = torch.linalg.eigh((spread * weights[:, None]).T @ spread)
    axes_2P = eigenvectors[:, [-1, -2]].T
    return EMSteps(
        layer=layer,
        parent=parent,
        position=position,
        points=spread @ axes_2P.T,
        child_activations=activations_N,
        assignment=assignment_TN,
        means=(means_TP - centre) @ axes_2P.T,
        covariances=(axes_2P * variances_TP[:, None, :]) @ axes_2P.T,
        activations=activation_T,
        masses=mass_T,
        explained=eigenvalues[[-1, -2]] / eigenvalues.sum().clamp_min(1e-20),
        axes=axes_2P,
    )


@dataclass(frozen=True, eq=False)
class StepsDisplay(Display):
    """The EM iterations of some parents, and the parents' names."""

    steps: Sequence[EMSteps]
    names: Sequence[str]
    title: str
    caption: ClassVar[str] = (
        "The votes for the winner and the runner-up in the plane in which they spread most, with the Gaussian that"
        " EM fits to them, step by step."
    )

    @classmethod
    def from_inspection(cls, inspection: Inspection, labels: Sequence[int] | None = None) -> "StepsDisplay":
        """Project the votes for the classes ``labels``, or for the winner and the runner-up."""
        if labels is None:
            labels = sorted(range(len(inspection.classes)), key=lambda label: -inspection.scores[label])[:2]
        steps = [em_steps(inspection.network, inspection.image, label) for label in labels]
        return cls(steps, [inspection.classes[label] for label in labels], inspection.title)

    @property
    def numbers(self) -> dict[str, EMSteps]:
        return dict(zip(self.names, self.steps, strict=True))

    def plot(self) -> Figure:
        """Draw votes and Gaussians in a plane: one row per parent, one column per iteration."""
        all_steps, names, title = self.steps, self.names, self.title
        iterations = len(all_steps[0].activations)
        figure = new_figure(iterations, len(all_steps), width=3.1, height=2.9)
        panels = figure.subplots(len(all_steps), iterations, squeeze=False)
        largest = max(float(steps.assignment.max()) for steps in all_steps)
        for row, (steps, name) in enumerate(zip(all_steps, names, strict=True)):
            reach = _reach(steps)
            for column in range(iterations):
                axes = panels[row][column]
                order = steps.assignment[column].argsort()
                axes.scatter(
                    *steps.points[order].T.numpy(),
                    s=2 + 16 * steps.child_activations[order].numpy(),
                    c=steps.assignment[column][order].numpy(),
                    cmap=HEAT,
                    vmin=0,
                    vmax=largest,
                    alpha=0.75,
                    linewidths=0,
                )
                _ellipses(axes, steps, column)
                axes.set_xlim(-reach, reach)
                axes.set_ylim(-reach, reach)
                axes.set_aspect("equal")
                axes.locator_params(nbins=5)
                axes.tick_params(labelsize=7)
                mass, activation = float(steps.masses[column]), float(steps.activations[column])
                axes.set_title(
                    f"{short_name(name)}, iteration {column + 1}\nmass {mass:.3g}, a = {activation:.2g}", fontsize=8
                )
            first, second = (100 * float(value) for value in steps.explained)
            panels[row][0].set_ylabel(f"second axis, pose units ({second:.0f} % of variance)", fontsize=7)
            for axes in panels[row]:
                axes.set_xlabel(f"first axis, pose units ({first:.0f} %)", fontsize=7)
        scale = ScalarMappable(Normalize(0, largest), HEAT)
        bar = figure.colorbar(scale, ax=panels, shrink=0.7, aspect=30, pad=0.01)
        bar.set_label("assignment of the child to this parent", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(
            f"{title}\ndots: votes, larger where the child is more active; "
            "ellipses: 1σ and 2σ of the parent's Gaussian",
            fontsize=9,
        )
        return figure


def _reach(steps: EMSteps) -> float:
    """Half the side of a panel that shows all but the farthest votes, and every Gaussian's 2σ."""
    votes = float(steps.points.abs().amax(1).quantile(0.97))
    ends = steps.means.abs().amax(1) + 2 * steps.covariances.diagonal(dim1=1, dim2=2).amax(1).sqrt()
    return 1.05 * max(votes, float(ends.max()), 1e-6)


def _ellipses(axes: Axes, steps: EMSteps, iteration: int) -> None:
    mean = steps.means[iteration].tolist()
    values, vectors = torch.linalg.eigh(steps.covariances[iteration])
    height, width = (2 * values.clamp_min(0).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1])))
    for deviations, style in ((1, "-"), (2, "--")):
        axes.add_patch(
            Ellipse(
                (mean[0], mean[1]), deviations * width, deviations * height, angle=angle,
                fill=False, edgecolor=COLOURS[1], linewidth=1.6, linestyle=style,
            )
        )  # fmt: skip
    axes.plot(*mean, "+", color=COLOURS[1], markersize=9, markeredgewidth=1.8)
