"""States of n-gram models merge by KenLM's rule, whatever file the model comes from.

A state is the longest end of what was said that is an n-gram, filled in where the file lacks it, with a back-off weight
or with a longer n-gram that it begins. No weight, 0.0 and -0.0 are the same. All histories of small models are tried.
"""

import itertools

import numpy as np
import pytest

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference
from tests.decoder.kenlm_writer import kenlm_binary, trie_binary

WORDS = ("a", "b", "c")
MARKS = ("<unk>", "<s>", "</s>")


def random_model(rng: np.random.Generator, holes: bool) -> dict[tuple[str, ...], tuple[float, str]]:
    """n-gram → log10 probability, and the back-off weight as a file spells it. holes: ends of n-grams may be missing."""

    def values() -> tuple[float, str]:
        log_prob = -round(float(rng.uniform(0.1, 2)), 3)
        return log_prob, str(rng.choice(["", "0", "0.0", "-0.0", "-0.3", "-0.7", "0.05"]))

    model = {(word,): values() for word in (*MARKS, *WORDS)}
    order = int(rng.integers(2, 5))
    for length in range(2, order + 1):
        contexts = [ngram for ngram in model if len(ngram) == length - 1 and ngram[-1] != "</s>"]
        candidates = [(*context, word) for context in contexts for word in (*WORDS, "</s>")]
        chosen = [ngram for ngram in candidates if (holes or ngram[1:] in model) and rng.random() < 0.4]
        model |= {
            ngram: values() for ngram in chosen or [ngram for ngram in candidates if ngram[1:] in model][:1]
        }
    return model


def write_arpa(model: dict[tuple[str, ...], tuple[float, str]], path) -> None:
    order = max(map(len, model))
    groups = [[ngram for ngram in model if len(ngram) == length] for length in range(1, order + 1)]
    lines = ["\\data\\", *(f"ngram {length}={len(group)}" for length, group in enumerate(groups, 1))]
    for length, group in enumerate(groups, 1):
        lines += ["", f"\\{length}-grams:"]
        for ngram in group:
            weight = f"\t{model[ngram][1]}" if length < order and model[ngram][1] else ""
            lines.append(f"{model[ngram][0]}\t{' '.join(ngram)}{weight}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))


def useful_contexts(model: dict[tuple[str, ...], tuple[float, str]]) -> set[tuple[str, ...]]:
    there = {ngram[i:j] for ngram in model for i in range(len(ngram)) for j in range(i + 1, len(ngram) + 1)}
    begins = {ngram[:-1] for ngram in there if len(ngram) > 1}
    order = max(map(len, model))
    weighted = {
        ngram for ngram, (_, weight) in model.items() if len(ngram) < order and float(weight or 0) != 0
    }
    return begins | weighted


def check(lm: NGramLM, model: dict[tuple[str, ...], tuple[float, str]], numbers: reference.Model) -> int:
    useful = useful_contexts(model)
    words, reached, lengths = lm.words, {}, set()
    for length in range(4):
        for bos, said in itertools.product(
            (True, False), itertools.product((*WORDS, "zebra"), repeat=length)
        ):
            state = lm.start(bos)
            for word in said:
                _, state = lm.step(state, word)
            history = (*(("<s>",) if bos else ()), *("<unk>" if word == "zebra" else word for word in said))
            ends = (history[i:] for i in range(max(0, len(history) - lm.order + 1), len(history) + 1))
            kept = next(end for end in ends if not end or end in useful)
            assert tuple(words[i] for i in state.words[::-1]) == kept, (history, kept)
            assert reached.setdefault(kept, state) == state and hash(reached[kept]) == hash(state)
            lengths.add(len(kept))
            for word in (*WORDS, "zebra", "</s>"):
                known = "<unk>" if word == "zebra" else word
                expected = reference.log_prob(numbers, history[max(0, len(history) - lm.order + 1) :], known)
                assert lm.step(state, word)[0] == pytest.approx(expected, abs=1e-5), (history, word)
    states = list(reached.values())
    assert all(a != b for a, b in itertools.combinations(states, 2))
    return len(lengths)


@pytest.mark.parametrize("holes", [False, True])
def test_states_merge_by_the_rule(tmp_path, holes):
    most = 0
    for seed in range(12):
        model = random_model(np.random.default_rng(seed), holes)
        path = tmp_path / "model.arpa"
        write_arpa(model, path)
        numbers = {ngram: (log_prob, float(weight or 0)) for ngram, (log_prob, weight) in model.items()}
        if max(map(len, numbers)) > 1:
            order = max(map(len, numbers))
            numbers = {n: (p, 0.0 if len(n) == order else weight) for n, (p, weight) in numbers.items()}
        most = max(most, check(NGramLM.open(path), model, numbers))
        if not holes:
            for content in (
                kenlm_binary(numbers),
                trie_binary(numbers),
                trie_binary(numbers, pointer_limit=8),
            ):
                path.write_bytes(content)
                check(NGramLM.open(path), model, numbers)
                if content[100] >= 2:
                    check(NGramLM.open(path, mapped=True), model, numbers)
    assert most >= 3


def test_states_merge_as_kenlm(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    model = random_model(np.random.default_rng(3), holes=False)
    path = tmp_path / "model.arpa"
    write_arpa(model, path)
    peer, lm, pairs = kenlm.Model(str(path)), NGramLM.open(path), []
    for length in range(4):
        for said in itertools.product((*WORDS, "zebra"), repeat=length):
            theirs, ours = kenlm.State(), lm.start()
            peer.BeginSentenceWrite(theirs)
            for word in said:
                after = kenlm.State()
                expected = peer.BaseScore(theirs, word, after)
                actual, ours = lm.step(ours, word)
                theirs = after
                assert actual == pytest.approx(expected, abs=1e-5)
            pairs.append((theirs, ours))
    for (theirs, ours), (other, mine) in itertools.combinations(pairs, 2):
        assert (theirs == other) == (ours == mine)
