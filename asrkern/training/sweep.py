"""Variants of a recipe, trained one after the other, in one table."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asrkern._atomic_write import write_text
from asrkern.training.recipe import Recipe, make_recipe
from asrkern.training.results import as_csv, as_markdown
from asrkern.training.trainer import train

log = logging.getLogger("asrkern.training")

Variants = dict[str, dict[str, Any]]


def grid(values: Mapping[str, list[Any]]) -> Variants:
    """All combinations: ``{"optimizer.lr": [1e-3, 1e-4]}`` → ``{"lr=0.001": {"optimizer.lr": 1e-3}, ...}``."""
    combinations = itertools.product(*values.values())
    return {_name(changes): changes for changes in (dict(zip(values, chosen)) for chosen in combinations)}


def _name(changes: Mapping[str, Any]) -> str:
    text = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in changes.items())
    return "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in text)


def sweep(
    recipe: Recipe,
    variants: Variants,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Train all variants, each in a folder of its name, and write ``sweep.csv`` and ``sweep.md`` after each.

    If a variant fails, the table has its error, and the next one is trained.

    Args:
        variants: name → changes by dotted keys.
        resume: continue runs that exist; complete ones are only read.
        device: as :func:`asrkern.training.trainer.train` takes it.

    Returns:
        The table: ``variant``, ``epoch`` (the best one), ``train_loss``, ``valid_loss``, train and valid metric,
        ``seconds`` and ``memory_mib`` of the whole run, ``error``.

    Raises:
        OSError: the table cannot be written.
        ValueError: there is no variant, or one has a key that does not exist.
    """
    if not variants:
        raise ValueError(
            "variants: expected at least one, in the recipe's [sweep.NAME] or as key=value,value,..."
        )
    folder = Path(folder)
    values = recipe.model_dump()
    # All recipes are made first, so that a mistyped key does not show after hours.
    recipes = {
        name: make_recipe({**values, "name": f"{recipe.name}-{index}"}, changes, f"variant {name}")
        for index, (name, changes) in enumerate(variants.items())
    }
    rows = []
    for name, variant in recipes.items():
        log.info("variant %s", name)
        rows.append({"variant": name, **_run(variant, folder / name, resume, device)})
        write_text(folder / "sweep.csv", as_csv(rows))
        write_text(folder / "sweep.md", f"# {recipe.name}\n\n{as_markdown(rows, recipe.metric)}")
    return rows


def _run(recipe: Recipe, folder: Path, resume: bool, device: str | None) -> dict[str, Any]:
    names = ("epoch", "train_loss", "valid_loss", "train_metric", "valid_metric")
    row: dict[str, Any] = {name.replace("metric", recipe.metric): "" for name in names}
    row.update(seconds="", memory_mib="", error="")
    try:
        results = train(recipe, folder, resume=resume, device=device)
    except (OSError, ValueError, MemoryError, torch.OutOfMemoryError) as error:
        log.error("%s", error)
        row["error"] = str(error)
        return row
    if best := results.best():
        row.update({name.replace("metric", recipe.metric): best[name] for name in names})
    row["seconds"] = round(sum(epoch["seconds"] for epoch in results.rows), 1)
    row["memory_mib"] = max((epoch["memory_mib"] for epoch in results.rows), default="")
    return row
