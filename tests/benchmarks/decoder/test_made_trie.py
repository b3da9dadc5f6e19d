"""benchmarks/decoder/_made_trie.py writes the bytes that the tests' own writer of KenLM's format does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference
from benchmarks.decoder import _made_trie
from tests.decoder.kenlm_writer import trie_binary


@pytest.mark.parametrize("order", [2, 3, 5])
def test_is_the_other_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    """Also where records are packed in several blocks."""
    monkeypatch.setattr(_made_trie, "_RECORDS_PER_BLOCK", 64)
    chance = random.Random(order)
    text = [" ".join(chance.choices([*"abcdefgh", "é"], k=chance.randint(1, 9))) for _ in range(300)]
    lm = NGramLM.estimate(text, order, discount_fallback=True)
    _made_trie.write_trie(lm, tmp_path / "made.bin")
    lm.to_arpa(tmp_path / "made.arpa")
    expected = trie_binary(reference.read_arpa(tmp_path / "made.arpa"))
    assert (tmp_path / "made.bin").read_bytes() == expected
    texts = [*text[:50], "", "a zebra b"]
    found = NGramLM.open(tmp_path / "made.bin", mapped=True).score_batch(texts)
    assert found.tolist() == NGramLM.open(tmp_path / "made.arpa").score_batch(texts).tolist()
