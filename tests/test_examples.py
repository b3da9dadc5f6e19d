"""Each example runs without files of its own, within a minute, and prints what it is about; all use public names alone."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PUBLIC = (ROOT / "tests" / "public_names.txt").read_text("utf-8").split()

Run = Callable[..., str]


@contextmanager
def within_a_minute() -> Iterator[None]:
    """An example takes less than that: by the clock, or where others want the CPUs, of CPU time."""
    began, before = time.monotonic(), os.times()[:4]
    yield
    spent = sum(os.times()[:4]) - sum(before)
    assert min(time.monotonic() - began, spent) < 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which train.py was started, and what it printed."""
    folder = tmp_path_factory.mktemp("examples")
    command = [sys.executable, str(EXAMPLES / "train.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with within_a_minute():
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """An example by its name, with arguments: what it prints."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with within_a_minute():
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def run_trained(run: Run, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(trained[0])
    # For the commands that an example starts.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return run


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(EXAMPLES)
    import made_up

    return made_up


def test_swap_layers(run: Run) -> None:
    printed = run("swap_layers")
    assert "swapped 2, left 0" in printed and "rnn: torch.nn.LSTM -> asrkern.nn.LSTM" in printed
    assert float(re.search(r"largest difference: (\S+)", printed)[1]) < 1e-5
    before, after, ratio = map(
        float, re.search(r"before: (\S+) ms, after: (\S+) ms, (\S+) times", printed).groups()
    )
    assert ratio == pytest.approx(before / after, abs=0.01 + 0.1 / after * ratio)


def test_swap_layers_of_a_model_of_ones_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(3, 2)), (torch.ones(1, 3),)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "swapped 0, left 0" in run("swap_layers", "mine:make")


def test_decode(run: Run) -> None:
    alone, with_model, with_hotwords, *words = run("decode").splitlines()
    assert alone == "alone: CALL A NOOK AD NINE" or alone == "alone: KALL A NOOK AD NINE"
    assert with_model == "language model: CALL A NOOK AT NINE"
    assert with_hotwords == "with hotwords: CALL ANOUK AT NINE"
    assert [re.search(r"(\w+),", line)[1] for line in words] == ["CALL", "ANOUK", "AT", "NINE"]


def test_decode_of_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from asrkern.decoder import NGramLM

    example = runpy.run_path(str(EXAMPLES / "decode.py"))
    np.save(tmp_path / "logits.npy", example["make_logits"]())
    (tmp_path / "vocab.json").write_text(json.dumps({label: i for i, label in enumerate(example["LABELS"])}))
    NGramLM.estimate(example["TEXTS"], 3, discount_fallback=True).to_arpa(tmp_path / "lm.arpa")
    files = [tmp_path / name for name in ("logits.npy", "vocab.json", "lm.arpa")]
    assert "with hotwords: CALL ANOUK AT NINE" in run("decode", *files)
    assert "with hotwords: CALL A NOOK AT NINE" in run("decode", *files, "--hotwords", "NOOK")


def test_train(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    assert (folder / "build/examples/model/best.safetensors").is_file()
    pairs = re.findall(r"^said: (.*)\nheard: (.*)$", printed, re.MULTILINE)
    assert len(pairs) == 5 and sum(said == heard for said, heard in pairs) >= 3, pairs


def test_train_on_a_folder_without_recordings(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected 10 recordings with transcripts or more, found 0"):
        run("train", tmp_path)


def test_stream(run_trained: Run, tmp_path: Path, made_up: object) -> None:
    *lines, whole = run_trained("stream").splitlines()
    told = [line.split(": ")[1].split(" |")[0] for line in lines]
    assert told[-1] == whole and len(whole.split()) >= 6
    # Words that were told stay, and the first is told before the end.
    assert all(later.startswith(sooner) for sooner, later in pairwise(told))
    assert any(told[: len(told) // 2])

    import soundfile

    soundfile.write(tmp_path / "speech.wav", made_up.speak("BAD BEACH", 5), made_up.RATE)
    *_, whole = run_trained("stream", made_up.CHECKPOINT, tmp_path / "speech.wav").splitlines()
    assert len(set(whole.split()) & {"BAD", "BEACH"}) >= 1


def test_stream_from_a_microphone_that_is_not_there(
    run_trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SystemExit, match=r"--microphone: expected sounddevice \(pip install sounddevice\)"):
        run_trained("stream", "--microphone")


def test_quantize(run_trained: Run) -> None:
    _, _, *rows = run_trained("quantize").splitlines()
    found = {row[:24].strip(): row[24:].split() for row in rows}
    assert list(found) == ["float32", "bf16", "int8", "int8, int8 activations"]
    sizes = [float(size) for size, *_ in found.values()]
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]
    assert found["float32"][3] == "10"
    assert all(int(right) >= 6 and int(same) >= 8 for *_, right, same in found.values()), found


def test_align(run_trained: Run, made_up: object) -> None:
    lines = [line.split() for line in run_trained("align").splitlines()]
    text = made_up.sentence(6, seed=1000)
    assert [word for _, _, word, _ in lines] == text.split()
    # Where the tones of each word are.
    ends, end = [], 0.1
    for letter, tone in zip(text + " ", [*made_up.tones(text, 1000), []]):
        if letter == " ":
            ends.append(end)
        end += len(tone) / made_up.RATE
    assert [float(end) for _, end, _, _ in lines] == pytest.approx(ends, abs=0.15)


def test_serve(run_trained: Run) -> None:
    said, serves, heard = run_trained("serve").splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ serves; .*", serves)
    assert set(said.split()[1:]) & set(heard.split()[1:])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_names_are_public(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    used = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("asrkern")
        for alias in node.names
    }
    used |= set(re.findall(r"\basrkern(?:\.\w+)+(?=\()", ast.unparse(tree)))
    assert used <= {*PUBLIC}


def test_examples_are_named() -> None:
    """By README, each one."""
    readme = (ROOT / "README.md").read_text("utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"made_up.py"}
    assert {*re.findall(r"examples/(\w+\.py)", readme)} == names
