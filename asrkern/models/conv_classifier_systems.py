"""The convolutional classifiers as entries of the registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from asrkern.models.conv_transformer import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.models.system import Converted, Features, Labels, System

Classifier = type[ConvTransformerClassifier] | type[ConvRNNClassifier]

_RATE = 16000  # Hz, the lineage's


def _decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    return {"classes": tokenizer.size, "n_freq": features.n_features}


def _convert(
    kind: Classifier,
    name: str,
    path: str | os.PathLike[str],
    labels: Sequence[str] | None,
    options: dict[str, Any],
) -> Converted:
    model = kind.from_checkpoint(path, **options)
    known = {**kind.options_of(model.state_dict()), **options}
    # 20 ms windows have 161 bins at 16 kHz.
    features = {"sample_rate": _RATE, "window_seconds": 2 * (model.n_features - 1) / _RATE}
    return Converted(model, name, known, features, labels, "the classes in the order of the output")


def _system(kind: Classifier, name: str, sign: str) -> System:
    return System(
        title="a convolutional classifier",
        task="classify",
        names={name: kind},
        options=kind,
        decided=_decided,
        typical_seconds=1.0,
        sign=sign,
        convert=partial(_convert, kind, name),
    )


CONV_TRANSFORMER = _system(
    ConvTransformerClassifier, "conv_transformer", "transformer.encoder.layers.0.linear1.weight"
)
CONV_RNN = _system(ConvRNNClassifier, "conv_rnn", "rnn.weight_hh_l0")
