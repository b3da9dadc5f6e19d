"""What a checkpoint may cost follows from its size: small files that would take gigabytes, or no end."""

from __future__ import annotations

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asrkern.models import LAS, DeepSpeech2
from asrkern.models.checkpoint import Inert, module_state_dict, plain, read_checkpoint
from asrkern.models.conv_transformer import ConvRNNClassifier
from asrkern.training.memory import peak_memory_mib, reset_peak_memory
from tests.models.las_twins import HW4Model
from tests.models.test_checkpoint import Reduces, StoragePickler, opcodes, write_zip

# A pair of the pair before, fifty times over.
PAIRS = b"K\x01" + b"q\xfc0h\xfch\xfc\x86" * 50


def write_legacy(path: Path, data: bytes) -> Path:
    """torch's earlier format around hand-written opcodes."""
    begin = b"".join(
        pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    path.write_bytes(begin + data + pickle.dumps([], 2))
    return path


def cost(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns or raises, its seconds of this process, and the MiB that Python took."""
    tracemalloc.start()
    began = time.process_time()
    try:
        result = call()
    except ValueError as error:
        result = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return result, time.process_time() - began, peak / 2**20


@pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\x96" + struct.pack("<Q", 3 * 2**30), "cut short"),
        (b"\x96" + struct.pack("<Q", 2**63), "damaged|cut short"),
        (b"\x8e" + struct.pack("<Q", 3 * 2**30), "cut short"),
        (b"B" + struct.pack("<I", 2**32 - 1), "cut short"),
        (b"\x8d" + struct.pack("<Q", 2**40), "cut short|damaged"),
        (b"}" + PAIRS + b"K\x00s", "a key of tuple"),
        (b"}(" + PAIRS + b"K\x00u", "a key of tuple"),
        (b"(" + PAIRS + b"K\x00d", "a key of tuple"),
        (b"\x8f(" + PAIRS + b"\x90", "a key of tuple"),
        (b"(" + PAIRS + b"\x91", "a key of tuple"),
        (b"ccollections\nOrderedDict\n(" + PAIRS + b"K\x01\x86l\x85R", "a key of tuple"),
        (b"}" + pickle.dumps(2**61 - 1 << 10, 2)[2:-1] + b"K\x00s", "a key of int"),
        (PAIRS + b"Q", "malformed persistent id|unknown persistent id"),
        (
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + PAIRS + b"X\x03\x00\x00\x00cpuK\x01tQ",
            "malformed key",
        ),
        (
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x00X\x03\x00\x00\x00cpu" + PAIRS + b"tQ",
            "malformed",
        ),
        (b"cx\n" + b"y" * 2000 + b"\n", "a name of more than"),
        (b"cx\ny\nX\x03\x00\x00\x00abcR", "without a tuple"),
    ],
)
def test_claims_are_refused_before_they_cost_anything(
    tmp_path: Path, write: Callable[..., Path], value: bytes, message: str
) -> None:
    path = write(tmp_path / "x.pt", opcodes(value))
    result, seconds, mebibytes = cost(lambda: read_checkpoint(path))
    assert isinstance(result, ValueError), result
    assert str(path) in str(result)
    with pytest.raises(ValueError, match=message):
        raise result
    assert seconds < 1 and mebibytes < 4


@pytest.mark.parametrize(
    "value",
    [
        # Copies of one long list: by constructors known and unknown, and as the arguments of a call.
        b"("
        + b")" * 30_000
        + b"l"
        + b"q\xfa0"
        + b"ctorch\nSize\nq\xfb0"
        + b"h\xfbh\xfa\x85R0" * 10_000
        + b"N",
        b"(" + b")" * 30_000 + b"t" + b"q\xfa0" + b"cx\ny\nq\xfb0" + b"h\xfbh\xfaR0" * 10_000 + b"N",
        b"(" + b")" * 30_000 + b"t" + b"q\xfa0" + b"cx\ny\nq\xfb0" + b"h\xfbh\xfa\x810" * 10_000 + b"N",
        # Instructions of a byte each, and a class for every few.
        b"(" + b"]" * 1_500_000 + b"l",
        b"".join(b"c%d\nx\n0" % i for i in range(60_000)) + b"N",
    ],
    ids=["Size", "call", "new", "lists", "classes"],
)
def test_work_follows_from_the_size(tmp_path: Path, value: bytes) -> None:
    path = write_zip(tmp_path / "x.pt", opcodes(value))
    reset_peak_memory()
    before, began = peak_memory_mib(), time.process_time()
    with pytest.raises(ValueError, match="more instructions than a file of its size"):
        read_checkpoint(path)
    assert time.process_time() - began < 10
    assert peak_memory_mib() - before < 64 + 20 * path.stat().st_size / 2**20


def test_what_real_files_need_is_within_the_limits(tmp_path: Path) -> None:
    """Many small tensors, and a vocabulary in Python's lists."""
    state = {f"layer.{i}.weight": torch.full((4,), float(i)) for i in range(1000)}
    labels = [f"▁piece{i}" for i in range(10_000)]
    torch.save(
        {
            "state_dict": state,
            "optimizer": {"state": {i: {"step": i} for i in range(1000)}},
            "labels": labels,
        },
        tmp_path / "x.pt",
    )
    loaded = read_checkpoint(tmp_path / "x.pt")
    assert loaded["labels"] == labels
    assert all(torch.equal(loaded["state_dict"][key], value) for key, value in state.items())


def nested(depth: int = 60) -> list[Any]:
    """Lists that hold one list twice: 2^60 ways to the last."""
    value: list[Any] = ["end"]
    for _ in range(depth):
        value = [value, value]
    return value


def test_shared_lists_are_walked_once(tmp_path: Path) -> None:
    shared = nested()
    walked, seconds, _ = cost(lambda: plain({"a": shared}))
    assert seconds < 1
    for _ in range(60):
        assert walked["a" if isinstance(walked, dict) else 0] is not None
        walked = walked["a"] if isinstance(walked, dict) else walked[0]
        assert len(walked) == 2 and walked[0] is walked[1]
    for place in ("labels", "audio_conf", "other"):
        torch.save({"state_dict": {}, "hyper_parameters": {place: shared}}, tmp_path / "x.pt")
        result, seconds, _ = cost(lambda: DeepSpeech2.from_checkpoint(tmp_path / "x.pt"))
        assert isinstance(result, ValueError) and seconds < 2


def test_plain_takes_what_holds_itself_or_is_deep() -> None:
    loop: dict[str, Any] = {"list": []}
    loop["list"].append(loop)
    walked = plain(loop)
    assert walked["list"][0] is walked
    parent = Inert()
    parent.state = {"rate": 16000, "child": {"parent": parent}}
    assert plain(parent)["child"]["parent"]["rate"] == 16000
    first, second = Inert(), Inert()
    first.state, second.state = {"_content": second}, {"_content": first}
    assert plain({"a": first}) == {"a": None}
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        plain(deep)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("member", ["data.pkl", "byteorder", "data/0"])
def test_compressed_members_are_refused(tmp_path: Path, member: str, method: int) -> None:
    """Two megabytes would become two gigabytes."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(5000), "v": torch.randn(20_000)}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "x.pt", "w") as changed:
        for name in archive.namelist():
            matches = name.endswith(f"/{member}")
            content = archive.read(name) + bytes(3_000_000 if matches and member == "data.pkl" else 0)
            changed.writestr(name, content, method if matches else zipfile.ZIP_STORED)
    result, _, mebibytes = cost(lambda: read_checkpoint(tmp_path / "x.pt"))
    with pytest.raises(
        ValueError, match=rf"x\.pt is not a readable torch checkpoint: .*{member}' is compressed"
    ):
        raise result
    assert mebibytes < 2


def test_members_within_each_other_are_refused(tmp_path: Path) -> None:
    """A hundred storages of a megabyte, each of which begins within the one before and ends with it."""
    views = b"".join(
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x02\x00\x00\x00%02d"
        b"X\x03\x00\x00\x00cpuJ%stQK\x00K\x01\x85K\x01\x85\x89)tR0" % (i, struct.pack("<i", _nested_size(i)))
        for i in range(100)
    )
    content, entries = b"", []
    for i in reversed(range(100)):
        content = (content or bytes(2**20)) if i == 99 else content
        assert len(content) == _nested_size(i)
        name = b"archive/data/%02d" % i
        fields = (20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name), 0)
        content = struct.pack("<4s5H3I2H", b"PK\x03\x04", *fields) + name + content
        entries.append((name, fields, len(content)))
    path = write_zip(tmp_path / "x.pt", b"\x80\x02" + views + b"}.")
    head = path.read_bytes()
    directory = head.index(b"PK\x01\x02")
    members, kept = head[:directory], head[directory : head.index(b"PK\x05\x06")]
    for name, fields, from_end in entries:
        offset = len(members) + len(content) - from_end
        kept += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *fields[:-1], 0, 0, 0, 0, 0, offset) + name
    begin = len(members) + len(content)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 102, 102, len(kept), begin, 0)
    path.write_bytes(members + content + kept + end)
    with zipfile.ZipFile(path) as archive, archive.open("archive/data/99") as innermost:
        assert len(innermost.read()) == 2**20 == _nested_size(99)
    result, _, mebibytes = cost(lambda: read_checkpoint(path))
    with pytest.raises(ValueError, match="have together more bytes than the file"):
        raise result
    assert mebibytes < 8


def _nested_size(index: int) -> int:
    """Bytes of the storage: all that follow it, each with a header of 30 bytes and a name of 15."""
    return 2**20 + 45 * (99 - index)


def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", opcodes(b"K\x01"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", opcodes(b"K\x02"))
    with pytest.raises(ValueError, match="two members of one name"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (
            (2**15, 2**15),
            (0, 0),
            r"a number for each place, received torch.float32 of shape \[32768, 32768\]",
        ),
        ((2**15, 6), (0, 1), "a number for each place"),
        ((3, 3), (1, 1), "a number for each place"),
    ],
)
def test_weights_made_of_few_numbers_are_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], message: str
) -> None:
    """Views that repeat a storage are read, since they cost nothing yet; a model would have a place for each element."""
    state = {key: value for key, value in HW4Model(layers=(1,)).state_dict().items()}
    buffer = io.BytesIO()
    rebuilt = Reduces(torch._utils._rebuild_tensor_v2, "the storage", 0, size, stride, False, {})
    StoragePickler(buffer, protocol=2).dump({"w": rebuilt})
    path = write_zip(tmp_path / "x.pt", buffer.getvalue(), **{"data/0": torch.arange(6.0).numpy().tobytes()})
    state["listener.extra"] = read_checkpoint(path)["w"]
    torch.save(state, tmp_path / "y.pt")
    with pytest.raises(ValueError, match=rf"y\.pt: listener\.extra: expected {message}"):
        LAS.from_checkpoint(tmp_path / "y.pt")


def test_weights_that_share_one_storage_are_refused(tmp_path: Path) -> None:
    """Each is whole, but together they have far more places than the file has numbers."""
    one = torch.randn(64 * 64)
    state = {"rnn.weight_hh_l0": one[: 48 * 16].view(48, 16)}
    state |= {f"rnn.weight_hh_l{i}": state["rnn.weight_hh_l0"] for i in range(1, 400)}
    state |= {f"fc.{i}.weight": one.view(64, 64) for i in (1, 4, 7)}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"weights: expected 1\.\d MiB for their shapes, received 0\.0 MiB"):
        ConvRNNClassifier.from_checkpoint(tmp_path / "x.pt")


def test_sizes_beyond_counting_are_refused(tmp_path: Path) -> None:
    """Empty weights can have any shape."""
    state = HW4Model(layers=(1,)).state_dict()
    state["listener.embedding.0.weight"] = torch.empty(2**31, 2**31, 0)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: .*(sizes of a model|wrong values)"):
        LAS.from_checkpoint(tmp_path / "x.pt")


def inert_module(**parts: Any) -> Inert:
    value = Inert()
    value.state = {"_parameters": {}, "_buffers": {}, "_modules": {}} | parts
    return value


def test_modules_with_more_than_their_file_can_hold_are_refused() -> None:
    many = {f"p{i}": torch.ones(1) for i in range(300)}
    wide = inert_module(_modules={f"m{i}": inert_module(_parameters=many) for i in range(200)})
    assert len(module_state_dict(wide)) == 60_000
    with pytest.raises(ValueError, match="more parts or longer names"):
        module_state_dict(wide, 30_000)
    long = inert_module(_modules={"n" * 600: inert_module(_modules={"n" * 600: inert_module()})})
    with pytest.raises(ValueError, match="more parts or longer names"):
        module_state_dict(long)
    deep = inert_module()
    for _ in range(200):
        deep = inert_module(_modules={"a": deep})
    with pytest.raises(ValueError, match="expected a module that can be walked"):
        module_state_dict(deep)
