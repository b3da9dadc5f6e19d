"""The Triton kernels of batch_norm_act in its interpreter; test_triton.py runs this file in a process of its own."""

from __future__ import annotations

import pytest
import torch

from asrkern import reference
from asrkern.ops import _batch_norm_act_cuda as launcher
from tests.compare import assert_close

SIZES = {"RC": (23, 37), "NTC": (4, 9, 37), "TNC": (9, 4, 37), "NCT": (4, 3, 9), "NCFT": (4, 3, 5, 9)}
INF = float("inf")
LENGTHS = [9, 0, 4, 1]


def make(layout, size=None, dtype=torch.float32):
    """input with NaN beyond each length, the same with 0, weight, bias, running_mean, running_var, lengths."""
    size = size or SIZES[layout]
    channels = size[layout.index("C")]
    # A mean far from 0 shows statistics that cancel.
    x = (torch.randn(size) * 2 + 5).to(dtype)
    poisoned, lengths = x, None
    if layout != "RC":
        lengths = torch.tensor(LENGTHS)
        n, t = layout.index("N"), layout.index("T")
        frames = torch.arange(size[t]) >= lengths[:, None]
        shape = [size[d] if d in (n, t) else 1 for d in range(len(size))]
        poisoned = x.masked_fill((frames if n < t else frames.t()).reshape(shape), float("nan"))
    small = torch.randn(channels), torch.randn(channels), torch.randn(channels), torch.rand(channels) + 0.5
    return poisoned, x, *small, lengths


def check(layout, training, stats, bounds, size=None, affine=True, dtype=torch.float32, tolerance=1e-5):
    poisoned, clean, weight, bias, mean, var, lengths = make(layout, size, dtype)
    if stats == "padded" and training:
        poisoned = clean
    if not affine:
        weight = bias = None
    options = (lengths, layout, training, stats == "padded", 1e-5, *bounds)
    output, *statistics, count = launcher.forward(poisoned, weight, bias, mean, var, *options)
    x = clean.double().requires_grad_()
    doubles = [
        None if t is None else t.double().requires_grad_(i < 2)
        for i, t in enumerate((weight, bias, mean, var))
    ]
    expected = reference.batch_norm_act(
        x, *doubles, lengths, layout=layout, training=training, stats=stats, activation=bounds
    )
    assert output.dtype == dtype
    assert_close(output, expected[0], tolerance, "output")
    for name, actual, wanted in zip(("mean", "var"), statistics, expected[1:3]):
        assert_close(actual, wanted, 1e-5, name)
    assert count == expected[3]

    seed = torch.randn(clean.shape).to(dtype)
    # Zero where rounding may decide on which side of the clamp a value is.
    margin = torch.stack([(expected[0] - b).abs() for b in bounds]).amin(0) if affine else torch.ones(())
    seed = torch.where(margin.gt(1e-4 if dtype == torch.float32 else 0.1), seed, 0)
    grads = launcher.backward(seed, poisoned, weight, bias, *statistics, *options)
    inputs = [t for t in (x, *doubles[:2]) if t is not None]
    wanted = torch.autograd.grad(expected[0], inputs, seed.double())
    for name, grad, other in zip(("input", "weight", "bias"), grads, wanted):
        assert_close(grad, other, max(1e-4, tolerance), f"gradient of {name}")


@pytest.mark.parametrize("layout", SIZES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stats", ["valid", "padded"])
def test_equals_reference(layout, training, stats):
    check(layout, training, stats, (-0.4, 1.1))


def test_without_weight_bias_and_clamp():
    check("NTC", True, "valid", (-INF, INF), affine=False)


def test_half_precision():
    # Not bfloat16: the interpreter cuts off where a GPU rounds, which no tolerance tells from a wrong kernel.
    check("NCFT", True, "valid", (-0.4, 1.1), dtype=torch.float16, tolerance=2e-3)


@pytest.mark.parametrize(
    "layout, size", [("NCFT", (4, 1, 19, 300)), ("NTC", (4, 40, 131)), ("NCT", (4, 1, 515)), ("RC", (1, 1))]
)
def test_several_tiles_and_pieces(layout, size, monkeypatch):
    monkeypatch.setattr(launcher, "PROGRAMS", 2)
    monkeypatch.setattr(launcher, "MERGED", 2)
    monkeypatch.setitem(globals(), "LENGTHS", [size[-1 if layout[-1] == "T" else 1], 0, 39, 1])
    check(layout, True, "valid", (-0.4, 1.1), size)


def test_rows_without_frames_have_no_statistics():
    x = torch.randn(2, 5, 3)
    output, mean, var, count = launcher.forward(
        x, None, None, None, None, torch.tensor([0, 0]), "NTC", True, False, 1e-5, -INF, INF
    )
    assert count == 0 and not mean.any() and not var.any() and not output.any()
    grads = launcher.backward(
        x, x, None, None, mean, var, torch.tensor([0, 0]), "NTC", True, False, 1e-5, -INF, INF
    )
    assert all(not grad.any() for grad in grads)


def test_large_mean_keeps_its_variance():
    x = torch.randn(4000, 3) + 1000
    *_, var, _ = launcher.forward(x, None, None, None, None, None, "RC", True, False, 1e-5, -INF, INF)
    assert_close(var, x.double().var(0, unbiased=False), 1e-5)


def test_nan_is_not_hidden_by_the_clamp():
    x = torch.randn(5, 3).index_fill(0, torch.tensor([3]), float("nan"))
    output, *_ = launcher.forward(
        x, None, None, torch.zeros(3), torch.ones(3), None, "RC", False, False, 1e-5, 0.0, 20.0
    )
    assert output[3].isnan().all() and output[:3].isfinite().all()


def test_equal_inputs_give_equal_bits():
    poisoned, _, weight, bias, *_, lengths = make("NCFT")
    runs = [
        launcher.forward(poisoned, weight, bias, None, None, lengths, "NCFT", True, False, 1e-5, 0.0, 20.0)
        for _ in range(2)
    ]
    for one, other in zip(*runs):
        assert torch.equal(one, other)
