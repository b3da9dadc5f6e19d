"""The pictures of docs/serve.md, made by a browser on a server that runs.

    python docs/pictures.py best.safetensors speech.wav

CHECKPOINT: a trained CTC model; of a unidirectional DeepSpeech2 there is a picture of live speech, too. SPEECH: a WAV file
of some seconds. Needs chromium and the extras cli and serve. The pictures go to docs/pictures/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.serve.browser import Page, browsing  # noqa: E402

# Widths and heights in CSS pixels.
DESKTOP, PHONE = (900, 640), (390, 760)


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """The address of a server of its own."""
    command = [sys.executable, "-m", "asrkern", "serve", str(checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stdout if "http://" in line)
            yield line[line.index("http://") :].split()[0].rstrip("/")
        finally:
            process.terminate()
            process.communicate()


def show(page: Page, size: tuple[int, int], scheme: str = "light") -> None:
    width, height = size
    mobile = size == PHONE
    page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
    )
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def take(page: Page, url: str, speech: Path, out: Path) -> None:
    show(page, DESKTOP)
    page.open(url)
    page.until("document.querySelector('#model').textContent")
    if not page.run("document.querySelector('#microphone').disabled"):
        page.run("document.querySelector('#microphone').click()")
        page.until(
            "document.querySelectorAll('#words .word').length > 3 && document.querySelector('#tail').textContent"
        )
        page.picture(out / "live.png")
        page.run("document.querySelector('#microphone').click()")
        page.until("document.querySelector('#status').textContent.endsWith(' s of audio.')")
    page.choose(speech)
    page.until("document.querySelector('#status').textContent.endsWith(' s of audio.')")
    page.until("document.querySelector('#tiles canvas')")
    page.run("document.querySelector('#words .word').focus()")
    page.picture(out / "recording.png")
    show(page, PHONE, "dark")
    page.picture(out / "phone.png")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("speech", type=Path, metavar="SPEECH")
    parser.add_argument("--out", type=Path, default=HERE / "pictures")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as profile,
        serving(given.checkpoint.resolve()) as url,
        browsing(Path(profile), given.speech.resolve()) as page,
    ):
        take(page, url, given.speech.resolve(), given.out)
    print(*sorted(given.out.glob("*.png")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
