"""AlgoPerf's DeepSpeech against the same model in plain PyTorch, one utterance at a time, with AlgoPerf's keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from asrkern.models import AlgoPerfDeepSpeech, build
from asrkern.models.algoperf_deepspeech_layout import fit_weights
from asrkern.models.losses import ctc_loss
from tests.compare import assert_close
from tests.models.algoperf_deepspeech_twin import LABELS, Plain, same

SMALL = {
    "labels": LABELS,
    "n_mels": 23,
    "hidden_size": 14,
    "num_layers": 2,
    "num_ffn_layers": 2,
    "batch_norm_momentum": 0.1,
}
FORMS = {
    "base": {},
    "tanh": {"activation": "tanh"},
    "no_resnet": {"residual": False},
    "norm_and_spec_aug": {"norm": "layer", "final_layer_norm": False},
}
# Trained parameters of AlgoPerf's PyTorch workloads, the models of which were made and counted, at commit 2c90454 of
# mlcommons/algorithmic-efficiency (September 2025). Neither its documentation nor its tests print the numbers.
PARAMETERS = {
    "base": 18_393_600,
    "tanh": 18_393_600,
    "no_resnet": 18_393_600,
    "norm_and_spec_aug": 18_392_576,
}


def small(form: str, **options: object) -> AlgoPerfDeepSpeech:
    return AlgoPerfDeepSpeech(**{**SMALL, **FORMS[form], **options})


def randomised(form: str) -> AlgoPerfDeepSpeech:
    """With weights of normalisations that are not those at first."""
    model = small(form)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif key.endswith(("running_mean", "bias")):
                value.normal_(0, 0.3)
    return model.eval()


def batch(lengths: list[int], n_mels: int = 23, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Random features with NaN beyond each length."""
    features = torch.randn(len(lengths), n_mels, max(lengths) + extra)
    beyond = torch.arange(features.shape[-1]) >= torch.tensor(lengths)[:, None]
    return features.masked_fill(beyond[:, None], float("nan")), torch.tensor(lengths)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_as_many_as_in_algoperf(form):
    """AlgoPerf's counts, and by hand from its configuration: 512 wide, 6 LSTM and 3 feed-forward layers, 1024 pieces."""
    with torch.device("meta"):
        model = build("deepspeech2_algoperf" + ("" if form == "base" else f"_{form}"))
    h = 512
    convolutions = 9 * h + h + 9 * h * h + h + (20 * h * h + h)
    lstm = 2 * (4 * h // 2) * (h + h // 2 + 2)
    by_hand = convolutions + 6 * (lstm + 2 * h) + 3 * (h * h + h + 2 * h) + 1024 * (h + 1)
    by_hand += 0 if form == "norm_and_spec_aug" else 2 * h
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == by_hand == PARAMETERS[form]
    assert model.n_features == 80 and model.n_classes == 1024


def test_padding_is_that_of_algoperfs_input():
    """320 000 samples are 1998 windows of 401 samples, 160 apart; see the paddings of Plain."""
    frames = (320_000 - 401) // 160 + 1
    assert frames == 1998
    assert same(frames) == (0, 1) and same(frames // 2) == (1, 1)
    assert same(80) == same(40) == (0, 1) and same(23) == (1, 1)


@torch.no_grad()
@pytest.mark.parametrize("n_mels", [22, 23, 24])
@pytest.mark.parametrize("form", FORMS)
def test_output_is_that_of_plain_torch(form, n_mels):
    plain, model = Plain(n_mels, **FORMS[form]), small(form, n_mels=n_mels).eval()
    model.load_state_dict({**model.state_dict(), **fit_weights(plain.state_dict(), model)})
    features, lengths = batch([41, 1, 42, 19, 2, 44], n_mels, extra=5)
    log_probs, output_lengths = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = plain(features[row, :, :length])
        assert output_lengths[row] == len(expected) == model.output_length(length)
        assert_close(log_probs[row, : len(expected)], expected, 1e-5)
    assert expected.exp().std() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_output_is_bit_for_bit_independent_of_batch_and_padding(form, size):
    model = randomised(form)
    lengths = torch.randint(1, 62, (size,)).tolist()
    features, lengths = batch(lengths, extra=int(torch.randint(0, 9, ())))
    together, output_lengths = model(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_lengths = model(features[row : row + 1, :, :length], lengths[row : row + 1])
        frames = int(alone_lengths)
        assert output_lengths[row] == frames
        assert torch.equal(together[row, :frames], alone[0, :frames])


@torch.no_grad()
def test_a_quarter_of_the_frames():
    model = small("base").eval()
    lengths = torch.tensor([100, 99, 1, 0, 4, 5])
    log_probs, output_lengths = model(torch.randn(6, 23, 100), lengths)
    assert output_lengths.tolist() == [25, 25, 1, 0, 1, 2]
    assert output_lengths.dtype == torch.int64
    assert log_probs.shape == (6, 25, len(LABELS))
    assert log_probs.isfinite().all(), "a row of padding only included"
    assert model.frame_geometry == (4, 1.0)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_training_ignores_the_padding_unless_asked_not_to(norm):
    def step(stats: str, extra: int) -> dict[str, Tensor]:
        torch.manual_seed(4)
        model = small("base", norm=norm, stats=stats, dropout=0.0).double().train()
        padded = F.pad(features.nan_to_num().double(), (0, extra))
        targets = torch.tensor([[3, 4], [5, 5]])
        ctc_loss(*model(padded, lengths), targets, torch.tensor([2, 2])).backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        return {**gradients, **dict(model.named_buffers())}

    features, lengths = batch([50, 33])
    short, long = step("valid", 0), step("valid", 13)
    for key, value in short.items():
        torch.testing.assert_close(long[key], value, rtol=1e-8, atol=1e-10, msg=key)
    assert all(value.abs().max() > 1e-7 for key, value in short.items() if "weight_hh" in key)
    if norm == "batch":
        key = "rnns.1.norm.module.running_var"
        assert not torch.allclose(step("padded", 0)[key], step("padded", 13)[key], rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_learns_a_batch_by_heart(form):
    torch.manual_seed(0)
    model = small(form, hidden_size=32).train()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    features, lengths = batch([60, 47, 52])
    targets, target_lengths = torch.tensor([[3, 4, 1], [5, 5, 0], [2, 9, 7]]), torch.tensor([3, 2, 3])
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ctc_loss(*model(features, lengths), targets, target_lengths)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10, losses


def test_dropout_can_be_set_while_training():
    model = small("base", dropout=0.0)
    features, lengths = batch([50, 33])
    assert torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.dropout.p = 0.4
    assert not torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.eval()
    assert torch.equal(model(features, lengths)[0], model(features, lengths)[0])


def save(path, form: str, wrapper: str | None = "model_params", **changes: Tensor | None):
    """A file of AlgoPerf's, its features' constants included; changes of its keys, None for those to leave out."""
    state = {
        "preprocessor._normalizer_mean": torch.zeros(1, 1, 24, 1),
        **Plain(24, **FORMS[form]).state_dict(),
    }
    state = {key: value for key, value in {**state, **changes}.items() if value is not None}
    torch.save({wrapper: state, "global_step": 3} if wrapper else state, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("wrapper", ["model_params", None])
@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_algoperf_are_read(tmp_path, form, wrapper):
    torch.manual_seed(7)
    path = save(tmp_path / "checkpoint", form, wrapper)
    torch.manual_seed(7)
    plain = Plain(24, **FORMS[form])
    told = {key: FORMS[form][key] for key in ("activation", "residual") if key in FORMS[form]}
    model = AlgoPerfDeepSpeech.from_checkpoint(path, labels=LABELS, **told)
    assert not model.training and model.n_features == 24
    features, lengths = batch([42], 24)
    assert_close(model(features, lengths)[0][0], plain(features[0]), 1e-5)
    assert AlgoPerfDeepSpeech.from_checkpoint(path).labels == tuple(map(str, range(11)))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"lin.weight": None}, {}, r"not a DeepSpeech \(AlgoPerf\) checkpoint.*missing keys: lin.weight"),
        ({"ffns.1.lin.bias": None}, {}, "missing keys: ffns.1.lin.bias"),
        ({"heads.weight": torch.ones(2)}, {}, "keys that do not fit: heads.weight"),
        (
            {"lin.weight": torch.ones(11)},
            {},
            r"wrong values: lin.weight: expected 2 axes, received \[11\]",
        ),
        (
            {"ffns.0.lin.weight": torch.ones(14, 13)},
            {},
            r"ffns.0.lin.weight: expected \[14, 14\], received \[14, 13\]",
        ),
        ({"ln.scale": torch.full((14,), torch.nan)}, {}, "NaN or infinite values: ln.scale"),
        ({}, {"labels": "_AB"}, "labels: expected 11, one per row of lin.weight, received 3"),
        ({}, {"activation": "gelu"}, r"activation: expected one of \('relu', 'tanh'\), received 'gelu'"),
    ],
)
def test_misfits_of_a_checkpoint_are_named(tmp_path, changes, options, message):
    path = save(tmp_path / "checkpoint", "base", **changes)
    with pytest.raises(ValueError, match=rf"checkpoint: .*{message}"):
        AlgoPerfDeepSpeech.from_checkpoint(path, **options)


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
        small("base")(torch.randn(shape), torch.tensor(lengths))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "_"}, "labels: expected at least two, each once, received '_'"),
        ({"n_mels": 0}, "n_mels: expected a positive integer, received 0"),
        ({"hidden_size": 7}, "hidden_size: expected an even number, half for each direction, received 7"),
        ({"num_layers": 0}, "num_layers: expected a positive integer, received 0"),
        ({"num_ffn_layers": 1.0}, "num_ffn_layers: expected a positive integer, received 1.0"),
        ({"activation": "gelu"}, "activation: expected one of"),
        ({"norm": "group"}, r"norm: expected one of \('batch', 'layer'\), received 'group'"),
        ({"residual": None}, r"residual: expected one of \(True, False\), received None"),
        ({"final_layer_norm": 2}, "final_layer_norm: expected one of"),
        ({"dropout": 1}, "dropout: expected a probability"),
        ({"batch_norm_momentum": -0.1}, "batch_norm_momentum: expected a probability"),
        ({"stats": "all"}, "stats: expected one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        AlgoPerfDeepSpeech(**options)


def test_only_its_presets_are_known():
    with pytest.raises(ValueError, match=r"name: expected one of \('base', .*\), received 'gelu'"):
        AlgoPerfDeepSpeech.preset("gelu")
