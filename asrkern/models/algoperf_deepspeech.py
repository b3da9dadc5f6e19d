"""DeepSpeech as the AlgoPerf benchmark has it: strided convolutions, residual BiLSTM and feed-forward layers, CTC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from asrkern._lengths import Lengths, as_lengths
from asrkern.models._checks import (
    are_labels,
    check_choices,
    check_distinct_labels,
    check_probability,
    check_sizes,
    check_spectrograms,
)
from asrkern.models.algoperf_deepspeech_layout import fit_weights, options_of, parse_checkpoint
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.conv_front_end import FrameGeometry, conv_frames, frame_geometry
from asrkern.models.weights import outline, with_weights
from asrkern.nn import LSTM, MaskConv, SequenceWise
from asrkern.nn._lengths import zero_padding

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}

# AlgoPerf's vocabulary has 1024 pieces, which everyone estimates from LibriSpeech anew: only their number is known.
LABELS = ("_", *(f"<{piece}>" for piece in range(1, 1024)))

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "tanh": {"activation": "tanh"},
    "no_resnet": {"residual": False},
    "norm_and_spec_aug": {"norm": "layer", "final_layer_norm": False},
}


class AlgoPerfDeepSpeech(nn.Module):
    """The model of AlgoPerf's workload librispeech_deepspeech and of its variants (mlcommons/algorithmic-efficiency).

    Two convolutions of 3 × 3 with stride 2 and a linear layer make 25 frames a second of 100. Then come bidirectional
    LSTM layers, whose directions are concatenated, and feed-forward layers; each is normalised before and added to its
    input; then LayerNorm and the output layer. Dropout is after the first linear and after each feed-forward layer.
    SpecAugment masks the normalised features before the convolutions: that is a recipe's ``[augment]``, whose masks
    ``recipes/s4_algoperf.toml`` has for each variant.

    Lengths are exact integers. In eval mode and fp32 an utterance's output is bit for bit the same alone and in any
    batch, however it is padded. The convolutions read zeros behind an utterance, where AlgoPerf's read the features of
    silence: so the last frames of its output differ. They are padded as AlgoPerf's are at its 1998 frames for all
    utterances: by one frame after the last in the first, by one at both ends in the second.

    Args:
        labels: one label per output class; 1024 by default, as in AlgoPerf.
        n_mels: mel bands of the input.
        hidden_size: channels of the convolutions and width of all layers, even: an LSTM has half of it a direction.
        num_layers: LSTM layers.
        num_ffn_layers: feed-forward layers.
        activation: of convolutions and feed-forward layers, "relu" or "tanh".
        norm: before each LSTM and each feed-forward layer, "batch" (over valid frames) or "layer".
        residual: add the input of each LSTM and each feed-forward layer to its output.
        final_layer_norm: LayerNorm before the output layer.
        dropout: see above; ``model.dropout.p`` may be set at any time.
        batch_norm_momentum: share of each batch in BatchNorm's running statistics. AlgoPerf's 0.001 is for tens of
            thousands of steps: after a thousand, 37 % are still the initial values.
        stats: frames that count for BatchNorm in training, "valid" or "padded".

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str] = LABELS,
        n_mels: int = 80,
        hidden_size: int = 512,
        num_layers: int = 6,
        num_ffn_layers: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        residual: bool = True,
        final_layer_norm: bool = True,
        dropout: float = 0.1,
        batch_norm_momentum: float = 0.001,
        stats: str = "valid",
    ) -> None:
        super().__init__()
        check_distinct_labels(labels)
        check_sizes(
            n_mels=n_mels, hidden_size=hidden_size, num_layers=num_layers, num_ffn_layers=num_ffn_layers
        )
        if hidden_size % 2:
            raise ValueError(
                f"hidden_size: expected an even number, half for each direction, received {hidden_size}"
            )
        check_choices(
            activation=(activation, tuple(_ACTIVATIONS)),
            norm=(norm, ("batch", "layer")),
            residual=(residual, (True, False)),
            final_layer_norm=(final_layer_norm, (True, False)),
            stats=(stats, ("valid", "padded")),
        )
        check_probability("dropout", dropout)
        check_probability("batch_norm_momentum", batch_norm_momentum)
        self.labels = tuple(labels)
        self.n_mels = n_mels
        self.hidden_size = hidden_size
        self.residual = residual
        activate = _ACTIVATIONS[activation]
        normalise = (
            partial(nn.LayerNorm, hidden_size, eps=1e-6)
            if norm == "layer"
            else partial(nn.BatchNorm1d, hidden_size, eps=1e-3, momentum=batch_norm_momentum)
        )
        self.conv = MaskConv(
            nn.Sequential(
                # Of the frames after the last, conv_stage makes as many as the first convolution reads.
                nn.Conv2d(1, hidden_size, 3, 2, (1, 0)),
                activate(),
                nn.Conv2d(hidden_size, hidden_size, 3, 2, (1, 1)),
                activate(),
            )
        )
        self.dropout = nn.Dropout(dropout)
        bands = -(-n_mels // 4)
        self.projection = SequenceWise(
            nn.Sequential(nn.Linear(hidden_size * bands, hidden_size), self.dropout)
        )
        self.rnns = nn.ModuleList(_NormalizedLSTM(normalise(), hidden_size, stats) for _ in range(num_layers))
        self.ffns = nn.ModuleList(
            SequenceWise(
                nn.Sequential(normalise(), nn.Linear(hidden_size, hidden_size), activate(), self.dropout),
                stats,
            )
            for _ in range(num_ffn_layers)
        )
        final = nn.LayerNorm(hidden_size, eps=1e-6) if final_layer_norm else nn.Identity()
        self.fc = SequenceWise(nn.Sequential(final, nn.Linear(hidden_size, len(self.labels))))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def preset(cls, name: str, **options: Any) -> AlgoPerfDeepSpeech:
        """A model of a named variant with new weights.

        Args:
            name: "base", "tanh", "no_resnet" (no residual connections) or "norm_and_spec_aug" (LayerNorm everywhere but
                before the output layer; the workload has more masks, too).
            options: of the constructor, in place of the preset's.

        Raises:
            ValueError: no preset has this name, or an option is out of range.
            TypeError: an option does not exist.
        """
        check_choices(name=(name, tuple(PRESETS)))
        return cls(**{**PRESETS[name], **options})

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        labels: Sequence[str] | None = None,
        activation: str = "relu",
        residual: bool = True,
    ) -> AlgoPerfDeepSpeech:
        """Load weights of AlgoPerf's PyTorch model; nothing in the file is executed.

        AlgoPerf's features are not asrkern's: 80 log-mel bands from 125 to 7600 Hz with pre-emphasis, normalised by a
        mean and a deviation of each band, which the file has under ``preprocessor.`` and the model does not.

        Args:
            path: a checkpoint of AlgoPerf's (its ``model_params``) or a state_dict.
            labels: of the vocabulary; None for numbers.
            activation, residual: of the variant; no weight tells.

        Returns:
            The model in fp32 on the CPU, in eval mode.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is no checkpoint of this model (what does not fit is listed), weights are NaN or infinite
                (the keys are listed), or an option does not fit.
        """
        container = read_checkpoint(path)
        try:
            state = parse_checkpoint(container)
            options = options_of(state)
            classes = len(state["lin.bias"])
            if labels is None:
                labels = LABELS if classes == len(LABELS) else [str(label) for label in range(classes)]
            if are_labels(labels) and len(labels) != classes:
                raise ValueError(
                    f"labels: expected {classes}, one per row of lin.weight, received {len(labels)}"
                )
            make = partial(cls, labels=labels, activation=activation, residual=residual, **options)
            model = outline(make, len(state))
            weights = fit_weights(state, model)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        return with_weights(model, weights)

    @property
    def n_features(self) -> int:
        """Features per frame of the input."""
        return self.n_mels

    @property
    def n_classes(self) -> int:
        """Classes of the output."""
        return len(self.labels)

    def output_length(self, frames: int) -> int:
        """How many frames of output ``frames`` frames of input make: a quarter, rounded up."""
        return -(-frames // 4)

    @property
    def frame_geometry(self) -> FrameGeometry:
        """Where the output's frames are in the input."""
        return frame_geometry(self.conv.seq_module)

    def conv_stage(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """The convolutions and the linear layer after them.

        Args:
            features, lengths: as in :meth:`forward`.

        Returns:
            x [T', N, hidden_size], zero beyond each output length, and the output lengths [N], int64.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        x = check_spectrograms(features, self.n_mels)
        if x.shape[-1] < 1:
            raise ValueError(f"features: expected at least 1 frame, received {list(features.shape)}")
        lengths = as_lengths("lengths", lengths, x.shape[0], x.shape[-1])
        # Of an even number of bands AlgoPerf pads above the last only. torch pads both ends, but does not read the end
        # of the padding: from the highest band down it reads what AlgoPerf does.
        x = zero_padding(x, lengths, "NCFT").flip(2)
        x, output_lengths = conv_frames(self.conv, pad(x, (0, 2)), lengths + 2)
        return self.projection(x, output_lengths), output_lengths

    def rnn_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """LSTM layers: x [T', N, hidden_size] and output_lengths, integers [N] → [T', N, hidden_size]."""
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        return self._through(self.rnns, x, output_lengths)

    def fc_stage(self, x: Tensor, output_lengths: Lengths | None = None) -> Tensor:
        """Feed-forward layers and output: x [T', N, hidden_size] → log-probabilities [N, T', labels].

        output_lengths, integers [N] (None: all frames), matter to BatchNorm in training only.
        """
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        x = self._through(self.ffns, x, output_lengths)
        return self.fc(x, output_lengths).transpose(0, 1).log_softmax(-1)

    def _through(self, layers: nn.ModuleList, x: Tensor, lengths: Tensor | None) -> Tensor:
        for layer in layers:
            x = x + layer(x, lengths) if self.residual else layer(x, lengths)
        return x

    def forward(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Run the model.

        Args:
            features: [N, 1, F, T] or [N, F, T], normalised log-mel spectrograms, F being ``n_mels``.
            lengths: integers [N], valid frames of each row, at most T; in any order, on any device. What lies beyond
                them is not read.

        Returns:
            Log-probabilities [N, T', labels], and the output lengths [N], int64: a quarter of the input's, rounded up.
            A row without frames has length zero; frames beyond a length hold no information.

        Raises:
            TypeError: features is no tensor, or lengths are not integers.
            ValueError: a shape, a dtype or a length does not fit.
        """
        x, output_lengths = self.conv_stage(features, lengths)
        return self.fc_stage(self.rnn_stage(x, output_lengths), output_lengths), output_lengths


class _NormalizedLSTM(nn.Module):
    """A normalisation, then a bidirectional LSTM whose directions, each of half the width, are concatenated."""

    def __init__(self, norm: nn.Module, hidden_size: int, stats: str) -> None:
        super().__init__()
        self.norm = SequenceWise(norm, stats)
        self.rnn = LSTM(hidden_size, hidden_size // 2, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x [T', N, hidden_size], lengths [N] → [T', N, hidden_size], zero beyond each length."""
        return self.rnn(self.norm(x, lengths), lengths=lengths)[0]
