"""The server, put together: an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from asrkern.serve import streams, transcriptions
from asrkern.serve.batching import Batcher
from asrkern.serve.description import describe
from asrkern.serve.guard import Guard
from asrkern.serve.limits import Limits
from asrkern.serve.metrics import Metrics
from asrkern.serve.refusal import Refusal, on_fault, on_http_error, on_refusal
from asrkern.serve.searches import Searches
from asrkern.serve.site import page_routes
from asrkern.serve.streams import Streams
from asrkern.serve.transcriptions import Transcriptions


def make_app(
    searches: Searches,
    limits: Limits,
    *,
    key: str | None = None,
    origins: Collection[str] = (),
    loopback: bool = True,
) -> Starlette:
    """The application.

    Args:
        searches: the model.
        limits: of what may be asked.
        key: that clients must have; None: they need none.
        origins: of other servers' pages that may ask.
        loopback: the server is bound to this machine alone.
    """
    metrics = Metrics()
    threads = torch.get_num_threads()
    batcher = Batcher(searches, limits.audio_seconds, threads, metrics)
    # A chunk is too little for several threads. Torch keeps the number for each thread.
    listening = ThreadPoolExecutor(threads, "streams", initializer=torch.set_num_threads, initargs=(1,))
    transcribe = Transcriptions(searches, batcher, limits, metrics)
    stream = Streams(searches, listening, limits, metrics)
    metrics.gauge(
        "asrkern_recordings", "Recordings that come in, wait or are computed.", lambda: transcribe.slots.taken
    )
    metrics.gauge("asrkern_waiting", "Recordings that wait to be computed.", lambda: batcher.waiting)
    metrics.gauge("asrkern_streams", "Streams that are open.", lambda: stream.slots.taken)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        batcher.start()
        yield
        batcher.stop()
        listening.shutdown()

    description = describe(key is not None)
    about = {
        "status": "ok",
        "model": searches.recognizer.model_name,
        "streams": searches.no_streams is None,
        "word_times": searches.has_times,
        "language_model": searches.has_language_model,
        "key_needed": key is not None,
    }
    pages = page_routes(description)
    routes = [
        *pages,
        Route("/openapi.json", _constant(description)),
        Route("/healthz", _constant(about)),
        Route("/metrics", _metrics(metrics)),
        Route(transcriptions.PATH, transcribe.answer, methods=["POST"]),
        WebSocketRoute(streams.PATH, stream.serve),
        Route(streams.PATH, streams.explain),
    ]
    open_paths = {route.path for route in pages} | {"/openapi.json", "/healthz"}
    middleware = [Middleware(Guard, key, open_paths, origins, loopback)]
    if origins:
        cors = Middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["Authorization"]
        )
        middleware.insert(0, cors)
    handlers: dict[Any, Any] = {Refusal: on_refusal, HTTPException: on_http_error, Exception: on_fault}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)


def _constant(value: Any) -> Any:
    async def show(request: Request) -> Response:
        return JSONResponse(value)

    return show


def _metrics(metrics: Metrics) -> Any:
    async def show(request: Request) -> Response:
        return PlainTextResponse(metrics.text(), media_type=metrics.content_type)

    return show
