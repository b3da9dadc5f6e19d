"""Searches over more than 64 labels, whose rows are read in blocks: the references' answers at any size and pruning."""

import math
import random

import pytest
import torch

from asrkern.decoder import CTCBeamDecoder, NGramLM
from asrkern.ops import ctc_beam_search
from asrkern.reference import ctc_beam_search as reference
from benchmarks.decoder.large_vocabulary import labels_of, make_log_probs
from tests.decoder.models import LN10


def token_lm(vocabulary, order=3, sentences=300):
    chance = random.Random(vocabulary)
    weights = [1 / (i + 1) for i in range(vocabulary)]
    labels = labels_of(vocabulary)
    text = [" ".join(chance.choices(labels[:-1], weights, k=7)) for _ in range(sentences)]
    return NGramLM.estimate(text, order, unit="token", discount_fallback=True)


@pytest.mark.parametrize("vocabulary", [65, 96, 1024])
@pytest.mark.parametrize("sureness", [0.0, 0.5, 3.0])
def test_greedy_with_a_model(vocabulary, sureness):
    lm = token_lm(vocabulary)
    log_probs = make_log_probs(vocabulary, 30, sureness)
    for alpha, beta in ((0.5, 0.0), (1.0, 1.5), (2.0, -1.0), (0.0, 0.0)):
        decoder = CTCBeamDecoder(labels_of(vocabulary), lm, alpha=alpha, beta=beta, beam_width=1)
        tokens, score = reference.greedy_with_lm(
            log_probs.tolist(), lm, decoder.context.lm_tokens.tolist(), vocabulary, alpha, beta
        )
        [best] = decoder.decode(log_probs)
        assert tuple(best.tokens) == tokens and best.score == pytest.approx(score, abs=1e-3)
        # The same rows of a padded batch, and in pieces.
        batch = torch.stack([log_probs, log_probs.roll(3, 0)])
        assert decoder.decode(batch, [30, 17])[0] == [best]
        state = decoder.start()
        for piece in log_probs.split(7):
            decoder.step(state, piece)
        assert decoder.finish(state) == [best]


def context_of(lm, ids, alpha, beta):
    """The score of tokens by a model of tokens, as the reference asks for it."""
    known = {}

    def walk(tokens):
        if not tokens:
            return lm.start(), 0.0
        if tokens not in known:
            state, total = walk(tokens[:-1])
            score, state = lm.step(state, ids[tokens[-1]])
            known[tokens] = state, total + alpha * LN10 * score + beta
        return known[tokens]

    def context(tokens, final):
        state, total = walk(tokens)
        return total + alpha * LN10 * lm.step(state, lm.eos)[0] * final

    return context


@pytest.mark.parametrize("vocabulary", [65, 97, 160])
@pytest.mark.parametrize(
    "pruning",
    [
        {},
        {"token_min_logp": -5.0, "beam_prune_logp": -8.0},
        {"token_min_logp": -2.0},
        {"top_tokens": 1},
        {"top_tokens": 20},
        {"top_tokens": 64, "blank_penalty": 2.5},
    ],
)
def test_beams_with_a_model(vocabulary, pruning):
    lm = token_lm(vocabulary)
    log_probs = make_log_probs(vocabulary, 14, 0.5)
    decoder = CTCBeamDecoder(labels_of(vocabulary), lm, beta=0.5, beam_width=9, nbest=9, **pruning)
    expected = reference.ctc_beam_search(
        log_probs.tolist(),
        vocabulary,
        9,
        context=context_of(lm, decoder.context.lm_tokens.tolist(), 0.5, 0.5),
        **pruning,
    )
    found = decoder.decode(log_probs)
    assert tuple(found[0].tokens) == expected[0].tokens
    scores = {hypothesis.tokens: hypothesis.score for hypothesis in expected}
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(scores[tuple(hypothesis.tokens)], abs=1e-3)


@pytest.mark.parametrize("count", [65, 256, 1000])
@pytest.mark.parametrize("kind", ["normal", "equal", "ascending", "descending", "few values"])
def test_top_tokens_are_the_largest(count, kind):
    """Of any size and order of values: one frame, without a model, has the tokens that pruning leaves."""
    draw = torch.Generator().manual_seed(count)
    values = {
        "normal": torch.randn(count, generator=draw),
        "equal": torch.zeros(count),
        "ascending": torch.arange(count) / count,
        "descending": -torch.arange(count) / count,
        "few values": torch.randint(3, (count,), generator=draw).float(),
    }[kind]
    log_probs = values.float().log_softmax(-1)
    for top in (1, 2, 15, 63, count // 4, count // 2, count - 1):
        found = ctc_beam_search(
            log_probs[None, None], blank=count - 1, beam_width=count, nbest=count, top_tokens=top
        )
        tokens = {tuple(t[:n].tolist()) for t, n in zip(found.tokens[0], found.token_lengths[0]) if n >= 0}
        limit = log_probs.sort(descending=True).values[top - 1]
        expected = {(v,) for v in range(count - 1) if log_probs[v] >= limit}
        assert tokens - {()} == expected


def test_wrong_rows_are_found_anywhere():
    """What is checked in lanes and blocks: NaN, infinities, probabilities, logits, at every place."""
    vocabulary = 203
    good = torch.randn(vocabulary).log_softmax(-1)
    decoder = CTCBeamDecoder(labels_of(vocabulary - 1))
    for at in range(vocabulary):
        for value, message in ((math.nan, "NaN"), (math.inf, "inf"), (5.0, "logits")):
            row = good.clone()
            row[at] = value
            with pytest.raises(ValueError, match=f"(?i){message}"):
                decoder.decode(row[None])
        impossible = torch.full((1, vocabulary), -math.inf)
        with pytest.raises(ValueError):
            decoder.decode(impossible)
        impossible[0, at] = 0.0
        assert decoder.decode(impossible)[0].tokens == ([at] if at < vocabulary - 1 else [])
    with pytest.raises(ValueError, match="probabilities"):
        decoder.decode(good.exp()[None])
