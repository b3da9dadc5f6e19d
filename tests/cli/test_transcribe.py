"""``asrkern transcribe``."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.cli.transcribe import listen
from asrkern.data import load_audio, make_detector, read_manifest
from asrkern.decoder import CTCBeamDecoder
from asrkern.recognizer.subtitles import subtitles
from asrkern.recognizer.transcript_forms import FORMS, formatted
from asrkern.recognizer.transcription import Transcriber
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.cli.tiny import CLASSES, make_deepspeech2, make_recognizer, speech, write, write_words
from tests.decoder.models import small_lm
from tests.training.tones import RATE, tiny_recipe, write_tones


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three recordings, of three forms and rates."""
    paths = [u.audio_path for u in read_manifest(write_tones(tmp_path / "audio", 3, words=4))]
    samples, _ = soundfile.read(paths[1])
    soundfile.write(tmp_path / "stereo.flac", np.stack([samples, samples], 1), RATE)
    samples, _ = soundfile.read(paths[2])
    soundfile.write(tmp_path / "wide.ogg", np.repeat(samples, 2), 2 * RATE)
    return [paths[0], tmp_path / "stereo.flac", tmp_path / "wide.ogg"]


def run(*arguments: Any, **options: Any) -> Any:
    return CliRunner().invoke(app, ["transcribe", *map(str, arguments)], **options)


def test_texts(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    result = run(write(tmp_path, recognizer), *files, "--beam-width", 9)
    assert result.exit_code == 0, result.output
    transcriber = Transcriber(recognizer, beam_width=9)
    texts = [transcriber.recording(load_audio(file, RATE)).text for file in files]
    assert len(set(texts)) == 3
    assert result.stdout.splitlines() == [f"{file}\t{text}" for file, text in zip(files, texts)]
    assert "transcribing" in result.stderr


def test_json_and_windows(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    options = ["--json", "--window", 1, "--margin", 0.2, "--vad", "none"]
    result = run(write(tmp_path, recognizer), *files, *options)
    assert result.exit_code == 0, result.output
    transcriber = Transcriber(recognizer, beam_width=100)
    for line, file in zip(result.stdout.splitlines(), files, strict=True):
        samples = load_audio(file, RATE)
        expected = transcriber.recording(samples, 1.0, 0.2)
        assert json.loads(line) == {
            "file": str(file),
            "seconds": round(len(samples) / RATE, 3),
            "text": expected.text,
            "words": [asdict(word) for word in expected.words],
        }


def test_long_recordings_are_cut_at_pauses(tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    samples = np.concatenate([part for seed in range(3) for part in (speech(4, seed), np.zeros(3 * RATE))])
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    given = [write(tmp_path, recognizer), tmp_path / "long.wav", "--json", "--window", 7]
    value = json.loads(run(*given, "--vad", "energy").stdout)
    detector = make_detector("energy", RATE)
    expected = Transcriber(recognizer, beam_width=100).recording(
        load_audio(tmp_path / "long.wav", RATE), 7.0, detector=detector
    )
    assert (
        value["segments"] == [asdict(segment) for segment in expected.segments]
        and len(value["segments"]) == 3
    )
    assert value["text"] == expected.text != ""
    assert "segments" not in json.loads(run(*given, "--vad", "none").stdout)


def test_subtitles(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    checkpoint = write(tmp_path, recognizer)
    expected = subtitles(Transcriber(recognizer, beam_width=100).recording(load_audio(files[1], RATE)))
    assert "-->" in expected
    assert run(checkpoint, files[1], "--srt").stdout == expected
    result = run(checkpoint, *files, "--srt", "--out", tmp_path / "new" / "folder")
    assert result.exit_code == 0 and result.stdout == ""
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["stereo.srt", "u0.srt", "wide.srt"]
    assert (tmp_path / "new" / "folder" / "stereo.srt").read_text() == expected


def test_all_forms(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    checkpoint = write(tmp_path, recognizer)
    options = [f"--{form}" for form in FORMS]
    result = run(checkpoint, *files, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0 and result.stdout == ""
    assert re.search(r"\d s of audio, \d+\.\d × real time", " ".join(result.stderr.split()))
    transcriber = Transcriber(recognizer, beam_width=100)
    for file in files:
        samples = load_audio(file, RATE)
        found = transcriber.recording(samples)
        for form in FORMS:
            expected = formatted(found, form, str(file), len(samples) / RATE)
            assert (tmp_path / "out" / f"{file.stem}.{form}").read_text() == expected
    for form in ("vtt", "tsv", "ctm", "textgrid"):
        written = (tmp_path / "out" / f"{files[0].stem}.{form}").read_text()
        assert run(checkpoint, files[0], f"--{form}").stdout == written
    lines = run(checkpoint, *files, "--ctm").stdout.splitlines()
    assert list(dict.fromkeys(line.split()[0] for line in lines)) == [file.stem for file in files]
    assert run(checkpoint, *files, "--txt").stdout == run(checkpoint, *files).stdout


def test_a_folder_that_cannot_be_written_ends_it(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(write(tmp_path, make_recognizer("ctc")), *files, "-o", tmp_path / "file" / "out")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "file/out" in result.stderr and result.stderr.count("error: ") == 1


def test_urls_and_films(files: list[Path], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        sound = film.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(load_audio(files[0], RATE)[None].numpy(), "fltp", "mono")
        frame.rate = RATE
        for packet in (*sound.encode(frame), *sound.encode(None)):
            film.mux(packet)
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    result = run(checkpoint, "https://example.org/a.mp3", tmp_path / "film.mp4")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 1
    assert result.stdout.startswith(f"{tmp_path / 'film.mp4'}\t")
    assert "received the URL 'https:/example.org/a.mp3': download it first" in result.stderr
    piped = run(checkpoint, "-", input=(tmp_path / "film.mp4").read_bytes())
    assert piped.stdout.split("\t")[1] == result.stdout.split("\t")[1]


def test_a_language_model(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    write_words(recognizer)
    lm = small_lm(["A", "I", "O", "NO", "DID", "PIN", "IN"])
    lm.save(tmp_path / "lm.safetensors")
    options = ["--lm", tmp_path / "lm.safetensors", "--alpha", 2, "--beta", 1, "--beam-width", 8]
    result = run(write(tmp_path, recognizer), files[0], *options)
    transcriber = Transcriber(recognizer, lm, alpha=2.0, beta=1.0, beam_width=8)
    samples = load_audio(files[0], RATE)
    expected = transcriber.recording(samples).text
    assert result.stdout == f"{files[0]}\t{expected}\n"
    assert expected != Transcriber(recognizer, beam_width=8).recording(samples).text


def test_classes(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("classify")
    checkpoint = write(tmp_path, recognizer)
    lines = [line.split("\t") for line in run(checkpoint, *files).stdout.splitlines()]
    assert [name for name, _, _ in lines] == list(map(str, files))
    expected = [recognizer.predict_audio([load_audio(file, RATE)])[0] for file in files]
    assert [label for _, label, _ in lines] == expected and set(expected) <= set(CLASSES)
    assert all(0.5 <= float(probability) <= 1 for *_, probability in lines)
    value = json.loads(run(checkpoint, files[0], "--json").stdout)
    assert value["class"] == expected[0] and f"{value['probability']:.4f}" == lines[0][2]


def test_attention_models_tell_no_times(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("attention")
    checkpoint = write(tmp_path, recognizer)
    result = run(checkpoint, files[0], "--json")
    value = json.loads(result.stdout)
    assert value["text"] == recognizer.predict_audio([load_audio(files[0], RATE)])[0] != ""
    assert value["words"] is None and "tells no times" in result.stderr
    result = run(checkpoint, files[0], "--srt")
    assert result.exit_code == 1 and "--srt: expected a CTC model, received las_hw4" in result.stderr


def test_bad_files_do_not_lose_the_others(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(5), RATE)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(files[0].read_bytes()[:-1000])
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    bad = [tmp_path / "none.wav", tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "short.wav", cut]
    result = run(write(tmp_path, make_recognizer("ctc")), bad[0], files[0], *bad[1:], files[1], nothing)
    assert result.exit_code == 1
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == list(map(str, files[:2]))
    for file, message in zip(
        [*bad, nothing],
        (
            "which does not exist",
            "expected a complete audio file",
            "expected at least 1 frames",
            "expected more than half a window",
            "truncated",
            "expected recordings in the folder",
        ),
    ):
        [line] = [line for line in result.stderr.splitlines() if line.startswith(f"error: {file}: ")]
        assert message in line
    assert "error: 6 of 8 files were not transcribed" in result.stderr
    assert "Traceback" not in result.stderr


def test_folders_manifests_and_standard_input(files: list[Path], tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    checkpoint = write(tmp_path, recognizer)
    transcriber = Transcriber(recognizer, beam_width=7)

    def said(file: Path, **part: float) -> str:
        return transcriber.recording(load_audio(file, RATE, **part)).text

    deep = tmp_path / "mixed" / "b" / "c"
    deep.mkdir(parents=True)
    hidden = tmp_path / "mixed" / ".cache"
    hidden.mkdir()
    for path in (
        deep / "x.WAV",
        tmp_path / "mixed" / "z.flac",
        hidden / "w.wav",
        tmp_path / "mixed" / "._z.wav",
    ):
        soundfile.write(path, load_audio(files[0], RATE).numpy(), RATE, format=path.suffix[1:].upper())
    (deep / "notes.txt").write_text("no recording")
    seconds = soundfile.info(files[1]).duration
    parts = [
        {"audio_filepath": str(files[1]), "offset": 0.0, "duration": 0.5},
        {"audio_filepath": str(files[1]), "offset": 0.25, "duration": seconds - 0.25},
        {"audio_filepath": "none.wav", "duration": 1},
        {"audio_filepath": str(files[2])},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(part) + "\n" for part in parts))
    (tmp_path / "t.csv").write_text(f"wav_filename,wav_filesize,transcript\n{files[0]},1,a\n")
    given = [tmp_path / "mixed", "-", tmp_path / "m.jsonl", files[0], tmp_path / "t.csv"]
    options = ["--beam-width", 7, "--encoding", "s16le"]
    result = run(checkpoint, *given, *options, input=pcm(files[1]))
    assert result.exit_code == 1, result.output
    expected = {
        str(deep / "x.WAV"): said(deep / "x.WAV"),
        str(tmp_path / "mixed" / "z.flac"): said(tmp_path / "mixed" / "z.flac"),
        "-": said(files[1]),
        f"{files[1]}#t=0,0.5": said(files[1], duration_seconds=0.5),
        f"{files[1]}#t=0.25,{seconds:.10g}": said(files[1], offset_seconds=0.25),
        str(files[2]): said(files[2]),
    }
    lines = [*expected.items(), (str(files[0]), said(files[0])), (str(files[0]), said(files[0]))]
    assert [tuple(line.split("\t")) for line in result.stdout.splitlines()] == lines
    assert "none.wav', which does not exist" in result.stderr
    assert "error: 1 of 9 files were not transcribed" in result.stderr
    result = run(checkpoint, *given[:3], *options, "--out", tmp_path / "texts", input=pcm(files[1]))
    written = {
        str(path.relative_to(tmp_path / "texts")): path.read_text()
        for path in (tmp_path / "texts").rglob("*.txt")
    }
    names = ("b/c/x", "z", "stdin", "stereo_0_0.5", f"stereo_0.25_{seconds:.10g}", "wide")
    assert written == {
        f"{name}.txt": f"{text}\n" for name, text in zip(names, expected.values(), strict=True)
    }


def test_too_little_memory_for_a_file_does_not_lose_the_others(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Transcriber.recording

    def recording(self: Transcriber, samples: torch.Tensor, *more: Any) -> Any:
        return usual(self, samples, *more) if len(samples) != length else torch.empty(2**50)

    length = len(load_audio(files[1], RATE))
    monkeypatch.setattr(Transcriber, "recording", recording)
    result = run(write(tmp_path, make_recognizer("ctc")), *files)
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 2
    assert f"error: {files[1]}: out of memory: 4194304.0 GiB" in result.stderr


def pcm(file: Path) -> bytes:
    samples = load_audio(file, RATE)
    return (samples * 32767).round().short().numpy().tobytes()


@pytest.mark.parametrize("form", ["raw", "wav", "float stereo", "flac at another rate"])
def test_a_stream_ends_with_the_text_of_the_file(form: str, files: list[Path], tmp_path: Path) -> None:
    checkpoint = write(tmp_path, make_deepspeech2())
    samples = np.tile(np.frombuffer(pcm(files[0]), np.int16), 4)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    expected = run(checkpoint, tmp_path / "a.wav").stdout.rstrip("\n").split("\t")[1]
    data, options = samples.tobytes(), ["--encoding", "s16le"]
    if form == "wav":
        data, options = (tmp_path / "a.wav").read_bytes(), []
    if form == "flac at another rate":
        soundfile.write(tmp_path / "a.flac", np.repeat(samples, 2), 2 * RATE)
        data, options = (tmp_path / "a.flac").read_bytes(), []
        expected = run(checkpoint, tmp_path / "a.flac").stdout.rstrip("\n").split("\t")[1]
    if form == "float stereo":
        data = np.repeat(samples / 32768, 2).astype("<f4").tobytes()
        options = ["--encoding", "f32le", "--channels", 2]
    result = run(checkpoint, "--stream", "--chunk-ms", 50, *options, input=data)
    assert result.exit_code == 0, result.output
    # Each word in one line, once nothing can change it.
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[-1][0] == f"{len(samples) / RATE:.2f}" and expected
    times = [float(seconds) for seconds, _ in lines]
    assert times == sorted(times)
    assert all(text for _, text in lines[:-1]) and " ".join(text for _, text in lines if text) == expected
    as_json = run(checkpoint, "-", "--stream", "--json", *options, input=data)
    values = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [value["final"] for value in values] == [False] * (len(values) - 1) + [True]
    assert values[-1]["text"] == expected and values[-1]["words"][-1]["end_seconds"] <= times[-1]
    assert len(values) > 3
    told = [word for value in values[:-1] for word in value["words"]]
    assert told == values[-1]["words"][: len(told)]
    for value in values[:-1]:
        assert value["stable"] == " ".join(word["text"] for word in value["words"])
    assert all(a["tail"] != b["tail"] or b["words"] for a, b in pairwise(values[:-1]))


def test_a_trained_model_can_be_streamed(files: list[Path], tmp_path: Path) -> None:
    """Its recipe says that features wait for nothing."""
    manifest = write_tones(tmp_path / "train", 12)
    options = {"hidden_size": 8, "num_layers": 1, "bidirectional": False, "lookahead_context": 5}
    recipe = tiny_recipe(
        manifest,
        manifest,
        model={"name": "deepspeech2_small", "options": options},
        features={"sample_rate": RATE, "normalization": "running"},
        trainer__epochs=1,
    )
    train(make_recipe(recipe), tmp_path / "run")
    checkpoint = tmp_path / "run" / "best.safetensors"
    samples = np.tile(np.frombuffer(pcm(files[0]), np.int16), 3)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    whole = json.loads(run(checkpoint, tmp_path / "a.wav", "--json").stdout)
    result = run(checkpoint, "--stream", "--json", "--encoding", "s16le", input=samples.tobytes())
    assert result.exit_code == 0 and "note" not in result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["text"], last["words"]) == (whole["text"], whole["words"])
    options = ("--stream", "--low-latency", "--json", "--encoding", "s16le")
    soon = [
        json.loads(line) for line in run(checkpoint, *options, input=samples.tobytes()).stdout.splitlines()
    ]
    assert soon[-1]["text"] == whole["text"]

    # A line whenever something new is heard: exact ones wait for whole tiles.
    assert len(soon) > len(result.stdout.splitlines())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_words_once_and_one_line_of_what_may_change(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = make_deepspeech2()
    transcriber = Transcriber(recognizer, beam_width=8)
    data = 4 * pcm(files[0])
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    monkeypatch.setenv("COLUMNS", "20")
    listen(transcriber, {"encoding": "s16le"}, 0.1, False)
    monkeypatch.undo()
    start, *shown = screen.getvalue().split("\r\x1b[K")
    assert start == "" and len(shown) > 3
    # Behind whole lines the one that is cleared the next time; the last time there is none.
    lines = [line.split("\n") for line in shown]
    assert all(len(line) <= 2 and len(line[-1]) < 20 for line in lines) and lines[-1][-1] == ""
    assert any(line[-1] for line in lines)
    samples = torch.from_numpy(np.frombuffer(data, np.int16) / 32768).float()
    told = [line[0].split("\t") for line in lines if len(line) == 2]
    assert told[-1][0] == f"{len(samples) / RATE:.2f}"
    assert " ".join(text for _, text in told if text) == transcriber.recording(samples).text


def test_results_come_while_the_stream_goes_on(files: list[Path], tmp_path: Path) -> None:
    """Through a real pipe: the first line is there before the last samples are written."""
    checkpoint = write(tmp_path, make_deepspeech2())
    command = [
        sys.executable,
        "-m",
        "asrkern",
        "transcribe",
        str(checkpoint),
        "--stream",
        "--encoding",
        "s16le",
        "--json",
        "--chunk-ms",
        "100",
    ]
    data = 4 * pcm(files[0])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert not first["final"] and first["seconds"] < len(data) / 2 / RATE
        process.stdin.write(data)
        process.stdin.close()
        *_, last = map(json.loads, process.stdout.read().splitlines())
        assert last["final"] and last["seconds"] == pytest.approx(len(data) / RATE, abs=0.01)


def test_a_stream_that_breaks_off(files: list[Path], tmp_path: Path) -> None:
    checkpoint = write(tmp_path, make_deepspeech2(normalization="utterance"))
    whole = pcm(files[0])
    wav = io.BytesIO()
    soundfile.write(wav, np.frombuffer(whole, np.int16), RATE, format="WAV")
    result = run(checkpoint, "--stream", input=wav.getvalue()[:-501])
    assert result.exit_code == 1 and "received the stream's end" in result.stderr
    assert "normalised by whole utterances" in result.stderr
    assert result.stdout.splitlines()[-1].startswith(f"{(len(whole) // 2 - 251) / RATE:.2f}\t")
    refused = "FFmpeg refuses|ffmpeg -i"
    for wrong, message in ((whole, "--encoding"), (b"\0\0\0\x20ftypM4A " + whole, refused)):
        result = run(checkpoint, "--stream", input=wrong)
        assert result.exit_code == 1 and re.search(message, result.stderr) and result.stdout == ""
    result = run(checkpoint, "--stream", "--encoding", "s16le", "--rate", str(2 * RATE), input=whole)
    assert result.stdout.splitlines()[-1].startswith(f"{len(whole) / 4 / RATE:.2f}\t")
    assert run(checkpoint, "--stream", input=b"").stdout == "0.00\t\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-", "-"], 2, "expected - once"),
        (["--stream", "--device", "cuda"], 2, "torch sees no CUDA device"),
        (["a.wav", "--device", "gpu"], 2, "expected cpu, cuda or cuda:N, received 'gpu'"),
        ([], 2, "expected files to transcribe, received none"),
        (["a.wav", "b.wav", "--textgrid"], 2, "--textgrid: expected --out with several files"),
        (["--stream", "--ctm"], 2, "expected neither --out nor another form"),
        (["a.wav", "--json", "--srt"], 2, "received both"),
        (["a.wav", "b.wav", "--srt"], 2, "expected --out with several files"),
        (["a.wav", "x/a.flac", "--out", "."], 2, "received 'a' twice"),
        (["a.wav", "--stream"], 2, "expected no files"),
        (["a.wav", "--low-latency"], 2, "--low-latency: expected with --stream"),
        (["--stream", "--srt"], 2, "expected neither --out nor another form than --txt"),
        (["a.wav", "--window", "6"], 2, "expected more than twice the margin"),
        (["--stream"], 1, "expected a unidirectional DeepSpeech2 for a stream, received vgg_gru_ctc"),
    ],
)
def test_usage(
    arguments: list[str], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    result = run(write(tmp_path, make_recognizer("ctc")), *arguments, input=b"")
    assert result.exit_code == status and message in result.stderr


def test_the_decoder_is_that_of_the_tokenizer(tmp_path: Path) -> None:
    """The blank need not come first."""
    recognizer = make_recognizer("ctc")
    decoder = Transcriber(recognizer, beam_width=5).decoder
    assert isinstance(decoder, CTCBeamDecoder)
    assert decoder.labels == list(recognizer.tokenizer.labels)
