"""asrkern.models.VGGGRUCTC: its two forms, independence of the batch, and learning a real batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asrkern.data import LogMelSpectrogram
from asrkern.models import VGGGRUCTC
from asrkern.models.losses import ctc_loss
from asrkern.nn import LightGRU
from tests.compare import assert_close
from tests.models.overfit import character_error_rate_after_ctc, grid_batch

SMALL = {"n_mels": 23, "channels": (5, 7), "hidden_size": 13, "num_layers": 3, "dnn_size": 17}
FORMS = {
    "repaired": {},
    "bidirectional": {"bidirectional": True, "hidden_activation": "hardtanh"},
    "one block": {"channels": (6,), "time_stride": 1},
    "original": {
        "labels": "_ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "batch_norm": False,
        "hidden_activation": "softmax",
        "time_stride": 1,
    },
}


class Plain(nn.Module):
    """The model over one utterance in plain torch: the convolutions as nn.Conv1d over each band's frames."""

    def __init__(
        self,
        *,
        labels: str = "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ ",
        n_mels: int = 23,
        channels: tuple[int, ...] = (5, 7),
        hidden_size: int = 13,
        num_layers: int = 3,
        bidirectional: bool = False,
        dnn_size: int = 17,
        hidden_activation: str = "relu",
        batch_norm: bool = True,
        time_stride: int = 2,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        before, stride, bands = 1, time_stride, n_mels
        for width in channels:
            block = []
            for _ in range(2):
                block += [nn.Conv1d(before, width, 3, stride, 1)]
                block += [nn.BatchNorm1d(width)] * batch_norm
                block += [nn.ReLU()]
                before, stride = width, 1
            self.blocks.append(nn.Sequential(*block))
            bands = bands // 3
        self.norms, self.rnns = nn.ModuleList(), nn.ModuleList()
        size = before * bands
        for _ in range(num_layers):
            self.norms.append(nn.BatchNorm1d(size) if batch_norm else nn.Identity())
            self.rnns.append(nn.GRU(size, hidden_size, bidirectional=bidirectional))
            size = hidden_size
        self.hidden_activation = {
            "relu": torch.relu,
            "hardtanh": lambda x: x.clamp(0, 20),
            "softmax": lambda x: torch.softmax(x, -1),
        }[hidden_activation]
        self.hidden = nn.ModuleList([nn.Linear(size, dnn_size), nn.Linear(dnn_size, dnn_size)])
        self.output = nn.Linear(dnn_size, len(labels))

    def forward(self, features: Tensor) -> Tensor:
        """[n_mels, T] → [T', labels]."""
        x = features[:, None]  # each band a row
        for block in self.blocks:
            x = block(x)
            bands = len(x) // 3
            x = x[: 3 * bands].unflatten(0, (bands, 3)).amax(1)
        x = x.permute(2, 1, 0).flatten(1)  # [T', channels × bands]
        for norm, rnn in zip(self.norms, self.rnns):
            x, _ = rnn(norm(x))
            x = x.unflatten(-1, (-1, rnn.hidden_size)).sum(1)
        for linear in self.hidden:
            x = self.hidden_activation(linear(x))
        return self.output(x).log_softmax(-1)

    def state(self) -> dict[str, Tensor]:
        """The weights by the keys of asrkern's model."""
        found = {}
        modules = [module for block in self.blocks for module in [*block, None]]  # None: the pooling
        for index, module in enumerate(modules):
            for name, value in module.state_dict().items() if module else ():
                is_kernel = isinstance(module, nn.Conv1d) and name == "weight"
                found[f"conv.seq_module.{index}.{name}"] = value.unsqueeze(2) if is_kernel else value
        for index, (norm, rnn) in enumerate(zip(self.norms, self.rnns)):
            found |= {f"rnns.{index}.rnn.{name}": value for name, value in rnn.state_dict().items()}
            found |= {f"rnns.{index}.batch_norm.module.{name}": v for name, v in norm.state_dict().items()}
        for index, linear in zip((0, 3, 6), (*self.hidden, self.output)):
            found |= {f"dnn.module.{index}.{name}": value for name, value in linear.state_dict().items()}
        return found


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.3)
    return model.eval()


def batch(lengths: list[int], n_mels: int = 23, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Random features with NaN beyond each length."""
    features = torch.randn(len(lengths), n_mels, max(lengths) + extra)
    beyond = torch.arange(features.shape[-1]) >= torch.tensor(lengths)[:, None]
    return features.masked_fill(beyond[:, None], float("nan")), torch.tensor(lengths)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_output_is_that_of_plain_torch(tmp_path, form):
    plain = randomise(Plain(**FORMS[form]))
    if form == "original":
        plain.output.weight.mul_(500)  # the softmax before leaves next to nothing
    torch.save(plain.state(), tmp_path / "model.pt")
    model = VGGGRUCTC(**{**SMALL, **FORMS[form]}).eval()
    model.load_state_dict(torch.load(tmp_path / "model.pt"))
    features, lengths = batch([41, 1, 40, 17], extra=5)
    log_probs, output_lengths = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = plain(features[row, :, :length])
        assert output_lengths[row] == len(expected)
        assert_close(log_probs[row, : len(expected)], expected, 1e-5)
    assert expected.exp().std() > 1e-3


def test_the_published_widths():
    with torch.device("meta"):
        model, one = VGGGRUCTC(), VGGGRUCTC(channels=(128,))
        original = VGGGRUCTC.preset("original")
    assert [layer.rnn.input_size for layer in model.rnns] == [256 * 8, 512, 512, 512, 512]
    assert one.rnns[0].rnn.input_size == 128 * 26
    assert all(2000 <= m.rnns[0].rnn.input_size <= 4000 for m in (model, one, original))
    assert [layer.rnn.hidden_size for layer in model.rnns] == [512] * 5
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 15.9
    sizes = [module.out_features for module in model.dnn.module if isinstance(module, nn.Linear)]
    assert sizes == [2048, 2048, 29]
    convolutions = [module for module in model.conv.seq_module if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [128, 128, 256, 256]


def test_what_the_original_lacked_is_there():
    """Each remedy for its collapse, next to the original without it."""
    with torch.device("meta"):
        original, repaired = VGGGRUCTC.preset("original"), VGGGRUCTC.preset("repaired")

    def count(model: nn.Module, kind: type) -> int:
        return sum(isinstance(module, kind) for module in model.modules())

    assert len(original.labels) == 27 and " " not in original.labels
    assert len(repaired.labels) == 29 and {" ", "'"} < set(repaired.labels)
    assert count(original, nn.Softmax) == 2 and count(repaired, nn.Softmax) == 0
    assert count(original, nn.BatchNorm1d) == count(original, nn.BatchNorm2d) == 0
    assert count(repaired, nn.BatchNorm1d) == 5 and count(repaired, nn.BatchNorm2d) == 4
    with pytest.raises(ValueError, match=r"name: expected one of \('repaired', 'original'\), received 'new'"):
        VGGGRUCTC.preset("new")


@torch.no_grad()
@pytest.mark.parametrize(("name", "frames"), [("original", 100), ("repaired", 50)])
def test_frames_a_second(name, frames):
    model = VGGGRUCTC.preset(name, **{**SMALL, "num_layers": 1}).eval()
    lengths = torch.tensor([100, 99, 1, 0, 2])
    log_probs, output_lengths = model(torch.randn(5, 23, 100), lengths)
    assert output_lengths.tolist() == [-(-length * frames // 100) for length in lengths.tolist()]
    assert output_lengths.dtype == torch.int64
    assert log_probs.shape == (5, frames, len(model.labels))
    assert log_probs.isfinite().all(), "a row of padding only included"


@torch.no_grad()
def test_softmax_in_the_hidden_layers_flattens_them(data_dir):
    """The original's diagnosis on real speech: what reaches the output hardly differs from frame to frame."""
    features, lengths, _ = grid_batch(data_dir, LogMelSpectrogram())
    spread = {}
    for name in ("original", "repaired"):
        torch.manual_seed(0)
        model = VGGGRUCTC.preset(name, channels=(16, 16), hidden_size=64)
        outputs = []
        model.dnn.module[-1].register_forward_pre_hook(lambda _, inputs, kept=outputs: kept.append(inputs[0]))
        log_probs, _ = model.train()(features, lengths)
        spread[name] = float(outputs[0].std(0).mean())
        assert log_probs.exp().sum(-1).sub(1).abs().max() < 1e-5, "log_softmax once"
    assert spread["original"] < 1e-6
    assert spread["repaired"] > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_output_is_bit_for_bit_independent_of_batch_and_padding(form, size):
    model = randomise(VGGGRUCTC(**{**SMALL, **FORMS[form]}))
    lengths = torch.randint(1, 62, (size,)).tolist()
    features, lengths = batch(lengths, extra=int(torch.randint(0, 9, ())))
    together, output_lengths = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_lengths = model(features[row : row + 1, :, :length], lengths[row : row + 1])
        frames = int(alone_lengths)
        assert output_lengths[row] == frames
        assert torch.equal(together[row, :frames], alone[0, :frames])


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [True, False])
def test_light_gru_is_independent_of_batch_and_padding(bidirectional):
    model = randomise(VGGGRUCTC(**SMALL, rnn_type="light_gru", bidirectional=bidirectional))
    assert all(type(layer.rnn) is LightGRU and layer.batch_norm is None for layer in model.rnns)
    features, lengths = batch([40, 61, 7], extra=6)
    together, output_lengths = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = model(features[row : row + 1, :, :length], lengths[row : row + 1])
        assert_close(together[row, : output_lengths[row]], alone[0], 1e-5)


@pytest.mark.parametrize("rnn_type", ["gru", "light_gru"])
def test_training_ignores_the_padding_unless_asked_not_to(rnn_type):
    def step(stats: str, extra: int) -> dict[str, Tensor]:
        torch.manual_seed(4)
        model = VGGGRUCTC(**SMALL, rnn_type=rnn_type, stats=stats).double().train()
        padded = torch.nn.functional.pad(features.nan_to_num().double(), (0, extra))
        targets = torch.tensor([[3, 4], [5, 5]])
        ctc_loss(*model(padded, lengths), targets, torch.tensor([2, 2])).backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        return {**gradients, **dict(model.named_buffers())}

    features, lengths = batch([50, 33])
    short, long = step("valid", 0), step("valid", 13)
    for key, value in short.items():
        torch.testing.assert_close(long[key], value, rtol=1e-8, atol=1e-10, msg=key)
    assert all(value.abs().max() > 1e-7 for key, value in short.items() if "weight_hh" in key)
    key = "conv.seq_module.1.running_var"
    assert not torch.allclose(step("padded", 0)[key], step("padded", 13)[key], rtol=1e-3)


def test_dropout_can_be_set_while_training():
    model = VGGGRUCTC(**SMALL)
    features, lengths = batch([50, 33])
    assert torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.dropout.p = 0.4
    assert not torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.eval()
    assert torch.equal(model(features, lengths)[0], model(features, lengths)[0])


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 23), [1, 1], r"features: expected \[N, 1, 23, T\] or \[N, 23, T\], received \[2, 23\]"),
        ((2, 80, 50), [50, 50], r"received \[2, 80, 50\]"),
        ((0, 23, 50), [], r"received \[0, 23, 50\]"),
        ((2, 23, 0), [0, 0], "features: expected at least 1 frame"),
        ((2, 23, 50), [50], r"lengths: expected shape \[2\], received \[1\]"),
        ((2, 23, 50), [50, 51], r"lengths: expected 0 to 50 \(T\), received 50 to 51"),
        ((2, 23, 50), [-1, 50], r"lengths: expected 0 to 50 \(T\), received -1 to 50"),
    ],
)
def test_bad_input_is_named(shape, lengths, message):
    with pytest.raises(ValueError, match=message):
        VGGGRUCTC(**SMALL)(torch.randn(shape), torch.tensor(lengths))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "_"}, "labels: expected at least two, each once, received '_'"),
        ({"labels": "_AA"}, "labels: expected at least two, each once"),
        ({"channels": ()}, r"channels: expected one or two blocks, received \(\)"),
        ({"channels": (4, 0)}, r"channels\[1\]: expected a positive integer, received 0"),
        ({"n_mels": 8}, "n_mels: expected at least 9 for 2 blocks, received 8"),
        ({"rnn_type": "lstm"}, "rnn_type: expected one of"),
        ({"num_layers": 0}, "num_layers: expected a positive integer"),
        ({"hidden_activation": "tanh"}, "hidden_activation: expected one of"),
        ({"time_stride": 3}, r"time_stride: expected one of \(1, 2\), received 3"),
        ({"dropout": 1}, "dropout: expected a probability"),
        ({"stats": "all"}, "stats: expected one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        VGGGRUCTC(**options)


@pytest.mark.parametrize("name", ["repaired", "original"])
def test_full_width_forward_and_backward(name):
    model = VGGGRUCTC.preset(name)
    log_probs, lengths = model(*batch([30, 21], n_mels=80))
    ctc_loss(log_probs, lengths, torch.tensor([[3, 4], [5, 5]]), torch.tensor([2, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("rnn_type", ["gru", "light_gru"])
def test_learns_a_real_batch_by_heart(data_dir, rnn_type):
    features, lengths, texts = grid_batch(data_dir, LogMelSpectrogram())
    torch.manual_seed(0)
    model = VGGGRUCTC(channels=(16, 32), hidden_size=128, num_layers=2, dnn_size=128, rnn_type=rnn_type)
    rate = character_error_rate_after_ctc(
        model, features, lengths, texts, model.labels, steps=200, learning_rate=3e-3
    )
    assert rate == 0
