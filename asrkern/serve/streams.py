"""The WebSocket ``/v1/audio/stream``: live speech, samples in, words out.

Messages of a client: optionally ``{"type": "start", ...}`` first; samples as binary messages, 16 bits, little-endian,
one channel; ``{"type": "end"}``. Of the server: ``ready``, ``partial`` after samples, ``final`` at the end, ``error``.
Samples that come while others are computed wait together and make one step: the words do not depend on how audio is cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from starlette.requests import Request
from starlette.websockets import WebSocket, WebSocketDisconnect

from asrkern._memory import out_of_memory
from asrkern.data.resampling import Resampler
from asrkern.recognizer import StreamTranscriber
from asrkern.recognizer.stream_transcription import Heard
from asrkern.serve.fields import StreamFields, from_message
from asrkern.serve.limits import Limits, Slots
from asrkern.serve.metrics import Metrics
from asrkern.serve.refusal import Refusal
from asrkern.serve.results import as_json, verbose
from asrkern.serve.searches import Searches

PATH = "/v1/audio/stream"
SUBPROTOCOL = "asrkern"
# Audio that waits for the model; a client who sends more waits, too.
_MOST_WAITING_SECONDS = 30
_SAMPLE_BYTES = 2
# Close codes of RFC 6455.
_CODES = {400: 1007, 408: 1008, 413: 1009, 503: 1013}


class Streams:
    """The endpoint.

    Args:
        searches: the model.
        executor: computes.
        limits: of number, length and time.
        metrics: counts.
    """

    def __init__(self, searches: Searches, executor: Executor, limits: Limits, metrics: Metrics) -> None:
        self._searches, self._executor, self._limits, self._metrics = searches, executor, limits, metrics
        self.slots = Slots("streams", limits.streams, retry_after=10)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one stream."""
        started, status = time.perf_counter(), "500"
        try:
            with self.slots.one():
                if self._searches.no_streams is not None:
                    raise Refusal(400, self._searches.no_streams)
                offered = SUBPROTOCOL in websocket.scope["subprotocols"]
                await websocket.accept(SUBPROTOCOL if offered else None)
                status = await self._serve(websocket)
        except Refusal as refusal:
            status = str(refusal.status)
            await websocket.send_denial_response(refusal.response)
        finally:
            self._metrics.answered(PATH, status, time.perf_counter() - started)

    async def _serve(self, websocket: WebSocket) -> str:
        incoming = _Incoming(websocket, self._limits)
        try:
            fields = await incoming.start()
            ears = await self._compute(lambda: _Ears(self._searches, fields))
            await websocket.send_json({"type": "ready", "rate": fields.rate, **ears.note})
            reading = asyncio.create_task(incoming.read())
            # What it raises counts only if nothing else has gone wrong.
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                await self._listen(websocket, incoming, ears)
                await reading
            finally:
                reading.cancel()
            await websocket.close()
            return "200"
        except WebSocketDisconnect:
            return "gone"
        except Refusal as refusal:
            with suppress(WebSocketDisconnect):
                await websocket.send_json({"type": "error", **refusal.body})
                await websocket.close(
                    _CODES[refusal.status], refusal.message.encode()[:100].decode(errors="ignore")
                )
            return str(refusal.status)

    async def _listen(self, websocket: WebSocket, incoming: _Incoming, ears: _Ears) -> None:
        """Answer until the stream ends, whatever ends it: what has come is heard to its end."""
        while not (incoming.ended or incoming.gone):
            samples, since = await incoming.waiting()
            if not samples:
                continue
            heard = await self._compute(partial(ears.hear, samples))
            self._metrics.heard(len(samples) / _SAMPLE_BYTES / ears.rate, time.perf_counter() - since)
            await websocket.send_json(
                {
                    "type": "partial",
                    "seconds": round(incoming.taken_seconds, 3),
                    "stable": heard.text,
                    "words": as_json(heard.words),
                    "tail": heard.tail,
                }
            )
        if not incoming.gone:
            await websocket.send_json({"type": "final", **await self._compute(ears.finish)})

    async def _compute(self, function: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function)
        except (ValueError, MemoryError, RuntimeError) as error:
            if (memory := out_of_memory(error)) is not None:
                raise Refusal(503, memory, retry_after=30) from None
            if isinstance(error, ValueError):
                raise Refusal(400, f"audio: {error}") from None
            raise


def explain(request: Request) -> Any:
    """The answer to those who do not speak WebSocket."""
    response = Refusal(426, "expected a WebSocket handshake, received a plain request").response
    response.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
    return response


class _Incoming:
    """What comes from a client: read in one task, taken by another."""

    def __init__(self, websocket: WebSocket, limits: Limits) -> None:
        self._websocket, self._limits = websocket, limits
        self._samples = bytearray()
        self._since = 0.0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._rate = 16000
        self._taken = self._received = 0
        self._over = self.gone = False

    @property
    def ended(self) -> bool:
        """Whether all that will ever come has been taken."""
        return self._over and not self._samples

    @property
    def taken_seconds(self) -> float:
        """Audio that has been taken."""
        return self._taken / _SAMPLE_BYTES / self._rate

    async def start(self) -> StreamFields:
        """The fields of the stream, those of no message if audio or the end comes first.

        Raises:
            Refusal: 400, 408, 413.
        """
        message = await self._receive()
        fields = from_message(message) if isinstance(message, str) else None
        if fields is not None:
            self._rate = fields.rate
            return fields
        if isinstance(message, bytes):
            self._add(message)
        else:
            self._over = True
        return StreamFields.model_validate({"type": "start"})

    async def read(self) -> None:
        """Read until the end.

        Raises:
            Refusal: 400, 408, 413; what came before is there to be taken.
            WebSocketDisconnect: the client is gone.
        """
        try:
            while not self._over:
                message = await self._receive()
                if isinstance(message, bytes):
                    self._add(message)
                elif from_message(message) is None:
                    break
                else:
                    raise Refusal(400, "message: expected start before all audio, received it later")
                while len(self._samples) > _MOST_WAITING_SECONDS * self._rate * _SAMPLE_BYTES:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._over = True
            self._news.set()

    async def waiting(self) -> tuple[bytes, float]:
        """All samples that wait, and since when; none if the stream is over."""
        await self._news.wait()
        if not self._over:
            self._news.clear()
        samples, since = bytes(self._samples), self._since
        self._samples.clear()
        self._taken += len(samples)
        self._room.set()
        return samples, since

    async def _receive(self) -> bytes | str:
        try:
            message = await asyncio.wait_for(self._websocket.receive(), self._limits.idle_seconds)
        except asyncio.TimeoutError:
            raise Refusal(408, f"expected a message within {self._limits.idle_seconds} s") from None
        if message["type"] == "websocket.disconnect":
            self.gone = True
            raise WebSocketDisconnect(message.get("code", 1006))
        text = message.get("text")
        return message["bytes"] if text is None else text

    def _add(self, samples: bytes) -> None:
        if len(samples) % _SAMPLE_BYTES:
            raise Refusal(400, f"audio: expected whole samples of 16 bits, received {len(samples)} bytes")
        self._received += len(samples)
        most = self._limits.audio_seconds
        if self._received > most * self._rate * _SAMPLE_BYTES:
            raise Refusal(413, f"audio: expected at most {most} s of audio, received more")
        if not self._samples:
            self._since = time.perf_counter()
        self._samples += samples
        self._news.set()


class _Ears:
    """One stream's resampler, model and search."""

    def __init__(self, searches: Searches, fields: StreamFields) -> None:
        searches.check(fields)
        self.rate = fields.rate
        self._resampler = Resampler(fields.rate, searches.sample_rate)
        self._listener = StreamTranscriber(searches.of(fields.search), low_latency=searches.low_latency)
        self._state, self._samples = self._listener.start(), 0

    @property
    def note(self) -> dict[str, Any]:
        """What a client should know of the results."""
        return {"normalization_differs": self._listener.normalization_differs}

    def hear(self, samples: bytes) -> Heard:
        """The next samples."""
        self._samples += len(samples) // _SAMPLE_BYTES
        pcm = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
        return self._listener.step(self._state, self._resampler(torch.from_numpy(pcm)))

    def finish(self) -> dict[str, Any]:
        """The whole, at the end, as it is told."""
        self._listener.step(self._state, self._resampler.finish())
        transcript = self._listener.finish(self._state).transcript
        assert transcript is not None
        return verbose(transcript, self._samples / self.rate, ("word", "segment"))
