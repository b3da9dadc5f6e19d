"""asrkern.training.diagnostics: each collapse provoked on real speech and told by its name."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asrkern.data import LogMelSpectrogram, load_audio, read_manifest
from asrkern.models import VGGGRUCTC
from asrkern.models.deepspeech2_config import LABELS
from asrkern.models.losses import ctc_loss
from asrkern.training.diagnostics import CollapseMonitor, Probe, diagnose, measure

SMALL = {"n_mels": 40, "channels": (16,), "hidden_size": 48, "num_layers": 2, "dnn_size": 64}
PATIENCE = 25


class Few(nn.Module):
    """Every k-th output frame of a model."""

    def __init__(self, model: nn.Module, k: int) -> None:
        super().__init__()
        self.model, self.k = model, k

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, output_lengths = self.model(features, lengths)
        return log_probs[:, :: self.k], (output_lengths + self.k - 1) // self.k


@pytest.fixture(scope="module")
def windows(data_dir: Path) -> tuple[Tensor, list[str]]:
    """1.6 s of each of 48 sentences, log-mel [48, 1, 40, T], and texts of 20 letters that they begin with."""
    transform = LogMelSpectrogram(n_mels=40)
    utterances = read_manifest(data_dir / "lj" / "train.jsonl")[:48]
    features = [transform(load_audio(u.audio_path, duration_seconds=1.6)) for u in utterances]
    texts = ["".join(c for c in u.text.upper() if c in LABELS[1:])[:20] for u in utterances]
    return torch.stack(features).unsqueeze(1), texts


def encode(texts: list[str], labels: str) -> list[list[int]]:
    return [[labels.index(c) for c in text if c in labels] for text in texts]


def run(
    model: nn.Module,
    windows: tuple[Tensor, list[str]],
    *,
    steps: int,
    learning_rate: float,
    labels: str = "".join(LABELS),
    shuffled: bool = False,
    batch: int = 8,
    scale: float = 1.0,
) -> CollapseMonitor:
    """Train a model, with the transcripts of other recordings if ``shuffled``."""
    features, texts = windows
    features, lengths = features * scale, torch.full((len(texts),), features.shape[-1])
    targets = encode(texts, labels)
    padded = nn.utils.rnn.pad_sequence([torch.tensor(t) for t in targets], batch_first=True)
    target_lengths = torch.tensor([len(t) for t in targets])
    monitor = CollapseMonitor(
        model, Probe(features[:8], lengths[:8], targets[:8], spaces=True), labels, patience=PATIENCE
    )
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for step in range(1, steps + 1):
        rows = torch.randperm(len(texts))[:batch] if shuffled else torch.arange(batch)
        said = torch.randperm(len(texts))[:batch] if shuffled else rows
        optimizer.zero_grad()
        loss = ctc_loss(*model.train()(features[rows], lengths[rows]), padded[said], target_lengths[said])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        monitor.step(loss.item())
        if step == steps:
            monitor.take_gradients()
        optimizer.step()
    return monitor


def test_a_model_that_learns(windows):
    monitor = run(VGGGRUCTC(**SMALL), windows, steps=100, learning_rate=5e-3)
    verdict = monitor.look()
    assert verdict.name == "learning" and verdict.normal
    assert monitor.looks[-1].dependence > 0.2


def test_blanks_are_normal_while_the_loss_falls(windows):
    monitor = run(VGGGRUCTC(**SMALL), windows, steps=20, learning_rate=3e-3)
    assert monitor.look().name == "blank phase"


def test_blank_collapse(windows):
    monitor = run(
        VGGGRUCTC(**SMALL, time_stride=1), windows, steps=110, learning_rate=2e-3, shuffled=True, batch=8
    )
    verdict = monitor.look()
    assert verdict.name == "blank collapse" and not verdict.normal
    assert "belong to other recordings" in str(verdict)
    assert monitor.looks[-1].blank_fraction > 0.97


def test_unigram_collapse(windows):
    model = Few(VGGGRUCTC(**SMALL), 3)
    monitor = run(model, windows, steps=100, learning_rate=3e-3, shuffled=True, batch=16)
    verdict = monitor.look()
    assert verdict.name == "unigram collapse"
    assert monitor.looks[-1].blank_fraction < 0.9
    assert "only 1.4 output frames a token" in str(verdict)


def test_dropout_collapse(windows):
    monitor = run(VGGGRUCTC(**SMALL, dropout=0.9), windows, steps=40, learning_rate=3e-3)
    verdict = monitor.look()
    assert verdict.name == "dropout collapse"
    assert "dropout up to 0.9" in str(verdict)


def test_dying_signal_of_features_that_are_not_normalised(windows):
    model = VGGGRUCTC(**{**SMALL, "num_layers": 5}, batch_norm=False)
    verdict = run(model, windows, steps=10, learning_rate=1e-3, scale=1e-4).look()
    assert verdict.name == "dying signal"
    assert "conv.seq_module.0 (Conv2d)" in verdict.evidence
    assert "features are not normalised" in str(verdict) and "no normalisation between layers" in str(verdict)


def test_the_original_recipe_dies_in_its_softmax(windows):
    """Adam 1e-4 from the start, five GRUs, softmax in layers of 2048, 27 labels: as it was, narrower in front."""
    model = VGGGRUCTC.preset("original", **{**SMALL, "num_layers": 5, "dnn_size": 2048})
    monitor = run(model, windows, steps=6, learning_rate=1e-4, batch=4, labels="".join(model.labels))
    verdict = monitor.look()
    assert verdict.name == "dying signal"
    assert verdict.causes[0].startswith("softmax in a hidden layer (dnn.module.1")
    assert monitor.looks[-1].layers[-1].variation < 1e-5
    gradients = {layer.name: layer.gradient_std for layer in monitor.looks[-1].layers}
    assert gradients["conv.seq_module.0"] < 1e-5 * gradients["dnn.module.6"]


def test_targets_that_do_not_fit(windows):
    verdict = run(Few(VGGGRUCTC(**SMALL), 6), windows, steps=1, learning_rate=1e-3).look()
    assert verdict.name == "targets do not fit"


class Fixed(nn.Module):
    """Gives the probabilities that it is made of, and has statistics, parameters and dropout to be left alone."""

    def __init__(self, log_probs: Tensor, p: float = 0.0) -> None:
        super().__init__()
        self.log_probs, self.norm, self.dropout = log_probs, nn.BatchNorm1d(3), nn.Dropout(p)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        self.norm(features)
        kept = self.dropout(features.abs().sum(1)) > 0
        return torch.where(kept[..., None], self.log_probs, self.log_probs.flip(-1)), lengths


def probe(targets: list[list[int]], frames: int) -> Probe:
    lengths = torch.full((len(targets),), frames)
    return Probe(torch.randn(len(targets), 3, frames), lengths, targets)


def test_measures_are_what_they_say():
    best = torch.tensor([[0, 1, 1, 0], [2, 2, 0, 1]])
    p = nn.functional.one_hot(best, 3).float() * 0.7 + 0.1
    m = measure(Fixed(p.log()), probe([[1], [2, 2, 1]], 4), "_ab")
    entropy = -(0.8 * math.log(0.8) + 2 * 0.1 * math.log(0.1))
    assert math.isclose(m.entropy, entropy, rel_tol=1e-5)
    mixed = torch.tensor([0.45, 0.1, 0.45])
    # Utterances differ in frames 0, 1 and 2 and 3, always in two labels.
    assert math.isclose(m.dependence, -(mixed * mixed.log()).sum().item() - entropy, rel_tol=1e-4)
    assert m.blank_fraction == 3 / 8 and m.dropout_noise == 0
    assert m.error_rate == 1 / 4 and m.distinct == 1
    assert m.tokens == {"a": 2, "b": 1} and m.target_tokens == {"a": 2, "b": 2}
    assert m.infeasible == 0 and m.frames_per_token == 2


def test_dropout_noise_is_told_from_dependence():
    p = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]).repeat(100, 1).expand(2, 200, 3)
    m = measure(Fixed(p.log(), 0.5), probe([[1], [2]], 200), "_ab")
    assert m.dependence == 0 and m.dropout_noise > 0.1
    assert diagnose(m, Fixed(p.log(), 0.5), "_ab", plateau=True).name == "dropout collapse"


def test_looking_changes_nothing():
    model = Fixed(torch.randn(2, 9, 3).log_softmax(-1), 0.5).train()
    state = copy.deepcopy(model.state_dict())
    model.norm.eval()
    measure(model, probe([[1], [2]], 9), "_ab")
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert not model.norm.training and model.dropout.training and model.training
    assert not model.norm._forward_hooks


def test_random_numbers_are_left_alone():
    looked = probe([[1], [2]], 9)
    model = Fixed(torch.randn(2, 9, 3).log_softmax(-1), 0.5)
    random = torch.get_rng_state()
    measure(model, looked, "_ab")
    assert torch.equal(torch.get_rng_state(), random)


def test_a_loss_that_is_not_a_number():
    model = Fixed(torch.randn(2, 9, 3).log_softmax(-1))
    monitor = CollapseMonitor(model, probe([[1], [2]], 9), "_ab", patience=2)
    monitor.step(float("nan"))
    assert monitor.look().name == "diverged"


def test_plateau():
    monitor = CollapseMonitor(Fixed(torch.zeros(2, 1, 3)), probe([[1], [2]], 1), "_ab", patience=3)
    for loss in (5, 4, 3, 2.9, 3.1, 3.0):
        monitor.step(loss)
    assert not monitor.plateau
    for loss in (2.99, 3.01, 3.0):
        monitor.step(loss)
    assert monitor.plateau


def test_state_is_kept():
    watched = probe([[1], [2]], 9)
    first, second = (CollapseMonitor(Fixed(torch.zeros(2, 9, 3)), watched, "_ab") for _ in range(2))
    for _ in range(3):
        first.step(1.0)
    first.look()
    second.restore(first.state())
    assert second.losses == first.losses and second.looks == first.looks and second.verdicts == first.verdicts


def test_reports(tmp_path, windows):
    monitor = run(VGGGRUCTC(**SMALL), windows, steps=3, learning_rate=1e-3)
    for _ in range(2):
        monitor.look()
    monitor.write(tmp_path)
    text = (tmp_path / "diagnosis.md").read_text()
    assert text.startswith(str(monitor.verdicts[-1])) and "| dnn.module.6 | Linear |" in text
    assert len((tmp_path / "diagnosis.csv").read_text().splitlines()) == 3
    assert (tmp_path / "diagnosis.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments():
    with pytest.raises(ValueError, match="patience: expected at least 1 step, received 0"):
        CollapseMonitor(nn.Identity(), probe([[1], [2]], 1), "_ab", patience=0)
    with pytest.raises(ValueError, match="probe: expected at least two utterances, received 1"):
        CollapseMonitor(nn.Identity(), probe([[1]], 1), "_ab")
