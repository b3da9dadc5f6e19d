"""The rows of ``gpu_bench.py``: shapes, arithmetic, and the goals that were set for an H200."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.qualification._gpu_cases import (
    PACKED,
    Arithmetic,
    BatchNorm,
    Case,
    batch_norm,
    beam_search,
    conv,
    conv_tiles,
    conv_training,
    deepspeech2,
    gru,
)
from benchmarks.shapes import MASKED_CONV2D

SIZES, BATCHES = (1024, 512, 800, 1760, 2560), (32, 8, 1, 64)
GROUPS = ("gru", "gru-train", "conv", "bn", "beam", "deepspeech2")
# For choosing defaults, not for the record.
TUNING = ("conv-tiles",)


@dataclass(frozen=True)
class Row:
    """goals: kind → value: "x NAME" times as fast as a backend (or "x best", as the fastest other), at least; "floor",
    multiples of the time to copy the fewest bytes, at most; "rtfx", seconds of speech a second, at least."""

    title: str
    name: str
    arithmetic: str
    build: Callable[[Arithmetic], Case]
    goals: dict[str, float] = field(default_factory=dict)


def rows(group: str, quick: bool) -> Iterator[Row]:
    """The rows of a group, those that matter most first: it may be cut short."""
    return {
        "gru": _gru_rows,
        "gru-train": _gru_training_rows,
        "conv": _conv_rows,
        "bn": _batch_norm_rows,
        "beam": _beam_rows,
        "deepspeech2": _deepspeech2_rows,
        "conv-tiles": _conv_tile_rows,
    }[group](quick)


def _gru_row(size: int, batch: int, ragged: bool, backward: bool, arithmetic: str) -> Row:
    steps = 200
    small = size <= 1024 and batch <= 32
    least = 2.0 if backward else 3.0 if small else 1.0
    return Row(
        f"BiGRU forward{' + backward' if backward else ''}",
        f"H={size} N={batch} T={steps}, {'ragged' if ragged else 'equal'}",
        arithmetic,
        lambda at: gru(size, batch, ragged, backward, steps, at),
        {f"x {PACKED}": least, "x best": 2.0 if backward else 1.0},
    )


def _gru_rows(quick: bool) -> Iterator[Row]:
    sizes, batches = (SIZES[:1], BATCHES[:1]) if quick else (SIZES, BATCHES)
    for ragged in (True, False):
        for size, batch in itertools.product(sizes, batches):
            if batch > 1 or not ragged:
                yield _gru_row(size, batch, ragged, False, "bf16")
    for arithmetic in ("fp32", "tf32"):
        for size, batch in itertools.product((1024, 2560)[: len(sizes)], (32, 1)[: len(batches)]):
            yield _gru_row(size, batch, batch > 1, False, arithmetic)


def _gru_training_rows(quick: bool) -> Iterator[Row]:
    sizes, batches = (SIZES[:1], BATCHES[:1]) if quick else (SIZES, (32, 8, 64))
    for ragged, batch, size in itertools.product((True, False), batches, sizes):
        if ragged or batch == 32:
            yield _gru_row(size, batch, ragged, True, "bf16")
    for size in (1024, 2560)[: len(sizes)]:
        yield _gru_row(size, 32, True, True, "fp32")


def _conv_rows(quick: bool) -> Iterator[Row]:
    frames = 1001
    for arithmetic, batch, ragged in itertools.product(("bf16", "tf32", "fp32"), (32, 8, 1), (True, False)):
        if (batch == 1) == ragged or (quick and batch < 32):
            continue
        # Compiling takes a while: for the batch that is likeliest to profit.
        yield Row(
            "DeepSpeech2's masked convolutions, 10 s",
            f"N={batch}, {'ragged' if ragged else 'equal'}",
            arithmetic,
            lambda at, batch=batch, ragged=ragged: conv(batch, ragged, batch == 32 and ragged, frames, at),
            {"x best": 2.0},
        )
    for arithmetic in ("bf16",) if quick else ("bf16", "tf32"):
        yield Row(
            "DeepSpeech2's masked convolutions in training, forward + backward, 10 s",
            "N=32, equal",
            arithmetic,
            lambda at: conv_training(32, not quick, frames, at),
        )


def _conv_tile_rows(quick: bool) -> Iterator[Row]:
    shapes = [shape for shape in MASKED_CONV2D if shape.batch > 1]
    shapes = [shape._replace(batch=batch) for batch in ((32,) if quick else (32, 1)) for shape in shapes]
    for arithmetic, shape in itertools.product(("bf16", "tf32", "fp32"), shapes):
        yield Row(
            "masked_conv2d: frames x columns x depth x warps x stages of its tiles",
            str(shape),
            arithmetic,
            lambda at, shape=shape: conv_tiles(shape, at),
        )


def _batch_norm_rows(quick: bool) -> Iterator[Row]:
    shapes = [BatchNorm("NCFT", (32, 32, 81, 501), (0.0, 20.0)), BatchNorm("TNC", (500, 64, 2560), None)]
    for arithmetic, shape, mode in itertools.product(
        ("bf16", "fp32"), shapes[: 1 if quick else 2], ("eval", "training", "backward")
    ):
        size = "x".join(map(str, shape.size))
        yield Row(
            "BatchNorm over valid frames, clamp and mask",
            f"{shape.layout} {size}, {mode}",
            arithmetic,
            lambda at, shape=shape, mode=mode: batch_norm(shape, mode, shape.layout == "NCFT", at),
            {"floor": 1.3},
        )


def _beam_rows(quick: bool) -> Iterator[Row]:
    for batch, beam_width in ((32, 16),) if quick else ((32, 16), (1, 16), (128, 16), (32, 64)):
        yield Row(
            "CTC beam search, 4-gram word model, V=29, 10 s",
            f"N={batch}, beam {beam_width}",
            "fp32",
            lambda at, n=batch, width=beam_width: beam_search(n, width, 500, 20_000, at),
            {"rtfx": 20_000.0} if (batch, beam_width) == (32, 16) else {},
        )


def _deepspeech2_rows(quick: bool) -> Iterator[Row]:
    for arithmetic, ragged in (("bf16", True), ("bf16", False), ("tf32", True))[: 1 if quick else 3]:
        yield Row(
            "DeepSpeech2 `paper` (5 x BiGRU 2560), features to log-probabilities",
            f"N=64, {'2.5 to 10 s' if ragged else '10 s'}",
            arithmetic,
            lambda at, ragged=ragged: deepspeech2("paper", 64, ragged, 1000, at),
            {"rtfx": 5_000.0} if arithmetic == "bf16" else {},
        )
