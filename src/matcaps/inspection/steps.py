"""EM at work on one parent: its votes and its Gaussian in a plane, iteration by iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from matcaps.inspection.door import inspects
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
        assignment: ``[T, N]``, in [0, 1]: of each child to this parent, in each M-step.
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
        network: on any device; what is found comes to the host.
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
