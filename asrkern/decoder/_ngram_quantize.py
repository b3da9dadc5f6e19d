"""N-gram tables with 8 bits a value."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asrkern import _decoder


def _bins(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(code of each value, value of each of the ``count`` codes): the means of ``count`` bins of equal width.

    So the error is below a bin's width everywhere. Bins of equal population would leave rare values far off.
    """
    low, high = float(values.min()), float(values.max())
    codes = ((values.astype(np.float64) - low) * (count / max(high - low, 1e-30))).astype(np.int64)
    codes = np.minimum(codes, count - 1)
    totals = np.bincount(codes, values, count)
    return codes, totals / np.maximum(np.bincount(codes, minlength=count), 1)


def _round(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """As ``_bins``; values far from all others (the −99 of impossible words) get a few bins of their own."""
    low, high = np.quantile(values, [0.001, 0.999])
    far = (values < 2 * low - high) | (values > 2 * high - low)
    few = count // 16
    if few == 0 or low == high or not far.any():
        return _bins(values, count)
    codes = np.zeros(len(values), np.int64)
    codes[far], far_book = _bins(values[far], few)
    codes[~far], book = _bins(values[~far], count - few)
    codes[~far] += few
    return codes, np.concatenate([far_book, book])


def _encode(values: np.ndarray, groups: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of ``values``, and the 256 values of the codes. Each group (mask, number of codes) has its own codes."""
    codes, book, first = np.zeros(len(values), np.uint16), np.zeros(256, np.float32), 0
    for mask, count in groups:
        if mask.any():
            group, book[first : first + count] = _round(values[mask], count)
            codes[mask] = first + group
        first += count
    return codes, book


def quantize(ngrams: Tensor) -> dict[str, Tensor]:
    """``ngrams`` [slots, 2] int64 → ``ngrams`` [slots] int64 and ``codebook`` [2, 256] float32.

    Signs are marks, so values of either sign have codes of their own. Zeros stay zeros.
    """
    slots = ngrams.numpy().view(np.uint64)
    slots = slots[slots[:, 0] != 0]
    keys, values = np.ascontiguousarray(slots[:, 0]), np.ascontiguousarray(slots[:, 1]).view(np.float32)
    log_probs, backoffs = values[0::2], values[1::2]
    ends = np.signbit(log_probs)
    log_codes, log_book = _encode(log_probs, [(ends, 128), (~ends, 128)])
    zero, negative = backoffs == 0, np.signbit(backoffs)
    backoff_codes, backoff_book = _encode(
        backoffs, [(zero & negative, 1), (zero & ~negative, 1), (~zero, 254)]
    )
    backoff_book[0] = -0.0
    table = _decoder.make_small_hash_table(keys, log_codes | backoff_codes << 8)
    return {
        "ngrams": torch.from_numpy(table),
        "codebook": torch.from_numpy(np.stack([log_book, backoff_book])),
    }
