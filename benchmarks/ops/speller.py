"""A token of Listen, Attend and Spell, through torch's layers and by asrkern's one operation."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern.models import LAS
from asrkern.models.speller_steps import Steps, steps_of
from asrkern.nn import revert
from benchmarks.ops.case import Case
from benchmarks.shapes import SpellerShape


class Speller(Case):
    """Inference only: a step of every row, from the same token and state each time."""

    def __init__(self, shape: SpellerShape) -> None:
        torch.manual_seed(0)
        model = LAS.preset(shape.preset).eval()
        with torch.inference_mode():
            frames = torch.randn(1, shape.frames, model.config.listener_size)
            memory = model.speller.remember(frames, [shape.frames])
            stock = revert(model.speller, inplace=False).model
            self._layers = Steps(stock, memory, shape.rows)
            self._fused = steps_of(model.speller, memory, shape.rows)
        self.inputs = []
        self._tokens = torch.full((shape.rows,), model.config.sos_token)

    def stock(self, *, training: bool) -> Tensor:
        return self._layers.step(self._tokens, self._layers.start())[0]

    def asrkern(self, *, training: bool) -> Tensor:
        return self._fused.step(self._tokens, self._fused.start())[0]

    def output_gradient(self) -> Tensor:
        raise NotImplementedError
