"""Times on a CUDA device, by events; which kernels ran; and what the device can do at most."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median, quantiles
from typing import NamedTuple

import torch

# A launch gap or an event costs microseconds: shorter calls are timed in groups.
SHORTEST_MS = 0.3
MIN_SAMPLES, MAX_SAMPLES = 10, 200

Call = Callable[[], object]


class Timing(NamedTuple):
    """Milliseconds of one call: median and quartiles; graph: replayed as a CUDA graph, without Python's launches."""

    median: float
    low: float
    high: float
    samples: int
    graph: bool


class Launches(NamedTuple):
    """run: launches the call ``count`` times."""

    run: Call
    count: int
    graph: bool


def time_call(calls: Sequence[Call], seconds: float, *, graph: bool = True) -> Timing:
    """Time one computation.

    Args:
        calls: the computation on several sets of inputs, taken in turn, so that a cache does not keep them.
        seconds: how long, at most, but for the first calls.
        graph: whether a CUDA graph of it may be replayed; not of what reads the device on the host.

    Returns:
        The faster of graph replay and plain launches.
    """
    estimate = _warm_up(calls)
    count = max(1, min(50, math.ceil(SHORTEST_MS / max(estimate, 1e-3))))
    forms = [[_plain(call, count) for call in calls]]
    graphs = _captured(calls, count) if graph else []
    if graphs:
        forms.append(graphs)
    samples = int(
        max(MIN_SAMPLES, min(MAX_SAMPLES, 1000 * seconds / len(forms) / max(estimate * count, 1e-3)))
    )
    return min((_time(form, samples) for form in forms), key=lambda timing: timing.median)


def _warm_up(calls: Sequence[Call]) -> float:
    """Milliseconds of a call, roughly."""
    # Graphs are captured on a stream other than the default one: what is allocated at the first call has to be too.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
            call()
    torch.cuda.current_stream().wait_stream(side)
    return _elapsed(calls[0])


def _elapsed(call: Call) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def _plain(call: Call, count: int) -> Launches:
    def run() -> None:
        for _ in range(count):
            call()

    return Launches(run, count, graph=False)


def _captured(calls: Sequence[Call], count: int) -> list[Launches]:
    """The calls as graphs; none if one cannot be captured."""
    graphs = []
    for call in calls:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                _plain(call, count).run()
            graph.replay()
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"not captured as a graph: {error}", flush=True)
            return []
        graphs.append(Launches(graph.replay, count, graph=True))
    return graphs


def _time(launches: Sequence[Launches], samples: int) -> Timing:
    pairs = []
    torch.cuda.synchronize()
    for launch in itertools.islice(itertools.cycle(launches), samples):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        launch.run()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return summary(
        [start.elapsed_time(end) / launches[0].count for start, end in pairs], graph=launches[0].graph
    )


def summary(milliseconds: Sequence[float], graph: bool) -> Timing:
    low, _, high = quantiles(milliseconds, n=4)
    return Timing(median(milliseconds), low, high, len(milliseconds), graph)


def kernels_run(call: Call) -> dict[str, float]:
    """Milliseconds on the device of each kernel that a call runs, by name; copies and fills are among them."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    found: dict[str, float] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name] = found.get(event.name, 0.0) + event.time_range.elapsed_us() / 1000
    return found


def ceilings(seconds: float) -> dict[str, float]:
    """What this device reaches: copying in GB/s (read and written), matrix products in TFLOP/s, on random data."""
    products = {
        "bf16_tflop_s": _tflop_s(8192, torch.bfloat16, False, seconds),
        "tf32_tflop_s": _tflop_s(8192, torch.float32, True, seconds),
        "fp32_tflop_s": _tflop_s(4096, torch.float32, False, seconds),
    }
    return {"copy_gb_s": _copy_gb_s(2**31, seconds), **products}


def _copy_gb_s(size: int, seconds: float) -> float:
    values = torch.randn(size // 4, device="cuda")
    copies = torch.empty_like(values)
    return 2 * size / time_call([lambda: copies.copy_(values)], seconds).median / 1e6


def _tflop_s(size: int, dtype: torch.dtype, tf32: bool, seconds: float) -> float:
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    with float32_arithmetic(tf32):
        return 2 * size**3 / time_call([lambda: a @ b], seconds).median / 1e9


@contextlib.contextmanager
def float32_arithmetic(tf32: bool) -> Iterator[None]:
    """Whether products of float32 tensors, in matrices, convolutions and recurrent layers, are rounded to TF32."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = tf32
    try:
        yield
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value
