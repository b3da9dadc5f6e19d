"""Streams of hours: words told once, bounded work and memory, saved states from anywhere."""

import math
import pickle
import struct

import numpy as np
import pytest
import torch

from asrkern import ops
from asrkern.decoder import CTCBeamDecoder
from asrkern.reference.ctc_beam_search import ctc_beam_search
from tests.decoder.models import PrefixDecoder, random_log_probs, small_lm
from tests.decoder.states import with_checksum
from tests.decoder.test_beam import LETTERS, PIECES, WORDS, options_of, reference_context

DECODERS = {
    "letters": (LETTERS, 0, {}),
    "words": (LETTERS, 0, options_of("everything")[0]),
    "closed": (LETTERS, 0, options_of("closed")[0]),
    "pieces": (PIECES, 1, options_of("open")[0]),
    "each label a word": (["-", "a", "b", "ab"], 0, {}),
    "best alignment": (LETTERS, 0, {"log_add": False}),
    "pruned": (LETTERS, 0, {"token_min_logp": -3.0, "beam_prune_logp": -6.0}),
    "short history": (LETTERS, 0, {"history": 10}),
    "spelled otherwise": (
        LETTERS,
        0,
        {
            "lexicon": {"Ab": [["a", "b"]], "AB": [["a", "b"]], "C": [["c"], ["b", "a"]]},
            "lm": small_lm(["AB", "C"]),
        },
    ),
}


def make(name, kind=CTCBeamDecoder, **more):
    labels, blank, options = DECODERS[name]
    return kind(labels, blank=blank, **{"beam_width": 12, "nbest": 4, **options, **more})


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_words_are_told_once_and_stay(name, sharpness):
    decoder = make(name)
    log_probs = random_log_probs(700, len(decoder.labels), sharpness=sharpness)
    state, words, at = decoder.start(), [], 0
    while at < len(log_probs):
        size = int(torch.randint(1, 40, ()))
        decoder.step(state, log_probs[at : at + size])
        at += size
        found = decoder.partial(state, after=len(words))
        words += found.words
        assert found.word_count == len(words)
        best = found.hypothesis
        assert best.words[: len(words)] == words
        assert found.tail == decoder.join(best.words[len(words) :])
        assert best.text.startswith(found.stable_text)
        if at % 3 == 0:
            state = pickle.loads(pickle.dumps(state))
        assert found.stable_tokens == state.stable_tokens
    assert words or sharpness < 2
    finished = decoder.finish(state)
    # To the last bit: tokens, times, confidences and scores.
    assert finished == decoder.decode(log_probs) == decoder.finish(state)
    assert all(h.words[: len(words)] == words for h in finished)


def test_partials_stay_what_they_were():
    """What is made of one later is of then."""
    decoder = make("words", beam_prune_logp=-8.0)
    log_probs = random_log_probs(300, 5, sharpness=3.0)
    state, others = decoder.start(), decoder.start()
    decoder.step(state, log_probs[:120])
    decoder.step(others, log_probs[:120])
    early, expected = decoder.partial(state), decoder.partial(others)
    assert expected.hypothesis.words
    decoder.step(state, log_probs[120:])
    decoder.partial(state)
    assert early.hypothesis == expected.hypothesis and early.stable_text == expected.stable_text
    assert decoder.partial(state, after=decoder.partial(state).word_count).words == []
    for after in (-1, 10**6, 2**31, 2.5, True):
        with pytest.raises(ValueError, match="after: expected"):
            decoder.partial(state, after=after)


@pytest.mark.numbers
@pytest.mark.parametrize("name", ["letters", "words", "each label a word"])
def test_history_is_the_references(name):
    labels, blank, options = DECODERS[name]
    context = {"context": reference_context(labels, blank, **options_of("everything")[1])} if options else {}
    log_probs = random_log_probs(330, len(labels), sharpness=2.0)
    found = {}
    for limit in (4, 30, None):
        found[limit] = make(name, PrefixDecoder, history=limit, nbest=12).decode(log_probs)
        expected = ctc_beam_search(log_probs.tolist(), blank, 12, history=limit or 10**9, **context)
        assert [tuple(h.tokens) for h in found[limit]] == [h.tokens for h in expected]
        assert all(abs(h.score - wanted.score) < 1e-3 for h, wanted in zip(found[limit], expected))
    assert found[None] not in (found[4], found[30])


def work(decoder, log_probs, state, chunk=50):
    """The most tokens that a partial result read, and bytes of the trees, over these frames."""
    tokens, size, told = 0, 0, decoder.partial(state).word_count
    for part in log_probs.split(chunk):
        decoder.step(state, part)
        found = decoder.partial(state, after=told)
        told = found.word_count
        tokens, size = max(tokens, len(found._best[2])), max(size, state.tree_bytes)
    return tokens, size


@pytest.mark.parametrize("kind", ["noise", "the same again", "equal scores"])
def test_work_and_memory_do_not_grow(kind):
    """In each minute of ten, at 50 frames a second, as in the second, where prefixes never agree by themselves."""
    decoder = CTCBeamDecoder([*LETTERS, *"defghij"], beam_width=10)
    vocabulary, minute = len(decoder.labels), 3000
    if kind == "the same again":
        log_probs = random_log_probs(100, vocabulary).repeat(10 * minute // 100, 1)
    elif kind == "noise":
        log_probs = random_log_probs(10 * minute, vocabulary)
    else:
        log_probs = torch.zeros(10 * minute, vocabulary).log_softmax(-1)
    state = decoder.start()
    minutes = [work(decoder, part, state) for part in log_probs.split(minute)]
    words = decoder.partial(state).word_count
    assert words > 20 or kind == "equal scores"
    tokens, sizes = zip(*minutes)
    # What history allows, what comes until it is looked at again, and a word.
    assert max(tokens) <= 512 + 256 + 64 + 50 + 60
    assert max(sizes[2:]) <= 2 * max(sizes[:2])
    assert decoder.finish(state) == decoder.decode(log_probs)


def test_a_history_of_no_tokens_is_refused():
    for value in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="history: expected an integer of at least 1"):
            CTCBeamDecoder(LETTERS, history=value)


@pytest.fixture(scope="module")
def saved():
    """A decoder, a state of it and log-probabilities to go on with."""
    decoder = make("words", history=20)
    state = decoder.start()
    decoder.step(state, random_log_probs(90, 5, sharpness=3.0))
    decoder.partial(state)
    return decoder, state.__getstate__()


def load(bytes_):
    state = type(CTCBeamDecoder(LETTERS).start())
    made = state.__new__(state)
    made.__setstate__(bytes_)
    return made


def test_saved_states_are_the_same_again(saved):
    decoder, bytes_ = saved
    assert load(bytes_).__getstate__() == bytes_
    state = load(bytes_)
    assert decoder.partial(state).word_count > 0 and state.__getstate__() == bytes_
    assert with_checksum(bytes_[:-8]) == bytes_


HEAD = struct.Struct("<Qd 2f 5i 4i 4x")
FIELDS = ("search", "offset", "shift", "spread", "format", "width", "vocabulary", "frame", "settled",
          "slots", "prefixes", "alignments", "committed")  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 2**31 - 1, "slots": 2**31 - 1},
        {"slots": 2**20},
        {"slots": 0},
        {"width": 1},
        {"vocabulary": 2},
        {"frame": 3},
        {"frame": -1},
        {"offset": math.nan},
        {"offset": math.inf},
        {"shift": -math.inf},
        {"shift": 1e30},
        {"spread": math.nan},
        {"settled": 10**6},
        {"prefixes": 2**31 - 1},
        {"alignments": -1},
        {"committed": 2**30},
        {"format": 0},
    ],
)
def test_heads_are_checked(saved, changes):
    _, bytes_ = saved
    values = dict(zip(FIELDS, HEAD.unpack_from(bytes_))) | changes
    bad = HEAD.pack(*values.values()) + bytes_[HEAD.size : -8]
    with pytest.raises(ValueError, match="state: expected a saved state"):
        load(with_checksum(bad))


def test_a_claimed_size_takes_no_memory(saved):
    """It is of a decoder with as many labels or as wide a beam, or of none."""
    decoder, bytes_ = saved
    values = dict(zip(FIELDS, HEAD.unpack_from(bytes_)))
    for changes in ({"vocabulary": 2**31 - 1}, {"width": 2**31 - 1}):
        state = load(with_checksum(HEAD.pack(*(values | changes).values()) + bytes_[HEAD.size : -8]))
        with pytest.raises(ValueError, match="state: expected one that this decoder"):
            decoder.finish(state)


def test_a_state_where_no_word_goes_on_is_refused():
    """As behind the letters of a word that no labels spell: what is expected there is impossible, and less is a gain."""
    decoder = CTCBeamDecoder(LETTERS, small_lm([*WORDS, "axb", "xa"]), beam_width=4, unk_score=-3.0)
    look_ahead = decoder.context.lexicon[7]
    nowhere = int((look_ahead < -1e29).nonzero()[0])
    state = decoder.start()
    decoder.step(state, random_log_probs(9, 5))
    bytes_ = bytearray(state.__getstate__()[:-8])
    # The node is the first number of a prefix's context, behind 48 bytes of its slot.
    struct.pack_into("<i", bytes_, HEAD.size + 48, nowhere)
    with pytest.raises(ValueError, match="state: expected one that this decoder"):
        decoder.step(load(with_checksum(bytes(bytes_))), random_log_probs(1, 5))


def test_values_of_a_state_are_checked(saved):
    """Each number in it replaced by ones that no search makes: refused, or a state that goes on as any other."""
    decoder, bytes_ = saved
    log_probs = random_log_probs(70, 5)
    chance = np.random.default_rng(0)
    refused = 0
    extremes = (-1, 0, 1, 2**31 - 1, -(2**31), 0x7F800000, 0x7FC00000, 0x7149F2CA, 0xF149F2CA - 2**32)
    positions = range(HEAD.size, len(bytes_) - 8, 4)
    for position in positions:
        bad = bytearray(bytes_[:-8])
        struct.pack_into("<i", bad, position, int(chance.choice(extremes)))
        try:
            state = load(with_checksum(bytes(bad)))
            decoder.step(state, log_probs)
            decoder.partial(state)
            assert all(math.isfinite(h.score) for h in decoder.finish(state))
        except ValueError as error:
            assert "state: expected" in str(error)
            refused += 1
    assert refused > 0.5 * len(positions)


@pytest.mark.parametrize("name", ["words", "closed", "spelled otherwise"])
def test_the_context_is_a_copy(name):
    log_probs = random_log_probs(60, len(make(name).labels))
    decoder, untouched = make(name), make(name)
    state, other = decoder.start(), untouched.start()
    for search, begun in ((decoder, state), (untouched, other)):
        search.step(begun, log_probs[:20])
    context = decoder.context
    for array in (context.token_kinds, context.texts, *context.lexicon, *context.hotwords):
        array.fill_(2**30 if array.dtype in (torch.int32, torch.int64) else 1)
    for search, begun in ((decoder, state), (untouched, other)):
        search.step(begun, log_probs[20:])
    assert decoder.finish(state) == untouched.finish(other) == decoder.decode(log_probs)
    with pytest.raises(ValueError, match="lexicon"):
        ops.ctc_beam_search(log_probs[None], context=context)
