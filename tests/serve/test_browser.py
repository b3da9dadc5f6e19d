"""The page in a real browser, whose microphone hears a recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from asrkern.decoder import NGramLM
from tests.cli.tiny import speech
from tests.serve.browser import CHROMIUM, Page, browsing
from tests.serve.live import Live, serving, streaming_searches
from tests.training.tones import RATE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
SPEECH = speech(3)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, SPEECH.numpy(), RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile"), recording) as page:
        yield page


def shown(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('#words .word')].map(each => each.textContent)")


def ready(live: Live, page: Page) -> None:
    page.open(live.url)
    page.until("document.querySelector('#model').textContent === 'deepspeech2_small'")


def test_a_recording(live: Live, page: Page, recording: Path) -> None:
    ready(live, page)
    page.choose(recording)
    page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
    found = json.loads(page.run(SAVED.replace("FORM", "json")))
    assert found["text"] == live.post(recording.read_bytes()).json()["text"]
    assert [word["word"] for word in found["words"]] == shown(page) == found["text"].split()
    assert page.run("document.querySelector('#tail').textContent") == ""
    # Under the spectrogram, where they are said.
    labels = page.run(
        "[...document.querySelectorAll('#labels span')].map(each => [each.textContent, each.offsetLeft])"
    )
    assert labels == [[word["word"], round(100 * word["start"])] for word in found["words"]]
    page.until("document.querySelector('#tiles canvas')")
    # A second is as long above as below.
    width = "document.querySelector('#tiles canvas').getBoundingClientRect().width"
    assert page.run(width) == page.run("document.querySelector('#tiles canvas').width") == 1000
    colours = "new Set(document.querySelector('#tiles canvas').getContext('2d').getImageData(0, 0, 280, 256).data).size"
    assert page.run(colours) > 50
    # On hover, and by keyboard.
    detail = (
        f"{found['words'][1]['word']}: {found['words'][1]['start']:.2f} to {found['words'][1]['end']:.2f} s"
    )
    assert page.run("document.querySelectorAll('#words .word')[1].title").startswith(detail)
    page.run("document.querySelector('#words .word').focus()")
    page.press("ArrowRight", 39)
    assert page.run("document.querySelector('#detail').textContent").startswith(detail)
    for form in ("srt", "vtt"):
        assert " --> " in page.run(SAVED.replace("FORM", form))
    assert page.run(SAVED.replace("FORM", "txt")) == found["text"] + "\n"


# What a download button saves.
SAVED = """{
  const make = URL.createObjectURL;
  let blob;
  URL.createObjectURL = (value) => make.call(URL, (blob = value));
  document.querySelector("[data-form=FORM]").click();
  URL.createObjectURL = make;
  blob.text();
}"""


def test_other_settings_are_tried_on_the_recording(live: Live, page: Page, recording: Path) -> None:
    ready(live, page)
    page.choose(recording)
    page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
    before = shown(page)
    page.run(
        "document.querySelector('#hotwords').value = 'papapa'; document.querySelector('#hotword_weight').value = 20;"
        "document.querySelector('#hotwords').dispatchEvent(new Event('change'))"
    )
    page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
    fields = [("hotwords", "papapa"), ("hotword_weight", "20")]
    assert shown(page) == live.post(recording.read_bytes(), *fields).json()["text"].split() != before


def test_the_language_models_weight_is_tried_on_the_recording(
    page: Page, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("A QNQMAQ S\nPAPA UP A S\n" * 5)
    lm = NGramLM.estimate(tmp_path / "text", order=2, discount_fallback=True)
    with serving(streaming_searches(lm=lm, alpha=0.3)) as searched:
        ready(searched, page)
        shown_weight = "document.querySelector('output[for=alpha]').textContent"
        assert page.run(shown_weight) == "(the server's)"
        assert not page.run("document.querySelector('#alpha').disabled")
        page.choose(recording)
        page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
        usual = shown(page)
        assert usual == searched.post(recording.read_bytes()).json()["text"].split()
        for slider, value in (("alpha", "2"), ("beta", "5")):
            page.run(
                f"document.querySelector('#{slider}').value = {value};"
                f"document.querySelector('#{slider}').dispatchEvent(new Event('input'));"
            )
        page.run("document.querySelector('#alpha').dispatchEvent(new Event('change'))")
        page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
        assert page.run(shown_weight) == "2"
        fields = [("alpha", "2"), ("beta", "5")]
        assert shown(page) == searched.post(recording.read_bytes(), *fields).json()["text"].split() != usual


def test_by_keyboard_alone(live: Live, page: Page, recording: Path) -> None:
    ready(live, page)
    page.choose(recording)
    page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")
    page.until("document.querySelector('#tiles canvas')")
    page.run("document.activeElement.blur(); document.body.focus()")
    reached = []
    # What has the focus is to be seen: it is outlined, or what stands for it.
    outlined = "getComputedStyle(document.activeElement.id === 'file' ? document.querySelector('label[for=file]') : document.activeElement).outlineStyle"
    while len(reached) < 20:
        page.press("Tab", 9)
        if page.run("document.activeElement === document.body"):
            break
        name = "const e = document.activeElement; e.id || e.dataset.form || e.className || e.textContent"
        reached.append(page.run(f"{{ {name} }}"))
        assert page.run(outlined) == "solid", reached
    controls = ["for programs", "microphone", "file", "word", "strip", "txt", "srt", "vtt", "json"]
    # The language model's weight is for a server that has one, the key for one that asks for it.
    assert reached == [*controls, "hotwords", "hotword_weight", "beta"]
    page.run("document.querySelector('#microphone').focus()")
    page.press("Enter", 13, "\r")
    page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'true'")
    page.press(" ", 32, " ")
    page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'false'")
    live.wait_for("asrkern_streams", 0)


def test_the_microphone(live: Live, page: Page) -> None:
    ready(live, page)
    page.run("document.querySelector('#microphone').click()")
    # Words that stay and a rest that does not, while the recording is played.
    page.until(
        "document.querySelectorAll('#words .word').length > 1 && document.querySelector('#tail').textContent"
    )
    told = shown(page)
    # What was heard last is in sight, and not the empty end of its canvas.
    strip = "document.querySelector('#strip')"
    assert page.run(f"{strip}.scrollLeft") == 0 < page.run(f"{strip}.scrollWidth - {strip}.clientWidth")
    page.until("document.querySelector('#tiles canvas')")
    page.run("document.querySelector('#microphone').click()")
    page.until("document.querySelector('#status').textContent.endsWith(' s of audio.')")
    assert shown(page)[: len(told)] == told
    assert page.run("document.querySelector('#microphone').getAttribute('aria-pressed')") == "false"
    assert json.loads(page.run(SAVED.replace("FORM", "json")))["text"].split() == shown(page)
    live.wait_for("asrkern_streams", 0)


def test_a_server_with_a_key(page: Page, recording: Path) -> None:
    with serving(streaming_searches(), key="sesame+open/1") as locked:
        ready(locked, page)
        assert page.run("document.querySelector('#key').checkVisibility()")
        page.choose(recording)
        page.until(
            "document.querySelector('#status').textContent.startsWith('Error: Authorization: expected')"
        )
        page.run("document.querySelector('#microphone').click()")
        page.until(
            "document.querySelector('#status').textContent.startsWith('Error: the server took no stream')"
        )
        page.run("document.querySelector('#key').value = 'sesame+open/1'")
        page.run("document.querySelector('#microphone').click()")
        page.until("document.querySelectorAll('#words .word').length")
        page.run("document.querySelector('#microphone').click()")
        page.until("document.querySelector('#status').textContent.endsWith(' s of audio.')")
        page.choose(recording)
        page.until("document.querySelector('#status').textContent === '3.0 s of audio.'")


def test_what_is_no_recording(live: Live, page: Page, tmp_path: Path) -> None:
    ready(live, page)
    path = tmp_path / "<img src=x onerror=alert(1)>.wav"
    path.write_text("no audio")
    page.choose(path)
    page.until(
        "document.querySelector('#status').textContent.startsWith('Error: file: expected a complete audio file')"
    )


def test_nothing_from_elsewhere_and_no_fault(live: Live, page: Page) -> None:
    """Also on a phone and in the dark, where nothing is wider than the screen."""
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    for path in ("/", "/docs"):
        page.open(live.url + path)
        assert page.run("document.documentElement.scrollWidth") <= 360
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 24)"
        origins = "performance.getEntriesByType('resource').map(each => new URL(each.name).origin)"
        assert set(page.run(origins)) <= {live.url}
    assert not page.complaints
