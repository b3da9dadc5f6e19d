"""``asrkern evaluate``."""

from __future__ import annotations

import csv
import errno
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.data import collate, load_audio, load_features, read_manifest
from asrkern.decoder import CTCBeamDecoder
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer, load
from asrkern.recognizer.transcription import Transcriber
from asrkern.training.evaluation import evaluate
from asrkern.training.manifests import read_cuts
from asrkern.training.metrics import in_words
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.cli.tiny import CLASSES, LAS_OPTIONS, make_recognizer, write, write_words
from tests.decoder.models import small_lm
from tests.metrics import character_error_rate, edit_distance
from tests.training.tones import RATE, tiny_recipe, write_tones

CLIPS = 21


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, more than one batch, with a class for each utterance."""
    folder = tmp_path_factory.mktemp("corpus")
    path = write_tones(folder, CLIPS)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for index, line in enumerate(lines):
        line["pitch"] = CLASSES[index % 2]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def alone(recognizer: Recognizer, corpus: Path) -> list[str]:
    """What is said of each utterance on its own."""
    files = [u.audio_path for u in read_manifest(corpus)]
    return [recognizer.predict_audio([load_audio(file, RATE)])[0] for file in files]


def references(corpus: Path) -> list[str]:
    return [u.text.upper() for u in read_manifest(corpus)]


@pytest.mark.parametrize("task", ["ctc", "attention"])
def test_a_trained_model_has_the_metric_of_its_training(task: str, corpus: Path, tmp_path: Path) -> None:
    valid = write_tones(tmp_path / "valid", 9, seed=1)
    changes: dict[str, Any] = {"metric": "distance"}
    if task == "attention":
        features = {"kind": "mfcc", "bins": 12, "sample_rate": RATE}
        changes = {"task": task, "model": {"name": "las_hw4", "options": LAS_OPTIONS}, "features": features}
    recipe = make_recipe(tiny_recipe(corpus, valid, **changes))
    results = train(recipe, tmp_path / "run")
    result = run(tmp_path / "run" / "best.safetensors", valid, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())["metrics"][recipe.metric]
    assert found == pytest.approx(results.best()["valid_metric"])


def test_a_line_for_the_table(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valid = write_tones(tmp_path / "valid", 9, seed=1)
    train(make_recipe(tiny_recipe(corpus, valid)), tmp_path / "run")
    model = tmp_path / "run" / "best.safetensors"
    table = tmp_path / "table.md"
    table.write_text("# What recipes reach\n\ntext\n\n")
    monkeypatch.setenv("ASRKERN_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["asrkern", "evaluate", str(model), str(valid)])
    # Twice the same, then another corpus: two lines.
    for manifest in (valid, valid, corpus):
        result = run(model, manifest, "--table", table)
        assert result.exit_code == 0, result.output
    lines = table.read_text().splitlines()
    assert lines[:4] == ["# What recipes reach", "", "text", ""] and len(lines) == 8
    names = lines[4].strip("| ").split(" | ")
    rows = [dict(zip(names, line.strip("| ").split(" | "), strict=True)) for line in lines[6:]]
    ours = next(row for row in rows if row["corpus"].startswith("valid/"))
    found = load(model)
    recorded = list(csv.DictReader((tmp_path / "run" / "results.csv").open()))
    best = next(row for row in recorded if int(row["epoch"]) == found.info["epoch"])
    metric = found.info["recipe"]["metric"]
    assert ours["recipe"] == found.info["recipe"]["name"] and ours["metric"] == metric
    assert ours["result"] == in_words(metric, float(best["valid_metric"]))
    assert ours["in training"] == in_words(metric, float(best["train_metric"]))
    assert ours["minutes"] == f"{sum(float(row['seconds']) for row in recorded) / 60:.1f}"
    assert ours["epoch"] == f"{best['epoch']} of {len(recorded)}"
    assert ours["trained on"].endswith(
        f"{torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)
    )
    assert (
        ours["command"]
        == f"`asrkern evaluate $ASRKERN_DATA/run/best.safetensors $ASRKERN_DATA/valid/{valid.name}`"
    )

    # A reader who goes away costs no file.
    another, written = tmp_path / "another.md", tmp_path / "result.json"
    with monkeypatch.context() as patched:
        gone = BrokenPipeError(errno.EPIPE, "Broken pipe")
        patched.setattr("asrkern.cli.evaluate.show", Mock(side_effect=gone))
        assert run(model, valid, "--table", another, "--json", written).exit_code != 0
    assert another.read_text().splitlines()[-1] in lines
    assert len(json.loads(written.read_text())["utterances"]) == 9

    unnamed = run(write(tmp_path, make_recognizer("ctc")), corpus, "--table", table)
    assert unnamed.exit_code == 1 and "expected a checkpoint of asrkern train" in unnamed.stderr
    table.write_bytes(b"\xff")
    broken = run(model, valid, "--table", table)
    assert broken.exit_code == 1 and "expected a Markdown file in UTF-8" in broken.stderr
    assert table.read_bytes() == b"\xff"


@pytest.mark.parametrize("task", ["ctc", "attention"])
def test_metrics_are_those_of_utterances_on_their_own(task: str, corpus: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer(task)
    result = run(write(tmp_path, recognizer), corpus, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    said, meant = alone(recognizer, corpus), references(corpus)
    assert len(set(said)) > 5, "the comparison needs different texts"
    found = json.loads((tmp_path / "out.json").read_text())
    assert [u["hypothesis"] for u in found["utterances"]] == said
    assert [u["reference"] for u in found["utterances"]] == meant
    assert found["metrics"]["cer"] == pytest.approx(character_error_rate(said, meant))
    distance = sum(map(edit_distance, said, meant)) / CLIPS
    assert found["metrics"]["distance"] == pytest.approx(distance)
    for shown in (
        f"{100 * found['metrics']['cer']:.2f} %",
        f"{distance:.4g}",
        "Worst utterances",
        f"{CLIPS} utterances",
    ):
        assert shown in result.stdout


def test_edits_are_told_by_kind_and_percentages_alike(corpus: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer("ctc")
    write_words(recognizer)
    result = run(write(tmp_path, recognizer), corpus, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    rows = [
        [cell.strip() for cell in line[1:-1].split("│")] for line in result.stdout.splitlines() if "│" in line
    ]
    shown = {row[0]: row[1:] for row in rows[::-1]}
    for unit, metric in (("words", "WER"), ("characters", "CER")):
        edits = found["edits"][unit]
        assert all(edits.values()) or unit == "words"
        assert sum(edits.values()) == found["counts"][f"{unit[:-1]}_edits"]
        meant, said = (
            sum(len(u[key].split()) if unit == "words" else len(u[key]) for u in found["utterances"])
            for key in ("reference", "hypothesis")
        )
        assert edits["deletions"] - edits["insertions"] == meant - said
        assert shown[metric][0] == f"{100 * found['metrics'][metric.lower()]:.2f} %"
        assert shown[unit] == [str(edits[kind]) for kind in ("substitutions", "deletions", "insertions")]
    assert shown["CRR"][0] == f"{found['metrics']['crr']:.2f} %"
    assert not re.search(r"\d%", result.stdout)


@pytest.mark.parametrize("task", ["ctc", "attention", "classify"])
def test_long_utterances_are_read_as_recordings(
    task: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer ones than make a batch; clips of a class stay whole."""
    samples = [load_audio(u.audio_path, RATE) for u in read_manifest(corpus)]
    soundfile.write(tmp_path / "long.wav", torch.cat(samples * 5)[: 33 * RATE].numpy(), RATE)
    soundfile.write(tmp_path / "short.wav", samples[0].numpy(), RATE)
    durations = {"long": 33, "short": len(samples[0]) / RATE}
    lines = [
        {"audio_filepath": f"{name}.wav", "duration": seconds, "text": "a", "pitch": CLASSES[0]}
        for name, seconds in durations.items()
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recognizer = make_recognizer(task)
    transcriber, cuts = Transcriber(recognizer), list(read_cuts(tmp_path / "m.jsonl"))
    expected = {
        name: recognizer.predict_audio([load_audio(tmp_path / f"{name}.wav", RATE)])[0] for name in durations
    }
    field = "pitch" if task == "classify" else "label"
    found = {result.id: result.hypothesis for result in evaluate(transcriber, cuts, label=field).results}
    assert found == expected
    monkeypatch.setattr("asrkern.training.evaluation._BATCH_FRAMES", 3000)
    if task != "classify":
        expected["long"] = transcriber.recording(load_audio(tmp_path / "long.wav", RATE)).text
    read: list[torch.Tensor] = []
    usual = transcriber.recording
    monkeypatch.setattr(transcriber, "recording", lambda samples: read.append(samples) or usual(samples))
    found = {result.id: result.hypothesis for result in evaluate(transcriber, cuts, label=field).results}
    assert found == expected
    (tmp_path / "long.wav").write_bytes((tmp_path / "long.wav").read_bytes()[:1000])
    assert [len(samples) for samples in read] == ([] if task == "classify" else [33 * RATE])
    found = evaluate(transcriber, cuts, label=field)
    assert [result.id for result in found.results] == ["short"]
    assert found.left_out[0].startswith("long: ") and "truncated" in found.left_out[0]


def test_classes(corpus: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer("classify")
    result = run(write(tmp_path, recognizer), corpus, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    said = alone(recognizer, corpus)
    meant = [u.extra["pitch"] for u in read_manifest(corpus)]
    assert set(said) == set(CLASSES)
    rows = [
        [sum(pair == (row, column) for pair in zip(meant, said)) for column in CLASSES] for row in CLASSES
    ]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["confusion_matrix"] == {"classes": list(CLASSES), "rows": rows}
    correct = rows[0][0] + rows[1][1]
    assert found["metrics"]["accuracy"] == pytest.approx(correct / CLIPS)
    assert f"{correct} of {CLIPS}" in result.stdout
    assert all(0.5 <= u["probability"] <= 1 for u in found["utterances"])


@pytest.mark.parametrize("case", [None, "lower"])
def test_a_language_model(corpus: Path, tmp_path: Path, case: str | None) -> None:
    recognizer = make_recognizer("ctc")
    words = ["AB", "A", "B", "CD"]
    lm = small_lm(words)
    (lm if case is None else small_lm([word.lower() for word in words])).save(tmp_path / "lm.safetensors")
    options = [] if case is None else ["--lm-case", case]
    options += ["--lm", tmp_path / "lm.safetensors", "--alpha", 0.9, "--beta", -0.5, "--beam-width", 7]
    result = run(write(tmp_path, recognizer), corpus, *options, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    decoder = CTCBeamDecoder(recognizer.tokenizer.labels, lm, alpha=0.9, beta=-0.5, beam_width=7)
    extract, expected = recognizer.features.make(), []
    for utterance in read_manifest(corpus):
        batch = collate([extract(load_audio(utterance.audio_path, RATE))])
        with torch.no_grad():
            expected.append(decoder.decode(recognizer.model(*batch)[0])[0][0].text)
    found = json.loads((tmp_path / "out.json").read_text())
    assert [u["hypothesis"] for u in found["utterances"]] == expected != alone(recognizer, corpus)


def test_a_beam_for_attention(corpus: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer("attention")
    result = run(write(tmp_path, recognizer), corpus, "--beam-width", 3, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())["utterances"]
    assert [u["hypothesis"] for u in found] != alone(recognizer, corpus)


def test_bad_utterances_are_named_and_left_out(corpus: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer("classify")
    (tmp_path / "text.wav").write_text("no audio")
    lines = [json.loads(line) for line in corpus.read_text().splitlines()[:3]]
    for line in lines:
        line["audio_filepath"] = str(corpus.parent / line["audio_filepath"])
    bad = [
        {**lines[0], "audio_filepath": "none.wav"},
        {**lines[0], "audio_filepath": "text.wav"},
        {**lines[0], "duration": 0.005},
        {**lines[0], "duration": 77},
        {**lines[0], "pitch": "lwo"},
        {key: value for key, value in lines[0].items() if key != "pitch"},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], *bad, *lines[1:]]) + "{\n")
    result = run(write(tmp_path, recognizer), path, "--json", tmp_path / "out.json")
    assert result.exit_code == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["utterances"]) == 3 and len(found["left_out"]) == 7
    for message in (
        "none.wav', which does not exist",
        "text.wav",
        "received a recording of",
        "expected 'low', received 'lwo'",
        "received None",
        "expected more than half a window",
        "line 10: expected a JSON object",
        "error: 7 of 10 utterances were left out",
    ):
        assert message in result.stderr, message
    assert "Traceback" not in result.stderr


def test_a_folder_in_librispeech_layout_with_a_recording_too_few(corpus: Path, tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean" / "84" / "1"
    chapter.mkdir(parents=True)
    utterances = read_manifest(corpus)[:2]
    for index, utterance in enumerate(utterances):
        (chapter / f"84-1-000{index}.wav").write_bytes(utterance.audio_path.read_bytes())
    lines = [f"84-1-000{index} {u.text.upper()}" for index, u in enumerate(utterances)]
    (chapter / "84-1.trans.txt").write_text("\n".join([*lines, "84-1-0002 MISSING"]) + "\n")
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    result = run(checkpoint, tmp_path / "dev-clean", "--json", tmp_path / "out.json")
    assert result.exit_code == 1 and "expected a recording of '84-1-0002'" in result.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert [u["reference"] for u in found["utterances"]] == [u.text.upper() for u in utterances]


def test_a_kaldi_folder_at_another_rate_than_the_models(corpus: Path, tmp_path: Path) -> None:
    """The same as with the NeMo manifest of the same recordings; a bad line is named and left out."""
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    folder = tmp_path / "kaldi"
    folder.mkdir()
    lines = []
    for utterance in read_manifest(corpus)[:3]:
        name = utterance.audio_path.stem
        samples = load_audio(utterance.audio_path, 2 * RATE)
        soundfile.write(folder / f"{name}.wav", samples.numpy(), 2 * RATE, subtype="FLOAT")
        lines.append((f"{name}\t{name}.wav\n", f"{name}\t{utterance.text}\n", utterance))
    (folder / "wav.scp").write_text("".join(scp for scp, _, _ in lines) + "u9 sox a.wav |\n")
    (folder / "text").write_text("".join(text for _, text, _ in lines))
    entries = [{"audio_filepath": f"{u.audio_path.stem}.wav", "text": u.text} for _, _, u in lines]
    (folder / "m.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    found = []
    for manifest, status in ((folder, 1), (folder / "m.jsonl", 0)):
        result = run(checkpoint, manifest, "--json", tmp_path / "out.json")
        assert result.exit_code == status, result.stderr
        assert ("wav.scp, line 4: expected a file, received the command" in result.stderr) == (status == 1)
        found.append(json.loads((tmp_path / "out.json").read_text())["utterances"])
    assert found[0] == found[1] and len(found[0]) == 3


def test_stored_features(data_dir: Path, tmp_path: Path) -> None:
    recognizer = make_recognizer("attention", n_features=13)
    recognizer.features = FeatureSettings(kind="stored", bins=13)
    lines = (data_dir / "an4" / "dev.jsonl").read_text().splitlines()[:5]
    there = f'"{data_dir.resolve()}/an4/dev.npz#'
    (tmp_path / "m.jsonl").write_text("\n".join(line.replace('"dev.npz#', there) for line in lines))
    result = run(write(tmp_path, recognizer), tmp_path / "m.jsonl", "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    extract = recognizer.features.make()
    expected = []
    for utterance in read_manifest(tmp_path / "m.jsonl"):
        expected += recognizer.predict(*collate([extract(load_features(utterance))]))
    found = json.loads((tmp_path / "out.json").read_text())
    assert [u["hypothesis"] for u in found["utterances"]] == expected
    # A corpus with features cannot be read by a model of recordings.
    result = run(write(tmp_path, make_recognizer("ctc")), tmp_path / "m.jsonl")
    assert result.exit_code == 1 and "stored features need features.kind = 'stored'" in result.stderr


def test_characters_that_the_model_cannot_write(corpus: Path, tmp_path: Path) -> None:
    line = json.loads(corpus.read_text().splitlines()[0])
    line.update(text="a 1 b 1", audio_filepath=str(corpus.parent / line["audio_filepath"]))
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    result = run(write(tmp_path, make_recognizer("ctc")), tmp_path / "m.jsonl")
    assert result.exit_code == 0
    assert "cannot write these characters of the references: '1' in 1 utterances" in result.stdout


@pytest.mark.parametrize(
    ("task", "options", "status", "message"),
    [
        ("attention", ["--lm", "lm.safetensors"], 1, "--lm: expected none, since it is for CTC models"),
        (
            "classify",
            ["--beam-width", "3"],
            1,
            "--beam-width: expected none, since this model is a classifier",
        ),
        ("ctc", ["--beam-width", "0"], 2, "--beam-width"),
        ("ctc", ["--alpha", "-1"], 2, "--alpha"),
        ("classify", ["--label", "speaker"], 1, "that can be measured, received none of 21: u"),
    ],
)
def test_errors_are_one_line(
    task: str, options: list[str], status: int, message: str, corpus: Path, tmp_path: Path
) -> None:
    small_lm(["AB", "A"]).save(tmp_path / "lm.safetensors")
    options = [str(tmp_path / option) if option.startswith("lm") else option for option in options]
    result = run(write(tmp_path, make_recognizer(task)), corpus, *options)
    assert result.exit_code == status and message in result.stderr
    assert "Traceback" not in result.stderr


def test_files_that_are_no_checkpoint_or_manifest(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, corpus)
    assert result.exit_code == 1 and "expected an intact safetensors file" in result.stderr
    checkpoint = write(tmp_path, make_recognizer("ctc"))
    result = run(checkpoint, tmp_path / "none.jsonl")
    assert result.exit_code == 1 and "which does not exist" in result.stderr
