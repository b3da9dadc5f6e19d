"""Real-time factor of the models: stock torch (padded, and packed) against asrkern, on the same weights.

    python benchmarks/rtf.py
    python benchmarks/rtf.py --model las_kospeech
    python benchmarks/rtf.py --model all --write    then one table of all models, into benchmarks/results/rtf.md, in
                                                   place of that of this processor and instruction set

Without arguments: DeepSpeech2 on the shipped utterances, preset ``small`` on all of them and ``mlperf`` on at most
20 s, with random weights, on the CPU and on the GPU where there is one. Spellers are given 15 tokens for each second,
so that all backends take the same steps. Every request goes through all backends
before anything is timed; where an output differs by more than the tolerance, nothing is timed and the exit
status is 1.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # What comes next takes seconds.
    print("rtf.py: importing torch and asrkern", file=sys.stderr, flush=True)

import argparse
import functools
import gc
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asrkern import models
from asrkern.data import collate, load_audio, read_manifest
from asrkern.models import DeepSpeech2
from asrkern.models.deepspeech2_config import PRESETS
from asrkern.nn import freeze, quantize
from asrkern.nn.freeze import frozen_kind
from benchmarks._formats import FORMATS
from benchmarks._report import (
    Progress,
    command_line,
    format_models,
    format_report,
    merge_models,
    plot_reports,
)
from benchmarks._timing import Stopwatch, largest_difference, machine, peak_memory, percentiles
from benchmarks.models._systems import TOLERANCE, Stages, depends_on_padding, stock_stages, system_of
from benchmarks.models._torch_twin import sharing_weights

SHIPPED = Path(__file__).parent / "utterances" / "manifest.jsonl"
RESULTS = Path(__file__).parent / "results" / "rtf.md"
PADDED, PACKED, ASRKERN = "stock, padded", "stock, packed", "asrkern"
ALL = "all"
# By backend, the types of weights and of activations.
QUANTIZED = {f"{ASRKERN} {name}": types for name, types in FORMATS.items()}
REFERENCE = PACKED

# Of the largest, stock torch takes minutes.
DEFAULT_REPEATS = {"small": 10, "mlperf": 1, "deepspeech2_mlperf": 1, "deepspeech2_paper": 1}
DEFAULT_SECONDS = {"mlperf": 20.0, "deepspeech2_mlperf": 20.0, "deepspeech2_paper": 8.0}


@dataclass(frozen=True)
class Request:
    """Utterances that are processed as one batch: waveforms [samples] and their total length."""

    waveforms: list[Tensor]
    audio_seconds: float


@dataclass(frozen=True)
class Backend:
    """The stages of one implementation of a model, as benchmarks._systems describes them."""

    name: str
    stages: Stages
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Result:
    """What one backend made of one request: log-probabilities [N, T', V], lengths [N], labels, seconds.

    ``tokens`` is empty where the log-probabilities cannot be decoded.
    """

    log_probs: Tensor
    lengths: Tensor
    tokens: list[list[int]]
    laps: dict[str, float]


@dataclass(frozen=True)
class Job:
    """One table of the report."""

    name: str
    model: nn.Module
    build: Callable[[], nn.Module]  # one of the same size, in another process
    random_weights: bool
    device: torch.device
    requests: list[Request]
    repeats: int
    quantized: list[str]


def make_backends(model: nn.Module, device: torch.device, names: Sequence[str]) -> list[Backend]:
    """The named backends of one model on ``device``; asrkern's are frozen on the CPU, as ``asrkern transcribe`` does it."""
    backends = []
    model.to(device)
    for name in names:
        if name in (PADDED, PACKED):
            stages = stock_stages(model, name == PACKED, device)
        else:
            ours = quantize(model, *QUANTIZED[name]) if name in QUANTIZED else sharing_weights(model)
            if device.type == "cpu" and any(map(frozen_kind, ours.modules())):
                freeze(ours)
            stages = system_of(model).stages(ours)
        tolerance = system_of(model).tolerance
        if name in QUANTIZED:
            # Rounded activations move results about as much again.
            _, activations = QUANTIZED[name]
            tolerance = system_of(model).quantized_tolerance * (2 if activations == "int8" else 1)
        backends.append(Backend(name, stages, tolerance))
    return backends


def calibrate(model: nn.Module, transform: nn.Module, waveforms: Sequence[Tensor]) -> None:
    """Give random weights the BatchNorm statistics of some utterances, so that activations have realistic sizes."""
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        state = collate([transform(x) for x in waveforms])
        for stage in system_of(model).stages(model).values():
            state = stage(*state)
    model.eval()


@torch.inference_mode()
def process(
    backend: Backend,
    request: Request,
    transform: nn.Module,
    decode: Callable[[Tensor, Tensor], list[list[int]]],
    device: torch.device,
) -> Result:
    """From waveforms to tokens. Features are made on the CPU, one utterance at a time, for every backend."""
    watch = Stopwatch(device)
    features, lengths = collate([transform(x) for x in request.waveforms])
    state = features.to(device), lengths.to(device)
    watch.lap("features")
    for name, stage in backend.stages.items():
        state = stage(*state)
        watch.lap(name)
    log_probs, output_lengths = state
    try:
        tokens = decode(log_probs.cpu(), output_lengths.cpu())
    except ValueError:  # NaN, or lengths beyond the output: compare() finds them as well
        tokens = []
    watch.lap("decode")
    return Result(log_probs, output_lengths, tokens, watch.laps)


def left_out(model: nn.Module, requests: Sequence[Request]) -> dict[str, str]:
    """Backends that do not compute the same function on these requests, and why."""
    ragged = any(len({len(x) for x in request.waveforms}) > 1 for request in requests)
    if ragged and depends_on_padding(model):
        return {PADDED: "its recurrent layers run on into the padding of the shorter utterances"}
    return {}


def compare(
    backends: Sequence[Backend],
    run: Callable[[Backend, Request], Result],
    requests: Sequence[Request],
    progress: Progress,
) -> tuple[dict[str, dict[str, Any]], list[list[int]]]:
    """Run every request by every backend once, and compare with stock packed.

    Returns:
        By backend, its ``tolerance``, the ``largest_difference`` of log-probabilities (None where a shape or a length differs or a
        value is NaN or infinite) and the number of ``equal_transcripts``; then the reference's transcripts.
    """
    found = {
        backend.name: {
            "tolerance": backend.tolerance,
            "largest_difference": 0.0,
            "equal_transcripts": 0,
        }
        for backend in backends
    }
    transcripts = []
    for request in requests:
        results = {}
        for backend in backends:
            results[backend.name] = run(backend, request)
            progress.step()
        reference = results[REFERENCE]
        transcripts += reference.tokens
        for name, result in results.items():
            difference = math.inf
            if torch.equal(result.lengths, reference.lengths):
                difference = largest_difference(reference.log_probs, result.log_probs, reference.lengths)
            found[name]["largest_difference"] = max(found[name]["largest_difference"], difference)
            found[name]["equal_transcripts"] += sum(a == b for a, b in zip(result.tokens, reference.tokens))
    for numbers in found.values():
        if not math.isfinite(numbers["largest_difference"]):
            numbers["largest_difference"] = None  # JSON has no infinity
    return found, transcripts


def within_tolerance(found: dict[str, Any]) -> bool:
    return found["largest_difference"] is not None and found["largest_difference"] <= found["tolerance"]


def time_requests(
    backends: Sequence[Backend],
    run: Callable[[Backend, Request], Result],
    requests: Sequence[Request],
    repeats: int,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Time every request by every backend in turn, another one first each time.

    Returns:
        By backend: ``stages_seconds`` (per stage, the median over repeats, summed over requests), their sum
        ``seconds``, ``timed_requests`` (requests times repeats), and percentiles of the latency of those.
    """
    laps: dict[str, list[list[dict[str, float]]]] = {b.name: [[] for _ in requests] for b in backends}
    for repeat in range(repeats):
        for i, request in enumerate(requests):
            first = (repeat + i) % len(backends)
            for backend in [*backends[first:], *backends[:first]]:
                laps[backend.name][i].append(run(backend, request).laps)
                progress.step()
    times = {}
    for name, by_request in laps.items():
        stages = {
            stage: sum(median(lap[stage] for lap in laps) for laps in by_request)
            for stage in by_request[0][0]
        }
        latencies = [sum(lap.values()) for laps in by_request for lap in laps]
        times[name] = {
            "stages_seconds": stages,
            "seconds": sum(stages.values()),
            "timed_requests": len(latencies),
            "latency_seconds": percentiles(latencies),
        }
    return times


def prepare_alone(
    name: str,
    build: Callable[[], nn.Module],
    device: torch.device,
    waveforms: list[numpy.ndarray],
    threads: int,
) -> Callable[[], Result]:
    """In a new process: one backend with weights of its own, ready to process one request."""
    torch.set_num_threads(threads)
    model = build().eval()
    system = system_of(model)
    transform = system.features(model)
    (backend,) = make_backends(model, device, [name])
    del model
    gc.collect()
    request = Request([torch.from_numpy(x) for x in waveforms], 0.0)
    return functools.partial(process, backend, request, transform, system.decode, device)


def run_job(job: Job, progress: Progress) -> dict[str, Any]:
    """Compare, then time, then measure memory; ``passed`` is False where the comparison failed."""
    system = system_of(job.model)
    transform = system.features(job.model)
    if job.random_weights:
        waveforms = [x for request in job.requests for x in request.waveforms]
        calibrate(
            job.model, transform, waveforms[: max(len(job.requests[0].waveforms), system.calibration_clips)]
        )
    excluded = left_out(job.model, job.requests)
    names = [name for name in (PADDED, PACKED, ASRKERN, *job.quantized) if name not in excluded]
    backends = make_backends(job.model, job.device, names)
    run = functools.partial(process, transform=transform, decode=system.decode, device=job.device)
    audio_seconds = sum(request.audio_seconds for request in job.requests)
    progress.start(job.name, len(backends) * (len(job.requests) * (1 + job.repeats) + 1))
    numbers, transcripts = compare(backends, run, job.requests, progress)
    report = {
        "name": job.name,
        "weights": "random weights" if job.random_weights else "checkpoint",
        "parameters": sum(parameter.numel() for parameter in job.model.parameters()),
        "device": str(job.device),
        "machine": machine(job.device),
        "utterances": sum(len(request.waveforms) for request in job.requests),
        "requests": len(job.requests),
        "repeats": job.repeats,
        "audio_seconds": audio_seconds,
        "passed": all(map(within_tolerance, numbers.values())),
        "left_out": excluded,
        "backends": numbers,
    }
    if not job.random_weights:
        report["transcripts"] = [
            "".join(job.model.config.labels[token] for token in tokens) for tokens in transcripts
        ]
    if report["passed"]:
        times = time_requests(backends, run, job.requests, job.repeats, progress)
        stock = [name for name in times if name in (PADDED, PACKED)]
        fastest_stock = min(times[name]["seconds"] for name in stock)
        longest = max(job.requests, key=lambda request: max(map(len, request.waveforms)))
        waveforms = [x.numpy() for x in longest.waveforms]
        for name, found in numbers.items():
            found |= times[name]
            found["rtf"] = found["seconds"] / audio_seconds
            found["rtfx"] = audio_seconds / found["seconds"]
            found["speed_up"] = fastest_stock / found["seconds"]
            memory = peak_memory(
                job.device, prepare_alone, name, job.build, job.device, waveforms, torch.get_num_threads()
            )
            found |= {"peak_memory_mib": memory.peak, "memory_mib": memory.peak - memory.at_start}
            progress.step()
        smallest_stock = min(numbers[name]["memory_mib"] for name in stock)
        for found in numbers.values():
            found["memory_of_stock"] = found["memory_mib"] / smallest_stock
    progress.end()
    return report


def load_requests(manifest: Path, model: nn.Module, batch_size: int, max_seconds: float) -> list[Request]:
    """Batches of the manifest's leading utterances, at most ``max_seconds`` of them but at least one."""
    system = system_of(model)
    transform, minimum_frames = system.features(model), system.minimum_frames(model)
    waveforms: list[Tensor] = []
    total = 0.0
    for utterance in read_manifest(manifest):
        if utterance.audio_path is None:
            raise ValueError(f"{manifest}: expected audio_filepath, received {utterance.features_path}")
        samples = load_audio(
            utterance.audio_path,
            transform.sample_rate,
            offset_seconds=utterance.offset_seconds,
            duration_seconds=utterance.duration_seconds,
        )
        frames = len(samples) // transform.hop_samples + 1
        if frames < minimum_frames:
            raise ValueError(
                f"{utterance.audio_path}: {frames} frames are too few, the model needs {minimum_frames}"
            )
        total += len(samples) / transform.sample_rate
        if waveforms and total > max_seconds:
            break
        waveforms.append(samples)
    batches = [waveforms[i : i + batch_size] for i in range(0, len(waveforms), batch_size)]
    return [Request(batch, sum(map(len, batch)) / transform.sample_rate) for batch in batches]


def make_jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """One job per device and model, each made when its turn has come."""
    devices = [arguments.device] if arguments.device else [torch.device("cpu")]
    if not arguments.device and torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    for device in devices:
        for name, build in _wanted_models(arguments).items():
            say(f"{name} on {device}: making the model and reading the utterances")
            torch.manual_seed(0)
            model = build().eval()
            limit = math.inf if arguments.preset else DEFAULT_SECONDS.get(name, math.inf)
            requests = load_requests(arguments.data, model, arguments.batch_size, limit)
            repeats = arguments.repeats or DEFAULT_REPEATS.get(name, 3)
            # The kernels for fewer bits are the CPU's.
            fits = device.type == "cpu"
            quantized = [f"{ASRKERN} {bits}" for bits in arguments.quantize if fits and bits != "none"]
            random_weights = not arguments.checkpoint
            yield Job(name, model, build, random_weights, device, requests, repeats, quantized)


def _wanted_models(arguments: argparse.Namespace) -> dict[str, Callable[[], nn.Module]]:
    """What makes each model, picklable."""
    if arguments.checkpoint:
        build = functools.partial(DeepSpeech2.from_checkpoint, arguments.checkpoint)
        return {str(arguments.checkpoint): build}
    if arguments.model == ALL:
        return {name: functools.partial(models.build, name) for name in models.list()}
    if arguments.model:
        return {arguments.model: functools.partial(models.build, arguments.model)}
    names = [arguments.preset] if arguments.preset else ["small", "mlperf"]
    return {name: functools.partial(DeepSpeech2.preset, name) for name in names}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
        return int(text)

    def output_file(text: str) -> Path:
        path = Path(text)
        if path.is_dir() or not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"expected a file in an existing folder, received {text!r}")
        return path

    def device(text: str) -> torch.device:
        kind, _, index = text.partition(":")
        if kind not in ("cpu", "cuda") or (":" in text and not index.isdecimal()):
            raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, received {text!r}")
        if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
            raise argparse.ArgumentTypeError(f"{text!r}: torch sees {torch.cuda.device_count()} CUDA devices")
        return torch.device(text)

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHIPPED, metavar="MANIFEST.jsonl", help="in NeMo's form")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", type=Path, help="of deepspeech.pytorch or MLPerf, any version")
    model.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="of DeepSpeech2, random weights; default: small, then mlperf",
    )
    model.add_argument(
        "--model",
        choices=[*models.list(), ALL],
        metavar="NAME",
        help="random weights: " + ", ".join([*models.list(), ALL]),
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="with --model all: put the table of all models into benchmarks/results/rtf.md",
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="utterances per request")
    parser.add_argument("--repeats", type=positive, metavar="N", help="times that each request is timed")
    parser.add_argument("--threads", type=positive, metavar="N", help="of torch, for every backend alike")
    parser.add_argument(
        "--quantize",
        nargs="+",
        choices=[*FORMATS, "none"],
        default=["int8", "int8/int8"],
        help="weights, or weights and activations, of more backends, on the CPU; default: int8 int8/int8",
    )
    parser.add_argument("--device", type=device, help="cpu, cuda or cuda:N; default: cpu, and cuda if any")
    parser.add_argument("--json", type=output_file, metavar="OUT", help="write all numbers")
    parser.add_argument(
        "--plot", type=output_file, metavar="OUT.png", help="write a chart (needs matplotlib)"
    )
    arguments = parser.parse_args(argv)
    if arguments.write and arguments.model != ALL:
        parser.error(f"--write needs --model {ALL}")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    return arguments


def say(text: str) -> None:
    """What comes next, for those who wait."""
    print(f"rtf.py: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if an output differed, or 2 if the arguments or the data are unusable."""
    arguments = parse_arguments(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # cuDNN would use TF32 for stock convolutions, but not for stock matrix products.
    torch.backends.cudnn.allow_tf32 = False
    reports = []
    try:
        for job in make_jobs(arguments):
            rounds = f"comparing {len(job.requests)} requests, then timing each {job.repeats} times"
            say(f"{job.name} on {job.device}: {rounds}")
            reports.append(run_job(job, Progress()))
            print(format_report(reports[-1]), flush=True)
    except (OSError, ValueError) as error:
        print(f"rtf.py: error: {error}", file=sys.stderr)
        return 2
    if arguments.model == ALL:
        command = command_line("benchmarks/rtf.py", sys.argv[1:] if argv is None else argv)
        text = format_models(command, reports)
        print(f"\n{text}")
        if arguments.write:
            before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
            RESULTS.write_text(merge_models(before, text), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        plot_reports(reports, arguments.plot)
    return 0 if all(report["passed"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
