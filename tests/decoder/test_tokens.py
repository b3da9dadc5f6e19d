"""What decoders take for the blank and the space, labels that are there twice, and labels as words of language models."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from asrkern.decoder import CTCBeamDecoder, NGramLM
from tests.decoder.models import LN10, random_log_probs, small_lm


def saying(labels, *tokens, sure=9.0):
    """Log-probabilities of a frame for each token (a label, or its index), and of a blank after each."""
    frames = [t if isinstance(t, int) else labels.index(t) for t in tokens]
    return torch.nn.functional.one_hot(torch.tensor(frames), len(labels)).mul(sure).log_softmax(-1)


def letters_lm(tmp_path, words, bigrams=(), name="letters.arpa", unit="character", **options):
    """A bigram model of these words, log10 probabilities −1 − i/8 of the i-th; bigrams: (word, word, log10 p)."""
    path = tmp_path / name
    path.write_text(
        f"\\data\\\nngram 1={len(words) + 3}\nngram 2={len(bigrams)}\n\n\\1-grams:\n-4\t<unk>\n-99\t<s>\t-0.5\n-1\t</s>\n"
        + "".join(f"{-1 - i / 8}\t{word}\t-0.5\n" for i, word in enumerate(words))
        + "\n\\2-grams:\n"
        + "".join(f"{p}\t{a} {b}\n" for a, b, p in bigrams)
        + "\n\\end\\\n"
    )
    return NGramLM.open(path, unit=unit, **options)


class TestBlank:
    @pytest.mark.parametrize(
        "labels, blank",
        [
            (["a", "b", " ", ""], 3),
            (["<blk>", "<pad>", "a"], 0),
            (["a", "<pad>", "<BLANK>"], 2),
            (["<unk>", "[blank]", "[PAD]"], 1),
            (["a", "<eps>", " ", "_"], 1),
            (["E", "|", "[UNK]", "[PAD]"], 3),
            (["<pad>", "<s>", "</s>", "<unk>", "|"], 0),
            ([" ", "a", "_"], 2),
            (["_", "'", "A", " "], 0),
            (["-", "|", "e"], 0),
            (["#", "a", "-"], 0),
            (["<s>", "▁a", "_"], 0),
            (["'", "a"], 0),
        ],
    )
    def test_the_one_that_is_named_so(self, labels, blank):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoder = CTCBeamDecoder(labels)
        log_probs = random_log_probs(9, len(labels))
        assert decoder.decode(log_probs) == CTCBeamDecoder(labels, blank=blank).decode(log_probs)
        assert decoder.decode(log_probs) != CTCBeamDecoder(labels, blank=(blank + 1) % len(labels)).decode(
            log_probs
        )

    @pytest.mark.parametrize(
        "labels, message",
        [
            (["<blk>", "a", ""], r"several labels may be it: '<blk>' \(0\), '' \(2\)"),
            (["<pad>", "a", "[PAD]"], r"'<pad>' \(0\), '\[PAD\]' \(2\)"),
            (["<s>", "<pad>", "</s>", "<unk>", "a"], r"'<s>' \(0\), '<pad>' \(1\)"),
            (["_", "a", "_"], r"'_' \(0\), '_' \(2\)"),
            (["-", "a", "_"], r"'-' \(0\), '_' \(2\)"),
            ([" ", "a", "b"], "no label is named as one and the first is ' '; .* add '<blank>'"),
            (["|", "a", "b"], "the first is '|'"),
            (["▁the", "s", "_"], "the first is '▁the'"),
            (["<unk>", "▁a"], "the first is '<unk>'"),
            (["<space>", "a"], "the first is '<space>'"),
        ],
    )  # fmt: skip
    def test_asked_for(self, labels, message):
        with pytest.raises(ValueError, match=f"blank: expected the index of the blank, .*{message}"):
            CTCBeamDecoder(labels)
        for blank in (0, np.int64(len(labels) - 1)):
            assert CTCBeamDecoder(labels, blank=blank).decode(torch.zeros(0, len(labels)))[0].text == ""

    def test_a_letter_is_taken_with_a_warning(self):
        with pytest.warns(UserWarning, match="blank: the first label, 'a', is taken for it") as caught:
            CTCBeamDecoder(["a", "b"])
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CTCBeamDecoder(["a", "b"], blank=0)

    @pytest.mark.parametrize("blank", [1.5, True, "0", [0], np.float32(1), torch.tensor(1.0)])
    def test_what_is_no_index(self, blank):
        with pytest.raises(TypeError, match="blank: expected the index of a label, received"):
            CTCBeamDecoder(["_", "a"], blank=blank)


class TestSpace:
    @pytest.mark.parametrize(
        "labels, tokens, text",
        [
            (["_", "<space>", "a", "b"], ["a", "<space>", "b"], "a b"),
            (["_", "[SPACE]", "|", "b"], ["b", "[SPACE]", "|"], "b |"),
            (["_", " ", "|", "<space>"], ["|", " ", "<space>"], "| <space>"),
            (["_", "|", "a"], ["a", "|", "a"], "a a"),
            (["[PAD]", "[UNK]", "the", "##s", "##is", "a"], ["the", "##s", "##is", "a", "[UNK]"], "thesis a[UNK]"),
            (["_", "#", "##", " "], ["#", "##", " ", "#"], "### #"),
            ([*map(chr, range(100, 130)), "<blank>"], [*range(22, 27)], "z{|}~"),
            (["", *map(chr, range(33, 127))], ["a", "|", "b"], "a|b"),
            (["", "z", "{", "|", "a"], ["z", "{", "|", "a"], "z{ a"),
        ],
    )  # fmt: skip
    def test_text(self, labels, tokens, text):
        assert CTCBeamDecoder(labels).decode(saying(labels, *tokens))[0].text == text

    def test_none_is(self):
        labels = ["_", "|", "a", "▁b"]
        log_probs = saying(labels, "a", "|", "▁b", "|")
        [best] = CTCBeamDecoder(labels, space="").decode(log_probs)
        assert best.text == "a|▁b|" and best.tokens == [2, 1, 3, 1]
        [best] = CTCBeamDecoder(labels, space="|").decode(log_probs)
        assert best.text == "a ▁b"
        with pytest.raises(ValueError, match="space: expected a label other than blank, received '_'"):
            CTCBeamDecoder(labels, space="_")


class TestMarksInsideLabels:
    """sentencepiece's split_by_whitespace=False makes pieces of several words."""

    LABELS = ("<blk>", "▁", "▁end", "▁of▁the", "d▁ro", "a", "▁of", "▁the")

    def test_they_are_spaces(self):
        for tokens, text in [
            (["▁end", "▁of▁the", "▁", "a", "d▁ro", "a"], "end of the ad roa"),
            (["d▁ro", "▁of"], "d ro of"),
        ]:
            [best] = CTCBeamDecoder(self.LABELS).decode(saying(self.LABELS, *tokens))
            assert best.text == text

    def test_texts_are_joined_however_they_are_spelled(self):
        """No two of the n best have one text, and its probability is the sum."""
        frames = torch.full((2, len(self.LABELS)), -30.0)
        frames[0, [3, 6]] = torch.tensor([0.4, 0.6]).log()
        frames[1, [0, 7]] = torch.tensor([0.5, 0.5]).log()
        found = CTCBeamDecoder(self.LABELS, nbest=8).decode(frames)
        assert len({hypothesis.text for hypothesis in found}) == len(found)
        assert [best.text for best in found[:2]] == ["of the", "of"]
        assert found[0].score == pytest.approx(math.log(0.4 * 0.5 + 0.6 * 0.5), abs=1e-5)

    def test_words_of_a_model_cannot_be_spelled_by_them(self):
        with pytest.warns(
            UserWarning, match=r"labels: 2 of 8 hold parts of several words, such as '▁of▁the'"
        ):
            decoder = CTCBeamDecoder(self.LABELS, lexicon=["end", "of", "the"])
        assert decoder.decode(saying(self.LABELS, "▁end", "▁of", "▁the"))[0].text == "end of the"

    def test_no_spaces_but_single_ones_between_words(self):
        labels = ("<blk>", "▁of▁", "▁the", "the", "▁of")
        for tokens, text in (
            (["▁of▁", "▁the"], "of the"),
            (["▁of▁", "the"], "of the"),
            (["▁of▁"], "of"),
        ):
            [best] = CTCBeamDecoder(labels).decode(saying(labels, *tokens))
            assert best.text == text and best.words[0].text == text[: len(best.words[0].text)]
        # Texts that differ in spaces alone are one.
        frames = torch.full((2, 5), -30.0)
        frames[0, [1, 4]] = torch.tensor([0.4, 0.6]).log()
        frames[1, 2] = 0.0
        found = CTCBeamDecoder(labels, nbest=5).decode(frames)
        assert [hypothesis.text for hypothesis in found].count("of the") == 1
        assert found[0].text == "of the" and found[0].score == pytest.approx(0.0, abs=1e-5)
        assert found[0].words[0].text == "of" and found[0].tokens == [4, 2]

    def test_hotwords_inside_them_are_not_promised(self):
        with pytest.warns(
            UserWarning, match=r"labels: 2 of 8 hold parts of several words, .*: hotwords that"
        ):
            CTCBeamDecoder(self.LABELS, hotwords=["the"])

    def test_marks_behind_words_are_refused(self):
        with pytest.raises(ValueError, match=r"labels: expected '▁' before words, .* such as 'of▁', as"):
            CTCBeamDecoder(["<blk>", "▁", "of▁", "the▁", "a"])


class TestBytes:
    """sentencepiece's byte_fallback spells letters that no piece has."""

    LABELS = ("<blk>", "▁", "▁caf", "é", "a", "▁of", *(f"<0x{byte:02X}>" for byte in range(256)))

    @staticmethod
    def of(text):
        return [f"<0x{byte:02X}>" for byte in text.encode()]

    def test_they_are_letters(self):
        for tokens, text in [
            (["▁caf", *self.of("é"), "▁of", "▁", *self.of("π−☃𝄞"), "a"], "café of π−☃𝄞a"),
            (["▁", *self.of("A"), "a"], "Aa"),
            (["▁caf", *self.of("☃")[:2], "▁of"], "caf\ufffd\ufffd of"),
        ]:
            [best] = CTCBeamDecoder(self.LABELS).decode(saying(self.LABELS, *tokens))
            assert best.text == text == " ".join(word.text for word in best.words)
            assert [self.LABELS[t] for t in best.tokens] == tokens

    def test_white_space_and_surrogates(self):
        labels = (*self.LABELS, "\ud800")
        for tokens, text in (
            (["▁caf", "<0x20>"], "caf"),
            (["▁caf", "<0x20>", "<0x0A>", "a"], "caf a"),
            (["▁caf", "\ud800"], "caf" + 3 * "\ufffd"),
        ):
            assert CTCBeamDecoder(labels).decode(saying(labels, *tokens))[0].text == text

    def test_not_all_are_there(self):
        labels = self.LABELS[:-1]
        assert CTCBeamDecoder(labels).decode(saying(labels, "▁caf", "<0x41>"))[0].text == "caf<0x41>"

    def test_one_text_however_it_is_spelled(self):
        frames = torch.full((3, len(self.LABELS)), -30.0)
        first, second = (self.LABELS.index(piece) for piece in self.of("é"))
        frames[0, 2] = 0.0
        frames[1, [3, first]] = torch.tensor([0.4, 0.6]).log()
        frames[2, [0, second]] = torch.tensor([0.3, 0.7]).log()
        found = CTCBeamDecoder(self.LABELS, nbest=3).decode(frames)
        # The others have half of a letter.
        texts = [hypothesis.text for hypothesis in found]
        assert found[0].text == "café" and len({*texts}) == len(texts)
        assert found[0].score == pytest.approx(math.log(0.4 * 0.3 + 0.6 * 0.7), abs=1e-5)

    @pytest.mark.filterwarnings("error")
    def test_they_spell_words_of_lexicons_models_and_hotwords(self):
        tokens = ["▁caf", *self.of("é"), "▁of", "▁", *self.of("π")]
        log_probs = saying(self.LABELS, *tokens)
        plain = CTCBeamDecoder(self.LABELS).decode(log_probs)[0]
        [best] = CTCBeamDecoder(self.LABELS, lexicon=["café", "of", "π", "cafa"]).decode(log_probs)
        assert best.text == "café of π" and best.score == pytest.approx(plain.score, abs=1e-4)
        [best] = CTCBeamDecoder(self.LABELS, hotwords=["café"], hotword_weight=2.0).decode(log_probs)
        assert best.score == pytest.approx(plain.score + 2.0, abs=1e-4)
        lm = NGramLM.estimate(["café of π", "of π"], 2, discount_fallback=True)
        [best] = CTCBeamDecoder(self.LABELS, lm, alpha=1.0, beta=0.0).decode(log_probs)
        assert best.lm_score == pytest.approx(LN10 * lm.score("café of π"), abs=1e-4)

    def test_models_of_characters_have_none(self):
        lm = small_lm(["café", "of"], unit="character")
        with pytest.warns(UserWarning, match="lm: the model's words are characters and none of them a byte"):
            CTCBeamDecoder(self.LABELS, lm, unit="character")

    def test_streams_tell_whole_letters(self):
        decoder = CTCBeamDecoder(self.LABELS)
        log_probs = saying(self.LABELS, "▁caf", *self.of("é"), "▁of", "▁", *self.of("π"), "▁of", "a")
        state = decoder.start()
        words = []
        for frame in log_probs:
            decoder.step(state, frame[None])
            words += decoder.partial(state, after=len(words)).words
        words += decoder.finish(state)[0].words[len(words) :]
        assert [word.text for word in words] == ["café", "of", "π", "ofa"]


class TestTwice:
    def test_pieces(self):
        labels = ["<blk>", "▁is", "▁dit", "▁is", "t", "t"]
        log_probs = saying(labels, 1, 0, 2, 3, 5, 0, 4)
        [best] = CTCBeamDecoder(labels).decode(log_probs)
        assert best.text == "is dit istt" and best.tokens == [1, 2, 3, 5, 4]

    @pytest.mark.parametrize("spelled", [False, True])
    def test_words_of_a_model_are_spelled_by_either(self, spelled):
        """Every choice of the two tokens has the word's probability, in a lexicon of words as in one of spellings."""
        labels, lm = ["-", " ", "a", "b", "a", "b"], small_lm(["ab", "ba", "b"])
        words = {"ab": [["a", "b"]], "ba": [["b", "a"]]} if spelled else None
        decoder = CTCBeamDecoder(labels, lm, words, alpha=1.0, beta=0.0, hotwords={"ba ab": 2.5})
        wanted = LN10 * lm.score("ba ab") + 2.5
        for tokens in itertools.product((3, 5), (2, 4), (1,), (2, 4), (3, 5)):
            [best] = decoder.decode(saying(labels, *tokens, sure=30.0))
            assert best.tokens == list(tokens) and best.text == "ba ab"
            assert abs(best.lm_score - wanted) < 1e-5
        [best] = CTCBeamDecoder(labels, lexicon=["ab"], hotwords=["ab"]).decode(saying(labels, 4, 5))
        assert best.text == "ab" and best.tokens == [4, 5] and abs(best.lm_score - 10.0) < 1e-5

    def test_models_of_tokens(self):
        labels, lm = ["-", " ", "a", "b", "a", " "], small_lm(["ab", "b a"], unit="character")
        decoder = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0)
        for first, space, last in itertools.product((2, 4), (1, 5), (2, 4)):
            [best] = decoder.decode(saying(labels, first, 3, space, last, sure=30.0))
            assert best.text == "ab a" and abs(best.lm_score - LN10 * lm.score("ab a")) < 1e-5

    def test_a_label_like_the_blank(self):
        labels = ["", "a", ""]
        [best] = CTCBeamDecoder(labels, blank=0, lexicon={"aa": [["a", "a"]]}).decode(saying(labels, 1, 0, 1))
        assert best.text == "aa"
        with pytest.raises(ValueError, match="lexicon: the spelling of 'x' has '-', which is blank"):
            CTCBeamDecoder(["-", "x"], lexicon={"x": [["-", "x"]]})


class TestModelsOfTokens:
    @pytest.mark.parametrize("label", [" ", "|", "<space>"])
    @pytest.mark.parametrize("space", ["▁", "|", "<space>", "<SPACE>"])
    def test_the_space_by_any_name(self, tmp_path, label, space):
        lm = letters_lm(tmp_path, ["a", "b", space], [("a", space, -0.25), (space, "b", -0.125)])
        assert lm.space == space
        right = -1 - 0.5 - 0.25 - 0.125 - 0.5 - 1
        assert lm.score("a b") == pytest.approx(right, abs=1e-5)
        labels = ["_", label, "a", "b"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoder = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0)
        [best] = decoder.decode(saying(labels, "a", label, "b"))
        assert best.text == "a b" and abs(best.lm_score - LN10 * right) < 1e-4

    def test_the_space_as_told(self, tmp_path):
        words = ["a", "b", "|", "~", "▁"]
        assert letters_lm(tmp_path, words).space == "▁"
        lm = letters_lm(tmp_path, words, space="~")
        labels = ["_", " ", "a", "b"]
        [best] = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0).decode(saying(labels, "a", " ", sure=40.0))
        assert lm.space == "~" and abs(best.lm_score - LN10 * (-1.5 - 1.375 - 0.5 - 1.5)) < 1e-4
        # A saved model has its own, unless another is given.
        lm.save(tmp_path / "saved.safetensors")
        assert NGramLM.open(tmp_path / "saved.safetensors").space == "~"
        again = NGramLM.open(tmp_path / "saved.safetensors", space="|")
        assert again.space == "|" and again.score("a b") == lm.score("a|b")

    def test_an_unknown_space_is_named(self, tmp_path):
        lm = letters_lm(tmp_path, ["a", "b"])
        for label in (" ", "|", "<space>", "▁"):
            with pytest.warns(
                UserWarning, match=f"lm: what stands between words, '.?{label[1:]}.*<unk>"
            ) as caught:
                CTCBeamDecoder(["_", label, "a", "b"], lm)
            assert caught[0].filename == __file__ and len(caught) == 1

    @pytest.mark.parametrize("blank", [0, 30])
    def test_subwords_as_nemo_writes_them(self, tmp_path, blank):
        """Token i is chr(i + 100): with such labels, and with the pieces themselves."""
        encoded = [chr(100 + i) for i in range(30)]
        bigrams = [("g", "|", -0.25), ("|", "}", -0.5)]
        lm = letters_lm(tmp_path, encoded[3:], bigrams, "nemo.arpa")
        right = LN10 * (-1 - 0.5 - 0.25 - 0.5 - 0.5 - 1)
        log_probs = saying(range(31), 3, 24, 25, sure=20.0)
        if blank == 0:
            log_probs = log_probs.roll(1, 1)
        labels = [*encoded, "<blank>"] if blank else ["<blank>", *encoded]
        [best] = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0).decode(log_probs)
        assert best.text == "g|}" and abs(best.lm_score - right) < 1e-4
        pieces = [f"▁{i}" if i % 2 else "d" for i in range(30)]
        labels = [*pieces, "<blank>"] if blank else ["<blank>", *pieces]
        [best] = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0).decode(log_probs)
        assert best.text == "3d 25" and abs(best.lm_score - right) < 1e-4

    def test_letters_beyond_100_are_letters(self, tmp_path):
        """Few words, or an "a" among them: a model of letters, though all are within the range of NeMo's."""
        labels = ["<blank>", *(f"▁{c}" for c in "xyz"), *"xyz", *map(str, range(40))]
        for words in ("xyz", [*map(chr, range(97, 123))]):
            lm = letters_lm(tmp_path, words)
            [best] = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0).decode(
                saying(labels, "▁x", "y", "z", sure=30.0)
            )
            state, scores = lm.start(), []
            for word in ("▁x", "y", "z", "</s>"):
                score, state = lm.step(state, word)
                scores.append(score)
            assert abs(best.lm_score - LN10 * sum(scores)) < 1e-4

    def test_marks_are_no_words(self, tmp_path):
        labels = ["<blk>", "</s>", "<s>", "a"]
        lm = letters_lm(tmp_path, ["a"])
        [best] = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0).decode(
            saying(labels, "a", "</s>", "a", sure=30.0)
        )
        assert best.text == "a</s>a" and abs(best.lm_score - LN10 * (-1.5 - 4 - 0.5 - 1 - 1 - 0.5)) < 1e-4
        with pytest.raises(ValueError, match="knows none of them"):
            CTCBeamDecoder(labels[:3], lm)


def test_models_of_characters_taken_for_models_of_words(tmp_path):
    labels = ["_", " ", "a", "b"]
    for words in (["a", "b", "▁"], ["a", "b", "<space>"]):
        with pytest.warns(UserWarning, match="lm: the model's words are single characters"):
            CTCBeamDecoder(labels, letters_lm(tmp_path, words, unit="word"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CTCBeamDecoder(labels, letters_lm(tmp_path, ["a", "b", "ab"], unit="word"))
        CTCBeamDecoder(["_", "a", "b"], letters_lm(tmp_path, ["a", "b"], unit="word"))


class TestCase:
    """Language models in another case than the labels."""

    LABELS = ("_", " ", "a", "b", "'")

    @pytest.mark.parametrize("case", ["upper", "lower"])
    @pytest.mark.parametrize("lexicon", [None, ["ab", "b'"], {"ab": [["a", "b"]], "b'": [["b", "'"]]}])
    def test_words(self, case, lexicon):
        change, other = (str.upper, str.lower) if case == "upper" else (str.lower, str.upper)
        labels = list(map(other, self.LABELS))
        if isinstance(lexicon, dict):
            lexicon = {other(w): [[*map(other, s)] for s in spelled] for w, spelled in lexicon.items()}
        elif lexicon:
            lexicon = list(map(other, lexicon))
        lm = small_lm([change(w) for w in ("ab", "b'", "a", "'")])
        with pytest.warns(
            UserWarning, match=f"lm: the model's words are {case} case .* lm_case='{case}'"
        ) as caught:
            CTCBeamDecoder(labels, lm, lexicon)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoder = CTCBeamDecoder(labels, lm, lexicon, alpha=1.0, beta=0.0, lm_case=case)
        [best] = decoder.decode(saying(labels, *map(other, ["b", "'", " ", "a", "b"])))
        assert best.text == other("b' ab")
        assert abs(best.lm_score - LN10 * lm.score(change("b' ab"))) < 1e-5

    def test_letters(self):
        lm = small_lm(["AB", "B A"], unit="character")
        with pytest.warns(UserWarning, match="lm: the model's words are upper case"):
            CTCBeamDecoder(self.LABELS, lm)
        decoder = CTCBeamDecoder(self.LABELS, lm, alpha=1.0, beta=0.0, lm_case="upper")
        [best] = decoder.decode(saying(self.LABELS, "b", " ", "a"))
        assert best.text == "b a" and abs(best.lm_score - LN10 * lm.score("B A")) < 1e-5

    def test_words_of_its_own_case_only(self):
        """ "Ab" is no upper-case word, and so is none that the labels spell."""
        decoder = CTCBeamDecoder(
            self.LABELS, small_lm(["AB", "Ab", "B"]), lm_case="upper", alpha=1.0, beta=0.0
        )
        assert sorted(decoder._built.words) == ["ab", "b"]

    def test_nothing_to_warn_of(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CTCBeamDecoder(self.LABELS, small_lm(["ab", "Ab", "b"]))
            CTCBeamDecoder(["_", " ", "א", "ב"], small_lm(["אב", "ב"]))
            CTCBeamDecoder(self.LABELS, small_lm(["ab"]), ["ab", "a", "bb"])

    @pytest.mark.parametrize("case", ["Upper", True, ["upper"], ""])
    def test_bad_values(self, case):
        with pytest.raises(ValueError, match="lm_case: expected 'upper', 'lower' or None, received"):
            CTCBeamDecoder(self.LABELS, lm_case=case)


def test_no_break_spaces_are_letters():
    """In words of language models and of lexicons."""
    labels, word = ["_", " ", "1", "\xa0", "m"], "1\xa0m"
    [best] = CTCBeamDecoder(labels, lexicon=[word]).decode(saying(labels, "1", "\xa0", "m", " "))
    assert best.text == word and math.isclose(best.lm_score, 0.0)
