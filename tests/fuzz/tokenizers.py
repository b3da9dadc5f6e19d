"""Tokenizers of language models of tokens: wordpieces and sentencepiece models, damaged, and what they make of text."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from asrkern.decoder import read_tokenizer
from tests.fuzz._language_models import TEXTS, damage

REFUSALS = (ValueError,)

_WORDPIECES = (
    "[UNK]",
    "the",
    "##e",
    "c",
    "##at",
    "##",
    "s",
    "##",
    "",
    "é",
    "##\x85",
    "▁a",
    "a" * 40,
    "\U0001f600",
)


def prepare(folder: Path) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=model, vocab_size=20, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def one(rng: np.random.Generator, folder: Path, prepared: bytes) -> None:
    whole = rng.random() < 0.1
    if rng.random() < 0.5:
        path = folder / "tok.model"
        path.write_bytes(prepared if whole else damage(rng, prepared, prepared, text=False))
    else:
        path = folder / "vocab.txt"
        pieces = "\n".join(_WORDPIECES[i] for i in rng.integers(len(_WORDPIECES), size=rng.integers(1, 20)))
        path.write_bytes(pieces.encode() if whole else damage(rng, pieces.encode(), prepared, text=True))
    tokenize = read_tokenizer(path)
    for text in (*TEXTS, "", "the\x85cat \udcff \0 é" + "c" * 50):
        tokens = tokenize(text)
        assert all(isinstance(token, str) and token for token in tokens)
