"""NGramLM.estimate: equal to lmplz, to the definition in plain Python, and to a distribution."""

import gzip
import itertools
import math
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference

TEXT = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=7), min_size=1, max_size=25)
FALLBACK = (0.5, 1.0, 1.5)


def written(lm: NGramLM, folder: Path) -> reference.Model:
    lm.to_arpa(folder / "model.arpa")
    return reference.read_arpa(folder / "model.arpa")


def assert_same_model(actual: reference.Model, expected: reference.Model, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for ngram, values in expected.items():
        assert actual[ngram] == pytest.approx(values, abs=tolerance), ngram


@pytest.fixture(scope="session")
def corpus(data_dir):
    return data_dir / "lm" / "lj3k.txt"


@pytest.mark.parametrize("name, order, prune", [("lj3k.o3", 3, (0,)), ("lj3k.o4p", 4, (0, 0, 1, 1))])
def test_equals_lmplz(corpus, tmp_path, name, order, prune):
    expected = tmp_path / "expected.arpa"
    expected.write_bytes(gzip.decompress(corpus.with_name(f"{name}.arpa.gz").read_bytes()))
    lm = NGramLM.estimate(corpus, order, prune=prune)
    assert_same_model(written(lm, tmp_path), reference.read_arpa(expected), 2e-6)


@settings(max_examples=60, deadline=None)
@given(TEXT, st.integers(1, 6), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_equals_the_definition(tmp_path_factory, sentences, order, thresholds):
    prune = [0, *sorted(thresholds)][:order]
    lm = NGramLM.estimate(map(" ".join, sentences), order, prune=prune, discount_fallback=FALLBACK)
    expected = reference.kneser_ney(sentences, order, prune, FALLBACK)
    assert_same_model(written(lm, tmp_path_factory.mktemp("arpa")), expected, 1e-6)


def test_equals_the_definition_without_fallback(corpus, tmp_path):
    lines = corpus.read_text().splitlines()[:400]
    lm = NGramLM.estimate(lines, 3)
    expected = reference.kneser_ney([line.split() for line in lines], 3, (0, 0, 0))
    assert_same_model(written(lm, tmp_path), expected, 1e-6)


@settings(max_examples=40, deadline=None)
@given(TEXT, st.integers(1, 6), st.integers(0, 2), st.lists(st.sampled_from("abcdefgx"), max_size=6))
def test_probabilities_sum_to_one(sentences, order, threshold, context):
    lm = NGramLM.estimate(
        map(" ".join, sentences), order, prune=(0, threshold)[:order], discount_fallback=FALLBACK
    )
    for bos in (False, True):
        state = lm.start(bos)
        for word in [None, *context]:
            if word is not None:
                state = lm.step(state, word)[1]
            total = math.fsum(10 ** lm.step(state, i)[0] for i in range(lm.vocabulary_size) if i != lm.bos)
            assert total == pytest.approx(1, abs=1e-5)


def test_probabilities_of_a_real_model_sum_to_one(corpus):
    lm = NGramLM.estimate(corpus, 4, prune=(0, 0, 1, 1))
    for text in ("", "the", "of the", "in the city of", "zebra crossing the"):
        state = lm.start()
        for word in text.split():
            state = lm.step(state, word)[1]
        total = math.fsum(10 ** lm.step(state, i)[0] for i in range(lm.vocabulary_size) if i != lm.bos)
        assert total == pytest.approx(1, abs=1e-5)


def test_text_from_files_lines_and_both(corpus, tmp_path):
    data = corpus.read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    (tmp_path / "a.txt").write_bytes(data[:half])
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(data[half:-1]))  # no line feed at the end
    expected = written(NGramLM.estimate(corpus, 3), tmp_path)
    lines = data.decode().splitlines()
    files = [tmp_path / "a.txt", tmp_path / "b.txt.gz"]
    mixed = [*data[:half].decode().splitlines(keepends=True), files[1]]
    for text in (str(corpus), iter(lines), files, mixed):
        assert written(NGramLM.estimate(text, 3), tmp_path) == expected


def test_white_space_and_empty_lines(tmp_path):
    lines = ["a b", "", "c a b"]
    spaced = ["  a\tb \r", "\v", "c \f a  b"]
    models = [
        written(NGramLM.estimate(text, 2, discount_fallback=True), tmp_path) for text in (lines, spaced)
    ]
    assert models[0] == models[1]
    assert ("<s>", "</s>") in models[0]


def test_models_of_characters(tmp_path):
    lm = NGramLM.estimate(["ab  cé", "é"], 3, unit="character", discount_fallback=True)
    assert lm.words == ["<unk>", "<s>", "</s>", "a", "b", "▁", "c", "é"]
    spelled = written(NGramLM.estimate(["a b ▁ c é", "é"], 3, discount_fallback=True), tmp_path)
    assert written(lm, tmp_path) == spelled
    same = NGramLM.estimate(["ab cé", "é"], 3, unit="character", space="|", discount_fallback=True)
    assert same.score("ab é") == lm.score("ab é")


def test_streams_and_shows_progress(data_dir):
    text = data_dir / "lm" / "lj.txt"
    reports = []
    began = time.perf_counter()
    lm = NGramLM.estimate(text, 5, progress=lambda *report: reports.append(report))
    assert time.perf_counter() - began < 10
    assert lm.order == 5 and lm.vocabulary_size > 14000
    size = text.stat().st_size
    reading = [done for stage, done, total in reports if stage == "reading lj.txt" and total == size]
    assert reading == sorted(reading) and reading[-1] == size
    assert [report for report in reports if report[0] == "estimating"] == [
        ("estimating", n, 5) for n in range(1, 6)
    ]
    seen = []
    endless = itertools.chain.from_iterable(itertools.repeat(["a b c"], 10_000))
    NGramLM.estimate(endless, 2, discount_fallback=True, progress=lambda *report: seen.append(report))
    assert seen[:2] == [("reading", 4096, None), ("reading", 8192, None)]


def test_arpa_round_trip(corpus, tmp_path):
    lm = NGramLM.estimate(corpus, 4, prune=(0, 0, 1))
    lines = corpus.with_name("lj.txt").read_text().splitlines()[3000:3200]
    for name in ("model.arpa", "model.arpa.gz"):
        lm.to_arpa(tmp_path / name)
        again = NGramLM.from_arpa(tmp_path / name)
        assert again.words == lm.words
        assert again.score_batch(lines).equal(lm.score_batch(lines))
    assert (tmp_path / "model.arpa.gz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("quantize", [False, True])
def test_arpa_of_hashes_alone(tmp_path, quantize):
    """N-grams that tables have only hashes of are found; ends and beginnings of pruned ones are among them."""
    text = [" ".join(random.Random(seed).choices("abcdefg", k=6)) for seed in range(60)]
    lm = NGramLM.estimate(text, 4, prune=(0, 0, 1), discount_fallback=True)
    lm.save(tmp_path / "model.safetensors")
    hashes = NGramLM.load(tmp_path / "model.safetensors")
    if quantize:
        lm, hashes = lm.quantize(), hashes.quantize()
    hashes.to_arpa(tmp_path / "model.arpa")
    again = NGramLM.from_arpa(tmp_path / "model.arpa")
    assert again.words == lm.words
    assert again.score_batch(text).tolist() == pytest.approx(lm.score_batch(text).tolist(), abs=1e-5)
    for sentence in text[:10]:
        assert [score.order for score in again.full_scores(sentence)] == [
            score.order for score in lm.full_scores(sentence)
        ]
    with pytest.raises(ValueError, match="expected at most 10 pairs of n-grams to try, received more: "):
        hashes._on_cpu().recover(10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"order": 0}, "order: expected 1 to 6, received 0"),
        ({"order": 7}, "order: expected 1 to 6, received 7"),
        ({"prune": (1,)}, r"prune: expected 0 first .* received \(1,\)"),
        ({"prune": (0, 2, 1)}, "prune: expected 0 first and no decreasing thresholds"),
        ({"prune": (0, 0, 0, 0)}, "prune: expected 1 to 3 thresholds, received 4"),
        ({"prune": ()}, "prune: expected 1 to 3 thresholds, received 0"),
        ({"discount_fallback": (0.5, 1)}, "discount_fallback: expected three discounts"),
        ({"discount_fallback": (0.5, 1, 4)}, "discount_fallback: expected three discounts"),
        ({"discount_fallback": False}, "discounts of order 1 cannot be told .* set discount_fallback"),
        ({"unit": "letter"}, "unit: expected one of 'word', 'character', 'token', received 'letter'"),
        ({"unit": "character", "space": " "}, "space: expected a text without white space, received ' '"),
        ({"text": []}, "text: expected at least one sentence, received none"),
        ({"text": ["a", "b <s> c"]}, "line 2 of the text: expected words, received the mark '<s>'"),
        ({"text": ["a", "b <UNK> c"]}, "line 2 of the text: expected words, received the mark '<UNK>'"),
        ({"text": ["a", "", "<unk>"]}, "line 3 of the text: expected words, received the mark '<unk>'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NGramLM.estimate(**{"text": ["a b c", "b c"], "order": 3, "discount_fallback": True, **arguments})


def test_lines_are_those_of_a_file(tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("a b\nb c\n")
    second.write_text("a\n\n<s> b\n")
    with pytest.raises(
        ValueError, match=r"second\.txt: line 3 of the text: expected words, received the mark '<s>'"
    ):
        NGramLM.estimate([first, second], 2, discount_fallback=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"order": 2.0}, "order: expected an integer, received 2.0"),
        ({"order": "2"}, "order: expected an integer, received '2'"),
        ({"order": True}, "order: expected an integer, received True"),
        ({"prune": 0}, "prune: expected a sequence of integers, received 0"),
        ({"prune": (0, 1.5)}, r"prune: expected a sequence of integers, received \(0, 1.5\)"),
        (
            {"discount_fallback": 0.5},
            "discount_fallback: expected True, False or three numbers, received 0.5",
        ),
        (
            {"discount_fallback": "abc"},
            "discount_fallback: expected True, False or three numbers, received 'abc'",
        ),
        ({"text": None}, "text: expected a path, or strings and Paths, received None"),
    ],
)
def test_arguments_of_other_types(arguments, message):
    with pytest.raises(TypeError, match=message):
        NGramLM.estimate(**{"text": ["a b c", "b c"], "order": 3, "discount_fallback": True, **arguments})


def test_numbers_of_numpy():
    numbers = {"order": np.int64(2), "prune": np.array([0, 1]), "discount_fallback": np.array([0.5, 1, 1.5])}
    found = NGramLM.estimate(["a b c", "b c"], **numbers)
    expected = NGramLM.estimate(["a b c", "b c"], 2, prune=(0, 1), discount_fallback=(0.5, 1, 1.5))
    assert all(tensor.equal(expected.tensors[name]) for name, tensor in found.tensors.items())


def test_bytes_that_are_no_text_stay_what_they_are(tmp_path):
    (tmp_path / "text").write_bytes(b"a \xff b\nb a\n")
    read = NGramLM.estimate(tmp_path / "text", 2, discount_fallback=True)
    given = NGramLM.estimate(["a \udcff b", "b a"], 2, discount_fallback=True)
    assert all(tensor.equal(given.tensors[name]) for name, tensor in read.tensors.items())


def test_bad_text(tmp_path):
    with pytest.raises(TypeError, match="text: expected strings and Paths, received bytes"):
        NGramLM.estimate([b"a b"], 2, discount_fallback=True)
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        NGramLM.estimate("absent.txt", 2)
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a b c\n" * 1000)[:-12])
    with pytest.raises(ValueError, match=r"cut\.txt\.gz: expected an intact \.gz file"):
        NGramLM.estimate(tmp_path / "cut.txt.gz", 2, discount_fallback=True)
