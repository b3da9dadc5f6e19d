"""The option ``--device``."""

from __future__ import annotations

import re
from typing import Annotated

import typer


def _checked(text: str | None) -> str | None:
    if text is None:
        return None
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", text):
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, received {text!r}")
    if text != "cpu":
        import torch

        count = torch.cuda.device_count()
        if int(text.partition(":")[2] or 0) >= count:
            there = ", ".join(f"cuda:{index}" for index in range(count)) or "no CUDA device"
            why = "" if torch.version.cuda else f", since torch {torch.__version__} is built without CUDA"
            raise typer.BadParameter(
                f"expected one that is there, received {text!r}: torch sees {there}{why}"
            )
    return text


Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        callback=_checked,
        help="Where the model runs: cpu, cuda or cuda:1.",
        show_default=False,
    ),
]
