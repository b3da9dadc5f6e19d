"""Checkpoints of the projects that asrkern's models come from, converted to asrkern's own.

That is weights, model options, and what only the project's code says: features, tokenizer, normalisation of text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asrkern
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.registry import convertible, recognise
from asrkern.models.system import Converted, System
from asrkern.models.weights import find_state_dict
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer


def convert(
    path: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Recognizer:
    """Read a checkpoint of another project; nothing in the file is executed.

    Args:
        path: a checkpoint of deepspeech.pytorch 1.0 to 3.0 or MLPerf v0.5, HW4P2, KoSpeech, or the convolutional
            classifiers.
        labels: of the output, in its order. Needed if neither the file nor its project has them: for a classifier, for
            KoSpeech, and for another number of classes than the project's.
        options: what no weight tells, such as ``layout`` (DeepSpeech2) or ``attention_heads`` (LAS); see the models'
            ``from_checkpoint``.

    Returns:
        The recognizer, which :func:`asrkern.recognizer.save` writes.

    Raises:
        OSError: the file cannot be opened.
        TypeError: an option does not exist.
        ValueError: it is no checkpoint of these kinds, is damaged, or has no labels or a wrong number of them.
    """
    system: Any = _system(path)
    found = system.convert(path, labels, dict(options or {}))
    labels = _checked(path, found)
    features, text, unit = FeatureSettings(**found.features), TextNormalization(), "class"
    if system.task != "classify":
        special = set(found.special.values())
        text, unit = _normalization(label for i, label in enumerate(labels) if i not in special), "character"
    return Recognizer(
        found.model,
        found.name,
        # The options as they are after being written and read.
        json.loads(json.dumps(found.options)),
        system.task,
        CharacterTokenizer(tuple(labels), **found.special, unit=unit),
        features,
        text,
        found.tokens_per_frame,
        {"converted": Path(path).name, "asrkern": asrkern.__version__},
    )


def _system(path: str | os.PathLike[str]) -> System:
    container = read_checkpoint(path, whole_module=True)
    try:
        state = find_state_dict(container, "speech recognition", ("model_state_dict", "state_dict"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    system = recognise(state)
    if system is None:
        *titles, last = sorted({system.title for system in convertible()})
        keys = ", ".join(sorted(state)[:5])
        raise ValueError(
            f"{os.fspath(path)}: expected a checkpoint of {', '.join(titles)} or {last}, "
            f"received one with the keys {keys}{', …' if len(state) > 5 else ''}"
        )
    return system


def _checked(path: str | os.PathLike[str], found: Converted) -> Sequence[str]:
    labels, count, which = found.labels, found.model.n_classes, found.label_kind
    if labels is None:
        raise ValueError(
            f"{os.fspath(path)}: labels: the file has none; expected {count} ({which}), received none"
        )
    if len(labels) != count:
        raise ValueError(f"{os.fspath(path)}: labels: expected {count} ({which}), received {len(labels)}")
    return labels


def _normalization(labels: Any) -> TextNormalization:
    """Normalisation to the case of the labels; none if they have both cases or neither."""
    text = "".join(labels)
    upper, lower = text == text.upper(), text == text.lower()
    return TextNormalization(case="keep" if upper == lower else "upper" if upper else "lower")
