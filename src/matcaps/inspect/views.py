"""The views that ``matcaps inspect`` writes and a report shows, in the order in which a newcomer should meet them."""

from matcaps.inspect.activations import ActivationsDisplay
from matcaps.inspect.agreement import AgreementDisplay
from matcaps.inspect.assignments import AssignmentsDisplay
from matcaps.inspect.contrast import ImageContrastDisplay, SetContrastDisplay
from matcaps.inspect.health import HealthDisplay
from matcaps.inspect.steps import StepsDisplay
from matcaps.inspect.traversal import PosesDisplay
from matcaps.inspect.viewpoint import ViewpointDisplay
from matcaps.inspect.votes import VotesDisplay

VIEWS = {
    "votes": VotesDisplay,
    "true_and_wrong": ImageContrastDisplay,
    "true_and_wrong_set": SetContrastDisplay,
    "agreement": AgreementDisplay,
    "assignments": AssignmentsDisplay,
    "activations": ActivationsDisplay,
    "health": HealthDisplay,
    "em_steps": StepsDisplay,
    "poses": PosesDisplay,
    "viewpoint": ViewpointDisplay,
}
"""The views, by the names of their files."""
