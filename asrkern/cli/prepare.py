"""``asrkern prepare``: manifests of public corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from asrkern._atomic_write import write_text
from asrkern.cli.console import bars, errors

# Where each is, for those whose network allows no download from here.
ADDRESSES = {
    "librispeech": "https://www.openslr.org/12",
    "an4": "http://www.speech.cs.cmu.edu/databases/an4 (an4_sphere.tar.gz)",
    "fsdd": "https://github.com/Jakobovski/free-spoken-digit-dataset",
    "speech_commands": "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "grid": "https://zenodo.org/records/3625687",
}

Name = Literal["librispeech", "an4", "fsdd", "speech_commands", "grid"]


def prepare(
    corpus: Annotated[Name, typer.Argument(help="Which corpus.")],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", file_okay=False, help="In which it was, or is to be, unpacked."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            file_okay=False,
            help="Folder of the manifests; DIR if not given.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Only these parts of LibriSpeech (train-clean-100,dev-clean) or words of Speech Commands (bed,cat,happy).",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch it first: LibriSpeech, Speech Commands, GRID, through lhotse."
        ),
    ] = False,
) -> None:
    """Write NeMo manifests (train.jsonl and so on, as the corpus has parts) of a corpus in its own layout.

    Example: asrkern prepare librispeech corpora/librispeech --only dev-clean --download

    AN4's NIST Sphere files become WAV in the folder audio beside the manifests.

    Recordings that are missing or cannot be read are named on stderr and left out, and the exit status is 1.
    """
    with errors():
        from asrkern.data.layouts import as_wav, manifest_line, read_corpus

        asked = None if only is None else [name.strip() for name in only.split(",")]
        if download:
            fetch(corpus, folder, asked)
        found = read_corpus(corpus, folder, asked)
        out = out or folder
        out.mkdir(parents=True, exist_ok=True)
        total = sum(map(len, found.parts.values()))
        left_out, done = list(found.left_out), 0
        with bars() as progress:
            for part, recordings in found.parts.items():
                lines = []
                for spoken in recordings:
                    done += 1
                    progress("reading", done, total)
                    try:
                        lines.append(manifest_line(as_wav(spoken, out / "audio"), out))
                    except (OSError, ValueError) as error:
                        left_out.append(str(error))
                if lines:
                    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                    write_text(out / f"{part}.jsonl", text)
                minutes = sum(line["duration"] for line in lines) / 60
                typer.echo(f"{out / part}.jsonl: {len(lines)} utterances, {minutes:.1f} min")
    for reason in left_out:
        typer.echo(f"error: {reason}", err=True)
    if left_out:
        typer.echo(f"error: {len(left_out)} left out", err=True)
        raise typer.Exit(1)


def fetch(corpus: str, folder: Path, only: list[str] | None) -> None:
    """Download and unpack a corpus.

    Raises:
        ImportError: lhotse is not installed.
        OSError: it could not be downloaded.
        ValueError: nobody has a recipe for it.
    """
    from asrkern._optional import require

    by_hand = f"unpack {ADDRESSES[corpus]} in {folder} and run this again without --download"
    if corpus in ("an4", "fsdd"):
        raise ValueError(
            f"--download: expected librispeech, speech_commands or grid, received {corpus}; {by_hand}"
        )
    recipes = require("lhotse.recipes", "train")
    try:
        if corpus == "librispeech":
            recipes.download_librispeech(folder, only or "librispeech")
        elif corpus == "speech_commands":
            recipes.download_speechcommands("2", folder)
        else:
            recipes.download_grid(folder)
    except Exception as error:  # of the network, of archives, and of programs that lhotse starts
        raise OSError(f"{corpus} could not be downloaded: {error}; {by_hand}") from error
