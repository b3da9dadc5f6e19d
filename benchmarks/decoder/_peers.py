"""CTC beam search in flashlight-text, pyctcdecode and asrkern: calls of one kind, on one utterance.

Each function prepares all that a user prepares once and returns a call: log-probabilities [T, V] to the best text and its
score. Labels are those of characters, with " " between words and "" for blank.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from asrkern.decoder import CTCBeamDecoder, NGramLM

FLASHLIGHT, PYCTCDECODE, ASRKERN = "flashlight-text", "pyctcdecode", "asrkern"
# Weights of the language model and of each word, in all of them.
ALPHA, BETA = 0.5, 1.5
# Nothing is pruned but by the beam.
FAR = 1e9


class Best(NamedTuple):
    text: str
    score: float


Call = Callable[[Tensor], Best]


class LanguageModel(NamedTuple):
    """arpa: its file; lm: the same, read by asrkern; words: all that may be said."""

    arpa: Path
    lm: NGramLM
    words: Sequence[str]


def missing(name: str) -> str | None:
    """Why a peer is left out, or None."""
    packages = {FLASHLIGHT: ["flashlight"], PYCTCDECODE: ["pyctcdecode", "kenlm"], ASRKERN: []}[name]
    lacking = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"not installed: pip install {name}" if lacking else None


class _Flashlight:
    """Keeps the model, which the search calls but does not keep."""

    def __init__(self, labels: Sequence[str], beam_width: int, model: LanguageModel | None) -> None:
        from flashlight.lib.text import decoder as fl

        self.labels, self.blank = labels, labels.index("")
        options = {
            "beam_size": beam_width,
            "beam_size_token": len(labels),
            "beam_threshold": FAR,
            "lm_weight": ALPHA * math.log(10),
            "sil_score": 0.0,
            "log_add": True,
            "criterion_type": fl.CriterionType.CTC,
        }
        if model is None:
            self.lm, self.names = fl.ZeroLM(), None
            # Any other silence than blank would be there before the first frame.
            self.search = fl.LexiconFreeDecoder(
                fl.LexiconFreeDecoderOptions(**options), self.lm, self.blank, self.blank, []
            )
            return
        space = labels.index(" ")
        self.lm, trie, self.names = _flashlight_model(labels, model, space)
        options |= {"word_score": BETA, "unk_score": -math.inf}
        unknown = self.names.get_index("<unk>")
        self.search = fl.LexiconDecoder(
            fl.LexiconDecoderOptions(**options), trie, self.lm, space, self.blank, unknown, [], False
        )

    def __call__(self, log_probs: Tensor) -> Best:
        best = self.search.decode(log_probs.data_ptr(), *log_probs.shape)[0]
        if self.names is not None:
            return Best(" ".join(self.names.get_entry(word) for word in best.words if word >= 0), best.score)
        letters = [self.labels[token] for token, _ in itertools.groupby(best.tokens) if token != self.blank]
        return Best("".join(letters), best.score)


def flashlight(labels: Sequence[str], beam_width: int, model: LanguageModel | None = None) -> Call:
    """With a model it needs a lexicon, and a space after the last word."""
    return _Flashlight(labels, beam_width, model)


def _flashlight_model(labels: Sequence[str], model: LanguageModel, space: int) -> tuple[Any, Any, Any]:
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import create_word_dict

    index = {label: i for i, label in enumerate(labels)}
    names = create_word_dict({word: [] for word in [*model.words, "<unk>"]})
    with silent():
        lm = KenLM(str(model.arpa), names)
    trie, start = fl.Trie(len(labels), space), lm.start(False)
    for word in model.words:
        number = names.get_index(word)
        trie.insert([*(index[letter] for letter in word), space], number, lm.score(start, number)[1])
    trie.smear(fl.SmearingMode.MAX)
    return lm, trie, names


def pyctcdecode(labels: Sequence[str], options: dict[str, Any], model: LanguageModel | None = None) -> Call:
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    from pyctcdecode import build_ctcdecoder

    with silent():
        search = build_ctcdecoder(
            list(labels), *(() if model is None else (str(model.arpa), model.words)), alpha=ALPHA, beta=BETA
        )

    def call(log_probs: Tensor) -> Best:
        text, *_, score = search.decode_beams(log_probs.numpy(), **options)[0]
        return Best(text, float(score))

    return call


def asrkern(
    labels: Sequence[str],
    options: dict[str, Any],
    model: LanguageModel | None = None,
    *,
    open_words: bool = False,
) -> Call:
    """open_words: words that the model does not have are possible, as in pyctcdecode."""
    words = {} if model is None else {"lm": model.lm, "lexicon": model.words, "alpha": ALPHA, "beta": BETA}
    if model is not None and open_words:
        words["unk_score"] = -10 * ALPHA * math.log(10)
    search = CTCBeamDecoder(labels, blank=labels.index(""), num_threads=1, **words, **options)

    def call(log_probs: Tensor) -> Best:
        best = search.decode(log_probs)[0]
        return Best(best.text, best.score)

    return call


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """KenLM shows its progress on stderr, from C++."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
