"""One bidirectional GRU layer: stock torch against asrkern.

    pytest benchmarks/bench_gru.py

Equal lengths compare with the padded stock layer, ragged ones with the packed one.
"""

from __future__ import annotations

import pytest
import torch

from asrkern import ops
from benchmarks.ops import recurrent as _recurrent
from benchmarks.shapes import GRU_INFERENCE, GRU_TRAINING

pytestmark = [
    pytest.mark.parametrize("backend", ["stock", "asrkern"]),
    pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"]),
]


@pytest.mark.parametrize("shape", GRU_INFERENCE, ids=str)
def test_forward(benchmark, shape, ragged, backend):
    _recurrent.forward(benchmark, torch.nn.GRU, ops.gru, shape, ragged, backend)


@pytest.mark.parametrize("shape", GRU_TRAINING, ids=str)
def test_forward_and_backward(benchmark, shape, ragged, backend):
    _recurrent.forward_and_backward(benchmark, torch.nn.GRU, ops.gru, shape, ragged, backend)
