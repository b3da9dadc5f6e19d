"""What ``rtf.py`` needs to know of each kind of model: its features, its stages, its twin in stock torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asrkern.data import MFCC, LogMelSpectrogram, Spectrogram
from asrkern.decoder import greedy_decode
from asrkern.models import (
    LAS,
    VGGGRUCTC,
    AlgoPerfDeepSpeech,
    ConvRNNClassifier,
    ConvTransformerClassifier,
    DeepSpeech2,
)
from asrkern.models.conv_front_end import conv_length
from asrkern.models.cost import FRAMES_PER_SECOND, TOKENS_PER_SECOND
from asrkern.models.speller_steps import Steps, steps_of
from asrkern.nn._recurrent import RecurrentLayers
from benchmarks.models import _torch_twin
from benchmarks.models._deepspeech2_twin import stock_deepspeech2

# A stage takes what the one before returned; the first takes features and lengths, the last returns log-probabilities
# [N, T', V] and lengths [N].
Stages = dict[str, Callable[..., tuple[Any, ...]]]


# Of log-probabilities of float32 networks, whose sums differ in their order only. NaN and infinity never pass.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class System:
    """One kind of model.

    Attributes:
        features: makes the model's transform of samples.
        stages: the parts of a model, or of its stock twin.
        decode: from log-probabilities and lengths to the tokens of each row.
        minimum_frames: the fewest frames that the model takes.
        tolerance: how far log-probabilities of float32 may lie apart, whose sums have another order.
        quantized_tolerance: how far they may move with such weights, which are rounded.
        calibration_clips: utterances that the first statistics of BatchNorm are taken from.
        stock_stages: stages of the twin, which is packed or runs through the padding; None for layers that are
            replaced by torch's.
    """

    features: Callable[[Any], nn.Module]
    stages: Callable[[Any], Stages]
    decode: Callable[[Tensor, Tensor], list[list[int]]]
    minimum_frames: Callable[[Any], int] = lambda model: 1
    tolerance: float = TOLERANCE
    quantized_tolerance: float = 0.1
    calibration_clips: int = 1
    stock_stages: Callable[[Any, bool, torch.device], Stages] | None = None


def system_of(model: nn.Module) -> System:
    return _SYSTEMS[type(model)]


def stock_stages(model: nn.Module, packed: bool, device: torch.device) -> Stages:
    """The stages of a model in stock torch with the same weights, in eval mode.

    Args:
        packed: whether recurrent layers run on packed sequences; otherwise they run through the padding.
    """
    system = system_of(model)
    if system.stock_stages is not None:
        return system.stock_stages(model, packed, device)
    twin = _torch_twin.with_torch_layers(model, packed).to(device)
    return {name: _torch_twin.with_torch_operations(stage) for name, stage in system.stages(twin).items()}


def depends_on_padding(model: nn.Module) -> bool:
    """Whether a row's result changes where recurrent layers run on into its padding."""
    takes_final_state = isinstance(model, ConvRNNClassifier)
    layers = [module for module in model.modules() if isinstance(module, RecurrentLayers)]
    return any(layer.bidirectional or takes_final_state for layer in layers)


def _deepspeech2_features(model: DeepSpeech2) -> Spectrogram:
    config = model.config
    return Spectrogram(
        config.sample_rate, config.window_size, config.window_stride, periodic=config.window_periodic
    )


def _deepspeech2_stages(model: Any) -> Stages:
    return {
        "conv": model.conv_stage,
        "rnn": lambda x, lengths: (model.rnn_stage(x, lengths), lengths),
        "fc": lambda x, lengths: (model.fc_stage(x, lengths), lengths),
    }


def _deepspeech2_stock_stages(model: DeepSpeech2, packed: bool, device: torch.device) -> Stages:
    twin = stock_deepspeech2(model).to(device)

    def through_padding(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for layer in twin.rnns:
            x = layer(x, None)
        return (x if twin.lookahead is None else twin.lookahead(x)), lengths

    stages = _deepspeech2_stages(twin)
    return stages if packed else {**stages, "rnn": through_padding}


def _deepspeech2_minimum_frames(model: DeepSpeech2) -> int:
    return next(t for t in range(1, 100) if conv_length(t, 1, model.config.conv_padding) >= 1)


def _classifier_stages(body: str) -> Callable[[Any], Stages]:
    def stages(model: ConvTransformerClassifier | ConvRNNClassifier) -> Stages:
        def fc(x: Tensor) -> tuple[Tensor, Tensor]:
            log_probs = model.fc_stage(x).log_softmax(-1)
            return log_probs[:, None], torch.ones(len(x), dtype=torch.int64, device=x.device)

        return {"conv": model.conv_stage, body: lambda *x: (model.body_stage(*x),), "fc": fc}

    return stages


def _vgg_gru_ctc_stages(model: VGGGRUCTC) -> Stages:
    return {
        "conv": model.conv_stage,
        "rnn": lambda x, lengths: (model.rnn_stage(x, lengths), lengths),
        "dnn": lambda x, lengths: (model.dnn_stage(x, lengths), lengths),
    }


def _las_features(model: LAS) -> nn.Module:
    kind = LogMelSpectrogram if model.config.listener == "vgg" else MFCC
    return kind(model.n_features)


def _las_stages(model: LAS, steps_of: Callable[..., Steps] = steps_of) -> Stages:
    """The speller is given its tokens, so that every twin takes the same steps; it takes them one by one."""

    def listener(features: Tensor, lengths: Tensor) -> tuple[Any, Tensor]:
        return model.listen(features, lengths), lengths * TOKENS_PER_SECOND // FRAMES_PER_SECOND + 1

    def speller(memory: Any, steps: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(steps), int(steps.max()))
        tokens = torch.randint(model.config.num_tokens, shape, generator=torch.Generator().manual_seed(0))
        speller = steps_of(model.speller, memory)
        state, log_probs = speller.start(), []
        for token in tokens.to(steps.device).unbind(1):
            logits, _, state = speller.step(token, state)
            log_probs.append(logits.log_softmax(-1))
        return torch.stack(log_probs, 1), steps

    return {"listener": listener, "speller": speller}


def _las_stock_stages(model: LAS, packed: bool, device: torch.device) -> Stages:
    twin = _torch_twin.with_torch_layers(model, packed).to(device)
    return {
        name: _torch_twin.with_torch_operations(stage) for name, stage in _las_stages(twin, Steps).items()
    }


def _ctc_decode(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    return [path.tokens for path in greedy_decode(log_probs, lengths)]


def _most_probable(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    if log_probs.isnan().any():
        raise ValueError("log_probs: expected numbers, received NaN")
    return [row[:length].argmax(-1).tolist() for row, length in zip(log_probs, lengths.tolist())]


_SYSTEMS: dict[type[nn.Module], System] = {
    DeepSpeech2: System(
        _deepspeech2_features,
        _deepspeech2_stages,
        _ctc_decode,
        minimum_frames=_deepspeech2_minimum_frames,
        stock_stages=_deepspeech2_stock_stages,
    ),
    AlgoPerfDeepSpeech: System(
        lambda model: LogMelSpectrogram(model.n_features),
        _deepspeech2_stages,
        _ctc_decode,
        # With random weights no layer damps what is rounded: by fewer bits up to 0.55 without residual connections, 0.15
        # with them.
        quantized_tolerance=0.6,
    ),
    ConvTransformerClassifier: System(
        lambda model: Spectrogram(),
        _classifier_stages("transformer"),
        _most_probable,
        # With random weights clips differ by little, which the classifier's BatchNorms enlarge: rounding moves
        # log-probabilities by up to 0.4.
        quantized_tolerance=0.6,
        calibration_clips=4,
    ),
    ConvRNNClassifier: System(
        lambda model: Spectrogram(),
        _classifier_stages("rnn"),
        _most_probable,
        # Few classes, whose scores are the last state's: with random weights rounding moves it by up to 0.3.
        quantized_tolerance=0.5,
        calibration_clips=4,
    ),
    VGGGRUCTC: System(
        lambda model: LogMelSpectrogram(model.n_features),
        _vgg_gru_ctc_stages,
        _ctc_decode,
    ),
    LAS: System(
        _las_features,
        _las_stages,
        _most_probable,
        minimum_frames=lambda model: model.listener.minimum_frames,
        # Of hundreds of steps with random weights, whose log-probabilities spread by 5 (las_hw4).
        quantized_tolerance=2.0,
        stock_stages=_las_stock_stages,
    ),
}
