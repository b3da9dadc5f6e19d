"""MaskedBatchNorm against torch's batch norm, over all frames and over the valid ones."""

from __future__ import annotations

import pytest
import torch

from asrkern.nn import MaskedBatchNorm1d, MaskedBatchNorm2d

EXACT = {"rtol": 1e-9, "atol": 1e-10}
SHAPES = {MaskedBatchNorm1d: [(11, 3), (4, 3, 7)], MaskedBatchNorm2d: [(4, 3, 5, 7), (2, 3, 1, 1)]}
STOCK = {MaskedBatchNorm1d: torch.nn.BatchNorm1d, MaskedBatchNorm2d: torch.nn.BatchNorm2d}
CASES = [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes]


def twins(kind, **options):
    stock = STOCK[kind](3, **options).double()
    if stock.affine:
        torch.nn.init.normal_(stock.weight)
        torch.nn.init.normal_(stock.bias)
    ours = kind(3, **options).double()
    ours.load_state_dict(stock.state_dict())
    return ours, stock


@pytest.mark.parametrize(("kind", "shape"), CASES)
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None, "eps": 0.1}, {"affine": False, "momentum": 0.7}, {"track_running_stats": False}],
)
def test_without_lengths_equals_torch_over_several_steps(kind, shape, options):
    ours, stock = twins(kind, **options)
    for step in range(3):
        x = 3 * torch.randn(shape, dtype=torch.float64) + step
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        output, expected = ours(a), stock(b)
        torch.testing.assert_close(output, expected, **EXACT)
        (output**3).sum().backward()
        (expected**3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-8)
    for (name, a), (_, b) in zip(ours.state_dict().items(), stock.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=lambda m, n=name: f"{n}: {m}")
    for a, b in zip(ours.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-8)
    ours.eval(), stock.eval()
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours(x), stock(x), **EXACT)


def valid_frames(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[rows, C] of the valid frames of x: [N, C, ..., T]."""
    rows = [x[i, ..., :length].flatten(1).t() for i, length in enumerate(lengths.tolist())]
    return torch.cat(rows)


@pytest.mark.parametrize(("kind", "shape"), [CASES[1], CASES[2]])
def test_valid_stats_are_those_of_the_valid_frames(kind, shape):
    ours, _ = twins(kind)
    rows = torch.nn.BatchNorm1d(3).double()
    rows.load_state_dict(ours.state_dict())
    lengths = torch.tensor([7, 0, 2, 5])
    x = torch.randn(shape, dtype=torch.float64)
    beyond = torch.arange(7) >= lengths[:, None]
    beyond = beyond.view(4, *[1] * (len(shape) - 2), 7).expand(shape)
    x[beyond] = float("nan")
    output = ours(x, lengths)
    assert output[beyond].eq(0).all()
    torch.testing.assert_close(valid_frames(output, lengths), rows(valid_frames(x, lengths)), **EXACT)
    torch.testing.assert_close(ours.running_mean, rows.running_mean, **EXACT)
    torch.testing.assert_close(ours.running_var, rows.running_var, **EXACT)
    assert ours.num_batches_tracked == 1


def test_padded_stats_count_every_frame():
    ours = MaskedBatchNorm2d(3, stats="padded").double()
    stock = torch.nn.BatchNorm2d(3).double()
    lengths = torch.tensor([7, 0, 2, 5])
    x = torch.randn(4, 3, 5, 7, dtype=torch.float64)
    expected = stock(x).masked_fill((torch.arange(7) >= lengths[:, None])[:, None, None], 0)
    torch.testing.assert_close(ours(x, lengths), expected, **EXACT)
    torch.testing.assert_close(ours.running_var, stock.running_var, **EXACT)


@pytest.mark.parametrize("layout", ["NTC", "TNC"])
def test_layouts_agree(layout):
    lengths = torch.tensor([7, 0, 2, 5])
    x = torch.randn(4, 3, 7, dtype=torch.float64)
    axes = ["NCT".index(axis) for axis in layout]
    expected = MaskedBatchNorm1d(3).double()(x, lengths).permute(axes)
    torch.testing.assert_close(
        MaskedBatchNorm1d(3, layout=layout).double()(x.permute(axes), lengths), expected, **EXACT
    )


@pytest.mark.parametrize("activation", [(0.0, 20.0), (-0.5, 0.25), (0.0, float("inf"))])
@pytest.mark.parametrize("training", [False, True])
def test_activation_clamps(activation, training):
    ours = MaskedBatchNorm2d(3, activation=activation).double().train(training)
    stock = torch.nn.BatchNorm2d(3).double().train(training)
    x = torch.randn(4, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), stock(x).clamp(*activation), **EXACT)


def test_one_value_per_channel_raises():
    with pytest.raises(ValueError, match="more than 1 value per channel when training, received 1"):
        MaskedBatchNorm1d(3)(torch.randn(1, 3))
    norm = MaskedBatchNorm1d(3)
    with pytest.raises(ValueError, match=r"more than 1 value per channel.*received 1 .*lengths \[0, 1\]"):
        norm(torch.randn(2, 3, 5), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="more than 1 value per channel when training, received 0"):
        norm(torch.randn(2, 3, 5), torch.tensor([0, 0]))
    assert torch.equal(norm.running_var, torch.ones(3))
    norm.eval()(torch.randn(2, 3, 5), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaskedBatchNorm1d(3, stats="all"), "stats.*'all'"),
        (lambda: MaskedBatchNorm2d(3, activation=(1.0, 0.0)), "activation"),
        (lambda: MaskedBatchNorm1d(3, layout="CNT"), "layout.*'CNT'"),
        (lambda: MaskedBatchNorm1d(3)(torch.zeros(5, 4)), r"input: expected 3 channels.*\[5, 4\]"),
        (lambda: MaskedBatchNorm1d(3)(torch.zeros(5, 3), torch.ones(5).long()), "lengths: expected None"),
        (lambda: MaskedBatchNorm2d(3)(torch.zeros(5, 3, 4)), "4D"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_is_torch_batch_norm_with_its_keys():
    assert isinstance(MaskedBatchNorm1d(3), torch.nn.BatchNorm1d)
    assert list(MaskedBatchNorm2d(3).state_dict()) == list(torch.nn.BatchNorm2d(3).state_dict())
