"""Corpora as lhotse CutSets: one cut an utterance, with one supervision that holds text, speaker and more.

:func:`read_cuts` takes any manifest that :func:`asrkern.data.read_manifest` reads (NeMo's, deepspeech.pytorch's,
tables), lhotse's manifests (:mod:`asrkern.training.lhotse_manifests`), a Kaldi data folder
(:mod:`asrkern.training.kaldi`), or a folder in LibriSpeech's layout (``*.trans.txt`` beside the recordings). If
features are stored, the cut's ``custom`` has ``features_path`` and ``features_key``. The supervision's ``custom`` has
every other field of a NeMo manifest.

Recordings keep their rates. :func:`asrkern.training.batches.load_cut` changes them to the rate of the features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asrkern.data import Utterance
from asrkern.data._files import decode, read_lines
from asrkern.data.manifest import iterate_manifest
from asrkern.training.cuts import make_cut, read_recording
from asrkern.training.kaldi import kaldi_cuts
from asrkern.training.lhotse_manifests import is_lhotse, is_lhotse_folder, lhotse_cuts, lhotse_folder_cuts

# Manifests round durations. One that reaches further beyond the end of a recording is a mistake.
_TOLERANCE_SECONDS = 0.05

# Collects the errors of single utterances, which are then left out; None: the first one is raised.
LeftOut = list[Exception] | None


def read_cuts(
    path: str | os.PathLike[str], sample_rate: int | None = None, left_out: LeftOut = None
) -> CutSet:
    """The utterances of a corpus.

    Args:
        path: see above.
        sample_rate: no longer used: each recording has its own rate.
        left_out: a list that collects the errors of single utterances, which are then left out; None: the first error
            is raised.

    Raises:
        FileNotFoundError: there is no such corpus, or it names a recording that does not exist.
        OSError: a file cannot be read.
        ValueError: it is none of these forms or has no utterance, or a recording is empty, damaged or shorter than its
            utterance. The message has file and line.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"path: expected a manifest or a folder, received {str(path)!r}, which does not exist"
        )
    cuts: list[Cut] = []
    for make in _entries(path, left_out):
        try:
            cuts.append(make())
        except (OSError, ValueError) as error:
            if left_out is None:
                raise
            left_out.append(error)
    if not cuts:
        raise ValueError(f"path: expected at least one utterance, received none in {str(path)!r}")
    return CutSet.from_cuts(unique(cuts))


def unique(cuts: Iterable[Cut]) -> Iterator[Cut]:
    """The cuts with different names: what is computed of utterances is kept by name."""
    seen: set[str] = set()
    for number, cut in enumerate(cuts, 1):
        name = cut.id
        while name in seen:
            name = f"{name}#{number}"
        seen.add(name)
        yield cut if name == cut.id else fastcopy(cut, id=name)


def _entries(path: Path, left_out: LeftOut) -> Iterator[Callable[[], Cut]]:
    """For each utterance what makes its cut, or raises OSError or ValueError."""
    if not path.is_dir():
        return lhotse_cuts(path) if path.is_file() and is_lhotse(path) else _manifest(path, left_out)
    if (path / "wav.scp").is_file():
        return kaldi_cuts(path)
    if is_lhotse_folder(path):
        return lhotse_folder_cuts(path)
    if next(path.rglob("*.trans.txt"), None):
        return _librispeech(path)
    raise ValueError(
        "path: expected wav.scp or *.trans.txt, or lhotse's manifests (*.jsonl, which `lhotse copy` makes of *.json), "
        f"in the folder {str(path)!r}, received none"
    )


def _manifest(path: Path, left_out: LeftOut) -> Iterator[Callable[[], Cut]]:
    recordings: dict[Path, Recording] = {}
    for where, utterance in iterate_manifest(path, left_out):
        if utterance.audio_path is None:
            yield partial(_stored_cut, utterance)
        else:
            yield partial(_recorded_cut, utterance, utterance.audio_path, recordings, where)


def _recorded_cut(utterance: Utterance, path: Path, recordings: dict[Path, Recording], where: str) -> Cut:
    """The cut of an utterance in a recording, which may hold several."""
    where = f"{where}, {path.stem}"
    if path not in recordings:
        recordings[path] = read_recording(path, where)
    return make_cut(
        recordings[path],
        _supervision(path.stem, utterance),
        where,
        start=utterance.offset_seconds,
        duration=utterance.duration_seconds,
        excess_seconds=_TOLERANCE_SECONDS,
    )


def _stored_cut(utterance: Utterance) -> MonoCut:
    custom = {"features_path": str(utterance.features_path), "features_key": utterance.features_key}
    supervision = _supervision(str(utterance.features_key), utterance)
    return MonoCut(supervision.id, 0.0, supervision.duration, 0, [supervision], custom=custom)


def _supervision(name: str, utterance: Utterance) -> SupervisionSegment:
    extra = dict(utterance.extra)
    speaker = extra.pop("speaker", None)
    duration = utterance.duration_seconds
    return SupervisionSegment(
        name, name, 0.0, duration, text=utterance.text, speaker=speaker, custom=extra or None
    )


def _librispeech(path: Path) -> Iterator[Callable[[], Cut]]:
    for transcripts in sorted(path.rglob("*.trans.txt")):
        for where, line in read_lines(transcripts):
            yield partial(_librispeech_cut, transcripts.parent, line, where)


def _librispeech_cut(folder: Path, line: bytes, where: str) -> Cut:
    name, *text = decode(line, where).split(None, 1)
    file = next((f for s in (".flac", ".wav", ".ogg") if os.path.isfile(f := folder / f"{name}{s}")), None)
    if file is None:
        raise FileNotFoundError(f"{where}: expected a recording of {name!r}, received none beside it")
    speaker = name.split("-")[0]
    supervision = SupervisionSegment(
        name, name, 0.0, 0.0, text=text[0].strip() if text else "", speaker=speaker
    )
    return make_cut(read_recording(file, where), supervision, where)
