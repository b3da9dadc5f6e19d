"""NGramLM.from_kenlm_binary, against files of a writer of its own: what the format's description says, in Python."""

import gzip
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference

WAY_OUT = "make it with `build_binary probing`, or read the ARPA file with NGramLM.from_arpa"


def murmur_hash(data: bytes) -> int:
    """MurmurHash64A, seed 0."""
    m, mask = 0xC6A4A7935BD1E995, 2**64 - 1
    value = len(data) * m & mask
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        k = int.from_bytes(data[i : i + 8], "little") * m & mask
        value = (value ^ (k ^ k >> 47) * m & mask) * m & mask
    if data[whole:]:
        value = (value ^ int.from_bytes(data[whole:], "little")) * m & mask
    value = (value ^ value >> 47) * m & mask
    return value ^ value >> 47


def hash_table(entries: dict[int, bytes], count: int, multiplier: float, width: int) -> bytes:
    """Slots (key, value of ``width`` bytes), as many as ``count`` entries get."""
    buckets = max(count + 1, int(np.float32(multiplier) * np.float32(count)))
    table = [bytes(8 + width)] * buckets
    for key, value in entries.items():
        at = key % buckets
        while any(table[at]):
            at = (at + 1) % buckets
        table[at] = struct.pack("<Q", key) + value
    return b"".join(table)


def kenlm_binary(
    model: reference.Model, *, kind: int = 0, strings: bool = True, multiplier: float = 1.5, version: int = 5
) -> bytes:
    """What ``build_binary probing`` makes of a model in which no beginning and no end of an n-gram is missing."""
    order = max(map(len, model))
    words = ["<unk>", *(ngram[0] for ngram in model if len(ngram) == 1 and ngram != ("<unk>",))]
    ids = {word: i for i, word in enumerate(words)}
    counts = [sum(len(ngram) == n for ngram in model) for n in range(1, order + 1)]
    contexts, ends = {ngram[:-1] for ngram in model}, {ngram[1:] for ngram in model}

    def value(ngram: tuple[str, ...]) -> bytes:
        log_prob, backoff = model.get(ngram, (-100, 0))
        log_prob = math.copysign(log_prob, 1 if ngram in ends else -1)
        if backoff == 0:
            backoff = 0.0 if ngram in contexts else -0.0
        return struct.pack("<ff", log_prob, backoff)[: 4 if len(ngram) == order else 8]

    def key(ngram: tuple[str, ...]) -> int:
        result = ids[ngram[-1]]
        for word in ngram[-2::-1]:
            result = (result * 8978948897894561157 ^ (1 + ids[word]) * 17894857484156487943) % 2**64
        return result

    header = (b"mmap lm http://kheafield.com/code format version %d\n\0" % version).ljust(56, b"\0")
    header += struct.pack("<fffIIIQ", 0, 1, -0.5, 1, 0xFFFFFFFF, 0, 1)
    header += struct.pack("<BxxxfI?xxxI", order, multiplier, kind, strings, int(kind > 1))
    header += struct.pack(f"<{order}Q", *counts)
    parts = [header, bytes(-len(header) % 8), struct.pack("<II", 0, len(words))]
    known = {murmur_hash(word.encode()): struct.pack("<I", i) for word, i in ids.items() if i}
    parts.append(hash_table(known, counts[0], multiplier, 4))
    parts += [value((word,)) for word in words]
    parts.append(bytes(8 * (counts[0] + 1 - len(words))))
    for n in range(2, order + 1):
        entries = {key(ngram): value(ngram) for ngram in model if len(ngram) == n}
        parts.append(hash_table(entries, counts[n - 1], multiplier, 4 if n == order else 8))
    if strings:
        parts += [word.encode() + b"\0" for word in words]
    return b"".join(parts)


SMALL = reference.kneser_ney(
    [["the", "cat", "sat"], ["the", "extraordinarily", "fat", "cat"], ["a", "cat"]],
    3,
    (0, 0, 0),
    (0.5, 1, 1.5),
)


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
        assert "damaged.bin: expected" in str(error)
    else:
        assert not math.isnan(lm.score("the fat cat sat x"))
