"""``asrkern transcribe``: texts of recordings, and of speech while it comes in."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asrkern._atomic_write import write_text
from asrkern._optional import needs
from asrkern.cli.console import bars, errors, said, show_traceback
from asrkern.cli.corpus import EngineName, Place, transcribe_manifest
from asrkern.cli.device import Device
from asrkern.cli.evaluate import CheckpointPath
from asrkern.cli.inputs import STDIN, Input, find_inputs
from asrkern.cli.language_model import Hotwords, HotwordWeight, LanguageModel, with_language_model
from asrkern.cli.tokens import Tokens
from asrkern.cli.transcriber import BeamWidth, TranscriberOptions

if TYPE_CHECKING:
    from torch import Tensor

    from asrkern.data import Detector
    from asrkern.recognizer.saved import Recognizer
    from asrkern.recognizer.stream_transcription import Heard
    from asrkern.recognizer.transcription import Transcriber, Transcript


# Forms that can be told apart where several recordings are written one after another.
_OF_SEVERAL = ("txt", "json", "ctm")


class Vad(str, Enum):
    """What finds the pauses at which long recordings are cut."""

    auto = "auto"
    silero = "silero"
    energy = "energy"
    none = "none"


@with_language_model
def transcribe(
    *,
    checkpoint: CheckpointPath,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES...",
            help="Recordings, also the sound of films (extra av), folders of them (and their folders), manifests "
            "(.jsonl, .json, .csv, .tsv); - is standard input.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="An object a line: text, words with times in seconds and confidences."),
    ] = False,
    txt: Annotated[bool, typer.Option("--txt", help="Texts (the default).")] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Subtitles.")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="Subtitles for the web.")] = False,
    tsv: Annotated[bool, typer.Option("--tsv", help="Words: start, end, confidence, word.")] = False,
    ctm: Annotated[bool, typer.Option("--ctm", help="Words in NIST's form.")] = False,
    textgrid: Annotated[bool, typer.Option("--textgrid", help="Words for Praat.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            file_okay=False,
            help="Folder for files of each recording (a.txt, a.srt, ...), in place of stdout.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Read from stdin and show what is heard so far."),
    ] = False,
    low_latency: Annotated[
        bool,
        typer.Option(
            "--low-latency",
            help="With --stream: words come half a second sooner, from numbers that are the whole recording's to within "
            "rounding.",
        ),
    ] = False,
    tokens: Tokens = None,
    language_model: LanguageModel,
    hotwords: Hotwords = None,
    hotword_weight: HotwordWeight = 10.0,
    beam_width: BeamWidth = None,
    vad: Annotated[
        Vad,
        typer.Option(
            help="What finds the pauses at which recordings longer than a window are cut: silero's network, their "
            "energy, or silero where it is installed (auto). none: overlapping windows (CTC)."
        ),
    ] = Vad.auto,
    window: Annotated[
        float, typer.Option(min=1, help="Longer recordings are read in parts of at most so many seconds.")
    ] = 30.0,
    margin: Annotated[
        float,
        typer.Option(min=0, help="Seconds of an overlapping window, at each end, that are only context."),
    ] = 3.0,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of raw samples on standard input: u8, s16le, s24le, s32le, f32le, f64le, mulaw or alaw.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, help="Of raw samples, in Hz. Default: the model's.", show_default=False),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Of raw samples.")] = 1,
    chunk_ms: Annotated[int, typer.Option(min=10, help="Of a stream: how often results are shown.")] = 200,
    device: Device = "cpu",
    manifest: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A corpus, in place of FILES: a row for each entry, in OUT/transcripts.jsonl. The same command goes on "
            "with what is there. See docs/corpus.md.",
            show_default=False,
        ),
    ] = None,
    parquet: Annotated[
        bool,
        typer.Option("--parquet", help="Of --manifest: OUT/transcripts.parquet, too (extra parquet)."),
    ] = False,
    engine: Annotated[
        EngineName, typer.Option(help="Of --manifest: processes of this machine, or actors of Ray Data.")
    ] = EngineName.local,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes or actors. Default: as many as threads, 1 on a GPU.", show_default=False
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of Ray's cluster; auto is this machine's. Default: a new one.", show_default=False
        ),
    ] = None,
) -> None:
    """Texts of recordings, with words' times and confidences where the model tells them (CTC).

    Example: asrkern transcribe best.safetensors talk.flac recordings/ --json

    A CTC model may be an ONNX file of audio (wav2vec 2.0's) or of features that its metadata name as sherpa-onnx's do,
    with --tokens.

    A recording longer than --window is cut where nobody speaks; --json tells the "segments" that it was cut into.

    Prints for each recording: file, text, with a tab between; of a classifier: file, class, probability. Of a manifest,
    each line's part of its recording, as a.wav#t=1.5,3.25 (seconds; words' times begin with it). Files and lines that
    cannot be read are named on stderr and left out, and the exit status is 1.

    With --stream, of a unidirectional DeepSpeech2, what libsndfile reads: WAV as it comes, FLAC, Ogg, MP3 and others
    when they have ended; raw samples only with --encoding. A line whenever words are certain, which nothing that follows
    can change: seconds, these words, with a tab between; the last line has what is left. A terminal shows below them what
    may still change; --json tells it as "tail", and at the end the whole.
    """
    asked = {
        "json": as_json,
        "txt": txt,
        "srt": srt,
        "vtt": vtt,
        "tsv": tsv,
        "ctm": ctm,
        "textgrid": textgrid,
    }
    forms = [form for form, wanted in asked.items() if wanted] or ["txt"]
    if manifest is None:
        _check_usage(files, forms, out, stream)
    elif files or stream or out is None or forms not in (["txt"], ["json"]):
        raise typer.BadParameter("--manifest: expected --out, and neither files nor --stream nor other forms")
    if parquet and manifest is None:
        raise typer.BadParameter("--parquet: expected with --manifest, received without")
    if window <= 2 * margin:
        raise typer.BadParameter(
            f"--window: expected more than twice the margin of {margin} s, received {window}"
        )
    if low_latency and not stream:
        raise typer.BadParameter("--low-latency: expected with --stream, received without")
    if stream and device != "cpu":
        raise typer.BadParameter(f"--stream: expected the device cpu, received {device}")
    options = TranscriberOptions(
        checkpoint, tokens, str(device), language_model, beam_width, hotwords, hotword_weight
    )
    if manifest is not None and out is not None:
        recording = {
            "vad": None if vad is Vad.none else vad.value,
            "window_seconds": window,
            "margin_seconds": margin,
        }
        with errors():
            needs("recognizer")
            if parquet:
                needs("parquet")
            transcribe_manifest(manifest, out, options, Place(engine, workers, address), recording, parquet)
        return
    raw = {"encoding": encoding, "channels": channels, "original_rate": rate}
    left_out: list[Exception] = []
    inputs = find_inputs(files or [], raw, left_out)
    _check_outputs(inputs, forms, out)
    with errors():
        needs("recognizer")
        from asrkern.data import make_detector

        transcriber = options.open()
        recognizer = transcriber.recognizer
        _check_task(recognizer, forms)
        if stream:
            listen(transcriber, raw, chunk_ms / 1000, as_json, low_latency)
            return
        for error in left_out:
            typer.echo(f"error: {said(error)}", err=True)
        detector = None if vad is Vad.none else make_detector(vad.value, recognizer.features.sample_rate)
        failed = len(left_out) + write_all(transcriber, inputs, forms, out, window, margin, detector)
    if failed:
        total = len(inputs) + len(left_out)
        typer.echo(f"error: {failed} of {total} files were not transcribed", err=True)
        raise typer.Exit(1)


def _check_usage(files: list[Path] | None, forms: list[str], out: Path | None, stream: bool) -> None:
    if len(forms) > 1 and out is None:
        *others, last = (f"--{form}" for form in forms)
        raise typer.BadParameter(f"expected {', '.join(others)} or {last} without --out, received both")
    if stream:
        if out is not None or forms not in (["txt"], ["json"]):
            raise typer.BadParameter(
                "--stream: expected neither --out nor another form than --txt and --json"
            )
        if files not in (None, [], [STDIN]):
            raise typer.BadParameter("--stream: expected no files, since it reads stdin")
    elif not files:
        raise typer.BadParameter("expected files to transcribe, received none")
    elif files.count(STDIN) > 1:
        raise typer.BadParameter("expected - once, received it twice")


def _check_task(recognizer: Recognizer, forms: list[str]) -> None:
    from asrkern.recognizer.transcript_forms import TIMED_FORMS

    timed = [form for form in forms if form in TIMED_FORMS]
    if recognizer.task_name != "ctc" and timed:
        raise ValueError(
            f"--{timed[0]}: expected a CTC model, received {recognizer.model_name}, which tells no times"
        )
    if recognizer.task_name == "attention" and "json" in forms:
        typer.echo("note: an attention model tells no times and confidences of words", err=True)


def _check_outputs(inputs: list[Input], forms: list[str], out: Path | None) -> None:
    if out is None and len(inputs) > 1 and forms[0] not in _OF_SEVERAL:
        raise typer.BadParameter(f"--{forms[0]}: expected --out with several files")
    twice = [name for name, times in Counter(each.name for each in inputs).items() if times > 1]
    if out is not None and twice:
        raise typer.BadParameter(f"--out: expected files of different names, received {twice[0]!r} twice")


class _Meter:
    """How many recordings are done, and how fast they are read."""

    def __init__(self, show: Callable[..., None], total: int) -> None:
        self._show, self._total, self._began = show, total, time.perf_counter()
        self._done, self._before, self.seconds = 0, 0.0, 0.0

    def __call__(self, share: float) -> None:
        """So much of the present recording, which has ``seconds``, is done."""
        heard = self._before + share * self.seconds
        speed = heard / max(1e-3, time.perf_counter() - self._began)
        said = f"{heard:.0f} s of audio, {speed:.1f} × real time" if heard else ""
        self._show("transcribing", round(1000 * (self._done + share)), 1000 * self._total, said)

    def next(self) -> None:
        """The present recording is done."""
        self(1)
        self._done, self._before, self.seconds = self._done + 1, self._before + self.seconds, 0.0


def write_all(
    transcriber: Transcriber,
    inputs: list[Input],
    forms: list[str],
    out: Path | None,
    window: float,
    margin: float,
    detector: Detector | None,
) -> int:
    """Transcribe and write the results; how many failed."""
    failed, rate = 0, transcriber.recognizer.features.sample_rate
    with bars() as progress:
        meter = _Meter(progress, len(inputs))
        for each in inputs:
            meter(0)
            try:
                # Taken out, so that they do not stay in memory, as they would in the tuple of a call with *.
                samples = [each.load(rate)]
                seconds = meter.seconds = len(samples[0]) / rate
                found = transcriber.recording(samples.pop(), window, margin, meter, detector)
            except Exception as error:
                reason = said(error)
                if reason is None:
                    raise
                failed += 1
                show_traceback(error)
                typer.echo(f"error: {each.shown}: {reason}", err=True)
                continue
            finally:
                meter.next()
            _write(found, forms, each, seconds, out)
    return failed


def _write(found: Transcript, forms: list[str], recording: Input, seconds: float, out: Path | None) -> None:
    from asrkern.recognizer.transcript_forms import formatted

    if out is None and forms == ["txt"]:
        probability = [] if found.probability is None else [f"{found.probability:.4f}"]
        typer.echo("\t".join([recording.shown, found.text, *probability]))
        return
    for form in forms:
        text = formatted(found, form, recording.shown, seconds)
        if out is None:
            typer.echo(text, nl=False)
            continue
        path = out / f"{recording.name}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def listen(
    transcriber: Transcriber,
    raw: dict[str, Any],
    chunk_seconds: float,
    as_json: bool,
    low_latency: bool = False,
) -> None:
    """Transcribe stdin, showing words once they are certain, and on a terminal what may follow them in a line below.

    Args:
        raw: what raw samples are: ``encoding``, ``channels`` and ``original_rate`` of read_stream.

    Raises:
        ValueError: the stream or the model cannot be read so. What was heard before a stream broke off is shown.
    """
    from asrkern.data import read_stream
    from asrkern.recognizer.stream_transcription import StreamTranscriber

    listener = StreamTranscriber(transcriber, low_latency=low_latency)
    if listener.normalization_differs:
        typer.echo(
            "note: the model was trained on features normalised by whole utterances; a stream's are normalised by what "
            "has been heard, which may cost accuracy",
            err=True,
        )
    rate = transcriber.recognizer.features.sample_rate
    chunks = read_stream(sys.stdin.buffer, rate, chunk_seconds=chunk_seconds, **raw)
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
    from asrkern.recognizer.transcript_forms import content

    value = {"seconds": round(heard.seconds, 3), "final": heard.transcript is not None}
    if heard.transcript is not None:
        return value | content(heard.transcript)
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
