"""Language models whose words are an acoustic model's labels: estimated, read, recognised, and NeMo's numbering."""

import io
import math

import numpy as np
import pytest
import torch

from asrkern.decoder import CTCBeamDecoder, NGramLM, read_tokenizer
from asrkern.reference import ngram as reference
from tests.decoder.kenlm_writer import kenlm_binary, trie_binary
from tests.decoder.models import LN10
from tests.decoder.test_tokens import saying

TEXT = ["hello world", "hello there", "the old world", "hold the other", "hello other world"] * 4
# "hello world" and "the old world" in these, by wordpieces' rule.
WORDPIECES = ["[UNK]", "hell", "##o", "the", "w", "##or", "##ld", "o", "##l", "##d", "##re", "##ther", "h"]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=content, vocab_size=24, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tokens") / "tok.model"
    path.write_bytes(content.getvalue())
    return path


@pytest.fixture
def wordpieces(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDPIECES) + "\n")
    return path


def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXT))
    return path


def lm_score_of(lm, tokens):
    return LN10 * lm.score(" ".join(tokens))


def nemo(pieces, labels, offset=100):
    return [chr(labels.index(piece) + offset) for piece in pieces]


class TestTokenizers:
    def test_wordpieces_take_the_longest_first(self, wordpieces):
        tokenize = read_tokenizer(wordpieces)
        assert tokenize("hello  world the old") == ["hell", "##o", "w", "##or", "##ld", "the", "o", "##ld"]
        # No pieces spell all of "hop", nor "x": the words stay.
        assert tokenize("hop x the\u00a0the") == ["hop", "x", "the\u00a0the"]
        assert tokenize("") == []

    def test_sentencepieces(self, sentencepiece_model):
        tokenize = read_tokenizer(sentencepiece_model)
        assert "".join(tokenize("hello world")).replace("▁", " ") == " hello world"
        # What no piece has stays; bytes that are no text are no error.
        assert "".join(tokenize("hello zzz\udcff")) == "▁hello▁zzz"

    def test_files_that_are_none(self, tmp_path):
        path = tmp_path / "labels.txt"
        path.write_text("▁a\nb\n##\n", encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"labels\.txt: expected a sentencepiece model .* received labels without"
        ):
            read_tokenizer(path)
        (tmp_path / "tok.model").write_bytes(b"\x0a\x05hello")
        with pytest.raises(ValueError, match=r"tok\.model: expected a sentencepiece model"):
            read_tokenizer(tmp_path / "tok.model")


class TestEstimates:
    def test_equals_that_of_tokenised_text(self, tmp_path, wordpieces):
        tokenize = read_tokenizer(wordpieces)
        split = [" ".join(tokenize(line)) for line in TEXT]
        expected = NGramLM.estimate(split, 3, discount_fallback=True)
        for text in (TEXT, ["\n".join(TEXT) + "\n"], text_file(tmp_path)):
            lm = NGramLM.estimate(text, 3, discount_fallback=True, unit="token", tokenize=tokenize)
            assert lm.unit == "token" and lm.words == expected.words
            assert lm.score("hell ##o w ##or ##ld") == expected.score("hell ##o w ##or ##ld")

    def test_long_files_are_read_in_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr("asrkern.decoder._files._CHUNK_BYTES", 7)
        lm = NGramLM.estimate(text_file(tmp_path), 2, discount_fallback=True, unit="token", tokenize=list)
        expected = NGramLM.estimate([" ".join(line) for line in TEXT], 2, discount_fallback=True)
        assert lm.words == expected.words and lm.score("h e l l o") == expected.score("h e l l o")

    @pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.safetensors"])
    def test_files_say_that_words_are_tokens(self, tmp_path, wordpieces, name):
        lm = NGramLM.estimate(
            TEXT, 2, discount_fallback=True, unit="token", tokenize=read_tokenizer(wordpieces)
        )
        path = tmp_path / name
        lm.save(path) if name.endswith("safetensors") else lm.to_arpa(path)
        again = NGramLM.open(path)
        assert again.unit == "token" and again.score("hell ##o") == lm.score("hell ##o")
        if "arpa" in name:
            assert NGramLM.open(path, unit="word").unit == "word"

    def test_words_say_nothing(self, tmp_path):
        NGramLM.estimate(TEXT, 2, discount_fallback=True).to_arpa(tmp_path / "lm.arpa")
        assert (tmp_path / "lm.arpa").read_bytes().startswith(b"\\data\\")
        assert NGramLM.open(tmp_path / "lm.arpa").unit == "word"

    def test_a_tokenizer_is_for_tokens(self):
        with pytest.raises(ValueError, match="tokenize: expected None with unit 'word'"):
            NGramLM.estimate(TEXT, 2, tokenize=str.split)


def best_of(labels, lm, tokens, **options):
    decoder = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0, **options)
    [best] = decoder.decode(saying(labels, *map(labels.index, tokens), sure=30.0))
    return best


class TestDecoding:
    def test_sentencepieces(self, tmp_path, sentencepiece_model):
        """As tokens whatever the file says of them, since most words are labels with "▁"."""
        tokenize = read_tokenizer(sentencepiece_model)
        lm = NGramLM.estimate(TEXT, 3, discount_fallback=True, unit="token", tokenize=tokenize)
        lm.to_arpa(tmp_path / "lm.arpa")
        labels = CTCBeamDecoder.from_tokens(sentencepiece_model).labels
        tokens = tokenize("hold the other")
        for unit in (None, "word"):
            for asked in (None, "token"):
                best = best_of(labels, NGramLM.open(tmp_path / "lm.arpa", unit=unit), tokens, unit=asked)
                assert best.text == "hold the other"
                assert abs(best.lm_score - lm_score_of(lm, tokens)) < 1e-4

    def test_wordpieces(self, wordpieces):
        labels = [*WORDPIECES, "<blank>"]
        tokens = read_tokenizer(wordpieces)("hello world")
        split = [" ".join(read_tokenizer(wordpieces)(line)) for line in TEXT]
        lm = NGramLM.estimate(split, 3, discount_fallback=True)
        assert lm.unit == "word"
        best = best_of(labels, lm, tokens)
        assert best.text == "hello world" and abs(best.lm_score - lm_score_of(lm, tokens)) < 1e-4

    def test_words_of_words_stay_words(self):
        labels = [*WORDPIECES, "<blank>"]
        lm = NGramLM.estimate(["the hello world", "the w"] * 5, 2, discount_fallback=True)
        decoder = CTCBeamDecoder(labels, lm)
        assert decoder.context.lm_tokens is None and decoder._built.words

    def test_it_may_be_said_that_they_are_words(self, wordpieces):
        split = [" ".join(read_tokenizer(wordpieces)(line)) for line in TEXT]
        lm = NGramLM.estimate(split, 2, discount_fallback=True)
        labels = [*WORDPIECES, "<blank>"]
        assert CTCBeamDecoder(labels, lm).context.lm_tokens is not None
        assert CTCBeamDecoder(labels, lm, unit="word").context.lm_tokens is None

    @pytest.mark.parametrize(
        "options, error, message",
        [
            ({"unit": "piece"}, ValueError, "unit: expected one of 'word', 'character', 'token' or None, received 'piece'"),
            ({"lm_token_offset": -1}, ValueError, "lm_token_offset: expected 0 to 1114111, received -1"),
            ({"lm_token_offset": 100, "unit": "word"}, ValueError, "lm_token_offset: expected 0 or None with unit 'word'"),
            ({"lm_token_offset": "100"}, TypeError, "lm_token_offset: expected an integer or None, received '100'"),
            ({"lm_token_offset": True}, TypeError, "lm_token_offset: expected an integer or None, received True"),
        ],
    )  # fmt: skip
    def test_bad_options(self, options, error, message):
        lm = NGramLM.estimate(TEXT, 2, discount_fallback=True)
        with pytest.raises(error, match=message):
            CTCBeamDecoder(["", " ", *"dehlortw"], lm, **options)


class TestNeMo:
    """Token i is the character chr(i + 100)."""

    LABELS = tuple(f"▁{i}" if i % 3 else f"d{i}" for i in range(400))

    def lm(self, tmp_path, tokens=range(300), offset=100):
        chance = np.random.default_rng(0)
        texts = [" ".join(chr(offset + t) for t in chance.choice(tokens, 8)) for _ in range(200)]
        texts.append(" ".join(chr(offset + t) for t in tokens))
        lm = NGramLM.estimate(texts, 2, discount_fallback=True)
        lm.to_arpa(tmp_path / "nemo.arpa")
        return NGramLM.open(tmp_path / "nemo.arpa")

    def test_recognised_by_its_words(self, tmp_path):
        lm = self.lm(tmp_path)
        labels, tokens = [*self.LABELS, "<blank>"], [7, 33, 60, 4]
        expected = lm_score_of(lm, [chr(100 + t) for t in tokens])
        for options in (
            {},
            {"unit": "token"},
            {"lm_token_offset": 100},
            {"unit": "token", "lm_token_offset": 100},
        ):
            best = best_of(labels, lm, [labels[t] for t in tokens], **options)
            assert abs(best.lm_score - expected) < 1e-4, options
        # Where it is said to be something else, it is.
        with pytest.raises(ValueError, match="knows none of them"):
            CTCBeamDecoder(labels, lm, unit="token", lm_token_offset=0)
        with (
            pytest.warns(UserWarning, match="single characters"),
            pytest.raises(ValueError, match="labels spell"),
        ):
            CTCBeamDecoder(labels, lm, unit="word")

    @pytest.mark.parametrize("write", [kenlm_binary, trie_binary])
    def test_files_of_kenlm(self, tmp_path, write):
        chance = np.random.default_rng(1)
        texts = [[chr(100 + t) for t in chance.choice(150, 9)] for _ in range(100)]
        model = reference.kneser_ney(texts, 3, [0, 0, 0], (0.5, 1.0, 1.5))
        labels, tokens = [*self.LABELS[:200], "<blank>"], [7, 33, 60, 4]
        expected = LN10 * sum(reference.score(model, [chr(100 + t) for t in tokens]))
        (tmp_path / "nemo.bin").write_bytes(write(model))
        best = best_of(labels, NGramLM.open(tmp_path / "nemo.bin"), [labels[t] for t in tokens])
        assert abs(best.lm_score - expected) < 1e-4
        # It is told by the hashes of its words alone.
        (tmp_path / "bare.bin").write_bytes(write(model, strings=False))
        bare = NGramLM.open(tmp_path / "bare.bin")
        for options in ({}, {"lm_token_offset": 100}, {"unit": "token"}):
            best = best_of(labels, bare, [labels[t] for t in tokens], **options)
            assert abs(best.lm_score - expected) < 1e-4
        with pytest.raises(ValueError, match="does not have its own"):
            CTCBeamDecoder([*"abc ", "<blank>"], bare)
        # A word that is no token.
        (tmp_path / "bare.bin").write_bytes(write(model | {("the",): (-2.0, 0.0)}, strings=False))
        with pytest.raises(ValueError, match="does not have its own"):
            CTCBeamDecoder(labels, NGramLM.open(tmp_path / "bare.bin"))

    def test_other_offsets_are_told(self, tmp_path):
        lm = self.lm(tmp_path, offset=1000)
        labels = [*self.LABELS, "<blank>"]
        best = best_of(labels, lm, [labels[5], labels[9]], lm_token_offset=1000)
        assert abs(best.lm_score - lm_score_of(lm, [chr(1005), chr(1009)])) < 1e-4

    def test_a_few_tokens_of_many(self, tmp_path):
        """300 words are enough, though the labels are 5,000; letters of a language are not NeMo's."""
        labels = [*(f"▁x{i}" for i in range(5000)), "<blank>"]
        assert CTCBeamDecoder(labels, self.lm(tmp_path)).context.lm_tokens[7] > 0
        letters = NGramLM.estimate([" ".join("дежзий"), "и й"], 2, discount_fallback=True)
        with (
            pytest.warns(UserWarning, match="single characters"),
            pytest.raises(ValueError, match="labels spell"),
        ):
            CTCBeamDecoder(labels, letters)

    def test_labels_that_are_the_words(self, tmp_path):
        """Chinese characters as labels: a model of them is one of labels, wherever their code points are."""
        labels = [*(chr(0x4E00 + i) for i in range(21000)), "<blank>"]
        texts = [" ".join(labels[i : i + 9]) for i in range(300)]
        lm = NGramLM.estimate(texts, 2, discount_fallback=True, unit="token")
        decoder = CTCBeamDecoder(labels, lm)
        assert decoder.context.lm_tokens[5] == lm.word_id(labels[5]) > 0

    def test_a_vocabulary_of_130_000_labels(self, tmp_path):
        """Surrogates, which no file in UTF-8 has, are unknown."""
        labels = [*(f"▁x{i}" for i in range(130_000)), "<blank>"]
        tokens = [3, 54_000, 60_000, 129_999]
        lm = self.lm(tmp_path, tokens=[*range(300), *tokens])
        decoder = CTCBeamDecoder(labels, lm, alpha=1.0, beta=0.0, beam_width=16)
        words = [chr(100 + t) for t in tokens]
        assert [lm.words[i] for i in decoder.context.lm_tokens[tokens]] == words
        assert (decoder.context.lm_tokens[0xD800 - 100 : 0xE000 - 100] == 0).all()
        log_probs = torch.full((4, len(labels)), -40.0)
        log_probs[range(4), tokens] = math.log(1 - 1e-6)
        [best] = decoder.decode(log_probs)
        assert best.tokens == tokens and abs(best.lm_score - lm_score_of(lm, words)) < 1e-4
