"""Who may ask."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
import urllib3
from websockets.exceptions import InvalidStatus

from asrkern.serve.guard import KEY_VARIABLE, key_from
from tests.cli.tiny import speech
from tests.serve.live import TRANSCRIPTIONS, Live, as_file, error_of, serving, streaming_searches

KEY = "sesame+open/{0}"


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    with serving(streaming_searches(), key=KEY, origins=["https://friend.example"], loopback=False) as live:
        yield live


def handshake(live: Live, **options: object) -> int:
    try:
        with live.stream(**options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_pages_of_other_servers(live: Live) -> None:
    own = live.url
    for origin, allowed in (
        (own, True),
        (own.replace("http:", "https:"), True),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:1", False),
        ("https://evil.example", False),
        (f"https://evil.example/{own}", False),
        ("null", False),
        ("", False),
    ):
        response = live.post(as_file(speech(0.5)), Origin=origin)
        assert response.status == (200 if allowed else 403), origin
        assert "Access-Control-Allow-Origin" not in response.headers
        assert handshake(live, origin=origin or "x") == (101 if allowed else 403), origin


def test_names_of_other_machines(live: Live) -> None:
    """A page of evil.example, a name that leads to this machine, has the server's own origin."""
    host = f"evil.example:{live.port}"
    error_of(live.get("/", Host=host, Origin=f"http://{host}"), 403, "expected a name of this machine")
    for name in ("localhost", f"localhost:{live.port}", "[::1]:80", "127.0.0.2"):
        assert live.get("/healthz", Host=name).status == 200, name


def test_the_key(locked: Live) -> None:
    audio = as_file(speech(0.5))
    for given in (
        {},
        {"Authorization": "Bearer no"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
    ):
        refused = locked.post(audio, **given)
        error_of(refused, 401, "expected 'Bearer KEY'")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    right = {"Authorization": f"Bearer {KEY}"}
    assert locked.post(audio, **right).status == 200
    assert locked.get("/metrics").status == 401 and locked.get("/metrics", **right).status == 200
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/page/main.js"):
        assert locked.get(path).status == 200, path
    assert locked.get("/openapi.json").json()["security"] == [{"key": []}]
    assert KEY not in locked.get("/docs").data.decode()


def test_the_key_of_a_websocket(locked: Live) -> None:
    encoded = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    assert handshake(locked) == 401
    assert handshake(locked, subprotocols=["asrkern", "key.AAAA"]) == 401
    assert handshake(locked, subprotocols=["asrkern", "key.!"]) == 401
    assert handshake(locked, subprotocols=["asrkern", f"key.{encoded}"]) == 101
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert handshake(locked, additional_headers=bearer) == 101


def test_keys_that_headers_do_not_carry() -> None:
    assert key_from({}) is key_from({KEY_VARIABLE: ""}) is None and key_from({KEY_VARIABLE: KEY}) == KEY
    for key in ("öffne", "two words", "a\n"):
        with pytest.raises(
            ValueError, match="ASRKERN_API_KEY: expected ASCII characters without spaces"
        ) as raised:
            key_from({KEY_VARIABLE: key})
        assert key not in str(raised.value)


def test_refusals_are_no_faults(locked: Live, caplog: pytest.LogCaptureFixture) -> None:
    assert handshake(locked) == 401 and handshake(locked, origin="https://evil.example") == 403
    assert not caplog.records


def test_pages_that_are_named_may_ask(locked: Live) -> None:
    friend = "https://friend.example"
    right = {"Authorization": f"Bearer {KEY}", "Origin": friend}
    response = locked.post(as_file(speech(0.5)), **right)
    assert response.status == 200 and response.headers["Access-Control-Allow-Origin"] == friend
    assert locked.post(as_file(speech(0.5)), **{**right, "Origin": "https://other.example"}).status == 403
    asked = {
        "Origin": friend,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = urllib3.request("OPTIONS", locked.url + TRANSCRIPTIONS, headers=asked)
    assert preflight.status == 200 and "POST" in preflight.headers["Access-Control-Allow-Methods"]
