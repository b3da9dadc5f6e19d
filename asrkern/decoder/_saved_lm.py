"""Files of ``NGramLM.save``: safetensors with the tables, and the rest of the model and a checksum as metadata.

The checksum is of the content, not of the file's bytes. A file with the same tensors and metadata in another order, or
with another alignment, is as good.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asrkern._atomic_write import atomic_write
from asrkern._checksum import checksum_of_text, hexadecimal_checksum
from asrkern._optional import require

FIELDS = ("order", "bos", "eos", "unit", "space")
# dtypes of the tensors: torch's name → safetensors' name
DTYPES = {
    "unigrams": ("float32", "F32"),
    "ngrams": ("int64", "I64"),
    "codebook": ("float32", "F32"),
    "words": ("int64", "I64"),
    "strings": ("uint8", "U8"),
}
_FORMAT = "asrkern n-gram model 4"
_FORMAT_WITHOUT_CHECKSUM = "asrkern n-gram model 3"
_CACHE_LINE = 64  # bytes


def checksum(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> str:
    """A checksum of CPU tensors and fields, in hexadecimal digits. Any change within eight bytes changes it."""
    names = sorted(DTYPES.keys() & tensors.keys())
    parts = [str(fields[name]) for name in FIELDS]
    for name in names:
        tensor = tensors[name]
        parts += [name, str(tuple(tensor.shape)), hexadecimal_checksum(tensor)]
    return checksum_of_text(json.dumps(parts))


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """tensors: those of ``NGramLM.tensors``; fields: by the names of ``FIELDS``."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": _FORMAT, "checksum": checksum(tensors, fields)}
    metadata |= {name: str(fields[name]) for name in FIELDS}
    content = memoryview(require("safetensors.torch", "lm").save(tensors, metadata))
    # The hash tables come first and begin at a cache line's boundary, so that they do in mapped memory, too. The file
    # is the header's size, the header, which may end with spaces, and the tensors.
    header = int.from_bytes(content[:8], "little")
    padding = -(8 + header) % _CACHE_LINE
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write((header + padding).to_bytes(8, "little"))
        file.write(content[8 : 8 + header])
        file.write(b" " * padding)
        file.write(content[8 + header :])


def _number(metadata: Mapping[str, str], name: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", metadata[name]):
        raise ValueError(f"{name}: expected a number of up to ten digits, received {metadata[name][:60]!r}")
    return int(metadata[name])


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """(tensors, fields, checksum if the file has one); the tensors are mapped into memory, not copied.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be opened.
        ValueError: it is no such file.
    """
    safetensors = require("safetensors", "lm")
    with open(path, "rb"):  # raises the usual errors of missing files
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            kind = metadata.get("format")
            needed = {_FORMAT: {*FIELDS, "checksum"}, _FORMAT_WITHOUT_CHECKSUM: {*FIELDS}}
            if kind not in needed or not metadata.keys() >= needed[kind]:
                raise ValueError(f"expected {_FORMAT!r}, received {kind!r}: save the model anew")
            tensors = {}
            for name in DTYPES.keys() & set(file.keys()):
                if (dtype := file.get_slice(name).get_dtype()) != DTYPES[name][1]:
                    raise ValueError(f"{name}: expected {DTYPES[name][0]}, received {dtype}")
                tensors[name] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"expected an intact safetensors file: {error}") from None
    numbers = {name: _number(metadata, name) for name in ("order", "bos", "eos")}
    fields = {**numbers, "unit": metadata["unit"], "space": metadata["space"]}
    return tensors, fields, metadata.get("checksum")
