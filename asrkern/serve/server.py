"""The application on a socket, until it is told to end."""

from __future__ import annotations

import logging
import socket

import uvicorn
from starlette.types import ASGIApp

# A message of a stream is read whole: eight seconds of 16 kHz.
_MESSAGE_BYTES = 1 << 18
# For what is being computed when the server is told to end.
_ENDING_SECONDS = 10


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to from now on.

    Args:
        host: a name or an address of this machine.
        port: 0: one that is free.

    Raises:
        OSError: there is no such address here, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"host: expected an address of this machine, received {host!r}: {error}") from None
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise OSError(f"port: expected one that is free at {host}, received {port}: {error}") from None


def _is_news(record: logging.LogRecord) -> bool:
    """False of what uvicorn says of each WebSocket that is refused by an answer with a status."""
    return record.msg != "ASGI callable returned without completing handshake."


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server for the application; ``run(sockets=[socket])`` serves, ``should_exit = True`` ends it."""
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",  # the one that lets clients wait who send more than is read
        ws_max_size=_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_ENDING_SECONDS,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    return uvicorn.Server(config)
