"""benchmarks/decoder/ctc_beam.py: texts and scores are compared, and what differs is not timed."""

import json

import numpy as np
import pytest

from asrkern.decoder import NGramLM
from benchmarks.decoder import _peers, ctc_beam
from benchmarks.decoder._peers import ASRKERN, FLASHLIGHT, PYCTCDECODE

LABELS = [" ", *"abehlnorsty", ""]
TEXT = "the other bear ran to the north sea"
LINES = [
    TEXT,
    "the bear ate the other bean",
    "a northern breath on these shores",
    "the sea horse",
    "then they rest here",
] * 30


@pytest.fixture
def data(tmp_path, monkeypatch):
    """As data_dir, but small: a clear utterance, few words, few hotwords."""
    estimate = NGramLM.estimate
    monkeypatch.setattr(
        NGramLM, "estimate", lambda text, order: estimate(text, order, discount_fallback=True)
    )
    monkeypatch.setattr(ctc_beam, "HOTWORDS", 3)
    monkeypatch.setattr(ctc_beam, "RESULTS", tmp_path / "ctc_beam.md")
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "lj.txt").write_text("\n".join(LINES))
    frames = [index for letter in TEXT for index in (LABELS.index(letter), len(LABELS) - 1)]
    log_probs = np.full((len(frames), len(LABELS)), -9.0)
    log_probs[range(len(frames)), frames] = 0.0
    (tmp_path / "decoder_oracles").mkdir()
    np.savez(tmp_path / "decoder_oracles" / "libri_371x29.npz", log_probs=log_probs)
    (tmp_path / "decoder_oracles" / "libri_371x29.json").write_text(json.dumps({"labels": LABELS}))
    return tmp_path


def run(data, *arguments):
    return ctc_beam.main(["--data", str(data), "--rounds", "1", "--quick", *arguments])


def test_tables(data, capsys, monkeypatch):
    monkeypatch.setattr(ctc_beam, "peak_memory_mib", lambda *_: 1.0)
    output = data / "found.json"
    assert run(data, "--json", str(output), "--write") == 0
    printed = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert [row["row"] for row in found["free"]] == ["beam 16", "beam 100"]
    missing = {name for name in (FLASHLIGHT, PYCTCDECODE) if _peers.missing(name)}
    for name, peer in (("free", FLASHLIGHT), ("lm", FLASHLIGHT), ("pruned", PYCTCDECODE)):
        for row in found[name]:
            assert set(row["times"]) == {peer, ASRKERN} - missing
            assert set(row["texts"].values()) == {TEXT}
    assert len(found["hotwords"]) == 4 and found["memory"]["tree_bytes"].keys() == {"1", "20"}
    assert all(f"Left out: {name} (not installed" in printed for name in missing)
    written = ctc_beam.RESULTS.read_text()
    assert written.count("### ") == 5 and all(line in printed for line in written.splitlines())


def test_texts_that_differ_are_not_timed(data, capsys, monkeypatch):
    original = _peers.asrkern

    def wrong(labels, options, *rest, **named):
        call = original(labels, options, *rest, **named)
        return lambda log_probs: call(log_probs)._replace(text="another")

    if _peers.missing(FLASHLIGHT):
        monkeypatch.setattr(_peers, "flashlight", lambda labels, beam: original(labels, {"beam_width": beam}))
        monkeypatch.setattr(_peers, "missing", lambda name: None)
    monkeypatch.setattr(_peers, "asrkern", wrong)
    assert run(data, "--only", "free") == 1
    printed = capsys.readouterr().out
    assert "FAILED: flashlight-text" in printed and "another" in printed and "µs a frame" not in printed


def test_without_peers(data, capsys, monkeypatch):
    monkeypatch.setattr(_peers.importlib.util, "find_spec", lambda name: None)
    assert run(data, "--only", "free,pruned") == 0
    printed = capsys.readouterr().out
    assert "Left out: flashlight-text" in printed and "Left out: pyctcdecode" in printed
    assert "asrkern µs a frame" in printed and "/ asrkern" not in printed.replace("benchmarks/", "")


@pytest.mark.parametrize("arguments", [["--only", "speed"], ["--rounds", "0"], ["--data", "absent"]])
def test_bad_arguments(data, arguments, capsys):
    with pytest.raises(SystemExit):
        run(data, *arguments)
    assert "expected" in capsys.readouterr().err


def test_what_a_folder_lacks_is_named(data, capsys, monkeypatch):
    (data / "lm" / "lj.txt").unlink()
    with pytest.raises(SystemExit):
        run(data)
    assert "expected a folder with lm/lj.txt" in capsys.readouterr().err
    monkeypatch.setenv("ASRKERN_DATA", str(data))
    assert ctc_beam.parse_arguments([]).data is None
    with pytest.raises(SystemExit):
        ctc_beam.parse_arguments(["--write"])
    assert "made-up data are not kept" in capsys.readouterr().err
