"""Log-mel features, 1-D VGG blocks, five GRU layers and a DNN, trained by CTC: in its original and a repaired form."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.models._checks import (
    check_choices,
    check_distinct_labels,
    check_list,
    check_probability,
    check_sizes,
    check_spectrograms,
)
from asrkern.models.conv_front_end import FrameGeometry, conv_frames, frame_geometry
from asrkern.models.deepspeech2_config import LABELS
from asrkern.nn import GRU, BatchRNN, LightGRU, MaskConv, SequenceWise

POOLING = 3  # mel bands

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "hardtanh": lambda: nn.Hardtanh(0, 20),
    "softmax": lambda: nn.Softmax(-1),
}

PRESETS: dict[str, dict[str, Any]] = {
    "repaired": {},
    "original": {
        "labels": "_ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "batch_norm": False,
        "hidden_activation": "softmax",
        "time_stride": 1,
    },
}


class VGGGRUCTC(nn.Module):
    """VGG blocks, recurrent layers and a DNN over log-mel features, with log-probabilities for CTC.

    A block is two convolutions over three frames with ReLU, the same for every mel band, then a maximum over three
    neighbouring bands: the bands stay apart, as "1-D" and "channels × features" say. Flattened, the output of two
    blocks is 256 channels × 8 bands = 2048 wide, that of one 128 × 26 = 3328. Then come recurrent layers, whose
    directions are added if there are two; two hidden layers; and the output layer, with a single log_softmax.

    The defaults are the repaired form: a label for the space, BatchNorm over valid frames after each convolution and
    before each recurrent layer, ReLU in the hidden layers, and 50 frames a second, not 100. :meth:`preset` also has the
    original, which does not learn.

    Lengths are exact integers. In eval mode and fp32 an utterance's output is bit for bit the same alone and in any
    batch, however it is padded; with rnn_type "light_gru" up to rounding.

    Args:
        labels: one label per output class, the blank first.
        n_mels: mel bands of the input.
        channels: of each VGG block, of which there are one or two.
        rnn_type: "gru" (tanh) or "light_gru" (ReLU, and BatchNorm of its own).
        hidden_size, num_layers, bidirectional: of the recurrent layers.
        dnn_size: width of the two hidden layers.
        hidden_activation: of these, "relu", "hardtanh" (0 to 20) or "softmax".
        batch_norm: BatchNorm after each convolution and before each recurrent layer.
        time_stride: frames per output frame, 1 or 2, by the stride of the first convolution.
        dropout: after each recurrent and hidden layer. As long as outputs are all blank it hinders training;
            ``model.dropout.p`` may be set at any time.
        stats: frames that count for BatchNorm in training, "valid" or "padded".

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str] = LABELS,
        n_mels: int = 80,
        channels: Sequence[int] = (128, 256),
        rnn_type: str = "gru",
        hidden_size: int = 512,
        num_layers: int = 5,
        bidirectional: bool = False,
        dnn_size: int = 2048,
        hidden_activation: str = "relu",
        batch_norm: bool = True,
        time_stride: int = 2,
        dropout: float = 0.0,
        stats: str = "valid",
    ) -> None:
        super().__init__()
        check_distinct_labels(labels)
        self.labels = tuple(labels)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers, dnn_size=dnn_size)
        check_choices(
            rnn_type=(rnn_type, ("gru", "light_gru")),
            bidirectional=(bidirectional, (True, False)),
            hidden_activation=(hidden_activation, tuple(_ACTIVATIONS)),
            batch_norm=(batch_norm, (True, False)),
            time_stride=(time_stride, (1, 2)),
            stats=(stats, ("valid", "padded")),
        )
        check_probability("dropout", dropout)
        check_list("channels", channels)
        if len(channels) not in (1, 2):
            raise ValueError(f"channels: expected one or two blocks, received {reprlib.repr(channels)}")
        check_sizes(**{f"channels[{block}]": width for block, width in enumerate(channels)})
        smallest = POOLING ** len(channels)
        if not isinstance(n_mels, int) or n_mels < smallest:
            raise ValueError(
                f"n_mels: expected at least {smallest} for {len(channels)} blocks, received {n_mels!r}"
            )
        self.n_mels = n_mels
        self.time_stride = time_stride
        self.conv = MaskConv(nn.Sequential(*_vgg(channels, time_stride, batch_norm)), stats)
        width = channels[-1] * (n_mels // smallest)
        self.rnns = nn.ModuleList(
            BatchRNN(
                hidden_size if index else width,
                hidden_size,
                {"gru": GRU, "light_gru": LightGRU}[rnn_type],
                bidirectional,
                batch_norm=batch_norm and rnn_type == "gru",
                stats=stats,
            )
            for index in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        activation = _ACTIVATIONS[hidden_activation]
        self.dnn = SequenceWise(
            nn.Sequential(
                nn.Linear(hidden_size, dnn_size),
                activation(),
                self.dropout,
                nn.Linear(dnn_size, dnn_size),
                activation(),
                self.dropout,
                nn.Linear(dnn_size, len(self.labels)),
            ),
            stats,
        )

    @classmethod
    def preset(cls, name: str, **options: Any) -> VGGGRUCTC:
        """A model of a named form with new weights.

        Args:
            name: "repaired", or "original" (27 labels without a space, softmax in the hidden layers, no
                normalisation, 100 frames a second).
            options: of the constructor, in place of the preset's.

        Raises:
            ValueError: no preset has this name, or an option is out of range.
            TypeError: an option does not exist.
        """
        check_choices(name=(name, tuple(PRESETS)))
        return cls(**{**PRESETS[name], **options})

    @property
    def n_features(self) -> int:
        """Features per frame of the input."""
        return self.n_mels

    @property
    def n_classes(self) -> int:
        """Classes of the output."""
        return len(self.labels)

    def output_length(self, frames: int) -> int:
        """How many frames of output ``frames`` frames of input make."""
        return -(-frames // self.time_stride)

    @property
    def frame_geometry(self) -> FrameGeometry:
        """Where the output's frames are in the input."""
        return frame_geometry(self.conv.seq_module)

    def conv_stage(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """The VGG blocks.

        Args:
            features, lengths: as in :meth:`forward`.

        Returns:
            x [T', N, width], zero beyond each output length, and the output lengths [N], int64.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        x = check_spectrograms(features, self.n_mels)
        if x.shape[-1] < 1:
            raise ValueError(f"features: expected at least 1 frame, received {list(features.shape)}")
        lengths = as_lengths("lengths", lengths, x.shape[0], x.shape[-1])
        return conv_frames(self.conv, x, lengths)

    def rnn_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """Recurrent layers: x [T', N, width] and output_lengths, integers [N] → [T', N, hidden_size]."""
        for rnn in self.rnns:
            x = self.dropout(rnn(x, output_lengths)[0])
        return x

    def dnn_stage(self, x: Tensor, output_lengths: Lengths | None = None) -> Tensor:
        """Hidden layers and output: x [T', N, hidden_size] → log-probabilities [N, T', labels].

        output_lengths, integers [N] (None: all frames), matter to BatchNorm in training only.
        """
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        return self.dnn(x, output_lengths).transpose(0, 1).log_softmax(-1)

    def forward(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Run the model.

        Args:
            features: [N, 1, F, T] or [N, F, T], normalised log-mel spectrograms, F being ``n_mels``.
            lengths: integers [N], valid frames of each row, at most T; in any order, on any device. What lies beyond
                them is not read.

        Returns:
            Log-probabilities [N, T', labels], and the output lengths [N], int64: the input's, or half of them rounded
            up. A row without frames has length zero; frames beyond a length hold no information.

        Raises:
            TypeError: features is no tensor, or lengths are not integers.
            ValueError: a shape, a dtype or a length does not fit.
        """
        x, output_lengths = self.conv_stage(features, lengths)
        return self.dnn_stage(self.rnn_stage(x, output_lengths), output_lengths), output_lengths


def _vgg(channels: Sequence[int], time_stride: int, batch_norm: bool) -> list[nn.Module]:
    modules: list[nn.Module] = []
    before = 1
    for width in channels:
        for _ in range(2):
            stride = (1, 1 if modules else time_stride)
            modules.append(nn.Conv2d(before, width, (1, 3), stride, (0, 1)))
            modules += [nn.BatchNorm2d(width)] if batch_norm else []
            modules.append(nn.ReLU())
            before = width
        modules.append(nn.MaxPool2d((POOLING, 1)))
    return modules
