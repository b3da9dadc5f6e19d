"""Words with times as subtitles, in SubRip's form (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asrkern.recognizer.transcription import SpokenWord, Transcript

# As broadcasters ask for: two lines of 42 characters for at most 7 seconds, and none across a pause.
_LINE_CHARACTERS, _LINES, _LONGEST_SECONDS, _PAUSE_SECONDS = 42, 2, 7.0, 1.0


class Caption(NamedTuple):
    """Words that are shown together, as a text, and the times of the first one's start and the last one's end."""

    text: str
    start_seconds: float
    end_seconds: float
    words: list[SpokenWord]


def captions(transcript: Transcript) -> list[Caption]:
    """The transcript in captions; none if nothing was said.

    Args:
        transcript: its words have times.

    Raises:
        ValueError: the transcript has no word times.
    """
    if transcript.words is None:
        raise ValueError("transcript: expected words with times, received text alone")
    # In models without a space, words are single characters.
    joiner = "" if "".join(word.text for word in transcript.words) == transcript.text else " "
    return [
        Caption(joiner.join(w.text for w in words), words[0].start_seconds, words[-1].end_seconds, words)
        for words in _grouped(transcript.words, joiner)
    ]


def subtitles(transcript: Transcript, form: str = "srt") -> str:
    """The transcript as subtitles; without any if nothing was said.

    Args:
        transcript: its words have times.
        form: "srt" (SubRip) or "vtt" (WebVTT).

    Raises:
        ValueError: the transcript has no word times, or the form is another.
    """
    if form not in ("srt", "vtt"):
        raise ValueError(f"form: expected 'srt' or 'vtt', received {form!r}")
    blocks = ["WEBVTT\n"] if form == "vtt" else []
    for number, caption in enumerate(captions(transcript), 1):
        point = "," if form == "srt" else "."
        times = f"{_clock(caption.start_seconds, point)} --> {_clock(caption.end_seconds, point)}"
        lines = textwrap.wrap(caption.text, _LINE_CHARACTERS)
        if form == "vtt":
            # Its text is markup.
            lines = [html.escape(line, quote=False) for line in lines]
        blocks.append("\n".join([*([str(number)] if form == "srt" else []), times, *lines]) + "\n")
    return "\n".join(blocks)


def _grouped(words: Iterable[SpokenWord], joiner: str) -> list[list[SpokenWord]]:
    groups: list[list[SpokenWord]] = []
    for word in words:
        if groups and _fits(groups[-1], word, joiner):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _fits(group: Sequence[SpokenWord], word: SpokenWord, joiner: str) -> bool:
    text = joiner.join(w.text for w in (*group, word))
    return (
        word.start_seconds - group[-1].end_seconds <= _PAUSE_SECONDS
        and word.end_seconds - group[0].start_seconds <= _LONGEST_SECONDS
        and len(textwrap.wrap(text, _LINE_CHARACTERS)) <= _LINES
    )


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
