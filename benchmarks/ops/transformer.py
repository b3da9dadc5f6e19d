"""Layers of a Transformer by torch's fast path and by asrkern."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import asrkern.nn
from asrkern.nn._lengths import frame_mask
from benchmarks.ops.case import Case
from benchmarks.shapes import TransformerShape, ragged_lengths

# Of a decoder's input.
STEPS = 20


class TransformerLayer(Case):
    """Inference only. torch's is batch_first, as its fast path wants it; a decoder has none."""

    def __init__(self, shape: TransformerShape) -> None:
        torch.manual_seed(0)
        name = f"Transformer{shape.kind.capitalize()}Layer"
        self._layers = [
            getattr(module, name)(shape.size, 8, 2048, batch_first=True).eval() for module in (nn, asrkern.nn)
        ]
        self._layers[1].load_state_dict(self._layers[0].state_dict())
        self.inputs = []
        x = torch.randn(shape.batch, shape.frames, shape.size)
        self._lengths = torch.full((shape.batch,), shape.frames)
        if shape.ragged:
            self._lengths = torch.tensor(ragged_lengths(shape.batch, shape.frames))
        self._hidden = ~frame_mask(self._lengths, *x.shape[:2], x.device) if shape.ragged else None
        self._decodes = shape.kind == "decoder"
        self._x = (torch.randn(shape.batch, STEPS, shape.size), x) if self._decodes else (x,)

    def _run(self, layer: nn.Module) -> Tensor:
        name = "memory_key_padding_mask" if self._decodes else "src_key_padding_mask"
        y = layer(*self._x, **{name: self._hidden})
        if self._decodes or self._hidden is None:
            return y
        return y.masked_fill(self._hidden[..., None], 0)

    def stock(self, *, training: bool) -> Tensor:
        return self._run(self._layers[0])

    def asrkern(self, *, training: bool) -> Tensor:
        return self._run(self._layers[1])

    def output_gradient(self) -> Tensor:
        raise NotImplementedError
