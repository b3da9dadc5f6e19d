"""Recordings and streams of any length cut where nobody speaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from asrkern.data.voice_activity import Detector

# Speech begins at the first probability and goes on above the second.
_BEGINS, _GOES_ON = 0.5, 0.35
# Shorter pauses are left within a segment; so much of longer ones is kept at its ends.
_PAUSE_SECONDS, _MARGIN_SECONDS = 1.0, 0.7


class Segment(NamedTuple):
    """A part of a recording.

    start: its first sample's place in the recording; samples: [samples].
    """

    start: int
    samples: Tensor


def speech_segments(
    chunks: Iterable[Tensor], detector: Detector, longest_seconds: float = 30.0
) -> Iterator[Segment]:
    """The parts of a recording or stream in which somebody speaks, each as soon as it has ended.

    A segment ends where nobody speaks for 1 s, of which 0.7 s are kept, or with the stream. A longer one than
    ``longest_seconds`` is cut by ``split_at_pauses``.

    Args:
        chunks: [samples] float32 each, at the detector's rate, of any lengths.
        detector: of :func:`asrkern.data.make_detector`.
        longest_seconds: of a segment.

    Returns:
        Segments in their order, none of them empty. They do not overlap.
    """
    rate, hop = detector.sample_rate, detector.frame_samples
    margin, pause, longest = (round(s * rate) for s in (_MARGIN_SECONDS, _PAUSE_SECONDS, longest_seconds))
    state, held, origin, heard = detector.start(), torch.empty(0), 0, 0
    # Of the segment: its first sample, and the end of its last frame of speech.
    begin: int | None = None
    end = 0
    for chunk in chain(chunks, [None]):
        if chunk is not None:
            held = torch.cat([held, chunk])
        received = origin + len(held)
        waiting = held[heard - origin :]
        if chunk is None:
            waiting = F.pad(waiting, (0, -len(waiting) % hop))
        frames = waiting[: len(waiting) // hop * hop].reshape(-1, hop)
        for probability in detector.step(state, frames).tolist():
            heard += hop
            if probability >= (_BEGINS if begin is None else _GOES_ON):
                begin = max(end, heard - hop - margin) if begin is None else begin
                end = heard
            elif begin is not None and heard - end >= pause:
                end += margin
                yield from _pieces(held, origin, begin, end, rate, longest_seconds)
                begin = None
            if begin is not None and heard - begin >= 1.25 * longest:
                *complete, rest = _pieces(held, origin, begin, min(heard, received), rate, longest_seconds)
                yield from complete
                # Behind the last speech there is only the beginning of a pause.
                begin, end = (rest.start, end) if rest.start < end else (None, rest.start)
        if chunk is None and begin is not None:
            yield from _pieces(held, origin, begin, min(end + margin, received), rate, longest_seconds)
        needed = max(origin, min(heard, received) - margin if begin is None else begin)
        held, origin = held[needed - origin :], needed


def _pieces(
    held: Tensor, origin: int, begin: int, end: int, rate: int, longest_seconds: float
) -> Iterator[Segment]:
    """What is between two places, of samples from ``origin`` on, in segments that are not too long."""
    for piece in split_at_pauses(held[begin - origin : end - origin], rate, longest_seconds):
        # A copy: it does not keep the rest in memory.
        yield Segment(begin, piece.clone())
        begin += len(piece)


def split_at_pauses(samples: Tensor, sample_rate: int, longest_seconds: float) -> list[Tensor]:
    """Pieces of at most that length. Each ends in the middle of the quietest tenth of a second near the limit.

    Args:
        samples: [samples].
        sample_rate: in Hz.
        longest_seconds: of a piece.
    """
    longest, hop = round(longest_seconds * sample_rate), max(1, sample_rate // 10)
    pieces = []
    while len(samples) > longest:
        # The last piece is not too short.
        low, high = longest // 2, min(longest, len(samples) - longest // 4)
        energy = samples[low:high].unfold(0, min(hop, high - low), max(1, hop // 4)).square().mean(1)
        cut = low + int(energy.argmin()) * max(1, hop // 4) + hop // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]
