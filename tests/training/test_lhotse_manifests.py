"""lhotse's manifests: every kind of cut is read or named, and nothing in them is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import (
    CutSet,
    Features,
    MonoCut,
    MultiCut,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
)
from lhotse.cut import PaddingCut

from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.training.batches import load_cut
from asrkern.training.manifests import read_cuts

SAMPLES = np.random.default_rng(0).normal(0, 0.1, (8000, 2)).astype(np.float32)


@pytest.fixture
def cut(tmp_path: Path) -> MonoCut:
    """Half a second of a recording of a second with two channels, at 8 kHz."""
    soundfile.write(tmp_path / "r.wav", SAMPLES, 8000, subtype="FLOAT")
    recording = Recording.from_file(tmp_path / "r.wav")
    supervision = SupervisionSegment("u", "r", 0.0, 0.5, text="hello", speaker="s")
    return MonoCut("c", 0.25, 0.5, 1, [supervision], recording=recording)


def write(folder: Path, *items: Any, name: str = "cuts.jsonl") -> Path:
    path = folder / name
    written = (item if isinstance(item, dict) else item.to_dict() for item in items)
    path.write_text("".join(json.dumps(item) + "\n" for item in written))
    return path


def samples(cut: MonoCut) -> np.ndarray:
    return load_cut(cut, FeatureSettings(sample_rate=8000), lambda samples: samples).numpy()


def test_cuts_of_one_and_of_several_channels(cut: MonoCut, tmp_path: Path) -> None:
    both = MultiCut("m", 0.25, 0.5, [0, 1], cut.supervisions, recording=cut.recording)
    first, second = read_cuts(write(tmp_path, cut, both))
    assert (first.id, second.id, second.supervisions[0].text) == ("c", "m", "hello")
    np.testing.assert_array_equal(samples(first), SAMPLES[2000:6000, 1])
    np.testing.assert_allclose(samples(second), SAMPLES[2000:6000].mean(1), rtol=0, atol=1e-7)


def test_equal_names_are_told_apart(cut: MonoCut, tmp_path: Path) -> None:
    assert [c.id for c in read_cuts(write(tmp_path, cut, cut))] == ["c", "c#2"]


def test_features_that_are_stored(cut: MonoCut, tmp_path: Path) -> None:
    """As a corpus of stored features is written by lhotse."""
    custom = {"features_path": "a.npz", "features_key": "k"}
    stored = MonoCut("c", 0.0, 0.5, 0, cut.supervisions, custom=custom)
    assert read_cuts(write(tmp_path, stored))[0].custom == custom


@pytest.mark.parametrize("name", ["{}.jsonl", "librispeech_{}_dev.jsonl.gz"])
def test_recordings_and_supervisions(cut: MonoCut, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    recordings, supervisions = (folder / name.format(kind) for kind in ("recordings", "supervisions"))
    parts = [
        SupervisionSegment("a", "r", 0.25, 0.5, channel=1, text="hello", speaker="s", custom={"label": 3}),
        SupervisionSegment("b", "r", 0.5, 0.52, channel=[0, 1], text=None),
    ]
    RecordingSet.from_recordings([cut.recording]).to_file(recordings)
    SupervisionSet.from_segments(parts).to_file(supervisions)
    first, second = read_cuts(folder)
    said = first.supervisions[0]
    assert (said.text, said.speaker, said.custom, said.start, said.duration) == (
        "hello",
        "s",
        {"label": 3},
        0.0,
        0.5,
    )
    np.testing.assert_array_equal(samples(first), SAMPLES[2000:6000, 1])
    np.testing.assert_allclose(samples(second), SAMPLES[4000:].mean(1), rtol=0, atol=1e-7)
    for path in (recordings, supervisions):
        with pytest.raises(ValueError, match=r"expected cuts, received lhotse's \w+s; name the folder"):
            read_cuts(path)
    for wrong in ([0, 2], [], 2):
        SupervisionSet.from_segments([SupervisionSegment("a", "r", 0.25, 0.5, wrong)]).to_file(supervisions)
        with pytest.raises(ValueError, match=r"line 1, a: expected of the channels \[0, 1\], received"):
            read_cuts(folder)
    SupervisionSet.from_segments([SupervisionSegment("a", "r", -0.25, 0.5)]).to_file(supervisions)
    with pytest.raises(
        ValueError, match=r"line 1, a: expected 0\.5 s from -0\.25 s on, received a recording of"
    ):
        read_cuts(folder)
    SupervisionSet.from_segments([SupervisionSegment("a", "x", 0.25, 0.5)]).to_file(supervisions)
    with pytest.raises(ValueError, match="line 1, a: expected a known recording, received 'x'"):
        read_cuts(folder)
    supervisions.rename(folder / "train_supervisions.jsonl")
    write(folder, name="dev_supervisions.jsonl")
    with pytest.raises(ValueError, match="received 0, 1 and 2; name a manifest of cuts"):
        read_cuts(folder)
    write(folder, cut)
    assert [c.id for c in read_cuts(folder)] == ["c"]


def test_files_relative_to_the_manifest(
    cut: MonoCut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = cut.to_dict()
    entry["recording"]["sources"][0]["source"] = "r.wav"
    path = write(tmp_path, entry)
    np.testing.assert_array_equal(samples(read_cuts(path)[0]), SAMPLES[2000:6000, 1])
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(samples(read_cuts("cuts.jsonl")[0]), SAMPLES[2000:6000, 1])


def test_a_rate_or_length_that_is_not_the_files(cut: MonoCut, tmp_path: Path) -> None:
    """lhotse takes the manifest's word, and the speech would be read at the wrong pitch; the same for lengths."""
    entry = cut.to_dict()
    entry["recording"].update(sampling_rate=16000, num_samples=16000)
    with pytest.raises(
        ValueError,
        match=r"line 1, c: expected 1\.0 s at 16000 Hz, as the manifest says, received 1\.0 s at 8000 Hz",
    ):
        read_cuts(write(tmp_path, entry))
    entry["recording"].update(sampling_rate=8000, num_samples=8800, duration=1.1)
    with pytest.raises(
        ValueError, match=r"expected 1\.1 s at 8000 Hz, as the manifest says, received 1\.0 s at 8000 Hz"
    ):
        read_cuts(write(tmp_path, entry))
    assert read_cuts(write(tmp_path, cut.resample(16000)))[0].sampling_rate == 16000


def test_cuts_that_are_none_of_one_utterance(cut: MonoCut, tmp_path: Path) -> None:
    features = Features("fbank", 50, 80, 0.01, 8000, 0.0, 0.5, "numpy_files", "a", "b", "r", 0)
    for wrong, message in (
        (cut.pad(1.0), r"expected MonoCut or MultiCut, received MixedCut \(lhotse's save_audios"),
        (cut.append(cut), "received MixedCut"),
        (PaddingCut("c", 1.0, 8000, 0.0, num_samples=8000), "expected a Cut of lhotse, received .*PaddingCut"),
        (MonoCut("c", 0.0, 0.5, 1, [], recording=cut.recording), "expected one supervision a cut, received 0"),
        (MonoCut("c", 0.0, 0.5, 1, cut.supervisions * 2, recording=cut.recording), "received 2 .*trim_to_supervisions"),
        (MonoCut("c", 0.0, 0.5, 0, cut.supervisions, features=features), "expected a recording, or custom"),
        (MonoCut("c", 0.0, 0.5, 0, cut.supervisions), "expected a recording, or custom features_path"),
    ):  # fmt: skip
        path = write(tmp_path, cut, wrong)
        with pytest.raises(ValueError, match=f"line 2.*{message}"):
            read_cuts(path)
        left_out: list[Exception] = []
        assert len(read_cuts(path, left_out=left_out)) == 1 and len(left_out) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"type": "command", "source": "touch {}/run"}, "commands in data are not run"),
        ({"type": "url", "source": "pipe:touch {}/run"}, "commands in data are not run"),
        ({"type": "shar", "source": ""}, "expected a file, received '' of type 'shar'"),
        ({"type": "memory", "source": "abc"}, "expected a file, received 'abc' of type 'memory'"),
        ({"type": "file", "source": "{}/a;touch run;.sph"}, "expected a plain name of a NIST Sphere file"),
        (
            {"type": "file", "source": "gone.wav"},
            "expected a file, received 'gone.wav', which does not exist",
        ),
        ({"type": "file", "source": 3}, "expected a file, received {.*3"),
    ],
)
@pytest.mark.parametrize("where", ["recording", "impulse response", "custom"])
def test_sources_that_are_no_files(
    cut: MonoCut, tmp_path: Path, source: dict[str, Any], message: str, where: str
) -> None:
    """Of the recording, or of another that is needed to load it."""
    if isinstance(source["source"], str):
        source = {**source, "source": source["source"].replace("{}", str(tmp_path))}
    (tmp_path / "a;touch run;.sph").touch()
    entry = cut.to_dict()
    other = json.loads(json.dumps(entry["recording"]))
    (entry["recording"] if where == "recording" else other)["sources"][0].update(source)
    if where == "impulse response":
        reverb = {"name": "ReverbWithImpulseResponse", "kwargs": {"rir": other}}
        entry["recording"]["transforms"] = [reverb]
    elif where == "custom":
        entry["custom"] = {"noise": other}
    with pytest.raises((ValueError, FileNotFoundError), match=f"line 1, 'c': .*{message}"):
        read_cuts(write(tmp_path, entry))
    assert not (tmp_path / "run").exists() and not Path("run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(id=3), "with a string as id"),
        (lambda e: e.pop("start"), r"expected a Cut of lhotse, received .*TypeError: .*'start'"),
        (lambda e: e.update(duration="1"), "c: expected start and duration in seconds, received 0.25 and '1'"),
        (lambda e: e.update(duration=float("nan")), "c: expected start and duration in seconds"),
        (lambda e: e.update(duration=0.9), "c: expected a part of a recording of 1.0 s, received 0.9 s from 0.25 s"),
        (lambda e: e.update(start=-0.1), "c: expected a part of a recording of 1.0 s, received 0.5 s from -0.1 s"),
        (lambda e: e.update(channel="x"), "c: expected a channel's index, received 'x'"),
        (lambda e: e["supervisions"][0].update(text=3), "c: expected text, received 3"),
        (lambda e: e["supervisions"][0].update(custom=[1]), "expected a"),
        (lambda e: e["recording"].update(sampling_rate="8000"), "c: expected a rate of 1000 to 384000 Hz, received '8000'"),
        (lambda e: e["recording"].update(sampling_rate=0), "c: expected a rate of 1000 to 384000 Hz, received 0"),
        (lambda e: e["recording"].update(duration=None), "c: expected a recording's duration in seconds, received None"),
        (lambda e: e["recording"].update(channel_ids=[[0]]), r"c: expected channels' indices, received \[\[0\]\]"),
        (lambda e: e["recording"]["sources"][0].update(channels=None), "c: expected channels' indices, received"),
        (lambda e: e["recording"].update(sources=3), "expected a Cut of lhotse, received"),
    ],
)  # fmt: skip
def test_values_that_are_wrong_are_named(cut: MonoCut, tmp_path: Path, change: Any, message: str) -> None:
    entry = cut.to_dict()
    change(entry)
    with pytest.raises(ValueError, match=rf"cuts\.jsonl, line 2.*{message}"):
        read_cuts(write(tmp_path, cut, entry))


def test_lines_that_are_none(cut: MonoCut, tmp_path: Path) -> None:
    path = write(tmp_path, cut)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(ValueError, match="line 2: expected a JSON object, received"):
        read_cuts(path)
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    packed = (tmp_path / "cuts.jsonl.gz").read_bytes()
    (tmp_path / "cuts.jsonl.gz").write_bytes(packed[:-8])
    with pytest.raises(ValueError, match=r"cuts\.jsonl\.gz, line 2: expected intact gzip"):
        read_cuts(tmp_path / "cuts.jsonl.gz")


def test_lists_in_place_of_lines_are_told_with_the_way_out(cut: MonoCut, tmp_path: Path) -> None:
    """lhotse still writes and reads .json, all items of which are one list."""
    path = tmp_path / "cuts.json"
    CutSet.from_cuts([cut]).to_file(path)
    with pytest.raises(
        ValueError, match=r"cuts\.json, line 1: .* received a list, .* `lhotse copy NAME\.json"
    ):
        read_cuts(path)
    folder = tmp_path / "corpus"
    folder.mkdir()
    RecordingSet.from_recordings([cut.recording]).to_file(folder / "recordings.json")
    SupervisionSet.from_segments(cut.supervisions).to_file(folder / "supervisions.json")
    with pytest.raises(ValueError, match=r"\*\.jsonl, which `lhotse copy` makes of \*\.json"):
        read_cuts(folder)
