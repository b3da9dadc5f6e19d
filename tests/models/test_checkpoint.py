"""asrkern.models.checkpoint: what torch.save wrote comes back, and no file gets anything executed."""

from __future__ import annotations

import builtins
import collections
import copyreg
import enum
import io
import os
import pickle
import random
import sys
import tracemalloc
import types
import zipfile
from pathlib import Path

import pytest
import torch

from asrkern.models.checkpoint import Inert, module_state_dict, plain, read_checkpoint

FORMATS = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


def save(value: object, path: Path, zip_format: bool, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zip_format, pickle_protocol=protocol)
    return path


class Reduces:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def write_zip(path: Path, data: bytes, **records: bytes) -> Path:
    """A torch zip archive around hand-written opcodes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": data, "version": b"3\n", **records}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def opcodes(value: bytes) -> bytes:
    """The pickle of {"x": value}."""
    return b"\x80\x02}X\x01\x00\x00\x00x" + value + b"s."


@FORMATS
def test_values_that_torch_negates_or_conjugates_when_they_are_read(tmp_path: Path, zip_format: bool) -> None:
    """Such tensors share the memory of others, and torch.save writes that memory as it is."""
    pair = torch.randn(3, 4, dtype=torch.complex64)
    value = {"negative": pair.conj().imag, "conjugate": pair.conj(), "both": pair.conj().t().conj().imag}
    assert value["negative"].is_neg() and value["conjugate"].is_conj()
    for key, tensor in value.items():
        loaded = read_checkpoint(save({"x": tensor}, tmp_path / "x.pt", zip_format))
        assert torch.equal(loaded["x"], tensor), key


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, zip_format: bool, protocol: int) -> None:
    base = torch.randn(7 * 11)
    value = {
        "base": base,
        "view": base[10:40].view(5, 6).t(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(2, 2).bfloat16(),
        "complex": torch.randn(3, dtype=torch.complex64),
        "bool": torch.tensor([True, False, True]),
        **{
            str(d): torch.tensor([1, 0, 3]).to(d) for d in (torch.int64, torch.int32, torch.int16, torch.int8)
        },
        "uint8": torch.tensor([1, 255], dtype=torch.uint8),
    }
    loaded = read_checkpoint(save(collections.OrderedDict(value), tmp_path / "x.pt", zip_format, protocol))
    assert loaded.keys() == value.keys()
    for key, tensor in value.items():
        assert loaded[key].dtype == tensor.dtype, key
        assert loaded[key].shape == tensor.shape, key
        assert torch.equal(loaded[key], tensor.detach()), key
    assert loaded["view"].data_ptr() - loaded["base"].data_ptr() == 40, "views share their storage"


@FORMATS
def test_containers_and_scalars_come_back(tmp_path: Path, zip_format: bool) -> None:
    value = {
        "list": [1, "zwei", 3.0, None, True],
        "tuple": (torch.ones(2), {"a": b"bytes"}),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "defaultdict": collections.defaultdict(list, a=[1]),
        "labels": "_'AÉ ",
        7: "seven",
    }
    loaded = read_checkpoint(save(value, tmp_path / "x.pt", zip_format, protocol=4))
    assert torch.equal(loaded["tuple"][0], torch.ones(2))
    for key in ("list", "size", "dtype", "defaultdict", "labels", 7):
        assert loaded[key] == value[key]
    assert type(loaded["defaultdict"]) is dict
    assert loaded["tuple"][1] == {"a": b"bytes"}


@FORMATS
def test_shared_and_self_containing_values(tmp_path: Path, zip_format: bool) -> None:
    shared = [torch.ones(1)]
    value = {"first": shared, "second": shared}
    value["self"] = value
    loaded = read_checkpoint(save(value, tmp_path / "x.pt", zip_format))
    assert loaded["first"] is loaded["second"]
    assert loaded["self"] is loaded


def fake_classes(name: str) -> types.SimpleNamespace:
    """Classes that pickle as members of a module that cannot be imported later."""

    class Thing:
        def __init__(self) -> None:
            self.count = 3
            self.weights = torch.arange(4.0)

    class Mapping(dict):
        pass

    class Sequence(list):
        pass

    class Choice(enum.Enum):
        hamming = "hamming"

    module = types.ModuleType(name)
    for cls in (Thing, Mapping, Sequence, Choice):
        cls.__module__, cls.__qualname__ = name, cls.__name__
        setattr(module, cls.__name__, cls)
    sys.modules[name] = module
    return types.SimpleNamespace(Thing=Thing, Mapping=Mapping, Sequence=Sequence, Choice=Choice)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 5])
def test_unknown_classes_become_inert_and_keep_their_data(
    tmp_path: Path, zip_format: bool, protocol: int
) -> None:
    fake = fake_classes("vanished_module")
    value = {
        "thing": fake.Thing(),
        "mapping": fake.Mapping(a=1, b=torch.ones(2)),
        "sequence": fake.Sequence([1, 2]),
        "choice": fake.Choice.hamming,
        "by choice": {fake.Choice.hamming: 5},
        "class": fake.Thing,
        "weight": torch.ones(3),
    }
    path = save(value, tmp_path / "x.pt", zip_format, protocol)
    del sys.modules["vanished_module"]
    loaded = read_checkpoint(path)
    assert "vanished_module" not in sys.modules
    assert isinstance(loaded["thing"], Inert)
    assert loaded["thing"].origin == "vanished_module.Thing"
    assert loaded["thing"].state["count"] == 3
    assert torch.equal(loaded["thing"].state["weights"], torch.arange(4.0))
    assert loaded["mapping"]["a"] == 1
    assert torch.equal(loaded["mapping"]["b"], torch.ones(2))
    assert isinstance(loaded["sequence"], Inert)
    assert plain(loaded["choice"]) == "hamming"
    assert list(loaded["by choice"].values()) == [5]
    assert issubclass(loaded["class"], Inert)
    assert torch.equal(loaded["weight"], torch.ones(3))


def run_control(read, path: Path, marker: Path) -> None:
    """Show that the payload works on a reader that executes it."""
    read(path)
    assert marker.exists()
    marker.unlink()
    sys.modules.pop("evil_module", None)


@FORMATS
@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "open", "import", "torch's import", "nested"])
def test_calls_in_a_pickle_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip_format: bool, name: str
) -> None:
    marker = tmp_path / "executed"
    touch = f"open({str(marker)!r}, 'w').close()"
    (tmp_path / "evil_module.py").write_text(f"{touch}\nrun = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    payload = {
        "os.system": Reduces(os.system, f"touch {marker}"),
        "eval": Reduces(eval, touch),
        "exec": Reduces(exec, touch),
        "open": Reduces(open, str(marker), "w"),
        "import": Reduces(builtins.__import__, "evil_module"),
        "torch's import": Reduces(torch._utils._import_dotted_name, "evil_module.run"),
        "nested": Reduces(pickle.loads, pickle.dumps(Reduces(os.system, f"touch {marker}"))),
    }[name]
    path = save({"x": payload, "state_dict": {"w": torch.ones(2)}}, tmp_path / "x.pt", zip_format, protocol=4)
    run_control(lambda file: torch.load(file, weights_only=False), path, marker)
    loaded = read_checkpoint(path)
    assert not marker.exists()
    assert "evil_module" not in sys.modules
    assert isinstance(loaded["x"], Inert)
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(2))


@pytest.mark.parametrize("name", ["reduce", "inst", "obj", "newobj", "getattr"])
def test_opcodes_that_call_or_import_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "evil_module.py").write_text(
        f"def run(*args): open({str(marker)!r}, 'w').close()\n"
        "class Evil:\n    def __new__(cls, *args):\n        run()\n        return object.__new__(cls)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = {
        "reduce": opcodes(b"cevil_module\nrun\n)R"),
        "inst": opcodes(b"(ievil_module\nEvil\n"),
        "obj": opcodes(b"(cevil_module\nEvil\no"),
        "newobj": opcodes(b"cevil_module\nEvil\n)\x81"),
        "getattr": opcodes(
            b"cbuiltins\ngetattr\ncevil_module\nEvil\nX\x07\x00\x00\x00__new__\x86Rcevil_module\nEvil\n\x85R"
        ),
    }[name]
    run_control(lambda _: pickle.loads(data), tmp_path, marker)
    loaded = read_checkpoint(write_zip(tmp_path / "x.pt", data))
    assert not marker.exists()
    assert "evil_module" not in sys.modules
    assert isinstance(loaded["x"], Inert)


@pytest.mark.parametrize(
    "target", ["torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "some\nThing"]
)
def test_a_file_cannot_alter_the_reader_for_the_next_one(tmp_path: Path, target: str) -> None:
    # BUILD with a slot state would set attributes on what find_class returned.
    attributes = b"}(X\x04\x00\x00\x00callX\x04\x00\x00\x00evilX\x06\x00\x00\x00originX\x04\x00\x00\x00evilu"
    build = opcodes(b"c" + target.encode() + b"\nN" + attributes + b"\x86b")
    read_checkpoint(write_zip(tmp_path / "x.pt", build))
    value = collections.OrderedDict(w=torch.ones(2))
    assert torch.equal(read_checkpoint(save(value, tmp_path / "y.pt", True))["w"], torch.ones(2))
    thing = read_checkpoint(write_zip(tmp_path / "z.pt", opcodes(b"csome\nThing\n)\x81")))["x"]
    assert thing.origin == "some.Thing"


def test_byte_strings_of_python_2_become_text(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pt", opcodes(b"(U\x03abcU\x02\xff\x00l"))
    assert read_checkpoint(path)["x"] == ["abc", "\udcff\x00"]


def test_a_large_memo_index_takes_no_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pt", opcodes(b"X\x01\x00\x00\x00ar\xff\xff\xff\x7f"))
    tracemalloc.start()
    try:
        assert read_checkpoint(path) == {"x": "a"}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_extension_codes_are_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0x77)
    try:
        path = write_zip(tmp_path / "x.pt", opcodes(b"\x82\x77"))
        with pytest.raises(ValueError, match="extension codes"):
            read_checkpoint(path)
    finally:
        copyreg.remove_extension("os", "system", 0x77)


@FORMATS
def test_truncated_files_are_refused(tmp_path: Path, zip_format: bool) -> None:
    value = {"state_dict": {"w": torch.randn(100), "v": torch.randn(3, 5)}}
    whole = save(value, tmp_path / "x.pt", zip_format).read_bytes()
    for size in sorted({0, 1, 4, len(whole) - 1, *range(7, len(whole), 53)}):
        path = tmp_path / "cut.pt"
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.pt is not a readable torch checkpoint"):
            read_checkpoint(path)


def test_a_damaged_tensor_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.arange(1000)}, tmp_path / "x.pt", True)
    content = bytearray(path.read_bytes())
    content[content.index((500).to_bytes(8, "little"))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        read_checkpoint(path)


def test_files_without_checksums(tmp_path: Path) -> None:
    """torch writes zeros for them then, and reads what it wrote."""
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"x": torch.arange(5), "y": torch.randn(3)}, tmp_path / "a.pt", zip_format=True)
    finally:
        torch.serialization.set_crc32_options(computed)
    value, expected = read_checkpoint(path), torch.load(path)
    assert value.keys() == expected.keys() and all(torch.equal(value[k], expected[k]) for k in value)


def test_random_bytes_only_ever_raise_value_error(tmp_path: Path) -> None:
    generator = random.Random(torch.initial_seed())
    fake = fake_classes("vanished_module")
    value = {"w": torch.randn(3), "thing": fake.Thing(), "list": [1, (2, fake.Choice.hamming)]}
    buffer = io.BytesIO()
    torch.save(value, buffer)
    del sys.modules["vanished_module"]
    with zipfile.ZipFile(buffer) as archive:
        data = archive.read("archive/data.pkl")
        storages = {f"data/{i}": archive.read(f"archive/data/{i}") for i in range(2)}
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path = write_zip(tmp_path / "x.pt", bytes(damaged), **storages)
        try:
            assert isinstance(read_checkpoint(path), dict)
        except ValueError as error:
            assert "x.pt" in str(error)
            refused += 1
    assert refused > 50


class StoragePickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return ("storage", torch.FloatStorage, "0", "cpu", 6) if value == "the storage" else None


@pytest.mark.parametrize(
    ("offset", "size", "stride", "fits"),
    [
        (0, (2, 3), (3, 1), True),
        (1, (5,), (1,), True),
        (2, (0, 100), (1, 1), True),
        (0, (7,), (1,), False),
        (5, (2,), (1,), False),
        (0, (2, 3), (4, 1), False),
        (-1, (2,), (1,), False),
        (0, (2,), (-1,), False),
        (0, (-2,), (1,), False),
        (0, (2, 3), (1,), False),
        (0, ("2",), (1,), False),
    ],
)
def test_tensors_beyond_their_storage_are_refused(
    tmp_path: Path, offset: int, size: tuple, stride: tuple, fits: bool
) -> None:
    buffer = io.BytesIO()
    rebuilt = Reduces(torch._utils._rebuild_tensor_v2, "the storage", offset, size, stride, False, {})
    StoragePickler(buffer, protocol=2).dump({"w": rebuilt})
    values = torch.arange(6.0)
    path = write_zip(tmp_path / "x.pt", buffer.getvalue(), **{"data/0": values.numpy().tobytes()})
    if fits:
        assert torch.equal(read_checkpoint(path)["w"], values.as_strided(size, stride, offset))
    else:
        with pytest.raises(ValueError, match="not a readable torch checkpoint"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04", b"hello world\n", b"\x89PNG\r\n\x1a\n" + bytes(99)]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.bin is not a readable torch checkpoint"):
        read_checkpoint(path)


def test_archives_and_pickles_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "documents.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match="but not one of"):
        read_checkpoint(tmp_path / "documents.zip")
    write_zip(tmp_path / "script.pt", opcodes(b"N"), **{"constants.pkl": b"\x80\x02)."})
    with pytest.raises(ValueError, match="TorchScript"):
        read_checkpoint(tmp_path / "script.pt")
    write_zip(
        tmp_path / "big.pt", opcodes(b"N"), byteorder=b"big" if sys.byteorder == "little" else b"little"
    )
    with pytest.raises(ValueError, match="endian"):
        read_checkpoint(tmp_path / "big.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ValueError, match=r"plain\.pkl"):
        read_checkpoint(tmp_path / "plain.pkl")


@FORMATS
def test_only_dictionaries_are_checkpoints(tmp_path: Path, zip_format: bool) -> None:
    with pytest.raises(ValueError, match="object of list, expected a dictionary"):
        read_checkpoint(save([torch.ones(2)], tmp_path / "list.pt", zip_format))
    model = save(torch.nn.Linear(2, 2), tmp_path / "model.pt", zip_format)
    with pytest.raises(ValueError, match=r"object of torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(model)


class Parts(torch.nn.Module):
    """Shared modules and parameters, absent ones, buffers of both kinds, and a nested stack."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 3, bias=False)
        self.absent = None
        self.stack = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Sequential(torch.nn.GRU(3, 2)))
        self.again = self.first
        self.register_module("none", None)
        self.register_parameter("no_parameter", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("computed", torch.ones(2), persistent=False)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_whole_module_gives_its_state_dict(tmp_path: Path, zip_format: bool, protocol: int) -> None:
    model = Parts()
    path = save(model, tmp_path / "model.pt", zip_format, protocol)
    state = read_checkpoint(path, whole_module=True)
    expected = model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    with pytest.raises(ValueError, match=r"holds an object of .*Parts, expected a dictionary"):
        read_checkpoint(path)
    # A dictionary is what it was.
    path = save({"state_dict": expected}, tmp_path / "x.pt", zip_format, protocol)
    assert read_checkpoint(path, whole_module=True)["state_dict"].keys() == expected.keys()


@FORMATS
def test_other_objects_are_no_modules(tmp_path: Path, zip_format: bool) -> None:
    for value in ([1], torch.optim.SGD([torch.ones(1)], 0.1), collections.Counter("a")):
        with pytest.raises(ValueError, match="expected a dictionary"):
            read_checkpoint(save(value, tmp_path / "x.pt", zip_format), whole_module=True)


def inert_module(**modules: object) -> Inert:
    value = Inert()
    value.state = {"_parameters": {}, "_buffers": {}, "_modules": modules}
    return value


def test_modules_that_cannot_be_walked_are_refused() -> None:
    assert module_state_dict(inert_module(a=inert_module(), b=None)) == {}
    with pytest.raises(ValueError, match=r"a\.b is list, expected a module"):
        module_state_dict(inert_module(a=inert_module(b=[])))
    with pytest.raises(ValueError, match="it is Inert, expected a module"):
        module_state_dict(Inert())
    loop = inert_module()
    loop.state["_modules"]["self"] = inert_module(up=loop)
    with pytest.raises(ValueError, match=r"self\.up is Inert, expected a module"):
        module_state_dict(loop)
    wide = inert_module()
    for _ in range(40):
        wide = inert_module(left=wide, right=wide)
    with pytest.raises(ValueError, match="expected a module that can be walked"):
        module_state_dict(wide)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(IsADirectoryError):
        read_checkpoint(tmp_path)


def test_plain_reads_configuration_objects() -> None:
    """OmegaConf keeps values in nodes; dataclasses and namespaces keep attributes."""

    def inert(state: object = None, *args: object) -> Inert:
        value = Inert(*args)
        value.state = state
        return value

    hamming = inert(None, "hamming")
    node = inert({"_val": hamming, "_parent": None})
    config = inert({"_metadata": inert(), "_content": {"window": node, "sizes": [inert({"_val": 3})]}})
    assert plain(config) == {"window": "hamming", "sizes": [3]}
    assert plain(inert({"sample_rate": 8000, "window": hamming})) == {
        "sample_rate": 8000,
        "window": "hamming",
    }
    assert plain([1, "a", (2,)]) == [1, "a", [2]]
    assert plain(inert()) == {}
