"""``asrkern prepare``: small folders in each corpus' layout, of real recordings."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import lhotse.recipes
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.data import Utterance, load_audio, read_manifest
from asrkern.training.manifests import read_cuts


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def some(data_dir: Path, corpus: str, count: int, split: str = "train") -> list[Utterance]:
    return read_manifest(data_dir / corpus / f"{split}.jsonl")[:count]


def copy(utterance: Utterance, path: Path, rate: int, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = load_audio(utterance.audio_path, rate).numpy()
    # Two seconds are enough to be read, and quick to be written.
    soundfile.write(path, samples[: 2 * rate], rate, format=kind, subtype="PCM_16")


def texts(manifest: Path) -> dict[str, str]:
    """Of each recording, which is there and as long as it is said to be."""
    utterances = read_manifest(manifest)
    assert len(read_cuts(manifest)) == len(utterances)
    for utterance in utterances:
        seconds = soundfile.info(utterance.audio_path).duration
        assert utterance.duration_seconds == pytest.approx(seconds, abs=1e-4)
    return {u.audio_path.stem: u.text for u in utterances}


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jsonl"))


@pytest.fixture
def librispeech(data_dir: Path, tmp_path: Path) -> Path:
    """In a folder of its own, as its archives unpack."""
    names = ["train-clean-100/19/198/19-198-0000", "train-other-500/20/205/20-205-0003"]
    names += ["dev-clean/84/121123/84-121123-0001", "test-other/367/130732/367-130732-0000"]
    for name, utterance in zip(names, some(data_dir, "lj", 4)):
        path = tmp_path / "LibriSpeech" / name
        copy(utterance, path.with_suffix(".flac"), 16000)
        transcripts = path.parent / f"{path.name.rpartition('-')[0]}.trans.txt"
        transcripts.write_text(f"{path.name} TEXT OF {path.name[:2]}\n")
    return tmp_path


def test_librispeech(librispeech: Path) -> None:
    result = run("librispeech", librispeech)
    assert result.exit_code == 0, result.output
    assert parts(librispeech) == ["dev-clean.jsonl", "test-other.jsonl", "train.jsonl"]
    assert texts(librispeech / "train.jsonl") == {"19-198-0000": "TEXT OF 19", "20-205-0003": "TEXT OF 20"}
    assert texts(librispeech / "dev-clean.jsonl") == {"84-121123-0001": "TEXT OF 84"}
    assert read_manifest(librispeech / "test-other.jsonl")[0].extra == {"speaker": "367"}
    assert "train.jsonl: 2 utterances, 0.1 min" in result.stdout


def test_librispeech_parts_and_another_folder(librispeech: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "manifests"
    result = run(
        "librispeech", librispeech / "LibriSpeech", "--out", out, "--only", "dev-clean, train-clean-100"
    )
    assert result.exit_code == 0, result.output
    assert parts(out) == ["dev-clean.jsonl", "train.jsonl"]
    assert texts(out / "train.jsonl") == {"19-198-0000": "TEXT OF 19"}
    assert json.loads((out / "train.jsonl").read_text())["audio_filepath"].startswith("../../LibriSpeech/")
    result = run("librispeech", librispeech, "--only", "dev-claen")
    assert result.exit_code == 1 and "only: expected 'dev-clean', received 'dev-claen'" in result.stderr


def test_bad_recordings_are_named_and_left_out(librispeech: Path) -> None:
    train = librispeech / "LibriSpeech" / "train-clean-100" / "19" / "198"
    (train / "19-198-0001.flac").write_text("no audio")
    soundfile.write(train / "19-198-0002.wav", np.zeros(0), 16000)
    with open(train / "19-198.trans.txt", "a") as file:
        file.write("".join(f"19-198-000{i} X\n" for i in (1, 2, 3)))
    result = run("librispeech", librispeech)
    assert result.exit_code == 1
    assert len(texts(librispeech / "train.jsonl")) == 2
    for message in (
        "19-198-0001.flac: expected a recording: ",
        "19-198-0002.wav: expected a recording, received one without samples",
        "19-198-0003: there is no recording beside it",
        "error: 3 left out",
    ):
        assert message in result.stderr, message


def test_an4(data_dir: Path, tmp_path: Path) -> None:
    """NIST Sphere files, as CMU distributes them."""
    root = tmp_path / "an4"
    said = {
        "train": ["an4_clstk/fash/an251-fash-b", "an4_clstk/mjgm/an1-mjgm-b"],
        "test": ["an4test_clstk/fcaw/an406-fcaw-b"],
    }
    (root / "etc").mkdir(parents=True)
    utterances = iter(some(data_dir, "lj", 3))
    for part, names in said.items():
        (root / "etc" / f"an4_{part}.fileids").write_text("\n".join(names) + "\n")
        lines = "".join(
            f"<s> ENTER {i} <sil> X </s> ({name.split('/')[2]})\n" for i, name in enumerate(names)
        )
        (root / "etc" / f"an4_{part}.transcription").write_text(lines.replace("<s> ENTER 0", "ENTER 0"))
        for name in names:
            copy(next(utterances), root / "wav" / f"{name}.sph", 16000, "NIST")
    result = run("an4", tmp_path)
    assert result.exit_code == 0, result.output
    assert parts(tmp_path) == ["test.jsonl", "train.jsonl"]
    assert texts(tmp_path / "train.jsonl") == {"an251-fash-b": "ENTER 0 X", "an1-mjgm-b": "ENTER 1 X"}
    assert texts(tmp_path / "test.jsonl") == {"an406-fcaw-b": "ENTER 0 X"}
    assert read_manifest(tmp_path / "train.jsonl")[1].extra == {"speaker": "mjgm"}
    sphere = root / "wav" / "an4_clstk" / "mjgm" / "an1-mjgm-b.sph"
    assert np.array_equal(soundfile.read(tmp_path / "audio" / "an1-mjgm-b.wav")[0], soundfile.read(sphere)[0])
    whole = sphere.read_bytes()
    sphere.write_bytes(whole[:-500])
    result = run("an4", tmp_path)
    assert (
        result.exit_code == 1
        and "an1-mjgm-b.sph: expected " in result.stderr
        and "truncated" in result.stderr
    )
    sphere.write_bytes(whole)
    (root / "wav" / "an4_clstk" / "fash" / "an251-fash-b.sph").unlink()
    (root / "etc" / "an4_test.transcription").write_text("nothing\n")
    result = run("an4", root)
    assert result.exit_code == 1 and len(texts(root / "train.jsonl")) == 1
    assert "an251-fash-b: there is no recording" in result.stderr
    assert "line 1: expected '<s> TEXT </s> (name)', received 'nothing'" in result.stderr
    assert "an406-fcaw-b: there is no transcript" in result.stderr
    assert not (root / "test.jsonl").exists()


def test_fsdd(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "free-spoken-digit-dataset" / "recordings"
    wanted = some(data_dir, "fsdd", 500, "dev")[:12:2]
    for utterance in wanted:
        copy(utterance, folder / f"{utterance.audio_path.stem}.wav", 8000)
    result = run("fsdd", tmp_path)
    assert result.exit_code == 0, result.output
    expected = {u.audio_path.stem: u.text for u in wanted}
    early = {name for name in expected if int(name.split("_")[2]) < 5}
    assert 0 < len(early) < len(expected)
    assert texts(tmp_path / "test.jsonl") == {name: expected[name] for name in early}
    assert texts(tmp_path / "train.jsonl") == {name: expected[name] for name in expected.keys() - early}
    extra = read_manifest(tmp_path / "test.jsonl")[0].extra
    assert extra == {"label": "zero", "speaker": wanted[0].extra["speaker"]}
    (folder / "strange.wav").write_bytes(b"")
    result = run("fsdd", folder.parent)
    assert result.exit_code == 1 and "strange.wav: expected a name such as 7_jackson_32.wav" in result.stderr


@pytest.fixture
def commands(data_dir: Path, tmp_path: Path) -> Path:
    """Two clips of each word in each part, as lhotse unpacks the archive."""
    root = tmp_path / "SpeechCommands2" / "speech_commands_v0.02"
    listed: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for word in ("bed", "cat", "happy"):
        clips = [u for u in some(data_dir, "commands3", 360, "dev") if u.text == word][:6]
        for index, clip in enumerate(clips):
            name = f"{word}/{clip.audio_path.stem}.wav"
            copy(clip, root / name, 16000)
            listed[index % 3].append(name)
    (root / "validation_list.txt").write_text("\n".join([*listed[1], "dog/0a_nohash_0.wav"]))
    (root / "testing_list.txt").write_text("\n".join(listed[2]))
    (root / "_background_noise_").mkdir()
    (root / "_background_noise_" / "running_tap.wav").write_bytes(b"")
    return tmp_path


def test_speech_commands(commands: Path) -> None:
    result = run("speech_commands", commands)
    assert result.exit_code == 0, result.output
    assert parts(commands) == ["dev.jsonl", "test.jsonl", "train.jsonl"]
    for part in ("train", "dev", "test"):
        found = read_manifest(commands / f"{part}.jsonl")
        assert [u.text for u in found] == ["bed", "bed", "cat", "cat", "happy", "happy"]
        for u in found:
            assert u.extra == {"label": u.text, "speaker": u.audio_path.stem.split("_nohash_")[0]}
    listed = commands / "SpeechCommands2" / "speech_commands_v0.02" / "validation_list.txt"
    names = {f"{u.audio_path.parent.name}/{u.audio_path.name}" for u in read_manifest(commands / "dev.jsonl")}
    assert names == set(listed.read_text().split()) - {"dog/0a_nohash_0.wav"}


def test_speech_commands_words(commands: Path) -> None:
    assert run("speech_commands", commands, "--only", "cat,bed").exit_code == 0
    assert {u.text for u in read_manifest(commands / "train.jsonl")} == {"bed", "cat"}
    root = commands / "SpeechCommands2" / "speech_commands_v0.02"
    listed = (root / "testing_list.txt").read_text().split()
    (root / listed[0]).unlink()
    result = run("speech_commands", root)
    assert result.exit_code == 1 and f"{listed[0]}: listed, but not there" in result.stderr
    (root / "testing_list.txt").unlink()
    result = run("speech_commands", root)
    assert result.exit_code == 1 and "expected testing_list.txt" in result.stderr


def test_grid(data_dir: Path, tmp_path: Path) -> None:
    """As lhotse unpacks it, with 21 sentences of a talker, and one of a tested one."""
    utterances = some(data_dir, "grid", 21)
    for index, utterance in enumerate([*utterances, utterances[0]]):
        talker, name = f"s{10 if index < 21 else 2}", utterance.audio_path.stem
        copy(utterance, tmp_path / "audio_25k" / talker / f"{name}.wav", 25000)
        lines = [(0, 1, "sil"), *((s, e, w) for w, s, e in utterance.extra["words"]), (2.9, 2.98, "sil")]
        path = tmp_path / "alignments" / talker / f"{name}.align"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{round(s * 25000)} {round(e * 25000)} {w}\n" for s, e, w in lines))
    result = run("grid", tmp_path)
    assert result.exit_code == 0, result.output
    expected = {u.audio_path.stem: u.text for u in utterances}
    late = sorted(expected)[19]
    assert texts(tmp_path / "dev.jsonl") == {late: expected.pop(late)}
    assert texts(tmp_path / "test.jsonl") == {utterances[0].audio_path.stem: utterances[0].text}
    assert texts(tmp_path / "train.jsonl") == expected
    words = {u.audio_path.stem: u.extra["words"] for u in utterances}
    for found in read_manifest(tmp_path / "train.jsonl"):
        assert found.extra == {"speaker": "s10", "words": words[found.audio_path.stem]}
    # Talkers' own archives, one of the tested talkers alone; a broken alignment costs the times only.
    alone = tmp_path / "other" / "s2"
    copy(utterances[0], alone / f"{utterances[0].audio_path.stem}.wav", 16000)
    (alone / "align").mkdir()
    (alone / "align" / f"{utterances[0].audio_path.stem}.align").write_text("0 x sil\n")
    (alone / "noise.wav").write_bytes(b"")
    result = run("grid", tmp_path / "other")
    assert result.exit_code == 1 and parts(tmp_path / "other") == ["train.jsonl"]
    assert "line 1: expected start, end and word, received '0 x sil'" in result.stderr
    assert "noise.wav: expected a sentence of a talker" in result.stderr
    assert read_manifest(tmp_path / "other" / "train.jsonl")[0].extra == {"speaker": "s2"}


@pytest.mark.parametrize("corpus", ["librispeech", "an4", "fsdd", "speech_commands", "grid"])
def test_folders_without_the_corpus(corpus: str, tmp_path: Path) -> None:
    result = run(corpus, tmp_path)
    assert result.exit_code == 1 and f"folder: expected {corpus}, so " in result.stderr
    result = run(corpus, tmp_path / "none")
    assert result.exit_code == 1 and "which is none" in result.stderr


def test_usage(tmp_path: Path) -> None:
    assert run("timit", tmp_path).exit_code == 2
    result = run("fsdd", tmp_path, "--only", "seven")
    assert result.exit_code == 1 and "only: expected None for fsdd, received ['seven']" in result.stderr


@pytest.mark.parametrize(
    ("corpus", "function"),
    [
        ("librispeech", "download_librispeech"),
        ("speech_commands", "download_speechcommands"),
        ("grid", "download_grid"),
    ],
)
def test_without_a_network(
    corpus: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(lhotse.recipes, function, fail)
    result = run(corpus, tmp_path, "--download")
    assert result.exit_code == 1
    assert f"{corpus} could not be downloaded: <urlopen error Name or service not known>" in result.stderr
    assert "https://" in result.stderr or "http://" in result.stderr
    assert f"in {tmp_path} and run this again without --download" in result.stderr


@pytest.mark.parametrize("corpus", ["an4", "fsdd"])
def test_corpora_that_nobody_downloads(corpus: str, tmp_path: Path) -> None:
    result = run(corpus, tmp_path, "--download")
    assert result.exit_code == 1 and f"received {corpus}; unpack http" in result.stderr


def test_a_download(librispeech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lhotse's recipe is asked for the parts, and unpacks them in the folder."""
    (tmp_path / "new").mkdir()

    def unpack(folder: Path, wanted: list[str]) -> None:
        assert wanted == ["dev-clean"]
        (librispeech / "LibriSpeech").rename(folder / "LibriSpeech")

    monkeypatch.setattr(lhotse.recipes, "download_librispeech", unpack)
    result = run("librispeech", tmp_path / "new", "--download", "--only", "dev-clean")
    assert result.exit_code == 0, result.output
    assert parts(tmp_path / "new") == ["dev-clean.jsonl"]
