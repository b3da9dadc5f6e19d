"""What training, checkpoints, transcription and conversion have to know of a kind of model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn


class Labels(Protocol):
    """What a model is told of its output: see :mod:`asrkern.recognizer.tokenizer`."""

    labels: tuple[str, ...]
    blank: int | None
    pad: int | None
    sos: int | None
    eos: int | None

    @property
    def size(self) -> int: ...


class Features(Protocol):
    """What a model is told of its input: see :class:`asrkern.recognizer.FeatureSettings`."""

    sample_rate: int
    hop_seconds: float
    periodic: bool

    @property
    def n_features(self) -> int: ...

    @property
    def window(self) -> float: ...


@dataclass(frozen=True)
class Converted:
    """A checkpoint of another project: the model, and what the file does not say but its lineage does.

    Attributes:
        model: in eval mode.
        name, options: with which :func:`asrkern.models.build` makes it.
        features: options of :class:`asrkern.recognizer.FeatureSettings`.
        labels: of the output; None where neither the file nor its lineage has them.
        label_kind: what they are, for messages.
        special: the index of each special label there is: "blank", "pad", "sos", "eos".
        tokens_per_frame: where an attention model stops at the latest.
    """

    model: nn.Module
    name: str
    options: Mapping[str, Any]
    features: Mapping[str, Any]
    labels: Sequence[str] | None
    label_kind: str = "labels"
    special: Mapping[str, int] = field(default_factory=dict)
    tokens_per_frame: float = 0.0


# (path, labels that the caller gives, options that no weight tells) → the model and its lineage.
Convert = Callable[[str | os.PathLike[str], Sequence[str] | None, dict[str, Any]], Converted]


@dataclass(frozen=True)
class System:
    """A kind of model.

    A model is an nn.Module with ``n_features``, ``n_classes`` and ``output_length(frames)``, the frames of its output,
    0 where there are too few. What it is called with and returns is its task's: see :mod:`asrkern.recognizer.tasks`. A
    CTC model also has ``frame_geometry``, a :class:`asrkern.models.conv_front_end.FrameGeometry`.

    Attributes:
        title: in messages.
        task: what it is trained for.
        names: as :func:`asrkern.models.build` takes them, each with what makes the model from options.
        options: what has these options as its arguments.
        decided: those that tokenizer and features decide, as JSON.
        feature_kind: the only kind of features that it reads; None for any.
        typical_seconds: length of an utterance that it is for.
        sign: a key that of all kinds of models only its checkpoints have; None where no other project has any.
        convert: reads these. Raises OSError, TypeError and ValueError as :func:`asrkern.recognizer.convert`.
        stream: runs a model over chunks as :class:`asrkern.models.StreamingDeepSpeech2` does; None: nothing does.
    """

    title: str
    task: Literal["ctc", "attention", "classify"]
    names: Mapping[str, Callable[..., nn.Module]]
    options: Callable[..., Any]
    decided: Callable[[Labels, Features], dict[str, Any]]
    feature_kind: str | None = None
    typical_seconds: float = 10.0
    sign: str | None = None
    convert: Convert | None = None
    stream: Callable[[Any], Any] | None = None
