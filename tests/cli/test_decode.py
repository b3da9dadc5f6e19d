"""``asrkern decode``."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from asrkern.cli.app import app  # noqa: E402
from asrkern.decoder import CTCBeamDecoder, NGramLM, read_labels  # noqa: E402
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


def test_models_of_tokens(tmp_path, monkeypatch):
    """Told by its words, or said to be one or none."""
    monkeypatch.chdir(tmp_path)
    labels = ["▁a", "b", "▁c", "<blank>"]
    Path("labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    np.savez("u.npz", **{f"u{i}": random_log_probs(9, 4).numpy() for i in range(3)})
    with np.load("u.npz") as arrays:
        utterances = dict(arrays)
    lm = NGramLM.estimate(["▁a b ▁c", "▁c b b"] * 3, 2, discount_fallback=True)
    lm.save("lm.safetensors")
    arguments = ["u.npz", "--labels", "labels.txt", "--lm", "lm.safetensors", "--alpha", 2]
    for option, unit in ((None, None), ("--lm-tokens", "token"), ("--no-lm-tokens", "word")):
        result = run(*arguments, *([option] if option else []))
        assert result.exit_code == 0, result.output
        expected = expected_lines(utterances, CTCBeamDecoder(labels, lm, alpha=2, unit=unit))
        assert result.stdout.splitlines() == expected
        assert (expected == expected_lines(utterances, CTCBeamDecoder(labels, lm, alpha=2))) == (
            unit != "word"
        )


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


def test_the_space_of_a_model_of_characters(files, tmp_path):
    """By its own name; as told; and a line where there is none, or one of the other case."""
    text = Path("letters.arpa").read_text()
    arguments = [
        "u.npz",
        "--labels",
        "labels.txt",
        "--blank",
        BLANK,
        "--alpha",
        3,
        "--lm",
        "l.arpa",
        "--characters",
    ]
    decoder = CTCBeamDecoder(LABELS, small_lm(["ab", "b a"], unit="character"), blank=BLANK, alpha=3.0)
    for space, more in (("|", []), ("<space>", []), ("~", ["--lm-space", "~"])):
        Path("l.arpa").write_text(text.replace("▁", space))
        result = run(*arguments, *more)
        assert result.exit_code == 0 and "warning" not in result.stderr, result.output
        assert result.stdout.splitlines() == expected_lines(files, decoder)
    result = run(*arguments)
    [line] = [line for line in result.stderr.splitlines() if "warning" in line]
    assert line.startswith("warning: --lm: what stands between words, ' ', is none of the model's words")
    assert result.exit_code == 0 and result.stdout.splitlines() != expected_lines(files, decoder)
    Path("l.arpa").write_text(
        text.replace("\ta", "\tA").replace("\tb", "\tB").replace(" a", " A").replace(" b", " B")
    )
    assert "warning: --lm: the model's words are upper case" in run(*arguments).stderr
    result = run(*arguments, "--lm-case", "upper")
    assert result.exit_code == 0 and "warning" not in result.stderr
    assert result.stdout.splitlines() == expected_lines(files, decoder)


def test_labels_without_the_blank(files):
    """NeMo's have it behind them; the blank that is given is one of the labels."""
    labels = [" ", "a", "b", "c"]
    Path("nemo.txt").write_text("".join(f"{label}\n" for label in labels))
    result = run("u.npz", "--labels", "nemo.txt")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == expected_lines(files, CTCBeamDecoder([*labels, "<blank>"]))
    narrow = {
        name: np.log(np.exp(u[:, :4]) / np.exp(u[:, :4]).sum(1, keepdims=True)) for name, u in files.items()
    }
    np.savez("narrow.npz", **narrow)
    result = run("narrow.npz", "--labels", "nemo.txt", "--blank", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == expected_lines(narrow, CTCBeamDecoder(labels, blank=3))


def test_labels_of_a_sentencepiece_model(files, monkeypatch):
    package = pytest.importorskip("sentencepiece")
    with open("tok.model", "wb") as model:
        package.SentencePieceTrainer.train(
            sentence_iterator=iter(["ab ba abb", "b a"] * 9),
            model_writer=model,
            vocab_size=7,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    pieces = package.SentencePieceProcessor("tok.model")
    labels = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    arrays = {"u": random_log_probs(9, len(labels) + 1).numpy()}
    np.savez("pieces.npz", **arrays)
    result = run("pieces.npz", "--labels", "tok.model")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == expected_lines(arrays, CTCBeamDecoder([*labels, "<blank>"]))


VOCABULARIES = {
    "tokens.txt": ("".join(f"{t} {i}\n" for i, t in enumerate(["<blk>", "<unk>", "▁a", "b", "c"])), "ab ab"),
    "dict.ltr.txt": ("a 9\nb 7\n| 2\n", "</s><unk></s><unk>"),
    "vocab.json": ('{"b": 3, "|": 1, "a": 2, "[PAD]": 0, "c": 4}', "abab"),
    "vocab.txt": ("[PAD]\n[UNK]\na\n##b\nc\n", "ab ab"),
    "m.vocab": ("<unk>\t0\n▁c\t-1\n▁a\t-1.5\nb\t-2\n<blank>\t-3\n", "ab ab"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabularies(tmp_path, monkeypatch, name):
    """What outputs 2, 3 and 2 say, with blanks between, by each kind of file; the blank is the label named so."""
    monkeypatch.chdir(tmp_path)
    text, said = VOCABULARIES[name]
    Path(name).write_text(text)
    labels = read_labels(name)
    blank = next(i for i, label in enumerate(labels) if label in ("<blk>", "[PAD]", "<blank>"))
    path = [2, 3, blank, 2, blank, 3]
    np.savez("u.npz", u=np.eye(len(labels))[path] * 30 - np.log(np.exp(30) + len(labels) - 1))
    result = run("u.npz", "--labels", name)
    assert result.exit_code == 0 and result.stdout.split("\t")[2] == f"{said}\n", result.output


def test_the_space_between_words(files):
    arguments = ["u.npz", "--labels", "labels.txt", "--blank", BLANK]
    for space in ("a", ""):
        result = run(*arguments, "--space", space)
        decoder = CTCBeamDecoder(LABELS, blank=BLANK, space=space)
        assert result.exit_code == 0 and result.stdout.splitlines() == expected_lines(files, decoder)
    assert (
        run(*arguments, "--space", "x").stderr
        == "error: --space: expected a label other than blank, received 'x'\n"
    )


def test_hotwords_with_weights(files, tmp_path):
    """As asrkern's, sherpa's, and sherpa's in pieces."""
    for name, text in {
        "tab.txt": "ab c\t2.5\nb\n",
        "colon.txt": "ab c :2.5\nb\n\n",
        "pieces.txt": "▁a b ▁c :2.5\n▁b\n",
        "windows.txt": "\ufeffab c :2.5\r\nb\r\n",
    }.items():
        (tmp_path / name).write_bytes(text.encode())
        result = run(
            "u.npz", "--labels", "labels.txt", "--blank", BLANK, "--hotwords", name, "--hotword-weight", 4
        )
        decoder = CTCBeamDecoder(LABELS, blank=BLANK, hotwords={"ab c": 2.5, "b": 4.0})
        assert result.exit_code == 0 and result.stdout.splitlines() == expected_lines(files, decoder), name


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
            "expected a number after the tab or colon",
        ),
        (["u.npz", "--labels", "labels.txt", "--hotwords", "colon.txt"], 1, "received 'a :much'"),
        (["u.npz", "--labels", "labels.txt", "--hotwords", "array.npy"], 1, "array.npy: "),
        (["u.npz", "--labels", "labels.txt", "--lexicon", "array.npy"], 1, "array.npy: "),
        (["u.npz", "--labels", "array.npy"], 1, "array.npy: expected UTF-8"),
        (["u.npz", "--labels", "two.txt"], 1, "blank: expected the index of the blank, since several"),
        (
            ["narrow.npz", "--labels", "nemo.txt"],
            1,
            "[3, 4]; the blank was taken to be behind the labels, as in NeMo's models: --blank says which",
        ),
        (
            ["u.npz", "--labels", "nemo.txt", "--blank", 0],
            1,
            "[5, 5]; if the labels lack the blank, as NeMo's do",
        ),
        (["u.npz", "--labels", "labels.txt", "--blank", "1.5"], 2, "'--blank'"),
        (["u.npz", "--labels", "labels.txt", "--lm-case", "title"], 2, "--lm-case"),
        (["u.npz", "--labels", "labels.txt", "--beam-width", "0"], 2, "--beam-width"),
        (
            ["u.npz", "--labels", "labels.txt", "--nbest", "101"],
            1,
            "--nbest: expected 1 to --beam-width, 100",
        ),
    ],
)
def test_errors_are_one_line(files, tmp_path, arguments, status, message):
    np.save("array.npy", np.zeros((3, 5)))
    np.savez("narrow.npz", u=np.zeros((3, 4)))
    for name, text in {
        "bad.json": '{"a": 1}',
        "mixed.txt": "a a\nb\n",
        "foreign.txt": "xyz\n",
        "weights.txt": "a\tmuch\n",
        "colon.txt": "a :much\n",
        "two.txt": "<blk> 0\na 1\nb 2\n<eps> 3\nc 4\n",
        "nemo.txt": " \na\nb\nc\n",
    }.items():
        (tmp_path / name).write_text(text)
    result = run(*arguments)
    assert result.exit_code == status and message in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
