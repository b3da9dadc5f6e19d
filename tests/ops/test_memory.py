"""Where memory is lacking, the error says which operation wanted how much for what."""

from __future__ import annotations

import re

import pytest
import torch

from tests.ops.calls import INF, batch_norm, beam_search, g, op

PETABYTES = 2**50


def wide(*shape):
    """One value as often as there is no memory for."""
    return torch.zeros([1] * len(shape)).expand(shape)


@pytest.mark.parametrize(
    "name, call",
    [
        ("linear", lambda: op("linear")(wide(PETABYTES, 4), g(3, 4), None)),
        ("linear", lambda: op("linear")(torch.zeros(1, 0).expand(PETABYTES, 0), g(3, 0), None)),
        ("gru", lambda: op("gru")(wide(PETABYTES, 1, 5), None, None, None, g(18, 5), g(18, 6), *[None] * 6, False, False)),
        ("gru", lambda: op("gru")(wide(2, PETABYTES, 5), None, None, None, g(18, 5), g(18, 6), *[None] * 6, False, False)),
        ("batch_norm_act", lambda: op("batch_norm_act")(*(batch_norm("NTC") | {"input": wide(4, PETABYTES, 3)}).values())),
        ("masked_conv2d", lambda: op("masked_conv2d")(wide(1, 1, 3, PETABYTES), g(1, 1, 3, 3), *[None] * 5, [1, 1], [0, 0], -INF, INF, [1, 1])),
        ("ctc_beam_search", lambda: op("ctc_beam_search")(*(beam_search() | {"log_probs": wide(1, PETABYTES, 4), "lengths": None}).values())),
    ],
)  # fmt: skip
def test_no_memory(name, call):
    """Which operation wanted how much for what, and nothing of how torch was built."""
    with pytest.raises(MemoryError) as error:
        call()
    assert re.match(rf"asrkern::{name}: no memory for ", str(error.value)), str(error.value)
    assert not re.search(r"\.h|\.cpp|/", str(error.value)), str(error.value)


def test_no_memory_for_frames_without_features():
    call = (None, None, None, g(18, 0), g(18, 6), *[None] * 6, False, False)
    with pytest.raises(MemoryError, match=rf"asrkern::gru: .* a tensor of shape \({2**45}, 5\)"):
        op("gru")(torch.zeros(1, 1, 0).expand(2**45, 5, 0), *call)


def test_no_memory_for_utterances_without_frames():
    log_probs = torch.zeros(1, 0, 4).expand(PETABYTES, 0, 4)
    with pytest.raises(MemoryError, match=rf"asrkern::ctc_beam_search: .*\({PETABYTES}, 2"):
        op("ctc_beam_search")(*(beam_search() | {"log_probs": log_probs, "lengths": None}).values())


def test_no_memory_says_how_much():
    with pytest.raises(MemoryError) as error:
        op("linear")(torch.zeros(1, 0).expand(PETABYTES, 0), g(3, 0), None)
    expected = f"asrkern::linear: no memory for {PETABYTES * 12} bytes, a tensor of shape ({PETABYTES}, 3)"
    assert str(error.value) == expected


def test_more_bytes_than_integers():
    with pytest.raises(
        ValueError, match=r"a tensor of shape \(4611686018427387904, 3\) would have more bytes than"
    ):
        op("linear")(torch.zeros(1, 0).expand(2**62, 0), g(3, 0), None)
