"""Models built from asrkern's layers, which load the checkpoints of their lineage."""

from asrkern.models.algoperf_deepspeech import AlgoPerfDeepSpeech
from asrkern.models.conv_transformer import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.models.deepspeech2 import DeepSpeech2
from asrkern.models.deepspeech2_config import DeepSpeech2Config
from asrkern.models.las import LAS
from asrkern.models.las_config import LASConfig
from asrkern.models.registry import build
from asrkern.models.registry import list_models as list
from asrkern.models.streaming import Latency, StreamingDeepSpeech2, StreamState
from asrkern.models.vgg_gru_ctc import VGGGRUCTC

__all__ = [
    "LAS",
    "VGGGRUCTC",
    "AlgoPerfDeepSpeech",
    "ConvRNNClassifier",
    "ConvTransformerClassifier",
    "DeepSpeech2",
    "DeepSpeech2Config",
    "LASConfig",
    "Latency",
    "StreamState",
    "StreamingDeepSpeech2",
    "build",
    "list",
]
