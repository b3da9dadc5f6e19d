"""Language models: the kenlm package beside asrkern, on the same ARPA file.

    python benchmarks/bench_ngram.py lj.txt

A model is estimated from the text without its last sentences, which are then scored. kenlm has its default tables,
``probing``, and is called for each sentence: its Python interface has no other way. Scores are compared before
anything is timed; where one differs, nothing is and the exit status is 1. Each round runs everything once, another
one first each time. Without kenlm (``pip install kenlm``) only asrkern is timed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asrkern.decoder import NGramLM
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine

PEER, ASRKERN, QUANTIZED, SINGLE = "kenlm", "asrkern", "asrkern, quantized", "asrkern, one by one"
# Of log10 probabilities of words; quantised ones differ in their last bits, so only their mean is compared.
TOLERANCE = 1e-5
QUANTIZED_TOLERANCE = 0.02


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="a sentence a line")
    parser.add_argument("--order", type=positive, default=4)
    parser.add_argument("--held-out", type=positive, default=3000, help="sentences that are scored")
    parser.add_argument("--rounds", type=positive, default=15)
    arguments = parser.parse_args(argv)
    if not arguments.text.is_file():
        parser.error(f"text: expected a file, received {str(arguments.text)!r}")
    return arguments


def kenlm_model(arpa: Path) -> Any | None:
    """kenlm's, or None without the package."""
    if importlib.util.find_spec("kenlm") is None:
        return None
    kenlm = importlib.import_module("kenlm")
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    return kenlm.Model(str(arpa), config)


def word_scores(score_words: Callable[[str], Any], sentences: Sequence[str]) -> list[float]:
    return [score[0] for sentence in sentences for score in score_words(sentence)]


def differs(lm: NGramLM, quantized: NGramLM, peer: Any | None, sentences: Sequence[str]) -> str | None:
    """What is wrong with the scores, or None."""
    expected = word_scores((peer or lm).full_scores, sentences)
    actual = word_scores(lm.full_scores, sentences)
    worst = max(abs(a - b) for a, b in zip(actual, expected, strict=True))
    if not worst <= TOLERANCE:
        return f"a word's score differs from kenlm's by {worst:.1e}, more than {TOLERANCE:.0e}"
    total, summed = float(lm.score_batch(sentences).sum()), math.fsum(actual)
    if not abs(total - summed) <= TOLERANCE * len(actual):
        return f"the sum over sentences is {total}, over words {summed}"
    mean = abs(float(quantized.score_batch(sentences).sum()) - total) / len(actual)
    if not mean <= QUANTIZED_TOLERANCE:
        return f"quantised scores differ by {mean:.1e} a word, more than {QUANTIZED_TOLERANCE:.0e}"
    return None


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if a score differed."""
    arguments = parse_arguments(argv)
    lines = arguments.text.read_text(encoding="utf-8").splitlines()
    training, sentences = lines[: -arguments.held_out], lines[-arguments.held_out :]
    words = sum(len(line.split()) + 1 for line in sentences)
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "model.arpa"
        began = time.perf_counter()
        NGramLM.estimate(training, arguments.order).to_arpa(arpa)
        estimated = time.perf_counter() - began
        began = time.perf_counter()
        lm = NGramLM.from_arpa(arpa)
        read = time.perf_counter() - began
        peer = kenlm_model(arpa)
    quantized = lm.quantize()
    info = machine(torch.device("cpu"))
    print(f"{info['cpu']}, one thread; Python {info['python']}")
    print(
        f"order {arguments.order}, {len(training)} sentences estimated and written in {estimated:.2f} s, "
        f"read in {read:.2f} s; {len(sentences)} others scored, {words} words with </s>\n"
    )
    wrong = differs(lm, quantized, peer, sentences)
    if wrong:
        print(f"FAILED: {wrong}; nothing was timed.")
        return 1
    batches: dict[str, Callable[[], object]] = {
        ASRKERN: lambda: lm.score_batch(sentences),
        QUANTIZED: lambda: quantized.score_batch(sentences),
        SINGLE: lambda: [lm.score(sentence) for sentence in sentences],
    }
    tables = {ASRKERN: lm, QUANTIZED: quantized, SINGLE: lm}
    if peer:
        batches = {PEER: lambda: [peer.score(sentence) for sentence in sentences], **batches}
    times = {
        name: median(found)
        for name, found in interleaved(batches, rounds=arguments.rounds, seconds=0).items()
    }
    rows = []
    for name, seconds in times.items():
        row = {
            "": name,
            "ns a word": f"{seconds / words * 1e9:.0f}",
            "M words a second": f"{words / seconds / 1e6:.1f}",
        }
        if name in tables:
            row["tables MiB"] = f"{tables[name].nbytes / 2**20:.1f}"
        if peer:
            row["speed-up"] = f"{times[PEER] / seconds:.2f}"
        rows.append(row)
    print(markdown_table(rows))
    if not peer:
        print("\nLeft out: kenlm (not installed: pip install kenlm).")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
