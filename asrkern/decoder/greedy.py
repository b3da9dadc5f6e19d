"""Greedy CTC decoding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrkern import _decoder
from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder._scores import as_blank, as_scores


class GreedyPath(NamedTuple):
    """tokens: indices of labels without blanks and repeats; timesteps: the frame where each begins. Lists of int."""

    tokens: list[int]
    timesteps: list[int]


def greedy_decode(
    log_probs: Tensor | np.ndarray, lengths: Lengths | None = None, blank: int = 0
) -> list[GreedyPath]:
    """The labels of the best path (Graves et al. 2006): argmax of each frame, repeats merged, blanks dropped.

    Args:
        log_probs: [N, T, V] scores of any monotone scale (log-probabilities, probabilities, logits).
        lengths: [N] integers, frames of each row; None: all T.
        blank: index of the blank label.

    Returns:
        One :class:`GreedyPath` a row.

    Raises:
        TypeError: log_probs is not floating-point, or lengths or blank not integer.
        ValueError: wrong rank or number of lengths, NaN within a row's length, lengths beyond T, or blank out of range.

    Example:
        >>> import torch
        >>> scores = torch.eye(3)[[0, 1, 1, 0, 2]]  # the labels' best path, 0 is the blank
        >>> greedy_decode(scores[None])
        [GreedyPath(tokens=[1, 2], timesteps=[1, 4])]
    """
    scores = as_scores(log_probs)
    if scores.dim() != 3:
        raise ValueError(f"log_probs: expected 3 dimensions [N, T, V], received shape {tuple(scores.shape)}")
    rows, steps, _ = scores.shape
    counts = as_lengths("lengths", lengths, rows)
    frames = [steps] * rows if counts is None else counts.tolist()
    paths = _decoder.greedy_decode(scores.to("cpu", torch.float32).numpy(), frames, as_blank(blank))
    return [GreedyPath(*path) for path in paths]
