"""A command alone, and beside processes that want the same CPUs: its seconds of wall clock and of CPU.

    python benchmarks/models/crowded.py -- sh -c 'asrkern train recipes/s1_grid.toml trainer.epochs=1 -o $(mktemp -d)/run'

The exit status is 1 where the command fails, or takes more than ``--most`` times the CPU time in the crowd.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import markdown_table


@contextmanager
def crowd(processes: int):
    """So many processes that do nothing but compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of wall clock, and of CPU with those of the command's own children."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]}: exit status {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--load", type=int, default=9, help="processes beside the command (default 9)")
    parser.add_argument(
        "--most", type=float, default=3.0, help="times the CPU seconds of the run alone (default 3)"
    )
    parser.add_argument("command", nargs="+", help="after --")
    arguments = parser.parse_args()
    wall, cpu = run(arguments.command)
    with crowd(arguments.load):
        crowded_wall, crowded_cpu = run(arguments.command)
    rows = [
        {"": "alone", "wall s": f"{wall:.1f}", "CPU s": f"{cpu:.1f}"},
        {"": f"beside {arguments.load}", "wall s": f"{crowded_wall:.1f}", "CPU s": f"{crowded_cpu:.1f}"},
        {"": "ratio", "wall s": f"{crowded_wall / wall:.2f}", "CPU s": f"{crowded_cpu / cpu:.2f}"},
    ]
    print(markdown_table(rows))
    if crowded_cpu > arguments.most * cpu:
        raise SystemExit(f"expected at most {arguments.most:g} times the CPU seconds of the run alone")


if __name__ == "__main__":
    main()
