"""What beam searches are compared under: labels, and decoders with every kind of context."""

from asrkern.decoder import CTCBeamDecoder
from tests.decoder.models import small_lm

LETTERS = ["-", " ", *"abcde"]
PIECES = ["▁a", "-", "b", "▁ab", "c", "▁", "a", "▁cab", "e"]
WORDS = ["ab", "a", "b", "abc", "cab", "ba"]
CONTEXTS = {
    "none": {},
    "words": {"lm": "word"},
    "quantised words": {"lm": "word", "quantize": True},
    "characters": {"lm": "character", "beta": 0.3},
    "closed": {"lm": "word", "lexicon": WORDS},
    "closed, no smearing": {"lm": "word", "lexicon": WORDS, "smearing": False},
    "lexicon alone, open": {"lexicon": WORDS, "unk_score": -2.0, "beta": 0.4},
    "hotwords": {"hotwords": {"ab": 2.0, "b a": 3.0, "a b": 1.5, "cc": 4.0}},
    "everything": {"lm": "word", "unk_score": -2.0, "hotwords": {"ba ab": 2.0, "ab": 1.0, "ac": -1.0}},
}


def make_decoder(labels, lm=None, quantize=False, **options):
    if lm is not None:
        lm = small_lm(WORDS, unit=lm)
        lm = lm.quantize() if quantize else lm
    return CTCBeamDecoder(labels, lm, blank=labels.index("-"), **options)
