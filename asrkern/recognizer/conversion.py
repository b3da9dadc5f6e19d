"""Checkpoints of the lineages that asrkern's models come from, as checkpoints of its own.

Weights, model options, and what the file does not say but its lineage does: features, tokenizer, normalisation of text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asrkern
from asrkern._names import nearest
from asrkern.models import LAS, DeepSpeech2
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.conv_transformer import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.models.las_config import HW4_LABELS, LASConfig
from asrkern.models.weights import find_state_dict
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer

Classifier = type[ConvTransformerClassifier] | type[ConvRNNClassifier]

# A key that only files of this kind have.
_SIGNS = {
    "rnns.0.rnn.weight_ih_l0": "deepspeech2",
    "speller.embedding.weight": "las",
    "transformer.encoder.layers.0.linear1.weight": "conv_transformer",
    "rnn.weight_hh_l0": "conv_rnn",
}
_CLASSIFIERS: dict[str, Classifier] = {
    "conv_transformer": ConvTransformerClassifier,
    "conv_rnn": ConvRNNClassifier,
}

# Attention models stop there at the latest. Nobody speaks 25 characters a second (Korean: 10 syllables).
_TOKENS_PER_FRAME = 0.25


def convert(
    path: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Recognizer:
    """Read a checkpoint of another project; nothing in the file is executed.

    Args:
        path: of deepspeech.pytorch 1.0 to 3.0 or MLPerf v0.5, HW4P2, KoSpeech, or the convolutional classifiers.
        labels: of the output, in its order; needed where neither the file nor its lineage has them: those of a
            classifier, of KoSpeech, and of other numbers of classes than the lineage's.
        options: what no weight tells, such as ``layout`` (DeepSpeech2) or ``attention_heads`` (LAS); see the models'
            ``from_checkpoint``.

    Returns:
        What :func:`asrkern.recognizer.saved.save` writes.

    Raises:
        OSError: the file cannot be opened.
        TypeError: an option does not exist.
        ValueError: it is no checkpoint of these kinds, is damaged, or has no labels or a wrong number of them.
    """
    options = dict(options or {})
    kind = _kind(path)
    if kind == "deepspeech2":
        recognizer = _deepspeech2(path, labels, options)
    elif kind == "las":
        recognizer = _las(path, labels, options)
    else:
        recognizer = _classifier(path, kind, labels, options)
    # As they are once they have been written.
    recognizer.model_options = json.loads(json.dumps(recognizer.model_options))
    recognizer.info = {"converted": Path(path).name, "asrkern": asrkern.__version__}
    return recognizer


def _kind(path: str | os.PathLike[str]) -> str:
    state = _state(path)
    kind = next((kind for key, kind in _SIGNS.items() if key in state), None)
    if kind is None:
        keys = ", ".join(sorted(state)[:5])
        raise ValueError(
            f"{os.fspath(path)}: expected a checkpoint of DeepSpeech2, Listen-Attend-Spell or a convolutional "
            f"classifier, received one with the keys {keys}{', …' if len(state) > 5 else ''}"
        )
    return kind


def _state(path: str | os.PathLike[str]) -> dict[str, Any]:
    container = read_checkpoint(path, whole_module=True)
    try:
        return find_state_dict(container, "speech recognition", ("model_state_dict", "state_dict"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _deepspeech2(
    path: str | os.PathLike[str], labels: Sequence[str] | None, options: dict[str, Any]
) -> Recognizer:
    known = ("layout", "emulate_length_rounding")
    for name in options:
        if name not in known:
            raise TypeError(f"options: DeepSpeech2 has no {name!r}, expected {nearest(name, known)}")
    model = DeepSpeech2.from_checkpoint(path, labels=labels, **options)
    config = model.config
    if config.window != "hamming":
        raise ValueError(
            f"{os.fspath(path)}: window: expected 'hamming', the one that asrkern computes, received {config.window!r}"
        )
    features = FeatureSettings(
        sample_rate=config.sample_rate,
        window_seconds=config.window_size,
        hop_seconds=config.window_stride,
        periodic=config.window_periodic,
    )
    blank = config.labels.index("_") if "_" in config.labels else 0
    tokenizer = CharacterTokenizer(config.labels, blank=blank)
    text = _normalization(label for i, label in enumerate(config.labels) if i != blank)
    return Recognizer(model, "deepspeech2", asdict(config), "ctc", tokenizer, features, text)


def _las(path: str | os.PathLike[str], labels: Sequence[str] | None, options: dict[str, Any]) -> Recognizer:
    known = LASConfig.__dataclass_fields__
    for name in options:
        if name not in known:
            raise TypeError(f"options: LAS has no {name!r}, expected {nearest(name, known)}")
    model = LAS.from_checkpoint(path, **options)
    config = model.config
    hw4 = config.speller == "lstm_cells"
    if labels is None and hw4 and config.num_tokens == len(HW4_LABELS):
        labels = HW4_LABELS
    special = {config.pad_token, config.sos_token, config.eos_token}
    labels = _checked(path, labels, config.num_tokens, "start, end and padding among them")
    tokenizer = CharacterTokenizer(
        tuple(labels), pad=config.pad_token, sos=config.sos_token, eos=config.eos_token
    )
    if hw4:
        name = "las_hw4_mobile" if config.listener == "mobile" else "las_hw4"
        features = FeatureSettings(kind="mfcc", bins=config.n_features)
    else:
        name, features = "las_kospeech", FeatureSettings(kind="log_mel", bins=config.n_features)
    text = _normalization(label for i, label in enumerate(labels) if i not in special)
    settings = (tokenizer, features, text, _TOKENS_PER_FRAME)
    return Recognizer(model, name, asdict(config), "attention", *settings)


def _classifier(
    path: str | os.PathLike[str], kind: str, labels: Sequence[str] | None, options: dict[str, Any]
) -> Recognizer:
    make = _CLASSIFIERS[kind]
    model = make.from_checkpoint(path, **options)
    known = {**make.options_of(_state(path)), **options}
    labels = _checked(path, labels, known["classes"], "the classes in the order of the output")
    # 20 ms windows have 161 bins at 16 kHz.
    rate = 16000
    features = FeatureSettings(sample_rate=rate, window_seconds=2 * (model.n_features - 1) / rate)
    tokenizer = CharacterTokenizer(tuple(labels), unit="class")
    return Recognizer(model, kind, known, "classify", tokenizer, features, TextNormalization())


def _checked(
    path: str | os.PathLike[str], labels: Sequence[str] | None, count: int, which: str
) -> Sequence[str]:
    if labels is None:
        raise ValueError(
            f"{os.fspath(path)}: labels: the file has none; expected {count} ({which}), received none"
        )
    if len(labels) != count:
        raise ValueError(f"{os.fspath(path)}: labels: expected {count} ({which}), received {len(labels)}")
    return labels


def _normalization(labels: Any) -> TextNormalization:
    """Letters of the case that the labels have; as they are where these have both or none."""
    text = "".join(labels)
    upper, lower = text == text.upper(), text == text.lower()
    return TextNormalization(case="keep" if upper == lower else "upper" if upper else "lower")
