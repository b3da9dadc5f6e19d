"""Memory and time that long recordings take: synthetic speech, read, transcribed and measured in processes of their own.

    python benchmarks/models/long_audio.py                                  # four kinds of recordings, an hour each
    python benchmarks/models/long_audio.py --minutes 10 --kind 44100x1.mp3  # RATExCHANNELS.SUFFIX, may be repeated
    python benchmarks/models/long_audio.py --task load transcribe --bound-mib 1024

Tasks: "load" reads the recording at the model's rate; "transcribe" is ``asrkern transcribe``; "evaluate" is ``asrkern
evaluate`` of a manifest with the recording as one utterance; "part" reads ten seconds near the end; "stream" reads it
from a pipe; "features" computes the spectrogram. The model is a DeepSpeech2 with random weights. Peak is the process's
largest resident memory, Python and torch included. With --bound-mib the exit status is 1 if any is above.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy
import soundfile

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks._report import markdown_table
from benchmarks._timing import peak_resident_mib

TASKS = ("load", "part", "stream", "features", "transcribe", "evaluate")
KINDS = ("16000x1.wav", "48000x2.flac", "44100x1.mp3", "44100x1.ogg")


def write_recording(path: Path, rate: int, channels: int, minutes: float) -> None:
    """Syllables of a few harmonics in noise, with pauses."""
    draw = numpy.random.default_rng(0)
    left, second = round(minutes * 60 * rate), numpy.arange(rate) / rate
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        while left > 0:
            pitch, loudness = (
                draw.uniform(80, 300),
                numpy.repeat(draw.uniform(0, 1, 10) ** 3, -(-rate // 10))[:rate],
            )
            voice = sum(numpy.sin(2 * math.pi * pitch * k * second) / k for k in range(1, 12))
            samples = 0.1 * loudness * voice + 0.002 * draw.standard_normal(rate)
            file.write(numpy.repeat(samples[: min(left, rate), None], channels, 1))
            left -= rate


def write_model(path: Path, sample_rate: int) -> None:
    import torch

    from asrkern.models import build
    from asrkern.recognizer.feature_settings import FeatureSettings
    from asrkern.recognizer.saved import Recognizer, save
    from asrkern.recognizer.text import TextNormalization
    from asrkern.recognizer.tokenizer import TokenizerSettings, make_tokenizer

    torch.manual_seed(0)
    tokenizer = make_tokenizer(TokenizerSettings(), "ctc", [])
    options = {
        "labels": list(tokenizer.labels),
        "sample_rate": sample_rate,
        "hidden_size": 128,
        "num_layers": 2,
    }
    model = build("deepspeech2_small", **options).eval()
    # As a trained one: sure of itself, and of a blank in three of four frames.
    norm, layer = model.fc[0].module
    with torch.no_grad():
        features = torch.randn(1, 1, model.n_features, 3000)
        logits = model(features, torch.tensor([3000]))[0][0]
        layer.weight.mul_(5 / logits.std())
        logits = model(features, torch.tensor([3000]))[0][0]
        others = logits[:, 1:].max(1).values - logits[:, 0]
        norm.bias += torch.linalg.pinv(layer.weight)[:, 0] * others.quantile(0.75)
    features = FeatureSettings(sample_rate=sample_rate)
    save(
        path, Recognizer(model, "deepspeech2_small", options, "ctc", tokenizer, features, TextNormalization())
    )


def run_task(task: str, recording: Path, model: Path, rate: int, minutes: float) -> None:
    """In this process."""
    if task in ("transcribe", "evaluate"):
        from asrkern.cli.app import app

        source = recording
        if task == "evaluate":
            source = recording.with_suffix(".jsonl")
            # Some writers pad the end: a little less is there for certain.
            line = {"audio_filepath": recording.name, "duration": minutes * 60 - 0.1, "text": "a"}
            source.write_text(json.dumps(line) + "\n")
        app([task, str(model), str(source)], standalone_mode=False)
        return
    from asrkern.data import Spectrogram, load_audio, read_stream

    if task == "stream":
        with recording.open("rb") as file:
            assert sum(map(len, read_stream(file, rate))) >= minutes * 60 * rate
        return
    part = {"offset_seconds": minutes * 60 - 20, "duration_seconds": 10.0} if task == "part" else {}
    samples = load_audio(recording, rate, **part)
    if task == "features":
        Spectrogram(rate)(samples)


def measure(task: str, recording: Path, model: Path, rate: int, minutes: float) -> tuple[float, float]:
    """Peak MiB and seconds of a process that does nothing else."""
    command = [sys.executable, __file__, "--child", task, recording, model, rate, minutes]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{task} of {recording.name}: {result.stderr}")
    peak, seconds = result.stdout.splitlines()[-1].split()
    return float(peak), float(seconds)


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if a process took more memory than it may."""
    if argv[:1] == ["--child"]:
        task, recording, model, rate, minutes = argv[1:]
        began = time.perf_counter()
        run_task(task, Path(recording), Path(model), int(rate), float(minutes))
        print(f"\n{peak_resident_mib()} {time.perf_counter() - began}")
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kind", action="append", metavar="RATExCHANNELS.SUFFIX")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--model-rate", type=int, nargs="+", default=[16000, 8000], metavar="HZ")
    parser.add_argument("--bound-mib", type=float, default=math.inf)
    options = parser.parse_args(argv)
    peaks, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind or KINDS:
            form, suffix = kind.split(".")
            rate, channels = map(int, form.split("x"))
            recording = Path(folder, f"recording.{suffix}")
            write_recording(recording, rate, channels, options.minutes)
            for model_rate in options.model_rate:
                model = Path(folder, f"{model_rate}.safetensors")
                if not model.exists():
                    write_model(model, model_rate)
                for task in options.task:
                    peak, seconds = measure(task, recording, model, model_rate, options.minutes)
                    peaks.append(peak)
                    row = {"recording": kind, "model Hz": str(model_rate), "task": task}
                    row |= {"peak MiB": f"{peak:.0f}", "s": f"{seconds:.1f}"}
                    rows.append(row | {"× real time": f"{options.minutes * 60 / seconds:.0f}"})
                    print(*rows[-1].values(), file=sys.stderr, flush=True)
            recording.unlink()
    print(f"{options.minutes:g} minutes\n\n{markdown_table(rows)}")
    return int(max(peaks) > options.bound_mib)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
