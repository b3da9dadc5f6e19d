"""Options of commands that decode with a language model, in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asrkern.decoder import NGramLM


Hotwords = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Words or phrases that are likelier, one a line; after a tab, or ' :', a weight.",
    ),
]
HotwordWeight = Annotated[float, typer.Option(help="Of hotwords without their own, in nats.")]


class Case(str, Enum):
    """Of a language model's words."""

    upper = "upper"  # type: ignore[assignment]  # hides str.upper
    lower = "lower"  # type: ignore[assignment]


@dataclass
class LanguageModel:
    """The options, in the order of ``--help``; :func:`with_language_model` gives them to a command."""

    lm: Annotated[
        Path | None,
        typer.Option(
            "--lm",
            exists=True,
            dir_okay=False,
            help="A language model for CTC: an ARPA file, a .safetensors file, or a binary file of KenLM.",
        ),
    ] = None
    characters: Annotated[
        bool, typer.Option("--characters", help="The language model's words are characters.")
    ] = False
    lm_space: Annotated[
        str | None,
        typer.Option(
            help="The word of a model of characters that stands for the space. Default: ▁, <space> or |, as it has.",
            show_default=False,
        ),
    ] = None
    lm_tokens: Annotated[
        bool | None,
        typer.Option(
            "--lm-tokens/--no-lm-tokens",
            help="Whether the language model's words are tokens: labels, or NeMo's chr(i + 100). Default: told by the model.",
            show_default=False,
        ),
    ] = None
    lm_case: Annotated[
        Case | None,
        typer.Option(
            help="Of the language model's words, where the labels have the other.", show_default=False
        ),
    ] = None
    alpha: Annotated[float, typer.Option(min=0, help="Weight of the language model.")] = 0.5
    beta: Annotated[
        float | None,
        typer.Option(
            help="Added for each word. Default: 1.5 with a language model, else 0.", show_default=False
        ),
    ] = None

    def open(self) -> NGramLM | None:
        """The model, None without ``--lm``."""
        from asrkern.decoder import NGramLM

        unit = "character" if self.characters else None
        return None if self.lm is None else NGramLM.open(self.lm, unit=unit, space=self.lm_space)

    @property
    def weights(self) -> dict[str, Any]:
        """What decoders take beside the model."""
        # Without an answer the model's own unit counts.
        unit = {None: None, True: "token", False: "character" if self.characters else "word"}[self.lm_tokens]
        case = self.lm_case and self.lm_case.value
        return {"alpha": self.alpha, "beta": self.beta, "unit": unit, "lm_case": case}


def with_language_model(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options for Typer where it has the parameter ``language_model``."""
    mine = inspect.signature(LanguageModel, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        parameters += mine.values() if name == "language_model" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        language_model = LanguageModel(**{name: given.pop(name) for name in mine})
        command(language_model=language_model, **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
