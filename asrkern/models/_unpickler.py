"""Reads a pickle without executing anything in it, in memory and time that follow from the size of its file.

A pickle is a program: it names functions and calls them. Only the few functions that put a tensor together are known
here, as implementations of our own. Every other name becomes an :class:`Inert` object, which keeps what it is given and
does nothing. No name is ever imported.

A pickle can also say much in few bytes: lists that hold each other many times over, or sizes of data that is not there.
So every instruction, and all that it copies, is counted (:class:`Work`). What is mentioned many times is walked through
once (:func:`plain`), or refused (:func:`_check_key`).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import IO, Any

import torch
from torch import Tensor


class Inert(dict):
    """Stands for an object whose class is unknown here; one subclass per name, called ``origin``.

    Holds what the file has for the object: ``args`` of its constructor, ``state`` of its attributes and, if it is a
    mapping, its items.
    """

    origin = ""
    args: Any
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert(*args)

    # BUILD can also have the class itself as its target. Then the call has one argument less.
    def __setstate__(self, state: Any = None) -> None:
        if isinstance(self, Inert):
            self.state = state

    def append(self, item: Any) -> None:
        """Does nothing: items of an unknown list are not kept."""

    extend = add = append

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<inert {self.origin}>"


def plain(value: Any) -> Any:
    """The data inside an inert configuration object, otherwise the value itself.

    Understands OmegaConf's containers and nodes, enumerations, dataclasses and mappings. Parts that are shared in the
    file are shared in the result.

    Raises:
        ValueError: it is nested too deeply.
    """
    try:
        return _plain(value, {})
    except RecursionError:
        raise ValueError("a value that is nested too deeply") from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """done: identity of an object in the file → its converted form, finished or not."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, list | tuple):
        done[id(value)] = converted = []
        converted.extend(_plain(item, done) for item in value)
        return converted
    if not isinstance(value, dict):
        return value
    items: dict[Any, Any] = value
    if isinstance(value, Inert):
        done[id(value)] = None
        inside = _inside(value)
        if inside is not value:
            done[id(value)] = converted = _plain(inside, done)
            return converted
        items = value.state if isinstance(value.state, dict) and value.state else value
    done[id(value)] = converted = {}
    converted.update((key, _plain(item, done)) for key, item in items.items())
    return converted


def _inside(value: Inert) -> Any:
    """The only value of an object; the object itself if it has several."""
    if isinstance(value.state, dict) and value.state:
        return next((value.state[key] for key in ("_content", "_val") if key in value.state), value)
    if value.origin.endswith(".getattr"):  # an enumeration's member by its name, as Python 3.11 writes it
        return value.args[-1] if value.args else value
    return value.args[0] if len(value) == 0 and len(value.args) == 1 else value


class _Dict(dict):
    """OrderedDict and defaultdict of a file. Attributes that the file sets on it are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def _ordered_dict(items: Any = ()) -> _Dict:
    """Python 2 gives the items to the constructor, as pairs."""
    made = _Dict()
    for key, value in items.items() if isinstance(items, dict) else items:
        _check_key(key)
        made[key] = value
    return made


def _check_key(key: Any) -> None:
    """Refuse keys that take long to hash: nested tuples, and integers made to collide."""
    for part in key if isinstance(key, tuple) else (key,):
        short = abs(part) < 2**63 if isinstance(part, int) else isinstance(part, _KEYS)
        if not short or (isinstance(key, tuple) and len(key) > _LONGEST_KEY):
            raise pickle.UnpicklingError(
                f"a key of {type(key).__name__}, expected a string, number or object"
            )


_LONGEST_KEY = 64
_KEYS = (str, bytes, float, Inert, type, torch.dtype, type(None))


@dataclass(frozen=True)
class _Function:
    """A function that a file may call. BUILD on it is ignored, so no file can change it for the next one."""

    call: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setstate__(self, state: Any) -> None:
        pass


# What a file is read by, so that no second copy of it is in memory.
_READ_AT_ONCE = 2**20


@dataclass
class Storage:
    """The bytes of one or more tensors. They are read after the pickle that refers to them."""

    dtype: torch.dtype
    numel: int
    data: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8), compare=False)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def __setstate__(self, state: Any) -> None:
        pass

    @cached_property
    def tensor(self) -> Tensor:
        """All of the storage as one tensor, of which other tensors are views."""
        return self.data.view(self.dtype)

    def read_from(self, file: IO[bytes]) -> int:
        """Read the bytes into memory that the tensors will have, and count them."""
        self.data = torch.empty(self.nbytes, dtype=torch.uint8)
        view, count = memoryview(self.data.numpy()), 0
        while part := file.read(min(_READ_AT_ONCE, self.nbytes - count)):
            view[count : count + len(part)] = part
            count += len(part)
        return count


_MAX_DIMENSIONS = 64  # torch's own limit


@dataclass(frozen=True)
class TensorView:
    """A tensor before its storage has been read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool = False
    conjugate: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.storage, Storage) or not len(self.size) == len(self.stride) <= _MAX_DIMENSIONS:
            raise ValueError("malformed tensor")
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers):
            raise ValueError("tensor with a size, stride or offset that is negative or no 64-bit integer")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if prod(self.size) and last >= self.storage.numel:
            raise ValueError(f"tensor of size {self.size} reaches beyond its storage of {self.storage.numel}")

    def __setstate__(self, state: Any) -> None:
        pass

    def tensor(self) -> Tensor:
        view = self.storage.tensor.as_strided(self.size, self.stride, self.offset)
        view = -view if self.negative else view
        return view.conj() if self.conjugate else view


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> TensorView:
    """others: whether it has gradients, hooks, and perhaps whether all values are negated or conjugated when read."""
    lazily = others[2] if len(others) > 2 and isinstance(others[2], dict) else {}
    marks = (lazily.get(name) is True for name in ("neg", "conj"))
    return TensorView(storage, offset, tuple(size), tuple(stride), *marks)


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
# Everything that a file may name. A torch.dtype cannot be changed.
_KNOWN: dict[tuple[str, str], _Function | torch.dtype] = {
    ("collections", "OrderedDict"): _Function(_ordered_dict),
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


class Work:
    """The budget for reading a file, in instructions, or values of about 90 bytes.

    Real files need about 50 for each tensor, and a tensor takes 400 bytes or more.
    """

    def __init__(self, file_size: int) -> None:
        self._left = 500_000 + file_size // 8

    def spend(self, amount: int) -> None:
        """Raise UnpicklingError if less than this is left."""
        self._left -= amount
        if self._left < 0:
            raise pickle.UnpicklingError("it has more instructions than a file of its size may need")


class _Instructions(dict):
    """pickle's table of instructions. Each look-up counts as work."""

    def __init__(self, table: dict[int, Any], work: Work) -> None:
        super().__init__(table)
        self._work = work

    def __getitem__(self, code: int) -> Any:
        self._work.spend(1)
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"the byte {code:#04x} is no instruction of a pickle")


_LONGEST_NAME = 1000  # characters


class Unpickler(pickle._Unpickler):
    """An unpickler that knows :data:`_KNOWN`. It collects the storages by key, in the order of their first mention.

    It builds on the implementation in Python: the one in C allocates a table as long as the largest index in the file.

    Args:
        file: never returns, or allocates, more than it has, however much is asked for.
        work: the budget, which is spent.
        storages: those of the pickle before, if this one refers to them.
    """

    def __init__(self, file: Any, work: Work, storages: dict[str, Storage] | None = None) -> None:
        # Files of Python 2 hold byte strings; some of them (numpy's) are no text.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.storages = {} if storages is None else storages
        self._work = work
        self._unknown: dict[tuple[str, str], type[Inert]] = {}
        self.dispatch = _Instructions(self._TABLE, work)

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name)) or self._unknown.get((module, name))
        if known is None:
            if len(module) + len(name) > _LONGEST_NAME:
                raise pickle.UnpicklingError(f"a name of more than {_LONGEST_NAME} characters")
            self._work.spend(16)
            known = self._unknown[module, name] = type("Inert", (Inert,), {"origin": f"{module}.{name}"})
        return known

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError("extension codes name objects of the process that wrote them")

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or not 2 <= len(pid) <= 6:
            raise pickle.UnpicklingError("malformed persistent id")
        kind, *details = pid
        if kind == "module":  # a whole module pickled with its source code: (class, file, source)
            return details[0]
        if kind != "storage" or len(details) < 4:
            raise pickle.UnpicklingError("unknown persistent id")
        dtype, key, _device, numel = details[:4]
        if len(details) > 4 and details[4] is not None:
            raise pickle.UnpicklingError("storages that are views of others are not supported")
        if not isinstance(key, str | int) or (isinstance(key, int) and abs(key) >= 2**63):
            raise pickle.UnpicklingError("malformed key of a storage")
        if not isinstance(dtype, torch.dtype) or not isinstance(numel, int) or not 0 <= numel < 2**63:
            raise pickle.UnpicklingError(f"malformed storage {str(key)[:_LONGEST_NAME]!r}")
        storage = self.storages.setdefault(str(key), Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise pickle.UnpicklingError(f"storage {str(key)[:_LONGEST_NAME]!r} is described in two ways")
        return storage

    def _count_call(self, *arguments: Any) -> None:
        """Count arguments and what is in them: they are copied, so a few bytes could ask for many copies."""
        if not isinstance(arguments[0], tuple):
            raise pickle.UnpicklingError("a call without a tuple of arguments")
        values = [*arguments, *arguments[0]]
        self._work.spend(4 + sum(len(value) for value in values if isinstance(value, Sized)))

    def load_reduce(self) -> None:
        self._count_call(self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        self._count_call(self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self) -> None:
        self._count_call(self.stack[-2], self.stack[-1])
        super().load_newobj_ex()

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        self._count_call(tuple(args))
        super()._instantiate(klass, args)

    def load_setitem(self) -> None:
        _check_key(self.stack[-2])
        super().load_setitem()

    # After the last mark the stack has only the items.
    def _load_items(self, load: Callable[[], None], step: int) -> None:
        for key in self.stack[::step]:
            _check_key(key)
        load()

    def load_setitems(self) -> None:
        self._load_items(super().load_setitems, 2)

    def load_dict(self) -> None:
        self._load_items(super().load_dict, 2)

    def load_additems(self) -> None:
        self._load_items(super().load_additems, 1)

    def load_frozenset(self) -> None:
        self._load_items(super().load_frozenset, 1)

    def load_bytearray8(self) -> None:
        # pickle's own method allocates the size that is claimed.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    _TABLE = pickle._Unpickler.dispatch | {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
