"""asrkern.nn.freeze on cells: the same bits, nothing edited unseen, and the way back."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from asrkern import ops
from asrkern.nn import GRUCell, LSTMCell, freeze, quantize, unfreeze
from asrkern.nn.freeze import FrozenGRUCell, FrozenLSTMCell
from tests.compare import assert_same_bits
from tests.models.las_forms import make

kinds = pytest.mark.parametrize("kind", [GRUCell, LSTMCell])


def states_of(kind, *shape, dtype=torch.float32):
    h, c = torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)
    return (h, c) if kind is LSTMCell else h


def step(cell, *args):
    with torch.inference_mode():
        after = cell(*args)
    return after if isinstance(after, tuple) else (after,)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert_same_bits(one, other)


@kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1), (13, 37), (64, 128), (5, 300)])
@pytest.mark.parametrize("batch", [(), (1,), (3,), (26,)])
def test_same_bits(kind, bias, sizes, batch, threads):
    cell = kind(*sizes, bias=bias).eval()
    x, hx = torch.randn(*batch, sizes[0]), states_of(kind, *batch, sizes[1])
    expected = step(cell, x, hx), step(cell, x)
    freeze(cell)
    for count in (1, 3):
        threads(count)
        assert_same(step(cell, x, hx), expected[0])
        assert_same(step(cell, x), expected[1])


@kinds
@pytest.mark.parametrize("format", ["int8", "bf16"])
@pytest.mark.parametrize("bias", [True, False])
def test_quantised_cells_keep_their_bits_and_come_back(kind, format, bias, threads):
    for sizes in ((1, 1), (13, 37), (64, 128)):
        model = quantize(nn.Sequential(kind(*sizes, bias=bias)), format)
        state, thawed = copy.deepcopy(model.state_dict()), type(model[0])
        memory = [weakref.ref(model[0].weight_ih), weakref.ref(model[0].weight_hh)]
        cases = [
            (torch.randn(*batch, sizes[0], dtype=dtype), states_of(kind, *batch, sizes[1], dtype=dtype))
            for batch in ((), (1,), (9,), (0,))
            for dtype in (torch.float32, torch.bfloat16)
        ]
        expected = [(step(model[0], *case), step(model[0], case[0])) for case in cases]
        freeze(model)
        assert type(model[0]) is (FrozenLSTMCell if kind is LSTMCell else FrozenGRUCell)
        gc.collect()
        assert [ref() for ref in memory] == [None, None]
        twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model
        for count, twin in ((count, twin) for count in (1, 3) for twin in twins):
            threads(count)
            for case, (with_state, without) in zip(cases, expected, strict=True):
                assert_same(step(twin[0], *case), with_state)
                assert_same(step(twin[0], case[0]), without)
        for twin in (*twins, unfreeze(model)):
            assert list(twin.state_dict()) == list(state)
            for key, value in twin.state_dict().items():
                assert value.dtype is state[key].dtype
                assert torch.equal(value, state[key])
        assert type(model[0]) is thawed
        assert_same(step(model[0], *cases[0]), expected[0][0])


@kinds
def test_no_rows(kind):
    cell = freeze(kind(5, 7))
    assert [tuple(t.shape) for t in step(cell, torch.zeros(0, 5))] == [(0, 7)] * (1 + (kind is LSTMCell))


@kinds
def test_the_way_back(kind):
    model, x, hx = nn.Sequential(kind(13, 37)), torch.randn(3, 13), states_of(kind, 3, 37)
    model[0].weight_hh.requires_grad_(False)
    model.eval()
    expected, state = step(model[0], x, hx), copy.deepcopy(model.state_dict())
    memory = [weakref.ref(model[0].weight_ih), weakref.ref(model[0].weight_hh)]
    assert freeze(model) is model and type(model[0]) in (FrozenGRUCell, FrozenLSTMCell)
    gc.collect()
    assert [ref() for ref in memory] == [None, None]
    assert [name for name, _ in model.named_parameters()] == ["0.bias_ih", "0.bias_hh"]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model, unfreeze(model)):
        assert_same(step(twin[0], x, hx), expected)
        assert list(twin.state_dict()) == list(state)
        for key, value in twin.state_dict().items():
            assert_same_bits(value, state[key])
    assert type(model[0]) is kind
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    model.train()(x)[0].sum().backward()
    assert model[0].weight_ih.grad.any()


@kinds
@pytest.mark.parametrize(
    "dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
)
def test_inputs_of_another_dtype_give_what_they_gave(kind, dtypes):
    weights, given = (getattr(torch, name) for name in dtypes)
    cell = kind(13, 37).to(weights).eval()
    x, hx = torch.randn(3, 13, dtype=given), states_of(kind, 3, 37, dtype=given)
    expected = step(cell, x, hx)
    assert_same(step(freeze(cell), x, hx), expected)


REFUSED = {
    "an edit": (lambda m: m.weight_ih.data.zero_(), AttributeError, "weight_ih"),
    "another weight": (
        lambda m: setattr(m, "weight_hh", nn.Parameter(torch.zeros(1))),
        AttributeError,
        "weight_hh",
    ),
    "training": (lambda m: m.train()(torch.randn(2, 5)), RuntimeError, "is for inference"),
    "another dtype": (lambda m: m.double(), RuntimeError, "weight_ih.*float64"),
    "loading": (lambda m: m.load_state_dict(m.state_dict()), RuntimeError, "is frozen"),
    "export": (lambda m: torch.export.export(m, (torch.randn(2, 5),)), Exception, "is for this process"),
    "quantizing": (lambda m: quantize(nn.ModuleList([m])), ValueError, "frozen"),
}


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_rounded_weights_stay_when_the_model_changes_its_dtype(kind, bias):
    """As those of quantised layers that are not frozen."""
    cell, x = quantize(kind(5, 7, bias=bias)), torch.randn(2, 5)
    expected = step(cell, x)
    assert_same(step(freeze(cell).double(), x), expected)


@kinds
@pytest.mark.parametrize(
    "what, quantised",
    [(what, quantised) for what in REFUSED for quantised in (False, True)[: 2 - (what == "another dtype")]],
)
def test_what_a_frozen_cell_cannot_do_is_refused(kind, quantised, what):
    do, error, message = REFUSED[what]
    cell, x = kind(5, 7), torch.randn(2, 5)
    cell = freeze(quantize(cell) if quantised else cell)
    expected = step(cell, x)
    with pytest.raises(error, match=message) as raised:
        do(cell)
    assert "unfreeze" in str(raised.value)
    assert_same(step(cell.eval(), x), expected)


def test_bad_states_are_named():
    with pytest.raises(ValueError, match=r"hx: expected shape \(3, 7\), received \(2, 7\)"):
        freeze(GRUCell(5, 7))(torch.zeros(3, 5), torch.zeros(2, 7))
    with pytest.raises(TypeError, match=r"hx: expected a pair \(h, c\), received Tensor"):
        freeze(LSTMCell(5, 7))(torch.zeros(3, 5), torch.zeros(3, 7))
    for prepare in (freeze, lambda cell: cell):
        with pytest.raises(
            TypeError, match=r"h: expected the dtype of input, torch.float32, received torch.float64"
        ):
            prepare(GRUCell(5, 7).eval())(torch.zeros(3, 5), torch.zeros(3, 7, dtype=torch.float64))


@kinds
def test_quantised_weights_in_their_order(kind):
    """The operations over int8 and bfloat16 weights, with the bits of those that are not packed."""
    gates, name = (4, "lstm") if kind is LSTMCell else (3, "gru")
    x, hx = torch.randn(7, 13), states_of(kind, 7, 37)
    states = hx if isinstance(hx, tuple) else (hx,)
    biases = [torch.randn(gates * 37) for _ in range(2)]
    for format in ("int8", "bf16"):
        (ih, scale_ih), (hh, scale_hh) = (
            ops.quantize_weight(torch.randn(gates * 37, n), format) for n in (13, 37)
        )
        expected = getattr(ops, f"{name}_cell")(x, (ih, hh, *biases), *states, scales=(scale_ih, scale_hh))
        packed = [ops.pack_cell_weight(weight, gates) for weight in (ih, hh)]
        weights = ops.PackedCellWeights(packed[0], scale_ih, packed[1], scale_hh, *biases)
        got = getattr(ops, f"{name}_cell_prepacked")(x, weights, *states)
        assert_same(*(t if isinstance(t, tuple) else (t,) for t in (got, expected)))


@kinds
@pytest.mark.parametrize("rows", [1, 7, 16, 29])
def test_what_the_gradients_need_is_saved(kind, rows):
    """A step over packed weights in training: the bits of one whose weights are not packed."""
    gates, name = (4, "lstm") if kind is LSTMCell else (3, "gru")
    x, hx = torch.randn(rows, 13), states_of(kind, rows, 37)
    states = hx if isinstance(hx, tuple) else (hx,)
    ih, hh = torch.randn(gates * 37, 13), torch.randn(gates * 37, 37)
    biases = [torch.randn(gates * 37) for _ in range(2)]
    expected = getattr(torch.ops.asrkern, f"{name}_cell")(x, *states, ih, None, hh, None, *biases, True)
    packed_ih, packed_hh = (ops.pack_cell_weight(weight, gates) for weight in (ih, hh))
    step = getattr(torch.ops.asrkern, f"{name}_cell_prepacked")
    assert_same(step(x, *states, packed_ih, None, packed_hh, None, *biases, True), expected)
    assert step(x, *states, packed_ih, None, packed_hh, None, *biases)[-1].shape[0] == 0
    rounded = [torch.ops.asrkern.speller_pack(weight.bfloat16(), gates) for weight in (ih, hh)]
    with pytest.raises(ValueError, match="save_reserve: expected False, for rounded weights"):
        step(x, *states, rounded[0], None, rounded[1], None, *biases, True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"packed_ih": torch.zeros(3, 3)}, "weights.packed_ih: expected what pack_cell_weight returns"),
        ({"packed_hh": torch.zeros(9, dtype=torch.int8)}, "weights.packed_hh: .*received torch.int8"),
        ({"packed_hh": torch.zeros(9)}, "packed_hh: expected .* values, packed for 7 units, 7 features"),
        ({"bias_ih": None}, "expected bias_ih and bias_hh or neither"),
        ({"scale_hh": torch.zeros(20)}, r"weights.scale_hh: expected shape \(21,\)"),
    ],
)
def test_bad_weights_are_named(change, message):
    packed = [ops.pack_cell_weight(torch.zeros(21, n), 3) for n in (5, 7)]
    bias = torch.zeros(21)
    weights = ops.PackedCellWeights(packed[0], None, packed[1], None, bias, bias)._replace(**change)
    with pytest.raises(ValueError, match=message):
        ops.gru_cell_prepacked(torch.zeros(2, 5), weights, torch.zeros(2, 7))


@pytest.mark.parametrize(
    "weight, gates, message",
    [
        (torch.zeros(7, 3), 3, "weight: expected .3·hidden_size, features."),
        (torch.zeros(8, 3), 2, "gates: expected 3 or 4, received 2"),
        (torch.zeros(8, 3).half(), 4, "weight: expected .* received torch.float16"),
    ],
)
def test_what_cannot_be_packed_is_named(weight, gates, message):
    with pytest.raises(ValueError, match=message):
        ops.pack_cell_weight(weight, gates)


def test_a_speller_keeps_its_own():
    """Its steps read the weights of its cells, of which it has packed copies already."""
    model = make("hw4").eval()
    cells = [type(cell) for cell in model.speller.lstm_cells]
    freeze(model)
    assert [type(cell) for cell in model.speller.lstm_cells] == cells
    assert any("Frozen" in type(m).__name__ for m in model.listener.modules())
