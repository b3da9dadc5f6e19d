"""Tries of KenLM asked where they lie in the file, beside the same converted to hash tables, and KenLM's own module.

    build_binary trie model.arpa model.bin
    python benchmarks/decoder/mapped_tries.py model.bin text.txt --arpa model.arpa
    python benchmarks/decoder/mapped_tries.py

Without a file a model of order 5 is estimated from a text that is made up, and written as a trie of more than 100 MB and
as an ARPA file. Given that, reading it is measured, too: quantised tries have other scores and go without.

Scores are compared before anything is timed; where one differs, nothing is and the exit status is 1. Each way is loaded
in a process of its own, once the file is in the system's cache, and asked for all sentences: memory is what the process
has more then than before loading, with the file's pages and without. Then all are timed in one process in rounds. kenlm
is called for each sentence: its Python interface has no other way. Without it only asrkern is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import re
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
from benchmarks.decoder._made_trie import write_trie

PEER, MAPPED, CONVERTED, ARPA = "kenlm", "mapped", "converted", "from ARPA"
# What is estimated, and what is scored, without a file.
MADE_ORDER, MADE_SENTENCES, MADE_HELD_OUT = 5, 290_000, 10_000
# Of log10 probabilities of sentences: kenlm adds float32.
TOLERANCE = 1e-3


def load(way: str, file: Path) -> Any:
    if way == PEER:
        import kenlm

        return kenlm.Model(str(file))
    if way == ARPA:
        return NGramLM.from_arpa(file)
    return NGramLM.from_kenlm_binary(file, mapped=way == MAPPED, verify=False)


def score(model: Any, sentences: list[str]) -> Sequence[float]:
    if isinstance(model, NGramLM):
        return model.score_batch(sentences).tolist()
    return [model.score(sentence) for sentence in sentences]


def _resident() -> tuple[int, int]:
    """Bytes of this process in memory that are not of files, and of files."""
    status = Path("/proc/self/status").read_text()
    anonymous, of_files = (
        int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10 for name in ("RssAnon", "RssFile")
    )
    return anonymous, of_files


def measure(way: str, file: Path, sentences: list[str]) -> tuple[float, int, int]:
    """Seconds of the CPU to load; bytes of memory and of the file's pages after scoring; in a process of its own."""
    score_nothing = [""]
    if way == PEER:
        import kenlm  # noqa: F401 (its own memory does not count)
    before = _resident()
    began = time.process_time()
    model = load(way, file)
    score(model, score_nothing)
    seconds = time.process_time() - began
    score(model, sentences)
    anonymous, of_files = (after - b for after, b in zip(_resident(), before))
    return seconds, anonymous, of_files


def make_files(folder: Path) -> tuple[Path, Path, list[str]]:
    """A trie, the ARPA file of the same model, and other sentences."""
    lines = make_sentences(MADE_SENTENCES + MADE_HELD_OUT)
    # No word of so long a text of so few words occurs only once.
    lm = NGramLM.estimate(lines[:MADE_SENTENCES], MADE_ORDER, discount_fallback=True)
    trie, arpa = folder / "made.bin", folder / "made.arpa"
    write_trie(lm, trie)
    lm.to_arpa(arpa)
    return trie, arpa, lines[MADE_SENTENCES:]


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if a score differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", help="of KenLM's build_binary trie; default: one is made"
    )
    parser.add_argument("text", type=Path, nargs="?", help="a sentence a line")
    parser.add_argument("--arpa", type=Path, help="the ARPA file of which the trie was made, without -q")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(argv)
    if arguments.file is None:
        if arguments.arpa:
            parser.error("--arpa: expected a trie beside it")
        with tempfile.TemporaryDirectory() as folder:
            return compare(*make_files(Path(folder)), arguments.rounds)
    if arguments.text is None:
        parser.error("text: expected a file of sentences beside the trie")
    sentences = arguments.text.read_text(encoding="utf-8").splitlines()
    return compare(arguments.file, arguments.arpa, sentences, arguments.rounds)


def compare(file: Path, arpa: Path | None, sentences: list[str], rounds: int) -> int:
    """Exit status: 0, or 1 if a score differed."""
    words = sum(len(sentence.split()) + 1 for sentence in sentences)
    files = {MAPPED: file, CONVERTED: file}
    if importlib.util.find_spec("kenlm"):
        files[PEER] = file
    if arpa is not None:
        files[ARPA] = arpa
    for read in {*files.values()}:
        read.read_bytes()
    processes = multiprocessing.get_context("spawn")
    measured = {}
    for way in files:
        with processes.Pool(1) as pool:
            measured[way] = pool.apply(measure, (way, files[way], sentences))
    models = {way: load(way, files[way]) for way in files}
    expected = score(models[CONVERTED], sentences)
    for way, model in models.items():
        worst = max(abs(a - b) for a, b in zip(score(model, sentences), expected, strict=True))
        if not worst <= TOLERANCE * (way == PEER):
            print(f"FAILED: a sentence's score of {way} differs by {worst:.1e}; nothing was timed.")
            return 1
    calls: dict[str, Callable[[], object]] = {
        way: (lambda model=model: score(model, sentences)) for way, model in models.items()
    }
    times = {way: median(found) for way, found in interleaved(calls, rounds=rounds, seconds=0).items()}
    size = file.stat().st_size
    info = machine(torch.device("cpu"))
    print(
        f"{info['cpu']}, one thread; {file.name}: {size / 2**20:.1f} MiB; {len(sentences)} sentences, {words} words\n"
    )
    rows = []
    for way in files:
        loading, anonymous, of_files = measured[way]
        rows.append(
            {
                "": way,
                "loaded in CPU s": f"{loading:.2f}",
                "memory MiB": f"{anonymous / 2**20:.1f}",
                "and of the file": f"{of_files / 2**20:.1f}",
                "together / file": f"{(anonymous + of_files) / size:.2f}",
                "M words a second": f"{words / times[way] / 1e6:.2f}",
            }
        )
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
