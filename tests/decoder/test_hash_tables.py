"""The layout of a language model's hash tables: what kernels/common/hash_table.h relies on."""

import random
import time

import numpy as np
import pytest

from asrkern import _decoder
from asrkern.decoder import NGramLM

GROUP = 4  # slots


def scattered(count):
    return [random.getrandbits(64) | 1 for _ in range(count)]


def crowded(count):
    """Keys that all begin in the table's last group."""
    return [2**64 - 1 - random.getrandbits(48) for _ in range(count)]


def left(order, places, begins):
    """Of each group: whether a key had to leave it, by where the keys begin and where they are."""
    result = [False] * len(order)
    for place, begin in zip(places, begins):
        while begin != place:
            result[begin] = True
            begin = (begin + 1) % len(order)
    return result


@pytest.mark.parametrize("make_keys", [scattered, crowded])
@pytest.mark.parametrize("count", [1, 2, 37, 1000])
@pytest.mark.parametrize("small", [False, True])
def test_the_last_two_slots_tell_whether_a_key_had_to_leave(make_keys, count, small):
    random.seed(count)
    keys = sorted(set(make_keys(count)))
    random.shuffle(keys)
    values = np.arange(len(keys))
    if small:
        table = _decoder.make_small_hash_table(np.array(keys, np.uint64), values.astype(np.uint16))
        order = table.view(np.uint64)
        found = {int(slot) & 0xFFFF: at for at, slot in enumerate(order) if slot}
    else:
        table = _decoder.make_hash_table(np.array(keys, np.uint64), values.astype(np.uint64))
        order = table[:, 0].view(np.uint64)
        found = {int(value): at for at, (slot, value) in enumerate(table) if slot}
    assert sorted(found) == values.tolist()
    groups = order.reshape(-1, GROUP)
    places = [found[value] // GROUP for value in values.tolist()]
    begins = [key * len(groups) >> 64 for key in keys]
    assert (groups[:, -1] > groups[:, -2]).tolist() == left(groups, places, begins)
    # No gaps: a search of the group's slots in their order is one, too.
    assert not ((groups[:, 1:] != 0) & (groups[:, :-1] == 0)).any()


def test_tables_begin_at_a_cache_line(tmp_path):
    for order in (1, 2, 3):
        built = NGramLM.estimate(["a b c a b", "b c", "c a"], order, discount_fallback=True)
        for lm in (built, built.quantize()):
            path = tmp_path / "lm.safetensors"
            lm.save(path)
            for name in ("ngrams", "words"):
                assert lm.tensors[name].data_ptr() % 64 == 0
                assert NGramLM.load(path).tensors[name].data_ptr() % 64 == 0


def test_keys_that_are_no_hashes():
    """Of which many begin in one place: refused, soon."""
    keys, values = np.arange(1, 300_001, dtype=np.uint64), np.zeros(300_000, np.uint16)
    for make in (
        lambda: _decoder.make_hash_table(keys, values.astype(np.uint64)),
        lambda: _decoder.make_small_hash_table(keys, values),
    ):
        began = time.process_time()
        with pytest.raises(ValueError, match="expected words and n-grams whose hashes are scattered"):
            make()
        assert time.process_time() - began < 1
    # What is far from 2^64 apart is as good as random numbers.
    spread = keys * np.uint64(0x9E3779B97F4A7C15)
    assert len(_decoder.make_hash_table(spread, values.astype(np.uint64))) > len(keys)
