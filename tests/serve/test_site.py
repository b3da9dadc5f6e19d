"""What a browser gets, and what the description says."""

from __future__ import annotations

import re

from asrkern.serve.description import describe
from asrkern.serve.fields import TranscriptionFields
from tests.serve.live import STREAM, TRANSCRIPTIONS, Live


def test_the_page_needs_nothing_from_elsewhere(live: Live) -> None:
    seen, left = set(), {"/", "/docs"}
    while left:
        path = left.pop()
        seen.add(path)
        response = live.get(path)
        assert response.status == 200, path
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        text = response.data.decode()
        if not path.endswith(".svg"):
            assert not re.search(r"https?://|data:|@import", text), path
        left |= set(re.findall(r"""["'](/page/[\w.]+)["']""", text)) - seen
    assert {path.rpartition("/")[2] for path in seen} >= {
        "style.css",
        "main.js",
        "recorder.js",
        "icon.svg",
        "docs",
    }


def test_kinds_of_files(live: Live) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/page/main.js", "text/javascript"),
        ("/page/style.css", "text/css"),
    ):
        response = live.get(path)
        assert response.headers["Content-Type"].startswith(kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_both_interfaces_are_documented(live: Live) -> None:
    text = live.get("/docs").data.decode()
    for name in (TRANSCRIPTIONS, STREAM, "/healthz", "/metrics", *TranscriptionFields.model_fields):
        assert f"{name}</code>" in text, name
    assert "verbose_json" in text and "{&quot;type&quot;: &quot;end&quot;}" in text.replace('"', "&quot;")
    for status in (400, 401, 403, 408, 413, 415, 429, 503):
        assert f"<td>{status}</td>" in text


def test_the_description_is_openapi(live: Live) -> None:
    description = live.get("/openapi.json").json()
    assert description == describe(key_needed=False) and description["openapi"] == "3.1.0"
    form = description["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"][
        "schema"
    ]
    assert form["required"] == ["file"] and set(form["properties"]) == {
        "file",
        *TranscriptionFields.model_fields,
    }
    references = re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(description))
    assert set(references) <= set(description["components"]["schemas"])


def test_metrics_are_prometheus_text(live: Live) -> None:
    response = live.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    sample = r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [\d.e+-]+'
    for line in response.data.decode().splitlines():
        assert re.fullmatch(rf"# (HELP|TYPE) [a-z_]+ .+|{sample}", line), line
