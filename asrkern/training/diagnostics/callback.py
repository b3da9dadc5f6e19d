"""The diagnosis of a run of :mod:`asrkern.training`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from asrkern.training.batches import Loader
from asrkern.training.diagnostics.measures import Probe
from asrkern.training.diagnostics.monitor import CollapseMonitor

log = logging.getLogger("asrkern.training")

UTTERANCES = 8
EARLY = (1, 10, 30)  # steps after which a dying signal already shows


class CollapseWatch(Callback):
    """Looks at a CTC model early, every so many steps and after each epoch. Logs a verdict when it changes.

    After each epoch it writes ``diagnosis.md``, ``diagnosis.csv`` and ``diagnosis.png`` (see :class:`CollapseMonitor`).
    It watches eight training utterances of different lengths, without augmentation.

    Args:
        folder: the run's.
        every: steps between looks; a look costs about three steps.
        patience: the monitor's; None for a tenth of all steps, but 25 to 500.
    """

    def __init__(self, folder: Path, every: int = 100, patience: int | None = None) -> None:
        self._folder, self._every, self._patience = folder, every, patience
        self.monitor: CollapseMonitor | None = None
        self._restored: dict[str, Any] | None = None
        self._looked = -1

    def state_dict(self) -> dict[str, Any]:
        """What has been seen so far."""
        return self.monitor.state() if self.monitor else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self._restored = state or None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the utterances."""
        # One process alone cannot run a model that is divided among several.
        if not trainer.is_global_zero or pl_module.recipe.trainer.strategy == "fsdp":
            return
        task, recipe = pl_module.task, pl_module.recipe
        cuts = sorted(trainer.datamodule.train.cuts, key=lambda cut: (cut.duration, cut.id))
        if len(cuts) < 2:
            return
        last = min(UTTERANCES, len(cuts)) - 1
        chosen = [cuts[round(i * (len(cuts) - 1) / last)] for i in range(last + 1)]
        loader = Loader(recipe, task.tokenizer)
        loader.plan = [(chosen, True)]
        batch = loader[0]
        probe = Probe(
            batch.features.to(pl_module.device),
            batch.lengths.to(pl_module.device),
            [row[:n] for row, n in zip(batch.targets.tolist(), batch.target_lengths.tolist())],
            spaces=" " in recipe.text.remove or any(" " in text for text in batch.texts),
        )
        steps = int(trainer.estimated_stepping_batches)
        patience = self._patience or min(500, max(25, steps // 10))
        self.monitor = CollapseMonitor(
            task.model, probe, task.tokenizer.labels, blank=task.tokenizer.blank, patience=patience
        )
        if self._restored:
            self.monitor.restore(self._restored)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Take the gradients of a step that is about to be looked at."""
        last = trainer.fit_loop.epoch_loop.batch_idx + 1 == trainer.num_training_batches
        if self.monitor and (last or self._due(trainer.global_step + 1)):
            self.monitor.take_gradients()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and look at the model if it is time."""
        if self.monitor and trainer.global_step > len(self.monitor.losses):
            self.monitor.step(float(outputs["loss"]))
            if self._due(trainer.global_step):
                self._look(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the model, and write the diagnosis."""
        if self.monitor:
            self._look(trainer)
            self.monitor.write(self._folder)

    def _due(self, step: int) -> bool:
        return step in EARLY or step % self._every == 0

    def _look(self, trainer: Any) -> None:
        monitor: Any = self.monitor
        if self._looked == trainer.global_step:
            return
        self._looked = trainer.global_step
        before = monitor.verdicts[-1].name if monitor.verdicts else None
        verdict = monitor.look()
        if verdict.name != before:
            level = logging.INFO if verdict.normal else logging.WARNING
            log.log(level, "step %d: %s", trainer.global_step, verdict)
        if trainer.logger:
            m = monitor.looks[-1]
            names = ("blank_fraction", "entropy", "dependence", "dropout_noise", "error_rate", "distinct")
            trainer.logger.log_metrics(
                {f"diagnosis/{name}": getattr(m, name) for name in names}, trainer.global_step
            )
