"""Other routings than EM behind the same layers, by name: for comparing them, in plain PyTorch.

Each file reads as its paper's procedure and says where it departs from it. They are written for matrix capsules: 4×4
poses, an activation of each capsule's own, either competition.
"""

from matcaps.layers.routings.average import Average, RandomAssignment
from matcaps.layers.routings.base import Step, VoteRouting
from matcaps.layers.routings.dynamic import DynamicRouting
from matcaps.layers.routings.heinsen import HeinsenRouting
from matcaps.layers.routings.self_attention import SelfAttentionRouting
from matcaps.layers.routings.self_routing import SelfRouting
from matcaps.layers.routings.variational_bayes import VariationalBayesRouting
from matcaps.routing import RoutingSpec

_ALL = (
    Average,
    RandomAssignment,
    DynamicRouting,
    VariationalBayesRouting,
    SelfRouting,
    HeinsenRouting,
    SelfAttentionRouting,
)

ROUTINGS: dict[str, type[VoteRouting]] = {routing.kind: routing for routing in _ALL}
"""The routings other than ``"em"``, by the name that configurations have."""


def make_routing(
    name: str, kinds: int, num_parents: int, *, iterations: int, spec: RoutingSpec, rank: int | None = None
) -> VoteRouting:
    """Make the routing of a layer.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ROUTINGS:
        raise ValueError(f"routing must be 'em' or one of {tuple(ROUTINGS)}; got {name!r}")
    return ROUTINGS[name](kinds, num_parents, iterations=iterations, spec=spec, rank=rank)


__all__ = ["ROUTINGS", "Step", "VoteRouting", "make_routing"]
