"""Dropout whose mask is the same at all frames of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LockedDropout(nn.Module):
    """Dropout with one mask per sequence, kept over all of its frames (Gal & Ghahramani 2016, "variational").

    Composed of torch's operations. The identity in eval mode, and where p is 0.

    Args:
        p: probability that a feature is zero throughout a sequence; the others are divided by 1 - p.
        layout: axes of the input, "NTC" or "TNC".

    Raises:
        ValueError: p is not from 0 to 1, or layout is neither.
    """

    def __init__(self, p: float = 0.5, *, layout: str = "NTC") -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected 0 to 1, received {p!r}")
        if layout not in ("NTC", "TNC"):
            raise ValueError(f'layout: expected "NTC" or "TNC", received {layout!r}')
        self.p = p
        self.layout = layout

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Drop features.

        Args:
            input: three-dimensional as layout says.
            mask: [N, C] of :meth:`sample`, for sequences that arrive in pieces; None: a new one.

        Raises:
            ValueError: input does not have three dimensions, or mask is not [N, C].
        """
        if input.dim() != 3:
            raise ValueError(f"input: expected {', '.join(self.layout)}, received {list(input.shape)}")
        time = self.layout.index("T")
        frame = [extent for axis, extent in enumerate(input.shape) if axis != time]
        if mask is not None and list(mask.shape) != frame:
            raise ValueError(f"mask: expected {frame}, received {list(mask.shape)}")
        if not self.training or self.p == 0:
            return input
        mask = self.sample(input.new_empty(frame)) if mask is None else mask
        return input * mask.unsqueeze(time)

    def sample(self, like: Tensor) -> Tensor:
        """A mask [N, C] for sequences whose frames are like ``like`` [N, C]: 0 or 1 / (1 - p); all 1 in eval mode."""
        return nn.functional.dropout(torch.ones_like(like), self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, layout={self.layout}"
