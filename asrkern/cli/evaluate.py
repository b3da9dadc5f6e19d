"""``asrkern evaluate``: how good a trained model is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from asrkern._atomic_write import write_text
from asrkern._optional import needs
from asrkern.cli.console import Screen, bars, errors
from asrkern.cli.device import Device
from asrkern.cli.language_model import LanguageModel, with_language_model
from asrkern.cli.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lhotse.cut import Cut

    from asrkern.recognizer.saved import Recognizer
    from asrkern.training.evaluation import Evaluation

# Kinds of errors that are shown; the JSON has all.
CONFUSIONS = 10

CheckpointPath = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        exists=True,
        dir_okay=False,
        help="Of asrkern train or convert; or an ONNX file with --tokens.",
    ),
]


@with_language_model
def evaluate(
    *,
    checkpoint: CheckpointPath,
    manifests: Annotated[
        list[Path],
        typer.Argument(
            metavar="MANIFEST...",
            help="Manifests of NeMo, lhotse or deepspeech.pytorch, folders of Kaldi's or LibriSpeech's; measured together.",
        ),
    ],
    tokens: Tokens = None,
    language_model: LanguageModel,
    beam_width: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the search. Default: 100 with a language model, else the best path.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Field with a clip's class. Default: as in training.", show_default=False),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="Utterances shown, the worst first.")] = 10,
    device: Device = "cpu",
    priors: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Also how frequent each label is in a CTC model's output, as JSON, for asrkern align.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Also a line for the table in this Markdown file: recipe, corpus, result, what training took.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT", help="Also everything as JSON into this file.", show_default=False
        ),
    ] = None,
) -> None:
    """Metrics, worst utterances and confusions of a trained model.

    Example: asrkern evaluate best.safetensors dev.jsonl --lm 4gram.arpa.gz --json result.json

    Utterances that cannot be measured are named on stderr and left out, and the exit status is 1.
    """
    with errors():
        needs("train")
        # Only here: lhotse takes its time.
        from asrkern.recognizer.saved import load
        from asrkern.recognizer.transcription import Transcriber
        from asrkern.training import evaluation as measure
        from asrkern.training import scoreboard
        from asrkern.training.manifests import read_cuts

        recognizer = load(checkpoint, tokens)
        recognizer.move(device or "cpu")
        transcriber = Transcriber(
            recognizer, language_model.open(), beam_width=beam_width, **language_model.weights
        )
        broken: list[Exception] = []
        try:
            cuts = [cut for path in manifests for cut in read_cuts(path, left_out=broken)]
        finally:
            for error in broken:
                typer.echo(f"error: {error}", err=True)
        field = label or recognizer.info.get("recipe", {}).get("data", {}).get("label", "label")
        with bars() as progress:
            found = measure.evaluate(
                transcriber, cuts, label=field, progress=lambda *done: progress("evaluating", *done)
            )
        for reason in found.left_out:
            typer.echo(f"error: {reason}", err=True)
        try:
            if priors is not None:
                _write_priors(priors, recognizer, cuts)
            if table is not None:
                typed = ["asrkern", *sys.argv[1:]]
                scoreboard.add(table, found, recognizer.info, checkpoint, manifests, language_model.lm, typed)
            if as_json is not None:
                about = {"checkpoint": str(checkpoint), "manifests": list(map(str, manifests))}
                left_out = [*map(str, broken), *found.left_out]
                written = {**about, **found.to_json(), "left_out": left_out}
                write_text(as_json, json.dumps(written, ensure_ascii=False, indent=1) + "\n")
        finally:
            # Last, for who reads stdout may go away; also where a file could not be written.
            show(found, worst)
    failed = len(broken) + len(found.left_out)
    if failed:
        typer.echo(f"error: {failed} of {len(found.results) + failed} utterances were left out", err=True)
        raise typer.Exit(1)


def _write_priors(path: Path, recognizer: Recognizer, cuts: Sequence[Cut]) -> None:
    from asrkern.recognizer.alignment import estimate_log_priors, save_log_priors
    from asrkern.training.batches import load_cut

    extract = recognizer.features.make()
    features = (load_cut(cut, recognizer.features, extract) for cut in cuts)
    save_log_priors(path, recognizer, estimate_log_priors(recognizer, features))


def show(evaluation: Evaluation, worst: int) -> None:
    """Tables on stdout."""
    console = Screen(highlight=False)
    console.print(_metrics(evaluation))
    if evaluation.unknown:
        unknown = ", ".join(f"{c!r} in {n}" for c, n in evaluation.unknown.most_common(10))
        console.print(
            Text(f"The model cannot write these characters of the references: {unknown} utterances")
        )
    if evaluation.task == "classify":
        console.print(_matrix(evaluation))
    else:
        console.print(_edits(evaluation))
        if evaluation.has_spaces:
            console.print(_confusions(evaluation, "word"))
        console.print(_confusions(evaluation, "character"))
    if worst:
        console.print(_worst(evaluation, worst))


def _metrics(evaluation: Evaluation) -> Table:
    from asrkern.training.metrics import in_words

    counts = evaluation.counts
    of = {
        "wer": f"{counts.word_edits} of {counts.words} words",
        "cer": f"{counts.character_edits} of {counts.characters} characters",
        "crr": f"{counts.letter_edits} errors in {counts.letters} characters without spaces",
        "distance": f"{counts.character_edits} edits in {counts.utterances} utterances",
        "accuracy": f"{counts.correct} of {counts.utterances}",
        "rtf": f"{evaluation.processing_seconds:.1f} s for {evaluation.seconds:.1f} s of speech",
    }
    table = _table(f"{counts.utterances} utterances", "metric", ">value", "of")
    for name, value in evaluation.metrics().items():
        title = name if name in ("distance", "accuracy") else name.upper()
        _add(table, title, f"{value:.4f}" if name == "rtf" else in_words(name, value), of[name])
    return table


def _edits(evaluation: Evaluation) -> Table:
    columns = ("substitutions", "deletions", "insertions")
    table = _table("Errors", "of", *(f">{column}" for column in columns))
    for unit, edits in evaluation.edits().items():
        _add(table, unit, *(str(edits[column]) for column in columns))
    return table


def _matrix(evaluation: Evaluation) -> Table:
    table = _table("Classes (rows) and what they were taken for", "", *(f">{c}" for c in evaluation.classes))
    for name, row in zip(evaluation.classes, evaluation.matrix()):
        _add(table, name, *map(str, row))
    return table


def _confusions(evaluation: Evaluation, unit: Literal["word", "character"]) -> Table:
    table = _table(f"Most frequent errors, {unit}s", "reference", "hypothesis", ">times")
    for meant, said, times in evaluation.confusions(unit).most_common(CONFUSIONS):
        _add(table, _visible(meant), _visible(said), str(times))
    return table


def _worst(evaluation: Evaluation, count: int) -> Table:
    table = _table("Worst utterances", "utterance", ">errors", "reference / hypothesis")
    for result in evaluation.worst(count):
        hypothesis = result.hypothesis
        if result.probability is not None:
            hypothesis += f" ({result.probability:.2f})"
        errors_, _ = evaluation.errors(result)
        _add(table, result.id, str(errors_), f"{result.reference}\n{hypothesis}")
    return table


def _visible(text: str) -> str:
    return {"": "∅", " ": "␣"}.get(text, text)


def _table(title: str, *columns: str) -> Table:
    """Columns whose names begin with ">" are aligned to the right."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(
            Text(column.removeprefix(">")),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    return table


def _add(table: Table, *cells: str) -> None:
    # As Text: in a str, rich takes what is in brackets for its markup.
    table.add_row(*map(Text, cells))
