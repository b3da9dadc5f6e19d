"""The two interfaces as an OpenAPI description; its schemas are those that requests are checked by."""

from __future__ import annotations

from typing import Any

import asrkern
from asrkern.serve import streams, transcriptions
from asrkern.serve.fields import StreamFields, TranscriptionFields

_REFUSALS = {
    400: "A field, the form or the recording is not as expected; `param` names the field.",
    401: "No key, or another.",
    403: "A page of another server asks, or the server is called by a name that is not this machine's.",
    408: "Nothing more of the body came.",
    413: "The body is too large, or the recording too long.",
    415: "The body is no multipart/form-data.",
    429: "All places are taken; `Retry-After` says when to try again.",
    500: "A fault of the server.",
    503: "It took too long, memory does not suffice, or the server is ending; with `Retry-After`.",
}
_STREAM = """Live speech by WebSocket. Messages of the client:

- `{"type": "start", ...}`, optional, first: the rate of the samples and the search, schema StreamFields.
- Binary: samples of 16 bits, little-endian, one channel, 16 kHz if no start says otherwise; any number of them.
- `{"type": "end"}`: the server tells the rest and closes.

Messages of the server:

- `{"type": "ready", "rate": 16000, "normalization_differs": false}`. If that is true, the model was trained on features
  normalised by whole utterances, which may cost accuracy.
- `{"type": "partial", "seconds": 1.2, "stable": "turn on", "words": [...], "tail": "the li"}` after samples. `seconds` of
  audio have been heard; `stable` are words that are told once and never change, `words` the same with times and
  confidences; `tail` is the rest, which may change.
- `{"type": "final", "text": "...", "words": [...], "segments": [...], "duration": 3.2}` at the end, the whole.
- `{"type": "error", "error": {...}}`, then the connection is closed: 1007 for what cannot be read, 1008 if nothing comes,
  1009 if there is too much of it, 1013 if memory does not suffice. What was heard before is told by a `final` first.

Browsers give the key as a subprotocol beside `asrkern`: `key.` and the key in base64url without padding."""


def describe(key_needed: bool) -> dict[str, Any]:
    """The description, version 3.1 of OpenAPI.

    Args:
        key_needed: whether clients must have a key.
    """
    form = TranscriptionFields.model_json_schema(mode="validation")
    file = {
        "type": "string",
        "format": "binary",
        "description": "The recording, of any form that libsndfile reads; MPEG-4, WebM and films where the server has PyAV.",
    }
    form["properties"] = {"file": file} | {
        name: _present(field) for name, field in form["properties"].items()
    }
    form["required"] = ["file"]
    text = {"schema": {"type": "string"}}
    answer = {
        "description": "The transcript, in the response_format.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Transcription"}},
            "text/plain": text,
            "application/x-subrip": text,
            "text/vtt": text,
        },
    }
    metrics = {"text/plain": {"schema": {"type": "string"}}}
    health = {
        "application/json": {"schema": {"type": "object", "properties": {"status": {"type": "string"}}}}
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asrkern serve",
            "version": asrkern.__version__,
            "description": "Recordings by HTTP, live speech by WebSocket.",
        },
        "paths": {
            transcriptions.PATH: {
                "post": {
                    "operationId": "transcribe",
                    "summary": "The transcript of a recording",
                    "description": "In the form of OpenAI's interface. Requests that wait together are computed "
                    "together; on the CPU the result of each is, to the last bit, what it would be alone.",
                    "requestBody": {
                        "required": True,
                        "content": {"multipart/form-data": {"schema": form}},
                    },
                    "responses": {"200": answer, **_responses(400, 401, 403, 408, 413, 415, 429, 500, 503)},
                }
            },
            streams.PATH: {
                "get": {
                    "operationId": "stream",
                    "summary": "Live speech",
                    "description": _STREAM,
                    "responses": {
                        "101": {"description": "The WebSocket is open."},
                        "426": _refusal("No WebSocket handshake."),
                        **_responses(400, 401, 403, 429),
                    },
                }
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the server lives",
                    "responses": {"200": {"description": "It does.", "content": health}, **_responses(403)},
                    "security": [],
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counts, in Prometheus' text form",
                    "responses": {
                        "200": {"description": "The counts.", "content": metrics},
                        **_responses(401, 403),
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "Error": _ERROR,
                "Transcription": _TRANSCRIPTION,
                "StreamFields": StreamFields.model_json_schema(),
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if key_needed else [],
    }


_TIMES = {"start": {"type": "number"}, "end": {"type": "number"}}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_TRANSCRIPTION = {
    "type": "object",
    "description": "json has the text alone.",
    "required": ["text"],
    "properties": {
        "text": {"type": "string"},
        "task": {"const": "transcribe"},
        "language": {"type": "string"},
        "duration": {"type": "number", "description": "In seconds."},
        "segments": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, **_TIMES, "text": {"type": "string"}},
            },
        },
        "words": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"word": {"type": "string"}, **_TIMES, "confidence": {"type": "number"}},
            },
        },
    },
}


def _present(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that is there: forms have no null."""
    if "anyOf" not in field:
        return field
    kept = {key: field[key] for key in field if key not in ("anyOf", "default")}
    return {**field["anyOf"][0], **kept}


def _refusal(meaning: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _responses(*statuses: int) -> dict[str, Any]:
    return {str(status): _refusal(_REFUSALS[status]) for status in statuses}
