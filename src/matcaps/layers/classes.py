"""Class capsules: all capsules of the last map vote, in one routing, for one capsule per class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matcaps._numbers import check_count
from matcaps.capsules import POSE_COMPONENTS, Capsules, CapsulesLike, as_capsules
from matcaps.layers.calibration import calibrate_routing
from matcaps.layers.choice import choose_routing
from matcaps.layers.transformation import random_transformations, transform_poses
from matcaps.routing import RoutingIteration, RoutingSpec


class ClassCapsules(nn.Module):
    """Route a whole map to class capsules, weights shared over positions, with coordinate addition.

    Shared weights lose a child's position; its coordinates, added to two components of its votes, restore it
    (Hinton et al. 2018, section 4.1).

    Args:
        in_capsules: child types, ``I``.
        num_classes: classes, ``J``.
        pose: ``"matrix"`` (the paper): a vote is ``pose @ weight`` with a 4×4 matrix; ``"vector"`` (its Table 1): the
            pose is a vector of 16 numbers, transformed by a 16×16 matrix, which is 16 times as many parameters. Only
            the reference implementation has that, and it holds all votes in memory.
        routing: ``"em"``, or the name of another routing to compare with, of :data:`matcaps.layers.routings.ROUTINGS`;
            that has no λ, and of the options of EM only ``variance_floor``.
        routing_rank: of what "self", "heinsen" and "attention" learn for each kind of child and parent; None: full.
        inverse_temperature: one positive value an iteration; the authors' class layer uses a quarter of the others'.
        coordinate_components: the two components of the flattened votes (row-major, 0 to 15) that take the row's
            and the column's coordinate: (3, 7), the right-hand column, in the paper; (0, 1) in the tutorial; None
            for no coordinate addition.
        coordinate_scale: multiplies the coordinates, which lie in [0, 1].
        activation_rule: ``"paper"``, ``"standardised"`` (the tutorial) or ``"relative"``; see
            :func:`matcaps.routing.em_routing`.
        variance_floor: added to every variance; 5e-4 in the authors' code.
        annealing: factor on the log-densities in the E-step; 1 in the paper.
        weight_deviation: standard deviation of the initial transformation matrices; 0.01 in the authors' code. With
            vector poses it is halved: their votes are sums of 16 products instead of 4, and so keep their variance.
        normalise: under the relative rule, whether λ is computed from a running statistic, so that agreement stays
            rewarded in training; see :class:`NormalisedRoutingParameters`.
        gain: of a normalised routing; see :class:`NormalisedRoutingParameters`.
        shared_beta_activation: whether all classes share one β_a, so that no class has its own reward; each
            keeps its β_u.
        implementation: which implementation of the operator to use; ``"auto"`` chooses.

    Attributes:
        weight: ``[I, J, 4, 4]``, or with vector poses ``[I, J, 16, 16]``.
        routing: β and the settings, a :class:`RoutingParameters` or a :class:`NormalisedRoutingParameters`; of
            another routing than EM a :class:`matcaps.layers.routings.VoteRouting`.

    Raises:
        ValueError: a count is not a whole number of at least 1, ``coordinate_components`` are not two different
            components, ``pose`` is neither of the two, or ``inverse_temperature`` is not a schedule.

    Example:
        >>> layer = ClassCapsules(16, 5)
        >>> classes = layer(Capsules(torch.randn(1, 4, 6, 16, 4, 4), torch.rand(1, 4, 6, 16)))
        >>> classes.poses.shape
        torch.Size([1, 5, 4, 4])
    """

    def __init__(
        self,
        in_capsules: int,
        num_classes: int,
        *,
        pose: str = "matrix",
        routing: str = "em",
        routing_rank: int | None = None,
        inverse_temperature: Sequence[float] = (1.25e-4, 2.44e-4, 3.57e-4),
        coordinate_components: tuple[int, int] | None = (3, 7),
        coordinate_scale: float = 1.0,
        activation_rule: str = "paper",
        variance_floor: float = 5e-4,
        annealing: float = 1.0,
        weight_deviation: float = 0.01,
        normalise: bool = False,
        gain: float = 2.5,
        shared_beta_activation: bool = False,
        implementation: str = "auto",
    ):
        super().__init__()
        check_count("in_capsules", in_capsules)
        check_count("num_classes", num_classes)
        if coordinate_components is not None and not (
            len(set(coordinate_components)) == len(coordinate_components) == 2
            and all(0 <= component < POSE_COMPONENTS for component in coordinate_components)
        ):
            raise ValueError(
                "coordinate_components must be two different components from 0 to 15, or None for no coordinate "
                f"addition; got {coordinate_components}"
            )
        self.pose = pose
        self.coordinate_components = coordinate_components
        self.coordinate_scale = coordinate_scale
        self.weight = nn.Parameter(
            random_transformations(in_capsules, num_classes, pose=pose, deviation=weight_deviation)
        )
        spec = RoutingSpec(
            activation_rule=activation_rule,
            variance_floor=variance_floor,
            annealing=annealing,
            implementation=implementation,
        )
        self.routing = choose_routing(
            routing,
            in_capsules,
            num_classes,
            inverse_temperature=inverse_temperature,
            spec=spec,
            rank=routing_rank,
            normalise=normalise,
            matrix_size=weight_deviation,
            gain=gain,
            shared_beta_activation=shared_beta_activation,
        )

    def forward(self, capsules: CapsulesLike, coordinates: Tensor | None = None) -> Capsules:
        """Map capsules ``[B, H, W, I, ...]`` to class capsules, poses ``[B, J, 4, 4]``, activations ``[B, J]``.

        Args:
            capsules: the map of children, of any size.
            coordinates: ``[H, W, 2]``, row and column of each position in [0, 1], such as the centre of its
                receptive field over the image's size; without it ``(index + 1/2) / size``, as in the tutorial.
        """
        capsules = as_capsules(capsules)
        return self.routing.route(capsules, self.weight, self.vote_offset(capsules, coordinates))

    def trace(self, capsules: CapsulesLike, coordinates: Tensor | None = None) -> list[RoutingIteration]:
        """Return every iteration's state; see :func:`matcaps.routing.trace_class_em_routing`."""
        capsules = as_capsules(capsules)
        return self.routing.trace(capsules, self.weight, self.vote_offset(capsules, coordinates))

    def votes(self, capsules: CapsulesLike, coordinates: Tensor | None = None) -> Tensor:
        """Compute the votes of a few images, with coordinates: ``[B, H·W·I, J, 16]``, children ordered as in a
        trace.
        """
        capsules = as_capsules(capsules)
        votes_BHWIJP = transform_poses(capsules.poses, self.routing.matrices(self.weight))
        offset = self.vote_offset(capsules, coordinates)
        if offset is not None:
            votes_BHWIJP = votes_BHWIJP + offset[:, :, None, None, :]
        return votes_BHWIJP.flatten(1, 3)

    @torch.no_grad()
    def calibrate(
        self,
        capsules: CapsulesLike,
        coordinates: Tensor | None = None,
        calibration: str = "full",
        gain: float = 1.0,
    ) -> Capsules:
        """Set β, and for ``"full"`` the scales, from one batch; return the layer's output for it.

        See :func:`matcaps.layers.calibration.calibrate_routing` for what is set.
        """
        capsules = as_capsules(capsules)
        calibrate_routing(
            self.weight,
            self.routing,
            lambda part: self.trace(part, coordinates),
            capsules,
            self.vote_offset(capsules, coordinates),
            calibration=calibration,
            gain=gain,
        )
        return self(capsules, coordinates)

    def vote_offset(self, capsules: Capsules, coordinates: Tensor | None) -> Tensor | None:
        """The offset of the votes from each position, ``[H, W, 16]``; None without coordinate addition."""
        if self.coordinate_components is None:
            return None
        height, width = capsules.poses.shape[1:3]
        if coordinates is None:
            coordinates = grid_coordinates(height, width, self.weight.device)
        elif list(coordinates.shape) != [height, width, 2]:
            raise ValueError(
                f"coordinates must have shape [H, W, 2] = {[height, width, 2]}; got {list(coordinates.shape)}: "
                "give the row and the column of each position of the map"
            )
        scaled = self.coordinate_scale * coordinates.to(self.weight)
        components = [scaled.new_zeros(height, width)] * POSE_COMPONENTS
        for axis, component in enumerate(self.coordinate_components):
            components[component] = scaled[..., axis]
        return torch.stack(components, dim=-1)  # no in-place writes: torch.func may map over the coordinates

    def extra_repr(self) -> str:
        children, classes = self.weight.shape[:2]
        return (
            f"{children}, {classes}, pose={self.pose!r}, coordinate_components={self.coordinate_components}, "
            f"coordinate_scale={self.coordinate_scale:g}"
        )


def grid_coordinates(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres of the cells of a ``height`` × ``width`` grid over the unit square: ``[H, W, 2]``, row and column."""
    rows, columns = ((torch.arange(size, device=device) + 0.5) / size for size in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
