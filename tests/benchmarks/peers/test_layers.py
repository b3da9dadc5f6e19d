"""benchmarks/peers/layers.py: every runtime computes the same, and what differs has no ratio."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import _timing
from benchmarks.peers import _runtimes, layers
from benchmarks.shapes import BatchNormShape, RecurrentShape

SCRIPT = Path(layers.__file__)
TINY = {
    "gru": RecurrentShape(6, 3, 7),
    "gru-ragged": RecurrentShape(6, 3, 9),
    "gru-quantized": RecurrentShape(6, 3, 7),
    "gru-train": RecurrentShape(6, 3, 9),
    "lstm": RecurrentShape(6, 3, 7),
    "lstm-ragged": RecurrentShape(6, 3, 9),
    "lstm-quantized": RecurrentShape(6, 3, 7),
    "lstm-train": RecurrentShape(6, 3, 9, layers=2),
    "conv": layers.ConvStack(2, ragged=True, compiled=False),
    "deepspeech2": layers.WholeModel("mlperf", 2, 60, hidden_size=12),
    "bn": layers.BatchNorm(BatchNormShape("NCFT", (3, 4, 5, 6), (0.0, 20.0)), backward=True),
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """One small row a group, one round, no processes of their own."""
    for name, row in TINY.items():
        monkeypatch.setitem(layers.GROUPS, name, dataclasses.replace(layers.GROUPS[name], quick=[row]))
    monkeypatch.setattr(layers, "QUICK", {"rounds": 1, "seconds": 0.0})
    monkeypatch.setattr(layers, "peak_memory_mib", lambda *_: 1.0)


def perturb(monkeypatch, group: str, backend: str, change) -> None:
    """Let the backend's tensors go through ``change``."""
    original = layers.GROUPS[group]

    def backends(row):
        found = original.backends(row)

        def wrong(prepare=found[backend]):
            call = prepare()
            return lambda: change(list(call()))

        return {**found, backend: wrong}

    monkeypatch.setitem(layers.GROUPS, group, dataclasses.replace(original, backends=backends))


@pytest.mark.parametrize(
    "name, runtime",
    [
        *((name, _runtimes.ASRKERN) for name in TINY),
        *(
            (name, runtime)
            for name in ("gru", "gru-ragged", "lstm", "lstm-ragged", "conv")
            for runtime in _runtimes.RUNTIMES
        ),
    ],
)
def test_backends_agree_with_torch(name, runtime):
    if runtime in _runtimes.RUNTIMES and _runtimes.RUNTIMES[runtime].missing:
        pytest.skip(_runtimes.not_installed()[runtime])
    backends = layers.GROUPS[name].backends(TINY[name])
    expected = backends[_runtimes.TORCH]()()
    assert all(tensor.std() > 1e-3 for tensor in expected)
    assert _timing.relative_error(expected, backends[runtime]()()) < 1e-5


@pytest.mark.parametrize("name", _runtimes.QUANTIZED)
def test_fewer_bits_are_near_torch(name):
    backends = layers.GROUPS["gru-quantized"].backends(TINY["gru-quantized"])
    error = _timing.relative_error(backends[_runtimes.TORCH]()(), backends[name]()())
    assert 1e-5 < error < layers.FEWER_BITS[name]


@pytest.mark.parametrize("group", ["gru-ragged", "lstm-ragged"])
def test_ragged_rows_have_padding(group):
    """Otherwise a runtime that ignores the lengths would pass."""
    ragged = layers.GROUPS[group].backends(TINY[group])[_runtimes.TORCH]()()[0]
    assert (ragged == 0).any()


@pytest.mark.parametrize("arguments", [["--quick"], ["--quick", "--only", "gru,bn"]])
def test_tables(arguments, capsys, monkeypatch, tmp_path):
    results = tmp_path / "new" / "cpu.md"
    monkeypatch.setattr(layers, "RESULTS", results)
    assert layers.main([*arguments, "--write"]) == 0
    printed = capsys.readouterr().out
    tables, _, _ = printed.partition("Left out:")
    assert results.read_text() == tables.removesuffix("\n")
    groups = arguments[2].split(",") if len(arguments) > 1 else list(TINY)
    assert [line for line in printed.splitlines() if line.startswith("### ")] == [
        f"### {layers.GROUPS[name].title}" for name in groups
    ]
    assert sum("torch / asrkern " in line for line in printed.splitlines()) == len(groups)
    assert "FAILED" not in printed
    for text in (torch.__version__, f"{torch.get_num_threads()} threads", _timing.machine(layers.CPU)["cpu"]):
        assert text in printed


def test_a_group_measured_again_replaces_its_table_only(monkeypatch, tmp_path):
    monkeypatch.setattr(layers, "RESULTS", tmp_path / "cpu.md")
    layers.write({layers.GROUPS["bn"].title: "old", layers.GROUPS["conv"].title: "conv"})
    layers.write({layers.GROUPS["gru"].title: "gru", layers.GROUPS["bn"].title: "new"})
    sections = layers.RESULTS.read_text().split("### ")
    assert [text.strip().rpartition("\n")[2] for text in sections] == ["", "gru", "conv", "new"]


def nan(tensors):
    (x,) = tensors
    return [x.masked_fill(x == x.max(), math.nan)]


@pytest.mark.parametrize(
    "change",
    [lambda tensors: [x + 2 * layers.TOLERANCE * x.abs().max() for x in tensors], nan, lambda y: [y[0][:-1]]],
    ids=["over the tolerance", "nan", "a frame less"],
)
def test_a_wrong_backend_is_not_timed(change, monkeypatch, capsys):
    perturb(monkeypatch, "gru", _runtimes.ASRKERN, change)
    monkeypatch.setattr(layers, "interleaved", lambda *_, **__: pytest.fail("timed"))
    assert layers.main(["--quick", "--only", "gru"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: asrkern" in printed and "torch / asrkern" not in printed


def test_other_rows_keep_their_ratios(monkeypatch, capsys):
    perturb(monkeypatch, "gru-train", _runtimes.ASRKERN, lambda tensors: [*tensors[:-1], tensors[-1] + 1])
    assert layers.main(["--quick", "--only", "gru-train,bn"]) == 1
    assert capsys.readouterr().out.count("torch / asrkern") == 1


def test_ratios_and_spread():
    times = {"torch": [0.4, 0.2, 0.3], "OpenVINO": [0.1, 0.2, 0.3], "asrkern": [0.1, 0.1, 0.1]}
    times["asrkern int8"] = [0.05, 0.05, 0.05]
    errors = {**dict.fromkeys(times, 1e-7), "asrkern int8": 5e-3}
    found = {"row": "r", "errors": errors, "times": times, "memory": {"torch": 12.3}}
    assert layers.table_row(found) == {
        "": "r",
        "torch ms": "300 (200..400)",
        "OpenVINO ms": "200 (100..300)",
        "asrkern ms": "100 (100..100)",
        "asrkern int8 ms": "50 (50..50)",
        "torch MiB": "12",
        "rounds": "3",
        "largest error": "1e-07",
        "asrkern int8 error": "5e-03",
        "best peer / asrkern": "2.00",
        "torch / asrkern": "3.00",
        "best peer / asrkern int8": "4.00",
        "torch / asrkern int8": "6.00",
    }


def test_missing_runtimes_are_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(_runtimes.importlib.util, "find_spec", lambda name: None)
    assert layers.main(["--quick", "--only", "gru"]) == 0
    printed = capsys.readouterr().out
    assert "ONNX Runtime (not installed: pip install onnx onnxruntime)" in printed
    assert "OpenVINO (not installed: pip install onnx openvino)" in printed
    assert "OpenVINO ms" not in printed and "asrkern ms" in printed


def test_every_round_starts_with_another_call():
    order = []

    def call(name):
        order.append(name)
        time.sleep(1.1 * _timing.BLOCK_SECONDS)

    times = _timing.interleaved({name: partial(call, name) for name in "abc"}, rounds=3, seconds=0)
    assert "".join(order) == "aabbcc" + "abcbcacab"  # each twice to see how long it takes
    assert all(len(found) == 3 and min(found) >= _timing.BLOCK_SECONDS for found in times.values())


def test_short_calls_are_timed_in_a_row(monkeypatch):
    """By a clock that each call moves by a millisecond, and what comes between by a second."""
    now = [0.0]
    monkeypatch.setattr(_timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_timing.time, "sleep", lambda _: now.__setitem__(0, now[0] + 1))
    called = []

    def call():
        called.append(None)
        now[0] += 0.001

    times = _timing.interleaved({"short": call}, rounds=2, seconds=0)["short"]
    assert times == pytest.approx([0.001, 0.001])
    assert len(called) == 2 + 2 * round(_timing.BLOCK_SECONDS / 0.001)


def test_relative_error():
    x = torch.tensor([1.0, -4.0])
    assert _timing.relative_error([x, x], [x, x + 0.5]) == pytest.approx(0.125)
    assert _timing.relative_error([0 * x], [0 * x]) == 0
    assert _timing.relative_error([0 * x], [x]) == math.inf
    with pytest.raises(ValueError):
        _timing.relative_error([x, x], [x])


def test_a_backend_alone():
    call = layers.prepare_alone("gru-train", TINY["gru-train"], _runtimes.ASRKERN, torch.get_num_threads())
    assert len(call()) == 9


def test_the_script_names_its_groups(tmp_path):
    command = [sys.executable, SCRIPT, "--only", "gru,fast"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "expected some of gru, gru-ragged" in done.stderr
