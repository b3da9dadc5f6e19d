"""asrkern.models.DeepSpeech2: sizes, exact lengths, independence of the batch, and its errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asrkern.data import Spectrogram, collate
from asrkern.decoder import greedy_decode
from asrkern.models import DeepSpeech2, DeepSpeech2Config
from asrkern.nn import GRU, LSTM, quantize
from tests.models import stock_deepspeech2 as stock
from tests.models.overfit import character_error_rate_after_ctc, greedy_transcripts, grid_batch

LAYOUT_OPTIONS = {
    "mlperf": {"bidirectional": False, "batch_norm_between": False, "conv_padding": ((0, 0), (0, 0))},
    "v1.0": {"bias": False, "conv_padding": ((0, 0), (0, 0))},
    "v1.1": {"bias": False, "conv_padding": ((0, 10), (0, 0))},
    "v2": {},
    "v2 unidirectional": {"bidirectional": False, "lookahead_context": 5},
}


def make_model(layout: str, **options: object) -> DeepSpeech2:
    """A small GRU model in eval mode with random running statistics."""
    fields = {"hidden_size": 13, "num_layers": 3, "rnn_type": "gru", **LAYOUT_OPTIONS[layout], **options}
    model = DeepSpeech2(DeepSpeech2Config(**fields)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(
    ("name", "millions", "rnn_input_size", "frames"),
    [
        ("mlperf", 103.8, 672, 35),
        ("paper", 374.6, 1312, 50),
        ("v3", 86.6, 1312, 50),
        ("small", 1.6, 1312, 50),
    ],
)
def test_presets_have_the_published_sizes(
    name: str, millions: float, rnn_input_size: int, frames: int
) -> None:
    with torch.device("meta"):
        model = DeepSpeech2.preset(name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    assert model.config.rnn_input_size == model.rnns[0].rnn.input_size == rnn_input_size
    tiny = DeepSpeech2.preset(name, hidden_size=4).eval()
    log_probs, lengths = tiny(torch.randn(1, 161, 100), torch.tensor([100]))
    assert log_probs.shape == (1, frames, 29)
    assert type(tiny.rnns[0].rnn) is (LSTM if name == "v3" else GRU)
    assert lengths.tolist() == [frames]


def test_presets_differ_as_the_readme_of_mlperf_does() -> None:
    with torch.device("meta"):
        code, summary = DeepSpeech2.preset("mlperf"), DeepSpeech2.preset("paper")
    assert [type(layer.rnn).__name__ for layer in code.rnns] == ["GRU"] * 3
    assert not any(layer.rnn.bidirectional or layer.batch_norm for layer in code.rnns)
    assert [layer.rnn.hidden_size for layer in summary.rnns] == [2560] * 5
    assert all(layer.rnn.bidirectional for layer in summary.rnns)
    with pytest.raises(ValueError, match=r"name: expected one of .*'mlperf'.*received 'large'"):
        DeepSpeech2.preset("large")
    with pytest.raises(TypeError, match="width"):
        DeepSpeech2.preset("small", width=3)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_keys_are_those_of_the_lineage(bidirectional: bool) -> None:
    ours = DeepSpeech2.preset(
        "v3", hidden_size=6, bidirectional=bidirectional, lookahead_context=None if bidirectional else 20
    )
    theirs = stock.StockDeepSpeech2("v2", hidden_size=6, bidirectional=bidirectional)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


def padded(utterances: list[Tensor], frames: int, fill: float) -> Tensor:
    """[N, F, T] of utterances [F, L], with ``fill`` beyond each."""
    batch = torch.full((len(utterances), utterances[0].shape[0], frames), fill)
    for row, utterance in enumerate(utterances):
        batch[row, :, : utterance.shape[1]] = utterance
    return batch


@torch.no_grad()
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
@pytest.mark.parametrize("layout", LAYOUT_OPTIONS)
def test_output_is_bit_for_bit_independent_of_batch_and_padding(layout: str, rnn_type: str) -> None:
    model = make_model(layout, rnn_type=rnn_type)
    lengths = torch.randint(31, 62, (16,))
    utterances = [torch.randn(161, length) for length in lengths.tolist()]
    alone = [model(u[None], torch.tensor([u.shape[1]])) for u in utterances]
    for size in (2, 3, 7, 16):
        rows = torch.randperm(16)[:size].tolist()
        frames = max(utterances[row].shape[1] for row in rows) + int(torch.randint(0, 9, ()))
        # NaN shows that no frame beyond a length is read.
        features = padded([utterances[row] for row in rows], frames, float("nan"))
        log_probs, output_lengths = model(features, lengths[rows])
        for position, row in enumerate(rows):
            expected, expected_length = alone[row]
            assert output_lengths[position] == expected_length[0]
            length = int(expected_length[0])
            assert torch.equal(log_probs[position, :length], expected[0, :length]), (size, row)


@torch.no_grad()
def test_mlperf_rows_are_independent_at_wide_hidden_size() -> None:
    """Wide enough for the blocked paths of the matrix kernels."""
    model = make_model("mlperf", hidden_size=160, num_layers=2)
    lengths = torch.tensor([63, 40, 57])
    utterances = [torch.randn(161, length) for length in lengths.tolist()]
    together, output_lengths = model(padded(utterances, 70, 0.0), lengths)
    for row, utterance in enumerate(utterances):
        expected, _ = model(utterance[None], lengths[row : row + 1])
        length = int(output_lengths[row])
        assert torch.equal(together[row, :length], expected[0, :length])


@pytest.mark.parametrize("vocabulary", [3, 29, 40])
def test_log_softmax_of_a_frame_does_not_depend_on_the_others(vocabulary: int) -> None:
    """What DeepSpeech2 relies on in torch, for its own and other numbers of labels."""
    logits = torch.randn(50, 7, vocabulary) * 10
    for function in (Tensor.log_softmax, Tensor.softmax):
        together = function(logits.transpose(0, 1), -1)
        for row in range(7):
            assert torch.equal(function(logits[:, row : row + 1].transpose(0, 1), -1)[0], together[row])
            assert torch.equal(function(logits[:13, row][None], -1)[0], together[row, :13])


@torch.no_grad()
def test_stages_compose_to_forward() -> None:
    model = make_model("v2 unidirectional")
    features, lengths = torch.randn(2, 1, 161, 80), torch.tensor([80, 64])
    x, output_lengths = model.conv_stage(features, lengths)
    assert x.shape == (40, 2, 1312)
    hidden = model.rnn_stage(x, output_lengths)
    assert hidden.shape == (40, 2, 13)
    assert hidden.min() >= 0, "the lookahead ends in Hardtanh(0, 20)"
    log_probs = model.fc_stage(hidden, output_lengths)
    expected, expected_lengths = model(features, lengths)
    assert torch.equal(log_probs, expected)
    assert torch.equal(output_lengths, expected_lengths)


@torch.no_grad()
def test_output_is_normalised_and_softmax_on_request() -> None:
    model = make_model("v2", output="softmax")
    features, lengths = torch.randn(2, 161, 60), torch.tensor([60, 50], dtype=torch.int32)
    probs, _ = model(features, lengths)
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 30), rtol=0, atol=1e-6)
    log_model = DeepSpeech2(DeepSpeech2Config(rnn_type="gru", hidden_size=13, num_layers=3)).eval()
    log_model.load_state_dict(model.state_dict())
    torch.testing.assert_close(log_model(features, lengths)[0].exp(), probs, rtol=0, atol=1e-6)
    # The loss needs log-probabilities, so training returns them in any case.
    in_training, _ = model.train()(features, lengths)
    torch.testing.assert_close(in_training.exp().sum(-1), torch.ones(2, 30), rtol=0, atol=1e-5)


@torch.no_grad()
def test_too_short_and_empty_utterances_have_length_zero() -> None:
    model = make_model("mlperf")
    lengths = torch.tensor([0, 30, 31, 60, 10])
    log_probs, output_lengths = model(torch.randn(5, 161, 60), lengths)
    assert output_lengths.tolist() == [0, 0, 1, 15, 0]
    assert torch.isfinite(log_probs).all()
    assert output_lengths.dtype == torch.int64


@torch.no_grad()
def test_from_samples_to_text() -> None:
    """Features and greedy decoding by the model's own configuration, against plain torch and a plain loop."""
    model = make_model("mlperf", window_periodic=False)
    model.fc[0].module[1].weight.normal_(0, 3)  # labels change from frame to frame
    config = model.config
    spectrogram = Spectrogram(
        config.sample_rate, config.window_size, config.window_stride, periodic=config.window_periodic
    )
    assert spectrogram.bins == config.n_freq
    features, lengths = collate([spectrogram(torch.randn(samples)) for samples in (16000, 12345)])
    log_probs, output_lengths = model(features, lengths)
    texts = [
        "".join(config.labels[token] for token in path.tokens)
        for path in greedy_decode(log_probs, output_lengths)
    ]
    original = stock.StockDeepSpeech2(
        "mlperf", hidden_size=13, num_layers=3, rnn_type="gru", bidirectional=False
    ).eval()
    original.load_state_dict(
        {key.replace("conv.seq_module", "conv"): value for key, value in model.state_dict().items()}
    )
    expected, _ = original(features, lengths)
    for row, text in enumerate(texts):
        best = expected[row, : output_lengths[row]].argmax(-1).tolist()
        runs = [token for token, _ in itertools.groupby(best)]
        assert text == "".join(stock.LABELS[token] for token in runs if token != 0)
    assert any(texts)


def rounded(length: int, frames: int) -> int:
    """The original's arithmetic: the ratio is stored in fp32, multiplied in fp32 and truncated."""
    return int(np.float32(length / float(frames)) * np.float32(frames))


@torch.no_grad()
def test_rounded_lengths_are_emulated_only_on_request() -> None:
    frames = 75
    pairs = {length: rounded(length, frames) for length in range(40, frames + 1)}
    short = [length for length, value in pairs.items() if value != length]
    assert short, "the chosen T has lengths that the original gets wrong"
    lengths = torch.tensor([*short[:3], 60, frames])
    features = stock.mask_frames(torch.randn(len(lengths), 1, 161, frames), lengths)
    exact, emulating = make_model("v2"), make_model("v2", emulate_length_rounding=True)
    emulating.load_state_dict(exact.state_dict())
    original = stock.StockDeepSpeech2("v2", hidden_size=13, num_layers=3, rnn_type="gru").eval()
    original.load_state_dict(exact.state_dict())
    shortened = torch.tensor([pairs[length] for length in lengths.tolist()])
    for model, used in ((exact, lengths), (emulating, shortened)):
        log_probs, output_lengths = model(features, lengths)
        expected, expected_lengths = original(features, used)
        assert output_lengths.tolist() == expected_lengths.tolist()
        for row, length in enumerate(output_lengths.tolist()):
            torch.testing.assert_close(log_probs[row, :length], expected[row, :length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["mlperf", "v2"])
def test_training_ignores_the_padding_unless_asked_not_to(layout: str) -> None:
    """With valid statistics more padding changes neither gradients nor running statistics."""

    def step(stats: str, frames: int) -> dict[str, Tensor]:
        model = make_model(layout, stats=stats)
        model.load_state_dict(state)
        model.train()
        log_probs, output_lengths = model(padded(utterances, frames, 0.0), lengths)
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), torch.tensor([[3, 4], [5, 5]]), output_lengths, torch.tensor([2, 2])
        )
        loss.backward()
        gradients = {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
        return {**gradients, **dict(model.named_buffers())}

    state = make_model(layout).state_dict()
    lengths = torch.tensor([70, 52])
    utterances = [torch.randn(161, length) for length in lengths.tolist()]
    short, long = step("valid", 70), step("valid", 90)
    for name, value in short.items():
        # A bias before a BatchNorm has no gradient but rounding, of gradients of about 1.
        scale = max(float(value.abs().max()), 0.05)
        torch.testing.assert_close(long[name], value, rtol=0, atol=1e-4 * scale, msg=name)
    assert all(
        float(value.abs().max()) > 0
        for name, value in short.items()
        if name.endswith("rnn.weight_hh_l0.grad")
    )
    parity_short, parity_long = step("padded", 70), step("padded", 90)
    key = "fc.0.module.0.running_mean"
    assert not torch.allclose(parity_short[key], parity_long[key], rtol=1e-3)


def test_padded_statistics_are_those_of_plain_torch() -> None:
    """stats="padded" is parity: running statistics as torch's layers would update them."""
    model = make_model("v2", stats="padded").train()
    original = stock.StockDeepSpeech2("v2", hidden_size=13, num_layers=3, rnn_type="gru").train()
    original.load_state_dict(model.state_dict())
    lengths = torch.tensor([64, 41, 55])
    features = stock.mask_frames(torch.randn(3, 1, 161, 64), lengths)
    model(features, lengths)
    original(features, lengths)
    expected = dict(original.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 161), [1, 1], r"features: expected \[N, 1, 161, T\] or \[N, 161, T\], received \[2, 161\]"),
        ((2, 160, 50), [50, 50], r"received \[2, 160, 50\]"),
        ((2, 2, 161, 50), [50, 50], r"received \[2, 2, 161, 50\]"),
        ((0, 161, 50), [], r"received \[0, 161, 50\]"),
        ((2, 161, 30), [30, 30], "features: 30 frames are too few"),
        ((2, 161, 50), [50], r"lengths: expected shape \[2\], received \[1\]"),
        ((2, 161, 50), [[50, 50]], r"lengths: expected shape \[2\], received \[1, 2\]"),
        ((2, 161, 50), [50, 51], r"lengths: expected 0 to 50 \(T\), received 50 to 51"),
        ((2, 161, 50), [-1, 50], r"lengths: expected 0 to 50 \(T\), received -1 to 50"),
    ],
)
def test_bad_input_is_named(shape: tuple[int, ...], lengths: list, message: str) -> None:
    model = make_model("mlperf", hidden_size=4)
    with pytest.raises(ValueError, match=message):
        model(torch.randn(shape), torch.tensor(lengths))


def test_integer_features_are_refused() -> None:
    model = make_model("mlperf", hidden_size=4)
    with pytest.raises(ValueError, match=r"features: expected floating point, received torch\.int64"):
        model(torch.ones(1, 161, 50, dtype=torch.int64), torch.tensor([50]))


def test_features_are_a_tensor() -> None:
    model = make_model("mlperf", hidden_size=4)
    with pytest.raises(TypeError, match="features: expected a tensor, received ndarray"):
        model(np.zeros((1, 161, 50), np.float32), torch.tensor([50]))


@torch.no_grad()
def test_dropout_follows_each_recurrent_layer_in_training() -> None:
    model = make_model("v2", dropout=0.5, num_layers=2)
    x, lengths = torch.randn(9, 2, model.config.rnn_input_size), [9, 7]
    zeros: list[float] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        zeros.append(float((output[:7] == 0).float().mean()))

    model.dropout.register_forward_hook(count)
    model.train().rnn_stage(x, lengths)
    assert len(zeros) == 2 and all(0.2 < share < 0.8 for share in zeros)
    zeros.clear()
    model.eval().rnn_stage(x, lengths)
    assert zeros == [0.0, 0.0]


def test_double_precision() -> None:
    """The whole model runs in fp64 and agrees with plain torch there."""
    model = make_model("v2").double()
    original = stock.StockDeepSpeech2("v2", hidden_size=13, num_layers=3, rnn_type="gru").double().eval()
    original.load_state_dict(model.state_dict())
    features, lengths = torch.randn(2, 161, 70, dtype=torch.float64), torch.tensor([70, 70])
    torch.testing.assert_close(
        model(features, lengths)[0], original(features, lengths)[0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", "_"),
        ("labels", "_AA"),
        ("labels", ["_", 3]),
        ("sample_rate", 0),
        ("sample_rate", 16000.0),
        ("window_size", -0.02),
        ("window_stride", float("nan")),
        ("hidden_size", 0),
        ("dropout", 1.0),
        ("num_layers", 2.5),
        ("num_layers", True),
        ("rnn_type", "rnn"),
        ("bidirectional", None),
        ("conv_padding", ((0, 0),)),
        ("conv_padding", ((0, -1), (0, 0))),
        ("lookahead_context", 20),
        ("output", "logits"),
        ("stats", "all"),
    ],
)
def test_bad_configurations_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}: "):
        DeepSpeech2Config(**{field: value})


def test_too_few_frequency_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="window_size: 33 frequency bins are too few"):
        DeepSpeech2Config(window_size=0.004, conv_padding=((0, 0), (0, 0)))


@pytest.mark.parametrize("bins", [13, 40])
def test_features_other_than_spectrograms(bins: int) -> None:
    model = DeepSpeech2.preset("small", bins=bins, hidden_size=4).eval()
    features = torch.randn(2, bins, 31)
    log_probs, lengths = model(features, [31, 20])
    assert log_probs.shape == (2, 16, 29) and lengths.tolist() == [16, 10]
    assert model.n_features == bins
    with pytest.raises(ValueError, match=rf"features: expected \[N, 1, {bins}, T\]"):
        model(torch.randn(2, 161, 31), [31, 20])


def test_too_few_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="bins: 3 frequency bins are too few"):
        DeepSpeech2Config(bins=3, conv_padding=((0, 0), (0, 0)))
    with pytest.raises(ValueError, match="bins: expected a positive integer"):
        DeepSpeech2Config(bins=0)


def test_configuration_is_kept_and_hashable() -> None:
    model = DeepSpeech2.preset("small", labels=["_", "ch", " "], conv_padding=[[0, 0], [0, 0]], hidden_size=4)
    assert model.config.labels == ("_", "ch", " ")
    assert model.config.conv_padding == ((0, 0), (0, 0))
    assert model.fc[0].module[1].weight.shape == (3, 4)
    assert len({model.config, DeepSpeech2Config()}) == 2


def test_learns_a_real_batch_by_heart(data_dir) -> None:
    features, lengths, texts = grid_batch(data_dir, Spectrogram())
    model = DeepSpeech2.preset("small", hidden_size=64)
    rate = character_error_rate_after_ctc(
        model, features, lengths, texts, model.config.labels, steps=200, learning_rate=2e-3, more_steps=40
    )
    assert rate == 0
    for weights in ("int8", "bf16"):
        assert greedy_transcripts(quantize(model, weights), features, lengths, model.config.labels) == texts
