"""A trained model in one file, with everything that is needed to use it.

The file is safetensors: the weights, and in its header, under ``asrkern``, JSON with the model's name and options,
tokenizer, features, text normalisation, task, and what is known about its training. Nothing in it is executed.

``recognizer = load("best.safetensors")``, then ``recognizer.predict(features, lengths)`` or
``recognizer.predict_audio([samples, ...])``; ``recognizer.model`` is the model itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrkern._atomic_write import atomic_write
from asrkern._optional import require
from asrkern.data import collate
from asrkern.models import build
from asrkern.training.features import FeatureSettings
from asrkern.training.tasks import RecognitionTask, make_task
from asrkern.training.text import TextNormalization
from asrkern.training.tokenizer import Tokenizer, tokenizer_from_json

_KEY, _FORMAT = "asrkern", 1


@dataclass
class Recognizer:
    """A model and what it needs.

    Attributes:
        model: built by ``asrkern.models.build(model_name, **model_options)``.
        model_name, model_options: of it; the options are JSON.
        task_name: "ctc", "attention" or "classify".
        tokenizer: of its output.
        features: of its input.
        text: normalisation of the transcripts that it was trained on.
        tokens_per_frame: the largest ratio in training, which limits an attention model's transcripts.
        info: about its training: ``recipe``, ``epoch``, ``metrics``, ``asrkern`` (version).
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

    @cached_property
    def task(self) -> RecognitionTask:
        """Loss and transcripts."""
        return make_task(self.task_name, self.model, self.tokenizer, self.tokens_per_frame)

    @torch.no_grad()
    def predict(self, features: Tensor, lengths: Tensor) -> list[str]:
        """Greedy transcripts, or classes, in eval mode.

        Args:
            features: [N, 1, F, T] as :attr:`features` makes them.
            lengths: [N], frames of each.
        """
        self.model.eval()
        return self.task.predict(features, lengths)

    def predict_audio(self, samples: Sequence[Tensor]) -> list[str]:
        """The same of recordings: [samples] float32 each, at ``features.sample_rate``."""
        extract = self.features.make()
        return self.predict(*collate([extract(x) for x in samples]))


def save(path: str | os.PathLike[str], recognizer: Recognizer) -> None:
    """Write a checkpoint; a file of that name is replaced when the new one is whole.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written; what was there before is untouched.
    """
    header = {
        "format": _FORMAT,
        "model": {"name": recognizer.model_name, "options": recognizer.model_options},
        "task": recognizer.task_name,
        "tokenizer": recognizer.tokenizer.to_json(),
        "features": recognizer.features.model_dump(),
        "text": recognizer.text.model_dump(),
        "tokens_per_frame": recognizer.tokens_per_frame,
        "info": recognizer.info,
    }
    metadata = {_KEY: json.dumps(header, ensure_ascii=False)}
    with atomic_write(path) as temporary:
        require("safetensors.torch", "lm").save_model(recognizer.model, str(temporary), metadata)


def load(path: str | os.PathLike[str]) -> Recognizer:
    """Read a checkpoint.

    Returns:
        The recognizer, its model in fp32 on the CPU, in eval mode.

    Raises:
        ImportError: safetensors is not installed.
        OSError: there is no such file.
        ValueError: it is damaged or no such checkpoint, of a later format, or its weights are not all finite.
    """
    header = read_header(path)
    try:
        options = header["model"]["options"]
        model = build(header["model"]["name"], **options)
        recognizer = Recognizer(
            model,
            header["model"]["name"],
            options,
            header["task"],
            tokenizer_from_json(header["tokenizer"]),
            FeatureSettings(**header["features"]),
            TextNormalization(**header["text"]),
            header["tokens_per_frame"],
            header["info"],
        )
        require("safetensors.torch", "lm").load_model(model, str(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{os.fspath(path)}: expected a checkpoint of asrkern's training: {error}") from None
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{os.fspath(path)}: weights with NaN or infinite values: {', '.join(broken)}")
    model.eval()
    return recognizer


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says about itself, without its weights.

    Raises:
        ImportError, OSError, ValueError: as :func:`load`.
    """
    safetensors = require("safetensors", "lm")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"path: expected a checkpoint, received {os.fspath(path)!r}, which is not a file"
        )
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: expected an intact safetensors file: {error}") from None
    if _KEY not in metadata:
        raise ValueError(
            f"{os.fspath(path)}: expected a checkpoint of asrkern's training, received other weights"
        )
    header = json.loads(metadata[_KEY])
    if header.get("format") != _FORMAT:
        raise ValueError(f"{os.fspath(path)}: expected format {_FORMAT}, received {header.get('format')!r}")
    return header
