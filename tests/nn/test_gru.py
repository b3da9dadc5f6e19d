from __future__ import annotations

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

from asrkern.nn import GRU

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def twins(*args, dtype=torch.float64, **options) -> tuple[GRU, torch.nn.GRU]:
    """The layer under test and torch's, with the same weights."""
    merge = {"merge": options.pop("merge")} if "merge" in options else {}
    stock = torch.nn.GRU(*args, **options).to(dtype)
    ours = GRU(*args, **options, **merge).to(dtype)
    ours.load_state_dict(stock.state_dict())
    return ours, stock


def assert_same_gradients(ours: torch.nn.Module, stock: torch.nn.Module) -> None:
    for (name, a), (_, b) in zip(ours.named_parameters(), stock.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("steps", "batch", "hidden", "layers", "bidirectional", "bias", "batch_first"),
    [
        (1, 1, 1, 1, False, True, False),
        (1, 7, 5, 2, True, False, True),
        (63, 1, 5, 1, True, True, True),
        (63, 7, 1, 2, False, False, False),
        (17, 7, 5, 3, True, True, False),
        (17, 3, 37, 1, False, False, True),
    ],
)
def test_padded_batch_equals_torch(steps, batch, hidden, layers, bidirectional, bias, batch_first):
    ours, stock = twins(3, hidden, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
    shape = (batch, steps, 3) if batch_first else (steps, batch, 3)
    x = torch.randn(shape, dtype=torch.float64)
    h0 = torch.randn(layers * (1 + bidirectional), batch, hidden, dtype=torch.float64)
    results = []
    for module in (ours, stock):
        inputs = [x.clone().requires_grad_(), h0.clone().requires_grad_()]
        output, h_n = module(*inputs)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        ((output * weights).sum() + (h_n**2).sum()).backward()
        results.append((output, h_n, *(i.grad for i in inputs)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert_same_gradients(ours, stock)


def test_without_hx_equals_torch_in_fp32():
    ours, stock = twins(13, 31, 2, bidirectional=True, dtype=torch.float32)
    x = torch.randn(29, 4, 13)
    for a, b in zip(ours(x), stock(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_equal_torch_row_by_row(batch_first):
    ours, stock = twins(4, 5, 2, batch_first=batch_first, bidirectional=True)
    lengths = torch.tensor([3, 0, 11, 1, 7])
    x = torch.randn(11, 5, 4, dtype=torch.float64)
    h0 = torch.randn(4, 5, 5, dtype=torch.float64)
    output, h_n = ours(x.transpose(0, 1) if batch_first else x, h0, lengths=lengths)
    output = output.transpose(0, 1) if batch_first else output
    for i, length in enumerate(lengths.tolist()):
        assert output[length:, i].eq(0).all()
        expected_h = h0[:, i : i + 1]
        if length:
            row = x[:length, i : i + 1]
            expected, expected_h = stock(row.transpose(0, 1) if batch_first else row, expected_h.contiguous())
            expected = expected.transpose(0, 1) if batch_first else expected
            torch.testing.assert_close(output[:length, i], expected[:, 0], **EXACT)
        torch.testing.assert_close(h_n[:, i : i + 1], expected_h, **EXACT)


def test_gradients_with_lengths_equal_torch_packed():
    ours, stock = twins(4, 5, 2, bidirectional=True)
    lengths = torch.tensor([3, 11, 1, 7])
    x = torch.randn(11, 4, 4, dtype=torch.float64)
    weights = torch.randn(11, 4, 10, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(a, lengths=lengths)[0] * weights).sum().backward()
    packed, _ = stock(pack_padded_sequence(b, lengths, enforce_sorted=False))
    (pad_packed_sequence(packed)[0] * weights).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, **EXACT)
    assert_same_gradients(ours, stock)


@pytest.mark.parametrize(("enforce_sorted", "with_hx"), list(itertools.product([False, True], repeat=2)))
def test_packed_sequence_equals_torch(enforce_sorted, with_hx):
    ours, stock = twins(4, 5, 3, bidirectional=True)
    lengths = torch.tensor([9, 4, 4, 1] if enforce_sorted else [4, 1, 9, 4])
    x = torch.randn(9, 4, 4, dtype=torch.float64)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    hx = torch.randn(6, 4, 5, dtype=torch.float64) if with_hx else None
    (a, h_a), (b, h_b) = ours(packed, hx), stock(packed, hx)
    assert type(a) is type(b)
    torch.testing.assert_close(a.data, b.data, **EXACT)
    torch.testing.assert_close(h_a, h_b, **EXACT)
    assert torch.equal(a.batch_sizes, b.batch_sizes)
    if not enforce_sorted:
        assert torch.equal(a.sorted_indices, b.sorted_indices)
        assert torch.equal(a.unsorted_indices, b.unsorted_indices)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_hx", [False, True])
def test_unbatched_equals_torch(batch_first, with_hx):
    ours, stock = twins(4, 5, 2, batch_first=batch_first, bidirectional=True)
    x = torch.randn(6, 4, dtype=torch.float64)
    hx = torch.randn(4, 5, dtype=torch.float64) if with_hx else None
    for a, b in zip(ours(x, hx), stock(x, hx), strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, **EXACT)


def test_non_contiguous_input_and_state():
    ours, stock = twins(4, 5, bidirectional=True)
    x = torch.randn(4, 7, 6, dtype=torch.float64).permute(2, 1, 0)
    hx = torch.randn(5, 2, 7, dtype=torch.float64).permute(1, 2, 0)
    for a, b in zip(ours(x, hx), stock(x, hx), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_merge_sum_adds_the_directions():
    ours, stock = twins(4, 5, 2, bidirectional=True, merge="sum")
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    lengths = torch.tensor([6, 2, 5])
    output, h_n = ours(x, lengths=lengths)
    packed, expected_h = stock(pack_padded_sequence(x, lengths, enforce_sorted=False))
    expected = pad_packed_sequence(packed)[0].unflatten(-1, (2, 5)).sum(2)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(h_n, expected_h, **EXACT)


def test_merge_sum_of_one_direction_is_that_direction():
    ours, stock = twins(4, 5, merge="sum")
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], stock(x)[0], **EXACT)


def test_is_torch_gru_with_its_keys():
    ours, stock = twins(4, 5, 2, bias=False, bidirectional=True)
    assert isinstance(ours, torch.nn.GRU)
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    ours.flatten_parameters()
    assert repr(ours) == repr(stock)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same_and_share_nothing(clone):
    ours, _ = twins(4, 5, 2, bidirectional=True, merge="sum")
    twin = clone(ours)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    assert torch.equal(twin(x)[0], ours(x)[0])
    with torch.no_grad():
        twin.weight_hh_l1_reverse.add_(1)
    assert not torch.equal(twin(x)[0], ours(x)[0])


def test_saves_and_loads_whole():
    ours, _ = twins(4, 5)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    assert torch.equal(torch.load(buffer, weights_only=False)(x)[0], ours(x)[0])


def test_functional_call_uses_the_weights_given():
    ours, stock = twins(4, 5)
    weights = {name: torch.randn_like(p) for name, p in ours.named_parameters()}
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    got = torch.func.functional_call(ours, weights, (x,))[0]
    stock.load_state_dict(weights)
    torch.testing.assert_close(got, stock(x)[0], **EXACT)


def test_dropout_falls_between_layers_only():
    ours, stock = twins(4, 50, 3, dropout=0.4)
    x = torch.randn(20, 5, 4, dtype=torch.float64)
    torch.manual_seed(7)
    a = ours(x)[0]
    torch.manual_seed(7)
    b = stock(x)[0]
    torch.testing.assert_close(a, b, **EXACT)
    assert a.ne(0).all()
    ours.eval(), stock.eval()
    torch.testing.assert_close(ours(x)[0], stock(x)[0], **EXACT)


def test_dropout_keeps_its_share_and_the_scale(monkeypatch):
    seen = []
    dropout = torch.nn.functional.dropout

    def record(x, p, training):
        y = dropout(x, p, training)
        seen.append((x, y))
        return y

    monkeypatch.setattr(torch.nn.functional, "dropout", record)
    ours, _ = twins(4, 64, 2, dropout=0.3)
    ours(torch.randn(50, 8, 4, dtype=torch.float64))
    ((x, y),) = seen
    kept = y.ne(0)
    assert abs(kept.double().mean().item() - 0.7) < 0.015  # 5 standard deviations of 25600 draws
    torch.testing.assert_close(y[kept], x[kept] / 0.7, **EXACT)


class _ThroughGRU(Dataset):
    def __init__(self, gru: GRU, items: torch.Tensor) -> None:
        self.gru, self.items = gru, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.gru(self.items[index])[0]


def test_works_in_forked_workers_after_use_in_the_parent():
    ours, stock = twins(4, 5, batch_first=True, dtype=torch.float32)
    items = torch.randn(6, 9, 4)
    ours(items)
    loader = DataLoader(
        _ThroughGRU(ours, items), batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    got = torch.cat(list(loader))
    torch.testing.assert_close(got, stock(items)[0].detach(), rtol=1e-5, atol=2e-6)


def test_double_backward_raises():
    ours, _ = twins(4, 5)
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"(?i)second|double|twice"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(6, 3, 5),), {}, r"input: expected 4 features.*\[6, 3, 5\]"),
        ((torch.zeros(6, 3, 4, 1),), {}, r"input: expected 3 dimensions.*\[6, 3, 4, 1\]"),
        (
            (torch.zeros(6, 3, 4), torch.zeros(2, 3, 5)),
            {},
            r"hx: expected shape \[1, 3, 5\], received \[2, 3, 5\]",
        ),
        ((torch.zeros(6, 3, 4), torch.zeros(1, 5)), {}, r"hx: expected 3 dimensions"),
        ((torch.zeros(6, 4), torch.zeros(1, 1, 5)), {}, r"hx: expected 2 dimensions"),
        ((torch.zeros(6, 4),), {"lengths": torch.tensor([6])}, "lengths: expected None with unbatched"),
        ((torch.zeros(6, 3, 4),), {"lengths": torch.tensor([6, 7, 1])}, "lengths"),
        ((torch.zeros(6, 3, 4),), {"lengths": torch.tensor([6, 1])}, "lengths"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        GRU(4, 5)(*arguments, **options)


def test_lengths_with_packed_input_are_refused():
    packed = pack_padded_sequence(torch.zeros(3, 2, 4), torch.tensor([3, 1]))
    with pytest.raises(ValueError, match="lengths: expected None with a PackedSequence"):
        GRU(4, 5)(packed, lengths=torch.tensor([3, 1]))
    with pytest.raises(ValueError, match=r"hx: expected shape \[1, 2, 5\], received \[1, 3, 5\]"):
        GRU(4, 5)(packed, torch.zeros(1, 3, 5))


def test_unknown_merge_is_refused():
    with pytest.raises(ValueError, match=r"merge.*'mul'"):
        GRU(4, 5, merge="mul")
