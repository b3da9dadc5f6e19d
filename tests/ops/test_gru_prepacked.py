import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops
from asrkern.ops import GRUWeights, PackedGRUWeights, pack_gru_weight
from tests.compare import assert_same_bits


def make(hidden_size=37, input_size=13):
    shapes = [
        (3 * hidden_size, input_size),
        (3 * hidden_size, hidden_size),
        (3 * hidden_size,),
        (3 * hidden_size,),
    ]
    weights = GRUWeights(*(torch.randn(shape) * hidden_size**-0.5 for shape in shapes))
    packed = PackedGRUWeights(
        weights.weight_ih, None, pack_gru_weight(weights.weight_hh), None, weights.bias_ih, weights.bias_hh
    )
    return weights, packed


@pytest.mark.parametrize("hidden_size", [1, 16, 37, 100])
def test_float32_is_gru_bit_for_bit(hidden_size):
    (weights, packed), (reverse, packed_reverse) = make(hidden_size), make(hidden_size)
    x, lengths, h0 = torch.randn(9, 5, 13), torch.tensor([9, 0, 3, 7, 1]), torch.randn(2, 5, hidden_size)
    expected = ops.gru(x, weights, reverse, h0, lengths=lengths)
    for actual, wanted in zip(ops.gru_prepacked(x, packed, packed_reverse, h0, lengths=lengths), expected):
        assert_same_bits(actual, wanted)


def test_one_direction_packed_batch_first_and_no_bias():
    weights, packed = make()
    weights, packed = (
        weights._replace(bias_ih=None, bias_hh=None),
        packed._replace(bias_ih=None, bias_hh=None),
    )
    x = torch.randn(4, 9, 13)
    expected, _ = ops.gru(x, weights, batch_first=True)
    assert_same_bits(ops.gru_prepacked(x, packed, batch_first=True)[0], expected)
    sequence = pack_padded_sequence(x, torch.tensor([9, 4, 4, 2]), batch_first=True)
    expected, _ = ops.gru(sequence.data, weights, batch_sizes=sequence.batch_sizes)
    assert_same_bits(ops.gru_prepacked(sequence.data, packed, batch_sizes=sequence.batch_sizes)[0], expected)


def test_is_not_differentiable():
    _, packed = make()
    x = torch.randn(4, 2, 13, requires_grad=True)
    assert not ops.gru_prepacked(x, packed)[0].requires_grad


BAD = {
    "features": (dict(input=torch.randn(4, 2, 12)), "input: expected 13 features"),
    "lengths": (dict(lengths=torch.tensor([5, 1])), "lengths: .*received 5 at row 0"),
    "mixed": (dict(weight_ih=torch.ones(111, 13, dtype=torch.int8)), "weights: expected one dtype for all"),
    "not packed": (dict(packed_hh=torch.randn(7)), "packed_hh: expected .* received 7"),
    "dtype": (dict(packed_hh=torch.randn(7).half()), "weights: expected .* received"),
    "scale": (dict(scale_hh=torch.ones(7)), r"weights.scale_hh: expected shape \(111,\)"),
    "one bias": (dict(bias_hh=None), "weights: expected bias_ih and bias_hh or neither"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, message = BAD[case]
    _, packed = make()
    packed = packed._replace(**{k: v for k, v in changed.items() if k in packed._fields})
    args = {"input": torch.randn(4, 2, 13), **{k: v for k, v in changed.items() if k not in packed._fields}}
    with pytest.raises((ValueError, TypeError), match=message):
        ops.gru_prepacked(weights=packed, **args)


@pytest.mark.parametrize("weight", [torch.randn(7, 3), torch.randn(9, 3).double(), torch.randn(9)])
def test_pack_refuses(weight):
    with pytest.raises(ValueError, match="weight_hh: expected"):
        pack_gru_weight(weight)
