"""Checkpoints: valid ones of each container and lineage, changed as bytes, pickle instructions, zip members and headers.

Whatever comes in, nothing of it is executed, reading costs memory and time of the file's size, and only ValueError comes
out; what is accepted has the shapes that it claims.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asrkern.models import LAS, AlgoPerfDeepSpeech, DeepSpeech2
from asrkern.models.checkpoint import plain, read_checkpoint
from asrkern.models.deepspeech2_layouts import fit_weights, parse_checkpoint
from asrkern.models.weights import outline
from asrkern.recognizer.conversion import convert
from asrkern.recognizer.saved import load, save
from asrkern.training.memory import peak_memory_mib, reset_peak_memory
from tests.cli.tiny import make_recognizer
from tests.models.algoperf_deepspeech_twin import Plain
from tests.models.las_twins import HW4Model

REFUSALS = (ValueError,)

_SECONDS = 3.0
# Sanitizers keep what was freed.
_MIB = 1024 if "asan" in os.environ.get("LD_PRELOAD", "") else 64
_executed: list[Any] = []


def execute(*arguments: Any) -> dict[str, Any]:
    """What a hostile pickle calls."""
    _executed.append(arguments)
    return {}


class _Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return execute, ("canary",)


Weights = dict[str, Tensor]


@dataclass
class _Seed:
    """A valid file, its reader, and its parts.

    Attributes:
        instructions: of its pickle, which stands between ``before`` and ``after``, or is the member ``pickled``.
        members: of its zip archive.
        header, tensors: of safetensors.
        expected: some of what is read.
    """

    content: bytes
    read: Callable[[Path], dict[str, Any]]
    expected: Weights
    instructions: list[bytes] = field(default_factory=list)
    before: bytes = b""
    after: bytes = b""
    pickled: str = ""
    members: dict[str, bytes] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    tensors: bytes = b""


def _read(path: Path) -> dict[str, Any]:
    """The container, and what is done with it before a model is made."""
    found = read_checkpoint(path, whole_module=True)
    plain(found)
    with suppress(ValueError):
        config, weights = parse_checkpoint(found)
        fit_weights(weights, outline(partial(DeepSpeech2, config), len(weights)))
    state = found.get("state_dict", found)
    return state if isinstance(state, dict) else {}


def _las(path: Path) -> dict[str, Any]:
    return LAS.from_checkpoint(path).state_dict()


def _algoperf(path: Path) -> dict[str, Any]:
    return AlgoPerfDeepSpeech.from_checkpoint(path).state_dict()


def _convert(path: Path) -> dict[str, Any]:
    return convert(path, [chr(48 + i) for i in range(31)]).model.state_dict()


def _load(path: Path) -> dict[str, Any]:
    state = load(path).model.state_dict()
    with open(path, "rb") as file:
        header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
    for key, about in header.items():
        assert key == "__metadata__" or list(state[key].shape) == about["shape"], key
    return state


def prepare(folder: Path) -> list[_Seed]:
    """Seeds: most of them a few kB, so that reading one takes a millisecond."""
    torch.manual_seed(0)
    w = torch.arange(24.0).view(4, 6)
    container = {
        "state_dict": OrderedDict({"w": w, "v": w[1:, :3].t(), "half": w.half(), "n": torch.tensor(3)}),
        "hyper_parameters": {
            "labels": list("_'AB "),
            "audio_conf": {"sample_rate": 16000, "window": "hamming"},
        },
        "optimizer": {"state": {0: {"step": 3}}, "groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "canary": _Canary(),
    }
    deepspeech2 = {
        "state_dict": _deepspeech2_keys(),
        "labels": list("_'AB "),
        "audio_conf": {"sample_rate": 16000, "window_size": 0.02, "window_stride": 0.01, "window": "hamming"},
        "bidirectional": True,
    }
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.GRU(3, 2)))
    small = {
        "channels": (4,),
        "features": 5,
        "hidden": 4,
        "layers": (1,),
        "blocks": 0,
        "embedding": 4,
        "speller": 8,
    }
    las = {"model_state_dict": HW4Model(**small, speller_layers=1, attention=4).state_dict()}
    algoperf = {"model_params": Plain(8, 4).state_dict(), "global_step": 7}
    seeds = [
        _torch_seed(value, _read, zip_format, protocol)
        for value in (container, deepspeech2, module)
        for zip_format in (True, False)
        for protocol in (2, 4)
    ]
    seeds += [
        _torch_seed(las, _las, True, 2),
        _torch_seed(las, _las, False, 4),
        _torch_seed(las, _convert, True, 2),
        _torch_seed(algoperf, _algoperf, True, 2),
    ]
    for task in ("ctc", "attention"):
        save(folder / "seed", make_recognizer(task))
        content = (folder / "seed").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header, tensors = json.loads(content[8 : 8 + size]), content[8 + size :]
        seeds += [_Seed(content, _load, {}, header=header, tensors=tensors)] * 3
    # What is imported when it is first needed is no file's doing.
    for seed in seeds:
        (folder / "seed").write_bytes(seed.content)
        seed.read(folder / "seed")
    return seeds


def _deepspeech2_keys() -> Weights:
    """The keys of a model of version 2 with little behind them."""
    state = {f"conv.seq_module.{i}.{name}": torch.ones(2) for i in (1, 4) for name in ("weight", "bias")}
    state |= {f"conv.seq_module.{i}.weight": torch.ones(2, 1, 3, 3) for i in (0, 3)}
    for layer in ("rnns.0.rnn.", "rnns.1.rnn."):
        for end in ("", "_reverse"):
            state |= {f"{layer}weight_{kind}_l0{end}": torch.ones(12, 4) for kind in ("ih", "hh")}
            state |= {f"{layer}bias_{kind}_l0{end}": torch.ones(12) for kind in ("ih", "hh")}
    return state | {"fc.0.module.1.weight": torch.ones(5, 4)}


def _torch_seed(value: Any, read: Callable[..., Any], zip_format: bool, protocol: int) -> _Seed:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_format)
    state = value.state_dict() if isinstance(value, nn.Module) else value.get("state_dict", {})
    seed = _Seed(buffer.getvalue(), read, {key: tensor.detach() for key, tensor in state.items()})
    if zip_format:
        with zipfile.ZipFile(buffer) as archive:
            seed.members = {name: archive.read(name) for name in archive.namelist()}
        seed.pickled = next(name for name in seed.members if name.endswith("/data.pkl"))
        seed.instructions, _ = _instructions(seed.members[seed.pickled])
        return seed
    begin = 0
    for _ in range(3):  # magic number, version, system
        begin += _instructions(seed.content[begin:])[1]
    seed.instructions, size = _instructions(seed.content[begin:])
    seed.before, seed.after = seed.content[:begin], seed.content[begin + size :]
    return seed


def _instructions(data: bytes) -> tuple[list[bytes], int]:
    """A pickle's instructions without frames, which would have to fit, and its length."""
    found = list(pickletools.genops(data))
    ends = [position for _, _, position in found[1:]] + [found[-1][2] + 1]
    pairs = zip(found, ends, strict=True)
    return [data[begin:end] for (code, _, begin), end in pairs if code.name != "FRAME"], ends[-1]


# What costs much for its size, or would run: single instructions and short programs.
_PAIRS = b"q\xfc0h\xfch\xfc\x86" * 50
_HOSTILE = [
    b"\x8e" + struct.pack("<Q", 2**40),  # BINBYTES8
    b"\x96" + struct.pack("<Q", 3 * 2**30),  # BYTEARRAY8
    b"\x8d" + struct.pack("<Q", 2**62),  # BINUNICODE8
    b"\x95" + struct.pack("<Q", 2**33),  # FRAME
    b"B" + struct.pack("<I", 2**32 - 1),
    b"\x8b" + struct.pack("<i", 2**31 - 1),  # LONG4
    b"r" + struct.pack("<I", 2**32 - 1),  # LONG_BINPUT
    b"]" + b"q\xfc0(h\xfch\xfcl" * 60,
    b"(" + b"]" * 20_000 + b"l",
    b"ctorch\nSize\nq\xfb0(" + b")" * 3000 + b"lq\xfa" + b"h\xfbh\xfa\x85R0" * 1500,
    b"".join(b"c%d\nx\n0" % i for i in range(2000)),
    # Pairs of pairs of … as values, keys, items of sets, and the number of a storage.
    b"K\x01" + _PAIRS,
    b"}K\x01" + _PAIRS + b"K\x00s",
    b"\x8f(K\x01" + _PAIRS + b"\x90",
    b"K\x01" + _PAIRS + b"Q",
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x01" + _PAIRS + b"K\x01K\x01tQ",
    b"ctests.fuzz.checkpoints\nexecute\n)R",
    b"(itests.fuzz.checkpoints\nexecute\n",
    b"(ctests.fuzz.checkpoints\nexecute\no",
    b"cbuiltins\nexec\nX\x18\x00\x00\x00import os; os._exit(123)\x85R",
    b"cposix\n_exit\nK\x7b\x85R",
    b"ctorch\nFloatStorage\n}b",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    *(bytes([code]) for code in range(256)),
]
_NUMBERS = (0, 1, -1, 2, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _number(rng: np.random.Generator) -> bytes:
    """An instruction that puts an extreme number on the stack."""
    value = _NUMBERS[rng.integers(len(_NUMBERS))]
    return (
        pickle.dumps(value, protocol=2)[2:-1] if rng.random() < 0.8 else pickle.dumps(float("nan"), 2)[2:-1]
    )


def _changed_instructions(rng: np.random.Generator, seed: _Seed) -> bytes:
    found = list(seed.instructions)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(found))), rng.random()
        if kind < 0.15:
            del found[at : at + int(rng.integers(1, 4))]
        elif kind < 0.3:
            found.insert(at, found[rng.integers(len(found))])
        elif kind < 0.45:
            other = int(rng.integers(len(found)))
            found[at], found[other] = found[other], found[at]
        elif kind < 0.65:
            numbers = [i for i, code in enumerate(found) if code[:1] in b"KMJ\x8a"]
            found[numbers[rng.integers(len(numbers))] if numbers else at] = _number(rng)
        elif kind < 0.85:
            found.insert(at, _HOSTILE[rng.integers(len(_HOSTILE))])
        else:
            found[at] = bytes(_changed_bytes(rng, found[at]))
        if not found:
            break
    return b"".join(found)


def _changed_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not changed:
            break
        # Most of a file is weights; what says what they are is at its ends.
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 2000)
        at = int(rng.integers(end)) if rng.random() < 0.6 else len(changed) - 1 - int(rng.integers(end))
        kind = rng.random()
        if kind < 0.4:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind < 0.6:
            changed[at] = int(rng.integers(256))
        elif kind < 0.75:
            width = "<BHIQ"[int(rng.integers(1, 5))]
            size = struct.calcsize(width)
            value = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
            changed[at : at + size] = struct.pack(f"<{width}", value)
        elif kind < 0.85:
            del changed[at:]
        elif kind < 0.95:
            begin = int(rng.integers(len(changed)))
            changed[at:at] = changed[begin : begin + int(rng.integers(64))]
        else:
            del changed[at : at + int(rng.integers(64))]
    return bytes(changed)


def _zipped(members: list[tuple[str, bytes, int]]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, content, method in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return written.getvalue()


def _changed_members(rng: np.random.Generator, seed: _Seed) -> bytes:
    members = [(name, content, zipfile.ZIP_STORED) for name, content in seed.members.items()]
    kind, at = rng.random(), int(rng.integers(len(members)))
    name, content, _ = members[at]
    if kind < 0.2:
        large = content + bytes(int(rng.integers(4)) * 500_000)
        methods = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        members[at] = (name, large, methods[rng.integers(3)])
    elif kind < 0.3:
        del members[at]
    elif kind < 0.4:
        members[at] = (members[rng.integers(len(members))][0], content, zipfile.ZIP_STORED)
    elif kind < 0.5:
        members[at] = (name, _changed_bytes(rng, content), zipfile.ZIP_STORED)
    elif kind < 0.6:
        members.append(("archive/constants.pkl" if rng.random() < 0.5 else "other/data.pkl", b"N.", 0))
    written = bytearray(_zipped(members))
    if kind > 0.6:
        # A field of an entry of the directory, or of the directory's end.
        entry = written.rfind(b"PK\x01\x02") if rng.random() < 0.7 else written.rfind(b"PK\x05\x06")
        if rng.random() < 0.7:
            entries = [i for i in range(len(written)) if written.startswith(b"PK\x01\x02", i)]
            entry = entries[rng.integers(len(entries))]
        at = entry + 4 + 2 * int(rng.integers(20))
        size = 2 * int(rng.integers(1, 3))
        value = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
        written[at : at + size] = value.to_bytes(size, "little")
    return bytes(written)


_VALUES: list[Any] = [
    *_NUMBERS,
    None,
    True,
    1.5,
    -0.1,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 5000,
    [],
    {},
    [1],
    ["a", "b"],
    [[1, 2], [3, 4]],
    [2**62],
    list(range(3000)),
    {"kind": "characters"},
    # What safetensors knows.
    *("F8_E4M3", "F4", "I8", "BOOL", "C64", "F64", "BF16", "I32", "U32"),
]


def _changed_value(rng: np.random.Generator, value: Any) -> Any:
    """A JSON value with one place of it changed."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[rng.integers(len(keys))]
        changed = dict(value) if isinstance(value, dict) else list(value)
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _changed_value(rng, value[key])
        return changed
    deep = rng.random() < 0.02
    return json.loads("[" * 900 + "]" * 900) if deep else _VALUES[rng.integers(len(_VALUES))]


def _changed_header(rng: np.random.Generator, seed: _Seed) -> bytes:
    header = dict(seed.header)
    if rng.random() < 0.75:
        ours = json.loads(header["__metadata__"]["asrkern"])
        for _ in range(rng.integers(1, 3)):
            ours = _changed_value(rng, ours)
        text = json.dumps(ours) if rng.random() < 0.95 else "[" * 100_000
        header["__metadata__"] = {"asrkern": text}
    else:
        header = _changed_value(rng, header)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + seed.tensors


def _make(rng: np.random.Generator, seed: _Seed) -> bytes:
    kind = rng.random()
    if kind < 0.05:
        return seed.content
    if kind < 0.07:
        return rng.bytes(int(rng.integers(300)))
    if seed.header:
        return _changed_header(rng, seed) if kind < 0.7 else _changed_bytes(rng, seed.content)
    if seed.members and kind < 0.3:
        return _changed_members(rng, seed)
    if kind < 0.45:
        return _changed_bytes(rng, seed.content)
    changed = _changed_instructions(rng, seed)
    if not seed.members:
        return seed.before + changed + seed.after
    members = {**seed.members, seed.pickled: changed}
    return _zipped([(name, content, zipfile.ZIP_STORED) for name, content in members.items()])


def one(rng: np.random.Generator, folder: Path, prepared: list[_Seed]) -> None:
    """Make a file and read it."""
    seed = prepared[rng.integers(len(prepared))]
    content = _make(rng, seed)
    path = folder / "checkpoint"
    path.write_bytes(content)
    reset_peak_memory()
    before, began = peak_memory_mib(), time.process_time()
    try:
        found = seed.read(path)
    finally:
        seconds, grown = time.process_time() - began, peak_memory_mib() - before
        assert not _executed, _executed
        assert seconds < _SECONDS, f"{seconds:.1f} s for {len(content)} bytes"
        assert grown < _MIB + 20 * len(content) / 2**20, f"{grown:.0f} MiB for {len(content)} bytes"
    for key, value in found.items():
        assert (
            not isinstance(value, Tensor) or value.untyped_storage().nbytes() <= 16 * len(content) + 2**20
        ), key
    if content == seed.content:
        for key, value in seed.expected.items():
            assert torch.equal(found[key], value), key
