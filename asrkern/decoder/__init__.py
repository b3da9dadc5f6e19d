"""Decoding of CTC outputs."""

from asrkern.decoder.greedy import GreedyPath, greedy_decode

__all__ = ["GreedyPath", "greedy_decode"]
