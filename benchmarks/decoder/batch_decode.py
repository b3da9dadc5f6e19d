"""What transformers' ``batch_decode`` waits for: pyctcdecode with a pool of processes beside asrkern under its name.

    python benchmarks/decoder/batch_decode.py

32 utterances that are made up, of 4 s on average, with a language model of order 4: ``decode_beams_batch`` and all that
transformers reads of its result. A pool is made in each call, as transformers does. Texts are compared before anything is
timed; where they differ, nothing is and the exit status is 1. One is timed after the other, since a pool's processes are
still ending when a call is done. Without pyctcdecode and kenlm (``pip install pyctcdecode kenlm``) only asrkern is timed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.decoder import NGramLM
from asrkern.decoder.compat.pyctcdecode import build_ctcdecoder
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine
from benchmarks.decoder import _peers as peers
from benchmarks.decoder._made_data import make_log_probs, make_sentences
from benchmarks.decoder._peers import ASRKERN, PYCTCDECODE

LABELS = [*" abcdefghijklmnopqrstuvwxyz'", ""]
ORDER = 4

Texts = list[list[str]]


def read(found: Sequence[Sequence[Any]]) -> Texts:
    """The texts, and on the way the scores and times that transformers takes of all beams."""
    for beams in found:
        [beam[-2:] for beam in beams]
        [[{"word": w, "start_offset": s, "end_offset": e} for w, (s, e) in beam[-3]] for beam in beams]
    return [[beam[0] for beam in beams] for beams in found]


def with_pool(decoder: Any, processes: int, utterances: Sequence[np.ndarray]) -> Texts:
    """pyctcdecode's way."""
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return read(decoder.decode_beams_batch(pool, utterances))


def prepare(arguments: argparse.Namespace) -> dict[str, Callable[[], Texts]]:
    """The calls, that to compare with first."""
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    utterances = [make_log_probs(s, LABELS).numpy() for s in make_sentences(arguments.utterances)]
    sentences = make_sentences(arguments.sentences)
    calls: dict[str, Callable[[], Texts]] = {}
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        NGramLM.estimate(sentences, ORDER, discount_fallback=True).to_arpa(arpa)
        model = (str(arpa), sorted({word for sentence in sentences for word in sentence.split()}))
        if (reason := peers.missing(PYCTCDECODE)) is None:
            import pyctcdecode

            with peers.silent():
                theirs = pyctcdecode.build_ctcdecoder(LABELS, *model)
            name = f"{PYCTCDECODE}, a pool of {arguments.processes}"
            calls[name] = partial(with_pool, theirs, arguments.processes, utterances)
        else:
            print(f"{PYCTCDECODE} ({reason})")
        ours = build_ctcdecoder(LABELS, *model)
    calls[ASRKERN] = lambda: read(ours.decode_beams_batch(None, utterances))
    return calls


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, then time; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=20_000, help="of the language model's text")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(argv)
    calls = prepare(arguments)
    found = {name: [beams[0] for beams in call()] for name, call in calls.items()}
    expected = next(iter(found.values()))
    for name, texts in found.items():
        differ = sum(a != b for a, b in zip(expected, texts, strict=True))
        if differ:
            print(f"{name}: {differ} of {len(texts)} texts differ")
            return 1
    times: dict[str, list[float]] = {}
    for name, call in calls.items():
        # Processes of a pool are still ending when the call is done.
        time.sleep(1)
        times |= interleaved({name: call}, rounds=arguments.rounds, seconds=0)
    slowest = median(next(iter(times.values())))
    rows = [
        {
            "decoder": name,
            "median, ms": f"{1e3 * median(each):.1f}",
            "least, ms": f"{1e3 * min(each):.1f}",
            "ratio": f"{slowest / median(each):.2f}",
        }
        for name, each in times.items()
    ]
    print(markdown_table(rows))
    about = machine(torch.device("cpu"))
    print(f"{about['cpu']}, {torch.get_num_threads()} threads, {arguments.utterances} utterances")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
