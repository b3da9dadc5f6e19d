"""CTC beam search on one core: flashlight-text and pyctcdecode beside asrkern, on a real utterance.

    python benchmarks/decoder/ctc_beam.py

The folder ``--data`` has ``decoder_oracles/libri_371x29.npz`` and ``.json`` (log-probabilities of a LibriSpeech utterance,
from pyctcdecode's tests) and ``lm/lj.txt`` (LJ Speech's transcripts, a sentence a line), whose model of order 4 every
decoder reads from the same ARPA file. Where there is none, both are made up: then figures are of another size. Texts and scores are compared before anything is timed; a row
in which they differ has no times, and the exit status is 1. Each round runs every decoder once, another one first each
time. Peers that are not installed are named and left out: ``pip install flashlight-text pyctcdecode kenlm``.

flashlight keeps a prefix twice, after a blank and after its last token, so that the same beam width holds fewer texts there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asrkern
from asrkern.decoder import CTCBeamDecoder, NGramLM
from benchmarks._report import Progress, command_line, markdown_table, section, write_sections
from benchmarks._timing import interleaved, machine, peak_memory_mib
from benchmarks.decoder import _peers as peers
from benchmarks.decoder._made_data import make_log_probs, make_sentences
from benchmarks.decoder._peers import ASRKERN, FLASHLIGHT, PYCTCDECODE, Call, LanguageModel

RESULTS = Path(__file__).parents[1] / "results" / "ctc_beam.md"
CPU = torch.device("cpu")
# The beams' edges differ, and with them what the sums lack.
TOLERANCE = 0.05
ORDER = 4
MADE_LABELS = [*" abcdefghijklmnopqrstuvwxyz'", ""]
MADE_SENTENCES = 20_000
FEW_HOTWORDS, HOTWORDS = 10, 1000
REPEATS = 20
DEFAULT_PRUNING = {"beam_width": 100, "token_min_logp": -5.0, "beam_prune_logp": -10.0}
WITHOUT, WITH_FEW, WITH = "no hotwords", f"{FEW_HOTWORDS} hotwords", f"{HOTWORDS} hotwords"
WORTHLESS = f"{HOTWORDS} worth nothing"


class Data(NamedTuple):
    """labels: with "" for blank; log_probs: [T, V] float32; spaced: with a space after the last word."""

    labels: list[str]
    log_probs: Tensor
    spaced: Tensor
    model: LanguageModel


class Row(NamedTuple):
    """Calls that take the same log-probabilities, the one to compare with first."""

    name: str
    log_probs: Tensor
    calls: dict[str, Callable[[], Call]]


def read_utterance(folder: Path | None) -> tuple[list[str], Tensor]:
    """Labels and log-probabilities; made up without a folder."""
    if folder is None:
        return MADE_LABELS, make_log_probs(make_sentences(1)[0], MADE_LABELS)
    path = folder / "decoder_oracles" / "libri_371x29"
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    log_probs = torch.from_numpy(np.load(path.with_suffix(".npz"))["log_probs"]).float()
    # They are rounded to whole numbers, and pyctcdecode normalises what it gets.
    return about["labels"], log_probs.log_softmax(-1)


def read_data(folder: Path | None, arpa: Path) -> Data:
    """The utterance, and a model of the text, written to ``arpa``."""
    labels, log_probs = read_utterance(folder)
    space = torch.full((1, len(labels)), -30.0)
    space[0, labels.index(" ")] = 0
    if folder is None:
        sentences = make_sentences(MADE_SENTENCES)
    else:
        sentences = (folder / "lm" / "lj.txt").read_text(encoding="utf-8").splitlines()
    NGramLM.estimate(sentences, ORDER).to_arpa(arpa)
    words = sorted({word for sentence in sentences for word in sentence.split()})
    return Data(
        labels, log_probs, torch.cat([log_probs, space]), LanguageModel(arpa, NGramLM.from_arpa(arpa), words)
    )


def without_model(data: Data, quick: bool) -> list[Row]:
    return [
        Row(
            f"beam {beam}",
            data.log_probs,
            {
                FLASHLIGHT: partial(peers.flashlight, data.labels, beam),
                ASRKERN: partial(peers.asrkern, data.labels, {"beam_width": beam}),
            },
        )
        for beam in ((16, 100) if quick else (16, 64, 100, 256))
    ]


def with_model(data: Data, quick: bool) -> list[Row]:
    return [
        Row(
            "beam 100",
            data.spaced,
            {
                FLASHLIGHT: partial(peers.flashlight, data.labels, 100, data.model),
                ASRKERN: partial(peers.asrkern, data.labels, {"beam_width": 100}, data.model),
            },
        )
    ]


def pruned(data: Data, quick: bool) -> list[Row]:
    return [
        Row(
            name,
            data.log_probs,
            {
                PYCTCDECODE: partial(peers.pyctcdecode, data.labels, DEFAULT_PRUNING, model),
                ASRKERN: partial(peers.asrkern, data.labels, DEFAULT_PRUNING, model, open_words=True),
            },
        )
        for name, model in (("no language model", None), ("language model", data.model))
    ]


def hotwords(data: Data, quick: bool) -> list[Row]:
    """Words that are not said, so that the texts stay equal.

    Bonuses bring other prefixes into the beam, among them more that stand where words begin, where more goes on. What
    it costs to look for hotwords is what those cost that are worth next to nothing: the beam stays what it is.
    """
    said = set(peers.asrkern(data.labels, {})(data.log_probs).text.split())
    words = [word for word in data.model.words if len(word) > 4 and word not in said]
    listed = random.Random(0).sample(words, HOTWORDS)
    lists = {
        WITHOUT: None,
        WITH_FEW: listed[:FEW_HOTWORDS],
        WITH: listed,
        WORTHLESS: dict.fromkeys(listed, 1e-6),
    }
    return [
        Row(
            name,
            data.log_probs,
            {
                title: partial(
                    peers.asrkern, data.labels, {**base, "hotwords": hotwords}, model, open_words=True
                )
                for title, hotwords in lists.items()
            },
        )
        for name, base, model in (
            ("beam 100, all labels", {"beam_width": 100}, None),
            ("beam 100, all labels, language model", {"beam_width": 100}, data.model),
            ("pyctcdecode's pruning", DEFAULT_PRUNING, None),
            ("pyctcdecode's pruning, language model", DEFAULT_PRUNING, data.model),
        )
    ]


GROUPS: dict[str, tuple[str, Callable[[Data, bool], list[Row]]]] = {
    "free": ("Without lexicon and language model, all labels at every frame", without_model),
    "lm": (f"Lexicon and language model of order {ORDER} of lj.txt, all labels at every frame", with_model),
    "pruned": ("pyctcdecode's default pruning, beam 100", pruned),
    "hotwords": (f"asrkern with {FEW_HOTWORDS} and {HOTWORDS} hotwords, and without", hotwords),
}
MEMORY = f"Memory of an utterance {REPEATS} times as long, beam 100, all labels"


def measure(row: Row, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Compare, then time; ``times`` is missing after a failure."""
    left_out = {
        name: reason
        for name in row.calls
        if name in (FLASHLIGHT, PYCTCDECODE) and (reason := peers.missing(name))
    }
    calls = {name: prepare() for name, prepare in row.calls.items() if name not in left_out}
    found = {name: call(row.log_probs) for name, call in calls.items()}
    expected = next(iter(found.values()))
    result: dict[str, Any] = {
        "row": row.name,
        "frames": len(row.log_probs),
        "left_out": left_out,
        "texts": {name: best.text for name, best in found.items()},
        "scores": {name: best.score for name, best in found.items()},
    }
    if all(
        best.text == expected.text and abs(best.score - expected.score) <= TOLERANCE
        for best in found.values()
    ):
        timed = {name: partial(call, row.log_probs) for name, call in calls.items()}
        result["times"] = interleaved(timed, rounds=rounds, seconds=seconds)
    return result


def table_row(result: dict[str, Any]) -> dict[str, str]:
    cells = {"": result["row"]}
    if "times" not in result:
        texts = "; ".join(
            f"{name} {result['scores'][name]:.3f} {text!r}" for name, text in result["texts"].items()
        )
        return cells | {"difference of scores": f"FAILED: {texts}"}
    scores = list(result["scores"].values())
    medians = {}
    for name, times in result["times"].items():
        per_frame = [1e6 * seconds / result["frames"] for seconds in times]
        medians[name] = median(per_frame)
        cells[f"{name} µs a frame"] = f"{medians[name]:.4g} ({min(per_frame):.4g}..{max(per_frame):.4g})"
        cells["rounds"] = str(len(times))
    cells["difference of scores"] = f"{max(scores) - min(scores):.0e}"
    (first, before), *others = medians.items()
    for other, after in others:
        cells[f"{first} / {other}"] = f"{before / after:.2f}"
    return cells


def prepare_alone(decoder: str, labels: list[str], log_probs: Tensor) -> Callable[[], object]:
    """In a new process: one decoder and a long utterance."""
    torch.set_num_threads(1)
    call = (
        peers.flashlight(labels, 100) if decoder == FLASHLIGHT else peers.asrkern(labels, {"beam_width": 100})
    )
    call(log_probs[:1])
    return partial(call, log_probs)


def memory(folder: Path | None) -> dict[str, Any]:
    """Bytes of the tree of prefixes, and MiB that a process grows by; torch's own part of it is in both.

    The tree holds each text of the beam once, from where it leaves the others; so it grows with the text, and not with
    the frames. Without pruning the beam has texts that differ anywhere in the utterance.
    """
    labels, log_probs = read_utterance(folder)
    decoder = CTCBeamDecoder(labels, blank=labels.index(""), beam_width=100)
    found: dict[str, Any] = {"tree_bytes": {}, "process_mib": {}}
    for repeats in (1, REPEATS):
        state, long = decoder.start(), log_probs.repeat(repeats, 1)
        decoder.step(state, long)
        found["tree_bytes"][repeats] = state.tree_bytes
        for name in (FLASHLIGHT, ASRKERN):
            if not peers.missing(name):
                base, peak = (
                    peak_memory_mib(CPU, prepare_alone, name, labels, frames) for frames in (long[:1], long)
                )
                found["process_mib"].setdefault(name, {})[repeats] = peak - base
    return found


def memory_table(found: dict[str, Any], frames: int) -> str:
    rows = []
    for repeats, size in found["tree_bytes"].items():
        cells = {"": f"{frames * repeats} frames", "asrkern's prefixes KiB": f"{size / 2**10:.0f}"}
        for name, peaks in found["process_mib"].items():
            cells[f"process with {name} MiB"] = f"{peaks[repeats]:+.1f}"
        rows.append(cells)
    return markdown_table(rows)


@cache
def describe(argv: tuple[str, ...]) -> str:
    """The command, and all that its figures depend on."""
    about = machine(CPU)
    versions = [f"{name} {version(name)}" for name in (FLASHLIGHT, PYCTCDECODE) if not peers.missing(name)]
    return (
        f"`{command_line('benchmarks/decoder/ctc_beam.py', argv)}` on {about['cpu']}, one thread: "
        + ", ".join([f"torch {about['torch']}", *versions, f"asrkern {asrkern.__version__}"])
        + ". Medians (least..most)."
    )


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    names = [*GROUPS, "memory"]

    def groups(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in names]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}, received {unknown[0]!r}")
        return text.split(",")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="default: $ASRKERN_DATA; without it, data is made up")
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--only", type=groups, default=names, metavar="GROUP[,GROUP]", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    arguments = parser.parse_args(argv)
    given, known = arguments.data, os.environ.get("ASRKERN_DATA")
    if given is None and known and not missing_data(Path(known)):
        arguments.data = Path(known)
    if given is not None and (missing := missing_data(given)):
        parser.error(
            f"--data: expected a folder with {missing}, received {str(given)!r}; without --data such data is made up"
        )
    if arguments.write and arguments.data is None:
        parser.error("--write: expected --data, since figures of made-up data are not kept")
    return arguments


def missing_data(folder: Path) -> str | None:
    """The first file that the folder lacks."""
    names = ("decoder_oracles/libri_371x29.npz", "decoder_oracles/libri_371x29.json", "lm/lj.txt")
    return next((name for name in names if not (folder / name).is_file()), None)


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if a text or a score differed."""
    arguments = parse_arguments(argv)
    torch.set_num_threads(1)
    if arguments.data is None:
        print(
            "Without --data: an utterance and a text are made up; the figures in README are of real ones.\n",
            flush=True,
        )
    sections: dict[str, str] = {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = read_data(arguments.data, Path(temporary) / "lm.arpa")
        for name in arguments.only:
            if name == "memory":
                found[name] = memory(arguments.data)
                title, table = MEMORY, memory_table(found[name], len(data.log_probs))
            else:
                title, rows = GROUPS[name][0], GROUPS[name][1](data, arguments.quick)
                progress = Progress()
                progress.start(name, len(rows))
                found[name] = []
                for row in rows:
                    found[name].append(measure(row, rounds=arguments.rounds, seconds=0))
                    progress.step()
                progress.end()
                table = markdown_table([table_row(result) for result in found[name]])
            sections[title] = f"{describe(tuple(argv))}\n\n{table}"
            print(section(title, sections[title]), flush=True)
    rows = [result for name in GROUPS for result in found.get(name, ())]
    for name, reason in {
        name: reason for result in rows for name, reason in result["left_out"].items()
    }.items():
        print(f"Left out: {name} ({reason}).")
    passed = all("times" in result for result in rows)
    if not passed:
        print(f"FAILED: a text differs, or a score by more than {TOLERANCE}.")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(CPU), **found}, indent=1), encoding="utf-8")
    if arguments.write:
        write_sections(RESULTS, [*(title for title, _ in GROUPS.values()), MEMORY], sections)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
