"""Directories of pyctcdecode's decoders, with a file damaged, missing, or one too many."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np

from asrkern.decoder.compat.pyctcdecode import BeamSearchDecoderCTC, build_ctcdecoder
from tests.decoder.models import small_lm
from tests.fuzz._language_models import damage

REFUSALS = (ValueError, OSError)
_LABELS = ["", " ", "a", "b", "c", "⁇"]
_ATTRIBUTES = (None, True, "x", -1.0, 1e300, float("nan"), [], 0.5)


def prepare(folder: Path) -> dict[str, bytes]:
    small_lm(["ab", "a", "b", "cab"], order=2).to_arpa(folder / "lm.arpa")
    build_ctcdecoder(_LABELS, folder / "lm.arpa").save_to_dir(folder / "seed")
    files = (folder / "seed").rglob("*")
    return {str(path.relative_to(folder / "seed")): path.read_bytes() for path in files if path.is_file()}


def one(rng: np.random.Generator, folder: Path, prepared: dict[str, bytes]) -> None:
    files = dict(prepared)
    name = list(files)[rng.integers(len(files))]
    kind = rng.integers(8)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files["language_model/more.bin"] = files[name]
    elif kind == 2:
        attributes = json.loads(files["language_model/attrs.json"])
        attributes[list(attributes)[rng.integers(len(attributes))]] = _ATTRIBUTES[
            rng.integers(len(_ATTRIBUTES))
        ]
        files["language_model/attrs.json"] = json.dumps(attributes).encode()
    elif kind == 3:
        alphabet = json.loads(files["alphabet.json"])
        alphabet["labels"][rng.integers(len(_LABELS))] = [None, "", "▁a", "##b", "|", "\0", "\ud800", "a"][
            rng.integers(8)
        ]
        files["alphabet.json"] = json.dumps(alphabet).encode()
    elif kind < 7:
        other = list(files)[rng.integers(len(files))]
        files[name] = damage(rng, files[name], files[other], text=True)
    target = folder / "decoder"
    shutil.rmtree(target, ignore_errors=True)
    (target / "language_model").mkdir(parents=True)
    for path, content in files.items():
        (target / path).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder = BeamSearchDecoderCTC.load_from_dir(target, parity=bool(rng.random() < 0.2))
    logits = rng.normal(size=(int(rng.integers(6)), len(decoder._labels))).astype(np.float32) * 3
    found = decoder.decode_beams(logits, beam_width=8)
    assert found and all(np.isfinite(beam.lm_score) for beam in found)
    assert decoder.decode(logits, beam_width=8) == found[0].text or decoder._parity
