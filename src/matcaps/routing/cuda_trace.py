"""Every iteration's state as the GPU path keeps it for its backward pass: no votes, and no gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from matcaps.capsules import RoutingIteration
from matcaps.routing import cuda
from matcaps.routing.operators import operator_options
from matcaps.routing.record import read_record
from matcaps.routing.spec import RoutingInputs, RoutingSpec, covered, first_assignment, output_shape


def trace(inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    """The states of a routing, with leading dimensions ``[B, H', W']``, or ``[B]`` of class capsules."""
    _, _, *state = cuda.forward(*inputs, *operator_options(spec), True)
    shape = output_shape(inputs.poses, inputs.weight, spec.stride)
    states = _read(state, inputs, spec)
    return [RoutingIteration(*(field.reshape(*shape[:-1], *field.shape[1:]) for field in one)) for one in states]


def _competitors(inputs: RoutingInputs, spec: RoutingSpec) -> Tensor:
    """The index of each window's children among the children of all maps: ``[B·H'·W', K·K·I]``."""
    poses, kernel_size = inputs.poses, inputs.weight.shape[0]
    batch, height, width, num_types = poses.shape[:4]
    _, rows, columns, _ = output_shape(poses, inputs.weight, spec.stride)
    row, column = (covered(count, kernel_size, spec.stride, poses.device) for count in (rows, columns))
    place = row[:, None, :, None, None] * width + column[None, :, None, :, None]
    child = place * num_types + torch.arange(num_types, device=poses.device)
    image = torch.arange(batch, device=poses.device)[:, None] * (height * width * num_types)
    return (image + child.flatten()).reshape(batch * rows * columns, -1)


def _read(state: Sequence[Tensor], inputs: RoutingInputs, spec: RoutingSpec) -> list[RoutingIteration]:
    """Records and logits as states, with all windows of all images in one leading dimension."""
    records, logits, partitions = state
    first = first_assignment(inputs, spec).repeat(len(inputs.poses), 1, 1)
    # with child competition, windows share the sums over a child's parents
    competitors = _competitors(inputs, spec) if spec.child_competition and not inputs.is_class else None
    states = []
    for t, record in enumerate(records):
        if t == 0:
            assignment = first.expand(-1, -1, record.shape[-1])
        else:
            partition = partitions[t - 1]
            shared = partition.reshape(*first.shape[:2], 2) if competitors is None else partition[competitors]
            peak, inverse = shared.unsqueeze(2).unbind(-1)
            assignment = (logits[t - 1] - peak).exp() * inverse
        states.append(read_record(record, assignment, inputs.inverse_temperature[t], spec.variance_floor))
    return states
