"""The examples of docs/language_models.md run, on small files of each origin."""

import re
import shlex
from pathlib import Path

import pytest
import torch

pytest.importorskip("typer")
from typer.testing import CliRunner

from asrkern.cli.app import app
from asrkern.decoder import NGramLM
from tests.decoder.kenlm_writer import SMALL, quantise, trie_binary
from tests.decoder.scorer_writer import automaton, package

PAGE = (Path(__file__).parents[2] / "docs" / "language_models.md").read_text(encoding="utf-8")
ALPHABET = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]


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
    assert [language for language, _ in examples] == ["python", "python", "python", "sh"]
    for language, text in examples:
        if language == "python":
            exec(compile(text, "language_models.md", "exec"), names)
        else:
            NGramLM.open("model.bin", keep_ngrams=True).to_arpa("model.arpa")
            for line in text.splitlines():
                result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
                assert result.exit_code == 0, (line, result.output)
    assert "NGramLM(order=3" in capsys.readouterr().out
    found = names["decoder"].decode(names["log_probs"])[0].text.split()
    assert {*found} <= {*words} and names["lm"].words
