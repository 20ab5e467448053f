"""Looking inside a capsule network: from a network and images to numbers, which :mod:`matcaps.viz` draws.

All of it takes a network on the CPU, in float32 or float64, looks at it in evaluation mode, and leaves it as it was.
"""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.inspection.activations import LayerHealth, activation_maps, capsule_health
    from matcaps.inspection.agreement import LayerActivity, RoutingAgreement, routing_agreement
    from matcaps.inspection.contrast import VoteContrast, vote_contrast
    from matcaps.inspection.numbers import save_arrays, to_arrays
    from matcaps.inspection.origins import Contributions, contributions
    from matcaps.inspection.probe import Probe, linear_probe, principal_components
    from matcaps.inspection.sets import Survey, survey
    from matcaps.inspection.steps import EMSteps, em_steps
    from matcaps.inspection.traversal import PoseTraversal, pose_traversal, true_poses
    from matcaps.inspection.viewpoint import (
        PoseResponse,
        ViewpointProbe,
        has_viewpoints,
        penultimate_features,
        pose_response,
        viewpoint_probe,
    )
    from matcaps.inspection.votes import VoteDistances, VoteHistogram, vote_distances, vote_histogram

_MODULES = {
    "activations": ("LayerHealth", "activation_maps", "capsule_health"),
    "agreement": ("LayerActivity", "RoutingAgreement", "routing_agreement"),
    "contrast": ("VoteContrast", "vote_contrast"),
    "origins": ("Contributions", "contributions"),
    "steps": ("EMSteps", "em_steps"),
    "sets": ("Survey", "survey"),
    "numbers": ("save_arrays", "to_arrays"),
    "probe": ("Probe", "linear_probe", "principal_components"),
    "traversal": ("PoseTraversal", "pose_traversal", "true_poses"),
    "viewpoint": (
        "PoseResponse",
        "ViewpointProbe",
        "has_viewpoints",
        "penultimate_features",
        "pose_response",
        "viewpoint_probe",
    ),
    "votes": ("VoteDistances", "VoteHistogram", "vote_distances", "vote_histogram"),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = [
    "Contributions",
    "EMSteps",
    "LayerActivity",
    "LayerHealth",
    "PoseResponse",
    "PoseTraversal",
    "Probe",
    "RoutingAgreement",
    "Survey",
    "ViewpointProbe",
    "VoteContrast",
    "VoteDistances",
    "VoteHistogram",
    "activation_maps",
    "capsule_health",
    "contributions",
    "em_steps",
    "has_viewpoints",
    "linear_probe",
    "penultimate_features",
    "pose_response",
    "pose_traversal",
    "principal_components",
    "routing_agreement",
    "save_arrays",
    "survey",
    "to_arrays",
    "true_poses",
    "viewpoint_probe",
    "vote_contrast",
    "vote_distances",
    "vote_histogram",
]
