"""A real batch for a model to learn by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from asrkern.data import Utterance, collate, load_audio, read_manifest
from asrkern.decoder import greedy_decode
from asrkern.models.losses import ctc_loss
from tests.metrics import character_error_rate


def grid_batch(data_dir: Path, transform: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, list[str]]:
    """Eight utterances of the GRID corpus: features [8, 1, bins, T], lengths [8], transcripts in capitals.

    Without the silence around the words, which is half of each.
    """
    utterances = read_manifest(data_dir / "grid" / "train.jsonl")[::90][:8]
    features, lengths = collate([transform(_speech(u)) for u in utterances])
    return features, lengths, [u.text.upper() for u in utterances]


def _speech(utterance: Utterance) -> Tensor:
    words = utterance.extra["words"]
    start, end = words[0][1] - 0.05, words[-1][2] + 0.05
    return load_audio(utterance.audio_path, offset_seconds=start, duration_seconds=end - start)


def greedy_transcripts(
    model: torch.nn.Module, features: Tensor, lengths: Tensor, labels: Sequence[str]
) -> list[str]:
    """What a CTC model reads."""
    with torch.no_grad():
        paths = greedy_decode(*model.eval()(features, lengths))
    return ["".join(labels[token] for token in path.tokens) for path in paths]


def character_error_rate_after_ctc(
    model: torch.nn.Module,
    features: Tensor,
    lengths: Tensor,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    steps: int,
    learning_rate: float,
    more_steps: int = 0,
) -> float:
    """Train by CTC until the greedy transcripts are right, at most ``steps`` times, and ``more_steps`` times from then on,
    so that rounded weights have them right, too; their error rate at the last look. A look is every ten steps."""
    targets = [torch.tensor([labels.index(character) for character in text]) for text in texts]
    target_lengths = torch.tensor([len(target) for target in targets])
    padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    rate, learnt, step, last = 1.0, False, 0, steps
    while step < last:
        step += 1
        optimizer.zero_grad()
        loss = ctc_loss(*model.train()(features, lengths), padded, target_lengths)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 0:
            rate = character_error_rate(greedy_transcripts(model, features, lengths, labels), texts)
            if rate == 0 and not learnt:
                learnt, last = True, step + more_steps
    return rate
