"""What fewer bits do to a trained model's errors: float32, bfloat16 and int8 weights, int8 activations.

    asrkern train recipes/s1_grid.toml -o runs/grid
    python benchmarks/models/bits.py runs/grid/best.safetensors $ASRKERN_DATA/grid/dev.jsonl

Greedy transcripts of all utterances, each alone, on the CPU: error rates, the utterances whose text is another than
float32's, and the time of features and model.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.data import load_audio, read_manifest
from asrkern.nn import quantize
from asrkern.recognizer.saved import Recognizer, load
from asrkern.training.metrics import ErrorCounts, in_words
from benchmarks._formats import FORMATS
from benchmarks._report import markdown_table


def transcripts(recognizer: Recognizer, waveforms: Sequence[Tensor]) -> tuple[list[str], float]:
    """The texts, and the seconds that they took."""
    started = time.perf_counter()
    texts = [recognizer.predict_audio([samples])[0] for samples in waveforms]
    return texts, time.perf_counter() - started


def table(
    recognizer: Recognizer, waveforms: Sequence[Tensor], references: Sequence[str]
) -> list[dict[str, str]]:
    """A row for each format, as the cells by the header of their columns."""
    rows, wanted = [], None
    metrics = ["accuracy"] if recognizer.task_name == "classify" else ["wer", "cer"]
    model = recognizer.model.eval()
    for name, types in {"float32": None, **FORMATS}.items():
        own = model if types is None else quantize(model, *types)
        texts, seconds = transcripts(dataclasses.replace(recognizer, model=own), waveforms)
        wanted = texts if wanted is None else wanted
        counts = ErrorCounts().add_all(texts, references)
        rows.append(
            {
                "": name,
                **{metric.upper(): in_words(metric, counts.value(metric)) for metric in metrics},
                "other texts": f"{sum(a != b for a, b in zip(texts, wanted))} of {len(texts)}",
                "seconds": f"{seconds:.2f}",
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; unreadable files are errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("manifest", type=Path, help="utterances with their texts")
    arguments = parser.parse_args(argv)
    recognizer = load(arguments.checkpoint)
    utterances = list(read_manifest(arguments.manifest))
    rate = recognizer.features.sample_rate
    waveforms = [
        load_audio(u.audio_path, rate, offset_seconds=u.offset_seconds, duration_seconds=u.duration_seconds)
        for u in utterances
    ]
    references = [recognizer.text(u.text) for u in utterances]
    print(markdown_table(table(recognizer, waveforms, references)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
