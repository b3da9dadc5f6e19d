"""NGramLM.from_kenlm_binary, against files of a writer of its own: what the format's description says, in Python."""

import gzip
import math
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference
from tests.decoder.kenlm_writer import SMALL, kenlm_binary

WAY_OUT = "make it with `build_binary probing`, or read the ARPA file with NGramLM.from_arpa"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bin"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["the", "cat", "sat", "extraordinarily", "é"]), max_size=10),
    st.sampled_from([1.01, 1.5, 3.0]),
)
def test_equals_the_reference(tmp_path_factory, words, multiplier):
    path = tmp_path_factory.getbasetemp() / "small.bin"
    path.write_bytes(kenlm_binary(SMALL, multiplier=multiplier))
    lm = NGramLM.from_kenlm_binary(path)
    assert lm.order == 3 and set(lm.words) == {ngram[0] for ngram in SMALL if len(ngram) == 1}
    assert [lm.word_id(word) for word in lm.words] == list(range(len(lm.words)))
    actual = [score.log_prob for score in lm.full_scores(" ".join(words))]
    assert actual == pytest.approx(reference.score(SMALL, words), abs=1e-5)


@pytest.mark.parametrize("name", ["lj3k.o3", "lj3k.o4p"])
def test_equals_the_arpa_file(data_dir, tmp_path, path, name):
    arpa = tmp_path / "model.arpa"
    arpa.write_bytes(gzip.decompress((data_dir / "lm" / f"{name}.arpa.gz").read_bytes()))
    path.write_bytes(kenlm_binary(reference.read_arpa(arpa)))
    lm, expected = NGramLM.open(path), NGramLM.open(arpa)
    assert (lm.order, lm.words, lm.bos, lm.eos) == (
        expected.order,
        expected.words,
        expected.bos,
        expected.eos,
    )
    for sentence in (data_dir / "lm" / "lj.txt").read_text().splitlines()[3000:3100]:
        assert lm.full_scores(sentence) == expected.full_scores(sentence)
    lm.quantize().save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("strings", [False, True])
def test_kenlm_reads_what_the_writer_writes(path, strings):
    """So the writer is one of KenLM's format."""
    kenlm = pytest.importorskip("kenlm")
    path.write_bytes(kenlm_binary(SMALL, strings=strings))
    peer, lm = kenlm.Model(str(path)), NGramLM.from_kenlm_binary(path)
    for sentence in ("the cat sat", "a fat cat", "the the extraordinarily x cat", ""):
        expected = [(score[1], score[2]) for score in peer.full_scores(sentence)]
        assert [(score.order, score.unknown) for score in lm.full_scores(sentence)] == expected
        assert lm.score(sentence) == pytest.approx(peer.score(sentence), abs=1e-5)


def test_without_words_and_without_unk(path):
    model = {ngram: values for ngram, values in SMALL.items() if ngram != ("<unk>",)}
    path.write_bytes(kenlm_binary(model, strings=False))
    lm = NGramLM.from_kenlm_binary(path)
    assert lm.words == [] and lm.vocabulary_size == len({ngram[0] for ngram in SMALL if len(ngram) == 1})
    assert lm.full_scores("x", bos=False)[0].log_prob == -100
    assert lm.score("the cat") == pytest.approx(sum(reference.score(model, ["the", "cat"])), abs=1e-5)


@pytest.mark.parametrize(
    "kind, name",
    [
        (1, "probing with rest costs"),
        (2, "trie"),
        (3, "quantised trie"),
        (4, "trie with compressed pointers"),
        (5, "quantised trie with compressed pointers"),
        (9, "number 9"),
    ],
)
def test_refuses_other_types_by_name(path, kind, name):
    path.write_bytes(kenlm_binary(SMALL, kind=kind))
    with pytest.raises(
        ValueError, match=rf"model\.bin: expected type 'probing', received '{name}' .*: {WAY_OUT}"
    ):
        NGramLM.open(path)


def test_bad_files(path):
    good = kenlm_binary(SMALL)
    marks = [ngram for ngram in SMALL if ngram != ("</s>",)]
    for content, message in [
        (b"", "expected a binary file of KenLM, received something else"),
        (b"\\data\\\nngram 1=2\n", "expected a binary file of KenLM, received something else"),
        (kenlm_binary(SMALL, version=4), "expected format version 5 .* received 'format version 4'"),
        (good[:56] + good[60:], "expected format version 5 from a 64-bit little-endian machine"),
        (good[:88] + b"\7" + good[89:], "expected order 2 to 6, received 7"),
        (
            good[:92] + struct.pack("<f", 0.5) + good[96:],
            "expected a space multiplier of at least 1, received 0.5",
        ),
        (good[:92] + struct.pack("<f", math.nan) + good[96:], "expected a space multiplier of at least 1"),
        (good[:108] + struct.pack("<Q", 2**60) + good[116:], "expected counts that fit into"),
        (good[:100], r"expected at least \d+ bytes, received 100: the file is cut short"),
        (good[:300], r"expected at least \d+ bytes, received 300: the file is cut short"),
        (good[:-3], r"expected \d+ words at the end, <unk> first, received others"),
        (
            good[:136] + struct.pack("<II", 0, 3) + good[144:],
            "expected 2 words with ids below 3, received others",
        ),
        (
            kenlm_binary({n: SMALL[n] for n in marks if "</s>" not in n}),
            "expected the word </s>, received none",
        ),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"model\.bin: {message}"):
            NGramLM.from_kenlm_binary(path)


def floats(content: bytes, old: float, new: float) -> bytes:
    packed = struct.pack("<f", old)
    assert packed in content
    return content.replace(packed, struct.pack("<f", new))


def test_minus_infinity_is_minus_99(path):
    """build_binary keeps what an ARPA file has for <s>, whose probability never counts."""
    model = {**SMALL, ("<s>",): (-98.5, SMALL["<s>",][1])}
    path.write_bytes(kenlm_binary(model))
    expected = NGramLM.open(path)
    path.write_bytes(floats(kenlm_binary(model), -98.5, -math.inf))
    lm = NGramLM.open(path)
    assert lm.score("the fat cat") == expected.score("the fat cat")
    assert lm.full_scores("<s>", bos=False, eos=False)[0].log_prob == -99


@pytest.mark.parametrize("value", [math.nan, 1e7, -1e7, 3e38])
def test_numbers_beyond_all_sense(path, value):
    log_prob, backoff = next(values for ngram, values in SMALL.items() if len(ngram) == 2 and values[1] != 0)
    for old in (log_prob, -log_prob, backoff):
        content = kenlm_binary(SMALL)
        if struct.pack("<f", old) not in content:
            continue
        path.write_bytes(floats(content, old, value))
        with pytest.raises(
            ValueError, match=r"grams: expected log10 probabilities between -1e6 and 0 and back-off"
        ):
            NGramLM.from_kenlm_binary(path)


def test_keys_in_sequence_are_refused_soon(path):
    content = bytearray(kenlm_binary(SMALL, multiplier=1.5))
    count = 300_000
    header, counts = content[:108], struct.unpack("<3Q", content[108:132])
    slots = [int(np.float32(1.5) * np.float32(n)) for n in (*counts[:2], count)]
    words = 136 + 8 + 12 * max(slots[0], counts[0] + 1) + 8 * (counts[0] + 1)
    middle = 16 * max(slots[1], counts[1] + 1)
    longest = np.zeros(slots[2], np.dtype([("key", "<u8"), ("log_prob", "<f4")]))
    longest["key"][:count] = np.arange(1, count + 1)
    path.write_bytes(
        header + struct.pack("<3Q", *counts[:2], count) + content[132 : words + middle] + longest.tobytes()
    )
    began = time.process_time()
    with pytest.raises(
        ValueError, match=r"model\.bin: expected words and n-grams whose hashes are scattered"
    ):
        NGramLM.from_kenlm_binary(path)
    assert time.process_time() - began < 2


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**16), st.binary(min_size=1, max_size=8))
def test_damaged_files_never_crash(tmp_path_factory, at, damage):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(kenlm_binary(SMALL))
    at %= len(content)
    content[at : at + len(damage)] = damage
    path.write_bytes(content)
    try:
        lm = NGramLM.from_kenlm_binary(path)
    except ValueError as error:
        assert "damaged.bin: " in str(error) and "expected" in str(error)
    else:
        assert not math.isnan(lm.score("the fat cat sat x"))
