"""Models made smaller by relative entropy, and mixtures, against asrkern.reference.ngram and by hand."""

import itertools
import math
import random

import numpy as np
import pytest

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference

WORDS = ["red", "car", "the", "a", "blue", "sky", "and"]


def sentences(count, seed, words=WORDS):
    chance = random.Random(seed)
    weights = [1 / (i + 1) for i in range(len(words))]
    return [" ".join(chance.choices(words, weights, k=chance.randint(1, 8))) for _ in range(count)]


def estimated(seed=0, order=3, words=WORDS, count=120, **options):
    return NGramLM.estimate(sentences(count, seed, words), order, discount_fallback=True, **options)


def listed(lm, tmp_path):
    path = tmp_path / "listed.arpa"
    lm.to_arpa(path)
    return reference.read_arpa(path)


def assert_equal_models(actual, expected):
    assert actual.keys() == expected.keys()
    for gram, (log_prob, backoff) in expected.items():
        assert actual[gram][0] == pytest.approx(log_prob, abs=2e-6), gram
        # 1 − Σ p has few digits where the n-grams have nearly all probability.
        assert actual[gram][1] == pytest.approx(backoff, abs=2e-4), gram


def assert_sums_to_1(lm, histories):
    for history in histories:
        state = lm.start(bos=history[:1] == ("<s>",))
        for word in history[history[:1] == ("<s>",) :]:
            state = lm.step(state, word)[1]
        total = sum(10 ** lm.step(state, i)[0] for i in range(lm.vocabulary_size) if i != lm.bos)
        assert total == pytest.approx(1, abs=2e-5), history


def histories(words=WORDS):
    return [
        (),
        ("<s>",),
        *itertools.product(words, repeat=1),
        *itertools.product(["<s>", *words[:4]], words[:4]),
    ]


class TestPrune:
    @pytest.mark.parametrize("order", [2, 3, 4])
    @pytest.mark.parametrize("threshold", [1e-5, 1e-3, 2e-2])
    def test_equals_the_formula(self, tmp_path, order, threshold):
        lm = estimated(order=order)
        whole = listed(lm, tmp_path)
        smaller = lm.prune(threshold)
        expected = reference.prune(whole, threshold)
        assert len(whole) - len(expected) > 0 and smaller.order == max(map(len, expected))
        assert_equal_models(listed(smaller, tmp_path), expected)
        assert_sums_to_1(smaller, histories())

    def test_srilms_ppl_change_by_hand(self, tmp_path):
        """A model of which every number can be worked out; thresholds around the changes of its bigrams.

        p(a) = 0.5, p(b) = 0.3, p(</s>) = 0.2; p(a | a) = 0.6, so bow(a) = 0.4 / 0.5; p(b | b) = 0.9, so bow(b) =
        0.1 / 0.7. Without "a a", bow'(a) = 1 and ΔH = −0.5 (0.6 log(0.5 / 0.6) + 0.4 log(1 / 0.8)) = 0.0043724.
        """
        path = tmp_path / "hand.arpa"
        path.write_text(
            "\\data\\\nngram 1=5\nngram 2=2\n\\1-grams:\n-99 <unk>\n-99 <s>\n"
            f"{math.log10(0.2)} </s>\n{math.log10(0.5)} a {math.log10(0.8)}\n"
            f"{math.log10(0.3)} b {math.log10(0.1 / 0.7)}\n"
            f"\\2-grams:\n{math.log10(0.6)} a a\n{math.log10(0.9)} b b\n\\end\\\n"
        )
        lm = NGramLM.open(path, keep_ngrams=True)
        entropy = -0.5 * (0.6 * math.log10(0.5 / 0.6) + 0.4 * math.log10(1 / 0.8))
        assert entropy == pytest.approx(0.0043724, abs=1e-7)
        change = 10**entropy - 1
        assert ("a", "a") in listed(lm.prune(change * 0.999), tmp_path)
        smaller = listed(lm.prune(change * 1.001), tmp_path)
        assert ("a", "a") not in smaller and smaller[("a",)][1] == 0
        assert ("b", "b") in smaller and smaller[("b",)][1] == pytest.approx(math.log10(0.1 / 0.7), abs=1e-5)

    def test_contexts_of_ngrams_that_stay(self, tmp_path):
        lm = estimated(order=4)
        grams = listed(lm.prune(3e-4), tmp_path)
        assert all(gram[:-1] in grams for gram in grams if len(gram) > 1)
        assert max(map(len, grams)) == 4

    def test_low_orders_may_stay(self, tmp_path):
        lm = estimated()
        whole, smaller = listed(lm, tmp_path), listed(lm.prune(0.5, min_order=3), tmp_path)
        assert smaller.keys() == {gram for gram in whole if len(gram) < 3}
        assert listed(lm.prune(0.5), tmp_path).keys() == {gram for gram in whole if len(gram) < 2}

    def test_nothing_to_prune(self, tmp_path):
        lm = estimated()
        assert_equal_models(listed(lm.prune(0), tmp_path), listed(lm, tmp_path))
        one = estimated(order=1)
        assert_equal_models(listed(one.prune(0.1), tmp_path), listed(one, tmp_path))

    def test_of_files_without_some_contexts(self, tmp_path):
        """N-grams that longer ones begin or end with may be missing in a file; scores stay what they are."""
        lm = estimated(order=4, prune=(0, 1, 1, 2))
        path = tmp_path / "lm.arpa"
        lm.to_arpa(path)
        text = path.read_text().split("\n")
        gone = {"red car", "the red", "car the a"}
        kept = [line for line in text if line.count("\t") < 1 or line.split("\t")[1] not in gone]
        for n in (2, 3):
            at = next(i for i, line in enumerate(kept) if line.startswith(f"ngram {n}="))
            size = sum(len(line.split("\t")[1].split()) == n for line in kept if "\t" in line)
            kept[at] = f"ngram {n}={size}"
        path.write_text("\n".join(kept))
        file = NGramLM.open(path, keep_ngrams=True)
        pruned = file.prune(1e-9)
        assert_sums_to_1(pruned, histories())
        assert {gram[:-1] for gram in listed(pruned, tmp_path) if len(gram) > 1} <= listed(
            pruned, tmp_path
        ).keys()

    def test_of_tables_that_hold_hashes(self, tmp_path):
        """Loaded from a file of save, n-grams are found by trying."""
        lm = estimated()
        lm.save(tmp_path / "lm.safetensors")
        loaded = NGramLM.load(tmp_path / "lm.safetensors")
        assert_equal_models(listed(loaded.prune(1e-3), tmp_path), listed(lm.prune(1e-3), tmp_path))

    @pytest.mark.parametrize(
        "arguments, error, message",
        [
            ((-1e-9,), ValueError, "threshold: expected a finite number of at least 0, received -1e-09"),
            ((math.nan,), ValueError, "threshold: expected a finite number"),
            (("1e-8",), TypeError, "threshold: expected a number, received '1e-8'"),
            ((1e-8, 1), ValueError, "min_order: expected at least 2, received 1"),
            ((1e-8, 2.0), TypeError, "min_order: expected an integer, received 2.0"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            estimated(count=5).prune(arguments[0], **dict(zip(["min_order"], arguments[1:])))

    def test_words_are_needed(self):
        lm = estimated(count=5)
        bare = NGramLM({**lm.tensors, "strings": lm.tensors["strings"][:0]}, lm.order, lm.bos, lm.eos)
        with pytest.raises(ValueError, match="prune: expected a model that has its words"):
            bare.prune(1e-8)


class TestInterpolate:
    @pytest.mark.parametrize("orders", [(3, 3), (2, 4), (3, 1, 2)])
    def test_equals_the_formula(self, tmp_path, orders):
        vocabularies = (WORDS, [*WORDS[2:], "new", "words"], ["car", "other"])
        models = [estimated(i, order, words) for i, (order, words) in enumerate(zip(orders, vocabularies))]
        weights = (0.7, 0.3) if len(orders) == 2 else (0.2, 0.5, 0.3)
        mixed = NGramLM.interpolate(models, weights)
        expected = reference.mix([listed(model, tmp_path) for model in models], weights)
        assert mixed.order == max(orders)
        assert_equal_models(listed(mixed, tmp_path), expected)
        assert_sums_to_1(mixed, [*histories(), ("new",), ("red", "new"), ("other", "car")])

    def test_seen_words_have_mixed_probabilities(self):
        """Where each model has the n-gram, by the models themselves."""
        models = [estimated(0), estimated(1)]
        mixed = NGramLM.interpolate(models, (0.25, 0.75))
        for sentence in sentences(20, 5):
            rows = [model.full_scores(sentence) for model in (mixed, *models)]
            for score, *each in zip(*rows):
                if score.order == 3:
                    p = [10**one.log_prob for one in each]
                    assert 10**score.log_prob == pytest.approx(0.25 * p[0] + 0.75 * p[1], rel=1e-5)

    def test_one_model_alone(self, tmp_path):
        lm = estimated()
        assert_equal_models(listed(NGramLM.interpolate([lm], [1]), tmp_path), listed(lm, tmp_path))

    @pytest.mark.parametrize(
        "models, weights, error, message",
        [
            (lambda lm: [lm, lm], [0.5], ValueError, "weights: expected 2, one for each model, received 1"),
            (lambda lm: [lm, lm], [0.5, 0.6], ValueError, "weights: expected numbers of at least 0 that sum to 1"),
            (lambda lm: [lm, lm], [1.5, -0.5], ValueError, "weights: expected numbers of at least 0 that sum to 1"),
            (lambda lm: [lm, lm], ["a", 1], TypeError, "weights: expected numbers"),
            (lambda lm: [], [], ValueError, "models: expected at least one, received none"),
            (lambda lm: [lm, "lm.arpa"], [0.5, 0.5], TypeError, "models: expected NGramLMs, received str"),
            (lambda lm: [lm, estimated(unit="character", count=5)], [0.5, 0.5], ValueError, "models: expected one unit"),
        ],
    )  # fmt: skip
    def test_bad_arguments(self, models, weights, error, message):
        with pytest.raises(error, match=message):
            NGramLM.interpolate(models(estimated(count=5)), weights)


def test_kenlm_reads_them_alike(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    mixed = NGramLM.interpolate([estimated(0, 4), estimated(1, words=[*WORDS, "new"])], [0.4, 0.6])
    for lm in (mixed, mixed.prune(1e-4)):
        path = tmp_path / "lm.arpa"
        lm.to_arpa(path)
        peer, read = kenlm.Model(str(path)), NGramLM.open(path)
        for sentence in [*sentences(50, 9), "unheard new"]:
            expected = [score[0] for score in peer.full_scores(sentence)]
            assert [score.log_prob for score in read.full_scores(sentence)] == pytest.approx(
                expected, abs=1e-5
            )


class TestBestWeights:
    def test_is_the_maximum(self):
        """No other weights give the text a higher probability."""
        models = [estimated(0), estimated(3, words=[*WORDS[::-1], "new"])]
        text = sentences(30, 7) + sentences(10, 8, [*WORDS[::-1], "new"]) + ["unheard red"]
        weight, rest = NGramLM.best_weights(models, text)
        assert weight + rest == pytest.approx(1, abs=1e-9) and 0.05 < weight < 0.95

        def likelihood(weight):
            total = 0.0
            for sentence in text:
                for a, b in zip(*(model.full_scores(sentence) for model in models)):
                    p = weight * 10**a.log_prob * (not a.unknown) + (1 - weight) * 10**b.log_prob * (
                        not b.unknown
                    )
                    total += math.log(p) if p else 0
            return total

        grid = np.linspace(0.01, 0.99, 99)
        best = likelihood(weight)
        assert all(best >= likelihood(w) - 1e-9 for w in (*grid, weight - 1e-3, weight + 1e-3))

    def test_a_model_that_is_better_everywhere(self):
        models = [estimated(0), estimated(1, words=["x", "y"])]
        assert NGramLM.best_weights(models, sentences(20, 0))[0] > 0.8

    def test_bad_arguments(self):
        lm = estimated(count=5)
        with pytest.raises(TypeError, match="sentences: expected several of them, received the string 'red'"):
            NGramLM.best_weights([lm], "red")
        with pytest.raises(ValueError, match="sentences: expected words that a model knows, received none"):
            NGramLM.best_weights([lm], [])
        # </s> alone says nothing.
        with pytest.raises(ValueError, match="sentences: expected words that a model knows, received none"):
            NGramLM.best_weights([lm, lm], ["strangers", "", "all"])
