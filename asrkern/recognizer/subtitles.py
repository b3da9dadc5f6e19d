"""Words with times as subtitles in SubRip's form (.srt)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from asrkern.recognizer.transcription import SpokenWord, Transcript

# As broadcasters ask for: two lines of 42 characters for at most 7 seconds, and none across a pause.
_LINE_CHARACTERS, _LINES, _LONGEST_SECONDS, _PAUSE_SECONDS = 42, 2, 7.0, 1.0


def subtitles(transcript: Transcript) -> str:
    """The transcript in SubRip's form; "" if nothing was said.

    Raises:
        ValueError: the transcript has no word times.
    """
    if transcript.words is None:
        raise ValueError("transcript: expected words with times, received text alone")
    # In models without a space, words are single characters.
    joiner = "" if "".join(word.text for word in transcript.words) == transcript.text else " "
    blocks = []
    for number, words in enumerate(_grouped(transcript.words, joiner), 1):
        times = f"{_clock(words[0].start_seconds)} --> {_clock(words[-1].end_seconds)}"
        lines = textwrap.wrap(joiner.join(word.text for word in words), _LINE_CHARACTERS)
        blocks.append("\n".join([str(number), times, *lines]) + "\n")
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


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
