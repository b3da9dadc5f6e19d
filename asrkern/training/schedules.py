"""How learning rate, teacher forcing and dropout change while a model is trained."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from asrkern.nn import GRU, LSTM, LockedDropout
from asrkern.training.metrics import HIGHER_IS_BETTER
from asrkern.training.recipe import Schedule, TeacherForcing


class LearningRate:
    """The learning rate: the product of warm-up, decay, annealing and reductions at plateaus.

    Args:
        optimizer: whose rate is set.
        schedule: the recipe's.
        total_steps: of the whole training, for decay and a relative warm-up.
        metric: the one whose plateaus count.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, total_steps: int, metric: str) -> None:
        self._schedule, self._total = schedule, max(1, total_steps)
        self._warmup = schedule.warmup if schedule.warmup >= 1 else schedule.warmup * total_steps
        self._epoch, self._reduced = 0, 1.0
        self._optimizer = optimizer
        self._lambda = LambdaLR(optimizer, self._factor)
        # torch's class finds the plateaus, on an optimizer of its own: else both would set the same rate.
        probe = SGD([nn.Parameter()], lr=1.0)
        mode: Literal["min", "max"] = "max" if metric in HIGHER_IS_BETTER else "min"
        factor = schedule.plateau_factor if schedule.plateau_factor < 1 else 0.5
        self._plateau = ReduceLROnPlateau(probe, mode, factor, schedule.plateau_patience)

    def step(self) -> None:
        """Set the rate after a step of the optimizer."""
        self._lambda.step()

    def epoch_end(self, value: float) -> None:
        """Set the rate after an epoch. value: the metric on valid."""
        self._epoch += 1
        if self._schedule.plateau_factor < 1 and value == value:
            self._plateau.step(value)
            self._reduced = self._plateau.optimizer.param_groups[0]["lr"]
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {
            "epoch": self._epoch,
            "reduced": self._reduced,
            "lambda": {"last_epoch": self._lambda.last_epoch},
            "plateau": {k: v for k, v in self._plateau.state_dict().items() if isinstance(v, int | float)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._epoch, self._reduced = state["epoch"], state["reduced"]
        self._lambda.last_epoch = state["lambda"]["last_epoch"]
        self._plateau.load_state_dict(state["plateau"])
        self._plateau.optimizer.param_groups[0]["lr"] = self._reduced
        self._set()

    def _set(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._factor(self._lambda.last_epoch)

    def _factor(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self._warmup) if self._warmup else 1.0
        done = min(1.0, step / self._total)
        decay = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return warm * decay[self._schedule.decay] * self._schedule.anneal**-self._epoch * self._reduced


class TeacherForcingRate:
    """The probability of teacher forcing in each epoch."""

    def __init__(self, schedule: TeacherForcing) -> None:
        self._schedule, self.value = schedule, schedule.start
        self._multiplying = False

    def epoch_end(self, epoch: int, distance: float) -> None:
        """Set it after an epoch, counted from 0. distance: the mean on valid."""
        schedule = self._schedule
        if schedule.step and (epoch + 1) % schedule.every == 0:
            self.value -= schedule.step
        self._multiplying |= distance < schedule.below_distance or epoch + 1 > schedule.after_epoch
        if self._multiplying:
            self.value *= schedule.factor
        self.value = max(self.value, schedule.end)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"value": self.value, "multiplying": self._multiplying}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.value, self._multiplying = state["value"], state["multiplying"]


class DropoutSwitch:
    """Turns all dropout of a model on and off."""

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            (module, name, getattr(module, name))
            for module in model.modules()
            for kinds, name in (
                ((nn.Dropout, LockedDropout), "p"),
                ((GRU, LSTM, nn.MultiheadAttention), "dropout"),
            )
            if isinstance(module, kinds)
        ]

    def set(self, on: bool) -> None:
        """on: with the probabilities that the model had at first; else none."""
        for module, name, value in self._places:
            setattr(module, name, value if on else 0.0)
