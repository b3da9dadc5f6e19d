"""asrkern.nn.GRU against torch.nn.GRU: values, gradients, keys, options, packed and padded."""

from __future__ import annotations

import torch

from asrkern.nn import GRU
from tests.nn.recurrent import RecurrentTests


class TestGRU(RecurrentTests):
    ours = GRU
    stock = torch.nn.GRU
    states = 1
