"""``asrkern serve``: a trained model as a server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from asrkern._optional import needs
from asrkern.cli.console import errors
from asrkern.cli.device import Device
from asrkern.cli.evaluate import CheckpointPath
from asrkern.cli.language_model import Hotwords, HotwordWeight, LanguageModel, with_language_model
from asrkern.cli.tokens import Tokens
from asrkern.cli.transcriber import BeamWidth


@with_language_model
def serve(
    *,
    checkpoint: CheckpointPath,
    tokens: Tokens = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Pages of this server may ask, too: https://example.org. May be given several times.",
            show_default=False,
        ),
    ] = None,
    language_model: LanguageModel,
    hotwords: Hotwords = None,
    hotword_weight: HotwordWeight = 10.0,
    beam_width: BeamWidth = None,
    upload_mib: Annotated[int, typer.Option(min=1, help="Largest request.")] = 256,
    audio_seconds: Annotated[int, typer.Option(min=1, help="Longest recording, and longest stream.")] = 7200,
    requests: Annotated[int, typer.Option(min=1, help="Recordings that wait or are computed at once.")] = 32,
    request_seconds: Annotated[int, typer.Option(min=1, help="Until a recording is given up.")] = 600,
    idle_seconds: Annotated[int, typer.Option(min=1, help="Until a silent client is given up.")] = 30,
    streams: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 64,
    low_latency: Annotated[
        bool,
        typer.Option(
            "--low-latency",
            help="Words of streams come half a second sooner, from numbers that are the whole's to within rounding.",
        ),
    ] = False,
    device: Device = "cpu",
) -> None:
    """Serve a model: a page for the browser at /, recordings and live speech for programs; /docs describes them.

    Example: asrkern serve best.safetensors --lm lm.safetensors --port 8000

    Listens at this machine's own address unless --host says otherwise. With ASRKERN_API_KEY in the environment clients
    must have that key. Pages of other servers are refused. Ctrl-C ends it.
    """
    with errors():
        needs("serve")
        from asrkern.decoder import read_hotwords
        from asrkern.recognizer import load
        from asrkern.serve.app import make_app
        from asrkern.serve.guard import is_loopback, key_from
        from asrkern.serve.limits import Limits
        from asrkern.serve.searches import Searches
        from asrkern.serve.server import listen, make_server

        recognizer = load(checkpoint, tokens)
        recognizer.move(device or "cpu")
        searches = Searches(
            recognizer,
            low_latency=low_latency,
            lm=language_model.open(),
            beam_width=beam_width,
            hotwords=None if hotwords is None else read_hotwords(hotwords, hotword_weight),
            **language_model.weights,
        )
        key = key_from(os.environ)
        limits = Limits(upload_mib, audio_seconds, requests, request_seconds, idle_seconds, streams)
        app = make_app(searches, limits, key=key, origins=allow_origin or (), loopback=is_loopback(host))
        with listen(host, port) as socket:
            _tell(socket.getsockname(), key, searches.no_streams, is_loopback(host))
            make_server(app).run(sockets=[socket])
            # Only a signal ends it. uvicorn raises that again, in vain where the command was started with Ctrl-C ignored, as
            # shells start what runs behind them.
            raise KeyboardInterrupt


def _tell(address: tuple[object, ...], key: str | None, no_streams: str | None, loopback: bool) -> None:
    shown = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    if no_streams is not None:
        typer.echo(f"note: no live speech: {no_streams}", err=True)
    if key is None and not loopback:
        typer.echo(f"note: without ASRKERN_API_KEY everyone who reaches {shown} may ask", err=True)
    typer.echo(f"http://{shown}:{address[1]}/ serves; Ctrl-C ends it")
