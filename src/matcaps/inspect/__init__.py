"""Looking inside a capsule network: one file for each view, which measures, draws and describes it in sentences.

The functions take a network on any device, look at it in evaluation mode, and leave it as it was. The ``Display``
classes draw the results. ``inspect_saved`` does what ``matcaps inspect`` does.
"""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.inspect.activations import ActivationsDisplay, activation_maps
    from matcaps.inspect.agreement import AgreementDisplay, LayerActivity, RoutingAgreement, routing_agreement
    from matcaps.inspect.assignments import AssignmentsDisplay, Contributions, contributions
    from matcaps.inspect.contrast import (
        ContrastDisplay,
        ImageContrastDisplay,
        SetContrastDisplay,
        VoteContrast,
        vote_contrast,
    )
    from matcaps.inspect.display import Display, NothingToShowError
    from matcaps.inspect.health import HealthDisplay, LayerHealth, capsule_health
    from matcaps.inspect.inspection import Inspection
    from matcaps.inspect.numbers import save_arrays, to_arrays
    from matcaps.inspect.probe import Probe, linear_probe, principal_components
    from matcaps.inspect.response import PoseResponse, ResponseDisplay, pose_response
    from matcaps.inspect.run import Findings, inspect_saved
    from matcaps.inspect.sets import Survey, survey
    from matcaps.inspect.settings import InspectSettings
    from matcaps.inspect.steps import EMSteps, StepsDisplay, em_steps
    from matcaps.inspect.traversal import PosesDisplay, PoseTraversal, pose_traversal, true_poses
    from matcaps.inspect.viewpoint import (
        ViewpointDisplay,
        ViewpointProbe,
        has_viewpoints,
        penultimate_features,
        viewpoint_probe,
    )
    from matcaps.inspect.votes import VoteDistances, VoteHistogram, VotesDisplay, vote_distances, vote_histogram

_MODULES = {
    "activations": ("ActivationsDisplay", "activation_maps"),
    "agreement": ("AgreementDisplay", "LayerActivity", "RoutingAgreement", "routing_agreement"),
    "assignments": ("AssignmentsDisplay", "Contributions", "contributions"),
    "contrast": ("ContrastDisplay", "ImageContrastDisplay", "SetContrastDisplay", "VoteContrast", "vote_contrast"),
    "display": ("Display", "NothingToShowError"),
    "health": ("HealthDisplay", "LayerHealth", "capsule_health"),
    "numbers": ("save_arrays", "to_arrays"),
    "probe": ("Probe", "linear_probe", "principal_components"),
    "response": ("PoseResponse", "ResponseDisplay", "pose_response"),
    "run": ("Findings", "inspect_saved"),
    "sets": ("Survey", "survey"),
    "settings": ("InspectSettings",),
    "steps": ("EMSteps", "StepsDisplay", "em_steps"),
    "inspection": ("Inspection",),
    "traversal": ("PoseTraversal", "PosesDisplay", "pose_traversal", "true_poses"),
    "viewpoint": ("ViewpointDisplay", "ViewpointProbe", "has_viewpoints", "penultimate_features", "viewpoint_probe"),
    "votes": ("VoteDistances", "VoteHistogram", "VotesDisplay", "vote_distances", "vote_histogram"),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = [
    "ActivationsDisplay",
    "AgreementDisplay",
    "AssignmentsDisplay",
    "ContrastDisplay",
    "Contributions",
    "Display",
    "EMSteps",
    "Findings",
    "HealthDisplay",
    "ImageContrastDisplay",
    "InspectSettings",
    "Inspection",
    "LayerActivity",
    "LayerHealth",
    "NothingToShowError",
    "PoseResponse",
    "PoseTraversal",
    "PosesDisplay",
    "Probe",
    "ResponseDisplay",
    "RoutingAgreement",
    "SetContrastDisplay",
    "StepsDisplay",
    "Survey",
    "ViewpointDisplay",
    "ViewpointProbe",
    "VoteContrast",
    "VoteDistances",
    "VoteHistogram",
    "VotesDisplay",
    "activation_maps",
    "capsule_health",
    "contributions",
    "em_steps",
    "has_viewpoints",
    "inspect_saved",
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
