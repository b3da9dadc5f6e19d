"""masked_conv2d on a GPU, alone and with a training batch norm, against the reference in float64 on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from asrkern import ops, reference
from asrkern.nn import MaskConv
from tests.compare import assert_close, assert_same_bits

pytestmark = pytest.mark.gpu

HARDTANH = (0.0, 20.0)
# Of the product's precision: input dtype, whether TF32 is allowed, tolerance.
PRECISIONS = {
    "ieee": (torch.float32, False, 1e-5),
    "tf32": (torch.float32, True, 2e-3),
    "bfloat16": (torch.bfloat16, True, 1e-2),
    "float16": (torch.float16, True, 2e-3),
}
# (rows, in_channels, bins, frames, out_channels, kernel), stride, padding
DEEPSPEECH2 = {
    "conv 1": ((3, 1, 161, 1001, 32, (41, 11)), (2, 2), (20, 5)),
    "conv 2": ((3, 32, 81, 501, 32, (21, 11)), (2, 1), (10, 5)),
    "conv 3": ((2, 32, 41, 301, 96, (21, 11)), (2, 1), (10, 5)),
}
AWKWARD = {
    "few channels": ((3, 2, 20, 31, 5, (7, 5)), (2, 2), (3, 2)),
    "odd channels": ((3, 9, 11, 31, 33, (3, 2)), (1, 1), (9, 7)),
    "large strides": ((4, 16, 20, 63, 40, (2, 3)), (3, 4), (0, 1)),
    "one bin": ((2, 24, 7, 130, 64, (7, 1)), (1, 1), (0, 0)),
    "one frame": ((5, 8, 9, 5, 16, (3, 5)), (1, 1), (1, 0)),
}


@pytest.fixture(params=PRECISIONS)
def precision(request, monkeypatch):
    """(dtype, tolerance), with torch's switch for TF32 set."""
    dtype, tf32, tolerance = PRECISIONS[request.param]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    return dtype, tolerance


def make(shape, dtype):
    """input, weight, bias, scale, shift on the CPU: outputs of about unit variance."""
    rows, in_channels, bins, frames, out_channels, kernel = shape
    weight = torch.randn(out_channels, in_channels, *kernel) / (in_channels * kernel[0] * kernel[1]) ** 0.5
    channel = [torch.randn(out_channels), torch.rand(out_channels) + 0.5, torch.randn(out_channels)]
    return [t.to(dtype) for t in (torch.randn(rows, in_channels, bins, frames), weight, *channel)]


def ragged(rows, frames):
    """Lengths with the longest, none at all and random ones between."""
    lengths = torch.randint(1, frames + 1, (rows,))
    lengths[:2] = torch.tensor([frames, 0])
    return lengths


def poison(x, lengths):
    return x.masked_fill((torch.arange(x.shape[3]) >= lengths[:, None])[:, None, None], float("nan"))


def check(shape, stride, padding, precision):
    """Output and all gradients."""
    dtype, tolerance = precision
    tensors = make(shape, dtype)
    lengths = ragged(shape[0], shape[3])
    inputs = [t.cuda().requires_grad_() for t in (poison(tensors[0], lengths), *tensors[1:])]
    doubles = [t.double().requires_grad_() for t in tensors]
    options = dict(stride=stride, padding=padding)
    output = ops.masked_conv2d(*inputs, lengths=lengths.cuda(), activation=HARDTANH, **options)
    expected = reference.masked_conv2d(*doubles, lengths=lengths, activation=HARDTANH, **options)
    assert output.dtype == dtype
    assert_close(output.cpu(), expected, tolerance, "output")

    # Zero where rounding may decide on which side of the clamp a value is.
    with torch.no_grad():
        free = reference.masked_conv2d(*doubles, lengths=lengths, **options)
    seed = torch.where(free.abs() > 20 * tolerance, torch.randn(free.shape), 0).to(dtype)
    grads = torch.autograd.grad(output, inputs, seed.cuda())
    wanted = torch.autograd.grad(expected, doubles, seed.double())
    for name, grad, other in zip(("input", "weight", "bias", "scale", "shift"), grads, wanted):
        assert_close(grad.cpu(), other, max(1e-4, tolerance), f"gradient of {name}")


@pytest.mark.parametrize("name", DEEPSPEECH2)
def test_deepspeech2(name, precision):
    check(*DEEPSPEECH2[name], precision)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_sizes(name, precision):
    check(*AWKWARD[name], precision)


@pytest.mark.parametrize("rows", [1, 40])
def test_few_and_many_tiles(rows):
    (_, *shape), stride, padding = DEEPSPEECH2["conv 2"]
    x, *rest = (t.cuda() for t in make((rows, *shape), torch.bfloat16))
    lengths = torch.randint(1, 502, (rows,)).cuda()
    options = dict(lengths=lengths, stride=stride, padding=padding, activation=HARDTANH)
    output = ops.masked_conv2d(x, *rest, **options)
    for row in {0, rows - 1}:
        one = (x[row : row + 1].cpu().double(), *(t.cpu().double() for t in rest))
        expected = reference.masked_conv2d(*one, **{**options, "lengths": lengths[row : row + 1].cpu()})
        assert_close(output[row : row + 1].cpu(), expected, 1e-2, f"row {row}")


def test_output_lengths_and_no_lengths(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    shape, stride, padding = AWKWARD["few channels"]
    tensors = make(shape, torch.float32)
    for output_lengths in (None, torch.tensor([2, 0, 16])):
        options = dict(stride=stride, padding=padding)
        frames = None if output_lengths is None else output_lengths.cuda()
        output = ops.masked_conv2d(*(t.cuda() for t in tensors), output_lengths=frames, **options)
        expected = reference.masked_conv2d(
            *(t.double() for t in tensors), output_lengths=output_lengths, **options
        )
        assert_close(output.cpu(), expected, 1e-5)


@pytest.mark.parametrize("stats", ["valid", "padded"])
@pytest.mark.parametrize("name", ["conv 1", "conv 2"])
def test_statistics_and_gradients_of_the_fused_batch_norm(name, stats, precision):
    dtype, tolerance = precision
    shape, stride, padding = DEEPSPEECH2[name]
    x, weight, *channel = make(shape, dtype)
    lengths = ragged(shape[0], shape[3])
    inputs = [t.cuda().requires_grad_() for t in (poison(x, lengths), weight, *channel)]
    doubles = [t.double().requires_grad_() for t in (x, weight, *channel)]
    result = ops.masked_conv2d_batch_norm_act(
        *inputs, lengths=lengths.cuda(), stride=stride, padding=padding, stats=stats, activation=HARDTANH
    )
    frames = ops.conv_output_lengths(lengths, shape[5][1], stride[1], padding[1])
    convolved = reference.masked_conv2d(*doubles[:3], lengths=lengths, stride=stride, padding=padding)
    args = (convolved, *doubles[3:], None, None, frames)
    options = dict(layout="NCFT", training=True, stats=stats)
    expected, mean, var, count = reference.batch_norm_act(*args, activation=HARDTANH, **options)
    assert_close(result.output.cpu(), expected, tolerance, "output")
    assert_close(result.mean.cpu(), mean, tolerance, "mean")
    assert_close(result.var.cpu(), var, tolerance, "var")
    assert result.count.item() == count

    with torch.no_grad():
        free, *_ = reference.batch_norm_act(*args, **options)
    seed = torch.where(free.abs() > 20 * tolerance, torch.randn(free.shape), 0).to(dtype)
    grads = torch.autograd.grad(result.output, inputs, seed.cuda())
    wanted = torch.autograd.grad(expected, doubles, seed.double())
    scale = wanted[4].abs().max()
    for label, grad, other in zip(("input", "weight", "bias", "norm_weight", "norm_bias"), grads, wanted):
        if label == "bias" and stats == "valid":
            # Its gradient is 0 but for rounding.
            assert grad.abs().max() < max(1e-4, tolerance) * scale
        else:
            assert_close(grad.cpu(), other, max(1e-4, 5 * tolerance), f"gradient of {label}")


def stack():
    return nn.Sequential(
        nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=(20, 5)), nn.BatchNorm2d(32), nn.Hardtanh(0, 20),
        nn.Conv2d(32, 32, (21, 11), stride=(2, 1), padding=(10, 5)), nn.BatchNorm2d(32), nn.Hardtanh(0, 20),
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_deepspeech2_stack(training, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    layers = stack().train(training)
    ours, theirs = MaskConv(copy.deepcopy(layers)).cuda(), MaskConv(layers.double())
    ours.train(training), theirs.train(training)
    x, lengths = torch.randn(4, 1, 161, 403), torch.tensor([403, 0, 77, 250])
    output, frames = ours(x.cuda(), input_lengths=lengths.cuda())
    expected, wanted_frames = theirs(x.double(), input_lengths=lengths)
    assert frames.tolist() == wanted_frames.tolist()
    assert_close(output.cpu(), expected, 1e-5)
    for (name, value), wanted in zip(ours.state_dict().items(), theirs.state_dict().values()):
        assert_close(value.cpu(), wanted, 1e-5, name)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_whole(training):
    model = MaskConv(stack()).cuda().train(training)
    x, lengths = torch.randn(4, 1, 161, 203).cuda(), torch.tensor([203, 0, 77, 150]).cuda()
    state = copy.deepcopy(model.state_dict())
    torch._dynamo.reset()
    output, _ = torch.compile(model, fullgraph=True)(x, input_lengths=lengths)
    grads = torch.autograd.grad(output.square().sum(), list(model.parameters()))
    model.load_state_dict(state)
    expected, _ = model(x, input_lengths=lengths)
    assert_close(output, expected, 1e-5)
    for grad, wanted in zip(grads, torch.autograd.grad(expected.square().sum(), list(model.parameters()))):
        assert_close(grad, wanted, 1e-3)


def test_a_graph_replays_with_other_lengths():
    model = MaskConv(stack()).cuda().eval()
    x, lengths = torch.randn(4, 1, 161, 203).cuda(), torch.tensor([203, 0, 77, 150]).cuda()
    with torch.inference_mode():
        model(x, input_lengths=lengths)  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured, frames = model(x, input_lengths=lengths)
        x.copy_(torch.randn_like(x))
        lengths.copy_(torch.tensor([5, 203, 1, 90]))
        graph.replay()
        expected, wanted_frames = model(x, input_lengths=lengths)
    assert_same_bits(frames, wanted_frames)
    assert_same_bits(captured, expected)


def test_a_row_without_frames_and_lengths_out_of_range():
    """Nobody could report what is out of range without waiting for the GPU; nothing is read or written outside."""
    tensors = [t.cuda() for t in make((3, 2, 20, 31, 5, (7, 5)), torch.float32)]
    output = ops.masked_conv2d(*tensors, lengths=torch.tensor([-4, 10**9, 0]).cuda(), padding=(3, 2))
    assert output[0].abs().sum() == 0 and output[2].abs().sum() == 0
    whole = ops.masked_conv2d(*tensors, padding=(3, 2))
    assert_same_bits(output[1], whole[1])
