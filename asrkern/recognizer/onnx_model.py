"""CTC models in ONNX files, run by ONNX Runtime on the CPU in a recognizer like any other.

What such a model reads follows from its inputs and its metadata. Audio, [N, samples]: wav2vec 2.0 and its kin. Features,
[N, F, T] or [N, T, F]: the metadata's ``model_type`` says which, by the convention of sherpa-onnx, whose sources
(``offline-nemo-enc-dec-ctc-model.cc``, ``offline-recognizer-ctc-impl.h``, ``scripts/nemo``) are what this follows:

==================================================  =========================  ===========
model_type                                          features                   their place
==================================================  =========================  ===========
EncDecCTCModel, EncDecCTCModelBPE,                  NeMo's, with ``is_giga_am``  [N, F, T]
EncDecHybridRNNTCTCBPEModel                         1 GigaAM's
zipformer2_ctc                                      icefall's                  [N, T, F]
wenet_ctc                                           wenet's                    [N, T, F]
==================================================  =========================  ===========

``normalize_type`` is ``per_feature`` or none (empty, ``NA``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern._optional import require
from asrkern.decoder._files import about
from asrkern.models.conv_front_end import FrameGeometry
from asrkern.recognizer.feature_settings import FeatureSettings

_NEMO = ("EncDecCTCModel", "EncDecCTCModelBPE", "EncDecHybridRNNTCTCBPEModel")
_OTHERS = {"zipformer2_ctc": "icefall", "wenet_ctc": "wenet"}
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_GIGAAM_BINS = 64
_LEAST = 1e-30  # probability
# A model's frames are counted on so much sound, or twice as much until it makes two frames of it.
_PROBE_SECONDS, _LONGEST_PROBE_SECONDS = 0.25, 16.0


class _Inputs(NamedTuple):
    """What a session is given.

    audio, rank, dtype: of the input of audio or features; lengths, lengths_dtype: of that of lengths, None if there is
    none; is_mask: it is a mask [N, T], not lengths [N]; time_last: features are [N, F, T], not [N, T, F].
    """

    audio: str
    rank: int
    dtype: type
    lengths: str | None
    lengths_dtype: type
    is_mask: bool
    time_last: bool


class OnnxCTC(nn.Module):
    """A CTC model in an ONNX file, called as asrkern's CTC models are.

    Each row is run alone, without its padding, so that it does not depend on its batch.

    Args:
        path: the file.
        features: what it reads; None: as its inputs and its metadata say, see this module.
        n_classes: how many labels there are.

    Attributes:
        path, n_classes: as given.
        features: what it reads.
        metadata: of the file.
        frame_geometry: where its output frames are in the input, if the model looks as far back as ahead.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: ONNX Runtime cannot read or run the file; inputs, outputs or metadata of another kind of model; or
            another number of labels.
    """

    def __init__(
        self, path: str | os.PathLike[str], n_classes: int, features: FeatureSettings | None = None
    ) -> None:
        super().__init__()
        runtime = require("onnxruntime", "onnx")
        self.path, self.n_classes = os.fspath(path), n_classes
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised, and lengths are tried that a model may refuse
        try:
            self._session = runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        # Whatever its parsers raise: they share no class.
        except Exception as error:
            raise ValueError(f"expected a model that ONNX Runtime reads: {error}") from None
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        inputs, [output, *_] = self._session.get_inputs(), self._session.get_outputs()
        self.features = features or _features_of(self.path, inputs, self.metadata)
        self._inputs, self._output = _read_inputs(inputs, self.features), output.name
        if len(output.shape) == 3 and isinstance(output.shape[2], int):
            _check_labels(output.shape[2], n_classes)
        self._gives_probabilities = False
        step, self._reach = self._measure()
        # The middle of the frames that an output frame sees, if padding is the same at both ends.
        self.frame_geometry = FrameGeometry(step, (step - self._reach - 1) / 2)

    def output_length(self, frames: int) -> int:
        """How many output frames so many input frames (samples, for a model of audio) make."""
        return max(0, (frames + self._reach) // self.frame_geometry.step)

    def forward(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Log-probabilities.

        Args:
            features: [N, 1, F, T].
            lengths: integers [N], frames of each.

        Returns:
            Log-probabilities [N, T', V] float32 and their lengths [N] int64.

        Raises:
            TypeError: lengths are not integers.
            ValueError: features of another shape, too short a row, or ONNX Runtime cannot run it.
        """
        lengths = as_lengths("lengths", lengths, len(features))
        expected = self.features.n_features
        if features.dim() != 4 or features.shape[1:3] != (1, expected):
            raise ValueError(f"features: expected [N, 1, {expected}, T], received {list(features.shape)}")
        counts = [self.output_length(frames) for frames in lengths.tolist()]
        if min(counts, default=1) < 1:
            raise ValueError(
                f"lengths: expected at least {self.frame_geometry.step - self._reach} frames for this model, "
                f"received {int(lengths.min())}"
            )
        found = features.new_zeros(len(features), max(counts, default=0), self.n_classes, dtype=torch.float32)
        for row, each, frames, count in zip(found, features, lengths.tolist(), counts):
            log_probs = self._log_probs(each[0, :, :frames])
            if len(log_probs) != count:
                raise ValueError(
                    f"model: expected {count} output frames for {frames} input frames, received {len(log_probs)}"
                )
            row[:count] = log_probs
        return found, torch.tensor(counts)

    def _log_probs(self, features: Tensor) -> Tensor:
        """Log-probabilities [T', V] of features [F, T]."""
        scores = self._scores(features)
        return scores.clamp(min=_LEAST).log() if self._gives_probabilities else scores.log_softmax(-1)

    def _scores(self, features: Tensor) -> Tensor:
        """What the model puts out for features [F, T], [T', V] float32."""
        inputs, frames = self._inputs, features.shape[1]
        x = features if inputs.rank == 2 else (features if inputs.time_last else features.t())[None]
        given: dict[str, Any] = {inputs.audio: np.ascontiguousarray(x.numpy(), inputs.dtype)}
        if inputs.lengths is not None:
            lengths = np.ones((1, frames)) if inputs.is_mask else np.array([frames])
            given[inputs.lengths] = lengths.astype(inputs.lengths_dtype)
        try:
            [output] = self._session.run([self._output], given)
        # ONNX Runtime's errors share no class.
        except Exception as error:
            raise ValueError(f"model: ONNX Runtime cannot run it on {frames} frames: {error}") from None
        if output.ndim != 3 or output.shape[0] != 1:
            raise ValueError(f"model: expected an output [N, frames, labels], received {list(output.shape)}")
        _check_labels(output.shape[2], self.n_classes)
        return torch.from_numpy(output[0].astype(np.float32))

    def _measure(self) -> tuple[int, int]:
        """Step and reach of the model: convolutions make (frames + reach) // step frames of their input."""
        rate = 1 / self.features.hop_seconds
        # Not silence, of which a model that normalises makes NaN.
        sound = (
            torch.arange(round(2 * _LONGEST_PROBE_SECONDS * rate)).sin().expand(self.features.n_features, -1)
        )
        length = round(_PROBE_SECONDS * rate)
        scores: Any = None
        while scores is None or len(scores) < 2:
            is_last = 2 * length > _LONGEST_PROBE_SECONDS * rate
            try:
                scores = self._scores(sound[:, :length])
            # Models refuse what is too short for them.
            except ValueError:
                if is_last:
                    raise
            if is_last and len(scores) < 2:
                raise ValueError(
                    f"model: expected two output frames of {length} frames, received {len(scores)}"
                )
            length *= 2
        length //= 2
        self._gives_probabilities = bool((scores >= 0).all() and ((scores.sum(-1) - 1).abs() < 1e-3).all())

        def shortest(count: int, low: int, high: int) -> int:
            """The smallest length above low, at most high, of which the model makes so many frames."""
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if len(self._scores(sound[:, :middle])) >= count else (middle, high)
            return high

        count = len(scores)
        longest_step = -(-length // (count - 1))
        first = shortest(count + 1, length, length + longest_step)
        step = shortest(count + 2, first, first + longest_step) - first
        reach = step * (count + 1) - first
        expected, received = (2 * length + reach) // step, len(self._scores(sound[:, : 2 * length]))
        if received != expected:
            raise ValueError(
                f"model: expected an output frame for every {step} input frames, {expected} for {2 * length}, "
                f"received {received}"
            )
        return step, reach


def _features_of(path: str, inputs: list[Any], metadata: dict[str, str]) -> FeatureSettings:
    """What a model reads, by the rank of its input and its metadata."""
    shape = _sound_input(inputs).shape
    if len(shape) == 2:
        return _settings_of_audio(Path(path).with_name("preprocessor_config.json"))
    kind = metadata.get("model_type")
    if kind not in (*_NEMO, *_OTHERS):
        raise ValueError(
            f"model_type: expected one of {', '.join((*_NEMO, *_OTHERS))} in the model's metadata, since it reads "
            f"features, received {kind!r}; else give features to asrkern.load"
        )
    normalize = metadata.get("normalize_type", "")
    if normalize not in ("per_feature", "", "NA"):
        raise ValueError(
            f"normalize_type: expected per_feature or none in the model's metadata, received {normalize!r}"
        )
    convention: Any = _OTHERS.get(kind)
    is_nemo = kind in _NEMO
    if is_nemo:
        convention = "gigaam" if metadata.get("is_giga_am", "0") == "1" else "nemo"
    size = shape[1 if is_nemo else 2] if len(shape) == 3 else None
    bins = size if isinstance(size, int) else _GIGAAM_BINS if convention == "gigaam" else 80
    return FeatureSettings(kind="fbank", convention=convention, bins=bins, cmvn=normalize == "per_feature")


def _settings_of_audio(config: Path) -> FeatureSettings:
    """Audio as transformers' preprocessor_config.json beside a model says; without one, normalised at 16 kHz."""
    rate, is_normalised = 16000, True
    if config.is_file():
        with about(config):
            value = json.loads(config.read_text("utf-8"))
            rate = value.get("sampling_rate", rate) if isinstance(value, dict) else None
            if not isinstance(rate, int) or rate < 1:
                raise ValueError("expected an object with a sampling_rate in Hz, received another")
            is_normalised = value.get("do_normalize", True) is True
            return FeatureSettings(kind="samples", sample_rate=rate, hop_seconds=1 / rate, cmvn=is_normalised)
    return FeatureSettings(kind="samples", sample_rate=rate, hop_seconds=1 / rate)


def _sound_input(inputs: list[Any]) -> Any:
    """The one input of floating point; at most one other, of lengths, may stand beside it."""
    floats = [each for each in inputs if each.type in _FLOATS]
    others = [each for each in inputs if each.type in _INTEGERS and len(each.shape) in (1, 2)]
    if (
        len(floats) != 1
        or len(others) > 1
        or len(inputs) > 1 + len(others)
        or len(floats[0].shape) not in (2, 3)
    ):
        shown = "; ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
        raise ValueError(
            "model: expected an input of audio [N, samples] or features [N, F, T] or [N, T, F], and perhaps one of "
            f"lengths [N] or a mask [N, T], received {shown}"
        )
    return floats[0]


def _read_inputs(inputs: list[Any], features: FeatureSettings) -> _Inputs:
    """How the model is called with such features."""
    sound = _sound_input(inputs)
    shape, bins = sound.shape, features.n_features
    rank = len(shape)
    if (rank == 2) != (features.kind == "samples"):
        raise ValueError(
            f"features.kind: expected {'samples' if rank == 2 else 'features of several bins'}, since the model reads "
            f"{shape}, received {features.kind!r}"
        )
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if rank == 3 and sizes and bins not in sizes:
        raise ValueError(f"features: expected {sizes[0]} for each frame, as the model reads, received {bins}")
    places = [place for place in range(1, rank) if shape[place] == bins]
    # Where the file does not say, the convention does.
    time_last = rank == 2 or (
        places == [1] if len(places) == 1 else features.convention in ("nemo", "gigaam")
    )
    fixed = {"batch": shape[0], "time": shape[-1 if time_last else 1]}
    for name, size in fixed.items():
        if isinstance(size, int) and not (name == "batch" and size == 1):
            expected = "1 or any" if name == "batch" else "any"
            raise ValueError(
                f"model: expected a {name} dimension of {expected} size, received {size} in {shape}"
            )
    [lengths] = [each for each in inputs if each is not sound] or [None]
    return _Inputs(
        sound.name,
        rank,
        _FLOATS[sound.type],
        lengths and lengths.name,
        _INTEGERS[lengths.type] if lengths else np.int64,
        lengths is not None and len(lengths.shape) == 2,
        time_last,
    )


def _check_labels(expected: int, received: int) -> None:
    if expected != received:
        raise ValueError(
            f"tokens: expected {expected} labels, one for each output of the model, received {received}"
        )
