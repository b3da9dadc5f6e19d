"""Greedy and beam search against all sequences there are, and against a beam search on lists."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import pytest
import torch
from torch import Tensor

from asrkern.models import LAS
from asrkern.models.las_search import Hypothesis, Ranking, beam_search, greedy_search
from asrkern.models.speller import Speller, SpellerState
from asrkern.nn import AttentionMemory
from tests.models.las_twins import randomise

PAD, SOS, EOS = 0, 1, 2


def tiny(preset: str, num_tokens: int = 5, **options: Any) -> LAS:
    """A model of few tokens whose steps are far from certain."""
    sizes = {
        "hw4": {"conv_channels": (6,), "rnn_layers": (1,), "encoder_blocks": 1, "embedding_size": 8, "attention_size": 6},
        "kospeech": {"conv_channels": (3, 3, 4, 4, 4), "rnn_layers": (1, 1), "speller_layers": 1},
    }[preset]  # fmt: skip
    tokens = {"num_tokens": num_tokens, "pad_token": PAD, "sos_token": SOS, "eos_token": EOS}
    model = LAS.preset(preset, hidden_size=6, n_features=8, speller_size=12, **{**sizes, **tokens, **options})
    randomise(model)
    with torch.no_grad():
        output = model.speller.char_prob if preset == "hw4" else model.speller.out
        output.weight.mul_(2)
        output.bias.mul_(2)
    return model


def utterances(rows: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 8, 30), torch.tensor([30, 17, 24][:rows])


@torch.no_grad()
def step_by_step(model: LAS, memory: AttentionMemory, sequence: list[int]) -> tuple[Tensor, Tensor]:
    """log-probabilities [L + 1, V] before each token of a sequence and after it, and attention weights [L + 1, T']."""
    logits, weights = model.speller(torch.tensor([[SOS, *sequence]]), memory)
    return logits[0].double().log_softmax(-1), weights[0].double()


def rank(
    model: LAS, memory: AttentionMemory, sequence: list[int], alpha: float, beta: float
) -> tuple[float, float, list[int], bool]:
    """Score, log-probability, tokens and end of a sequence, by the formula of Wu et al. 2016."""
    log_probs, weights = step_by_step(model, memory, sequence[:-1])
    log_prob = sum(float(step[token]) for step, token in zip(log_probs, sequence))
    ended = sequence[-1] == EOS
    tokens = [token for token in sequence if token not in (SOS, EOS)]
    score = log_prob / ((5 + len(tokens) + ended) / 6) ** alpha
    frames = int(memory.valid.sum())
    score += beta * sum(math.log(min(float(weights[:, t].sum()), 1.0)) for t in range(frames))
    return score, log_prob, tokens, ended


def all_sequences(num_tokens: int, max_length: int) -> list[list[int]]:
    """Those that end with EOS within max_length steps, and those that have not ended by then."""
    others = [token for token in range(num_tokens) if token != EOS]
    found = [
        [*body, EOS] for length in range(max_length) for body in itertools.product(others, repeat=length)
    ]
    return found + [list(body) for body in itertools.product(others, repeat=max_length)]


def assert_same(found: list[Hypothesis], expected: list[tuple[float, float, list[int], bool]]) -> None:
    expected = sorted(expected, key=lambda e: -e[0])
    assert len(found) == len(expected)
    for hypothesis, (score, log_prob, tokens, ended) in zip(found, expected):
        assert hypothesis.score == pytest.approx(score, abs=1e-5)
        assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)
        assert (hypothesis.tokens, hypothesis.ended) == (tokens, ended)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.3), (1.0, 0.2)])
@pytest.mark.parametrize(
    ("preset", "options"), [("hw4", {}), ("kospeech", {}), ("kospeech", {"attention": "location"})]
)
def test_a_wide_beam_finds_what_brute_force_finds(
    preset: str, options: dict, alpha: float, beta: float
) -> None:
    model = tiny(preset, **options)
    x, lengths = utterances()
    sequences = all_sequences(5, 3)
    assert len(sequences) == 85
    found = model.beam_search(x, lengths, 85, length_normalisation=alpha, coverage_penalty=beta, max_length=3)
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            memory = model.listen(x[row : row + 1, :, :length], lengths[row : row + 1])
        assert_same(found[row], [rank(model, memory, sequence, alpha, beta) for sequence in sequences])


def beam_on_lists(model: LAS, memory: AttentionMemory, width: int, max_length: int) -> list[list[int]]:
    """The sequences that a beam search ends up with, every prefix spelled anew."""
    live, done = [([], 0.0)], []
    for _ in range(max_length):
        candidates = []
        for prefix, total in live:
            steps, _ = step_by_step(model, memory, prefix)
            candidates += [([*prefix, token], total + float(p)) for token, p in enumerate(steps[-1])]
        candidates.sort(key=lambda c: -c[1])
        best = candidates[: width - len(done)]
        done += [prefix for prefix, _ in best if prefix[-1] == EOS]
        live = [c for c in best if c[0][-1] != EOS]
    return done + [prefix for prefix, _ in live]


@pytest.mark.parametrize("width", [2, 3, 6])
@pytest.mark.parametrize("preset", ["hw4", "kospeech"])
def test_a_narrow_beam_is_the_one_on_lists(preset: str, width: int) -> None:
    model = tiny(preset, num_tokens=7)
    x, lengths = utterances()
    found = model.beam_search(x, lengths, width, length_normalisation=0.8, max_length=9)
    pruned = False
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            memory = model.listen(x[row : row + 1, :, :length], lengths[row : row + 1])
        sequences = beam_on_lists(model, memory, width, 9)
        assert_same(found[row], [rank(model, memory, sequence, 0.8, 0.0) for sequence in sequences])
        pruned |= len({len(s) for s in sequences}) > 1
    assert pruned, "some hypotheses end before others"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("preset", ["hw4", "kospeech"])
def test_a_beam_of_one_is_greedy(preset: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = tiny(preset, num_tokens=9)
    x, lengths = utterances()
    greedy = model.greedy(x, lengths, max_length=12)
    beams = model.beam_search(x, lengths, 1, max_length=12)
    for one, (other,) in zip(greedy, beams, strict=True):
        assert (one.tokens, one.ended) == (other.tokens, other.ended)
        assert one.score == one.log_prob == pytest.approx(other.score, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["hw4", "kospeech"])
def test_greedy_takes_the_most_probable_token_and_adds_up(preset: str) -> None:
    model = tiny(preset, num_tokens=9)
    x, lengths = utterances()
    for row, hypothesis in enumerate(model.greedy(x, lengths, max_length=8)):
        n = int(lengths[row])
        memory = model.listen(x[row : row + 1, :, :n], lengths[row : row + 1])
        sequence, total = [], 0.0
        while len(sequence) < 8 and EOS not in sequence:
            step = step_by_step(model, memory, sequence)[0][-1]
            sequence.append(int(step.argmax()))
            total += float(step.max())
        assert hypothesis.tokens == [token for token in sequence if token not in (SOS, EOS)]
        assert hypothesis.ended == (EOS in sequence)
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-5)


class Scripted(Speller):
    """Says given sequences, one per row, with the end after each; counts its steps."""

    def __init__(self, sequences: list[list[int]], num_tokens: int) -> None:
        super().__init__()
        self.table = torch.full((len(sequences), 50, num_tokens), -5.0)
        for row, sequence in enumerate(sequences):
            for step, token in enumerate([*sequence, *[EOS] * (50 - len(sequence))]):
                self.table[row, step, token] = 5.0
        self.steps = 0

    def start(self, memory: AttentionMemory) -> SpellerState:
        rows = torch.arange(len(self.table)).repeat_interleave(len(memory.valid) // len(self.table))
        return SpellerState((rows,))

    def step(
        self, tokens: Tensor, state: SpellerState, memory: AttentionMemory
    ) -> tuple[Tensor, Tensor, SpellerState]:
        logits = self.table[state.hidden[0], self.steps]
        self.steps += 1
        return logits, memory.valid / memory.valid.sum(1, keepdim=True), state


def memory_of(rows: int) -> AttentionMemory:
    return AttentionMemory(
        torch.zeros(rows, 4, 1), torch.zeros(rows, 4, 1), torch.ones(rows, 4, dtype=torch.bool)
    )


def test_decoding_stops_when_all_rows_have_ended() -> None:
    """The originals go on for 500 (HW4P2) or all target steps (KoSpeech)."""
    sequences = [[5, 3, 4], [], [6, 6, 6, 6, 3]]
    speller = Scripted(sequences, 7)
    found = greedy_search(speller, memory_of(3), SOS, EOS, 40)
    assert [h.tokens for h in found] == sequences
    assert all(h.ended for h in found)
    assert speller.steps == 6
    # What is said after the end counts nothing.
    certain = float(torch.tensor([5.0, *[-5.0] * 6]).double().log_softmax(0)[0])
    assert [h.log_prob for h in found] == pytest.approx([4 * certain, certain, 6 * certain], abs=1e-5)
    speller.steps = 0
    beams = beam_search(speller, memory_of(3), SOS, EOS, 40, 1, Ranking())
    assert [h.tokens for (h,) in beams] == sequences
    assert speller.steps == 6


def test_decoding_stops_at_the_maximum_length() -> None:
    speller = Scripted([[5, 3, 4], [4]], 7)
    found = greedy_search(speller, memory_of(2), SOS, EOS, 2)
    assert [(h.tokens, h.ended) for h in found] == [([5, 3], False), ([4], True)]
    assert speller.steps == 2
    speller.steps = 0
    beams = beam_search(speller, memory_of(2), SOS, EOS, 2, 3, Ranking())
    assert [(row[0].tokens, row[0].ended) for row in beams] == [([5, 3], False), ([4], True)]
    assert speller.steps == 2


def test_the_start_that_hw4_predicts_is_no_part_of_the_result() -> None:
    speller = Scripted([[SOS, 5, 3]], 7)
    assert greedy_search(speller, memory_of(1), SOS, EOS, 9)[0].tokens == [5, 3]
    speller.steps = 0
    assert beam_search(speller, memory_of(1), SOS, EOS, 9, 2, Ranking())[0][0].tokens == [5, 3]


def test_ranking() -> None:
    coverage = torch.tensor([0.5, 2.0, 0.25, 1.0])
    assert Ranking().score(-3.0, 7, coverage) == -3.0
    assert Ranking(1.0).score(-3.0, 7, coverage) == pytest.approx(-1.5)
    assert Ranking(0.0, 0.1).score(-3.0, 7, coverage) == pytest.approx(-3 + 0.1 * math.log(0.125))
    # Longer hypotheses gain by normalisation, and a frame never attended to is no infinity.
    assert Ranking(0.9).score(-4.0, 30, coverage) > Ranking(0.9).score(-3.0, 3, coverage)
    assert math.isfinite(Ranking(0.0, 0.1).score(-3.0, 7, torch.zeros(4)))


@pytest.mark.parametrize("preset", ["hw4", "kospeech"])
def test_a_row_is_searched_as_if_alone(preset: str) -> None:
    model = tiny(preset, num_tokens=9)
    x, lengths = utterances()
    options = {"length_normalisation": 0.6, "coverage_penalty": 0.1, "max_length": 10}
    together = model.beam_search(x, lengths, 4, **options)
    for row, length in enumerate(lengths.tolist()):
        (alone,) = model.beam_search(x[row : row + 1, :, :length], lengths[row : row + 1], 4, **options)
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[row]], abs=1e-4)


def test_results_are_the_same_every_time_in_eval_mode() -> None:
    model = tiny("kospeech", num_tokens=9)
    x, lengths = utterances()
    assert model.greedy(x, lengths) == model.greedy(x, lengths)
    assert model.beam_search(x, lengths, 3) == model.beam_search(x, lengths, 3)


def test_a_beam_of_what_is_no_number_is_refused() -> None:
    model = tiny("hw4").eval()
    features, lengths = utterances()
    features[1, 3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"features: expected .* received NaN in row 1"):
        model.beam_search(features, lengths, 3, max_length=5)
    # Beyond a length nothing is read.
    features[1] = torch.randn(8, 30)
    features[1, :, 17:] = torch.nan
    assert [len(row) for row in model.beam_search(features, lengths, 3, max_length=5)] == [3, 3, 3]


def test_a_limit_that_is_none_costs_nothing() -> None:
    model = tiny("hw4").eval()
    model.speller.char_prob.bias.data[EOS] = 100
    features, lengths = utterances()
    expected = model.greedy(features, lengths, 5)
    tracemalloc.start()
    try:
        assert model.greedy(features, lengths, 10**6) == expected
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
