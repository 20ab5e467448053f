"""Training: settings and recipes (free of torch), the run, and what comes of it."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import LossSettings, ModelSettings, OptimizerSettings, TrainSettings

if TYPE_CHECKING:
    from matcaps.training.evaluation import Evaluation, evaluate
    from matcaps.training.module import Training, TrainingDivergedError
    from matcaps.training.run import TrainResult, load_run, train

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Evaluation": "matcaps.training.evaluation",
        "TrainResult": "matcaps.training.run",
        "Training": "matcaps.training.module",
        "TrainingDivergedError": "matcaps.training.module",
        "evaluate": "matcaps.training.evaluation",
        "load_run": "matcaps.training.run",
        "train": "matcaps.training.run",
    },
)

__all__ = [
    "Evaluation",
    "LossSettings",
    "ModelSettings",
    "OptimizerSettings",
    "TrainResult",
    "TrainSettings",
    "Training",
    "TrainingDivergedError",
    "evaluate",
    "list_recipes",
    "load_run",
    "recipe_settings",
    "train",
]
