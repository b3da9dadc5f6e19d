"""asrkern.models.build, list and what a model costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import asrkern.models
from asrkern.models import cost as cost_module
from asrkern.models.cost import cost
from asrkern.models.registry import typical_seconds

PUBLISHED_MILLIONS = {
    "deepspeech2": 86.6,
    "deepspeech2_mlperf": 103.8,
    "conv_transformer": 237.4,
    "las_kospeech": 20.7,
}
# One option of each family, and where it shows.
OPTIONS = {
    "deepspeech2_algoperf": ({"hidden_size": 6}, lambda m: m.hidden_size),
    "deepspeech2": ({"hidden_size": 6}, lambda m: m.config.hidden_size),
    "conv": ({"fc_sizes": (6, 6)}, lambda m: m.fc[1].out_features),
    "vgg": ({"dnn_size": 6}, lambda m: m.dnn.module[0].out_features),
    "las": ({"hidden_size": 6, "encoder_blocks": 0, "speller_size": 12}, lambda m: m.config.hidden_size),
}


def family(name: str) -> str:
    return next(prefix for prefix in OPTIONS if name.startswith(prefix))


@pytest.mark.parametrize("name", asrkern.models.list())
def test_every_model_is_built_with_options(name):
    options, found = OPTIONS[family(name)]
    with torch.device("meta"):
        model = asrkern.models.build(name)
        assert found(model) != 6
        assert found(asrkern.models.build(name, **options)) == 6
    assert isinstance(model, nn.Module) and model.training
    assert isinstance(model.n_features, int)
    if name in PUBLISHED_MILLIONS:
        assert round(cost(name).parameters / 1e6, 1) == PUBLISHED_MILLIONS[name]
    with pytest.raises(TypeError, match=rf"options: {name} has no 'no_such_thing', expected one of '"):
        asrkern.models.build(name, no_such_thing=1)


def test_all_systems_are_there():
    assert {family(name) for name in asrkern.models.list()} == set(OPTIONS)
    assert {"las_hw4", "las_kospeech", "vgg_gru_ctc", "vgg_gru_ctc_original"} < set(asrkern.models.list())
    with torch.device("meta"):
        assert len(asrkern.models.build("vgg_gru_ctc_original").labels) == 27
        assert asrkern.models.build("deepspeech2_mlperf").config.hidden_size == 2560


def test_nearest_names_are_told():
    with pytest.raises(ValueError, match="name: expected 'vgg_gru_ctc', received 'vgg_gru'"):
        asrkern.models.build("vgg_gru")
    with pytest.raises(ValueError, match=r"name: expected one of 'deepspeech2', .*received 'zzz'"):
        asrkern.models.build("zzz")
    with pytest.raises(ValueError, match="received 3"):
        asrkern.models.build(3)
    with pytest.raises(TypeError, match="options: las_hw4 has no 'hiden_size', expected 'hidden_size'"):
        asrkern.models.build("las_hw4", hiden_size=3)
    with pytest.raises(ValueError, match="hidden_size: expected a positive integer, received 0"):
        asrkern.models.build("deepspeech2", hidden_size=0)


def test_cost_of_deepspeech2_is_that_by_hand():
    """10 s, 1001 frames in, 501 out: two convolutions, five bidirectional LSTMs, one linear layer."""
    frames, hidden = 501, 1024
    by_hand = 32 * 41 * 11 * 81 * frames + 32 * 32 * 21 * 11 * 41 * frames
    by_hand += 2 * 4 * hidden * (1312 + hidden) * frames + 4 * 2 * 4 * hidden * 2 * hidden * frames
    by_hand += 29 * hidden * frames
    assert cost("deepspeech2").flops_per_second == pytest.approx(2 * by_hand / 10, rel=1e-12)


def test_cost_of_the_transformer_is_that_by_hand():
    """1 s: 51 frames to 64 equal queries, so to one, d_model 1312; attention's two products included."""
    frames, steps, d, inner = 51, 1, 1312, 2048
    by_hand = 32 * 41 * 11 * 81 * frames + 32 * 32 * 21 * 11 * 41 * frames
    encoder = 4 * frames * d * d + 2 * frames * frames * d + 2 * frames * d * inner
    decoder = 4 * steps * d * d + 2 * steps * steps * d  # to itself
    decoder += 2 * (steps + frames) * d * d + 2 * steps * frames * d  # to the encoder
    decoder += 2 * steps * d * inner
    by_hand += 2 * (encoder + decoder) + 64 * d * 2048 + 2048 * 1024 + 1024 * 3
    assert typical_seconds("conv_transformer") == 1.0
    assert cost("conv_transformer").flops_per_second == pytest.approx(2 * by_hand, rel=1e-12)


def test_a_speller_is_counted_by_its_tokens(monkeypatch):
    with_15 = cost("las_hw4").flops_per_second
    monkeypatch.setattr(cost_module, "TOKENS_PER_SECOND", 0)
    listener = cost("las_hw4").flops_per_second
    # Three LSTM cells, the query, the attention to 100 s / 8 frames, three linear layers.
    token = 4 * 512 * (512 + 512) * 3 + 512 * 256 + 2 * 125 * 256 + 768 * 256 + 256 * 256 + 256 * 31
    assert with_15 - listener == pytest.approx(15 * 2 * token, rel=1e-3)


def test_counting_takes_no_memory_and_the_command_prints_it():
    code = (
        "import atexit, runpy, sys; sys.argv = ['asrkern', 'models']\n"
        "from benchmarks._timing import peak_resident_mib\n"
        "atexit.register(lambda: print(round(peak_resident_mib())))\n"
        "runpy.run_module('asrkern', run_name='__main__')"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *table, mebibytes = done.stdout.splitlines()
    rows = {line.split()[0]: line for line in table}
    assert set(asrkern.models.list()) < set(rows)
    assert "237.4 M" in rows["conv_transformer"] and "20.7 M" in rows["las_kospeech"]
    assert "a multiply-add counted as 2" in table[-1]
    assert int(mebibytes) < 1000, "the largest of the models alone has 1500 MiB"
