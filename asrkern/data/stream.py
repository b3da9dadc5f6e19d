"""Audio from a pipe while it arrives: WAV, or samples without a header. Other forms are read once they are whole."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import soundfile
import torch
from torch import Tensor

from asrkern.data.container import ContainerRecording, is_installed, open_recording
from asrkern.data.formats import START_BYTES, recognize, refusal
from asrkern.data.recording import RAW, Recording, check_finite, check_form, mono
from asrkern.data.resampling import Resampler
from asrkern.data.wav import WavHeader, read_wav_header

# ffmpeg's names; little-endian.
ENCODINGS = tuple(RAW)

# The longest stream of a form that has to be read to its end: 6 hours of 16 bits, 2 channels and 48 kHz.
_MOST_SPOOLED_BYTES = 4 << 30
_COPY_BYTES = 1 << 20


def read_stream(
    file: BinaryIO,
    sample_rate: int = 16000,
    *,
    chunk_seconds: float = 0.1,
    encoding: str | None = None,
    channels: int = 1,
    original_rate: int | None = None,
) -> Iterator[Tensor]:
    """Read audio in chunks from a pipe, a socket's file or ``sys.stdin.buffer``; nothing is sought.

    The stream's first bytes tell what it is. WAV and RF64 of plain samples are read as they arrive, and their size may
    be unknown. All other forms that load_audio reads (FLAC, Ogg, MP3, AIFF, AU, ...) are first read to their end, into
    a temporary file. Samples without a header are read only if ``encoding`` says what they are; with a header it is
    ignored. Values, channels and other rates become bit for bit what :func:`asrkern.data.load_audio` makes of them.

    Args:
        file: binary.
        sample_rate: in Hz, of the chunks; other rates are resampled.
        chunk_seconds: how long a chunk is.
        encoding: of samples without a header, see ``ENCODINGS``; None: there is a header.
        channels, original_rate: of samples without a header; None: they have ``sample_rate``.

    Returns:
        Tensors [samples], float32, each as soon as it is complete (if resampled, some time later, see
            :class:`asrkern.data.Resampler`); the last one may be shorter. An empty stream gives none.

    Raises:
        ValueError: an argument out of range; a stream that is neither audio that load_audio reads nor, by ``encoding``,
            samples; or a header that is cut off. While reading: the stream ends within a sample, or before the size
            that it declares, or holds NaN or infinity. All complete samples before that have been returned.
    """
    if encoding is not None and encoding not in ENCODINGS:
        raise ValueError(f"encoding: expected one of {', '.join(ENCODINGS)}, received {encoding!r}")
    if channels < 1 or sample_rate < 1:
        raise ValueError(
            f"channels, sample_rate: expected positive integers, received {channels}, {sample_rate}"
        )
    if original_rate is not None and original_rate < 1:
        raise ValueError(f"original_rate: expected a positive integer, received {original_rate}")
    if not sample_rate * chunk_seconds >= 1:
        raise ValueError(f"chunk_seconds: expected at least one sample, received {chunk_seconds}")
    raw = None if encoding is None else WavHeader(encoding, channels, original_rate or sample_rate, None)
    with _named():
        rate, blocks = _open(_Source(file), sample_rate, chunk_seconds, raw)
    return _chunks(blocks, Resampler(rate, sample_rate), round(sample_rate * chunk_seconds))


class _Source:
    """A stream whose beginning can be read without taking it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._start = file, b""

    def peek(self, size: int) -> bytes:
        self._start = self.read(size)
        return self._start

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, fewer only at the stream's end. (A pipe may return fewer at any time.)"""
        parts = [self._start[:size]]
        self._start = self._start[size:]
        size -= len(parts[0])
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _open(
    source: _Source, sample_rate: int, chunk_seconds: float, raw: WavHeader | None
) -> tuple[int, Iterator[Tensor]]:
    """The rate of a stream, and its samples at that rate."""
    start = source.peek(START_BYTES)
    if not start:
        return sample_rate, iter(())
    found = recognize(start)
    if raw is not None and (found is None or not found.certain):
        return raw.sample_rate, _plain(source, raw, chunk_seconds, whole=True)
    if found is None:
        raise ValueError(
            f"expected WAV, FLAC, Ogg, MP3 or another form of audio, received {start[:16]!r}; samples without a header "
            "are read where encoding (--encoding), channels and original_rate (--rate) say what they are"
        )
    if not found.readable and (found.demuxer is None or not is_installed()):
        raise ValueError(refusal(found))
    with ExitStack() as opened:
        spool = opened.enter_context(tempfile.TemporaryFile(buffering=0))
        if found.name in ("WAV", "RF64"):
            header = read_wav_header(lambda size: _copy(source, spool, size))
            if header.encoding is not None:
                check_form(header.sample_rate, header.channels)
                return header.sample_rate, _plain(source, header, chunk_seconds, whole=False)
        while _copy(source, spool, _COPY_BYTES):
            if spool.tell() > _MOST_SPOOLED_BYTES:
                raise ValueError(
                    f"expected at most {_MOST_SPOOLED_BYTES >> 30} GiB of {found.name}, received more; "
                    "convert it: ffmpeg -i - -f wav -"
                )
        spool.seek(0)
        recording = opened.enter_context(open_recording(spool))
        return recording.samplerate, _spooled(recording, opened.pop_all())


def _copy(source: _Source, spool: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    spool.write(data)
    return data


def _spooled(recording: Recording | ContainerRecording, opened: ExitStack) -> Iterator[Tensor]:
    with opened:
        yield from recording.mono()


def _plain(source: _Source, header: WavHeader, chunk_seconds: float, *, whole: bool) -> Iterator[Tensor]:
    """Samples; whole: that end with a whole one."""
    subtype, sample_bytes = RAW[str(header.encoding)]
    frame_bytes = header.channels * sample_bytes
    form = {"channels": header.channels, "subtype": subtype, "endian": "LITTLE", "format": "RAW"}
    chunk = max(1, round(header.sample_rate * chunk_seconds)) * frame_bytes
    left = None if header.data_bytes is None else header.data_bytes // frame_bytes * frame_bytes
    while left is None or left > 0:
        wanted = chunk if left is None else min(chunk, left)
        data = source.read(wanted)
        if usable := len(data) // frame_bytes * frame_bytes:
            samples, _ = soundfile.read(
                io.BytesIO(data[:usable]),
                dtype="float32",
                always_2d=True,
                samplerate=header.sample_rate,
                **form,
            )
            yield mono(samples)
        if left is not None:
            left -= len(data)
        if len(data) < wanted:
            if left:
                raise ValueError(f"expected {left} more bytes of samples, received the stream's end")
            if whole and len(data) > usable:
                raise ValueError(
                    f"expected whole samples of {frame_bytes} bytes, "
                    f"received {len(data) - usable} at the stream's end"
                )
            return


def _chunks(blocks: Iterator[Tensor], resampler: Resampler, size: int) -> Iterator[Tensor]:
    """Chunks of one size, except the last. What was read before an error is returned before it is raised."""
    held, broken, ended = torch.empty(0), None, False
    while not ended:
        samples = torch.empty(0)
        try:
            with _named():
                block = next(blocks, None)
                ended = block is None
                samples = check_finite(resampler.finish() if block is None else resampler(block))
        except ValueError as error:
            # The first error. What was read before it is still resampled to its end.
            broken, blocks = broken or error, iter(())
        held = torch.cat([held, samples])
        *complete, held = held.split(size)
        if len(held) == size:
            complete, held = [*complete, held], held[:0]
        yield from complete
    if len(held):
        yield held
    if broken is not None:
        raise broken


@contextmanager
def _named() -> Iterator[None]:
    """A context in which errors about the stream's content name the argument."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"file: expected complete audio, received some of which: {error.error_string}"
        ) from None
    except ValueError as error:
        raise ValueError(f"file: {error}") from None
