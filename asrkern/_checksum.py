"""Checksums of tensors and texts that files keep, as hexadecimal digits. They tell damage, not intent."""

from __future__ import annotations

import torch
from torch import Tensor

import asrkern.ops  # noqa: F401  has the operation


def hexadecimal_checksum(tensor: Tensor) -> str:
    """Of the bytes of a tensor. Any change within eight bytes changes it."""
    return f"{torch.ops.asrkern.checksum(tensor.detach().cpu().contiguous()) % 2**64:016x}"


def checksum_of_text(text: str) -> str:
    """Of a text in UTF-8."""
    content = bytearray(text.encode(errors="surrogatepass"))
    return hexadecimal_checksum(torch.frombuffer(content or bytearray(1), dtype=torch.uint8))
