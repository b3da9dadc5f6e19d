"""benchmarks/qualification/gpu_check.py and its report, with a pretended GPU: every command's outcome is made up."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest

from benchmarks.qualification import _gpu_report, _gpu_rows, _gpu_small, gpu_check
from benchmarks.qualification.gpu_check import KERNELS, Finished, main, run, sanitizer_outcome

ABOUT = {"python": "3.12.3", "torch": "2.11.0+cu130", "cuda": "13.0", "device": "GPU X", "capability": [9, 0]}
PTXAS = """
  ptxas info    : Compiling entry function 'plain' for 'sm_90a'
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 40 registers, used 1 barriers
"""
ROW = {
    "group": "gru",
    "title": "BiGRU forward",
    "row": "H=1024 N=32",
    "arithmetic": "bf16",
    "errors": {"asrkern": 1e-3, "packed": 2e-3},
    "tolerance": 2e-2,
    "wrong": [],
    "kernels": {"persistent<8>": 1.0},
    "device_ms": 1.0,
    "fallback": [],
    "times": {name: {"median": ms, "low": ms, "high": ms, "samples": 10, "graph": True} for name, ms in
              (("asrkern", 1.0), ("packed", 4.0))},
    "goals": {"x packed": {"goal": 3.0, "reached": 4.0}},
}  # fmt: skip


class Machine:
    """In place of gpu_check.run: what each command says; tests change that."""

    def __init__(self):
        self.commands = []
        self.tests = dict.fromkeys(KERNELS, Finished(0, 2.0, "== 12 passed, 3 deselected in 1.90s =="))
        self.small = Finished(0, 5.0, "gru_forward H=5: 1.0e-07\ngru_forward H=40: 2.1e-03\n2 cases, 0 wrong")
        self.memcheck = Finished(0, 1.0, "========= ERROR SUMMARY: 0 errors")
        self.build = Finished(0, 60.0, PTXAS)
        self.imported = Finished(0, 2.0, "asrkern 0.1.0")
        self.cmake = {"ON": Finished(1, 1.0, "CMake Error"), "OFF": Finished(0, 40.0, "ninja: done")}
        self.about = Finished(0, 3.0, "a warning\n" + json.dumps(ABOUT))
        self.rows = [ROW]
        self.off = set()

    def __call__(self, command, seconds, **environment):
        assert seconds <= 480 and environment["ASRKERN_CUDA"] == "force"
        self.commands.append(command)
        text = " ".join(command)
        if "platform.python_version" in text:
            return self.about
        if "pip install" in text:
            assert environment["CUDAARCHS"] == "90a-real"
            return self.build
        if text.endswith("-m asrkern"):
            return self.imported
        if command[0] == "cmake":
            assert environment["CUDAARCHS"] == "90a-real"
            return next((done for cuda, done in self.cmake.items() if f"-DASRKERN_CUDA={cuda}" in command),
                        Finished(0, 40.0, "ninja: done"))  # fmt: skip
        if "-m pytest" in text:
            assert environment["ASRKERN_CHECK"] == "1" and ("-n" in command) == (
                "OMP_NUM_THREADS" in environment
            )
            return next((self.tests[name] for name, test in gpu_check.TESTS.items()
                         if test[1] in command and (not test[0] or test[0] in command)),
                        Finished(0, 9.0, "= 24 passed in 8.0s ="))  # fmt: skip
        if command[0] == "compute-sanitizer":
            races = Finished(0, 1.0, "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
            return races if "racecheck" in command else self.memcheck
        if "_gpu_small.py" in text:
            return Finished(1, 3.0, f"{command[-1]} is off") if command[-1] in self.off else self.small
        if "gpu_bench.py" in text:
            found = {"group": "ceilings", "copy_gb_s": 4300.0, "bf16_tflop_s": 780.0, "tf32_tflop_s": 390.0,
                     "fp32_tflop_s": 50.0}  # fmt: skip
            rows = [found] if "ceilings" in command else [row for row in self.rows if row["group"] in command]
            with open(command[command.index("--out") + 1], "a+") as file:
                file.seek(0)
                there = file.read()
                file.writelines(line for row in rows if (line := json.dumps(row) + "\n") not in there)
        return Finished(0, 1.0, "release 13.0, V13.0.88")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A GPU with all tools, in a repository whose test files are all there and which has no record."""
    found = Machine()
    monkeypatch.setattr(gpu_check, "run", found)
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path / "before")
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: name)
    sources = {name: {f"{name}.cu": "1234"} for name in KERNELS}
    monkeypatch.setattr(gpu_check.gpu_kernels, "sources", lambda name, root: dict(sources[name]))
    (tmp_path / "root" / "tests" / "gpu").mkdir(parents=True)
    for path in (
        "ops",
        "nn",
        "decoder",
        *(f"gpu/{path.split('/')[-1]}" for _, path in gpu_check.TESTS.values()),
    ):
        (tmp_path / "root" / "tests" / path).touch()
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path / "root")
    monkeypatch.setattr(gpu_check, "BUILD_ROOT", tmp_path / "root")
    found.out = tmp_path / "out"
    return found


def check(machine, *options):
    status = main(["--out", str(machine.out), *options])
    return status, json.loads((machine.out / "gpu.json").read_text())


def test_everything_passes(machine, capsys):
    status, record = check(machine)
    assert status == 0
    assert record["about"]["driver"] == "release" and record["about"]["nvcc"] == "13.0"
    assert record["build"]["kernels"] == ["plain  sm_90a  40 registers"]
    assert record["ceilings"]["copy_gb_s"] == 4300.0 and record["rows"] == [ROW]
    assert record["other_tests"]["passed"] == 24
    for name in KERNELS:
        found = record["kernels"][name]
        assert found["passed"] and found["small"]["passed"] == 2 and found["tests"]["passed"] == 12
        assert (found["device"], found["capability"]) == ("GPU X", [9, 0])
        assert found["sources"] == {f"{name}.cu": "1234"}
    assert record["kernels"]["gru_forward"]["sanitizer"] == {"memcheck": "0 errors", "racecheck": "0 errors"}
    assert "racecheck" not in record["kernels"]["masked_conv2d"]["sanitizer"]
    printed = capsys.readouterr().out
    assert (
        "| `gru_forward`     | verified |" in printed and "H=1024 N=32 bf16: asrkern 1, packed 4" in printed
    )
    # What matters most is begun first.
    small = [c[-1] for c in machine.commands if "_gpu_small.py" in c[1]]
    assert small == list(gpu_check.TESTS)
    # The record goes on where the groups are timed one after the other.
    assert [c[-1] for c in machine.commands if "gpu_bench" in " ".join(c)] == ["ceilings", *gpu_check.GROUPS]


@pytest.mark.parametrize(
    "done, problem",
    [
        (Finished(1, 2.0, "FAILED x\n=== 1 failed, 11 passed in 1.90s ==="), "not all passed"),
        (Finished(0, 2.0, "=== 11 passed, 1 skipped in 1.90s ==="), "not all passed"),
        (Finished(0, 2.0, "=== 11 passed, 1 xfailed in 1.90s ==="), "not all passed"),
        (Finished(1, 2.0, "=== 11 passed, 2 errors in 1.90s ==="), "not all passed"),
        (Finished(5, 2.0, "=== 12 deselected in 0.90s ==="), "exit status 5"),
        (Finished(None, 150.0, "tests/gpu/test_gru.py::test_a PASSED"), "killed after 150 s"),
        (Finished(-11, 2.0, "Fatal Python error: Segmentation fault"), "exit status -11"),
        (Finished(0, 2.0, ""), "no test ran"),
    ],
)
def test_a_kernel_whose_tests_did_not_all_pass_is_not_passed(machine, capsys, done, problem):
    machine.tests["gru_forward"] = done
    status, record = check(machine)
    assert status == 1
    assert not record["kernels"]["gru_forward"]["passed"]
    assert record["kernels"]["gru_forward"]["tests"]["problem"] == problem
    assert record["kernels"]["gru_backward"]["passed"]
    assert f"({problem})" in capsys.readouterr().out


def test_why_a_test_died_is_recorded(machine):
    said = [
        "test_x.py::test_a ",
        "Fatal Python error: Aborted",
        *(f'  File "x.py", line {i}' for i in range(50)),
    ]
    machine.tests["gru_forward"] = Finished(-6, 2.0, "\n".join(said))
    _, record = check(machine)
    assert record["kernels"]["gru_forward"]["tests"]["failures"] == [said[1], *said[-6:]]


def test_a_kernel_that_hung_is_not_timed(machine, capsys):
    machine.tests["gru_forward"] = Finished(None, 150.0, "")
    _, record = check(machine)
    assert [c[-1] for c in machine.commands if "gpu_bench" in " ".join(c)] == [
        "ceilings", *(g for g in gpu_check.GROUPS if g not in ("gru", "deepspeech2"))
    ]  # fmt: skip
    assert record["rows"] == []
    assert "gru not timed: gru_forward hung\n" in capsys.readouterr().out


def test_a_memory_error_fails_the_kernel(machine):
    machine.memcheck = Finished(0, 1.0, "========= ERROR SUMMARY: 3 errors")
    status, record = check(machine)
    assert status == 1
    assert not any(found["passed"] for found in record["kernels"].values())


@pytest.mark.parametrize(
    "done, outcome",
    [
        (Finished(0, 1.0, "ERROR SUMMARY: 0 errors"), "0 errors"),
        (Finished(0, 1.0, "ERROR SUMMARY: 1 error"), "1 errors"),
        (Finished(1, 1.0, "ERROR SUMMARY: 2 errors"), "2 errors"),
        (Finished(1, 1.0, "ERROR SUMMARY: 0 errors"), "no result (exit status 1)"),
        (Finished(0, 1.0, "RACECHECK SUMMARY: 2 hazards displayed (1 errors, 1 warnings)"), "1 errors"),
        (Finished(None, 90.0, ""), "no result (killed after 90 s)"),
        (Finished(0, 1.0, "unrecognised option"), "no result (it printed none)"),
    ],
)
def test_what_the_sanitizer_says(done, outcome):
    assert sanitizer_outcome(done) == outcome


def test_without_a_sanitizer_the_record_says_so(machine, monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)
    status, record = check(machine)
    assert status == 0
    assert record["kernels"]["gru_forward"]["sanitizer"] == {"compute-sanitizer": "not on this machine"}
    assert "driver" not in record["about"]


def test_a_sanitizer_that_was_cut_holds_nothing_back_and_is_told(machine):
    machine.memcheck = Finished(None, 90.0, "========= COMPUTE-SANITIZER")
    status, record = check(machine)
    found = record["kernels"]["masked_conv2d"]
    assert status == 0 and found["passed"]
    assert found["sanitizer"] == {"memcheck": "no result (killed after 90 s)"}
    assert "memcheck: no result (killed after 90 s)" in (machine.out / "gpu.md").read_text()
    # The next run asks again.
    resume(machine)
    assert len(commands(machine, "compute-sanitizer --tool memcheck")) == len(KERNELS)


NOT_COMPILED = (
    f"""{PTXAS}
FAILED: [code=2] CMakeFiles/cuda_objects.dir/kernels/rnn/cuda/gru_bwd.cu.o
gru_bwd.cu(7): error: identifier "x" is undefined
"""
    + PTXAS * 50
)


def test_what_does_not_compile_costs_the_cuda_kernels_alone(machine, capsys):
    machine.build = Finished(1, 20.0, NOT_COMPILED)
    machine.off = CUDA = {"gru_forward", "gru_backward", "ctc_beam_search"}
    stale = gpu_check.ROOT / "asrkern" / "_C_cuda.so"
    stale.parent.mkdir()
    stale.touch()
    status, record = check(machine)
    assert status == 1 and not record["build"]["passed"] and not stale.exists()
    assert record["build"]["failures"] == [line for line in NOT_COMPILED.splitlines() if "gru_bwd" in line]
    assert {name for name in KERNELS if record["kernels"][name]["passed"]} == set(KERNELS) - CUDA
    assert [command[1] for command in commands(machine, "cmake")] == ["-DASRKERN_CUDA=OFF", "--build"]
    # Nothing more is asked of what is off.
    for part in ("compute-sanitizer", "tests/gpu/test_gru.py", "tests/gpu/test_ctc_beam_search.py"):
        assert not [c for c in commands(machine, part) if c[0] != "compute-sanitizer" or c[-1] in CUDA]
    assert [command[-1] for command in commands(machine, "gpu_bench")] == ["ceilings", "conv", "bn"]
    printed = capsys.readouterr().out
    assert 'error: identifier "x" is undefined' in printed.split("recorded")[0]
    assert "gru not timed: gru_forward is not built" in printed
    assert 'build: gru_bwd.cu(7): error: identifier "x" is undefined' in printed
    # What was built is not tried again; after a change it is.
    resume(machine)
    assert not commands(machine, "pip install") and not commands(machine, "cmake")
    capsys.readouterr()
    machine.build, machine.off = Finished(0, 60.0, PTXAS), set()
    (gpu_check.ROOT / "csrc").mkdir()
    (gpu_check.ROOT / "csrc" / "mended.cpp").touch()
    status, record = resume(machine)
    assert status == 0 and "failures" not in record["build"] and "build:" not in capsys.readouterr().out


def test_what_only_pip_could_not_install_is_checked_whole(machine):
    machine.build = Finished(1, 60.0, f"{PTXAS}\nERROR: externally managed")
    machine.cmake["ON"] = Finished(0, 5.0, "-- Build files have been written")
    status, _ = check(machine)
    assert status == 0
    assert [command[1] for command in commands(machine, "cmake")] == ["-DASRKERN_CUDA=ON", "--build"]


def test_nothing_is_recorded_where_the_build_fails_or_does_not_load(machine, capsys):
    machine.build, machine.cmake["OFF"] = Finished(1, 20.0, "error: no"), Finished(1, 1.0, "")
    status, record = check(machine)
    assert status == 1 and record["kernels"] == {} and not record["build"]["passed"]
    machine.build, machine.imported = Finished(0, 60.0, PTXAS), Finished(1, 2.0, "undefined symbol")
    machine.cmake["OFF"] = Finished(0, 1.0, "")
    status, record = check(machine)
    assert status == 1 and record["kernels"] == {} and not record["build"]["passed"]
    assert "undefined symbol" in capsys.readouterr().out
    machine.about = Finished(1, 1.0, "AssertionError: Torch not compiled with CUDA enabled")
    assert main(["--out", str(machine.out)]) == 1
    assert "no CUDA device" in capsys.readouterr().out


def test_without_nvcc_the_cuda_kernels_are_off(machine):
    """setup.py builds without them then, and says nothing."""
    machine.off = {"gru_forward", "gru_backward", "ctc_beam_search"}
    status, record = check(machine)
    assert status == 1 and record["build"]["passed"]
    for name in KERNELS:
        found = record["kernels"][name]
        assert found["passed"] == (name not in machine.off)
        if name in machine.off:
            assert found["small"]["problem"] == "is not built, or Triton is missing"
            assert found["tests"] == {} and found["sanitizer"] == {}


def test_libraries_may_talk_after_the_device_has_told(machine):
    machine.about = machine.about._replace(
        output=machine.about.output + "\nException ignored in: <function>\n"
    )
    status, record = check(machine)
    assert status == 0 and record["about"]["device"] == "GPU X"


def test_only_some_kernels_keep_the_others_records(machine):
    gpu_check.RESULTS.mkdir()
    old = {"passed": False, "device": "GPU Y", "date": "2026-01-01", "tests": {"passed": 3}, "sanitizer": {}}
    before = {
        "kernels": {"gru_forward": old, "ctc_beam_search": old},
        "rows": [{**ROW, "group": "beam"}, {**ROW, "row": "old"}],
        "build": {"passed": True, "seconds": 1.0, "kernels": ["from before"]},
    }
    (gpu_check.RESULTS / "gpu.json").write_text(json.dumps(before))
    machine.build = Finished(0, 2.0, "ninja: no work to do.")
    status, record = check(machine, "--only", "gru_forward", "--stages", "build", "test", "time")
    assert status == 0
    assert record["kernels"]["ctc_beam_search"] == old and record["kernels"]["gru_forward"]["passed"]
    assert record["rows"] == [{**ROW, "group": "beam"}, ROW]
    assert record["build"]["kernels"] == ["from before"]
    assert not any(command[0] == "compute-sanitizer" for command in machine.commands)
    assert sum("pytest" in command for command in machine.commands) == 2


def commands(machine, part):
    return [command for command in machine.commands if part in " ".join(command)]


def resume(machine, *options):
    """A second run that goes on from the first; only its own commands are kept."""
    machine.commands.clear()
    before, machine.out = machine.out, machine.out / "again"
    return check(machine, "--resume", str(before), *options)


def test_nothing_is_done_twice(machine):
    check(machine)
    status, record = resume(machine)
    assert status == 0 and record["rows"] == [ROW] and record["ceilings"]["copy_gb_s"] == 4300.0
    assert not commands(machine, "_gpu_small.py") and not commands(machine, "-m pytest")
    # gpu_bench.py knows by itself which rows are there.
    assert [command[-1] for command in commands(machine, "gpu_bench")] == list(gpu_check.GROUPS)
    assert all("--resume" in command for command in commands(machine, "gpu_bench"))


def test_a_changed_kernel_is_checked_again(machine, monkeypatch):
    check(machine)
    sources = gpu_check.gpu_kernels.sources
    monkeypatch.setattr(
        gpu_check.gpu_kernels, "sources",
        lambda name, root: {"gru_fwd.cu": "5678"} if name == "gru_forward" else sources(name, root),
    )  # fmt: skip
    machine.rows = []
    status, record = resume(machine, "--stages", "build", "small", "time")
    assert status == 1 and record["rows"] == []
    assert [command[-1] for command in commands(machine, "_gpu_small.py")] == ["gru_forward"]
    found = record["kernels"]["gru_forward"]
    assert found["sources"] == {"gru_fwd.cu": "5678"} and found["tests"] == {} and not found["passed"]
    assert record["kernels"]["masked_conv2d"]["passed"]


def test_another_device_or_torch_begins_anew(machine):
    check(machine)
    machine.about = Finished(0, 3.0, json.dumps({**ABOUT, "torch": "2.12.0+cu130"}))
    _, record = resume(machine)
    assert {command[-1] for command in commands(machine, "_gpu_small.py")} == set(KERNELS)
    assert len(commands(machine, "-m pytest")) == 6
    assert all(found["torch"] == "2.12.0+cu130" for found in record["kernels"].values())


def test_the_build_is_taken_along(machine):
    built = gpu_check.ROOT / "asrkern" / "_C_cuda.so"
    built.parent.mkdir()
    built.write_text("compiled")
    check(machine)
    built.unlink()
    resume(machine)
    assert built.read_text() == "compiled" and not commands(machine, "pip install")
    # Not if what it was made of has changed.
    (gpu_check.ROOT / "csrc").mkdir()
    (gpu_check.ROOT / "csrc" / "new.cpp").touch()
    resume(machine)
    assert len(commands(machine, "pip install")) == 1


def test_a_build_that_is_not_whole_is_built_again(machine, capsys):
    built = gpu_check.ROOT / "asrkern" / "_C_cuda.so"
    built.parent.mkdir()
    built.write_bytes(bytes(range(256)) * 400)
    check(machine)
    archive = machine.out / "build.tar.gz"
    whole, first = archive.read_bytes(), machine.out
    for damaged in (b"", whole[:5], whole[: len(whole) // 2], b"x" * len(whole)):
        built.unlink()
        archive.write_bytes(damaged)
        machine.out = first
        status, _ = resume(machine)
        assert status == 0 and len(commands(machine, "pip install")) == 1, len(damaged)
        assert "build.tar.gz is damaged, built again" in capsys.readouterr().out
        assert not built.exists()
        built.touch()


def test_a_kill_while_the_build_is_packed_leaves_none(machine, monkeypatch):
    def add(*_):
        raise KeyboardInterrupt

    (gpu_check.ROOT / "asrkern").mkdir()
    (gpu_check.ROOT / "asrkern" / "_C.so").touch()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gpu_check.tarfile.TarFile, "add", add)
        check(machine)
    assert not (machine.out / "build.tar.gz").exists()
    status, _ = resume(machine)
    assert status == 0 and len(commands(machine, "pip install")) == 1


@pytest.mark.parametrize("text", ["", '{"kernels": {"gru_f', "[]", '{"kernels": []}', "{}", "\0" * 9])
def test_a_damaged_record_is_begun_anew(machine, capsys, text):
    check(machine)
    (machine.out / "gpu.json").write_text(text)
    status, _ = resume(machine)
    assert status == 0 and "gpu.json is damaged: nothing of it is kept" in capsys.readouterr().out
    assert {command[-1] for command in commands(machine, "_gpu_small.py")} == set(KERNELS)
    assert len(commands(machine, "pip install")) == 1


@pytest.mark.parametrize("end", ['{"group": "conv", "tit', '{"group": "conv", "tit\n', "12\n", "\xff\n"])
def test_half_a_row_costs_that_row(machine, end):
    check(machine)
    rows = machine.out / "rows.jsonl"
    rows.write_bytes(rows.read_bytes() + end.encode("latin-1"))
    machine.rows = [ROW, {**ROW, "group": "conv", "title": "masked"}]
    status, record = resume(machine)
    assert status == 0 and [row["group"] for row in record["rows"]] == ["gru", "conv"]
    assert all(json.loads(line) for line in (machine.out / "rows.jsonl").read_text().splitlines())


def test_a_row_that_a_kill_cut_does_not_reach_the_next_group(machine, monkeypatch):
    def call(command, seconds, **environment):
        if command[-1] == "gru":
            with (machine.out / "rows.jsonl").open("a") as file:
                file.write('{"group": "gru", "ti')
            return Finished(None, seconds, "")
        return machine(command, seconds, **environment)

    monkeypatch.setattr(gpu_check, "run", call)
    machine.rows = [{**ROW, "group": "beam"}]
    _, record = check(machine)
    assert [row["group"] for row in record["rows"]] == ["beam"]


def test_a_run_may_go_on_in_its_own_folder(machine):
    check(machine)
    status, record = check(machine, "--resume", str(machine.out))
    assert status == 0 and record["rows"] == [ROW] and len(commands(machine, "pip install")) == 1
    assert (machine.out / "build.tar.gz").is_file()


def test_another_device_has_ceilings_of_its_own(machine):
    check(machine)
    machine.about = Finished(0, 3.0, json.dumps({**ABOUT, "device": "GPU Z"}))
    _, record = resume(machine, "--stages", "build", "small")
    assert (
        "ceilings" not in record
        and record["rows"] == []
        and record["kernels"]["gru_forward"]["device"] == "GPU Z"
    )
    machine.out = machine.out.parent
    resume(machine)
    assert "ceilings" in [command[-1] for command in commands(machine, "gpu_bench")]


LONG = "an error that says a lot " * 400


def test_the_worst_case_comes_back_whole(machine, capsys, monkeypatch):
    """All goes wrong at length: what is printed and every file of the record stay small, and what matters is there."""
    names = [f"tests/gpu/test_x.py::test_{'y' * 300}[{i}]" for i in range(400)]
    tests = "\n".join(
        [LONG] * 200 + [f"FAILED {name} - {LONG}" for name in names] + ["= 400 failed in 149.99s ="]
    )
    machine.tests = dict.fromkeys(KERNELS, Finished(1, 149.9, tests))
    machine.small = Finished(
        -11, 59.9, "\n".join([f"gru_forward {LONG}: 3.0e-01 WRONG, allowed 1e-05"] * 500)
    )
    machine.memcheck = Finished(None, 89.9, f"{LONG}\n" * 500)
    machine.build = Finished(1, 119.9, f"FAILED: x.o\n{LONG}: error: {LONG}\n" * 300)
    rows = [
        {"group": row_group, "title": row.title, "row": row.name, "arithmetic": row.arithmetic,
         "failed": f"RuntimeError: {LONG[:200]}"}
        for row_group in _gpu_rows.GROUPS for row in _gpu_rows.rows(row_group, quick=False)
    ]  # fmt: skip
    machine.rows = rows

    def call(command, seconds, **environment):
        done = machine(command, seconds, **environment)
        return done._replace(output=f"{LONG}\n" * 500) if "gpu_bench" in " ".join(command) else done

    monkeypatch.setattr(gpu_check, "run", call)
    status, record = check(machine)
    printed = capsys.readouterr().out
    assert status == 1 and len(record["rows"]) == len(rows) > 50
    assert len(printed) < 12_000
    assert all(f"`{name}`" in printed for name in KERNELS)
    sizes = {path.name: path.stat().st_size for path in machine.out.iterdir()}
    assert len(sizes) == 7 and max(sizes.values()) < 2**20, sizes


def test_a_long_log_keeps_its_beginning_and_its_end():
    text = "".join(f"{i}\n" for i in range(10_000))
    found = gpu_check.shortened(text, 1000)
    assert len(found) <= 1000 and found.startswith("0\n1\n") and found.endswith("9998\n9999\n")
    assert f"{len(text) - 1000} characters and more left out" in found
    assert gpu_check.shortened(text, len(text)) == text


@pytest.mark.parametrize("minutes", [8, 4])
def test_deadlines_add_up(machine, monkeypatch, minutes):
    """Every process takes all of its time, one after the other: the whole takes no more than it may."""
    now, lock, spent = [0.0], threading.Lock(), []

    def call(command, seconds, **environment):
        with lock:
            now[0] += seconds
        spent.append(seconds)
        # The build comes to its end, and so do small cases; all else is killed.
        done = machine(command, seconds, **environment)
        ends = done in (machine.about, machine.build, machine.imported, machine.small)
        return done._replace(seconds=seconds) if ends else Finished(None, seconds, "")

    monkeypatch.setattr(gpu_check, "run", call)
    monkeypatch.setattr(gpu_check, "PARALLEL", 1)
    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(gpu_check, "BUILD_SECONDS", 60)
    status, record = check(machine, "--minutes", str(minutes))
    assert status == 1 and now[0] == sum(spent) <= 60 * minutes
    # Nothing is begun in vain; in eight minutes the kernel that matters most has its small cases, and what there was no
    # time for has not failed.
    assert min(spent) >= 1
    if minutes == 8:
        assert record["kernels"]["gru_forward"]["small"]["passed"] == 2
        table = (machine.out / "gpu.md").read_text()
        assert "its check was cut short" in table and "its check failed" not in table


def test_nothing_begins_when_the_time_is_over(machine, capsys):
    status = main(["--out", str(machine.out), "--minutes", "0"])
    assert status == 1 and machine.commands == []
    assert "no CUDA device" in capsys.readouterr().out
    assert Finished(None, 0.0, "").problem == "no time left"


def test_a_device_that_answers_no_more_ends_the_run(machine, monkeypatch, capsys):
    machine.small = Finished(None, 60.0, "gru_forward H=5: ")
    abouts = []

    def run(command, seconds, **environment):
        if "platform.python_version" in " ".join(command):
            abouts.append(command)
            if len(abouts) > 1:
                return Finished(1, 3.0, "CUDA error: device unavailable")
        return machine(command, seconds, **environment)

    monkeypatch.setattr(gpu_check, "run", run)
    status, record = check(machine)
    assert status == 1 and not commands(machine, "-m pytest")
    assert record["kernels"]["gru_forward"]["small"]["failures"] == ["gru_forward H=5:"]
    assert "after the stage small the device answers no more" in capsys.readouterr().out


def test_stale_lists_what_changed(machine, capsys, monkeypatch):
    check(machine)
    capsys.readouterr()
    record = gpu_check.ROOT / gpu_check.gpu_kernels.RECORD
    record.parent.mkdir(parents=True)
    record.write_text((machine.out / "gpu.json").read_text())
    assert main(["--stale"]) == 0
    assert capsys.readouterr().out == "the record is current\n"
    sources = gpu_check.gpu_kernels.sources
    changed = {"gru_forward": {"gru_forward.cu": "5678"}}
    monkeypatch.setattr(
        gpu_check.gpu_kernels, "sources", lambda name, root: changed.get(name) or sources(name, root)
    )
    assert main(["--stale"]) == 1
    assert capsys.readouterr().out == "gru_forward: changed since it was checked: gru_forward.cu\n"
    assert main(["--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "**unverified**" in lines[2] and "changed since" in lines[2]
    assert all("| verified " in line for line in lines[3:])


def test_every_kernel_is_tested_sanitized_and_timed():
    assert set(KERNELS) == set(gpu_check.TESTS) and list(gpu_check.TESTS) == list(_gpu_small.CASES)
    assert set(KERNELS) == {name for kernels, _ in gpu_check.GROUPS.values() for name in kernels}
    assert set(gpu_check.GROUPS) == set(_gpu_rows.GROUPS)


def test_stale_here(capsys):
    """The record of this repository, whatever it says."""
    status = main(["--stale"])
    lines = capsys.readouterr().out.splitlines()
    assert (lines == ["the record is current"]) == (status == 0)
    assert status == 0 or {line.split(":")[0] for line in lines} <= set(KERNELS)


def test_a_command_is_killed_at_its_limit_with_what_it_started(tmp_path):
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    parent = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    done = run([sys.executable, "-c", parent], 1.0)
    assert done.status is None and done.problem == "killed after 1 s" and "begun" in done.output
    assert time.monotonic() - start < 2.5
    time.sleep(1.7)
    assert not (tmp_path / "late").exists()


def test_a_commands_status_and_output():
    done = run([sys.executable, "-c", "import sys, os; print(os.environ['X']); sys.exit(3)"], 20.0, X="here")
    assert (done.status, done.output.strip(), done.problem) == (3, "here", "exit status 3")


def test_options_are_checked(capsys):
    for options in (["--only", "gru"], ["--stages", "all"], ["--minutes", "x"]):
        with pytest.raises(SystemExit):
            main(options)
    capsys.readouterr()


@pytest.mark.parametrize(
    "change, cells",
    [
        ({}, {"kernel": "persistent<8>", "asrkern ms": "1", "packed ms": "4", "x packed": "**4.00**"}),
        ({"goals": {"x packed": {"goal": 5.0, "reached": 4.0}}}, {"x packed": "4.00 (goal 5)"}),
        ({"goals": {"x best": {"goal": 1.0, "reached": None}}}, {"x best": "-"}),
        ({"fallback": ["gru_forward"], "kernels": {}}, {"kernel": "torch's (FALLBACK, does not count)", "x packed": "(4.00)"}),
        ({"floor_ms": 0.5, "goals": {"floor": {"goal": 1.3, "reached": 2.0}}}, {"floor ms": "0.5", "x floor": "2.00 (goal 1.3)"}),
        ({"floor_ms": 0.9, "goals": {"floor": {"goal": 1.3, "reached": 1.1}}}, {"x floor": "**1.10**"}),
        ({"rtfx": 21000.0, "goals": {"rtfx": {"goal": 20000.0, "reached": 21000.0}}}, {"RTFx": "21,000", "RTFx goal": "**21,000**"}),
        ({"wrong": ["packed"], "times": {"asrkern": ROW["times"]["asrkern"]}}, {"packed ms": "wrong by 2e-03"}),
        ({"failed": "RuntimeError: no"}, {"kernel": "no figure: RuntimeError: no"}),
    ],
)  # fmt: skip
def test_cells_of_a_row(change, cells):
    found = _gpu_report.timing_row({**ROW, **change})
    assert {key: found[key] for key in cells} == cells


def test_a_wrong_row_has_no_times():
    row = {key: value for key, value in ROW.items() if key not in ("times", "goals")}
    assert _gpu_report.timing_row({**row, "wrong": ["asrkern"]})["kernel"] == "WRONG by 1e-03, allowed 2e-02"
