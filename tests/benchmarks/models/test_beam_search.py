"""benchmarks/models/beam_search.py: what is compared, and that nothing that differs is timed."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from asrkern.models import LAS
from asrkern.models.speller_steps import FusedSteps, steps_of
from benchmarks.models import beam_search
from benchmarks.models.beam_search import ASRKERN, STOCK, Search
from tests.models.las_forms import SIZES


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(beam_search.registry, "build", lambda name: LAS.preset(name[4:], **SIZES[name[4:]]))


def test_all_models(capsys):
    assert beam_search.main(["--seconds", "1", "--rounds", "1", "--width", "3"]) == 0
    table = capsys.readouterr().out
    assert all(re.search(rf"\| {name} +\| 100 +\| 16 ", table) for name in beam_search.MODELS)
    assert "torch / asrkern int8" in table


def test_stock_searches_over_torchs_layers_and_ours_over_the_fused_step():
    model = beam_search.registry.build("las_hw4").eval()
    stock, ours = (Search(model, backend, 100, 3) for backend in (STOCK, ASRKERN))
    assert [type(cell) for cell in stock.model.speller.lstm_cells] == [nn.LSTMCell] * 3
    with torch.inference_mode():
        assert type(steps_of(ours.model.speller, ours._memory(), 3)) is FusedSteps
    found = ours()
    assert len(found) == 3 and not any(hypothesis.ended for hypothesis in found)


def test_what_differs_is_not_timed(capsys, monkeypatch):
    monkeypatch.setattr(beam_search, "TOLERANCE", -1.0)
    assert beam_search.main(["las_kospeech", "--seconds", "1", "--rounds", "1"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["las"], "expected some of las_hw4, .* received 'las'"),
        (["--width", "0"], "argument --width: expected a positive integer, received 0"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        beam_search.main(arguments)
    assert re.search(message, capsys.readouterr().err)
