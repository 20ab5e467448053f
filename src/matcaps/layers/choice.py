"""The routing of a layer by its name, for both kinds of routed layers."""

from collections.abc import Sequence
from typing import Any

from matcaps.layers.evidence import make_routing_parameters
from matcaps.layers.parameters import RoutingParameters
from matcaps.layers.routings import VoteRouting, make_routing
from matcaps.routing import RoutingSpec


def choose_routing(
    name: str,
    kinds: int,
    num_parents: int,
    *,
    inverse_temperature: Sequence[float],
    spec: RoutingSpec,
    rank: int | None = None,
    **of_em: Any,
) -> RoutingParameters | VoteRouting:
    """EM's parameters, or another routing with as many iterations as there are inverse temperatures.

    Args:
        name: ``"em"``, or a name in :data:`matcaps.layers.routings.ROUTINGS`.
        kinds: rows of the layer's matrices.
        num_parents: parent types, ``J``.
        inverse_temperature: one value an iteration.
        spec: the options.
        rank: of the tables that another routing learns; EM has none.
        **of_em: what only EM takes, as :func:`make_routing_parameters` does.
    """
    if name == "em":
        return make_routing_parameters(num_parents, inverse_temperature=inverse_temperature, spec=spec, **of_em)
    return make_routing(name, kinds, num_parents, iterations=len(inverse_temperature), spec=spec, rank=rank)
