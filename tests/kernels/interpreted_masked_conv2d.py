"""The Triton kernels of masked_conv2d in its interpreter; test_triton.py runs this file in a process of its own."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from torch import nn

from asrkern import ops, reference
from asrkern.nn import MaskConv
from asrkern.ops import _batch_norm_act_cuda
from asrkern.ops import _masked_conv2d_cuda as launcher
from asrkern.ops._masked_conv2d_cuda import Config
from tests.compare import assert_close
from tests.kernels.on_the_cpu import OnTheCPU

INF = float("inf")
HARDTANH = (0.0, 20.0)
SMALL = Config(frames=16, columns=32, depth=16, num_warps=4, num_stages=2)
WIDE = Config(frames=16, columns=64, depth=64, num_warps=4, num_stages=2)


@pytest.fixture(autouse=True)
def _ieee(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make(shape, dtype=torch.float32):
    """input, weight, bias, scale, shift of (rows, in_channels, bins, frames, out_channels, kernel)."""
    rows, in_channels, bins, frames, out_channels, kernel = shape
    x, weight = torch.randn(rows, in_channels, bins, frames), torch.randn(out_channels, in_channels, *kernel)
    return x.to(dtype), weight.to(dtype), *(torch.randn(out_channels) for _ in range(3))


def poison(x, lengths):
    """x with NaN beyond each length, which no kernel may read."""
    if lengths is None:
        return x
    return x.masked_fill((torch.arange(x.shape[3]) >= lengths[:, None])[:, None, None], float("nan"))


def tensor(lengths):
    return None if lengths is None else torch.tensor(lengths)


def check(tensors, lengths, output_lengths, stride, padding, config, tolerance=1e-5):
    lengths, output_lengths = tensor(lengths), tensor(output_lengths)
    x, *rest = tensors
    output, _ = launcher.run(
        poison(x, lengths), *rest, lengths, output_lengths, stride, padding, *HARDTANH, config=config
    )
    expected = reference.masked_conv2d(
        *(t.double() for t in tensors), lengths=lengths, output_lengths=output_lengths,
        stride=stride, padding=padding, activation=HARDTANH,
    )  # fmt: skip
    assert output.dtype == x.dtype
    assert_close(output, expected, tolerance)


# Fewer than 8 channels are unfolded along time; 8 and more are laid out last, padded to a multiple of 8.
@pytest.mark.parametrize(
    "shape, stride, padding",
    [
        ((3, 1, 11, 31, 5, (7, 5)), (2, 2), (3, 2)),
        ((3, 2, 9, 31, 33, (3, 5)), (3, 4), (0, 1)),
        ((3, 9, 3, 31, 17, (3, 2)), (1, 1), (2, 3)),
        ((3, 16, 6, 31, 3, (2, 3)), (2, 3), (1, 0)),
    ],
)
@pytest.mark.parametrize(
    "lengths, output_lengths", [(None, None), ([31, 0, 8], None), ([1, 31, 5], [1, 3, 0])]
)
def test_equals_reference(shape, stride, padding, lengths, output_lengths):
    check(make(shape), lengths, output_lengths, stride, padding, SMALL)


def test_wide_tiles():
    check(make((2, 32, 9, 20, 64, (3, 3))), [20, 7], None, (2, 1), (1, 1), WIDE)


def test_half_precision():
    # Not bfloat16: the interpreter multiplies its bits as integers.
    check(make((2, 8, 6, 20, 8, (3, 3)), torch.float16), [20, 7], None, (2, 1), (1, 1), SMALL, 1e-2)


def test_tf32_rounds_to_nearest(monkeypatch):
    """The interpreter multiplies exactly, so what is left is the rounding of both factors before that."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    x, weight, *_ = make((2, 8, 6, 20, 8, (3, 3)))
    x[0, 0, 0, :3] = torch.tensor([1 + 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23])  # ties, and just below one
    x[0, 0, 0, 3] = 0

    def rounded(values):
        scale = torch.exp2(values.abs().log2().floor() - 10)
        nearest = (values.abs() / scale + 0.5).floor() * scale * values.sign()
        return torch.where(values != 0, nearest, 0)

    assert rounded(x[0, 0, 0, :3]).tolist() == [1 + 2**-10, -1 - 2**-10, 1]
    output, _ = launcher.run(x, weight, *[None] * 5, (1, 1), (0, 0), -INF, INF, config=SMALL)
    expected = reference.masked_conv2d(rounded(x.double()), rounded(weight.double()))
    assert_close(output, expected, 1e-6)


def test_nan_with_any_bits_survives_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    x = torch.randn(1, 8, 6, 20)
    x.view(torch.int32)[0, 0, 2, 10] = 0x7FFFFFFF
    output, _ = launcher.run(x, torch.randn(8, 8, 3, 3), *[None] * 5, (1, 1), (0, 0), -INF, INF, config=SMALL)
    assert output[0, :, :3, 8:11].isnan().all()


def test_only_a_weight():
    x, weight, *_ = make((2, 3, 6, 20, 8, (3, 3)))
    output, _ = launcher.run(x, weight, *[None] * 5, (1, 1), (0, 0), -INF, INF, config=SMALL)
    assert_close(output, reference.masked_conv2d(x.double(), weight.double()), 1e-5)


def test_any_strides():
    x, weight, *rest = make((2, 3, 6, 20, 8, (3, 3)))
    args = (*rest, None, None, (1, 1), (0, 0), *HARDTANH)
    expected, _ = launcher.run(x, weight, *args, config=SMALL)
    output, _ = launcher.run(
        x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0), weight.mT.contiguous().mT, *args, config=SMALL
    )
    assert torch.equal(output, expected)


def test_nan_is_not_hidden_by_the_clamp():
    x, *rest = make((1, 1, 5, 20, 2, (3, 3)))
    x[0, 0, 2, 10] = float("nan")
    output, _ = launcher.run(x, *rest, None, None, (1, 1), (0, 0), *HARDTANH, config=SMALL)
    assert output[0, :, :, 8:11].isnan().all() and output[..., :8].isfinite().all()


@pytest.mark.parametrize("stats", ["valid", "padded"])
@pytest.mark.parametrize("lengths", [None, [31, 0, 8]])
@pytest.mark.parametrize("out_channels", [5, 33])
def test_statistics(stats, lengths, out_channels):
    shape, stride, padding = (3, 8, 5, 31, out_channels, (3, 5)), (2, 1), (1, 2)
    x, weight, bias, *_ = make(shape)
    lengths = tensor(lengths)
    args = (bias + 30, None, None, lengths, None, stride, padding, -INF, INF)
    output, tiles = launcher.run(poison(x, lengths), weight, *args, statistics=stats, config=SMALL)
    mean, var = _batch_norm_act_cuda.merge_statistics(*tiles)
    frames = None if lengths is None else ops.conv_output_lengths(lengths, 5, 1, 2)
    _, *expected, count = reference.batch_norm_act(
        output.double(), None, None, None, None, frames, layout="NCFT", training=True, stats=stats
    )
    assert_close(mean, expected[0], 1e-6, "mean")
    assert_close(var, expected[1], 1e-5, "var")
    assert tiles.count.sum() == count


def test_every_shape_of_deepspeech2_has_a_plan():
    for batch, channels, bins, kernel, stride, padding in (
        (1, 1, 161, (41, 11), (2, 2), (20, 5)),
        (64, 32, 81, (21, 11), (2, 1), (10, 5)),
    ):
        x = torch.empty(batch, channels, bins, 501, device="meta")
        plan = launcher.Plan(x, torch.empty(32, channels, *kernel, device="meta"), stride, padding)
        assert plan.fits() and plan.group * plan.block_o == plan.config.columns
        assert plan.config is launcher.CONFIGS["ieee", "few" if batch == 1 else "many"][0]
    long = launcher.Plan(
        torch.empty(1, 32, 81, 2**20, device="meta"),
        torch.empty(32, 32, 21, 11, device="meta"),
        (2, 1),
        (10, 5),
    )
    assert not long.fits()


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
@pytest.mark.parametrize("stats", ["valid", "padded"])
def test_gradients_through_the_fused_batch_norm(stats):
    x, weight, bias, norm_weight, norm_bias = make((3, 2, 7, 19, 3, (3, 5)))
    inputs = [t.requires_grad_() for t in (x, weight, bias, norm_weight, norm_bias)]
    lengths, bounds = torch.tensor([19, 0, 8]), (-0.4, 1.1)
    frames = ops.conv_output_lengths(lengths, 5, 2, 2)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    convolved = reference.masked_conv2d(*doubles[:3], lengths=lengths, stride=(1, 2), padding=(1, 2))
    expected = reference.batch_norm_act(
        convolved,
        *doubles[3:],
        None,
        None,
        frames,
        layout="NCFT",
        training=True,
        stats=stats,
        activation=bounds,
    )
    with OnTheCPU():
        output, _, mean, var, count = torch.ops.asrkern.masked_conv2d_batch_norm_act(
            *inputs, lengths, frames, [1, 2], [1, 2], stats == "padded", 1e-5, *bounds
        )
        margin = torch.stack([(expected[0] - b).abs() for b in bounds]).amin(0)
        seed = torch.where(margin > 1e-4, torch.randn_like(output), 0)
        grads = torch.autograd.grad(output, inputs, seed)
    for name, actual, wanted in zip(("output", "mean", "var"), (output, mean, var), expected):
        assert_close(actual, wanted, 1e-5, name)
    assert count == expected[3]
    for index, (grad, wanted) in enumerate(
        zip(grads, torch.autograd.grad(expected[0], doubles, seed.double()))
    ):
        # A bias before a batch norm has no gradient where only valid frames count.
        if index == 2 and stats == "valid":
            assert grad.abs().max() < 1e-4
        else:
            assert_close(grad, wanted, 1e-4, f"gradient {index}")


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
def test_opcheck():
    """Schema, fake kernel and autograd agree with what the launchers return, in half precision. What torch's compiler
    makes of the operations does not depend on their kernels: tests/ops."""

    def make(*shape, dtype=torch.float16):
        return torch.randn(shape).to(dtype).requires_grad_()

    def channel():
        return make(3, dtype=torch.float32)

    lengths, geometry = torch.tensor([9, 4]), ([2, 1], [1, 1])
    x, weight = make(2, 2, 5, 9), make(3, 2, 3, 3)
    norm = ("NCFT", True, False, 1e-5, *HARDTANH)
    cases = {
        "masked_conv2d": (
            x,
            weight,
            channel(),
            channel(),
            channel(),
            lengths,
            None,
            *geometry,
            *HARDTANH,
            [1, 2],
        ),
        "masked_conv2d_batch_norm_act": (
            *(x, weight, channel(), channel(), channel(), lengths, lengths, *geometry),
            *(False, 1e-5, *HARDTANH),
        ),
        "batch_norm_act": (make(2, 3, 4, 9), channel(), channel(), None, None, lengths, *norm),
    }
    with OnTheCPU():
        for name, args in cases.items():
            result = torch.library.opcheck(
                getattr(torch.ops.asrkern, name).default,
                args,
                test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
            )
            assert set(result.values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
@pytest.mark.parametrize("training", [True, False])
def test_a_stack_in_half_precision(training, monkeypatch):
    """The way from the layer to the launchers, in their own precision; forward and backward."""
    stack = nn.Sequential(
        nn.Conv2d(1, 4, (5, 3), stride=(2, 2), padding=(2, 1)), nn.BatchNorm2d(4), nn.Hardtanh(0, 20),
        nn.Conv2d(4, 3, (3, 5), padding=(1, 2)), nn.BatchNorm2d(3), nn.Hardtanh(0, 20),
    )  # fmt: skip
    ours = MaskConv(stack.half()).train(training)
    exact = copy.deepcopy(ours).double()
    x, lengths = torch.randn(3, 1, 9, 20).half(), torch.tensor([20, 0, 7])
    expected, wanted_frames = exact(x.double(), input_lengths=lengths)
    seed = torch.where(expected > 0.05, torch.randn(expected.shape), 0).half()
    wanted = torch.autograd.grad(
        expected, [exact.seq_module[0].weight, exact.seq_module[3].weight], seed.double()
    )
    for op, name in (
        ("masked_conv2d", "takes_kernel"),
        ("batch_norm_act", "takes_kernel"),
        ("masked_conv2d_batch_norm_act", "convolution_takes_kernel"),
        ("masked_conv2d_batch_norm_act", "batch_norm_takes_kernel"),
    ):
        monkeypatch.setattr(importlib.import_module(f"asrkern.ops.{op}"), name, lambda _: True)
    with OnTheCPU():
        output, frames = ours(x, input_lengths=lengths)
        grads = torch.autograd.grad(output, [ours.seq_module[0].weight, ours.seq_module[3].weight], seed)
    assert output.dtype == torch.float16 and torch.equal(frames, wanted_frames)
    assert_close(output, expected, 5e-3)
    for grad, other in zip(grads, wanted):
        assert_close(grad, other, 2e-2)
    for (name, buffer), other in zip(ours.named_buffers(), exact.buffers()):
        assert_close(buffer, other, 2e-3, name)
