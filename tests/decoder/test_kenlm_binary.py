"""NGramLM.from_kenlm_binary, against files of a writer of its own: what the format's description says, in Python."""

import gzip
import json
import math
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference
from tests.decoder.kenlm_writer import (
    SMALL,
    kenlm_binary,
    left_out_bits,
    quantise,
    quantised_model,
    trie_binary,
)

WAY_OUT = "make it anew with KenLM's build_binary, or read the ARPA file with NGramLM.from_arpa"
VOCABULARY = ["the", "cat", "sat", "extraordinarily", "é", "a", "on"]
KINDS = {
    "probing": lambda model: kenlm_binary(model),
    "rest costs": lambda model: kenlm_binary(model, kind=1, multiplier=1.2),
    "trie": lambda model: trie_binary(model),
    "quantised": lambda model: trie_binary(model, codes=quantise(model, (8, 8))),
    "compressed": lambda model: trie_binary(model, pointer_limit=22),
    "both": lambda model: trie_binary(model, codes=quantise(model, (8, 6)), pointer_limit=1),
}


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
@pytest.mark.parametrize("kind", KINDS)
def test_kenlm_reads_what_the_writer_writes(path, kind, strings):
    """So the writer is one of KenLM's format."""
    kenlm = pytest.importorskip("kenlm")
    write = KINDS[kind]
    path.write_bytes(write(SMALL))
    peer, lm = kenlm.Model(str(path)), NGramLM.from_kenlm_binary(path)
    for sentence in ("the cat sat", "a fat cat", "the the extraordinarily x cat", ""):
        expected = [(score[1], score[2]) for score in peer.full_scores(sentence)]
        assert [(score.order, score.unknown) for score in lm.full_scores(sentence)] == expected
        assert lm.score(sentence) == pytest.approx(peer.score(sentence), abs=1e-5)


def random_model(rng, order, sentences, vocabulary):
    """A model of random text, with probabilities and back-off weights of its own, some of them 0."""
    text = [list(rng.choice(vocabulary, rng.integers(1, 9))) for _ in range(sentences)]
    model = reference.kneser_ney(text, order, (0,) * order, (0.5, 1, 1.5))
    return {
        ngram: (float(np.float32(log_prob)), float(np.float32(backoff)) * (rng.random() < 0.8))
        for ngram, (log_prob, backoff) in model.items()
    }


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_tries_equal_the_reference(tmp_path_factory, seed):
    """Any order, any bits of values and pointers, few n-grams and many."""
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.getbasetemp() / "trie.bin"
    words = [*VOCABULARY, *map(str, range(rng.choice([1, 30])))]
    model = random_model(rng, int(rng.integers(2, 7)), int(rng.choice([1, 4, 40])), words)
    codes = (
        quantise(model, (int(rng.integers(1, 12)), int(rng.integers(2, 12)))) if rng.random() < 0.5 else None
    )
    pointer_limit = int(rng.choice([0, 1, 3, 255])) if rng.random() < 0.5 else None
    path.write_bytes(trie_binary(model, codes=codes, pointer_limit=pointer_limit))
    lm = NGramLM.open(path)
    assert [lm.word_id(word) for word in lm.words] == list(range(lm.vocabulary_size))
    expected = quantised_model(model, codes) if codes else model
    for _ in range(5):
        sentence = list(rng.choice([*words, "zebra"], rng.integers(0, 12)))
        actual = lm.full_scores(" ".join(sentence))
        assert [score.log_prob for score in actual] == pytest.approx(
            reference.score(expected, sentence), abs=1e-5
        )
        context = ["<s>", *(word if (word,) in model else "<unk>" for word in sentence), "</s>"]
        lengths = [
            max(n for n in range(1, min(lm.order, at + 1) + 1) if n == 1 or tuple(context[at - n + 1 : at + 1]) in model)
            for at in range(1, len(context))
        ]  # fmt: skip
        assert [score.order for score in actual] == lengths


def test_equals_kenlm(data_dir, path):
    """Lengths and scores that KenLM's own query gives of files of its own build_binary."""
    folder = data_dir / "lm" / "kenlm_binaries"
    sentences = (folder / "probe.txt").read_text().splitlines()
    for name, expected in json.loads((folder / "scores.json").read_text()).items():
        path.write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        lm = NGramLM.open(path)
        for sentence, words in zip(sentences, expected, strict=True):
            actual = lm.full_scores(sentence)
            assert [score.order for score in actual] == [length for length, _ in words], name
            assert [score.log_prob for score in actual] == pytest.approx([p for _, p in words], abs=1e-5), (
                name
            )
        assert (lm.words == []) == ("novocab" in name)


def test_without_words_and_without_unk(path):
    model = {ngram: values for ngram, values in SMALL.items() if ngram != ("<unk>",)}
    path.write_bytes(kenlm_binary(model, strings=False))
    lm = NGramLM.from_kenlm_binary(path)
    assert lm.words == [] and lm.vocabulary_size == len({ngram[0] for ngram in SMALL if len(ngram) == 1})
    assert lm.full_scores("x", bos=False)[0].log_prob == -100
    assert lm.score("the cat") == pytest.approx(sum(reference.score(model, ["the", "cat"])), abs=1e-5)


@pytest.mark.parametrize("write", [kenlm_binary, trie_binary])
def test_words_of_the_user_for_files_without(path, write):
    path.write_bytes(write(SMALL, strings=False))
    words = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
    lm = NGramLM.from_kenlm_binary(path, words=[*words[::-1], "zebra", words[0]])
    assert sorted(lm.words) == sorted([*words, "<unk>", "<s>", "</s>"])
    assert [lm.word_id(word) for word in lm.words] == list(range(lm.vocabulary_size))
    with pytest.raises(
        ValueError, match=r"words: expected all 9 words of the model, received none for 1 of them"
    ):
        NGramLM.from_kenlm_binary(path, words=words[1:])
    with pytest.raises(TypeError, match="words: expected several of them, received the string 'cat'"):
        NGramLM.from_kenlm_binary(path, words="cat")


def test_end_of_compressed_pointers_before_2014(path):
    """KenLM wrote the last pointer's upper bits one record too late until June 2014: it is known without them."""
    texts = ["the cat", "é on a", "sat sat the"]
    model = random_model(np.random.default_rng(0), 3, 200, [*VOCABULARY, *map(str, range(10))])
    for ngram in [ngram for ngram in model if len(ngram) == 3]:
        words, bigrams, trigrams = (sum(len(ngram) == n for ngram in model) for n in (1, 2, 3))
        good = trie_binary(model, pointer_limit=255)
        next_bits = trigrams.bit_length() - left_out_bits(bigrams + 1, trigrams, 255)
        # Header, vocabulary, unigrams, the pointers' header; then the offsets.
        at = 136 + 8 + 8 * words + 16 * (words + 2) + 8 + 8 * (trigrams >> next_bits)
        if struct.unpack_from("<Q", good, at) == (bigrams,):
            break
        del model[ngram]
    else:
        pytest.fail("expected a model whose last pointer has upper bits of its own")
    path.write_bytes(good)
    expected = NGramLM.open(path).score_batch(texts).tolist()
    path.write_bytes(good[:at] + struct.pack("<Q", bigrams + 1) + good[at + 8 :])
    assert NGramLM.open(path).score_batch(texts).tolist() == expected


def test_bad_files(path):
    good = kenlm_binary(SMALL)
    old = good[:76] + good[80:]
    marks = [ngram for ngram in SMALL if ngram != ("</s>",)]
    words = sum(len(ngram) == 1 for ngram in SMALL)
    for content, message in [
        (b"", "expected a binary file of KenLM, received something else"),
        (b"\\data\\\nngram 1=2\n", "expected a binary file of KenLM, received something else"),
        (kenlm_binary(SMALL, version=4), "expected format version 5 .* received 'format version 4'"),
        (good[:56] + good[60:], "expected format version 5 from a 64-bit little-endian machine"),
        (old, f"expected format version 5 .* received 'format version 5' from a 32-bit machine: {WAY_OUT}"),
        (
            good.replace(b"format version 5", b"incomplete\n\0\0\0\0\0"),
            "expected a whole file, received one that KenLM did not finish",
        ),
        (good[:96] + b"\t" + good[97:], "expected a type up to 5, received 9"),
        (good[:104] + b"\1" + good[105:], "expected version 0 of the type 'probing', received version 1"),
        (good[:88] + b"\7" + good[89:], "expected order 2 to 6, received 7"),
        (
            good[:92] + struct.pack("<f", 0.5) + good[96:],
            "expected a space multiplier of at least 1, received 0.5",
        ),
        (good[:92] + struct.pack("<f", math.nan) + good[96:], "expected a space multiplier of at least 1"),
        (good[:108] + struct.pack("<Q", 2**60) + good[116:], "expected counts that fit into"),
        (good[:100], r"expected at least \d+ bytes, received 100: the file is cut short"),
        (good[:300], r"expected at least \d+ bytes, received 300: the file is cut short"),
        (good[:-1], rf"expected {words} words at the end, received {words - 1}: the file is cut short"),
        (
            good.replace(b"<unk>\0", b"<UNK>\0"),
            "expected words without line feeds, <unk> first, received others",
        ),
        (good[:-2] + b"\n\0", "expected words without line feeds, <unk> first, received others"),
        (good + b"more", "expected the end of the file, received 4 bytes more"),
        (good[:100] + b"\0" + good[101:], "expected no words, as the header says, received some"),
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


def test_bad_tries(path):
    plain, quantised = trie_binary(SMALL), trie_binary(SMALL, codes=quantise(SMALL, (3, 3)))
    compressed = trie_binary(SMALL, pointer_limit=22)
    counts = [sum(len(ngram) == n for ngram in SMALL) for n in (1, 2, 3)]
    hashes = 136 + 8
    after = hashes + 8 * counts[0]  # unigrams, or the quantisation
    records = after + 16 * (counts[0] + 2)
    word_bits = counts[0].bit_length()

    def changed(content: bytes, at: int, new: bytes) -> bytes:
        return content[:at] + new + content[at + len(new) :]

    bigram = int.from_bytes(plain[records : records + 8], "little")
    for content, message in [
        (changed(plain, 136, struct.pack("<Q", counts[0])), rf"expected less than {counts[0]} words beside <unk>"),
        (changed(plain, hashes, b"\xff" * 8), "expected words in the order of their hashes, each once, .* word 2 out"),
        (changed(plain, 104, b"\0"), "expected version 1 of the type 'trie', received version 0"),
        (changed(plain, 108, struct.pack("<Q", 2**40)), r"expected counts that fit into \d+ bytes, received 10995"),
        (changed(plain, 108, struct.pack("<Q", 0)), r"expected 1 to 2\^31 - 1 words, received 0"),
        (changed(plain, 116, struct.pack("<Q", counts[1] + 1)), "3-grams: expected a word"),
        (plain[:records - 3], r"1-grams: expected \d+ bytes, received the last \d+ of the file: it is cut short"),
        (plain[:records + 10], r"2-grams: expected \d+ bytes, received the last 10 of the file: it is cut short"),
        (plain[:140], "vocabulary: expected 8 bytes, received the last 4 of the file"),
        (plain[:120], r"expected at least 132 bytes, received 120: the file is cut short"),
        (plain[:133], r"expected at least 136 bytes, received 133: the file is cut short"),
        (changed(quantised, after, b"\1"), "expected quantisation of version 2, received version 1"),
        (changed(quantised, after + 1, b"\0"), "expected 1 to 25 bits for a value, received 0 and 3"),
        (changed(quantised, after + 2, b"\x1a"), "expected 1 to 25 bits for a value, received 3 and 26"),
        (changed(quantised, after + 1, b"\x19"), "quantisation: expected 134217728 bytes"),
        (changed(compressed, records, b"\1"), "expected compressed pointers of version 0, received version 1"),
        # The first unigram's pointer, the one after it, and one that jumps back.
        (changed(plain, after + 8, struct.pack("<Q", 1)), "expected pointers to 2-grams that grow from 0 to at most"),
        (changed(plain, after + 24, struct.pack("<Q", 2**63)), "expected pointers to 2-grams that grow from 0 to"),
        (changed(plain, after + 16 * counts[0] + 8, bytes(8)), "expected pointers to 2-grams that grow from"),
        # The first bigram's word, which is below those of the vocabulary, and beyond them.
        (changed(plain, records, struct.pack("<Q", bigram | (1 << word_bits) - 1)), "2-grams: expected a word after -1"),
    ]:  # fmt: skip
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
@given(st.sampled_from(list(KINDS)), st.integers(0, 2**16), st.binary(min_size=1, max_size=8))
def test_damaged_files_never_crash(tmp_path_factory, kind, at, damage):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(KINDS[kind](SMALL))
    at %= len(content)
    content[at : at + len(damage)] = damage
    path.write_bytes(content)
    try:
        lm = NGramLM.from_kenlm_binary(path)
    except ValueError as error:
        assert "damaged.bin: " in str(error) and "expected" in str(error)
    else:
        assert not math.isnan(lm.score("the fat cat sat x"))
