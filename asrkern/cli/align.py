"""``asrkern align``: when the words of a given text are spoken."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asrkern._atomic_write import write_text
from asrkern._optional import needs
from asrkern.cli.console import bars, errors
from asrkern.cli.device import Device
from asrkern.cli.tokens import Tokens

STDIN = Path("-")


class Form(str, Enum):
    """Of the times."""

    tsv = "tsv"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    ctm = "ctm"
    textgrid = "textgrid"


def align(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            exists=True,
            dir_okay=False,
            help="A CTC model of asrkern train or convert, or an ONNX file with --tokens.",
        ),
    ],
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="A recording of any length.")],
    text: Annotated[
        Path, typer.Argument(metavar="TEXT", help="A file with what is said in it; - is standard input.")
    ],
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Default: as OUT ends, else tsv.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", dir_okay=False, help="File for the times, in place of stdout.", show_default=False
        ),
    ] = None,
    priors: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="How frequent each label is in the model's output, of asrkern evaluate --priors: times of words are then "
            "less those of single peaks.",
            show_default=False,
        ),
    ] = None,
    tokens: Tokens = None,
    prior_scale: Annotated[float, typer.Option(min=0, help="Weight of the priors.")] = 1.0,
    window: Annotated[
        float, typer.Option(min=1, help="Longer recordings are read in windows of so many seconds.")
    ] = 30.0,
    margin: Annotated[
        float, typer.Option(min=0, help="Seconds of a window, at each end, that are only context.")
    ] = 3.0,
    device: Device = "cpu",
) -> None:
    """Times of the words of a text in its recording (forced alignment), as subtitles, CTM, TextGrid or JSON.

    Example: asrkern align best.safetensors talk.flac talk.txt -o talk.TextGrid

    The text is normalised as the model's transcripts; numbers have to be written as they are spoken.
    """
    form = form or _form(out)
    with errors():
        needs("recognizer")
        from asrkern.data import load_audio
        from asrkern.recognizer.alignment import align as align_text
        from asrkern.recognizer.alignment import load_log_priors
        from asrkern.recognizer.saved import load
        from asrkern.recognizer.transcript_forms import formatted

        recognizer = load(checkpoint, tokens)
        recognizer.move(device or "cpu")
        log_priors = None if priors is None else prior_scale * load_log_priors(priors, recognizer)
        samples = load_audio(audio, recognizer.features.sample_rate)
        with bars() as progress:
            found = align_text(
                recognizer,
                samples,
                _read(text),
                log_priors=log_priors,
                window_seconds=window,
                margin_seconds=margin,
                progress=lambda share: progress("reading", round(1000 * share), 1000),
            )
        seconds = len(samples) / recognizer.features.sample_rate
        written = formatted(found, form.value, str(audio), seconds)
        if out is None:
            typer.echo(written, nl=False)
        else:
            write_text(out, written)


def _form(out: Path | None) -> Form:
    ending = "tsv" if out is None else out.suffix[1:].lower()
    if ending not in Form.__members__:
        raise typer.BadParameter(
            f"--out: expected a name that ends in .{', .'.join(Form.__members__)}, or --format, received {str(out)!r}"
        )
    return Form(ending)


def _read(text: Path) -> str:
    if text == STDIN:
        return sys.stdin.read()
    try:
        return text.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{text}: expected a text in UTF-8, received other bytes") from None
