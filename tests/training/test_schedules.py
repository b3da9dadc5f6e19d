"""Learning rates and teacher forcing, by the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asrkern.nn import GRU, LockedDropout
from asrkern.training.recipe import Schedule, TeacherForcing
from asrkern.training.schedules import DropoutSwitch, LearningRate, TeacherForcingRate


def rates(
    schedule: Schedule, steps: int, epochs: int, values: list[float] | None = None, metric: str = "wer"
) -> list[float]:
    """The rate of each step, relative to the recipe's."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    rate = LearningRate(optimizer, schedule, steps * epochs, metric)
    found = []
    for epoch in range(epochs):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"] / 2)
            optimizer.step()
            rate.step()
        rate.epoch_end((values or [1.0] * epochs)[epoch])
        # As a run that is resumed here.
        state = rate.state_dict()
        rate = LearningRate(optimizer, schedule, steps * epochs, metric)
        rate.load_state_dict(state)
    return found


def test_warm_up_in_steps_and_as_a_share() -> None:
    expected = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates(Schedule(warmup=4), 8, 1) == pytest.approx(expected)
    assert rates(Schedule(warmup=0.5), 8, 1) == pytest.approx(expected)
    assert rates(Schedule(), 8, 1) == [1] * 8


def test_annealing_divides_after_each_epoch() -> None:
    assert rates(Schedule(anneal=1.1), 2, 3) == pytest.approx([1, 1, 1 / 1.1, 1 / 1.1, 1 / 1.21, 1 / 1.21])


def test_decay_over_all_steps() -> None:
    assert rates(Schedule(decay="linear"), 4, 1) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(Schedule(decay="cosine"), 4, 1) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize(("metric", "perfect"), [("wer", 0), ("crr", 100)])
def test_plateaus_of_the_metric_reduce_the_rate(metric: str, perfect: int) -> None:
    """As torch's scheduler: reduced after more than two epochs without improvement; crr improves upwards."""
    schedule = Schedule(plateau_factor=0.5, plateau_patience=2)
    values = [abs(perfect - v) for v in (5.0, 4, 4, 4, 4, 3, 3, 3, 3, 3)]
    assert rates(schedule, 1, 10, values, metric) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def forcing(schedule: TeacherForcing, distances: list[float]) -> list[float]:
    rate, found = TeacherForcingRate(schedule), []
    for epoch, distance in enumerate(distances):
        found.append(rate.value)
        rate.epoch_end(epoch, distance)
        state, rate = rate.state_dict(), TeacherForcingRate(schedule)
        rate.load_state_dict(state)
    return found


def test_teacher_forcing_of_hw4p2() -> None:
    """Down by 0.1 every 20 epochs; times 0.985 once the distance was below 30, or after epoch 20."""
    steps = forcing(TeacherForcing(step=0.1, every=20), [50.0] * 61)
    assert steps == pytest.approx([1.0] * 20 + [0.9] * 20 + [0.8] * 20 + [0.7])
    schedule = TeacherForcing(factor=0.985, below_distance=30, after_epoch=20)
    assert forcing(schedule, [50, 40, 29, 35, 35]) == pytest.approx([1, 1, 1, 0.985, 0.985**2])
    late = forcing(schedule, [50.0] * 24)
    assert late[:21] == [1.0] * 21
    assert late[21:] == pytest.approx([0.985, 0.985**2, 0.985**3])
    assert forcing(TeacherForcing(start=0.9), [1.0] * 4) == [0.9] * 4
    assert forcing(TeacherForcing(step=0.5, every=1, end=0.2), [1.0] * 4) == [1.0, 0.5, 0.2, 0.2]


def test_dropout_is_switched_wherever_it_is() -> None:
    model = nn.ModuleList(
        [
            nn.Dropout(0.3),
            LockedDropout(0.2),
            GRU(2, 3, num_layers=2, dropout=0.4),
            nn.MultiheadAttention(4, 2, 0.1),
        ]
    )
    dropout, locked, gru, attention = model
    switch = DropoutSwitch(model)
    switch.set(False)
    assert (dropout.p, locked.p, gru.dropout, attention.dropout) == (0, 0, 0, 0)
    switch.set(True)
    assert (dropout.p, locked.p, gru.dropout, attention.dropout) == (0.3, 0.2, 0.4, 0.1)
