"""benchmarks/models/training_step.py: what is compared, and that nothing that differs is timed."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import asrkern.nn
from asrkern.models import LAS, teacher_forcing
from benchmarks.models import training_step
from benchmarks.models.training_step import ASRKERN, STOCK, Batch, Training
from tests.models.las_forms import SIZES

SMALL = ["--utterances", "2", "--frames", "60", "--tokens", "4", "--rounds", "1"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small models, and no processes."""
    monkeypatch.setattr(training_step, "peak_memory_mib", lambda *_: 1.0)
    monkeypatch.setattr(training_step.registry, "build", lambda name: LAS.preset(name[4:], **SIZES[name[4:]]))


def test_one_model(capsys):
    assert training_step.main(["las_hw4_mobile", *SMALL]) == 0
    table = capsys.readouterr().out
    assert "| las_hw4_mobile | 2 × 60, 4" in table and "torch / asrkern" in table


def test_the_twin_is_made_of_torchs_layers(monkeypatch):
    monkeypatch.setattr(teacher_forcing, "spell", None)
    twin = Training("las_hw4_mobile", Batch(1, 150, 3), STOCK)
    assert [type(cell) for cell in twin.model.speller.lstm_cells] == [nn.LSTMCell] * 3
    twin()
    ours = Training("las_hw4_mobile", Batch(1, 150, 3), ASRKERN)
    assert type(ours.model.speller.lstm_cells[0]) is asrkern.nn.LSTMCell
    assert all(
        torch.equal(a, b) for a, b in zip(twin.model.parameters(), ours.model.parameters(), strict=True)
    )
    with pytest.raises(TypeError):
        ours()


def test_what_differs_is_not_timed(capsys, monkeypatch):
    monkeypatch.setattr(training_step, "GRADIENT_TOLERANCE", -1.0)
    assert training_step.main(["las_kospeech", *SMALL]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["las"], "expected some of conv_rnn, .* received 'las'"),
        (["--utterances", "0"], "argument --utterances: expected a positive integer, received 0"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        training_step.main(arguments)
    assert re.search(message, capsys.readouterr().err)
