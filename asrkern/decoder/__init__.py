"""Decoding of CTC outputs, and language models for it."""

from asrkern.decoder.greedy import GreedyPath, greedy_decode
from asrkern.decoder.ngram_lm import NGramLM, WordScore

__all__ = ["GreedyPath", "NGramLM", "WordScore", "greedy_decode"]
