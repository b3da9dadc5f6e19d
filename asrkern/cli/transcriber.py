"""The transcriber that a command's options describe. Other processes can make the same one of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asrkern.cli.language_model import LanguageModel

if TYPE_CHECKING:
    from asrkern.recognizer import Transcriber

BeamWidth = Annotated[
    int | None,
    typer.Option(min=1, help="Of the search. Default: 100 for CTC, else 1.", show_default=False),
]


@dataclass(frozen=True)
class TranscriberOptions:
    """As ``asrkern transcribe`` takes them."""

    checkpoint: Path
    tokens: Path | None
    device: str
    language_model: LanguageModel
    beam_width: int | None
    hotwords: Path | None
    hotword_weight: float

    def open(self) -> Transcriber:
        """Read all files.

        Raises:
            OSError, ValueError: a file cannot be read, or does not fit the model.
        """
        from asrkern.decoder import read_hotwords
        from asrkern.recognizer.saved import load
        from asrkern.recognizer.transcription import Transcriber

        recognizer = load(self.checkpoint, self.tokens)
        recognizer.move(self.device)
        width = self.beam_width or (100 if recognizer.task_name == "ctc" else None)
        hotwords = None if self.hotwords is None else read_hotwords(self.hotwords, self.hotword_weight)
        return Transcriber(
            recognizer,
            self.language_model.open(),
            beam_width=width,
            hotwords=hotwords,
            **self.language_model.weights,
        )

    def anywhere(self) -> TranscriberOptions:
        """The same for processes with other working directories."""
        return replace(
            self,
            checkpoint=self.checkpoint.absolute(),
            tokens=_absolute(self.tokens),
            language_model=replace(self.language_model, lm=_absolute(self.language_model.lm)),
            hotwords=_absolute(self.hotwords),
        )

    def as_json(self) -> dict[str, Any]:
        """What tells the transcripts of two of them apart, beside the model, as JSON. Files are told by their content."""
        from asrkern.corpus.rows import digest

        value = asdict(self) | asdict(self.language_model)
        del value["checkpoint"], value["language_model"], value["device"]
        return {name: digest(each) if isinstance(each, Path) else each for name, each in value.items()}


def _absolute(path: Path | None) -> Path | None:
    return path and path.absolute()
