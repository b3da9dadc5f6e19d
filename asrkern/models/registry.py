"""Every model by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from asrkern._names import nearest
from asrkern.models.conv_transformer import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.models.deepspeech2 import DeepSpeech2
from asrkern.models.deepspeech2_config import DeepSpeech2Config
from asrkern.models.las import LAS
from asrkern.models.las_config import LASConfig
from asrkern.models.vgg_gru_ctc import VGGGRUCTC


class _Entry(NamedTuple):
    """What makes a model, what has its options as arguments, and how long an utterance for it is, in seconds."""

    make: Callable[..., nn.Module]
    options: Callable[..., Any]
    typical_seconds: float = 10.0


_MODELS = {
    "deepspeech2": _Entry(partial(DeepSpeech2.preset, "v3"), DeepSpeech2Config),
    **{
        f"deepspeech2_{preset}": _Entry(partial(DeepSpeech2.preset, preset), DeepSpeech2Config)
        for preset in ("mlperf", "paper", "small")
    },
    "conv_transformer": _Entry(ConvTransformerClassifier, ConvTransformerClassifier, 1.0),
    "conv_rnn": _Entry(ConvRNNClassifier, ConvRNNClassifier, 1.0),
    "vgg_gru_ctc": _Entry(VGGGRUCTC, VGGGRUCTC),
    "vgg_gru_ctc_original": _Entry(partial(VGGGRUCTC.preset, "original"), VGGGRUCTC),
    "las_hw4": _Entry(partial(LAS.preset, "hw4"), LASConfig),
    "las_hw4_mobile": _Entry(partial(LAS.preset, "hw4_mobile"), LASConfig),
    "las_kospeech": _Entry(partial(LAS.preset, "kospeech"), LASConfig),
}


def list_models() -> list[str]:
    """The names that :func:`build` takes."""
    return list(_MODELS)


def build(name: str, **options: Any) -> nn.Module:
    """A model with new weights.

    Args:
        name: one of ``asrkern.models.list()``.
        options: in place of the model's defaults: of :class:`DeepSpeech2Config`, :class:`LASConfig`,
            :class:`ConvTransformerClassifier`, :class:`ConvRNNClassifier` or :class:`VGGGRUCTC`.

    Raises:
        ValueError: no model has this name, or an option is out of range.
        TypeError: the model has no such option.
    """
    entry = _entry(name)
    known = inspect.signature(entry.options).parameters
    for option in options:
        if option not in known:
            raise TypeError(f"options: {name} has no {option!r}, expected {nearest(option, known)}")
    return entry.make(**options)


def typical_seconds(name: str) -> float:
    """Length of an utterance that a model is for: a few sentences, or one word for the classifiers.

    Raises:
        ValueError: no model has this name.
    """
    return _entry(name).typical_seconds


def _entry(name: str) -> _Entry:
    if name not in _MODELS:
        raise ValueError(f"name: expected {nearest(name, _MODELS)}, received {name!r}")
    return _MODELS[name]
