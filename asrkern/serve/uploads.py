"""What clients send: bodies within their limits, and recordings, which are read from anonymous files alone."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import soundfile
import torch
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from asrkern.data.container import ContainerRecording, open_recording
from asrkern.data.recording import Recording, check_finite
from asrkern.data.resampling import Resampler
from asrkern.serve.limits import Limits
from asrkern.serve.refusal import Refusal

_MIB = 1 << 20
# Texts beside the file.
_MOST_FIELDS, _FIELD_BYTES = 1100, 1 << 16


@asynccontextmanager
async def form_of(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """The form of a request. Its files, which have no names in any file system, are closed at the end.

    Raises:
        Refusal: 413, the body is too large; 408, no byte of it comes; 400, 415, it is no such form.
    """
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        received = request.headers.get("Content-Type", "none")[:100]
        raise Refusal(415, f"Content-Type: expected multipart/form-data, received {received!r}")
    most = limits.upload_mib * _MIB
    declared = request.headers.get("Content-Length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise Refusal(413, f"body: expected at most {most} bytes, received {declared}")
    received, end = 0, time.monotonic() + limits.request_seconds

    async def receive() -> Any:
        nonlocal received
        # Neither silence nor a trickle holds a place for long.
        patience = min(limits.idle_seconds, end - time.monotonic())
        try:
            message = await asyncio.wait_for(request.receive(), patience)
        except asyncio.TimeoutError:
            raise Refusal(408, "body: expected more of it in time, received none") from None
        received += len(message.get("body", b""))
        if received > most:
            raise Refusal(413, f"body: expected at most {most} bytes, received more")
        return message

    counted = Request(request.scope, receive)
    try:
        form = await counted.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES)
    except HTTPException as error:
        raise Refusal(400, f"body: expected a form: {error.detail}") from None
    except ClientDisconnect:
        raise Refusal(400, "body: expected all of it, and the client is gone") from None
    try:
        yield form
    finally:
        await form.close()


def anonymous_file(upload: UploadFile) -> io.FileIO:
    """The uploaded bytes as a file of its own, which has no name; the caller closes it."""
    upload.file.rollover()  # type: ignore[attr-defined]
    return open(os.dup(upload.file.fileno()), "rb", buffering=0)


def read_recording(file: io.FileIO, sample_rate: int, longest_seconds: float) -> Tensor:
    """A recording of any form that :func:`asrkern.data.load_audio` reads, as [samples] float32, mono, at that rate.

    Raises:
        Refusal: 400, it is no audio, broken or empty; 413, it is longer.
    """
    try:
        with open_recording(file) as recording:
            return _mono(recording, sample_rate, longest_seconds)
    except soundfile.LibsndfileError as error:
        raise Refusal(400, f"file: expected a complete audio file: {error.error_string}", "file") from None
    except ValueError as error:
        raise Refusal(400, f"file: {error}", "file") from None


def _mono(recording: Recording | ContainerRecording, sample_rate: int, longest_seconds: float) -> Tensor:
    rate = recording.samplerate
    most = int(longest_seconds * rate)
    too_long = Refusal(413, f"file: expected at most {longest_seconds:g} s of audio, received more", "file")
    if recording.length is not None and recording.length > most:
        raise too_long
    resampler, received, samples = Resampler(rate, sample_rate), 0, bytearray()
    for block in recording.mono(most + 1):
        received += len(block)
        samples += check_finite(resampler(block)).numpy().data
    if received > most:
        raise too_long
    samples += check_finite(resampler.finish()).numpy().data
    if not samples:
        raise ValueError("expected audio, received none")
    return torch.frombuffer(samples, dtype=torch.float32)
