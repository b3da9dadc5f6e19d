"""``asrkern.decoder.read_labels``: every kind of label file, and files that are none."""

import json
import random

import numpy as np
import pytest

from asrkern.decoder import CTCBeamDecoder, read_labels, read_tokenizer
from asrkern.decoder.labels import read_tokens_of_model

PIECES = ["<blk>", "<sos/eos>", "<unk>", "▁THE", "S", "▁", "'", "É", "7", "\u3000", "\x85", "\xa0"]


def written(tmp_path, text, name="labels.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(rows):
    return "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize("gap", [" ", "\t", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_labels_with_indices(tmp_path, gap, end):
    """Of icefall, sherpa, wenet, in any order, with or without a mark of the encoding and a last empty line."""
    rows = [f"{label}{gap}{index}" for index, label in enumerate(PIECES)]
    random.Random(len(gap)).shuffle(rows)
    for start, last in (("", ""), ("\ufeff", end)):
        text = start + end.join(rows) + end + last
        assert read_labels(written(tmp_path, text.encode())) == PIECES


def test_a_space_with_its_index(tmp_path):
    for space in (" ", ""):
        assert read_labels(written(tmp_path, f"<blk> 0\n{space} 2\na 1\n")) == ["<blk>", "a", " "]


def test_disambiguation_symbols_are_no_labels(tmp_path):
    rows = ["<blk>", "▁a", "#", *(f"#{i}" for i in range(2))]
    assert read_labels(written(tmp_path, lines(f"{r} {i}" for i, r in enumerate(rows)))) == rows[:3]
    rows = ["<blk>", "#0", "#1", "a"]
    assert read_labels(written(tmp_path, lines(f"{r} {i}" for i, r in enumerate(rows)))) == rows


def test_fairseq(tmp_path):
    text = "| 94802\nE 51860\nT 38431\n' 38431\n"
    labels = ["<blank>", "<pad>", "</s>", "<unk>", "|", "E", "T", "'"]
    assert read_labels(written(tmp_path, text, "dict.ltr.txt")) == labels


@pytest.mark.parametrize("scores", [["0", "0", "0", "-2.5", "-1e-05"], ["0", "0", "0", "-0", "-1"]])
def test_sentencepiece(tmp_path, scores):
    pieces = ["<unk>", "<s>", "</s>", "▁t", "he"]
    text = lines(f"{piece}\t{score}" for piece, score in zip(pieces, scores))
    assert read_labels(written(tmp_path, text, "m.vocab")) == pieces


def test_plain_labels(tmp_path):
    for labels in (
        ["_", "'", "A", " "],
        ["", " ", "a"],
        ["a", "b", ""],
        ["the", "##s", "7"],
        PIECES,
        ["a", "a"],
    ):
        assert read_labels(written(tmp_path, lines(labels))) == labels
        assert read_labels(written(tmp_path, "\n".join([*labels, "z"]))) == [*labels, "z"]


def test_kospeech(tmp_path):
    assert read_labels(written(tmp_path, 'id,char,freq\n0, ,9\n1,가,5\n2,",",1\n3,<s>,0\n')) == [
        " ",
        "가",
        ",",
        "<s>",
    ]


def test_json(tmp_path):
    for value in (
        PIECES,
        {"labels": PIECES, "is_bpe": True},
        {p: i for i, p in reversed([*enumerate(PIECES)])},
    ):
        for ascii_ in (True, False):
            text = json.dumps(value, ensure_ascii=ascii_)
            assert read_labels(written(tmp_path, text, "vocab.json")) == PIECES
    assert read_labels(written(tmp_path, '["a", "a", ""]', "labels.json")) == ["a", "a", ""]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.txt", "a 0\nb 2\n", "indices 0 to 1, each once, received none with 1"),
        ("t.txt", "<unk> 1\na 2\nb 3\n", "indices 0 to 2, each once, received none with 0: add .* its blank"),
        ("t.txt", "a 0\nb 0\nc 1\n", "received none with 2"),
        ("t.txt", "a 0\nb\nc 2\n", "line 2: expected a label and a number as in other lines, received 'b'"),
        ("t.txt", "a 5\nb 9\nc 3\n", "counts, the largest first"),
        ("t.txt", "a -1\nb -2\n", "received 'a' with -1"),
        ("t.txt", "a 0.5\nb 0.25\n", "received 'a' with 0.5"),
        ("t.txt", "# the labels\na\n", "line 1: expected a label without white space, received '# the labels'"),
        ("t.txt", "", "expected one label a line, received none"),
        ("t.txt", "\n\n", "expected one label a line, received none"),
        ("t.txt", b"\xff\xfea\x00", "expected UTF-8"),
        ("t.txt", b"a\n\0\nb\n", "expected text, received a label with NUL"),
        ("id.csv", "id,char,freq\n0," + "x" * 200_000, "expected a table in CSV"),
        ("v.json", "{", "expected JSON"),
        ("v.json", "[" * 100_000, "expected JSON"),
        ("v.json", "[1]", "expected a list of strings, .* received list"),
        ("v.json", "{}", "expected a list of strings, .* received an object with nothing"),
        ("v.json", '{"eng": {"a": 0}}', "received an object with 'eng': "),
        ("v.json", '{"a": 0, "b": true}', "received an object with 'a': 0, 'b': true"),
        ("v.json", '{"a": 0, "b": 7}', "indices in 0 to 1, each once, received none with 1"),
        ("v.json", "[]", "received none"),
    ],
)  # fmt: skip
def test_files_that_are_none(tmp_path, name, text, message):
    path = written(tmp_path, text, name)
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "name, text, labels, blank",
    [
        ("tokens.txt", "<blk> 0\n▁a 1\nb 2\n", ["<blk>", "▁a", "b"], 0),
        ("vocab.txt", "<unk>\na\n##b\n", ["<unk>", "a", "##b", "<blank>"], 3),
        ("labels.txt", " \na\nb\n", [" ", "a", "b", "<blank>"], 3),
        ("vocab.json", '{"|": 1, "a": 2, "<pad>": 0}', ["<pad>", "|", "a"], 0),
        ("labels.json", '["|", "a", "_"]', ["|", "a", "_"], 2),
        ("torchaudio.txt", "-\n|\na\n", ["-", "|", "a"], 0),
    ],
)
def test_decoders_of_token_files(tmp_path, name, text, labels, blank):
    (tmp_path / name).write_text(text, encoding="utf-8")
    decoder = CTCBeamDecoder.from_tokens(tmp_path / name, beam_width=7, hotwords=["a"])
    assert decoder.labels == labels and decoder._options["blank"] == blank
    assert decoder._options["beam_width"] == 7


def test_decoders_of_sentencepiece_models(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world", "hello there"] * 20), model_writer=model, vocab_size=22,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    decoder = CTCBeamDecoder.from_tokens(path)
    assert decoder.labels[0] == "<unk>" and decoder.labels[-1] == "<blank>"
    assert decoder._options["blank"] == len(decoder.labels) - 1
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).encode("hello there")
    log_probs = np.full((2 * len(pieces), len(decoder.labels)), -20.0)
    log_probs[:, -1] = -10.0
    log_probs[range(0, 2 * len(pieces), 2), pieces] = 0
    log_probs[1::2, -1] = 0
    assert decoder.decode(log_probs)[0].text == "hello there"
    path.write_bytes(model.getvalue()[:40])
    with pytest.raises(ValueError, match=r"tokenizer\.model: expected a sentencepiece model"):
        CTCBeamDecoder.from_tokens(path)


def test_an_empty_sentencepiece_model(tmp_path):
    (tmp_path / "tok.model").touch()
    for read in (read_tokens_of_model, read_tokenizer):
        with pytest.raises(
            ValueError, match=r"tok\.model: expected a sentencepiece model, received an empty file"
        ):
            read(tmp_path / "tok.model")
