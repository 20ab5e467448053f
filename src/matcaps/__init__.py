"""Matrix capsule networks with EM routing (Hinton, Sabour and Frosst, 2018) in PyTorch."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps._version import __version__

if TYPE_CHECKING:
    from matcaps import data, experiments, inspect, layers, losses, models, routing, training
    from matcaps.capsules import Capsules
    from matcaps.models.factory import create_model
    from matcaps.models.presets import list_models
    from matcaps.models.pretrained import from_pretrained, list_pretrained, save_pretrained

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Capsules": "matcaps.capsules",
        "create_model": "matcaps.models.factory",
        "list_models": "matcaps.models.presets",
        "from_pretrained": "matcaps.models.pretrained",
        "list_pretrained": "matcaps.models.pretrained",
        "save_pretrained": "matcaps.models.pretrained",
        **{
            name: f"matcaps.{name}"
            for name in ("data", "experiments", "inspect", "layers", "losses", "models", "routing", "training")
        },
    },
)

__all__ = [
    "Capsules",
    "__version__",
    "create_model",
    "data",
    "experiments",
    "from_pretrained",
    "inspect",
    "layers",
    "list_models",
    "list_pretrained",
    "losses",
    "models",
    "routing",
    "save_pretrained",
    "training",
]
