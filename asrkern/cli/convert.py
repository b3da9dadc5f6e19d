"""``asrkern convert``: checkpoints of other projects as asrkern's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from asrkern._optional import needs
from asrkern.cli.console import errors


def _output(path: Path) -> Path:
    """Other programs would take a file for what its name says."""
    if path.suffix != ".safetensors":
        raise typer.BadParameter(
            f"expected a name that ends in .safetensors, since such a file is written, received {path.name!r}"
        )
    return path


def convert(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD_CHECKPOINT",
            exists=True,
            dir_okay=False,
            help="Of deepspeech.pytorch, MLPerf v0.5, HW4P2, KoSpeech or the convolutional classifiers.",
        ),
    ],
    new: Annotated[
        Path,
        typer.Argument(
            metavar="NEW.safetensors",
            callback=_output,
            dir_okay=False,
            help="What is written: a .safetensors file.",
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="What no weight tells: layout=v1.1 (DeepSpeech2), attention_heads=4 remainder=pad n_features=80 (LAS), "
            "num_heads=8 n_freq=161 (classifiers).",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Labels in the order of the output, where the file has none: one a line, KoSpeech's id,char,freq, or "
            "a JSON list.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a self-contained checkpoint, which evaluate and transcribe take, of one of another project.

    Example: asrkern convert deepspeech.pth deepspeech.safetensors

    Nothing in the old file is executed. Features, tokenizer and normalisation of text are those of its lineage.
    """
    with errors(TypeError):
        needs("recognizer")
        from asrkern._toml import parse_value
        from asrkern.decoder import read_labels
        from asrkern.recognizer import conversion
        from asrkern.recognizer.saved import save
        from asrkern.recognizer.tokenizer import read_vocabulary

        if new.exists() and new.samefile(old):
            raise ValueError(f"NEW: expected another file than {old}, which would be overwritten")
        given = {}
        for option in options or ():
            name, equals, value = option.partition("=")
            if not equals:
                raise ValueError(f"options: expected NAME=VALUE, received {option!r}")
            given[name] = parse_value(value)
        read = read_labels if labels is not None and labels.suffix == ".json" else read_vocabulary
        recognizer = conversion.convert(old, None if labels is None else read(labels), given)
        save(new, recognizer)
    parameters = sum(p.numel() for p in recognizer.model.parameters()) / 1e6
    typer.echo(
        f"{new}: {recognizer.model_name}, {parameters:.2f} M parameters, {recognizer.tokenizer.size} labels; "
        f"features {json.dumps(recognizer.features.model_dump(exclude_defaults=True))}"
    )
