"""benchmarks/models/streaming.py: chunks are compared with the whole, and what differs is not timed."""

from asrkern.models import StreamingDeepSpeech2
from benchmarks.models import streaming


def run(*arguments):
    return streaming.main(["--max-seconds", "1", "--chunk-ms", "700", "--beam-width", "4", *arguments])


def test_table(capsys):
    assert run("--quantize", "int8") == 0
    printed = capsys.readouterr().out
    assert "output behind the audio: 1020 ms on average, at most 1490 ms" in printed
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and rows[2][0].strip() == "700"
    assert all(float(cell) > 0 for cell in rows[2])


def test_low_latency(capsys):
    assert run("--low-latency") == 0
    printed = capsys.readouterr().out
    assert "output behind the audio: 540 ms on average, at most 540 ms" in printed
    assert "Log-probabilities (to 0.0001)" in printed


def test_a_lost_frame_is_not_timed(capsys, monkeypatch):
    finish = StreamingDeepSpeech2.finish
    monkeypatch.setattr(StreamingDeepSpeech2, "finish", lambda self, state: finish(self, state)[:-1])
    assert run() == 1
    printed = capsys.readouterr().out
    assert "FAILED: chunks of 700 ms" in printed and "RTF" not in printed
