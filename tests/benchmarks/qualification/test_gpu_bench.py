"""benchmarks/qualification/gpu_bench.py on the CPU: the cases are right, and what is recorded; times are made up."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch

from benchmarks.qualification import _gpu_cases as cases
from benchmarks.qualification import _gpu_rows, _gpu_small, gpu_bench
from benchmarks.qualification._gpu_cases import ASRKERN, BatchNorm
from benchmarks.qualification._gpu_rows import Row
from benchmarks.qualification._gpu_timing import Timing, summary

OWN = "void asrkern::cuda::(anonymous namespace)::normalise<float>(Args)"


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch, tmp_path):
    """The CPU in place of the device; what "runs" there is found.run, and each call takes a millisecond more."""
    (tmp_path / "a.cu").write_text("__global__ void normalise(Args a) {}")
    monkeypatch.setattr(cases, "DEVICE", "cpu")
    monkeypatch.setattr(cases.CTCBeamDecoder, "to", lambda self, device: self, raising=False)
    monkeypatch.setattr(_gpu_small, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_bench, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_bench, "KERNELS", dict.fromkeys(gpu_bench.KERNELS, ("a.cu", "b.cu")))
    monkeypatch.setattr(gpu_bench, "kernels_run", lambda call: {OWN: 2.0, "void other(int)": 1.0})
    elapsed = iter(range(1, 100))

    def time_call(calls, seconds, graph):
        assert all(call() is not None for call in calls)
        return Timing(float(next(elapsed)), 0.0, 0.0, 10, graph)

    monkeypatch.setattr(gpu_bench, "time_call", time_call)


def measure(build, arithmetic="fp32", **goals):
    found = gpu_bench.measure(Row("title", "row", arithmetic, build, goals), copy_gb_s=1000.0)
    json.dumps(found)
    return found


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_gru(ragged, backward):
    found = measure(lambda at: cases.gru(6, 3, ragged, backward, 9, at), **{"x packed": 3.0, "x best": 1.0})
    assert found["wrong"] == [] and max(found["errors"].values()) < 1e-6
    assert (
        found["kernels"] == {"normalise<float>": 2.0}
        and found["fallback"] == []
        and found["device_ms"] == 3.0
    )
    assert [name for name in found["times"]] == [ASRKERN, "packed", *([] if ragged else ["padded"])]
    assert found["times"]["packed"]["graph"] is False
    assert found["goals"]["x packed"] == {"goal": 3.0, "reached": 2.0}


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_conv(arithmetic):
    found = measure(lambda at: cases.conv(2, True, False, 60, at), arithmetic, **{"x best": 2.0})
    assert found["wrong"] == [] and list(found["times"]) == [ASRKERN, "eager"]


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_conv_training(arithmetic):
    found = measure(lambda at: cases.conv_training(2, False, 60, at), arithmetic)
    assert found["wrong"] == [] and list(found["times"]) == [ASRKERN, "eager"]


@pytest.mark.parametrize("mode, passes", [("eval", (1, 1)), ("training", (2, 1)), ("backward", (6, 2))])
@pytest.mark.parametrize(
    "shape", [BatchNorm("NCFT", (3, 4, 5, 9), (0.0, 1.0)), BatchNorm("TNC", (9, 3, 5), None)]
)
def test_batch_norm(shape, mode, passes):
    torch.manual_seed(0)
    lengths = cases.spread_lengths(3, 9)
    found = measure(lambda at: cases.batch_norm(shape, mode, False, at), floor=1.3)
    assert found["wrong"] == [] and list(found["times"]) == [ASRKERN, "eager"]
    values = math.prod(shape.size)
    moved = 4 * (passes[0] * values * float(lengths.sum()) / 27 + passes[1] * values)
    assert found["floor_ms"] == pytest.approx(moved / 1e12 * 1e3)
    assert found["goals"]["floor"]["reached"] == pytest.approx(1.0 / found["floor_ms"])


def test_deepspeech2():
    found = measure(lambda at: cases.deepspeech2("small", 3, True, 80, at), rtfx=5000.0)
    assert found["wrong"] == [] and list(found["times"]) == [ASRKERN, "packed"]
    assert found["goals"]["rtfx"]["reached"] == found["rtfx"] == pytest.approx(1000 * (20 + 50 + 80) / 100)


def test_beam_search():
    found = measure(lambda at: cases.beam_search(2, 4, 100, 300, at), rtfx=20_000.0)
    assert found["wrong"] == [] and next(iter(found["times"])) == ASRKERN
    assert len(found["times"]) == 3 and found["times"]["asrkern on the CPU"]["samples"] == 3
    assert found["rtfx"] == pytest.approx(1000 * 2 * 100 / 50)


def test_calibration_reaches_the_model_that_is_timed():
    torch.manual_seed(0)
    model = cases.DeepSpeech2.preset("small", hidden_size=8)
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    model, twin, exact, *_ = cases.deepspeech2_pair(model, 2, True, 80, cases.ARITHMETIC["fp32"])
    for name, value in model.named_buffers():
        if name in before:
            assert not torch.equal(value, before[name])
            assert torch.equal(value, dict(twin.named_buffers())[name])
    assert all(value.dtype == torch.float64 for value in exact.parameters())


def case(actual, **options):
    backends = {ASRKERN: cases.Backend([lambda: torch.tensor(actual)])}
    backends["eager"] = cases.Backend([lambda: torch.tensor([1.0, 2.001])])
    return cases.Case(backends, [torch.tensor([1.0, 2.0])], ("batch_norm_act",), 1e-5, **options)


def test_a_wrong_result_is_not_timed():
    found = measure(lambda at: case([1.0, 2.1]))
    assert found["wrong"] == [ASRKERN, "eager"] and "times" not in found
    assert measure(lambda at: case([1.0, math.nan]))["errors"][ASRKERN] == math.inf


def test_a_peer_that_is_wrong_does_not_count():
    found = measure(lambda at: case([1.0, 2.0]), **{"x best": 2.0})
    assert found["wrong"] == ["eager"] and list(found["times"]) == [ASRKERN]
    assert found["goals"]["x best"]["reached"] is None


def test_torchs_kernels_are_a_fallback(monkeypatch):
    monkeypatch.setattr(gpu_bench, "kernels_run", lambda call: {"void at::native::normalise(int)": 1.0})
    found = measure(lambda at: case([1.0, 2.0]))
    assert found["fallback"] == ["batch_norm_act"] and found["kernels"] == {}


def test_what_a_row_says_is_short(monkeypatch):
    def broken(at):
        raise RuntimeError("a compiler's whole output " * 10_000)

    monkeypatch.setattr(gpu_bench, "rows", lambda group, quick: iter([Row("t", "broken", "fp32", broken)]))
    [row] = gpu_bench.measured("gru", False, time.monotonic() + 100, 1.0)
    assert row["failed"].startswith("RuntimeError: a compiler's") and len(row["failed"]) < 250


def test_a_row_that_raises_or_is_too_late_is_recorded(monkeypatch):
    def broken(at):
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    rows = [Row("t", "broken", "fp32", broken), Row("t", "fine", "fp32", lambda at: case([1.0, 2.0]))]
    monkeypatch.setattr(gpu_bench, "rows", lambda group, quick: iter(rows))
    first, second = gpu_bench.measured("gru", False, time.monotonic() + 100, 1.0)
    assert (
        first["failed"] == "RuntimeError: CUDA error: an illegal memory access" and first["row"] == "broken"
    )
    assert "times" in second and second["group"] == "gru"
    assert [row["failed"] for row in gpu_bench.measured("gru", False, 0.0, 1.0)] == ["no time left"] * 2
    done = [first, {**second, "group": "beam"}]
    again = gpu_bench.measured("gru", False, time.monotonic() + 100, 1.0, done)
    assert [row["row"] for row in again] == ["fine"]


@pytest.mark.parametrize("group", [*_gpu_rows.GROUPS, *_gpu_rows.TUNING])
def test_rows_are_told_apart(group):
    rows, quick = ([(r.title, r.name, r.arithmetic) for r in _gpu_rows.rows(group, q)] for q in (False, True))
    assert len(set(rows)) == len(rows)
    assert rows[0] == quick[0] and set(quick) < set(rows)


def test_made_up_speech_can_be_decoded():
    text, lm = cases.language_model(300)
    assert lm.order == 4
    decoder = cases.CTCBeamDecoder(cases.LABELS, lm, beam_width=16)
    found = decoder.decode(cases.spoken(text[:3], 500))
    heard = [hypotheses[0].text.split() for hypotheses in found]
    right = sum(a == b for line, words in zip(text, heard) for a, b in zip(line.split(), words))
    assert 20 <= right <= 36


@pytest.mark.parametrize("kernel", _gpu_small.CASES)
def test_small_cases(kernel, monkeypatch, capsys):
    assert _gpu_small.main(kernel) == 1 and capsys.readouterr().out == f"{kernel} is off\n"
    monkeypatch.setattr(_gpu_small._library, "cuda_kernel", lambda name: name == kernel)
    assert _gpu_small.main(kernel) == 0
    *cases, last = capsys.readouterr().out.splitlines()
    assert last == f"{len(cases)} cases, 0 wrong" and all(line.startswith(f"{kernel} ") for line in cases)


def test_a_small_case_that_is_wrong(monkeypatch, capsys):
    def nothing(device, dtype):
        return [torch.ones(3) if device == "meta" else torch.zeros(3)]

    monkeypatch.setattr(_gpu_small, "DEVICE", "meta")
    monkeypatch.setattr(_gpu_small._library, "cuda_kernel", lambda name: True)
    monkeypatch.setitem(_gpu_small.CASES, "gru_forward", lambda: iter([_gpu_small.Case("x", nothing, 0.1)]))
    assert _gpu_small.main("gru_forward") == 1
    assert capsys.readouterr().out == "gru_forward x: inf WRONG, allowed 1e-01\n1 cases, 1 wrong\n"


def test_quartiles():
    assert summary([4.0, 1.0, 2.0, 3.0, 5.0], graph=True)._asdict() == {
        "median": 3.0, "low": 1.5, "high": 4.5, "samples": 5, "graph": True
    }  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_needs_a_device(capsys):
    with pytest.raises(SystemExit):
        gpu_bench.main(["gru"])
    assert "needs a CUDA device" in capsys.readouterr().err
