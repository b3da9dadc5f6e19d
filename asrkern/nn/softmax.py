"""deepspeech.pytorch's output layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InferenceBatchSoftmax(nn.Module):
    """Softmax over the last axis in eval mode, in fp32 or better; the identity in training."""

    def forward(self, input: Tensor) -> Tensor:
        """input [..., labels], floating point → probabilities (in training: input), of the same shape."""
        if self.training:
            return input
        return torch.softmax(input, -1, dtype=torch.promote_types(input.dtype, torch.float32))
