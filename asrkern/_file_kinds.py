"""What people have in place of a checkpoint, in words."""

from __future__ import annotations

import codecs
import os
import re
import zipfile
from collections.abc import Iterable

_SHOWN = 60  # characters
_HEAD = 4096  # bytes that are looked at

# First bytes of files of other kinds, and what to do about it.
_SIGNATURES = (
    (b"\x1f\x8b", "compressed by gzip: unpack it with gunzip (or tar, if it was a .tar.gz)"),
    (b"BZh", "compressed by bzip2: unpack it"),
    (b"\xfd7zXZ\x00", "compressed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file, of llama.cpp and its kin"),
    (b"lmgg", "a ggml file, of whisper.cpp and its kin"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"RIFF", "a WAV file or another one of RIFF's"),
    (b"fLaC", "a FLAC recording"),
    (b"OggS", "an OGG recording"),
    (b"\x7fELF", "a program"),
    (b"mmap lm http://kheafield.com/code", "a language model of KenLM"),
    (b"\\data\\", "a language model in ARPA form"),
)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\s.*?^size (\d+)", re.DOTALL | re.MULTILINE)
# ir_version, then the field that comes next: producer, domain, model version or graph.
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def in_words(path: str | os.PathLike[str]) -> str | None:
    """What a file is, if it is clearly no checkpoint of torch.save; None if it may be one."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head.strip(b"\x00"):
        return f"a file of {size} zero bytes, perhaps of a broken download" if size else "an empty file"
    if pointer := _LFS.match(head):
        return f"a Git LFS pointer, which stands for a file of {int(pointer[1][:20])} bytes: get that with git lfs pull"
    for signature, words in _SIGNATURES:
        if head.startswith(signature):
            return words
    if head.startswith(b"PK"):
        return _zip_in_words(path)
    if head[257:262] == b"ustar":
        return "a tar archive, as NeMo's .nemo files are: unpack it"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if is_safetensors(head):
        return "a safetensors file"
    if _ONNX.match(head):
        return "an ONNX model, which is a program; export its weights with torch.save"
    return None if _PICKLE.match(head) else _text_in_words(head)


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so has the form of safetensors: its header's size, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def zip_of_others(names: Iterable[str]) -> str:
    """What a zip archive is that torch.save did not write, by the names of its members."""
    names = sorted(names)
    if _is_torchscript(names):
        return "a TorchScript archive, which is a program; save a state_dict with torch.save"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    inside = [
        name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".tar", ".bin", ".safetensors"))
    ]
    if inside:
        return f"a zip archive, but not one of torch.save; it holds {shown(inside[0])}: unpack it"
    held = ", ".join(map(shown, names[:3])) or "nothing"
    return f"a zip archive, but not one of torch.save: it holds {held}{', …' if len(names) > 3 else ''}"


def shown(text: str) -> str:
    """A text of unknown origin so that it is safe and short on a terminal."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _zip_in_words(path: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
        # Its directory is at its end.
        return "a zip archive (as torch.save writes) that is cut short or damaged: get it again"
    pickled = any(name.endswith("/data.pkl") for name in names)
    return None if pickled and not _is_torchscript(names) else zip_of_others(names)


def _is_torchscript(names: Iterable[str]) -> bool:
    return any(name.endswith(("/constants.pkl", "/model.json")) for name in names)


def _text_in_words(head: bytes) -> str | None:
    try:
        # The last character may be cut through.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).lstrip()
    except UnicodeDecodeError:
        return None
    if not text.isprintable() and any(not (c.isprintable() or c.isspace()) for c in text):
        return None
    start = text[:200].lower()
    if start.startswith("<!doctype html") or "<html" in start:
        return "a web page (HTML), not the file that it links to"
    if start.startswith("<?xml") or start.startswith("<"):
        return f"XML: {shown(' '.join(text.split()))}"
    if start.startswith(("{", "[")):
        return f"JSON: {shown(' '.join(text.split()))}"
    return f"text: {shown(' '.join(text.split()))}"
