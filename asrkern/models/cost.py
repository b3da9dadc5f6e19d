"""What a model costs, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asrkern.models.registry import build, find
from asrkern.ops import flops as _flops  # noqa: F401  (lets the counter know asrkern's operations)

FRAMES_PER_SECOND = 100
TOKENS_PER_SECOND = 15  # that a speller predicts; people say up to 20 characters a second


class Cost(NamedTuple):
    """The cost of inference with one utterance.

    Attributes:
        parameters: of the model, tied ones once.
        flops_per_second: per second of audio, of matrix products and convolutions; a multiply-add counts 2.
        seconds: length of the utterance; costs that do not grow with it are spread over it.
    """

    parameters: int
    flops_per_second: float
    seconds: float


def cost(name: str, seconds: float | None = None) -> Cost:
    """Count a model's parameters and operations.

    Nothing is allocated or computed: the tensors are fake. A speller is given 15 tokens for each second.

    Args:
        name: as :func:`asrkern.models.build` takes it.
        seconds: length of the utterance; None for one that is typical for the model.

    Raises:
        ValueError: no model has this name, or the utterance is too short for it.
    """
    system = find(name)
    seconds = system.typical_seconds if seconds is None else seconds
    with torch.device("meta"):
        model: Any = build(name).eval()
    # Counted before to_empty, which makes two of a tied weight.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    frames = round(seconds * FRAMES_PER_SECOND) + 1
    # The counter does not know the CPU's fused attention.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = model.to_empty(device="cpu")
        utterance = torch.zeros(1, 1, model.n_features, frames), torch.tensor([frames])
        if system.task == "attention":
            memory, flops = _counted(lambda: model.listen(*utterance))
            state, token = model.speller.start(memory), torch.tensor([model.config.sos_token])
            _, step_flops = _counted(lambda: model.speller.step(token, state, memory))
            flops += round(seconds * TOKENS_PER_SECOND) * step_flops
        else:
            _, flops = _counted(lambda: model(*utterance))
    return Cost(parameters, flops / seconds, seconds)


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and its operations."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops()
