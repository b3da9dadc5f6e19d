"""``asrkern decode``."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from asrkern.cli.app import app  # noqa: E402
from asrkern.decoder import CTCBeamDecoder  # noqa: E402
from tests.decoder.models import random_log_probs, small_lm  # noqa: E402

LABELS = [" ", "a", "b", "c", ""]
BLANK = 4
WORDS = ["ab", "a", "b", "abc"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with every kind of file that the command reads; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    # More than are decoded at once.
    utterances = {f"u{i:02}": random_log_probs(5 + i, len(LABELS)).numpy() for i in range(19)}
    np.savez("u.npz", **utterances)
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "words.txt").write_text("".join(f"{word}\n" for word in WORDS))
    (tmp_path / "spelled.txt").write_text("".join(f"{word} {' '.join(word)}\n" for word in WORDS))
    (tmp_path / "hotwords.txt").write_text("ab c\t3.5\nb\n")
    small_lm(WORDS).save("lm.safetensors")
    small_lm(["ab", "b a"], unit="character").to_arpa("letters.arpa")
    return utterances


def run(*arguments):
    return CliRunner().invoke(app, ["decode", *map(str, arguments)])


def expected_lines(utterances, decoder):
    return [
        f"{name}\t{h.score:.4f}\t{h.text}"
        for name, log_probs in utterances.items()
        for h in decoder.decode(log_probs)
    ]


@pytest.mark.parametrize("labels", ["labels.txt", "labels.json"])
def test_texts(files, labels):
    result = run("u.npz", "--labels", labels, "--blank", BLANK)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == expected_lines(files, CTCBeamDecoder(LABELS, blank=BLANK))
    assert "decoding" in result.stderr and "19" not in result.stdout.splitlines()


@pytest.mark.parametrize("lexicon", [None, "words.txt", "spelled.txt"])
def test_options(files, lexicon):
    arguments = ["--lm", "lm.safetensors", "--alpha", 0.9, "--beta", -0.5, "--beam-width", 9, "--nbest", 3]
    arguments += ["--hotwords", "hotwords.txt", "--hotword-weight", 1.5, "--unk-score", -4, "--threads", 1]
    arguments += ["--token-min-logp", -6, "--beam-prune-logp", -12]
    if lexicon:
        arguments += ["--lexicon", lexicon]
    result = run("u.npz", "--labels", "labels.txt", "--blank", BLANK, *arguments)
    assert result.exit_code == 0, result.output
    decoder = CTCBeamDecoder(
        LABELS, small_lm(WORDS), WORDS if lexicon else None, alpha=0.9, beta=-0.5, beam_width=9, nbest=3,
        hotwords={"ab c": 3.5, "b": 1.5}, unk_score=-4.0, token_min_logp=-6.0, beam_prune_logp=-12.0, blank=BLANK,
    )  # fmt: skip
    assert result.stdout.splitlines() == expected_lines(files, decoder)


def test_a_model_of_characters(files):
    result = run("u.npz", "--labels", "labels.txt", "--blank", BLANK, "--lm", "letters.arpa", "--characters")
    lm = small_lm(["ab", "b a"], unit="character")
    decoder = CTCBeamDecoder(LABELS, lm, blank=BLANK)
    texts = [line.split("\t")[2] for line in result.stdout.splitlines()]
    assert texts == [decoder.decode(log_probs)[0].text for log_probs in files.values()]


def test_json(files):
    result = run("u.npz", "--labels", "labels.txt", "--blank", BLANK, "--nbest", 2, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["name"] for line in lines] == list(files)
    decoder = CTCBeamDecoder(LABELS, blank=BLANK, nbest=2)
    for line, log_probs in zip(lines, files.values()):
        for found, wanted in zip(line["hypotheses"], decoder.decode(log_probs), strict=True):
            assert found["words"] == [word._asdict() for word in wanted.words]
            assert {**found, "words": wanted.words} == wanted._asdict()


def test_bad_utterances_do_not_lose_the_others(files):
    bad = {"logits": np.full((3, 5), 4.0), "shape": np.zeros((3, 4)), "integers": np.zeros((3, 5), np.int64)}
    bad["objects"] = np.array([None])
    bad["nan"] = files["u05"].copy()
    bad["nan"][2, 1] = np.nan
    np.savez("mixed.npz", u00=files["u00"], **bad, u01=files["u01"])
    result = run("mixed.npz", "--labels", "labels.txt", "--blank", BLANK)
    assert result.exit_code == 1
    good = {name: files[name] for name in ("u00", "u01")}
    assert result.stdout.splitlines() == expected_lines(good, CTCBeamDecoder(LABELS, blank=BLANK))
    for name, message in {
        "logits": "use log_softmax",
        "shape": "expected floating-point numbers [T, 5], one for each label, received float64 [3, 4]",
        "integers": "received int64 [3, 5]",
        "objects": "cannot be read",
        "nan": "NaN",
    }.items():
        [line] = [line for line in result.stderr.splitlines() if line.startswith(f"error: {name}: ")]
        assert message in line
    assert "error: 5 of 7 utterances were not decoded" in result.stderr


def test_what_else_an_archive_may_hold(files):
    """Arrays of other byte orders and precisions, other files, and damaged ones."""
    arrays = {name: files[name] for name in ("u00", "u01", "u02")}
    np.savez_compressed(
        "other.npz",
        u00=arrays["u00"].astype(">f4"),
        u01=arrays["u01"].astype(np.longdouble),
        damaged=np.random.default_rng(0).normal(size=(300, 5)),
        u02=arrays["u02"],
    )
    with zipfile.ZipFile("other.npz") as archive:
        at = archive.getinfo("damaged.npy").header_offset + 200
    with zipfile.ZipFile("other.npz", "a") as archive:
        archive.writestr("readme.txt", "nothing")
    content = bytearray(Path("other.npz").read_bytes())
    content[at : at + 64] = bytes(64)
    Path("other.npz").write_bytes(content)
    result = run("other.npz", "--labels", "labels.txt", "--blank", BLANK)
    assert result.exit_code == 1 and "error: 2 of 5 utterances were not decoded" in result.stderr
    assert result.stdout.splitlines() == expected_lines(arrays, CTCBeamDecoder(LABELS, blank=BLANK))
    for name, message in (
        ("damaged", "cannot be read"),
        ("readme.txt", "expected an array, received another file"),
    ):
        assert f"error: {name}: {message}" in result.stderr


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["u.npz"], 2, "Missing option '--labels'"),
        (["absent.npz", "--labels", "labels.txt"], 2, "absent.npz"),
        (["labels.txt", "--labels", "labels.txt"], 1, "expected a file of numpy.savez"),
        (["array.npy", "--labels", "labels.txt"], 1, "received a single array"),
        (["u.npz", "--labels", "bad.json"], 1, "expected a list of strings"),
        (
            ["u.npz", "--labels", "labels.txt", "--blank", "5"],
            1,
            "blank: expected the index of a label, 0 to 4",
        ),
        (["u.npz", "--labels", "labels.txt", "--lm", "words.txt"], 1, "this is no ARPA file"),
        (["u.npz", "--labels", "labels.txt", "--lexicon", "mixed.txt"], 1, "received 'b' without"),
        (["u.npz", "--labels", "labels.txt", "--lexicon", "foreign.txt"], 1, "lexicon: 'xyz' has no label"),
        (
            ["u.npz", "--labels", "labels.txt", "--hotwords", "weights.txt"],
            1,
            "expected a number after the tab",
        ),
        (["u.npz", "--labels", "labels.txt", "--beam-width", "0"], 2, "--beam-width"),
        (["u.npz", "--labels", "labels.txt", "--nbest", "101"], 1, "nbest: expected 1 to beam_width, 100"),
    ],
)
def test_errors_are_one_line(files, tmp_path, arguments, status, message):
    np.save("array.npy", np.zeros((3, 5)))
    for name, text in {
        "bad.json": '{"a": 1}',
        "mixed.txt": "a a\nb\n",
        "foreign.txt": "xyz\n",
        "weights.txt": "a\tmuch\n",
    }.items():
        (tmp_path / name).write_text(text)
    result = run(*arguments)
    assert result.exit_code == status and message in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
