"""TorchScript: traced layers take other sizes and follow their weights; what scripting says."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import asrkern.nn
from asrkern.nn import quantize

CONVOLUTION = nn.Sequential(nn.Conv2d(1, 2, (3, 3), padding=(1, 1)), nn.BatchNorm2d(2), nn.Hardtanh(0, 20))
# Name → the layer, and the shape of an input of n rows and t frames.
LAYERS = {
    "GRU": (lambda: asrkern.nn.GRU(3, 5, 2, bidirectional=True), lambda n, t: (t, n, 3)),
    "LSTM": (lambda: asrkern.nn.LSTM(3, 5, batch_first=True), lambda n, t: (n, t, 3)),
    "GRUCell": (lambda: asrkern.nn.GRUCell(3, 5), lambda n, t: (n, 3)),
    "LSTMCell": (lambda: asrkern.nn.LSTMCell(3, 5), lambda n, t: (n, 3)),
    "QuantizedGRU": (lambda: quantize(nn.GRU(3, 5, bidirectional=True)), lambda n, t: (t, n, 3)),
    "QuantizedLSTM": (lambda: quantize(nn.LSTM(3, 5), "bf16"), lambda n, t: (t, n, 3)),
    "QuantizedLinear": (lambda: quantize(nn.Linear(3, 5)), lambda n, t: (n, t, 3)),
    "LightGRU": (lambda: asrkern.nn.LightGRU(3, 5), lambda n, t: (t, n, 3)),
    "BatchRNN": (lambda: asrkern.nn.BatchRNN(3, 5), lambda n, t: (t, n, 3)),
    "SequenceWise": (lambda: asrkern.nn.SequenceWise(nn.Linear(3, 5)), lambda n, t: (t, n, 3)),
    "MaskedBatchNorm1d": (lambda: asrkern.nn.MaskedBatchNorm1d(3), lambda n, t: (n, 3, t)),
    "Lookahead": (lambda: asrkern.nn.Lookahead(3, 2), lambda n, t: (t, n, 3)),
    "PyramidalRNN": (lambda: asrkern.nn.PyramidalRNN(3, 5), lambda n, t: (n, t, 3)),
    "FusedSequential": (
        lambda: asrkern.nn.FusedSequential(nn.BatchNorm1d(3), nn.ReLU()),
        lambda n, t: (n, 3, t),
    ),
    "MaskConv": (lambda: asrkern.nn.MaskConv(CONVOLUTION), lambda n, t: (n, 1, 7, t)),
}
WITH_LENGTHS = (
    "GRU",
    "LSTM",
    "QuantizedGRU",
    "QuantizedLSTM",
    "MaskConv",
    "MaskedBatchNorm1d",
    "PyramidalRNN",
)


class Masked(nn.Module):
    """A layer called with lengths, as a trace wants it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input, lengths):
        output = self.layer(input, lengths=lengths)
        return output[0] if isinstance(output, tuple) else output


def first(output):
    return output[0] if isinstance(output, tuple) else output


# A LightGRU is a loop over the frames, of which a trace has a fixed number; a MaskConv or PyramidalRNN alone returns None for lengths.
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "name", [name for name in LAYERS if name not in ("LightGRU", "MaskConv", "PyramidalRNN")]
)
def test_a_trace_takes_other_sizes(name, grad):
    make, shape = LAYERS[name]
    layer = make().eval()
    with torch.set_grad_enabled(grad):
        trace = torch.jit.trace(layer, (torch.randn(shape(2, 6)),))
        saved = io.BytesIO()
        torch.jit.save(trace, saved)
        saved.seek(0)
        loaded = torch.jit.load(saved)
        for n, t in ((2, 6), (4, 9), (1, 3)):
            input = torch.randn(shape(n, t))
            expected = first(layer(input))
            assert torch.equal(first(trace(input)), expected) and torch.equal(first(loaded(input)), expected)


@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_a_trace_with_lengths(name):
    make, shape = LAYERS[name]
    layer = Masked(make().eval())
    with torch.no_grad():
        trace = torch.jit.trace(layer, (torch.randn(shape(2, 6)), torch.tensor([6, 3])))
        for lengths in ([4, 6], [9, 1, 5]):
            args = torch.randn(shape(len(lengths), max(lengths))), torch.tensor(lengths)
            assert torch.equal(trace(*args), layer(*args))


@pytest.mark.parametrize("name", ["GRU", "LSTM", "QuantizedGRU"])
def test_a_trace_follows_its_weights(name):
    make, shape = LAYERS[name]
    layer, input = make().eval(), torch.randn(shape(2, 6))
    with torch.no_grad():
        layer(input)
        trace = torch.jit.trace(layer, (input,))
        before = first(trace(input))
        layer.weight_hh_l0.data[:, 1] = 0
        assert not torch.equal(first(trace(input)), before)
        assert torch.equal(first(trace(input)), first(layer(input)))


def test_a_trace_can_be_trained():
    layer = asrkern.nn.GRU(3, 5)
    input = torch.randn(6, 2, 3)
    trace = torch.jit.trace(layer, (input,))
    for module in (trace, layer):
        module.zero_grad()
        module(input)[0].square().sum().backward()
        gradient = module.weight_hh_l0.grad.clone()
        if module is trace:
            expected = gradient
    assert torch.equal(gradient, expected) and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", LAYERS)
def test_scripting_names_the_way_out(name):
    layer = LAYERS[name][0]()
    for module in (layer, nn.Sequential(nn.Identity(), layer)):
        with pytest.raises(RuntimeError, match=rf"asrkern\.nn\.{type(layer).__name__}: .*torch\.jit\.trace"):
            torch.jit.script(module)
