"""The operator's public functions: check, choose an implementation, call it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from matcaps.capsules import POSE_SIZE, Capsules, RoutingIteration
from matcaps.routing import cuda, native, reference
from matcaps.routing.autocast import without_autocast
from matcaps.routing.checks import as_schedule, prepare_class, prepare_conv, prepare_votes
from matcaps.routing.choice import check_implementation, choose_implementation
from matcaps.routing.operators import Route, RoutingFit
from matcaps.routing.spec import RoutingInputs, RoutingSpec


def em_routing(
    votes: Tensor,
    activations: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Cluster the votes of ``I`` children for ``J`` parents by EM (Hinton et al. 2018, Procedure 1).

    Gradients flow through all iterations, assignments included. Half precision is computed in float32 and
    returned in the dtype that the inputs promote to; autocast does not reach inside.

    Args:
        votes: ``[..., I, J, P]``, floating point; each child's vote for each parent's pose, flattened (P = 16).
        activations: ``[..., I]``, in [0, 1]; a child with activation 0 has no influence.
        beta_use: ``[J]``; the cost of describing one unit of data, per pose component.
        beta_activation: ``[J]``; the reward for being active.
        inverse_temperature: one positive value an iteration (a sequence, or a tensor ``[T]``), rising in the paper.
        activation_rule: ``"paper"``; ``"standardised"``: costs standardised over the parents, as in the tutorial and
            most public code; or ``"relative"``, ours: of what a unit of a parent's data costs, what a unit of all
            parents' data costs on average is taken away, so that data which are described better than usual are a
            reward, whatever the scale of votes.
        variance_floor: added to every variance; 5e-4 in the authors' code.
        annealing: factor on the log-densities in the E-step; 1 in the paper, less softens the assignments.
        implementation: ``"auto"`` or ``"reference"``, which are the same here: the gain of the others is never to
            have the votes in memory, where these already are.

    Returns:
        The parents' poses ``[..., J, P]`` (the last means) and activations ``[..., J]`` in [0, 1].

    Raises:
        TypeError: an argument is not a floating-point tensor, or ``inverse_temperature`` not a sequence.
        ValueError: shapes, devices or options do not fit; the message says how.

    Example:
        >>> votes, activations = torch.randn(2, 72, 5, 16), torch.rand(2, 72)
        >>> poses, active = em_routing(votes, activations, torch.zeros(5), torch.zeros(5),
        ...                            inverse_temperature=[1.0, 2.0, 3.0], activation_rule="standardised")
        >>> poses.shape, active.shape
        (torch.Size([2, 5, 16]), torch.Size([2, 5]))
    """
    check_implementation(implementation)
    if implementation not in ("auto", "reference"):
        raise ValueError(
            f"em_routing has no implementation {implementation!r}, whose gain is never to have the votes in memory: "
            "use conv_em_routing or class_em_routing, or implementation='reference'"
        )
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(activation_rule=activation_rule, variance_floor=variance_floor, annealing=annealing)
    tensors = prepare_votes(votes, activations, beta_use, beta_activation, schedule)
    with without_autocast(votes.device):
        last = _last(reference.em_routing(*tensors, spec))
    dtype = _promoted(votes, activations, beta_use, beta_activation)
    return last.mean.to(dtype), last.activation.to(dtype)


def conv_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    stride: int = 1,
    inverse_temperature: Sequence[float] | Tensor,
    competition: str = "child",
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
    implementation: str = "auto",
) -> Capsules:
    """Route a map of capsules to a smaller map through a K×K kernel of transformation matrices, without padding.

    Rows and columns that no window covers have no influence, as in a convolution without padding.

    Args:
        poses: ``[B, H, W, I, 4, 4]``, floating point.
        activations: ``[B, H, W, I]``, in [0, 1].
        weight: ``[K, K, I, J, 4, 4]``; a vote is ``pose @ weight``. Or ``[K, K, I, J, 16, 16]``, for vector poses
            (Hinton et al. 2018, Table 1): a vote is ``pose.flatten(-2) @ weight``. The reference alone has these, and
            holds all votes in memory.
        beta_use: ``[J]``; the cost of describing one unit of data, per pose component.
        beta_activation: ``[J]``; the reward for being active.
        stride: rows and columns from one window to the next.
        inverse_temperature: one positive value an iteration.
        competition: ``"child"`` (the paper): each child divides itself among all parents, of any type at any
            position, whose window covers it; ``"window"`` (most public code): among one window's ``J`` parents.
        activation_rule: see :func:`em_routing`.
        variance_floor: see :func:`em_routing`.
        annealing: see :func:`em_routing`.
        implementation: ``"auto"`` (see :func:`resolve_implementation`), or one of ``IMPLEMENTATIONS``. Only the
            reference has vector poses, second-order gradients and forward-mode derivatives. "auto" takes it for these,
            but for the gradient of a gradient by ordinary autograd, of which nobody knows beforehand: that is refused.

    Returns:
        ``Capsules`` with poses ``[B, H', W', J, 4, 4]`` and activations ``[B, H', W', J]``, where
        ``H' = (H - K) // stride + 1``.

    Raises:
        TypeError: an argument is not a floating-point tensor, or ``inverse_temperature`` not a sequence.
        ValueError: shapes, devices or options do not fit, or the implementation asked for has no vector poses; the
            message says how.
        RuntimeError: the implementation asked for is not installed; the message says why.
        NotImplementedError: the implementation asked for does not go along with the transform (forward mode;
            ``torch.func`` within ``torch.compile``).

    Example:
        >>> parents = conv_em_routing(torch.randn(1, 14, 14, 8, 4, 4), torch.rand(1, 14, 14, 8),
        ...                           torch.randn(3, 3, 8, 16, 4, 4), torch.zeros(16), torch.zeros(16),
        ...                           stride=2, inverse_temperature=[0.5, 1.0, 1.5])
        >>> parents.poses.shape
        torch.Size([1, 6, 6, 16, 4, 4])
    """
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(stride, competition, activation_rule, variance_floor, annealing, implementation)
    inputs = RoutingInputs(poses, activations, weight, beta_use, beta_activation, schedule)
    parents, _ = fit_conv_em_routing(inputs, spec, wants_fit=False)
    return parents


def class_em_routing(
    poses: Tensor,
    activations: Tensor,
    weight: Tensor,
    beta_use: Tensor,
    beta_activation: Tensor,
    *,
    coordinates: Tensor | None = None,
    inverse_temperature: Sequence[float] | Tensor,
    activation_rule: str = "paper",
    variance_floor: float = 5e-4,
    annealing: float = 1.0,
    implementation: str = "auto",
) -> Capsules:
    """Route all capsules of a map to one capsule a class, in one routing, with weights shared over positions.

    Args:
        poses: ``[B, H, W, I, 4, 4]``, floating point.
        activations: ``[B, H, W, I]``, in [0, 1].
        weight: ``[I, J, 4, 4]``; a vote is ``pose @ weight``, wherever the child is. Or ``[I, J, 16, 16]``, for vector
            poses; see :func:`conv_em_routing`.
        beta_use: ``[J]``; the cost of describing one unit of data, per pose component.
        beta_activation: ``[J]``; the reward for being active.
        coordinates: ``[H, W, 16]`` or None; added to the flattened votes from each position ("coordinate addition").
        inverse_temperature: one positive value an iteration.
        activation_rule: see :func:`em_routing`.
        variance_floor: see :func:`em_routing`.
        annealing: see :func:`em_routing`.
        implementation: ``"auto"`` (see :func:`resolve_implementation`), or one of ``IMPLEMENTATIONS``. Only the
            reference has vector poses, second-order gradients and forward-mode derivatives. "auto" takes it for these,
            but for the gradient of a gradient by ordinary autograd, of which nobody knows beforehand: that is refused.

    Returns:
        ``Capsules`` with poses ``[B, J, 4, 4]`` and activations ``[B, J]``.

    Raises:
        TypeError: an argument is not a floating-point tensor, or ``inverse_temperature`` not a sequence.
        ValueError: shapes, devices or options do not fit, or the implementation asked for has no vector poses; the
            message says how.
        RuntimeError: the implementation asked for is not installed; the message says why.
        NotImplementedError: the implementation asked for does not go along with the transform (forward mode;
            ``torch.func`` within ``torch.compile``).

    Example:
        >>> classes = class_em_routing(torch.randn(1, 4, 4, 16, 4, 4), torch.rand(1, 4, 4, 16),
        ...                            torch.randn(16, 5, 4, 4), torch.zeros(5), torch.zeros(5),
        ...                            inverse_temperature=[0.5, 1.0, 1.5])
        >>> classes.activations.shape
        torch.Size([1, 5])
    """
    schedule = as_schedule(inverse_temperature, beta_use)
    spec = RoutingSpec(
        activation_rule=activation_rule,
        variance_floor=variance_floor,
        annealing=annealing,
        implementation=implementation,
    )
    inputs = RoutingInputs(poses, activations, weight, beta_use, beta_activation, schedule, coordinates)
    parents, _ = fit_class_em_routing(inputs, spec, wants_fit=False)
    return parents


def fit_conv_em_routing(
    inputs: RoutingInputs, spec: RoutingSpec, *, wants_fit: bool = True
) -> tuple[Capsules, RoutingFit | None]:
    """Do what :func:`conv_em_routing` does, and say how the last iteration's Gaussians fit their data.

    It costs nothing beside the routing, whichever implementation computes it: what layers keep statistics by.

    Args:
        inputs: the tensors that :func:`conv_em_routing` takes; no coordinates.
        spec: its options.
        wants_fit: False for None in its place.

    Returns:
        The parents, and a :class:`RoutingFit`, which has no gradient.
    """
    check_implementation(spec.implementation)
    return _route(inputs, prepare_conv(inputs), spec, wants_fit)


def fit_class_em_routing(
    inputs: RoutingInputs, spec: RoutingSpec, *, wants_fit: bool = True
) -> tuple[Capsules, RoutingFit | None]:
    """Do for :func:`class_em_routing` what :func:`fit_conv_em_routing` does for that function."""
    check_implementation(spec.implementation)
    return _route(inputs, prepare_class(inputs), spec, wants_fit)


_ROUTES: dict[str, Route] = {"cuda": cuda.route, "native": native.route}


def _route(
    given: RoutingInputs, inputs: RoutingInputs, spec: RoutingSpec, wants_fit: bool
) -> tuple[Capsules, RoutingFit | None]:
    """Choose an implementation for tensors that are checked, and return what it makes in the dtype of those given."""
    chosen = choose_implementation(inputs, spec)
    with without_autocast(inputs.poses.device):
        if chosen == "reference":
            last = _last(reference.route(inputs, spec))
            parents = Capsules(last.mean.unflatten(-1, (POSE_SIZE, POSE_SIZE)), last.activation)
            fit = RoutingFit(last.mass.detach(), last.cost.detach()) if wants_fit else None
        else:
            parents, fit = _ROUTES[chosen](inputs, spec, wants_fit)
    dtype = _promoted(given.poses, given.activations, given.weight, given.beta_use, given.beta_activation)
    return Capsules(parents.poses.to(dtype), parents.activations.to(dtype)), fit


def _last(iterations: Iterator[RoutingIteration]) -> RoutingIteration:
    last = next(iterations)
    for state in iterations:  # one at a time: earlier states are freed where no gradient needs them
        last = state
    return last


def _promoted(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
