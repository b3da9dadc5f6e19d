"""Error rates of transcripts."""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(hypothesis: Sequence, reference: Sequence) -> int:
    """Fewest insertions, deletions and substitutions that make one sequence the other (Levenshtein 1966)."""
    row = list(range(len(reference) + 1))
    for i, h in enumerate(hypothesis, 1):
        diagonal, row[0] = row[0], i
        for j, r in enumerate(reference, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (h != r))
    return row[-1]


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Edits summed over utterances, divided by the characters of the references."""
    edits = sum(edit_distance(h, r) for h, r in zip(hypotheses, references, strict=True))
    return edits / sum(map(len, references))
