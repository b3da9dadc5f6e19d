"""Read what torch.save wrote, without executing anything in the file.

A checkpoint is a pickle, and a pickle is a program: it names functions and calls them. Here only the few
functions that put a tensor together are known, as implementations of our own; every other name becomes an
:class:`Inert` object that keeps what it is given and does nothing. No name is ever imported. This reads files
that ``torch.load(weights_only=True)`` refuses, Lightning's for one, and needs no trust in any of them.

Both formats are read: the zip archive (torch ≥ 1.6), and the sequence of pickles before it (torch ≥ 0.1.10).
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class Inert(dict):
    """Stands for an object whose class is unknown here; one subclass per name, called ``origin``.

    Holds what the file has for the object: ``args`` of its constructor, ``state`` of its attributes, and its
    items if it is a mapping.
    """

    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert(*args)

    # The class itself can be the target of a BUILD too: the call then has one argument less.
    def __setstate__(self, state: Any = None) -> None:
        if isinstance(self, Inert):
            self.state = state

    def append(self, item: Any) -> None:
        """Items of an unknown list are not kept."""

    extend = add = append

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<inert {self.origin}>"


def plain(value: Any) -> Any:
    """The data inside an inert configuration object, otherwise the value itself.

    Understands OmegaConf's containers and nodes, enumerations, dataclasses and mappings.
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, Inert):
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value
    if isinstance(value.state, dict) and value.state:
        for key in ("_content", "_val"):
            if key in value.state:
                return plain(value.state[key])
        return {key: plain(item) for key, item in value.state.items()}
    if value.origin.endswith(".getattr"):  # an enumeration's member by its name, as Python 3.11 writes it
        return plain(value.args[-1])
    if len(value) == 0 and len(value.args) == 1:
        return plain(value.args[0])
    return {key: plain(item) for key, item in value.items()}


class _Dict(dict):
    """OrderedDict and defaultdict of a file; attributes that the file sets on it are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class _Function:
    """A function that a file may call. BUILD on it is ignored: no file can alter it for the next one."""

    call: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass
class _Storage:
    """The bytes of one or more tensors; ``data`` is read after the pickle that refers to it."""

    dtype: torch.dtype
    numel: int
    data: bytearray = field(default_factory=bytearray)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def __setstate__(self, state: Any) -> None:
        pass

    def tensor(self) -> Tensor:
        if not self.numel:
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(self.data, dtype=self.dtype)


@dataclass(frozen=True)
class _TensorView:
    """A tensor before its storage has been read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.storage, _Storage) or len(self.size) != len(self.stride):
            raise ValueError("malformed tensor")
        if any(n < 0 for n in (self.offset, *self.size, *self.stride)):
            raise ValueError("tensor with a negative size, stride or offset")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if prod(self.size) and last >= self.storage.numel:
            raise ValueError(f"tensor of size {self.size} reaches beyond its storage of {self.storage.numel}")

    def __setstate__(self, state: Any) -> None:
        pass

    def tensor(self) -> Tensor:
        return self.storage.tensor().as_strided(self.size, self.stride, self.offset)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_unused: Any) -> _TensorView:
    return _TensorView(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_unused: Any) -> Any:
    return data


_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
# Everything that a file may name; a torch.dtype cannot be altered.
_KNOWN: dict[tuple[str, str], _Function | torch.dtype] = {
    ("collections", "OrderedDict"): _Function(_Dict),
    ("collections", "defaultdict"): _Function(lambda *_: _Dict()),
    ("torch", "Size"): _Function(tuple),
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _STORAGE_DTYPES.values()},
    **{
        (module, name): dtype
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in _STORAGE_DTYPES.items()
    },
}


class _Unpickler(pickle._Unpickler):
    """Knows :data:`_KNOWN`; collects the storages by key in the order of their first mention.

    The implementation in Python: the one in C allocates a table as long as the largest index in the file.
    """

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage] | None = None) -> None:
        # Files of Python 2 hold byte strings, of which some (numpy's) are no text.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.storages = {} if storages is None else storages

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        return type("Inert", (Inert,), {"origin": f"{module}.{name}"}) if known is None else known

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError("extension codes name objects of the process that wrote them")

    def persistent_load(self, pid: Any) -> Any:
        kind, *details = pid
        if kind == "module":  # a whole module pickled with its source code: (class, file, source)
            return details[0]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        dtype, key, _device, numel = details[:4]
        if len(details) > 4 and details[4] is not None:
            raise pickle.UnpicklingError("storages that are views of others are not supported")
        if not isinstance(dtype, torch.dtype) or not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError(f"malformed storage {key!r}")
        storage = self.storages.setdefault(str(key), _Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise pickle.UnpicklingError(f"storage {key!r} is described in two ways")
        return storage


def _read_zip(file: BinaryIO) -> Any:
    """<root>/data.pkl, and one record <root>/data/<key> per storage."""
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("a zip archive, but not one of torch.save")
        root = roots[0]
        if f"{root}/constants.pkl" in names:
            raise ValueError("a TorchScript archive, which is a program; save a state_dict with torch.save")
        byteorder = f"{root}/byteorder"
        if byteorder in names and archive.read(byteorder).decode() != sys.byteorder:
            raise ValueError(f"written on a machine that is not {sys.byteorder}-endian")
        with archive.open(f"{root}/data.pkl") as data:
            unpickler = _Unpickler(data)
            value = unpickler.load()
        for key, storage in unpickler.storages.items():
            record = archive.getinfo(f"{root}/data/{key}")
            if record.compress_size != storage.nbytes or record.file_size != storage.nbytes:
                raise ValueError(
                    f"storage {key} should have {storage.nbytes} bytes, has {record.compress_size}"
                )
            storage.data = bytearray(archive.read(record))
    return value


def _read_legacy(file: BinaryIO) -> Any:
    """Pickles (magic number, version, system, object, storage keys), then each storage's numel and bytes."""
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise ValueError("neither a zip archive nor torch's earlier format")
    system = _Unpickler(file).load()
    if system["little_endian"] != (sys.byteorder == "little"):
        raise ValueError(f"written on a machine that is not {sys.byteorder}-endian")
    storages: dict[str, _Storage] = {}
    value = _Unpickler(file, storages).load()
    file_size = os.fstat(file.fileno()).st_size
    for key in _Unpickler(file).load():
        storage = storages[str(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel or storage.nbytes > file_size:
            raise ValueError(f"storage {key} should have {storage.numel} elements, has {numel}")
        storage.data = bytearray(storage.nbytes)
        if file.readinto(storage.data) != storage.nbytes:
            raise ValueError(f"storage {key} is cut short")
    return value


def _with_tensors(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with tensors for their views; ``done`` holds what was converted, for shared containers."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _TensorView):
        done[id(value)] = value.tensor()
    elif isinstance(value, Inert):
        done[id(value)] = value
        value.args, value.state = _with_tensors(value.args, done), _with_tensors(value.state, done)
        value.update({key: _with_tensors(item, done) for key, item in value.items()})
    elif isinstance(value, dict):
        done[id(value)] = converted = {}
        converted.update((key, _with_tensors(item, done)) for key, item in value.items())
    elif isinstance(value, list):
        done[id(value)] = converted = []
        converted.extend(_with_tensors(item, done) for item in value)
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_with_tensors(item, done) for item in value)
    else:
        return value
    return done[id(value)]


_MAX_MODULES = 100_000


def module_state_dict(module: Inert) -> dict[str, Any]:
    """The state_dict of a module that was saved whole, from the parameters and buffers among its attributes.

    Raises:
        ValueError: it is no torch.nn.Module, or one within itself.
    """
    found: dict[str, Any] = {}
    pending, visited = [("", module, ())], 0
    while pending:
        prefix, current, above = pending.pop()
        visited += 1
        if not _is_module(current) or id(current) in above or visited > _MAX_MODULES:
            name = prefix.rstrip(".") or "it"
            raise ValueError(f"{name} is {type(current).__name__}, expected a module that can be walked")
        state = current.state
        hidden = _names(state.get("_non_persistent_buffers_set"))
        buffers = {name: value for name, value in state["_buffers"].items() if name not in hidden}
        for name, value in {**state["_parameters"], **buffers}.items():
            if value is not None:
                found[f"{prefix}{name}"] = value
        children = [
            (f"{prefix}{name}.", child, (*above, id(current)))
            for name, child in state["_modules"].items()
            if child is not None
        ]
        pending += reversed(children)
    return found


def _is_module(value: Any) -> bool:
    parts = ("_parameters", "_buffers", "_modules")
    return (
        isinstance(value, Inert)
        and isinstance(value.state, dict)
        and all(isinstance(value.state.get(part), dict) for part in parts)
    )


def _names(value: Any) -> set[Any]:
    """A set as protocol 4 writes it, or as earlier ones do, as a call of ``set`` with a list."""
    items = (value.args[0] if value.args else ()) if isinstance(value, Inert) else value
    return {item for item in items or () if isinstance(item, str)}


def read_checkpoint(path: str | os.PathLike[str], *, whole_module: bool = False) -> dict[Any, Any]:
    """Read a checkpoint's dictionary; tensors arrive on the CPU whatever device they were saved from.

    Args:
        path: file of ``torch.save`` (zip or legacy format), or of PyTorch Lightning.
        whole_module: also take a module that was saved as it is, and return its state_dict.

    Returns:
        The dictionary in the file; OrderedDicts are plain, and objects of unknown classes are :class:`Inert`.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no checkpoint, is damaged or cut short, is a TorchScript archive, or holds something
            else than a dictionary (or such a module).
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        try:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            value = _with_tensors(_read_zip(file) if is_zip else _read_legacy(file), {})
            if whole_module and _is_module(value):
                return module_state_dict(value)
        # Bytes of unknown origin can make the unpickler raise anything.
        except Exception as error:
            raise ValueError(f"{path} is not a readable torch checkpoint: {error}") from error
    if not isinstance(value, dict) or isinstance(value, Inert):
        found = value.origin if isinstance(value, Inert) else type(value).__name__
        raise ValueError(f"{path} holds an object of {found}, expected a dictionary with a state_dict")
    return value
