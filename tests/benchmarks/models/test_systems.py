"""Every model in rtf.py: its stages, and its twin that computes nothing by asrkern's kernels."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from asrkern import models
from asrkern.models.registry import build
from asrkern.nn import GRU, LSTM, FrozenGRU, FrozenLSTM
from benchmarks import rtf
from benchmarks._timing import PeakMemory, largest_difference
from benchmarks.models import _systems
from tests.benchmarks.test_rtf import write_manifest

# Reduced widths of one model of each kind, and what its stages are called.
LAS_STAGES = ["features", "listener", "speller", "decode"]
SMALL = {
    "deepspeech2_mlperf": ({"hidden_size": 8}, ["features", "conv", "rnn", "fc", "decode"]),
    "deepspeech2_algoperf": (
        {"hidden_size": 8, "num_layers": 1, "num_ffn_layers": 1},
        ["features", "conv", "rnn", "fc", "decode"],
    ),
    "conv_transformer": (
        {"decoder_steps": 2, "num_layers": 1, "dim_feedforward": 8, "fc_sizes": (8, 8)},
        ["features", "conv", "transformer", "fc", "decode"],
    ),
    "conv_rnn": (
        {"hidden_size": 8, "fc_sizes": (8, 8), "bidirectional": True},
        ["features", "conv", "rnn", "fc", "decode"],
    ),
    "vgg_gru_ctc": (
        {"channels": (4, 5), "hidden_size": 8, "dnn_size": 8},
        ["features", "conv", "rnn", "dnn", "decode"],
    ),
    "vgg_gru_ctc_original": (
        {"channels": (4,), "hidden_size": 8, "dnn_size": 8, "rnn_type": "light_gru"},
        ["features", "conv", "rnn", "dnn", "decode"],
    ),
    "las_hw4": (
        {
            "conv_channels": (8,),
            "hidden_size": 4,
            "embedding_size": 12,
            "speller_size": 12,
            "attention_size": 8,
        },
        LAS_STAGES,
    ),
    "las_kospeech": ({"conv_channels": (4,) * 5, "hidden_size": 4, "num_tokens": 2040}, LAS_STAGES),
}


@pytest.fixture(autouse=True)
def _with(monkeypatch):
    monkeypatch.setattr(rtf, "peak_memory", lambda *_: PeakMemory(3.0, 1.0))


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, **SMALL[name][0]).eval()


class AsrkernOperations(TorchDispatchMode):
    """Collects the names of asrkern's operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "asrkern":
            self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def run(stages, features, lengths):
    state = features, lengths
    for stage in stages.values():
        state = stage(*state)
    return state


def with_statistics(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.3, 1)
    return model


@torch.no_grad()
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_the_twin_is_the_same_model_without_asrkern(name, packed):
    model = with_statistics(small(name))
    lengths = torch.tensor([90, 75, 83] if packed else [90, 90, 90])
    features = torch.randn(3, model.n_features, 90)
    features.masked_fill_((torch.arange(90) >= lengths[:, None])[:, None], 0)
    twin = _systems.stock_stages(model, packed, torch.device("cpu"))
    ours = _systems.system_of(model).stages(model)
    assert list(twin) == list(ours) == SMALL[name][1][1:-1]
    with AsrkernOperations() as used_by_twin:
        expected, expected_lengths = run(twin, features, lengths)
    with AsrkernOperations() as used:
        actual, actual_lengths = run(ours, features, lengths)
    assert used_by_twin.names == set()
    assert used.names
    assert torch.equal(actual_lengths, expected_lengths)
    assert expected.dim() == 3
    if name != "vgg_gru_ctc_original":  # whose output is next to constant
        assert expected.exp().std() > 1e-4
    assert largest_difference(expected, actual, actual_lengths) < 1e-5


@torch.no_grad()
def test_a_twin_shares_the_weights_and_leaves_the_model_alone():
    model = small("conv_rnn")
    before = {name: type(module) for name, module in model.named_modules()}
    twin = rtf.stock_stages(model, True, torch.device("cpu"))
    assert {name: type(module) for name, module in model.named_modules()} == before
    features, lengths = torch.randn(2, 161, 40), torch.tensor([40, 31])
    first, _ = run(twin, features, lengths)
    model.rnn.weight_hh_l0.mul_(2)
    second, _ = run(twin, features, lengths)
    assert not torch.equal(first, second)
    assert largest_difference(second, *run(_systems.system_of(model).stages(model), features, lengths)) < 1e-5


def test_which_models_may_run_through_the_padding():
    assert not _systems.depends_on_padding(small("vgg_gru_ctc"))
    assert not _systems.depends_on_padding(small("conv_transformer"))
    assert not _systems.depends_on_padding(small("deepspeech2_mlperf"))
    assert _systems.depends_on_padding(small("conv_rnn"))
    assert _systems.depends_on_padding(small("las_hw4"))
    with torch.device("meta"):
        assert _systems.depends_on_padding(build("conv_rnn", bidirectional=False))
        assert _systems.depends_on_padding(build("vgg_gru_ctc", bidirectional=True))


@pytest.mark.parametrize("name", SMALL)
def test_every_model_is_compared_and_timed(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models, "build", small)
    manifest = write_manifest(tmp_path, [0.7, 0.4, 0.5, 0.6])
    output = tmp_path / "numbers.json"
    arguments = ["--data", str(manifest), "--model", name, "--device", "cpu", "--repeats", "1"]
    assert rtf.main([*arguments, "--json", str(output)]) == 0
    (report,) = json.loads(output.read_text())
    assert report["passed"] and report["name"] == name
    assert list(report["backends"]) == [
        "stock, padded",
        "stock, packed",
        "asrkern",
        "asrkern int8",
        "asrkern int8/int8",
    ]
    for backend in report["backends"].values():
        assert list(backend["stages_seconds"]) == SMALL[name][1]
    assert report["backends"]["asrkern"]["equal_transcripts"] == 4
    assert f"{SMALL[name][1][-2]} s" in capsys.readouterr().out


def test_one_table_of_all_models(monkeypatch, tmp_path, capsys):
    names = ["conv_transformer", "vgg_gru_ctc", "las_hw4"]
    monkeypatch.setattr(models, "list", lambda: names)
    # One that is wrong has no figures, and takes none from the others.
    monkeypatch.setattr(models, "build", lambda name: with_statistics(small(name)))
    monkeypatch.setattr(rtf, "RESULTS", tmp_path / "rtf.md")
    original = FrozenLSTM._layer

    def wrong(self, *arguments, **options):
        output, *states = original(self, *arguments, **options)
        return output * 1.01, *states

    monkeypatch.setattr(FrozenLSTM, "_layer", wrong)
    manifest = write_manifest(tmp_path, [0.7, 0.4, 0.5, 0.6])
    arguments = ["--data", str(manifest), "--model", "all", "--device", "cpu", "--repeats", "1"]
    output = tmp_path / "numbers.json"
    machine = rtf.machine(torch.device("cpu"))
    here = f"`rtf.py` on {machine['cpu']}, {machine['asrkern_isa']}, {machine['threads']} threads; torch 2.\n\n| old |\n"
    other = "`rtf.py` on a Xeon, avx2, 4 threads; torch 2.\n\n| other |\n"
    rtf.RESULTS.write_text(f"{here}\n{other}\n{here}")
    assert rtf.main([*arguments, "--json", str(output), "--write"]) == 1
    text = rtf.RESULTS.read_text()
    # This processor's have been replaced.
    assert text.endswith(f"\n\n{other}") and "| old |" not in text
    text = text.removesuffix(f"\n{other}")
    assert capsys.readouterr().out.endswith(f"\n{text}\n")
    assert text.startswith(f"`python benchmarks/rtf.py --data {os.path.relpath(manifest)} --model all")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    header, _, *rows = rows
    ours = ["asrkern", "asrkern int8", "asrkern int8/int8"]
    assert header == ["", "M parameters", "audio s", *ours, "memory", "seconds"]
    assert [row[0] for row in rows] == names
    transformer, vgg, las = (dict(zip(header, row)) for row in rows)
    assert las["asrkern"] == "-" and las["seconds"].startswith("FAILED")
    assert transformer["seconds"].count(" / ") == 15
    found = json.loads(output.read_text())[1]["backends"]
    assert vgg["memory"] == "1.00 / 1.00 / 1.00"
    assert vgg["asrkern int8"] == f"{found['asrkern int8']['speed_up']:.2f}"
    stock = min((found[name] for name in (rtf.PADDED, rtf.PACKED)), key=lambda times: times["seconds"])
    parts = [times["stages_seconds"]["rnn"] for times in (stock, *(found[name] for name in ours))]
    assert "rnn " + " / ".join(f"{part:.2f}" for part in parts) in vgg["seconds"].split(", ")


@pytest.mark.parametrize("kind, frozen", [(GRU, FrozenGRU), (LSTM, FrozenLSTM)])
@pytest.mark.parametrize("name", ["conv_rnn", "las_hw4"])
def test_a_wrong_recurrent_layer_is_not_timed(name, kind, frozen, monkeypatch, tmp_path, capsys):
    """The comparison sees each model's own layers."""
    original = frozen._layer

    def wrong(self, *arguments, **options):
        output, *states = original(self, *arguments, **options)
        return output * 1.01, *(state * 1.01 for state in states)

    monkeypatch.setattr(frozen, "_layer", wrong)
    monkeypatch.setattr(models, "build", lambda name: with_statistics(small(name)))
    manifest = write_manifest(tmp_path, [0.7, 0.4, 0.5, 0.6])
    status = rtf.main(["--data", str(manifest), "--model", name, "--device", "cpu", "--repeats", "1"])
    uses = any(isinstance(module, kind) for module in small(name).modules())
    assert uses == (kind is {"conv_rnn": GRU, "las_hw4": LSTM}[name])
    assert status == (1 if uses else 0)
    assert ("FAILED" in capsys.readouterr().out) == uses
