"""The kinds of attention against their formulas written out for one unpadded row and one step at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from asrkern.nn import (
    AdditiveAttention,
    Attention,
    DotAttention,
    LocationAwareAttention,
    MeanAttention,
    MultiHeadAttention,
)
from tests.compare import assert_close

Q, M, A = 6, 6, 8

KINDS = {
    "mean": MeanAttention,
    "dot": DotAttention,
    "additive": lambda: AdditiveAttention(Q, M, A),
    "location": lambda: LocationAwareAttention(Q, M, A, channels=5, kernel_size=3),
    "location, wide, softmax": lambda: LocationAwareAttention(Q, M, A, kernel_size=7, smoothing=False),
    "one head": lambda: MultiHeadAttention(Q, M, A),
    "four heads": lambda: MultiHeadAttention(Q, M, A, num_heads=4),
}


def make(name: str) -> Attention:
    return KINDS[name]().double()


def step_by_definition(
    attention: Attention, query: Tensor, memory: Tensor, previous: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One step of one row: query [Q], memory [T, M] → context [V], weights [T]; in loops over frames."""
    p = dict(attention.named_parameters())
    if isinstance(attention, MultiHeadAttention):
        size = A // attention.num_heads
        contexts, weights = [], []
        for head in range(attention.num_heads):
            rows = slice(head * size, (head + 1) * size)
            q, k, v = (
                x @ p[f"{n}.weight"][rows].T + p[f"{n}.bias"][rows]
                for n, x in (("QW", query), ("KW", memory), ("VW", memory))
            )
            w = torch.stack([torch.dot(q, frame) / math.sqrt(size) for frame in k]).softmax(0)
            contexts.append(sum(a * frame for a, frame in zip(w, v)))
            weights.append(w)
        return torch.cat(contexts), torch.stack(weights).mean(0)
    if isinstance(attention, AdditiveAttention):
        energies = []
        for t, frame in enumerate(memory):
            inner = p["W.weight"] @ query + p["V.weight"] @ frame + p["b"]
            if isinstance(attention, LocationAwareAttention) and previous is not None:
                kernel = p["loc_conv.weight"]
                half = kernel.shape[-1] // 2
                window = [
                    previous[t + j] if 0 <= t + j < len(memory) else previous.new_zeros(())
                    for j in range(-half, half + 1)
                ]
                inner = inner + p["U.weight"] @ (kernel[:, 0] @ torch.stack(window) + p["loc_conv.bias"])
            energies.append(p["w.weight"][0] @ torch.tanh(inner))
        energies = torch.stack(energies)
        if getattr(attention, "smoothing", False):
            weights = torch.sigmoid(energies) / torch.sigmoid(energies).sum()
        else:
            weights = energies.softmax(0)
    elif isinstance(attention, DotAttention):
        weights = torch.stack([torch.dot(query, frame) for frame in memory]).softmax(0)
    else:
        weights = memory.new_full((len(memory),), 1 / len(memory))
    return sum(a * frame for a, frame in zip(weights, memory)), weights


@pytest.mark.parametrize("name", KINDS)
def test_matches_the_definition_forward_and_backward(name: str) -> None:
    attention = make(name)
    lengths = [7, 1, 4]
    rows = [torch.randn(length, M, dtype=torch.float64) for length in lengths]
    queries = torch.randn(3, 5, Q, dtype=torch.float64, requires_grad=True)
    memory = torch.full((3, 9, M), float("nan"), dtype=torch.float64)
    for target, row in zip(memory, rows):
        target[: len(row)] = row
    context, weights = attention(queries, attention.remember(memory, torch.tensor(lengths)))
    assert weights.shape == (3, 5, 9)
    expected = torch.zeros_like(context)
    for i, row in enumerate(rows):
        previous = None
        for step in range(5):
            expected_context, previous = step_by_definition(attention, queries[i, step], row, previous)
            torch.testing.assert_close(context[i, step], expected_context, rtol=0, atol=1e-12)
            torch.testing.assert_close(weights[i, step, : len(row)], previous, rtol=0, atol=1e-12)
            expected[i, step] = expected_context
        assert weights[i, :, len(row) :].eq(0).all()
    scale = torch.randn_like(context)
    leaves = [p for p in (queries, *attention.parameters()) if name != "mean"]
    got = torch.autograd.grad((context * scale).sum(), leaves) if leaves else []
    wanted = torch.autograd.grad((expected * scale).sum(), leaves) if leaves else []
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, 1e-9) if b.abs().max() > 1e-9 else torch.testing.assert_close(
            a, b, rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", KINDS)
def test_weights_sum_to_one_and_ignore_what_padding_holds(name: str) -> None:
    attention = make(name).float()
    lengths = torch.tensor([6, 11, 2])
    memory, queries = torch.randn(3, 11, M), torch.randn(3, 4, Q)
    context, weights = attention(queries, attention.remember(memory, lengths))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))
    changed = torch.cat([memory, torch.zeros(3, 5, M)], 1)
    for row, length in enumerate(lengths.tolist()):
        changed[row, length:] = float("inf")
    other, other_weights = attention(queries, attention.remember(changed, lengths))
    torch.testing.assert_close(other, context, rtol=0, atol=1e-6)
    assert other_weights[..., 11:].eq(0).all()
    alone, _ = attention(queries[2:], attention.remember(memory[2:, :2], lengths[2:]))
    torch.testing.assert_close(alone, context[2:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_without_masks_padding_would_matter(name: str) -> None:
    """What S2 and S3 did, attending to padding, gives another context: the test above can fail."""
    attention = make(name).float()
    memory, queries = torch.randn(1, 11, M), torch.randn(1, 4, Q)
    masked, _ = attention(queries, attention.remember(memory, torch.tensor([6])))
    unmasked, _ = attention(queries, attention.remember(memory))
    assert (masked - unmasked).abs().max() > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_a_row_without_frames_gets_nothing_and_no_nan(name: str) -> None:
    attention = make(name)
    memory = torch.randn(2, 3, M, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(2, 4, Q, dtype=torch.float64, requires_grad=True)
    context, weights = attention(queries, attention.remember(memory, torch.tensor([3, 0])))
    assert context[1].eq(0).all() and weights[1].eq(0).all()
    (context.sum() + weights.square().sum()).backward()
    assert memory.grad.isfinite().all() and memory.grad[1].eq(0).all()
    assert all(p.grad.isfinite().all() for p in attention.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", KINDS)
def test_steps_one_at_a_time_are_the_steps_together(name: str) -> None:
    attention = make(name)
    memory = attention.remember(torch.randn(2, 9, M, dtype=torch.float64), torch.tensor([9, 5]))
    queries = torch.randn(2, 4, Q, dtype=torch.float64)
    together, weights = attention(queries, memory)
    previous = None
    for step in range(4):
        context, alignment = attention(queries[:, step : step + 1], memory, previous)
        previous = alignment[:, -1]
        torch.testing.assert_close(context[:, 0], together[:, step], rtol=0, atol=1e-12)
        torch.testing.assert_close(previous, weights[:, step], rtol=0, atol=1e-12)


def test_location_matters_from_the_second_step_on() -> None:
    attention = make("location")
    memory = attention.remember(torch.randn(1, 9, M, dtype=torch.float64))
    query = torch.randn(1, 1, Q, dtype=torch.float64).expand(1, 2, Q)
    _, weights = attention(query, memory)
    assert (weights[0, 0] - weights[0, 1]).abs().max() > 1e-4


def test_select_repeats_rows() -> None:
    attention = make("four heads")
    memory = attention.remember(torch.randn(2, 9, M, dtype=torch.float64), torch.tensor([9, 5]))
    rows = torch.tensor([1, 1, 0])
    queries = torch.randn(3, 1, Q, dtype=torch.float64)
    chosen = memory.select(rows)
    assert torch.equal(chosen.valid, memory.valid[rows])
    torch.testing.assert_close(
        attention(queries[2:], memory.select(rows[2:]))[0], attention(queries, chosen)[0][2:]
    )


def test_keys_are_those_of_the_lines() -> None:
    shapes = {key: list(value.shape) for key, value in LocationAwareAttention(4, 5, 7).state_dict().items()}
    assert shapes == {
        "W.weight": [7, 4],
        "V.weight": [7, 5],
        "b": [7],
        "w.weight": [1, 7],
        "loc_conv.weight": [10, 1, 3],
        "loc_conv.bias": [10],
        "U.weight": [7, 10],
    }
    assert sorted(MultiHeadAttention(4, 5, 6).state_dict()) == [
        f"{name}.{kind}" for name in ("KW", "QW", "VW") for kind in ("bias", "weight")
    ]
    assert not DotAttention().state_dict()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 8, received 3"):
        MultiHeadAttention(6, 6, 8, num_heads=3)
    with pytest.raises(ValueError, match="kernel_size: expected an odd number, received 10"):
        LocationAwareAttention(6, 6, 8, kernel_size=10)
    dot = DotAttention()
    with pytest.raises(ValueError, match=r"memory: expected \[N, T, features\], received \[3, 6\]"):
        dot.remember(torch.randn(3, 6))
    with pytest.raises(ValueError, match=r"lengths: expected shape \[2\]"):
        dot.remember(torch.randn(2, 3, 6), torch.tensor([3]))
    with pytest.raises(
        ValueError, match=r"query: expected \[N, L, 6\], the memory's size, received \[2, 1, 5\]"
    ):
        dot(torch.randn(2, 1, 5), dot.remember(torch.randn(2, 3, 6)))
