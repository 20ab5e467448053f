"""The networks. Configurations and presets are free of torch; the rest is imported when first asked for."""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names
from matcaps.models.config import BaselineCNNConfig, EMCapsNetConfig, ModelConfig
from matcaps.models.presets import list_models, model_config

if TYPE_CHECKING:
    from matcaps.models.baseline_cnn import BaselineCNN
    from matcaps.models.decoder import PoseDecoder
    from matcaps.models.em_capsnet import EMCapsNet
    from matcaps.models.factory import create_model
    from matcaps.models.freezing import freeze
    from matcaps.models.hub import push_to_hub
    from matcaps.models.pretrained import from_pretrained, list_pretrained, save_pretrained
    from matcaps.models.scores import ClassScores
    from matcaps.models.statistics import folded, update_statistics
    from matcaps.models.summary import LayerSummary, summarise

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BaselineCNN": "matcaps.models.baseline_cnn",
        "ClassScores": "matcaps.models.scores",
        "EMCapsNet": "matcaps.models.em_capsnet",
        "LayerSummary": "matcaps.models.summary",
        "PoseDecoder": "matcaps.models.decoder",
        "create_model": "matcaps.models.factory",
        "folded": "matcaps.models.statistics",
        "freeze": "matcaps.models.freezing",
        "from_pretrained": "matcaps.models.pretrained",
        "list_pretrained": "matcaps.models.pretrained",
        "push_to_hub": "matcaps.models.hub",
        "save_pretrained": "matcaps.models.pretrained",
        "summarise": "matcaps.models.summary",
        "update_statistics": "matcaps.models.statistics",
    },
)

__all__ = [
    "BaselineCNN",
    "BaselineCNNConfig",
    "ClassScores",
    "EMCapsNet",
    "EMCapsNetConfig",
    "LayerSummary",
    "ModelConfig",
    "PoseDecoder",
    "create_model",
    "folded",
    "freeze",
    "from_pretrained",
    "list_models",
    "list_pretrained",
    "model_config",
    "push_to_hub",
    "save_pretrained",
    "summarise",
    "update_statistics",
]
