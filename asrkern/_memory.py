"""Memory that could not be had, in words: how much, and what for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# What torch says of the CPU's memory, after the path of a source file on the machine that built it.
_TORCH_CPU = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")


def out_of_memory(error: BaseException) -> str | None:
    """What to say of an error that means too little memory, of Python's, torch's or a GPU; None for other errors."""
    if isinstance(error, MemoryError) or _is_torchs(error):
        return str(error) or "out of memory"
    if isinstance(error, RuntimeError) and (asked := _TORCH_CPU.search(str(error))):
        return f"out of memory: {in_words(int(asked[1]))} more were asked for at once"
    return None


def _is_torchs(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    # Only here: commands that fail before they need torch do not wait for it.
    import torch

    return isinstance(error, torch.OutOfMemoryError)


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Too little memory as a MemoryError that begins with ``what``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = out_of_memory(error)
        if said is None:
            raise
        raise MemoryError(f"{what}: {said}") from error


def in_words(size: int) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
