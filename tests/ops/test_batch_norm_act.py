"""batch_norm_act against the reference, with gradients; what padding holds does not matter."""

import pytest
import torch

from asrkern import ops, reference
from tests.compare import assert_close, assert_same_bits

HARDTANH = (0.0, 20.0)
SHAPES = {"RC": (23, 37), "NTC": (5, 9, 37), "TNC": (9, 5, 37), "NCT": (5, 37, 9), "NCFT": (5, 37, 4, 9)}


def make(layout, dtype=torch.float32, channels=None):
    """input, weight, bias, running_mean, running_var, lengths; the first three want gradients."""
    shape = list(SHAPES[layout])
    channel = layout.index("C")
    shape[channel] = channels or shape[channel]
    c = shape[channel]
    # A mean far from 0 shows statistics that cancel.
    x = (torch.randn(shape, dtype=dtype) * 2 + 5).requires_grad_()
    weight, bias = (torch.randn(c, dtype=dtype, requires_grad=True) for _ in range(2))
    lengths = None if layout == "RC" else torch.tensor([9, 0, 4, 7, 1])
    return x, weight, bias, torch.randn(c, dtype=dtype), torch.rand(c, dtype=dtype) + 0.5, lengths


def double(tensors):
    return [t.detach().double().requires_grad_(t.requires_grad) if t is not None and t.is_floating_point() else t
            for t in tensors]  # fmt: skip


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stats", ["valid", "padded"])
@pytest.mark.parametrize("activation", [None, HARDTANH, (0.0, float("inf"))])
def test_equals_reference(layout, training, stats, activation):
    tensors = make(layout)
    options = dict(layout=layout, training=training, stats=stats, activation=activation)
    result = ops.batch_norm_act(*tensors, **options)
    doubles = double(tensors)
    expected = reference.batch_norm_act(*doubles, **options)
    for name, actual, wanted in zip(result._fields[:3], result, expected):
        assert_close(actual, wanted, 1e-5, name)
    assert result.count == expected[3]
    seed = torch.randn_like(result.output)
    grads = torch.autograd.grad(result.output, tensors[:3], seed)
    for name, grad, wanted in zip(
        ("input", "weight", "bias"), grads, torch.autograd.grad(expected[0], doubles[:3], seed.double())
    ):
        assert_close(grad, wanted, 1e-4, f"gradient of {name}")


@pytest.mark.parametrize("layout", ["NTC", "NCFT"])
@pytest.mark.parametrize("channels", [1, 5, 500])
def test_awkward_channels(layout, channels):
    tensors = make(layout, channels=channels)
    result = ops.batch_norm_act(*tensors, layout=layout, training=True)
    expected = reference.batch_norm_act(*double(tensors), layout=layout, training=True)
    assert_close(result.output, expected[0], 1e-5)


def test_large_mean_keeps_its_variance():
    x = torch.randn(4000, 3) + 1000
    result = ops.batch_norm_act(x, None, None, None, None, layout="RC", training=True)
    assert_close(result.var, x.double().var(0, unbiased=False), 1e-5)


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stats", ["valid", "padded"])
def test_gradcheck(layout, training, stats):
    x, weight, bias, mean, var, lengths = make(layout, torch.float64, channels=2)

    def run(x, weight, bias):
        # Bounds that no value of this input sits on.
        return ops.batch_norm_act(
            x, weight, bias, mean, var, lengths, layout=layout, training=training, stats=stats,
            activation=(-1.03, 1.21),
        ).output  # fmt: skip

    assert torch.autograd.gradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("layout", ["NTC", "TNC", "NCT", "NCFT"])
def test_rows_are_invariant_in_eval(layout):
    x, *parameters, lengths = make(layout)
    row, time = layout.index("N"), layout.index("T")
    options = dict(layout=layout, training=False, activation=HARDTANH)
    output = ops.batch_norm_act(x, *parameters, lengths, **options).output
    for i in range(5):
        frames = int(lengths[i])
        if frames:
            alone = ops.batch_norm_act(
                x.narrow(row, i, 1).narrow(time, 0, frames), *parameters, **options
            ).output
            assert_same_bits(output.narrow(row, i, 1).narrow(time, 0, frames), alone)
    assert output.select(row, 1).abs().max() == 0


@pytest.mark.parametrize("layout", ["NTC", "TNC", "NCT", "NCFT"])
@pytest.mark.parametrize("training, stats", [(True, "valid"), (False, "valid"), (False, "padded")])
def test_what_padding_holds_does_not_matter(layout, training, stats):
    x, weight, bias, mean, var, lengths = make(layout)
    row, time = layout.index("N"), layout.index("T")
    frames = torch.arange(x.shape[time]).view([-1 if d == time else 1 for d in range(len(layout))])
    beyond = frames >= lengths.view([-1 if d == row else 1 for d in range(len(layout))])
    grad_output = torch.randn_like(x)
    results = []
    for padding in (0.0, float("nan")):
        given = x.detach().masked_fill(beyond, padding).requires_grad_()
        output = ops.batch_norm_act(
            given, weight, bias, mean, var, lengths,
            layout=layout, training=training, stats=stats, activation=HARDTANH,
        ).output  # fmt: skip
        grads = torch.autograd.grad(output, (given, weight, bias), grad_output.masked_fill(beyond, padding))
        results.append((output, *grads))
    for expected, actual in zip(*results):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("training", [True, False])
def test_nan_is_not_hidden_by_the_clamp(training):
    x, weight, bias, mean, var, _ = make("RC")
    x = x.detach().index_fill(0, torch.tensor([3]), float("nan"))
    output = ops.batch_norm_act(
        x, weight, bias, mean, var, layout="RC", training=training, activation=HARDTANH
    ).output
    assert output[3].isnan().all()


BAD = {
    "layout": (dict(layout="CNT"), "layout: expected one of RC, NTC, TNC, NCT, NCFT, received 'CNT'"),
    "stats": (dict(stats="all"), 'stats: expected "valid" or "padded", received \'all\''),
    "rank": (dict(layout="NCFT"), "input: expected 4 dimensions"),
    "activation": (dict(activation=(1.0, 1.0)), r"activation: expected \(min, max\) with min < max"),
    "empty": (dict(input=torch.randn(5, 0, 37)), "input: expected at least one value"),
    "weight": (dict(weight=torch.randn(36)), r"weight: expected shape \(37,\), received \(36,\)"),
    "lengths": (dict(lengths=torch.tensor([1, 2, 10, 3, 4])), "lengths: .*received 10 at row 2"),
    "no running": (dict(training=False, running_var=None), "running_mean: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, message = BAD[case]
    names = ("input", "weight", "bias", "running_mean", "running_var", "lengths")
    args = dict(zip(names, make("NTC")), layout="NTC", training=True)
    with pytest.raises((ValueError, TypeError), match=message):
        ops.batch_norm_act(**{**args, **changed})
