"""torch.fx.symbolic_trace of models that hold asrkern's layers: each is a node, FusedSequential what it is made of."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

import asrkern.nn
from asrkern.nn import quantize


class Recogniser(nn.Module):
    """Convolution, recurrent layers, their states and lengths, a classifier."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.conv = asrkern.nn.MaskConv(
            nn.Sequential(
                nn.Conv2d(1, 2, (3, 3), stride=(1, 2), padding=(1, 1)), nn.BatchNorm2d(2), nn.ReLU()
            )
        )
        self.norm = asrkern.nn.MaskedBatchNorm1d(14)
        self.rnn = kind(14, 5, 2, bidirectional=True)
        self.batch_rnn = asrkern.nn.BatchRNN(10, 6)
        self.pyramid = asrkern.nn.PyramidalRNN(6, 4)
        self.fc = asrkern.nn.SequenceWise(nn.Linear(8, 3))
        self.lookahead = asrkern.nn.Lookahead(3, 2)

    def forward(self, x, lengths, scale: float = 1.0):
        x, lengths = self.conv(x * scale, input_lengths=lengths)
        x = self.norm(x.flatten(1, 2), lengths).permute(2, 0, 1)
        x, h_n = self.rnn(x, lengths=lengths)
        x, _ = self.batch_rnn(x, output_lengths=lengths)
        x, lengths = self.pyramid(x.transpose(0, 1), lengths)
        return self.lookahead(self.fc(x.transpose(0, 1), lengths)), lengths, h_n


LEAVES = ("conv", "norm", "rnn", "batch_rnn", "pyramid", "fc", "lookahead")


class WithQuantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = quantize(nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5)))

    def forward(self, x):
        output, (h, c) = self.layers[1](self.layers[0](x))
        return output, h, c


@pytest.mark.parametrize("kind", [asrkern.nn.GRU, asrkern.nn.LSTM, asrkern.nn.LightGRU])
def test_layers_are_nodes(kind):
    model = Recogniser(kind).eval()
    trace = fx.symbolic_trace(model)
    calls = [node for node in trace.graph.nodes if node.op == "call_module"]
    assert [node.target for node in calls] == list(LEAVES)
    assert {n.target for n in trace.graph.nodes if n.op == "call_function"} <= {
        operator.mul,
        operator.getitem,
        getattr,
    }
    # Of the very layers, in either mode, with other sizes; and of a copy.
    assert trace.rnn is model.rnn
    again = copy.deepcopy(fx.symbolic_trace(trace))
    for rows, frames in ((3, 11), (2, 20)):
        x, lengths = torch.randn(rows, 1, 7, frames), torch.randint(1, frames + 1, (rows,))
        expected = model(x, lengths)
        for other in (trace, again):
            torch.testing.assert_close(other(x, lengths), expected, rtol=0, atol=0)


def test_quantised_layers_are_nodes():
    model, x = WithQuantised(), torch.randn(6, 2, 3)
    trace = fx.symbolic_trace(model)
    assert [n.target for n in trace.graph.nodes if n.op == "call_module"] == ["layers.0", "layers.1"]
    torch.testing.assert_close(trace(x), model(x), rtol=0, atol=0)


def test_fused_sequential_shows_what_it_is_made_of():
    model = asrkern.nn.convert(
        nn.Sequential(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()))
    ).model
    model(torch.randn(5, 3, 9) * 3 + 1)
    model.eval()
    assert type(model[0]) is asrkern.nn.FusedSequential
    x = torch.randn(2, 3, 9)
    trace = fx.symbolic_trace(model)
    assert [n.target for n in trace.graph.nodes if n.op == "call_module"] == ["0.0", "0.1", "0.2"]
    torch.testing.assert_close(trace(x), model(x), rtol=1e-5, atol=1e-6)
    # So that torch's tools find it: the batch norm goes into the convolution.
    fused = fuse(model)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in fused.modules())
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


def test_other_tracers():
    """A tracer with leaves of its own, and one that follows the path of modules."""

    class Paths(fx.Tracer):
        def __init__(self):
            super().__init__()
            self.paths = []

        def call_module(self, m, forward, args, kwargs):
            self.paths.append(self.path_of_module(m))
            return super().call_module(m, forward, args, kwargs)

        def is_leaf_module(self, m, path):
            return path == "fc"

    model, tracer = Recogniser(asrkern.nn.GRU).eval(), Paths()
    graph = tracer.trace(model)
    assert tracer.paths == list(LEAVES)
    assert [n.target for n in graph.nodes if n.op == "call_module"] == list(LEAVES)
    rnn = next(n for n in graph.nodes if n.target == "rnn")
    assert [path for path, _ in rnn.meta["nn_module_stack"].values()] == ["rnn"]


def test_what_would_run_twice_is_refused():
    class Doubled(asrkern.nn.GRU):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0] * 2

    hooked = asrkern.nn.GRU(3, 4)
    hooked.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    for layer, reason in ((hooked, "it has hooks"), (Doubled(3, 4), "Doubled has a forward of its own")):
        with pytest.raises(RuntimeError, match=rf"torch\.fx cannot .* because {reason}.*is_leaf_module"):
            fx.symbolic_trace(nn.Sequential(layer))

        class Leaves(fx.Tracer):
            def is_leaf_module(self, m, path):
                return isinstance(m, asrkern.nn.GRU)

        model, x = nn.Sequential(layer), torch.randn(5, 2, 3)
        trace = fx.GraphModule(model, Leaves().trace(model))
        torch.testing.assert_close(trace(x), model(x))
    with pytest.raises(RuntimeError, match="because it is itself what is traced"):
        fx.symbolic_trace(asrkern.nn.Lookahead(3, 2))
