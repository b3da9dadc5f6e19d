"""What every benchmark here measures with: the clock, percentiles, memory, and the machine's description."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from asrkern._library import cpu_isa

MIN_REQUESTS_FOR_P99 = 100


class Stopwatch:
    """Seconds between laps, with the device's queue emptied at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap (or the start) under ``name``."""
        now = self._now()
        self.laps[name] = now - self._last
        self._last = now


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p90 by linear interpolation; p99 only where at least 100 requests stand behind it."""
    wanted = [50, 90] + [99] * (len(seconds) >= MIN_REQUESTS_FOR_P99)
    return {f"p{q}": float(numpy.percentile(seconds, q)) for q in wanted}


def largest_difference(expected: Tensor, actual: Tensor, lengths: Tensor) -> float:
    """Largest absolute difference over the valid frames of two ``[N, T, V]`` tensors.

    Infinite if the shapes differ, or if a valid frame of either holds NaN or infinity.
    """
    if expected.shape != actual.shape:
        return math.inf
    valid = torch.arange(expected.shape[1], device=lengths.device) < lengths[:, None]
    valid = valid.to(expected.device)
    x, y = expected[valid].double(), actual.to(expected.device)[valid].double()
    if not (x.isfinite().all() and y.isfinite().all()):
        return math.inf
    return float((x - y).abs().max()) if x.numel() else 0.0


def relative_error(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    """Largest absolute difference of each tensor relative to its largest expected value; the worst of all.

    Infinite if the shapes differ, or if a tensor holds NaN or infinity.
    """
    worst = 0.0
    for x, y in zip(expected, actual, strict=True):
        if x.shape != y.shape or not (x.isfinite().all() and y.isfinite().all()):
            return math.inf
        difference, scale = (x.double() - y.double()).abs().max(), x.abs().max()
        worst = max(worst, float(difference / scale) if difference else 0.0)
    return worst


# A time is that of as many calls in a row as take so long together: one call of a millisecond, after everything else ran,
# finds caches and branch predictors cold, which utterance after utterance does not.
BLOCK_SECONDS = 0.005


class Block:
    """As many calls in a row as take ``BLOCK_SECONDS``, at least one."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        seconds = self._seconds(1)
        if seconds < 20 * BLOCK_SECONDS:
            seconds = self._seconds(1)  # without what is done once
        self.calls = max(1, math.ceil(BLOCK_SECONDS / seconds))

    def _seconds(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        return time.perf_counter() - start

    def seconds(self) -> float:
        """Seconds of one call."""
        # Idle threads of another runtime spin for a while, on cores that this one needs.
        time.sleep(0.01)
        return self._seconds(self.calls) / self.calls


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds that each call took, in rounds of a :class:`Block` of each, another one first each time.

    At least ``rounds`` are made, and more until ``seconds`` are over.
    """
    blocks = {name: Block(call) for name, call in calls.items()}
    names, times = list(calls), {name: [] for name in calls}
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or time.perf_counter() < end:
        first = done % len(names)
        for name in [*names[first:], *names[:first]]:
            times[name].append(blocks[name].seconds())
        done += 1
    return times


class PeakMemory(NamedTuple):
    """Memory of a process, in MiB: its peak, and what it had at its start, with everything imported."""

    peak: float
    at_start: float


def peak_memory_mib(device: torch.device, prepare: Callable[..., Callable[[], object]], *args: Any) -> float:
    """The peak of :func:`peak_memory`."""
    return peak_memory(device, prepare, *args).peak


def peak_memory(device: torch.device, prepare: Callable[..., Callable[[], object]], *args: Any) -> PeakMemory:
    """Memory of a new process while it calls what ``prepare(*args)`` returned, and before it called ``prepare``.

    On CUDA what torch allocated on the device; otherwise resident memory. On Linux the peak is set back once
    ``prepare`` is done, so that what only loading needs does not count; elsewhere it counts. ``prepare`` must
    be importable, and it and ``args`` picklable.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measured_call, device, prepare, args).result()


def _measured_call(
    device: torch.device, prepare: Callable[..., Callable[[], object]], args: tuple[Any, ...]
) -> PeakMemory:
    # prepare's module and those that it imports are there: they came with its name.
    at_start = peak_resident_mib()
    call = prepare(*args)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return PeakMemory(torch.cuda.max_memory_allocated(device) / 2**20, 0.0)
    # Not permitted in every container; the peak then includes loading, as on other systems.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    call()
    return PeakMemory(peak_resident_mib(), at_start)


def peak_resident_mib() -> float:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which a new process inherits from its parent.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, instruction sets that torch and asrkern use, and versions."""
    cuda = device.type == "cuda"
    return {
        "cpu": _cpu_model(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "asrkern_isa": cpu_isa(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
