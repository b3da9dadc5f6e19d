"""convert: models of torch's layers compute the same after it, and what may differ is left with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import asrkern.nn
from asrkern.nn import convert

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class SequenceWise(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        steps, batch = x.shape[:2]
        return self.module(x.reshape(steps * batch, -1)).reshape(steps, batch, -1)


class MaskConv(nn.Module):
    def __init__(self, seq_module):
        super().__init__()
        self.seq_module = seq_module

    def forward(self, x, lengths):
        for layer in self.seq_module:
            x = layer(x)
            mask = torch.zeros(x.shape, dtype=torch.bool)
            for row, length in zip(mask, lengths.tolist(), strict=True):
                row[..., length:] = True
            x = x.masked_fill(mask, 0)
        return x, lengths


class InferenceBatchSoftmax(nn.Module):
    def forward(self, input_):
        return input_ if self.training else input_.softmax(-1)


class BatchRNN(nn.Module):
    """As up to V2; see BatchRNNV3."""

    def __init__(self, input_size, hidden_size, rnn_type=nn.GRU, bidirectional=True, batch_norm=True):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bidirectional = bidirectional
        self.batch_norm = SequenceWise(nn.BatchNorm1d(input_size)) if batch_norm else None
        self.rnn = rnn_type(input_size, hidden_size, bidirectional=bidirectional)

    def flatten_parameters(self):
        self.rnn.flatten_parameters()

    def run(self, x, output_lengths, h=None):
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        packed, h = self.rnn(pack_padded_sequence(x, output_lengths), h)
        x, _ = pad_packed_sequence(packed)
        return (x.unflatten(-1, (2, -1)).sum(2) if self.bidirectional else x), h

    def forward(self, x, output_lengths):
        return self.run(x, output_lengths)[0]


class BatchRNNV3(BatchRNN):
    def forward(self, x, output_lengths, h=None):
        return self.run(x, output_lengths, h)


BatchRNNV3.__name__ = "BatchRNN"


class Lookahead(nn.Module):
    def __init__(self, n_features, context):
        super().__init__()
        self.pad = (0, context - 1)
        self.conv = nn.Conv1d(n_features, n_features, context, groups=n_features, bias=False)

    def forward(self, x):
        return self.conv(nn.functional.pad(x.permute(1, 2, 0), self.pad)).permute(2, 0, 1)


class DeepSpeech(nn.Module):
    """Twin of deepspeech.pytorch's model, small."""

    def __init__(self, rnn_type=nn.GRU, bidirectional=True, batch_rnn=BatchRNN):
        super().__init__()
        self.conv = MaskConv(
            nn.Sequential(
                nn.Conv2d(1, 8, (11, 5), stride=(2, 2), padding=(5, 2)),
                nn.BatchNorm2d(8),
                nn.Hardtanh(0, 20, inplace=True),
                nn.Conv2d(8, 8, (7, 5), stride=(2, 1), padding=(3, 2)),
                nn.BatchNorm2d(8),
                nn.Hardtanh(0, 20, inplace=True),
            )
        )
        self.rnns = nn.Sequential(
            batch_rnn(8 * 6, 12, rnn_type, bidirectional, batch_norm=False),
            batch_rnn(12, 12, rnn_type, bidirectional),
        )
        self.lookahead = None if bidirectional else nn.Sequential(Lookahead(12, 4), nn.Hardtanh(0, 20))
        self.fc = nn.Sequential(
            SequenceWise(nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 29, bias=False)))
        )
        self.inference_softmax = InferenceBatchSoftmax()

    def forward(self, x, lengths):
        output_lengths = lengths
        for layer in self.conv.modules():
            if type(layer) is nn.Conv2d:
                kernel, stride, padding = layer.kernel_size[1], layer.stride[1], layer.padding[1]
                output_lengths = (output_lengths + 2 * padding - kernel) // stride + 1
        x, _ = self.conv(x, output_lengths)
        x = x.flatten(1, 2).permute(2, 0, 1)
        for layer in self.rnns:
            x = layer(x, output_lengths)
            x = x[0] if isinstance(x, tuple) else x
        x = x if self.lookahead is None else self.lookahead(x)
        return self.inference_softmax(self.fc(x).transpose(0, 1)), output_lengths


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([31, 22, 9], dtype=torch.int32)
    x = torch.randn(3, 1, 23, 31)
    return x.masked_fill((torch.arange(31) >= lengths[:, None])[:, None, None], 0), lengths


def kinds(report: asrkern.nn.ConversionReport) -> dict[str, str]:
    return {name: after for name, _, after in report.swapped}


@pytest.mark.parametrize("rnn_type", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_rnn", [BatchRNN, BatchRNNV3])
def test_twin_is_swapped_whole_and_computes_the_same(bidirectional, batch_rnn, rnn_type):
    model = DeepSpeech(rnn_type, bidirectional, batch_rnn)
    for _ in range(3):
        model(*batch())
    twin = copy.deepcopy(model)
    parameters = list(model.parameters())
    keys = list(model.state_dict())
    report = convert(model)
    assert report.model is model
    assert report.left == []
    names = kinds(report)
    assert names["conv"] == "asrkern.nn.MaskConv"
    assert names["rnns.1"] == "asrkern.nn.BatchRNN"
    assert names["rnns.0.rnn"] == f"asrkern.nn.{rnn_type.__name__}"
    assert names["fc.0"] == "asrkern.nn.SequenceWise"
    assert names["inference_softmax"] == "asrkern.nn.InferenceBatchSoftmax"
    assert ("lookahead.0" in names) != bidirectional
    assert not any(type(m).__module__ == __name__ for m in model.children())
    assert list(model.state_dict()) == keys
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert model.training
    assert model.rnns[1].returns_hidden == (batch_rnn is BatchRNNV3)

    x, lengths = batch()
    for training in (True, False):
        model.train(training), twin.train(training)
        for got, expected in zip(model(x, lengths), twin(x, lengths), strict=True):
            torch.testing.assert_close(got, expected, **CLOSE)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, **CLOSE)
    again = convert(model)
    assert (again.swapped, again.left) == ([], [])


def test_an_optimizer_made_before_goes_on_training():
    model, x = DeepSpeech(), batch()
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, twin)]
    convert(model)
    for _ in range(2):
        losses = []
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            loss = m(*x)[0].square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_an_rnn_stays_torchs_inside_a_swapped_batch_rnn():
    model = DeepSpeech(nn.RNN).eval()
    x, lengths = batch()
    expected, _ = model(x, lengths)
    report = convert(model)
    assert [name for name, _, _ in report.left] == ["rnns.0.rnn", "rnns.1.rnn"]
    assert all(kind == "torch.nn.RNN" and "kernel" in reason for _, kind, reason in report.left)
    assert isinstance(model.rnns[1], asrkern.nn.BatchRNN)
    assert type(model.rnns[1].rnn) is nn.RNN
    torch.testing.assert_close(model(x, lengths)[0], expected, **CLOSE)
    assert "rnns.1.rnn: torch.nn.RNN left" in str(report)
    assert "conv: " in str(report)


def test_valid_stats_on_request():
    model = DeepSpeech()
    convert(model, stats="valid")
    assert model.conv.stats == model.rnns[1].batch_norm.stats == "valid"
    x, lengths = batch()
    x[2, ..., 9:] = 1e3  # beyond the last row's output lengths only in part, so through input_lengths
    plain = copy.deepcopy(model)
    a, _ = model.conv(x, input_lengths=lengths)
    b, _ = plain.conv(x.masked_fill(x == 1e3, 0), input_lengths=lengths)
    assert torch.equal(a, b)


def test_batch_norm_pairs_run_as_one_and_stay_what_they_are():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4, eps=1e-3, momentum=0.3),
        nn.Hardtanh(0, 0.5, inplace=True),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.BatchNorm1d(6, affine=False),
        nn.ReLU(),
    )
    x = torch.randn(5, 1, 8, 9)
    model(x)
    twin = copy.deepcopy(model)
    buffers = dict(model.named_buffers())
    report = convert(model)
    assert report.model is model and kinds(report) == {"": "asrkern.nn.FusedSequential"}
    assert [type(m) for m in model] == [type(m) for m in twin]
    assert all(b is buffers[name] for name, b in model.named_buffers())
    for training in (True, False):
        model.train(training), twin.train(training)
        torch.testing.assert_close(model(x), twin(x), **CLOSE)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, **CLOSE)


def normed(*tail):
    model = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), *tail)
    for _ in range(3):
        model(3 * torch.randn(4, 3, 9))
    return model


@pytest.mark.parametrize("activation", [nn.Hardtanh(0, 0.3), nn.ReLU(), nn.ReLU6()])
def test_pairs_are_fused_in_one_call(activation, monkeypatch):
    calls = []
    monkeypatch.setattr(type(activation), "forward", lambda *_: calls.append("activation"))
    monkeypatch.setattr(nn.BatchNorm1d, "forward", lambda *_: calls.append("norm"))
    model = nn.Sequential(nn.BatchNorm1d(6), activation).eval()
    x = torch.randn(4, 6, 9)
    y = convert(model).model(x)
    bounds = (0, getattr(activation, "max_val", torch.inf))
    torch.testing.assert_close(y, (x / (1 + 1e-5) ** 0.5).clamp(*bounds), **CLOSE)
    assert calls == []


@pytest.mark.parametrize("activation", [nn.Hardtanh(0, 0.3), nn.ReLU(), nn.ReLU6()])
def test_what_replaces_or_folds_a_norm_later_keeps_the_activation(activation):
    model = normed(activation).eval()
    x = 5 * torch.randn(4, 3, 9)
    expected = model(x)
    model = convert(model).model
    for other in (
        nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)),
        nn.Sequential(fuse_conv_bn_eval(model[0], model[1]), *list(model)[2:]),
        model[:2].append(model[2]),
        nn.Sequential(*model),
    ):
        torch.testing.assert_close(other(x), expected, **CLOSE)
    model[0], model[1] = fuse_conv_bn_eval(model[0], model[1]), nn.Identity()
    torch.testing.assert_close(model(x), expected, **CLOSE)


def test_hooks_and_replaced_forwards_added_later_run():
    model = convert(normed(nn.ReLU()).eval()).model
    x, seen = torch.randn(4, 3, 9), []
    expected = model(x)
    handle = model[2].register_forward_hook(lambda module, input, output: seen.append(input[0].min().item()))
    torch.testing.assert_close(model(x), expected, **CLOSE)
    assert len(seen) == 1 and seen[0] < 0
    handle.remove()
    model[1].forward = lambda x: -torch.ones_like(x)
    assert (model(x) == 0).all()


def test_pairs_that_are_not_fused_are_reported():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.nonlin = nn.BatchNorm1d(6), nn.ReLU()
            self.cell = nn.RNNCell(3, 4)

        def forward(self, x):
            return self.nonlin(self.norm(x))

    hooked = normed(nn.ReLU())
    hooked[2].register_forward_hook(lambda *_: None)
    report = convert(nn.ModuleDict({"block": Block(), "hooked": hooked}))
    left = {name: (kind, reason) for name, kind, reason in report.left}
    assert set(left) == {"block.norm", "block.cell", "hooked.1"} and report.swapped == []
    assert left["block.norm"] == (
        "torch.nn.BatchNorm1d",
        "not fused with the activation after it: they are attributes of a module whose forward asrkern does not know, "
        "not of a torch.nn.Sequential",
    )
    assert left["block.cell"] == ("torch.nn.RNNCell", "asrkern has no kernel for it")
    assert "ReLU has hooks" in left["hooked.1"][1]


@pytest.mark.parametrize(("before", "after"), [(nn.GRU, asrkern.nn.GRU), (nn.LSTM, asrkern.nn.LSTM)])
def test_a_layer_as_the_model_itself_comes_back_in_the_report(before, after):
    layer = before(4, 5, 2, dropout=0.5, batch_first=True, bidirectional=True).double().eval()
    layer.note = "kept"
    report = convert(layer)
    assert report.swapped == [("", f"torch.nn.{before.__name__}", f"asrkern.nn.{before.__name__}")]
    assert type(report.model) is after
    assert report.model.weight_hh_l1_reverse is layer.weight_hh_l1_reverse
    assert (report.model.dropout, report.model.training, report.model.note) == (0.5, False, "kept")
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    for a, b in zip(report.model(x), layer(x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_module_shared_by_two_parents_stays_shared():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.GRU(4, 4)
            self.second = nn.ModuleDict({"same": self.first})

    model = Twice()
    report = convert(model)
    assert len(report.swapped) == 1
    assert model.first is model.second["same"]
    assert isinstance(model.first, asrkern.nn.GRU)


class _OtherGRU(nn.GRU):
    pass


class _OtherLSTM(nn.LSTM):
    pass


def _hooked() -> nn.Module:
    gru = nn.GRU(4, 5)
    gru.register_forward_hook(lambda *_: None)
    return gru


def _overridden() -> nn.Module:
    gru = nn.GRU(4, 5)
    gru.forward = lambda x: x
    return gru


def _concatenating() -> nn.Module:
    class BatchRNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.batch_norm = None
            self.rnn = nn.RNN(4, 5, bidirectional=True)

        def forward(self, x, lengths):
            return self.rnn(x)[0]

    return BatchRNN()


def _with_dropout() -> nn.Module:
    layer = BatchRNN(4, 5)
    layer.dropout = nn.Dropout(0.5)
    return layer


def _masking_nothing() -> nn.Module:
    class MaskConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.seq_module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))

        def forward(self, x, lengths):
            return self.seq_module(x), lengths

    return MaskConv()


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: _OtherGRU(4, 5), "subclass of torch.nn.GRU"),
        (lambda: _OtherLSTM(4, 5), "subclass of torch.nn.LSTM"),
        (lambda: nn.LSTM(4, 5, proj_size=3), "no kernel for proj_size"),
        (lambda: BatchRNN(4, 5, _OtherLSTM), "its rnn is"),
        (lambda: nn.RNN(4, 5), "no kernel"),
        (_hooked, "hooks"),
        (_overridden, "forward was replaced"),
        (lambda: nn.utils.weight_norm(nn.GRU(4, 5), "weight_hh_l0"), "hooks"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.GRU(4, 5), "weight_hh_l0"), "parametrizations"),
        (_concatenating, "computes something else"),
        (_with_dropout, "parts that asrkern's layer has not: dropout"),
        (_masking_nothing, "computes something else"),
        (lambda: MaskConv(nn.ModuleList()), "seq_module: expected a Sequential, received ModuleList"),
        (lambda: SequenceWise(nn.ReLU()), "number of features"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_may_differ_is_left_with_the_reason(build, reason):
    model = nn.ModuleDict({"layer": build()})
    before = model["layer"]
    report = convert(model)
    assert model["layer"] is before
    assert "layer" not in kinds(report)
    assert [r for name, _, r in report.left if name == "layer" and reason in r]


def test_a_copy_on_request():
    model = DeepSpeech().eval()
    before = [type(m) for m in model.modules()]
    report = convert(model, inplace=False)
    assert [type(m) for m in model.modules()] == before and report.model is not model
    assert kinds(report)["conv"] == "asrkern.nn.MaskConv"
    x = batch()
    torch.testing.assert_close(report.model(*x)[0], model(*x)[0], **CLOSE)
    mine = {p.data_ptr() for p in model.parameters()}
    assert not mine & {p.data_ptr() for p in report.model.parameters()}


def test_conversion_draws_no_random_numbers_and_keeps_modes():
    model = DeepSpeech()
    model.conv.seq_module[1].eval()
    before = {name: (m.training) for name, m in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    convert(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert {name: m.training for name, m in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, received dict"):
        convert({})
    with pytest.raises(ValueError, match=r"stats.*'all'"):
        convert(nn.GRU(4, 5), stats="all")
