"""torch.func over asrkern's layers: what autograd and plain loops give, and what there is no derivative of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
from torch.nn.utils.rnn import pack_padded_sequence

import asrkern.nn
from asrkern.nn import quantize

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
CONVOLUTION = (nn.Conv2d(1, 2, (3, 3), padding=(1, 1)), nn.BatchNorm2d(2), nn.Hardtanh(0, 20))
# Name → the layer, and the shape of an input of n rows and t frames.
LAYERS = {
    "GRU": (lambda: asrkern.nn.GRU(3, 5, 2, bidirectional=True), lambda n, t: (t, n, 3)),
    "LSTM": (lambda: asrkern.nn.LSTM(3, 5, batch_first=True, bias=False), lambda n, t: (n, t, 3)),
    "GRUCell": (lambda: asrkern.nn.GRUCell(3, 5), lambda n, t: (n, 3)),
    "LSTMCell": (lambda: asrkern.nn.LSTMCell(3, 5, bias=False), lambda n, t: (n, 3)),
    "LightGRU": (lambda: asrkern.nn.LightGRU(3, 5), lambda n, t: (t, n, 3)),
    "BatchRNN": (lambda: asrkern.nn.BatchRNN(3, 5), lambda n, t: (t, n, 3)),
    "PyramidalRNN": (lambda: asrkern.nn.PyramidalRNN(3, 5), lambda n, t: (n, t, 3)),
    "SequenceWise": (lambda: asrkern.nn.SequenceWise(nn.Linear(3, 5)), lambda n, t: (t, n, 3)),
    "MaskedBatchNorm1d": (lambda: asrkern.nn.MaskedBatchNorm1d(3), lambda n, t: (n, 3, t)),
    "MaskedBatchNorm2d": (
        lambda: asrkern.nn.MaskedBatchNorm2d(2, activation=(0, 1)),
        lambda n, t: (n, 2, 3, t),
    ),
    "FusedSequential": (
        lambda: asrkern.nn.FusedSequential(nn.BatchNorm1d(3), nn.ReLU()),
        lambda n, t: (n, 3, t),
    ),
    "Lookahead": (lambda: asrkern.nn.Lookahead(3, 2), lambda n, t: (t, n, 3)),
    "MaskConv": (lambda: asrkern.nn.MaskConv(nn.Sequential(*CONVOLUTION)), lambda n, t: (n, 1, 7, t)),
}
QUANTIZED = {
    "QuantizedGRU": (lambda: quantize(nn.GRU(3, 5, bidirectional=True)), lambda n, t: (t, n, 3)),
    "QuantizedLSTM": (lambda: quantize(nn.LSTM(3, 5), "bf16"), lambda n, t: (t, n, 3)),
    "QuantizedLinear": (lambda: quantize(nn.Linear(3, 5)), lambda n, t: (n, t, 3)),
}


class Call:
    """A layer as a function of its parameters, its buffers, an input and lengths."""

    def __init__(self, name: str, training: bool = False) -> None:
        make, self.shape = (LAYERS | QUANTIZED)[name]
        self.layer = make().train(training)
        other = {"BatchRNN": "output_lengths"}
        without = ("FusedSequential", "QuantizedLinear", "GRUCell", "LSTMCell")
        self.lengths = None if name in without else other.get(name, "lengths")
        self.parameters = {key: p.detach() for key, p in self.layer.named_parameters()}
        self.buffers = {key: b.clone() for key, b in self.layer.named_buffers()}

    def __call__(self, parameters, x, lengths=None, buffers=None):
        keywords = {} if lengths is None or self.lengths is None else {self.lengths: lengths}
        state = (parameters, {} if buffers is None else buffers)
        output = functional_call(self.layer, state, (x,), keywords)
        return output[0] if isinstance(output, tuple) else output

    def loss(self, *args):
        return self(*args).square().sum()

    def input(self, *leading: int) -> torch.Tensor:
        return torch.randn(*leading, *self.shape(2, 6))

    def gradients(self, parameters, x, lengths=None, buffers=None):
        """Of the loss, by parameter and of x: by plain autograd."""
        parameters = {key: p.clone().requires_grad_() for key, p in parameters.items()}
        x = x.clone().requires_grad_()
        *of_parameters, of_x = torch.autograd.grad(
            self.loss(parameters, x, lengths, buffers), [*parameters.values(), x]
        )
        return dict(zip(parameters, of_parameters)), of_x


def assert_same(got, expected) -> None:
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_grad(name, training):
    call = Call(name, training)
    x, lengths = call.input(), torch.tensor([4, 6])
    twin = {key: b.clone() for key, b in call.buffers.items()}
    got = grad(call.loss, (0, 1))(call.parameters, x, lengths, call.buffers)
    assert_same(got, call.gradients(call.parameters, x, lengths, twin))
    assert got[1].abs().sum() > 0
    # The running statistics of a batch norm in training.
    assert_same(call.buffers, twin)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_of_many_inputs(name):
    call = Call(name)
    x, lengths = call.input(3), torch.tensor([[4, 6], [1, 2], [6, 0]])
    for mapped in (lengths, None):
        got = vmap(grad(call.loss, (0, 1)), (None, 0, None if mapped is None else 0))(
            call.parameters, x, mapped
        )
        rows = [
            call.gradients(call.parameters, x[i], None if mapped is None else mapped[i]) for i in range(3)
        ]
        assert_same(got[1], torch.stack([of_x for _, of_x in rows]))
        for key, value in got[0].items():
            assert_same(value, torch.stack([of_parameters[key] for of_parameters, _ in rows]))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_through_vmap(name):
    call = Call(name)
    x, lengths = call.input(3), torch.tensor([4, 6])

    def total(parameters):
        return vmap(call, (None, 0, None))(parameters, x, lengths).square().sum()

    rows = [call.gradients(call.parameters, x[i], lengths)[0] for i in range(3)]
    for key, value in grad(total)(call.parameters).items():
        torch.testing.assert_close(value, sum(row[key] for row in rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, *QUANTIZED])
def test_vmap_over_inputs_and_weights(name, grad_mode):
    call = Call(name)
    x, lengths = call.input(3), torch.tensor([[4, 6], [1, 2], [6, 5]])
    states = [Call(name) for _ in range(3)]
    with torch.set_grad_enabled(grad_mode):
        got = vmap(call, (None, 0, 0))(call.parameters, x, lengths)
        assert_same(got, torch.stack([call(call.parameters, x[i], lengths[i]) for i in range(3)]))
        parameters, buffers = (
            {key: torch.stack([getattr(s, kind)[key] for s in states]) for key in getattr(call, kind)}
            for kind in ("parameters", "buffers")
        )
        got = vmap(call, (0, None, None, 0))(parameters, x[0], lengths[0], buffers)
        expected = [call(s.parameters, x[0], lengths[0], s.buffers) for s in states]
        assert_same(got, torch.stack(expected))


@pytest.mark.parametrize("name", LAYERS)
def test_jacobian(name):
    call = Call(name)
    x = call.input()
    expected = torch.autograd.functional.jacobian(lambda x: call(call.parameters, x), x)
    assert_same(jacrev(call, 1)(call.parameters, x), expected)


@pytest.mark.parametrize("kind", [asrkern.nn.GRU, asrkern.nn.LSTM])
def test_a_packed_sequence(kind):
    layer = kind(3, 5, bidirectional=True)
    packed = pack_padded_sequence(torch.randn(6, 3, 3), torch.tensor([4, 6, 2]), enforce_sorted=False)

    # The packing itself is torch's, which has no derivative here.
    def loss(data):
        return layer(packed._replace(data=data))[0].data.square().sum()

    leaf = packed.data.clone().requires_grad_()
    assert_same(grad(loss)(packed.data), torch.autograd.grad(loss(leaf), leaf)[0])


@pytest.mark.parametrize("name", ["SequenceWise", "MaskConv"])
def test_second_derivatives_of_what_is_composed(name):
    call = Call(name)
    x = call.input()
    expected = torch.autograd.functional.hessian(lambda x: call.loss(call.parameters, x), x)
    assert expected.abs().sum() > 0
    assert_same(jacrev(jacrev(call.loss, 1), 1)(call.parameters, x), expected)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "MaskedBatchNorm1d"])
def test_second_derivatives_say_what_has_them(name):
    call = Call(name)
    with pytest.raises(RuntimeError, match=r"asrkern::\w+_backward .*double backward.*asrkern\.reference"):
        jacrev(jacrev(call.loss, 1), 1)(call.parameters, call.input())


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Lookahead"])
def test_forward_mode_says_what_to_do(name):
    call = Call(name)
    x = call.input()
    with pytest.raises(RuntimeError, match=r"asrkern::\w+ has no forward-mode.*asrkern\.nn\.revert"):
        jvp(lambda x: call(call.parameters, x), (x,), (x,))
    with pytest.raises(RuntimeError, match=r"asrkern::\w+ has no forward-mode.*asrkern\.nn\.revert"):
        hessian(call.loss, 1)(call.parameters, x)
    with (
        forward_ad.dual_level(),
        pytest.raises(RuntimeError, match=r"asrkern::\w+ has no forward-mode.*asrkern\.nn\.revert"),
    ):
        call(call.parameters, forward_ad.make_dual(x, torch.ones_like(x)))
    with forward_ad.dual_level():
        assert_same(call(call.parameters, x), call(call.parameters, x))


def test_running_statistics_under_vmap():
    """In training, of each of the mapped inputs, if they are mapped with it."""
    call, x, lengths = Call("MaskedBatchNorm1d", training=True), torch.randn(2, 2, 3, 6), torch.tensor([4, 6])
    rows = [{key: b.clone() for key, b in call.buffers.items()} for _ in range(2)]
    buffers = {key: torch.stack([b, b]) for key, b in call.buffers.items()}
    got = vmap(call, (None, 0, None, 0))(call.parameters, x, lengths, buffers)
    assert_same(got, torch.stack([call(call.parameters, x[i], lengths, rows[i]) for i in range(2)]))
    for key, value in buffers.items():
        assert_same(value, torch.stack([row[key] for row in rows]))


def test_forward_mode_of_what_is_composed():
    call = Call("Lookahead")
    x, tangent = call.input(), call.input()
    expected = torch.autograd.functional.jvp(lambda x: call(call.parameters, x), x, tangent)
    assert_same(jvp(lambda x: call(call.parameters, x), (x,), (tangent,)), expected)


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantised_layers_have_no_derivative(name):
    call = Call(name)
    for loss in (call.loss, lambda _, x: vmap(call, (None, 0))({}, x[None]).sum()):
        with pytest.raises(RuntimeError, match=r"asrkern::\w+ is for inference and has no derivative"):
            grad(loss, 1)({}, call.input())
