"""Live speech by WebSocket: the words of the whole however it is cut, limits, and clients that vanish."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asrkern.recognizer import Transcriber
from asrkern.serve.fields import StreamFields
from asrkern.serve.limits import Limits
from asrkern.serve.searches import Searches
from tests.cli.tiny import make_deepspeech2, make_recognizer, speech
from tests.serve.live import (
    STREAM,
    Live,
    as_file,
    as_pcm,
    error_of,
    expected_live,
    rounded,
    serving,
    streaming_searches,
)
from tests.training.tones import RATE

PCM = as_pcm(speech(3))
START = json.dumps({"type": "start", "rate": RATE})
END = json.dumps({"type": "end"})
FIELD = st.sampled_from(list(StreamFields.model_fields))


def messages(websocket: Any) -> list[dict[str, Any]]:
    """All that come until the server closes."""
    found = []
    try:
        while True:
            found.append(json.loads(websocket.recv()))
    except ConnectionClosed:
        return found


def listen(live: Live, pcm: bytes, chunk: int, start: str = START) -> list[dict[str, Any]]:
    with live.stream() as websocket:
        websocket.send(start)
        for at in range(0, len(pcm), chunk):
            websocket.send(pcm[at : at + chunk])
        websocket.send(END)
        found = messages(websocket)
        assert websocket.protocol.close_code == 1000
    return found


@pytest.mark.parametrize("chunk", [642, 16_000, 200_000])
def test_the_words_are_those_of_the_whole(live: Live, chunk: int) -> None:
    expected = expected_live(live.searches.recognizer, PCM)
    ready, *partial, final = listen(live, PCM, chunk)
    assert ready == {"type": "ready", "rate": RATE, "normalization_differs": False}
    assert {each["type"] for each in partial} == {"partial"} and final["type"] == "final"
    assert final["text"] == expected.text and final["words"] == rounded(expected.words)
    assert final["duration"] == 3.0 == partial[-1]["seconds"]
    # Each word once, and none of them changed.
    told = [word for each in partial for word in each["words"]]
    assert len(told) > 1 and told == rounded(expected.words)[: len(told)]
    assert " ".join(each["stable"] for each in partial if each["stable"]).split() == [w["word"] for w in told]
    assert [each["seconds"] for each in partial] == sorted(each["seconds"] for each in partial)


def test_results_come_while_audio_does(live: Live) -> None:
    with live.stream() as websocket:
        websocket.send(START)
        assert json.loads(websocket.recv())["type"] == "ready"
        for done in (1, 2, 3):
            websocket.send(PCM[2 * RATE * (done - 1) : 2 * RATE * done])
            partial = json.loads(websocket.recv())
            assert partial["seconds"] == done and partial["stable"] + partial["tail"]
        websocket.send(END)
        assert json.loads(websocket.recv())["text"] == expected_live(live.searches.recognizer, PCM).text


def test_without_a_start_it_is_16_khz(live: Live) -> None:
    with live.stream() as websocket:
        websocket.send(PCM)
        websocket.send(END)
        ready, *_, final = messages(websocket)
    assert ready["rate"] == 16000 and final["duration"] == 1.5


def test_a_stream_without_audio(live: Live) -> None:
    for first in ([], [START]):
        with live.stream() as websocket:
            for message in [*first, END]:
                websocket.send(message)
            _, final = messages(websocket)
        assert (final["text"], final["words"], final["duration"]) == ("", [], 0)


def test_hotwords(live: Live) -> None:
    start = {"type": "start", "rate": RATE, "hotwords": ["papapa"], "hotword_weight": 50}
    options = {"hotwords": ["PAPAPA"], "hotword_weight": 50}
    expected = expected_live(live.searches.recognizer, PCM, **options)
    assert listen(live, PCM, 8000, json.dumps(start))[-1]["text"] == expected.text
    assert expected.text != expected_live(live.searches.recognizer, PCM).text


BAD = {
    "no JSON": ("{", "expected JSON"),
    "deep JSON": ("[" * 100_000, "expected JSON"),
    "no object": ("[1]", "expected an object"),
    "no type": ("{}", "type"),
    "another type": ('{"type": "begin"}', "type: received 'begin'"),
    "an unknown field": ('{"type": "start", "path": "/etc/passwd"}', "path"),
    "a rate of 0": ('{"type": "start", "rate": 0}', "rate: received '0'"),
    "a rate of ten million": ('{"type": "start", "rate": 10000000}', "rate"),
    "hotwords without labels": ('{"type": "start", "hotwords": ["1"]}', "'1' has no label"),
    "NaN": ('{"type": "start", "alpha": NaN}', "alpha"),
    "half a sample": (b"\0\0\0", "expected whole samples of 16 bits, received 3 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_messages(live: Live, kind: str) -> None:
    message, said = BAD[kind]
    with live.stream() as websocket:
        websocket.send(message)
        [error] = messages(websocket)
        assert error["type"] == "error" and said in error["error"]["message"]
        assert websocket.protocol.close_code == 1007
    assert listen(live, PCM, 16_000)[-1]["type"] == "final"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(FIELD | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
MESSAGE = (
    st.binary(max_size=4000)
    | st.text(max_size=50)
    | JSON.map(json.dumps)
    | st.sampled_from([START, END, PCM[:9000]])
)


@settings(max_examples=40, deadline=None, database=None)
@given(st.lists(MESSAGE, max_size=5))
def test_generated_messages(live: Live, sent: list[bytes | str]) -> None:
    with live.stream() as websocket:
        with suppress(ConnectionClosed):
            for message in [*sent, END]:
                websocket.send(message)
        last = messages(websocket)[-1]
        assert (last["type"], websocket.protocol.close_code) in {("final", 1000), ("error", 1007)}


def test_what_was_heard_before_a_bad_message_is_told(live: Live) -> None:
    for bad in ("{", START, b"\0"):
        with live.stream() as websocket:
            websocket.send(START)
            websocket.send(PCM)
            websocket.send(bad)
            *_, final, error = messages(websocket)
        assert final["text"] == expected_live(live.searches.recognizer, PCM).text
        assert error["error"]["message"] and error["type"] == "error"


def test_messages_that_are_too_large(live: Live) -> None:
    with live.stream() as websocket:
        websocket.send(bytes(1 << 19))
        messages(websocket)
        assert websocket.protocol.close_code == 1009


def test_streams_that_are_too_long_or_silent() -> None:
    with serving(streaming_searches(), Limits(audio_seconds=2, idle_seconds=1)) as live:
        with live.stream() as websocket:
            websocket.send(START)
            for at in range(0, len(PCM), RATE):
                websocket.send(PCM[at : at + RATE])
            *_, final, error = messages(websocket)
            assert final["duration"] == 2.0 and "at most 2 s of audio" in error["error"]["message"]
            assert websocket.protocol.close_code == 1009
        for first in ([], [START, PCM[:100]]):
            with live.stream() as websocket:
                for message in first:
                    websocket.send(message)
                assert "expected a message within 1 s" in messages(websocket)[-1]["error"]["message"]
                assert websocket.protocol.close_code == 1008


def test_places_for_streams() -> None:
    with serving(streaming_searches(), Limits(streams=2)) as live:
        with live.stream() as one, live.stream() as other:
            live.wait_for("asrkern_streams", 2)
            with pytest.raises(InvalidStatus) as refused, live.stream():
                pass
            response = refused.value.response
            assert response.status_code == 429 and int(response.headers["Retry-After"]) > 0
            assert json.loads(response.body)["error"]["type"] == "rate_limit_error"
            for websocket in (one, other):
                websocket.send(END)
                assert messages(websocket)[-1]["type"] == "final"
        live.wait_for("asrkern_streams", 0)
        assert listen(live, PCM, 16_000)[-1]["type"] == "final"


def test_a_client_that_vanishes_takes_nothing_with_it() -> None:
    """Its place is free, other streams go on, and say what they would have said."""
    with serving(streaming_searches(), Limits(streams=4)) as live, live.stream() as stays:
        stays.send(START)
        stays.send(PCM[:20_000])
        for _ in range(2):
            gone = [live.stream().__enter__() for _ in range(3)]
            for websocket in gone:
                websocket.send(START)
                websocket.send(PCM[:30_000])
            live.wait_for("asrkern_streams", 4)
            for websocket in gone:
                # As a machine that is switched off: no goodbye.
                websocket.socket.shutdown(2)
            live.wait_for("asrkern_streams", 1)
        stays.send(PCM[20_000:])
        stays.send(END)
        assert messages(stays)[-1]["text"] == expected_live(live.searches.recognizer, PCM).text
        assert live.count(f'asrkern_answers_total{{endpoint="{STREAM}",status="gone"}}') == 6


def test_many_streams_and_recordings_at_once(live: Live) -> None:
    texts: dict[int, str] = {}
    sounds = [as_pcm(speech(2, seed)) for seed in range(8)]

    def ask(index: int) -> None:
        if index % 4:
            texts[index] = listen(live, sounds[index], 1234)[-1]["text"]
        else:
            texts[index] = live.post(as_file(speech(2, index), subtype="FLOAT")).json()["text"]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recognizer = live.searches.recognizer
    for index, sound in enumerate(sounds):
        whole = Transcriber(recognizer, beam_width=8).recording(speech(2, index))
        assert texts[index] == (expected_live(recognizer, sound) if index % 4 else whole).text


def test_a_client_faster_than_the_model_waits() -> None:
    """What it has sent beyond thirty seconds stays in the connection, and nothing is lost."""
    with serving(streaming_searches()) as live:
        pcm = PCM * 30
        found = listen(live, pcm, 100_000)
        assert found[-1]["duration"] == 90.0
        assert found[-1]["text"] == expected_live(live.searches.recognizer, pcm).text


def test_models_that_hear_no_live_speech() -> None:
    with serving(Searches(make_recognizer("ctc"), beam_width=4)) as live:
        assert live.get("/healthz").json()["streams"] is False
        with pytest.raises(InvalidStatus) as refused, live.stream():
            pass
        assert b"expected a unidirectional DeepSpeech2" in refused.value.response.body
        assert live.post(as_file(speech(1))).status == 200


def test_features_that_differ_are_told() -> None:
    with serving(Searches(make_deepspeech2(normalization="utterance"), beam_width=4)) as live:
        assert listen(live, PCM, 16_000)[0]["normalization_differs"] is True


def test_a_plain_request(live: Live) -> None:
    response = live.get(STREAM)
    error_of(response, 426, "expected a WebSocket handshake")
    assert response.headers["Upgrade"] == "websocket"
