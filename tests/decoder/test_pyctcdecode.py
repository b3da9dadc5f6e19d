"""pyctcdecode 0.5.0's interface: beside the original where it is installed, else beside what it was seen to give.

Where its semantics is not sound, ``docs/decoder.md`` has a row in a table and this file a test: of the sound result,
and of ``parity=True``.
"""

import copy
import gc
import json
import logging
import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from asrkern.decoder import NGramLM
from asrkern.decoder.compat import build_ctcdecoder, pyctcdecode
from asrkern.decoder.compat.pyctcdecode import (
    Alphabet,
    BeamSearchDecoderCTC,
    HotwordScorer,
    LanguageModel,
    MultiLanguageModel,
)
from asrkern.decoder.compat.pyctcdecode.language_model import (
    AbstractLanguageModel,
    load_unigram_set_from_arpa,
)
from tests.decoder.models import LN10, small_lm

LABELS = ["", " ", "a", "b", "d"]
WORDS = ["ab", "a", "b", "abd", "dab", "ba"]
# "abd" has no back-off weight, so its line has two columns.
ARPA = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.2\t<unk>
-99\t<s>\t-0.4
-1.1\t</s>
-0.9\tab\t-0.2
-0.7\ta\t-0.3
-1.3\tabd

\\2-grams:
-0.3\t<s> ab
-0.4\tab </s>
-0.5\ta ab
-0.6\ta a

\\end\\
"""
ALPHA, BETA = 0.5, 1.5


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return str(path)


@pytest.fixture
def original():
    package = pytest.importorskip("pyctcdecode")
    pytest.importorskip("kenlm")
    logging.getLogger("pyctcdecode").setLevel(logging.CRITICAL)
    return package


def spelled(*tokens, others=-6.0):
    """Logits of one token a frame."""
    logits = np.full((len(tokens), len(LABELS)), others, np.float32)
    logits[range(len(tokens)), tokens] = 0
    return logits


def random_logits(frames, sharpness=2.0, labels=5):
    return (torch.randn(frames, labels) * sharpness).numpy()


def lm_score(beam):
    return beam.lm_score - beam.logit_score


class TestAlphabet:
    @pytest.mark.parametrize(
        "labels, expected, is_bpe",
        [
            (["[PAD]", "[UNK]", "|", "a"], ["", "⁇", " ", "a"], False),
            (["_", "a", "|", " "], ["", "a", "|", " "], False),
            (["a", "b"], ["a", "b", ""], False),
            (["<pad>", "▁a", "b", "<unk>"], ["", "▁a", "b", "▁⁇▁"], True),
            (["a", "##b", "[UNK]", "[CLS]", "▁"], ["▁a", "b", "▁⁇▁", "[CLS]", "▁", ""], True),
        ],
    )
    def test_labels(self, labels, expected, is_bpe):
        alphabet = Alphabet.build_alphabet(labels)
        assert alphabet.labels == expected and alphabet.is_bpe is is_bpe
        again = Alphabet.loads(alphabet.dumps())
        assert again.labels == expected and again.is_bpe is is_bpe
        alphabet.labels.append("x")
        assert alphabet.labels == expected

    def test_as_the_original(self, original):
        for labels in (["[PAD]", "[UNK]", "|", "a"], ["_", "a"], ["▁a", "b"], ["a", "##b", "<pad>", ""]):
            theirs, ours = original.Alphabet.build_alphabet(labels), Alphabet.build_alphabet(labels)
            assert ours.labels == theirs.labels and ours.is_bpe == theirs.is_bpe
            assert json.loads(ours.dumps()) == json.loads(theirs.dumps())

    def test_subwords_of_early_releases(self):
        alphabet = Alphabet.build_bpe_alphabet(["x", "▁a", "b", "y"], unk_token_idx=0, ctc_token_idx=3)
        assert alphabet.labels == ["▁⁇▁", "▁a", "b", ""] and alphabet.is_bpe
        assert Alphabet.build_bpe_alphabet(["_", "ab"]).labels == ["_", "ab", ""]

    def test_marks_that_are_letters(self):
        """An alphabet that says that it has no subwords."""
        decoder = BeamSearchDecoderCTC(Alphabet(["", " ", "▁a", "b"], False))
        logits = np.full((5, 4), -20.0)
        logits[range(5), [2, 3, 2, 1, 3]] = 0
        assert decoder.decode(logits) == "▁ab▁a b"

    @pytest.mark.parametrize(
        "call, message",
        [
            (lambda: Alphabet.loads("{"), "expected JSON"),
            (lambda: Alphabet.loads('{"labels": ["a"]}'), r"labels and is_bpe, received \['labels'\]"),
            (lambda: Alphabet.loads('{"labels": "a", "is_bpe": true}'), "received 'a'"),
            (lambda: Alphabet.loads('{"labels": ["a"], "is_bpe": 1}'), "is_bpe: expected True or False"),
            (lambda: Alphabet.build_bpe_alphabet(["a"], 1), "unk_token_idx: expected the index of a label"),
            (lambda: BeamSearchDecoderCTC(Alphabet(["a"], False)), "alphabet: expected a blank"),
        ],
    )
    def test_bad(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()


class TestParity:
    """``parity=True`` is pyctcdecode: texts, times, states and scores, bit for bit."""

    # Texts, times and scores of 0.5.0 (numpy 2.4) for the model above and random_logits of numpy's generator 5.
    RECORDED = (
        ("ab", [("ab", (3, 6))], -6.171755, -2.47766),
        ("ab a", [("ab", (0, 2)), ("a", (5, 6))], -7.295092, -4.288453),
        ("ab ab", [("ab", (0, 2)), ("ab", (4, 6))], -11.432718, -4.505045),
        ("a", [("a", (3, 5))], -10.438769, -11.817),
        ("a a", [("a", (3, 4)), ("a", (5, 6))], -11.389402, -11.958409),
    )

    def test_recorded(self, arpa):
        logits = (np.random.default_rng(5).standard_normal((6, 5)) * 2).astype(np.float32)
        found = build_ctcdecoder(LABELS, arpa, parity=True).decode_beams(
            logits, hotwords=["ab"], hotword_weight=3.0
        )
        assert len(found) == len(self.RECORDED)
        for beam, (text, frames, logit_score, score) in zip(found, self.RECORDED):
            assert (beam.text, beam.text_frames) == (text, frames)
            assert abs(beam.logit_score - logit_score) < 1e-6 and abs(beam.lm_score - score) < 1e-6

    @pytest.mark.parametrize("boundary", [True, False])
    @pytest.mark.parametrize("with_lm", [True, False])
    def test_beside_the_original(self, original, tmp_path, with_lm, boundary):
        path = None
        if with_lm:
            path = str(tmp_path / "lm.arpa")
            small_lm(WORDS).to_arpa(path)
        theirs = original.build_ctcdecoder(LABELS, path, lm_score_boundary=boundary)
        ours = build_ctcdecoder(LABELS, path, lm_score_boundary=boundary, parity=True)
        for frames, width, hotwords, history in (
            (1, 5, None, False),
            (13, 3, None, True),
            (20, 60, ["ab", "d ba"], False),
        ):
            logits = random_logits(frames, 3.0)
            options = {"beam_width": width, "hotwords": hotwords}
            assert ours.decode(logits, **options) == theirs.decode(logits, **options)
            found = ours.decode_beams(logits, **options, prune_history=history)
            expected = theirs.decode_beams(logits, **options, prune_history=history)
            assert [b[0] for b in found] == [b[0] for b in expected]
            assert [b[2] for b in found] == [b[2] for b in expected]
            assert [b[3:] for b in found] == [b[3:] for b in expected]
        theirs.cleanup()

    def test_subwords(self, original, arpa):
        labels = ["▁a", "b", "▁ab", "▁", "<unk>", "d", ""]
        theirs = original.build_ctcdecoder(labels, arpa)
        ours = build_ctcdecoder(labels, arpa, parity=True)
        logits = random_logits(25, 3.0, len(labels))
        found, expected = ours.decode_beams(logits), theirs.decode_beams(logits)
        assert [(b[0], *b[2:]) for b in found] == [(b[0], *b[2:]) for b in expected]

    def test_without_unigrams(self, original, arpa, tmp_path):
        """No beginning of a word is known then."""
        import kenlm

        theirs = original.BeamSearchDecoderCTC(
            original.Alphabet.build_alphabet(LABELS), original.LanguageModel(kenlm.Model(arpa))
        )
        lm = LanguageModel(kenlm.Model(arpa), parity=True)
        ours = BeamSearchDecoderCTC(Alphabet.build_alphabet(LABELS), lm, parity=True)
        logits = random_logits(25)
        assert [b[3:] for b in ours.decode_beams(logits)] == [b[3:] for b in theirs.decode_beams(logits)]


class TestSound:
    """Each row of the table "where pyctcdecode 0.5.0's results are not sound"."""

    def test_space_at_the_end(self, arpa):
        """There an empty, unknown word is charged: 12 nats, and another text wins."""
        expected = ALPHA * LN10 * (-0.3 - 0.4) + BETA
        for tokens in ((2, 3, 1), (2, 3, 0)):
            beam = build_ctcdecoder(LABELS, arpa).decode_beams(spelled(*tokens))[0]
            assert beam.text == "ab" and abs(lm_score(beam) - expected) < 1e-5
        parity = build_ctcdecoder(LABELS, arpa, parity=True)
        beam = parity.decode_beams(spelled(2, 3, 1))[0]
        assert beam.text == "ab" and abs(beam.lm_score - -11.7661) < 1e-4
        logits = spelled(2, 3, 1)
        logits[2, 4] = -4
        # "abd" with its two columns would be unknown, too.
        words = ["ab", "a", "abd"]
        assert build_ctcdecoder(LABELS, arpa, words, parity=True).decode(logits) == "abd"
        assert build_ctcdecoder(LABELS, arpa, words).decode(logits) == "ab"

    def test_words_in_two_columns(self, arpa):
        """Words without a back-off weight are words. There they are unknown."""
        expected = ALPHA * LN10 * (-0.4 - 1.3 - 1.1) + BETA
        beam = build_ctcdecoder(LABELS, arpa).decode_beams(spelled(2, 3, 4))[0]
        assert beam.text == "abd" and abs(lm_score(beam) - expected) < 1e-5
        beam = build_ctcdecoder(LABELS, arpa, parity=True).decode_beams(spelled(2, 3, 4))[0]
        assert beam.text == "abd" and abs(lm_score(beam) - (expected + ALPHA * LN10 * -10)) < 1e-5
        assert {"ab", "a", "abd"} <= load_unigram_set_from_arpa(arpa)

    def test_logits_whose_rows_sum_to_one(self):
        """They are logits if any is negative. There they are taken for probabilities."""
        logits = np.array([[5, -4, 0, 0, 0.0], [0, 0, 3, -2, 0], [0, 0, 0, 4, -3]], np.float32)
        expected = torch.tensor(logits).log_softmax(-1)
        beam = build_ctcdecoder(LABELS).decode_beams(logits)[0]
        assert beam == build_ctcdecoder(LABELS).decode_beams(expected.numpy())[0] and beam.logit_score < -0.1
        assert build_ctcdecoder(LABELS, parity=True).decode_beams(logits)[0].logit_score == 0.0

    def test_decode_is_the_best_of_the_beams(self):
        """There decode prunes by history before texts are summed, and finds others: recorded with 0.5.0."""
        for seed, pruned, best in ((11, "ada", "a a"), (14, "b d", "bd"), (25, "d d", "d b")):
            logits = np.random.default_rng(seed).standard_normal((8, 5)).astype(np.float32)
            parity = build_ctcdecoder(LABELS, parity=True)
            assert (parity.decode(logits), parity.decode_beams(logits)[0].text) == (pruned, best)
            sound = build_ctcdecoder(LABELS)
            assert sound.decode(logits) == sound.decode_beams(logits)[0].text

    def test_sentences_of_pieces_end_once(self, arpa):
        """There each piece is charged ``</s>``."""
        decoder = build_ctcdecoder(LABELS, arpa)
        [first] = decoder.decode_beams(spelled(2, 1), end_of_sentence=False)
        [second] = decoder.decode_beams(
            spelled(2, 3), lm_start_state=first.last_lm_state, end_of_sentence=True
        )
        [whole] = decoder.decode_beams(spelled(2, 1, 2, 3))
        assert first.text + " " + second.text == whole.text == "a ab"
        assert abs(first.lm_score + second.lm_score - whole.lm_score) < 1e-5
        assert second.last_lm_state == whole.last_lm_state
        # By default a piece that begins in a text does not end it.
        [open_] = decoder.decode_beams(spelled(2, 3), lm_start_state=first.last_lm_state)
        assert abs(second.lm_score - open_.lm_score - ALPHA * LN10 * -0.4) < 1e-5
        parity = build_ctcdecoder(LABELS, arpa, parity=True)
        pieces = parity.decode_beams(spelled(2, 1))
        pieces += parity.decode_beams(spelled(2, 3), lm_start_state=pieces[0].last_lm_state)
        assert [round(b.lm_score, 4) for b in pieces] == [-12.7924, -0.0164]

    def test_times_are_of_the_best_alignment(self):
        """There they are those of the alignment that came last."""
        logits = spelled(2, 0, 0, 2, others=-20.0)
        logits[1:3, 2] = -3
        [best, *_] = build_ctcdecoder(LABELS).decode_beams(logits)
        assert best.text == "aa" and best.text_frames == [("aa", (0, 4))]

    def test_words_with_other_line_ends(self, tmp_path, arpa):
        """unigrams.txt ends lines with line feeds alone."""
        (tmp_path / "d" / "language_model").mkdir(parents=True)
        text = ARPA.replace("abd", "a\u2028b")
        (tmp_path / "lm.arpa").write_text(text, encoding="utf-8")
        labels = ["", " ", "a", "b", "\u2028"]
        decoder = build_ctcdecoder(labels, str(tmp_path / "lm.arpa"))
        decoder.save_to_dir(tmp_path / "d")
        again = BeamSearchDecoderCTC.load_from_dir(tmp_path / "d")
        assert again._language_model._unigram_set == {"a", "ab", "a\u2028b"}
        assert lm_score(again.decode_beams(spelled(2, 4, 3))[0]) > -3

    def test_words_that_are_not_among_the_unigrams(self, arpa):
        """They score as ``<unk>``; there as themselves. The offset is added in both."""
        sound, parity = (
            build_ctcdecoder(LABELS, arpa, ["a"], parity=p).decode_beams(spelled(2, 3))[0]
            for p in (False, True)
        )
        offset = ALPHA * LN10 * -10 + BETA
        assert abs(lm_score(sound) - (offset + ALPHA * LN10 * (-0.4 - 1.2 - 1.1))) < 1e-5
        assert abs(lm_score(parity) - (offset + ALPHA * LN10 * (-0.3 - 0.4))) < 1e-5

    def test_history_is_not_pruned(self, arpa):
        decoder, logits = build_ctcdecoder(LABELS, arpa), random_logits(20)
        assert decoder.decode_beams(logits, prune_history=True) == decoder.decode_beams(logits)

    def test_not_a_number(self):
        for parity in (False, True):
            with pytest.raises(ValueError, match=r"^logits: .*NaN"):
                build_ctcdecoder(LABELS, parity=parity).decode(np.full((2, 5), np.nan, np.float32))


class TestStates:
    @pytest.mark.parametrize("boundary", [True, False])
    def test_scores_of_all_texts(self, original, tmp_path, boundary):
        """Behind other words, and without boundaries, as the original. Beams hold everything."""
        path = str(tmp_path / "lm.arpa")
        small_lm(WORDS).to_arpa(path)
        theirs = original.build_ctcdecoder(LABELS, path, lm_score_boundary=boundary)
        ours = build_ctcdecoder(LABELS, path, lm_score_boundary=boundary)
        logits = random_logits(7)
        # No two spaces without a letter between them, and none at either end.
        logits[[0, 1, 2, 4, 5, 6], 1] = logits[[2, 6], 0] = -60
        options = {"beam_width": 20000, "beam_prune_logp": -60.0, "token_min_logp": -30.0}
        [before, *_] = theirs.decode_beams(spelled(2, 3, 1, 2))
        [ours_before, *_] = ours.decode_beams(spelled(2, 3, 1, 2))
        for state, other, ends in ((None, None, None), (before[1], ours_before.last_lm_state, True)):
            expected = theirs.decode_beams(logits, **options, lm_start_state=state)
            found = ours.decode_beams(logits, **options, lm_start_state=other, end_of_sentence=ends)
            scores = {beam.text: beam for beam in found}
            assert len(scores) == len(found) == len(expected) > 200
            for text, _, _, logit_score, score in expected:
                assert abs(scores[text].logit_score - logit_score) < 1e-4
                assert abs(scores[text].lm_score - score) < 1e-4
        theirs.cleanup()

    def test_last_state(self, tmp_path):
        lm = small_lm(WORDS)
        decoder = build_ctcdecoder(LABELS, lm)
        for frames in (0, 2, 40):
            for beam in decoder.decode_beams(random_logits(frames))[:20]:
                state = lm.start()
                for word in beam.text.split():
                    state = lm.step(state, word)[1]
                assert beam.last_lm_state == state
                assert pickle.loads(pickle.dumps(beam.last_lm_state)) == state

    def test_batches_without_boundaries(self):
        lm = small_lm(WORDS)
        decoder = build_ctcdecoder(LABELS, lm, lm_score_boundary=False)
        logits = [random_logits(t) for t in (9, 0, 17)]
        batch = decoder.decode_beams_batch(None, logits)
        for row, one in zip(batch, logits):
            assert row == [(b.text, *b[2:]) for b in decoder.decode_beams(one)]
        # What counts is the attribute as it is, which transformers sets.
        decoder.model_container[decoder._model_key].score_boundary = True
        assert decoder.decode_beams(logits[0]) == build_ctcdecoder(LABELS, lm).decode_beams(logits[0])
        decoder.model_container[decoder._model_key].alpha = 1.5
        assert decoder.decode_beams(logits[0]) == build_ctcdecoder(LABELS, lm, alpha=1.5).decode_beams(
            logits[0]
        )

    def test_bad(self):
        decoder = build_ctcdecoder(LABELS, small_lm(WORDS))
        with pytest.raises(TypeError, match="lm_start_state: expected last_lm_state of a beam, received int"):
            decoder.decode(random_logits(3), lm_start_state=1)
        lm = NGramLM.estimate(["a a a a a a", "a b a b"], 5, discount_fallback=True)
        [first, *_] = build_ctcdecoder(LABELS, lm).decode_beams(spelled(2, 1, 2, 1, 2, 1, 2))
        assert len(first.last_lm_state.words) == 4
        with pytest.raises(
            ValueError, match="lm_start_state: expected a state of the decoder's language model"
        ):
            decoder.decode(random_logits(3), lm_start_state=first.last_lm_state)
        with pytest.raises(ValueError, match="lm_start_state: expected None without a language model"):
            build_ctcdecoder(LABELS).decode(random_logits(3), lm_start_state=first.last_lm_state)


class Letters(AbstractLanguageModel):
    """A model of one's own: a word costs its letters."""

    order = 2

    def get_start_state(self):
        return 0

    def score_partial_token(self, partial_token):
        return 0.0

    def score(self, prev_state, word, is_last_word=False):
        return -0.5 * len(word) - is_last_word, prev_state + len(word)


class TestModels:
    def test_several_models(self, original, tmp_path):
        import kenlm
        from pyctcdecode.language_model import MultiLanguageModel as Theirs

        paths = [str(tmp_path / f"{n}.arpa") for n in (3, 2)]
        small_lm(WORDS, 3).to_arpa(paths[0])
        small_lm(WORDS[::-1], 2).to_arpa(paths[1])
        settings = ({"alpha": 0.7}, {"alpha": 0.3, "beta": 0.5})

        def make(package, multi, **parity):
            models = [
                package.LanguageModel(kenlm.Model(path), WORDS, **options)
                for path, options in zip(paths, settings)
            ]
            return package.BeamSearchDecoderCTC(
                package.Alphabet.build_alphabet(LABELS), multi(models), **parity
            )

        theirs, ours = make(original, Theirs), make(pyctcdecode, MultiLanguageModel, parity=True)
        logits = random_logits(20)
        assert [b[3:] for b in ours.decode_beams(logits)] == [b[3:] for b in theirs.decode_beams(logits)]
        # One model twice is that model.
        lm = small_lm(WORDS)
        alphabet = Alphabet.build_alphabet(LABELS)
        twice = BeamSearchDecoderCTC(alphabet, MultiLanguageModel([LanguageModel(lm, WORDS)] * 2))
        once = build_ctcdecoder(LABELS, lm, WORDS)
        for beam, same in zip(twice.decode_beams(spelled(2, 3, 1)), once.decode_beams(spelled(2, 3, 1))):
            assert beam.text == same.text and abs(beam.lm_score - same.lm_score) < 1e-5
            assert beam.last_lm_state == [same.last_lm_state] * 2
        with pytest.raises(ValueError, match="language_models: expected at least 2, received 1"):
            MultiLanguageModel([LanguageModel(lm)])
        with pytest.raises(ValueError, match="prev_state: expected 2 states"):
            twice.decode(logits, lm_start_state=3)

    def test_own_model(self):
        decoder = BeamSearchDecoderCTC(Alphabet.build_alphabet(LABELS), Letters())
        [first, *_] = decoder.decode_beams(spelled(2, 3, 1, 2))
        assert first.text == "ab a" and first.last_lm_state == 3 and abs(lm_score(first) + 2.5) < 1e-9
        # A space at the end is no word.
        [spaced, *_] = decoder.decode_beams(spelled(2, 3, 1))
        assert abs(lm_score(spaced) + 1.0) < 1e-9
        assert decoder.decode_batch(None, [spelled(2), spelled(3)]) == ["a", "b"]
        [[best, *_]] = decoder.decode_beams_batch(None, [spelled(2)])
        assert best[:2] == ("a", [("a", (0, 1))]) and best[2:] == decoder.decode_beams(spelled(2))[0][3:]
        with pytest.raises(NotImplementedError, match="Letters cannot be saved"):
            decoder._language_model.save_to_dir("x")

    def test_hotwords(self):
        scorer = HotwordScorer.build_scorer(["ab", " d  abd"], 6.0)
        assert scorer.score("ab x abd ab abx") == 18.0
        assert [scorer.score_partial_token(t) for t in ("a", "ab", "abd", "abdx", "")] == [3, 6, 6, 0, 0]
        assert "abd" in scorer and "x" not in scorer

    def test_reset(self):
        lm = LanguageModel(small_lm(WORDS))
        lm.reset_params(alpha=1, score_boundary=False, beta=None)
        assert lm.serializable_attrs == {
            "alpha": 1.0, "beta": 1.5, "unk_score_offset": -10.0, "score_boundary": False,
        }  # fmt: skip
        for bad in ({"beta": 2.0, "alpha": -1.0}, {"score_boundary": 1}, {"beta": "x"}):
            with pytest.raises(ValueError, match=next(reversed(bad))):
                lm.reset_params(**bad)
        assert lm.beta == 1.5 and lm.alpha == 1.0
        with pytest.raises(TypeError, match="gamma: expected one of alpha"):
            lm.reset_params(gamma=1.0)
        build_ctcdecoder(LABELS).reset_params(alpha=2.0)

    def test_container(self):
        gc.collect()
        container = BeamSearchDecoderCTC.model_container
        before = len(container)
        decoder = build_ctcdecoder(LABELS, small_lm(WORDS))
        lm = container[decoder._model_key]
        assert isinstance(lm, LanguageModel) and len(container) == before + 1
        other = copy.deepcopy(decoder)
        assert len(container) == before + 2 and container[other._model_key] is not lm
        decoder.cleanup()
        decoder.cleanup()
        with pytest.raises(ValueError, match="removed by cleanup"):
            decoder.decode(spelled(2))
        assert other.decode(spelled(2)) == "a"
        del decoder, other
        gc.collect()
        assert len(container) == before

    def test_clear(self):
        decoder = build_ctcdecoder(LABELS)
        kept = dict(BeamSearchDecoderCTC.model_container)
        try:
            BeamSearchDecoderCTC.clear_class_models()
            with pytest.raises(ValueError, match="clear_class_models"):
                decoder.decode(spelled(2))
        finally:
            BeamSearchDecoderCTC.model_container.update(kept)

    def test_pools_are_not_needed(self):
        decoder = build_ctcdecoder(LABELS, small_lm(WORDS))
        logits = [random_logits(t) for t in (5, 8)]
        expected = decoder.decode_batch(None, logits)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pass
        assert decoder.decode_batch(pool, logits) == expected
        assert decoder.decode_batch(pool, np.stack([logits[0]] * 2)) == expected[:1] * 2
        with pytest.raises(ValueError, match=r"logits: .*shape \(time, 5\)"):
            decoder.decode_beams_batch(pool, [logits[0], logits[1][:, :4]])


class TestDirectories:
    def beams(self, decoder):
        return decoder.decode_beams(np.random.default_rng(3).standard_normal((20, 5)).astype(np.float32))

    def test_there_and_back(self, arpa, tmp_path):
        """Of files of each kind, of estimated models and of others; twice into one folder; without a model."""
        estimated = small_lm(WORDS)
        estimated.save(tmp_path / "lm.safetensors")
        loaded = NGramLM.load(tmp_path / "lm.safetensors")
        for name, lm in (
            ("lm.arpa", arpa),
            ("lm.arpa", estimated),
            ("lm.safetensors", loaded),
            (None, None),
        ):
            decoder = build_ctcdecoder(LABELS, lm, alpha=0.4, beta=0.3, unk_score_offset=-2.0)
            folder = tmp_path / str(id(decoder))
            decoder.save_to_dir(folder)
            decoder.save_to_dir(folder)
            paths = BeamSearchDecoderCTC.parse_directory_contents(str(folder))
            assert paths["alphabet"] == str(folder / "alphabet.json")
            again = BeamSearchDecoderCTC.load_from_dir(str(folder), "utf-8")
            again.save_to_dir(folder)
            if name is None:
                assert paths["language_model"] is None
                assert [b[0] for b in self.beams(again)] == [b[0] for b in self.beams(decoder)]
                continue
            assert LanguageModel.parse_directory_contents(paths["language_model"])["kenlm"].endswith(name)
            assert again._language_model.serializable_attrs == decoder._language_model.serializable_attrs
            for ours, same in zip(self.beams(again), self.beams(decoder), strict=True):
                # An ARPA file has five digits.
                assert ours[:3] == same[:3] and abs(ours.lm_score - same.lm_score) < 1e-4

    def test_with_the_original(self, original, arpa, tmp_path):
        theirs = original.build_ctcdecoder(LABELS, arpa, ["ab", "a", "abd"], alpha=0.4)
        (tmp_path / "theirs").mkdir()
        theirs.save_to_dir(str(tmp_path / "theirs"))
        ours = BeamSearchDecoderCTC.load_from_dir(tmp_path / "theirs", parity=True)
        assert [b[3:] for b in self.beams(ours)] == [b[3:] for b in self.beams(theirs)]
        ours.save_to_dir(tmp_path / "ours")
        again = original.BeamSearchDecoderCTC.load_from_dir(str(tmp_path / "ours"))
        assert [b[3:] for b in self.beams(again)] == [b[3:] for b in self.beams(theirs)]

    def test_bad_directories(self, arpa, tmp_path):
        folder = tmp_path / "d"
        build_ctcdecoder(LABELS, arpa).save_to_dir(folder)
        models = folder / "language_model"
        cases = [
            (folder / "alphabet.json", None, "expected alphabet.json, found language_model"),
            (folder / "alphabet.json", "[1]", "alphabet.json: expected an object of labels and is_bpe, received list"),
            (folder / "alphabet.json", '{"labels": ["", "x"], "is_bpe": false}', "expected a model of words that the labels"),
            (models / "attrs.json", None, "expected attrs.json, found lm.arpa, unigrams.txt"),
            (models / "attrs.json", '{"alpha": 0.5}', r"attrs.json: expected alpha, .* received \['alpha'\]"),
            (models / "attrs.json", "{", "attrs.json: expected JSON"),
            (models / "attrs.json", '{"alpha": "x", "beta": 1, "unk_score_offset": 1, "score_boundary": true}', "alpha: expected a finite number"),
            (models / "unigrams.txt", None, "expected unigrams.txt"),
            (models / "lm.arpa", None, "expected one language model .* found nothing"),
            (models / "more.arpa", "x", "expected one language model .* found lm.arpa, more.arpa"),
            (models / "lm.arpa", "x", "lm.arpa: "),
        ]  # fmt: skip
        for path, text, message in cases:
            before = path.read_bytes() if path.exists() else None
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
            with pytest.raises(ValueError, match=message):
                BeamSearchDecoderCTC.load_from_dir(folder)
            path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before)
        BeamSearchDecoderCTC.load_from_dir(folder)
        with pytest.raises(FileNotFoundError):
            BeamSearchDecoderCTC.load_from_dir(tmp_path / "absent")
        (models / "notes.txt").write_text("x")
        with pytest.raises(ValueError, match=r"expected a folder without other files, .* has notes\.txt"):
            build_ctcdecoder(LABELS, arpa).save_to_dir(folder)

    def test_hub(self, arpa, tmp_path, monkeypatch):
        build_ctcdecoder(LABELS, arpa).save_to_dir(tmp_path / "d")
        hub = pytest.importorskip("huggingface_hub")

        def download(model_id, cache_dir, **options):
            assert (
                model_id == "some/model"
                and cache_dir.endswith("pyctcdecode")
                and options == {"revision": "x"}
            )
            return str(tmp_path / "d")

        monkeypatch.setattr(hub, "snapshot_download", download)
        decoder = BeamSearchDecoderCTC.load_from_hf_hub("some/model", revision="x")
        assert decoder.decode(spelled(2, 3)) == "ab"


def test_labels_that_words_do_not_have(arpa):
    with pytest.warns(UserWarning, match="unigrams: 2 of 3 different letters are in no label: 'x', 'y'"):
        build_ctcdecoder(LABELS, arpa, ["axy", "a"])
