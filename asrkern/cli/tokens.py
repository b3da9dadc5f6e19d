"""The option of commands that take CTC models in ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Tokens = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="The labels of an ONNX model: tokens.txt, vocab.json, vocab.txt, tokenizer.model …",
        show_default=False,
    ),
]
