"""Text normalisation and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from asrkern.data import read_manifest
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import (
    CharacterTokenizer,
    PieceTokenizer,
    SentencePieceTokenizer,
    TokenizerSettings,
    make_tokenizer,
    read_tokenizer,
    read_vocabulary,
    tokenizer_from_json,
)


def test_normalisation_step_by_step() -> None:
    assert TextNormalization()(" it's\t a  ") == "IT'S A"
    assert TextNormalization(case="lower", remove=".,")("A, B.C") == "a bc"
    assert TextNormalization(remove=" ")("a b") == "AB"
    assert TextNormalization(replace={"-": " ", "&": " AND "})("b-c&d") == "B C AND D"
    # A syllable of three letters is one character in NFC, and three in NFD.
    assert len(TextNormalization(case="keep")("\u1112\u1161\u11ab")) == 1
    assert len(TextNormalization(unicode="NFD", case="keep")("한")) == 3


def test_english_is_in_the_order_of_deepspeech_pytorch() -> None:
    tokenizer = make_tokenizer(TokenizerSettings(), "ctc", [])
    assert "".join(tokenizer.labels) == "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
    assert (tokenizer.size, tokenizer.blank) == (29, 0)
    assert tokenizer.encode("IT'S A") == [10, 21, 1, 20, 28, 2]
    assert tokenizer.decode([0, 10, 0, 21, 1, 20, 28, 2]) == "IT'S A"


def test_english_of_attention_models_and_of_the_original_vgg_gru() -> None:
    spelled = make_tokenizer(TokenizerSettings(), "attention", [])
    assert (spelled.size, spelled.pad, spelled.sos, spelled.eos) == (31, 0, 1, 2)
    assert spelled.encode("A ' ") == [3, 30, 29, 30]
    without = make_tokenizer(TokenizerSettings(vocabulary="english27"), "ctc", [])
    assert without.size == 27
    with pytest.raises(ValueError, match="received the character ' '"):
        without.encode("A B")


def test_korean_syllables_from_files(tmp_path: Path, data_dir: Path) -> None:
    """One character a line, and KoSpeech's table, whose last three are special."""
    normalize = TextNormalization(case="keep")
    texts = [normalize(u.text) for u in read_manifest(data_dir / "korean" / "train.jsonl")]
    characters = sorted(set("".join(texts)))
    (tmp_path / "plain.txt").write_text("\n".join(characters) + "\n", "utf-8")
    rows = [f'{i},"{c}",1' for i, c in enumerate([*characters, "<s>", "</s>", "_"])]
    (tmp_path / "table.csv").write_text("id,char,freq\n" + "\n".join(rows), "utf-8")

    plain = make_tokenizer(TokenizerSettings(vocabulary="plain.txt"), "attention", [], tmp_path.joinpath)
    table = make_tokenizer(TokenizerSettings(vocabulary="table.csv"), "attention", [], tmp_path.joinpath)
    learned = make_tokenizer(TokenizerSettings(vocabulary="texts"), "attention", texts, tmp_path.joinpath)
    size = len(characters)
    assert learned == plain
    assert (table.sos, table.eos, table.pad, table.size) == (size, size + 1, size + 2, size + 3)
    for tokenizer in (plain, table):
        assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts)
        assert tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json()))) == tokenizer


@pytest.mark.parametrize("name", ["blank", "pad", "sos", "eos"])
def test_special_labels_are_labels(name: str) -> None:
    """A checkpoint's header may hold anything."""
    value = {"kind": "characters", "labels": ["_", "a", "b"]}
    assert getattr(tokenizer_from_json({**value, name: 2}), name) == 2
    for index in (1.5, True, 3, -1, "0", [0], 2**70):
        with pytest.raises(
            ValueError, match=f"{name}: expected the index of a label, 0 to 2, or none, received"
        ):
            tokenizer_from_json({**value, name: index})
    with pytest.raises(ValueError, match="labels: expected strings"):
        tokenizer_from_json({**value, "labels": [1, 2]})


def test_vocabulary_files_of_other_tools(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("b 1\na 0\n")
    (tmp_path / "vocab.json").write_text('{"b": 1, "a": 0}')
    for name in ("tokens.txt", "vocab.json"):
        assert read_vocabulary(tmp_path / name) == ["a", "b"]


def test_vocabulary_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="expected one label a line"):
        read_vocabulary(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9\n")
    with pytest.raises(ValueError, match="expected UTF-8"):
        read_vocabulary(tmp_path / "latin.txt")
    with pytest.raises(FileNotFoundError):
        read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="'a' more than once"):
        CharacterTokenizer(("_", "a", "a"), blank=0)


def test_classes_of_clips() -> None:
    tokenizer = make_tokenizer(TokenizerSettings(), "classify", ["cat", "bed", "cat", "happy"])
    assert tokenizer.labels == ("bed", "cat", "happy")
    assert tokenizer.encode("cat") == [1]
    assert tokenizer.decode([2]) == "happy"
    with pytest.raises(ValueError, match="expected 'happy', received the class 'hapy'"):
        tokenizer.encode("hapy")


def test_spaces_at_the_ends_are_no_text() -> None:
    tokenizer = CharacterTokenizer(("_", "a", " ", "b"), blank=0)
    assert tokenizer.decode([2, 1, 0, 2, 3, 2]) == "a b"


@pytest.mark.parametrize("others", [["▁", "▁h"], ["<space>", "h"], ["h"]])
def test_pieces_of_bytes(others: list[str], tmp_path: Path) -> None:
    """What sentencepiece's byte_fallback spells is a letter, whatever stands between words."""
    labels = ["<blk>", *others, "o", *(f"<0x{byte:02X}>" for byte in range(256))]
    (tmp_path / "tokens.txt").write_text(
        "".join(f"{label} {index}\n" for index, label in enumerate(labels)), "utf-8"
    )
    tokenizer = read_tokenizer(tmp_path / "tokens.txt")
    assert isinstance(tokenizer, PieceTokenizer)
    bytes_of = lambda text: [labels.index(f"<0x{byte:02X}>") for byte in text.encode()]  # noqa: E731
    spelled = [labels.index(others[-1]), *bytes_of("öπ☃𝄞"), labels.index("o")]
    assert tokenizer.decode(spelled) == "höπ☃𝄞o"
    assert tokenizer.decode([0, *spelled, *bytes_of("π")[:1]]) == "höπ☃𝄞o\ufffd"
    if len(others) > 1:
        assert tokenizer.decode([*spelled, labels.index(others[0]), *bytes_of("é")]) == "höπ☃𝄞o é"


def test_bytes_are_read_as_sentencepiece_reads_them(tmp_path: Path) -> None:
    """Also those that are cut short, out of place or of no letter."""
    spm = pytest.importorskip("sentencepiece")
    path, random = tmp_path / "tokenizer.model", Random(7)
    with path.open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat sat on the mat"] * 20),
            model_writer=file,
            vocab_size=280,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    pieces, tokenizer = spm.SentencePieceProcessor(model_file=str(path)), read_tokenizer(path)
    spelled = [*"é☃𝄞π", "\ud800", "\U0010ffff"]
    for _ in range(500):
        content = b"".join(random.choice(spelled).encode(errors="surrogatepass") for _ in range(4))
        content = bytes(byte for byte in content if random.random() < 0.8)
        labels = [random.choice(["▁", "e"]), *(f"<0x{byte:02X}>" for byte in content), "t", "▁", "a"]
        expected = pieces.decode([pieces.piece_to_id(label) for label in labels])
        assert tokenizer.decode(map(tokenizer.labels.index, labels)) == expected


@pytest.mark.parametrize("task", ["ctc", "attention"])
def test_sentencepiece(task: str, tmp_path: Path) -> None:
    texts = ["BIN BLUE AT F TWO NOW", "LAY WHITE WITH Z NINE SOON", "SET RED BY K FIVE AGAIN"] * 5
    tokenizer = make_tokenizer(
        TokenizerSettings(kind="sentencepiece", pieces=40), task, texts, tmp_path.joinpath
    )
    assert isinstance(tokenizer, SentencePieceTokenizer)
    first = 1 if task == "ctc" else 3
    restored = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert restored.labels == tokenizer.labels
    for text in texts[:3]:
        tokens = tokenizer.encode(text)
        assert min(tokens) >= first
        assert max(tokens) < tokenizer.size
        assert restored.decode([0, *tokens]) == text
    with pytest.raises(ValueError, match="received '€'"):
        tokenizer.encode("BIN €")
    with pytest.raises(ValueError, match="expected a sentencepiece model"):
        SentencePieceTokenizer(b"nonsense", task)


def test_kinds_of_sentencepieces() -> None:
    texts = ["BIN BLUE AT F TWO NOW", "LAY BLUE AT B TWO SOON", "BIN RED AT F FIVE NOW"] * 5

    def made(model_type: str) -> SentencePieceTokenizer:
        settings = TokenizerSettings(kind="sentencepiece", model_type=model_type, pieces=80)
        tokenizer = make_tokenizer(settings, "ctc", texts)
        assert isinstance(tokenizer, SentencePieceTokenizer)
        assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
        return tokenizer

    words = made("word")
    # The letter that is said is no part of a word.
    assert set(words.labels[2:]) == {f"▁{word}" for text in texts for word in text.split()}
    assert len(words.encode(texts[0])) == 6
    assert words.unknown("BIN PINK AT F TWO NOW") == {"▁PINK"}
    with pytest.raises(ValueError, match="received '▁PINK'"):
        words.encode("PINK")
    assert len(made("bpe").encode(texts[0])) == 6
    assert len(made("unigram").encode(texts[0])) > 6
    with pytest.raises(ValueError, match="'unigram', 'bpe' or 'word'"):
        TokenizerSettings(kind="sentencepiece", model_type="char")
