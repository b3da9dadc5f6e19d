"""asrkern.data.tables: manifests of whole recordings and their transcripts."""

from __future__ import annotations

import json

import numpy
import pytest
import soundfile

from asrkern.data import Utterance, read_manifest


@pytest.fixture
def folder(tmp_path):
    """Recordings of 1 and 0.5 s with a transcript each."""
    for name, seconds, text in (("a", 1.0, "HELLO WORLD\n"), ("b", 0.5, "GOOD\nMORNING")):
        soundfile.write(tmp_path / f"{name}.wav", numpy.zeros(round(seconds * 8000)), 8000)
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def expected(folder):
    return [Utterance(folder / "a.wav", 1.0, "HELLO WORLD"), Utterance(folder / "b.wav", 0.5, "GOOD MORNING")]


@pytest.mark.parametrize("root", ["", "{}/"])
def test_deepspeech_pytorch_lines(folder, root):
    root = root.format(folder)
    path = folder / "train.csv"
    path.write_bytes(f"{root}a.wav,{root}a.txt\r\n\n {root}b.wav , {root}b.txt".encode())
    assert read_manifest(path) == expected(folder)


@pytest.mark.parametrize("root", ["", ".", "{}"])
@pytest.mark.parametrize("indent", [None, 2])
def test_deepspeech_pytorch_samples(folder, root, indent):
    samples = [{"wav_path": f"{n}.wav", "transcript_path": f"{n}.txt"} for n in "ab"]
    path = folder / "train.json"
    path.write_text(json.dumps({"root_path": root.format(folder), "samples": samples}, indent=indent))
    assert read_manifest(path) == expected(folder)


def test_roots_and_lines_relative_to_the_working_directory(folder, monkeypatch):
    (folder / "manifests").mkdir()
    lines, samples = (folder / "manifests" / name for name in ("m.csv", "m.json"))
    lines.write_text(f"{folder.name}/a.wav,{folder.name}/a.txt\n")
    sample = {"wav_path": "a.wav", "transcript_path": "a.txt"}
    samples.write_text(json.dumps({"root_path": folder.name, "samples": [sample]}))
    monkeypatch.chdir(folder.parent)
    for path in (lines, samples):
        assert [u.text for u in read_manifest(path)] == ["HELLO WORLD"]


def test_mozilla_deepspeech(folder):
    path = folder / "train.csv"
    path.write_text('wav_filename,wav_filesize,transcript\na.wav,16044,"yes, ""sir"""\nb.wav,8044,no\n')
    first, second = read_manifest(path)
    assert first == Utterance(folder / "a.wav", 1.0, 'yes, "sir"', extra={"wav_filesize": "16044"})
    assert (second.duration_seconds, second.text) == (0.5, "no")


def test_common_voice(folder):
    """Recordings in clips; quotation marks stay, whether they come in pairs or not; fields may be empty."""
    (folder / "clips").mkdir()
    (folder / "a.wav").rename(folder / "clips" / "a.wav")
    path = folder / "train.tsv"
    path.write_text('client_id\tpath\tsentence\tage\n1f\ta.wav\t"Yes, he said\t\n\ta.wav\t"No"\t20s\n')
    first, second = read_manifest(path)
    extra = {"client_id": "1f", "age": ""}
    assert first == Utterance(folder / "clips" / "a.wav", 1.0, '"Yes, he said', extra=extra)
    assert second.text == '"No"' and second.extra == {"client_id": "", "age": "20s"}


@pytest.mark.parametrize("column", ["transcription", "text"])
def test_hugging_face_audio_folder(folder, column):
    (folder / "metadata.csv").write_text(f"file_name,{column}\nb.wav,hi\n")
    assert read_manifest(folder / "metadata.csv") == [Utterance(folder / "b.wav", 0.5, "hi")]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a.wav,a.txt\nb.wav\n", ValueError, r"m\.csv, line 2: expected 'recording,transcript', received b'b.wav'"),
        ("a.wav,a.txt\ngone.wav,a.txt\n", FileNotFoundError, r"line 2: expected a file, received '.*gone\.wav'"),
        ("a.wav,a.txt\na.wav,gone.txt\n", FileNotFoundError, r"line 2: expected a file, received '.*gone\.txt'"),
        ("a.wav,a.txt\na.txt,a.txt\n", ValueError, r"line 2: expected a recording, received '.*a\.txt'"),
        ("\na,b,c\n", ValueError, r"line 2: expected a JSON object, 'recording,transcript' .*, or a header with"),
        ("x\ty\na\tb\n", ValueError, "line 1: expected a JSON object, 'recording,transcript'"),
        ("path\tsentence\na.wav\tb\tc\n", ValueError, "line 2: expected 2 fields, received 3"),
        ("path,sentence\na.wav,\"b\n", ValueError, "line 2: expected fields, received"),
        ("path,sentence\n", ValueError, "expected at least one utterance"),
        ("hello world\n", ValueError, "line 1: expected a JSON object, received b'hello world'"),
    ],
)  # fmt: skip
def test_bad_lines_are_named(folder, text, error, message):
    (folder / "m.csv").write_text(text)
    with pytest.raises(error, match=message):
        read_manifest(folder / "m.csv")


def test_a_bad_line_is_left_out(folder):
    (folder / "m.csv").write_bytes(b"a.wav,a.txt\n\xff,a.txt\ngone.wav,a.txt\nb.wav,b.txt\n")
    left_out = []
    assert read_manifest(folder / "m.csv", left_out) == expected(folder)
    assert ["line 2: expected UTF-8" in str(left_out[0]), "line 3" in str(left_out[1])] == [True, True]
    assert len(left_out) == 2


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{\n", r"m\.json: expected JSON \("),
        ("{\n}", r"m\.json: expected a JSON object a line, or one with root_path and samples"),
        ({"samples": 3}, "with root_path and samples"),
        ({"samples": [{}], "root_path": 3}, "root_path: expected a string, received 3"),
        ({"samples": ["a.wav"]}, r"samples\[0\]: expected an object, received 'a\.wav'"),
        (
            {"samples": [{"wav_path": "a.wav"}]},
            r"samples\[0\]: transcript_path: expected a string, received None",
        ),
    ],
)
def test_bad_samples_are_named(folder, manifest, message):
    (folder / "m.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        read_manifest(folder / "m.json")
