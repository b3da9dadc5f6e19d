"""asrkern.nn.GRUCell and LSTMCell in the place of torch's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import asrkern.nn
from asrkern.nn import convert, quantize, revert

EXACT = {"rtol": 1e-9, "atol": 1e-10}
kinds = pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell"])


def twins(kind, *args, dtype=torch.float64, **options):
    """The cell under test and torch's, with the same weights."""
    stock = getattr(nn, kind)(*args, **options, dtype=dtype)
    ours = getattr(asrkern.nn, kind)(*args, **options, dtype=dtype)
    ours.load_state_dict(stock.state_dict())
    return ours, stock


def states_of(kind, *shape, dtype=torch.float64):
    h, c = torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)
    return (h, c) if kind == "LSTMCell" else h


def tensors(hx):
    return hx if isinstance(hx, tuple) else (hx,)


@kinds
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_hx", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (7,)])
def test_equals_torch_with_gradients(kind, bias, with_hx, batch):
    ours, stock = twins(kind, 4, 5, bias=bias)
    x = torch.randn(*batch, 4, dtype=torch.float64)
    hx = states_of(kind, *batch, 5) if with_hx else None
    results = []
    for cell in (ours, stock):
        inputs = [t.clone().requires_grad_() for t in (x, *(tensors(hx) if with_hx else ()))]
        # Twice, so that the second step's state has a gradient, too.
        after = cell(inputs[0], None if hx is None else tuple(inputs[1:]) if len(inputs) > 2 else inputs[1])
        after = cell(inputs[0] * 2, after)
        sum((i + 1) * (t**2).sum() for i, t in enumerate(tensors(after))).backward()
        results.append([*tensors(after), *(t.grad for t in inputs), *(p.grad for p in cell.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@kinds
def test_is_torchs_cell_with_its_keys(kind):
    ours, stock = twins(kind, 4, 5)
    assert isinstance(ours, getattr(nn, kind)) and repr(ours) == repr(stock)
    assert list(ours.state_dict()) == list(stock.state_dict())
    for clone in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        x = torch.randn(3, 4, dtype=torch.float64)
        assert all(torch.equal(a, b) for a, b in zip(tensors(clone(x)), tensors(ours(x))))
        with torch.no_grad():
            clone.weight_hh.add_(1)
        assert not torch.equal(clone.weight_hh, ours.weight_hh)


@kinds
def test_a_row_is_what_it_is_alone(kind):
    ours, _ = twins(kind, 13, 37, dtype=torch.float32)
    x, hx = torch.randn(9, 13), states_of(kind, 9, 37, dtype=torch.float32)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            together = tensors(ours(x, hx))
            for i in range(9):
                row = tuple(t[i] for t in tensors(hx))
                alone = tensors(ours(x[i], row if kind == "LSTMCell" else row[0]))
                assert all(torch.equal(a, b[i]) for a, b in zip(alone, together, strict=True))


@kinds
def test_compiles_and_exports(kind):
    ours, _ = twins(kind, 4, 5, dtype=torch.float32)
    x, hx = torch.randn(3, 4), states_of(kind, 3, 5, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    program = torch.export.export(ours.eval(), (x, hx)).module()
    for other in (compiled, program):
        assert all(
            torch.equal(a, b) for a, b in zip(tensors(other(x, hx)), tensors(ours(x, hx)), strict=True)
        )
    tensors(compiled(x, hx))[0].sum().backward()
    assert ours.weight_hh.grad.any()


@kinds
def test_functional_transforms(kind):
    ours, stock = twins(kind, 4, 5)
    x, weights = torch.randn(3, 4, dtype=torch.float64), dict(ours.named_parameters())

    def loss(cell):
        return lambda w: sum(t.sum() for t in tensors(torch.func.functional_call(cell, w, (x,))))

    grads, wanted = torch.func.grad(loss(ours))(weights), torch.func.grad(loss(stock))(weights)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], **EXACT)
    mapped = torch.func.vmap(lambda row: tensors(ours(row))[0])(x)
    torch.testing.assert_close(mapped, tensors(ours(x))[0], **EXACT)


class Speller(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = nn.ModuleList([getattr(nn, kind)(4, 5), getattr(nn, kind)(5, 5)])
        self.same = self.cells[0]

    def forward(self, x):
        for cell in self.cells:
            x = tensors(cell(x))[0]
        return x


@kinds
def test_convert_and_revert(kind):
    model, x = Speller(kind).eval(), torch.randn(3, 4)
    parameters, expected = dict(model.named_parameters()), model(x)
    left = convert(model)
    assert left.swapped == [] and {reason for *_, reason in left.left} == {
        "torch's is faster for few rows; cells=True converts it"
    }
    report = convert(model, cells=True)
    assert report.left == []
    assert report.swapped == [(f"cells.{i}", f"torch.nn.{kind}", f"asrkern.nn.{kind}") for i in range(2)]
    assert model.same is model.cells[0] and not model.cells[0].training
    assert all(p is parameters[name] for name, p in model.named_parameters())
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    assert convert(model, cells=True).swapped == []
    report = revert(model)
    assert [after for *_, after in report.swapped] == [f"torch.nn.{kind}"] * 2
    assert type(model.cells[1]) is getattr(nn, kind) and torch.equal(model(x), expected)


def test_convert_leaves_what_may_compute_something_else():
    class Own(nn.LSTMCell):
        pass

    hooked = nn.GRUCell(3, 4)
    hooked.register_forward_hook(lambda *_: None)
    report = convert(nn.ModuleList([Own(3, 4), hooked, nn.RNNCell(3, 4)]), cells=True)
    assert report.swapped == []
    assert [reason for *_, reason in report.left] == [
        "a subclass of torch.nn.LSTMCell may compute something else",
        "it has hooks",
        "asrkern has no kernel for it",
    ]


@kinds
@pytest.mark.parametrize("weights", ["int8", "bf16"])
def test_quantized(kind, weights):
    ours, _ = twins(kind, 13, 37, dtype=torch.float32)
    small = quantize(nn.ModuleList([ours]), weights)[0]
    x, hx = torch.randn(9, 13), states_of(kind, 9, 37, dtype=torch.float32)
    together = tensors(small(x, hx))
    for got, wanted in zip(together, tensors(ours(x, hx)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=3e-2)
    for i in range(9):
        row = tuple(t[i] for t in tensors(hx))
        alone = tensors(small(x[i], row if kind == "LSTMCell" else row[0]))
        assert all(torch.equal(a, b[i]) for a, b in zip(alone, together, strict=True))


@kinds
@pytest.mark.parametrize(
    ("input", "hx", "message"),
    [
        ((2, 3, 4), None, r"input: expected 1 or 2 dimensions, received shape \(2, 3, 4\)"),
        ((3, 5), None, r"input: expected shape \(3, 4\), received \(3, 5\)"),
        ((3, 4), (2, 5), r"hx(\[0\])?: expected shape \(3, 5\), received \(2, 5\)"),
        ((3, 4), (5,), r"hx(\[0\])?: expected shape \(3, 5\), received \(5,\)"),
        ((4,), (1, 5), r"hx(\[0\])?: expected shape \(5,\), received \(1, 5\)"),
    ],
)
def test_bad_shapes_are_named(kind, input, hx, message):
    states = states_of(kind, *hx, dtype=torch.float32) if hx else None
    with pytest.raises(ValueError, match=message):
        getattr(asrkern.nn, kind)(4, 5)(torch.zeros(input), states)


@pytest.mark.parametrize(
    ("hx", "message"),
    [
        (torch.zeros(3, 5), r"hx: expected a pair \(h, c\), received Tensor"),
        ((torch.zeros(3, 5),), r"hx: expected a pair \(h, c\), received 1 values"),
        ((torch.zeros(3, 5), None), r"hx\[1\]: expected a Tensor, received NoneType"),
    ],
)
def test_an_lstms_states_are_a_pair(hx, message):
    with pytest.raises(TypeError, match=message):
        asrkern.nn.LSTMCell(4, 5)(torch.zeros(3, 4), hx)
