"""A transcript in each form that people and tools read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asrkern.recognizer.subtitles import subtitles
from asrkern.recognizer.transcription import Transcript
from asrkern.recognizer.word_times import as_ctm, as_textgrid, as_tsv

_WRITERS: dict[str, Callable[[Transcript, str, float], str]] = {
    "txt": lambda found, file, seconds: found.text + "\n",
    "json": lambda found, file, seconds: (
        json.dumps(as_object(found, file, seconds), ensure_ascii=False) + "\n"
    ),
    "srt": lambda found, file, seconds: subtitles(found, "srt"),
    "vtt": lambda found, file, seconds: subtitles(found, "vtt"),
    "tsv": lambda found, file, seconds: as_tsv(found),
    "ctm": lambda found, file, seconds: as_ctm(found, "stdin" if file == "-" else Path(file).stem),
    "textgrid": lambda found, file, seconds: as_textgrid(found, seconds),
}
FORMS = tuple(_WRITERS)
# What only words with times can be written as.
TIMED_FORMS = ("srt", "vtt", "tsv", "ctm", "textgrid")


def formatted(transcript: Transcript, form: str, file: str, seconds: float) -> str:
    """The transcript in a form, ending with a line feed unless it is empty.

    Args:
        transcript: of one recording.
        form: one of ``FORMS``.
        file: the recording's name; "-" is standard input.
        seconds: its length.

    Raises:
        ValueError: another form, or one of ``TIMED_FORMS`` for a transcript without times of words.
    """
    if form not in _WRITERS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, received {form!r}")
    return _WRITERS[form](transcript, file, seconds)


def as_object(transcript: Transcript, file: str, seconds: float) -> dict[str, Any]:
    """What ``json`` writes: file, seconds, and of a classifier class and probability, else text, words and segments.

    Args:
        transcript: of one recording.
        file: the recording's name.
        seconds: its length.
    """
    return {"file": file, "seconds": round(seconds, 3), **content(transcript)}


def content(transcript: Transcript) -> dict[str, Any]:
    """The same without the recording. Segments are there where it was cut."""
    if transcript.probability is not None:
        return {"class": transcript.text, "probability": transcript.probability}
    words = None if transcript.words is None else [asdict(word) for word in transcript.words]
    value = {"text": transcript.text, "words": words}
    if transcript.segments is not None:
        value["segments"] = [asdict(segment) for segment in transcript.segments]
    return value
