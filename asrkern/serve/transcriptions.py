"""``POST /v1/audio/transcriptions``: a recording, in the OpenAI interface's form."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from asrkern.serve.batching import Batcher, Heard, Job
from asrkern.serve.fields import from_form
from asrkern.serve.limits import Limits, Slots
from asrkern.serve.metrics import Metrics
from asrkern.serve.refusal import Refusal
from asrkern.serve.results import answer, check_form
from asrkern.serve.searches import Searches
from asrkern.serve.uploads import anonymous_file, form_of

PATH = "/v1/audio/transcriptions"


class Transcriptions:
    """The endpoint.

    Args:
        searches: the model.
        batcher: computes.
        limits: of size, length, number and time.
        metrics: counts.
    """

    def __init__(self, searches: Searches, batcher: Batcher, limits: Limits, metrics: Metrics) -> None:
        self._searches, self._batcher, self._limits, self._metrics = searches, batcher, limits, metrics
        self.slots = Slots("recordings", limits.requests, retry_after=5)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        started, status = time.perf_counter(), "500"
        try:
            response = await self._answer(request)
            status = str(response.status_code)
            return response
        except Refusal as refusal:
            status = str(refusal.status)
            raise
        finally:
            self._metrics.answered(PATH, status, time.perf_counter() - started)

    async def _answer(self, request: Request) -> Response:
        with self.slots.one():
            async with form_of(request, self._limits) as form:
                uploads = [(key, value) for key, value in form.multi_items() if isinstance(value, UploadFile)]
                if [key for key, _ in uploads] != ["file"]:
                    received = ", ".join(key[:100] for key, _ in uploads) or "none"
                    raise Refusal(
                        400,
                        f"file: expected a recording of this name with a file name, received {received}",
                        "file",
                    )
                fields = from_form((k, v) for k, v in form.multi_items() if isinstance(v, str))
                self._searches.check(fields)
                check_form(fields, self._searches.has_times)
                job = self._batcher.submit(anonymous_file(uploads[0][1]), fields.search)
            heard = await self._wait(job, request)
            # Subtitles of hours take a while.
            return await asyncio.to_thread(answer, heard, fields)

    async def _wait(self, job: Job, request: Request) -> Heard:
        """The result; a Refusal, 503, if it takes too long. Nothing is computed for a client who has gone."""
        result, gone = asyncio.wrap_future(job.result), asyncio.ensure_future(_gone(request))
        either: set[asyncio.Future[Any]] = {result, gone}
        try:
            waited = asyncio.wait(either, timeout=self._limits.request_seconds, return_when="FIRST_COMPLETED")
            done, _ = await waited
            if result in done:
                return result.result()
            if gone in done:
                raise Refusal(400, "the client is gone")
            seconds = self._limits.request_seconds
            raise Refusal(503, f"expected a result within {seconds} s, which were not enough", retry_after=30)
        finally:
            job.abandoned.set()
            result.cancel()
            gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
