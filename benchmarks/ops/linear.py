"""Linear layers by stock torch and by asrkern."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern import ops
from benchmarks.ops.case import Case
from benchmarks.shapes import LinearShape


class Linear(Case):
    def __init__(self, shape: LinearShape) -> None:
        torch.manual_seed(0)
        scale = shape.in_features**-0.5
        self.inputs = [
            torch.randn(shape.rows, shape.in_features),
            scale * torch.randn(shape.out_features, shape.in_features),
            torch.randn(shape.out_features),
        ]
        self.output_size = (shape.rows, shape.out_features)

    def stock(self, *, training: bool) -> Tensor:
        return torch.nn.functional.linear(*self.inputs)

    def asrkern(self, *, training: bool) -> Tensor:
        return ops.linear(*self.inputs)

    def output_gradient(self) -> Tensor:
        return torch.randn(self.output_size)


class LinearQuantized(Linear):
    """int8 weights, in inference. Stock torch computes with the same values in float32."""

    def __init__(self, shape: LinearShape) -> None:
        super().__init__(shape)
        x, weight, self.bias = self.inputs
        self.weight, self.scale = ops.quantize_weight(weight, "int8")
        self.inputs = [x, self.weight * self.scale[:, None], self.bias]

    def asrkern(self, *, training: bool) -> Tensor:
        return ops.linear_quantized(self.inputs[0], self.weight, self.scale, self.bias)
