"""The shapes at which kernels are timed (and tested): those of the five systems, above all of DeepSpeech2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class RecurrentShape(NamedTuple):
    """Bidirectional layers; the first one's input is as wide as its state."""

    hidden_size: int
    batch: int
    steps: int
    layers: int = 1

    def __str__(self) -> str:
        layers = f" {self.layers} layers" if self.layers > 1 else ""
        return f"H={self.hidden_size} N={self.batch} T={self.steps}{layers}"


class LinearShape(NamedTuple):
    """``[rows, in_features] -> [rows, out_features]``."""

    rows: int
    in_features: int
    out_features: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.in_features} to {self.out_features}"


class BatchNormShape(NamedTuple):
    """A tensor of ``layout``; C, T and N in the order of the layout, F where it has one."""

    layout: str
    size: tuple[int, ...]
    activation: tuple[float, float] | None

    def __str__(self) -> str:
        return f"{self.layout} {'x'.join(map(str, self.size))}"


class SpellerShape(NamedTuple):
    """Rows of one utterance that the listener has made so many frames of."""

    preset: str
    rows: int
    frames: int

    def __str__(self) -> str:
        return f"{self.preset}, {self.rows} of {self.frames} frames"


class ConvShape(NamedTuple):
    """One convolution on [batch, in_channels, bins, frames], and a max-pool; pairs are (frequency, time)."""

    name: str
    batch: int
    in_channels: int
    bins: int
    frames: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    out_channels: int = 32
    pool: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        return f"{self.name} N={self.batch} F={self.bins} T={self.frames}"


class AttentionShape(NamedTuple):
    batch: int
    frames: int
    heads: int
    width: int

    def __str__(self) -> str:
        return f"N={self.batch} T={self.frames} heads={self.heads}x{self.width}"


class TransformerShape(NamedTuple):
    kind: str
    batch: int
    frames: int
    size: int
    ragged: bool

    def __str__(self) -> str:
        return f"{self.kind} N={self.batch} T={self.frames} d={self.size}{', ragged' if self.ragged else ''}"


class CellShape(NamedTuple):
    """A step of an LSTM cell whose input is as wide as its state."""

    hidden_size: int
    batch: int

    def __str__(self) -> str:
        return f"H={self.hidden_size} N={self.batch}"


GRU_INFERENCE = [
    RecurrentShape(512, 1, 200),
    RecurrentShape(512, 16, 200),
    RecurrentShape(1024, 1, 100),
    RecurrentShape(1024, 16, 100),
    RecurrentShape(2560, 1, 50),
    RecurrentShape(2560, 4, 50),
    RecurrentShape(2560, 16, 50),
]
GRU_TRAINING = [RecurrentShape(512, 8, 200), RecurrentShape(512, 32, 200), RecurrentShape(1024, 8, 100)]
# 1024 is the width of DeepSpeech2's preset v3.
LSTM_INFERENCE = [RecurrentShape(hidden, batch, 200) for hidden in (512, 1024) for batch in (1, 4, 16)]
# The pyramidal listener of HW4P2, then v3.
LSTM_TRAINING = [
    RecurrentShape(128, 32, 400, layers=3),
    RecurrentShape(256, 32, 400, layers=3),
    RecurrentShape(128, 64, 400, layers=3),
    RecurrentShape(1024, 8, 100),
]
# One dimension at a time.
_GRU_GROWTH = {
    "steps": [RecurrentShape(512, 1, steps) for steps in (25, 50, 100, 200, 400, 800)],
    "hidden_size": [RecurrentShape(size, 1, 100) for size in (128, 256, 512, 1024, 1760, 2560)],
    "batch": [RecurrentShape(512, batch, 100) for batch in (1, 2, 4, 8, 16, 32, 64)],
}

# Input projections of the layers above and of DeepSpeech2's first one, then its classifier.
LINEAR = [
    LinearShape(200, 1312, 3072),
    LinearShape(200, 512, 1536),
    LinearShape(3200, 512, 1536),
    LinearShape(1600, 1024, 3072),
    LinearShape(50, 2560, 7680),
    LinearShape(800, 1024, 29),
]

# After each convolution of the front end, then between recurrent layers (no activation there).
BATCH_NORM_ACT = [
    BatchNormShape("NCFT", (8, 32, 81, 501), (0.0, 20.0)),
    BatchNormShape("NCFT", (8, 32, 41, 501), (0.0, 20.0)),
    BatchNormShape("TNC", (200, 32, 512), None),
    BatchNormShape("TNC", (100, 8, 1024), None),
]

# 10 s of audio through the two convolutions of DeepSpeech2.
MASKED_CONV2D = [
    ConvShape(name, batch, in_channels, bins, frames, kernel, stride, padding)
    for batch in (1, 8)
    for name, in_channels, bins, frames, kernel, stride, padding in [
        ("conv 1", 1, 161, 1001, (41, 11), (2, 2), (20, 5)),
        ("conv 2", 32, 81, 501, (21, 11), (2, 1), (10, 5)),
    ]
]

# Those of the other models, 10 s of audio too: kernels of three frames, and of one value.
CONV_BLOCKS = [
    ConvShape("VGG block 1", 1, 128, 80, 500, (1, 3), (1, 1), (0, 1), 128, (3, 1)),
    ConvShape("VGG block 2", 1, 256, 26, 500, (1, 3), (1, 1), (0, 1), 256, (3, 1)),
    ConvShape("KoSpeech's, 64 channels", 1, 64, 80, 1000, (3, 3), (1, 1), (1, 1), 64, (2, 2)),
    ConvShape("KoSpeech's, 128 channels", 1, 128, 40, 500, (3, 3), (1, 1), (1, 1), 128),
    ConvShape("HW4P2's", 1, 256, 1, 1000, (1, 3), (1, 1), (0, 1), 512),
    ConvShape("pointwise", 1, 128, 1, 500, (1, 1), (1, 1), (0, 0), 512),
]

# Greedy search, and a beam of 8.
SPELLER = [SpellerShape(preset, rows, 100) for preset in ("hw4", "kospeech") for rows in (1, 8)]

# Of the convolutional Transformer, and of a common recogniser; equal lengths, then ragged ones.
ATTENTION = [
    AttentionShape(batch, frames, heads, width)
    for batch, frames in ((1, 265), (8, 500))
    for heads, width in ((8, 164), (4, 64))
]
TRANSFORMER = [
    TransformerShape(kind, batch, frames, size, ragged)
    for kind in ("encoder", "decoder")
    for size in (1312, 512)
    for batch, frames, ragged in ((1, 265, False), (8, 250, False), (8, 250, True))
]


# Of a decoder's steps in inference, then in training.
CELL = [CellShape(size, batch) for size in (256, 512, 1024) for batch in (1, 8, 32)]
CELL_TRAINING = [CellShape(512, 32), CellShape(512, 96)]

_CELL_GROWTH = {
    "hidden_size": [CellShape(size, 8) for size in (128, 256, 512, 1024, 2048)],
    "batch": [CellShape(512, batch) for batch in (1, 2, 4, 8, 16, 32, 64)],
}
# One dimension at a time, by operation.
GROWTH: dict[str, dict[str, Sequence[Any]]] = {
    "gru": _GRU_GROWTH,
    "lstm_cell": _CELL_GROWTH,
    "lstm_cell_prepacked": _CELL_GROWTH,
    "linear_quantized": {
        "in_features": [LinearShape(8, size, size) for size in (256, 512, 1024, 2048)],
        "rows": [LinearShape(rows, 1024, 1024) for rows in (1, 2, 4, 8, 16, 32, 64)],
    },
    "speller": {
        "frames": [SpellerShape("hw4", 1, frames) for frames in (50, 100, 200, 400, 800)],
        "rows": [SpellerShape("hw4", rows, 100) for rows in (1, 2, 4, 8, 16, 32)],
    },
    "attention": {
        "frames": [AttentionShape(1, frames, 8, 64) for frames in (64, 128, 256, 512, 1024)],
        "batch": [AttentionShape(batch, 256, 8, 64) for batch in (1, 2, 4, 8)],
    },
    "transformer": {
        "size": [TransformerShape("encoder", 1, 250, size, False) for size in (256, 512, 1024)],
        "frames": [TransformerShape("encoder", 1, frames, 512, False) for frames in (64, 128, 256, 512)],
        "batch": [TransformerShape("encoder", batch, 250, 512, False) for batch in (1, 2, 4, 8)],
    },
}


def ragged_lengths(batch: int, frames: int) -> list[int]:
    """Lengths from ``frames`` down to about half of it, evenly spread, unsorted; only ``frames`` for one."""
    spread = [frames - (i * frames) // (2 * batch) for i in range(batch)]
    return spread[::2][::-1] + spread[1::2]
