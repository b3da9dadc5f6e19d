"""One bidirectional LSTM layer: stock torch against asrkern.

    pytest benchmarks/bench_lstm.py

Equal lengths compare with the padded stock layer, ragged ones with the packed one.
"""

from __future__ import annotations

import pytest
import torch

from asrkern import ops
from benchmarks.ops import recurrent as _recurrent
from benchmarks.shapes import LSTM_INFERENCE, LSTM_TRAINING

pytestmark = [
    pytest.mark.parametrize("backend", ["stock", "asrkern"]),
    pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"]),
]


@pytest.mark.parametrize("shape", LSTM_INFERENCE, ids=str)
def test_forward(benchmark, shape, ragged, backend):
    _recurrent.forward(benchmark, torch.nn.LSTM, ops.lstm, shape, ragged, backend)


@pytest.mark.parametrize("shape", LSTM_TRAINING, ids=str)
def test_forward_and_backward(benchmark, shape, ragged, backend):
    _recurrent.forward_and_backward(benchmark, torch.nn.LSTM, ops.lstm, shape, ragged, backend)
