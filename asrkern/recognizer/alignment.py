"""When the words of a given text are spoken in a recording: forced alignment with a CTC model."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkern._atomic_write import write_text
from asrkern.decoder import TokenSpan, forced_align, token_spans
from asrkern.recognizer.saved import Recognizer
from asrkern.recognizer.transcription import (
    FrameTimes,
    SpokenWord,
    Transcript,
    check_frames,
    check_window,
    windowed_log_probs,
)

# How far a word may reach beyond the frames of its first and last token: about as long as a sound lasts. On GRID's train
# split the times are equally good from 0.08 to 0.15.
_REACH_SECONDS = 0.1


def align(
    recognizer: Recognizer,
    samples: Tensor,
    text: str,
    *,
    log_priors: Tensor | None = None,
    window_seconds: float = 30.0,
    margin_seconds: float = 3.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Transcript:
    """Times of a text's words in a recording of any length, by :func:`asrkern.decoder.forced_align`.

    The model reads a long recording in overlapping windows, as in :meth:`Transcriber.recording`; the alignment is that of
    the whole. Where words begin and end, says docs/decoder.md.

    Args:
        recognizer: with a CTC model, in eval mode.
        samples: [samples] at ``recognizer.features.sample_rate``.
        text: what is said. It is normalised as the model's training transcripts were. Punctuation and symbols that the
            model cannot write are left out; a word of them alone has no times and is left out, too.
        log_priors: [V], see :func:`estimate_log_priors`.
        window_seconds: how much the model reads at once.
        margin_seconds: how much of a window, at each end, is only context.
        progress: called with the share of the recording that the model has read, 0 to 1.

    Returns:
        A transcript. Its words are those of ``text``, separated by white space, as they are written there; a confidence
        is the geometric mean of the probabilities that the model gives a word's tokens in their frames.

    Raises:
        TypeError: samples are no tensor.
        ValueError: no CTC model or one that reads stored features, letters that the model cannot write, a text that has
            more tokens than the recording has frames, a recording too short for the model, or a window not longer than
            its margins.
    """
    if recognizer.task_name != "ctc":
        raise ValueError(
            f"recognizer: expected a CTC model, received {recognizer.model_name}, which tells no times"
        )
    settings = recognizer.features
    if settings.kind == "stored":
        raise ValueError("features.kind: expected features of audio, received 'stored'")
    check_window(window_seconds, margin_seconds)
    words, tokens = _tokens(recognizer, text)
    features = settings.make()(samples)
    check_frames(recognizer.model, features.shape[1])
    recognizer.model.eval()
    window, margin = (round(seconds / settings.hop_seconds) for seconds in (window_seconds, margin_seconds))
    log_probs = windowed_log_probs(recognizer.model, features, window, margin, progress).cpu()
    blank: Any = recognizer.tokenizer.blank
    try:
        found = forced_align(
            log_probs, [t for part in tokens for t in part], blank=blank, log_priors=log_priors
        )
    except ValueError as error:
        raise ValueError(f"text: {error}") from None
    # One span a token: equal neighbours have a blank between them.
    spans = iter(token_spans(found.path, found.scores, blank))
    parts = [[next(spans) for _ in part] for part in tokens]
    spoken = [word for word in words if word is not None]
    of_words = [own for word, own in zip(words, parts, strict=True) if word is not None]
    spaces = [own[0] for word, own in zip(words, parts, strict=True) if word is None]
    times = word_seconds(of_words, spaces, FrameTimes.of(recognizer), len(samples) / settings.sample_rate)
    return Transcript(
        " ".join(spoken),
        [
            SpokenWord(word, begin, end, math.exp(sum(span.score for span in own) / len(own)))
            for word, (begin, end), own in zip(spoken, times, of_words, strict=True)
        ],
    )


def word_seconds(
    words: Sequence[Sequence[TokenSpan]],
    spaces: Sequence[TokenSpan],
    frames: FrameTimes,
    duration_seconds: float,
) -> list[tuple[float, float]]:
    """When the words of an alignment begin and end.

    CTC models put a token into a frame or two somewhere within its sound: the first one of a word after the word's
    onset, the last one before its end. So a word without a pause before or after it lasts from the end of the space
    before it to the end of the space behind it, blanks included, and neighbours meet. (On GRID the end of the space is
    within 10 ms of the words' common boundary in the median, its start 50 ms before.) Where that is further than 0.1 s
    from the word's own tokens, there is a pause, and the word reaches 0.1 s beyond them. Without a space on that side, as
    at both ends of a text and with word pieces, it begins or ends with its tokens.

    Args:
        words: the tokens of each word, at least one.
        spaces: between each two words; none if the model has no label for the space.
        frames: their places in the recording.
        duration_seconds: of the recording.

    Returns:
        Begin and end of each word in seconds, within the recording, each end at most the next begin.

    Raises:
        ValueError: another number of spaces.
    """
    if spaces and len(spaces) != len(words) - 1:
        raise ValueError(
            f"spaces: expected {len(words) - 1} between {len(words)} words, received {len(spaces)}"
        )
    reach = _REACH_SECONDS / frames.step_seconds
    times = []
    for index, own in enumerate(words):
        start, end = own[0].start, own[-1].end
        if spaces and index > 0:
            start = max(spaces[index - 1].end, start - reach)
        if spaces and index < len(spaces):
            end = min(spaces[index].end, end + reach)
        times.append(frames.seconds(start, end, duration_seconds))
    return times


@torch.no_grad()
def estimate_log_priors(recognizer: Recognizer, features: Iterable[Tensor]) -> Tensor:
    """How frequent each label is in a CTC model's output: the logarithm of its mean probability over all frames.

    The label priors of Huang et al. (2024, arXiv 2406.02560), estimated after training.

    Args:
        recognizer: with a CTC model.
        features: [F, T] of each utterance, as ``recognizer.features.make()`` makes them.

    Returns:
        [V] float32, at least −30.

    Raises:
        ValueError: no CTC model, or no utterances.
    """
    if recognizer.task_name != "ctc":
        raise ValueError(f"recognizer: expected a CTC model, received {recognizer.model_name}")
    recognizer.model.eval()
    model: Any = recognizer.model
    total, frames = torch.zeros(model.n_classes, dtype=torch.float64), 0
    for each in features:
        each = each.to(recognizer.device)
        log_probs, _ = recognizer.model(each[None, None], torch.tensor([each.shape[1]], device=each.device))
        total += log_probs[0].double().exp().sum(0).cpu()
        frames += log_probs.shape[1]
    if not frames:
        raise ValueError("features: expected utterances, received none")
    return (total / frames).log().clamp(min=-30).float()


def save_log_priors(path: str | os.PathLike[str], recognizer: Recognizer, log_priors: Tensor) -> None:
    """Write priors with the labels that they are of, as JSON.

    Args:
        path: the file, written whole or not at all.
        recognizer: whose labels they are of.
        log_priors: [V], of :func:`estimate_log_priors`.

    Raises:
        OSError: it cannot be written.
    """
    value = {"labels": list(recognizer.tokenizer.labels), "log_priors": log_priors.tolist()}
    write_text(Path(path), json.dumps(value, ensure_ascii=False) + "\n")


def load_log_priors(path: str | os.PathLike[str], recognizer: Recognizer) -> Tensor:
    """The priors of a file of :func:`save_log_priors`, as ``asrkern evaluate --priors`` writes it: [V] float32.

    Args:
        path: the file.
        recognizer: whose labels the priors have to be of.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or of a model with other labels.
    """
    try:
        value = json.loads(Path(path).read_text("utf-8"))
        labels, log_priors = value["labels"], torch.tensor(value["log_priors"], dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a file of asrkern evaluate --priors, received something else: {error}"
        ) from None
    expected = list(recognizer.tokenizer.labels)
    if labels != expected or log_priors.shape != (len(expected),):
        raise ValueError(f"{path}: expected priors of this model's {len(expected)} labels, received others")
    return log_priors


def _tokens(recognizer: Recognizer, text: str) -> tuple[list[str | None], list[list[int]]]:
    """Words, None for the space between two, and the tokens of each."""
    tokenizer = recognizer.tokenizer
    spaced = tokenizer.unit != "piece" and " " in tokenizer.labels
    words: list[str | None] = []
    tokens: list[list[int]] = []
    unknown: set[str] = set()
    for word in text.split():
        written = recognizer.text(word)
        cannot = {character for piece in tokenizer.unknown(written) for character in piece}
        unknown |= {character for character in cannot if unicodedata.category(character)[0] not in "PS"}
        kept = recognizer.text("".join(character for character in written if character not in cannot))
        if not kept or unknown:
            continue
        if words and spaced:
            words.append(None)
            tokens.append(tokenizer.encode(" "))
        words.append(word)
        tokens.append(tokenizer.encode(kept))
    if unknown:
        raise ValueError(
            f"text: expected letters that the model can write, received {', '.join(map(repr, sorted(unknown)))}; write "
            "numbers and abbreviations as they are spoken"
        )
    if not words:
        raise ValueError("text: expected words, received none that the model can write")
    return words, tokens
