"""``asrkern transcribe``: texts of recordings, and of speech while it comes in."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from torch import Tensor

from asrkern.cli.console import bars, errors
from asrkern.cli.evaluate import CheckpointPath
from asrkern.cli.language_model import Alpha, Beta, Characters, LanguageModel, LmCase, LmSpace, open_model

if TYPE_CHECKING:
    from asrkern.training.stream import Heard
    from asrkern.training.transcription import Transcriber, Transcript

STDIN = Path("-")


def transcribe(
    checkpoint: CheckpointPath,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILES...", help="Recordings of any form that libsndfile reads."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="An object a line: text, words with times in seconds and confidences."),
    ] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Subtitles.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            file_okay=False,
            help="Folder for a file of each recording (.txt, .json or .srt), in place of stdout.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Read from stdin and show what is heard so far."),
    ] = False,
    lm: LanguageModel = None,
    characters: Characters = False,
    lm_space: LmSpace = None,
    lm_case: LmCase = None,
    alpha: Alpha = 0.5,
    beta: Beta = None,
    beam_width: Annotated[
        int | None,
        typer.Option(min=1, help="Of the search. Default: 100 for CTC, else 1.", show_default=False),
    ] = None,
    window: Annotated[
        float, typer.Option(min=1, help="Longer recordings are read in windows of so many seconds.")
    ] = 30.0,
    margin: Annotated[
        float, typer.Option(min=0, help="Seconds of a window, at each end, that are only context (CTC).")
    ] = 3.0,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of a stream of raw samples: u8, s16le, s24le, s32le, f32le, f64le, mulaw or alaw.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a stream of raw samples, in Hz. Default: the model's.", show_default=False
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Of a stream of raw samples.")] = 1,
    chunk_ms: Annotated[int, typer.Option(min=10, help="Of a stream: how often results are shown.")] = 200,
) -> None:
    """Texts of recordings, with words' times and confidences where the model tells them (CTC).

    Prints for each recording: file, text, with a tab between; of a classifier: file, class, probability. Files that
    cannot be read are named on stderr and left out, and the exit status is 1.

    With --stream, of a unidirectional DeepSpeech2, what libsndfile reads: WAV as it comes, FLAC, Ogg, MP3 and others
    when they have ended; raw samples only with --encoding. A line whenever words are certain, which nothing that follows
    can change: seconds, these words, with a tab between; the last line has what is left. A terminal shows below them what
    may still change; --json tells it as "tail", and at the end the whole.
    """
    _check_usage(files, as_json, srt, out, stream)
    if window <= 2 * margin:
        raise typer.BadParameter(
            f"--window: expected more than twice the margin of {margin} s, received {window}"
        )
    with errors():
        from asrkern.training.checkpoint import load
        from asrkern.training.transcription import Transcriber

        recognizer = load(checkpoint)
        model = open_model(lm, characters, lm_space)
        if recognizer.task_name == "ctc":
            beam_width = beam_width or 100
        elif srt:
            raise ValueError(
                f"--srt: expected a CTC model, received {recognizer.model_name}, which tells no times"
            )
        transcriber = Transcriber(
            recognizer,
            model,
            alpha=alpha,
            beta=beta,
            beam_width=beam_width,
            lm_case=lm_case and lm_case.value,
        )
        if as_json and recognizer.task_name == "attention":
            typer.echo("note: an attention model tells no times and confidences of words", err=True)
        if stream:
            listen(transcriber, encoding, channels, chunk_ms / 1000, as_json, rate)
            return
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        form = "json" if as_json else "srt" if srt else "txt"
        failed = write_all(transcriber, files or [], form, out, window, margin)
    if failed:
        typer.echo(f"error: {failed} of {len(files or [])} files were not transcribed", err=True)
        raise typer.Exit(1)


def _check_usage(files: list[Path] | None, as_json: bool, srt: bool, out: Path | None, stream: bool) -> None:
    if as_json and srt:
        raise typer.BadParameter("expected --json or --srt, received both")
    if stream:
        if srt or out is not None:
            raise typer.BadParameter("--stream: expected neither --srt nor --out")
        if files not in (None, [], [STDIN]):
            raise typer.BadParameter("--stream: expected no files, since it reads stdin")
        return
    if not files:
        raise typer.BadParameter("expected files to transcribe, received none")
    if srt and out is None and len(files) > 1:
        raise typer.BadParameter("--srt: expected --out with several files")
    names = [file.stem for file in files]
    if out is not None and (twice := next((name for name in names if names.count(name) > 1), None)):
        raise typer.BadParameter(f"--out: expected files of different names, received {twice!r} twice")


def write_all(
    transcriber: Transcriber, files: list[Path], form: str, out: Path | None, window: float, margin: float
) -> int:
    """Transcribe files and write the results; how many failed."""
    from asrkern.data import load_audio
    from asrkern.training.results import write_text

    failed, rate = 0, transcriber.recognizer.features.sample_rate
    with bars() as progress:
        for index, file in enumerate(files):

            def part(share: float, before: int = index) -> None:
                progress("transcribing", round(1000 * (before + share)), 1000 * len(files))

            part(0)
            try:
                # Taken out, so that they do not stay in memory.
                samples = [load_audio(file, rate)]
                seconds = len(samples[0]) / rate
                found = transcriber.recording(samples.pop(), window, margin, part)
            except (OSError, ValueError) as error:
                failed += 1
                typer.echo(f"error: {file}: {error}", err=True)
                continue
            finally:
                part(1)
            if out is None:
                typer.echo(formatted(found, form, str(file), seconds), nl=form != "srt")
            else:
                text = found.text if form == "txt" else formatted(found, form, str(file), seconds)
                write_text(out / f"{file.stem}.{form}", text.rstrip("\n") + "\n")
    return failed


def formatted(found: Transcript, form: str, file: str, seconds: float) -> str:
    """A transcript as a line of text or JSON, or as subtitles."""
    from asrkern.training.subtitles import subtitles

    if form == "srt":
        return subtitles(found)
    if form == "json":
        return json.dumps({"file": file, "seconds": round(seconds, 3), **_value(found)}, ensure_ascii=False)
    probability = [] if found.probability is None else [f"{found.probability:.4f}"]
    return "\t".join([file, found.text, *probability])


def _value(found: Transcript) -> dict[str, Any]:
    if found.probability is not None:
        return {"class": found.text, "probability": found.probability}
    words = None if found.words is None else [asdict(word) for word in found.words]
    return {"text": found.text, "words": words}


def listen(
    transcriber: Transcriber,
    encoding: str | None,
    channels: int,
    chunk_seconds: float,
    as_json: bool,
    original_rate: int | None = None,
) -> None:
    """Transcribe stdin, showing words once they are certain, and on a terminal what may follow them in a line below.

    What raw samples are, read_stream says.

    Raises:
        ValueError: the stream or the model cannot be read so. What was heard before a stream broke off is shown.
    """
    from asrkern.data import read_stream
    from asrkern.training.stream import StreamTranscriber

    listener = StreamTranscriber(transcriber)
    if listener.normalization_differs:
        typer.echo(
            "note: the model was trained on features normalised by whole utterances; a stream's are normalised by what "
            "has been heard, which may cost accuracy",
            err=True,
        )
    rate = transcriber.recognizer.features.sample_rate
    chunks = read_stream(
        sys.stdin.buffer,
        rate,
        chunk_seconds=chunk_seconds,
        encoding=encoding,
        channels=channels,
        original_rate=original_rate,
    )
    broken: list[ValueError] = []
    live = sys.stdout.isatty() and not as_json
    shown = ""
    for heard in listener(_until_broken(chunks, broken)):
        final = heard.transcript is not None
        news = heard.text or final
        if not news and heard.tail == shown:
            continue
        # To the line's start, and clear it.
        out = "\r\x1b[K" if live else ""
        if as_json:
            out = json.dumps(_heard(heard), ensure_ascii=False) + "\n"
        elif news:
            out += f"{heard.seconds:.2f}\t{heard.text}\n"
        if live and not final:
            # A longer line could not be cleared.
            out += heard.tail[1 - shutil.get_terminal_size().columns :]
        sys.stdout.write(out)
        sys.stdout.flush()
        shown = heard.tail
    if broken:
        raise broken[0]


def _heard(heard: Heard) -> dict[str, Any]:
    value = {"seconds": round(heard.seconds, 3), "final": heard.transcript is not None}
    if heard.transcript is not None:
        return value | _value(heard.transcript)
    words = [asdict(word) for word in heard.words]
    return value | {"stable": heard.text, "words": words, "tail": heard.tail}


def _until_broken(chunks: Iterable[Tensor], broken: list[ValueError]) -> Iterator[Tensor]:
    try:
        yield from chunks
    except ValueError as error:
        broken.append(error)
    except KeyboardInterrupt:
        # How one ends a microphone.
        return
