"""The CUDA kernels of the GRU against the CPU's in float64. gpu_check.py tells the passes apart by test names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops
from asrkern.ops import _recurrent
from tests.compare import assert_close, relative_error

pytestmark = pytest.mark.gpu

# dtype → relative errors of outputs and of gradients.
TOLERANCES = {
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (2e-2, 4e-2),
    torch.float16: (3e-3, 1e-2),
}
FEATURES = 24
SHAPES = [
    (size, rows, dtype)
    for size in (1, 17, 128, 200, 512, 800, 1024, 1760)
    for rows in (1, 3, 32, 64, 65)
    for dtype in TOLERANCES
    if dtype != torch.float16 or rows in (3, 65)
]


@pytest.fixture(autouse=True)
def _only_own_kernels(monkeypatch):
    """Every call runs on asrkern's kernels, whatever shape; matrix products of float32 are exact."""

    def composed(*_):
        raise AssertionError("cuDNN ran in place of asrkern's kernels")

    monkeypatch.setattr(_recurrent, "_composed", composed)
    monkeypatch.setattr(_recurrent, "_cuda_rows", lambda *_: 1 << 30)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def make_weights(size: int, directions: int, dtype: torch.dtype, bias: bool = True) -> list[list[Tensor]]:
    """On the CPU: of each direction weight_ih, weight_hh and with bias bias_ih, bias_hh."""
    scale = max(size, 4) ** -0.5
    shapes = [(3 * size, FEATURES), (3 * size, size)] + ([(3 * size,)] * 2 if bias else [])
    return [[torch.empty(s).uniform_(-scale, scale).to(dtype) for s in shapes] for _ in range(directions)]


def ragged(rows: int, steps: int) -> Tensor:
    """Lengths in no order, among them the full length and, with enough rows, 0."""
    lengths = torch.randint(1, steps + 1, (rows,))
    lengths[rows // 2] = steps
    if rows > 2:
        lengths[0] = 0
    return lengths


def beyond(lengths: Tensor, steps: int, batch_first: bool) -> Tensor:
    padding = torch.arange(steps) >= lengths[:, None]
    return padding if batch_first else padding.t()


def run(
    x: Tensor,
    weights: list[list[Tensor]],
    h0: Tensor | None,
    seeds: list[Tensor] | None = None,
    device: str = "cuda",
    dtype: torch.dtype | None = None,
    **how,
) -> list[Tensor]:
    """output and h_n; with seeds also the gradients of x, h0 and weights; on the CPU in the end."""

    def leaf(t: Tensor) -> Tensor:
        return t.to(device, dtype or t.dtype).requires_grad_(seeds is not None)

    leaves = [leaf(x), *([] if h0 is None else [leaf(h0)]), *(leaf(w) for ws in weights for w in ws)]
    states, count = (1 if h0 is not None else 0), len(weights[0])
    flat = leaves[1 + states :]
    how = {k: v.to(device) if k == "lengths" and v is not None else v for k, v in how.items()}
    outputs = ops.gru(
        leaves[0],
        flat[:count],
        flat[count:] or None,
        leaves[1] if states else None,
        **how,
    )
    found = list(outputs)
    if seeds is not None:
        found += torch.autograd.grad(outputs, leaves, [s.to(device, o.dtype) for s, o in zip(seeds, outputs)])
    return [t.detach().cpu() for t in found]


def assert_matches(x, weights, h0, dtype, seeds=None, padding=None, **how) -> list[Tensor]:
    """The device's results, after a comparison with those of the CPU in float64. padding: of x, NaN on the device."""
    forward, backward = TOLERANCES[dtype]
    shown = x.clone()
    if padding is not None:
        shown[padding] = float("nan")
    found = run(shown, weights, h0, seeds, **how)
    expected = run(x, weights, h0, seeds, device="cpu", dtype=torch.float64, **how)
    for index, (result, wanted) in enumerate(zip(found, expected, strict=True)):
        assert result.dtype == dtype
        what = ("output", "h_n")[index] if index < 2 else f"gradient {index - 2}"
        assert_close(result, wanted, forward if index < 2 else backward, what)
    if padding is not None:
        assert not found[0][padding].any()
        if seeds is not None:
            assert not found[2][padding].any()
    return found


def seeds_for(x: Tensor, size: int, directions: int, rows: int) -> list[Tensor]:
    return [torch.randn(*x.shape[:-1], directions * size), torch.randn(directions, rows, size)]


def check_shape(size, rows, dtype, backward, directions=2, steps=7, batch_first=False):
    weights = make_weights(size, directions, dtype, bias=rows != 3)
    x = torch.randn((rows, steps, FEATURES) if batch_first else (steps, rows, FEATURES)).to(dtype)
    h0 = torch.randn(directions, rows, size).to(dtype) if rows % 2 else None
    lengths = ragged(rows, steps)
    assert_matches(
        x, weights, h0, dtype,
        seeds_for(x, size, directions, rows) if backward else None,
        beyond(lengths, steps, batch_first),
        lengths=lengths, batch_first=batch_first,
    )  # fmt: skip


@pytest.mark.parametrize("size, rows, dtype", SHAPES)
def test_forward_equals_float64(size, rows, dtype):
    check_shape(size, rows, dtype, backward=False)


@pytest.mark.parametrize("size, rows, dtype", SHAPES)
def test_backward_equals_float64(size, rows, dtype):
    check_shape(size, rows, dtype, backward=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [2050, 2560])
def test_forward_of_large_layers(size, dtype):
    check_shape(size, 33, dtype, backward=False, steps=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [2050, 2560])
def test_backward_of_large_layers(size, dtype):
    check_shape(size, 33, dtype, backward=True, steps=4)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_forward_layouts(directions, batch_first):
    check_shape(150, 13, torch.float32, False, directions, steps=40, batch_first=batch_first)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_backward_layouts(directions, batch_first):
    check_shape(150, 13, torch.float32, True, directions, steps=40, batch_first=batch_first)


def packed_case(rows, size, dtype):
    lengths = ragged(rows, 30).clamp(min=1)
    sequence = pack_padded_sequence(torch.randn(30, rows, FEATURES).to(dtype), lengths, enforce_sorted=False)
    return (
        sequence.data,
        make_weights(size, 2, dtype),
        torch.randn(2, rows, size).to(dtype),
        sequence.batch_sizes,
    )


@pytest.mark.parametrize("rows, size", [(1, 40), (17, 130), (600, 20)])
def test_forward_packed(rows, size):
    x, weights, h0, batch_sizes = packed_case(rows, size, torch.float32)
    assert_matches(x, weights, h0, torch.float32, batch_sizes=batch_sizes)


@pytest.mark.parametrize("rows, size", [(1, 40), (17, 130), (600, 20)])
def test_backward_packed(rows, size):
    x, weights, h0, batch_sizes = packed_case(rows, size, torch.float32)
    assert_matches(x, weights, h0, torch.float32, seeds_for(x, size, 2, rows), batch_sizes=batch_sizes)


@pytest.mark.parametrize("size, rows", [(128, 9), (1024, 32)])
def test_many_steps_give_the_same_bits_each_time(size, rows):
    """A value that is read before it was written, or after it was overwritten, would show sooner or later."""
    weights, x = make_weights(size, 2, torch.bfloat16), torch.randn(400, rows, FEATURES).bfloat16()
    lengths = ragged(rows, 400)
    first = run(x, weights, None, lengths=lengths)
    for _ in range(5):
        for again, once in zip(run(x, weights, None, lengths=lengths), first, strict=True):
            assert torch.equal(again, once)


@pytest.mark.parametrize("size, rows", [(128, 9), (1024, 32)])
def test_backward_of_many_steps_gives_the_same_bits_each_time(size, rows):
    weights, x = make_weights(size, 2, torch.bfloat16), torch.randn(400, rows, FEATURES).bfloat16()
    lengths, seeds = ragged(rows, 400), seeds_for(x, size, 2, rows)
    first = run(x, weights, None, seeds, lengths=lengths)
    for _ in range(3):
        for again, once in zip(run(x, weights, None, seeds, lengths=lengths), first, strict=True):
            assert torch.equal(again, once)


def test_rows_do_not_depend_on_the_batch():
    size, rows, steps = 200, 33, 21
    weights, x = make_weights(size, 2, torch.float32), torch.randn(steps, rows, FEATURES)
    lengths = ragged(rows, steps)
    output, h_n = run(x, weights, None, lengths=lengths)
    for i in range(0, rows, 4):
        alone = run(x[:, i : i + 1], weights, None, lengths=lengths[i : i + 1])
        assert relative_error(output[:, i : i + 1], alone[0]) < 1e-6 or lengths[i] == 0
        assert relative_error(h_n[:, i : i + 1], alone[1]) < 1e-6


def test_lengths_out_of_range_are_clamped():
    weights, x = make_weights(40, 2, torch.float32), torch.randn(6, 3, FEATURES)
    found = run(x, weights, None, lengths=torch.tensor([9, -2, 3]))
    expected = run(x, weights, None, lengths=torch.tensor([6, 0, 3]))
    for result, wanted in zip(found, expected, strict=True):
        assert torch.equal(result, wanted)


def test_autocast_computes_in_its_dtype():
    weights, x = make_weights(130, 2, torch.float32), torch.randn(12, 5, FEATURES)
    with torch.autocast("cuda", torch.bfloat16):
        found = run(x, weights, None)
    expected = run(x, weights, None, device="cpu", dtype=torch.float64)
    for result, wanted in zip(found, expected, strict=True):
        assert result.dtype == torch.float32
        assert 1e-5 < relative_error(result, wanted) < 2e-2


def test_backward_under_autocast():
    weights, x = make_weights(130, 2, torch.float32), torch.randn(12, 5, FEATURES)
    seeds = seeds_for(x, 130, 2, 5)
    with torch.autocast("cuda", torch.bfloat16):
        found = run(x, weights, None, seeds)
    expected = run(x, weights, None, seeds, device="cpu", dtype=torch.float64)
    for result, wanted in zip(found, expected, strict=True):
        assert result.dtype == torch.float32
        assert relative_error(result, wanted) < 4e-2


def test_backward_reads_nothing_beyond_lengths():
    """Frames that no row has, in what forward saved, in the output and in its gradient, may hold anything."""
    size, rows, steps = 70, 9, 11
    lengths = ragged(rows, steps).cuda()
    weights = [w.cuda() for ws in make_weights(size, 2, torch.float32) for w in ws]
    x = torch.randn(steps, rows, FEATURES, device="cuda")
    seeds = [s.cuda() for s in seeds_for(x, size, 2, rows)]
    output, _, reserve = torch.ops.asrkern.gru(x, lengths, None, None, *weights, False, True)
    assert reserve.shape == (2, steps * rows, 4 * size)

    def gradients(x, output, reserve, seed):
        saved = (weights[0], weights[1], weights[4], weights[5], output, reserve, False)
        return torch.ops.asrkern.gru_backward(seed, seeds[1], x, lengths, None, None, *saved)

    expected = gradients(x, output, reserve, seeds[0])
    padding = beyond(lengths.cpu(), steps, False).cuda()
    poisoned = [t.clone() for t in (x, output, seeds[0])]
    for t in poisoned:
        t[padding] = float("nan")
    reserve = reserve.clone()
    reserve[:, padding.flatten()] = float("nan")
    for found, wanted in zip(
        gradients(poisoned[0], poisoned[1], reserve, poisoned[2]), expected, strict=True
    ):
        assert torch.equal(found, wanted)


def captured(step):
    """A CUDA graph of step(), which has run before, on a stream of its own, and what it returns."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph, result


def check_graph(size, dtype, backward):
    rows, steps = 21, 17
    weights, x = make_weights(size, 2, dtype), torch.randn(steps, rows, FEATURES).to(dtype)
    seeds = [s.to(dtype) for s in seeds_for(x, size, 2, rows)]
    flat = [w.cuda().requires_grad_(backward) for ws in weights for w in ws]
    static_x = x.cuda().requires_grad_(backward)
    static_lengths = ragged(rows, steps).cuda()
    static_seeds = [s.cuda() for s in seeds]

    def step():
        outputs = ops.gru(static_x, flat[:4], flat[4:], lengths=static_lengths)
        if not backward:
            return outputs
        return [*outputs, *torch.autograd.grad(outputs, [static_x, *flat], static_seeds)]

    graph, results = captured(step)
    for _ in range(3):
        x, lengths = torch.randn(steps, rows, FEATURES).to(dtype), ragged(rows, steps)
        with torch.no_grad():
            static_x.copy_(x)
        static_lengths.copy_(lengths)
        graph.replay()
        torch.cuda.synchronize()
        expected = run(
            x, weights, None, seeds if backward else None, device="cpu", dtype=torch.float64, lengths=lengths
        )
        for index, (result, wanted) in enumerate(zip(results, expected, strict=True)):
            assert_close(result.detach().cpu(), wanted, TOLERANCES[dtype][index > 1], f"result {index}")


# The last is too large for float32's weights to stay on the chip: one launch a step.
GRAPHS = [(96, torch.bfloat16), (512, torch.float32), (1500, torch.float32)]


@pytest.mark.parametrize("size, dtype", GRAPHS, ids=str)
def test_graph_replays_with_other_lengths(size, dtype):
    check_graph(size, dtype, backward=False)


@pytest.mark.parametrize("size, dtype", GRAPHS, ids=str)
def test_graph_of_backward_replays_with_other_lengths(size, dtype):
    check_graph(size, dtype, backward=True)


def test_compiles_without_graph_breaks():
    weights, lengths = make_weights(40, 2, torch.float32), torch.tensor([5, 0, 9])
    flat = [w.cuda() for ws in weights for w in ws]
    x = torch.randn(9, 3, FEATURES, device="cuda")

    def layer(x, lengths):
        return ops.gru(x, flat[:4], flat[4:], lengths=lengths)[0]

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, lengths.cuda()), layer(x, lengths.cuda()), 1e-6)


def test_no_wait_for_the_device():
    weights = [w.cuda() for ws in make_weights(64, 2, torch.float32) for w in ws]
    x, lengths = torch.randn(9, 3, FEATURES, device="cuda"), torch.tensor([5, 0, 9]).cuda()
    ops.gru(x, weights[:4], weights[4:], lengths=lengths)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.gru(x, weights[:4], weights[4:], lengths=lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_other_calls_are_cudnns(monkeypatch):
    """float64, and more rows than the kernels are for."""
    weights = [w.cuda() for ws in make_weights(40, 2, torch.float32) for w in ws]
    x = torch.randn(9, 3, FEATURES, device="cuda")
    with pytest.raises(AssertionError, match="cuDNN ran"):
        ops.gru(x.double(), [w.double() for w in weights[:4]], [w.double() for w in weights[4:]])
    monkeypatch.setattr(_recurrent, "_cuda_rows", lambda *_: 2)
    with pytest.raises(AssertionError, match="cuDNN ran"):
        ops.gru(x, weights[:4], weights[4:])


def test_known_sizes_are_persistent_on_large_devices():
    properties = torch.cuda.get_device_properties(0)
    if properties.multi_processor_count >= 128 and properties.major == 9:
        for size in (512, 800, 1024, 1760, 2560):
            assert torch.ops.asrkern.gru_cuda_rows(0, 2, size, 2, False) > 1 << 20, size


def test_backward_of_known_sizes_is_persistent_on_large_devices():
    properties = torch.cuda.get_device_properties(0)
    if properties.multi_processor_count >= 128 and properties.major == 9:
        for size in (512, 800, 1024, 1760, 2560):
            assert torch.ops.asrkern.gru_cuda_rows(0, 2, size, 2, True) > 1 << 20, size


def test_two_streams_at_once():
    """Two layers that together want more blocks than there are multiprocessors end all the same."""
    weights, x = make_weights(1024, 2, torch.bfloat16), torch.randn(100, 8, FEATURES).bfloat16()
    flat = [w.cuda() for ws in weights for w in ws]
    x = x.cuda()
    expected = ops.gru(x, flat[:4], flat[4:])[0]
    streams = [torch.cuda.Stream() for _ in range(3)]
    outputs = []
    torch.cuda.synchronize()
    for _ in range(4):
        for stream in streams:
            with torch.cuda.stream(stream):
                outputs.append(ops.gru(x, flat[:4], flat[4:])[0])
    torch.cuda.synchronize()
    for output in outputs:
        assert torch.equal(output, expected)
