"""greedy_decode against itertools.groupby."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import greedy_decode


def one_hot(tokens, vocabulary=4):
    return torch.nn.functional.one_hot(torch.tensor([tokens]), vocabulary).float().log_softmax(-1)


@pytest.mark.parametrize(
    "frames, blank, tokens, timesteps",
    [
        ([0, 1, 1, 0, 1, 2, 2], 0, [1, 1, 2], [1, 4, 5]),
        ([1, 1, 1], 0, [1], [0]),
        ([0, 0], 0, [], []),
        ([0, 1, 3, 1], 3, [0, 1, 1], [0, 1, 3]),
    ],
)
def test_merges_repeats_and_drops_blanks(frames, blank, tokens, timesteps):
    assert greedy_decode(one_hot(frames), blank=blank) == [(tokens, timesteps)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(0, 3)
)
def test_equals_groupby(rows, blank):
    lengths = [len(row) - i for i, row in enumerate(rows)]
    paths = greedy_decode(torch.cat([one_hot(row) for row in rows]), torch.tensor(lengths), blank)
    for row, length, path in zip(rows, lengths, paths):
        assert path.tokens == [token for token, _ in itertools.groupby(row[:length]) if token != blank]
        assert [row[t] for t in path.timesteps] == path.tokens


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_and_strides(dtype):
    scores = one_hot([0, 1, 1, 2]).to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    assert greedy_decode(scores)[0].tokens == [1, 2]
    assert greedy_decode(one_hot([0, 1, 1, 2]).double().numpy())[0].tokens == [1, 2]


@pytest.mark.parametrize(
    "args, message",
    [
        ((torch.zeros(2, 3),), r"log_probs: expected 3 dimensions .* received shape \(2, 3\)"),
        ((torch.zeros(2, 3, 4, dtype=torch.long),), "log_probs: expected a floating-point dtype"),
        (
            (torch.zeros(2, 3, 4), torch.tensor([1, 4])),
            "lengths: expected values between 0 and 3, received 4",
        ),
        ((torch.zeros(2, 3, 4), torch.tensor([1])), r"lengths: expected shape \[2\], received \[1\]"),
        ((torch.zeros(2, 3, 4), torch.tensor([1.0, 2.0])), "lengths: expected an integer dtype"),
        ((torch.zeros(2, 3, 4), None, 4), "blank: expected a token between 0 and 3, received 4"),
        ((torch.zeros(2, 3, 4), None, -1), "blank: expected the index of a label, .* received -1"),
        (
            (torch.zeros(2, 3, 4), None, 2**70),
            "blank: expected the index of a label, .* received 1180591620717411303424",
        ),
        ((torch.zeros(2, 3, 4), None, 1.5), "blank: expected the index of a label, received 1.5"),
        ((torch.zeros(2, 3, 4), None, True), "blank: expected the index of a label, received True"),
        ((torch.full((1, 2, 3), float("nan")),), "log_probs: .* NaN in row 0 at frame 0"),
        ((np.zeros((1, 2)),), "log_probs: expected 3 dimensions"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        greedy_decode(*args)
