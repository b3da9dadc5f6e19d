"""CTCBeamDecoder against asrkern.reference, all texts written out, and published examples."""

import math
import pickle
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern import _decoder
from asrkern.decoder import CTCBeamDecoder, NGramLM, forced_align, greedy_decode
from asrkern.decoder._tokens import read_tokens
from asrkern.reference.ctc_beam_search import (
    Hypothesis,
    ctc_beam_search,
    enumerate_prefixes,
    join_texts,
    log_add,
)
from asrkern.reference.ctc_context import read_text, word_context
from tests.decoder.models import PrefixDecoder, Scorer, random_log_probs, small_lm

INF = math.inf
LETTERS = ["-", " ", "a", "b", "c"]
PIECES = ["▁a", "-", "b", "▁ab", "c", "▁", "a"]
WORDS = ["ab", "a", "b", "abc", "cab", "ba"]


class TestOracles:
    """Published outputs with published answers."""

    def test_librispeech(self, oracles):
        about, arrays = oracles["libri_371x29"], oracles["libri_371x29 arrays"]
        for options in ({}, {"token_min_logp": -5.0, "beam_prune_logp": -10.0}):
            decoder = CTCBeamDecoder(about["labels"], blank=about["blank"], **options)
            [best] = decoder.decode(arrays["log_probs"])
            assert best.text == about["expected"]["pyctcdecode_default_no_lm"]

    def test_parlance(self, oracles):
        """Whose texts are sequences of labels: none is a space here."""
        about = oracles["parlance_6x7"]
        labels = [label.replace(" ", "+") for label in about["labels"]]
        decoder = CTCBeamDecoder(labels, blank=about["blank"], beam_width=20)
        found = decoder.decode(torch.tensor(about["probs"]).log())
        texts = ["".join(about["labels"][token] for token in best.tokens) for [best] in found]
        assert texts == about["expected"]["prefix_beam_20"]

    def test_handwriting(self, oracles):
        about, arrays = oracles["handwriting"], oracles["handwriting arrays"]
        labels = [*about["chars"], "<blank>"]
        line, word = (torch.tensor(arrays[f"{name}_logits"]).log_softmax(-1) for name in ("line", "word"))
        assert CTCBeamDecoder(labels, blank=79).decode(line)[0].text == about["line"]["prefix_beam"]
        decoder = CTCBeamDecoder(labels, lexicon=about["word"]["lexicon_words"], blank=79)
        assert decoder.decode(word)[0].text == about["word"]["lexicon_best"]

    def test_two_frames(self, oracles):
        about = oracles["handwriting"]["mini"]
        decoder = CTCBeamDecoder([*about["chars"], "-"], blank=2)
        [best] = decoder.decode(torch.tensor(about["probs"]).log())
        assert best.text == about["prefix_beam"] and abs(math.exp(best.score) - about["prob_a"]) < 1e-6


def reference_context(labels, blank=0, lm=None, alpha=0.5, lexicon=None, **options):
    tokens = read_tokens(labels, blank, None, False)
    if lm is not None:
        options |= Scorer(lm, alpha).functions()
        lexicon = lexicon or [word for word in lm.words if word not in ("<s>", "</s>", "<unk>")]
    return word_context(tokens.kinds, tokens.texts, lexicon=lexicon, **options)


def text_of(labels, blank=0):
    """The text of tokens where no lexicon spells words in other ways."""
    known = read_tokens(labels, blank, None, False)

    def text(tokens):
        found = read_text(tokens, known.kinds, known.texts)
        return known.joiner.join([*found.complete, *[found.partial] * bool(found.partial)])

    return text


def reference_nbest(log_probs, labels, blank, beam_width, context):
    found = ctc_beam_search(log_probs.tolist(), blank, beam_width, context=context)
    return join_texts(found, text_of(labels, blank))


def assert_same_nbest(found, expected, tolerance=3e-5):
    assert [tuple(h.tokens) for h in found] == [h.tokens for h in expected]
    for h, wanted in zip(found, expected):
        assert abs(h.score - wanted.score) < tolerance
        assert abs(h.am_score - wanted.am_score) < tolerance
        assert h.score == pytest.approx(h.am_score + h.lm_score, abs=1e-9)


LM_OPTIONS = {
    "words": {"beta": 0.7},
    "open": {"beta": -0.3, "lm": True, "unk_score": -3.0},
    "open, no smearing": {"beta": 1.5, "lm": True, "unk_score": -1.0, "smearing": False},
    "closed": {"beta": 1.0, "lm": True, "lexicon": WORDS, "alpha": 0.8},
    "closed, unknown to the model": {"beta": 1.0, "lm": True, "lexicon": [*WORDS, "cc"]},
    "lexicon alone": {"beta": 0.4, "lexicon": WORDS},
    "lexicon alone, open": {"beta": 0.4, "lexicon": WORDS, "unk_score": -2.0},
    "hotwords": {"hotwords": {"ab": 2.0, "b a": 3.0, "a b": 1.5, "cc": 4.0}},
    "everything": {
        "beta": 1.2,
        "lm": True,
        "unk_score": -2.0,
        "hotwords": {"ba ab": 2.0, "ab": 1.0, "ac": -1.0},
    },
}


def options_of(name):
    """Arguments of the decoder and of the reference's context."""
    options = {"beta": 0.0, **LM_OPTIONS[name]}
    if options.pop("lm", False):
        options["lm"] = small_lm(WORDS)
    context = {"smearing": True, **options}
    if "lm" not in options and "lexicon" not in options:
        context["unk_score"] = 0.0
    return options, context


@pytest.mark.parametrize("labels, blank", [(LETTERS, 0), (PIECES, 1)], ids=["letters", "pieces"])
@pytest.mark.parametrize("name", LM_OPTIONS)
@pytest.mark.parametrize("beam_width", [3, 40])
def test_equals_the_reference(name, labels, blank, beam_width):
    options, context = options_of(name)
    log_probs = random_log_probs(21, len(labels), sharpness=1.5)
    decoder = CTCBeamDecoder(labels, blank=blank, beam_width=beam_width, nbest=beam_width, **options)
    expected = reference_nbest(
        log_probs, labels, blank, beam_width, reference_context(labels, blank, **context)
    )
    assert_same_nbest(decoder.decode(log_probs), expected)


@pytest.mark.parametrize("name", LM_OPTIONS)
@pytest.mark.parametrize("beam_width", [5, 12])
def test_sure_and_unsure_frames_in_turn(name, beam_width):
    """How far the beam's last place is behind its best changes from frame to frame: guesses of it fail."""
    torch.manual_seed(4)  # in every beam there is a text that may end
    options, context = options_of(name)
    sharpness = torch.tensor([9.0, 0.1, 0.1, 9.0, 1.5])[torch.arange(40) % 5]
    log_probs = (random_log_probs(40, len(LETTERS)) * sharpness[:, None]).log_softmax(-1)
    decoder = CTCBeamDecoder(LETTERS, beam_width=beam_width, nbest=beam_width, **options)
    expected = reference_nbest(log_probs, LETTERS, 0, beam_width, reference_context(LETTERS, 0, **context))
    assert_same_nbest(decoder.decode(log_probs), expected, tolerance=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(LM_OPTIONS)), st.integers(0, 2**32), st.integers(1, 6))
def test_an_unlimited_beam_finds_the_best_text(name, seed, frames):
    """The best of all texts by exact probability and the context's score."""
    torch.manual_seed(seed)
    options, context = options_of(name)
    labels = ["-", " ", "a", "b"]
    # Only words that these labels spell.
    if "lexicon" in options:
        options["lexicon"] = context["lexicon"] = [word for word in options["lexicon"] if "c" not in word]
    if "hotwords" in options:
        kept = {phrase: weight for phrase, weight in options["hotwords"].items() if "c" not in phrase}
        options["hotwords"] = context["hotwords"] = kept
    log_probs = random_log_probs(frames, len(labels))
    exact = exact_texts(log_probs, labels, 0, reference_context(labels, **context))
    found = CTCBeamDecoder(labels, beam_width=5000, nbest=5000, **options).decode(log_probs)
    if not exact:
        # No text is allowed: what there is, with its last word cut short.
        assert found and found[0].words
        return
    assert_exact(found, exact)


def exact_texts(log_probs, labels, blank, context):
    """Every allowed text's score, by summing over all alignments."""
    prefixes = enumerate_prefixes(log_probs.tolist(), blank).items()
    scored = [Hypothesis(tokens, am + context(tokens, True), am) for tokens, am in prefixes]
    allowed = sorted((h for h in scored if h.score > -INF), key=lambda h: -h.score)
    text = text_of(labels, blank)
    return {text(h.tokens): h for h in join_texts(allowed, text)}


def assert_exact(found, exact):
    """found holds all texts, each once, the likeliest first."""
    assert len(found) == len(exact) and {h.text for h in found} == exact.keys()
    for h in found:
        wanted = exact[h.text]
        assert abs(h.score - wanted.score) < 3e-5 and abs(h.am_score - wanted.am_score) < 3e-5
        assert h.score == pytest.approx(h.am_score + h.lm_score, abs=1e-9)
    scores = [h.score for h in found]
    assert (
        scores == sorted(scores, reverse=True)
        and abs(scores[0] - max(h.score for h in exact.values())) < 3e-5
    )


SPELLINGS = {
    "spaces": (["-", " ", "a", "b"], 0),
    "pieces": (["▁a", "▁", "a", "b", "-"], 4),
    "marks alone": (["-", "▁", "a", "▁a"], 0),
    "words of several labels": (["-", "a", "b", "ab"], 0),
    "another space": (["|", "a", "aa", "-"], 3),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_texts_of_several_spellings_are_one(name):
    labels, blank = SPELLINGS[name]
    log_probs = random_log_probs(6, len(labels), sharpness=1.0)
    exact = exact_texts(log_probs, labels, blank, lambda tokens, final: 0.0)
    decoder = CTCBeamDecoder(labels, blank=blank, beam_width=5000, nbest=5000)
    found = decoder.decode(log_probs)
    assert_exact(found, exact)
    assert (
        len({tuple(h.tokens) for h in found})
        == len(found)
        < len(enumerate_prefixes(log_probs.tolist(), blank))
    )
    state = decoder.start()
    decoder.step(state, log_probs)
    assert decoder.finish(state) == found
    # Nothing has ended the last word yet, which makes no difference here.
    best = decoder.partial(state).hypothesis
    assert best.text == found[0].text and best.score == pytest.approx(found[0].score, abs=1e-9)
    # The n-best come from the whole beam.
    assert decoder.replace(nbest=3).decode(log_probs) == found[:3]
    # Where alignments are not added, neither are the texts' prefixes.
    best_alone = decoder.replace(log_add=False).decode(log_probs)
    assert {h.text for h in best_alone} == exact.keys()
    assert all(h.score <= exact[h.text].score + 3e-5 for h in best_alone)


def test_two_frames_whose_likeliest_prefix_is_not_the_likeliest_text():
    """In probabilities: "a" 0.37 with a space before or after it or without, "ba" 0.30."""
    labels = ["-", "a", "b", " "]
    log_probs = torch.tensor([[0.1, 0.2, 0.5, 0.2], [0.1, 0.6, 0.05, 0.25]]).log()
    found = CTCBeamDecoder(labels, nbest=9).decode(log_probs)
    exact = {"a": 0.1 * 0.6 + 0.2 * 0.1 + 0.2 * 0.6 + 0.2 * 0.25 + 0.2 * 0.6, "ba": 0.5 * 0.6}
    assert [h.text for h in found[:2]] == ["a", "ba"] and len({h.text for h in found}) == len(found)
    assert [math.exp(h.score) for h in found[:2]] == pytest.approx(list(exact.values()), abs=1e-5)
    # Of "a", " a" and "a " the likeliest.
    assert (found[0].tokens, found[0].timesteps, found[0].words[0][:3]) == ([1], [0], ("a", 0, 2))


def test_words_of_the_lexicon_are_their_texts_and_not_their_labels():
    labels = ["-", "|", "r", "e", "d", "ea"]
    lexicon = {"red": [["r", "e", "d", "|"], ["r", "ea", "d", "|"]], "read": [["r", "ea", "d", "|"]]}
    decoder = CTCBeamDecoder(labels, lexicon=lexicon, beam_width=500, nbest=500, beta=0.5)
    log_probs = random_log_probs(6, 6, sharpness=1.0)
    found = decoder.decode(log_probs)
    score = {h.text: h.score for h in found}
    assert len(score) == len(found)
    spelled = defaultdict(list)
    for tokens, log_prob in enumerate_prefixes(log_probs.tolist()).items():
        spelled["".join(labels[t] for t in tokens).strip("|")].append(log_prob)
    assert score["read"] == pytest.approx(log_add(*spelled["read"]) + 0.5, abs=1e-4)
    assert score["red"] == pytest.approx(log_add(*spelled["red"], *spelled["read"]) + 0.5, abs=1e-4)


def test_a_model_of_characters():
    lm = small_lm(["ab", "b a", "cab"], unit="character")
    log_probs, alpha, beta = random_log_probs(19, 5), 0.6, 0.25
    scorer = Scorer(lm, alpha)

    def context(tokens, final):
        letters = [LETTERS[token].replace(" ", lm.space) for token in tokens]
        return (
            scorer.log_prob(letters) + beta * len(letters) + (scorer.end_log_prob(letters) if final else 0.0)
        )

    decoder = CTCBeamDecoder(LETTERS, lm, alpha=alpha, beta=beta, beam_width=25, nbest=25)
    assert_same_nbest(decoder.decode(log_probs), reference_nbest(log_probs, LETTERS, 0, 25, context))


def test_spellings():
    """Words of several spellings, and words of one spelling, by the language model."""
    labels = ["-", "|", "r", "e", "d", "ea"]
    lexicon = {"red": [["r", "e", "d", "|"]], "read": [["r", "ea", "d", "|"], ["r", "e", "d", "|"]]}
    lm = small_lm(["read", "red"])
    log_probs = torch.full((3, 6), -5.0)
    log_probs[range(3), [2, 3, 4]] = 4.0
    log_probs = log_probs.log_softmax(-1)
    decoder = CTCBeamDecoder(labels, lm, lexicon, nbest=4)
    scorer = Scorer(lm, 0.5)
    wanted = {word: scorer.log_prob([word]) + scorer.end_log_prob([word]) + 1.5 for word in lexicon}
    likelier, other = decoder.decode(log_probs)[:2]
    assert [likelier.text, other.text] == sorted(lexicon, key=lambda word: -wanted[word])
    assert likelier.tokens == other.tokens == [2, 3, 4]
    for h in (likelier, other):
        assert abs(h.lm_score - wanted[h.text]) < 1e-5
    log_probs[1, [3, 5]] = log_probs[1, [5, 3]]
    assert decoder.decode(log_probs)[0].text == "read"


def test_words_and_times():
    labels = ["-", " ", "h", "e", "y", "o", "u"]
    frames = [0, 2, 2, 3, 0, 4, 1, 1, 0, 4, 5, 6, 6]
    log_probs = torch.nn.functional.one_hot(torch.tensor(frames), 7).mul(9.0).log_softmax(-1)
    [best] = CTCBeamDecoder(labels).decode(log_probs)
    assert best.text == "hey you" and best.tokens == [2, 3, 4, 1, 4, 5, 6]
    assert best.timesteps == [1, 3, 5, 6, 9, 10, 11]
    assert [word[:3] for word in best.words] == [("hey", 1, 6), ("you", 9, 13)]
    assert all(0.95 < word.confidence <= 1 for word in best.words)
    [best] = CTCBeamDecoder(["-", "▁h", "e", "y", "▁", "▁yo", "u"]).decode(
        log_probs[:, [0, 2, 3, 4, 1, 5, 6]]
    )
    assert best.text == "hey y you" or best.text.startswith("hey")


def test_confidence_is_the_posterior_of_the_word():
    """Of an unlimited beam: the probability of all texts with that word at that time."""
    log_probs = random_log_probs(6, 4)
    labels = ["-", " ", "a", "b"]
    decoder = CTCBeamDecoder(labels, beam_width=5000, nbest=5000)
    found = PrefixDecoder(labels, beam_width=5000, nbest=5000).decode(log_probs)
    for word in decoder.decode(log_probs)[0].words:
        mass = sum(
            math.exp(h.score)
            for h in found
            if any(w.text == word.text and w.start < word.end and word.start < w.end for w in h.words)
        )
        assert abs(word.confidence - mass) < 1e-5


def chunks(log_probs, sizes):
    at = 0
    for size in sizes:
        yield log_probs[at : at + size]
        at += size
    yield log_probs[at:]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["everything", "closed", "hotwords"]),
    st.lists(st.integers(0, 9), max_size=12),
    st.integers(0, 2**32),
)
def test_streams_give_the_offline_bits(name, sizes, seed):
    torch.manual_seed(seed)
    options, _ = options_of(name)
    log_probs = random_log_probs(40, 5)
    decoder = CTCBeamDecoder(LETTERS, beam_width=15, nbest=5, **options)
    state = decoder.start()
    stable = []
    for chunk in chunks(log_probs, sizes):
        decoder.step(state, chunk.numpy())
        partial = decoder.partial(state)
        # What was stable stays.
        assert partial.hypothesis.tokens[: len(stable)] == stable
        stable = partial.hypothesis.tokens[: partial.stable_tokens]
        assert partial.hypothesis.text.startswith(partial.stable_text)
        state = pickle.loads(pickle.dumps(state))
    expected = decoder.decode(log_probs)
    assert decoder.finish(state) == expected == decoder.finish(state)
    assert expected[0].tokens[: len(stable)] == stable


def test_stable_text_has_whole_words_only():
    labels = ["-", " ", "a", "b"]
    log_probs = torch.nn.functional.one_hot(torch.tensor([2, 3, 1, 2, 0, 3]), 4).mul(40.0).log_softmax(-1)
    decoder = CTCBeamDecoder(labels, beam_prune_logp=-5.0)
    state = decoder.start()
    texts = []
    for frame in log_probs:
        decoder.step(state, frame[None])
        texts.append(decoder.partial(state).stable_text)
    assert texts == ["", "", "ab", "ab", "ab", "ab"]
    assert decoder.partial(state).hypothesis.text == "ab ab"


def test_memory_follows_the_text_and_not_the_frames():
    torch.manual_seed(3)
    decoder = CTCBeamDecoder(LETTERS, beam_width=20)
    state, sizes = decoder.start(), []
    silence = (torch.randn(3000, 5) + torch.tensor([9.0, 0, 0, 0, 0])).log_softmax(-1)
    for _ in range(4):
        decoder.step(state, silence)
        sizes.append(state.tree_bytes)
    assert sizes[-1] == sizes[0] < 200_000


@pytest.mark.parametrize("name", LM_OPTIONS)
def test_streams_of_decoders_that_are_shared_with_other_processes(name):
    """torch moves the memory of their tensors, in place."""
    decoder = CTCBeamDecoder(LETTERS, **options_of(name)[0])
    log_probs = random_log_probs(30, len(LETTERS))
    expected, state = decoder.decode(log_probs), decoder.start()
    decoder.step(state, log_probs[:10])
    for part in decoder._built.context:
        for tensor in part if isinstance(part, tuple) else (part,):
            if isinstance(tensor, torch.Tensor):
                tensor.share_memory_()
    decoder.step(state, log_probs[10:])
    assert decoder.finish(state) == expected == decoder.decode(log_probs)


@pytest.mark.parametrize("asked, used", [(None, 2), (1, 1), (2, 2), (10**6, 2)])
def test_no_more_threads_than_torchs(asked, used, monkeypatch):
    seen, search = [], _decoder.search_rows
    monkeypatch.setattr(_decoder, "search_rows", lambda *values: seen.append(values[-1]) or search(*values))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    decoder = CTCBeamDecoder(LETTERS, beam_width=8, num_threads=asked)
    assert len(decoder.decode(random_log_probs(5, 9, len(LETTERS)))) == 5
    assert seen == [used]


def test_decoders_can_be_pickled():
    options, _ = options_of("everything")
    log_probs = random_log_probs(20, 5)
    decoder = CTCBeamDecoder(LETTERS, beam_width=10, **options)
    state = decoder.start()
    decoder.step(state, log_probs[:11])
    other, state = pickle.loads(pickle.dumps((decoder, state)))
    other.step(state, log_probs[11:])
    assert other.finish(state) == decoder.decode(log_probs)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_batches(threads):
    decoder = CTCBeamDecoder(LETTERS, beam_width=8, num_threads=threads)
    utterances = [random_log_probs(frames, 5) for frames in (7, 0, 19, 3, 1)]
    expected = [decoder.decode(utterance) for utterance in utterances]
    assert [h.text for [h] in expected][1] == ""
    assert decoder.decode_batch(utterances) == expected
    padded = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True, padding_value=float("nan"))
    lengths = [len(utterance) for utterance in utterances]
    assert decoder.decode(padded, lengths) == expected
    assert decoder.decode(padded.numpy(), np.array(lengths)) == expected
    assert decoder.decode_batch(padded, torch.tensor(lengths)) == expected
    assert decoder.decode_batch([]) == []


def test_one_bad_utterance_does_not_lose_the_others():
    decoder = CTCBeamDecoder(LETTERS)
    utterances = [random_log_probs(9, 5) for _ in range(4)]
    expected = [decoder.decode(utterance) for utterance in utterances]
    utterances[1] = utterances[1].exp()
    utterances[2] = torch.randn(9, 5) * 5
    found = decoder.decode_batch(utterances)
    assert [found[0], found[3]] == [expected[0], expected[3]]
    assert isinstance(found[1], ValueError) and "received probabilities" in str(found[1])
    assert isinstance(found[2], ValueError) and "logits" in str(found[2])
    with pytest.raises(ValueError, match=r"log_probs: .* probabilities.* \(in row 1 at frame 0\)"):
        decoder.decode(torch.stack(utterances))


class TestHotwordsOfEachRow:
    LISTS = (["ab"], None, {"c b": 4.0, "a": -1.0}, [], ["ab"], ["cab", "b", "a b"])

    @pytest.mark.parametrize("labels", [LETTERS, PIECES])
    @pytest.mark.parametrize("own", [None, ["ba"]])
    def test_rows_are_as_alone(self, labels, own):
        """Bit for bit what a decoder with the row's hotwords finds; None: the decoder's own, an empty list: none."""
        options = {"lm": small_lm(WORDS), "nbest": 5, "beam_width": 20, "blank": labels.index("-")}
        decoder = CTCBeamDecoder(labels, hotwords=own, **options)
        log_probs = random_log_probs(len(self.LISTS), 11, len(labels))
        lengths = torch.tensor([11, 9, 11, 0, 7, 11])
        found = decoder.decode(log_probs, lengths, hotwords=self.LISTS)
        changed = 0
        for row, hotwords in enumerate(self.LISTS):
            utterance = log_probs[row, : lengths[row]]
            alone = decoder.replace(hotwords=own if hotwords is None else hotwords)
            assert found[row] == alone.decode(utterance)
            if hotwords is not None:
                assert found[row] == decoder.decode(utterance, hotwords=hotwords)
            # A stream of its own.
            state = alone.start()
            alone.step(state, utterance[:4])
            alone.step(state, utterance[4:])
            assert alone.finish(state) == found[row]
            changed += found[row] != decoder.decode(utterance)
        assert changed >= 3
        utterances = [log_probs[row, :length] for row, length in enumerate(lengths)]
        assert decoder.decode_batch(utterances, hotwords=self.LISTS) == found
        again = pickle.loads(pickle.dumps(decoder))
        assert again.decode(log_probs, lengths, hotwords=self.LISTS) == found

    def test_a_bad_row_is_alone(self):
        log_probs = random_log_probs(2, 5, len(LETTERS))
        log_probs[0, 2] = math.nan
        error, found = CTCBeamDecoder(LETTERS).decode_batch(log_probs, hotwords=[["ab"], ["c"]])
        assert isinstance(error, ValueError)
        assert found == CTCBeamDecoder(LETTERS, hotwords=["c"]).decode(log_probs[1])

    def test_states_of_other_hotwords_are_refused(self):
        decoder = CTCBeamDecoder(LETTERS, hotwords=["ab"])
        state = decoder.start()
        decoder.replace(hotwords=["ab"], nbest=3).step(state, random_log_probs(3, 5))
        for other in (
            decoder.replace(hotwords=["a"]),
            decoder.replace(beam_width=7),
            CTCBeamDecoder(LETTERS),
        ):
            with pytest.raises(ValueError, match="state: expected one that this decoder"):
                other.step(state, random_log_probs(3, 5))
        equal = CTCBeamDecoder(LETTERS, hotwords={"ab": 10.0})
        assert equal.finish(pickle.loads(pickle.dumps(state))) == decoder.finish(state)

    def test_bad(self):
        decoder, batch = CTCBeamDecoder(LETTERS), random_log_probs(2, 3, 5)
        for hotwords, error, message in (
            ([["a"]], ValueError, "hotwords: expected one list for each of 2 rows, received 1"),
            (
                ["a", ["b"]],
                TypeError,
                "hotwords: expected a list of words or phrases, received a string, 'a'",
            ),
            (
                {"a": 1.0, "b": 2.0},
                TypeError,
                "hotwords: expected a list with the hotwords of each row, received dict",
            ),
            ([["a"], ["x"]], ValueError, "hotwords: 'x' has no label for 'x'"),
            ([["a"], 3], TypeError, "hotwords: expected a list of words or phrases, received 3"),
        ):
            with pytest.raises(error, match=message):
                decoder.decode(batch, hotwords=hotwords)
        with pytest.raises(TypeError, match="received a string, 'ab'"):
            decoder.decode(batch[0], hotwords="ab")


def test_streams_within_a_text():
    """A stream begins behind words, and ends without the sentence: the scores are those of the model."""
    lm = small_lm(WORDS)
    decoder = CTCBeamDecoder(LETTERS, lm, alpha=0.7, beta=0.0, beam_width=1000, nbest=1000)
    log_probs = random_log_probs(6, 5)
    before = lm.step(lm.step(lm.start(), "ab")[1], "a")[1]
    state = decoder.start(before)
    decoder.step(state, log_probs)
    scorer = Scorer(lm, 0.7)
    of_words = scorer.log_prob(["ab", "a"])
    found = {h.text: h for h in decoder.finish(state, end_of_sentence=False)}
    ended = {h.text: h for h in decoder.finish(state)}
    acoustic = {h.text: h.am_score for h in decoder.decode(log_probs)}
    known = [text for text in found if set(text.split()) <= set(WORDS)]
    assert len(known) > 20 and ended.keys() == found.keys()
    for text in known:
        words = ["ab", "a", *text.split()]
        assert abs(found[text].lm_score - (scorer.log_prob(words) - of_words)) < 1e-4
        assert abs(ended[text].lm_score - found[text].lm_score - scorer.end_log_prob(words)) < 1e-4
        assert abs(found[text].am_score - acoustic[text]) < 1e-4
    again = pickle.loads(pickle.dumps(decoder.start(before)))
    decoder.step(again, log_probs)
    assert decoder.finish(again) == decoder.finish(state)
    with pytest.raises(
        TypeError, match=r"lm_state: expected a state of NGramLM\.start or step, received int"
    ):
        decoder.start(1)
    with pytest.raises(ValueError, match="lm_state: expected a state of the decoder's language model"):
        CTCBeamDecoder(LETTERS).start(before)


def test_hotwords_change_the_text():
    labels = ["-", " ", *"ybrovkn"]
    frames = [labels.index(letter) for letter in "nov york"]
    log_probs = torch.nn.functional.one_hot(torch.tensor(frames), len(labels)).mul(4.0).log_softmax(-1)
    assert CTCBeamDecoder(labels).decode(log_probs)[0].text == "nov york"
    assert CTCBeamDecoder(labels, hotwords=["nobr york"]).decode(log_probs)[0].text == "nov york"
    [best] = CTCBeamDecoder(labels, hotwords=["nov  york"]).decode(log_probs)
    assert best.text == "nov york" and abs(best.lm_score - 10.0) < 1e-5
    assert CTCBeamDecoder(labels, hotwords={"nob york": 9.0}).decode(log_probs)[0].text == "nob york"
    # The beginning of a word is not the word.
    [best] = CTCBeamDecoder(labels, hotwords={"nov yo": 3.5}).decode(log_probs)
    assert best.text == "nov york" and best.lm_score == pytest.approx(0.0, abs=1e-5)


LM = small_lm(WORDS)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: CTCBeamDecoder([]), "labels: expected at least one"),
        (lambda: CTCBeamDecoder(["a", 3]), "labels: expected strings, received int"),
        (lambda: CTCBeamDecoder(LETTERS, blank=5), "blank: expected the index of a label, 0 to 4, received 5"),
        (lambda: CTCBeamDecoder(LETTERS, blank="-"), "blank: expected the index of a label, received '-'"),
        (lambda: CTCBeamDecoder(LETTERS, space="_"), "space: expected a label .* received '_'"),
        (lambda: CTCBeamDecoder(LETTERS, beam_width=0), "beam_width: expected .* at least 1, received 0"),
        (lambda: CTCBeamDecoder(LETTERS, nbest=0), "nbest: expected"),
        (lambda: CTCBeamDecoder(LETTERS, beam_width=3, nbest=4), "nbest: expected 1 to beam_width, 3, received 4"),
        (lambda: CTCBeamDecoder(LETTERS, top_tokens=0), "top_tokens: expected"),
        (lambda: CTCBeamDecoder(LETTERS, num_threads=0), "num_threads: expected"),
        (lambda: CTCBeamDecoder(LETTERS, token_min_logp=1.0), "token_min_logp: expected at most 0"),
        (lambda: CTCBeamDecoder(LETTERS, beam_prune_logp=float("nan")), "beam_prune_logp: expected at most 0"),
        (lambda: CTCBeamDecoder(LETTERS, blank_penalty=INF), "blank_penalty: expected a number between -1e20 and 1e20"),
        (lambda: CTCBeamDecoder(LETTERS, alpha=-1.0), "alpha: expected a finite number of at least 0"),
        (lambda: CTCBeamDecoder(LETTERS, beta=INF), "beta: expected a finite number"),
        (lambda: CTCBeamDecoder(LETTERS, beta=1e39), "beta: expected a finite number"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon=["a"], unk_score=1e39), "unk_score: expected a finite number"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords={"ab": 1e39}), "hotwords: the weight of 'ab': expected a finite number"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords={"ab": "x"}), "hotwords: the weight of 'ab': expected a finite number"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords={"a b": 1.0, "a  b": 2.0}), "hotwords: expected each phrase once, received 'a b' twice"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords=["a\0b"]), "hotwords: 'a.x00b' has no label for"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon={"x": [["a", "-"]]}), "lexicon: the spelling of 'x' has '-', which is blank"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon={"": [["a"]]}), "lexicon: expected words, received ''"),
        (lambda: CTCBeamDecoder([*LETTERS, "a" * 1001]), "labels: expected at most 1000 letters each, received 1001"),
        (lambda: CTCBeamDecoder(LETTERS, token_min_logp="x"), "token_min_logp: expected a number, received 'x'"),
        (lambda: CTCBeamDecoder(LETTERS, beam_prune_logp=None), "beam_prune_logp: expected a number, received None"),
        (lambda: CTCBeamDecoder(LETTERS, beam_width=2**70), "beam_width: expected an integer below 2.31, received 1180591620717411303424"),
        (lambda: CTCBeamDecoder(LETTERS, num_threads=2.5), "num_threads: expected an integer of at least 1, received 2.5"),
        (lambda: CTCBeamDecoder(LETTERS, unk_score=float("nan")), "unk_score: expected"),
        (lambda: CTCBeamDecoder(LETTERS, "lm.arpa"), "lm: expected an NGramLM, received str"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon="ab"), "lexicon: expected words, received a string"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon=[]), "lexicon: expected at least one word"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon=["ab", "axy"]), "lexicon: 'axy' has no label for 'x', 'y'"),
        (lambda: CTCBeamDecoder(["-", "▁", "ab", "c"], lexicon=["cb"]), "lexicon: 'cb' has no sequence of labels"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon=["a b"]), "lexicon: expected words without white space"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon={"x": [["x"]]}), "lexicon: the spelling of 'x' has 'x'"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon={"x": ["ab"]}), "lexicon: expected spellings as lists"),
        (lambda: CTCBeamDecoder(LETTERS, lexicon={"x": [["a", " ", "b"]]}), "lexicon: expected labels of one word"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords="ab"), "hotwords: expected a list"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords=["a", " "]), "hotwords: expected words or phrases"),
        (lambda: CTCBeamDecoder(LETTERS, hotwords=["ax"]), "hotwords: 'ax' has no label for 'x'"),
        (lambda: CTCBeamDecoder(["-", "x", " "], LM), "lm: expected a model of words that the labels spell"),
        (lambda: CTCBeamDecoder(LETTERS).decode([[0.0]]), "log_probs: expected a tensor or an array, received list"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(3, 4)), "log_probs: expected 5 values a frame"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(5)), "log_probs: expected shape"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(3, 5, dtype=torch.int64)), "log_probs: expected a floating"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(3, 5), [3]), "lengths: expected None"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(2, 3, 5), [3, 4]), "lengths: expected values between 0"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.zeros(2, 3, 5), [3]), r"lengths: expected shape \[2\]"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.full((2, 5), float("nan"))), "log_probs: .* received NaN"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.full((2, 5), -INF)), "log_probs: .* −inf for every token"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.full((2, 5), 0.2)), "log_probs: .* received probabilities"),
        (lambda: CTCBeamDecoder(LETTERS).decode(torch.full((2, 5), -4.0)), "log_probs: .* use log_softmax"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_devices(monkeypatch):
    options, _ = options_of("everything")
    decoder = CTCBeamDecoder(LETTERS, **options)
    monkeypatch.setenv("ASRKERN_CUDA", "off")
    with pytest.raises(ValueError, match="device: expected cpu, received cuda"):
        decoder.to("cuda")
    # As a stand-in for a device with a kernel.
    monkeypatch.setattr("asrkern.decoder.beam.has_kernel", lambda device: device.type == "meta")
    there = decoder.to("meta").replace(hotwords=["cab"], beam_width=7)
    tensors = [value for value in there.context if isinstance(value, torch.Tensor)]
    tensors += [tensor for value in there.context if isinstance(value, tuple) for tensor in value]
    assert len(tensors) > 15 and {tensor.device.type for tensor in (*tensors, there.context.token_kinds)} == {
        "meta"
    }
    assert (
        there.device.type == "meta"
        and decoder.device.type == decoder.context.token_kinds.device.type == "cpu"
    )
    log_probs = random_log_probs(20, 5)
    expected = decoder.replace(hotwords=["cab"], beam_width=7).decode(log_probs)
    assert there.to("cpu").decode(log_probs) == expected
    state = there.start()
    there.step(state, log_probs)
    assert there.finish(state) == expected


def test_bad_streams():
    decoder, wider = CTCBeamDecoder(LETTERS), CTCBeamDecoder(LETTERS, beam_width=101)
    state = decoder.start()
    log_probs = random_log_probs(9, 5)
    decoder.step(state, log_probs)
    with pytest.raises(ValueError, match="state: expected one that this decoder"):
        wider.step(state, log_probs)
    log_probs[4] = float("nan")
    with pytest.raises(ValueError, match=r"log_probs: .* NaN \(at frame 13\)"):
        decoder.step(state, log_probs)
    assert state.frames == 13
    damaged = bytearray(state.__getstate__() if hasattr(state, "__getstate__") else b"")
    for cut in (0, 10, len(damaged) - 1):
        with pytest.raises((ValueError, TypeError)):
            type(state).__new__(type(state)).__setstate__(bytes(damaged[:cut]))


def test_equal_scores_and_nearly_equal_ones():
    """More of them than the beam has places, their differences beyond what float32 can divide by."""
    lexicon = {"ab": [["a", "b"]], "AB": [["a", "b"]], "a": [["a"]], "b": [["b"]], "bb": [["b"]]}
    log_probs = torch.tensor([[-INF, -3.0972, -6.0972, -3.0972, -0.0972], [-INF, 0.0, -INF, -INF, -INF]])
    found = CTCBeamDecoder(LETTERS, lexicon=lexicon, beam_width=2, nbest=2, check_normalized=False).decode(
        log_probs
    )
    assert len(found) == 2 and all(h.score <= 0 for h in found)
    for scale in (0.0, 1e-39, 1e-30):
        flat = torch.full((12, 5), 0.0)
        flat[:, 2] = scale
        decoder = CTCBeamDecoder(["-", *"abcd"], beam_width=3, nbest=3, check_normalized=False)
        assert len(decoder.decode(flat)) == 3


@pytest.mark.parametrize("value", [INF, 2e30, 1.1e20])
def test_infinite_scores_are_named(value):
    log_probs = random_log_probs(12, 5)
    log_probs[3, 2] = value
    for check in (True, False):
        decoder = CTCBeamDecoder(LETTERS, beam_width=3, check_normalized=check)
        with pytest.raises(ValueError, match=r"log_probs: .* infinite values \(in row 0 at frame 3\)"):
            decoder.decode(log_probs)
        with pytest.raises(ValueError, match=r"log_probs: .* infinite values \(at frame 3\)"):
            decoder.step(decoder.start(), log_probs)


@pytest.mark.parametrize("name", LM_OPTIONS)
def test_huge_scores_of_frames_make_nothing_possible_again(name):
    """Up and down by what float32 holds: texts stay those of tokens that were possible."""
    options, _ = options_of(name)
    log_probs = random_log_probs(40, 5)
    huge = torch.rand(40, 5) < 0.2
    log_probs[huge] = torch.tensor([9e19, -9e19, -3e20, -9e29, -INF])[torch.randint(5, (int(huge.sum()),))]
    decoder = CTCBeamDecoder(
        LETTERS,
        beam_width=5,
        nbest=5,
        check_normalized=False,
        unk_score=-1.0,
        **{k: v for k, v in options.items() if k != "unk_score"},
    )
    state = decoder.start()
    for frame in log_probs:
        decoder.step(state, frame[None])
        state = pickle.loads(pickle.dumps(state))
    found = decoder.finish(state)
    assert found == decoder.decode(log_probs)
    for h in found:
        assert math.isfinite(h.score) and not any(
            log_probs[t, token] < -1e20 for t, token in zip(h.timesteps, h.tokens)
        )


def test_words_that_no_labels_spell_forbid_no_others():
    lm = NGramLM.estimate(["zürich is big", "is big big"] * 5, 2, discount_fallback=True)
    labels = ["-", " ", *"abcdefghijklmnopqrstuvwxyz"]
    said = torch.tensor([labels.index(letter) for letter in "zed is big"])
    log_probs = (torch.nn.functional.one_hot(said, len(labels)) * 12.0).log_softmax(-1)
    for smearing in (True, False):
        assert CTCBeamDecoder(labels, lm, smearing=smearing).decode(log_probs)[0].text == "zed is big"


def test_streams_of_one_state_from_several_threads():
    decoder = CTCBeamDecoder(LETTERS, beam_width=50)
    log_probs, state = random_log_probs(2000, 5), decoder.start()
    with ThreadPoolExecutor(3) as pool:
        steps = [pool.submit(decoder.step, state, log_probs) for _ in range(4)]
        for _ in range(20):
            decoder.partial(state), pickle.dumps(state), state.stable_tokens
        for step in steps:
            step.result()
    assert state.frames == 8000


def test_states_are_their_decoders():
    log_probs = random_log_probs(12, 5)
    decoder = CTCBeamDecoder(LETTERS, hotwords={"cb": 5.0})
    state = decoder.start()
    decoder.step(state, log_probs)
    equal = CTCBeamDecoder(LETTERS, hotwords={"cb": 5.0}, nbest=1)
    assert equal.finish(pickle.loads(pickle.dumps(state))) == decoder.finish(state)
    for other in (
        decoder.replace(hotwords={"cb": -5.0}),
        decoder.replace(hotwords=None),
        decoder.replace(beam_prune_logp=-20.0),
        CTCBeamDecoder(LETTERS, hotwords={"cb": 5.0}, lexicon=["a"], unk_score=-1.0),
    ):
        with pytest.raises(
            ValueError, match="state: expected one that this decoder, or an equal one, has started"
        ):
            other.step(state, log_probs)


def test_states_are_their_language_models():
    log_probs = random_log_probs(12, 5)
    with_model = partial(CTCBeamDecoder, LETTERS, unk_score=-1.0)
    decoder = with_model(small_lm(WORDS))
    state = decoder.start()
    decoder.step(state, log_probs)
    equal = with_model(small_lm(WORDS))
    assert equal.finish(pickle.loads(pickle.dumps(state))) == decoder.finish(state)
    # Rounded; of another order; of other sentences with the same words.
    for model in (small_lm(WORDS).quantize(), small_lm(WORDS, order=2), small_lm(WORDS, sentences=59)):
        with pytest.raises(ValueError, match="state: expected one that this decoder"):
            with_model(model).finish(state)


def test_damaged_states():
    decoder = CTCBeamDecoder(LETTERS, beam_width=3)
    state = decoder.start()
    decoder.step(state, random_log_probs(12, 5))
    saved = state.__getstate__()
    for at in range(0, len(saved), 7):
        damaged = bytearray(saved)
        damaged[at] ^= 0x41
        with pytest.raises(ValueError, match="state: expected a saved state"):
            type(state).__new__(type(state)).__setstate__(bytes(damaged))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "g", "<f2"])
def test_arrays_of_any_strides_and_byte_orders(dtype):
    log_probs = random_log_probs(12, 5)[:, [0, 1, 2, 3, 4]]
    decoder = CTCBeamDecoder(LETTERS, beam_width=5)
    array = log_probs.numpy().astype(dtype)
    expected = decoder.decode(torch.from_numpy(array.astype("=f8")).float())
    array.flags.writeable = False
    assert decoder.decode(array) == decoder.decode(np.asfortranarray(array)) == expected
    backwards = np.ascontiguousarray(array[::-1])[::-1]
    assert decoder.decode(backwards) == expected
    assert greedy_decode(backwards[None]) == greedy_decode(log_probs[None])
    assert forced_align(backwards, [2, 3]).path.equal(forced_align(log_probs, [2, 3]).path)


def test_numbers_of_numpy():
    log_probs = random_log_probs(12, 5)
    decoder = CTCBeamDecoder(LETTERS, blank=np.int64(0), beam_width=np.int64(5), beta=np.float32(0.5))
    assert decoder.decode(log_probs) == CTCBeamDecoder(LETTERS, beam_width=5, beta=0.5).decode(log_probs)


def test_a_lexicon_that_cannot_go_on_is_named():
    decoder = CTCBeamDecoder(["-", " ", "a", "b"], lexicon=["aa"])
    log_probs = torch.tensor([[0.0, -INF, -INF, 0.0]]).log_softmax(-1).repeat(3, 1)
    assert decoder.decode(log_probs)[0].text == ""
    with pytest.raises(ValueError, match="no prefix of the beam can go on: the lexicon"):
        decoder.decode(torch.tensor([[-INF, -INF, -INF, 0.0]]))
    # Pruning alone never ends a search.
    log_probs = torch.tensor([[0.05, 0.05, 0.1, 0.8]]).log().repeat(3, 1)
    pruned = CTCBeamDecoder(["-", " ", "a", "b"], lexicon=["aa"], top_tokens=1)
    assert pruned.decode(log_probs) is not None
