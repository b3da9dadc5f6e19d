"""The checksum of a tensor's bytes, by which kept copies of weights are known."""

from __future__ import annotations

import pytest
import torch

checksum = torch.ops.asrkern.checksum


@pytest.mark.parametrize("count", [1, 2, 7, 8, 63, 64, 65, 1000, 2**18 - 1, 2**18, 2**18 + 9, 700_001])
def test_any_bit_changes_it(count):
    values = torch.randint(0, 256, (count,), dtype=torch.uint8)
    before, seen = checksum(values), set()
    positions = {0, count - 1, *torch.randint(0, count, (40,)).tolist()}
    for position in positions:
        for bit in (1, 128):
            values[position] ^= bit
            seen.add(checksum(values))
            values[position] ^= bit
    assert before not in seen and len(seen) == 2 * len(positions)
    assert checksum(values) == before


def test_order_and_number_of_values_count():
    values = torch.randn(100_000)
    sums = {
        checksum(values),
        checksum(values.flip(0)),
        checksum(values.roll(65536)),
        checksum(values.roll(8)),
    }
    sums |= {checksum(torch.zeros(n)) for n in range(20)}
    assert len(sums) == 24


@pytest.mark.parametrize("distance", [8, 64, 512, 2**18])
def test_two_upper_bits_do_not_cancel(distance):
    """As they would where words were only multiplied and added."""
    values = torch.zeros(2**18 + 4096, dtype=torch.uint8)
    before = checksum(values)
    values[7] = values[7 + distance] = 128
    assert checksum(values) != before


def test_files_depend_on_its_values():
    values = torch.arange(300_000, dtype=torch.int64)
    assert checksum(values) == -2726434046786902342 and checksum(values[:5]) == -404580941888959634


def test_counts_elements_whatever_their_strides():
    values = torch.randn(300, 500)
    assert checksum(values.t()) == checksum(values.t().contiguous()) != checksum(values)


def test_threads_do_not_count():
    values, threads = torch.randn(1_000_003), torch.get_num_threads()
    sums = set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.add(checksum(values))
    finally:
        torch.set_num_threads(threads)
    assert len(sums) == 1
