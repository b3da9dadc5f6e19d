"""Averages of weights: a moving one during training, and the mean of the last checkpoints after it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from asrkern.recognizer.saved import load, save


class MovingAverage(WeightAveraging):
    """Exponential moving average of all weights and buffers, which Lightning swaps in for validation.

    Args:
        decay: per step. In step n it is at most (1 + n) / (10 + n), so that the first weights are soon forgotten.
    """

    def __init__(self, decay: float) -> None:
        def average(before: Tensor, now: Tensor, updates: Tensor | int) -> Tensor:
            kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
            return kept * before + (1 - kept) * now

        super().__init__(avg_fn=average)


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Write a checkpoint whose weights are the mean of several. Everything else, also counters, is the last one's.

    Args:
        paths: checkpoints of one model.
        output: the new checkpoint.

    Raises:
        OSError, ValueError: as :func:`asrkern.recognizer.saved.load` and ``save``; or no checkpoint is given, or
            the models differ.
    """
    if not paths:
        raise ValueError("paths: expected at least one checkpoint, received none")
    recognizer = load(paths[-1])
    weights = recognizer.model.state_dict()
    sums = {name: value.double() for name, value in weights.items() if value.is_floating_point()}
    for path in paths[:-1]:
        other = load(path)
        if (other.model_name, other.model_options) != (recognizer.model_name, recognizer.model_options):
            raise ValueError(
                f"paths: expected checkpoints of one model, received {os.fspath(path)!r} of another"
            )
        state = other.model.state_dict()
        for name, total in sums.items():
            total += state[name]
    with torch.no_grad():
        for name, total in sums.items():
            weights[name].copy_(total / len(paths))
    recognizer.info = {**recognizer.info, "averaged": len(paths)}
    save(output, recognizer)
