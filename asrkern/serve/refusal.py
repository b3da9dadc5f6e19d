"""Errors that clients are told, as JSON in the OpenAI interface's form."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP, 4xx or 5xx.
        message: what was expected and received.
        param: the field that is wrong.
        retry_after: in how many seconds the same request may be answered.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.retry_after = status, message, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """What the client gets."""
        kind = "invalid_request_error" if self.status < 429 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": str(self.status)}
        }

    @property
    def response(self) -> JSONResponse:
        """The same with its status."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def on_refusal(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of a Refusal."""
    assert isinstance(error, Refusal)
    return error.response


def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of its own errors: no such path, no such method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = Refusal(error.status_code, message).response
    response.headers.update(error.headers or {})
    return response


def on_fault(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of a fault of the program, which goes to the log."""
    return Refusal(500, "a fault of the server, which is in its log").response
