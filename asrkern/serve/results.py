"""Transcripts in the forms of answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from asrkern.recognizer import SpokenWord, Transcript
from asrkern.recognizer.subtitles import captions, subtitles
from asrkern.serve.batching import Heard
from asrkern.serve.fields import TranscriptionFields
from asrkern.serve.refusal import Refusal

_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}


def check_form(fields: TranscriptionFields, has_times: bool) -> None:
    """Raise a Refusal, 400, of a form that a model without word times does not have."""
    if has_times:
        return
    if fields.response_format in _TYPES:
        expected = "json, text or verbose_json, since the model tells no times"
        message = f"response_format: expected {expected}, received {fields.response_format}"
        raise Refusal(400, message, "response_format")
    if fields.timestamp_granularities:
        raise Refusal(
            400,
            "timestamp_granularities: expected none, since the model tells no times",
            "timestamp_granularities",
        )


def answer(heard: Heard, fields: TranscriptionFields) -> Response:
    """What the client gets."""
    form = fields.response_format
    if form == "text":
        return PlainTextResponse(heard.transcript.text + "\n")
    if form in _TYPES:
        return Response(subtitles(heard.transcript, form), media_type=_TYPES[form])
    if form == "json":
        return JSONResponse({"text": heard.transcript.text})
    granularities = fields.timestamp_granularities or ("segment",)
    return JSONResponse(verbose(heard.transcript, heard.seconds, granularities))


def verbose(transcript: Transcript, seconds: float, granularities: Collection[str]) -> dict[str, Any]:
    """Text, length in seconds, and words and segments with their times where the model tells them."""
    value = {
        "task": "transcribe",
        "language": "und",
        "duration": round(seconds, 3),
        "text": transcript.text,
    }
    if transcript.words is None:
        return value
    if "segment" in granularities:
        value["segments"] = [
            {
                "id": number,
                "start": round(caption.start_seconds, 3),
                "end": round(caption.end_seconds, 3),
                "text": caption.text,
            }
            for number, caption in enumerate(captions(transcript))
        ]
    if "word" in granularities:
        value["words"] = as_json(transcript.words)
    return value


def as_json(words: Iterable[SpokenWord]) -> list[dict[str, Any]]:
    """Words with start and end in seconds, and confidences."""
    return [
        {
            "word": word.text,
            "start": round(word.start_seconds, 3),
            "end": round(word.end_seconds, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in words
    ]
