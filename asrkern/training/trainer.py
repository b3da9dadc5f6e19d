"""A run: everything that a recipe names put together, with Lightning's trainer.

A run's folder has ``best.safetensors`` and ``last.safetensors`` (see :mod:`asrkern.recognizer.saved`), if the recipe
asks for it ``averaged.safetensors``, ``last.ckpt`` (Lightning's, from which the run is resumed), ``results.csv``,
``results.md``, ``learning_curve.png``, ``recipe.json``, ``log.txt``, ``tensorboard/`` and, for a CTC model,
``diagnosis.md``, ``.csv`` and ``.png`` (:mod:`asrkern.training.diagnostics`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

import asrkern
from asrkern._atomic_write import is_full, write_text
from asrkern.models import build
from asrkern.models.registry import find
from asrkern.models.system import System
from asrkern.recognizer.saved import Recognizer, load
from asrkern.recognizer.tokenizer import Tokenizer
from asrkern.training.averaging import MovingAverage
from asrkern.training.callbacks import LAST_STATE, AtomicCheckpointIO, Exports, Progress, Records
from asrkern.training.data import SpeechData
from asrkern.training.diagnostics.callback import CollapseWatch
from asrkern.training.metrics import constant_answer, in_words
from asrkern.training.module import RecognitionModule
from asrkern.training.recipe import Recipe
from asrkern.training.results import Results
from asrkern.training.scoreboard import machine

log = logging.getLogger("asrkern.training")

# Called with (stage, units done, units in all or None).
Report = Callable[[str, int, int | None], None]


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    device: str | None = None,
    progress: Report | None = None,
) -> Results:
    """Train by a recipe, in one process, or in each process that torchrun started.

    Args:
        folder: the run's, see above.
        resume: continue from its ``last.ckpt``, or begin if there is none.
        callbacks: more of Lightning's callbacks.
        device: "cpu", "cuda" or "cuda:1", in place of the recipe's ``trainer.accelerator``.
        progress: called with "training", the steps done and the steps in all.

    Raises:
        FileExistsError: the folder has a run, and ``resume`` is False.
        ImportError: a package of the extra ``train`` is missing.
        OSError: a corpus cannot be read, or a file cannot be written. For a full disk (``errno.ENOSPC``) the message
            says how to continue.
        ValueError: corpora, tokenizer and model do not fit together, or the loss is not finite for long.
        KeyboardInterrupt: Ctrl-C. The message says what is saved and how to continue.
        torch.OutOfMemoryError: a single utterance does not fit into memory.
    """
    folder = Path(folder)
    state = folder / LAST_STATE
    if not resume and (state.exists() or (folder / "results.csv").exists()):
        raise FileExistsError(
            f"{folder}: expected a new folder, received one with a run; --resume goes on with it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # torchrun's processes share the folder; only the first one writes the log.
    writer = logging.FileHandler(folder / "log.txt") if _rank() == 0 else logging.NullHandler()
    writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(writer)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        going_on = state if resume and state.exists() else None
        return _train(recipe, folder, going_on, callbacks, device, progress)
    except KeyboardInterrupt as error:
        kept = f"{state} holds the run up to {error}" if str(error) else f"{state} stays as it was"
        left = f"{kept}; --resume goes on from there" if state.exists() else "nothing of it is saved yet"
        raise KeyboardInterrupt(f"{folder}: training was interrupted; {left}") from None
    except OSError as error:
        if not is_full(error):
            raise
        left = "--resume goes on from the last checkpoint" if state.exists() else "--resume begins anew"
        full = OSError(f"{error}; with more space, {left}")
        full.errno = error.errno
        raise full from error
    finally:
        log.setLevel(level)
        log.removeHandler(writer)
        writer.close()


def _train(
    recipe: Recipe,
    folder: Path,
    state: Path | None,
    callbacks: Sequence[pl.Callback],
    device: str | None,
    progress: Report | None,
) -> Results:
    torch.manual_seed(recipe.seed)
    data = SpeechData(recipe)
    options = model_options(recipe, data.tokenizer)
    model: Any = _new_model(recipe, options)
    data.check(model.output_length)
    constant, value = constant_answer(data.train.texts, data.valid.texts, recipe.metric)
    notes = [
        *data.train.describe(data.tokenizer.unit).splitlines(),
        *data.valid.describe(data.tokenizer.unit).splitlines(),
        f"model: {recipe.model.name}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters",
        f"constant answer {constant!r}: {recipe.metric} {in_words(recipe.metric, value)} on valid",
    ]
    if _rank() == 0:
        for note in notes:
            log.info(note)
        _write_recipe(recipe, folder, state is not None)
    recognizer = Recognizer(
        model,
        recipe.model.name,
        options,
        recipe.task,
        data.tokenizer,
        recipe.features,
        recipe.text,
        data.train.tokens_per_frame,
        {"recipe": recipe.model_dump(mode="json"), "asrkern": asrkern.__version__, "machine": machine()},
    )
    results = Results(recipe.name, recipe.metric, notes, constant=value)
    averages = [MovingAverage(recipe.averaging.ema)] if recipe.averaging.ema else []
    watch = [CollapseWatch(folder)] if recipe.diagnose and recipe.task == "ctc" else []
    batches = -(-len(data.epoch_plan(0)) // int(os.environ.get("WORLD_SIZE", 1)))
    steps = recipe.trainer.epochs * -(-batches // recipe.trainer.accumulate)
    records = Records(folder, recipe, results, steps)
    bar = [] if progress is None else [Progress(progress, steps)]
    trainer = _make_trainer(
        recipe, folder, [Exports(folder, recognizer), *averages, *watch, records, *bar, *callbacks], device
    )
    module = RecognitionModule(recognizer.task, recipe, steps)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=state, weights_only=True)
    except SystemExit:
        # Lightning catches Ctrl-C and ignores it from then on.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt(records.saved) from None
    except RuntimeError as error:
        if state is None or "loading state_dict" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{state}: expected the weights of the recipe's model to go on with: {reason}"
        ) from None
    return results


def model_options(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """The options of a recipe's model, with those that tokenizer and features decide, as JSON.

    Raises:
        ValueError: the features are not of the kind that the model reads.
    """
    system, name, features = _system(recipe), recipe.model.name, recipe.features
    if system.feature_kind not in (None, features.kind):
        raise ValueError(
            f"features.kind: expected {system.feature_kind!r} for {name}, received {features.kind!r}"
        )
    return {**system.decided(tokenizer, features), **recipe.model.options}


def _system(recipe: Recipe) -> System:
    try:
        return find(recipe.model.name)
    except ValueError as error:
        raise ValueError(f"model: {error}") from None


def _new_model(recipe: Recipe, options: dict[str, Any]) -> nn.Module:
    expected = _system(recipe).task
    if recipe.task != expected:
        raise ValueError(f"task: expected {expected!r} for {recipe.model.name}, received {recipe.task!r}")
    try:
        model = build(recipe.model.name, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: {error}") from None
    if recipe.model.init is not None:
        before = load(recipe.path(recipe.model.init))
        try:
            model.load_state_dict(before.model.state_dict())
        except RuntimeError as error:
            raise ValueError(f"model.init: {error}") from None
    return model


def _make_trainer(
    recipe: Recipe, folder: Path, callbacks: list[pl.Callback], device: str | None
) -> pl.Trainer:
    settings = recipe.trainer
    accelerator: str = settings.accelerator
    devices: int | list[int] = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device is not None:
        kind, _, index = device.partition(":")
        accelerator = "cpu" if kind == "cpu" else "gpu"
        if index:
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError(f"device: expected cpu or cuda with several processes, received {device!r}")
            devices = [int(index)]
    warnings.filterwarnings("ignore", r".*does not have many workers.*")
    warnings.filterwarnings("ignore", r".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", r".*treespec, LeafSpec.*")
    # Dataloaders resume by the position that the data module keeps.
    warnings.filterwarnings("ignore", r".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", r".*that has no `sampler`.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=int(os.environ.get("WORLD_SIZE", 1)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        strategy=settings.strategy,
        precision=settings.precision,
        max_epochs=settings.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, "tensorboard", "") if settings.tensorboard else False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings.log_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
    )


def _write_recipe(recipe: Recipe, folder: Path, resumed: bool) -> None:
    path = folder / "recipe.json"
    now = recipe.model_dump(mode="json")
    if resumed and path.exists():
        before = json.loads(path.read_text("utf-8"))
        changed = [key for key in now if now[key] != before.get(key)]
        if changed:
            log.warning("the recipe is not that of the run so far: changed in %s", ", ".join(changed))
    write_text(path, json.dumps(now, indent=2, ensure_ascii=False) + "\n")


def _rank() -> int:
    return int(os.environ.get("RANK", 0))
