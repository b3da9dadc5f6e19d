"""What a browser is shown: the page, its scripts, and ``/docs``, all of it from this package."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_TYPES = {"css": "text/css", "js": "text/javascript", "html": "text/html", "svg": "image/svg+xml"}
# Nothing from elsewhere, and no page of another server around it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes(description: dict[str, Any]) -> list[Route]:
    """The page at ``/``, its files at ``/page/NAME``, the documentation at ``/docs``.

    The files are read once: no name that a client sends is opened.
    """
    routes = []
    for file in resources.files("asrkern.serve").joinpath("page").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is None:
            continue
        shown = _always(Response(file.read_bytes(), media_type=kind, headers=_HEADERS))
        routes.append(Route("/" if file.name == "index.html" else f"/page/{file.name}", shown))
    docs = _always(HTMLResponse(documentation(description), headers=_HEADERS))
    return [*routes, Route("/docs", docs)]


def _always(response: Response) -> Any:
    async def show(request: Request) -> Response:
        return response

    return show


def documentation(description: dict[str, Any]) -> str:
    """An OpenAPI description as a plain page."""
    parts = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    for name, schema in description["components"]["schemas"].items():
        source = html.escape(json.dumps(schema, indent=2))
        parts.append(f"<h2>{name}</h2>\n<pre>{source}</pre>")
    title = html.escape(f"{description['info']['title']} {description['info']['version']}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="/page/icon.svg"><link rel="stylesheet" href="/page/style.css"></head>\n'
        f'<body><main class="docs"><h1>{title}</h1>\n<p>{html.escape(description["info"]["description"])} '
        'The same for programs: <a href="/openapi.json">openapi.json</a>. <a href="/">The page</a>.</p>\n'
        + "\n".join(parts)
        + "</main></body></html>\n"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    parts = [
        f"<h2><code>{method.upper()} {path}</code></h2>",
        f"<p><strong>{html.escape(operation['summary'])}.</strong></p>",
        _prose(operation.get("description", "")),
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows = [
            (
                f"<code>{name}</code>",
                html.escape(_kind(field)),
                _code(html.escape(field.get("description", ""))),
            )
            for name, field in content["schema"]["properties"].items()
        ]
        parts.append(_table((f"field of {kind}", "values", "meaning"), rows))
    rows = [
        (status, _code(html.escape(each["description"]))) for status, each in operation["responses"].items()
    ]
    return [*parts, _table(("status", "meaning"), rows)]


def _kind(field: dict[str, Any]) -> str:
    """A field's values in words."""
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if field["type"] == "array":
        return f"several: {_kind(field['items'])}"
    bounds = [field[key] for key in ("minimum", "maximum") if key in field]
    return field.get("format") or field["type"] + (f", {bounds[0]:g} to {bounds[1]:g}" if bounds else "")


def _prose(text: str) -> str:
    """Paragraphs and lists of a description, whose lines begin with "- "."""
    blocks = []
    for block in html.escape(text, quote=False).split("\n\n"):
        items = re.split(r"^- ", block, flags=re.MULTILINE)
        if len(items) == 1:
            blocks.append(f"<p>{_code(block)}</p>")
        else:
            blocks.append("<ul>" + "".join(f"<li>{_code(item)}</li>" for item in items[1:]) + "</ul>")
    return "\n".join(blocks)


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = ["".join(f"<th>{cell}</th>" for cell in head)]
    cells += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return '<div class="wide"><table>' + "".join(f"<tr>{each}</tr>" for each in cells) + "</table></div>"
