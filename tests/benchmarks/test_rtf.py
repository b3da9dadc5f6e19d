"""benchmarks/rtf.py: it compares before it times, and praises nothing that differs."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from asrkern.data import read_manifest
from asrkern.models import DeepSpeech2, DeepSpeech2Config
from benchmarks import _report, _timing, rtf
from benchmarks.models._deepspeech2_twin import stock_deepspeech2
from tests.models import stock_deepspeech2 as stock

SCRIPT = Path(rtf.__file__)


def write_manifest(folder: Path, seconds: list[float]) -> Path:
    generator = numpy.random.default_rng(0)
    lines = []
    for i, duration in enumerate(seconds):
        samples = 0.1 * generator.standard_normal(round(16000 * duration))
        soundfile.write(folder / f"{i}.wav", samples, 16000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "duration": duration, "text": "yes"}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def no_memory_processes(monkeypatch):
    monkeypatch.setattr(rtf, "peak_memory", lambda *_: _timing.PeakMemory(3.0, 1.0))


@pytest.fixture
def run(tmp_path, capsys, no_memory_processes):
    """Call main in this process; exit status and what it printed."""

    def call(*arguments: str, seconds: list[float] | None = None) -> tuple[int, str]:
        manifest = write_manifest(tmp_path, seconds or [0.4, 0.7])
        status = rtf.main(["--data", str(manifest), "--device", "cpu", *arguments])
        return status, capsys.readouterr().out

    return call


def perturb(monkeypatch, name: str, change) -> None:
    """Let the backend's log-probabilities go through ``change(log_probs, output_lengths)``."""
    original = rtf.make_backends

    def changed(stages):
        def fc(x, lengths):
            log_probs, lengths = stages["fc"](x, lengths)
            return change(log_probs, lengths), lengths

        return {**stages, "fc": fc}

    def make_backends(*arguments):
        backends = original(*arguments)
        return [dataclasses.replace(b, stages=changed(b.stages)) if b.name == name else b for b in backends]

    monkeypatch.setattr(rtf, "make_backends", make_backends)


def test_the_script_from_a_shell(tmp_path):
    manifest = write_manifest(tmp_path, [0.4, 0.7])
    output = tmp_path / "numbers.json"
    command = [sys.executable, SCRIPT, "--data", manifest, "--preset", "small", "--device", "cpu"]
    command += ["--threads", "1", "--repeats", "2", "--json", output]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "random weights" in done.stdout and "speed-up" in done.stdout
    (report,) = json.loads(output.read_text())
    assert report["passed"] and report["utterances"] == 2 and report["machine"]["threads"] == 1
    assert report["audio_seconds"] == pytest.approx(1.1)
    assert list(report["backends"]) == [
        "stock, padded",
        "stock, packed",
        "asrkern",
        "asrkern int8",
        "asrkern int8/int8",
    ]
    for numbers in report["backends"].values():
        assert list(numbers["stages_seconds"]) == ["features", "conv", "rnn", "fc", "decode"]
        assert min(numbers["stages_seconds"].values()) > 0
        assert numbers["seconds"] == pytest.approx(sum(numbers["stages_seconds"].values()))
        assert numbers["rtf"] == pytest.approx(numbers["seconds"] / 1.1)
        assert numbers["rtf"] * numbers["rtfx"] == pytest.approx(1)
        assert numbers["timed_requests"] == 4 and list(numbers["latency_seconds"]) == ["p50", "p90"]
        assert numbers["largest_difference"] <= numbers["tolerance"]
        assert numbers["equal_transcripts"] == 2
        assert numbers["peak_memory_mib"] > report["parameters"] * 4 / 2**20


def nan_in_a_valid_frame(log_probs, lengths):
    log_probs[0, lengths[0] - 1, 3] = math.nan
    return log_probs


@pytest.mark.parametrize("backend", ["asrkern", "stock, padded"])
@pytest.mark.parametrize(
    "change",
    [
        lambda log_probs, lengths: log_probs + 1.5 * rtf.TOLERANCE,
        lambda log_probs, lengths: log_probs[:, :-1],
        nan_in_a_valid_frame,
    ],
    ids=["over the tolerance", "a frame less", "nan"],
)
def test_a_wrong_backend_is_not_timed(run, monkeypatch, tmp_path, backend, change):
    perturb(monkeypatch, backend, change)
    monkeypatch.setattr(rtf, "time_requests", lambda *_: pytest.fail("timed"))
    status, printed = run("--preset", "small", "--json", str(tmp_path / "o.json"))
    assert status == 1
    assert "FAILED" in printed
    assert "speed-up" not in printed and "RTF" not in printed
    (report,) = json.loads((tmp_path / "o.json").read_text(), parse_constant=pytest.fail)
    assert not report["passed"] and "speed_up" not in report["backends"]["asrkern"]


def test_wrong_lengths_are_a_difference(run, monkeypatch):
    original = DeepSpeech2.conv_stage

    def one_frame_short(self, features, lengths):
        x, output_lengths = original(self, features, lengths)
        return x, output_lengths - 1

    monkeypatch.setattr(DeepSpeech2, "conv_stage", one_frame_short)
    status, printed = run("--preset", "small")
    assert status == 1 and "not comparable" in printed


def test_a_difference_within_the_tolerance_is_reported_and_timed(run, monkeypatch, tmp_path):
    perturb(monkeypatch, "asrkern", lambda log_probs, lengths: log_probs + 0.5 * rtf.TOLERANCE)
    output = tmp_path / "o.json"
    status, printed = run("--preset", "small", "--repeats", "1", "--json", str(output))
    assert status == 0 and "speed-up" in printed
    (report,) = json.loads(output.read_text())
    difference = report["backends"]["asrkern"]["largest_difference"]
    assert difference == pytest.approx(0.5 * rtf.TOLERANCE, rel=0.3)
    assert f"{difference:.1e}" in printed


def test_frames_beyond_the_length_do_not_count(run, monkeypatch):
    def nan_beyond(log_probs, lengths):
        beyond = torch.arange(log_probs.shape[1]) >= lengths[:, None]
        return log_probs.masked_fill(beyond[..., None], math.nan)

    perturb(monkeypatch, "asrkern", nan_beyond)
    status, printed = run("--preset", "small", "--batch-size", "2", "--repeats", "1")
    assert status == 0
    assert "utterances: 2, requests: 1, each timed 1 x" in printed


def test_padded_stock_is_left_out_of_ragged_bidirectional_batches(run):
    status, printed = run("--preset", "small", "--batch-size", "2", "--repeats", "1")
    assert status == 0 and "left out: stock, padded" in printed
    status, printed = run("--preset", "small", "--batch-size", "2", "--repeats", "1", seconds=[0.5, 0.5])
    assert status == 0 and "left out" not in printed


def test_a_checkpoint_is_read_and_transcribed(run, tmp_path):
    model = DeepSpeech2(DeepSpeech2Config(hidden_size=8, num_layers=2, rnn_type="gru"))
    torch.save(
        {"state_dict": model.state_dict(), "labels": "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "}, tmp_path / "m.pt"
    )
    output = tmp_path / "o.json"
    status, printed = run("--checkpoint", str(tmp_path / "m.pt"), "--repeats", "1", "--json", str(output))
    assert status == 0
    assert "m.pt (checkpoint" in printed and "random" not in printed
    (report,) = json.loads(output.read_text())
    assert len(report["transcripts"]) == 2 and all(isinstance(text, str) for text in report["transcripts"])


def test_plot(run, tmp_path):
    pytest.importorskip("matplotlib")
    status, _ = run("--preset", "small", "--repeats", "1", "--plot", str(tmp_path / "chart.png"))
    assert status == 0
    assert (tmp_path / "chart.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_plot_without_matplotlib_says_so_at_once(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rtf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        run("--plot", str(tmp_path / "chart.png"))
    assert "needs matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch-size", "0"], "expected a positive integer, received '0'"),
        (["--threads", "two"], "expected a positive integer, received 'two'"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--device", "tpu"], "expected cpu, cuda or cuda:N, received 'tpu'"),
        (["--device", "cuda:"], "expected cpu, cuda or cuda:N, received 'cuda:'"),
        (["--device", "cuda:99"], "torch sees"),
        (["--preset", "small", "--checkpoint", "m.pt"], "not allowed with argument"),
        (["--preset", "small", "--model", "las_hw4"], "not allowed with argument"),
        (["--model", "las"], "invalid choice: 'las'"),
        (["--model", "las_hw4", "--write"], "--write needs --model all"),
        (["--json", "no/such/folder/o.json"], "expected a file in an existing folder"),
    ],
)
def test_bad_arguments_exit_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        rtf.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "absent.jsonl"], "absent.jsonl"),
        (["--checkpoint", "absent.pt"], "absent.pt"),
        (["--data", "empty.jsonl"], "expected at least one utterance"),
        (["--data", "short.jsonl"], "0.wav: 2 frames are too few"),
        (["--data", "features.jsonl"], "expected audio_filepath"),
    ],
)
def test_unusable_data_exit_with_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    write_manifest(tmp_path, [0.011]).rename("short.jsonl")
    (tmp_path / "a.npz").touch()
    (tmp_path / "features.jsonl").write_text('{"features_filepath": "a.npz#k", "duration": 1}')
    preset = [] if "--checkpoint" in arguments else ["--preset", "mlperf"]
    monkeypatch.setattr(DeepSpeech2, "preset", lambda name: DeepSpeech2(tiny("mlperf")))
    assert rtf.main([*arguments, *preset, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "isa, torch_isa, told",
    [
        ("avx2", "AVX2", "avx2"),
        ("avx512_vnni", "AVX512", "avx512_vnni"),
        ("avx2", "AVX512", "avx2 beside torch's AVX512"),
    ],
)
def test_tables_tell_the_instruction_set_that_stock_torch_had(isa, torch_isa, told):
    machine = {"gpu": None, "cpu": "EPYC", "asrkern_isa": isa, "torch_isa": torch_isa, "threads": 2}
    assert _report._processor(machine) == f"EPYC, {told}, 2 threads"


def test_a_new_table_replaces_the_one_of_its_instruction_set_alone():
    def table(isa: str, speed_up: str) -> str:
        return f"`python benchmarks/rtf.py` on EPYC, {isa}, 2 threads; torch 2.13.\n\n| {speed_up} |\n"

    before = table("avx512_vnni", "1.3") + "\n" + table("avx2", "1.9")
    merged = _report.merge_models(before, table("avx2 beside torch's AVX512", "0.9"))
    assert [found in merged for found in ("1.3", "1.9", "0.9")] == [True, True, True]
    merged = _report.merge_models(merged, table("avx2", "2.0"))
    assert [found in merged for found in ("1.3", "1.9", "0.9", "2.0")] == [True, False, True, True]


def tiny(layout: str, **options) -> DeepSpeech2Config:
    properties = stock.LAYOUTS[layout]
    return DeepSpeech2Config(
        conv_padding=properties.conv_padding,
        bias=properties.bias,
        batch_norm_between=properties.batch_norm,
        **{"hidden_size": 8, "num_layers": 2, "rnn_type": "gru", **options},
    )


@pytest.mark.parametrize(
    "layout, options",
    [
        (layout, options)
        for layout in stock.LAYOUTS
        for options in (
            {},
            {"num_layers": 1},
            {"bidirectional": False},
            {"bidirectional": False, "lookahead_context": 4},
        )
        if "lookahead_context" not in options or stock.LAYOUTS[layout].lookahead
    ],
)
def test_the_stock_twin_is_the_same_model(layout, options):
    torch.manual_seed(0)
    model = DeepSpeech2(tiny(layout, **options)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.1, 0.5)
    features, lengths = torch.randn(2, 1, 161, 60, dtype=torch.float64), torch.tensor([43, 60])
    twin = stock_deepspeech2(model).double()
    model = model.double()
    with torch.inference_mode():
        expected, expected_lengths = twin(features, lengths)
        actual, actual_lengths = model(features, lengths)
    assert torch.equal(actual_lengths, expected_lengths)
    assert expected.std() > 0.05
    assert _timing.largest_difference(expected, actual, actual_lengths) < 1e-9


def test_random_weights_get_the_statistics_of_a_request():
    torch.manual_seed(0)
    model = DeepSpeech2(tiny("v2"))
    rtf.calibrate(model, torch.nn.Identity(), [3 * torch.randn(161, 90)])
    assert not model.training
    with torch.inference_mode():
        normalised = model.conv.seq_module[:2](3 * torch.randn(1, 1, 161, 90))
    assert normalised.mean((0, 2, 3)).abs().max() < 0.2
    assert (normalised.std((0, 2, 3)) - 1).abs().max() < 0.2


def test_the_default_jobs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        DeepSpeech2, "preset", lambda name: DeepSpeech2(tiny("v2" if name == "small" else name))
    )
    jobs = [(job.name, job.device.type, job) for job in rtf.make_jobs(rtf.parse_arguments([]))]
    assert [job[:2] for job in jobs] == [
        ("small", "cpu"),
        ("mlperf", "cpu"),
        ("small", "cuda"),
        ("mlperf", "cuda"),
    ]
    small, mlperf = (sum(request.audio_seconds for request in job.requests) for _, _, job in jobs[:2])
    assert 50 < small <= 60 and 10 < mlperf <= 20


def test_the_shipped_utterances():
    utterances = read_manifest(rtf.SHIPPED)
    assert 8 <= len(utterances) <= 12
    assert sum(file.stat().st_size for file in rtf.SHIPPED.parent.iterdir() if file.is_file()) <= 1_000_000
    total = 0.0
    for utterance in utterances:
        info = soundfile.info(utterance.audio_path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert 1 <= info.duration <= 15
        assert abs(info.duration - utterance.duration_seconds) <= 0.0005
        assert utterance.text and set(utterance.text) <= set("abcdefghijklmnopqrstuvwxyz' ")
        total += info.duration
    assert total <= 60


def test_timing_rotates_backends_and_takes_medians_over_repeats():
    names = ["a", "b", "c"]
    backends = [rtf.Backend(name, {}) for name in names]
    calls = []

    def run(backend, request):
        calls.append((backend.name, request))
        seconds = float(len([call for call in calls if call == calls[-1]]))  # 1, 2, 3 on repeats
        return rtf.Result(None, None, [], {"conv": seconds, "rnn": seconds})

    progress = _report.Progress()
    progress.start("", 18)
    times = rtf.time_requests(backends, run, ["x", "y"], 3, progress)
    assert [name for name, _ in calls] == list("abcbcabcacabcababc")
    for name in names:
        assert times[name]["stages_seconds"] == {"conv": 4.0, "rnn": 4.0}  # median 2 for each
        assert times[name]["seconds"] == 8.0
        assert times[name]["timed_requests"] == 6
        assert times[name]["latency_seconds"]["p50"] == 4.0


@pytest.mark.parametrize("count", [1, 99, 100, 250])
def test_p99_needs_100_requests(count):
    found = _timing.percentiles([i / count for i in range(count)])
    assert list(found) == (["p50", "p90", "p99"] if count >= 100 else ["p50", "p90"])
    for name, value in found.items():
        assert value == pytest.approx(int(name[1:]) / 100 * (count - 1) / count)


def test_largest_difference_sees_valid_frames_only():
    expected = torch.randn(2, 5, 3)
    actual = expected.clone()
    lengths = torch.tensor([5, 2])
    assert _timing.largest_difference(expected, actual, lengths) == 0
    actual[1, 2:] = math.nan
    assert _timing.largest_difference(expected, actual, lengths) == 0
    actual[1, 1, 2] += 0.25
    assert _timing.largest_difference(expected, actual, lengths) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("both", [False, True])
def test_nan_and_infinity_never_pass(bad, both):
    expected, actual = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    actual[0, 1, 1] = bad
    if both:
        expected[0, 1, 1] = bad
    assert _timing.largest_difference(expected, actual, torch.tensor([2])) == math.inf


def test_peak_memory_counts_the_call():
    megabytes = functools.partial(functools.partial, operator.mul, b"x")  # megabytes(n)() makes n bytes
    cpu = torch.device("cpu")
    small, large = (_timing.peak_memory_mib(cpu, megabytes, n) for n in (1, 96 * 2**20))
    assert 90 < large - small < 110
