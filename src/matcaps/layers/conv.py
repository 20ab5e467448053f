"""Convolutional capsules: a K×K window of capsules votes for the capsules at one position of the next map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matcaps._numbers import check_count
from matcaps.capsules import Capsules, CapsulesLike, as_capsules
from matcaps.layers.calibration import calibrate_routing
from matcaps.layers.choice import choose_routing
from matcaps.layers.parameters import option
from matcaps.layers.transformation import random_transformations, transform_poses
from matcaps.routing import RoutingIteration, RoutingSpec


class ConvCapsules(nn.Module):
    """Route capsules to a map of ``num_capsules`` parent types by EM (Hinton et al. 2018, sections 3 and 4).

    Args:
        in_capsules: child types, ``I``.
        num_capsules: parent types, ``J``.
        kernel_size: rows and columns of a window, ``K``.
        stride: positions from one window to the next; no padding.
        pose: ``"matrix"`` (the paper): a vote is ``pose @ weight`` with a 4×4 matrix; ``"vector"`` (its Table 1): the
            pose is a vector of 16 numbers, transformed by a 16×16 matrix, which is 16 times as many parameters. Only
            the reference implementation has that, and it holds all votes in memory.
        routing: ``"em"``, or the name of another routing to compare with, of :data:`matcaps.layers.routings.ROUTINGS`;
            that has no λ, and of the options of EM only ``competition`` and ``variance_floor``.
        routing_rank: of what "self", "heinsen" and "attention" learn for each kind of child and parent; None: full.
        inverse_temperature: one positive value an iteration; the number of values is the number of iterations.
        competition: ``"child"`` (the paper): a child divides itself among all parents whose window covers it;
            ``"window"`` (the tutorial): among the parents of one window.
        activation_rule: ``"paper"``, ``"standardised"`` (the tutorial) or ``"relative"``; see
            :func:`matcaps.routing.em_routing`.
        variance_floor: added to every variance; 5e-4 in the authors' code.
        annealing: factor on the log-densities in the E-step; 1 in the paper; with full calibration
            1/16 learns far faster.
        weight_deviation: standard deviation of the initial transformation matrices; 0.3 in the authors' code. With
            vector poses it is halved: their votes are sums of 16 products instead of 4, and so keep their variance.
        normalise: under the relative rule, whether λ is computed from a running statistic, so that agreement stays
            rewarded in training; see :class:`NormalisedRoutingParameters`.
        gain: of a normalised routing; see :class:`NormalisedRoutingParameters`.
        implementation: which implementation of the operator to use; ``"auto"`` chooses.

    Attributes:
        weight: ``[K, K, I, J, 4, 4]``, or with vector poses ``[K, K, I, J, 16, 16]``.
        routing: β and the settings, a :class:`RoutingParameters` or a :class:`NormalisedRoutingParameters`; of
            another routing than EM a :class:`matcaps.layers.routings.VoteRouting`.

    Raises:
        ValueError: a count is not a whole number of at least 1, ``pose`` is neither of the two, or
            ``inverse_temperature`` is not a schedule.

    Example:
        >>> layer = ConvCapsules(8, 16, kernel_size=3, stride=2)
        >>> parents = layer(Capsules(torch.randn(1, 14, 14, 8, 4, 4), torch.rand(1, 14, 14, 8)))
        >>> parents.activations.shape
        torch.Size([1, 6, 6, 16])
    """

    def __init__(
        self,
        in_capsules: int,
        num_capsules: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        pose: str = "matrix",
        routing: str = "em",
        routing_rank: int | None = None,
        inverse_temperature: Sequence[float] = (5e-4, 9.75e-4, 1.43e-3),
        competition: str = "child",
        activation_rule: str = "paper",
        variance_floor: float = 5e-4,
        annealing: float = 1.0,
        weight_deviation: float = 0.3,
        normalise: bool = False,
        gain: float = 1.0,
        implementation: str = "auto",
    ):
        super().__init__()
        for name, value in (
            ("in_capsules", in_capsules),
            ("num_capsules", num_capsules),
            ("kernel_size", kernel_size),
            ("stride", stride),
        ):
            check_count(name, value)
        self.pose = pose
        self.weight = nn.Parameter(
            random_transformations(
                kernel_size, kernel_size, in_capsules, num_capsules, pose=pose, deviation=weight_deviation
            )
        )
        spec = RoutingSpec(stride, competition, activation_rule, variance_floor, annealing, implementation)
        self.routing = choose_routing(
            routing,
            kernel_size**2 * in_capsules,
            num_capsules,
            inverse_temperature=inverse_temperature,
            spec=spec,
            rank=routing_rank,
            normalise=normalise,
            matrix_size=weight_deviation,
            gain=gain,
        )

    @property
    def spec(self) -> RoutingSpec:
        """The options of the routing."""
        return self.routing.spec

    @spec.setter
    def spec(self, spec: RoutingSpec) -> None:
        self.routing.spec = spec

    stride = option("stride")
    competition = option("competition")

    def forward(self, capsules: CapsulesLike) -> Capsules:
        """Map capsules ``[B, H, W, I, ...]`` to ``[B, H', W', J, ...]``, ``H' = (H - K) // stride + 1``."""
        return self.routing.route(as_capsules(capsules), self.weight)

    def trace(self, capsules: CapsulesLike) -> list[RoutingIteration]:
        """Return every iteration's state; see :func:`matcaps.routing.trace_conv_em_routing`."""
        return self.routing.trace(as_capsules(capsules), self.weight)

    def votes(self, capsules: CapsulesLike) -> Tensor:
        """Compute the votes of a few images, ``[B, H', W', K·K·I, J, 16]``, children ordered as in :meth:`trace`."""
        capsules = as_capsules(capsules)
        kernel_size = self.weight.shape[0]
        windows_BHWI44KK = capsules.poses.unfold(1, kernel_size, self.stride).unfold(2, kernel_size, self.stride)
        windows_BHWKKI44 = windows_BHWI44KK.movedim((-2, -1), (3, 4))
        return transform_poses(windows_BHWKKI44, self.routing.matrices(self.weight)).flatten(3, 5)

    @torch.no_grad()
    def calibrate(self, capsules: CapsulesLike, calibration: str = "full", gain: float = 1.0) -> Capsules:
        """Set β, and for ``"full"`` the scales, from one batch; return the layer's output for it.

        See :func:`matcaps.layers.calibration.calibrate_routing` for what is set.
        """
        capsules = as_capsules(capsules)
        calibrate_routing(self.weight, self.routing, self.trace, capsules, calibration=calibration, gain=gain)
        return self(capsules)

    def extra_repr(self) -> str:
        kernel, _, children, parents = self.weight.shape[:4]
        return (
            f"{children}, {parents}, kernel_size={kernel}, stride={self.stride}, pose={self.pose!r}, "
            f"competition={self.competition!r}"
        )
