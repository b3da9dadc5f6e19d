"""Lightning's module: one step of training, whatever the task.

What callbacks such as :mod:`asrkern.training.diagnostics` can use:

- ``on_train_batch_end(trainer, module, outputs, batch, batch_idx)``: ``outputs["steps"]`` are pairs of a
  :class:`~asrkern.training.batches.Batch` and its :class:`~asrkern.recognizer.tasks.Step` (one pair, or several if
  memory did not suffice). The scores of a CTC model are log-probabilities. ``outputs["loss"]`` is the mean of the
  losses.
- ``on_before_optimizer_step(trainer, module, optimizer)``: gradients, unscaled and not yet clipped.
- ``module.task`` (``.model``, ``.tokenizer``), ``module.recipe``, and after each epoch ``module.measures``:
  ``epoch``, ``train_loss``, ``train_metric``, ``valid_loss``, ``valid_metric``, ``lr``, ``infeasible``, ``skipped``.
"""

from __future__ import annotations

import logging
import math
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy

from asrkern.recognizer.tasks import RecognitionTask, Step
from asrkern.training.augment import augment
from asrkern.training.batches import Batch
from asrkern.training.metrics import ErrorCounts
from asrkern.training.recipe import Recipe
from asrkern.training.schedules import DropoutSwitch, LearningRate, TeacherForcingRate

log = logging.getLogger("asrkern.training")

# After so many steps in a row without a finite gradient, training cannot succeed.
_HOPELESS_STEPS = 20


class RecognitionModule(LightningModule):
    """Trains a task by a recipe.

    Optimization is "manual" in Lightning's terms: a batch that does not fit into memory is halved, and its parts are
    accumulated. The random draws of a batch (dropout, masks, teacher forcing) are seeded by recipe, epoch, batch and
    process. So a resumed run draws what an uninterrupted run draws.

    Args:
        task: with its model.
        recipe: the run's.
        total_steps: how many steps the optimizer takes in the whole training.

    Attributes:
        measures: of the last epoch, see above.
        parts: into how many parts each batch is divided; doubled when memory does not suffice.
    """

    automatic_optimization = False

    def __init__(self, task: RecognitionTask, recipe: Recipe, total_steps: int) -> None:
        super().__init__()
        self.model = task.model
        self.task, self.recipe = task, recipe
        self.teacher_forcing = TeacherForcingRate(recipe.teacher_forcing)
        self.measures: dict[str, float] = {}
        self.parts = 1
        self._total_steps = total_steps
        self._dropout = DropoutSwitch(task.model)
        self._rate: LearningRate
        self._train, self._valid = _Sums(), _Sums()
        self._bad_steps = 0
        self._restored: dict[str, Any] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimizer."""
        settings = self.recipe.optimizer
        common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
        if settings.name == "sgd":
            nesterov = settings.nesterov and settings.momentum > 0
            optimizer = torch.optim.SGD(
                self.parameters(), momentum=settings.momentum, nesterov=nesterov, **common
            )
        else:
            kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
            optimizer = kind(self.parameters(), betas=settings.betas, **common)
        self._rate = LearningRate(optimizer, self.recipe.schedule, self._total_steps, self.recipe.metric)
        return optimizer

    @property
    def _data(self) -> Any:
        """The trainer's :class:`asrkern.training.data.SpeechData`, of which Lightning's types know nothing."""
        trainer: Any = self.trainer
        return trainer.datamodule

    def on_train_epoch_start(self) -> None:
        """Turn dropout on or off, as the schedule says."""
        self._dropout.set(self.current_epoch >= self.recipe.schedule.dropout_from_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the draws of this batch."""
        place = f"{self.recipe.seed}:{self.current_epoch}:{batch_idx}:{self.global_rank}"
        torch.manual_seed(zlib.crc32(place.encode()))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Forward and backward; every ``accumulate`` batches a step of the optimizer."""
        accumulate, batches = self.recipe.trainer.accumulate, int(self.trainer.num_training_batches)
        optimizer: Any = self.optimizers()
        group_start = batch_idx - batch_idx % accumulate
        group = min(accumulate, batches - group_start)
        last = batch_idx == group_start + group - 1
        if batch_idx == group_start:
            optimizer.zero_grad()
        steps = self._backward_in_parts(batch, group, last)
        loss = sum(float(step.loss) * step.weight for _, step in steps) / sum(
            step.weight for _, step in steps
        )
        if last:
            optimizer.step()
            self._rate.step()
        for part, step in steps:
            self._train.add(self.task, part.texts, step, self.task.read(step))
        self.log("loss", loss, prog_bar=True, batch_size=len(batch))
        self._data.position = (self.current_epoch, batch_idx + 1)
        return {"loss": torch.tensor(loss), "steps": steps}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient. If it is not finite, the step is left out."""
        parameters = [p for p in self.parameters() if p.grad is not None]
        clip = self.recipe.optimizer.clip or math.inf
        if isinstance(self.trainer.strategy, FSDPStrategy):
            sharded: Any = self.trainer.strategy.model
            norm = float(sharded.clip_grad_norm_(clip))
        else:
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
        self.log("gradient_norm", norm, batch_size=1)
        if math.isfinite(norm):
            self._bad_steps = 0
            return
        self._train.skipped += 1
        self._bad_steps += 1
        for parameter in parameters:
            parameter.grad = None
        if self._bad_steps >= _HOPELESS_STEPS:
            raise ValueError(
                f"the gradient was not finite in {_HOPELESS_STEPS} steps in a row; try a lower optimizer.lr, "
                "schedule.warmup, or trainer.precision = '32'"
            )

    def _backward_in_parts(self, batch: Batch, group: int, last: bool) -> list[tuple[Batch, Step]]:
        while True:
            try:
                return self._backward(batch, group, last)
            except torch.OutOfMemoryError as error:
                halves = 2 * self.parts
                least = 2 if self.task.name == "classify" else 1
                if self.trainer.world_size > 1 or len(batch) < halves * least:
                    seconds = float(batch.lengths.max()) * self.recipe.features.hop_seconds
                    raise torch.OutOfMemoryError(
                        f"{len(batch)} utterances of up to {seconds:.1f} s in {self.parts} parts do not fit into "
                        "memory: lower data.batch_frames or data.batch_utterances (and raise trainer.accumulate), "
                        f"or data.max_seconds ({error})"
                    ) from None
            # Outside of the handler, whose traceback keeps the tensors.
            log.warning(
                "out of memory with %d utterances of up to %d frames: from now on each batch is accumulated in %d "
                "parts; gradients accumulated for this step so far are dropped",
                len(batch),
                int(batch.lengths.max()),
                halves,
            )
            self.parts = halves
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            if batch.features.is_cuda:
                torch.cuda.empty_cache()

    def _backward(self, batch: Batch, group: int, last: bool) -> list[tuple[Batch, Step]]:
        """Add the gradient of the mean over a batch, divided by the number of batches of a step."""
        total, steps = self.task.weight(batch), []
        parts = min(self.parts, len(batch) // 2 if self.task.name == "classify" else len(batch))
        bounds = [round(i * len(batch) / parts) for i in range(parts + 1)]
        for start, stop in pairwise(bounds):
            part = batch if parts == 1 else batch.rows(start, stop)
            part = replace(part, features=augment(part.features, part.lengths, self.recipe.augment))
            step = self.task.step(part, self.teacher_forcing.value)
            optimizer: Any = self.optimizers()
            with optimizer.toggle_model(sync_grad=last and stop == len(batch)):
                self.manual_backward(step.loss * (step.weight / total / group))
            steps.append((part, step._replace(loss=step.loss.detach())))
        return steps

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch of valid."""
        if batch.counted:
            step = self.task.step(batch)
            self._valid.add(self.task, batch.texts, step, self.task.predict(batch.features, batch.lengths))

    def on_validation_epoch_start(self) -> None:
        """Start counting errors from zero."""
        self._valid = _Sums()

    def on_train_epoch_end(self) -> None:
        """Compute the measures of the epoch, and advance the schedules."""
        train, valid = self._train.over_processes(self), self._valid.over_processes(self)
        metric = self.recipe.metric
        optimizer: Any = self.optimizers()
        self.measures = {
            "epoch": self.current_epoch + 1,
            "train_loss": train.loss,
            "train_metric": train.counts.value(metric),
            "valid_loss": valid.loss,
            "valid_metric": valid.counts.value(metric),
            "lr": optimizer.param_groups[0]["lr"],
            "infeasible": train.infeasible,
            "skipped": train.skipped,
        }
        if self.logger is not None:
            self.logger.log_metrics(self.measures, self.global_step)
        self._rate.epoch_end(self.measures["valid_metric"])
        self.teacher_forcing.epoch_end(self.current_epoch, valid.counts.value("distance"))
        self._train = _Sums()
        self._data.position = (self.current_epoch + 1, 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know about."""
        checkpoint["asrkern"] = {
            "rate": self._rate.state_dict(),
            "teacher_forcing": self.teacher_forcing.state_dict(),
            "train": self._train.state(),
            "parts": self.parts,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read it back. The learning rate comes with the optimizer."""
        self._restored = checkpoint["asrkern"]

    def on_train_start(self) -> None:
        """Restore what needs the optimizer."""
        if state := self._restored:
            self._restored = None
            self._rate.load_state_dict(state["rate"])
            self.teacher_forcing.load_state_dict(state["teacher_forcing"])
            self._train = _Sums(*state["train"])
            self.parts = state["parts"]


class _Sums:
    """Loss and errors of an epoch so far."""

    def __init__(
        self, loss_sum: float = 0.0, weight: float = 0.0, infeasible: int = 0, skipped: int = 0, *counts: int
    ) -> None:
        self.loss_sum, self.weight, self.infeasible, self.skipped = loss_sum, weight, infeasible, skipped
        self.counts = ErrorCounts(*map(int, counts))

    @property
    def loss(self) -> float:
        """The mean."""
        return self.loss_sum / self.weight if self.weight else math.nan

    def add(self, task: RecognitionTask, references: list[str], step: Step, hypotheses: list[str]) -> None:
        """Count a batch."""
        self.loss_sum += float(step.loss) * step.weight
        self.weight += step.weight
        self.infeasible += int(step.infeasible.sum())
        self.counts.add_all(hypotheses, references)

    def state(self) -> list[float]:
        """What the constructor takes."""
        return [self.loss_sum, self.weight, self.infeasible, self.skipped, *self.counts.sums()]

    def over_processes(self, module: LightningModule) -> _Sums:
        """The same of all processes together."""
        state = self.state()
        if module.trainer.world_size > 1:
            total = torch.tensor(state, dtype=torch.float64, device=module.device)
            state = module.trainer.strategy.reduce(total, reduce_op="sum").tolist()
        return _Sums(*state)
