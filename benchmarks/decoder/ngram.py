"""Language models: the kenlm package beside asrkern, on the same ARPA file.

    python benchmarks/decoder/ngram.py lj.txt

Without a text, such as LJ Speech's transcripts, one is made up: then figures are of another size. A model is estimated from the text without its last sentences, which are then scored. kenlm has its default tables,
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
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.decoder import NGramLM
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine
from benchmarks.decoder._made_data import make_sentences

PEER, ASRKERN, QUANTIZED, SINGLE = "kenlm", "asrkern", "asrkern, quantized", "asrkern, one by one"
# Of log10 probabilities of words; quantised ones differ in their last bits, so only their mean is compared.
TOLERANCE = 1e-5
QUANTIZED_TOLERANCE = 0.02
MADE_SENTENCES = 20_000


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "text", type=Path, nargs="?", help="a sentence a line; default: a text that is made up"
    )
    parser.add_argument("--order", type=positive, default=4)
    parser.add_argument("--held-out", type=positive, default=3000, help="sentences that are scored")
    parser.add_argument("--rounds", type=positive, default=15)
    arguments = parser.parse_args(argv)
    try:
        arguments.lines = read_lines(arguments.text, arguments.held_out)
    except (OSError, ValueError) as error:
        parser.error(f"text: {error}")
    return arguments


def read_lines(text: Path | None, held_out: int) -> list[str]:
    """Sentences, more than are held out."""
    if text is None:
        print("Without a text one is made up; the figures in README are of a real one.\n", flush=True)
        lines = make_sentences(MADE_SENTENCES)
    elif not text.is_file():
        raise ValueError(f"expected a file, received {str(text)!r}")
    else:
        lines = text.read_text(encoding="utf-8").splitlines()
    if len(lines) <= held_out:
        raise ValueError(
            f"expected more sentences than the {held_out} that are scored, received {len(lines)}; give a longer text or "
            "a smaller --held-out"
        )
    return lines


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
    """Exit status: 0, or 1 if a score differed, or 2 if the text is too small for a model."""
    arguments = parse_arguments(argv)
    lines = arguments.lines
    training, sentences = lines[: -arguments.held_out], lines[-arguments.held_out :]
    words = sum(len(line.split()) + 1 for line in sentences)
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "model.arpa"
        began = time.perf_counter()
        try:
            NGramLM.estimate(training, arguments.order).to_arpa(arpa)
        except ValueError as error:
            print(
                f"ngram.py: error: {len(training)} sentences are too few, or too much alike, for a model of order "
                f"{arguments.order}; give a longer text or a smaller --order ({error})",
                file=sys.stderr,
            )
            return 2
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
