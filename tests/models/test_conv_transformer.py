"""The classifiers: sizes, masks, independence of the batch, checkpoints, and learning a real batch."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asrkern.data import Spectrogram, collate, load_audio, read_manifest
from asrkern.models import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.models.losses import cross_entropy
from tests.compare import assert_close, relative_error

# About the plain model, which torch builds.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")

N_FREQ = 33  # makes d_model 288
SMALL = {"n_freq": N_FREQ, "fc_sizes": (24, 12)}
TRANSFORMER = {**SMALL, "num_layers": 2, "decoder_steps": 3, "num_heads": 4, "dim_feedforward": 40}
RNN = {**SMALL, "hidden_size": 21}


class Plain(nn.Module):
    """The model in plain torch, with the lineage's keys; ``beyond`` compares a frame's index with the length."""

    def __init__(
        self,
        body: nn.Module,
        size: int,
        *,
        classes: int = 3,
        query: Tensor | None = None,
        steps: int = 3,
        combine: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Module()
        self.conv.seq_module = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), (2, 2), (20, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
            nn.Conv2d(32, 32, (21, 11), (2, 1), (10, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
        )
        if isinstance(body, nn.Transformer):
            self.transformer = body
        else:
            self.rnn = body
        self.query = None if query is None else nn.Parameter(query)
        self.steps, self.combine, self.beyond = steps, combine, operator.ge
        self.fc = nn.Sequential(
            nn.BatchNorm1d(size),
            nn.Linear(size, 24),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Linear(12, classes, bias=False),
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        x = features[:, None]
        lengths = lengths.clone()
        x = x * (torch.arange(x.shape[-1]) < lengths[:, None])[:, None, None]
        for module in self.conv.seq_module:
            x = module(x)
            if isinstance(module, nn.Conv2d):
                lengths = (lengths - 1) // module.stride[1] + 1  # "same" padding
            x = x * (torch.arange(x.shape[-1]) < lengths[:, None])[:, None, None]
        x = x.flatten(1, 2).permute(2, 0, 1)
        return self.fc(self.body(x, lengths))

    def body(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps, rows, width = x.shape
        if hasattr(self, "transformer"):
            mask = self.beyond(torch.arange(steps), lengths[:, None])
            query = torch.zeros(self.steps, width) if self.query is None else self.query
            y = self.transformer(
                x,
                query[:, None].repeat(1, rows, 1),
                src_key_padding_mask=mask,
                memory_key_padding_mask=mask,
            )
            return y.permute(1, 0, 2).reshape(rows, -1)
        vectors = []
        for row, length in enumerate(lengths.tolist()):
            output, state = self.rnn(x[:length, row])
            hidden = (state[0] if isinstance(state, tuple) else state).flatten()
            vectors.append(torch.cat([output.mean(0), hidden]) if self.combine else hidden)
        return torch.stack(vectors)


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and norms that are no identities; in eval mode."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean") or ".norm" in name or name.startswith("fc.0"):
                tensor.add_(torch.randn(tensor.shape).mul(0.3).to(tensor.dtype))
            elif name.startswith("fc."):
                tensor.mul_(3)  # logits that differ from clip to clip
    return model.eval()


def plain_transformer(query: str = "zero", layers: int = 2, steps: int = 3) -> Plain:
    transformer = nn.Transformer(288, 4, layers, layers, 40, 0.5)
    return randomise(
        Plain(
            transformer,
            288 * steps,
            steps=steps,
            query=torch.randn(steps, 288) if query == "learned" else None,
        )
    )


def plain_rnn(classify: str, rnn_type: str, bidirectional: bool) -> Plain:
    rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[rnn_type](288, 21, 2, bidirectional=bidirectional)
    combine = classify == "combine"
    return randomise(Plain(rnn, 21 * (1 + bidirectional) * (2 + combine), combine=combine))


def batch(lengths: list[int], n_freq: int = N_FREQ, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Random features with NaN beyond each length."""
    features = torch.randn(len(lengths), n_freq, max(lengths) + extra)
    beyond = torch.arange(features.shape[-1]) >= torch.tensor(lengths)[:, None]
    return features.masked_fill(beyond[:, None], float("nan")), torch.tensor(lengths)


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


def parameters(model: nn.Module) -> float:
    """Millions."""
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 1)


def test_the_published_sizes():
    with torch.device("meta"):
        model = ConvTransformerClassifier()
        assert parameters(model) == 237.4
        assert parameters(model.fc) == 174.2
        assert model.d_model == 1312 and model.fc[0].num_features == 83968
        assert ConvTransformerClassifier(decoder_steps=16).fc[0].num_features == 16 * 1312
        learned = ConvTransformerClassifier(query="learned", num_layers=1)
    assert learned.query.shape == (64, 1312)
    assert len(learned.transformer.encoder.layers) == len(learned.transformer.decoder.layers) == 1
    keys = {key.rsplit(".", 1)[0] for key in model.state_dict()}
    assert {key for key in keys if key.startswith("fc")} == {f"fc.{i}" for i in (0, 1, 2, 4, 5, 7)}
    assert keys >= {"conv.seq_module.0", "transformer.encoder.norm", "transformer.decoder.layers.1.norm3"}


@torch.no_grad()
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("query", ["zero", "learned"])
def test_a_checkpoint_gives_the_output_of_plain_torch(tmp_path, query, layers, wrapper):
    original = plain_transformer(query, layers)
    state = original.state_dict()
    if wrapper:
        state = {wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    path = saved(state, tmp_path / "model.pth")
    model = ConvTransformerClassifier.from_checkpoint(path, n_freq=N_FREQ, num_heads=4)
    assert not model.training and model.decoder_steps == 3
    features, lengths = batch([61, 17, 60, 40], extra=5)
    expected = original(features.nan_to_num(), lengths)
    assert expected.std(0).min() > 1e-2
    assert_close(model(features, lengths), expected, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
@pytest.mark.parametrize("classify", ["only_hidden", "combine"])
def test_recurrent_variants_give_the_output_of_plain_torch(tmp_path, classify, rnn_type, bidirectional):
    original = plain_rnn(classify, rnn_type, bidirectional)
    model = ConvRNNClassifier.from_checkpoint(
        saved(original.state_dict(), tmp_path / "model.pth"), n_freq=N_FREQ
    )
    features, lengths = batch([61, 17, 60, 1], extra=5)
    expected = original(features.nan_to_num(), lengths)
    assert expected.std(0).min() > 1e-2
    assert_close(model(features, lengths), expected, 1e-5)


@torch.no_grad()
def test_no_padded_frame_is_attended_to():
    """The original's open TODO; with ``>`` for ``>=`` one frame of padding takes part, which this would see."""
    original = plain_transformer()
    model = ConvTransformerClassifier(**TRANSFORMER)
    model.load_state_dict(original.state_dict())
    model.eval()
    features, lengths = batch([60, 31], extra=20)
    together = model(features, lengths)
    alone = model(features[1:, :, :31], lengths[1:])
    assert_close(together[1:], alone, 1e-5)
    original.beyond = operator.gt
    off_by_one = original(features.nan_to_num(), lengths)
    assert relative_error(off_by_one[1:], alone) > 1e-3
    original.beyond = lambda frames, lengths: frames > 1000 * lengths
    without = original(features.nan_to_num(), lengths)
    assert relative_error(without[1:], alone) > 1e-3


MODELS = {
    "zero": lambda: ConvTransformerClassifier(**TRANSFORMER),
    "learned": lambda: ConvTransformerClassifier(**TRANSFORMER, query="learned"),
    "only_hidden": lambda: ConvRNNClassifier(**RNN, bidirectional=True),
    "combine": lambda: ConvRNNClassifier(**RNN, classify="combine", rnn_type="lstm"),
}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_clip_in_a_batch_is_the_clip_alone(name, size):
    model = randomise(MODELS[name]())
    lengths = torch.randint(1, 62, (size,)).tolist()
    features, lengths = batch(lengths, extra=int(torch.randint(0, 9, ())))
    together = model(features, lengths)
    x, output_lengths = model.conv_stage(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = features[row : row + 1, :, :length], lengths[row : row + 1]
        assert_close(together[row : row + 1], model(*alone), 1e-5)
        frames, (count,) = model.conv_stage(*alone)
        assert output_lengths[row] == count == (length + 1) // 2
        assert torch.equal(x[:count, row], frames[:count, 0]), "the convolutions are bit for bit"


@pytest.mark.parametrize("name", MODELS)
def test_more_padding_changes_no_gradient(name):
    def step(extra: int) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = MODELS[name]().double().train()
        for module in model.modules():
            for attribute in ("p", "dropout"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 0.0)
        padded = torch.nn.functional.pad(features.nan_to_num().double(), (0, extra), value=5.0)
        cross_entropy(model(padded, lengths), torch.tensor([2, 0, 1])).backward()
        return {key: p.grad for key, p in model.named_parameters()}

    features, lengths = batch([50, 33, 18])
    short, long = step(0), step(13)
    for key, gradient in short.items():
        torch.testing.assert_close(long[key], gradient, rtol=1e-8, atol=1e-10, msg=key)
    assert all(gradient.abs().max() > 1e-6 for key, gradient in short.items() if "weight_hh" in key)
    assert short["conv.seq_module.0.weight"].abs().max() > 1e-6


def test_zero_queries_are_not_told_apart_and_learned_ones_are():
    features, lengths = batch([50, 33])
    steps = {}
    for query in ("zero", "learned"):
        model = randomise(ConvTransformerClassifier(**TRANSFORMER, query=query))
        with torch.no_grad():
            steps[query] = model.body_stage(*model.conv_stage(features, lengths)).unflatten(1, (3, 288))
    assert_close(steps["zero"][:, 1:], steps["zero"][:, :1].expand(-1, 2, -1), 1e-5)
    assert relative_error(steps["learned"][:, 1], steps["learned"][:, 0]) > 1e-2


def test_dropout_acts_in_training_only():
    features, lengths = batch([50, 33])
    for model in (ConvTransformerClassifier(**TRANSFORMER), ConvRNNClassifier(**RNN)):
        x, output_lengths = model.conv_stage(features, lengths)
        assert not torch.equal(model.body_stage(x, output_lengths), model.body_stage(x, output_lengths))
        model.eval()
        assert torch.equal(model.body_stage(x, output_lengths), model.body_stage(x, output_lengths))


@pytest.mark.parametrize("model", [ConvTransformerClassifier(**TRANSFORMER), ConvRNNClassifier(**RNN)])
@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, N_FREQ), [1, 1], r"features: expected \[N, 1, 33, T\] or \[N, 33, T\], received \[2, 33\]"),
        ((2, 34, 50), [50, 50], r"received \[2, 34, 50\]"),
        ((0, N_FREQ, 50), [], r"received \[0, 33, 50\]"),
        ((2, N_FREQ, 0), [0, 0], "features: 0 frames are too few"),
        ((2, N_FREQ, 50), [50], r"lengths: expected shape \[2\], received \[1\]"),
        ((2, N_FREQ, 50), [50, 51], r"lengths: expected 1 to 50 \(T\), received 50 to 51"),
        ((2, N_FREQ, 50), [0, 50], r"lengths: expected 1 to 50 \(T\), received 0 to 50"),
        ((1, N_FREQ, 50), [50], "features: expected at least 2 clips in training"),
    ],
)
def test_bad_input_is_named(model, shape, lengths, message):
    with pytest.raises(ValueError, match=message):
        model.train()(torch.randn(shape), torch.tensor(lengths))


@torch.no_grad()
def test_a_clip_of_padding_only_is_finite_where_lengths_are_not_read(monkeypatch):
    """As on a GPU, whose lengths are not looked at."""
    model = randomise(ConvTransformerClassifier(**TRANSFORMER))
    x, _ = model.conv_stage(*batch([50, 33]))
    assert model.fc_stage(model.body_stage(x, torch.tensor([25, 0]))).isfinite().all()


def test_dropout_at_inference_tells_the_steps_apart() -> None:
    model = ConvTransformerClassifier(**TRANSFORMER, dropout=0.5).eval()
    x, output_lengths = torch.randn(5, 2, model.d_model), torch.tensor([5, 3])

    def steps_are_equal() -> bool:
        first, _, third = model.body_stage(x, output_lengths).unflatten(1, (3, -1)).unbind(1)
        return torch.equal(first, third)

    assert steps_are_equal()
    for module in model.transformer.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    assert not steps_are_equal()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes: expected a positive integer, received 0"),
        ({"n_freq": 0}, "n_freq: expected a positive integer"),
        ({"num_layers": 1.0}, "num_layers: expected a positive integer, received 1.0"),
        ({"decoder_steps": 0}, "decoder_steps: expected a positive integer"),
        ({"query": "random"}, r"query: expected one of \('zero', 'learned'\), received 'random'"),
        ({"num_heads": 7}, r"num_heads: expected a divisor of 1312 \(d_model\), received 7"),
        ({"dropout": 1.0}, "dropout: expected a probability below 1, received 1.0"),
        ({"fc_sizes": (3, 0)}, r"fc_sizes\[1\]: expected a positive integer, received 0"),
        ({"fc_sizes": (3,)}, "fc_sizes: expected two sizes"),
        ({"stats": "all"}, "stats: expected one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ConvTransformerClassifier(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classify": "output"}, "classify: expected one of"),
        ({"rnn_type": "rnn"}, "rnn_type: expected one of"),
        ({"hidden_size": -1}, "hidden_size: expected a positive integer"),
        ({"dropout": -0.1}, "dropout: expected a probability"),
    ],
)
def test_bad_options_of_the_recurrent_variants_are_named(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ConvRNNClassifier(**options)


def refused(kind: type, path: Path, state: object, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"model\.pth") as error:
        kind.from_checkpoint(saved(state, path / "model.pth"), **{"n_freq": N_FREQ, **options})
    return str(error.value)


def test_misfits_of_a_checkpoint_are_listed(tmp_path):
    state = plain_transformer().state_dict()
    options = {"num_heads": 4}

    def message(**changes: object) -> str:
        changed = {**state, **changes}
        removed = {key: value for key, value in changed.items() if value is not None}
        return refused(ConvTransformerClassifier, tmp_path, removed, **options)

    assert "keys that do not fit: decoder.weight" in message(**{"decoder.weight": torch.ones(2)})
    assert "missing keys: fc.7.weight" in message(**{"fc.7.weight": None})
    assert "missing keys: transformer.encoder.norm.bias" in message(**{"transformer.encoder.norm.bias": None})
    assert "fc.4.weight: expected [12, 24], received [12, 25]" in message(
        **{"fc.4.weight": torch.ones(12, 25)}
    )
    assert "fc.1.weight: expected two dimensions" in message(**{"fc.1.weight": torch.ones(12)})
    assert "query: expected [3, 288], received [2, 288]" in message(query=torch.ones(2, 288))
    assert "fc.5.bias: expected a weight, received str" in message(**{"fc.5.bias": "none"})
    broken = message(**{"fc.0.running_mean": torch.full((864,), float("nan"))})
    assert "NaN or infinite values: fc.0.running_mean" in broken
    assert "conv.seq_module.0.weight" not in broken
    assert "missing keys" in refused(ConvRNNClassifier, tmp_path, state)
    state = plain_rnn("combine", "gru", False).state_dict()
    state["rnn.weight_hh_l0"] = torch.ones(21, 21)
    assert "rnn.weight_hh_l0: expected [3·H, H] or [4·H, H]" in refused(ConvRNNClassifier, tmp_path, state)


@pytest.mark.parametrize("rows", [{}, {"query": "learned"}], ids=["zero", "learned"])
def test_full_width_forward_and_backward(rows):
    model = ConvTransformerClassifier(**rows, num_layers=2 if not rows else 1)
    features, lengths = batch([20, 9], n_freq=161)
    logits = model(features, lengths)
    assert logits.shape == (2, 3)
    cross_entropy(logits, torch.tensor([1, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert model.conv.seq_module[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["zero", "learned", "only_hidden", "combine"])
def test_learns_real_clips_by_heart(data_dir, name):
    """Nine clips of three words, to an accuracy of 100 %; at 8 kHz, which makes d_model 672."""
    labels = ("bed", "cat", "happy")
    by_label = {label: [] for label in labels}
    for utterance in read_manifest(data_dir / "commands3" / "train.jsonl"):
        by_label[utterance.text].append(utterance)
    spectrogram = Spectrogram(8000)
    clips = [(label, u) for i, label in enumerate(labels) for u in by_label[label][:3]]
    features, lengths = collate([spectrogram(load_audio(u.audio_path, 8000)) for _, u in clips])
    targets = torch.tensor([labels.index(label) for label, _ in clips])
    options = {"n_freq": spectrogram.bins, "fc_sizes": (64, 32), "dropout": 0.1}
    torch.manual_seed(0)
    if name in ("zero", "learned"):
        model = ConvTransformerClassifier(
            **options, query=name, num_layers=1, decoder_steps=4, dim_feedforward=128
        )
    else:
        model = ConvRNNClassifier(**options, classify=name, hidden_size=32)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(60):
        optimizer.zero_grad()
        cross_entropy(model.train()(features, lengths), targets).backward()
        optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                predicted = model.eval()(features, lengths).argmax(-1)
            if torch.equal(predicted, targets):
                return
    pytest.fail(f"accuracy {int((predicted == targets).sum())} of {len(targets)}")
