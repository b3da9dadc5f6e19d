"""One row for each entry of a manifest, whatever dies."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pyarrow import parquet
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.corpus import LocalEngine, Worker, transcribe_corpus
from asrkern.corpus.plan import Job, batches
from asrkern.data import load_audio, make_detector, read_manifest
from tests.cli.tiny import speech
from tests.corpus.workers import Mortal, Stillborn, open_transcriber, rows_of
from tests.training.tones import RATE


def local(make_worker: Any, manifest: Path, out: Path) -> Any:
    with LocalEngine(make_worker, 2) as engine:
        return transcribe_corpus(manifest, out, engine, {})


def test_the_command(corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path) -> None:
    manifest, checkpoint = corpus
    options = [str(checkpoint), "--manifest", str(manifest), "--beam-width", "8", "--workers", "2"]
    result = CliRunner().invoke(app, ["transcribe", *options, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "out") == expected
    # Again: nothing is left to do. With other options it is another job.
    written = (tmp_path / "out" / "transcripts.jsonl").read_bytes()
    result = CliRunner().invoke(app, ["transcribe", *options, "-o", str(tmp_path / "out"), "--parquet"])
    assert result.exit_code == 0 and (tmp_path / "out" / "transcripts.jsonl").read_bytes() == written
    table = parquet.read_table(tmp_path / "out" / "transcripts.parquet")
    assert table.sort_by("entry").select(["entry", "text", "words"]).to_pylist() == [
        {name: row[name] for name in ("entry", "text", "words")} for row in expected
    ]
    options[options.index("8")] = "9"
    result = CliRunner().invoke(app, ["transcribe", *options, "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "with --beam-width 8, received 9; take another folder" in result.stderr
    assert (tmp_path / "out" / "transcripts.jsonl").read_bytes() == written


def test_a_job_knows_files_by_their_content(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    words, out = tmp_path / "hotwords.txt", tmp_path / "out"
    arguments = [str(corpus[1]), "--manifest", str(corpus[0]), "--hotwords", str(words), "-o", str(out)]
    words.write_text("AB\n")
    result = CliRunner().invoke(app, ["transcribe", *arguments, "--workers", "1"])
    assert result.exit_code == 0, result.output
    words.write_text("BA\n")
    result = CliRunner().invoke(app, ["transcribe", *arguments, "--workers", "1"])
    assert result.exit_code == 1 and "hotwords" in result.stderr and "take another folder" in result.stderr


@pytest.mark.parametrize("entry", [0, 41])
def test_a_worker_that_is_killed(
    entry: int, corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    assert local(Mortal(checkpoint, entry, tmp_path / "killed"), manifest, tmp_path / "out") == (70, 0)
    assert (tmp_path / "killed").exists() and rows_of(tmp_path / "out") == expected


def test_a_recording_that_kills_each_worker(
    corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    assert local(Mortal(checkpoint, 7), manifest, tmp_path / "out") == (70, 1)
    rows = rows_of(tmp_path / "out")
    assert rows[:7] + rows[8:] == expected[:7] + expected[8:]
    assert rows[7] == {
        "entry": 7,
        "file": expected[7]["file"],
        "error": "the process that transcribed it died each time",
    }


def test_a_driver_that_is_killed_goes_on(
    corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    manifest, checkpoint = corpus
    out = tmp_path / "out"
    code = "import sys; from tests.corpus.workers import run; run(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(manifest), str(checkpoint), str(out)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as driver:
        assert driver.stdout is not None
        while int(driver.stdout.readline()) == 0:
            pass
        children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
        workers = [os.pidfd_open(int(child)) for child in children]
        driver.kill()
    # Its workers end, too.
    for worker in workers:
        assert select.select([worker], [], [], 60)[0]
        os.close(worker)
    before = rows_of(out)
    assert 0 < len(before) < 70 and len(workers) >= 2
    with open(out / "transcripts.jsonl", "a") as file:
        file.write('{"entry": 69, "te')
    make_worker = partial(Worker, partial(open_transcriber, checkpoint))
    assert local(make_worker, manifest, out) == (70, 0)
    assert rows_of(out) == expected


def test_bad_entries_are_rows_with_errors(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, checkpoint = corpus
    good = read_manifest(manifest)[0].audio_path
    long = np.concatenate([part for seed in range(3) for part in (speech(9, seed), np.zeros(3 * RATE))])
    soundfile.write(tmp_path / "long.wav", long, RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(5), RATE)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "a\nb;$(c) 'é.wav").write_bytes(good.read_bytes())
    entries = [
        {"audio_filepath": str(good)},
        {"audio_filepath": "text.wav", "duration": 1},
        {"audio_filepath": "missing.wav"},
        {"audio_filepath": "short.wav"},
        {"audio_filepath": "none.wav", "duration": 2},
        {"audio_filepath": "long.wav"},
        {"audio_filepath": "long.wav", "offset": 1, "duration": 2},
        {"audio_filepath": "long.wav", "offset": 1, "duration": 200},
        {"audio_filepath": "a\nb;$(c) 'é.wav"},
        {"audio_filepath": "https://example.org/a.wav"},
        ["no object"],
        {"features_filepath": "text.wav#a", "duration": 1},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    worker = Worker(partial(open_transcriber, checkpoint), "energy")

    class Here:
        def run(self, parts: Any) -> Any:
            yield from map(worker, parts)

    counts = transcribe_corpus(tmp_path / "m.jsonl", tmp_path / "out", Here(), {})
    rows = rows_of(tmp_path / "out")
    assert [row["entry"] for row in rows] == list(range(len(entries))) and counts == (12, 8)
    said = {row["entry"]: row["error"] for row in rows if "error" in row}
    for entry, message in {
        1: "expected a complete audio file",
        2: "which does not exist",
        3: "expected more than half a window",
        4: "expected at least",
        7: "expected at least",
        9: "received the URL",
        10: "expected a JSON object",
        11: "received stored features",
    }.items():
        assert message in said.pop(entry)
    assert said == {}
    assert rows[0]["text"] == rows[8]["text"] and rows[8]["file"] == str(tmp_path / "a\nb;$(c) 'é.wav")
    transcriber = open_transcriber(checkpoint)
    whole = transcriber.recording(
        load_audio(tmp_path / "long.wav", RATE), detector=make_detector("energy", RATE)
    )
    assert len(rows[5]["segments"]) == 3 and rows[5]["text"] == whole.text
    part = load_audio(tmp_path / "long.wav", RATE, offset_seconds=1, duration_seconds=2)
    assert rows[6]["offset"] == 1 and rows[6]["text"] == transcriber.recording(part).text


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (
            "killed",
            ChildProcessError,
            "3 that died before they had read the model; the last one's exit status is -9",
        ),
        ("failed", ValueError, "no such model"),
    ],
)
def test_workers_that_do_not_start(
    how: str, error: type[Exception], message: str, corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        local(Stillborn(how), corpus[0], tmp_path / "out")


def test_the_folder_of_another_job(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    class Nowhere:
        def run(self, parts: Any) -> Any:
            return iter(())

    def begin(**identity: Any) -> Any:
        return transcribe_corpus(corpus[0], tmp_path / "out", Nowhere(), identity)

    assert begin(model="a") == (70, 70)
    with pytest.raises(
        ValueError, match="out: expected the job that was begun there, with model 'a', received 'b'"
    ):
        begin(model="b")
    job = tmp_path / "out" / "job.json"
    kept = job.read_text()
    for wrong in ("[]", "{", '{"model": "a"}'):
        job.write_text(wrong)
        with pytest.raises(ValueError, match="expected the job that"):
            begin(model="a")
    job.write_text(kept)
    rows = tmp_path / "out" / "transcripts.jsonl"
    rows.write_text("text\n" + rows.read_text())
    with pytest.raises(
        ValueError, match=r"transcripts.jsonl, line 1: expected a row of a job, received b'text"
    ):
        begin(model="a")
    job.unlink()
    with pytest.raises(ValueError, match=r"job.json: expected the job that the rows beside it are of"):
        begin(model="a")


def test_a_folder_is_for_one_process(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    class Nested:
        def run(self, parts: Any) -> Any:
            with pytest.raises(ValueError, match=r"expected a folder that nobody writes, received '.*out'"):
                transcribe_corpus(corpus[0], tmp_path / "out", self, {})
            return iter(())

    assert transcribe_corpus(corpus[0], tmp_path / "out", Nested(), {}).entries == 70


def test_batches_have_like_lengths() -> None:
    seconds = np.random.default_rng(0).lognormal(1.0, 1.0, 9000)
    jobs = [Job(i, "a.wav", 0.0, float(s)) for i, s in enumerate(seconds)]
    found = list(batches(iter(jobs)))
    assert sorted(job for batch in found for job in batch) == jobs
    for batch in found:
        longest = max(job.duration for job in batch)
        assert len(batch) == 1 or (len(batch) * longest <= 60 and len(batch) <= 32)
    padded = sum(len(batch) * max(job.duration for job in batch) for batch in found)
    assert padded < 1.03 * seconds.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--manifest", "MANIFEST"], "--manifest: expected --out"),
        (["--manifest", "MANIFEST", "a.wav", "-o", "out"], "--manifest: expected --out, and neither files"),
        (["--manifest", "MANIFEST", "-o", "out", "--srt"], "nor other forms"),
        (["--manifest", "none.jsonl", "-o", "out"], "does not exist"),
        (["--manifest", "MANIFEST", "-o", "out", "--workers", "0"], "--workers"),
        (["--manifest", "MANIFEST", "-o", "out", "--engine", "dask"], "'dask' is not one of"),
    ],
)
def test_usage(
    arguments: list[str], message: str, corpus: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    arguments = [str(corpus[0]) if each == "MANIFEST" else each for each in arguments]
    result = CliRunner().invoke(app, ["transcribe", str(corpus[1]), *arguments])
    assert result.exit_code == 2 and message in result.stderr


def test_the_documents_commands(
    corpus: tuple[Path, Path], expected: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "corpus.md").read_text("utf-8")
    lines = re.findall(r"^asrkern (transcribe .*?)(?: #.*)?$", document, re.MULTILINE)
    commands = [line.split() for line in lines if "--engine" not in line]
    assert len(commands) == 2 and len(lines) == 4
    (tmp_path / "best.safetensors").write_bytes(corpus[1].read_bytes())
    good = expected[0]["file"]
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"audio_filepath": good}) + "\n")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    [row] = rows_of(tmp_path / "out")
    told = [json.loads(line) for line in re.findall(r"^\{.*\}$", document, re.MULTILINE)]
    assert row.keys() == told[0].keys() and all(
        word.keys() == told[0]["words"][0].keys() for word in row["words"]
    )
