"""What training, checkpoints, transcription and conversion need to know about a kind of model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn


class Labels(Protocol):
    """What a model is told about its output: see :mod:`asrkern.recognizer.tokenizer`."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def blank(self) -> int | None: ...

    @property
    def pad(self) -> int | None: ...

    @property
    def sos(self) -> int | None: ...

    @property
    def eos(self) -> int | None: ...

    @property
    def size(self) -> int: ...


class Features(Protocol):
    """What a model is told about its input: see :class:`asrkern.recognizer.FeatureSettings`."""

    @property
    def kind(self) -> str: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def hop_seconds(self) -> float: ...

    @property
    def periodic(self) -> bool: ...

    @property
    def n_features(self) -> int: ...

    @property
    def window(self) -> float: ...


@dataclass(frozen=True)
class Converted:
    """A checkpoint of another project: the model, and what is known from its lineage rather than from the file.

    Attributes:
        model: in eval mode.
        name, options: what :func:`asrkern.models.build` makes the model from.
        features: options of :class:`asrkern.recognizer.FeatureSettings`.
        labels: of the output; None if neither the file nor the lineage has them.
        label_kind: what the labels are, in messages.
        special: the index of each special label there is: "blank", "pad", "sos", "eos".
        tokens_per_frame: where an attention model's transcript ends at the latest.
    """

    model: nn.Module
    name: str
    options: Mapping[str, Any]
    features: Mapping[str, Any]
    labels: Sequence[str] | None
    label_kind: str = "labels"
    special: Mapping[str, int] = field(default_factory=dict)
    tokens_per_frame: float = 0.0


# (path, labels given by the caller, options that no weight tells) → the model and what its lineage says.
Convert = Callable[[str | os.PathLike[str], Sequence[str] | None, dict[str, Any]], Converted]


@dataclass(frozen=True)
class System:
    """A kind of model.

    A model is an nn.Module with ``n_features``, ``n_classes`` and ``output_length(frames)``: how many frames of output
    so many frames of input make, 0 if they are too few. Its task says what it is called with and what it returns: see
    :mod:`asrkern.recognizer.tasks`. A CTC model also has ``frame_geometry``, a
    :class:`asrkern.models.conv_front_end.FrameGeometry`.

    Attributes:
        title: its name in messages.
        task: what it is trained for.
        names: names as :func:`asrkern.models.build` takes them → what makes the model from options.
        options: the class or function whose arguments are these options.
        decided: the options that tokenizer and features decide, as JSON.
        feature_kind: the only kind of features that it reads; None for any.
        typical_seconds: length of an utterance that the model is meant for.
        sign: a key that, among all kinds of models, only its checkpoints have; None if no other project has any.
        convert: reads checkpoints of other projects. Raises OSError, TypeError and ValueError as
            :func:`asrkern.recognizer.convert`.
        stream: runs a model over chunks, as :class:`asrkern.models.StreamingDeepSpeech2` does, with its argument
            ``low_latency``; None if nothing does.
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
    stream: Callable[..., Any] | None = None
