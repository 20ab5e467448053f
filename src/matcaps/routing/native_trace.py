"""Every iteration's state as the compiled CPU core keeps it for its backward pass: no votes, and no gradients."""

from torch import Tensor

from matcaps.capsules import RoutingIteration
from matcaps.routing import native
from matcaps.routing.operators import operator_options
from matcaps.routing.record import RECORD, read_record
from matcaps.routing.spec import RoutingInputs, RoutingSpec, first_assignment, output_shape


def trace(inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    """The states of a routing, with leading dimensions ``[B, H', W']``, or ``[B]`` of class capsules."""
    _, _, state = native.forward(*inputs, *operator_options(spec), True)
    shape = output_shape(inputs.poses, inputs.weight, spec.stride)
    first = first_assignment(inputs, spec).unsqueeze(0)
    states = _read(state, first, shape[-1], inputs, spec)
    return [RoutingIteration(*(field.reshape(*shape[:-1], *field.shape[2:]) for field in one)) for one in states]


def _read(
    state: Tensor, first: Tensor, num_parents: int, inputs: RoutingInputs, spec: RoutingSpec
) -> list[RoutingIteration]:
    """Take the state apart: assignments of all iterations but the first, then one record an iteration and parent."""
    schedule = inputs.inverse_temperature
    batch, num_iterations = len(state), len(schedule)
    num_windows, num_children = first.shape[1], first.shape[2]
    lanes = native.lanes(state.dtype)
    blocks = (num_parents + lanes - 1) // lanes
    whole = num_windows * blocks * lanes

    def take(begin: int, iterations: int, rows: int) -> Tensor:
        """``[B, iterations, windows, rows, J]``"""
        part = state[:, begin : begin + iterations * whole * rows]
        part = part.reshape(batch, iterations, num_windows, blocks, rows, lanes).transpose(3, 4)
        return part.flatten(4)[..., :num_parents]

    assignments = take(0, num_iterations - 1, num_children)
    records = take((num_iterations - 1) * whole * num_children, num_iterations, RECORD)
    states = []
    for t in range(num_iterations):
        assignment = assignments[:, t - 1] if t else first.expand(batch, -1, -1, num_parents)
        states.append(read_record(records[:, t].movedim(2, 0), assignment, schedule[t], spec.variance_floor))
    return states
