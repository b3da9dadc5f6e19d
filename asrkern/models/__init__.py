"""Models built from asrkern's layers, which load the checkpoints of their lineage."""

from asrkern.models.deepspeech2 import DeepSpeech2
from asrkern.models.deepspeech2_config import DeepSpeech2Config
from asrkern.models.las import LAS
from asrkern.models.las_config import LASConfig

__all__ = ["LAS", "DeepSpeech2", "DeepSpeech2Config", "LASConfig"]
