"""BatchRNN against torch's layers over packed sequences, with deepspeech.pytorch's keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern.nn import GRU, LSTM, BatchRNN, SequenceWise

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def by_hand(layer: BatchRNN, rnn: nn.RNNBase, x: torch.Tensor, lengths: torch.Tensor, h=None):
    """Valid frames normalised, torch's recurrent layer packed, directions summed."""
    if layer.batch_norm is not None:
        valid = torch.arange(len(x))[:, None] < lengths
        normalised = layer.batch_norm.module(x[valid])
        x = torch.zeros_like(x).masked_scatter(valid[..., None], normalised)
    packed, h_n = rnn(pack_padded_sequence(x, lengths, enforce_sorted=False), h)
    output, _ = pad_packed_sequence(packed, total_length=len(x))
    return (output.unflatten(-1, (2, -1)).sum(2) if rnn.bidirectional else output), h_n


@pytest.mark.parametrize("rnn_type", [GRU, LSTM, nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_torch_packed(rnn_type, bidirectional, training):
    layer = BatchRNN(4, 5, rnn_type, bidirectional).double().train(training)
    stock_type = next(kind for kind in (nn.GRU, nn.LSTM, nn.RNN) if issubclass(rnn_type, kind))
    stock = stock_type(4, 5, bidirectional=bidirectional).double()
    stock.load_state_dict(layer.rnn.state_dict())
    x = torch.randn(9, 4, 4, dtype=torch.float64)
    lengths = torch.tensor([4, 9, 1, 6])
    output, h_n = layer(x, lengths)
    expected, expected_h = by_hand(layer, stock, x, lengths)
    torch.testing.assert_close(output, expected, **CLOSE)
    torch.testing.assert_close(h_n, expected_h, **CLOSE)
    assert type(layer.rnn) is {nn.GRU: GRU, nn.LSTM: LSTM, nn.RNN: nn.RNN}[stock_type]


@pytest.mark.parametrize("rnn_type", [nn.GRU, nn.LSTM])
def test_keys_are_those_of_deepspeech_pytorch(rnn_type):
    layer = BatchRNN(4, 5, rnn_type, bidirectional=True)
    keys = set(layer.state_dict())
    assert {k for k in keys if k.startswith("batch_norm")} == {
        f"batch_norm.module.{k}" for k in nn.BatchNorm1d(4).state_dict()
    }
    assert {k for k in keys if k.startswith("rnn")} == {
        f"rnn.{k}" for k in rnn_type(4, 5, bidirectional=True).state_dict()
    }
    assert not any(
        "bias" in k or "batch_norm" in k
        for k in BatchRNN(4, 5, rnn_type, batch_norm=False, bias=False).state_dict()
    )
    assert isinstance(layer.batch_norm, SequenceWise)
    layer.flatten_parameters()


@pytest.mark.parametrize("rnn_type", [nn.GRU, nn.LSTM, nn.RNN])
def test_empty_rows_stay_zero_and_keep_their_state(rnn_type):
    layer = BatchRNN(4, 5, rnn_type, bidirectional=True).double().eval()
    x = torch.randn(9, 3, 4, dtype=torch.float64)
    lengths = torch.tensor([4, 0, 9])
    h = torch.randn(2, 3, 5, dtype=torch.float64)
    state = (h, h + 1) if rnn_type is nn.LSTM else h
    output, h_n = layer(x, lengths, state)
    assert output[:, 1].eq(0).all()
    for got, given in zip(*((h_n, state) if rnn_type is nn.LSTM else ([h_n], [state])), strict=True):
        assert torch.equal(got[:, 1], given[:, 1])
        assert got[:, 0].ne(given[:, 0]).all()
    others, _ = layer(
        x[:, ::2],
        lengths[::2],
        tuple(s[:, ::2].contiguous() for s in state) if rnn_type is nn.LSTM else h[:, ::2].contiguous(),
    )
    torch.testing.assert_close(output[:, ::2], others, **CLOSE)


@pytest.mark.parametrize("rnn_type", [nn.GRU, nn.LSTM, nn.RNN])
def test_without_lengths_runs_all_frames(rnn_type):
    layer = BatchRNN(4, 5, rnn_type, bidirectional=True).double().eval()
    x = torch.randn(9, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], layer(x, torch.tensor([9, 9, 9]))[0], **CLOSE)


def test_returns_x_alone_as_before_v3():
    layer = BatchRNN(4, 5, nn.GRU, returns_hidden=False).eval()
    x, lengths = torch.randn(9, 3, 4), torch.tensor([9, 4, 3])
    output = layer(x, lengths)
    layer.returns_hidden = True
    assert torch.equal(output, layer(x, lengths)[0])


def test_rnn_type_is_checked():
    with pytest.raises(TypeError, match=r"rnn_type: .*'gru'"):
        BatchRNN(4, 5, "gru")
