"""SequenceWise against its module over all rows, and over the valid frames."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from asrkern.nn import MaskedBatchNorm1d, SequenceWise

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(5),
        nn.Linear(5, 3, bias=False),
        nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)),
        nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)),
    ],
)
def test_without_lengths_is_the_module_over_all_rows(module, training):
    module = module.double().train(training)
    ours = SequenceWise(copy.deepcopy(module)).train(training)
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    output, expected = ours(a), module(b.flatten(0, 1)).unflatten(0, (7, 3))
    torch.testing.assert_close(output, expected, **CLOSE)
    (output**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-8)
    for (name, p), q in zip(ours.state_dict().items(), module.state_dict().values(), strict=True):
        assert name.startswith("module.")
        torch.testing.assert_close(p, q, **CLOSE)


def test_with_lengths_counts_and_keeps_valid_frames_only():
    ours = SequenceWise(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))).double()
    rows = copy.deepcopy(ours.module)
    lengths = torch.tensor([7, 0, 4])
    valid = torch.arange(7)[:, None] < lengths
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    x[~valid] = float("nan")
    output = ours(x, lengths)
    torch.testing.assert_close(output[valid], rows(x[valid]), **CLOSE)
    assert output[~valid].eq(0).all()
    torch.testing.assert_close(ours.module[0].running_var, rows[0].running_var, **CLOSE)


def test_padded_stats_count_all_frames():
    ours = SequenceWise(nn.BatchNorm1d(5), stats="padded").double()
    plain = SequenceWise(nn.BatchNorm1d(5)).double()
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    lengths = torch.tensor([7, 0, 4])
    torch.testing.assert_close(ours(x, lengths)[:, 0], plain(x)[:, 0], **CLOSE)
    torch.testing.assert_close(ours.module.running_mean, plain.module.running_mean, **CLOSE)


def test_masked_batch_norm_inside_brings_its_own_options():
    ours = SequenceWise(MaskedBatchNorm1d(5, activation=(0.0, 0.5))).double()
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    lengths = torch.tensor([7, 0, 4])
    plain = SequenceWise(nn.BatchNorm1d(5)).double()
    torch.testing.assert_close(ours(x, lengths), plain(x, lengths).clamp(0, 0.5), **CLOSE)


def test_features_over_several_axes_and_strided_input():
    ours = SequenceWise(nn.Linear(6, 2)).double()
    x = torch.randn(3, 7, 3, 2, dtype=torch.float64).transpose(0, 1)
    expected = torch.nn.functional.linear(x.flatten(2), ours.module.weight, ours.module.bias)
    torch.testing.assert_close(ours(x), expected, **CLOSE)


def test_replaced_forwards_inside_run():
    ours, x = SequenceWise(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))).eval(), torch.randn(4, 2, 5)
    ours.module[1].forward = lambda x: x[:, :3] * 0 + 7
    assert (ours(x) == 7).all()
    ours.module[0].forward = lambda x: x * torch.nan
    assert ours(x).isnan().all()


def test_hooks_inside_still_run():
    ours = SequenceWise(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))).eval()
    x = torch.randn(7, 3, 5)
    seen = []
    ours.module[1].register_forward_hook(lambda *_: seen.append("linear"))
    ours.module.register_forward_hook(lambda *_: seen.append("stack"))
    ours(x)
    assert seen == ["linear", "stack"]


def test_bad_arguments_are_named():
    ours = SequenceWise(nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"x: expected \[T, N, H\], received \[7, 5\]"):
        ours(torch.zeros(7, 5))
    with pytest.raises(ValueError, match=r"lengths: expected shape \[3\], received \[2\]"):
        ours(torch.zeros(7, 3, 5), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"stats.*'x'"):
        SequenceWise(nn.Linear(5, 3), stats="x")
