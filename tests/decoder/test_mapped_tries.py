"""KenLM's tries asked where they lie in the file give bit for bit what the converted ones give."""

import gzip
import json
import math
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import CTCBeamDecoder, NGramLM, _kenlm_binary
from asrkern.ops import ctc_beam_search
from tests.decoder.kenlm_writer import SMALL, kenlm_binary, quantise, trie_binary
from tests.decoder.test_kenlm_binary import random_model

LABELS = ["", *"abcdefghijklmnopqrstuvwxyz'é "]
TRIES = {
    "plain": lambda: trie_binary(SMALL),
    "quantised": lambda: trie_binary(SMALL, codes=quantise(SMALL, (8, 8))),
    "compressed": lambda: trie_binary(SMALL, pointer_limit=22),
    "both": lambda: trie_binary(SMALL, codes=quantise(SMALL, (8, 6)), pointer_limit=1),
    "without words": lambda: trie_binary(SMALL, strings=False),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trie.bin"


def both(path) -> tuple[NGramLM, NGramLM]:
    """(mapped, converted)"""
    mapped = NGramLM.from_kenlm_binary(path, mapped=True)
    converted = NGramLM.from_kenlm_binary(path, mapped=False)
    assert mapped.is_mapped and not converted.is_mapped
    return mapped, converted


def assert_equal(mapped: NGramLM, converted: NGramLM, sentences: list[str]) -> None:
    assert (mapped.order, mapped.bos, mapped.eos) == (converted.order, converted.bos, converted.eos)
    assert mapped.words == converted.words and mapped.vocabulary_size == converted.vocabulary_size
    for bos in (True, False):
        assert torch.equal(mapped.score_batch(sentences, bos), converted.score_batch(sentences, bos))
        for sentence in sentences:
            assert mapped.full_scores(sentence, bos) == converted.full_scores(sentence, bos)
            state, other = mapped.start(bos), converted.start(bos)
            for word in sentence.split():
                (score, state), (expected, other) = mapped.step(state, word), converted.step(other, word)
                assert score == expected and state == other and hash(state) == hash(other)


def test_equal_kenlm(data_dir, path):
    folder = data_dir / "lm" / "kenlm_binaries"
    sentences = (folder / "probe.txt").read_text().splitlines()
    tries = {
        name: scores
        for name, scores in json.loads((folder / "scores.json").read_text()).items()
        if "trie" in name
    }
    assert len(tries) == 6
    for name, expected in tries.items():
        path.write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
        mapped, converted = both(path)
        assert_equal(mapped, converted, sentences)
        for sentence, words in zip(sentences, expected, strict=True):
            actual = mapped.full_scores(sentence)
            assert [score.order for score in actual] == [length for length, _ in words], name
            assert [score.log_prob for score in actual] == pytest.approx([p for _, p in words], abs=1e-6), (
                name
            )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equal_the_converted(tmp_path_factory, seed):
    """Any order, any bits of values and pointers, few n-grams and many."""
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.getbasetemp() / "mapped.bin"
    words = ["the", "cat", "é", *map(str, range(rng.choice([1, 30, 300])))]
    model = random_model(rng, int(rng.integers(2, 7)), int(rng.choice([1, 4, 40, 200])), words)
    codes = (
        quantise(model, (int(rng.integers(1, 12)), int(rng.integers(2, 12)))) if rng.random() < 0.5 else None
    )
    pointer_limit = int(rng.choice([0, 1, 3, 255])) if rng.random() < 0.5 else None
    path.write_bytes(trie_binary(model, codes=codes, pointer_limit=pointer_limit))
    # Some sentences of the model's own n-grams, so that long ones are found.
    longest = [ngram for ngram in model if len(ngram) > 1]
    chosen = [longest[i] for i in rng.integers(len(longest), size=6)]
    sentences = ["", *(" ".join(word for word in ngram if word not in ("<s>", "</s>")) for ngram in chosen)]
    sentences += [" ".join(rng.choice([*words, "zebra"], rng.integers(0, 12))) for _ in range(5)]
    assert_equal(*both(path), [*sentences, " ".join(sentences)])


def test_blocks_of_many_words(path):
    """Of more words than are looked up together, in sentences of all lengths."""
    rng = np.random.default_rng(0)
    words = [str(i) for i in range(50)]
    path.write_bytes(trie_binary(random_model(rng, 4, 300, words)))
    mapped, converted = both(path)
    sentences = [" ".join(rng.choice(words, n)) for n in (0, 1, 2, 3, 254, 255, 256, 257, 1000, 5, 0)]
    scores = mapped.score_batch(sentences)
    assert torch.equal(scores, converted.score_batch(sentences))
    assert scores.tolist() == [mapped.score(sentence) for sentence in sentences]


@pytest.mark.parametrize("kind", TRIES)
def test_beam_search(path, kind):
    path.write_bytes(TRIES[kind]())
    words = ["the", "cat", "sat", "extraordinarily", "fat", "a"]
    log_probs = torch.randn(3, 40, len(LABELS), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    for options in ({"lexicon": words}, {"lexicon": words, "unk_score": -3.0}):
        mapped, converted = (
            CTCBeamDecoder(LABELS, lm, blank=0, beam_width=16, **options) for lm in both(path)
        )
        expected = converted.decode(log_probs)
        assert mapped.decode(log_probs) == expected and all(expected)
        state = mapped.start()
        for frames in log_probs[0].split(7):
            mapped.step(state, frames)
        assert mapped.finish(state) == expected[0]


def test_beam_search_with_a_model_of_characters(path):
    rng = np.random.default_rng(1)
    path.write_bytes(trie_binary(random_model(rng, 4, 200, [*"abcdé", "|"])))
    log_probs = torch.randn(60, len(LABELS), generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    found = [
        CTCBeamDecoder(LABELS, lm, blank=0, beam_width=20).decode(log_probs)
        for lm in (
            NGramLM.from_kenlm_binary(path, unit="character", mapped=mapped) for mapped in (True, False)
        )
    ]
    assert found[0] == found[1] and found[0][0].text


def test_what_needs_tables_converts(path, tmp_path):
    path.write_bytes(trie_binary(SMALL, pointer_limit=8))
    mapped, converted = both(path)
    sentences = ["the fat cat sat", "", "zebra a cat"]
    expected = converted.score_batch(sentences)
    mapped.save(tmp_path / "model.safetensors")
    mapped.to_arpa(tmp_path / "model.arpa")
    for lm in (
        mapped.converted(),
        NGramLM.open(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(mapped)),
    ):
        assert torch.equal(lm.score_batch(sentences), expected) and lm.words == converted.words
    assert not mapped.converted().is_mapped and converted.converted() is converted
    torch.testing.assert_close(
        NGramLM.open(tmp_path / "model.arpa").score_batch(sentences), expected, atol=1e-5, rtol=0
    )
    assert torch.equal(mapped.quantize().score_batch(sentences), converted.quantize().score_batch(sentences))
    assert mapped.to("meta").tensors.keys() == converted.tensors.keys()
    assert "mapped" in repr(mapped) and "mapped" not in repr(converted)
    assert mapped.perplexity(sentences) == converted.perplexity(sentences)
    assert torch.equal(
        mapped.prune(0.01).score_batch(sentences), converted.prune(0.01).score_batch(sentences)
    )


def test_words_of_the_user(path):
    path.write_bytes(trie_binary(SMALL, strings=False))
    words = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
    lm = NGramLM.from_kenlm_binary(path, words=words, mapped=True)
    assert [lm.word_id(word) for word in lm.words] == list(range(lm.vocabulary_size))


def test_which_files_are_mapped(path, monkeypatch):
    path.write_bytes(trie_binary(SMALL))
    assert not NGramLM.open(path).is_mapped and NGramLM.open(path, mapped=True).is_mapped
    monkeypatch.setattr(_kenlm_binary, "MAPPED_BYTES", path.stat().st_size - 1)
    assert NGramLM.open(path).is_mapped and not NGramLM.open(path, mapped=False).is_mapped
    path.write_bytes(kenlm_binary(SMALL))
    assert not NGramLM.open(path).is_mapped
    with pytest.raises(
        ValueError, match=r"trie\.bin: expected a trie, which can be mapped, received 'probing'"
    ):
        NGramLM.open(path, mapped=True)


def test_memory(path):
    """Beside the file: the words' values, and a byte for each to find them."""
    rng = np.random.default_rng(0)
    path.write_bytes(trie_binary(random_model(rng, 3, 300, [str(i) for i in range(300)])))
    lm = NGramLM.open(path, mapped=True)
    beside = [tensor.nbytes for name, tensor in lm.tensors.items() if name not in ("trie", "strings")]
    assert sum(beside) == 8 * lm.vocabulary_size + 8 * (2 + lm.order)
    address = path.read_bytes()
    for name in ("trie", "strings"):
        assert lm.tensors[name].numpy().tobytes() in address


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e7, -1e7, 3e38])
def test_numbers_beyond_all_sense(path, value):
    """Refused when all is read. Else they count as in a model that has −99, or no weight."""
    log_prob, backoff = next(v for n, v in SMALL.items() if n == ("cat",))
    content, place = trie_binary(SMALL), struct.pack("<ff", log_prob, backoff)
    assert content.count(place) == 1
    for bad, good in (((value, backoff), (-99.0, backoff)), ((log_prob, value), (log_prob, -0.0))):
        path.write_bytes(content.replace(place, struct.pack("<ff", *good)))
        expected = NGramLM.open(path, mapped=True).full_scores("cat cat fat cat")
        path.write_bytes(content.replace(place, struct.pack("<ff", *bad)))
        if bad[0] != math.inf:
            with pytest.raises(ValueError, match="unigrams: expected log10 probabilities between -1e6 and 0"):
                NGramLM.open(path, mapped=True)
        assert NGramLM.open(path, mapped=True, verify=False).full_scores("cat cat fat cat") == expected


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(TRIES)), st.integers(0, 2**16), st.binary(min_size=1, max_size=8))
def test_damaged_files_never_crash(tmp_path_factory, kind, at, damage):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(TRIES[kind]())
    at %= len(content)
    content[at : at + len(damage)] = damage
    path.write_bytes(content)
    try:
        lm = NGramLM.from_kenlm_binary(path, mapped=True, verify=False)
    except ValueError as error:
        assert "damaged.bin: " in str(error) and "expected" in str(error)
        with pytest.raises(ValueError, match="expected"):
            NGramLM.from_kenlm_binary(path)
        return
    assert all(math.isfinite(score.log_prob) for score in lm.full_scores("the fat cat sat x"))
    try:
        converted = NGramLM.from_kenlm_binary(path)
    except ValueError:
        with pytest.raises(ValueError, match="expected"):
            NGramLM.from_kenlm_binary(path, mapped=True, verify=True)
    else:
        assert lm.full_scores("the fat cat sat x") == converted.full_scores("the fat cat sat x")


def test_states_of_other_models(path):
    """A state's words may be more than the trie has."""
    path.write_bytes(trie_binary(SMALL))
    lm = NGramLM.open(path, mapped=True)
    state = lm.start()
    assert state.words == [lm.bos]
    pickled = pickle.dumps(state)
    place = struct.pack("<i", lm.bos) + bytes(16)
    assert pickled.count(place) == 1
    for word in (-1, -(2**31), 2**31 - 1, lm.vocabulary_size):
        other = pickle.loads(pickled.replace(place, struct.pack("<i", word) + bytes(16)))
        assert math.isfinite(lm.step(other, "cat")[0])


def test_operation_checks_tries(path):
    path.write_bytes(trie_binary(SMALL))
    lm = NGramLM.open(path, mapped=True)
    decoder = CTCBeamDecoder(LABELS, lm, blank=0)
    unigrams, trie, shape = decoder.context.language_model
    log_probs = torch.zeros(1, 3, len(LABELS)).log_softmax(-1)

    def search(*tensors, **fields):
        context = decoder.context._replace(language_model=tensors, **fields)
        return ctc_beam_search(log_probs, context=context, beam_width=4)

    search(unigrams, trie, shape)
    for tensors, fields, message in [
        ((unigrams, trie[:-1], shape), {}, "expected .* bytes, received the last"),
        ((unigrams, trie, shape[:-1]), {}, "expected"),
        ((unigrams, trie, shape[:3]), {}, "counts: expected 2 to 6, received 1"),
        ((unigrams, trie, torch.cat([shape[:2], -shape[2:]])), {}, "expected counts that fit into"),
        ((unigrams[1:], trie, shape), {}, "language_model: expected a trie of order 3 with"),
        ((unigrams, trie, shape), {"lm_order": 2}, "language_model: expected a trie of order 2 with"),
        ((unigrams, trie, shape.int()), {}, "language_model: expected dtype int64"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            search(*tensors, **fields)
