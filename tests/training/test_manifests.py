"""Corpora in their several forms, and those that are damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import (
    AudioSource,
    CutSet,
    MonoCut,
    MultiCut,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
)

from asrkern.data import load_audio, read_manifest
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.training.batches import load_cut, load_samples
from asrkern.training.manifests import read_cuts, unique
from tests.data.recordings import voice, wav_with_sizes, without_length

SETTINGS = FeatureSettings(sample_rate=8000)


def texts(cuts: CutSet) -> dict[str, str]:
    return {cut.id: cut.supervisions[0].text for cut in cuts}


def manifest(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """One second of noise."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    return path


def test_nemo(recording: Path) -> None:
    """Segments of one recording, with speaker and further fields."""
    name = {"audio_filepath": recording.name}
    path = manifest(
        recording.parent,
        {**name, "duration": 1.0, "text": "all", "speaker": "s", "label": "x"},
        {**name, "duration": 0.25, "offset": 0.5, "text": "part"},
    )
    whole, part = read_cuts(path)
    assert (whole.id, whole.supervisions[0].speaker) == ("noise", "s")
    assert whole.supervisions[0].custom == {"label": "x"}
    assert (part.id, part.start, part.duration) == ("noise#2", 0.5, 0.25)
    extract = SETTINGS.make()
    expected = extract(load_audio(recording, 8000, offset_seconds=0.5, duration_seconds=0.25))
    assert torch.equal(load_cut(part, SETTINGS, extract), expected)


@pytest.fixture
def corpora(tmp_path: Path) -> Callable[[Path], list[Path]]:
    """NeMo's and Kaldi's, of one recording, without durations."""

    def write(recording: Path) -> list[Path]:
        lines = manifest(tmp_path, {"audio_filepath": recording.name, "text": "x"})
        kaldi = tmp_path / "kaldi"
        kaldi.mkdir()
        (kaldi / "wav.scp").write_text(f"u {recording}\n")
        (kaldi / "text").write_text("u x\n")
        return [lines, kaldi]

    return write


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_headers_that_do_not_tell_the_length(
    name: str, tmp_path: Path, corpora: Callable[[Path], list[Path]]
) -> None:
    """libsndfile's guess is 0 s of the WAV and less than half of the MP3."""
    file = tmp_path / name
    samples = voice(20 * 16_000)
    samples[8000:] *= 1e-3
    if name == "a.mp3":
        soundfile.write(file, samples, 16_000, bitrate_mode="VARIABLE", compression_level=0.3)
        file.write_bytes(without_length(file.read_bytes()))
    else:
        soundfile.write(file, samples, 16_000)
        file.write_bytes(wav_with_sizes(file.read_bytes(), riff=0, data=0))
    whole = load_audio(file)
    assert soundfile.info(file).frames < len(whole) / 2
    assert read_manifest(corpora(file)[0])[0].duration_seconds == len(whole) / 16_000
    for corpus in (tmp_path / "m.jsonl", tmp_path / "kaldi"):
        [cut] = read_cuts(corpus)
        assert torch.equal(load_samples(cut, 16_000), whole)


def test_a_truncated_recording_is_refused(recording: Path, corpora: Callable[[Path], list[Path]]) -> None:
    recording.write_bytes(recording.read_bytes()[:8000])
    lines, kaldi = corpora(recording)
    for read, corpus in ((read_manifest, lines), (read_cuts, lines), (read_cuts, kaldi)):
        with pytest.raises(ValueError, match=r", line 1.*: expected 16000 bytes, received 7956: it is trunc"):
            list(read(corpus))


def test_stored_features(data_dir: Path) -> None:
    cuts = read_cuts(data_dir / "an4" / "dev.jsonl")
    settings = FeatureSettings(kind="stored", bins=13)
    features = load_cut(cuts[0], settings, settings.make())
    assert features.shape[0] == 13
    assert abs(features.shape[1] - settings.frames(cuts[0].duration)) <= 2
    torch.testing.assert_close(features.mean(1), torch.zeros(13), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="expected 20 stored features per frame, received 13"):
        load_cut(
            cuts[0], FeatureSettings(kind="stored", bins=20), FeatureSettings(kind="stored", bins=20).make()
        )
    with pytest.raises(ValueError, match=f"{cuts[0].id}: expected a recording, received none"):
        load_cut(cuts[0], SETTINGS, SETTINGS.make())


def test_lhotse(tones: tuple[Path, Path], tmp_path: Path) -> None:
    cuts = read_cuts(tones[1])
    for name in ("cuts.jsonl", "cuts.jsonl.gz"):
        cuts.to_file(tmp_path / name)
        assert texts(read_cuts(tmp_path / name)) == texts(cuts)
    bare = CutSet.from_cuts([MonoCut(c.id, c.start, c.duration, 0, recording=c.recording) for c in cuts])
    bare.to_file(tmp_path / "bare.jsonl")
    with pytest.raises(ValueError, match="expected one supervision a cut, received 0"):
        read_cuts(tmp_path / "bare.jsonl")


@pytest.mark.parametrize("segments", [False, True])
def test_kaldi(recording: Path, segments: bool) -> None:
    folder = recording.parent / "kaldi"
    folder.mkdir()
    (folder / "wav.scp").write_text(f"rec1 {recording}\n")
    name = "utt1" if segments else "rec1"
    (folder / "text").write_text(f"{name} HELLO WORLD\n")
    (folder / "utt2spk").write_text(f"{name} spk\n")
    if segments:
        (folder / "segments").write_text("utt1 rec1 0.25 0.75\n")
    (cut,) = read_cuts(folder)
    assert cut.supervisions[0].text == "HELLO WORLD"
    assert cut.supervisions[0].speaker == "spk"
    assert cut.duration == (0.5 if segments else 1.0)
    extract = SETTINGS.make()
    start, length = (0.25, 0.5) if segments else (0.0, 1.0)
    expected = extract(load_audio(recording, 8000, offset_seconds=start, duration_seconds=length))
    assert torch.equal(load_cut(cut, SETTINGS, extract), expected)


def test_librispeech_layout(tmp_path: Path, data_dir: Path) -> None:
    """As on openslr.org: subset/speaker/chapter with *.flac and one *.trans.txt, of real speech."""
    source = data_dir / "lj" / "dev.jsonl"
    lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()[:3]]
    chapter = tmp_path / "dev-clean" / "1272" / "128104"
    chapter.mkdir(parents=True)
    for index, line in enumerate(lines):
        samples = load_audio(source.parent / line["audio_filepath"], 16000)
        soundfile.write(chapter / f"1272-128104-{index:04d}.flac", samples.numpy(), 16000)
    transcripts = [f"1272-128104-{i:04d} {line['text'].upper()}" for i, line in enumerate(lines)]
    (chapter / "1272-128104.trans.txt").write_text("\n".join(transcripts) + "\n", "utf-8")
    cuts = read_cuts(tmp_path)
    assert texts(cuts) == dict(line.split(" ", 1) for line in transcripts)
    assert {cut.supervisions[0].speaker for cut in cuts} == {"1272"}
    assert [round(cut.duration, 2) for cut in cuts] == [round(line["duration"], 2) for line in lines]
    (chapter / "1272-128104-0001.flac").unlink()
    with pytest.raises(FileNotFoundError, match="recording of '1272-128104-0001'"):
        read_cuts(tmp_path)


def test_a_recording_that_is_missing(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"audio_filepath": "gone.wav", "duration": 1.0, "text": "a"})
    with pytest.raises(FileNotFoundError, match=r"line 1: expected a file, received .*gone\.wav"):
        read_cuts(path)
    folder = tmp_path / "kaldi"
    folder.mkdir()
    (folder / "wav.scp").write_text("rec1 /nowhere/gone.wav\n")
    with pytest.raises(
        FileNotFoundError, match=r"wav\.scp, line 1: expected a file, received '/nowhere/gone\.wav'"
    ):
        read_cuts(folder)


def test_a_recording_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    path = manifest(tmp_path, {"audio_filepath": "empty.wav", "duration": 1.0, "text": "a"})
    with pytest.raises(ValueError, match=r"empty: expected .*empty\.wav"):
        read_cuts(path)


def test_a_recording_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no audio")
    path = manifest(tmp_path, {"audio_filepath": "text.wav", "duration": 1.0, "text": "a"})
    with pytest.raises(ValueError, match=r"text: expected a recording, received .*text\.wav"):
        read_cuts(path)


def test_a_recording_that_is_shorter_than_its_utterance(recording: Path) -> None:
    path = manifest(recording.parent, {"audio_filepath": recording.name, "duration": 1.5, "text": "a"})
    with pytest.raises(
        ValueError, match=r"noise: expected 1\.5 s from 0\.0 s on, received a recording of 1\.000 s"
    ):
        read_cuts(path)
    # As far as manifests round.
    path = manifest(recording.parent, {"audio_filepath": recording.name, "duration": 1.01, "text": "a"})
    assert read_cuts(path)[0].duration == 1.0


def test_corpora_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_cuts(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"expected wav\.scp or \*\.trans\.txt"):
        read_cuts(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="at least one utterance"):
        read_cuts(tmp_path / "empty.jsonl")


def test_a_recording_that_breaks_while_it_is_trained_on(tmp_path: Path) -> None:
    """Good when the manifest was read, cut short later, then gone."""
    path = tmp_path / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000), 8000)
    (cut,) = read_cuts(manifest(tmp_path, {"audio_filepath": path.name, "duration": 2.0, "text": "a"}))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"^noise: '.*noise\.flac': .*lost sync\.$"):
        load_cut(cut, SETTINGS, SETTINGS.make())
    path.unlink()
    with pytest.raises(
        ValueError, match=r"^noise: '.*noise\.flac': path: expected an audio file, .* does not exist$"
    ):
        load_cut(cut, SETTINGS, SETTINGS.make())


def nemo(folder: Path, recording: Path) -> Path:
    return manifest(folder, {"audio_filepath": recording.name, "duration": None, "text": "a"})


def lines_of_deepspeech_pytorch(folder: Path, recording: Path) -> Path:
    (folder / "a.txt").write_text("a")
    (folder / "m.csv").write_text(f"{recording.name},a.txt\n")
    return folder / "m.csv"


def kaldi(folder: Path, recording: Path) -> Path:
    (folder / "wav.scp").write_text(f"r {recording}\n")
    (folder / "text").write_text("r a\n")
    return folder


def kaldi_segments(folder: Path, recording: Path) -> Path:
    kaldi(folder, recording)
    (folder / "text").write_text("u a\n")
    (folder / "segments").write_text("u r 0 -1\n")
    return folder


def lhotse_cuts(folder: Path, recording: Path) -> Path:
    read_cuts(nemo(folder, recording)).to_file(folder / "cuts.jsonl.gz")
    return folder / "cuts.jsonl.gz"


def lhotse_folder(folder: Path, recording: Path) -> Path:
    (folder / "manifests").mkdir(exist_ok=True)
    found = Recording.from_file(recording)
    RecordingSet.from_recordings([found]).to_file(folder / "manifests" / "recordings.jsonl")
    supervision = SupervisionSegment("u", found.id, 0.0, found.duration, text="a")
    SupervisionSet.from_segments([supervision]).to_file(folder / "manifests" / "supervisions.jsonl")
    return folder / "manifests"


def librispeech(folder: Path, recording: Path) -> Path:
    (folder / "1-2.trans.txt").write_text(f"{recording.stem} a\n")
    return folder


FORMS = [nemo, lines_of_deepspeech_pytorch, kaldi, kaldi_segments, lhotse_cuts, lhotse_folder, librispeech]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
@pytest.mark.parametrize("form", FORMS)
def test_pitch_and_length_are_those_of_the_recording(
    form: Callable[[Path, Path], Path], rate: int, tmp_path: Path
) -> None:
    """A tone of whatever rate arrives as it is, at the rate of the features."""
    pitch, seconds = 440, 1.5
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)
    soundfile.write(tmp_path / "r.wav", samples, rate, subtype="FLOAT")
    (cut,) = read_cuts(form(tmp_path, tmp_path / "r.wav"))
    assert cut.supervisions[0].text == "a" and cut.duration == pytest.approx(seconds, abs=1e-4)
    loaded = load_cut(cut, FeatureSettings(sample_rate=16000), lambda samples: samples)
    expected = 0.5 * np.sin(2 * np.pi * pitch * np.arange(len(loaded)) / 16000)
    assert abs(len(loaded) - 16000 * seconds) <= 1
    # Filters ring at the ends.
    np.testing.assert_allclose(loaded[400:-400], expected[400:-400], rtol=0, atol=2e-3)


def test_the_rate_that_is_given_changes_nothing(recording: Path) -> None:
    assert read_cuts(nemo(recording.parent, recording), 16000)[0].sampling_rate == 8000


def test_names_are_unique(recording: Path) -> None:
    """Within a corpus, and of several of them that are trained on together: features are kept by name."""
    line = {"audio_filepath": recording.name, "text": "a", "duration": 0.5}
    path = manifest(recording.parent, line, {**line, "offset": 0.25}, {**line, "offset": 0.5})
    assert [cut.id for cut in read_cuts(path)] == ["noise", "noise#2", "noise#3"]
    both = list(unique([*read_cuts(path), *read_cuts(path)]))
    assert len({cut.id for cut in both}) == 6 and both[3].start == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_read_is_left_out_on_request(
    form: Callable[[Path, Path], Path], recording: Path
) -> None:
    """Whatever the form; the message names file and line."""
    path = form(recording.parent, recording)
    recording.unlink()
    with pytest.raises(FileNotFoundError, match=r"(line 1|samples\[0\]).*: expected a (file|recording)"):
        read_cuts(path)
    left_out: list[Exception] = []
    with pytest.raises((ValueError, FileNotFoundError)):
        read_cuts(path, left_out=left_out)
    assert len(left_out) == 1 or form is lhotse_folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1.0, "duration": 0.04}, "at least one sample from 1.0 s on, received 0.0 s"),
        ({"offset": 1.03, "duration": 0.01}, "at least one sample from 1.03 s on, received -0.03 s"),
        ({"offset": 7.0, "duration": 0.5}, "0.5 s from 7.0 s on, received a recording of 1.000 s"),
        ({"offset": 0.5, "duration": 1e-6}, "at least one sample from 0.5 s on, received 1e-06 s"),
    ],
)
def test_parts_that_are_not_there(recording: Path, changes: dict[str, float], message: str) -> None:
    path = manifest(recording.parent, {"audio_filepath": recording.name, "text": "a", **changes})
    with pytest.raises(ValueError, match=f"m.jsonl, line 1, noise: expected {message}"):
        read_cuts(path)


@pytest.mark.parametrize("rate", [999, 384_001])
def test_rates_that_are_none(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "r.wav", np.zeros(rate), rate)
    for form in (nemo, kaldi, librispeech):
        with pytest.raises(
            ValueError, match=f"line 1.*: expected a rate of 1000 to 384000 Hz, received {rate}"
        ):
            read_cuts(form(tmp_path, tmp_path / "r.wav"))


def test_names_that_would_be_run(tmp_path: Path) -> None:
    """lhotse puts names of NIST Sphere files into a shell's line."""
    path = tmp_path / "a;touch b;.sph"
    soundfile.write(path, np.zeros(8000), 8000, format="NIST")
    for corpus in (manifest(tmp_path, {"audio_filepath": path.name, "duration": 1.0}), kaldi(tmp_path, path)):
        with pytest.raises(ValueError, match=r"line 1.*: expected a plain name of a NIST Sphere file"):
            read_cuts(corpus)


def test_a_pipe_in_place_of_a_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        read_cuts(tmp_path / "m.jsonl")


def test_channels_are_averaged(tmp_path: Path) -> None:
    """In training as where audio is read to be transcribed; resampled too."""
    samples = np.random.default_rng(0).normal(0, 0.1, (12000, 2))
    soundfile.write(tmp_path / "stereo.wav", samples, 12000, subtype="FLOAT")
    path = manifest(tmp_path, {"audio_filepath": "stereo.wav", "duration": 0.5, "offset": 0.25, "text": "a"})
    extract = SETTINGS.make()
    (cut,) = read_cuts(path)
    expected = extract(load_audio(tmp_path / "stereo.wav", 8000, offset_seconds=0.25, duration_seconds=0.5))
    assert torch.equal(load_cut(cut, SETTINGS, extract), expected)
    assert load_cut(cut.perturb_speed(1.1), SETTINGS, extract).shape[1] == round(0.5 / 1.1 * 8000) // 80 + 1


def test_a_part_of_a_file_is_read_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by lhotse, nor from its start."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (44100 * 20, 2)), 44100)
    lines = {"audio_filepath": path.name, "duration": 0.5, "offset": 18.25, "text": "a"}
    (cut,) = read_cuts(manifest(tmp_path, lines))
    read: list[int] = []
    once = soundfile.SoundFile.read

    def counted(file: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        read.append(frames)
        return once(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    monkeypatch.setattr(MultiCut, "load_audio", None)
    samples = load_samples(cut, 16000)
    assert torch.equal(samples, load_audio(path, offset_seconds=18.25, duration_seconds=0.5))
    assert samples.shape == (8000,) and read == [22050, 22050]


def test_what_lhotse_has_to_read(tmp_path: Path) -> None:
    """One of several channels, or another speed."""
    samples = np.random.default_rng(0).normal(0, 0.1, (8000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "stereo.wav", samples, 8000, subtype="FLOAT")
    cut = Recording.from_file(tmp_path / "stereo.wav").to_cut()
    assert torch.equal(load_samples(cut, 8000), torch.from_numpy(samples).mean(1))
    right = MonoCut("right", 0.0, 1.0, 1, recording=cut.recording)
    assert torch.equal(load_samples(right, 8000), torch.from_numpy(samples[:, 1]))
    assert load_samples(right.perturb_speed(1.25), 8000).shape == (6400,)


def test_other_forms_are_left_to_lhotse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may find ffmpeg."""
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    recording = Recording("a", [AudioSource("file", [0], str(tmp_path / "a.m4a"))], 8000, 80, 0.01)
    monkeypatch.setattr(MonoCut, "load_audio", lambda cut: np.ones((1, 80), np.float32))
    assert torch.equal(load_samples(recording.to_cut(), 8000), torch.ones(80))


def test_a_recording_may_be_a_little_shorter_than_its_manifest_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    recording = Recording("a", [AudioSource("file", [0], str(tmp_path / "a.wav"))], 8000, 8160, 1.02)
    assert load_samples(recording.to_cut(), 8000).shape == (8000,)
    longer = Recording("a", [AudioSource("file", [0], str(tmp_path / "a.wav"))], 8000, 8800, 1.1)
    with pytest.raises(ValueError, match="expected at least 8800 frames at 8000 Hz, received 8000"):
        load_samples(longer.to_cut(), 8000)
