"""Options of commands that decode with a language model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from asrkern.decoder import NGramLM


class Case(str, Enum):
    """Of a language model's words."""

    upper = "upper"
    lower = "lower"


LanguageModel = Annotated[
    Path | None,
    typer.Option(
        "--lm",
        exists=True,
        dir_okay=False,
        help="A language model for CTC: an ARPA file, a .safetensors file, or KenLM's probing .bin.",
    ),
]
Characters = Annotated[bool, typer.Option("--characters", help="The language model's words are characters.")]
LmSpace = Annotated[
    str | None,
    typer.Option(
        help="The word of a model of characters that stands for the space. Default: ▁, <space> or |, as it has.",
        show_default=False,
    ),
]
LmCase = Annotated[
    Case | None,
    typer.Option(help="Of the language model's words, where the labels have the other.", show_default=False),
]
Alpha = Annotated[float, typer.Option(min=0, help="Weight of the language model.")]
Beta = Annotated[
    float | None,
    typer.Option(help="Added for each word. Default: 1.5 with a language model, else 0.", show_default=False),
]


def open_model(path: Path | None, characters: bool, space: str | None) -> NGramLM | None:
    """The language model of these options."""
    from asrkern.decoder import NGramLM

    return (
        None if path is None else NGramLM.open(path, unit="character" if characters else "word", space=space)
    )
