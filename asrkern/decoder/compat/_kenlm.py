"""What users of pyctcdecode need of the package ``kenlm``: a model that is opened by its file's name."""

from __future__ import annotations

import os
from collections.abc import Iterator

from asrkern.decoder.ngram_lm import NGramLM, WordScore


class Model:
    """``kenlm.Model`` on :class:`asrkern.decoder.NGramLM`.

    Args:
        path: any file that NGramLM opens.

    Attributes:
        path: the file's whole name, as bytes; order: of the model; lm: the NGramLM.

    Raises:
        OSError, ValueError: as :meth:`asrkern.decoder.NGramLM.open`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.lm = NGramLM.open(path)
        self.path = os.fsencode(os.path.abspath(path))
        self.order = self.lm.order

    def __contains__(self, word: str) -> bool:
        return self.lm.word_id(word) > 0

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """log10 probability of a sentence.

        Args:
            sentence, bos, eos: as :meth:`asrkern.decoder.NGramLM.score` takes them.
        """
        return self.lm.score(sentence, bos, eos)

    def full_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> Iterator[WordScore]:
        """The score of each word.

        Args:
            sentence, bos, eos: as in :meth:`score`.
        """
        yield from self.lm.full_scores(sentence, bos, eos)

    def perplexity(self, sentence: str) -> float:
        """The perplexity of a sentence, ``</s>`` counted as a word.

        Args:
            sentence: the words.
        """
        return self.lm.perplexity(sentence)


LanguageModel = Model
