"""Deprecated: :mod:`asrkern.recognizer.transcription`."""

import warnings

from asrkern.recognizer.transcription import *  # noqa: F403

warnings.warn(
    "asrkern.training.transcription is deprecated: it is asrkern.recognizer.transcription now",
    DeprecationWarning,
    stacklevel=2,
)
