"""Two hours of one stream: what a partial result costs, and what memory is taken, as the recording goes on.

    python benchmarks/decoder/soak_stream.py
    python benchmarks/decoder/soak_stream.py --hours 0.2 --beam-width 20

Simulated log-probabilities, 50 frames a second, in chunks of 200 ms, each followed by a partial result: words that are
said with some letters unsure, with a language model; and noise without one, whose prefixes differ as far back as they
may. Printed are medians of the last minute before each mark. The exit status is 1 if the last mark's partial result takes
more than twice what it took after ten minutes, or a process more than 32 MiB above it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.decoder import CTCBeamDecoder, NGramLM
from benchmarks._report import markdown_table
from benchmarks._timing import machine

LABELS = ["-", " ", *"abcdefghijklmnopqrstuvwxyz"]
FRAMES_A_SECOND, CHUNK = 50, 10
MINUTE = 60 * FRAMES_A_SECOND
SETTLED_MINUTES = 10
ALLOWED_MIB = 32


def make_words(count: int = 500) -> list[str]:
    chance = random.Random(0)
    return ["".join(chance.choices(LABELS[2:], k=chance.randint(2, 9))) for _ in range(count)]


def speech(words: Sequence[str]) -> Iterator[Tensor]:
    """Chunks [CHUNK, V] of random words, three frames a letter."""
    chance, torch_chance = random.Random(1), torch.Generator().manual_seed(1)
    said: list[int] = []
    while True:
        while len(said) < CHUNK:
            for letter in f"{chance.choice(words)} ":
                said += [LABELS.index(letter), 0, 0]
        frames, said = said[:CHUNK], said[CHUNK:]
        logits = 2 * torch.randn(CHUNK, len(LABELS), generator=torch_chance)
        logits[range(CHUNK), frames] += 7
        yield logits.log_softmax(-1)


def noise() -> Iterator[Tensor]:
    """Chunks [CHUNK, V] in which nothing is said."""
    chance = torch.Generator().manual_seed(2)
    while True:
        yield (2 * torch.randn(CHUNK, len(LABELS), generator=chance)).log_softmax(-1)


def resident_mib() -> float:
    """Of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def soak(
    decoder: CTCBeamDecoder, chunks: Iterator[Tensor], marks: Sequence[int]
) -> Iterator[dict[str, float]]:
    """One stream; figures at each mark, in minutes."""
    state, told = decoder.start(), 0
    seconds: dict[str, list[float]] = {"step": [], "partial": []}
    for chunk in chunks:
        start = time.perf_counter()
        decoder.step(state, chunk)
        between = time.perf_counter()
        found = decoder.partial(state, after=told)
        seconds["step"].append(between - start)
        seconds["partial"].append(time.perf_counter() - between)
        told = found.word_count
        if state.frames % MINUTE:
            continue
        if (minutes := state.frames // MINUTE) in marks:
            yield {
                "minutes": minutes,
                **{f"{name} ms": 1000 * median(times) for name, times in seconds.items()},
                "longest partial ms": 1000 * max(seconds["partial"]),
                "tail, letters": len(found.tail),
                "words told": told,
                "trees KiB": state.tree_bytes / 1024,
                "process MiB": resident_mib(),
            }
        if minutes >= marks[-1]:
            return
        for times in seconds.values():
            times.clear()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=2.0, help="of the recording; at least 0.2")
    parser.add_argument("--beam-width", type=int, default=50)
    arguments = parser.parse_args(argv)
    last = round(60 * arguments.hours)
    if last <= SETTLED_MINUTES:
        parser.error(f"--hours: expected more than {SETTLED_MINUTES} minutes, received {arguments.hours}")
    torch.set_num_threads(1)
    words = make_words()
    text = random.Random(2)
    lm = NGramLM.estimate(
        [" ".join(text.choices(words, k=12)) for _ in range(3000)], 3, discount_fallback=True
    )
    kinds: dict[str, tuple[NGramLM | None, Callable[[], Iterator[Tensor]]]] = {
        "words, language model": (lm, lambda: speech(words)),
        "noise, no language model": (None, noise),
    }
    about = machine(torch.device("cpu"))
    print(
        f"beam {arguments.beam_width}, one thread; {about['cpu']}; torch {about['torch']}, numpy {np.__version__}"
    )
    marks = sorted({1, SETTLED_MINUTES, last, *(60 * hour for hour in range(1, last // 60 + 1))})
    passed = True
    for name, (model, chunks) in kinds.items():
        decoder = CTCBeamDecoder(LABELS, model, beam_width=arguments.beam_width)
        rows = {row["minutes"]: row for row in soak(decoder, chunks(), marks)}
        print(
            f"\n{name}\n\n{markdown_table([{k: f'{v:.4g}' for k, v in row.items()} for row in rows.values()])}"
        )
        settled, end = rows[SETTLED_MINUTES], rows[last]
        passed &= end["partial ms"] <= 2 * settled["partial ms"]
        passed &= end["process MiB"] <= settled["process MiB"] + ALLOWED_MIB
    print("\nCost and memory stay." if passed else "\nFAILED: cost or memory grows with the recording.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
