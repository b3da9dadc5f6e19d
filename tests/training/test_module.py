"""Steps of training: memory that does not suffice, gradients that are not finite, accumulation, dropout."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from asrkern.models import VGGGRUCTC
from asrkern.recognizer.saved import load
from asrkern.training.module import RecognitionModule
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe

PLAIN = {"channels": [4], "hidden_size": 12, "num_layers": 1, "dnn_size": 16, "batch_norm": False}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "last.safetensors").model.state_dict()


def test_out_of_memory_halves_the_batch_and_accumulates(
    tones: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A model that only takes two utterances at once is trained as with all five."""
    recipe = make_recipe(tiny_recipe(*tones, model__options=PLAIN, trainer__epochs=2))
    train(recipe, tmp_path / "plenty")

    forward = VGGGRUCTC.forward
    sizes = []

    def scarce(self: VGGGRUCTC, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        if self.training:
            sizes.append(len(lengths))
            if len(lengths) > 2:
                raise torch.OutOfMemoryError("not enough")
        return forward(self, features, lengths)

    monkeypatch.setattr(VGGGRUCTC, "forward", scarce)
    with caplog.at_level(logging.WARNING, "asrkern.training"):
        train(recipe, tmp_path / "scarce")
    assert sum("out of memory with 5 utterances" in r.message for r in caplog.records) == 2
    # Five, then parts of two and three, then of one and two from there on.
    assert sizes[:7] == [5, 2, 3, 1, 1, 2, 1]
    assert max(sizes[3:]) == 2
    for key, value in weights(tmp_path / "plenty").items():
        torch.testing.assert_close(weights(tmp_path / "scarce")[key], value, rtol=1e-3, atol=1e-5)


def test_an_utterance_that_never_fits_is_named(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("not enough")

    monkeypatch.setattr(VGGGRUCTC, "forward", none)
    with pytest.raises(torch.OutOfMemoryError, match=r"data\.batch_frames"):
        train(make_recipe(tiny_recipe(*tones)), tmp_path)


def test_accumulated_batches_make_the_step_of_their_mean(tones: tuple[Path, Path], tmp_path: Path) -> None:
    """23 utterances in batches of 4, two a step; the optimizer sees 3 steps an epoch."""
    recipe = make_recipe(
        tiny_recipe(*tones, data__batch_utterances=4, trainer__accumulate=2, trainer__epochs=1)
    )
    steps: list[int] = []

    class Count(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            steps.append(trainer.fit_loop.epoch_loop.batch_idx)

    train(recipe, tmp_path, callbacks=[Count()])
    assert steps == [1, 3, 5]


def test_gradients_that_are_not_finite_make_no_step(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tiny_recipe(*tones, trainer__epochs=1))
    backward = RecognitionModule.manual_backward
    count = iter(range(100))

    def spoiled(self: RecognitionModule, loss: torch.Tensor) -> None:
        backward(self, loss * float("nan") if next(count) == 1 else loss)

    monkeypatch.setattr(RecognitionModule, "manual_backward", spoiled)
    results = train(recipe, tmp_path)
    assert results.rows[0]["skipped"] == 1
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_gradients_that_are_never_finite_end_the_run(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = RecognitionModule.manual_backward
    monkeypatch.setattr(
        RecognitionModule, "manual_backward", lambda self, loss: backward(self, loss * float("nan"))
    )
    with pytest.raises(ValueError, match="not finite in 20 steps"):
        train(make_recipe(tiny_recipe(*tones, trainer__epochs=9)), tmp_path)


def test_dropout_begins_where_the_recipe_says(tones: tuple[Path, Path], tmp_path: Path) -> None:
    found = []

    class Watch(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 0:
                found.append(module.model.dropout.p)

    recipe = make_recipe(tiny_recipe(*tones, schedule__dropout_from_epoch=2))
    train(recipe, tmp_path, callbacks=[Watch()])
    assert found == [0.0, 0.0, 0.1]


def test_the_scores_of_each_batch_reach_callbacks(tones: tuple[Path, Path], tmp_path: Path) -> None:
    class Watch(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            ((part, step),) = outputs["steps"]
            assert part.ids == batch.ids
            assert step.scores.shape == (len(batch), int(step.lengths.max()), 29)
            torch.testing.assert_close(step.scores.exp().sum(-1), torch.ones(step.scores.shape[:2]))
            assert not step.scores.requires_grad

    train(make_recipe(tiny_recipe(*tones, trainer__epochs=1)), tmp_path, callbacks=[Watch()])


def test_half_precision_leaves_the_ctc_loss_in_float32(
    tones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a model says bfloat16."""
    kinds = set()
    ctc, forward = torch.nn.functional.ctc_loss, VGGGRUCTC.forward

    def half(self: VGGGRUCTC, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
        log_probs, output_lengths = forward(self, features, lengths)
        return log_probs.bfloat16(), output_lengths

    def watched(log_probs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        kinds.add((log_probs.dtype, torch.is_autocast_enabled("cpu")))
        return ctc(log_probs, *arguments, **options)

    monkeypatch.setattr(VGGGRUCTC, "forward", half)
    monkeypatch.setattr(torch.nn.functional, "ctc_loss", watched)
    recipe = make_recipe(tiny_recipe(*tones, trainer__precision="bf16-mixed", trainer__epochs=2))
    losses = [row["train_loss"] for row in train(recipe, tmp_path).rows]
    assert kinds == {(torch.float32, False)}
    assert losses[1] < losses[0]
