"""What a run writes while it trains: checkpoints, the table, the log."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import FSDPStrategy

from asrkern._atomic_write import atomic_write
from asrkern._file_kinds import in_words as kind_in_words
from asrkern.models import build
from asrkern.recognizer.saved import Recognizer, save
from asrkern.training.averaging import average_checkpoints
from asrkern.training.memory import peak_memory_mib, release_memory, reset_peak_memory
from asrkern.training.metrics import in_words
from asrkern.training.recipe import Recipe
from asrkern.training.results import Results

log = logging.getLogger("asrkern.training")

LAST_STATE = "last.ckpt"
# What Lightning needs to resume.
_STATE = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "callbacks",
    "loops",
    "epoch",
    "global_step",
    "asrkern",
)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, each of which replaces the one before once it is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        with atomic_write(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is no state of a run.
        """
        try:
            state = super().load_checkpoint(path, *args, **kwargs)
        # torch raises anything for a damaged file; for a zip archive without its end "Invalid argument", without a
        # name.
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            found = kind_in_words(path) or f"a damaged one ({type(error).__name__})"
            raise ValueError(f"{path}: expected the state of a run, received {found}") from error
        missing = [key for key in _STATE if not isinstance(state, dict) or key not in state]
        if missing:
            raise ValueError(
                f"{path}: expected the state of a run, received a file without {', '.join(missing)}"
            )
        return state


class Exports(Callback):
    """Writes ``last.safetensors`` after each validation, with the weights that were measured.

    It has to be before the moving average among the callbacks, which takes its weights back at the same time.
    """

    def __init__(self, folder: Path, recognizer: Recognizer) -> None:
        self._folder, self._recognizer = folder, recognizer

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the checkpoint."""
        recognizer = self._recognizer
        if isinstance(trainer.strategy, FSDPStrategy):
            # With FSDP each process has a part of the weights.
            state = trainer.strategy.lightning_module_state_dict()
            weights = {key.removeprefix("model."): value for key, value in state.items()}
            recognizer = replace(recognizer, model=build(recognizer.model_name, **recognizer.model_options))
            if trainer.is_global_zero:
                recognizer.model.load_state_dict(weights)
        if trainer.is_global_zero:
            recognizer.info["epoch"] = trainer.current_epoch + 1
            save(self._folder / "last.safetensors", recognizer)


class Records(Checkpoint):
    """After each epoch: a row of the table, the best checkpoint, a line of the log, and the state to resume from.

    Lightning runs callbacks of this base class after the module has its measures.

    Args:
        total_steps: how many steps the whole training has.

    Attributes:
        saved: in words, what the state to resume from holds; "" if there is none yet.
    """

    def __init__(self, folder: Path, recipe: Recipe, results: Results, total_steps: int) -> None:
        super().__init__()
        self._folder, self._recipe, self.results = folder, recipe, results
        self._began, self._steps = time.monotonic(), 0
        self._total_steps, self._first = total_steps, (time.monotonic(), 0)
        self.saved = ""

    def state_dict(self) -> dict[str, Any]:
        """The rows, which a resumed run extends."""
        return {"rows": self.results.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the rows of the run that is resumed."""
        self.results.rows = state["rows"]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock by which the remaining time is estimated."""
        self._first = time.monotonic(), trainer.global_step
        if trainer.global_step:
            epoch, batches = trainer.datamodule.position
            self.saved = self._place(epoch + (batches > 0), trainer.global_step)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the epoch's clock and its measure of memory."""
        self._began = time.monotonic()
        reset_peak_memory()

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log a line of progress and release memory now and then; write a checkpoint if the recipe asks for one."""
        step, settings = trainer.global_step, self._recipe.trainer
        if step == self._steps:
            return
        self._steps = step
        if step % settings.log_steps == 0:
            place = self._place(trainer.current_epoch + 1, step)
            log.info("%s: train loss %.4f%s", place, float(outputs["loss"]), self._left(step))
            release_memory()
        # The last batch of an epoch is followed by the epoch's own checkpoint.
        is_last = batch_idx + 1 == trainer.num_training_batches
        if settings.checkpoint_steps and step % settings.checkpoint_steps == 0 and not is_last:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the row, the checkpoints and the line of the log."""
        measures = dict(pl_module.measures)
        row = {
            **measures,
            "seconds": round(time.monotonic() - self._began, 2),
            "memory_mib": round(peak_memory_mib(), 1),
        }
        improved = self.results.add(row)
        if trainer.is_global_zero:
            self._keep_weights(row, improved)
            self.results.write(self._folder)
            log.info(self._line(row, improved) + self._left(trainer.global_step))
        self._save(trainer)
        best: Any = self.results.best()
        patience = self._recipe.trainer.stop_after
        if patience and row["epoch"] - best["epoch"] >= patience:
            log.info("no improvement for %d epochs: training ends", patience)
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the average of the last epochs."""
        paths = [self._epoch_path(row["epoch"]) for row in self.results.rows[-self._recipe.averaging.last :]]
        paths = [path for path in paths if path.exists()]
        if trainer.is_global_zero and self._recipe.averaging.last and paths:
            average_checkpoints(paths, self._folder / "averaged.safetensors")

    def _save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self._folder / LAST_STATE)
        self.saved = self._place(trainer.current_epoch + 1, trainer.global_step)

    def _place(self, epoch: int, step: int) -> str:
        return f"epoch {epoch} of {self._recipe.trainer.epochs}, step {step} of {self._total_steps}"

    def _left(self, step: int) -> str:
        began, first = self._first
        if not first < step < self._total_steps:
            return ""
        seconds = (time.monotonic() - began) * (self._total_steps - step) / (step - first)
        return f", {_duration(seconds)} left"

    def _keep_weights(self, row: dict[str, Any], improved: bool) -> None:
        last = self._folder / "last.safetensors"
        if improved:
            _copy(last, self._folder / "best.safetensors")
        if kept := self._recipe.averaging.last:
            self._epoch_path(row["epoch"]).parent.mkdir(exist_ok=True)
            _copy(last, self._epoch_path(row["epoch"]))
            self._epoch_path(row["epoch"] - kept).unlink(missing_ok=True)

    def _epoch_path(self, epoch: int) -> Path:
        return self._folder / "epochs" / f"{epoch:04d}.safetensors"

    def _line(self, row: dict[str, Any], improved: bool) -> str:
        metric = self.results.metric
        train, valid = (
            f"{part} loss {row[f'{part}_loss']:.4f}, {metric} {in_words(metric, row[f'{part}_metric'])}"
            for part in ("train", "valid")
        )
        extra = "".join(f", {name} {row[name]}" for name in ("infeasible", "skipped") if row[name])
        return (
            f"epoch {row['epoch']} of {self._recipe.trainer.epochs}: {train}; {valid}{' (best)' if improved else ''}; "
            f"{row['seconds']:.1f} s, {row['memory_mib']:.0f} MiB{extra}"
        )


class Progress(Callback):
    """Reports how far training is to a function: ("training", steps done, steps in all)."""

    def __init__(self, report: Callable[[str, int, int | None], None], total_steps: int) -> None:
        self._report, self._total_steps = report, total_steps

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Report where training begins."""
        self._report("training", trainer.global_step, self._total_steps)

    def on_train_batch_end(self, trainer: Any, *more: Any) -> None:
        """Report the step."""
        self._report("training", trainer.global_step, self._total_steps)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
