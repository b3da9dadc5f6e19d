"""benchmarks/models/pauses.py: what is said between gaps is all that is compared, and what is worse or slower fails."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

from asrkern.recognizer import Transcriber
from benchmarks.models import pauses
from tests.cli.tiny import make_recognizer, speech, write, write_words
from tests.training.tones import RATE


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a corpus whose texts are what the model says in windows."""
    folder, recognizer = tmp_path_factory.mktemp("clips"), make_recognizer("ctc")
    write_words(recognizer)
    for name, seconds in (("clips", (7.0, 9.0, 8.0)), ("recordings", (33.0,))):
        lines = []
        for seed, length in enumerate(seconds):
            samples = speech(length, seed)
            soundfile.write(folder / f"{name}{seed}.wav", samples.numpy(), RATE, subtype="FLOAT")
            text = Transcriber(recognizer).recording(samples).text
            lines.append(
                json.dumps({"audio_filepath": f"{name}{seed}.wav", "duration": length, "text": text})
            )
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    found = [str(write(folder, recognizer)), "--clips", str(folder / "clips.jsonl")]
    return [*found, "--recordings", str(folder / "recordings.jsonl"), "--gaps", "0", "8", "--rounds", "1"]


def test_clips_with_gaps() -> None:
    clips = [torch.full((5,), 0.5), torch.full((3,), -0.5)]
    whole = pauses.tiled(clips, 4)
    assert torch.equal(whole[4:9], clips[0]) and torch.equal(whole[13:], clips[1])
    assert 0 < whole[:4].abs().max() < 0.01
    assert torch.equal(pauses.tiled(clips, 0), torch.cat(clips))


def measured(monkeypatch: pytest.MonkeyPatch, **found: tuple[float, float]) -> None:
    monkeypatch.setattr(
        pauses, "measure", lambda *_: {name: pauses.Measured(*each, 1.0) for name, each in found.items()}
    )


def test_a_table(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = pauses.main(arguments)
    printed = capsys.readouterr().out
    # Which is the faster on so little is not asked.
    assert bool(status) == ("FAILED" in printed)
    assert "3 clips, each for itself: WER 0.00 %" in printed
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line][
        2:
    ]
    assert [row[2] for row in rows] == [*pauses.METHODS] * 3
    assert [row[1] for row in rows[::3]] == ["0.4", "0.8", "0.6"]
    assert all(float(row[4]) > 0 for row in rows) and {*rows[0][6:], *rows[3][6:]} == {"1.00"}
    # The text is that of windows.
    assert rows[6][3] == "0.00 %" and rows[7][3] != "0.00 %"


@pytest.mark.parametrize(
    ("silero", "status"), [((0.5, 2.0), 0), ((0.4, 1.0), 0), ((0.51, 1.0), 1), ((0.1, 2.1), 1)]
)
def test_what_is_worse_or_slower_fails(
    silero: tuple[float, float],
    status: int,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(monkeypatch, windows=(0.5, 2.0), silero=silero, energy=(0.5, 2.0))
    assert pauses.main(arguments) == status
    assert ("FAILED" in capsys.readouterr().out) == bool(status)
