"""batch_norm_act on a GPU against the reference in float64 on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from asrkern import ops, reference
from tests.compare import assert_close, assert_same_bits

pytestmark = pytest.mark.gpu

INF = float("inf")
CLAMP = (-0.4, 1.1)
SIZES = {
    "RC": (2311, 37), "NTC": (5, 211, 137), "TNC": (211, 5, 512), "NCT": (5, 37, 517), "NCFT": (5, 33, 41, 301),
}  # fmt: skip
DTYPES = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}


class Case(NamedTuple):
    """Tensors on the CPU; clean holds numbers, x NaN beyond the lengths; seed is 0 next to the clamp's kinks."""

    x: Tensor
    clean: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    lengths: Tensor | None


def make(layout, dtype, size=None):
    size = size or SIZES[layout]
    channels = size[layout.index("C")]
    clean = (torch.randn(size) * 2 + 5).to(dtype)
    x, lengths = clean, None
    if layout != "RC":
        n, t = layout.index("N"), layout.index("T")
        lengths = torch.randint(0, size[t] + 1, (size[n],))
        lengths[:2] = torch.tensor([size[t], 0])
        beyond = torch.arange(size[t]) >= lengths[:, None]
        shape = [size[d] if d in (n, t) else 1 for d in range(len(size))]
        x = clean.masked_fill((beyond if n < t else beyond.t()).reshape(shape), float("nan"))
    weight, bias, mean = (torch.randn(channels).to(dtype) for _ in range(3))
    return Case(x, clean, weight, bias, mean, (torch.rand(channels) + 0.5).to(dtype), lengths)


@pytest.mark.parametrize("layout", SIZES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stats", ["valid", "padded"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_reference(layout, training, stats, dtype):
    tolerance, dtype = DTYPES[dtype], getattr(torch, dtype)
    case = make(layout, dtype)
    options = dict(layout=layout, training=training, stats=stats)
    # Padding that counts is read.
    x = case.clean if training and stats == "padded" else case.x
    inputs = [t.cuda().requires_grad_() for t in (x, case.weight, case.bias)]
    rest = [None if t is None else t.cuda() for t in case[4:]]
    result = ops.batch_norm_act(*inputs, *rest, activation=CLAMP, **options)
    doubles = [t.double().requires_grad_() for t in (case.clean, case.weight, case.bias)]
    running = [t.double() for t in (case.mean, case.var)]
    expected, mean, var, count = reference.batch_norm_act(
        *doubles, *running, case.lengths, activation=CLAMP, **options
    )
    assert result.output.dtype == dtype
    assert_close(result.output.cpu(), expected, tolerance, "output")
    assert_close(result.mean.cpu(), mean, 1e-5, "mean")
    assert_close(result.var.cpu(), var, 1e-5, "var")
    assert result.count.item() == count

    with torch.no_grad():
        free, *_ = reference.batch_norm_act(*doubles, *running, case.lengths, **options)
    kink = torch.stack([(free - bound).abs() for bound in CLAMP]).amin(0)
    seed = torch.where(kink > 1e-4, torch.randn(x.shape), 0).to(dtype)
    grads = torch.autograd.grad(result.output, inputs, seed.cuda())
    wanted = torch.autograd.grad(expected, doubles, seed.double())
    for name, grad, other in zip(("input", "weight", "bias"), grads, wanted):
        assert_close(grad.cpu(), other, max(1e-4, tolerance), f"gradient of {name}")


def test_large_mean_keeps_its_variance():
    x = torch.randn(40000, 3) + 1000
    result = ops.batch_norm_act(x.cuda(), None, None, None, None, layout="RC", training=True)
    assert_close(result.var.cpu(), x.double().var(0, unbiased=False), 1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_nan_is_not_hidden_by_the_clamp(training):
    case = make("RC", torch.float32)
    x = case.clean.index_fill(0, torch.tensor([3]), float("nan"))
    args = [t.cuda() for t in (x, *case[2:6])]
    output = ops.batch_norm_act(*args, layout="RC", training=training, activation=CLAMP).output
    assert output[3].isnan().all()


def test_equal_inputs_give_equal_bits():
    case = make("NCFT", torch.float32)
    args = [case.x.cuda(), case.weight.cuda(), case.bias.cuda(), None, None, case.lengths.cuda()]
    runs = [ops.batch_norm_act(*args, layout="NCFT", training=True) for _ in range(2)]
    for one, other in zip(*runs):
        assert_same_bits(one, other)


def test_compiles_whole():
    case = make("NCFT", torch.float32)
    inputs = [t.cuda().requires_grad_() for t in (case.x, case.weight, case.bias)]
    lengths = case.lengths.cuda()

    def run(*inputs):
        return ops.batch_norm_act(
            *inputs, None, None, lengths, layout="NCFT", training=True, activation=CLAMP
        ).output

    torch._dynamo.reset()
    output, expected = torch.compile(run, fullgraph=True)(*inputs), run(*inputs)
    assert_same_bits(output, expected)
    seed = torch.randn_like(expected)
    for grad, wanted in zip(
        torch.autograd.grad(output, inputs, seed), torch.autograd.grad(expected, inputs, seed)
    ):
        assert_same_bits(grad, wanted)


def test_a_graph_replays_with_other_lengths():
    case = make("NTC", torch.float32)
    x, weight, bias, lengths = (t.cuda() for t in (case.clean, case.weight, case.bias, case.lengths))

    def run():
        return ops.batch_norm_act(x, weight, bias, None, None, lengths, layout="NTC", training=True)

    run()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.copy_(torch.randn_like(x))
    lengths.copy_(lengths.flip(0))
    graph.replay()
    for value, wanted in zip(captured, run()):
        assert_same_bits(value, wanted)
