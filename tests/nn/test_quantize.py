"""quantize: layers against torch's with the rounded weights, and against float32's."""

import copy
import io
import pickle

import pytest
import torch
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence

import asrkern.nn
from asrkern import ops
from asrkern.models import DeepSpeech2
from asrkern.nn import QuantizedGRU, QuantizedLinear, quantize
from asrkern.nn.freeze import FrozenLSTM
from tests.compare import assert_close, assert_same_bits

kinds = pytest.mark.parametrize("kind", ["GRU", "LSTM"])


def stock(kind, *args, **options):
    return getattr(torch.nn, kind)(*args, **options)


def ours(kind, *args, **options):
    return getattr(asrkern.nn, kind)(*args, **options)


def widened(module, name):
    """What a quantised layer's weight stands for, in float32."""
    value, scale = getattr(module, name), getattr(module, f"{name}_scale")
    return value.float() if scale is None else value.float() * scale[:, None]


@kinds
@pytest.mark.parametrize("weights", ["int8", "bf16"])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False, "batch_first": True}]
)
@pytest.mark.parametrize("rows", [1, 3, 13])
def test_layer_equals_torch_with_its_own_weights(kind, weights, options, rows):
    layer = stock(kind, 19, 37, **options).eval()
    quantized = quantize(layer, weights)
    twin = copy.deepcopy(layer)
    for name, parameter in twin.named_parameters():
        if name.startswith("weight"):
            parameter.data = widened(quantized, name)
    x = torch.randn((rows, 11, 19) if "batch_first" in options else (11, rows, 19))
    with torch.inference_mode():
        (actual, states), (expected, wanted) = quantized(x), twin.double()(x.double())
    assert_close(actual, expected, 1e-5)
    for state, expected in zip(states, wanted, strict=True):
        assert_close(state, expected, 1e-5)


formats = pytest.mark.parametrize("types", [("int8",), ("bf16",), ("int8", "int8")], ids="/".join)


@kinds
@pytest.mark.parametrize("types, tolerance", [(("int8",), 0.02), (("bf16",), 0.01), (("int8", "int8"), 0.03)])
def test_is_close_to_the_float32_layer(kind, types, tolerance):
    layer = stock(kind, 64, 128, bidirectional=True).eval()
    x, lengths = torch.randn(40, 5, 64), torch.tensor([40, 3, 17, 25, 40])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    with torch.inference_mode():
        assert_close(quantize(layer, *types)(packed)[0].data, layer(packed)[0].data, tolerance)


@kinds
@formats
def test_rows_are_invariant(kind, types):
    layer = quantize(stock(kind, 19, 100, bidirectional=True), *types)
    x, lengths = torch.randn(21, 16, 19), torch.randint(1, 22, (16,))
    with torch.inference_mode():
        for rows in (2, 3, 7, 16):
            output, _ = layer(x[:, :rows], lengths=lengths[:rows])
            for i in range(rows):
                alone, _ = layer(x[: lengths[i], i : i + 1])
                assert_same_bits(output[: lengths[i], i], alone[:, 0], f"row {i} of {rows}")


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "Linear"])
@formats
def test_nan_reaches_what_it_reaches_in_float32(kind, types):
    """torch.ao's quantised layers make numbers of it (findings/torch_dynamic_quantized_nan.sh)."""
    layer = stock(kind, 19, 37, **({} if kind == "Linear" else {"batch_first": True})).eval()
    x = torch.randn(9, 7, 19)
    x[4, 2, 13] = float("nan")
    with torch.inference_mode():
        got, expected = (
            out[0] if isinstance(out, tuple) else out for out in (quantize(layer, *types)(x), layer(x))
        )
    assert 0 < expected.isnan().sum() < expected.numel()
    assert torch.equal(got.isnan(), expected.isnan())


@formats
def test_a_whole_model(types):
    model = DeepSpeech2.preset("small", hidden_size=24).eval()
    quantized = quantize(model, *types)
    kinds = [type(m) for m in quantized.modules()]
    assert kinds.count(QuantizedGRU) == 2 and kinds.count(QuantizedLinear) == 1
    assert not any(isinstance(m, (torch.nn.GRU, torch.nn.Linear)) for m in quantized.modules())
    features, lengths = torch.randn(3, 1, 161, 90), torch.tensor([90, 40, 77])
    with torch.inference_mode():
        expected, _ = model(features, lengths)
        log_probs, output_lengths = quantized(features, lengths)
        assert (log_probs - expected).abs().max() < 0.1
        alone, _ = quantized(features[1:2, ..., :40], lengths[1:2])
    assert_same_bits(log_probs[1, : output_lengths[1]], alone[0])


@kinds
@formats
def test_state_dict_and_pickle_round_trip(kind, types):
    first, second = (quantize(torch.nn.Sequential(stock(kind, 5, 9)), *types) for _ in range(2))
    x = torch.randn(4, 2, 5)
    before = second(x)[0]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    expected = first(x)[0]
    assert not torch.equal(before, expected)
    assert_same_bits(second(x)[0], expected)
    assert_same_bits(pickle.loads(pickle.dumps(first))(x)[0], expected)
    assert_same_bits(copy.deepcopy(first)(x)[0], expected)


@kinds
def test_train_mode_is_refused(kind):
    model = quantize(torch.nn.Sequential(stock(kind, 5, 9))).train()
    with pytest.raises(RuntimeError, match=f"Quantized{kind} is for inference"):
        model(torch.randn(4, 2, 5))
    with pytest.raises(RuntimeError, match="QuantizedLinear is for inference"):
        quantize(torch.nn.Linear(5, 9)).train()(torch.randn(4, 5))


def test_the_model_itself_is_left_alone():
    gru = torch.nn.GRU(5, 9)
    before = copy.deepcopy(gru.state_dict())
    quantize(gru)
    assert gru.training and all(torch.equal(value, before[key]) for key, value in gru.state_dict().items())


@pytest.mark.parametrize("types", [("int8", "float32"), ("bf16", "float32"), ("int8", "int8")])
def test_the_copy_shares_no_memory_with_the_model(types):
    model = torch.nn.ModuleDict(
        {
            "rnn": torch.nn.LSTM(5, 9),
            "cell": torch.nn.GRUCell(5, 9),
            "linear": torch.nn.Linear(5, 9),
            "layer": torch.nn.TransformerEncoderLayer(8, 2, 9, batch_first=True),
            "norm": torch.nn.LayerNorm(9),
        }
    )
    for dtype in (torch.float32, torch.bfloat16):
        small = quantize(model.to(dtype), *types)
        theirs = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
        assert len(theirs) == len(model.state_dict())
        assert theirs.isdisjoint(t.untyped_storage().data_ptr() for t in small.state_dict().values())


def test_no_layer_is_copied_before_it_is_rounded(monkeypatch):
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", lambda *_: pytest.fail("a copy of a parameter"))
    model = torch.nn.Sequential(torch.nn.GRU(5, 9), torch.nn.Linear(9, 5))
    assert [type(part).__name__ for part in quantize(model)] == ["QuantizedGRU", "QuantizedLinear"]


def test_a_large_weight_is_rounded_as_its_rows_are():
    weight = torch.randn(1001, 700)
    rounded, scale = ops.quantize_weight(weight, "int8")
    for rows in (slice(0, 3), slice(370, 380), slice(1000, 1001)):
        part, of = ops.quantize_weight(weight[rows], "int8")
        assert_same_bits(rounded[rows], part)
        assert_same_bits(scale[rows], of)
    weight[999, 3] = torch.inf
    with pytest.raises(ValueError, match="weight: expected finite values"):
        ops.quantize_weight(weight, "int8")


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: quantize(torch.nn.GRU(3, 4), "int4"),
            'weights: expected "int8" or "bf16", received \'int4\'',
        ),
        (
            lambda: quantize(torch.nn.GRU(3, 4), "int8", "int4"),
            "activations: expected .* received 'int4'",
        ),
        (
            lambda: quantize(torch.nn.GRU(3, 4), "bf16", "int8"),
            "activations: expected .* received 'int8'",
        ),
        (
            lambda: quantize(torch.nn.ReLU()),
            "model: expected a GRU, an LSTM or a Linear inside, received a ReLU",
        ),
        (
            lambda: quantize(torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4, proj_size=2)})),
            "model: expected LSTMs without projections, received proj_size=2 in a",
        ),
        (
            lambda: quantize(torch.nn.LSTM(3, 4, proj_size=2)),
            "model: expected LSTMs without projections, received proj_size=2 in the layer itself",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def hooked(layer):
    layer.register_forward_hook(
        lambda _, args, out: (out[0] * 5, *out[1:]) if isinstance(out, tuple) else out * 5
    )
    return layer


def with_forward_of_its_own(layer):
    forward = layer.forward
    layer.forward = lambda x: (lambda out: (out[0] * 5, *out[1:]) if isinstance(out, tuple) else out * 5)(
        forward(x)
    )
    return layer


def of_another_class(layer):
    def forward(self, x):
        out = type(layer).forward(self, x)
        return (out[0] * 5, *out[1:]) if isinstance(out, tuple) else out * 5

    other = copy.deepcopy(layer)
    other.__class__ = type("Mine", (type(layer),), {"forward": forward})
    return other


def scaled(apply):
    """weight_norm of old and new, whose magnitude is changed, and pruning."""

    def change(layer):
        name = next(name for name, _ in layer.named_parameters() if name.startswith("weight"))
        apply(layer, name)
        magnitude = (name + "_g", name + "_orig", "original0")
        for key, parameter in layer.named_parameters():
            if key.endswith(magnitude):
                parameter.data.mul_(5)
        return layer

    return change


ALTERED = {
    "a hook": hooked,
    "a forward of its own": with_forward_of_its_own,
    "another class": of_another_class,
    "weight_norm": scaled(torch.nn.utils.weight_norm),
    "pruning": scaled(lambda layer, name: prune.random_unstructured(layer, name, 0.5)),
    "spectral_norm": lambda layer: torch.nn.utils.spectral_norm(layer, next(iter(layer._parameters))).eval(),
}
LAYERS = {
    "Linear": lambda: torch.nn.Linear(19, 19),
    "GRU": lambda: torch.nn.GRU(19, 19),
    "asrkern's LSTM": lambda: asrkern.nn.LSTM(19, 19),
    "GRUCell": lambda: torch.nn.GRUCell(19, 19),
    "asrkern's LSTMCell": lambda: asrkern.nn.LSTMCell(19, 19),
    "encoder layer": lambda: torch.nn.TransformerEncoderLayer(19, 1, 24),
}


class First(torch.nn.Module):
    """The first of what a layer returns."""

    def forward(self, x):
        return x[0] if isinstance(x, tuple) else x


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("what", ALTERED)
def test_layers_that_do_more_than_their_class_says_are_left(layer, what):
    if what in ("weight_norm", "pruning", "spectral_norm") and layer == "encoder layer":
        layer, inside = LAYERS[layer](), True
        layer.linear1 = ALTERED[what](layer.linear1)
    else:
        layer, inside = ALTERED[what](LAYERS[layer]()), False
    model = torch.nn.Sequential(layer, First(), torch.nn.Linear(19, 7)).eval()
    with pytest.warns(
        UserWarning, match=f"model: 1 layers are left as they are: 0{'.linear1' * inside} has "
    ):
        quantized = quantize(model)
    assert type(quantized[2]) is QuantizedLinear and type(quantized[0]) is type(layer)
    x = torch.randn(6, 19)
    with torch.inference_mode():
        expected, got = model(x), quantized(x)
    assert_close(got, expected, 0.03)
    with pytest.raises(ValueError, match=r"without any that can be replaced: (0|the layer itself|linear1)"):
        quantize(layer.linear1 if inside else layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_parametrizations_are_applied(layer):
    layer = LAYERS[layer]().eval()
    part = layer.linear1 if hasattr(layer, "linear1") else layer
    name = next(name for name, _ in part.named_parameters() if name.startswith("weight"))
    torch.nn.utils.parametrizations.weight_norm(part, name)
    getattr(part.parametrizations, name).original0.data.mul_(3)
    x = torch.randn(6, 2, 19) if not isinstance(layer, torch.nn.RNNCellBase) else torch.randn(6, 19)
    with torch.inference_mode():
        expected, got = First()(layer(x)), First()(quantize(layer)(x))
    assert_close(got, expected, 0.03)


def test_a_layer_in_several_places_stays_one():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(5, 5)
            self.block = torch.nn.Sequential(self.first, torch.nn.Linear(5, 5))
            self.again = self.block

    model = Twice().eval()
    small = quantize(model)
    assert small.first is small.block[0] and small.again is small.block
    assert [type(m) for m in small.block] == [QuantizedLinear] * 2 and not list(small.parameters())
    assert type(model.first) is torch.nn.Linear


@pytest.mark.parametrize(
    "cell, hx, message",
    [
        ("LSTMCell", torch.zeros(2, 7), "hx: expected a pair"),
        ("LSTMCell", (torch.zeros(2, 7),), "hx: expected a pair"),
        (
            "LSTMCell",
            (torch.zeros(2, 7), torch.zeros(1, 7)),
            r"c: expected shape \(2, 7\), received \(1, 7\)",
        ),
        ("GRUCell", torch.zeros(1, 7), r"h: expected shape \(2, 7\), received \(1, 7\)"),
        ("GRUCell", (torch.zeros(2, 7),), "h: expected a Tensor, received tuple"),
    ],
)
def test_bad_states_of_cells(cell, hx, message):
    small = quantize(getattr(torch.nn, cell)(5, 7))
    with pytest.raises((TypeError, ValueError), match=message):
        small(torch.zeros(2, 5), hx)
    for x in (torch.zeros(2, 6), torch.zeros(2, 2, 5)):
        with pytest.raises(ValueError, match="input: expected"):
            small(x)


@pytest.mark.parametrize("batch_first", [False, True])
def test_linear_layers_that_attention_reads_itself_stay(batch_first):
    layer = torch.nn.TransformerEncoderLayer(16, 2, 24, activation="gelu", batch_first=batch_first)
    model = torch.nn.Sequential(layer, torch.nn.Linear(16, 5)).eval()
    quantized, x = quantize(model), torch.randn(7, 3, 16)
    assert type(quantized[1]) is QuantizedLinear
    assert (type(quantized[0].linear1) is QuantizedLinear) == (not batch_first)
    with torch.inference_mode():
        assert_close(quantized(x), model(x), 5e-2)


@kinds
def test_int8_activations_are_the_operations(kind):
    layer = quantize(torch.nn.Sequential(stock(kind, 5, 9, bias=False), torch.nn.Identity()), "int8", "int8")[
        0
    ]
    x = torch.randn(4, 2, 5)
    packed = [layer.weight_ih_l0, layer.weight_ih_l0_scale, None, layer.weight_hh_l0_scale]
    packed[2] = getattr(asrkern.ops, f"pack_{kind.lower()}_weight")(layer.weight_hh_l0, "int8")
    run = getattr(asrkern.ops, f"{kind.lower()}_prepacked")
    weights = getattr(asrkern.ops, f"Packed{kind}Weights")(*packed)
    assert_same_bits(layer(x)[0], run(x, weights, activations="int8")[0])
    assert repr(layer).endswith("weights=int8, activations=int8)")


def test_freeze_leaves_layers_with_int8_activations_as_they_are():
    model = torch.nn.ModuleList(
        [quantize(torch.nn.GRU(5, 9), "int8", "int8"), quantize(torch.nn.LSTM(5, 9), "int8")]
    )
    x = torch.randn(4, 2, 5)
    expected = [layer(x)[0] for layer in model]
    asrkern.nn.freeze(model)
    assert type(model[0]) is QuantizedGRU and type(model[1]) is FrozenLSTM
    for layer, wanted in zip(model, expected, strict=True):
        assert_same_bits(layer(x)[0], wanted)


def test_cells_keep_float32_activations():
    x, cell = torch.randn(3, 5), torch.nn.GRUCell(5, 7)
    assert_same_bits(quantize(cell, "int8", "int8")(x), quantize(cell, "int8")(x))
