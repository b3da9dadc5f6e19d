"""Loss and transcripts of the three kinds of models: CTC, attention, classification.

A task is the same in training and in inference: :meth:`step` gives the loss and the model's scores of a batch with
targets, :meth:`read` what those scores say, :meth:`predict` what the model says of features alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder import greedy_decode
from asrkern.models.losses import cross_entropy, ctc_loss
from asrkern.recognizer.tokenizer import Tokenizer


class Targets(Protocol):
    """What a task reads of a :class:`asrkern.training.batches.Batch`."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor


class Step(NamedTuple):
    """What a model says of a batch.

    Attributes:
        loss: the mean over ``weight`` of them, with its graph.
        weight: utterances, or steps of an attention model.
        scores: without graph: log-probabilities [N, T', V] (CTC) or logits [N, L', V] (attention), [N, V] (classes).
        lengths: [N] int64, valid steps of the scores; of classes ones.
        infeasible: [N] bool, targets that do not fit into the output; they have no part in the loss (CTC).
    """

    loss: Tensor
    weight: int
    scores: Tensor
    lengths: Tensor
    infeasible: Tensor


class CTCTask:
    """Characters by CTC; transcripts are the best path's.

    Args:
        model: ``(features, lengths) → (log-probabilities [N, T', V], lengths [N])``.
    """

    name = "ctc"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def weight(self, batch: Targets) -> int:
        """What the loss of a batch is a mean of."""
        return len(batch.lengths)

    def step(self, batch: Targets, teacher_forcing: float = 1.0) -> Step:
        """Loss in float32 and log-probabilities."""
        log_probs, lengths = self.model(batch.features, batch.lengths)
        loss = ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths, blank=self.tokenizer.blank)
        needed = frames_needed(batch.targets, batch.target_lengths)
        return Step(loss, self.weight(batch), log_probs.detach(), lengths, needed.cpu() > lengths.cpu())

    def read(self, step: Step) -> list[str]:
        """Transcripts."""
        return self.transcripts(step.scores, step.lengths)

    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """Transcripts; the model should be in eval mode."""
        return self.transcripts(*self.model(features, lengths))

    def transcripts(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """Of log-probabilities [N, T', V] and their lengths [N]."""
        # What is not a number has no best path.
        paths = greedy_decode(log_probs.detach().float().nan_to_num(), lengths.cpu(), self.tokenizer.blank)
        return [self.tokenizer.decode(path.tokens) for path in paths]


class AttentionTask:
    """Characters by an attention model; transcripts are the most probable token after token.

    Args:
        model: :class:`asrkern.models.LAS`, or one with its ``forward``, ``loss``, ``greedy`` and ``beam_search``, and with
            ``config.predicts_sos``; :func:`asrkern.models.cost.cost` also asks for ``listen``, ``speller`` and
            ``config.sos_token``.
        tokens_per_frame: the largest ratio in training, which limits the length of a transcript.
    """

    name = "attention"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, tokens_per_frame: float) -> None:
        self.model, self.tokenizer, self.tokens_per_frame = model, tokenizer, tokens_per_frame

    def weight(self, batch: Targets) -> int:
        """What the loss of a batch is a mean of."""
        ends = 2 if self.model.config.predicts_sos else 1
        return int(batch.target_lengths.sum()) + ends * len(batch.lengths)

    def step(self, batch: Targets, teacher_forcing: float = 1.0) -> Step:
        """Loss and logits, with this probability of a given token."""
        targets = batch.targets, batch.target_lengths
        output = self.model(batch.features, batch.lengths, *targets, teacher_forcing)
        loss = self.model.loss(output.logits, *targets)
        infeasible = torch.zeros(len(batch.lengths), dtype=torch.bool)
        return Step(loss, self.weight(batch), output.logits.detach(), output.lengths, infeasible)

    def read(self, step: Step) -> list[str]:
        """What was chosen at each step, up to the end."""
        chosen = step.scores.argmax(-1).tolist()
        return [self._until_end(row[:length]) for row, length in zip(chosen, step.lengths.tolist())]

    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """Transcripts; the model should be in eval mode."""
        lengths = as_lengths("lengths", lengths, len(features))
        limits = [self.max_tokens(frames) for frames in lengths.tolist()]
        # Two steps more for start and end. What a row says must not depend on the longest one beside it.
        found = self.model.greedy(features, lengths, max(limits) + 2)
        return [self.tokenizer.decode(row.tokens[:limit]) for row, limit in zip(found, limits, strict=True)]

    def max_tokens(self, frames: int) -> int:
        """Tokens after which the transcript of so many frames of input ends in any case."""
        return math.ceil(1.2 * self.tokens_per_frame * frames)

    def _until_end(self, tokens: list[int]) -> str:
        end = self.tokenizer.eos
        return self.tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)


class ClassifyTask:
    """One class a clip.

    Args:
        model: ``(features, lengths) → logits [N, V]``.
    """

    name = "classify"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def weight(self, batch: Targets) -> int:
        """What the loss of a batch is a mean of."""
        return len(batch.lengths)

    def step(self, batch: Targets, teacher_forcing: float = 1.0) -> Step:
        """Loss and logits."""
        logits = self.model(batch.features, batch.lengths)
        ones = torch.ones_like(batch.lengths)
        loss = cross_entropy(logits, batch.targets[:, 0])
        return Step(loss, self.weight(batch), logits.detach(), ones, torch.zeros(len(ones), dtype=torch.bool))

    def read(self, step: Step) -> list[str]:
        """The most probable classes."""
        return [self.tokenizer.decode([best]) for best in step.scores.argmax(-1).tolist()]

    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """The most probable classes; the model should be in eval mode."""
        return [self.tokenizer.decode([best]) for best in self.model(features, lengths).argmax(-1).tolist()]


RecognitionTask = CTCTask | AttentionTask | ClassifyTask


def make_task(name: str, model: nn.Module, tokenizer: Tokenizer, tokens_per_frame: float) -> RecognitionTask:
    """The task of this name."""
    if name == "ctc":
        return CTCTask(model, tokenizer)
    if name == "attention":
        return AttentionTask(model, tokenizer, tokens_per_frame)
    if name == "classify":
        return ClassifyTask(model, tokenizer)
    raise ValueError(f"name: expected 'ctc', 'attention' or 'classify', received {name!r}")


def frames_needed(targets: Tensor, target_lengths: Tensor) -> Tensor:
    """The fewest frames in which CTC can write each target [N]: its length, and a blank between equal neighbours."""
    inside = torch.arange(1, targets.shape[1], device=targets.device) < target_lengths[:, None]
    return target_lengths + ((targets[:, 1:] == targets[:, :-1]) & inside).sum(1)
