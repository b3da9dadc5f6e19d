"""``asrkern.decoder.compat`` beside the decoders whose signatures it has.

Where the originals' searches differ (see the docstrings of compat), the inputs keep away from it: beams that hold
everything, no two spaces without a letter between them, and no space at either end.
"""

import copy
import gzip
import inspect
import math
import pickle

import numpy as np
import pytest
import torch

from asrkern.decoder import NGramLM
from asrkern.decoder.compat import CTCDecoderLM, CTCDecoderLMState, build_ctcdecoder, ctc_decoder
from tests.decoder.models import random_log_probs, small_lm

TOKENS = ["-", "|", "a", "b", "c"]
WORDS = ["ab", "a", "b", "abc", "cab", "ba"]
EVERYTHING = {"beam_size": 20000, "beam_threshold": 1e4, "nbest": 20000}


@pytest.fixture(scope="module")
def libri(oracles):
    """Tokens as for torchaudio, log-probabilities [T, V], and the text."""
    about = oracles["libri_371x29"]
    tokens = [{" ": "|", "": "-"}.get(label, label) for label in about["labels"]]
    log_probs = torch.tensor(oracles["libri_371x29 arrays"]["log_probs"]).float()
    return tokens, log_probs, about["expected"]["pyctcdecode_default_no_lm"]


def spelled(tokens):
    return "".join(tokens).replace("|", " ").split()


class TestOracles:
    """Published outputs with published answers, as in test_beam.py."""

    def test_librispeech(self, libri):
        tokens, log_probs, text = libri
        decoder = ctc_decoder(None, tokens, log_add=True)
        assert spelled(decoder.idxs_to_tokens(decoder(log_probs[None])[0][0].tokens)) == text.split()
        labels = [{"|": " ", "-": ""}.get(token, token) for token in tokens]
        assert build_ctcdecoder(labels).decode(log_probs.numpy()) == text

    def test_parlance(self, oracles):
        about = oracles["parlance_6x7"]
        labels, expected = about["labels"], about["expected"]["prefix_beam_20"]
        tokens = [label if label != " " else "|" for label in labels]
        blank = tokens[about["blank"]]
        decoder = ctc_decoder(None, tokens, beam_size=20, log_add=True, blank_token=blank)
        probs = torch.tensor(about["probs"])
        found = [decoder.idxs_to_tokens(best.tokens) for [best] in decoder(probs.log())]
        assert [spelled(tokens) for tokens in found] == [text.split() for text in expected]
        # A text's probability is the sum over spaces: where none of the labels is one, texts are sequences of labels.
        labels = ["" if index == about["blank"] else label for index, label in enumerate(labels)]
        labels = [label.replace(" ", "+") for label in labels]
        python = build_ctcdecoder(labels)
        options = {"beam_width": 20, "token_min_logp": -100.0, "beam_prune_logp": -100.0}
        found = [python.decode(p, **options) for p in probs.numpy()]
        assert found == [text.replace(" ", "+") for text in expected]

    def test_handwriting(self, oracles, tmp_path):
        about, arrays = oracles["handwriting"], oracles["handwriting arrays"]
        line, word = (
            torch.tensor(arrays[f"{name}_logits"]).float().log_softmax(-1) for name in ("line", "word")
        )
        tokens = [*(char if char != " " else "<space>" for char in about["chars"]), "<blank>"]
        options = {"blank_token": "<blank>", "sil_token": "<space>", "log_add": True, "beam_size": 100}
        decoder = ctc_decoder(None, tokens, **options)
        text = "".join(decoder.idxs_to_tokens(decoder(line[None])[0][0].tokens)).replace("<space>", " ")
        assert text.strip() == about["line"]["prefix_beam"]
        lexicon = tmp_path / "lexicon.txt"
        lexicon.write_text("".join(f"{w} {' '.join(w)} <space>\n" for w in about["word"]["lexicon_words"]))
        [[best]] = ctc_decoder(str(lexicon), tokens, **options)(word[None])
        assert best.words == [about["word"]["lexicon_best"]]
        python = build_ctcdecoder([*about["chars"], ""])
        found = python.decode(line.numpy(), token_min_logp=-100.0, beam_prune_logp=-100.0)
        assert found == about["line"]["prefix_beam"]


def spaced_log_probs(utterances, frames):
    """Random, with a space possible in each sixth frame and certain in the last, and a letter before each."""
    logits = 2 * torch.randn(utterances, frames, len(TOKENS))
    logits[:, [t for t in range(frames) if t % 6 != 5], 1] = -math.inf
    logits[:, 3::6, 0] = -math.inf
    logits[:, -1] = -math.inf
    logits[:, -1, 1] = 0
    return logits.log_softmax(-1)


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(f"{word} {' '.join(word)} |\n" for word in WORDS))
    return str(path)


class TestTorchaudio:
    def test_signature(self, torchaudio_ctc_decoder):
        def arguments(function):
            return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

        assert arguments(ctc_decoder) == arguments(torchaudio_ctc_decoder)

    @pytest.mark.parametrize("log_add", [True, False])
    def test_without_lexicon(self, torchaudio_ctc_decoder, log_add):
        """All texts with their scores; with the best alignment alone also its times."""
        emissions = random_log_probs(3, 7, len(TOKENS))
        # flashlight begins as if after a space, and ends in one.
        emissions[:, [0, 4, 5, 6], 1] = -math.inf
        options = {**EVERYTHING, "log_add": log_add}
        found = ctc_decoder(None, TOKENS, **options)(emissions, torch.tensor([7, 5, 6]))
        expected = torchaudio_ctc_decoder(None, TOKENS, **options)(emissions, torch.tensor([7, 5, 6]))
        for row, wanted in zip(found, expected, strict=True):
            assert abs(row[0].score - wanted[0].score) < 1e-4
            by_tokens = {tuple(h.tokens.tolist()): h for h in row}
            assert len(by_tokens) == len(row) == len(wanted)
            for h in wanted:
                same = by_tokens[tuple(h.tokens.tolist())]
                assert abs(same.score - h.score) < 1e-4 and same.words == h.words == []
                assert same.tokens.dtype == h.tokens.dtype and same.timesteps.dtype == h.timesteps.dtype
                assert log_add or torch.equal(same.timesteps, h.timesteps)

    @pytest.mark.parametrize("log_add", [True, False])
    def test_with_a_lexicon(self, torchaudio_ctc_decoder, lexicon, log_add):
        options = {**EVERYTHING, "log_add": log_add, "word_score": -0.7, "sil_score": 0.3}
        emissions = spaced_log_probs(3, 18)
        found = ctc_decoder(lexicon, TOKENS, **options)(emissions)
        expected = torchaudio_ctc_decoder(lexicon, TOKENS, **options)(emissions)
        for row, wanted in zip(found, expected, strict=True):
            assert row[0].words == wanted[0].words
            by_words = {tuple(h.words): h for h in row}
            assert len(by_words) == len(row) == len(wanted) > 20
            for h in wanted:
                same = by_words[tuple(h.words)]
                assert abs(same.score - h.score) < 1e-4 and torch.equal(same.tokens, h.tokens)
                assert log_add or torch.equal(same.timesteps, h.timesteps)

    def test_words_are_one_result(self, lexicon):
        """However many spaces are between them; without lexicon the result is the tokens."""
        emissions = random_log_probs(1, 6, len(TOKENS))
        # A space there is the one that the originals add.
        emissions[:, [0, 5], 1] = -math.inf
        [found] = ctc_decoder(lexicon, TOKENS, **EVERYTHING)(emissions)
        assert len(found) == len({tuple(h.words) for h in found}) > 20
        [found] = ctc_decoder(None, TOKENS, **EVERYTHING)(emissions)
        tokens = {tuple(h.tokens.tolist()) for h in found}
        assert len(found) == len(tokens)
        assert len({" ".join(spelled(TOKENS[t] for t in text)) for text in tokens}) < len(tokens)

    def test_with_a_language_model(self, torchaudio_ctc_decoder, lexicon, tmp_path):
        """flashlight keeps of texts with equal states of the model one, the best of which is the best of all."""
        arpa = str(tmp_path / "lm.arpa")
        small_lm(WORDS).to_arpa(arpa)
        options = {**EVERYTHING, "lm": arpa, "lm_weight": 1.7, "word_score": 0.4}
        emissions = spaced_log_probs(4, 18)
        found = ctc_decoder(lexicon, TOKENS, **options)(emissions)
        expected = torchaudio_ctc_decoder(lexicon, TOKENS, **options)(emissions)
        for row, wanted in zip(found, expected, strict=True):
            assert row[0].words == wanted[0].words
            assert torch.equal(row[0].timesteps, wanted[0].timesteps)
            scores = {tuple(h.words): h.score for h in row}
            assert wanted and all(abs(scores[tuple(h.words)] - h.score) < 1e-4 for h in wanted)

    def test_librispeech(self, torchaudio_ctc_decoder, libri):
        """flashlight's beam holds a prefix twice, after a blank and after its last token: texts on its edge differ."""
        tokens, log_probs, _ = libri
        for log_add, tolerance in ((True, 1e-3), (False, 1e-4)):
            options = {"beam_size": 100, "nbest": 3, "log_add": log_add}
            [found] = ctc_decoder(None, tokens, **options)(log_probs[None])
            [expected] = torchaudio_ctc_decoder(None, tokens, **options)(log_probs[None])
            for rank, (h, wanted) in enumerate(zip(found, expected, strict=True)):
                assert abs(h.score - wanted.score) < tolerance
                # The log-probabilities are whole numbers, so alignments, and with them texts, are equally good by chance.
                if log_add or rank == 0:
                    assert torch.equal(h.tokens, wanted.tokens)
                    assert (h.timesteps - wanted.timesteps).abs().max() <= 1

    def test_librispeech_with_a_language_model(self, torchaudio_ctc_decoder, libri, data_dir, tmp_path):
        tokens, log_probs, text = libri
        arpa = tmp_path / "lm.arpa"
        arpa.write_bytes(gzip.decompress((data_dir / "lm" / "lj3k.o3.arpa.gz").read_bytes()))
        lexicon = tmp_path / "lexicon.txt"
        words = sorted({*NGramLM.from_arpa(arpa).words, *text.split()} - {"<s>", "</s>", "<unk>"})
        lexicon.write_text("".join(f"{word} {' '.join(word)} |\n" for word in words))
        # flashlight wants a space after the last word.
        space = torch.full((1, len(tokens)), -30.0)
        space[0, tokens.index("|")] = 0.0
        emissions = torch.cat([log_probs, space])[None]
        for log_add in (True, False):
            options = {
                "lm": str(arpa),
                "beam_size": 100,
                "lm_weight": 1.5,
                "word_score": 1.0,
                "log_add": log_add,
            }
            [[found]] = ctc_decoder(str(lexicon), tokens, **options)(emissions)
            [[expected]] = torchaudio_ctc_decoder(str(lexicon), tokens, **options)(emissions)
            assert found.words == expected.words == text.split()
            # Sums: flashlight adds texts with equal states of the model.
            assert abs(found.score - expected.score) < (0.02 if log_add else 1e-3)

    def test_streams(self, libri):
        tokens, log_probs, _ = libri
        decoder = ctc_decoder(None, tokens, nbest=2, log_add=True)
        [expected] = decoder(log_probs[None])
        decoder.decode_begin()
        for chunk in log_probs.split(37):
            decoder.decode_step(chunk)
        decoder.decode_end()
        for h, wanted in zip(decoder.get_final_hypothesis(), expected, strict=True):
            assert torch.equal(h.tokens, wanted.tokens) and h.score == wanted.score
            assert torch.equal(h.timesteps, wanted.timesteps)
        with pytest.raises(RuntimeError, match="decode_begin has not been called"):
            ctc_decoder(None, tokens).decode_step(log_probs)


class Callbacks(CTCDecoderLM):
    """An NGramLM that is asked word by word; as torchaudio's KenLM, in log10."""

    def __init__(self, lm, words):
        self.lm, self.words, self.asked = lm, words, []

    def start(self, start_with_nothing):
        assert start_with_nothing is False
        return self.lm.start()

    def score(self, state, usr_token_idx):
        self.asked.append((state, usr_token_idx))
        log_prob, after = self.lm.step(state, self.words[usr_token_idx])
        return after, log_prob

    def finish(self, state):
        return state, self.lm.step(state, "</s>")[0]


class TestOwnLanguageModels:
    @pytest.mark.parametrize("log_add", [True, False])
    @pytest.mark.parametrize("unk_score", [-math.inf, -3.0])
    def test_as_an_ngram_model(self, lexicon, log_add, unk_score):
        lm = small_lm(WORDS)
        options = {
            **EVERYTHING,
            "log_add": log_add,
            "word_score": -0.7,
            "sil_score": 0.3,
            "unk_score": unk_score,
        }
        own = ctc_decoder(lexicon, TOKENS, Callbacks(lm, [*WORDS, "<unk>"]), **options)
        emissions = random_log_probs(2, 6, len(TOKENS))
        expected = ctc_decoder(lexicon, TOKENS, lm, **options)(emissions, [6, 4])
        for row, wanted in zip(own(emissions, [6, 4]), expected, strict=True):
            assert len(row) == len(wanted) > 5
            scores = {tuple(h.words): h.score for h in row}
            assert len(scores) == len(row)
            assert all(abs(scores[tuple(h.words)] - h.score) < 1e-4 for h in wanted)

    def test_beams_and_streams(self, lexicon):
        lm = small_lm(WORDS)
        # The look-ahead is P(word | <s>), as flashlight's; there without context. So beams are wide enough for both.
        options = {"beam_size": 800, "beam_threshold": 30, "beam_size_token": 4, "nbest": 3, "log_add": True}
        model = Callbacks(lm, [*WORDS, "<unk>"])
        own = ctc_decoder(lexicon, TOKENS, model, **options)
        emissions = random_log_probs(1, 14, len(TOKENS))
        [found] = own(emissions)
        [expected] = ctc_decoder(lexicon, TOKENS, lm, **options)(emissions)
        for h, wanted in zip(found, expected, strict=True):
            assert h.words == wanted.words and abs(h.score - wanted.score) < 1e-3
            assert torch.equal(h.tokens, wanted.tokens) and torch.equal(h.timesteps, wanted.timesteps)
        own.decode_begin()
        for piece in emissions[0].split(7):
            own.decode_step(piece)
        own.decode_end()
        for h, wanted in zip(own.get_final_hypothesis(), found, strict=True):
            assert h.words == wanted.words and h.score == wanted.score
            assert torch.equal(h.timesteps, wanted.timesteps)
        # Each word behind each history once, and each word of the lexicon at the start.
        asked = len(model.asked)
        own(emissions)
        assert len(model.asked) == asked

    def test_without_lexicon(self):
        lm = NGramLM.estimate(
            ["ab cab", "a b", "abc"] * 5, 3, unit="character", space="|", discount_fallback=True
        )
        emissions = random_log_probs(2, 6, len(TOKENS))
        for log_add in (True, False):
            options = {**EVERYTHING, "log_add": log_add}
            own = ctc_decoder(None, TOKENS, Callbacks(lm, TOKENS), **options)(emissions)
            for row, wanted in zip(own, ctc_decoder(None, TOKENS, lm, **options)(emissions), strict=True):
                # Silences at the ends are one with those around: some sequences are there twice.
                scores, expected = ([(h.tokens.tolist(), h.score) for h in found] for found in (row, wanted))
                scores.sort()
                assert len(scores) == len(expected) > 500
                for (tokens, score), (others, other) in zip(scores, sorted(expected)):
                    assert tokens == others and abs(score - other) < 1e-4

    def test_beside_torchaudio(self, torchaudio_ctc_decoder, lexicon, tmp_path):
        """The same calls behind torchaudio's class. Without lm_dict the order of a hash table numbers its words."""
        from torchaudio.models.decoder import CTCDecoderLM as Theirs
        from torchaudio.models.decoder import CTCDecoderLMState as State

        class Constant(CTCDecoderLM):
            def start(self, start_with_nothing):
                return CTCDecoderLMState()

            def score(self, state, usr_token_idx):
                return state.child(usr_token_idx), -0.5 * usr_token_idx

            def finish(self, state):
                return state.child(-1), -0.25

        class Of(Theirs):
            start = lambda self, nothing: State()  # noqa: E731
            score = Constant.score
            finish = Constant.finish

        (tmp_path / "dict.txt").write_text("".join(f"{word}\n" for word in ["<unk>", *WORDS]))
        options = {**EVERYTHING, "log_add": False, "lm_weight": 0.7, "lm_dict": str(tmp_path / "dict.txt")}
        emissions = spaced_log_probs(2, 6)
        found = ctc_decoder(lexicon, TOKENS, Constant(), **options)(emissions)
        model = Of()
        expected = torchaudio_ctc_decoder(lexicon, TOKENS, model, **options)(emissions)
        for row, wanted in zip(found, expected, strict=True):
            assert row[0].words == wanted[0].words and abs(row[0].score - wanted[0].score) < 1e-4
            assert torch.equal(row[0].tokens, wanted[0].tokens)

    def test_dictionaries(self, lexicon, tmp_path):
        lm, order = small_lm(WORDS), ["<unk>", *reversed(WORDS), "other"]
        (tmp_path / "dict.txt").write_text("".join(f"{word}\n" for word in order))
        emissions = random_log_probs(1, 9, len(TOKENS))
        by_dict = ctc_decoder(lexicon, TOKENS, Callbacks(lm, order), str(tmp_path / "dict.txt"))
        plain = ctc_decoder(lexicon, TOKENS, Callbacks(lm, [*WORDS, "<unk>"]))
        assert by_dict(emissions)[0][0].score == plain(emissions)[0][0].score
        (tmp_path / "dict.txt").write_text("ab\n")
        with pytest.raises(ValueError, match=r"lm_dict: .*dict\.txt lacks 'a'"):
            ctc_decoder(lexicon, TOKENS, Callbacks(lm, order), str(tmp_path / "dict.txt"))
        with pytest.raises(ValueError, match=r"^emissions: expected 5 values a frame"):
            plain(emissions[..., :4])
        with pytest.raises(ValueError, match=r"^emissions: expected numbers, received NaN"):
            plain(emissions * math.nan)

    def test_states(self):
        state = CTCDecoderLMState()
        child = state.child(3)
        assert state.child(3) is child and state.children == {3: child}
        assert child.compare(child) == 0 and child.compare(state) == -state.compare(child) != 0


def test_all_homophones_are_kept(tmp_path):
    """flashlight keeps six."""
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(f"w{i} a b |\n" for i in range(9)))
    emissions = torch.full((1, 3, 5), -9.0)
    emissions[0, range(3), [2, 3, 1]] = 0
    for lm in (None, Callbacks(small_lm([f"w{i}" for i in range(9)]), [f"w{i}" for i in range(9)])):
        found = ctc_decoder(str(path), TOKENS, lm, nbest=9)(emissions)[0]
        assert sorted(h.words[0] for h in found if h.words) == [f"w{i}" for i in range(9)]


LABELS = ["", " ", "a", "b", "c"]


class TestPyctcdecode:
    def test_signature(self):
        original = pytest.importorskip("pyctcdecode")

        def arguments(function):
            parameters = inspect.signature(function).parameters.values()
            return [(p.name, p.default) for p in parameters if p.kind is not p.KEYWORD_ONLY]

        assert arguments(build_ctcdecoder) == arguments(original.build_ctcdecoder)
        ours, theirs = build_ctcdecoder(LABELS), original.build_ctcdecoder(LABELS)
        for method in ("decode", "decode_beams", "decode_batch", "decode_beams_batch", "load_from_dir"):
            assert arguments(getattr(ours, method)) == arguments(getattr(theirs, method))

    @pytest.mark.parametrize("with_lm", [False, True])
    @pytest.mark.parametrize("hotwords", [None, ["ab", "c ba"]])
    def test_all_texts(self, with_lm, hotwords, tmp_path):
        original = pytest.importorskip("pyctcdecode")
        arpa = None
        if with_lm:
            pytest.importorskip("kenlm")
            arpa = str(tmp_path / "lm.arpa")
            small_lm(WORDS).to_arpa(arpa)
        logits = 2 * torch.randn(7, len(LABELS))
        logits[[0, 1, 2, 4, 5, 6], 1] = logits[[2, 6], 0] = -60
        options = {"beam_width": 20000, "beam_prune_logp": -60.0, "token_min_logp": -30.0}
        options |= {"hotwords": hotwords, "hotword_weight": 2.5}
        settings = {"alpha": 0.7, "beta": 0.9, "unk_score_offset": -2.0}
        found = build_ctcdecoder(LABELS, arpa, **settings).decode_beams(logits.numpy(), **options)
        expected = original.build_ctcdecoder(LABELS, arpa, **settings).decode_beams(logits.numpy(), **options)
        by_text = {beam[0]: beam for beam in found}
        assert found[0][0] == expected[0][0] and len(by_text) == len(found) == len(expected) > 200
        for text, _, words, am_score, score in expected:
            same = by_text[text]
            assert abs(same[4] - score) < 1e-4 and [word for word, _ in same[2]] == [
                word for word, _ in words
            ]
            # Without a model the original counts hotwords in the combined score only; so do we.
            assert abs(same[3] - am_score) < 1e-4

    def test_texts_with_spaces_anywhere(self):
        """Prefixes that differ in spaces are one text in both."""
        original = pytest.importorskip("pyctcdecode")
        logits = 2 * torch.randn(6, len(LABELS)).numpy()
        options = {"beam_width": 20000, "beam_prune_logp": -60.0, "token_min_logp": -30.0}
        found = build_ctcdecoder(LABELS).decode_beams(logits, **options)
        expected = original.build_ctcdecoder(LABELS).decode_beams(logits, **options)
        assert found[0][0] == expected[0][0] and len(found) == len(expected) > 1000
        scores = {beam[0]: beam[4] for beam in found}
        assert all(abs(scores[text] - score) < 1e-4 for text, *_, score in expected)

    @pytest.mark.parametrize("with_lm", [False, True])
    def test_librispeech(self, libri, data_dir, tmp_path, with_lm):
        """At the default pruning."""
        original = pytest.importorskip("pyctcdecode")
        tokens, log_probs, text = libri
        labels = [{"|": " ", "-": ""}.get(token, token) for token in tokens]
        arpa = None
        if with_lm:
            pytest.importorskip("kenlm")
            arpa = str(tmp_path / "lm.arpa")
            packed = (data_dir / "lm" / "lj3k.o3.arpa.gz").read_bytes()
            (tmp_path / "lm.arpa").write_bytes(gzip.decompress(packed))
        found = build_ctcdecoder(labels, arpa).decode_beams(log_probs.numpy())
        expected = original.build_ctcdecoder(labels, arpa).decode_beams(log_probs.numpy())
        assert found[0][0] == text and len(found) == len(expected)
        for (ours, _, words, am_score, score), wanted in zip(found, expected):
            assert ours == wanted[0] and abs(am_score - wanted[3]) < 1e-4 and abs(score - wanted[4]) < 1e-4
            for (word, times), (other, others) in zip(words, wanted[2], strict=True):
                assert word == other and max(abs(a - b) for a, b in zip(times, others)) <= 1

    def test_copies_are_apart(self):
        lm, log_probs = small_lm(WORDS), random_log_probs(12, 5).numpy()
        first = build_ctcdecoder(["", " ", "a", "b", "c"], lm, alpha=5.0)
        scores = first.decode_beams(log_probs)[0][4]
        copies = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
        first.reset_params(alpha=0.1, beta=-9.0)
        assert first.decode_beams(log_probs)[0][4] != scores
        assert all(other.decode_beams(log_probs)[0][4] == scores for other in copies)
        with pytest.raises(ValueError, match="alpha"):
            first.reset_params(alpha=-1.0)
        first.reset_params(alpha=5.0, beta=1.5)
        assert first.decode_beams(log_probs)[0][4] == scores

    def test_hotwords_that_no_labels_spell_do_nothing(self):
        log_probs = random_log_probs(12, 5).numpy()
        decoder = build_ctcdecoder(["", " ", "a", "b", "c"])
        assert decoder.decode_beams(log_probs, hotwords=["xyz"]) == decoder.decode_beams(log_probs)
        with pytest.raises(
            TypeError, match="hotwords: expected a list of words or phrases, received a string, 'ab'"
        ):
            decoder.decode(log_probs, hotwords="ab")

    def test_calls(self):
        """decode, the batches, other parameters, and the three kinds of input."""
        decoder = build_ctcdecoder(LABELS)
        logits = [torch.randn(t, 5).mul(3).numpy() for t in (9, 4)]
        texts = [decoder.decode(x) for x in logits]
        beams = [decoder.decode_beams(x, beam_width=7) for x in logits]
        assert decoder.decode_batch(None, logits) == texts and [b[0][0] for b in beams] == texts
        batch = decoder.decode_beams_batch(None, logits, beam_width=7)
        assert batch == [[(t, w, am, s) for t, _, w, am, s in row] for row in beams]
        log_probs = torch.tensor(logits[0]).log_softmax(-1)
        for same in (log_probs, log_probs.exp(), log_probs.double().exp()):
            assert decoder.decode_beams(same.numpy())[0][4] == pytest.approx(beams[0][0][4], abs=1e-4)
        lm = small_lm(WORDS)
        decoder = build_ctcdecoder(LABELS, lm, alpha=0.2)
        decoder.reset_params(alpha=0.9, beta=2.0)
        expected = build_ctcdecoder(LABELS, lm, alpha=0.9, beta=2.0).decode_beams(logits[0])
        assert decoder.decode_beams(logits[0]) == expected

    def test_several_blanks(self):
        """Hugging Face's vocabularies may have both; their probabilities are added, as there."""
        labels = ["<pad>", "<s>", "|", "e", "t", "[UNK]", "[PAD]", "<unk>"]
        logits = 2 * torch.randn(12, len(labels)).numpy()
        log_probs = torch.tensor(logits).log_softmax(-1)
        log_probs[:, 0] = log_probs[:, [0, 6]].logsumexp(-1)
        options = {"beam_width": 500, "beam_prune_logp": -60.0, "token_min_logp": -30.0}
        one = build_ctcdecoder([*labels[:6], labels[7]])
        expected = one.decode_beams(log_probs[:, [*range(6), 7]].numpy(), **options)
        for values in (logits, torch.tensor(logits).softmax(-1).numpy()):
            found = build_ctcdecoder(labels).decode_beams(values, **options)
            assert [beam[0] for beam in found[:50]] == [beam[0] for beam in expected[:50]]
            assert all(abs(a[4] - b[4]) < 1e-3 for a, b in zip(found[:50], expected))

    @pytest.mark.parametrize("labels", [["▁is", "▁dit", "▁is", "t", ""], ["a", "|", "b", "|", "_", "b"]])
    def test_labels_twice(self, labels):
        decoder = build_ctcdecoder(labels)
        logits = np.full((6, len(labels)), -20.0)
        tokens = [0, 4, 1, 2, 4, 3]
        logits[range(6), tokens] = 0
        assert decoder.decode(logits) == ("is dit ist" if labels[0] == "▁is" else "a b")

    def test_subwords_as_characters(self):
        labels = [chr(100 + i) for i in range(30)]
        logits = np.full((3, 31), -20.0)
        logits[range(3), [3, 24, 25]] = 0
        assert build_ctcdecoder(labels).decode(logits) == "g|}"


LM = small_lm(WORDS)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ctc_decoder(None, []), "tokens: expected at least one"),
        (lambda: ctc_decoder(None, ["a", "|"]), "blank_token: expected one of tokens, received '-'"),
        (lambda: ctc_decoder("absent.txt", ["-", "a"]), "sil_token: expected one of tokens, received '|'"),
        (lambda: ctc_decoder(None, TOKENS, lm=3), "lm: int is not supported"),
        (lambda: ctc_decoder(None, TOKENS, lm_dict="words.txt"), "lm_dict: not supported"),
        (lambda: ctc_decoder(None, TOKENS)(torch.zeros(1, 2, 5).double()), "emissions must be float32"),
        (lambda: ctc_decoder(None, TOKENS)(torch.zeros(2, 5)), "emissions must be 3D"),
        (lambda: build_ctcdecoder(LABELS).decode(np.zeros((2, 4))), r"logits: expected shape \(time, 5\)"),
        (lambda: build_ctcdecoder(LABELS, LM, lm_score_boundary=1), "score_boundary: expected True or False, received 1"),
        # By the names that are known here.
        (lambda: ctc_decoder(None, ["-", 3]), "^tokens: expected strings, received int"),
        (lambda: ctc_decoder(None, TOKENS, beam_size=0), "^beam_size: expected an integer of at least 1, received 0"),
        (lambda: ctc_decoder(None, TOKENS, nbest=1.5), "^nbest: expected an integer of at least 1, received 1.5"),
        (lambda: ctc_decoder(None, TOKENS, beam_size_token=-1), "^beam_size_token: expected an integer of at least 1"),
        (lambda: ctc_decoder(None, TOKENS, beam_threshold=-1), "^beam_threshold: expected .* received -1"),
        (lambda: ctc_decoder(None, TOKENS, beam_threshold="x"), "^beam_threshold: expected .* received 'x'"),
        (lambda: ctc_decoder(None, TOKENS, lm_weight=-2), "^lm_weight: expected .* at least 0.0, received -2"),
        (lambda: ctc_decoder(None, TOKENS, word_score="x"), "^word_score: expected .* received 'x'"),
        (lambda: ctc_decoder(None, TOKENS, unk_score=math.nan), "^unk_score: expected .* received nan"),
        (lambda: ctc_decoder(None, TOKENS, sil_score=None), "^sil_score: expected .* received None"),
        (lambda: ctc_decoder(None, TOKENS, sil_token="-"), "^sil_token: expected a label other than blank"),
        (lambda: ctc_decoder(None, TOKENS)(torch.full((1, 2, 5), math.nan)), "^emissions: "),
        (lambda: ctc_decoder(None, TOKENS)(torch.zeros(1, 2, 4)), "^emissions: expected 5 values a frame"),
        (lambda: build_ctcdecoder([*LABELS, 3]), "^labels: expected strings"),
        (lambda: build_ctcdecoder(LABELS, 3), "^kenlm_model_path: int is not supported"),
        (lambda: build_ctcdecoder(LABELS, LM, "ab"), "^unigrams: expected words, received a string, 'ab'"),
        (lambda: build_ctcdecoder(["", "x"], LM), "^kenlm_model_path: expected a model of words that the labels spell"),
        (lambda: build_ctcdecoder(LABELS, LM, unk_score_offset="x"), "^unk_score_offset: expected .* received 'x'"),
        (lambda: build_ctcdecoder(LABELS).decode(np.full((2, 5), np.nan)), "^logits: "),
        (lambda: build_ctcdecoder(LABELS).decode(np.zeros((2, 5)), beam_width=0), "^beam_width: "),
        (lambda: build_ctcdecoder(LABELS).decode(np.zeros((2, 5)), hotwords=["a"], hotword_weight="x"), "^hotword_weight: "),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises((ValueError, RuntimeError, TypeError), match=message):
        call()


def test_token_files(tmp_path):
    """A name a line, several names of an index, and names with their indices, which digits may be among."""
    path = tmp_path / "tokens.txt"
    emissions = random_log_probs(1, 9, 5)
    expected = ctc_decoder(None, ["-", "|", "3", "b", "\xa0"])(emissions)
    for text in ("-\n|\n3\nb\n\xa0\n", "- x\n|\n3\nb c d\n\xa0\n", "b 3\n3 2\n\xa0 4\n- 0\n| 1\n"):
        path.write_text(text)
        decoder = ctc_decoder(None, str(path))
        assert decoder.idxs_to_tokens(torch.arange(5)) == ["-", "|", "3", "b", "\xa0"]
        assert torch.equal(decoder(emissions)[0][0].tokens, expected[0][0].tokens)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("w 3 b |\n")
    emissions = torch.full((1, 3, 5), -9.0)
    emissions[0, range(3), [2, 3, 1]] = 0
    assert ctc_decoder(str(lexicon), str(path))(emissions)[0][0].words == ["w"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("ab", "lexicon: expected a word and its spelling in line 2"),
        ("ab a x |", "lexicon: 'x' in line 2 .* tokens"),
    ],
)
def test_bad_lexicons(tmp_path, line, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(f"a a |\n{line}\n")
    with pytest.raises(ValueError, match=message):
        ctc_decoder(str(path), TOKENS)
