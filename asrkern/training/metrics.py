"""WER, CER, CRR, distance and accuracy over a corpus, and the best constant answer.

Rates are those of the whole corpus: the sum of all edits, divided by the summed length of the references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from asrkern._optional import require

levenshtein = require("rapidfuzz", "train").distance.Levenshtein

# Of these metrics higher is better; of all others lower.
HIGHER_IS_BETTER = ("crr", "accuracy")


@dataclass
class ErrorCounts:
    """Sums over pairs of a hypothesis and a reference, both normalised. Distances are Levenshtein's.

    Attributes:
        utterances: pairs.
        correct: pairs that are equal.
        words, word_edits: words of the references, and edits of words.
        characters, character_edits: the same for characters.
        letters, letter_edits: the same for characters without spaces, from which CRR is computed.
    """

    utterances: int = 0
    correct: int = 0
    words: int = 0
    word_edits: int = 0
    characters: int = 0
    character_edits: int = 0
    letters: int = 0
    letter_edits: int = 0

    def add(self, hypothesis: str, reference: str) -> None:
        """Count a pair."""
        self.utterances += 1
        self.correct += hypothesis == reference
        words, letters = reference.split(), reference.replace(" ", "")
        self.words += len(words)
        self.word_edits += levenshtein.distance(hypothesis.split(), words)
        self.characters += len(reference)
        self.character_edits += levenshtein.distance(hypothesis, reference)
        self.letters += len(letters)
        self.letter_edits += levenshtein.distance(hypothesis.replace(" ", ""), letters)

    def add_all(self, hypotheses: Iterable[str], references: Iterable[str]) -> ErrorCounts:
        """Count several pairs. Returns self."""
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            self.add(hypothesis, reference)
        return self

    def sums(self) -> tuple[int, ...]:
        """All counts in the order of the attributes, as ``ErrorCounts(*sums)`` takes them."""
        return astuple(self)

    def value(self, metric: str) -> float:
        """A metric; NaN if nothing was counted.

        Args:
            metric: "wer", "cer" (shares of 1), "crr" (100 - CER without spaces, in %), "distance" (edits of
                characters per utterance) or "accuracy" (share of 1).
        """
        if metric == "wer":
            return _ratio(self.word_edits, self.words)
        if metric == "cer":
            return _ratio(self.character_edits, self.characters)
        if metric == "crr":
            return 100 - 100 * _ratio(self.letter_edits, self.letters)
        if metric == "distance":
            return _ratio(self.character_edits, self.utterances)
        if metric == "accuracy":
            return _ratio(self.correct, self.utterances)
        raise ValueError(f"metric: expected wer, cer, crr, distance or accuracy, received {metric!r}")


def in_words(metric: str, value: float) -> str:
    """A value for people: "12.34 %", for the distance "1.234", for NaN "nan"."""
    if metric == "distance" or value != value:
        return f"{value:.4g}"
    return f"{value if metric == 'crr' else 100 * value:.2f} %"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether ``value`` is better than ``than``. Anything is better than NaN."""
    if than != than:
        return value == value
    return value > than if metric in HIGHER_IS_BETTER else value < than


def error_of(metric: str, value: float) -> float:
    """How far a value of a metric is from perfect, which is 0: WER, CER, distance, 1 - accuracy, 100 - CRR."""
    return {"crr": 100, "accuracy": 1}[metric] - value if metric in HIGHER_IS_BETTER else value


def constant_answer(
    training: Sequence[str], references: Sequence[str], metric: str, candidates: int = 50
) -> tuple[str, float]:
    """The one text that is the best answer to all utterances. A model has to beat it.

    Args:
        training: texts. The answer is one of the most frequent ones, the best for the first 300 of them.
        references: of the corpus that is measured.
        candidates: how many texts are tried; the empty text is always one of them.

    Returns:
        The answer and its metric on the references.
    """
    best, best_value = "", float("nan")
    sample = training[:: max(1, len(training) // 300)]
    for text, _ in [*Counter(training).most_common(candidates), ("", 0)]:
        value = ErrorCounts().add_all([text] * len(sample), sample).value(metric)
        if is_better(metric, value, best_value):
            best, best_value = text, value
    return best, ErrorCounts().add_all([best] * len(references), references).value(metric)
