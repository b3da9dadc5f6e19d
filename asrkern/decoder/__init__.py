"""Decoding of CTC outputs, and language models for it."""

from asrkern.decoder.beam import CTCBeamDecoder, Hypothesis, Partial, Word
from asrkern.decoder.greedy import GreedyPath, greedy_decode
from asrkern.decoder.ngram_lm import NGramLM, WordScore

__all__ = [
    "CTCBeamDecoder",
    "GreedyPath",
    "Hypothesis",
    "NGramLM",
    "Partial",
    "Word",
    "WordScore",
    "greedy_decode",
]
