"""asrkern.data.manifest: NeMo's form, and every way a line can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
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
        ({"audio_filepath": "a.wav"}, "duration: expected a number of seconds, received None"),
        ({**GOOD, "duration": 0}, "duration: expected seconds > 0, received 0.0"),
        ({**GOOD, "duration": -1.5}, "duration: expected seconds > 0, received -1.5"),
        ({**GOOD, "duration": float("nan")}, "duration: expected a number of seconds, received nan"),
        ({**GOOD, "duration": 10**400}, "duration: expected a number of seconds, received 1000"),
        ({**GOOD, "duration": True}, "duration: expected a number of seconds, received True"),
        ({**GOOD, "duration": "1.5"}, "duration: expected a number of seconds, received '1.5'"),
        ({**GOOD, "offset": -0.5}, "offset: expected seconds >= 0, received -0.5"),
        ({**GOOD, "text": None}, "text: expected a string, received None"),
        ({"features_filepath": "a.npz", "duration": 1.0}, "expected 'archive.npz#key', received 'a.npz'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line, message):
    with pytest.raises(ValueError, match=f"manifest.jsonl, line 3: .*{message}"):
        read_manifest(write(tmp_path, GOOD, "", line))


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
