"""Words with times in the forms that tools for speech read: CTM, Praat's TextGrid, tab-separated values."""

from __future__ import annotations

from asrkern.recognizer.transcription import SpokenWord, Transcript


def as_ctm(transcript: Transcript, name: str) -> str:
    """NIST's form of a time-marked transcript: recording, channel, start and duration in seconds, word, confidence.

    Args:
        transcript: its words have times.
        name: of the recording; white space in it becomes "_", since it separates fields.

    Raises:
        ValueError: the transcript has no word times.
    """
    name = "_".join(name.split())
    return "".join(
        f"{name} 1 {word.start_seconds:.3f} {word.end_seconds - word.start_seconds:.3f} {word.text} {word.confidence:.3f}\n"
        for word in _words(transcript)
    )


def as_tsv(transcript: Transcript) -> str:
    """A line for each word: start and end in seconds, confidence, word; with a header.

    Raises:
        ValueError: the transcript has no word times.
    """
    return "start\tend\tconfidence\tword\n" + "".join(
        f"{word.start_seconds:.3f}\t{word.end_seconds:.3f}\t{word.confidence:.4f}\t{word.text}\n"
        for word in _words(transcript)
    )


def as_textgrid(transcript: Transcript, seconds: float) -> str:
    """Praat's TextGrid (long form), with one tier of intervals, "words"; what is between words is an empty interval.

    Args:
        transcript: its words have times. A word without duration, which Praat does not take, is left out.
        seconds: length of the recording.

    Raises:
        ValueError: the transcript has no word times.
    """
    intervals: list[tuple[str, str, str]] = []
    begin, last = f"{0:.3f}", f"{seconds:.3f}"
    for word in _words(transcript):
        start, end = (f"{value:.3f}" for value in (word.start_seconds, word.end_seconds))
        if float(start) >= float(end):
            continue
        if float(start) > float(begin):
            intervals.append((begin, start, ""))
        intervals.append((start, end, word.text.replace('"', '""')))
        begin = end
    if float(begin) < float(last):
        intervals.append((begin, last, ""))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0.000",
        f"xmax = {last}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0.000",
        f"        xmax = {last}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, text) in enumerate(intervals, 1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start}",
            f"            xmax = {end}",
            f'            text = "{text}"',
        ]
    return "\n".join(lines) + "\n"


def _words(transcript: Transcript) -> list[SpokenWord]:
    if transcript.words is None:
        raise ValueError("transcript: expected words with times, received text alone")
    return transcript.words
