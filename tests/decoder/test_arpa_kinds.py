"""What goes by the name of ARPA files: IRSTLM's iARPA, what tools write differently, other kinds, damaged ones."""

import bz2
import gzip
import lzma
import math
import os
import random
import warnings

import pytest

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference

PLAIN = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.2\t<unk>
-99\t<s>\t-0.5
-0.8\t</s>
-0.6\tred\t-0.3
-0.9\tcar\t-0.2

\\2-grams:
-0.4\t<s> red\t-0.1
-0.3\tred car\t-0.05
-0.7\tcar </s>
-0.6\tcar red

\\3-grams:
-0.2\t<s> red car
-0.15\tred car </s>

\\end\\
"""
SENTENCES = ["", "red", "red car", "car red blue", "car car", "blue", "red red car"]


def changed(*pairs: tuple[str, str]) -> str:
    text = PLAIN
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.fixture
def read(tmp_path):
    def read(text, *warned):
        """The model of a file with this text, which warns of exactly this."""
        path = tmp_path / "model.arpa"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lm = NGramLM.open(path)
        messages = [str(warning.message) for warning in caught]
        assert messages == [f"{path}: {warning}" for warning in warned]
        assert all(warning.filename == __file__ or "ngram_lm" in warning.filename for warning in caught)
        return lm

    return read


def scores(lm):
    return [[score.log_prob for score in lm.full_scores(sentence)] for sentence in SENTENCES]


def random_iarpa(order: int) -> tuple[str, reference.Model]:
    """(an iARPA file of random probabilities, the model that it means: p(w | h) = f(w | h) + λ(h) p(w | h'))."""
    chance = random.Random(order)
    words = ["<s>", "</s>", "<unk>", "a", "b", "c"]
    model = {(word,): (math.log10(1 / len(words)), math.log10(chance.uniform(0.1, 0.6))) for word in words}
    written = dict(model)
    for n in range(2, order + 1):
        for context in [ngram for ngram in model if len(ngram) == n - 1 and "</s>" not in ngram]:
            for word in chance.sample(words[1:], 3 if n == 2 else 2):
                frequency = math.log10(chance.uniform(0.01, 0.2))
                weight = math.log10(chance.uniform(0.1, 0.6)) if n < order else 0
                lower = model[context][1] + reference.log_prob(model, context[1:], word)
                written[(*context, word)] = frequency, weight
                model[(*context, word)] = math.log10(10**frequency + 10**lower), weight
    lines = ["iARPA", "", "\\data\\"]
    lines += [f"ngram {n}=\t{sum(len(ngram) == n for ngram in written)}" for n in range(1, order + 1)]
    for n in range(1, order + 1):
        lines.append(f"\\{n}-grams:")
        for ngram, (log_prob, weight) in written.items():
            if len(ngram) == n:
                lines.append(f"{log_prob:.6f}\t{' '.join(ngram)}" + f"\t{weight:.6f}" * (n < order))
    return "\n".join([*lines, "\\end\\", ""]), model


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_iarpa_is_interpolated(read, order):
    text, model = random_iarpa(order)
    lm, chance = read(text), random.Random(0)
    assert lm.order == order
    for _ in range(50):
        words = chance.choices(["a", "b", "c", "x"], k=chance.randint(0, 6))
        actual = [score.log_prob for score in lm.full_scores(" ".join(words))]
        assert actual == pytest.approx(reference.score(model, words), abs=1e-5)


def test_iarpa_without_an_ngrams_beginning(read):
    """It cannot be interpolated, and IRSTLM leaves it out."""
    text = "iARPA\n" + changed(("-0.3\tred car\t-0.05\n", ""), ("ngram 2=4", "ngram 2=3"))
    left_out = text.replace("-0.15\tred car </s>\n", "").replace("ngram 3=2", "ngram 3=1")
    assert scores(read(text)) == scores(read(left_out))


def test_iarpa_of_more_than_all_probability(read):
    with pytest.raises(
        ValueError, match="line 16: expected probabilities that interpolate to at most 1, received"
    ):
        read("iARPA\n" + changed(("-0.3\tred car", "-0.01\tred car")))


@pytest.mark.parametrize("written", ["-inf", "-Inf", "-INF", "-infinity", "0", "+0", "-1e-99", "1e-99"])
def test_the_probability_of_a_sentences_beginning_never_counts(read, written):
    assert scores(read(changed(("-99", written)))) == scores(read(PLAIN))


def test_minus_infinity_is_minus_99(read):
    for old in ("-0.6\tred", "-0.3\tred car", "-0.15\tred car </s>"):
        word = old.split("\t")[1]
        assert scores(read(changed((old, f"-inf\t{word}")))) == scores(read(changed((old, f"-99\t{word}"))))
    assert scores(read(changed(("red\t-0.3", "red\t-inf")))) == scores(
        read(changed(("red\t-0.3", "red\t-99")))
    )


@pytest.mark.parametrize(
    "order, line, values", [(1, 12, "car\t-0.4"), (2, 16, "red car\t-0.3"), (3, 21, "red car </s>")]
)
def test_the_first_of_equal_ngrams_counts(read, order, line, values):
    """As in KenLM."""
    count = PLAIN.split(f"ngram {order}=")[1][0]
    ngram = values.split("\t")[0]
    at = next(row for row in PLAIN.splitlines() if row.split("\t")[1:2] == [ngram])
    text = changed(
        (f"ngram {order}={count}", f"ngram {order}={int(count) + 2}"), (at, f"{at}\n-0.1\t{values}\n{at}")
    )
    line = text.splitlines().index(f"-0.1\t{values}") + 1
    warning = f"line {line}: n-gram that was there before: '-0.1\t{values}'; the first one counts, of <unk> the last, as with KenLM (and 1 more)"
    lm = read(text, warning)
    assert scores(lm) == scores(read(PLAIN)) and lm.words == read(PLAIN).words


@pytest.mark.parametrize("unk", ["<unk>", "<UNK>"])
def test_the_last_unk_counts(read, unk):
    """As in KenLM."""
    text = changed(("ngram 1=5", "ngram 1=6"), ("-0.9\tcar", f"-0.1\t{unk}\n-0.9\tcar"))
    lm = read(
        text,
        f"line 11: n-gram that was there before: '-0.1\t{unk}'; the first one counts, of <unk> the last, as with KenLM",
    )
    assert scores(lm) == scores(read(changed(("-1.2", "-0.1"))))


def test_equals_kenlm(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    path = tmp_path / "model.arpa"
    twice = [
        changed(("ngram 1=5", "ngram 1=6"), ("-0.9\tcar", f"-0.1\t{word}\t-0.4\n-0.9\tcar"))
        for word in ("<unk>", "<UNK>", "<s>", "red")
    ]
    twice.append(changed(("ngram 2=4", "ngram 2=5"), ("-0.7\tcar", "-0.1\tred car\t-0.4\n-0.7\tcar")))
    for text in (PLAIN, changed(("-99", "-inf")), PLAIN.replace("\n", "\r\n"), "# x\n" + PLAIN, *twice):
        path.write_text(text, newline="")
        peer = kenlm.Model(str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lm = NGramLM.from_arpa(path)
        expected = [[score[0] for score in peer.full_scores(sentence)] for sentence in SENTENCES]
        assert scores(lm) == [pytest.approx(values, abs=1e-5) for values in expected]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\t", "  "),
        PLAIN.replace(" ", "\t").replace("ngram\t", "ngram "),
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("\n", " \t\n"),
        PLAIN.replace("\n-", "\n \t-"),
        PLAIN.replace("<unk>", "<UNK>"),
        PLAIN.replace("=", " = "),
        "\ufeff" + PLAIN,
        "\n\n# about the model\nGood-Turing discounting was applied.\n" + PLAIN,
        changed(
            ("-0.7\tcar </s>", "-0.7\tcar </s>\t0"), ("-0.15\tred car </s>", "-0.15\tred car </s>\t-0.0")
        ),
    ],
)
def test_what_tools_write_differently(read, text):
    assert scores(read(text)) == scores(read(PLAIN))


def test_an_unknown_first_line_is_said(read):
    lm = read(
        "The model of tomorrow\nand more\n" + PLAIN,
        "line 1: 'The model of tomorrow' before \\data\\ is taken for a comment",
    )
    assert scores(lm) == scores(read(PLAIN))


def test_rounding_above_zero_is_said(read):
    lm = read(
        changed(("-0.3\tred car", "1.7e-6\tred car")),
        "line 15: log10 probability above 0: '1.7e-6', read as 0",
    )
    assert scores(lm) == scores(read(changed(("-0.3\tred car", "0\tred car"))))


@pytest.mark.parametrize(
    "beginning, message",
    [
        (b"qARPA 2 256 256\n", r"line 1: expected an ARPA file, received IRSTLM's quantised qARPA"),
        (b"\nIARPA\n", "line 2: expected an ARPA file, received one of the format 'IARPA'"),
        (b"zARPA 3\n", "line 1: expected an ARPA file, received one of the format 'zARPA'"),
        (b"blmt 2         15         24\n", "binary file of IRSTLM: `compile-lm --text=yes"),
        (b"blmtI 2 15 24\n", "binary file of IRSTLM"),
        (b"Qblmt 2 15 24\nNumCenters 256 256\n", "quantised file of IRSTLM"),
        (b"SRILM_BINARY_NGRAM_002\n", "binary file of SRILM: `ngram -lm FILE -write-lm NEW.arpa`"),
        (b"SRILM_BINARY_COUNTS_001\n", "counts of SRILM"),
        (b"\x11\0\0\0Darpa Trigram LM\0", "DMP file of Sphinx: `sphinx_lm_convert"),
        (b"Trie Language Model\n", "binary file of Sphinx"),
        (b"mmap lm http://kheafield.com/code format version 5\n\0\0", "KenLM: NGramLM.from_kenlm_binary"),
        (b"\xd6\xfd\xb2\x7e\x06\0\0\0vector", "transducer of OpenFst"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS, not the file"),
        (b"<!DOCTYPE html>\n", "web page"),
        (b"PK\3\4", "zip archive"),
        (b"\xff\xfe", "text in UTF-16: `iconv"),
        (b"lm.arpa".ljust(257, b"\0") + b"ustar".ljust(255, b"\0") + b"\n", "tar archive: unpack it"),
        (b'\x40\0\0\0\0\0\0\0{"', "safetensors file: NGramLM.load"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, beginning, message):
    path = tmp_path / "model.arpa"
    path.write_bytes(beginning + PLAIN.encode())
    with pytest.raises(ValueError, match=rf"model\.arpa: .*{message}"):
        NGramLM.from_arpa(path)


@pytest.mark.parametrize("text", ["red car 12\nred 3\n", "red car\t12\n", '{"red": 1}\n', "\1\0\2\n"])
def test_what_is_no_arpa_file_is_quoted(tmp_path, text):
    path = tmp_path / "model.arpa"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line \d: expected \\data\\, .* it begins with ") as caught:
        NGramLM.open(path)
    assert text.split("\n")[0].strip().replace("\0", "\\x00") in str(caught.value)


COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files(tmp_path, read, suffix):
    """Of any name; and damaged ones say what they are."""
    content = COMPRESSORS[suffix](PLAIN.encode())
    for name in (f"model.arpa.{suffix}", "model.arpa"):
        (tmp_path / name).write_bytes(content)
        assert scores(NGramLM.open(tmp_path / name)) == scores(read(PLAIN))
    (tmp_path / f"plain.{suffix}").write_text(PLAIN)
    assert scores(NGramLM.open(tmp_path / f"plain.{suffix}")) == scores(read(PLAIN))
    path = tmp_path / f"broken.arpa.{suffix}"
    for at in range(6, len(content), 7):
        for broken in (content[:at], content[:at] + os.urandom(8) + content[at + 8 :]):
            path.write_bytes(broken)
            with pytest.raises(ValueError, match=rf"broken\.arpa\.{suffix}: ") as caught:
                NGramLM.open(path)
            assert "intact" in str(caught.value) or "line " in str(caught.value)
    path.write_bytes(content[:40])
    with pytest.raises(ValueError, match=rf"expected an intact \.{suffix} file: "):
        NGramLM.open(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"x" * 70_000, "line 1: expected lines of at most 65536 bytes"),
        (PLAIN.encode()[:-6] + b"\n" + b" " * 3_000_000, "line 24: expected lines of at most 65536 bytes"),
        (PLAIN.encode()[:-6] + b"\n" * 3_000_000, "expected fewer blank lines"),
        (b"not here\n" * 300_000, r"expected \\data\\ before so much else: this is no ARPA file"),
        (PLAIN.encode().replace(b"car", b"c" * 65_540), "line 11: expected lines of at most"),
    ],
)
def test_small_files_of_endless_content(tmp_path, content, message):
    (tmp_path / "model.arpa.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=rf"model\.arpa\.gz: (line \d+: )?{message}"):
        NGramLM.open(tmp_path / "model.arpa.gz")


def test_long_words_are_words(read):
    """And lines may be cut anywhere by the pieces that a file is read in."""
    word = "c" * 60_000
    assert read(PLAIN.replace("car", word).replace(f"red {word} </s>", "red red </s>")).word_id(word) == 4
