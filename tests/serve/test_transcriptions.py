"""Recordings by HTTP: forms of answers, what is refused, and a server that lives on."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
import urllib3

from asrkern.data import load_audio, make_detector
from asrkern.decoder import NGramLM
from asrkern.recognizer import Transcriber
from asrkern.recognizer.subtitles import captions, subtitles
from asrkern.serve.limits import Limits
from asrkern.serve.searches import Searches
from tests.cli.tiny import make_recognizer, speech
from tests.data.films import write
from tests.serve.live import (
    TRANSCRIPTIONS,
    Live,
    as_file,
    as_pcm,
    error_of,
    expected,
    from_pcm,
    rounded,
    serving,
    streaming_searches,
)
from tests.training.tones import RATE

SPEECH = speech(2.5)


def test_forms_of_answers(live: Live) -> None:
    audio = as_file(SPEECH, subtype="FLOAT")
    found = expected(live.searches.recognizer, SPEECH)
    assert len(found.words) > 1
    answers = {
        form: live.post(audio, ("response_format", form))
        for form in ("json", "text", "srt", "vtt", "verbose_json")
    }
    assert {form: answer.status for form, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert answers["json"].json() == {"text": found.text}
    assert answers["text"].data.decode() == found.text + "\n"
    for form in ("srt", "vtt"):
        assert answers[form].data.decode() == subtitles(found, form)
    segments = [
        (each["start"], each["end"], each["text"]) for each in answers["verbose_json"].json()["segments"]
    ]
    assert segments == [(round(c.start_seconds, 3), round(c.end_seconds, 3), c.text) for c in captions(found)]
    assert "words" not in answers["verbose_json"].json()
    fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")]
    value = live.post(audio, *fields).json()
    assert value["words"] == rounded(found.words) and "segments" not in value
    assert value["duration"] == 2.5 and value["text"] == found.text


@pytest.mark.parametrize("form", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_forms_of_recordings(live: Live, form: tuple[str, str]) -> None:
    assert live.post(as_file(SPEECH, RATE, *form)).json()["text"]


@pytest.mark.parametrize("rate", [1000, 11025, 48000, 384_000])
def test_rates(live: Live, rate: int) -> None:
    silence = as_file(torch.zeros(rate), rate)
    assert live.post(silence, ("response_format", "verbose_json")).json()["duration"] == 1.0


def test_what_openai_s_clients_send_beside(live: Live) -> None:
    fields = [
        ("model", "whisper-1"),
        ("language", "en"),
        ("prompt", "x"),
        ("temperature", "0"),
        ("stream", "false"),
    ]
    assert live.post(as_file(SPEECH), *fields).status == 200


def test_the_sound_of_films(live: Live, tmp_path: Path) -> None:
    pytest.importorskip("av")
    film = write(tmp_path / "a.webm", "libopus", seconds=2)
    found = expected(live.searches.recognizer, load_audio(film, live.searches.sample_rate))
    answer = live.post(film.read_bytes(), ("response_format", "text"), name="a.webm")
    assert answer.status == 200 and answer.data.decode() == found.text + "\n"


def test_long_recordings_are_cut_at_pauses(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tones are no speech to a network.
    monkeypatch.setattr(live.searches, "detector", make_detector("energy", RATE))
    pause = 1e-4 * torch.randn(8 * RATE)
    samples = torch.cat([part for seed in range(3) for part in (speech(9, seed=seed), pause)])
    searches = live.searches
    found = expected(searches.recognizer, samples, detector=searches.detector)
    assert len(found.segments) > 1
    answer = live.post(as_file(samples, subtype="FLOAT"), ("response_format", "text"))
    assert answer.status == 200 and answer.data.decode() == found.text + "\n"


BAD_FILES = {
    "empty": (b"", "received an empty file"),
    "no audio": (b"not audio, but text " * 50, "expected a complete audio file"),
    "no samples": (as_file(torch.zeros(0)), "expected audio, received none"),
    "cut off": (as_file(SPEECH)[:5000], "it is truncated"),
    "too short": (as_file(torch.zeros(9)), "file: "),
    "not a number": (as_file(SPEECH * torch.nan, subtype="FLOAT"), "NaN or infinity"),
    "beyond all loudness": (as_file(SPEECH * 1e38, subtype="FLOAT"), "file: "),
    "a rate of 1 Hz": (as_file(torch.zeros(20), 1), "expected a rate of 1000 to 384000 Hz, received 1 Hz"),
    "m4a": (b"\0\0\0\x20ftypM4A " + bytes(100), "received MPEG-4|refuses"),  # without PyAV, and with it
    "a tenth of a header": (as_file(SPEECH)[:10], "file: "),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(live: Live, kind: str) -> None:
    audio, message = BAD_FILES[kind]
    assert error_of(live.post(audio), 400, message)["param"] == "file"
    assert live.post(as_file(SPEECH)).status == 200


BAD_FIELDS = {
    "response_format": "xml",
    "timestamp_granularities": "letter",
    "temperature": "nan",
    "alpha": "-1",
    "beta": "1e9",
    "hotword_weight": "inf",
    "hotwords": "1@2",
    "stream": "true",
    "no_such_field": "1",
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields(live: Live, name: str) -> None:
    assert error_of(live.post(as_file(SPEECH), (name, BAD_FIELDS[name])), 400, name)["param"] == name


def test_fields_that_do_not_fit_together(live: Live) -> None:
    audio = as_file(SPEECH)
    error_of(
        live.post(audio, ("timestamp_granularities[]", "word")),
        400,
        "expected the response_format verbose_json",
    )
    error_of(live.post(audio, ("alpha", "1"), ("alpha", "2")), 400, "alpha: expected once")
    error_of(live.post(audio, ("file", ("b.wav", audio))), 400, "Too many files")
    error_of(live.post(audio, ("file", "text")), 400, "no_such|file|Extra")


def test_bodies_that_are_no_forms(live: Live) -> None:
    def post(body: bytes, kind: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("POST", live.url + TRANSCRIPTIONS, body=body, headers={"Content-Type": kind})

    error_of(post(b"{}", "application/json"), 415, "received 'application/json'")
    error_of(post(b"", ""), 415, "Content-Type")
    error_of(post(b"rubbish", "multipart/form-data"), 400, "boundary")
    error_of(post(b"rubbish", "multipart/form-data; boundary=x"), 400, "expected a form")
    error_of(post(b"--x\r\n\r\nno name\r\n--x--\r\n", "multipart/form-data; boundary=x"), 400, "name")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", TRANSCRIPTIONS, 405), ("POST", "/healthz", 405), ("GET", "/page/%2e%2e/app.py", 404)],
)
def test_other_paths_and_methods(live: Live, method: str, path: str, status: int) -> None:
    error_of(urllib3.request(method, live.url + path, retries=False), status, f"{method} /")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../../../etc/passwd", "a\0b", "", "\r\nX: y", "ü" * 300, "-"]
)
def test_hostile_file_names_are_only_names(live: Live, name: str) -> None:
    audio = as_file(SPEECH.repeat(8), subtype="DOUBLE")
    # What is imported at first use is imported.
    assert live.post(audio).status == 200
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    # It cannot be taken away again.
    sys.addaudithook(watch)
    try:
        response = live.post(audio, name=name)
    finally:
        watching = False
    assert len(audio) > 1 << 20, "as much as is not kept in memory alone"
    assert response.status == 200
    # The folder, where a file without a name is made, and that file by its number.
    assert opened and all(path == tempfile.gettempdir() or path.isdecimal() for path in opened)


def test_recordings_that_are_too_large_or_long() -> None:
    with serving(streaming_searches(), Limits(upload_mib=1, audio_seconds=5)) as live:
        error_of(live.post(as_file(speech(5.1))), 413, "at most 5 s of audio")
        # Ten hours in a few bytes: of a form that does not tell its length, and of one that does.
        hours = torch.zeros(10 * 3600 * 1000)
        error_of(live.post(as_file(hours, 1000, "FLAC")), 413, "at most 5 s of audio")
        error_of(
            live.post(as_file(hours[:3_600_000], 8000, "MP3", "MPEG_LAYER_III")), 413, "at most 5 s of audio"
        )
        error_of(live.post(bytes(1 << 20)), 413, "body: expected at most 1048576 bytes, received 1048")
        assert live.post(as_file(speech(5))).status == 200


def chunked(path: str, *parts: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


def test_uploads_that_stop() -> None:
    """Of a client that is silent, and of one that goes; also one without a declared size that never ends."""
    with serving(streaming_searches(), Limits(upload_mib=1, requests=2, idle_seconds=1)) as live:
        silent = live.raw(chunked(TRANSCRIPTIONS, HEAD, as_file(SPEECH)[:1000]))
        assert silent.recv(12) == b"HTTP/1.1 408"
        silent.close()
        gone = live.raw(chunked(TRANSCRIPTIONS, HEAD, as_file(SPEECH)[:1000]))
        gone.close()
        endless = live.raw(chunked(TRANSCRIPTIONS, HEAD, *[bytes(1 << 18)] * 4))
        assert endless.recv(12) == b"HTTP/1.1 413"
        endless.close()
        live.wait_for("asrkern_recordings", 0)
        assert live.post(as_file(SPEECH)).status == 200


def test_a_queue_that_is_full() -> None:
    with serving(streaming_searches(), Limits(requests=1)) as live:
        first = live.raw(chunked(TRANSCRIPTIONS, HEAD, as_file(SPEECH)))
        live.wait_for("asrkern_recordings", 1)
        refused = live.post(as_file(SPEECH))
        assert error_of(refused, 429, "at most 1 recordings at once")["type"] == "rate_limit_error"
        assert int(refused.headers["Retry-After"]) > 0
        first.sendall(b"7\r\n\r\n--x--\r\n0\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 200"
        live.wait_for("asrkern_recordings", 0)
        assert live.post(as_file(SPEECH)).status == 200


class Held(Searches):
    """Searches whose computing waits until it may go on."""

    def __init__(self) -> None:
        usual = streaming_searches()
        super().__init__(usual.recognizer, beam_width=8)
        self.may_go, self.reached = threading.Event(), threading.Event()
        found = self.of

        def held(fields: object) -> Transcriber:
            self.reached.set()
            self.may_go.wait()
            return found(fields)

        self.of = held


def test_computing_that_takes_too_long() -> None:
    searches = Held()
    with serving(searches, Limits(request_seconds=2)) as live:
        late = live.post(as_file(SPEECH))
        error_of(late, 503, "expected a result within 2 s")
        assert int(late.headers["Retry-After"]) > 0
        searches.may_go.set()
        assert live.post(as_file(SPEECH)).status == 200


def test_clients_that_vanish_while_they_wait() -> None:
    """What others asked is answered, and what nobody waits for is not computed."""
    searches = Held()
    body = b"".join((HEAD, as_file(SPEECH), b"\r\n--x--\r\n"))
    with serving(searches) as live:
        first = live.raw(chunked(TRANSCRIPTIONS, body), b"0\r\n\r\n")
        searches.reached.wait()
        gone = [live.raw(chunked(TRANSCRIPTIONS, body), b"0\r\n\r\n") for _ in range(3)]
        live.wait_for("asrkern_waiting", 3)
        for each in gone:
            each.close()
        live.wait_for("asrkern_recordings", 1)
        searches.may_go.set()
        assert first.recv(12) == b"HTTP/1.1 200"
        assert live.post(as_file(SPEECH)).status == 200
        assert live.count("asrkern_batch_size_count") == live.count("asrkern_batch_size_sum") == 2


def test_requests_that_wait_together_have_the_bits_of_those_alone() -> None:
    searches = Held()
    recordings = [
        from_pcm(as_pcm(speech(seconds, seed))) for seed, seconds in enumerate((0.9, 2.2, 1.4, 0.6, 3.0))
    ]
    fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")]
    answers: dict[int, object] = {}

    def ask(live: Live, index: int, *more: tuple[str, str]) -> None:
        answers[index] = live.post(as_file(recordings[index % 5]), *fields, *more).json()

    with serving(searches) as live:
        threads = [threading.Thread(target=ask, args=(live, 0))]
        threads[0].start()
        searches.reached.wait()
        for index in range(1, 6):
            # One asks for another search.
            more = [("hotwords[]", "ab"), ("hotword_weight", "3")] if index == 5 else []
            threads.append(threading.Thread(target=ask, args=(live, index, *more)))
            threads[-1].start()
        live.wait_for("asrkern_waiting", 5)
        searches.may_go.set()
        for thread in threads:
            thread.join()
        assert (
            live.count('asrkern_batch_size_bucket{le="4"}') - live.count('asrkern_batch_size_bucket{le="2"}')
            == 1
        )
        for index, each in enumerate(recordings):
            assert answers[index]["words"] == rounded(expected(searches.recognizer, each).words)
        alone = live.post(as_file(recordings[0]), *fields, ("hotwords", "ab"), ("hotword_weight", "3")).json()
        assert answers[5] == alone != answers[0]


def test_one_bad_recording_harms_no_other_in_its_batch() -> None:
    searches = Held()
    loud = as_file(SPEECH * 1e38, subtype="FLOAT")
    statuses: dict[int, int] = {}

    def ask(live: Live, index: int) -> None:
        statuses[index] = live.post(loud if index == 2 else as_file(SPEECH)).status

    with serving(searches) as live:
        threads = [threading.Thread(target=ask, args=(live, index)) for index in range(4)]
        threads[0].start()
        searches.reached.wait()
        for thread in threads[1:]:
            thread.start()
        live.wait_for("asrkern_waiting", 3)
        searches.may_go.set()
        for thread in threads:
            thread.join()
    assert statuses == {0: 200, 1: 200, 2: 400, 3: 200}


def test_hotwords_and_the_language_model_s_weight(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("A QNQMAQ S\nPAPA UP A S\n" * 5)
    lm = NGramLM.estimate(text, order=2, discount_fallback=True)
    searches = streaming_searches(lm=lm, alpha=0.3)
    recognizer = searches.recognizer
    with serving(searches) as live:
        audio = as_file(SPEECH, subtype="FLOAT")

        def said(*fields: tuple[str, str]) -> str:
            return live.post(audio, *fields).json()["text"]

        assert live.get("/healthz").json()["language_model"] is True
        usual = expected(recognizer, SPEECH, lm=lm, alpha=0.3).text
        heavy = expected(recognizer, SPEECH, lm=lm, alpha=4.0, beta=2.0).text
        hot = expected(recognizer, SPEECH, lm=lm, alpha=0.3, hotwords=["PAPAPA"], hotword_weight=50).text
        assert len({usual, heavy, hot}) == 3
        assert said() == said(("alpha", "0.3")) == usual
        assert said(("alpha", "4"), ("beta", "2")) == heavy
        # In the case of the model's texts.
        assert said(("hotwords", "papapa"), ("hotword_weight", "50")) == hot


def test_a_model_without_word_times() -> None:
    with serving(Searches(make_recognizer("attention"))) as live:
        assert live.get("/healthz").json()["word_times"] is False
        audio = as_file(SPEECH)
        assert set(live.post(audio).json()) == {"text"}
        assert "words" not in live.post(audio, ("response_format", "verbose_json")).json()
        error_of(live.post(audio, ("response_format", "srt")), 400, "the model tells no times")
        error_of(live.post(audio, ("hotwords", "a")), 400, "hotwords: expected none")
        fields = [("response_format", "verbose_json"), ("timestamp_granularities", "word")]
        error_of(live.post(audio, *fields), 400, "timestamp_granularities: expected none")


def test_models_that_write_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one that writes what it hears, received conv_rnn"):
        Searches(make_recognizer("classify"))


def test_what_is_shown_of_it(live: Live) -> None:
    health = json.loads(live.get("/healthz").data)
    assert health["status"] == "ok" and health["model"] == "deepspeech2_small" and health["streams"]
    before = live.count("asrkern_audio_seconds_total")
    live.post(as_file(SPEECH))
    assert live.count("asrkern_audio_seconds_total") - before == 2.5
