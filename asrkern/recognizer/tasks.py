"""Loss and transcripts of the three kinds of models: CTC, attention, classification.

A task is the same in training and in inference. :meth:`step` gives the loss and the model's scores for a batch with
targets, :meth:`read` the transcripts of such scores, :meth:`predict` the transcripts of features alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder import greedy_decode
from asrkern.models.losses import cross_entropy, ctc_loss
from asrkern.recognizer.tokenizer import Tokenizer


class Targets(Protocol):
    """What a task reads of a batch, such as :class:`asrkern.training.batches.Batch`."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor


class Step(NamedTuple):
    """The results of a batch with targets.

    Attributes:
        loss: a mean of ``weight`` values, with its graph.
        weight: how many utterances the loss is the mean of; for an attention model how many steps.
        scores: without graph: log-probabilities [N, T', V] (CTC), logits [N, L', V] (attention) or [N, V] (classes).
        lengths: [N] int64, valid steps of the scores; ones for classes.
        infeasible: [N] bool, CTC's targets that do not fit into the output. They do not count in the loss.
    """

    loss: Tensor
    weight: int
    scores: Tensor
    lengths: Tensor
    infeasible: Tensor


def _blank(tokenizer: Tokenizer) -> int:
    """That of a tokenizer for CTC."""
    assert tokenizer.blank is not None
    return tokenizer.blank


class CTCTask:
    """Labels by CTC. Transcripts are those of the best path.

    Args:
        model: ``(features, lengths) → (log-probabilities [N, T', V], lengths [N])``.
    """

    name = "ctc"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def weight(self, batch: Targets) -> int:
        """How many utterances the loss of a batch is the mean of."""
        return len(batch.lengths)

    def step(self, batch: Targets, teacher_forcing: float = 1.0) -> Step:
        """The loss in float32, and log-probabilities."""
        log_probs, lengths = self.model(batch.features, batch.lengths)
        loss = ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths, blank=_blank(self.tokenizer))
        needed = frames_needed(batch.targets, batch.target_lengths)
        return Step(loss, self.weight(batch), log_probs.detach(), lengths, needed.cpu() > lengths.cpu())

    def read(self, step: Step) -> list[str]:
        """Transcripts."""
        return self.transcripts(step.scores, step.lengths)

    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """Transcripts; the model should be in eval mode."""
        return self.transcripts(*self.model(features, lengths))

    def transcripts(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """Transcripts of log-probabilities [N, T', V] with lengths [N]."""
        # NaN has no best path, and counts as 0.
        paths = greedy_decode(log_probs.detach().float().nan_to_num(), lengths.cpu(), _blank(self.tokenizer))
        return [self.tokenizer.decode(path.tokens) for path in paths]


class AttentionTask:
    """Labels by an attention model. Transcripts take the most probable token at each step.

    Args:
        model: :class:`asrkern.models.LAS`, or a model with its ``forward``, ``loss``, ``greedy`` and ``beam_search``
            and with ``config.predicts_sos``. :func:`asrkern.models.cost.cost` also needs ``listen``, ``speller`` and
            ``config.sos_token``.
        tokens_per_frame: the largest ratio in training. It limits the length of a transcript.
    """

    name = "attention"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, tokens_per_frame: float) -> None:
        self.model: Any = model
        self.tokenizer, self.tokens_per_frame = tokenizer, tokens_per_frame

    def weight(self, batch: Targets) -> int:
        """How many steps the loss of a batch is the mean of."""
        ends = 2 if self.model.config.predicts_sos else 1
        return int(batch.target_lengths.sum()) + ends * len(batch.lengths)

    def step(self, batch: Targets, teacher_forcing: float = 1.0) -> Step:
        """The loss, and logits. teacher_forcing: probability that a step gets the given token."""
        targets = batch.targets, batch.target_lengths
        output = self.model(batch.features, batch.lengths, *targets, teacher_forcing)
        loss = self.model.loss(output.logits, *targets)
        infeasible = torch.zeros(len(batch.lengths), dtype=torch.bool)
        return Step(loss, self.weight(batch), output.logits.detach(), output.lengths, infeasible)

    def read(self, step: Step) -> list[str]:
        """The tokens chosen at each step, up to the end, as texts."""
        chosen = step.scores.argmax(-1).tolist()
        return [self._until_end(row[:length]) for row, length in zip(chosen, step.lengths.tolist())]

    def predict(self, features: Tensor, lengths: Lengths) -> list[str]:
        """Transcripts; the model should be in eval mode."""
        lengths = as_lengths("lengths", lengths, len(features))
        limits = [self.max_tokens(frames) for frames in lengths.tolist()]
        # Two more steps, for start and end. A row's text must not depend on the longest row beside it.
        found = self.model.greedy(features, lengths, max(limits) + 2)
        return [self.tokenizer.decode(row.tokens[:limit]) for row, limit in zip(found, limits, strict=True)]

    def max_tokens(self, frames: int) -> int:
        """After how many tokens the transcript of so many input frames ends in any case."""
        return math.ceil(1.2 * self.tokens_per_frame * frames)

    def _until_end(self, tokens: list[int]) -> str:
        end = self.tokenizer.eos
        return self.tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)


class ClassifyTask:
    """One class for each clip.

    Args:
        model: ``(features, lengths) → logits [N, V]``.
    """

    name = "classify"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def weight(self, batch: Targets) -> int:
        """How many clips the loss of a batch is the mean of."""
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
    """The fewest frames in which CTC can emit each target, [N]: its length, and a blank between equal neighbours."""
    inside = torch.arange(1, targets.shape[1], device=targets.device) < target_lengths[:, None]
    return target_lengths + ((targets[:, 1:] == targets[:, :-1]) & inside).sum(1)
