"""asrkern.onnx: exported models give in ONNX Runtime what they give here, ragged, with other batches and frames."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn.utils.rnn import PackedSequence

import asrkern.models
import asrkern.nn

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def export(model, args, dynamic_shapes, path) -> str:
    import asrkern.onnx

    torch.onnx.export(
        model,
        args,
        path,
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        custom_translation_table=asrkern.onnx.translations(),
        verbose=False,
    )
    return str(path)


def flat(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in flat(v)]


class Session:
    """An exported model in ONNX Runtime."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, *args: torch.Tensor) -> list[torch.Tensor]:
        names = [node.name for node in self.session.get_inputs()]
        results = self.session.run(None, {name: arg.numpy() for name, arg in zip(names, args, strict=True)})
        return [torch.from_numpy(result) for result in results]


def assert_same(got, expected) -> None:
    for a, b in zip(got, flat(expected), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def randomize(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics and weights that show what is left out or taken for another."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.fixture(scope="module")
def deepspeech2(tmp_path_factory):
    """A model, and the file that it was exported to."""
    torch.manual_seed(3)
    model = randomize(asrkern.models.build("deepspeech2_small"))
    x, lengths = torch.randn(2, 1, 161, 40), torch.tensor([40, 20])
    rows, frames = Dim("rows", min=1, max=64), Dim("frames", min=25, max=4096)
    path = tmp_path_factory.mktemp("onnx") / "deepspeech2.onnx"
    return model, export(model, (x, lengths), ({0: rows, 3: frames}, {0: rows}), path)


@pytest.mark.parametrize("lengths", [[40, 20], [31, 91, 0, 1, 60], [77]])
def test_deepspeech2_in_onnx_runtime(deepspeech2, lengths):
    model, path = deepspeech2
    x = torch.randn(len(lengths), 1, 161, max(lengths) + 3)
    with torch.no_grad():
        assert_same(Session(path)(x, torch.tensor(lengths)), model(x, torch.tensor(lengths)))


def test_deepspeech2_in_openvino(deepspeech2):
    """With static shapes; with dynamic ones OpenVINO's recurrent layers take no notice of lengths."""
    openvino = pytest.importorskip("openvino")
    model, path = deepspeech2
    core = openvino.Core()
    network = core.read_model(path)
    network.reshape({"features": [3, 1, 161, 92], "lengths": [3]})
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for lengths in ([92, 50, 20], [31, 0, 92]):
        x = torch.randn(3, 1, 161, 92)
        results = compiled({"features": x.numpy(), "lengths": torch.tensor(lengths).numpy()})
        with torch.no_grad():
            assert_same(
                [torch.from_numpy(results[i].copy()) for i in (0, 1)], model(x, torch.tensor(lengths))
            )


class Layers(nn.Module):
    """What DeepSpeech2 has not: states, other layouts and orders, no lengths, no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = asrkern.nn.MaskConv(
            nn.Sequential(nn.Conv2d(1, 2, (3, 4), stride=(2, 3), padding=(1, 0), bias=False), nn.ReLU())
        )
        self.norm_2d = asrkern.nn.MaskedBatchNorm2d(2, activation=(-0.5, 0.75))
        self.norm_1d = asrkern.nn.MaskedBatchNorm1d(8)
        self.lstm = asrkern.nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)
        self.gru = asrkern.nn.GRU(8, 6, bidirectional=True, merge="sum", bias=False)
        self.forwards = asrkern.nn.GRU(6, 5)
        self.batch_rnn = asrkern.nn.BatchRNN(5, 4, bidirectional=True)
        self.pyramid = asrkern.nn.PyramidalRNN(4, 3)
        self.lookahead = asrkern.nn.Lookahead(6, 2)
        self.rows = asrkern.nn.MaskedBatchNorm1d(6)
        self.gru_cell = asrkern.nn.GRUCell(6, 4)
        self.lstm_cell = asrkern.nn.LSTMCell(4, 3, bias=False)

    def forward(self, x, lengths, h, c):
        x, lengths = self.conv(x, input_lengths=lengths)
        x = self.norm_1d(self.norm_2d(x).flatten(1, 2), lengths).transpose(1, 2)
        x, (h_n, c_n) = self.lstm(x, (h, c), lengths=lengths)
        x, other = self.gru(x.transpose(0, 1), lengths=lengths)
        x = self.batch_rnn(self.forwards(x)[0], lengths)[0]
        y, halves = self.pyramid(x.transpose(0, 1), lengths)
        y = self.lookahead(y.transpose(0, 1), halves)
        y = self.rows(y.flatten(0, 1))
        h = self.gru_cell(y)
        return x, lengths, h_n, c_n, other, y, halves, h, *self.lstm_cell(h, self.lstm_cell(h))


def test_layers_in_onnx_runtime(tmp_path):
    torch.manual_seed(4)
    model = randomize(Layers())

    def inputs(rows, frames):
        lengths = torch.randint(0, frames + 1, (rows,))
        lengths[0], lengths[-1] = frames, 2  # the last: fewer than the kernel
        return (
            torch.randn(rows, 1, 8, frames),
            lengths,
            torch.randn(4, rows, 4),
            torch.randn(4, rows, 4),
        )

    rows, frames = Dim("rows", min=1, max=64), Dim("frames", min=10, max=4096)
    shapes = ({0: rows, 3: frames}, {0: rows}, {1: rows}, {1: rows})
    session = Session(export(model, inputs(3, 22), shapes, tmp_path / "layers.onnx"))
    for size in ((2, 16), (5, 31)):
        args = inputs(*size)
        with torch.no_grad():
            assert_same(session(*args), model(*args))


def test_quantised_layers_in_onnx_runtime(tmp_path):
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = asrkern.nn.quantize(nn.GRU(3, 60, bidirectional=True))
            self.lstm = asrkern.nn.quantize(nn.LSTM(120, 30, bias=False), "bf16")
            self.fc = asrkern.nn.quantize(nn.Linear(30, 400))

        def forward(self, x, lengths):
            x, h_n = self.gru(x, lengths=lengths)
            x, (h, c) = self.lstm(x, lengths=lengths)
            return self.fc(x), h_n, h, c

    torch.manual_seed(5)
    model = Quantised().eval()
    rows, frames = Dim("rows", min=1, max=64), Dim("frames", min=1, max=4096)
    path = tmp_path / "quantised.onnx"
    session = Session(
        export(model, (torch.randn(7, 2, 3), torch.tensor([7, 4])), ({0: frames, 1: rows}, {0: rows}), path)
    )
    for lengths in ([9, 0, 5], [4]):
        args = torch.randn(max(lengths), len(lengths), 3), torch.tensor(lengths)
        assert_same(session(*args), model(*args))
    # The file has the weights as they are, but for small ones, which torch folds.
    import onnx

    large = [t for t in onnx.load(path).graph.initializer if math.prod(t.dims) > 8192]
    kinds = {t.data_type for t in large}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.BFLOAT16}


class Transformers(nn.Module):
    """torch's way, and as quantised layers."""

    def __init__(self) -> None:
        super().__init__()
        options = {"dim_feedforward": 12, "batch_first": True}
        self.encoder = asrkern.nn.TransformerEncoderLayer(8, 2, **options)
        self.small = asrkern.nn.quantize(asrkern.nn.TransformerEncoderLayer(8, 2, **options))
        self.decoder = asrkern.nn.quantize(asrkern.nn.TransformerDecoderLayer(8, 2, **options))

    def forward(self, x, lengths, y):
        x = self.small(self.encoder(x, lengths=lengths), lengths=lengths)
        mask = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool).triu(1)
        return x, self.decoder(y, x, tgt_mask=mask, tgt_is_causal=True, memory_lengths=lengths)


def test_transformers_in_onnx_runtime(tmp_path):
    torch.manual_seed(6)
    model = Transformers().eval()
    rows, frames, steps = (
        Dim("rows", min=1, max=64),
        Dim("frames", min=1, max=512),
        Dim("steps", min=1, max=512),
    )
    shapes = ({0: rows, 1: frames}, {0: rows}, {0: rows, 1: steps})
    args = torch.randn(3, 9, 8), torch.tensor([9, 4, 1]), torch.randn(3, 5, 8)
    session = Session(export(model, args, shapes, tmp_path / "transformers.onnx"))
    for lengths in ([7, 3], [2, 11, 5, 5]):
        args = (
            torch.randn(len(lengths), max(lengths), 8),
            torch.tensor(lengths),
            torch.randn(len(lengths), 6, 8),
        )
        with torch.no_grad():
            assert_same(session(*args), model(*args))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = asrkern.nn.GRU(3, 4)

    def forward(self, data, batch_sizes):
        return self.gru(PackedSequence(data, batch_sizes))[0].data


def test_what_onnx_has_not_is_said(tmp_path):
    import asrkern.onnx

    with pytest.raises(torch.onnx.OnnxExporterError, match=r"expected a padded batch.*received a PackedSeq"):
        export(Packed().eval(), (torch.randn(5, 3), torch.tensor([3, 2])), None, tmp_path / "x.onnx")
    with pytest.raises(torch.onnx.OnnxExporterError, match="model: expected eval mode"):
        norm = asrkern.nn.MaskedBatchNorm1d(3, track_running_stats=False).eval()
        export(norm, (torch.randn(5, 3),), None, tmp_path / "x.onnx")
    table = asrkern.onnx.translations()
    with pytest.raises(ValueError, match="export the model, and decode its log_probs"):
        table[torch.ops.asrkern.ctc_beam_search.default](None, None)
    with pytest.raises(ValueError, match="model: expected eval mode"):
        table[torch.ops.asrkern.masked_conv2d_batch_norm_act.default](None, None)
    with pytest.raises(ValueError, match="speller: ONNX has no such operator"):
        table[torch.ops.asrkern.speller_step.default](None, None)


class Stock(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU())
        self.rnn = getattr(nn, kind)(6, 4, 2, bidirectional=True, batch_first=True)

    def forward(self, x):
        return self.rnn(self.front(x).transpose(1, 2))[0]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_older_exporter_takes_a_reverted_model(kind, tmp_path):
    model = asrkern.nn.convert(randomize(Stock(kind))).model
    assert isinstance(model.rnn, getattr(asrkern.nn, kind))
    x, path = torch.randn(2, 3, 9), str(tmp_path / "stock.onnx")
    with pytest.raises(RuntimeError, match=r"asrkern::.*dynamo=True.*asrkern\.onnx.*asrkern\.nn\.revert"):
        torch.onnx.export(model, (x,), path, dynamo=False)
    reverted = asrkern.nn.revert(copy.deepcopy(model)).model
    torch.onnx.export(
        reverted, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "rows", 2: "frames"}}
    )
    for size in ((2, 9), (4, 15)):
        x = torch.randn(size[0], 3, size[1])
        with torch.no_grad():
            assert_same(Session(path)(x), model(x))


def test_the_older_exporter_takes_what_is_composed(tmp_path):
    layer, x, path = asrkern.nn.Lookahead(3, 2).eval(), torch.randn(6, 2, 3), str(tmp_path / "lookahead.onnx")
    torch.onnx.export(layer, (x,), path, dynamo=False)
    with torch.no_grad():
        assert_same(Session(path)(x), layer(x))


def test_both_ways_give_the_same(tmp_path):
    """By asrkern's translations, and by torch's own of the model with torch's layers."""
    model, x = asrkern.nn.convert(randomize(Stock("LSTM"))).model, torch.randn(2, 3, 9)
    ours = Session(export(model, (x,), None, tmp_path / "ours.onnx"))
    stock = asrkern.nn.revert(model, inplace=False).model
    torch.onnx.export(stock, (x,), tmp_path / "stock.onnx", dynamo=True, verbose=False)
    with torch.no_grad():
        for session in (ours, Session(str(tmp_path / "stock.onnx"))):
            assert_same(session(x), model(x))
