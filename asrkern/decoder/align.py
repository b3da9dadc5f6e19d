"""Alignment of given texts to CTC outputs, and their exact probability."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrkern import _decoder
from asrkern._lengths import Lengths, as_integers, as_lengths
from asrkern.decoder._scores import as_blank, as_scores

Array = Tensor | np.ndarray


class Alignment(NamedTuple):
    """The best alignment. Beyond a row's length path is −1 and scores are 0.

    path: the token of each frame, blanks included, int64; scores: its log-probability in that frame, float32. Both [T]
    or [N, T].
    """

    path: Tensor
    scores: Tensor


class TokenSpan(NamedTuple):
    """A token in an alignment.

    token: its index; start, end: frames, from the first to the one after the last; score: the mean of its
    log-probabilities in these frames.
    """

    token: int
    start: int
    end: int
    score: float


def forced_align(
    log_probs: Array,
    targets: Lengths,
    lengths: Lengths | None = None,
    target_lengths: Lengths | None = None,
    blank: int = 0,
    log_priors: Array | None = None,
) -> Alignment:
    """The best of all alignments of a text to CTC outputs (Viterbi over Graves et al. 2006).

    Memory beside the inputs grows with tokens · √frames: an hour of 50 frames a second against 48,000 tokens took
    240 MB.

    Word times: the spans of a word's tokens (:func:`token_spans`) reach from the first one's start to the last one's
    end. They are as good as the model that made log_probs: CTC models tend to put a token into one or two frames.
    :func:`asrkern.recognizer.align` counts blanks around them in.

    Args:
        log_probs: [T, V], or a padded batch [N, T, V]; any floating dtype.
        targets: [L] or [N, L] tokens without blanks.
        lengths: [N] integers, frames of each row; None: all T.
        target_lengths: [N] integers, tokens of each row; None: all L.
        blank: index of the blank token.
        log_priors: [V], how frequent each token is in a model's output, as a log-probability
            (:func:`asrkern.recognizer.estimate_log_priors`); subtracted from each frame while the best alignment is
            looked for, as Huang et al. (2024, arXiv 2406.02560) do against outputs that are blank but for single
            frames. A part of them, such as ``0.5 * log_priors``, acts less. None: zeros. Scores are without them.

    Returns:
        :class:`Alignment`: [T] or [N, T], path int64 and scores in float32.

    Raises:
        TypeError: log_probs is not floating-point, or another argument not integer.
        ValueError: wrong ranks or sizes, NaN, tokens out of range, infinite priors, or too few frames for a text.
    """
    paths, scores = [], []
    priors = None if log_priors is None else _priors(log_priors, _shape(log_probs)[-1])
    rows = list(_rows(log_probs, targets, lengths, target_lengths))
    for index, (values, tokens) in enumerate(rows):
        path = torch.from_numpy(_decoder.forced_align(values.numpy(), tokens, as_blank(blank), priors))
        if len(path) < len(values):
            raise ValueError(
                f"targets: expected a text that can be aligned to {len(values)} frames, received {len(tokens)} tokens "
                f"that need more, or impossible ones (in row {index})"
            )
        paths.append(path)
        scores.append(values.gather(1, path[:, None])[:, 0])
    padded = [
        torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
        for values, padding in ((paths, -1), (scores, 0.0))
    ] if rows else [torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0)]  # fmt: skip
    missing = _shape(log_probs)[-2] - padded[0].shape[1]
    path, score = (
        torch.nn.functional.pad(values, (0, missing), value=padding)
        for values, padding in zip(padded, (-1, 0.0))
    )
    return Alignment(path, score) if len(_shape(log_probs)) == 3 else Alignment(path[0], score[0])


def token_spans(path: Array, scores: Array, blank: int = 0) -> list[TokenSpan]:
    """The tokens of one row of an :class:`Alignment`: each run of a token that is not blank is one.

    Args:
        path: [T] integers, the token of each frame.
        scores: [T], its log-probability in each frame.
        blank: index of the blank token.


    Raises:
        TypeError: path is not of integers, or blank no integer.
        ValueError: path and scores are not [T] of the same T.
    """
    spans, frame, blank = [], 0, as_blank(blank)
    values, frames = as_scores(torch.as_tensor(scores)), as_integers("path", path)
    if frames.dim() != 1 or values.shape != frames.shape:
        raise ValueError(
            f"path, scores: expected shapes [T] of one row, received {list(frames.shape)} and {list(values.shape)}"
        )
    for token, run in itertools.groupby(frames.tolist()):
        end = frame + len(list(run))
        if token not in (blank, -1):
            spans.append(TokenSpan(token, frame, end, values[frame:end].mean().item()))
        frame = end
    return spans


def ctc_score(
    log_probs: Array,
    targets: Lengths,
    lengths: Lengths | None = None,
    target_lengths: Lengths | None = None,
    blank: int = 0,
) -> Tensor:
    """The exact log-probability of a text: the logarithm of the sum over all its alignments, in float64.

    It is the negative of ``torch.nn.functional.ctc_loss(reduction="none")``.

    Args:
        log_probs, targets, lengths, target_lengths, blank: as for :func:`forced_align`.


    Returns:
        float64, [] for one utterance, [N] for a batch; −inf for a text that cannot be aligned.

    Raises:
        TypeError, ValueError: as :func:`forced_align`, but not for too few frames.
    """
    scores = [
        _decoder.ctc_score(values.numpy(), tokens, as_blank(blank))
        for values, tokens in _rows(log_probs, targets, lengths, target_lengths)
    ]
    result = torch.tensor(scores, dtype=torch.float64)
    return result if len(_shape(log_probs)) == 3 else result[0]


def _priors(log_priors: Array, labels: int) -> np.ndarray:
    priors = as_scores(log_priors, "log_priors").cpu().float()
    if priors.shape != (labels,) or not priors.isfinite().all():
        bad = "infinite ones or NaN" if priors.shape == (labels,) else list(priors.shape)
        raise ValueError(f"log_priors: expected [{labels}] finite numbers, received {bad}")
    return priors.numpy()


def _shape(log_probs: Array) -> tuple[int, ...]:
    return tuple(log_probs.shape)


def _rows(
    log_probs: Array,
    targets: Lengths,
    lengths: Lengths | None,
    target_lengths: Lengths | None,
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Each utterance's log-probabilities [frames, V], float32, and tokens, without padding."""
    scores = as_scores(log_probs).cpu()
    if scores.dim() not in (2, 3):
        raise ValueError(f"log_probs: expected shape [T, V] or [N, T, V], received {tuple(scores.shape)}")
    tokens = as_integers("targets", targets).to("cpu", torch.int64)
    if tokens.dim() != scores.dim() - 1 or (scores.dim() == 3 and len(tokens) != len(scores)):
        expected = "[L]" if scores.dim() == 2 else f"[{len(scores)}, L]"
        raise ValueError(f"targets: expected shape {expected}, received {tuple(tokens.shape)}")
    if scores.dim() == 2:
        scores, tokens = scores[None], tokens[None]
    rows, steps = scores.shape[:2]
    frames = as_lengths("lengths", lengths, rows, steps)
    counts = as_lengths("target_lengths", target_lengths, rows, tokens.shape[1])
    frames = [steps] * rows if frames is None else frames.tolist()
    counts = [tokens.shape[1]] * rows if counts is None else counts.tolist()
    for row, (length, count) in enumerate(zip(frames, counts)):
        values = scores[row, :length].float()
        if values.isposinf().any():
            raise ValueError(
                f"log_probs: expected log-probabilities, received infinite values (in row {row})"
            )
        yield values, tokens[row, :count].numpy()
