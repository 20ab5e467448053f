"""The paper's experiments: their definitions, how they run, and their results.

Names are imported when they are first used, so that plans can be made without torch.
"""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.experiments.attacks import AttackSettings, attack_networks
    from matcaps.experiments.definitions import get_experiment, list_experiments
    from matcaps.experiments.distortions import measure_distortions
    from matcaps.experiments.fold_records import FoldRecipe, gather_folds
    from matcaps.experiments.fold_table import make_fold_table
    from matcaps.experiments.folds import fold_experiment
    from matcaps.experiments.plan import Experiment, Row, Trial, make_trials
    from matcaps.experiments.records import TrialRecord, gather
    from matcaps.experiments.runner import Outcome, run_trials
    from matcaps.experiments.tables import make_table
    from matcaps.experiments.viewpoints import ViewpointErrors, match_familiar

_MODULES = {
    "attacks": ("AttackSettings", "attack_networks"),
    "definitions": ("get_experiment", "list_experiments"),
    "distortions": ("measure_distortions",),
    "fold_records": ("FoldRecipe", "gather_folds"),
    "fold_table": ("make_fold_table",),
    "folds": ("fold_experiment",),
    "plan": ("Experiment", "Row", "Trial", "make_trials"),
    "records": ("TrialRecord", "gather"),
    "runner": ("Outcome", "run_trials"),
    "tables": ("make_table",),
    "viewpoints": ("ViewpointErrors", "match_familiar"),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = [
    "AttackSettings",
    "Experiment",
    "FoldRecipe",
    "Outcome",
    "Row",
    "Trial",
    "TrialRecord",
    "ViewpointErrors",
    "attack_networks",
    "fold_experiment",
    "gather",
    "gather_folds",
    "get_experiment",
    "list_experiments",
    "make_fold_table",
    "make_table",
    "make_trials",
    "match_familiar",
    "measure_distortions",
    "run_trials",
]
