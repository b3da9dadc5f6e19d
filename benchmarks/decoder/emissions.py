"""A trained model's outputs through the decoders: errors and time of flashlight-text, pyctcdecode and asrkern, one core.

    asrkern train recipes/s4_grid.toml
    python benchmarks/decoder/emissions.py runs/s4_grid/best.safetensors $ASRKERN_DATA/grid/dev.jsonl sentences.txt

The outputs of a CTC model of characters on a manifest are computed first; the language model (order 3) is estimated from the
text, a sentence a line, and every decoder reads it from the same ARPA file and takes its words alone, or, in pyctcdecode's
case, any. Decoders prune differently, so texts may differ in ties: each one's word error rate stands beside its time, and
where asrkern makes more errors than a peer, the exit status is 1. Each round runs every decoder over all utterances,
another one first each time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.data import collate
from asrkern.decoder import NGramLM
from asrkern.recognizer.saved import Recognizer, load
from asrkern.training.batches import load_cut
from asrkern.training.manifests import read_cuts
from asrkern.training.metrics import ErrorCounts, in_words
from benchmarks._report import Progress, markdown_table
from benchmarks._timing import interleaved, machine
from benchmarks.decoder import _peers as peers
from benchmarks.decoder._peers import ASRKERN, FLASHLIGHT, PYCTCDECODE, Best, Call, LanguageModel

ORDER = 3
PRUNING = {"beam_width": 100, "token_min_logp": -5.0, "beam_prune_logp": -10.0}


class Emissions(NamedTuple):
    """labels: with "" for blank; log_probs: [T, V] of each utterance; texts: what was said."""

    labels: list[str]
    log_probs: list[Tensor]
    texts: list[str]


@torch.inference_mode()
def emissions(recognizer: Recognizer, manifest: Path) -> Emissions:
    """The model's outputs on a manifest.

    Raises:
        ValueError: the model is no CTC model of characters with a space.
    """
    labels = list(recognizer.tokenizer.labels)
    if recognizer.task_name != "ctc" or " " not in labels:
        raise ValueError(
            f"checkpoint: expected a CTC model of characters, received {recognizer.model_name}, a model of "
            f"{recognizer.task_name} with labels {labels[:5]}"
        )
    labels[recognizer.tokenizer.blank] = ""
    extract, found = recognizer.features.make(), Emissions(labels, [], [])
    for cut in read_cuts(manifest):
        features = load_cut(cut, recognizer.features, extract)
        log_probs, frames = recognizer.model(*collate([features]))
        found.log_probs.append(log_probs[0, : frames[0]].contiguous())
        found.texts.append(recognizer.text(cut.supervisions[0].text or ""))
    return found


def rows(labels: list[str], model: LanguageModel) -> dict[str, dict[str, Callable[[], Call]]]:
    """What is compared: the decoders of each row, the peer first."""
    return {
        "beam 100, all labels": {
            FLASHLIGHT: partial(_with_space, partial(peers.flashlight, labels, 100, model), labels),
            ASRKERN: partial(peers.asrkern, labels, {"beam_width": 100}, model),
        },
        "pyctcdecode's pruning": {
            PYCTCDECODE: partial(peers.pyctcdecode, labels, PRUNING, model),
            ASRKERN: partial(peers.asrkern, labels, PRUNING, model, open_words=True),
        },
    }


def _with_space(prepare: Callable[[], Call], labels: Sequence[str]) -> Call:
    """flashlight gives back no last word without a space behind it."""
    call = prepare()
    space = torch.full((1, len(labels)), -30.0)
    space[0, labels.index(" ")] = 0

    def decode(log_probs: Tensor) -> Best:
        return call(torch.cat([log_probs, space]))

    return decode


def measure(
    name: str, decoders: dict[str, Callable[[], Call]], given: Emissions, rounds: int
) -> tuple[dict[str, str], bool]:
    """A line of the table, and whether asrkern makes no more errors than the peer."""
    calls = {decoder: prepare() for decoder, prepare in decoders.items() if not peers.missing(decoder)}
    cells, errors = {"": name}, {}
    for decoder, call in calls.items():
        found = [call(log_probs).text for log_probs in given.log_probs]
        counts = ErrorCounts().add_all(found, given.texts)
        errors[decoder] = counts.word_edits
        cells[f"{decoder} WER"] = in_words("wer", counts.value("wer"))
    runs = {decoder: partial(_decode_all, call, given.log_probs) for decoder, call in calls.items()}
    times = interleaved(runs, rounds=rounds, seconds=0.0)
    frames = sum(map(len, given.log_probs))
    medians = {decoder: median(taken) for decoder, taken in times.items()}
    for decoder, seconds in medians.items():
        cells[f"{decoder} µs a frame"] = f"{1e6 * seconds / frames:.3g}"
    for decoder in decoders:
        if decoder not in calls:
            cells[f"{decoder} WER"] = peers.missing(decoder)
        elif decoder != ASRKERN:
            cells["peer / asrkern"] = f"{medians[decoder] / medians[ASRKERN]:.2f}"
    return cells, errors[ASRKERN] <= min(errors.values())


def _decode_all(call: Call, log_probs: Sequence[Tensor]) -> None:
    for utterance in log_probs:
        call(utterance)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if asrkern made more errors than a peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of a CTC model of characters, made by asrkern train")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("text", type=Path, help="of the language model, a sentence a line")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        recognizer = load(arguments.checkpoint)
        given = emissions(recognizer, arguments.manifest)
        sentences = [recognizer.text(line) for line in arguments.text.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    about, progress, lines, fine = machine(torch.device("cpu")), Progress(), [], True
    print(
        f"{len(given.texts)} utterances, {sum(map(len, given.log_probs))} frames of {len(given.labels)} labels, on "
        f"{about['cpu']}, one thread\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        # Sentences of a grammar have no n-grams that occur once, of which discounts are estimated.
        NGramLM.estimate(sentences, ORDER, discount_fallback=True).to_arpa(arpa)
        words = sorted({word for sentence in sentences for word in sentence.split()})
        table = rows(given.labels, LanguageModel(arpa, NGramLM.from_arpa(arpa), words))
        progress.start("decoders", len(table))
        for name, decoders in table.items():
            line, as_good = measure(name, decoders, given, arguments.rounds)
            lines.append(line)
            fine &= as_good
            progress.step()
        progress.end()
    print(markdown_table(lines))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
