"""asrkern.nn.freeze: the same bits from half the memory, nothing edited unseen, and the way back."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

from asrkern.nn import GRU, LSTM, BatchRNN, convert, freeze, quantize, unfreeze
from tests.compare import assert_same_bits

kinds = pytest.mark.parametrize("kind", [GRU, LSTM])
formats = pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])


def make(kind, weights="fp32"):
    model = nn.Sequential(kind(37, 45, 2, bidirectional=True)).eval()
    return model if weights == "fp32" else quantize(model, weights)


def infer(model, x, **options):
    with torch.inference_mode():
        output, state = model[0](x, **options)
    return [output, *(state if isinstance(state, tuple) else (state,))]


@kinds
@formats
def test_same_bits_and_the_way_back(kind, weights):
    model, x = make(kind, weights), torch.randn(11, 3, 37)
    options = {"lengths": torch.tensor([4, 11, 0])}
    expected, state = infer(model, x, **options), copy.deepcopy(model.state_dict())
    before = type(model[0])
    assert freeze(model) is model
    # A frozen one is left as it is.
    freeze(model)
    for got, one in zip(infer(model, x, **options), expected, strict=True):
        assert_same_bits(got, one)
    assert not any("weight_hh" in name for name, _ in model.named_parameters())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model, unfreeze(model)):
        for got, one in zip(infer(twin, x, **options), expected, strict=True):
            assert_same_bits(got, one)
        assert list(twin.state_dict()) == list(state)
        for key, value in twin.state_dict().items():
            assert_same_bits(value, state[key])
    assert type(model[0]) is before


@kinds
def test_thawed_layers_train(kind):
    model, x = make(kind), torch.randn(5, 2, 37)
    model[0].weight_hh_l1.requires_grad_(False)
    twin = copy.deepcopy(model).train()
    with torch.inference_mode():
        unfreeze(freeze(model))
    model.train()
    for one in (model, twin):
        one[0](x)[0].square().sum().backward()
    names = [name for name, _ in twin.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    for got, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert got.requires_grad == expected.requires_grad
        if expected.requires_grad:
            assert_same_bits(got.grad, expected.grad)


def test_a_weight_is_in_memory_once():
    model = make(GRU)
    infer(model, torch.randn(2, 1, 37))
    memory = [weakref.ref(layer) for name, layer in model.named_parameters() if "weight_hh" in name]
    freeze(model)
    gc.collect()
    # Neither torch's lists nor the copies of eval mode hold one.
    assert [ref() for ref in memory] == [None] * 4
    assert sorted(len(packed) for packed in model[0]._packed_weights.values()) == [48 * 3 * 45] * 4


REFUSED = {
    "an edit": (lambda m: m[0].weight_hh_l0_reverse.data.zero_(), AttributeError, "weight_hh_l0_reverse"),
    "training": (lambda m: m.train()(torch.randn(7, 2, 37)), RuntimeError, "FrozenGRU is for inference"),
    "another weight": (
        lambda m: setattr(m[0], "weight_hh_l0", nn.Parameter(torch.zeros(135, 45))),
        AttributeError,
        "weight_hh_l0",
    ),
    "functional_call": (
        lambda m: torch.func.functional_call(m, make(GRU).state_dict(), (torch.randn(3, 1, 37),)),
        AttributeError,
        "weight_hh_l",
    ),
    "another dtype": (lambda m: m.double(), RuntimeError, "weight_hh_l0.*float64"),
    "another device": (lambda m: m.to("meta"), RuntimeError, "weight_hh_l0.*meta"),
    "loading": (lambda m: m.load_state_dict(make(GRU).state_dict()), RuntimeError, "0 is frozen"),
    "export": (
        lambda m: torch.export.export(m, (torch.randn(3, 1, 37),)),
        Exception,
        "is for this process",
    ),
    "tracing": (
        lambda m: torch.jit.trace(m, torch.randn(3, 1, 37)),
        RuntimeError,
        "is for this process",
    ),
    "quantizing": (lambda m: quantize(m), ValueError, "frozen"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_frozen_model_cannot_do_is_refused(what):
    do, kind, message = REFUSED[what]
    model, x = make(GRU), torch.randn(7, 2, 37)
    expected = infer(freeze(model), x)
    with pytest.raises(kind, match=message) as error:
        do(model)
    assert "unfreeze" in str(error.value)
    assert len({module.training for module in model.modules()}) == 1
    assert_same_bits(infer(model.eval(), x)[0], expected[0])


def test_what_cannot_be_frozen_is_named_and_left_whole():
    model = nn.Sequential(GRU(5, 7), LSTM(7, 9).double())
    with pytest.raises(ValueError, match=r"1\.weight_hh_l0: .*float64"):
        freeze(model)
    assert type(model[0]) is GRU and "weight_hh_l0" in dict(model[0].named_parameters())
    normed = nn.utils.parametrizations.weight_norm(GRU(5, 7), "weight_hh_l0")
    with pytest.raises(ValueError):
        freeze(normed)
    with pytest.raises(ValueError, match=r"received a GRU without.*convert"):
        freeze(nn.GRU(3, 4))
    with pytest.raises(TypeError, match="model: expected"):
        freeze(model.state_dict())


@kinds
@pytest.mark.parametrize(
    "dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
)
def test_inputs_of_another_dtype_give_what_they_gave(kind, dtypes):
    weights, given = (getattr(torch, name) for name in dtypes)
    model, x = make(kind).to(weights), torch.randn(6, 2, 37, dtype=given)
    expected = infer(model, x)
    freeze(model)
    for got, one in zip(infer(model, x), expected, strict=True):
        assert_same_bits(got, one)
    with pytest.raises(TypeError, match=r"expected the dtype of input, torch\.float64"):
        model(x.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_come_back(dtype):
    model = make(GRU).to(dtype)
    values = torch.tensor([torch.nan, torch.inf, -0.0], dtype=dtype)
    model[0].weight_hh_l1.data[3, 7:10] = values
    twin = pickle.loads(pickle.dumps(freeze(model)))
    for one in (model, twin):
        for weight in (one.state_dict()["0.weight_hh_l1"], unfreeze(one)[0].weight_hh_l1.detach()):
            assert torch.equal(weight[3, 7:10].view(torch.uint8), values.view(torch.uint8))


def test_layers_of_one_weight_have_one_again():
    model, x = nn.Sequential(GRU(9, 9), GRU(9, 9)).eval(), torch.randn(4, 2, 9)
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    expected = [infer(model, x)[0], model[1](x)[0]]
    freeze(model)
    assert model[0]._packed_weights["weight_hh_l0"] is model[1]._packed_weights["weight_hh_l0"]
    unfreeze(model)
    assert model[0].weight_hh_l0 is model[1].weight_hh_l0
    assert len(list(model.parameters())) == 7
    for got, one in zip((infer(model, x)[0], model[1](x)[0]), expected, strict=True):
        assert_same_bits(got, one)


def test_subclasses_are_left():
    model = nn.Sequential(GRU(5, 5), nn.utils.parametrizations.weight_norm(GRU(5, 5), "weight_hh_l0")).eval()
    x = torch.randn(3, 2, 5)
    expected, kind = model[1](x)[0], type(model[1])
    freeze(model)
    assert type(model[1]) is kind
    assert_same_bits(model[1](x)[0].detach(), expected.detach())


def _infer_for(answers, model, x):
    # Numbers: shared memory would end with this process.
    answers.put([infer(model, x)[0].tolist(), list(model.state_dict())])


def test_a_started_process_gets_it():
    model, x = make(GRU), torch.randn(4, 2, 37)
    expected, keys = infer(model, x)[0], list(model.state_dict())
    context = torch.multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_infer_for, args=(answers, freeze(model), x))
    process.start()
    got, got_keys = answers.get(timeout=120)
    process.join()
    assert_same_bits(torch.tensor(got), expected)
    assert got_keys == keys


def test_inside_other_layers_and_compiled():
    rnn, x = BatchRNN(37, 45, GRU, bidirectional=True).eval(), torch.randn(9, 2, 37)
    with torch.inference_mode():
        expected = rnn(x)[0]
        freeze(rnn)
        assert_same_bits(rnn(x)[0], expected)
        assert_same_bits(torch.compile(rnn, fullgraph=True, backend="eager")(x)[0], expected)


def test_torch_save_is_for_every_cpu():
    model = make(LSTM)
    x = torch.randn(4, 2, 37)
    expected = infer(model, x)[0]
    buffer = io.BytesIO()
    torch.save(freeze(model), buffer)
    buffer.seek(0)
    assert_same_bits(infer(torch.load(buffer, weights_only=False), x)[0], expected)
    assert_same_bits(infer(convert(unfreeze(model)).model, x)[0], expected)
