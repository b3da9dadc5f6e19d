"""Reads what torch.save wrote, without executing anything in the file.

:mod:`asrkern.models._unpickler` does the reading. It takes files that ``torch.load(weights_only=True)`` refuses, such
as Lightning's, and need not trust them. Memory and time follow from a file's size, whatever is in it.

Both formats are read: the zip archive (torch ≥ 1.6), and the sequence of pickles before it (torch ≥ 0.1.10).
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import zipfile
from typing import Any, BinaryIO

from asrkern._file_kinds import in_words, shown, zip_of_others
from asrkern._memory import in_words as size_in_words
from asrkern._memory import memory_for
from asrkern.models._unpickler import Inert, Storage, TensorView, Unpickler, Work, plain

__all__ = ["Inert", "module_state_dict", "plain", "read_checkpoint"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Source:
    """A file that allocates no more than it has, however much is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size))


def _read_zip(file: BinaryIO, size: int) -> Any:
    """Read <root>/data.pkl, and <root>/data/<key> for each storage."""
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        if len(names) != len(archive.namelist()):
            raise ValueError("a zip archive with two members of one name")
        roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1 or f"{roots[0]}/constants.pkl" in names:
            raise ValueError(zip_of_others(names))
        root = roots[0]
        byteorder = f"{root}/byteorder"
        if byteorder in names and _member(archive, byteorder) != sys.byteorder.encode():
            raise ValueError(f"written on a machine that is not {sys.byteorder}-endian")
        unpickler = Unpickler(io.BytesIO(_member(archive, f"{root}/data.pkl")), Work(size))
        value = unpickler.load()
        members = []
        for key, storage in unpickler.storages.items():
            name = f"{root}/data/{key}"
            if name not in names:
                raise ValueError(f"storage {shown(key)} is missing")
            members.append((_stored(archive, name, storage.nbytes), storage))
        # Members can lie within each other, which newer zipfiles refuse, too. torch.save writes none that do.
        if sum(storage.nbytes for _, storage in members) > size:
            raise ValueError("its storages have together more bytes than the file")
        for record, storage in members:
            with archive.open(record) as member:
                storage.read_from(member)
    return value


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(_stored(archive, name))


def _stored(archive: zipfile.ZipFile, name: str, size: int | None = None) -> zipfile.ZipInfo:
    """A member as torch.save writes it, uncompressed: so a small file cannot become a large one."""
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
        raise ValueError(f"{shown(name)} is compressed, which torch.save does not do; save it anew")
    if size not in (None, record.file_size):
        raise ValueError(f"{shown(name)} should have {size} bytes, has {record.file_size}")
    if not record.CRC:
        # torch.serialization.set_crc32_options(False) writes zeros. Without the attribute zipfile compares nothing.
        del record.CRC
    return record


def _read_legacy(file: BinaryIO, size: int) -> Any:
    """Read pickles (magic number, version, system, object, storage keys), then each storage's numel and bytes."""
    source, work = _Source(file, size), Work(size)
    if Unpickler(source, work).load() != _LEGACY_MAGIC or Unpickler(source, work).load() != _LEGACY_PROTOCOL:
        raise ValueError("neither a zip archive nor torch's earlier format")
    system = Unpickler(source, work).load()
    if not isinstance(system, dict) or system.get("little_endian") != (sys.byteorder == "little"):
        raise ValueError(f"written on a machine that is not {sys.byteorder}-endian")
    storages: dict[str, Storage] = {}
    value = Unpickler(source, work, storages).load()
    keys = Unpickler(source, work).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it has no list of its storages")
    for key in keys:
        if key not in storages:
            raise ValueError(f"storage {shown(key)} belongs to no tensor")
        storage = storages[key]
        (numel,) = struct.unpack("<q", source.read(8))
        if numel != storage.numel or storage.nbytes > size:
            raise ValueError(f"storage {shown(key)} should have {storage.numel} elements, has {numel}")
        if storage.read_from(file) != storage.nbytes:
            raise ValueError(f"storage {shown(key)} is cut short")
    if missing := storages.keys() - set(keys):
        raise ValueError(f"storage {shown(min(missing))} is missing")
    return value


def _with_tensors(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with tensors in the place of their views. done: containers converted before, some of them shared."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, TensorView):
        done[id(value)] = value.tensor()
    elif isinstance(value, Inert):
        done[id(value)] = value
        value.args, value.state = _with_tensors(value.args, done), _with_tensors(value.state, done)
        value.update({key: _with_tensors(item, done) for key, item in value.items()})
    elif isinstance(value, dict):
        done[id(value)] = mapped = dict[Any, Any]()
        mapped.update((key, _with_tensors(item, done)) for key, item in value.items())
    elif isinstance(value, list):
        done[id(value)] = items = list[Any]()
        items.extend(_with_tensors(item, done) for item in value)
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_with_tensors(item, done) for item in value)
    else:
        return value
    return done[id(value)]


_PARTS = ("_parameters", "_buffers", "_modules")
_MAX_DEPTH = 100
_LONGEST_KEY = 1000  # characters


def module_state_dict(module: Inert, file_size: int = 2**22) -> dict[str, Any]:
    """The state_dict of a module that was saved whole, from the parameters and buffers among its attributes.

    Args:
        file_size: in bytes. It limits how many different parts a module can have.

    Raises:
        ValueError: it is no torch.nn.Module, contains itself, or is too deep or too large to be real.
    """
    found: dict[str, Any] = {}
    # A new part takes hundreds of bytes; a shared part is mentioned in a few.
    left = 1000 + file_size // 50
    pending = [("", module, ())]
    while pending:
        prefix, current, above = pending.pop()
        if not _is_module(current) or id(current) in above or len(above) > _MAX_DEPTH:
            name = prefix.rstrip(".") or "it"
            raise ValueError(f"{name} is {type(current).__name__}, expected a module that can be walked")
        state = current.state
        parameters, buffers, children = parts = [state[part] for part in _PARTS]
        unkept = _items(state.get("_non_persistent_buffers_set"))
        left -= 1 + sum(map(len, parts)) + len(unkept)
        longest = max(
            (len(name) if isinstance(name, str) else 2**31 for part in parts for name in part), default=0
        )
        if left < 0 or len(prefix) + longest > _LONGEST_KEY:
            raise ValueError(
                f"{prefix.rstrip('.') or 'it'} has more parts or longer names than a file of its size can, expected a "
                "module that can be walked"
            )
        hidden = {item for item in unkept if isinstance(item, str)}
        kept = {name: value for name, value in buffers.items() if name not in hidden}
        for name, value in {**parameters, **kept}.items():
            if value is not None:
                found[f"{prefix}{name}"] = value
        following: list[Any] = [
            (f"{prefix}{name}.", child, (*above, id(current)))
            for name, child in children.items()
            if child is not None
        ]
        pending += reversed(following)
    return found


def _is_module(value: Any) -> bool:
    return (
        isinstance(value, Inert)
        and isinstance(value.state, dict)
        and all(isinstance(value.state.get(part), dict) for part in _PARTS)
    )


def _items(value: Any) -> Any:
    """The items of a set, which protocol 4 writes as such, and earlier ones as a call of ``set`` with a list."""
    items: Any = (value.args[0] if value.args else ()) if isinstance(value, Inert) else value
    return items if isinstance(items, list | set | frozenset) else ()


def read_checkpoint(path: str | os.PathLike[str], *, whole_module: bool = False) -> dict[Any, Any]:
    """Read a checkpoint's dictionary. Tensors arrive on the CPU, whatever device they were saved from.

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
        size = os.fstat(file.fileno()).st_size
        try:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            with memory_for(f"{path}, a file of {size_in_words(size)}"):
                value = _with_tensors(_read_zip(file, size) if is_zip else _read_legacy(file, size), {})
            if whole_module and _is_module(value):
                return module_state_dict(value, size)
        except MemoryError:
            raise
        # Damaged or forged files can make the unpickler raise anything.
        except Exception as error:
            reason = in_words(path) or _reason(error)
            raise ValueError(f"{path} is not a readable torch checkpoint: {reason}") from error
    if not isinstance(value, dict) or isinstance(value, Inert):
        found = shown(value.origin)[1:-1] if isinstance(value, Inert) else type(value).__name__
        raise ValueError(f"{path} holds an object of {found}, expected a dictionary with a state_dict")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it is cut short: get it again"
    # Messages of our own and of zipfile. Others are about Python's internals, such as "pop from empty list".
    if isinstance(error, ValueError | pickle.UnpicklingError | zipfile.BadZipFile) and not isinstance(
        error, UnicodeError
    ):
        return str(error)
    return f"it is damaged ({type(error).__name__}: {error})"
