"""``asrkern lm``: build, convert, info, query."""

import gzip
import os
import subprocess
import sys

import pytest

typer = pytest.importorskip("typer")
from safetensors.torch import save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from asrkern.cli.app import app  # noqa: E402
from asrkern.decoder import NGramLM  # noqa: E402
from tests.decoder.kenlm_writer import SMALL, kenlm_binary, murmur_hash, quantise, trie_binary  # noqa: E402
from tests.decoder.scorer_writer import automaton, package  # noqa: E402

TEXT = "the cat sat\nthe fat cat\na cat sat on the fat cat\n" * 3


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def run(*arguments, stdin=""):
    return CliRunner().invoke(app, ["lm", *map(str, arguments)], input=stdin)


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz", "model.safetensors"])
def test_build(text, tmp_path, name):
    output = tmp_path / name
    result = run("build", text, "--order", 3, "--prune", "0,0,2", "-o", output, "--discount-fallback")
    assert result.exit_code == 0, result.output
    assert f"{output}: NGramLM(order=3" in result.stderr and "estimating" in result.stderr
    expected = NGramLM.estimate(text, 3, prune=(0, 0, 2), discount_fallback=True)
    lm = NGramLM.open(output)
    assert lm.words == expected.words and lm.score("the fat cat sat") == expected.score("the fat cat sat")


def test_build_takes_several_texts_and_standard_input(text, tmp_path):
    outputs = [tmp_path / "several.safetensors", tmp_path / "once.safetensors"]
    assert run("build", text, "-", "-o", outputs[0], "--discount-fallback", stdin="one more").exit_code == 0
    text.write_text(TEXT + "one more\n")
    assert run("build", text, "-o", outputs[1], "--discount-fallback").exit_code == 0
    several, once = map(NGramLM.load, outputs)
    assert several.order == 4 and several.words == once.words
    assert several.score("one more cat") == once.score("one more cat")


def test_models_of_characters(text, tmp_path):
    output = tmp_path / "model.arpa"
    assert run("build", text, "-o", output, "--characters", "--discount-fallback").exit_code == 0
    assert "▁" in NGramLM.from_arpa(output).words
    result = run("query", output, "--characters", stdin="a cat\n")
    assert result.stdout.splitlines()[0].endswith("\t6\t0\ta cat")
    # The same model with other spaces: one that is known by its name, and one that has to be told.
    for space, told in (("|", []), ("<space>", []), ("~", ["--space", "~"])):
        other = tmp_path / "other.arpa"
        options = ["--characters", "--discount-fallback", "--space", space]
        assert run("build", text, "-o", other, *options).exit_code == 0
        assert space in NGramLM.from_arpa(other).words
        assert run("query", other, "--characters", *told, stdin="a cat\n").stdout == result.stdout


def test_models_of_tokens(text, tmp_path):
    vocabulary, output = tmp_path / "vocab.txt", tmp_path / "model.arpa"
    vocabulary.write_text("the\nc\ns\na\n##at\n##n\no\nf\n")
    options = ["--tokenizer", vocabulary, "--order", 2]
    assert run("build", text, "-o", output, "--discount-fallback", *options).exit_code == 0
    lm = NGramLM.open(output)
    assert lm.unit == "token" and "##at" in lm.words and "cat" not in lm.words
    expected = f"{lm.score('the c ##at s ##at'):.4f}\t6\t0\tthe c ##at s ##at"
    assert run("query", output, "--tokenizer", vocabulary, stdin="the cat sat\n").stdout.startswith(expected)
    assert run("query", output, stdin="the c ##at s ##at\n").stdout.startswith(expected)
    assert "unit: token" in run("info", output).stdout
    result = run("build", text, "-o", output, "--characters", "--tokenizer", vocabulary)
    assert result.exit_code == 2 and "--characters or --tokenizer" in result.stderr
    result = run("build", text, "-o", output, "--tokenizer", text)
    assert result.exit_code == 1 and "expected a label without white space" in result.stderr


@pytest.fixture
def model(text, tmp_path):
    path = tmp_path / "model.arpa"
    NGramLM.estimate(text, 3, discount_fallback=True).to_arpa(path)
    return path


def test_query(model):
    lm = NGramLM.from_arpa(model)
    result = run("query", model, stdin="the cat sat\na zebra\n")
    assert result.exit_code == 0, result.output
    first, second, *summary = result.stdout.splitlines()
    assert first == f"{lm.score('the cat sat'):.4f}\t4\t0\tthe cat sat"
    assert second == f"{lm.score('a zebra'):.4f}\t3\t1\ta zebra"
    unknown = lm.full_scores("a zebra")[1].log_prob
    total = lm.score("the cat sat") + lm.score("a zebra") - unknown
    assert summary == [
        f"Perplexity including OOVs:\t{lm.perplexity(['the cat sat', 'a zebra']):.6g}",
        f"Perplexity excluding OOVs:\t{10 ** (-total / 6):.6g}",
        "OOVs:\t1",
        "Tokens:\t7",
        "Zeroprobs:\t0",
        f"ppl:\t{10 ** (-total / 6):.6g}",
        f"ppl1:\t{10 ** (-total / 4):.6g}",
    ]


def test_query_has_srilm_perplexities(tmp_path):
    path = tmp_path / "zero.arpa"
    path.write_text(
        "\\data\\\nngram 1=6\nngram 2=2\n\n\\1-grams:\n-99\t<s>\t-0.3\n-1.25\t</s>\n-2\t<unk>\n"
        "-0.75\ta\t0.5\n-99\tnever\n-1.5\tb\n\n\\2-grams:\n-0.5\t<s> a\n-99\ta b\n\n\\end\\\n"
    )
    # "never" after the back-off weight 0.5 is still impossible, and so is "a b"; "q" is unknown.
    result = run("query", path, stdin="a never\na b q\nb\n")
    # <s> a, never </s>; <s> a, q </s>; <s> b, b </s>
    log_prob = (-0.5 - 1.25) + (-0.5 - 1.25) + (-0.3 - 1.5 - 1.25)
    assert result.stdout.splitlines()[-4:] == [
        "Tokens:\t9",
        "Zeroprobs:\t2",
        f"ppl:\t{10 ** (-log_prob / 6):.6g}",
        f"ppl1:\t{10 ** (-log_prob / 3):.6g}",
    ]
    # Without </s> no word less.
    assert run("query", path, "--no-eos", stdin="a\n").stdout.splitlines()[-1] == f"ppl1:\t{10**0.5:.6g}"
    assert run("query", path, stdin="never\n").stdout.splitlines()[-1] == "ppl1:\tundefined"


def test_bytes_that_are_no_text(model, tmp_path):
    result = run("query", model, stdin=b"the \xff cat\r\nthe cat\n")
    assert result.exit_code == 0 and result.stdout.splitlines()[0].endswith("\t4\t1\tthe \ufffd cat")
    assert result.stdout.splitlines()[1].endswith("\t3\t0\tthe cat")
    output = tmp_path / "bytes.arpa"
    assert run("build", "-", "-o", output, "--discount-fallback", stdin=b"the \xff cat\n").exit_code == 0
    assert b"\xff" in output.read_bytes()


def test_perplexities_beyond_all_numbers(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-400\t<unk>\n-99\t<s>\n-400\t</s>\n-1\ta\n\n\\end\\\n"
    )
    assert "Perplexity including OOVs:\tinf" in run("query", path, stdin="b\n").stdout


def test_verify(text, model, tmp_path):
    saved = tmp_path / "model.safetensors"
    lm = NGramLM.from_arpa(model)
    lm.save(saved)
    result = run("verify", model, saved)
    assert result.exit_code == 0
    assert result.stdout == f"{model}: no damage found: {lm}\n{saved}: no damage found: {lm}\n"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 4
    saved.write_bytes(content)
    result = run("verify", saved)
    assert (
        result.exit_code == 1 and "the file is damaged" in result.stderr and "Traceback" not in result.stderr
    )


def test_query_of_words_and_of_parts(model):
    lm = NGramLM.from_arpa(model)
    result = run("query", model, "--words", "--no-bos", "--no-eos", stdin="fat cat\n")
    scores = lm.full_scores("fat cat", bos=False, eos=False)
    assert result.stdout.splitlines()[1:3] == [
        f"\t{score.log_prob:.4f}\t{score.order}\t{word}" for score, word in zip(scores, ("fat", "cat"))
    ]
    assert "Perplexity including OOVs:\tundefined" in run("query", model, stdin="").stdout
    assert "\nOOVs:\t0\nTokens:\t0\nZeroprobs:\t0\n" in run("query", model, stdin="").stdout


def test_prune(model, tmp_path):
    lm = NGramLM.open(model, keep_ngrams=True).prune(0.01, min_order=3)
    for name in ("small.arpa", "small.safetensors"):
        result = run("prune", model, tmp_path / name, "--threshold", "0.01", "--min-order", 3)
        assert result.exit_code == 0, result.output
        smaller = NGramLM.open(tmp_path / name)
        texts = ["the cat sat", "a cat on the fat cat zebra", ""]
        assert smaller.score_batch(texts).tolist() == pytest.approx(lm.score_batch(texts).tolist(), abs=1e-6)
    assert len((tmp_path / "small.arpa").read_text()) < len(model.read_text())
    result = run("prune", model, tmp_path / "small.arpa", "--threshold", "-1")
    assert result.exit_code == 2 and "threshold" in result.stderr


def test_interpolate(model, tmp_path):
    other, output, tune = tmp_path / "other.arpa", tmp_path / "mixed.arpa", tmp_path / "tune.txt"
    NGramLM.estimate(["the dog sat", "a dog", "the dog on a cat"] * 3, 2, discount_fallback=True).to_arpa(
        other
    )
    tune.write_text("the dog sat\na cat sat on the fat cat\n")
    models = [NGramLM.open(path, keep_ngrams=True) for path in (model, other)]
    tuned = NGramLM.best_weights(models, tune.read_text().splitlines())
    for options, weights in (
        ([], [0.5, 0.5]),
        (["--weights", "0.9,0.1"], [0.9, 0.1]),
        (["--tune", tune], tuned),
    ):
        result = run("interpolate", model, other, "-o", output, *options)
        assert result.exit_code == 0, result.output
        expected = NGramLM.interpolate(models, weights)
        assert NGramLM.open(output).score("the dog sat") == pytest.approx(
            expected.score("the dog sat"), abs=1e-6
        )
    assert f"{model}: weight {tuned[0]:.4f}" in result.stderr
    for options, status, message in (
        (["--weights", "0.9"], 1, "--weights: expected 2, one for each model"),
        (["--weights", "a,b"], 2, "expected numbers such as 0.7,0.3"),
        (["--weights", "0.9,0.1", "--tune", tune], 2, "--weights or --tune"),
    ):
        result = run("interpolate", model, other, "-o", output, *options)
        assert result.exit_code == status and message in result.stderr, result.stderr


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["build", "text.txt"], 2, "Missing option"),
        (["build", "absent.txt", "-o", "m.arpa"], 2, "absent.txt"),
        (["build", "text.txt", "-o", "m.bin"], 2, "expected a name that ends in .arpa"),
        (["build", "text.txt", "-o", "no/m.arpa"], 2, "expected a file in an existing folder"),
        (["build", "text.txt", "-o", "m.arpa", "--order", "7"], 2, "--order"),
        (["build", "text.txt", "-o", "m.arpa", "--prune", "0,x"], 2, "expected numbers such as 0,0,1"),
        (["build", "text.txt", "-o", "m.arpa", "--prune", "1"], 1, "error: --prune: expected 0 first"),
        (["build", "text.txt", "-o", "m.arpa"], 1, "error: discounts of order 3 cannot be told"),
        (["query", "absent.arpa"], 2, "absent.arpa"),
        (["query", "text.txt"], 1, "this is no ARPA file"),
        (["query", "text.safetensors"], 1, "expected an intact safetensors file"),
        (["query", "text.arpa.gz"], 1, "expected an intact .gz file"),
        (["query", "numbers.safetensors"], 1, "order: expected a number of up to ten digits, received '9999"),
        (["verify", "text.txt"], 1, "this is no ARPA file"),
        (["verify", "."], 2, "is a directory"),
        (["build", "text.arpa.gz", "-o", "m.arpa"], 1, "text.arpa.gz: expected an intact .gz file"),
    ],
)
def test_errors_are_one_line(text, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "text.safetensors").write_text(TEXT)
    (tmp_path / "text.arpa.gz").write_bytes(gzip.compress(TEXT.encode())[:-10])
    lm = NGramLM.estimate(TEXT.splitlines(), 2, discount_fallback=True)
    metadata = {"order": "9" * 30, "bos": "1", "eos": "2", "unit": "word", "space": "▁", "checksum": ""}
    save_file(lm.tensors, tmp_path / "numbers.safetensors", {**metadata, "format": "asrkern n-gram model 4"})
    result = run(*arguments)
    assert result.exit_code == status and message in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "m.arpa").exists()


def module(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "asrkern", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        input="the cat\n",
    )


def test_as_a_module(model):
    result = module("lm", "query", model)
    assert result.returncode == 0 and result.stdout.startswith(
        f"{NGramLM.open(model).score('the cat'):.4f}\t3\t0\t"
    )
    assert "lm" in module("--help").stdout


def test_says_what_it_needs(tmp_path):
    """Where typer is missing."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'typer' else find(name, *rest)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = module("lm", PYTHONPATH=path)
    assert result.returncode == 1
    assert result.stderr == "asrkern: typer is not installed: pip install 'asrkern[cli]'\n"
    assert module(PYTHONPATH=path).returncode == 0


def kenlm_files(tmp_path):
    """The same model as a trie, a probing file, a trie without words and a scorer package."""
    words = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
    trie = trie_binary(SMALL, strings=False, codes=quantise(SMALL, (12, 12)))
    contents = {
        "trie.bin": trie_binary(SMALL),
        "probing.bin": kenlm_binary(SMALL),
        "bare.bin": trie_binary(SMALL, strings=False),
        "model.scorer": package(trie, automaton(words, [" ", *"abcdefghijklmnopqrstuvwxyz"])),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return words


TEXTS = ["the cat sat", "a fat cat", "the the extraordinarily x cat", ""]


@pytest.mark.parametrize("output", ["new.arpa", "new.arpa.gz", "new.safetensors"])
def test_convert(tmp_path, output):
    words = kenlm_files(tmp_path)
    # As Windows' editors write it.
    (tmp_path / "words.txt").write_bytes("\ufeff".encode() + "\r\n".join(words).encode())
    for name, options in (
        ("trie.bin", []),
        ("bare.bin", ["--words", tmp_path / "words.txt"]),
        ("new.arpa", []),
    ):
        expected = NGramLM.open(tmp_path / name)
        result = run("convert", tmp_path / name, tmp_path / f"of_{output}", *options)
        assert result.exit_code == 0, result.output
        lm = NGramLM.open(tmp_path / f"of_{output}")
        assert lm.score_batch(TEXTS).tolist() == pytest.approx(expected.score_batch(TEXTS).tolist(), abs=1e-9)
        assert sorted(lm.words) == sorted([*words, "<unk>", "<s>", "</s>"])
        for text in TEXTS:
            assert [score.order for score in lm.full_scores(text)] == [
                score.order for score in expected.full_scores(text)
            ]
        if name == "trie.bin":
            assert run("convert", tmp_path / "trie.bin", tmp_path / "new.arpa").exit_code == 0


@pytest.mark.parametrize("name", ["probing.bin", "new.safetensors", "quantized.safetensors"])
def test_convert_finds_ngrams_by_their_hashes(tmp_path, name):
    words = kenlm_files(tmp_path)
    for output, options in (("new.safetensors", []), ("quantized.safetensors", ["--quantize"])):
        assert run("convert", tmp_path / "probing.bin", tmp_path / output, *options).exit_code == 0
    expected = NGramLM.open(tmp_path / name)
    assert run("convert", tmp_path / name, tmp_path / "new.arpa").exit_code == 0
    lm = NGramLM.open(tmp_path / "new.arpa")
    assert lm.words == expected.words and {*words} < {*lm.words}
    assert lm.score_batch(TEXTS).tolist() == pytest.approx(expected.score_batch(TEXTS).tolist(), abs=1e-6)
    ngrams = [
        line.split("\t")[1] for line in (tmp_path / "new.arpa").read_text().splitlines() if "\t" in line
    ]
    assert sorted(ngrams) == sorted(" ".join(ngram) for ngram in SMALL)


def test_convert_refuses(tmp_path):
    kenlm_files(tmp_path)
    result = run("convert", tmp_path / "bare.bin", tmp_path / "new.arpa")
    assert result.exit_code == 1 and "expected a model that has its words" in result.stderr
    assert "asrkern lm convert --words" in result.stderr
    result = run("convert", tmp_path / "trie.bin", tmp_path / "new.arpa", "--quantize")
    assert result.exit_code == 2 and "ends in .safetensors" in result.stderr
    assert not (tmp_path / "new.arpa").exists()


def test_info(tmp_path):
    kenlm_files(tmp_path)
    assert run("convert", tmp_path / "trie.bin", tmp_path / "new.arpa.gz").exit_code == 0
    assert run("convert", tmp_path / "trie.bin", tmp_path / "new.safetensors").exit_code == 0
    counts = [sum(len(ngram) == n for ngram in SMALL) for n in (1, 2, 3)]
    for name, lines in {
        "trie.bin": ["kind: KenLM's trie", "words: in the file"],
        "probing.bin": ["kind: KenLM's probing", "space multiplier: 1.5"],
        "bare.bin": ["words: hashes only"],
        "new.arpa.gz": ["kind: ARPA"],
        "new.safetensors": [
            "kind: file of NGramLM.save",
            "unit: word",
            f"n-grams of higher orders: {sum(counts[1:])}",
        ],
        "model.scorer": [
            "kind: scorer package of DeepSpeech and Coqui STT, in it KenLM's quantised trie",
            "alpha: 0.75",
            "beta: 1.85",
            "bits: 12 of probabilities, 12 of back-off weights",
        ],
    }.items():
        result = run("info", tmp_path / name)
        assert result.exit_code == 0, result.output
        found = [line.strip() for line in result.stdout.splitlines()]
        expected = ["order: 3", f"1-grams: {counts[0]}", *lines]
        if name != "new.safetensors":
            expected += [f"{n}-grams: {count}" for n, count in enumerate(counts, 1)]
        assert {*expected} <= {*found}, name
    (tmp_path / "text.txt").write_text("the cat\n")
    result = run("info", tmp_path / "text.txt")
    assert result.exit_code == 1 and "this is no ARPA file" in result.stderr


def test_words_in_the_order_of_their_hashes(tmp_path):
    """As in what is converted from a trie. Hash tables that grow used to refuse them."""
    words = sorted((f"w{i}" for i in range(20_000)), key=lambda word: murmur_hash(word.encode()))
    lines = ["\\data\\", f"ngram 1={len(words) + 2}", "\\1-grams:", "-9\t<s>", "-9\t</s>"]
    lines += [f"-{i % 7 + 1}\t{word}" for i, word in enumerate(words)]
    path = tmp_path / "model.arpa"
    path.write_text("\n".join([*lines, "\\end\\", ""]))
    lm = NGramLM.open(path)
    scores = lm.score_batch(words, bos=False, eos=False).tolist()
    assert scores == [-(i % 7 + 1.0) for i in range(len(words))]
