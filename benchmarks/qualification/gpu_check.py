"""Builds, tests and times the GPU kernels, and records which may run by default.

    python benchmarks/qualification/gpu_check.py --out DIR
        On a machine with a GPU, in under 8 minutes: build, small cases, tests, compute-sanitizer, times. DIR gets gpu.json,
        gpu.md, the rows, the logs and what was built. Without --out: benchmarks/results.
    python benchmarks/qualification/gpu_check.py --resume DIR --out DIR2 --minutes 4
        Goes on, on the same or another machine: what DIR has passed with the present sources is not done again.
    python benchmarks/qualification/gpu_check.py --stale
        Without a GPU: lists what has changed since its check (exit status 1 if any).

Every kernel is checked in processes of its own with a time limit each, the kernel that matters most first, and what a
process found is written as soon as it ends: a kernel that hangs or dies costs itself alone, a kill what was under way.
Kernels that are not checked this time (--only) keep their record. A kernel passes if its small cases and all its tests
passed, none was skipped, and compute-sanitizer found nothing; where that is missing or was cut, the record says so and
the kernel passes without. Where the CUDA kernels do not compile, those of Triton are checked all the same. Builds compare
the record's SHA-256 sums with the sources (asrkern/_gpu_kernels.py). The interpreter needs torch with CUDA, pytest, pip,
setuptools, cmake, ninja and pybind11, Triton for its kernels, and is quicker with pytest-xdist; no network.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.qualification import _gpu_files, _gpu_report, ptxas_report
from benchmarks.qualification._kernel_names import triton_functions

ROOT = Path(__file__).resolve().parents[2]
# By its path: the package itself is not built yet.
_spec = importlib.util.spec_from_file_location("_gpu_kernels", ROOT / "asrkern" / "_gpu_kernels.py")
gpu_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_kernels)
KERNELS = gpu_kernels.KERNELS

RESULTS = ROOT / "benchmarks" / "results"
STAGES = ("build", "small", "test", "sanitize", "time")
BUILD_SECONDS, SMALL_SECONDS, TEST_SECONDS, SANITIZE_SECONDS = 240, 60, 150, 90
#: How long a process may take to die: one whose kernel does not end may never.
KILL_SECONDS = 10
# Kernels checked at a time, each by so many processes: tests wait for compilers and for the CPU more than for the GPU.
PARALLEL, TEST_WORKERS = 4, 4
#: Characters of all that is printed but for one line a command, of a command in its line, and of its output in a log.
PRINTED, LINE, LOGGED = 5000, 80, 50_000

#: Kernel → its tests: which of them (pytest's -k), and the file; what matters most first. What they leave unwritten is
#: NaN (ASRKERN_CHECK).
TESTS: dict[str, tuple[str, str]] = {
    "gru_forward": ("not backward", "tests/gpu/test_gru.py"),
    "ctc_beam_search": ("", "tests/gpu/test_ctc_beam_search.py"),
    "masked_conv2d": ("", "tests/gpu/test_masked_conv2d.py"),
    "batch_norm_act": ("", "tests/gpu/test_batch_norm_act.py"),
    "gru_backward": ("backward", "tests/gpu/test_gru.py"),
}
#: Of layers and models on a GPU, about no kernel of their own.
OTHER_TESTS = ("", "tests/ops", "tests/nn", "tests/decoder")

#: Group of gpu_bench.py → (the kernels that it is about, its share of the time).
GROUPS: dict[str, tuple[tuple[str, ...], float]] = {
    "gru": (("gru_forward",), 0.25),
    "beam": (("ctc_beam_search",), 0.1),
    "conv": (("masked_conv2d",), 0.2),
    "bn": (("batch_norm_act",), 0.1),
    "deepspeech2": (("gru_forward", "masked_conv2d"), 0.15),
    "gru-train": (("gru_backward",), 0.2),
}
#: What a build makes, and what Python knows an installed package by: all that another machine of the kind needs.
BUILT = ("asrkern/_C*.so", "asrkern/_decoder*.so", "asrkern/_gpu_checked.json", "asrkern.egg-info/*")
BUILD_ROOT = ROOT
#: What is wrong with a kernel that _gpu_small.py calls off.
OFF = "is not built, or Triton is missing"
LOGS = ("build.log", "checks.log", "times.log")

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
    """A command that ended; status is None if it was killed at its time limit, or never begun."""

    status: int | None
    seconds: float
    output: str

    @property
    def problem(self) -> str | None:
        """What went wrong, in a few words; None if nothing did."""
        if self.status is None:
            return f"killed after {self.seconds:.0f} s" if self.seconds else _gpu_report.NO_TIME
        return f"exit status {self.status}" if self.status else None


# Of one session, so that what ends this script from outside finds its processes.
_OWN_GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
)


def run(command: Sequence[str], seconds: float, **environment: str) -> Finished:
    """Run a command in the repository and end it, with all that it started, at its time limit."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, **_OWN_GROUP,
        )  # fmt: skip
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
        output.seek(0)
        return Finished(status, time.monotonic() - start, output.read())


class Check:
    """One run of gpu_check.py.

    Args:
        out: the folder for gpu.json, gpu.md, rows.jsonl, the logs and build.tar.gz.
        names: the kernels to check.
        seconds: for everything.
        quick: few timings.
        resume: the out of an earlier run, which this one continues.
    """

    def __init__(
        self, out: Path, names: Sequence[str], seconds: float, quick: bool, resume: Path | None = None
    ) -> None:
        self.out, self.quick, self.resume = out, quick, resume
        self.names = [name for name in TESTS if name in names]
        self.end = time.monotonic() + seconds
        # Kernels whose record is of this run, or of the one that it continues.
        self.begun: set[str] = set()
        self.record: dict[str, Any] = earlier_record((resume or RESULTS) / "gpu.json")
        self.record.setdefault("kernels", {})
        self.earlier = self.record.get("about", {})
        self.record["about"] = {"date": datetime.date.today().isoformat()}
        kept = _gpu_files.read_rows(resume / "rows.jsonl") if resume else []
        out.mkdir(parents=True, exist_ok=True)
        # The logs of this run only.
        for log in LOGS:
            (out / log).unlink(missing_ok=True)
        _gpu_files.write_rows(out / "rows.jsonl", kept)

    def run(self, log: str, command: Sequence[str], seconds: float, **environment: str) -> Finished:
        """:func:`run` within what is left of all time, its output added to a log."""
        left = min(seconds, self.end - time.monotonic())
        if left < 1:
            return Finished(None, 0.0, "")
        done = run(command, left, ASRKERN_CUDA="force", **environment)
        with (self.out / log).open("a") as file:
            output = shortened(done.output, LOGGED)
            file.write(
                f"\n$ {shlex.join(command)}\n{output}\n[{done.problem or 'ok'}, {done.seconds:.1f} s]\n"
            )
        said = " ".join(shlex.join([Path(command[0]).name, *command[1:]]).replace(f"{ROOT}/", "").split())
        # The kernel or the group comes last.
        said = said if len(said) <= LINE else f"{said[: LINE - 35]} … {said[-32:]}"
        print(f"{done.seconds:5.1f} s  {done.problem or 'ok'}: {said}", flush=True)
        return done

    def write(self) -> None:
        """Write what there is so far; never half a file."""
        texts = {
            "gpu.json": json.dumps(self.record, indent=1) + "\n",
            "gpu.md": _gpu_report.markdown(self.record, self.checked(), list(KERNELS)),
        }
        for name, text in texts.items():
            with _gpu_files.whole(self.out / name) as part:
                part.write_text(text)

    def checked(self) -> dict[str, dict]:
        return gpu_kernels.checked_kernels(self.record["kernels"], ROOT)

    def about(self) -> bool:
        """Record device and versions; False without a device."""
        done = self.run("build.log", [sys.executable, "-c", _ABOUT], 120)
        # Libraries may have their say before and after.
        found = [line for line in done.output.splitlines() if line.startswith("{")]
        if done.problem or not found:
            print(done.output[-PRINTED:])
            return False
        self.record["about"] |= json.loads(found[-1])
        for name, command, pattern in (
            ("driver", ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], r"(\S+)"),
            ("nvcc", ["nvcc", "--version"], r"release (\S+),"),
        ):
            if shutil.which(command[0]):
                found = re.search(pattern, self.run("build.log", command, 30).output)
                self.record["about"][name] = found[1] if found else "unknown"
        if self.resume:
            self._forget_what_changed()
        self.write()
        return True

    def _forget_what_changed(self) -> None:
        """Keep of the earlier run what the present sources, device and versions would give again."""
        about = self.record["about"]
        same = all(self.earlier.get(key) == about.get(key) for key in ("device", "torch", "cuda", "triton"))
        kernels = self.record["kernels"]
        self.begun = {
            name for name in kernels if same and not gpu_kernels.changed_sources(name, kernels[name], ROOT)
        }
        if not same:
            self.record.pop("other_tests", None)
            self.record.pop("ceilings", None)
        path = self.out / "rows.jsonl"
        kept = [
            row
            for row in _gpu_files.read_rows(path)
            if same and "failed" not in row and self.begun.issuperset(self._kernels_of(row["group"]))
        ]
        _gpu_files.write_rows(path, kept)
        self.record["rows"] = []

    @staticmethod
    def _kernels_of(group: str) -> tuple[str, ...]:
        return GROUPS[group][0] if group in GROUPS else ()

    def build(self) -> bool:
        """Build for this device only, and record what ptxas said; what an earlier run built is taken from there.

        Where the CUDA kernels do not build, the rest is built without them. False if that does not load either.
        """
        sources = self._build_sources()
        if (
            self.resume
            and self.record.get("build", {}).get("sources") == sources
            and self._unpack(self.resume)
        ):
            return True
        begin = time.monotonic()
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
        loads = done if done.problem else self._loads()
        build = {"passed": loads.problem is None, "seconds": round(done.seconds, 1), "sources": sources}
        # What is built already is not compiled again.
        if kernels := ptxas_report.parse(done.output):
            build["kernels"] = [str(kernel) for kernel in kernels]
        self.record["build"] = {
            **{key: value for key, value in self.record.get("build", {}).items() if key != "failures"},
            **build,
        }
        if loads.problem:
            self.record["build"]["failures"] = build_failures(loads)
            print("\n".join(self.record["build"]["failures"]))
        self.write()
        left = BUILD_SECONDS - (time.monotonic() - begin)
        if loads.problem and not self._built_otherwise(loads, left, architecture):
            return False
        with (
            _gpu_files.whole(self.out / "build.tar.gz") as part,
            tarfile.open(part, "w:gz", compresslevel=3) as archive,
        ):
            for path in sorted({path for pattern in BUILT for path in BUILD_ROOT.glob(pattern)}):
                archive.add(path, path.relative_to(BUILD_ROOT))
        return True

    def _loads(self) -> Finished:
        return self.run("build.log", [sys.executable, "-m", "asrkern"], 60)

    def _built_otherwise(self, failed: Finished, seconds: float, architecture: str) -> bool:
        """Whether there is something to check all the same: all, if only pip was in the way, else Triton's kernels."""
        end = time.monotonic() + seconds
        for cuda in ("ON", "OFF"):
            # Ninja says so of what does not compile.
            if not shutil.which("cmake") or (cuda == "ON" and "FAILED: " in failed.output):
                continue
            # It may be that of other sources.
            (BUILD_ROOT / "asrkern" / "_C_cuda.so").unlink(missing_ok=True)
            commands = [
                ["cmake", f"-DASRKERN_CUDA={cuda}", "-S", ".", "-B", "build/cmake"],
                ["cmake", "--build", "build/cmake"],
            ]
            if (
                not any(
                    self.run("build.log", command, end - time.monotonic(), CUDAARCHS=architecture).problem
                    for command in commands
                )
                and not self._loads().problem
            ):
                return True
        return False

    def _unpack(self, earlier: Path) -> bool:
        """Whether what an earlier run built is whole and loads."""
        kept = earlier / "build.tar.gz"
        if not kept.is_file():
            return False
        try:
            with tarfile.open(kept) as archive:
                # All of it is read before any of it is written.
                archive.getmembers()
                # Python 3.10.11, 3.11.3 and before have no filters.
                archive.extractall(
                    BUILD_ROOT, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
                )
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            print(f"{kept} is damaged, built again: {error}")
            return False
        with contextlib.suppress(shutil.SameFileError):
            shutil.copy(kept, self.out)
        return self._loads().problem is None

    def _build_sources(self) -> str:
        """One SHA-256 of all that is compiled, and of what it is compiled with and for."""
        about = self.record["about"]
        digest = hashlib.sha256(
            json.dumps([about.get(key) for key in ("python", "torch", "capability")]).encode()
        )
        files = [ROOT / "CMakeLists.txt", ROOT / "setup.py"]
        files += [path for room in ("kernels", "csrc") for path in sorted((ROOT / room).rglob("*"))]
        for path in files:
            if path.is_file():
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def small(self) -> None:
        """The small cases of each kernel; a kernel's record begins here."""
        waiting = [name for name in self.names if self._is_due(name, "small")]
        for name in waiting:
            self._begin(name)
        for name, found in self._together(waiting, lambda name: small_counts(self._small(name))):
            self.record["kernels"][name]["small"] = found
            self._judge(name, "small", found)

    def _small(self, name: str, *before: str, log: str = "checks.log", **environment: str) -> Finished:
        script = ROOT / "benchmarks" / "qualification" / "_gpu_small.py"
        seconds = SANITIZE_SECONDS if before else SMALL_SECONDS
        return self.run(
            log, [*before, sys.executable, str(script), name], seconds, ASRKERN_CHECK="1", **environment
        )

    def test(self) -> None:
        """Each kernel's tests, several at once, and those that are about no kernel."""
        waiting = []
        for name in self.names:
            if name not in self.begun:
                self._begin(name)
            if lost := self._lost(name):
                print(f"{name} not tested: {lost}")
            elif self._is_due(name, "tests"):
                waiting.append(name)
        done = self.resume and "problem" not in self.record.get("other_tests", {"problem": "not run"})
        others = [] if done else [""]
        chosen = {**TESTS, "": OTHER_TESTS}
        for name, counts in self._together([*waiting, *others], lambda name: self._tests(*chosen[name])):
            if name:
                self.record["kernels"][name]["tests"] = counts
                self._judge(name, "tests", counts)
            else:
                self.record["other_tests"] = counts
                self.write()

    def _together(self, names: Sequence[str], check: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
        """(name, what check(name) says) as they end; begun in this order, some at a time."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            under_way: dict[Future, str] = {pool.submit(check, name): name for name in names}
            for done in as_completed(under_way):
                yield under_way[done], done.result()

    def _begin(self, name: str) -> None:
        about = self.record["about"]
        self.record["kernels"][name] = {
            "passed": False,
            "small": {},
            "tests": {},
            "sanitizer": {},
            **{
                key: about[key] for key in ("device", "capability", "torch", "triton", "date") if key in about
            },
            "sources": gpu_kernels.sources(name, ROOT),
        }
        self.begun.add(name)

    def _found(self, name: str, stage: str) -> dict[str, Any]:
        """What a stage found of a kernel; empty if it has not run."""
        return self.record["kernels"].get(name, {}).get(stage, {})

    def _lost(self, name: str) -> str | None:
        """Why nothing more can be asked of a kernel, by its small cases."""
        problem = self._found(name, "small").get("problem", "")
        if "killed" in problem:
            return "its small cases hung"
        return problem if problem == OFF else None

    def _is_due(self, name: str, stage: str) -> bool:
        """Whether a stage has not passed for this kernel, in this run or the one that it continues."""
        found = self._found(name, stage)
        return name not in self.begun or not found or "problem" in found

    def _judge(self, name: str, stage: str, found: Any) -> None:
        """Record whether a kernel has passed, by all that was found so far, of which the last is told."""
        check = self.record["kernels"][name]
        errors = any(re.match(r"[1-9]", found) for found in check["sanitizer"].values())
        tests = check["tests"]
        check["passed"] = (
            bool(tests) and not errors and not any("problem" in c for c in (tests, check.get("small", {})))
        )
        self.write()
        said = found if isinstance(found, str) else _gpu_report.counts_text(found)
        print(f"recorded {name}, {stage}: {said}", flush=True)

    def _tests(self, chosen: str, *paths: str) -> dict[str, Any]:
        if missing := [path for path in paths if not (ROOT / path).exists()]:
            return {"passed": 0, "problem": f"{', '.join(missing)} missing"}
        options = ["-m", "gpu", "-v", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=60"]
        command = [sys.executable, "-m", "pytest", *options, *(["-k", chosen] if chosen else []), *paths]
        environment = {"ASRKERN_CHECK": "1"}
        if importlib.util.find_spec("xdist"):
            # The float64 references on the CPU take longest.
            command += ["-n", str(TEST_WORKERS)]
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // (PARALLEL * TEST_WORKERS)))
        return test_counts(self.run("checks.log", command, TEST_SECONDS, **environment))

    def sanitize(self) -> None:
        """compute-sanitizer on the small cases: memory, and for CUDA kernels races in shared memory."""
        names = [name for name in self.names if name in self.record["kernels"] and not self._lost(name)]
        if not shutil.which("compute-sanitizer"):
            for name in names:
                self.record["kernels"][name]["sanitizer"] = {"compute-sanitizer": "not on this machine"}
            return self.write()
        jobs = [f"{name} {tool}" for name in names for tool in ("memcheck", "racecheck")]
        jobs = [job for job in jobs if not self._sanitizer_said(*job.split())]
        for job, found in self._together(jobs, lambda job: self._sanitized(*job.split())):
            name, tool = job.split()
            self.record["kernels"][name]["sanitizer"][tool] = found
            self._judge(name, tool, found)

    def _sanitizer_said(self, name: str, tool: str) -> bool:
        """Whether it has answered already, or has nothing to say: Triton orders its own accesses to shared memory."""
        if tool == "racecheck" and gpu_kernels.is_triton(name):
            return True
        return name in self.begun and self._found(name, "sanitizer").get(tool, "").endswith("errors")

    def _sanitized(self, name: str, tool: str) -> str:
        paths = [
            ROOT / path for path, digest in gpu_kernels.sources(name, ROOT).items() if digest != "missing"
        ]
        ours = triton_functions(paths) if gpu_kernels.is_triton(name) else ["asrkern"]
        # Only kernels whose names hold one of these; torch has calls that fail and that it expects to.
        filters = [part for substring in ours for part in ("--kernel-name", f"kns={substring}")]
        command = ["compute-sanitizer", "--tool", tool, "--report-api-errors", "no", *filters]
        # Allocations of their own, so that reading beyond one is seen.
        return sanitizer_outcome(self._small(name, *command, PYTORCH_NO_CUDA_MEMORY_CACHING="1"))

    def time(self) -> None:
        """The groups of gpu_bench.py whose kernels are checked and did not hang."""
        bench = [
            sys.executable,
            str(ROOT / "benchmarks" / "qualification" / "gpu_bench.py"),
            *("--out", str(self.out / "rows.jsonl"), "--resume"),
        ]
        bench += ["--quick"] if self.quick else []
        self._take_rows()
        if not (self.resume and "ceilings" in self.record):
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
            lost = [
                f"{name} hung" if self.hung(name) else f"{name} {OFF}"
                for name in self._kernels_of(group)
                if self.hung(name) or self._lost(name)
            ]
            if lost or left < 5:
                print(f"{group} not timed: {_gpu_report.NO_TIME if left < 5 else lost[0]}")
                continue
            options = ["--seconds", f"{seconds:.0f}"]
            if "ceilings" in self.record:
                options += ["--copy-gb-s", str(self.record["ceilings"]["copy_gb_s"])]
            # Rows begun before their time is over may end after it.
            self.run("times.log", [*bench, *options, group], seconds + 30)
            self._take_rows()

    def hung(self, name: str) -> bool:
        """Whether a process of this kernel was killed at its time limit."""
        return any("killed" in self._found(name, stage).get("problem", "") for stage in ("small", "tests"))

    def answers(self) -> bool:
        """Whether the device can still be used; not asked unless a kernel hung."""
        if not any(map(self.hung, self.names)):
            return True
        return self.run("build.log", [sys.executable, "-c", _ABOUT], 60).problem is None

    def _take_rows(self) -> None:
        """Put what gpu_bench.py has written in place of the earlier rows of the same groups."""
        path = self.out / "rows.jsonl"
        found = _gpu_files.read_rows(path)
        # Without the half of a row that a process left which was killed: the next one appends.
        _gpu_files.write_rows(path, found)
        new = {row["group"] for row in found}
        rows = [row for row in self.record.get("rows", []) if row["group"] not in new]
        for row in found:
            if row["group"] == "ceilings":
                self.record["ceilings"] = {key: value for key, value in row.items() if key != "group"}
            else:
                rows.append(row)
        self.record["rows"] = rows
        self.write()


def earlier_record(path: Path) -> dict[str, Any]:
    """The gpu.json of an earlier run; empty without one, and where it is damaged, which is said."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        if isinstance(record["kernels"], dict):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    print(f"{path} is damaged: nothing of it is kept")
    return {}


def shortened(text: str, most: int) -> str:
    """The text's beginning and end, in so many characters."""
    if len(text) <= most:
        return text
    gap = f"\n… {len(text) - most} characters and more left out …\n"
    end = 3 * (most - len(gap)) // 4
    return text[: most - len(gap) - end] + gap + text[-end:]


def build_failures(done: Finished) -> list[str]:
    """What the compilers said was wrong: other files' output follows it, since they compile at once."""
    lines = [line.strip() for line in done.output.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"\berror\b|^FAILED|\bundefined\b", line)]
    return [line[:200] for line in wrong[:12] or lines[-12:]] or [str(done.problem)]


def small_counts(done: Finished) -> dict[str, Any]:
    """passed and failed cases of _gpu_small.py, and what went wrong: the problem, and the last lines of the output."""
    wrong = len(re.findall(r" WRONG, allowed ", done.output))
    passed = len(re.findall(r": \d\.\de[+-]\d+$", done.output, re.MULTILINE))
    found: dict[str, Any] = {"passed": passed, "failed": wrong, "seconds": round(done.seconds, 1)}
    if re.search(r"^\w+ is off$", done.output, re.MULTILINE):
        found["problem"] = OFF
    elif done.problem or wrong or not passed:
        found["problem"] = "not all right" if wrong and done.status == 1 else done.problem or "no case ran"
        found["failures"] = [line[:200] for line in done.output.strip().splitlines()[-12:]]
    return found


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
    if "problem" in counts:
        lines = done.output.strip().splitlines()
        failed = [line for line in lines if re.match(r"(FAILED|ERROR) \S+::", line)]
        # A process that dies says why before it shows where.
        died = [line for line in lines if re.search(r"Fatal Python error|Error:|CUDA error", line)]
        counts["failures"] = [line[:200] for line in failed[:12] or [*died[:6], *lines[-6:]]]
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
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for the record, the logs and the build"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="the --out of an earlier run, to go on with"
    )
    arguments = parser.parse_args(argv)
    if arguments.table:
        print(table())
        return 0
    if arguments.stale:
        lines = stale()
        print("\n".join(lines) or "the record is current")
        return 1 if lines else 0
    if arguments.resume and not (arguments.resume / "gpu.json").is_file():
        parser.error(f"--resume: expected a folder with a gpu.json, received {arguments.resume}")
    names = arguments.only or KERNELS
    check = Check(arguments.out, names, 60 * arguments.minutes, arguments.quick, arguments.resume)
    if not check.about():
        print("no CUDA device, or no torch with CUDA: nothing checked")
        return 1
    if "build" in arguments.stages and not check.build():
        print("not built: nothing checked")
        return 1
    for stage in ("small", "test", "sanitize", "time"):
        if stage in arguments.stages:
            getattr(check, stage)()
            if not check.answers():
                print(f"after the stage {stage} the device answers no more: the rest was not checked")
                break
    print("\n" + _gpu_report.summary(check.record, check.checked(), list(KERNELS), PRINTED))
    return 0 if all(check.record["kernels"].get(name, {}).get("passed") for name in check.names) else 1


if __name__ == "__main__":
    sys.exit(main())
