"""A trained model in one file, with everything that is needed to use it.

The file is safetensors. It holds the weights; and, in its header, under ``asrkern``, JSON with the model's name and
options, tokenizer, features, text normalisation, task, and what is known about its training. Nothing in it is executed.

``recognizer = load("best.safetensors")``, then ``recognizer.predict(features, lengths)`` or
``recognizer.predict_audio([samples, ...])``; ``recognizer.model`` is the model itself.
"""

from __future__ import annotations

import json
import os
import reprlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from asrkern import _file_kinds
from asrkern._atomic_write import atomic_write
from asrkern._checksum import checksum_of_text, hexadecimal_checksum
from asrkern._lengths import Lengths, as_lengths
from asrkern._memory import in_words, memory_for
from asrkern._optional import require
from asrkern.data import collate, load_audio
from asrkern.data.features import check_samples
from asrkern.decoder._files import about
from asrkern.models import build
from asrkern.models.registry import find
from asrkern.models.weights import outline
from asrkern.nn import GRU, LSTM, freeze, unfreeze
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.onnx_model import OnnxCTC
from asrkern.recognizer.tasks import RecognitionTask, make_task
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import Tokenizer, read_tokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from asrkern.recognizer.stream_transcription import StreamTranscriber
    from asrkern.recognizer.transcription import Transcript

Audio = str | os.PathLike[str] | Tensor | np.ndarray
_KEY, _FORMAT = "asrkern", 1
# Of the JSON under the key, so that no letter of a label changes unseen. Files of early releases have none.
_HEADER_CHECKSUM = "asrkern_checksum"
_ALTERED = "it is damaged, or another program has changed it, and asrkern.load(path, verify=False) reads it all the same"


class _Part(pydantic.BaseModel):
    """A part of the header. Types are checked where JSON is read; unknown keys, of other versions, are ignored."""

    model_config = pydantic.ConfigDict(extra="allow", protected_namespaces=())


class _Model(_Part):
    name: str
    options: dict[str, Any]


class _Characters(_Part):
    kind: Literal["characters"]
    labels: list[str]
    blank: int | None = None
    pad: int | None = None
    sos: int | None = None
    eos: int | None = None
    unit: Literal["character", "class"] = "character"


class _Pieces(_Part):
    kind: Literal["sentencepiece"]
    task: Literal["ctc", "attention", "classify"]
    model: str


class _Data(_Part):
    label: str = "label"


class _Trained(_Part):
    data: _Data = _Data()
    metric: str = "cer"


class _Info(_Part):
    recipe: _Trained = _Trained()


class _Header(_Part):
    model: _Model
    task: Literal["ctc", "attention", "classify"]
    tokenizer: Annotated[_Characters | _Pieces, pydantic.Field(discriminator="kind")]
    features: FeatureSettings
    text: TextNormalization
    tokens_per_frame: float = pydantic.Field(ge=0, le=100)
    info: _Info
    checksums: dict[str, str] | None = None


@dataclass
class Recognizer:
    """A model, with everything that is needed to use it.

    Attributes:
        model: built by ``asrkern.models.build(model_name, **model_options)``.
        model_name, model_options: what the model was built from; the options are JSON.
        task_name: "ctc", "attention" or "classify".
        tokenizer: for its output.
        features: for its input.
        text: normalisation of the transcripts that it was trained on.
        tokens_per_frame: the largest ratio in training. It limits the length of an attention model's transcripts.
        info: about its training: ``recipe``, ``epoch``, ``metrics``, ``asrkern`` (version), ``machine``.
    """

    model: nn.Module
    model_name: str
    model_options: dict[str, Any]
    task_name: str
    tokenizer: Tokenizer
    features: FeatureSettings
    text: TextNormalization
    tokens_per_frame: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> RecognitionTask:
        """The loss and the transcripts of this kind of model.

        Made anew each time, since the model may have been replaced.
        """
        return make_task(self.task_name, self.model, self.tokenizer, self.tokens_per_frame)

    @property
    def device(self) -> torch.device:
        """The device of the model; ``recognizer.model.to("cuda")`` or :meth:`move` changes it."""
        return device_of(self.model)

    def move(self, device: str | torch.device) -> None:
        """Move the model to a device, for inference alone.

        On the CPU a CTC model's recurrent layers are frozen: :func:`asrkern.nn.freeze` says what a frozen model
        refuses. An attention model needs no freezing, since its search packs all of its decoder once an utterance.

        Args:
            device: as torch takes it, such as "cpu" or "cuda:0".

        Raises:
            ValueError: an ONNX model and another device than the CPU.
        """
        if isinstance(self.model, OnnxCTC) and torch.device(device).type != "cpu":
            raise ValueError(f"device: expected cpu for an ONNX model, received {device}")
        if torch.device(device) != self.device:
            unfreeze(self.model)
        self.model.to(device)
        recurrent = any(type(module) in (GRU, LSTM) for module in self.model.modules())
        if recurrent and self.task_name == "ctc" and self.device.type == "cpu":
            freeze(self.model)

    @torch.no_grad()
    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """Greedy transcripts, or classes, in eval mode.

        Args:
            features: [N, 1, F, T] as ``features`` of the recognizer makes them, on any device.
            lengths: integers [N], frames of each.

        Returns:
            N texts.

        Raises:
            TypeError: lengths are not integers.
            ValueError: a shape or a length does not fit the model.
        """
        self.model.eval()
        lengths = as_lengths("lengths", lengths, len(features))
        return self.task.predict(features.to(self.device), lengths.to(self.device))

    def predict_audio(self, samples: Sequence[Tensor]) -> list[str]:
        """Greedy transcripts, or classes, of recordings.

        Args:
            samples: [samples] float32 each, at ``features.sample_rate``.

        Raises:
            ValueError: there is no recording, or one is no such tensor or too short for the model.
        """
        extract = self.features.make()
        return self.predict(*collate([extract(x) for x in samples]))

    def transcribe(
        self, audio: Audio | list[Audio] | tuple[Audio, ...], **options: Any
    ) -> Transcript | list[Transcript]:
        """What is said in recordings of any length, with words' times and confidences where the model tells them (CTC).

        Args:
            audio: the path of a recording; or its samples, a tensor or an array [samples] at ``features.sample_rate``,
                floating point; or a list of these.
            options: of :class:`Transcriber`: ``lm``, ``hotwords`` and others. Of a CTC model ``beam_width`` is 100
                unless it is given, also as None.

        Returns:
            A :class:`Transcript`, or one for each of a list.

        Raises:
            TypeError: audio is none of these.
            OSError, ValueError: a recording cannot be read or is too short for the model, or an option is wrong.
        """
        from asrkern.recognizer.transcription import Transcriber

        transcriber = Transcriber(self, **self._searching(options))
        if isinstance(audio, list | tuple):
            return transcriber.recordings([self._samples(each) for each in audio])
        return transcriber.recording(self._samples(audio))

    def stream(self, *, low_latency: bool = False, **options: Any) -> StreamTranscriber:
        """What a unidirectional DeepSpeech2 hears while audio comes in: :class:`StreamTranscriber`, called with chunks.

        Args:
            low_latency: as of :class:`StreamTranscriber`.
            options: as of :meth:`transcribe`.

        Raises:
            ValueError: as :class:`StreamTranscriber` and :class:`Transcriber`.
        """
        from asrkern.recognizer.stream_transcription import StreamTranscriber
        from asrkern.recognizer.transcription import Transcriber

        return StreamTranscriber(Transcriber(self, **self._searching(options)), low_latency=low_latency)

    def _searching(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"beam_width": 100, **options} if self.task_name == "ctc" else options

    def _samples(self, audio: Audio) -> Tensor:
        if isinstance(audio, str | os.PathLike):
            return load_audio(audio, self.features.sample_rate)
        if isinstance(audio, np.ndarray):
            audio = torch.from_numpy(audio)
        if not isinstance(audio, Tensor):
            raise TypeError(
                f"audio: expected a path, a tensor or an array, or a list of these, received {type(audio).__name__}"
            )
        check_samples(audio)
        return audio.float()


def save(path: str | os.PathLike[str], recognizer: Recognizer) -> None:
    """Write a checkpoint. If the file is there, it is replaced when the new one is whole.

    Args:
        path: the file, usually with the suffix ``.safetensors``.
        recognizer: the model and what it needs.


    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written; what was there before is untouched.
        ValueError: the model is an ONNX model, which has a file of its own.
    """
    if isinstance(recognizer.model, OnnxCTC):
        raise ValueError(f"recognizer: expected a model of asrkern, received that of {recognizer.model.path}")
    header = {
        "format": _FORMAT,
        "model": {"name": recognizer.model_name, "options": recognizer.model_options},
        "task": recognizer.task_name,
        "tokenizer": recognizer.tokenizer.to_json(),
        "features": recognizer.features.model_dump(),
        "text": recognizer.text.model_dump(),
        "tokens_per_frame": recognizer.tokens_per_frame,
        "info": recognizer.info,
        "checksums": {
            name: hexadecimal_checksum(weight) for name, weight in recognizer.model.state_dict().items()
        },
    }
    text = json.dumps(header, ensure_ascii=False)
    metadata = {_KEY: text, _HEADER_CHECKSUM: checksum_of_text(text)}
    with atomic_write(path) as temporary:
        require("safetensors.torch", "lm").save_model(recognizer.model, str(temporary), metadata)


def load(
    path: str | os.PathLike[str],
    tokens: str | os.PathLike[str] | None = None,
    features: FeatureSettings | None = None,
    *,
    verify: bool = True,
) -> Recognizer:
    """Read a checkpoint, or a CTC model in an ONNX file.

    Args:
        path: a file of :func:`save`; or an ONNX model, ``.onnx``, which ONNX Runtime runs on the CPU. Such a model reads
            audio [N, samples] (wav2vec 2.0's; ``preprocessor_config.json`` beside it is read), or features that its
            metadata name by sherpa-onnx's convention (``model_type`` of NeMo's, icefall's and wenet's CTC models).
        tokens: of an ONNX model, the file of its labels, as :meth:`asrkern.decoder.CTCBeamDecoder.from_tokens` reads it:
            ``tokens.txt``, ``vocab.json``, ``tokenizer.model`` …
        features: of an ONNX model, what it reads, in place of what the file says.
        verify: whether a checkpoint's checksums are compared. They differ in a damaged file, and where another program
            has changed weights or header. Files of before 0.3 have none.

    Returns:
        The recognizer, its model in fp32 on the CPU, in eval mode.

    Raises:
        ImportError: safetensors is not installed; for an ONNX model, onnxruntime.
        OSError: there is no such file.
        ValueError: it is damaged or no such checkpoint, has a later format, or weights that are not finite. For an ONNX
            model: no tokens, or not as many as its outputs; or inputs, outputs or metadata that are none of these.
    """
    if Path(path).suffix == ".onnx":
        return _of_onnx(os.fspath(path), tokens, features)
    for name, value in (("tokens", tokens), ("features", features)):
        if value is not None:
            raise ValueError(f"{name}: expected none, since a checkpoint has its own, received {value}")
    path = os.fspath(path)
    header = read_header(path, verify=verify)
    try:
        recognizer = _recognizer(path, header, verify)
    # TypeError and RuntimeError if another file has taken its place meanwhile.
    except (TypeError, ValueError, RuntimeError, require("safetensors", "lm").SafetensorError) as error:
        raise ValueError(f"{path}: expected a checkpoint of asrkern's training: {error}") from None
    broken = [name for name, value in recognizer.model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: weights with NaN or infinite values: {', '.join(broken)}")
    recognizer.model.eval()
    return recognizer


def _of_onnx(
    path: str, tokens: str | os.PathLike[str] | None, features: FeatureSettings | None
) -> Recognizer:
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: expected an ONNX model, received {path!r}, which is not a file")
    if tokens is None:
        raise ValueError(
            f"tokens: expected the file of the labels of {path} (tokens.txt, vocab.json, tokenizer.model), received none; "
            "asrkern transcribe, align and evaluate take it as --tokens"
        )
    tokenizer = read_tokenizer(tokens)
    with about(path):
        model = OnnxCTC(path, tokenizer.size, features).eval()
    letters = "".join(label for label in tokenizer.labels if len(label) == 1)
    case: Any = "upper" if letters == letters.upper() else "lower" if letters == letters.lower() else "keep"
    text = TextNormalization(case=case)
    return Recognizer(
        model, "onnx", {}, "ctc", tokenizer, model.features, text, info={"metadata": model.metadata}
    )


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights; the CPU if it has none, as a model in an ONNX file."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def read_header(path: str | os.PathLike[str], *, verify: bool = True) -> dict[str, Any]:
    """What a checkpoint says about itself, without weights: ``model``, ``task``, ``tokenizer``, ``features``, …

    Each value has the type that :func:`save` writes. verify: see :func:`load`.

    Raises:
        ImportError, OSError, ValueError: as :func:`load`.
    """
    safetensors = require("safetensors", "lm")
    path = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: expected a checkpoint, received {path!r}, which is not a file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: {_in_words(path, error)}") from None
    if _KEY not in metadata:
        raise ValueError(f"{path}: expected a checkpoint of asrkern's training, received {_others(metadata)}")
    try:
        header = json.loads(metadata[_KEY])
        if isinstance(header, dict) and header.get("format") != _FORMAT:
            received = reprlib.repr(header.get("format"))
            raise ValueError(f"{path}: expected format {_FORMAT}, received {received}")
        if verify and metadata.get(_HEADER_CHECKSUM, found := checksum_of_text(metadata[_KEY])) != found:
            raise ValueError(
                f"{path}: header: expected checksum {metadata[_HEADER_CHECKSUM][:60]}, received {found}: {_ALTERED}"
            )
        _Header.model_validate_json(metadata[_KEY], strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: header: {'; '.join(map(_describe, error.errors()))}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: header: expected JSON: {error}") from None
    return header


def _recognizer(path: str, header: dict[str, Any], verify: bool) -> Recognizer:
    """The recognizer that a header describes, with the weights of the file.

    Shapes are compared before memory is allocated: so a header cannot claim a model larger than its file.
    """
    name, options = header["model"]["name"], header["model"]["options"]
    tokenizer, features = tokenizer_from_json(header["tokenizer"]), FeatureSettings(**header["features"])
    with require("safetensors", "lm").safe_open(path, "pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: (value.get_shape(), value.get_dtype()) for key, value in slices.items()}
        sketch: Any = outline(partial(build, name, **options), len(shapes))
        _check_shapes(sketch, shapes)
        if verify and header.get("checksums") is not None:
            _check_checksums(header["checksums"], {key: file.get_tensor(key) for key in shapes})
    _check_tokenizer(tokenizer, header["task"], name, sketch.n_classes)
    if features.n_features != sketch.n_features:
        raise ValueError(
            f"features: expected {sketch.n_features}, the model's, received {features.n_features}"
        )
    size = sum(value.nbytes for value in sketch.state_dict().values())
    with memory_for(f"{path}: a model of {in_words(size)}"):
        model = build(name, **options)
        require("safetensors.torch", "lm").load_model(model, path)
    settings = (tokenizer, features, TextNormalization(**header["text"]))
    return Recognizer(
        model, name, options, header["task"], *settings, header["tokens_per_frame"], header["info"]
    )


def _check_tokenizer(tokenizer: Tokenizer, task: str, model_name: str, classes: int) -> None:
    expected = find(model_name).task
    if task != expected:
        raise ValueError(f"task: expected {expected!r} for {model_name}, received {task!r}")
    if tokenizer.size != classes:
        raise ValueError(
            f"tokenizer: expected {classes} labels, the model's classes, received {tokenizer.size}"
        )
    needed = {"ctc": ("blank",), "attention": ("pad", "sos", "eos"), "classify": ()}[task]
    for special in ("blank", "pad", "sos", "eos"):
        index = getattr(tokenizer, special)
        if (index is None and special in needed) or (index is not None and not 0 <= index < classes):
            raise ValueError(f"tokenizer.{special}: expected an index below {classes}, received {index}")


def _check_checksums(expected: dict[str, str], weights: dict[str, Tensor]) -> None:
    """weights: mapped into memory, so that they are read here for the first time."""
    altered = [name for name, weight in weights.items() if expected.get(name) != hexadecimal_checksum(weight)]
    if altered:
        raise ValueError(
            f"expected weights with their checksums, received {len(altered)} of {len(weights)} that have others, such as "
            f"{altered[0]}: {_ALTERED}"
        )


def _check_shapes(sketch: nn.Module, shapes: dict[str, tuple[list[int], str]]) -> None:
    """Refuse weights that are not the model's, and a model that has others."""
    places = sketch.state_dict(keep_vars=True)
    misfits = [f"unexpected key {key}" for key in shapes if key not in places]
    for key in shapes.keys() & places.keys():
        expected, (received, dtype) = list(places[key].shape), shapes[key]
        if expected != received:
            misfits.append(f"size mismatch for {key}: expected {expected}, received {received}")
        if places[key].is_floating_point() != dtype.startswith(("F", "BF")):
            misfits.append(f"{key}: expected {places[key].dtype}, received {dtype}")
    # Weights that are tied are in the file once.
    there = {id(places[key]) for key in shapes if key in places}
    misfits += [f"missing key {key}" for key, value in places.items() if id(value) not in there]
    if misfits:
        more = f" and {len(misfits) - 20} more" if len(misfits) > 20 else ""
        raise ValueError("; ".join(misfits[:20]) + more)


def _describe(error: Mapping[str, Any]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{key}: expected a value, received none"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key or 'all of it'}: {message}, received {reprlib.repr(error['input'])}"


def _in_words(path: str, error: Exception) -> str:
    """What a file is that safetensors cannot read."""
    with open(path, "rb") as file:
        head = file.read(9)
    if _file_kinds.is_safetensors(head):
        return f"expected an intact safetensors file, received a damaged one, or a part: {error}"
    found = _file_kinds.in_words(path)
    if found is None:
        best = Path(path).with_name("best.safetensors")
        if Path(path).name == "last.ckpt" and best.is_file():
            return f"expected an intact safetensors file, received the state of a run; its models are {best} and beside it"
        found = (
            "perhaps a checkpoint of torch.save or Lightning; of those that asrkern knows such a file is made by: "
            f"asrkern convert {shlex.quote(path)} {shlex.quote(str(Path(path).with_suffix('.safetensors')))}"
        )
    return f"expected an intact safetensors file, received {found}"


def _others(metadata: Mapping[str, str]) -> str:
    kind = metadata.get("format", "")
    return "an n-gram language model" if kind.startswith("asrkern n-gram model") else "other weights"
