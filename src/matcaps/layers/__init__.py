"""Capsule layers: each takes and returns :class:`matcaps.capsules.Capsules`."""

from matcaps.layers.calibration import CALIBRATIONS
from matcaps.layers.classes import ClassCapsules
from matcaps.layers.conv import ConvCapsules
from matcaps.layers.evidence import NormalisedRoutingParameters
from matcaps.layers.parameters import RoutingParameters
from matcaps.layers.primary import PrimaryCapsules

__all__ = [
    "CALIBRATIONS",
    "ClassCapsules",
    "ConvCapsules",
    "NormalisedRoutingParameters",
    "PrimaryCapsules",
    "RoutingParameters",
]
