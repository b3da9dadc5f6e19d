"""Who may ask: the hosts that a server is called by, the pages that may call it, the key."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asrkern.serve.refusal import Refusal

KEY_VARIABLE = "ASRKERN_API_KEY"
# Of a WebSocket's subprotocols: browsers cannot set its headers.
KEY_PREFIX = "key."
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def key_from(environment: Mapping[str, str]) -> str | None:
    """The key that clients must have; None if there is none.

    Raises:
        ValueError: it has characters that headers do not carry alike from all clients.
    """
    key = environment.get(KEY_VARIABLE, "")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"{KEY_VARIABLE}: expected ASCII characters without spaces, received others")
    return key or None


def is_loopback(host: str) -> bool:
    """Whether a host, without a port, is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class Guard:
    """ASGI middleware that refuses what is not allowed, of HTTP and WebSockets.

    Args:
        app: what it guards.
        key: that clients must have; None: they need none.
        open_paths: that need no key.
        origins: of other servers' pages that may ask, as "https://example.org".
        loopback: the server is bound to this machine alone. Then it must be called by a name of this machine: a page
            whose name resolves to this machine would else count as the server's own.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str | None,
        open_paths: Collection[str],
        origins: Collection[str],
        loopback: bool,
    ) -> None:
        self._app, self._key, self._open_paths = app, key, open_paths
        self._origins, self._loopback = {origin.rstrip("/") for origin in origins}, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, if it is allowed."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_host(headers.get("host", ""))
            self._check_origin(headers.get("origin"), headers.get("host", ""))
            if self._key is not None and scope["path"] not in self._open_paths:
                self._check_key(headers.get("authorization", ""), scope.get("subprotocols", []))
        except Refusal as refusal:
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refusal.response)
            else:
                await refusal.response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if self._loopback and not is_loopback(name):
            raise Refusal(403, f"Host: expected a name of this machine, received {host[:200]!r}")

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or origin in self._origins:
            return
        scheme, _, place = origin.partition("://")
        default = _DEFAULT_PORTS.get(scheme)
        if default is None or place.lower().removesuffix(default) != host.lower().removesuffix(default):
            raise Refusal(403, f"Origin: expected a page of this server, received {origin[:200]!r}")

    def _check_key(self, authorization: str, subprotocols: Collection[str]) -> None:
        scheme, _, given = authorization.partition(" ")
        keys = [given.strip().encode("latin-1")] if scheme.lower() == "bearer" else []
        for offered in subprotocols:
            if offered.startswith(KEY_PREFIX):
                encoded = offered.removeprefix(KEY_PREFIX)
                try:
                    keys.append(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
                except (ValueError, binascii.Error):
                    continue
        assert self._key is not None
        if not any(hmac.compare_digest(key, self._key.encode()) for key in keys):
            received = "another" if keys else "none"
            raise Refusal(
                401, f"Authorization: expected 'Bearer KEY' with the server's key, received {received}"
            )
