"""Real-time factor of DeepSpeech2: stock torch (padded, and packed) against asrkern, on the same weights.

    python benchmarks/rtf.py

Without arguments: the shipped utterances, preset ``small`` on all of them and ``mlperf`` on at most 20 s,
with random weights, on the CPU and on the GPU where there is one. Every request goes through all backends
before anything is timed; where an output differs by more than the tolerance, nothing is timed and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import torch
from torch import Tensor, nn

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asrkern.data import Spectrogram, collate, load_audio, read_manifest
from asrkern.decoder import greedy_decode
from asrkern.models import DeepSpeech2, DeepSpeech2Config
from asrkern.models.conv_front_end import conv_length
from asrkern.models.deepspeech2_config import PRESETS
from asrkern.nn import quantize
from benchmarks import stock
from benchmarks._report import Progress, format_report, plot_reports
from benchmarks._timing import Stopwatch, largest_difference, machine, peak_memory_mib, percentiles

SHIPPED = Path(__file__).parent / "utterances" / "manifest.jsonl"
STAGES = ("features", "conv", "rnn", "fc", "decode")
PADDED, PACKED, ASRKERN = "stock, padded", "stock, packed", "asrkern"
QUANTIZED = {"asrkern int8": "int8", "asrkern bf16": "bf16"}
REFERENCE = PACKED

# Of log-probabilities: fp32 networks whose sums differ in their order only, and networks of fewer bits, whose weights
# differ. NaN and infinity never pass.
TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 0.1

DEFAULT_REPEATS = {"small": 10, "mlperf": 1}
DEFAULT_SECONDS = {"small": math.inf, "mlperf": 20.0}


@dataclass(frozen=True)
class Request:
    """Utterances that are processed as one batch: waveforms [samples] and their total length."""

    waveforms: list[Tensor]
    audio_seconds: float


@dataclass(frozen=True)
class Backend:
    """The three stages of one implementation of the model; shapes as in asrkern.models.DeepSpeech2."""

    name: str
    conv: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rnn: Callable[[Tensor, Tensor], Tensor]
    fc: Callable[[Tensor, Tensor], Tensor]


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
    model: DeepSpeech2
    random_weights: bool
    device: torch.device
    requests: list[Request]
    repeats: int
    quantized: list[str]


def stock_twin(model: DeepSpeech2) -> stock.StockDeepSpeech2:
    """The same model in plain torch with the same weights, in eval mode."""
    config = model.config
    between = config.batch_norm_between and config.num_layers > 1
    name, layout = next(
        (name, layout)
        for name, layout in stock.LAYOUTS.items()
        if (layout.conv_padding, layout.bias) == (config.conv_padding, config.bias)
        and (layout.batch_norm and config.num_layers > 1) == between
    )
    windowed = layout.lookahead == "weight"  # counts the frames after the present one
    twin = stock.StockDeepSpeech2(
        name,
        labels=config.labels,
        n_freq=config.n_freq,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        rnn_type=config.rnn_type,
        bidirectional=config.bidirectional,
        lookahead_context=(config.lookahead_context or 1) - windowed,
    )
    weights = model.state_dict()
    if not layout.wrapped_conv:
        weights = {key.replace("conv.seq_module.", "conv."): value for key, value in weights.items()}
    if windowed and "lookahead.0.conv.weight" in weights:
        weights["lookahead.0.weight"] = weights.pop("lookahead.0.conv.weight").squeeze(1)
    if config.lookahead_context is None:
        twin.lookahead = None
    twin.load_state_dict(weights)
    return twin.eval()


def stock_backend(name: str, twin: stock.StockDeepSpeech2) -> Backend:
    def through_padding(x: Tensor, output_lengths: Tensor) -> Tensor:
        for layer in twin.rnns:
            x = layer(x, None)
        return x if twin.lookahead is None else twin.lookahead(x)

    rnn = {PADDED: through_padding, PACKED: twin.rnn_stage}[name]
    return Backend(name, twin.conv_stage, rnn, twin.fc_stage)


def make_backends(model: DeepSpeech2, device: torch.device, names: Sequence[str]) -> list[Backend]:
    """The named backends of one model on ``device``; the stock ones share their weights."""
    stock_names = [name for name in names if name in (PADDED, PACKED)]
    backends = []
    if stock_names:
        twin = stock_twin(model).to(device)
        backends += [stock_backend(name, twin) for name in stock_names]
    for name in names:
        if name == ASRKERN or name in QUANTIZED:
            ours = quantize(model, QUANTIZED[name]) if name in QUANTIZED else model.to(device)
            backends.append(Backend(name, ours.conv_stage, ours.rnn_stage, ours.fc_stage))
    return backends


def make_spectrogram(config: DeepSpeech2Config) -> Spectrogram:
    return Spectrogram(
        config.sample_rate, config.window_size, config.window_stride, periodic=config.window_periodic
    )


def calibrate(model: DeepSpeech2, spectrogram: Spectrogram, request: Request) -> None:
    """Give random weights the BatchNorm statistics of a request, so that activations have realistic sizes."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(*collate([spectrogram(x) for x in request.waveforms]))
    model.eval()


@torch.inference_mode()
def process(backend: Backend, request: Request, spectrogram: Spectrogram, device: torch.device) -> Result:
    """From waveforms to labels. Features are made on the CPU, one utterance at a time, for every backend."""
    watch = Stopwatch(device)
    features, lengths = collate([spectrogram(x) for x in request.waveforms])
    features, lengths = features.to(device), lengths.to(device)
    watch.lap("features")
    x, output_lengths = backend.conv(features, lengths)
    watch.lap("conv")
    x = backend.rnn(x, output_lengths)
    watch.lap("rnn")
    log_probs = backend.fc(x, output_lengths)
    watch.lap("fc")
    try:
        tokens = [path.tokens for path in greedy_decode(log_probs.cpu(), output_lengths.cpu())]
    except ValueError:  # NaN, or lengths beyond the output: compare() finds them as well
        tokens = []
    watch.lap("decode")
    return Result(log_probs, output_lengths, tokens, watch.laps)


def left_out(config: DeepSpeech2Config, requests: Sequence[Request]) -> dict[str, str]:
    """Backends that do not compute the same function on these requests, and why."""
    ragged = any(len({len(x) for x in request.waveforms}) > 1 for request in requests)
    if config.bidirectional and ragged:
        return {PADDED: "its backward direction starts in the padding of the shorter utterances"}
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
            "tolerance": QUANTIZED_TOLERANCE if backend.name in QUANTIZED else TOLERANCE,
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
        stages = {stage: sum(median(lap[stage] for lap in laps) for laps in by_request) for stage in STAGES}
        latencies = [sum(lap.values()) for laps in by_request for lap in laps]
        times[name] = {
            "stages_seconds": stages,
            "seconds": sum(stages.values()),
            "timed_requests": len(latencies),
            "latency_seconds": percentiles(latencies),
        }
    return times


def prepare_alone(
    name: str, config: DeepSpeech2Config, device: torch.device, waveforms: list[numpy.ndarray], threads: int
) -> Callable[[], Result]:
    """In a new process: one backend with weights of its own, ready to process one request."""
    torch.set_num_threads(threads)
    (backend,) = make_backends(DeepSpeech2(config).eval(), device, [name])
    gc.collect()
    request = Request([torch.from_numpy(x) for x in waveforms], 0.0)
    spectrogram = make_spectrogram(config)
    return functools.partial(process, backend, request, spectrogram, device)


def run_job(job: Job, progress: Progress) -> dict[str, Any]:
    """Compare, then time, then measure memory; ``passed`` is False where the comparison failed."""
    config = job.model.config
    spectrogram = make_spectrogram(config)
    if job.random_weights:
        calibrate(job.model, spectrogram, job.requests[0])
    excluded = left_out(config, job.requests)
    names = [name for name in (PADDED, PACKED, ASRKERN, *job.quantized) if name not in excluded]
    backends = make_backends(job.model, job.device, names)
    run = functools.partial(process, spectrogram=spectrogram, device=job.device)
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
        report["transcripts"] = ["".join(config.labels[token] for token in tokens) for tokens in transcripts]
    if report["passed"]:
        times = time_requests(backends, run, job.requests, job.repeats, progress)
        fastest_stock = min(times[name]["seconds"] for name in times if name in (PADDED, PACKED))
        longest = max(job.requests, key=lambda request: max(map(len, request.waveforms)))
        waveforms = [x.numpy() for x in longest.waveforms]
        for name, found in numbers.items():
            found |= times[name]
            found["rtf"] = found["seconds"] / audio_seconds
            found["rtfx"] = audio_seconds / found["seconds"]
            found["speed_up"] = fastest_stock / found["seconds"]
            found["peak_memory_mib"] = peak_memory_mib(
                job.device, prepare_alone, name, config, job.device, waveforms, torch.get_num_threads()
            )
            progress.step()
    progress.end()
    return report


def load_requests(
    manifest: Path, config: DeepSpeech2Config, batch_size: int, max_seconds: float
) -> list[Request]:
    """Batches of the manifest's leading utterances, at most ``max_seconds`` of them but at least one."""
    waveforms: list[Tensor] = []
    total = 0.0
    for utterance in read_manifest(manifest):
        if utterance.audio_path is None:
            raise ValueError(f"{manifest}: expected audio_filepath, received {utterance.features_path}")
        samples = load_audio(
            utterance.audio_path,
            config.sample_rate,
            offset_seconds=utterance.offset_seconds,
            duration_seconds=utterance.duration_seconds,
        )
        frames = len(samples) // int(config.sample_rate * config.window_stride) + 1
        if conv_length(frames, 1, config.conv_padding) < 1:
            raise ValueError(
                f"{utterance.audio_path}: {frames} frames are too few for the model's convolutions"
            )
        total += len(samples) / config.sample_rate
        if waveforms and total > max_seconds:
            break
        waveforms.append(samples)
    batches = [waveforms[i : i + batch_size] for i in range(0, len(waveforms), batch_size)]
    return [Request(batch, sum(map(len, batch)) / config.sample_rate) for batch in batches]


def make_jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """One job per device and model, each made when its turn has come."""
    devices = [arguments.device] if arguments.device else [torch.device("cpu")]
    if not arguments.device and torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    for device in devices:
        if arguments.checkpoint:
            names = [str(arguments.checkpoint)]
        else:
            names = [arguments.preset] if arguments.preset else ["small", "mlperf"]
        for name in names:
            torch.manual_seed(0)
            if arguments.checkpoint:
                model = DeepSpeech2.from_checkpoint(arguments.checkpoint)
            else:
                model = DeepSpeech2.preset(name)
            limit = math.inf if arguments.preset else DEFAULT_SECONDS.get(name, math.inf)
            requests = load_requests(arguments.data, model.config, arguments.batch_size, limit)
            repeats = arguments.repeats or DEFAULT_REPEATS.get(name, 3)
            # The kernels for fewer bits are the CPU's and the GRU's.
            fits = device.type == "cpu" and model.config.rnn_type == "gru"
            quantized = [f"asrkern {arguments.quantize}"] if fits and arguments.quantize != "none" else []
            yield Job(name, model, not arguments.checkpoint, device, requests, repeats, quantized)


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
        "--preset", choices=sorted(PRESETS), help="random weights; default: small, then mlperf"
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="utterances per request")
    parser.add_argument("--repeats", type=positive, metavar="N", help="times that each request is timed")
    parser.add_argument("--threads", type=positive, metavar="N", help="of torch, for every backend alike")
    parser.add_argument(
        "--quantize",
        choices=["int8", "bf16", "none"],
        default="int8",
        help="weights of one more backend, on the CPU; default: int8",
    )
    parser.add_argument("--device", type=device, help="cpu, cuda or cuda:N; default: cpu, and cuda if any")
    parser.add_argument("--json", type=output_file, metavar="OUT", help="write all numbers")
    parser.add_argument(
        "--plot", type=output_file, metavar="OUT.png", help="write a chart (needs matplotlib)"
    )
    arguments = parser.parse_args(argv)
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    return arguments


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
            reports.append(run_job(job, Progress()))
            print(format_report(reports[-1]), flush=True)
    except (OSError, ValueError) as error:
        print(f"rtf.py: error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        plot_reports(reports, arguments.plot)
    return 0 if all(report["passed"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
