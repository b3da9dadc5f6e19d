"""Deprecated: :mod:`asrkern.recognizer.saved`."""

import warnings

from asrkern.recognizer.saved import *  # noqa: F403

warnings.warn(
    "asrkern.training.checkpoint is deprecated: it is asrkern.recognizer.saved now",
    DeprecationWarning,
    stacklevel=2,
)
