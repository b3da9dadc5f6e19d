"""Corpora as lhotse CutSets: one cut an utterance, with one supervision that holds text, speaker and more.

:func:`read_cuts` takes a NeMo manifest (JSON lines), a lhotse manifest of cuts, a Kaldi data folder (``wav.scp``), or a
folder in LibriSpeech's layout (``*.trans.txt`` beside the recordings). The cut's ``custom`` has ``features_path`` and
``features_key`` where the features are stored, and the supervision's every other field of a NeMo manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.kaldi import load_kaldi_data_dir
from lhotse.serialization import open_best
from lhotse.utils import fastcopy

from asrkern.data import Utterance, read_manifest

# Manifests round durations; more than this beyond the end of a recording is a mistake.
_TOLERANCE_SECONDS = 0.05


# What gets the errors of single utterances, which are then left out; None to raise the first one.
LeftOut = list[Exception] | None


def read_cuts(path: str | os.PathLike[str], sample_rate: int = 16000, left_out: LeftOut = None) -> CutSet:
    """The utterances of a corpus.

    Args:
        path: see above.
        sample_rate: in Hz, of the recordings of a Kaldi folder, which does not say it.
        left_out: a list that gets the errors of single utterances of NeMo manifests and folders in LibriSpeech's
            layout, which are then left out; None to raise the first one.

    Raises:
        FileNotFoundError: there is no such corpus, or it names a recording that does not exist.
        ValueError: it is none of these forms or has no utterance, or a recording is empty, damaged or shorter than its
            utterance.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"path: expected a manifest or a folder, received {str(path)!r}, which does not exist"
        )
    cuts = CutSet.from_cuts(_reader(path)(path, sample_rate, left_out))
    if not len(cuts):
        raise ValueError(f"path: expected at least one utterance, received none in {str(path)!r}")
    return cuts


def _reader(path: Path) -> Callable[[Path, int, LeftOut], Iterable[Cut]]:
    if path.is_dir():
        if (path / "wav.scp").is_file():
            return _kaldi
        if next(path.rglob("*.trans.txt"), None):
            return _librispeech
        raise ValueError(
            f"path: expected wav.scp or *.trans.txt in the folder {str(path)!r}, received neither"
        )
    return _lhotse if _is_lhotse(path) else _nemo


def _is_lhotse(path: Path) -> bool:
    if ".jsonl" not in path.suffixes:
        return False
    with open_best(path) as file:
        try:
            first = json.loads(file.readline())
        except (ValueError, UnicodeDecodeError):
            return False
    return isinstance(first, dict) and str(first.get("type", "")).endswith("Cut")


def _lhotse(path: Path, sample_rate: int, left_out: LeftOut) -> Iterable[Cut]:
    for cut in CutSet.from_file(path):
        if len(cut.supervisions) != 1:
            raise ValueError(
                f"{path}, {cut.id}: expected one supervision a cut, received {len(cut.supervisions)} "
                "(lhotse's trim_to_supervisions makes it so)"
            )
        for source in cut.recording.sources if cut.has_recording else ():
            if source.type == "file" and not Path(source.source).is_file():
                raise FileNotFoundError(f"{path}, {cut.id}: expected a file, received {source.source!r}")
        yield cut


def _nemo(path: Path, sample_rate: int, left_out: LeftOut) -> Iterable[Cut]:
    recordings: dict[Path, Recording] = {}
    seen: set[str] = set()
    for number, utterance in enumerate(read_manifest(path, left_out), 1):
        name = utterance.features_key or utterance.audio_path.stem
        if name in seen:
            name = f"{name}#{number}"
        seen.add(name)
        if utterance.audio_path is None:
            yield _stored_cut(name, utterance)
            continue
        try:
            yield _recorded_cut(name, utterance, recordings, f"{path}, {name}")
        except ValueError as error:
            if left_out is None:
                raise
            left_out.append(error)


def _recorded_cut(name: str, utterance: Utterance, recordings: dict[Path, Recording], where: str) -> Cut:
    """An utterance of a recording, which may hold several."""
    if utterance.audio_path not in recordings:
        recordings[utterance.audio_path] = _recording(utterance.audio_path, where)
    recording = recordings[utterance.audio_path]
    left = recording.duration - utterance.offset_seconds
    if utterance.duration_seconds > left + _TOLERANCE_SECONDS:
        raise ValueError(
            f"{where}: expected {utterance.duration_seconds} s from {utterance.offset_seconds} s on, "
            f"received a recording of {recording.duration:.3f} s"
        )
    # lhotse keeps sums of durations to a nanosecond.
    duration = round(min(utterance.duration_seconds, left), 8)
    supervision = _supervision(name, recording.id, duration, utterance)
    return _part(recording, supervision, utterance.offset_seconds, duration)


def _stored_cut(name: str, utterance: Utterance) -> MonoCut:
    custom = {"features_path": str(utterance.features_path), "features_key": utterance.features_key}
    duration = utterance.duration_seconds
    supervision = _supervision(name, name, duration, utterance)
    return MonoCut(name, 0.0, duration, 0, [supervision], custom=custom)


def _supervision(name: str, recording: str, duration: float, utterance: Utterance) -> SupervisionSegment:
    extra = dict(utterance.extra)
    speaker = extra.pop("speaker", None)
    return SupervisionSegment(
        name, recording, 0.0, duration, text=utterance.text, speaker=speaker, custom=extra or None
    )


def _recording(path: Path, where: str) -> Recording:
    try:
        recording = Recording.from_file(path, recording_id=str(path))
    except Exception as error:  # lhotse wraps whatever its readers raise, in classes of its own
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}: {brief(error)}") from None
    if recording.num_samples < 1:
        raise ValueError(f"{where}: expected a recording, received {str(path)!r}, which has no samples")
    return recording


def brief(error: Exception) -> str:
    """What is wrong: lhotse lists all readers that it tried, and the first one knows."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line.rpartition(">: ")[2] for line in lines if line.startswith("Exception #0")), lines[0])


def _kaldi(path: Path, sample_rate: int, left_out: LeftOut) -> Iterable[Cut]:
    for line in (path / "wav.scp").read_text("utf-8").splitlines():
        _, _, source = line.strip().partition(" ")
        if source and not source.strip().endswith("|") and not Path(source.strip()).is_file():
            raise FileNotFoundError(f"{path / 'wav.scp'}: expected a file, received {source.strip()!r}")
    recordings, supervisions, _ = load_kaldi_data_dir(path, sample_rate)
    if supervisions is None:
        # lhotse reads transcripts with a segments file only; without it each recording is an utterance.
        texts = dict(_pairs(path / "text"))
        speakers = dict(_pairs(path / "utt2spk"))
        for recording in recordings:
            name = recording.id
            yield _whole(recording, texts.get(name, ""), speakers.get(name))
        return
    cuts = CutSet.from_manifests(recordings, supervisions)
    yield from cuts.trim_to_supervisions(keep_overlapping=False)


def _pairs(path: Path) -> Iterable[tuple[str, str]]:
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            key, _, value = line.strip().partition(" ")
            yield key, value.strip()


def _librispeech(path: Path, sample_rate: int, left_out: LeftOut) -> Iterable[Cut]:
    for transcripts in sorted(path.rglob("*.trans.txt")):
        for name, text in _pairs(transcripts):
            try:
                yield _whole(_librispeech_recording(transcripts, name), text, name.split("-")[0], name)
            except (FileNotFoundError, ValueError) as error:
                if left_out is None:
                    raise
                left_out.append(error)


def _librispeech_recording(transcripts: Path, name: str) -> Recording:
    files = transcripts.parent.glob(f"{name}.*")
    file = next((f for f in files if f.suffix in (".flac", ".wav", ".ogg")), None)
    if file is None:
        raise FileNotFoundError(f"{transcripts}: expected a recording of {name!r}, received none beside it")
    return _recording(file, str(transcripts))


def _whole(recording: Recording, text: str, speaker: str | None, name: str | None = None) -> Cut:
    name, seconds = name or recording.id, recording.duration
    supervision = SupervisionSegment(name, recording.id, 0.0, seconds, text=text, speaker=speaker)
    return _part(recording, supervision, 0.0, seconds)


def _part(recording: Recording, supervision: SupervisionSegment, start: float, duration: float) -> Cut:
    """A cut of all channels of a recording."""
    cut = recording.to_cut()
    return fastcopy(cut, id=supervision.id, start=start, duration=duration, supervisions=[supervision])
