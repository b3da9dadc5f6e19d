"""A part of a recording, or stored features, and what is said in it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class Utterance:
    """One entry of a manifest. Exactly one of ``audio_path`` and ``features_path`` is set.

    Attributes:
        audio_path: the recording.
        features_path: an ``.npz`` archive with computed features, for corpora without waveforms.
        features_key: the array's name in it.
        duration_seconds: length of the utterance.
        offset_seconds: where it starts in the recording.
        text: the transcript; empty if the manifest has none.
        extra: every other field of the entry (``speaker``, ``label``, ``words``, ...).
    """

    audio_path: Path | None
    duration_seconds: float
    text: str = ""
    offset_seconds: float = 0.0
    features_path: Path | None = None
    features_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def load_features(utterance: Utterance) -> Tensor:
    """The stored features of an utterance: ``[bins, frames]`` float32 (the archive holds ``[frames, bins]``).

    Raises:
        ValueError: the utterance has no stored features, or the archive does not hold a two-dimensional
            array of that name.
    """
    path, key = utterance.features_path, utterance.features_key
    if path is None:
        raise ValueError(f"utterance: expected one with features_path, received {utterance}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"features_path: expected an .npz archive, received {str(path)!r}")
    try:
        with numpy.load(path) as archive:
            if key not in archive:
                raise ValueError(f"features_key: expected a name in {str(path)!r}, received {key!r}")
            array = archive[key]
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"features_path: expected an intact archive, received {str(path)!r}: {error}"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(
            "utterance: expected floating-point features [frames, bins], "
            f"received {array.dtype} {array.shape}"
        )
    return torch.from_numpy(array).float().t().contiguous()
