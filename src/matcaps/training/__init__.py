"""Training: settings and recipes (free of torch), the run, and what comes of it."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.training.recipes import list_recipes, recipe_settings
from matcaps.training.settings import LossSettings, ModelSettings, OptimizerSettings, TrainSettings

if TYPE_CHECKING:
    from matcaps.training.decoding import DecoderTraining, load_decoder, train_decoder
    from matcaps.training.evaluation import Evaluation, evaluate
    from matcaps.training.folder import RunBusyError
    from matcaps.training.groups import parameter_groups
    from matcaps.training.loop import Callback, Loop
    from matcaps.training.module import Training, TrainingDivergedError
    from matcaps.training.run import TrainResult, load_run, train

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Callback": "matcaps.training.loop",
        "DecoderTraining": "matcaps.training.decoding",
        "Evaluation": "matcaps.training.evaluation",
        "Loop": "matcaps.training.loop",
        "RunBusyError": "matcaps.training.folder",
        "TrainResult": "matcaps.training.run",
        "Training": "matcaps.training.module",
        "TrainingDivergedError": "matcaps.training.module",
        "evaluate": "matcaps.training.evaluation",
        "load_decoder": "matcaps.training.decoding",
        "load_run": "matcaps.training.run",
        "parameter_groups": "matcaps.training.groups",
        "train": "matcaps.training.run",
        "train_decoder": "matcaps.training.decoding",
    },
)

__all__ = [
    "Callback",
    "DecoderTraining",
    "Evaluation",
    "Loop",
    "LossSettings",
    "ModelSettings",
    "OptimizerSettings",
    "RunBusyError",
    "TrainResult",
    "TrainSettings",
    "Training",
    "TrainingDivergedError",
    "evaluate",
    "list_recipes",
    "load_decoder",
    "load_run",
    "parameter_groups",
    "recipe_settings",
    "train",
    "train_decoder",
]
