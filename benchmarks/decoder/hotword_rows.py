"""A batch whose rows have hotwords of their own, beside one list for all rows.

    python benchmarks/decoder/hotword_rows.py

Utterances that are made up, of 4 s on average. Lists are of made-up words; "new lists" are other ones in each call, which
have to be spelled first. Before anything is timed, each row is compared with a decoder of its list alone; where a text
differs, nothing is and the exit status is 1.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.decoder import CTCBeamDecoder
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine
from benchmarks.decoder._made_data import make_log_probs, make_sentences

LABELS = [*" abcdefghijklmnopqrstuvwxyz'", ""]
LETTERS = LABELS[1:-2]


def make_lists(rows: int, words: int, seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [["".join(draw.sample(LETTERS, 7)) for _ in range(words)] for _ in range(rows)]


def prepare(arguments: argparse.Namespace) -> dict[str, Callable[[], list[list[Any]]]]:
    """The calls, that to compare with first."""
    utterances = [make_log_probs(s, LABELS) for s in make_sentences(arguments.rows)]
    lengths = [len(utterance) for utterance in utterances]
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    shared, *lists = make_lists(1 + arguments.rows, arguments.words, seed=0)
    decoder = CTCBeamDecoder(LABELS, blank=len(LABELS) - 1, hotwords=shared, num_threads=1)
    for row, found in enumerate(decoder.decode(batch, lengths, hotwords=lists)):
        alone = decoder.replace(hotwords=lists[row]).decode(utterances[row])
        if found != alone:
            raise ValueError(f"row {row}: expected {alone[0].text!r}, received {found[0].text!r}")
    seeds = itertools.count(1)
    return {
        "one list": lambda: decoder.decode(batch, lengths),
        "a list for each row": lambda: decoder.decode(batch, lengths, hotwords=lists),
        "new lists": lambda: decoder.decode(
            batch, lengths, hotwords=make_lists(arguments.rows, arguments.words, next(seeds))
        ),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, then time; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--words", type=int, default=10, help="of each list")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args(argv)
    try:
        calls = prepare(arguments)
    except ValueError as error:
        print(error)
        return 1
    times = interleaved(calls, rounds=arguments.rounds, seconds=0)
    base = median(times["one list"])
    rows = [
        {
            "hotwords": name,
            "median, ms": f"{1e3 * median(each):.1f}",
            "of one list": f"{median(each) / base:.3f}",
        }
        for name, each in times.items()
    ]
    print(markdown_table(rows))
    about = machine(torch.device("cpu"))
    print(f"{about['cpu']}, one thread, {arguments.rows} rows, lists of {arguments.words}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
