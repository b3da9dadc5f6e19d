"""The tests of a drop-in recurrent layer; a subclass says which."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def assert_same_gradients(ours: torch.nn.Module, stock: torch.nn.Module) -> None:
    for (name, a), (_, b) in zip(ours.named_parameters(), stock.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


class _Through(Dataset):
    def __init__(self, layer: torch.nn.Module, items: torch.Tensor) -> None:
        self.layer, self.items = layer, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.layer(self.items[index])[0]


class RecurrentTests:
    """ours, stock: the two classes; states: how many tensors their hx has."""

    ours: type
    stock: type
    states: int

    def twins(self, *args, dtype=torch.float64, **options):
        """The layer under test and torch's, with the same weights."""
        merge = {"merge": options.pop("merge")} if "merge" in options else {}
        stock = self.stock(*args, **options).to(dtype)
        ours = self.ours(*args, **options, **merge).to(dtype)
        ours.load_state_dict(stock.state_dict())
        return ours, stock

    def hx(self, states):
        """A list of tensors as the layer takes and returns them."""
        return tuple(states) if self.states > 1 else states[0]

    def tensors(self, hx):
        """The other way round."""
        return list(hx) if self.states > 1 else [hx]

    def random_states(self, *shape, **options):
        return [torch.randn(*shape, dtype=torch.float64, **options) for _ in range(self.states)]

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
    def test_padded_batch_equals_torch(self, steps, batch, hidden, layers, bidirectional, bias, batch_first):
        ours, stock = self.twins(
            3, hidden, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional
        )
        shape = (batch, steps, 3) if batch_first else (steps, batch, 3)
        x = torch.randn(shape, dtype=torch.float64)
        states = self.random_states(layers * (1 + bidirectional), batch, hidden)
        results = []
        for module in (ours, stock):
            inputs = [t.clone().requires_grad_() for t in (x, *states)]
            output, finals = module(inputs[0], self.hx(inputs[1:]))
            finals = self.tensors(finals)
            weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
            loss = (output * weights).sum() + sum((i + 1) * (f**2).sum() for i, f in enumerate(finals))
            loss.backward()
            results.append((output, *finals, *(i.grad for i in inputs)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, **EXACT)
        assert_same_gradients(ours, stock)

    def test_without_hx_equals_torch_in_fp32(self):
        ours, stock = self.twins(13, 31, 2, bidirectional=True, dtype=torch.float32)
        x = torch.randn(29, 4, 13)
        for a, b in zip(ours(x), stock(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_lengths_equal_torch_row_by_row(self, batch_first):
        ours, stock = self.twins(4, 5, 2, batch_first=batch_first, bidirectional=True)
        lengths = torch.tensor([3, 0, 11, 1, 7])
        x = torch.randn(11, 5, 4, dtype=torch.float64)
        states = self.random_states(4, 5, 5)
        output, finals = ours(x.transpose(0, 1) if batch_first else x, self.hx(states), lengths=lengths)
        output = output.transpose(0, 1) if batch_first else output
        for i, length in enumerate(lengths.tolist()):
            assert output[length:, i].eq(0).all()
            expected_finals = self.hx([s[:, i : i + 1].contiguous() for s in states])
            if length:
                row = x[:length, i : i + 1]
                expected, expected_finals = stock(
                    row.transpose(0, 1) if batch_first else row, expected_finals
                )
                expected = expected.transpose(0, 1) if batch_first else expected
                torch.testing.assert_close(output[:length, i], expected[:, 0], **EXACT)
            for final, wanted in zip(self.tensors(finals), self.tensors(expected_finals), strict=True):
                torch.testing.assert_close(final[:, i : i + 1], wanted, **EXACT)

    def test_gradients_with_lengths_equal_torch_packed(self):
        ours, stock = self.twins(4, 5, 2, bidirectional=True)
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
    def test_packed_sequence_equals_torch(self, enforce_sorted, with_hx):
        ours, stock = self.twins(4, 5, 3, bidirectional=True)
        lengths = torch.tensor([9, 4, 4, 1] if enforce_sorted else [4, 1, 9, 4])
        x = torch.randn(9, 4, 4, dtype=torch.float64)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        hx = self.hx(self.random_states(6, 4, 5)) if with_hx else None
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
    def test_unbatched_equals_torch(self, batch_first, with_hx):
        ours, stock = self.twins(4, 5, 2, batch_first=batch_first, bidirectional=True)
        x = torch.randn(6, 4, dtype=torch.float64)
        hx = self.hx(self.random_states(4, 5)) if with_hx else None
        for a, b in zip(ours(x, hx), stock(x, hx), strict=True):
            torch.testing.assert_close(a, b, **EXACT)

    def test_non_contiguous_input_and_state(self):
        ours, stock = self.twins(4, 5, bidirectional=True)
        x = torch.randn(4, 7, 6, dtype=torch.float64).permute(2, 1, 0)
        hx = self.hx([s.permute(1, 2, 0) for s in self.random_states(5, 2, 7)])
        for a, b in zip(ours(x, hx), stock(x, hx), strict=True):
            torch.testing.assert_close(a, b, **EXACT)

    def test_merge_sum_adds_the_directions(self):
        ours, stock = self.twins(4, 5, 2, bidirectional=True, merge="sum")
        x = torch.randn(6, 3, 4, dtype=torch.float64)
        lengths = torch.tensor([6, 2, 5])
        output, h_n = ours(x, lengths=lengths)
        packed, expected_h = stock(pack_padded_sequence(x, lengths, enforce_sorted=False))
        expected = pad_packed_sequence(packed)[0].unflatten(-1, (2, 5)).sum(2)
        torch.testing.assert_close(output, expected, **EXACT)
        torch.testing.assert_close(h_n, expected_h, **EXACT)

    def test_merge_sum_of_one_direction_is_that_direction(self):
        ours, stock = self.twins(4, 5, merge="sum")
        x = torch.randn(6, 3, 4, dtype=torch.float64)
        torch.testing.assert_close(ours(x)[0], stock(x)[0], **EXACT)

    def test_is_torchs_layer_with_its_keys(self):
        ours, stock = self.twins(4, 5, 2, bias=False, bidirectional=True)
        assert isinstance(ours, self.stock)
        assert list(ours.state_dict()) == list(stock.state_dict())
        stock.load_state_dict(ours.state_dict())
        ours.flatten_parameters()
        assert repr(ours) == repr(stock)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_compute_the_same_and_share_nothing(self, clone):
        ours, _ = self.twins(4, 5, 2, bidirectional=True, merge="sum")
        twin = clone(ours)
        x = torch.randn(6, 3, 4, dtype=torch.float64)
        assert torch.equal(twin(x)[0], ours(x)[0])
        with torch.no_grad():
            twin.weight_hh_l1_reverse.add_(1)
        assert not torch.equal(twin(x)[0], ours(x)[0])

    def test_saves_and_loads_whole(self):
        ours, _ = self.twins(4, 5)
        buffer = io.BytesIO()
        torch.save(ours, buffer)
        buffer.seek(0)
        x = torch.randn(6, 3, 4, dtype=torch.float64)
        assert torch.equal(torch.load(buffer, weights_only=False)(x)[0], ours(x)[0])

    def test_functional_call_uses_the_weights_given(self):
        ours, stock = self.twins(4, 5)
        weights = {name: torch.randn_like(p) for name, p in ours.named_parameters()}
        x = torch.randn(6, 3, 4, dtype=torch.float64)
        got = torch.func.functional_call(ours, weights, (x,))[0]
        stock.load_state_dict(weights)
        torch.testing.assert_close(got, stock(x)[0], **EXACT)

    @pytest.mark.parametrize("train", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_a_batch_of_no_rows_equals_torch(self, batch_first, train):
        ours = self.ours(4, 5, 2, bidirectional=True, batch_first=batch_first).train(train)
        stock = self.stock(4, 5, 2, bidirectional=True, batch_first=batch_first).train(train)
        x = torch.zeros((0, 3, 4) if batch_first else (3, 0, 4), requires_grad=True)
        hx = self.hx([torch.zeros(4, 0, 5)] * self.states)
        expected, states = stock(x, hx)
        for arguments in ((x,), (x, hx), (x, hx, torch.zeros(0, dtype=torch.int64))):
            output, finals = ours(*arguments)
            assert output.shape == expected.shape
            assert [s.shape for s in self.tensors(finals)] == [s.shape for s in self.tensors(states)]
        output.sum().backward()
        assert x.grad.shape == x.shape
        assert all(not p.grad.any() for p in ours.parameters())

    def test_dropout_falls_between_layers_only(self):
        ours, stock = self.twins(4, 50, 3, dropout=0.4)
        x = torch.randn(20, 5, 4, dtype=torch.float64)
        torch.manual_seed(7)
        a = ours(x)[0]
        torch.manual_seed(7)
        b = stock(x)[0]
        torch.testing.assert_close(a, b, **EXACT)
        assert a.ne(0).all()
        ours.eval(), stock.eval()
        torch.testing.assert_close(ours(x)[0], stock(x)[0], **EXACT)

    def test_dropout_keeps_its_share_and_the_scale(self, monkeypatch):
        seen = []
        dropout = torch.nn.functional.dropout

        def record(x, p, training):
            y = dropout(x, p, training)
            seen.append((x, y))
            return y

        monkeypatch.setattr(torch.nn.functional, "dropout", record)
        ours, _ = self.twins(4, 64, 2, dropout=0.3)
        ours(torch.randn(50, 8, 4, dtype=torch.float64))
        ((x, y),) = seen
        kept = y.ne(0)
        assert abs(kept.double().mean().item() - 0.7) < 0.015  # 5 standard deviations of 25600 draws
        torch.testing.assert_close(y[kept], x[kept] / 0.7, **EXACT)

    def test_works_in_forked_workers_after_use_in_the_parent(self):
        ours, stock = self.twins(4, 5, batch_first=True, dtype=torch.float32)
        items = torch.randn(6, 9, 4)
        ours(items)
        loader = DataLoader(
            _Through(ours, items), batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        got = torch.cat(list(loader))
        torch.testing.assert_close(got, stock(items)[0].detach(), rtol=1e-5, atol=2e-6)

    def test_double_backward_raises(self):
        ours, _ = self.twins(4, 5)
        x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"(?i)second|double|twice"):
            gradient.sum().backward()

    @pytest.mark.parametrize(
        ("input", "hx", "lengths", "message"),
        [
            ((6, 3, 5), None, None, r"input: expected 4 features.*\[6, 3, 5\]"),
            ((6, 3, 4, 1), None, None, r"input: expected 3 dimensions.*\[6, 3, 4, 1\]"),
            ((6, 3, 4), (2, 3, 5), None, r"hx(\[0\])?: expected shape \[1, 3, 5\], received \[2, 3, 5\]"),
            ((6, 3, 4), (1, 5), None, r"hx(\[0\])?: expected 3 dimensions"),
            ((6, 4), (1, 1, 5), None, r"hx(\[0\])?: expected 2 dimensions"),
            ((6, 4), None, [6], "lengths: expected None with unbatched"),
            ((6, 3, 4), None, [6, 7, 1], "lengths"),
            ((6, 3, 4), None, [6, 1], "lengths"),
        ],
    )
    def test_bad_arguments_are_named(self, input, hx, lengths, message):
        hx = hx and self.hx([torch.zeros(hx)] * self.states)
        with pytest.raises(ValueError, match=message):
            self.ours(4, 5)(torch.zeros(input), hx, lengths=lengths and torch.tensor(lengths))

    def test_hx_of_another_kind_of_layer_is_refused(self):
        other = torch.zeros(1, 3, 5) if self.states > 1 else (torch.zeros(1, 3, 5),) * 2
        with pytest.raises(ValueError, match=r"hx: expected a .*received a"):
            self.ours(4, 5)(torch.zeros(6, 3, 4), other)

    def test_lengths_with_packed_input_are_refused(self):
        packed = pack_padded_sequence(torch.zeros(3, 2, 4), torch.tensor([3, 1]))
        with pytest.raises(ValueError, match="lengths: expected None with a PackedSequence"):
            self.ours(4, 5)(packed, lengths=torch.tensor([3, 1]))
        with pytest.raises(ValueError, match=r"hx(\[0\])?: expected shape \[1, 2, 5\], received \[1, 3, 5\]"):
            self.ours(4, 5)(packed, self.hx([torch.zeros(1, 3, 5)] * self.states))

    def test_unknown_merge_is_refused(self):
        with pytest.raises(ValueError, match=r"merge.*'mul'"):
            self.ours(4, 5, merge="mul")
