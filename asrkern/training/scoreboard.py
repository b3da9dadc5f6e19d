"""What recipes reach: a Markdown table to which each evaluation adds its line.

The line of the same recipe, corpus and language model is replaced, so the table can be made again by its commands.
"""

from __future__ import annotations

import csv
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from asrkern._atomic_write import write_text
from asrkern.training.evaluation import Evaluation
from asrkern.training.metrics import in_words

_COLUMNS = (
    "recipe",
    "corpus",
    "language model",
    "metric",
    "result",
    "in training",
    "epoch",
    "minutes",
    "trained on",
    "asrkern",
    "command",
)
_HEADER = f"| {' | '.join(_COLUMNS)} |"
_RULE = f"|{' --- |' * len(_COLUMNS)}"
# Which line is whose.
_KEY = 3


def machine() -> str:
    """Processor, instruction set of the kernels and threads, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        # Not Linux, or a processor that has no such line.
        pass
    threads = torch.get_num_threads()
    return f"{name}, {torch.ops.asrkern.cpu_isa()}, {threads} thread{'s' * (threads != 1)}"


def add(
    table: str | os.PathLike[str],
    evaluation: Evaluation,
    info: dict,
    checkpoint: str | os.PathLike[str],
    manifests: Sequence[str | os.PathLike[str]],
    language_model: str | os.PathLike[str] | None = None,
    command: Sequence[str] = (),
) -> None:
    """Write a line into a table, after its other lines or in the place of the line with the same first three cells.

    Args:
        table: a Markdown file. A new table is put at its end; the file is made if there is none.
        evaluation: its metric is the one that the model was trained for.
        info: the checkpoint's, as :attr:`asrkern.recognizer.Recognizer.info`.
        checkpoint: where it is. What training took and reached is in ``results.csv`` beside it, if that is there.
        manifests: what was measured.
        language_model: the file that the search used.
        command: what was typed.

    Raises:
        OSError: the table cannot be read or written; what was there before is untouched.
        ValueError: the table is not UTF-8, or the model has no name of a recipe.
    """
    table = Path(table)
    cells = _cells(evaluation, info, Path(checkpoint), manifests, language_model, command)
    line = f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    try:
        lines = table.read_text("utf-8").splitlines() if table.exists() else []
    except UnicodeDecodeError:
        raise ValueError(f"{table}: expected a Markdown file in UTF-8, received other bytes") from None
    if _HEADER not in lines:
        lines += [*([""] if lines and lines[-1] else []), _HEADER, _RULE]
    start = lines.index(_HEADER) + 2
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    key = line.split(" | ")[:_KEY]
    rows = [row for row in lines[start:end] if row.split(" | ")[:_KEY] != key]
    lines[start:end] = sorted([*rows, line])
    write_text(table, "\n".join(lines) + "\n")


def _cells(
    evaluation: Evaluation,
    info: dict,
    checkpoint: Path,
    manifests: Sequence[str | os.PathLike[str]],
    language_model: str | os.PathLike[str] | None,
    command: Sequence[str],
) -> list[str]:
    name = info.get("recipe", {}).get("name")
    if not name:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint of asrkern train, received one without a recipe"
        )
    metric = evaluation.metric
    epoch, minutes, training = str(info.get("epoch", "")), "", ""
    results = checkpoint.parent / "results.csv"
    if results.exists():
        with results.open(newline="") as file:
            rows = list(csv.DictReader(file))
        minutes = f"{sum(float(row['seconds']) for row in rows) / 60:.1f}"
        training = "".join(
            in_words(metric, float(row["train_metric"])) for row in rows if row["epoch"] == epoch
        )
        epoch += f" of {len(rows)}"
    corpora = ", ".join("/".join(Path(path).with_suffix("").parts[-2:]) for path in manifests)
    data = os.environ.get("ASRKERN_DATA")
    typed = shlex.join(command)
    if data:
        typed = typed.replace(data, "$ASRKERN_DATA")
    return [
        name,
        corpora,
        Path(language_model).name if language_model else "–",
        metric,
        in_words(metric, evaluation.metrics()[metric]),
        training,
        epoch,
        minutes,
        info.get("machine", ""),
        info.get("asrkern", ""),
        f"`{typed}`" if typed else "",
    ]
