"""Numbers about a CTC model on a few utterances, which tell one collapse from another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from asrkern.decoder import greedy_decode
from asrkern.recognizer.tasks import frames_needed
from asrkern.training.metrics import levenshtein

DROPOUT_PASSES = 4
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class Probe:
    """The utterances that a run is watched with, always the same ones.

    Attributes:
        features: [N, F, T] or [N, 1, F, T].
        lengths: [N], frames of each.
        targets: token indices of each.
        spaces: whether the transcripts had spaces before they became tokens.
    """

    features: Tensor
    lengths: Tensor
    targets: Sequence[Sequence[int]]
    spaces: bool = False

    def cropped(self) -> tuple[Tensor, Tensor]:
        """Features and lengths with every utterance cut to the shortest: no padding."""
        shortest = int(self.lengths.min())
        return self.features[..., :shortest], torch.full_like(self.lengths, shortest)


@dataclass(frozen=True)
class LayerSignal:
    """The output of one layer.

    Attributes:
        name: the module's name.
        kind: its class.
        std: standard deviation of a unit's output over frames and utterances, root mean square over units.
        rms: root mean square of the output.
        gradient_std: root mean square of the gradients of the layer's own parameters; None if it has none.
    """

    name: str
    kind: str
    std: float
    rms: float
    gradient_std: float | None = None

    @property
    def variation(self) -> float:
        """std / rms: the share of the output that depends on the input."""
        return self.std / self.rms if self.rms > 0 else 0.0


@dataclass(frozen=True)
class Measures:
    """One look at a model.

    Attributes:
        step: how many optimiser steps came before.
        loss: of the latest step.
        blank_fraction: share of frames whose best label is the blank.
        entropy: mean entropy of a frame's output, nats.
        dependence: how much the output differs between utterances: the Jensen-Shannon divergence of their outputs at
            the same frame, mean over frames, nats. 0: the output does not depend on the input.
        dropout_noise: the same between passes of one utterance with different dropout masks.
        error_rate: character error rate of the best path.
        distinct: number of different best paths, as a share of the number of different targets.
        tokens, target_tokens: how often each label occurs in the best paths, and in the targets.
        commonest: the text that most utterances get.
        infeasible: how many of ``utterances`` have a target longer than their output.
        frames_per_token: output frames for each token of the targets.
        feature_mean, feature_std: of the input.
        layers: in the order in which they ran.
    """

    step: int
    loss: float
    blank_fraction: float
    entropy: float
    dependence: float
    dropout_noise: float
    error_rate: float
    distinct: float
    tokens: Mapping[str, int]
    target_tokens: Mapping[str, int]
    commonest: str
    infeasible: int
    utterances: int
    frames_per_token: float
    feature_mean: float
    feature_std: float
    layers: Sequence[LayerSignal] = field(default_factory=tuple)


@torch.no_grad()
def measure(
    model: nn.Module,
    probe: Probe,
    labels: Sequence[str],
    *,
    blank: int = 0,
    step: int = 0,
    loss: float = math.nan,
    gradients: Mapping[str, float] | None = None,
) -> Measures:
    """Look at a model. Its parameters, statistics, mode and the state of random numbers stay as they are.

    Args:
        model: ``model(features, lengths)`` → log-probabilities [N, T', V], output lengths [N].
        labels: of the V classes.
        gradients: name of a module → what :func:`gradient_stds` measured.
    """
    with _evaluating(model):
        log_probs, output_lengths = model(probe.features, probe.lengths)
        with _recording(model, gradients or {}) as layers:
            aligned = model(*probe.cropped())[0]
        noise = _dropout_noise(model, probe)
    log_probs, output_lengths = log_probs.float(), output_lengths.tolist()
    frames = torch.cat([row[:length] for row, length in zip(log_probs, output_lengths)])
    paths = [tuple(path.tokens) for path in greedy_decode(log_probs, torch.tensor(output_lengths), blank)]
    targets = [tuple(target) for target in probe.targets]
    texts = ["".join(labels[token] for token in path) for path in paths]
    characters = sum(map(len, targets))
    return Measures(
        step=step,
        loss=loss,
        blank_fraction=(frames.argmax(-1) == blank).float().mean().item(),
        entropy=_entropy(frames.exp()).mean().item(),
        dependence=_divergence(aligned.float().exp()),
        dropout_noise=noise,
        error_rate=sum(map(levenshtein.distance, paths, targets)) / max(characters, 1),
        distinct=len(set(paths)) / len(set(targets)),
        tokens=Counter(labels[token] for path in paths for token in path),
        target_tokens=Counter(labels[token] for target in targets for token in target),
        commonest=Counter(texts).most_common(1)[0][0],
        infeasible=int((frames_needed(*_padded(probe.targets)) > torch.tensor(output_lengths)).sum()),
        utterances=len(targets),
        frames_per_token=sum(output_lengths) / max(characters, 1),
        feature_mean=_valid(probe).mean().item(),
        feature_std=_valid(probe).std().item(),
        layers=tuple(layers),
    )


def perplexity(counts: Mapping[str, int]) -> float:
    """How many equally frequent labels would be as varied: exp of the entropy; 0 without any."""
    total = sum(counts.values())
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values() if n)) if total else 0.0


def gradient_stds(model: nn.Module) -> dict[str, float]:
    """Root mean square of the gradients of each module's own parameters. To be called between backward and the step."""
    found = {}
    for name, module in model.named_modules():
        gradients = [p.grad for p in module.parameters(recurse=False) if p.grad is not None]
        if gradients:
            squares = sum(float(g.double().square().sum()) for g in gradients)
            found[name] = math.sqrt(squares / sum(g.numel() for g in gradients))
    return found


def _padded(targets: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(target, dtype=torch.int64) for target in targets]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def _valid(probe: Probe) -> Tensor:
    """The features without padding."""
    return torch.cat(
        [row[..., :n].flatten() for row, n in zip(probe.features, probe.lengths.tolist())]
    ).float()


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _divergence(p: Tensor) -> float:
    """Jensen-Shannon divergence along dimension 0 of distributions [members, …, V], mean over the rest, nats."""
    return (_entropy(p.mean(0)) - _entropy(p).mean(0)).mean().item()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _dropout_noise(model: nn.Module, probe: Probe) -> float:
    """The divergence between passes with dropout on, and everything else as in evaluation."""
    dropouts = [m for m in model.modules() if isinstance(m, DROPOUTS) or "Dropout" in type(m).__name__]
    if not any(getattr(module, "p", 0) for module in dropouts):
        return 0.0
    for module in dropouts:
        module.training = True
    devices = [probe.features.device] if probe.features.is_cuda else []
    with torch.random.fork_rng(devices):
        passes = [model(*probe.cropped())[0].float().exp() for _ in range(DROPOUT_PASSES)]
    for module in dropouts:
        module.training = False
    return _divergence(torch.stack(passes))


@contextmanager
def _recording(model: nn.Module, gradients: Mapping[str, float]) -> Iterator[list[LayerSignal]]:
    """Collect the output of every module. A module that only passes on another's output (a container) does not count."""
    layers: list[LayerSignal] = []
    # (address, size) → tensor, kept so that no address is used twice
    kept: dict[tuple[int, int], Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, _inputs: object, output: object) -> None:
            value = output[0] if isinstance(output, tuple) else output
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() < 2:
                return
            key = value.data_ptr(), value.numel()
            if key in kept:
                return
            kept[key] = value
            layers.append(
                LayerSignal(name, type(module).__name__, *_signal(value.float()), gradients.get(name))
            )

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def _signal(value: Tensor) -> tuple[float, float]:
    """(std over frames and utterances, rms) of [N, C, F, T], [T, N, H], [N, T, H] or [T·N, H]."""
    positions = (0, 3) if value.dim() == 4 else tuple(range(value.dim() - 1))
    std = value.double().std(positions, correction=0).square().mean().sqrt()
    return std.item(), value.double().square().mean().sqrt().item()
