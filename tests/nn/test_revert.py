"""Back to torch's layers: the same modules with the same weights, which tools of torch's take."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import asrkern.nn
from asrkern.nn import convert, revert

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Recogniser(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.Hardtanh(0.0, 20.0))
        self.rnn = getattr(nn, kind)(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.2)
        self.same = self.rnn

    def forward(self, x):
        return self.rnn(self.front(x).transpose(1, 2))[0]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_back_from_convert(kind):
    model = Recogniser(kind)
    model(torch.randn(4, 3, 9))
    model.eval()
    twin = copy.deepcopy(model)
    convert(model)
    parameters, x = dict(model.named_parameters()), torch.randn(4, 3, 9)
    model(x)
    report = revert(model)
    assert report.model is model and report.left == []
    assert [(name, after) for name, _, after in report.swapped] == [
        ("front", "torch.nn.Sequential"),
        ("rnn", f"torch.nn.{kind}"),
    ]
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]
    assert model.same is model.rnn and vars(model.rnn).keys() == vars(twin.rnn).keys()
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert torch.equal(model(x), twin(x))
    # Weights of today, through a script, too.
    with torch.no_grad():
        model.rnn.weight_hh_l1.mul_(0.5), twin.rnn.weight_hh_l1.mul_(0.5)
    assert torch.equal(torch.jit.script(model)(x), twin(x))
    packed = pack_padded_sequence(torch.randn(2, 5, 6), [5, 3], batch_first=True)
    assert torch.equal(model.rnn(packed)[0].data, twin.rnn(packed)[0].data)


def test_batch_norms_and_a_copy():
    model = nn.ModuleList([asrkern.nn.MaskedBatchNorm1d(6, eps=1e-2), asrkern.nn.MaskedBatchNorm2d(3)])
    report = revert(model, inplace=False)
    assert [type(m) for m in report.model] == [nn.BatchNorm1d, nn.BatchNorm2d]
    assert type(model[0]) is asrkern.nn.MaskedBatchNorm1d
    x = torch.randn(4, 6, 9)
    torch.testing.assert_close(report.model[0](x), model[0](x), **CLOSE)
    assert "layout" not in repr(report.model[0])


def test_what_torch_has_not_is_left_with_the_reason():
    model = nn.ModuleDict(
        {
            "sum": asrkern.nn.GRU(3, 4, bidirectional=True, merge="sum"),
            "clamp": asrkern.nn.MaskedBatchNorm1d(3, activation=(0, 6)),
            "frames": asrkern.nn.MaskedBatchNorm1d(3, layout="NTC"),
            "rows": asrkern.nn.SequenceWise(nn.Sequential(asrkern.nn.MaskedBatchNorm1d(3))),
        }
    )
    report = revert(model)
    assert report.swapped == []
    assert report.left == [
        ("sum", "asrkern.nn.GRU", "torch's has no merge='sum'"),
        ("clamp", "asrkern.nn.MaskedBatchNorm1d", "torch's has no activation=(0, 6)"),
        ("frames", "asrkern.nn.MaskedBatchNorm1d", "torch's has no layout='NTC'"),
        ("rows", "asrkern.nn.SequenceWise", "torch has no such layer"),
    ]
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, received list"):
        revert([])
