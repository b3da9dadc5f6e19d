"""asrkern.data.manifest: NeMo's form, and every way a line can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.data import Utterance, load_audio, load_features, read_manifest

GOOD = {"audio_filepath": "a.wav", "duration": 1.5, "text": "good morning"}


def write(folder: Path, *lines: object) -> Path:
    (folder / "a.wav").touch()
    path = folder / "manifest.jsonl"
    path.write_text(
        "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8"
    )
    return path


def test_a_line_becomes_an_utterance(tmp_path):
    path = write(tmp_path, {**GOOD, "offset": 2, "speaker": "s1", "words": [["good", 0.1, 0.4]]}, "", GOOD)
    first, second = read_manifest(path)
    assert first == Utterance(
        audio_path=tmp_path / "a.wav",
        duration_seconds=1.5,
        text="good morning",
        offset_seconds=2.0,
        extra={"speaker": "s1", "words": [["good", 0.1, 0.4]]},
    )
    assert second.offset_seconds == 0.0 and second.extra == {}


def test_text_is_optional_and_may_be_any_language(tmp_path):
    path = write(tmp_path, {**GOOD, "text": "안녕하세요"}, {"audio_filepath": "a.wav", "duration": 1})
    assert [u.text for u in read_manifest(path)] == ["안녕하세요", ""]


def test_absolute_paths_stay(tmp_path):
    path = write(tmp_path, {**GOOD, "audio_filepath": str(tmp_path / "a.wav")})
    assert read_manifest(path)[0].audio_path == tmp_path / "a.wav"


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "expected a JSON object"),
        ("[1, 2]", "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ({"duration": 1.0}, "either audio_filepath or features_filepath"),
        ({**GOOD, "features_filepath": "b.npz#k"}, "either audio_filepath or features_filepath"),
        ({**GOOD, "audio_filepath": 3}, "audio_filepath: expected a string, received 3"),
        ({**GOOD, "audio_filepath": "a\0.wav"}, "audio_filepath: expected a string"),
        ({"audio_filepath": "a.wav"}, "expected a recording, received '.*a.wav'"),
        ({"features_filepath": "a.wav#k"}, "duration: expected a number of seconds, received None"),
        ({**GOOD, "audio_filepath": None}, "either audio_filepath or features_filepath"),
        (
            {**GOOD, "audio_filepath": "\ud800.wav"},
            r"audio_filepath: expected a string, received '.ud800.wav'",
        ),
        ({**GOOD, "duration": 0}, "duration: expected seconds > 0, received 0.0"),
        ({**GOOD, "duration": -1.5}, "duration: expected seconds > 0, received -1.5"),
        ({**GOOD, "duration": float("nan")}, "duration: expected a number of seconds, received nan"),
        ({**GOOD, "duration": 10**400}, "duration: expected a number of seconds, received 1000"),
        ({**GOOD, "duration": True}, "duration: expected a number of seconds, received True"),
        ({**GOOD, "duration": "1.5"}, "duration: expected a number of seconds, received '1.5'"),
        ({**GOOD, "offset": -0.5}, "offset: expected seconds >= 0, received -0.5"),
        ({**GOOD, "offset": "0"}, "offset: expected a number of seconds, received '0'"),
        ({**GOOD, "text": 7}, "text: expected a string, received 7"),
        ({**GOOD, "text": "a\udc80"}, "text: expected a string"),
        ({**GOOD, "text": ["a" * 1000]}, r"text: expected a string, received \['a{195}\.\.\.$"),
        ({"features_filepath": "a.npz", "duration": 1.0}, "expected 'archive.npz#key', received 'a.npz'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line, message):
    with pytest.raises(ValueError, match=f"manifest.jsonl, line 3: .*{message}"):
        read_manifest(write(tmp_path, GOOD, "", line))


@pytest.fixture
def recording(tmp_path):
    """1.5 s at 8 kHz."""
    soundfile.write(tmp_path / "r.wav", numpy.zeros(12000), 8000)
    return tmp_path / "r.wav"


@pytest.mark.parametrize("absent", [{}, {"duration": None, "offset": None, "text": None}])
def test_what_is_null_or_absent(recording, absent):
    """As NeMo's own scripts write it: from the start, to the end, without a transcript."""
    line = {"audio_filepath": "r.wav", **absent}
    (utterance,) = read_manifest(write(recording.parent, line))
    assert utterance == Utterance(recording, 1.5)
    (utterance,) = read_manifest(write(recording.parent, {**line, "offset": 1.125}))
    assert (utterance.offset_seconds, utterance.duration_seconds) == (1.125, 0.375)
    with pytest.raises(ValueError, match=r"line 1: offset: expected less than .* 1\.500 s, received 1\.5"):
        read_manifest(write(recording.parent, {**line, "offset": 1.5}))


@pytest.mark.parametrize("key", ["audio_filepath", "audio_filename", "audio_file"])
def test_names_of_nemo_for_the_recording(recording, key):
    (utterance,) = read_manifest(write(recording.parent, {"audio_filepath": None, **{key: "r.wav"}}))
    assert utterance.audio_path == recording and key not in utterance.extra


def test_where_a_transcript_may_be(recording):
    folder = recording.parent
    (folder / "said.txt").write_bytes(b"\xef\xbb\xbfgood\r\nmorning\r\n")
    line = {"audio_filepath": "r.wav", "text_filepath": "said.txt", "normalized_text": "c"}
    texts = [line, {**line, "text": "b"}, {**line, "text_filepath": None}]
    assert [u.text for u in read_manifest(write(folder, *texts))] == ["good morning", "b", "c"]
    with pytest.raises(FileNotFoundError, match=r"line 1: expected a file, received '.*gone\.txt'"):
        read_manifest(write(folder, {**line, "text_filepath": "gone.txt"}))
    (folder / "said.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"line 1: expected UTF-8 in '.*said\.txt'"):
        read_manifest(write(folder, line))


def test_paths_relative_to_the_working_directory(recording, tmp_path, monkeypatch):
    (tmp_path / "manifests").mkdir()
    line = {"audio_filepath": "r.wav"}
    path = write(tmp_path / "manifests", line)
    with pytest.raises(FileNotFoundError, match=r"received '.*manifests/r\.wav'"):
        read_manifest(path)
    monkeypatch.chdir(tmp_path)
    assert read_manifest(path)[0].duration_seconds == 1.5
    # The one beside the manifest is meant, if there are both.
    soundfile.write(tmp_path / "manifests" / "r.wav", numpy.zeros(8000), 8000)
    assert read_manifest(path)[0].duration_seconds == 1.0


def test_a_manifest_of_windows_and_a_compressed_one(recording):
    line = json.dumps({"audio_filepath": "r.wav", "text": "안녕"}, ensure_ascii=False).encode()
    path = recording.parent / "m.json"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n \r\n" + line)
    assert [u.text for u in read_manifest(path)] == ["안녕", "안녕"]
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed)
    assert [u.text for u in read_manifest(path)] == ["안녕", "안녕"]
    path.write_bytes(packed[:-9])
    with pytest.raises(ValueError, match=r"m\.json, line \d: expected intact gzip"):
        read_manifest(path)


def test_a_compressed_line_without_an_end(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="line 1: expected at most 67108864 bytes a line"):
        read_manifest(path)


def test_a_sharded_manifest_is_named(tmp_path):
    line = {"audio_filepath": "in_the_tar.wav", "duration": 1.0, "text": "a", "shard_id": 3}
    with pytest.raises(
        FileNotFoundError, match=r"in_the_tar\.wav.*unpack the tar files of sharded manifests"
    ):
        read_manifest(write(tmp_path, line))


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + b'{"audio_filepath": "\xff"}\n')
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        read_manifest(path)


def test_a_missing_recording_is_named_with_its_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"line 2: expected a file, received '.*absent.wav'"):
        read_manifest(write(tmp_path, GOOD, {**GOOD, "audio_filepath": "absent.wav"}))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        read_manifest(tmp_path / "absent.jsonl")


def test_an_empty_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least one utterance, received none"):
        read_manifest(write(tmp_path, ""))


@given(content=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_never_raise_anything_but_value_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "manifest.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"line|at least one"):
        read_manifest(path)


def archive(folder: Path, **arrays: numpy.ndarray) -> Path:
    numpy.savez(folder / "features.npz", **arrays)
    line = {"features_filepath": "features.npz#utt-1", "duration": 0.2, "text": "yes"}
    return write(folder, line)


def test_stored_features(tmp_path):
    stored = numpy.arange(20 * 13, dtype=numpy.float16).reshape(20, 13)
    (utterance,) = read_manifest(archive(tmp_path, **{"utt-1": stored}))
    assert utterance.audio_path is None and utterance.features_key == "utt-1"
    features = load_features(utterance)
    assert features.dtype == torch.float32 and features.is_contiguous()
    assert torch.equal(features, torch.arange(20 * 13).float().view(20, 13).t())


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"other": numpy.zeros((2, 2))}, "expected a name in .*features.npz', received 'utt-1'"),
        (
            {"utt-1": numpy.zeros(3)},
            r"expected floating-point features \[frames, bins\], received float64 \(3,\)",
        ),
        ({"utt-1": numpy.zeros((2, 2), int)}, r"received int64 \(2, 2\)"),
    ],
)
def test_bad_stored_features_are_refused(tmp_path, arrays, message):
    (utterance,) = read_manifest(archive(tmp_path, **arrays))
    with pytest.raises(ValueError, match=message):
        load_features(utterance)


@pytest.mark.parametrize("damage", ["not an archive", "a flipped byte"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    (utterance,) = read_manifest(archive(tmp_path, **{"utt-1": numpy.random.rand(50, 13)}))
    content = bytearray(utterance.features_path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    utterance.features_path.write_bytes(b"text" if damage == "not an archive" else content)
    with pytest.raises(ValueError, match=r"features_path: expected an .*features.npz"):
        load_features(utterance)


def test_features_of_an_utterance_with_audio_are_refused(tmp_path):
    (utterance,) = read_manifest(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="expected one with features_path"):
        load_features(utterance)


@pytest.mark.parametrize("corpus, rate", [("grid", 16000), ("fsdd", 8000), ("lj", 16000)])
def test_durations_of_real_corpora(data_dir, corpus, rate):
    for utterance in read_manifest(data_dir / corpus / "dev.jsonl")[:10]:
        samples = load_audio(utterance.audio_path, rate)
        assert abs(len(samples) / rate - utterance.duration_seconds) <= 0.0011


def test_an4_has_features_in_place_of_audio(data_dir):
    for utterance in read_manifest(data_dir / "an4" / "dev.jsonl")[:10]:
        features = load_features(utterance)
        assert features.shape[0] == 13
        assert abs(features.shape[1] / 100 - utterance.duration_seconds) < 0.05
