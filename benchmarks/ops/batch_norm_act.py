"""BatchNorm, activation and mask by stock torch and by asrkern."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern import ops
from benchmarks.ops.case import Case, gradient_without_kinks
from benchmarks.shapes import BatchNormShape, ragged_lengths


class BatchNormAct(Case):
    """Stock is ``batch_norm``, over the valid frames in training, ``hardtanh`` and a vectorised mask.

    Args:
        stats: frames that count for the statistics in training, "valid" or "padded", as in asrkern.
    """

    def __init__(self, shape: BatchNormShape, stats: str = "valid") -> None:
        torch.manual_seed(0)
        self.shape, self.stats = shape, stats
        self.axes = {name: shape.layout.index(name) for name in "NCT"}
        channels = shape.size[self.axes["C"]]
        batch, frames = shape.size[self.axes["N"]], shape.size[self.axes["T"]]
        self.lengths = torch.tensor(ragged_lengths(batch, frames))
        self.inputs = [torch.randn(shape.size) + 1, torch.rand(channels) + 0.5, torch.randn(channels)]
        self.running_mean, self.running_var = torch.randn(channels), torch.rand(channels) + 0.5

    def valid(self) -> Tensor:
        """Mask of the valid frames, of the input's number of dimensions."""
        n, t = self.axes["N"], self.axes["T"]
        valid = torch.arange(self.shape.size[t]) < self.lengths[:, None]  # [N, T]
        size = [self.shape.size[i] if i in (n, t) else 1 for i in range(len(self.shape.size))]
        return (valid if n < t else valid.t()).reshape(size)

    def normalise(self, *, training: bool) -> Tensor:
        x, weight, bias = self.inputs
        c = self.axes["C"]
        if training and self.stats == "valid":
            # Rows of channels: the form in which stock torch can leave frames out of its statistics.
            rows = x.movedim(c, -1)
            chosen = self.valid().movedim(c, -1).expand(*rows.shape[:-1], 1)[..., 0]
            y = torch.nn.functional.batch_norm(rows[chosen], None, None, weight, bias, training=True)
            return torch.zeros_like(rows).masked_scatter(chosen[..., None], y).movedim(-1, c)
        flat = x if c == 1 else x.flatten(0, 1)
        running = (None, None) if training else (self.running_mean, self.running_var)
        y = torch.nn.functional.batch_norm(flat, *running, weight, bias, training=training)
        return y.view(x.shape)

    def stock(self, *, training: bool) -> Tensor:
        y = self.normalise(training=training)
        if self.shape.activation is not None:
            y = torch.nn.functional.hardtanh(y, *self.shape.activation, inplace=True)
        return y * self.valid().to(y.dtype)  # faster than masked_fill

    def asrkern(self, *, training: bool) -> Tensor:
        return ops.batch_norm_act(
            *self.inputs,
            self.running_mean,
            self.running_var,
            self.lengths,
            layout=self.shape.layout,
            training=training,
            stats=self.stats,
            activation=self.shape.activation,
        ).output

    @torch.no_grad()
    def output_gradient(self) -> Tensor:
        return gradient_without_kinks(self.normalise(training=True), self.shape.activation)
