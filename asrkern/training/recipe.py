"""Recipes: what is trained, on what, and how. They are TOML files, read into checked settings.

``load_recipe("recipes/s1_grid.toml", ["optimizer.lr=3e-4", "trainer.epochs=5"])``. Sections and keys are the classes
and attributes below. Paths are relative to the recipe; ``${NAME}`` in them is an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from asrkern._names import nearest
from asrkern._toml import parse_value, tomllib
from asrkern.recognizer._settings import Settings
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import Task, TokenizerSettings

Metric = Literal["wer", "cer", "crr", "distance", "accuracy"]


# What makes the corpora of the repository's recipes.
_PREPARED = {
    "grid": "asrkern prepare grid GRID",
    "fsdd": "asrkern prepare fsdd FSDD",
    "commands3": "asrkern prepare speech_commands SPEECH_COMMANDS --only bed,cat,happy",
}


class Model(Settings):
    """A model of ``asrkern models``.

    Attributes:
        name: as :func:`asrkern.models.build` takes it.
        options: the model's. Labels, special tokens, classes and features per frame come from tokenizer and features.
        init: an asrkern checkpoint, whose weights the model begins with.
    """

    name: str
    options: dict[str, Any] = pydantic.Field(default_factory=dict)
    init: str | None = None


class Data(Settings):
    """Corpora, and how batches are made of them.

    Attributes:
        train, valid: manifests or folders, see :mod:`asrkern.training.manifests`.
        label: the manifest's field that holds a clip's class, for classifiers; "text" for the transcript.
        batch_frames: the most frames of a batch, padding included.
        batch_utterances: the most utterances of a batch.
        buckets: how many ranges of length are kept apart.
        sorted_epochs: so many first epochs go from short to long, without shuffling (SortaGrad, Amodei et al. 2015).
        max_seconds, min_seconds: longer and shorter utterances are left out.
        leave_out_unknown: leave out transcripts with unknown characters instead of refusing the corpus.
        workers: how many processes load.
        cache_mib: memory that keeps computed features for later epochs; only without workers.
    """

    train: list[str] = pydantic.Field(min_length=1)
    valid: list[str] = pydantic.Field(min_length=1)
    label: str = "label"
    batch_frames: int = pydantic.Field(default=20_000, ge=1)
    batch_utterances: int = pydantic.Field(default=32, ge=1)
    buckets: int = pydantic.Field(default=10, ge=1)
    sorted_epochs: int = pydantic.Field(default=0, ge=0)
    max_seconds: float = pydantic.Field(default=30.0, gt=0)
    min_seconds: float = pydantic.Field(default=0.0, ge=0)
    leave_out_unknown: bool = False
    workers: int = pydantic.Field(default=0, ge=0)
    cache_mib: int = pydantic.Field(default=0, ge=0)


class Augment(Settings):
    """Changes to training utterances.

    Attributes:
        speeds: factors. Each epoch, each utterance gets one of them. A recording's spectrum moves with it; stored features
            are stretched in time.
        cepstra: stored features are mel cepstra (not liftered), whose spectrum speeds are to move, too.
        noise: standard deviation of Gaussian noise that is added to features, whose own is 1.
        time_masks, time_mask_frames: SpecAugment (Park et al. 2019): how many masks, and T, the most frames of one; 0 for
            no limit but ``mask_share`` (AlgoPerf's dynamic masks).
        frequency_masks, frequency_mask_bins: how many masks, and F, the most bins of one.
        mask_share: the largest share of an utterance's frames (or bins) that one mask covers.
        frequency_mask_share: this share of the bins, where it is another one.
    """

    speeds: tuple[float, ...] = (1.0,)
    cepstra: bool = False
    noise: float = pydantic.Field(default=0.0, ge=0)
    time_masks: int = pydantic.Field(default=0, ge=0)
    time_mask_frames: int = pydantic.Field(default=70, ge=0)
    frequency_masks: int = pydantic.Field(default=0, ge=0)
    frequency_mask_bins: int = pydantic.Field(default=20, ge=1)
    mask_share: float = pydantic.Field(default=0.5, gt=0, lt=1)
    frequency_mask_share: float | None = pydantic.Field(default=None, gt=0, lt=1)

    @pydantic.field_validator("speeds")
    @classmethod
    def _check_speeds(cls, speeds: tuple[float, ...]) -> tuple[float, ...]:
        if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
            raise ValueError("expected factors from 0.5 to 2")
        return speeds


class Optimizer(Settings):
    """An optimizer of torch's.

    Attributes:
        name: "adam", "adamw" or "sgd".
        lr: learning rate.
        momentum, nesterov: for "sgd".
        betas: for the others.
        clip: the largest norm of the gradient; 0 for no limit.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = pydantic.Field(default=1e-3, gt=0)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)
    momentum: float = pydantic.Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = pydantic.Field(default=5.0, ge=0)


class Schedule(Settings):
    """Learning rate and dropout. The factors of the rate are multiplied.

    Attributes:
        warmup: steps in which the rate rises from zero; below 1 a share of all steps.
        anneal: the rate is divided by this after each epoch.
        decay: "cosine" or "linear" to zero over all steps, or "none".
        plateau_factor, plateau_patience: the rate is multiplied by the factor once the metric on valid has not improved
            for more epochs than the patience; a factor of 1 does nothing.
        dropout_from_epoch: no dropout before this epoch. Dropout hinders a CTC model whose output is still all blank.
    """

    warmup: float = pydantic.Field(default=0.0, ge=0)
    anneal: float = pydantic.Field(default=1.0, ge=1)
    decay: Literal["none", "cosine", "linear"] = "none"
    plateau_factor: float = pydantic.Field(default=1.0, gt=0, le=1)
    plateau_patience: int = pydantic.Field(default=5, ge=0)
    dropout_from_epoch: int = pydantic.Field(default=0, ge=0)


class TeacherForcing(Settings):
    """Probability that a step of an attention model is given the correct token.

    Attributes:
        start, end: the first value, and the least.
        step, every: it falls by ``step`` every ``every`` epochs (HW4P2: 0.10 every 20).
        factor, below_distance, after_epoch: it is multiplied by the factor after each epoch, once the mean distance on
            valid has been below ``below_distance`` or the epoch is beyond ``after_epoch`` (HW4P2: 0.985, 30, 20).
    """

    start: float = pydantic.Field(default=1.0, ge=0, le=1)
    end: float = pydantic.Field(default=0.0, ge=0, le=1)
    step: float = pydantic.Field(default=0.0, ge=0, le=1)
    every: int = pydantic.Field(default=20, ge=1)
    factor: float = pydantic.Field(default=1.0, gt=0, le=1)
    below_distance: float = pydantic.Field(default=0.0, ge=0)
    after_epoch: int = pydantic.Field(default=10**9, ge=0)


class Averaging(Settings):
    """Averages of weights.

    Attributes:
        ema: decay of an exponential moving average of the weights. valid is measured with the average, and it is saved.
            0 for none. In step n the decay is at most (1 + n) / (10 + n).
        last: the mean of the weights of so many last epochs is written at the end, to ``averaged.safetensors``; 0 for
            none.
    """

    ema: float = pydantic.Field(default=0.0, ge=0, lt=1)
    last: int = pydantic.Field(default=0, ge=0)


class Trainer(Settings):
    """Lightning's trainer.

    Attributes:
        epochs: the most epochs.
        accumulate: how many batches make a step.
        precision: "32", "bf16-mixed" or "16-mixed". The CTC loss is always in float32.
        accelerator: "auto", "cpu" or "gpu".
        strategy: "auto" (DistributedDataParallel if torchrun started several processes), "ddp" or "fsdp" (on GPUs;
            without a moving average).
        checkpoint_steps: steps between checkpoints within an epoch; 0: only one after each epoch.
        stop_after: training ends after so many epochs without improvement; 0: never.
        tensorboard: whether to write event files for TensorBoard.
        log_steps: steps between lines of progress in the log.
    """

    epochs: int = pydantic.Field(default=20, ge=1)
    accumulate: int = pydantic.Field(default=1, ge=1)
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    checkpoint_steps: int = pydantic.Field(default=0, ge=0)
    stop_after: int = pydantic.Field(default=0, ge=0)
    tensorboard: bool = True
    log_steps: int = pydantic.Field(default=50, ge=1)


class Recipe(Settings):
    """Everything about a training run.

    Attributes:
        name: the run's, and its folder's unless another is given.
        task: "ctc", "attention" or "classify".
        metric: the one to be improved on valid.
        seed: of weights, order and augmentation.
        diagnose: watch a CTC model for collapse, see :mod:`asrkern.training.diagnostics`.
        sweep: variants: name → table of dotted keys and values.
        folder: the folder that relative paths begin in; set by :func:`load_recipe`.
    """

    name: str = pydantic.Field(pattern=r"^[\w.-]+$")
    task: Task
    metric: Metric
    seed: int = pydantic.Field(default=0, ge=0)
    diagnose: bool = True
    model: Model
    data: Data
    features: FeatureSettings = FeatureSettings()
    text: TextNormalization = TextNormalization()
    tokenizer: TokenizerSettings = TokenizerSettings()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    teacher_forcing: TeacherForcing = TeacherForcing()
    averaging: Averaging = Averaging()
    trainer: Trainer = Trainer()
    sweep: dict[str, dict[str, Any]] = pydantic.Field(default_factory=dict)
    folder: Path = Path()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.task == "classify") != (self.metric == "accuracy"):
            raise ValueError(f"metric: expected one for task {self.task!r}, received {self.metric!r}")
        if self.augment.cepstra and self.features.kind != "stored":
            raise ValueError(f"augment.cepstra: expected false, since features are {self.features.kind!r}")
        return self

    def path(self, value: str) -> Path:
        """A path in this recipe, as a path of the system.

        Raises:
            ValueError: it names an environment variable that is not set.
        """
        expanded = os.path.expandvars(value)
        if missing := re.search(r"\$\{?(\w+)", expanded):
            raise ValueError(
                f"{value}: expected the environment variable {missing[1]} to be set, received none{how_to_make(value)}"
            )
        return self.folder / expanded


def how_to_make(value: str) -> str:
    """How to make a manifest of the repository's recipes, such as ``${ASRKERN_DATA}/grid/train.jsonl``; "" for others."""
    found = re.match(r"\$\{?ASRKERN_DATA\}?/(\w+)/", value)
    if not found:
        return ""
    if found[1] not in _PREPARED:
        return "; ASRKERN_DATA is a folder of your choice; docs/corpora.md says what is to be in it"
    return (
        f"; ASRKERN_DATA is a folder of your choice, in which {_PREPARED[found[1]]} --out $ASRKERN_DATA/{found[1]} makes "
        "this one (docs/corpora.md)"
    )


def load_recipe(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: the TOML file.
        overrides: ``key=value`` with dotted keys; a value is TOML, or else a string.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML, a key does not exist (the nearest ones are named), or a value does not fit.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML: {error}") from None
    changes = dict(parse_override(override) for override in overrides)
    return make_recipe({**values, "folder": path.resolve().parent}, changes, str(path))


def make_recipe(values: Mapping[str, Any], changes: Mapping[str, Any] = {}, where: str = "recipe") -> Recipe:
    """A recipe from nested values and changes by dotted keys.

    Raises:
        ValueError: as :func:`load_recipe`.
    """
    values = _copy(values)
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(
                    f"{key}: expected a section before the last name, received a value at {section!r}"
                )
        place[name] = value
    try:
        return Recipe.model_validate(values)
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: " + "; ".join(map(_describe, error.errors()))) from None


def parse_override(override: str) -> tuple[str, Any]:
    """``"optimizer.lr=3e-4"`` as key and value.

    Raises:
        ValueError: no key or no "=".
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"expected key=value, received {override!r}")
    return key.strip(), parse_value(text)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _describe(error: Mapping[str, Any]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key, expected {nearest(error['loc'][-1], _keys(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key}: expected a value, received none"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, received {error['input']!r}" if key else message


def _keys(location: Iterable[str | int]) -> list[str]:
    """The keys of a section."""
    settings: Any = Recipe
    for name in location:
        settings = settings.model_fields[str(name)].annotation
    return list(settings.model_fields)
