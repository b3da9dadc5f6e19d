"""Builds, tests and times the GPU kernels, and records which may run by default.

    python benchmarks/qualification/gpu_check.py            on a machine with a GPU: build, tests, compute-sanitizer, times;
                                                            in under 8 minutes; writes gpu.json and gpu.md to
                                                            benchmarks/results (--out DIR)
    python benchmarks/qualification/gpu_check.py --stale    without one: lists what has changed since its check (exit
                                                            status 1 if any)

Each stage has a time limit, and what it found is written when it ends: a kernel that hangs or a kill loses no more than
that. Kernels that are not checked this time (--only) keep their record. A kernel passes if all its tests passed, none
was skipped, and compute-sanitizer, where there is one, found nothing; builds compare the record's SHA-256 sums with the
sources (asrkern/_gpu_kernels.py). The interpreter needs torch with CUDA, pytest, cmake, ninja and pybind11; no network.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.qualification import _gpu_report, ptxas_report
from benchmarks.qualification._kernel_names import triton_functions

ROOT = Path(__file__).resolve().parents[2]
# By its path: the package itself is not built yet.
_spec = importlib.util.spec_from_file_location("_gpu_kernels", ROOT / "asrkern" / "_gpu_kernels.py")
gpu_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_kernels)
KERNELS = gpu_kernels.KERNELS

RESULTS = ROOT / "benchmarks" / "results"
STAGES = ("build", "test", "sanitize", "time")
BUILD_SECONDS, TEST_SECONDS, SANITIZE_SECONDS = 300, 150, 90
# Kernels tested at a time, each by so many processes: tests wait for compilers and for the CPU more than for the GPU.
PARALLEL_TESTS, TEST_WORKERS = 4, 4

#: Kernel → its tests: which of them (pytest's -k), and the file. What they leave unwritten is NaN (ASRKERN_CHECK).
TESTS: dict[str, tuple[str, str]] = {
    "gru_forward": ("not backward", "tests/gpu/test_gru.py"),
    "gru_backward": ("backward", "tests/gpu/test_gru.py"),
    "batch_norm_act": ("", "tests/gpu/test_batch_norm_act.py"),
    "masked_conv2d": ("", "tests/gpu/test_masked_conv2d.py"),
    "ctc_beam_search": ("", "tests/gpu/test_ctc_beam_search.py"),
}
#: Of layers and models on a GPU, about no kernel of their own.
OTHER_TESTS = ("", "tests/ops", "tests/nn", "tests/decoder")

#: Group of gpu_bench.py → (the kernels that it is about, its share of the time).
GROUPS: dict[str, tuple[tuple[str, ...], float]] = {
    "gru": (("gru_forward",), 0.25),
    "conv": (("masked_conv2d",), 0.2),
    "bn": (("batch_norm_act",), 0.1),
    "beam": (("ctc_beam_search",), 0.1),
    "deepspeech2": (("gru_forward", "masked_conv2d"), 0.15),
    "gru-train": (("gru_backward",), 0.2),
}

_ABOUT = """
import json, platform, torch
found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
found |= {"device": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability())}
try:
    import triton
    found["triton"] = triton.__version__
except ImportError:
    pass
print(json.dumps(found))
"""


class Finished(NamedTuple):
    """A command that ended; status is None if it was killed at its time limit."""

    status: int | None
    seconds: float
    output: str

    @property
    def problem(self) -> str | None:
        """What went wrong, in a few words; None if nothing did."""
        if self.status is None:
            return f"killed after {self.seconds:.0f} s"
        return f"exit status {self.status}" if self.status else None


def run(command: Sequence[str], seconds: float, **environment: str) -> Finished:
    """Run a command in the repository and end it, with all that it started, at its time limit."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        return Finished(status, time.monotonic() - start, output.read())


class Check:
    """One run of gpu_check.py.

    Args:
        out: the folder for gpu.json, gpu.md and the logs.
        names: the kernels to check.
        seconds: for everything.
        quick: few timings.
    """

    def __init__(self, out: Path, names: Sequence[str], seconds: float, quick: bool) -> None:
        self.out, self.names, self.quick = out, list(names), quick
        self.end = time.monotonic() + seconds
        out.mkdir(parents=True, exist_ok=True)
        # The logs of this run only.
        for log in ("build.log", "tests.log", "sanitizer.log", "times.log", "rows.jsonl"):
            (out / log).unlink(missing_ok=True)
        before = RESULTS / "gpu.json"
        self.record: dict[str, Any] = json.loads(before.read_text()) if before.is_file() else {}
        self.record.setdefault("kernels", {})
        self.record["about"] = {"date": datetime.date.today().isoformat()}

    def run(self, log: str, command: Sequence[str], seconds: float, **environment: str) -> Finished:
        """:func:`run` within what is left of all time, its output added to a log."""
        done = run(command, min(seconds, self.end - time.monotonic()), ASRKERN_CUDA="force", **environment)
        with (self.out / log).open("a") as file:
            file.write(
                f"\n$ {shlex.join(command)}\n{done.output}\n[{done.problem or 'ok'}, {done.seconds:.1f} s]\n"
            )
        print(f"{done.seconds:6.1f} s  {done.problem or 'ok'}: {shlex.join(command)[:120]}", flush=True)
        return done

    def write(self) -> None:
        """Write what there is so far; never half a file."""
        checked = gpu_kernels.checked_kernels(self.record["kernels"], ROOT)
        texts = {
            "gpu.json": json.dumps(self.record, indent=1) + "\n",
            "gpu.md": _gpu_report.markdown(self.record, checked, list(KERNELS)),
        }
        for name, text in texts.items():
            (self.out / f"{name}.part").write_text(text)
            (self.out / f"{name}.part").replace(self.out / name)

    def about(self) -> bool:
        """Record device and versions; False without a device."""
        done = self.run("build.log", [sys.executable, "-c", _ABOUT], 120)
        if done.problem:
            print(done.output)
            return False
        self.record["about"] |= json.loads(done.output.strip().splitlines()[-1])
        for name, command, pattern in (
            ("driver", ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], r"(\S+)"),
            ("nvcc", ["nvcc", "--version"], r"release (\S+),"),
        ):
            if shutil.which(command[0]):
                found = re.search(pattern, self.run("build.log", command, 30).output)
                self.record["about"][name] = found[1] if found else "unknown"
        self.write()
        return True

    def build(self) -> bool:
        """Build for this device only, and record what ptxas said."""
        major, minor = self.record["about"]["capability"]
        # 9.0's own instructions need the "a".
        architecture = f"{major}{minor}{'a' if major >= 9 else ''}-real"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-v",
            "--no-build-isolation",
            "--no-deps",
            "-e",
            ".",
        ]
        done = self.run("build.log", command, BUILD_SECONDS, CUDAARCHS=architecture)
        loads = done if done.problem else self.run("build.log", [sys.executable, "-m", "asrkern"], 60)
        build = {"passed": loads.problem is None, "seconds": round(done.seconds, 1)}
        # What is built already is not compiled again.
        if kernels := ptxas_report.parse(done.output):
            build["kernels"] = [str(kernel) for kernel in kernels]
        self.record["build"] = self.record.get("build", {}) | build
        self.write()
        print(loads.output[-6000:])
        return build["passed"]

    def test(self) -> None:
        """Each kernel's tests, several at once, and those that are about no kernel; a kernel's record begins here."""
        with ThreadPoolExecutor(PARALLEL_TESTS) as pool:
            others = pool.submit(self._tests, *OTHER_TESTS)
            for name, counts in zip(self.names, pool.map(lambda name: self._tests(*TESTS[name]), self.names)):
                about = self.record["about"]
                self.record["kernels"][name] = {
                    "passed": "problem" not in counts,
                    "tests": counts,
                    "sanitizer": {},
                    **{
                        key: about[key]
                        for key in ("device", "capability", "torch", "triton", "date")
                        if key in about
                    },
                    "sources": gpu_kernels.sources(name, ROOT),
                }
                self.write()
            self.record["other_tests"] = others.result()
        self.write()

    def _tests(self, chosen: str, *paths: str) -> dict[str, Any]:
        if missing := [path for path in paths if not (ROOT / path).exists()]:
            return {"passed": 0, "problem": f"{', '.join(missing)} missing"}
        options = ["-m", "gpu", "-v", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=60"]
        command = [sys.executable, "-m", "pytest", *options, *(["-k", chosen] if chosen else []), *paths]
        environment = {"ASRKERN_CHECK": "1"}
        if importlib.util.find_spec("xdist"):
            # The float64 references on the CPU take longest.
            command += ["-n", str(TEST_WORKERS)]
            environment["OMP_NUM_THREADS"] = str(
                max(1, (os.cpu_count() or 1) // (PARALLEL_TESTS * TEST_WORKERS))
            )
        return test_counts(self.run("tests.log", command, TEST_SECONDS, **environment))

    def sanitize(self) -> None:
        """compute-sanitizer on small shapes: memory, and for CUDA kernels races in shared memory."""
        names = [name for name in self.names if name in self.record["kernels"]]
        if not shutil.which("compute-sanitizer"):
            for name in names:
                self.record["kernels"][name]["sanitizer"] = {"compute-sanitizer": "not on this machine"}
            return self.write()
        jobs = [(name, "memcheck") for name in names]
        jobs += [(name, "racecheck") for name in names if not gpu_kernels.is_triton(name)]
        with ThreadPoolExecutor(PARALLEL_TESTS) as pool:
            for (name, tool), found in zip(jobs, pool.map(lambda job: self._sanitized(*job), jobs)):
                check = self.record["kernels"][name]
                check["sanitizer"][tool] = found
                check["passed"] = check["passed"] and not re.match(r"[1-9]", found)
                self.write()

    def _sanitized(self, name: str, tool: str) -> str:
        paths = [
            ROOT / path for path, digest in gpu_kernels.sources(name, ROOT).items() if digest != "missing"
        ]
        ours = triton_functions(paths) if gpu_kernels.is_triton(name) else ["asrkern"]
        # Only kernels whose names hold one of these; torch has calls that fail and that it expects to.
        filters = [part for substring in ours for part in ("--kernel-name", f"kns={substring}")]
        command = ["compute-sanitizer", "--tool", tool, "--report-api-errors", "no", *filters]
        command += [sys.executable, str(ROOT / "benchmarks" / "qualification" / "_gpu_small.py"), name]
        # Allocations of their own, so that reading beyond one is seen.
        done = self.run("sanitizer.log", command, SANITIZE_SECONDS, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        return sanitizer_outcome(done)

    def time(self) -> None:
        """The groups of gpu_bench.py whose kernels are checked and did not hang."""
        bench = [
            sys.executable,
            str(ROOT / "benchmarks" / "qualification" / "gpu_bench.py"),
            "--out",
            str(self.out / "rows.jsonl"),
        ]
        bench += ["--quick"] if self.quick else []
        self.run("times.log", [*bench, "ceilings"], 60)
        self._take_rows()
        waiting = {
            group: share
            for group, (kernels, share) in GROUPS.items()
            if any(name in self.names for name in kernels)
        }
        while waiting:
            left = self.end - time.monotonic()
            group = next(iter(waiting))
            seconds = left * waiting[group] / sum(waiting.values())
            del waiting[group]
            hung = [name for name in GROUPS[group][0] if "killed" in self._problem(name)]
            if hung or left < 5:
                print(f"{group} not timed: {'no time left' if left < 5 else f'{hung[0]} hung in its tests'}")
                continue
            options = ["--seconds", f"{seconds:.0f}"]
            if "ceilings" in self.record:
                options += ["--copy-gb-s", str(self.record["ceilings"]["copy_gb_s"])]
            # Rows begun before their time is over may end after it.
            self.run("times.log", [*bench, *options, group], seconds + 30)
            self._take_rows()

    def _problem(self, name: str) -> str:
        return self.record["kernels"].get(name, {}).get("tests", {}).get("problem", "")

    def _take_rows(self) -> None:
        """Put what gpu_bench.py has written in place of the earlier rows of the same groups."""
        path = self.out / "rows.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        new = {row["group"] for row in found}
        rows = [row for row in self.record.get("rows", []) if row["group"] not in new]
        for row in found:
            if row["group"] == "ceilings":
                self.record["ceilings"] = {key: value for key, value in row.items() if key != "group"}
            else:
                rows.append(row)
        self.record["rows"] = rows
        self.write()


def test_counts(done: Finished) -> dict[str, Any]:
    """passed, failed and skipped tests of a run of pytest, and the problem if not all ran and passed."""
    last = next((line for line in reversed(done.output.splitlines()) if re.search(r" in [\d.]+s", line)), "")
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "seconds": round(done.seconds, 1)}
    for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)", last):
        # Only passing counts as passing.
        key = {"passed": "passed", "failed": "failed", "error": "failed", "errors": "failed"}.get(
            word, "skipped"
        )
        counts[key] += int(number)
    if done.problem and not counts["failed"]:
        counts["problem"] = done.problem
    elif counts["failed"] or counts["skipped"]:
        counts["problem"] = "not all passed"
    elif not counts["passed"]:
        counts["problem"] = "no test ran"
    return counts


def sanitizer_outcome(done: Finished) -> str:
    """What compute-sanitizer found, its number first; or why it says nothing."""
    errors = re.search(r"ERROR SUMMARY: (\d+) error", done.output)
    hazards = re.search(r"RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) errors?", done.output)
    if (found := errors or hazards) and (int(found[1]) or not done.problem):
        return f"{found[1]} errors"
    return f"no result ({done.problem or 'it printed none'})"


def stale() -> list[str]:
    """One line for each kernel that the record does not cover as it is now."""
    record = gpu_kernels.read_record(ROOT / gpu_kernels.RECORD)
    checked = gpu_kernels.checked_kernels(record, ROOT)
    lines = []
    for name in KERNELS:
        if name in checked:
            continue
        if name not in record:
            lines.append(f"{name}: never checked on a GPU")
        elif changed := gpu_kernels.changed_sources(name, record[name], ROOT):
            lines.append(f"{name}: changed since it was checked: {', '.join(changed)}")
        else:
            lines.append(f"{name}: did not pass its check")
    return lines


def table() -> str:
    """README's table of the kernels."""
    record = gpu_kernels.read_record(ROOT / gpu_kernels.RECORD)
    return _gpu_report.kernel_table(
        {"kernels": record}, gpu_kernels.checked_kernels(record, ROOT), list(KERNELS)
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stale", action="store_true", help="only list what changed since its check")
    parser.add_argument("--table", action="store_true", help="only print the table of the kernels for README")
    parser.add_argument(
        "--only", nargs="+", choices=KERNELS, metavar="KERNEL", help="of " + ", ".join(KERNELS)
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all")
    parser.add_argument("--quick", action="store_true", help="few timings")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default: 8)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the record and the logs")
    arguments = parser.parse_args(argv)
    if arguments.table:
        print(table())
        return 0
    if arguments.stale:
        lines = stale()
        print("\n".join(lines) or "the record is current")
        return 1 if lines else 0
    check = Check(arguments.out, arguments.only or KERNELS, 60 * arguments.minutes, arguments.quick)
    if not check.about():
        print("no CUDA device, or no torch with CUDA: nothing checked")
        return 1
    if "build" in arguments.stages and not check.build():
        print("not built: nothing checked")
        return 1
    if "test" in arguments.stages:
        check.test()
    if "sanitize" in arguments.stages:
        check.sanitize()
    if "time" in arguments.stages:
        check.time()
    print("\n" + (arguments.out / "gpu.md").read_text())
    return 0 if all(check.record["kernels"].get(name, {}).get("passed") for name in check.names) else 1


if __name__ == "__main__":
    sys.exit(main())
