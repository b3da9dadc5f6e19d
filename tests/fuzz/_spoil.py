"""Spoils the arguments of an operation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

INF = float("inf")
#: Nothing has so much memory, whatever the operating system promises.
HUGE = 2**48
INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 2**31, 2**32 + 1, HUGE, 2**62, 2**63 - 1, 2**63)
FLOATS = (float("nan"), INF, -INF, 0.0, -1.0, 1.0, 1e30, -1e30, 1e-40)
STRINGS = (
    "",
    "N",
    "RC",
    "NTC",
    "TNC",
    "NCT",
    "NCFT",
    "TCN",
    "NN",
    "CFT",
    "NCFTR",
    "mean",
    "dot",
    "additive",
    "ñ",
)
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64,
)  # fmt: skip


def tensor(rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.asarray(rng.standard_normal(shape, np.float32))).to(dtype)


def spoil(rng: np.random.Generator, value: object) -> object:
    """Something else in place of an argument; sometimes only the same in another form."""
    kind = rng.random()
    if kind < 0.08:
        return None if value is not None else tensor(rng, tuple(rng.integers(0, 4, rng.integers(0, 4))))
    if kind < 0.1:
        return (3, 1.5, "x", [], torch.ones(()))[rng.integers(5)]
    if value is None:
        shape = tuple(int(size) for size in rng.integers(0, 5, rng.integers(0, 4)))
        return tensor(rng, shape).to(DTYPES[rng.integers(len(DTYPES))])
    if isinstance(value, Tensor):
        return spoil_tensor(rng, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return INTEGERS[rng.integers(len(INTEGERS))]
    if isinstance(value, float):
        return float(rng.choice((*FLOATS, 1e300, -1e300)))
    if isinstance(value, str):
        return STRINGS[rng.integers(len(STRINGS))]
    items = list(value)
    if not items or kind < 0.4:
        return items[: rng.integers(len(items) + 1)] + items[: rng.integers(2)]
    at = rng.integers(len(items))
    items[at] = spoil(rng, items[at])
    return items


def spoil_tensor(rng: np.random.Generator, value: Tensor) -> Tensor:
    if value.numel() > 1 << 20:
        return value[:0]
    shape = list(value.shape)
    axis = int(rng.integers(len(shape))) if shape else 0
    match rng.integers(10):
        case 0:
            return value.to(DTYPES[rng.integers(len(DTYPES))])
        case 1:
            return value.flatten() if rng.random() < 0.5 else value[None]
        case 2:
            return value[0] if shape and shape[0] else value.new_zeros(())
        case 3 if shape:
            shape[axis] = max(0, shape[axis] + int(rng.choice([-2, -1, 1, 2])))
        case 4 if shape:
            shape[axis] = 0
        case 5 if shape:
            # Nothing is behind it but one value; its dense copy would not fit anywhere.
            shape[axis] = HUGE
            return value.new_zeros([1] * len(shape)).expand(shape)
        case 6:
            return (
                torch.stack([value, value], -1)[..., 1]
                if rng.random() < 0.5
                else value.mT
                if len(shape) > 1
                else value
            )
        case 7 if value.numel():
            value = value.clone()
            extreme = FLOATS if value.is_floating_point() else INTEGERS[:-1]
            numbers = np.asarray(rng.choice(extreme, rng.integers(1, 3)), dtype=object)
            for number in numbers:
                limits = (
                    None
                    if value.is_floating_point() or value.dtype == torch.bool
                    else torch.iinfo(value.dtype)
                )
                number = number if limits is None else min(max(int(number), limits.min), limits.max)
                value.view(-1)[rng.integers(value.numel())] = number
            return value
        case 8 if shape:
            return value.new_zeros([1] * len(shape)).expand(shape)
        case _:
            shape = [int(size) for size in rng.integers(0, 4, rng.integers(0, 5))]
    return tensor(rng, tuple(shape)).to(value.dtype)
