"""Comparisons that NaN never passes."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual − expected| / max |expected|, in float64; inf where the shapes differ or something is NaN."""
    if actual.shape != expected.shape or actual.isnan().any() or expected.isnan().any():
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max().clamp(min=1e-30)).item()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    error = relative_error(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2e} > {tolerance:.0e}"


def assert_same_bits(actual: Tensor, expected: Tensor, what: str = "") -> None:
    assert torch.equal(actual, expected), f"{what}: differ by {(actual - expected).abs().max().item():.1e}"
