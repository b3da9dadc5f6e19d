"""Decoding of CTC outputs, and language models for it."""

from asrkern.decoder.align import Alignment, TokenSpan, ctc_score, forced_align, token_spans
from asrkern.decoder.beam import CTCBeamDecoder
from asrkern.decoder.greedy import GreedyPath, greedy_decode
from asrkern.decoder.hotwords import read_hotwords
from asrkern.decoder.hypothesis import Hypothesis, Partial, Word
from asrkern.decoder.labels import read_labels, read_tokenizer
from asrkern.decoder.ngram_lm import NGramLM, WordScore

__all__ = [
    "Alignment",
    "CTCBeamDecoder",
    "GreedyPath",
    "Hypothesis",
    "NGramLM",
    "Partial",
    "TokenSpan",
    "Word",
    "WordScore",
    "ctc_score",
    "forced_align",
    "greedy_decode",
    "read_hotwords",
    "read_labels",
    "read_tokenizer",
    "token_spans",
]
