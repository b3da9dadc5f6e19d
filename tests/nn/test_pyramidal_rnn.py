"""asrkern.nn.PyramidalRNN and stack_frames against torch's layers, one unpadded row at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asrkern.nn import GRU, LSTM, PyramidalRNN, stack_frames
from tests.compare import assert_close, assert_same_bits


def stack_row(row: Tensor, factor: int, remainder: str) -> Tensor:
    """[L, C] → [L', factor * C], frame by frame."""
    frames = [*row.unbind()]
    if remainder == "pad":
        frames += [torch.zeros_like(row[0])] * (-len(frames) % factor)
    groups = [frames[i : i + factor] for i in range(0, len(frames) - factor + 1, factor)]
    return (
        torch.stack([torch.cat(group) for group in groups])
        if groups
        else row.new_zeros(0, factor * row.shape[1])
    )


def padded(rows: list[Tensor], frames: int) -> Tensor:
    """[N, frames, C] with NaN beyond each row."""
    batch = torch.full((len(rows), frames, rows[0].shape[1]), float("nan"), dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    return batch


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_stack_frames_is_that_of_each_row(factor: int, remainder: str, extra: int) -> None:
    lengths = [7, 1, 0, 6, 5, 3]
    rows = [torch.randn(length, 4) for length in lengths]
    output, output_lengths = stack_frames(
        padded(rows, 7 + extra), torch.tensor(lengths), factor, remainder=remainder
    )
    frames = -(-(7 + extra) // factor) if remainder == "pad" else (7 + extra) // factor
    assert output.shape == (6, frames, 4 * factor)
    for got, length, row in zip(output, output_lengths.tolist(), rows):
        expected = stack_row(row, factor, remainder) if len(row) else row.new_zeros(0, 4 * factor)
        assert length == len(expected)
        assert torch.equal(got[:length], expected)
        assert not got[length:].any()


def test_stack_frames_without_lengths() -> None:
    x = torch.randn(2, 5, 3)
    output, lengths = stack_frames(x)
    assert lengths is None
    assert torch.equal(output[0], stack_row(x[0], 2, "pad"))
    assert torch.equal(stack_frames(x, remainder="drop")[0][1], stack_row(x[1], 2, "drop"))


def test_lengths_do_not_depend_on_the_batch() -> None:
    """HW4P2 clamps lengths to half of the longest, KoSpeech has none: 5 of 16 frames must become 3, not 5."""
    _, lengths = stack_frames(torch.zeros(3, 16, 2), torch.tensor([16, 5, 9], dtype=torch.int32))
    assert lengths.tolist() == [8, 3, 5]
    assert lengths.dtype == torch.int64
    _, alone = stack_frames(torch.zeros(1, 5, 2), torch.tensor([5]))
    assert alone.tolist() == [3]


KINDS = [(LSTM, nn.LSTM), (GRU, nn.GRU)]


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("kind", "stock"), KINDS)
def test_each_row_is_torchs_layer_on_its_stacked_frames(kind, stock, bidirectional, remainder) -> None:
    ours = PyramidalRNN(5, 6, 2, kind, bidirectional, remainder=remainder).double()
    reference = stock(10, 6, 2, batch_first=True, bidirectional=bidirectional).double()
    reference.load_state_dict(ours.rnn.state_dict())
    lengths = [9, 2, 7, 4]
    rows = [torch.randn(length, 5, dtype=torch.float64, requires_grad=True) for length in lengths]
    output, output_lengths = ours(padded(rows, 11), torch.tensor(lengths))
    expected = [reference(stack_row(row, 2, remainder)[None])[0][0] for row in rows]
    assert output_lengths.tolist() == [len(y) for y in expected]
    assert output.shape == (4, 6 if remainder == "pad" else 5, 12 if bidirectional else 6)
    for got, y in zip(output, expected):
        torch.testing.assert_close(got[: len(y)], y, rtol=0, atol=1e-12)
        assert not got[len(y) :].any()
    scale = torch.randn_like(output)
    (output * scale).sum().backward()
    gradients = {name: p.grad for name, p in ours.rnn.named_parameters()}
    of_rows = [row.grad.clone() for row in rows]
    for row in rows:
        row.grad = None
    sum((y * s[: len(y)]).sum() for y, s in zip(expected, scale)).backward()
    for name, p in reference.named_parameters():
        assert_close(gradients[name], p.grad, 1e-10, name)
    for row, gradient in zip(rows, of_rows):
        assert_close(gradient, row.grad, 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize(("kind", "_"), KINDS)
def test_three_levels_are_bit_for_bit_independent_of_the_batch(kind, _, remainder) -> None:
    sizes = [(13, 17), (34, 17), (34, 17)]
    levels = [PyramidalRNN(*size, rnn_type=kind, remainder=remainder).eval() for size in sizes]

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for level in levels:
            x, lengths = level(x, lengths)
        return x, lengths

    lengths = [41, 9, 33, 8, 40, 23, 47]
    rows = [torch.randn(length, 13) for length in lengths]
    alone = [run(row[None], torch.tensor([len(row)])) for row in rows]
    for size in (2, 3, 7):
        chosen = torch.randperm(7)[:size].tolist()
        frames = max(lengths[i] for i in chosen) + size
        output, output_lengths = run(padded([rows[i] for i in chosen], frames), torch.tensor(lengths)[chosen])
        for position, i in enumerate(chosen):
            length = int(alone[i][1])
            assert output_lengths[position] == length
            assert_same_bits(output[position, :length], alone[i][0][0])
            assert not output[position, length:].any()


def test_keys_and_types() -> None:
    assert type(PyramidalRNN(3, 4, rnn_type=nn.GRU).rnn) is GRU
    layer = PyramidalRNN(3, 4, 2, nn.LSTM, factor=3)
    assert type(layer.rnn) is LSTM
    assert {key: value.shape for key, value in layer.state_dict().items()} == {
        f"rnn.{key}": value.shape for key, value in nn.LSTM(9, 4, 2, bidirectional=True).state_dict().items()
    }
    assert "factor=3, remainder=pad" in repr(layer)


def test_compiles_whole() -> None:
    layer = PyramidalRNN(3, 4, rnn_type=GRU).eval()
    x, lengths = torch.randn(2, 7, 3), torch.tensor([7, 4])
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, lengths)[0], layer(x, lengths)[0])


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 5), [5, 5], r"input: expected \[N, T, C\], received \[2, 5\]"),
        ((2, 5, 3), [5, 6], r"lengths: expected 0 to 5 \(T\), received 5 to 6"),
        ((2, 5, 3), [-1, 5], r"lengths: expected 0 to 5 \(T\), received -1 to 5"),
        ((2, 5, 3), [5], r"lengths: expected shape \[2\]"),
        ((2, 5, 4), [5, 5], "input: expected 6 features"),
    ],
)
def test_bad_input_is_named(shape, lengths, message) -> None:
    with pytest.raises(ValueError, match=message):
        PyramidalRNN(3, 4)(torch.randn(shape), torch.tensor(lengths))


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="factor: expected at least 1, received 0"):
        PyramidalRNN(3, 4, factor=0)
    with pytest.raises(ValueError, match=r"remainder: expected .*received 'ceil'"):
        stack_frames(torch.zeros(1, 2, 3), remainder="ceil")
    with pytest.raises(TypeError, match="rnn_type: expected a class"):
        PyramidalRNN(3, 4, rnn_type=nn.RNN)
