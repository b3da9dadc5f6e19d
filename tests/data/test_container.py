"""Sound of files that PyAV reads."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrkern.data import load_audio, read_manifest, read_stream
from tests.data.films import FORMS, sines, write

av = pytest.importorskip("av")


def same(found: torch.Tensor, expected: np.ndarray) -> None:
    """Up to the codec's loss and a delay that some forms do not tell."""
    inner = slice(1600, min(len(found), len(expected)) - 1600)
    delayed = (found[inner.start + d : inner.stop + d] for d in range(-40, 1600, 2))
    assert max(np.corrcoef(part, expected[inner])[0, 1] for part in delayed) > 0.94


@pytest.mark.parametrize(("suffix", "codec", "pictures"), FORMS)
def test_the_sound_of_files(suffix: str, codec: str, pictures: bool, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", codec, pictures)
    found = load_audio(path)
    assert found.shape == (pytest.approx(96000, abs=2400),)
    same(found, sines(6, 16000))
    part = load_audio(path, offset_seconds=2.0, duration_seconds=1.5)
    assert part.shape == (24000,) and (part - found[32000:56000])[400:-400].abs().max() < 1e-4
    streamed = torch.cat(list(read_stream(io.BytesIO(path.read_bytes()))))
    assert torch.equal(streamed, found)


def test_manifests_without_durations(tmp_path: Path) -> None:
    path = write(tmp_path / "a.m4a", "aac")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.m4a", "offset": 1}\n')
    [utterance] = read_manifest(tmp_path / "m.jsonl")
    assert utterance.duration_seconds == pytest.approx(len(load_audio(path)) / 16000 - 1, abs=1e-3)


def spoilt(data: bytes, kind: str) -> bytes:
    if kind == "half":
        return data[: len(data) // 2]
    if kind == "head":
        return data[:100]
    return data[:64] + np.random.default_rng(0).bytes(len(data) - 64)


@pytest.mark.parametrize("kind", ["half", "head", "noise"])
@pytest.mark.parametrize("suffix", ["m4a", "webm", "wma"])
def test_damaged_files_are_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    codec = {"m4a": "aac", "webm": "libopus", "wma": "wmav2"}[suffix]
    data = write(tmp_path / f"a.{suffix}", codec).read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(spoilt(data, kind))
    with pytest.raises(ValueError, match=rf"path: expected .* in '.*b\.{suffix}'"):
        load_audio(tmp_path / f"b.{suffix}")


def test_a_film_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(video.encode(None))
    with pytest.raises(ValueError, match="expected a file with sound, received one without"):
        load_audio(tmp_path / "a.mp4")


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    data = write(tmp_path / "a.webm", "libopus").read_bytes()
    (tmp_path / "a.webm").write_bytes(data.replace(b"A_OPUS", b"A_OXXX"))
    with pytest.raises(ValueError, match="expected a codec that FFmpeg decodes, received another"):
        load_audio(tmp_path / "a.webm")


def test_playlists_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would follow them to other files and addresses."""
    write(tmp_path / "a.mp4", "aac")
    opened: list[Any] = []
    monkeypatch.setattr(av, "open", lambda *given, **options: opened.append(given))
    for text in ("#EXTM3U\n#EXTINF:1,\na.mp4\n", "ffconcat version 1.0\nfile a.mp4\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(ValueError, match="expected a complete audio file"):
            load_audio(tmp_path / "list.mp4")
    assert opened == []


@pytest.mark.parametrize(
    "url", ["https://example.org/a.mp3", "file:///etc/a.wav", Path("http://example.org/a.wav")]
)
def test_urls_are_refused_by_name(url: Any, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"received the URL '(https|file|http):/.*: download it first"
    ):
        load_audio(url)
    (tmp_path / "m.jsonl").write_text(f'{{"audio_filepath": "{os.fspath(url)}", "duration": 1}}\n')
    with pytest.raises(FileNotFoundError, match="line 1: expected a file, received the URL"):
        read_manifest(tmp_path / "m.jsonl")
