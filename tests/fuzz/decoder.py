"""Beam searches: random labels, options, words, hotwords and log-probabilities, in pieces and at once; changed tables."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import torch

from asrkern import ops
from asrkern.decoder import CTCBeamDecoder, NGramLM
from tests.decoder.models import small_lm

REFUSALS = (ValueError, TypeError)

LABELS = (
    ["-", " ", "a", "b", "c"],
    ["a", "b", "-", "|", "c", "ab"],
    ["▁a", "-", "b", "▁", "a", "▁ab", "c"],
    ["-", "a", "b", "ab", "c"],
    ["-", *"abc", *map(chr, range(0x4E00, 0x4E00 + 70)), " "],
    [*(f"▁w{i}" for i in range(60)), *"abc", "▁a", "▁b", "▁", *(f"x{i}" for i in range(90)), "-"],
)
WORDS = ["ab", "a", "b", "abc", "cab", "ba"]
EXTREMES = (
    0.0,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    1e30,
    -1e30,
    3e38,
    -3e38,
    1e-40,
    -1e29,
    4.9e29,
    -4.9e29,
    9.9e19,
    -9.9e19,
)


def prepare(folder: Path) -> list[NGramLM]:
    """Language models of words, of characters and of tokens."""
    models = [small_lm(WORDS), small_lm(WORDS, order=2).quantize()]
    tokens = ["▁a b ▁w3 x7", "▁b c x89 ▁w59", "▁a b c"] * 5
    return [
        *models,
        small_lm(["ab", "b a", "cab"], unit="character"),
        NGramLM.estimate(tokens, 3, unit="token", discount_fallback=True),
    ]


def some_words(rng: np.random.Generator) -> list[str]:
    return [str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, 5)), replace=False)]


def make_decoder(rng: np.random.Generator, models: list[NGramLM]) -> CTCBeamDecoder:
    labels = LABELS[int(rng.integers(len(LABELS)))]
    options: dict = {"blank": labels.index("-"), "beam_width": int(rng.choice([1, 2, 3, 8, 30]))}
    options["nbest"] = int(rng.integers(1, options["beam_width"] + 1))

    def maybe(name, *values, chance=0.3):
        if rng.random() < chance:
            options[name] = values[int(rng.integers(len(values)))]

    maybe("lm", *models)
    maybe("lexicon", some_words(rng), {w: [[letter for letter in w]] for w in some_words(rng)})
    maybe(
        "hotwords", some_words(rng), {"ab": 2.5, "b a": -1.0}, {f"{a} {b}": 3.0 for a in WORDS for b in WORDS}
    )
    maybe("unit", "word", "character", "token", chance=0.1)
    maybe("lm_token_offset", 0, 100, -1, chance=0.1)
    maybe("unk_score", -1.0, -20.0, -math.inf)
    maybe("alpha", 0.0, 0.8, 1e6)
    maybe("beta", -1.0, 2.0, -1e19)
    maybe("token_min_logp", -3.0, 0.0)
    maybe("beam_prune_logp", -4.0, 0.0)
    maybe("top_tokens", 1, 3)
    maybe("blank_penalty", 1.5, -3.0, 1e19)
    maybe("history", 1, 5, None)
    maybe("smearing", False)
    maybe("log_add", False)
    maybe("check_normalized", False, chance=0.5)
    return CTCBeamDecoder(labels, **options)


def make_log_probs(rng: np.random.Generator, labels: int) -> torch.Tensor:
    frames = int(rng.choice([0, 1, 2, 5, 20, 70]))
    scores = torch.from_numpy(rng.normal(size=(frames, labels)) * rng.choice([0.0, 1.0, 4.0])).float()
    kind = rng.integers(8)
    if kind == 0:
        scores = scores.round()
    if kind == 1 and frames:
        scores[torch.from_numpy(rng.random(scores.shape) < 0.3)] = -math.inf
    if kind != 2:
        scores = scores.log_softmax(-1)
    if kind in (3, 4) and frames:
        for _ in range(rng.integers(1, 5)):
            scores[int(rng.integers(frames)), int(rng.integers(labels))] = float(rng.choice(EXTREMES))
    return scores


def search_in_pieces(rng: np.random.Generator, decoder: CTCBeamDecoder, log_probs: torch.Tensor) -> list:
    state, at, words = decoder.start(), 0, []
    while at < len(log_probs):
        size = int(rng.integers(1, 30))
        decoder.step(state, log_probs[at : at + size])
        at += size
        if rng.random() < 0.6:
            found = decoder.partial(state, after=len(words))
            words += found.words
            assert found.word_count == len(words)
            if rng.random() < 0.3:
                assert found.hypothesis.words[: len(words)] == words
        if rng.random() < 0.2:
            state = pickle.loads(pickle.dumps(state))
    found = decoder.finish(state)
    assert all(h.words[: len(words)] == words for h in found)
    return found


def change_tables(rng: np.random.Generator, context: ops.CTCContext) -> ops.CTCContext:
    """A number or two of one of the tables replaced."""
    values = context._asdict()
    places = [(name, None) for name, value in values.items() if isinstance(value, torch.Tensor)]
    places += [
        (name, i) for name, value in values.items() if isinstance(value, tuple) for i in range(len(value))
    ]
    name, index = places[int(rng.integers(len(places)))]
    table = (values[name] if index is None else values[name][index]).clone()
    flat = table.reshape(-1)
    for _ in range(rng.integers(1, 3)):
        if not len(flat):
            continue
        at = int(rng.integers(len(flat)))
        if table.is_floating_point():
            flat[at] = float(rng.choice(EXTREMES))
        else:
            limits = torch.iinfo(table.dtype)
            near = int(flat[at]) + int(rng.integers(-2, 3))
            value = int(
                rng.choice(
                    [
                        limits.min,
                        limits.max,
                        near,
                        rng.integers(100),
                        int(flat[at]) ^ 1 << int(rng.integers(7)),
                    ]
                )
            )
            flat[at] = min(max(value, limits.min), limits.max)
    if rng.random() < 0.1:
        table = flat[: int(rng.integers(len(flat) + 1))]
    if index is None:
        return context._replace(**{name: table})
    return context._replace(**{name: (*values[name][:index], table, *values[name][index + 1 :])})


def one(rng: np.random.Generator, folder: Path, prepared: list[NGramLM]) -> None:
    """Decode at once and in pieces, or with changed tables."""
    decoder = make_decoder(rng, prepared)
    log_probs = make_log_probs(rng, len(decoder.labels))
    if rng.random() < 0.3:
        context = change_tables(rng, decoder.context)
        ops.ctc_beam_search(log_probs[None], context=context, num_threads=1, **decoder._options)
        return
    found = decoder.decode(log_probs)
    assert 1 <= len(found) <= decoder._options["nbest"]
    assert len({h.text for h in found}) == len(found)
    scores = [h.score for h in found]
    assert scores == sorted(scores, reverse=True) and all(map(math.isfinite, scores))
    for h in found:
        assert h.text == decoder.join(h.words) and len(h.tokens) == len(h.timesteps)
        assert all(0 <= word.start < word.end <= len(log_probs) for word in h.words)
    assert search_in_pieces(rng, decoder, log_probs) == found
