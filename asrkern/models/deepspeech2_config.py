"""What describes a DeepSpeech2 model, and the named sizes."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

from asrkern.models._checks import check_choices, check_distinct_labels, check_probability, check_sizes
from asrkern.models.conv_front_end import (
    KERNELS,
    NO_PADDING,
    SAME_PADDING,
    ConvPadding,
    conv_length,
    conv_output_size,
)

LABELS = "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "


@dataclass(frozen=True)
class DeepSpeech2Config:
    """A DeepSpeech2 model; the defaults are those of deepspeech.pytorch 3.0.

    Args:
        labels: one label per output class, the blank first; kept as a tuple.
        sample_rate: of the audio in Hz.
        window_size: length of the spectrogram's window in seconds, which sets the number of frequency bins.
        window_stride: hop between windows in seconds.
        bins: features per frame of the input, such as mel bands; None for those of a spectrogram with this window, 161
            at 16 kHz.
        window: name of the window function.
        window_periodic: its kind: periodic as in version 3, or symmetric as before and in MLPerf's copy.
        hidden_size: width of the recurrent layers.
        num_layers: recurrent layers.
        rnn_type: "gru" or "lstm".
        bidirectional: two directions per layer, added up.
        bias: whether the recurrent layers have biases.
        batch_norm_between: BatchNorm before each recurrent layer but the first.
        conv_padding: (frequency, time) padding of the two convolutions.
        lookahead_context: frames, the present one included, of the lookahead after unidirectional layers;
            None for no lookahead.
        output: what the model returns in eval mode, "log_softmax" or "softmax" (as deepspeech.pytorch does
            from 1.1 on; decoders here expect log-probabilities).
        dropout: probability, after each recurrent layer; the original has none.
        stats: frames that count for BatchNorm in training, "valid", or "padded" as the original does.
        emulate_length_rounding: recompute each length as deepspeech.pytorch does,
            ``int(float32(length / T) * T)``, which is one frame short for about 4 % of the pairs. For
            comparison with its results only: an utterance's output then depends on its batch.

    Raises:
        ValueError: a value is out of range; the message names the field.
    """

    labels: Sequence[str] = LABELS
    sample_rate: int = 16000
    window_size: float = 0.02
    window_stride: float = 0.01
    bins: int | None = None
    window: str = "hamming"
    window_periodic: bool = True
    hidden_size: int = 1024
    num_layers: int = 5
    rnn_type: str = "lstm"
    bidirectional: bool = True
    bias: bool = True
    batch_norm_between: bool = True
    conv_padding: ConvPadding = SAME_PADDING
    lookahead_context: int | None = None
    output: str = "log_softmax"
    dropout: float = 0.0
    stats: str = "valid"
    emulate_length_rounding: bool = False

    def __post_init__(self) -> None:
        check_distinct_labels(self.labels)
        object.__setattr__(self, "labels", tuple(self.labels))
        padding, largest = self.conv_padding, max(map(max, KERNELS))
        pairs = isinstance(padding, list | tuple) and all(isinstance(pair, list | tuple) for pair in padding)
        if (
            not pairs
            or [len(pair) for pair in padding] != [2, 2]
            or not all(isinstance(n, int) and 0 <= n < largest for pair in padding for n in pair)
        ):
            raise ValueError(
                f"conv_padding: expected two pairs (frequency, time), received {reprlib.repr(padding)}"
            )
        object.__setattr__(self, "conv_padding", tuple(map(tuple, padding)))
        for name in ("sample_rate", "hidden_size", "num_layers", "lookahead_context", "bins"):
            if name not in ("lookahead_context", "bins") or getattr(self, name) is not None:
                check_sizes(**{name: getattr(self, name)})
        for name in ("window_size", "window_stride"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a positive number of seconds, received {value!r}")
        if self.sample_rate >= _MAX_SAMPLES or self.sample_rate * self.window_size >= _MAX_SAMPLES:
            raise ValueError(
                f"window_size: expected fewer than {_MAX_SAMPLES} samples, received {self.window_size} s"
            )
        check_choices(**{name: (getattr(self, name), choices) for name, choices in _CHOICES.items()})
        check_probability("dropout", self.dropout)
        if self.bidirectional and self.lookahead_context is not None:
            raise ValueError(
                f"lookahead_context: expected None if bidirectional, received {self.lookahead_context}"
            )
        if conv_length(self.n_freq, 0, self.conv_padding) < 1:
            blamed = "window_size" if self.bins is None else "bins"
            raise ValueError(f"{blamed}: {self.n_freq} frequency bins are too few for the convolutions")

    @property
    def n_freq(self) -> int:
        """Features per frame of the input, such as frequency bins of a spectrogram."""
        return self.bins or int(self.sample_rate * self.window_size) // 2 + 1

    @property
    def rnn_input_size(self) -> int:
        """Features per frame after the convolutions, at 16 kHz 1312 with padding and 672 without."""
        return conv_output_size(self.n_freq, self.conv_padding)


_MAX_SAMPLES = 2**31  # of a second, and of a window

_CHOICES = {
    "window_periodic": (True, False),
    "rnn_type": ("gru", "lstm"),
    "output": ("log_softmax", "softmax"),
    "stats": ("valid", "padded"),
    "bidirectional": (True, False),
    "bias": (True, False),
    "batch_norm_between": (True, False),
    "emulate_length_rounding": (True, False),
}

# MLPerf v0.5's summary says "5 Bi-Directional GRU layers" (`paper`), its printed model and code are `mlperf`.
PRESETS = {
    "mlperf": DeepSpeech2Config(
        window_periodic=False,
        hidden_size=2560,
        num_layers=3,
        rnn_type="gru",
        bidirectional=False,
        batch_norm_between=False,
        conv_padding=NO_PADDING,
    ),
    "paper": DeepSpeech2Config(hidden_size=2560, num_layers=5, rnn_type="gru"),
    "v3": DeepSpeech2Config(),
    "small": DeepSpeech2Config(hidden_size=128, num_layers=2, rnn_type="gru"),
}
