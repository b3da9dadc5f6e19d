"""What people have in place of a checkpoint is said in words, at every door."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors

from asrkern._file_kinds import in_words
from asrkern.models import LAS, DeepSpeech2
from asrkern.models.conv_transformer import ConvRNNClassifier, ConvTransformerClassifier
from asrkern.recognizer.conversion import convert
from asrkern.recognizer.saved import load


def archive(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return written.getvalue()


def saved(value: object, **options: Any) -> bytes:
    written = io.BytesIO()
    torch.save(value, written, **options)
    return written.getvalue()


def tarred(name: str) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as file:
        file.addfile(tarfile.TarInfo(name))
    return written.getvalue()


def arrays() -> bytes:
    written = io.BytesIO()
    np.savez(written, a=np.ones(3))
    return written.getvalue()


CHECKPOINT = saved({"state_dict": {"w": torch.randn(100)}})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
# ir_version 8, producer_name "pytorch", graph.
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0\x3a\x10" + bytes(16)
KINDS: dict[str, tuple[bytes, str]] = {
    "lfs": (LFS, "a Git LFS pointer, which stands for a file of 123456 bytes: .*git lfs pull"),
    "html": (b"<!DOCTYPE html><html><title>404</title></html>", "a web page"),
    "html after a line": (b"\n  <HTML lang='en'>Sign in</HTML>", "a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML: .*AccessDenied"),
    "json": (json.dumps({"error": "Repository not found"}).encode(), "JSON: .*Repository not found"),
    "text": ("Entry not found — désolé".encode(), "text: 'Entry not found — désolé'"),
    "cut character": (b"a" * 4095 + "é".encode(), "text: 'aaa"),
    "nothing": (b"", "an empty file"),
    "zeros": (bytes(5000), "a file of 5000 zero bytes"),
    "gzip": (gzip.compress(CHECKPOINT), "gzip: .*gunzip"),
    "bzip2": (bz2.compress(CHECKPOINT), "bzip2"),
    "xz": (lzma.compress(CHECKPOINT), "xz"),
    "tar": (tarred("model_weights.ckpt"), r"a tar archive, as NeMo's \.nemo"),
    "zip of a checkpoint": (
        archive({"best/model.pth": CHECKPOINT}),
        "zip archive.*'best/model.pth': unpack it",
    ),
    "zip of documents": (
        archive({"a.txt": b"", "b.txt": b"", "c": b"", "d": b""}),
        "zip archive.*'a.txt'.*, …",
    ),
    "zip of nothing": (archive({}), "holds nothing"),
    "arrays": (arrays(), r"NumPy arrays \(\.npz\)"),
    "TorchScript": (
        archive({"m/data.pkl": b"N.", "m/constants.pkl": b"N."}),
        "a TorchScript archive, which is a program",
    ),
    "onnx": (ONNX, "an ONNX model"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "gguf": (b"GGUF" + bytes(99), "a GGUF file"),
    "kenlm": (
        b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(99),
        "a language model of KenLM",
    ),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(99), "a NumPy array"),
    "safetensors": (safetensors({"w": torch.ones(2)}), "a safetensors file|received other weights"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG image"),
    "wav": (b"RIFF" + bytes(99), "a WAV file"),
    "half a checkpoint": (CHECKPOINT[: len(CHECKPOINT) // 2], "cut short or damaged: get it again"),
    "the start of one": (CHECKPOINT[:4], "cut short or damaged: get it again"),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "deepspeech2": DeepSpeech2.from_checkpoint,
    "las": LAS.from_checkpoint,
    "conv_rnn": ConvRNNClassifier.from_checkpoint,
    "conv_transformer": ConvTransformerClassifier.from_checkpoint,
    "convert": convert,
    "load": load,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint_is_said_in_words(tmp_path: Path, kind: str, reader: str) -> None:
    content, words = KINDS[kind]
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.pth\b.*({words})") as raised:
        READERS[reader](path)
    assert "\n" not in str(raised.value)


def test_half_a_file_of_the_earlier_format(tmp_path: Path) -> None:
    whole = saved({"state_dict": {"w": torch.randn(100)}}, _use_new_zipfile_serialization=False)
    for size in range(3, len(whole), 37):
        (tmp_path / "x.pth").write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=r"x\.pth is not a readable torch checkpoint: .*[a-z]{4}"
        ) as raised:
            DeepSpeech2.from_checkpoint(tmp_path / "x.pth")
        assert not re.search(r": '?\d*'?$", str(raised.value))


def test_each_door_names_the_other(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CHECKPOINT)
    with pytest.raises(ValueError, match=r"x: expected an intact safetensors file, .*asrkern convert"):
        load(tmp_path / "x")
    n_grams = safetensors({"w": torch.ones(2)}, {"format": "asrkern n-gram model 3"})
    (tmp_path / "lm").write_bytes(n_grams)
    with pytest.raises(ValueError, match=r"lm: expected a checkpoint .*, received an n-gram language model"):
        load(tmp_path / "lm")
    (tmp_path / "part").write_bytes(n_grams[:-3])
    with pytest.raises(
        ValueError, match=r"part: expected an intact safetensors file, received a damaged one, or a part"
    ):
        load(tmp_path / "part")


def test_what_may_be_a_checkpoint_is_not_called_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (
        CHECKPOINT,
        saved({"w": torch.ones(3)}, _use_new_zipfile_serialization=False),
        struct.pack("<Q", 2**40) + b"{}",
        b"\xff\xfe" + bytes(range(256)),
    ):
        path.write_bytes(content)
        assert in_words(path) is None


def test_words_of_a_file_are_short_and_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x1b[2J" + b"a" * 9000)
    assert in_words(tmp_path / "x") is None
    (tmp_path / "y").write_bytes(b"{" + b"a\n" * 9000)
    assert len(str(in_words(tmp_path / "y"))) < 80
    (tmp_path / "z").write_bytes(archive({"\x1b[2J" + "n" * 5000: b""}))
    assert "\x1b" not in str(in_words(tmp_path / "z")) and len(str(in_words(tmp_path / "z"))) < 200


def test_folders_and_nothing(tmp_path: Path) -> None:
    for reader in READERS.values():
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(OSError, match=re.escape(str(path))):
                reader(path)
