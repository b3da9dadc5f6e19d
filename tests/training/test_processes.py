"""Two processes of torchrun train one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from asrkern.recognizer.saved import load
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train
from tests.training.tones import tiny_recipe

# Trains by the recipe in argv[1] and leaves each process's weights and measures in argv[2].
PROGRAM = """
import json, os, sys, torch, lightning.pytorch as pl
from pathlib import Path
from asrkern.training.recipe import make_recipe
from asrkern.training.trainer import train

class Keep(pl.Callback):
    def on_train_end(self, trainer, module):
        torch.save((module.model.state_dict(), module.measures), f"{sys.argv[2]}/rank{trainer.global_rank}.pt")

torch.set_num_threads(1)
train(make_recipe(json.loads(Path(sys.argv[1]).read_text())), sys.argv[2], callbacks=[Keep()])
"""


def test_two_processes_agree_and_do_what_one_does_with_two_batches_a_step(
    tones: tuple[Path, Path], tmp_path: Path
) -> None:
    """No dropout, whose draws differ, and no BatchNorm, whose running means are those of one process.

    Sorted batches are six, an even number, in both epochs.
    """
    options = {"channels": [4], "hidden_size": 12, "num_layers": 1, "dnn_size": 16, "batch_norm": False}
    values = tiny_recipe(
        *tones, model__options=options, trainer__epochs=2, data__batch_utterances=4, data__sorted_epochs=2
    )
    # Adam would make much of gradients that are next to nothing.
    values["optimizer"] = {"name": "sgd", "lr": 1e-2}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    (tmp_path / "program.py").write_text(PROGRAM)
    two = tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, str(tmp_path / "program.py"), str(tmp_path / "recipe.json"), str(two)],
        env=environment,
        check=True,
        timeout=240,
    )
    (first, measures), (second, others) = (torch.load(two / f"rank{rank}.pt") for rank in (0, 1))
    assert measures == others
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    one = tmp_path / "one"
    results = train(make_recipe({**values, "trainer": {**values["trainer"], "accumulate": 2}}), one)
    alone = load(one / "last.safetensors").model.state_dict()
    for key, value in first.items():
        torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=1e-6)
    # Every utterance of valid counts once, though they make an odd number of batches.
    assert results.rows[-1]["valid_metric"] == measures["valid_metric"]
    assert abs(results.rows[-1]["valid_loss"] - measures["valid_loss"]) < 1e-4
    assert (two / "best.safetensors").is_file()
    assert (two / "results.md").is_file()
