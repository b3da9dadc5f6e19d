"""Kaldi's data folders, in what they allow, and what is wrong in them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MultiCut

from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.training.batches import load_cut
from asrkern.training.manifests import read_cuts

SAMPLES = np.random.default_rng(0).normal(0, 0.1, (8000, 2)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings of a second at 8 kHz, the second with two channels."""
    soundfile.write(tmp_path / "r1.wav", SAMPLES[:, 0], 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "r2.wav", SAMPLES, 8000, subtype="FLOAT")
    write(tmp_path, "wav.scp", f"r1 {tmp_path}/r1.wav\nr2 {tmp_path}/r2.wav\n")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode())


def texts(cuts: CutSet) -> dict[str, str]:
    return {cut.id: cut.supervisions[0].text for cut in cuts}


def samples(cut: MultiCut) -> np.ndarray:
    return load_cut(cut, FeatureSettings(sample_rate=8000), lambda samples: samples).numpy()


def test_any_white_space_between_fields(folder: Path) -> None:
    write(folder, "wav.scp", f"\ufeffr1\t{folder}/r1.wav\r\n\r\n \t\r\nr2 \t {folder}/r2.wav  \r\n")
    write(folder, "segments", "u1\tr1\t0.0\t0.4\r\nu2 \tr1  0.4 0.9\r\n\r\nu3 r2 0 1 0")
    write(folder, "text", "u1\topen\tthe  door \r\nu2\tstop\r\nu3 \r\n")
    write(folder, "utt2spk", "u1\ta\r\nu2 b\r\n")
    cuts = read_cuts(folder)
    assert texts(cuts) == {"u1": "open the door", "u2": "stop", "u3": ""}
    assert [cut.supervisions[0].speaker for cut in cuts] == ["a", "b", None]
    assert [(cut.start, cut.duration) for cut in cuts] == [(0.0, 0.4), (0.4, 0.5), (0.0, 1.0)]


def test_white_space_of_other_scripts_is_text(folder: Path) -> None:
    """As for Kaldi, which knows ASCII's only."""
    write(folder, "text", "r1 안녕\u3000하세요\u2028\n\u00a0 x\nr2 \u00a0\n")
    assert texts(read_cuts(folder)) == {"r1": "안녕\u3000하세요\u2028", "r2": "\u00a0"}


@pytest.mark.parametrize("segments", ["", "r1 r1 0 1\nr2 r2 0 1\n"])
def test_transcripts_that_are_not_there(
    folder: Path, segments: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No words, no line, no file: all are without words, and the last two are said."""
    if segments:
        write(folder, "segments", segments)
    write(folder, "text", "r1\nr3 of what\n")
    with caplog.at_level(logging.WARNING, "asrkern.training"):
        assert texts(read_cuts(folder)) == {"r1": "", "r2": ""}
    assert (
        "text: no line for 1 of 2 utterances (r2 first), whose transcripts are taken as empty" in caplog.text
    )
    assert "text: 1 lines (r3 first) are of no utterance" in caplog.text
    (folder / "text").unlink()
    assert texts(read_cuts(folder)) == {"r1": "", "r2": ""}
    assert "text: no line for 2 of 2 utterances (r1 first)" in caplog.text


def test_speakers_genders_and_languages(folder: Path) -> None:
    write(folder, "utt2spk", "r1 a\nr2 b\n")
    write(folder, "spk2gender", "b f\n")
    write(folder, "utt2lang", "r1 ko\n")
    first, second = (cut.supervisions[0] for cut in read_cuts(folder))
    assert (first.speaker, first.gender, first.language) == ("a", None, "ko")
    assert (second.speaker, second.gender, second.language) == ("b", "f", None)


def test_lengths_are_those_of_the_recordings(folder: Path) -> None:
    write(folder, "reco2dur", "r1 7.5\n")
    write(folder, "utt2dur", "r1 nonsense\n")
    assert [cut.duration for cut in read_cuts(folder)] == [1.0, 1.0]


def test_segments(folder: Path) -> None:
    """To the end, a little beyond the end, of one channel, of all."""
    write(folder, "segments", "a r1 0.25 -1\nb r1 0.5 1.4\nc r2 0.5 0.75 1\nd r2 0.125 -1.0\n")
    cuts = read_cuts(folder)
    assert [(c.start, c.duration) for c in cuts] == [(0.25, 0.75), (0.5, 0.5), (0.5, 0.25), (0.125, 0.875)]
    parts = (SAMPLES[2000:, 0], SAMPLES[4000:, 0], SAMPLES[4000:6000, 1], SAMPLES[1000:].mean(1))
    for cut, part in zip(cuts, parts, strict=True):
        np.testing.assert_allclose(samples(cut), part, rtol=0, atol=1e-6)


def test_paths_relative_to_the_working_directory_or_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for Kaldi, the working directory's is meant if there are both."""
    (folder / "else where").mkdir()
    write(folder, "wav.scp", "r else where/a.wav\nr1 r1.wav\n")
    soundfile.write(folder / "else where" / "a.wav", SAMPLES[:4000, 0], 8000)
    assert [cut.duration for cut in read_cuts(folder)] == [0.5, 1.0]
    monkeypatch.chdir(folder / "else where")
    soundfile.write("r1.wav", SAMPLES[:2000, 0], 8000)
    assert [cut.duration for cut in read_cuts(folder)] == [0.5, 0.25]


def test_commands_that_only_decode_a_file(folder: Path) -> None:
    soundfile.write(folder / "a b.flac", SAMPLES[:6000, 0], 8000)
    write(
        folder,
        "wav.scp",
        f"r1 cat {folder}/r1.wav |\nr2 flac -c -d -s '{folder}/a b.flac' |\nr3 flac -dc --silent {folder}/a\\ b.flac|\n",
    )
    cuts = read_cuts(folder)
    assert [cut.duration for cut in cuts] == [1.0, 0.75, 0.75]
    assert [cut.recording.sources[0].type for cut in cuts] == ["file"] * 3


@pytest.mark.parametrize(
    "command",
    [
        "sph2pipe -f wav -p {}/a.sph |",
        "sox {}/r1.wav -t wav - speed 2 |",
        "cat {0}/r1.wav {0}/r2.wav |",
        "cat {0}/r1.wav; touch {0}/run |",
        "cat '{0}/r1.wav |",
        "flac -c -d -s --until=100 {}/r1.wav |",
        "touch {}/run|",
        "| touch {}/run",
        "|",
    ],
)
def test_no_other_command_is_run(folder: Path, command: str) -> None:
    command = command.format(folder)
    write(folder, "wav.scp", f"r1 {folder}/r1.wav\nr2 {command}\n")
    with pytest.raises(
        (ValueError, FileNotFoundError), match=r"wav\.scp, line 2: expected a file, received"
    ) as e:
        read_cuts(folder)
    assert "commands in data are not run" in str(e.value)
    left_out: list[Exception] = []
    assert len(read_cuts(folder, left_out=left_out)) == 1 and len(left_out) == 1
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("wav.scp", "r1 r1.wav\nr1 r2.wav\n", r"wav\.scp, line 2: expected each name once, received 'r1' again"),
        ("wav.scp", "r1 r1.wav\nr2\n", r"wav\.scp, line 2: expected a file, received ''"),
        ("wav.scp", "r1 r1.wav\nr2 a.ark:1234\n", r"wav\.scp, line 2: expected a file, received 'a\.ark:1234': write"),
        ("wav.scp", "r1 wav.scp\n", r"wav\.scp, line 1: expected a recording, received '.*wav\.scp'"),
        ("wav.scp", "r1 " + 5000 * "a", r"wav\.scp, line 1: expected a file, received 'a"),
        ("wav.scp", "", "expected at least one utterance"),
        ("text", "r1 a\nr2 b\nr1 a\n", r"text, line 3: expected each name once, received 'r1' again"),
        ("segments", "", "expected at least one utterance"),
        ("segments", "a r1 0 1\nb r9 0 1\n", r"segments, line 2: expected a recording of .*wav\.scp, received 'r9'"),
        ("segments", "a r1 0 1\na r1 0 1\n", r"segments, line 2: expected each name once, received 'a' again"),
        ("segments", "a r1 0\n", r"segments, line 1: expected utterance, recording, start and end .*'r1 0' after"),
        ("segments", "a r1 0 1 0 0\n", r"segments, line 1: expected utterance, recording, start and end"),
        ("segments", "a r1 0 x\n", r"segments, line 1: expected utterance, recording, start and end"),
        ("segments", "a r1 0 1 x\n", r"segments, line 1: expected utterance, recording, start and end"),
        ("segments", "a\n", r"segments, line 1: expected utterance, recording, start and end"),
        ("segments", "a r1 0.5 0.5\n", r"line 1: expected 0 <= start < end, or an end of -1, received 0.5 and 0.5"),
        ("segments", "a r1 -1 0.5\n", "line 1: expected 0 <= start < end"),
        ("segments", "a r1 nan 0.5\n", "line 1: expected 0 <= start < end"),
        ("segments", "a r1 0 nan\n", "line 1: expected 0 <= start < end"),
        ("segments", "a r1 0 -2\n", "line 1: expected 0 <= start < end"),
        ("segments", "a r1 0 1.6\n", r"line 1: expected 1\.6 s from 0\.0 s on, received a recording of 1\.000 s"),
        ("segments", "a r1 1.5 -1\n", "line 1: expected at least one sample from 1.5 s on"),
        ("segments", "a r2 0 1 2\n", r"line 1: expected of the channels \[0, 1\], received 2"),
    ],
)  # fmt: skip
def test_lines_that_are_wrong_are_named(
    folder: Path, file: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder, file, text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_cuts(folder)


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "text").write_bytes(b"r1 a\nr2 \xff\n")
    with pytest.raises(ValueError, match=r"text, line 2: expected UTF-8, received b'.xff'"):
        read_cuts(folder)


def test_features_without_recordings(tmp_path: Path) -> None:
    write(tmp_path, "feats.scp", "u1 a.ark:12\n")
    with pytest.raises(ValueError, match=r"expected wav\.scp or "):
        read_cuts(tmp_path)
