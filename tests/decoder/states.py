"""Saved states of beam searches, made anew from other bytes."""

from __future__ import annotations

_M, _MASK = 0xC6A4A7935BD1E995, (1 << 64) - 1


def murmur_hash(data: bytes) -> int:
    """MurmurHash64A with seed 0."""
    whole = len(data) // 8 * 8
    value = len(data) * _M & _MASK
    for at in range(0, whole, 8):
        block = int.from_bytes(data[at : at + 8], "little") * _M & _MASK
        value = (value ^ (block ^ block >> 47) * _M & _MASK) * _M & _MASK
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    value = (value ^ value >> 47) * _M & _MASK
    return value ^ value >> 47


def with_checksum(data: bytes) -> bytes:
    """A state's bytes behind which its checksum is made again."""
    return data + murmur_hash(data).to_bytes(8, "little")
