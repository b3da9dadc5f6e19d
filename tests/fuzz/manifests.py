"""Corpora: NeMo's, deepspeech.pytorch's and tables' manifests, Kaldi folders, lhotse's cuts and folders; whole, or with bytes,
numbers, lines and JSON values changed."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.training.batches import load_cut
from asrkern.training.manifests import read_cuts

REFUSALS = (ValueError, OSError)

_SETTINGS = FeatureSettings(sample_rate=16000)
_EXTREMES = (
    "0", "-1", "-1.0", "1e-9", "1e308", "nan", "inf", "NaN", "2147483648", "4611686018427387904",
    "9" * 400,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, float("nan"), "", "a.wav", "a\0", "\ud800", [], {}, [[]] * 3, "9" * 500,
)  # fmt: skip
_PIECES = (
    b"\0", b"\xff", b"\n", b"\r\n", b"\t", b" ", b",", b'"', b"|", b"touch run |", b"pipe:touch run",
    b"{", b"[" * 2000,
)  # fmt: skip

# A form: the files of a corpus by name, which is read (the folder if ""), and what it holds: (text, start, duration).
_Form = tuple[dict[str, bytes], str, list[tuple[str, float, float]]]


def prepare(folder: Path) -> dict[str, _Form]:
    """Two recordings, and a corpus of each form of them."""
    logging.getLogger("asrkern.training").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    noise = np.random.default_rng(0).normal(0, 0.1, (8000, 2))
    soundfile.write(folder / "a.wav", noise[:, 0], 8000)
    soundfile.write(folder / "b.flac", noise, 16000)
    (folder / "t.txt").write_text("one\n")
    a, b = str(folder / "a.wav"), str(folder / "b.flac")
    whole = [("one", 0.0, 1.0), ("two words", 0.25, 0.25)]
    nemo = _lines(
        {"audio_filepath": a, "duration": None, "text_filepath": str(folder / "t.txt"), "speaker": "s"},
        {
            "audio_filepath": b,
            "offset": 0.25,
            "duration": 0.25,
            "text": "two words",
            "words": [["two", 0.0, 0.1]],
        },
    )
    sample = {"wav_path": "a.wav", "transcript_path": "t.txt"}
    recordings = [Recording.from_file(a, "r1"), Recording.from_file(b, "r2")]
    supervisions = [
        SupervisionSegment("u1", "r1", 0.0, 1.0, text="one", custom={"label": 1}),
        SupervisionSegment("u2", "r2", 0.25, 0.25, channel=[0, 1], text="two words", speaker="s"),
    ]
    cuts = [
        MonoCut(s.id, s.start, s.duration, 0, [s], recording=r)
        for s, r in zip(supervisions, recordings, strict=True)
    ]
    kaldi = {
        "wav.scp": f"r1 {a}\nr2\tcat {b} |\n".encode(),
        "segments": b"u1 r1 0 -1\nu2 r2 0.25 0.5 1\n",
        "text": b"u1 one\nu2\ttwo words\n",
        "utt2spk": b"u1 s\nu2 t\n",
        "spk2gender": b"s f\n",
    }
    return {
        "nemo": ({"m.json": nemo}, "m.json", whole),
        "lines": ({"m.csv": f"{a},{folder}/t.txt\n".encode()}, "m.csv", whole[:1]),
        "samples": (
            {"m.json": json.dumps({"root_path": str(folder), "samples": [sample]}).encode()},
            "m.json",
            whole[:1],
        ),
        "table": ({"m.tsv": f"path\tsentence\tage\n{a}\tone\t\n".encode()}, "m.tsv", whole[:1]),
        "kaldi": (kaldi, "", whole),
        "cuts": ({"cuts.jsonl": _lines(*(cut.to_dict() for cut in cuts))}, "cuts.jsonl", whole),
        "lhotse": (
            {
                "recordings.jsonl": _lines(*(recording.to_dict() for recording in recordings)),
                "supervisions.jsonl": _lines(*(supervision.to_dict() for supervision in supervisions)),
            },
            "",
            whole,
        ),
        "librispeech": (
            {"1-2.trans.txt": b"1-2-3 one\n", "1-2-3.wav": (folder / "a.wav").read_bytes()},
            "",
            whole[:1],
        ),
    }


def one(rng: np.random.Generator, folder: Path, prepared: dict[str, _Form]) -> None:
    """One corpus, read whole; sometimes an utterance of it is loaded."""
    name = str(rng.choice(list(prepared)))
    files, read, expected = prepared[name]
    corpus = folder / name
    corpus.mkdir(exist_ok=True)
    changed = rng.random() < 0.9
    victim = str(rng.choice([file for file in files if not file.endswith(".wav")])) if changed else None
    for file, content in files.items():
        # A new file: to write over one takes a hundred times longer on some file systems.
        (corpus / file).unlink(missing_ok=True)
        if file != victim or rng.random() > 0.02:
            (corpus / file).write_bytes(_changed(rng, content, prepared) if file == victim else content)
    left_out: list[Exception] | None = [] if rng.random() < 0.5 else None
    try:
        cuts = read_cuts(corpus / read, left_out=left_out)
    except REFUSALS as error:
        assert changed and _is_named(error, corpus), error
        raise
    assert all(isinstance(error, REFUSALS) and _is_named(error, corpus) for error in left_out or ()), left_out
    if not changed:
        assert not left_out
        assert [(c.supervisions[0].text, c.start, c.duration) for c in cuts] == expected
    for cut in cuts:
        (supervision,) = cut.supervisions
        assert isinstance(supervision.text, str | None)
        assert cut.duration > 0
        if cut.has_recording:
            assert cut.start >= 0 and cut.end < cut.recording.duration + 0.1
            assert all(source.type in ("file", "url") for source in cut.recording.sources)
    assert len({cut.id for cut in cuts}) == len(cuts)
    if rng.random() < 0.02 and cuts[0].has_recording and not cuts[0].recording.transforms:
        samples = load_cut(cuts[0], _SETTINGS, lambda samples: samples)
        assert abs(len(samples) - cuts[0].duration * 16000) < 0.03 * 16000
    assert not (folder / "run").exists() and not Path("run").exists()


def _is_named(error: Exception, corpus: Path) -> bool:
    """One line that tells the file and what was expected."""
    return str(corpus) in str(error) and "expected" in str(error) and "\n" not in str(error)


def _lines(*entries: dict[str, Any]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def _changed(rng: np.random.Generator, content: bytes, forms: dict[str, _Form]) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        kind, at, to = rng.integers(8), *sorted(rng.integers(0, len(content) + 1, 2).tolist())
        if kind == 0 and content:
            flipped = bytearray(content)
            flipped[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
            content = bytes(flipped)
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + content[to:]
        elif kind == 3:
            content = content[:at] + _PIECES[rng.integers(len(_PIECES))] + content[at:]
        elif kind == 4:
            numbers = list(re.finditer(rb"-?\d+\.?\d*", content))
            if numbers:
                number = numbers[rng.integers(len(numbers))]
                extreme = _EXTREMES[rng.integers(len(_EXTREMES))].encode()
                content = content[: number.start()] + extreme + content[number.end() :]
        elif kind == 5:
            lines = content.split(b"\n")
            other = next(iter(list(forms.values())[rng.integers(len(forms))][0].values())).split(b"\n")[0]
            lines.insert(int(rng.integers(len(lines) + 1)), [lines[0], b"", other][rng.integers(3)])
            content = b"\n".join(lines)
        else:
            content = _with_another_value(rng, content)
    return content


def _with_another_value(rng: np.random.Generator, content: bytes) -> bytes:
    """One value of one JSON line is another, or gone."""
    lines = content.split(b"\n")
    index = int(rng.integers(len(lines)))
    try:
        entry = json.loads(lines[index])
    except (ValueError, RecursionError):
        return content
    inside: Any = entry
    while isinstance(inside, (dict, list)) and inside:
        key = (
            list(inside)[rng.integers(len(inside))]
            if isinstance(inside, dict)
            else int(rng.integers(len(inside)))
        )
        if isinstance(inside[key], (dict, list)) and inside[key] and rng.random() < 0.7:
            inside = inside[key]
            continue
        if rng.random() < 0.2:
            del inside[key]
        else:
            inside[key] = _VALUES[rng.integers(len(_VALUES))]
        break
    lines[index] = json.dumps(entry).encode()
    return b"\n".join(lines)
