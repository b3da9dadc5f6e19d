"""How many threads there are and how idle ones wait: decided before torch loads its OpenMP runtime, which asks once."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

# Between two parallel loops libgomp's idle threads spin for milliseconds, on cores that other processes may wait for.
# So many turns, a few microseconds, bridge the gap between torch's loops; then a thread sleeps.
SPIN_COUNT = 2000


class Threads(NamedTuple):
    """count: what torch is to use, None for what it chooses; reason: who says so, for people."""

    count: int | None  # type: ignore[assignment]  # hides tuple.count
    reason: str


def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """CPUs' worth of time that this process's control groups allow (Linux cgroups v2 and v1), None without a limit.

    ``cpu.max`` and ``cpu.cfs_quota_us`` over its period, the least of the group and of those above it.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = (root / controllers, root / "cpu") if controllers else (root, root / "unified")
        for mount in mounts:
            # A container may see its group as the root, and a path of the host's that is not there.
            group = mount / path.lstrip("/")
            limits += [_limit(folder) for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    def read(name: str) -> list[str]:
        try:
            return (group / name).read_text().split()
        except OSError:
            return []

    quota_period = read("cpu.max") or [*read("cpu.cfs_quota_us"), *read("cpu.cfs_period_us")]
    try:
        quota, period = map(int, quota_period)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


@functools.cache
def choose() -> Threads:
    """ASRKERN_THREADS; else the whole CPUs of a quota, if they are fewer than the CPUs that this process may run on.

    Whole ones: threads that wait for each other stand still together when a quota is used up. Asked once.

    Raises:
        ValueError: ASRKERN_THREADS is no positive integer.
    """
    if value := os.environ.get("ASRKERN_THREADS"):
        if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 15:
            raise ValueError(f"ASRKERN_THREADS: expected a positive number of threads, received {value!r}")
        return Threads(int(value), "ASRKERN_THREADS")
    if "OMP_NUM_THREADS" in os.environ:
        return Threads(None, "OMP_NUM_THREADS")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    if quota is None or quota >= cpus:
        return Threads(None, f"{cpus} CPUs")
    return Threads(max(1, int(quota)), f"this container's quota, {quota:g} of {cpus} CPUs")


def is_command() -> bool:
    """Whether this package is being imported as ``asrkern …`` or ``python -m asrkern …``."""
    if sys.argv[:1] == ["-m"]:
        # What stands there while Python looks for the module, whose name is before the arguments.
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "asrkern"
    return Path(sys.argv[0] if sys.argv else "").stem == "asrkern"


def prepare_command() -> None:
    """Set the environment that the OpenMP runtime will read, where the user has not."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT=str(SPIN_COUNT))
    try:
        count, _ = choose()
    except ValueError:
        return  # main says it
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)


def apply() -> None:
    """Let torch have the chosen number of threads; says so where that changes it.

    Raises:
        ValueError: as :func:`choose`.
    """
    import torch

    count, reason = choose()
    if count is not None and torch.get_num_threads() != count:
        logging.getLogger("asrkern").warning(
            "%d threads in place of %d: %s", count, torch.get_num_threads(), reason
        )
        torch.set_num_threads(count)
