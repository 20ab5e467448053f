"""The layout of a record: what the compiled core and the GPU path keep of an iteration for the backward pass.

A record has ``RECORD`` numbers for each window and parent. ``native/src/job.h`` and ``cuda_kernels/common.cuh`` define
the same layout; a test compares the three.
"""

from torch import Tensor

from matcaps.capsules import RoutingIteration

RECORD = 36
"""Numbers of a record."""

MEAN, SPREAD, MASS, DESCRIPTION, EVIDENCE = slice(0, 16), slice(16, 32), 32, 33, 34
"""Where a record has the mean vote, the variance without its floor, the data, the cost of a unit of data, and the
activation's logit without the inverse temperature."""


def read_record(
    record: Tensor, assignment: Tensor, inverse_temperature: Tensor, variance_floor: float
) -> RoutingIteration:
    """An iteration's state from its record.

    Args:
        record: ``[RECORD, ..., J]``.
        assignment: ``[..., I, J]``, which the record does not have.
        inverse_temperature: ``[]``, of the iteration.
        variance_floor: added to the variance.
    """
    mass = record[MASS]
    return RoutingIteration(
        assignment=assignment,
        mean=record[MEAN].movedim(0, -1),
        variance=record[SPREAD].movedim(0, -1) + variance_floor,
        mass=mass,
        cost=mass * record[DESCRIPTION],
        activation=(inverse_temperature * record[EVIDENCE]).sigmoid(),
    )
