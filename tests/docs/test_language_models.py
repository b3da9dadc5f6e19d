"""The examples of docs/language_models.md run, on small files of each origin."""

import io
import random
import re
import shlex
from pathlib import Path

import pytest
import torch

pytest.importorskip("typer")
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.decoder import CTCBeamDecoder, NGramLM, read_tokenizer
from tests.decoder.kenlm_writer import SMALL, quantise, trie_binary
from tests.decoder.scorer_writer import automaton, package

PAGE = (Path(__file__).parents[2] / "docs" / "language_models.md").read_text(encoding="utf-8")
ALPHABET = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]


def make_tokenizer(words):
    """text.txt, and tok.model of it."""
    import sentencepiece

    text = [" ".join(random.Random(i).choices(words, k=5)) for i in range(300)]
    Path("text.txt").write_text("\n".join(text))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=40, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    Path("tok.model").write_bytes(model.getvalue())


def make_nemo():
    """nemo.arpa: the same text, and each token once, in NeMo's numbering, token i as chr(i + 100)."""
    labels = CTCBeamDecoder.from_tokens("tok.model").labels
    tokenize = read_tokenizer("tok.model")
    lines = [
        [labels.index(token) for token in tokenize(line)]
        for line in Path("text.txt").read_text().splitlines()
    ]
    text = [" ".join(chr(token + 100) for token in line) for line in [*lines, range(len(labels) - 1)]]
    NGramLM.estimate(text, 3, discount_fallback=True).to_arpa("nemo.arpa")


def test_examples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [ngram[0] for ngram in SMALL if len(ngram) == 1 and not ngram[0].startswith("<")]
    bare = trie_binary(SMALL, strings=False)
    Path("model.bin").write_bytes(trie_binary(SMALL, codes=quantise(SMALL, (8, 8)), pointer_limit=22))
    Path("bare.bin").write_bytes(bare)
    Path("words.txt").write_text("\n".join(words))
    Path("model.scorer").write_bytes(package(bare, automaton(words, ALPHABET)))
    names = {"log_probs": torch.randn(20, 29, generator=torch.Generator().manual_seed(0)).log_softmax(-1)}
    examples = re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
    assert [language for language, _ in examples] == [
        *["python"] * 4,
        "sh",
        *["python"] * 2,
        "sh",
        "sh",
    ]
    make_tokenizer(words)
    make_nemo()
    found, of_tokens = [], []
    for language, text in examples:
        if language == "python":
            exec(compile(text, "language_models.md", "exec"), names)
            if len(names["decoder"].labels) == 29:
                found += names["decoder"].decode(names["log_probs"])[0].text.split()
            elif names["decoder"].context.lm_tokens is not None:
                of_tokens.append(names["decoder"].context.lm_tokens.count_nonzero())
        else:
            NGramLM.open("model.bin", keep_ngrams=True).to_arpa("model.arpa")
            for line in text.splitlines():
                line, _, stdin = line.partition(" < ")
                given = Path(stdin).read_text() if stdin else ""
                result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:], input=given)
                assert result.exit_code == 0, (line, result.output)
    assert "NGramLM(order=3" in capsys.readouterr().out
    assert found and {*found} <= {*words}
    assert names["lm"].unit == "token" and len(of_tokens) == 2
    assert of_tokens[0] > 5 and of_tokens[1] > 15
