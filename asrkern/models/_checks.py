"""Checks of what a model is made of and called with.

Values of tensors are read on the CPU only: on a GPU that would wait for it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_integers, check_range, values_are_known


def check_choices(**options: tuple[Any, Sequence[Any]]) -> None:
    """Raise ValueError unless each option's value is one of its choices: ``name=(value, choices)``."""
    for name, (value, choices) in options.items():
        if value not in choices:
            raise ValueError(f"{name}: expected one of {tuple(choices)}, received {value!r}")


def check_sizes(**options: Any) -> None:
    """Raise ValueError unless each option's value is an integer from 1 to what fits into 64 bits, torch's own limit."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**63:
            raise ValueError(f"{name}: expected a positive integer, received {reprlib.repr(value)}")


def check_list(name: str, value: Any) -> None:
    """Raise ValueError unless value is a list or a tuple."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: expected a list, received {reprlib.repr(value)}")


def are_labels(value: Any) -> bool:
    """Whether value is a list or a tuple of strings, or one string, each character of which is a label."""
    return isinstance(value, str | list | tuple) and all(isinstance(label, str) for label in value)


def check_distinct_labels(labels: Any) -> None:
    """Raise ValueError unless labels are at least two, each of them once."""
    if not are_labels(labels) or len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels: expected at least two, each once, received {reprlib.repr(labels)}")


def check_probability(name: str, value: Any) -> None:
    """Raise ValueError unless value is a number from 0 to less than 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a probability below 1, received {value!r}")


def check_spectrograms(features: Tensor, n_freq: int) -> Tensor:
    """features as [N, 1, F, T].

    Args:
        features: [N, 1, F, T] or [N, F, T], floating point, N at least 1.
        n_freq: the F expected.

    Raises:
        TypeError: features is no tensor.
        ValueError: another shape or dtype.
    """
    _check_is_tensor("features", features)
    x = features.unsqueeze(1) if features.dim() == 3 else features
    if x.dim() != 4 or x.shape[0] < 1 or list(x.shape[1:3]) != [1, n_freq]:
        raise ValueError(
            f"features: expected [N, 1, {n_freq}, T] or [N, {n_freq}, T], received {list(features.shape)}"
        )
    if not x.is_floating_point():
        raise ValueError(f"features: expected floating point, received {features.dtype}")
    return x


def check_targets(
    targets: Tensor,
    target_lengths: Lengths,
    batch_size: int,
    classes: int,
    *,
    first_class: int = 0,
    minimum_length: int = 0,
) -> tuple[Tensor, Tensor]:
    """Padded token sequences and their lengths as checked tensors. Tokens beyond a length are not looked at.

    Args:
        targets: integers [batch_size, L], from ``first_class`` to ``classes - 1``.
        target_lengths: integers [batch_size], from ``minimum_length`` to L.
        first_class: 1 where class 0 is a blank, which no target may hold.
        minimum_length: 1 where a model cannot learn from an empty target.

    Raises:
        TypeError: one of them is not of integers.
        ValueError: another shape, or a length or a token out of range.
    """
    targets = as_integers("targets", targets, (batch_size, "L"))
    target_lengths = as_integers("target_lengths", target_lengths, (batch_size,))
    check_range("target_lengths", target_lengths, minimum_length, targets.shape[1], "L")
    if values_are_known(targets):
        valid = torch.arange(targets.shape[1]) < target_lengths.cpu()[:, None]
        check_range("targets", targets[valid], first_class, classes - 1, "classes")
    return targets, target_lengths


def check_scores(name: str, scores: Tensor, axes: Sequence[str]) -> None:
    """Check log-probabilities or logits: floating point with these axes, none of them empty.

    Raises:
        TypeError: scores is no tensor.
        ValueError: another shape or dtype.
    """
    _check_is_tensor(name, scores)
    if scores.dim() != len(axes) or 0 in scores.shape or not scores.is_floating_point():
        raise ValueError(
            f"{name}: expected floating point of shape [{', '.join(axes)}], "
            f"received {scores.dtype} of shape {list(scores.shape)}"
        )


def check_labels(labels: Tensor, batch_size: int, classes: int) -> Tensor:
    """One class a row as a tensor, checked: integers [batch_size], 0 to ``classes - 1``.

    Raises:
        TypeError: labels are not integers.
        ValueError: another shape, or a class out of range.
    """
    labels = as_integers("labels", labels, (batch_size,))
    check_range("labels", labels, 0, classes - 1, "classes")
    return labels


def _check_is_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, received {type(value).__name__}")
