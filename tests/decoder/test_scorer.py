"""CTCBeamDecoder.from_scorer, against files of a writer of its own."""

import math
import string

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import CTCBeamDecoder, NGramLM
from tests.decoder.kenlm_writer import SMALL, kenlm_binary, quantise, trie_binary
from tests.decoder.scorer_writer import automaton, package

ALPHABET = [" ", *string.ascii_lowercase, "'"]
LABELS = [*ALPHABET, ""]
WORDS = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
STATES = automaton(WORDS, ALPHABET)
TRIE = trie_binary(SMALL, strings=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.scorer"


def emissions(seed: int) -> torch.Tensor:
    """Outputs in which the words are likely, among noise."""
    rng = np.random.default_rng(seed)
    text = " ".join(rng.choice(WORDS, 4))
    scores = torch.from_numpy(rng.standard_normal((3 * len(text), len(LABELS)))).float()
    for at, letter in enumerate(text):
        scores[3 * at, LABELS.index(letter)] += 3
        scores[3 * at + 1, len(LABELS) - 1] += 3
    return scores.log_softmax(-1)


@pytest.mark.parametrize(
    "options", [{}, {"fst_version": 2}, {"fst_version": 2, "flags": 4}, {"kind": "vector"}]
)
@pytest.mark.parametrize(
    "lm",
    [
        TRIE,
        trie_binary(SMALL, strings=False, pointer_limit=8),
        kenlm_binary(SMALL, strings=False),
        # With its words, which packages' tools leave out.
        trie_binary(SMALL),
        kenlm_binary(SMALL),
    ],
)
def test_decodes_as_its_parts(path, lm, options):
    path.write_bytes(package(lm, STATES, **options))
    decoder = CTCBeamDecoder.from_scorer(path, LABELS, beam_width=32, nbest=3)
    path.write_bytes(lm)
    parts = CTCBeamDecoder(
        LABELS, NGramLM.open(path), sorted(WORDS), alpha=0.75, beta=1.85, beam_width=32, nbest=3
    )
    texts = set()
    for seed in range(5):
        found, expected = decoder.decode(emissions(seed)), parts.decode(emissions(seed))
        assert [hypothesis.text for hypothesis in found] == [hypothesis.text for hypothesis in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-4)
        assert {*found[0].text.split()} <= {*WORDS}
        texts.add(found[0].text)
    assert len(texts) > 1


def test_options_of_the_user_go_first(path):
    path.write_bytes(package(TRIE, STATES))
    scores = emissions(0)
    of_package = CTCBeamDecoder.from_scorer(path, LABELS).decode(scores)[0]
    of_user = CTCBeamDecoder.from_scorer(path, LABELS, alpha=0.0, beta=0.0).decode(scores)[0]
    assert of_user.score == pytest.approx(of_user.am_score, abs=1e-4)
    assert abs(of_package.score - of_package.am_score) > 0.1


def test_words_that_the_model_does_not_know_are_left_out(path):
    """DeepSpeech gives them −1000, which no text survives."""
    path.write_bytes(package(TRIE, automaton([*WORDS, "sit"], ALPHABET)))
    for seed in range(3):
        assert "sit" not in CTCBeamDecoder.from_scorer(path, LABELS).decode(emissions(seed))[0].text.split()


def test_other_alphabets(path):
    """The blank may be anywhere, and letters of any kind."""
    alphabet = ["ö", "a", " ", "é"]
    model = {("<unk>",): (-2.0, 0.0), ("<s>",): (-99.0, -0.3), ("</s>",): (-1.0, 0.0), ("öa",): (-0.5, -0.1),
             ("aé",): (-0.7, 0.0), ("öa", "aé"): (-0.2, 0.0)}  # fmt: skip
    path.write_bytes(package(trie_binary(model, strings=False), automaton(["öa", "aé"], alphabet)))
    labels = ["<blank>", *alphabet]
    scores = torch.full((6, 5), -9.0)
    for frame, label in enumerate("öa aé"):
        scores[frame, labels.index(label)] = 0.0
    scores[5, 0] = 0.0
    assert CTCBeamDecoder.from_scorer(path, labels).decode(scores.log_softmax(-1))[0].text == "öa aé"


def loop() -> list:
    states = [(final, list(arcs)) for final, arcs in STATES]
    states[-1][1].append((1, 0))
    states[0][1].append((2, len(states) - 1))
    return states


def diamonds(count: int) -> list:
    """An automaton of 2^count words."""
    return [
        *((False, [(2, at + 1), (3, at + 1)]) for at in range(count)),
        (False, [(1, count + 1)]),
        (True, []),
    ]


def chain(letters: int) -> list:
    """An automaton of one word. To spell it letter by letter takes the square of its length."""
    return [
        *((False, [(2, at + 1)]) for at in range(letters)),
        (False, [(1, letters + 1)]),
        (True, []),
    ]


BAD = [
    (TRIE, "expected a scorer package, received a language model alone: NGramLM.open reads it"),
    (trie_binary(SMALL), "expected a scorer package, received a language model alone: NGramLM.open reads it"),
    (package(TRIE, STATES, is_bytes=True), r"expected a package of letters, received one for bytes \(UTF-8 mode"),
    (package(TRIE, STATES, version=5), "expected a package of version 6, received version 5"),
    (package(TRIE, STATES, magic=b"TRIE"), r"expected the end of the file, received \d+ bytes more"),
    (package(TRIE, STATES)[: len(TRIE) + 3], "package: expected 25 bytes, received the last 3 of the file"),
    (package(TRIE, STATES, alpha=math.nan), "expected finite alpha and beta, received nan and 1.85"),
    (package(TRIE, STATES, kind="compact"), "words: expected an FST of type 'const' or 'vector', received 'compact'"),
    (package(TRIE, STATES, fst_version=3), "words: expected an FST of version 1 or 2, received version 3"),
    (package(TRIE, STATES, flags=1), "words: expected an FST without symbols"),
    (package(TRIE, STATES, start=-1), "words: start: expected 0 to"),
    (package(TRIE, [(False, [(1, 7)]), (True, [])]), "words: next state: expected 0 to 1, received 7"),
    (package(TRIE, [(False, [(0, 1)]), (True, [])]), "words: label: expected 1 to 2147483647, received 0"),
    (package(TRIE, [(False, [(99, 1)]), (True, [])]), "labels: expected those of .* at least 100, received 29"),
    (package(TRIE, loop()), "words: expected an FST without cycles, received one that has one"),
    (package(TRIE, [(False, [(2, 0)])]), "words: expected an FST without cycles"),
    (package(TRIE, diamonds(60)), r"words: expected at most \d+ letters, as fit a file of this size, received more"),
    (package(TRIE, chain(200_000)), "words: expected at most 1000 letters each, received more"),
    (package(TRIE, [(False, [])]), "words: expected at least one, received none"),
    (package(TRIE, []), "words: expected at least 1 state, received 0"),
    (package(TRIE, [(False, [(2, 1)]), (True, [])]), "labels: .* in its order, received others: its words do not end"),
    (package(TRIE, automaton(["x", "y", "cat"], ALPHABET)), "labels: .* knows 1 of 3 words"),
    (package(TRIE, STATES)[:-1], r"arcs: expected \d+ bytes, received the last \d+ of the file: it is cut short"),
    (package(TRIE, STATES)[: len(TRIE) + 10], "package: expected 25 bytes, received the last 10 of the file"),
    (package(TRIE, STATES, kind="vector")[:-9], r"arcs: expected \d+ bytes, received the last \d+ of the file: it is cut short"),
    (package(trie_binary(SMALL, strings=False, codes=quantise(SMALL, (2, 2)))[:-5], STATES), "expected"),
]  # fmt: skip


@pytest.mark.parametrize("content, message", BAD, ids=range(len(BAD)))
def test_bad_packages(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.scorer: {message}"):
        CTCBeamDecoder.from_scorer(path, LABELS)


def test_bad_labels(path):
    path.write_bytes(package(TRIE, STATES))
    with pytest.raises(
        ValueError, match="labels: expected one label for the space between words, received 0"
    ):
        CTCBeamDecoder.from_scorer(path, ["x", *ALPHABET[1:], ""])
    with pytest.raises(
        ValueError, match="labels: expected those of the package's alphabet in its order, received"
    ):
        CTCBeamDecoder.from_scorer(path, [" ", *ALPHABET[:0:-1], ""])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16), st.binary(min_size=1, max_size=8))
def test_damaged_packages_never_crash(tmp_path_factory, at, damage):
    path = tmp_path_factory.getbasetemp() / "damaged.scorer"
    content = bytearray(package(TRIE, STATES))
    at = len(TRIE) + at % (len(content) - len(TRIE))
    content[at : at + len(damage)] = damage
    path.write_bytes(content)
    try:
        CTCBeamDecoder.from_scorer(path, LABELS)
    except ValueError as error:
        assert "expected" in str(error)
