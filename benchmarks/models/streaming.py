"""Streaming DeepSpeech2: seconds for each chunk of audio, from samples to partial text.

    python benchmarks/models/streaming.py
    python benchmarks/models/streaming.py --preset mlperf --quantize int8 --chunk-ms 320

The shipped utterances one after another, with random weights, on the CPU: spectrogram, model, beam search and its
partial result for each chunk. First every utterance goes through in chunks and as a whole; where one bit of the
log-probabilities or a hypothesis differs, nothing is timed and the exit status is 1. With --low-latency they may differ
by rounding: 1e-4 of log-probabilities.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.data import Spectrogram, SpectrogramStream, load_audio, read_manifest
from asrkern.decoder import CTCBeamDecoder
from asrkern.decoder.beam import Hypothesis
from asrkern.models import DeepSpeech2, StreamingDeepSpeech2
from asrkern.nn import quantize
from benchmarks._report import markdown_table
from benchmarks._timing import machine, percentiles
from benchmarks.rtf import SHIPPED, calibrate

PRESETS = {
    "small": {"bidirectional": False, "lookahead_context": 20},
    "mlperf": {},
}
# Of log-probabilities, with low latency.
TOLERANCE = 1e-4


class Chain:
    """From samples to text, in chunks or at once."""

    def __init__(
        self, model: DeepSpeech2, spectrogram: Spectrogram, beam_width: int, low_latency: bool
    ) -> None:
        self.spectrogram, self.model = spectrogram, model
        self.low_latency, self.features = low_latency, SpectrogramStream(spectrogram)
        self.stream = StreamingDeepSpeech2(model, low_latency=low_latency)
        self.decoder = CTCBeamDecoder(model.config.labels, beam_width=beam_width)

    def in_chunks(self, samples: Tensor, chunk: int) -> tuple[Tensor, list[Hypothesis], list[float]]:
        """Log-probabilities, hypotheses, and the seconds that each chunk and then the end took."""
        features, model, search = self.features.start(), self.stream.start(), self.decoder.start()
        log_probs, seconds, told = [], [], 0
        for part in samples.split(chunk):
            start = time.perf_counter()
            log_probs.append(self.stream.step(model, self.features.step(features, part)))
            self.decoder.step(search, log_probs[-1])
            told = self.decoder.partial(search, after=told).word_count
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        log_probs += [
            self.stream.step(model, self.features.finish(features)),
            self.stream.finish(model),
        ]
        self.decoder.step(search, torch.cat(log_probs[-2:]))
        hypotheses = self.decoder.finish(search)
        seconds.append(time.perf_counter() - start)
        return torch.cat(log_probs), hypotheses, seconds

    @torch.no_grad()
    def at_once(self, samples: Tensor) -> tuple[Tensor, list[Hypothesis], float]:
        """The same for the whole utterance."""
        start = time.perf_counter()
        features = self.spectrogram(samples)
        log_probs = self.model(features[None], torch.tensor([features.shape[1]]))[0][0]
        hypotheses = self.decoder.decode(log_probs)
        return log_probs, hypotheses, time.perf_counter() - start


def run(chain: Chain, utterances: Sequence[Tensor], chunk_ms: int, sample_rate: int) -> dict[str, str] | None:
    """One row of the table; None where a result differs."""
    chunk = sample_rate * chunk_ms // 1000
    for samples in utterances:
        log_probs, hypotheses, _ = chain.in_chunks(samples, chunk)
        expected, expected_hypotheses, _ = chain.at_once(samples)
        if chain.low_latency:
            equal = (log_probs - expected).abs().max() <= TOLERANCE
            equal = equal and hypotheses[0].text == expected_hypotheses[0].text
        else:
            equal = torch.equal(log_probs, expected) and hypotheses == expected_hypotheses
        if not equal:
            return None
    chunks, ends, whole = [], [], 0.0
    for samples in utterances:
        *seconds, end = chain.in_chunks(samples, chunk)[2]
        chunks += seconds
        ends.append(end)
        whole += chain.at_once(samples)[2]
    audio_seconds = sum(map(len, utterances)) / sample_rate
    wanted = percentiles(chunks)
    return {
        "chunk ms": str(chunk_ms),
        **{f"{name} ms": f"{1000 * wanted[name]:.1f}" for name in ("p50", "p90")},
        "max ms": f"{1000 * max(chunks):.1f}",
        "end ms": f"{1000 * max(ends):.1f}",
        "RTF": f"{(sum(chunks) + sum(ends)) / audio_seconds:.4f}",
        "RTF at once": f"{whole / audio_seconds:.4f}",
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHIPPED, metavar="MANIFEST.jsonl", help="in NeMo's form")
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--quantize", choices=["none", "int8", "bf16"], default="none")
    parser.add_argument("--chunk-ms", type=int, nargs="+", default=[40, 100, 500])
    parser.add_argument("--beam-width", type=int, default=32)
    parser.add_argument("--max-seconds", type=float, default=20.0, help="of audio; at least one utterance")
    parser.add_argument("--low-latency", action="store_true", help="as of asrkern transcribe --stream")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    model = DeepSpeech2.preset(arguments.preset, **PRESETS[arguments.preset]).eval()
    config = model.config
    spectrogram = Spectrogram(
        config.sample_rate,
        config.window_size,
        config.window_stride,
        periodic=config.window_periodic,
        normalization="running",
    )
    utterances: list[Tensor] = []
    for utterance in read_manifest(arguments.data):
        samples = load_audio(utterance.audio_path, config.sample_rate)
        seconds = sum(map(len, [*utterances, samples])) / config.sample_rate
        if utterances and seconds > arguments.max_seconds:
            break
        utterances.append(samples)
    calibrate(model, spectrogram, utterances[:1])
    if arguments.quantize != "none":
        model = quantize(model, arguments.quantize)
    chain = Chain(model, spectrogram, arguments.beam_width, arguments.low_latency)
    about, latency = machine(torch.device("cpu")), chain.stream.latency
    print(
        f"{arguments.preset}, weights random {arguments.quantize}, {len(utterances)} utterances; "
        f"{about['cpu']}, {torch.get_num_threads()} threads; torch {about['torch']}\n"
        f"output behind the audio: {latency.mean_ms:.0f} ms on average, at most {latency.max_ms:.0f} ms, "
        "and the time of a chunk\n"
    )
    rows = []
    for chunk_ms in arguments.chunk_ms:
        row = run(chain, utterances, chunk_ms, config.sample_rate)
        if row is None:
            print(f"FAILED: chunks of {chunk_ms} ms give another result than the whole; nothing was timed")
            return 1
        rows.append(row)
    print(markdown_table(rows))
    kept = f"to {TOLERANCE:g}" if arguments.low_latency else "every bit"
    print(f"\nLog-probabilities ({kept}) and hypotheses equal those of whole utterances.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
