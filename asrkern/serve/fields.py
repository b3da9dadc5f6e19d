"""What requests may say beside the audio, and its checks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field

from asrkern.serve.refusal import Refusal

Hotword = Annotated[str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class SearchFields(pydantic.BaseModel):
    """The search of one request. Equal ones are computed together."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    hotwords: Annotated[tuple[Hotword, ...], Field(max_length=1000)] = Field(
        default=(),
        description="Words or phrases that are likelier, in place of the server's; the field may be there several times.",
    )
    hotword_weight: Weight = Field(default=10.0, description="Of each hotword, in nats.")
    alpha: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        default=None, description="Weight of the language model. Default: the server's."
    )
    beta: Weight | None = Field(default=None, description="Added for each word. Default: the server's.")

    @property
    def search(self) -> SearchFields:
        """These fields alone."""
        return SearchFields(**{name: getattr(self, name) for name in SearchFields.model_fields})


class TranscriptionFields(SearchFields):
    """The form of ``POST /v1/audio/transcriptions``, but for the file."""

    model: str = Field(default="", max_length=1000, description="Any: the server has one model.")
    language: str = Field(default="", max_length=100, description="Not used: the model's language counts.")
    prompt: str = Field(default="", max_length=10_000, description="Not used; hotwords are what helps.")
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="Not used: the search is deterministic."
    )
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = Field(
        default="json", description="srt, vtt and word times need a CTC model."
    )
    timestamp_granularities: Annotated[tuple[Literal["word", "segment"], ...], Field(max_length=2)] = Field(
        default=(), description="Of verbose_json; also as timestamp_granularities[]. Default: segment."
    )
    stream: Literal["false", "False", "0"] = Field(
        default="false", description="Live results are the WebSocket's."
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> TranscriptionFields:
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise ValueError(
                f"timestamp_granularities: expected the response_format verbose_json, received {self.response_format}"
            )
        return self


class StreamFields(SearchFields):
    """The message ``start`` of a stream."""

    type: Literal["start"]
    rate: int = Field(default=16000, ge=8000, le=192_000, description="Of the samples, in Hz.")


Fields = TypeVar("Fields", bound=SearchFields)


def checked(model: type[Fields], values: Mapping[str, Any]) -> Fields:
    """The values as fields.

    Raises:
        Refusal: 400, which names the field.
    """
    try:
        return model(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        received = "" if name is None else f"{name}: received {str(first['input'])[:100]!r}: "
        raise Refusal(400, received + message, None if name is None else str(first["loc"][0])) from None


def from_form(items: Iterable[tuple[str, str]]) -> TranscriptionFields:
    """The fields of a form. Those that are lists may be there several times, with [] behind their names or without.

    Raises:
        Refusal: 400, a field is unknown, is there twice, or has a value out of its range.
    """
    lists = ("hotwords", "timestamp_granularities")
    values: dict[str, Any] = {}
    for key, value in items:
        name = key.removesuffix("[]") if key.removesuffix("[]") in lists else key
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Refusal(400, f"{name[:100]}: expected once, received it twice", name[:100])
        else:
            values[name] = value
    return checked(TranscriptionFields, values)


def from_message(text: str) -> StreamFields | None:
    """What a text message of a stream says: its fields, or None of ``{"type": "end"}``.

    Raises:
        Refusal: 400, it is no JSON object of these.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"message: expected JSON, received {text[:100]!r}: {error}") from None
    if value == {"type": "end"}:
        return None
    if not isinstance(value, dict):
        raise Refusal(400, f"message: expected an object, received {text[:100]!r}")
    return checked(StreamFields, value)
