"""gru_prepacked and lstm_prepacked."""

from typing import NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops
from asrkern.ops import GRUWeights, LSTMWeights, PackedGRUWeights, PackedLSTMWeights
from tests.compare import assert_same_bits


class Kind(NamedTuple):
    op: object
    prepacked: object
    pack: object
    weights: type
    packed: type
    gates: int
    states: int

    def make(self, hidden_size=37, input_size=13):
        rows = self.gates * hidden_size
        shapes = [(rows, input_size), (rows, hidden_size), (rows,), (rows,)]
        weights = self.weights(*(torch.randn(shape) * hidden_size**-0.5 for shape in shapes))
        packed_hh = self.pack(weights.weight_hh)
        return weights, self.packed(
            weights.weight_ih, None, packed_hh, None, weights.bias_ih, weights.bias_hh
        )


GRU = Kind(ops.gru, ops.gru_prepacked, ops.pack_gru_weight, GRUWeights, PackedGRUWeights, 3, 1)
LSTM = Kind(ops.lstm, ops.lstm_prepacked, ops.pack_lstm_weight, LSTMWeights, PackedLSTMWeights, 4, 2)
kinds = pytest.mark.parametrize("kind", [GRU, LSTM], ids=["gru", "lstm"])


@kinds
@pytest.mark.parametrize("hidden_size", [1, 16, 37, 100])
def test_float32_is_the_operation_bit_for_bit(kind, hidden_size):
    (weights, packed), (reverse, packed_reverse) = kind.make(hidden_size), kind.make(hidden_size)
    x, lengths = torch.randn(9, 5, 13), torch.tensor([9, 0, 3, 7, 1])
    states = [torch.randn(2, 5, hidden_size) for _ in range(kind.states)]
    expected = kind.op(x, weights, reverse, *states, lengths=lengths)
    actual = kind.prepacked(x, packed, packed_reverse, *states, lengths=lengths)
    for result, wanted in zip(actual, expected, strict=True):
        assert_same_bits(result, wanted)


@kinds
def test_one_direction_packed_batch_first_and_no_bias(kind):
    weights, packed = kind.make()
    weights = weights._replace(bias_ih=None, bias_hh=None)
    packed = packed._replace(bias_ih=None, bias_hh=None)
    x = torch.randn(4, 9, 13)
    expected = kind.op(x, weights, batch_first=True)[0]
    assert_same_bits(kind.prepacked(x, packed, batch_first=True)[0], expected)
    sequence = pack_padded_sequence(x, torch.tensor([9, 4, 4, 2]), batch_first=True)
    expected = kind.op(sequence.data, weights, batch_sizes=sequence.batch_sizes)[0]
    assert_same_bits(kind.prepacked(sequence.data, packed, batch_sizes=sequence.batch_sizes)[0], expected)


@kinds
def test_is_not_differentiable(kind):
    _, packed = kind.make()
    x = torch.randn(4, 2, 13, requires_grad=True)
    assert not kind.prepacked(x, packed)[0].requires_grad


BAD = {
    "features": (dict(input=torch.randn(4, 2, 12)), "input: expected 13 features"),
    "lengths": (dict(lengths=torch.tensor([5, 1])), "lengths: .*received 5 at row 0"),
    "mixed": (dict(weight_ih=torch.ones(111, 13, dtype=torch.int8)), "weights: expected one dtype for all"),
    "not packed": (dict(packed_hh=torch.randn(7)), "packed_hh: expected .* received 7"),
    "dtype": (dict(packed_hh=torch.randn(7).half()), "weights: expected .* received"),
    "scale": (dict(scale_hh=torch.ones(7)), r"weights.scale_hh: expected shape \(\d+,\)"),
    "state": (
        dict(h0=torch.zeros(1, 2, 37).double()),
        "h0: expected the dtype of input, torch.float32, received",
    ),
    "one bias": (dict(bias_hh=None), "weights: expected bias_ih and bias_hh or neither"),
}


@kinds
@pytest.mark.parametrize("case", BAD)
def test_bad_input(kind, case):
    changed, message = BAD[case]
    _, packed = kind.make()
    packed = packed._replace(**{k: v for k, v in changed.items() if k in packed._fields})
    args = {"input": torch.randn(4, 2, 13), **{k: v for k, v in changed.items() if k not in packed._fields}}
    with pytest.raises((ValueError, TypeError), match=message):
        kind.prepacked(weights=packed, **args)


@kinds
@pytest.mark.parametrize("rows, dtype", [(7, torch.float32), (None, torch.float64)])
def test_pack_refuses(kind, rows, dtype):
    with pytest.raises(ValueError, match=f"weight_hh: expected \\[{kind.gates}·hidden_size"):
        kind.pack(torch.randn(rows or 3 * kind.gates, 3, dtype=dtype))
    with pytest.raises(ValueError, match="weight_hh: expected"):
        kind.pack(torch.randn(9))
