"""The operator: EM routing between capsules, what it computes and the ways to compute it."""

from matcaps.capsules import RoutingIteration
from matcaps.routing.api import (
    class_em_routing,
    conv_em_routing,
    em_routing,
    fit_class_em_routing,
    fit_conv_em_routing,
)
from matcaps.routing.choice import available_implementations, require_implementation, resolve_implementation
from matcaps.routing.operators import RoutingFit
from matcaps.routing.spec import RoutingInputs, RoutingSpec
from matcaps.routing.trace import (
    trace_class,
    trace_class_em_routing,
    trace_conv,
    trace_conv_em_routing,
    trace_em_routing,
)
from matcaps.routing.transforms import is_transformed
from matcaps.routing.votes import Children, gather_children

__all__ = [
    "Children",
    "RoutingFit",
    "RoutingInputs",
    "RoutingIteration",
    "RoutingSpec",
    "available_implementations",
    "class_em_routing",
    "conv_em_routing",
    "em_routing",
    "fit_class_em_routing",
    "fit_conv_em_routing",
    "gather_children",
    "is_transformed",
    "require_implementation",
    "resolve_implementation",
    "trace_class",
    "trace_class_em_routing",
    "trace_conv",
    "trace_conv_em_routing",
    "trace_em_routing",
]
