"""DeepSpeech2.from_checkpoint: every published layout gives what an independent plain-torch model gives."""

from __future__ import annotations

import enum
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asrkern.models import DeepSpeech2
from tests.models import stock_deepspeech2 as stock

AUDIO_CONF = {"sample_rate": 16000, "window_size": 0.02, "window_stride": 0.01, "window": "hamming"}


def make_model(layout: str, **options: Any) -> stock.StockDeepSpeech2:
    """A small model of a layout with all weights and statistics random."""
    options = {"hidden_size": 11, "num_layers": 3, "rnn_type": "gru", "lookahead_context": 4, **options}
    if layout == "mlperf":
        options.setdefault("bidirectional", False)
    model = stock.StockDeepSpeech2(layout, output=stock.LAYOUTS[layout].output, **options).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean") or ".module.0." in name or "batch_norm" in name:
                tensor.add_(torch.randn(tensor.shape).mul(0.3).to(tensor.dtype))
    return model


def package(model: stock.StockDeepSpeech2, layout: str, **entries: Any) -> dict[str, Any]:
    """The container of versions 1 and 2 and of MLPerf's copy; ``bidirectional`` came with 1.1."""
    rnn = model.rnns[0].rnn
    known = {
        "version": "0.0.1",
        "hidden_size": rnn.hidden_size,
        "hidden_layers": len(model.rnns),
        "rnn_type": type(rnn).__name__.lower(),
        "audio_conf": AUDIO_CONF,
        "labels": stock.LABELS,
        "state_dict": model.state_dict(),
        "optim_dict": {"state": {0: {"momentum_buffer": torch.randn(3)}}, "param_groups": [{"lr": 3e-4}]},
        "epoch": 7,
        "loss_results": torch.zeros(3),
    }
    if layout not in ("v1.0", "mlperf"):
        known["bidirectional"] = rnn.bidirectional
    return {**known, **entries}


def save(value: object, path: Path, zip_format: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zip_format)
    return path


def batch(lengths: list[int], n_freq: int = 161) -> tuple[Tensor, Tensor]:
    """Random features, zero beyond each length as the line's data loader pads."""
    features = torch.randn(len(lengths), n_freq, max(lengths))
    return stock.mask_frames(features[:, None], torch.tensor(lengths)), torch.tensor(lengths)


@torch.no_grad()
def assert_same_output(model: torch.nn.Module, expected: torch.nn.Module, lengths: list[int]) -> None:
    features, lengths = batch(lengths)
    y, y_lengths = model(features, lengths)
    z, z_lengths = expected(features, lengths)
    assert y_lengths.tolist() == z_lengths.tolist()
    for row, length in enumerate(y_lengths.tolist()):
        assert length > 0
        torch.testing.assert_close(y[row, :length], z[row, :length], rtol=0, atol=1e-5)
    # The test could not fail if the output were nearly uniform.
    assert z[0, : z_lengths[0]].exp().std() > 1e-3


@pytest.mark.parametrize("bidirectional", [True, False], ids=["bi", "uni"])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
@pytest.mark.parametrize("layout", stock.LAYOUTS)
def test_packages_give_the_original_output(
    tmp_path: Path, layout: str, rnn_type: str, bidirectional: bool
) -> None:
    original = make_model(layout, rnn_type=rnn_type, bidirectional=bidirectional)
    # The formats alternate: what they are is independent of the layout.
    path = save(package(original, layout), tmp_path / "model.pth", bidirectional == (rnn_type == "gru"))
    model = DeepSpeech2.from_checkpoint(path, output=stock.LAYOUTS[layout].output)
    assert not model.training
    assert model.config.rnn_type == rnn_type
    assert model.config.window_periodic is False
    assert_same_output(model, original, [54, 41, 70])
    log_probs = DeepSpeech2.from_checkpoint(path)
    original.output = "log_softmax"
    assert_same_output(log_probs, original, [53])


@pytest.mark.parametrize("layout", ["v1.0", "v1.1", "mlperf"])
def test_one_utterance_of_the_unmasked_versions(tmp_path: Path, layout: str) -> None:
    """These ran through the padding; alone an utterance has none, and asrkern gives that in any batch."""
    original = make_model(layout, packed=False)
    model = DeepSpeech2.from_checkpoint(
        save(package(original, layout), tmp_path / "model.pth"), output=original.output
    )
    assert_same_output(model, original, [87])


@pytest.mark.parametrize(
    ("layout", "bidirectional", "frames"),
    [("v1.0", True, 35), ("v1.1", True, 45), ("2018-03", False, 50), ("v2", True, 50), ("mlperf", False, 35)],
)
def test_bare_state_dicts_with_data_parallel_prefix(
    tmp_path: Path, layout: str, bidirectional: bool, frames: int
) -> None:
    original = make_model(layout, bidirectional=bidirectional)
    state = {f"module.{key}": value for key, value in original.state_dict().items()}
    path = save(state, tmp_path / "model.pth")
    told = layout if layout in ("v1.0", "v1.1") else None
    model = DeepSpeech2.from_checkpoint(path, layout=told, output=original.output)
    assert_same_output(model, original, [100, 79])
    assert model(*batch([100]))[1].tolist() == [frames]


def test_v1_0_and_v1_1_are_told_apart_by_the_container_or_not_at_all(tmp_path: Path) -> None:
    original = make_model("v1.0")
    path = save(original.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match=r'bare\.pth: layout: these keys fit "v1\.0" and "v1\.1"'):
        DeepSpeech2.from_checkpoint(path)
    entries = package(original, "v1.0")
    with_entry = save({**entries, "bidirectional": True}, tmp_path / "b.pth")
    assert DeepSpeech2.from_checkpoint(with_entry).config.conv_padding == ((0, 10), (0, 0))
    without = save(entries, tmp_path / "w.pth")
    assert DeepSpeech2.from_checkpoint(without).config.conv_padding == ((0, 0), (0, 0))
    assert DeepSpeech2.from_checkpoint(without, layout="v1.1").config.conv_padding == ((0, 10), (0, 0))
    lookahead = save(make_model("v1.1", bidirectional=False).state_dict(), tmp_path / "l.pth")
    assert DeepSpeech2.from_checkpoint(lookahead).config.conv_padding == ((0, 10), (0, 0))


def test_mlperf_training_copy_with_batch_norm(tmp_path: Path) -> None:
    """MLPerf's training code has biases and BatchNorm between the layers, without padding."""
    original = make_model("mlperf")
    layer = stock.SequenceWise(torch.nn.BatchNorm1d(11))
    original.rnns[1].batch_norm = original.rnns[2].batch_norm = layer.eval()
    model = DeepSpeech2.from_checkpoint(save(package(original, "mlperf"), tmp_path / "model.pth"))
    assert model.config.batch_norm_between
    assert_same_output(model, original, [90, 66])


def lightning_classes(name: str) -> types.SimpleNamespace:
    """Stand-ins for Lightning's and OmegaConf's classes in a module that is gone when the file is read."""

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.best_model_score = torch.tensor(11.5)

    class DictConfig:
        def __init__(self, content: dict[str, Any]) -> None:
            self._content = content
            self._parent = None
            self._metadata = {"object_type": DictConfig}

    class AnyNode:
        def __init__(self, value: object, parent: object) -> None:
            self._val = value
            self._parent = parent

    class SpectrogramWindow(enum.Enum):
        hamming = "hamming"

    class AttributeDict(dict):
        pass

    module = types.ModuleType(name)
    found = types.SimpleNamespace()
    for cls in (ModelCheckpoint, DictConfig, AnyNode, SpectrogramWindow, AttributeDict):
        cls.__module__, cls.__qualname__ = name, cls.__name__
        setattr(module, cls.__name__, cls)
        setattr(found, cls.__name__, cls)
    sys.modules[name] = module
    return found


def test_lightning_checkpoint_with_unknown_classes(tmp_path: Path) -> None:
    labels = list("_ABCDEF ")
    original = make_model("v2", rnn_type="lstm", bidirectional=False, labels=labels, n_freq=81)
    fake = lightning_classes("vanished_lightning")
    spect = fake.DictConfig({})
    values = {
        "sample_rate": 8000,
        "window_size": 0.02,
        "window_stride": 0.0125,
        "window": fake.SpectrogramWindow.hamming,
    }
    spect._content = {key: fake.AnyNode(value, spect) for key, value in values.items()}
    checkpoint = {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "1.1.0",
        "callbacks": {fake.ModelCheckpoint: {"best_model_path": "x"}, "saver": fake.ModelCheckpoint()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(4)}}, "param_groups": []}],
        "lr_schedulers": [],
        "state_dict": original.state_dict(),
        "hparams_name": "kwargs",
        "hyper_parameters": fake.AttributeDict(labels=labels, spect_cfg=spect, precision=16),
    }
    path = save(checkpoint, tmp_path / "model.ckpt")
    del sys.modules["vanished_lightning"]
    model = DeepSpeech2.from_checkpoint(path, output="softmax")
    assert "vanished_lightning" not in sys.modules
    config = model.config
    assert config.labels == tuple(labels)
    assert (config.sample_rate, config.window_size, config.window_stride) == (8000, 0.02, 0.0125)
    assert (config.window, config.window_periodic) == ("hamming", True)
    assert config.lookahead_context == 4
    features, lengths = batch([91, 70], n_freq=81)
    with torch.no_grad():
        y, z = model(features, lengths)[0], original(features, lengths)[0]
    torch.testing.assert_close(y[0], z[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(y[1, :35], z[1, :35], rtol=0, atol=1e-5)


def test_early_files_lack_counters_and_have_a_stray_batch_norm(tmp_path: Path) -> None:
    original = make_model("v1.1", bidirectional=False)
    state = {key: value for key, value in original.state_dict().items() if "num_batches" not in key}
    stray = {f"rnns.0.batch_norm.module.{key}": torch.full((672,), 9.0) for key in ("weight", "running_mean")}
    path = save(package(original, "v1.1", state_dict={**state, **stray}), tmp_path / "model.pth.tar", False)
    model = DeepSpeech2.from_checkpoint(path, output="softmax")
    assert_same_output(model, original, [95, 80])
    counters = [value for key, value in model.state_dict().items() if "num_batches" in key]
    assert counters
    assert not any(counters)


def test_half_precision_weights_become_float(tmp_path: Path) -> None:
    original = make_model("v2").half().float()
    state = {k: v.half() if v.is_floating_point() else v for k, v in original.state_dict().items()}
    model = DeepSpeech2.from_checkpoint(save(state, tmp_path / "model.pth"), output="softmax")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_same_output(model, original, [77, 64])


def test_asrkern_loads_what_it_saves(tmp_path: Path) -> None:
    model = DeepSpeech2.preset("small", hidden_size=9, bidirectional=False, lookahead_context=3).eval()
    loaded = DeepSpeech2.from_checkpoint(save(model.state_dict(), tmp_path / "model.pt"))
    assert loaded.config.window_periodic
    features, lengths = batch([60, 71])
    with torch.no_grad():
        assert torch.equal(loaded(features, lengths)[0], model(features, lengths)[0])


def refused(tmp_path: Path, value: object, **options: Any) -> str:
    """The message with which a checkpoint is refused."""
    with pytest.raises(ValueError, match=r"model\.pth") as error:
        DeepSpeech2.from_checkpoint(save(value, tmp_path / "model.pth"), **options)
    return str(error.value)


@pytest.mark.parametrize("layout", stock.LAYOUTS)
def test_misfits_are_all_listed(tmp_path: Path, layout: str) -> None:
    state = make_model(layout).state_dict()
    del state["fc.0.module.0.running_var"], state["rnns.1.rnn.weight_ih_l0"]
    state["decoder.weight"] = torch.ones(2)
    message = refused(tmp_path, {"state_dict": state})
    assert "keys that do not fit: decoder.weight" in message
    del state["decoder.weight"]
    state["rnns.2.rnn.weight_hh_l0"] = torch.ones(33, 12)
    state["fc.0.module.0.weight"] = torch.ones(1)
    state["rnns.7.rnn.weight_hh_l0"] = torch.ones(33, 11)
    message = refused(tmp_path, {"state_dict": state})
    for part in (
        "fc.0.module.0.running_var",
        "rnns.1.rnn.weight_ih_l0",
        "rnns.7.rnn.weight_hh_l0",
        "rnns.2.rnn.weight_hh_l0: expected [33, 11], received [33, 12]",
        "fc.0.module.0.weight: expected [11], received [1]",
    ):
        assert part in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["rnns.1.rnn.weight_hh_l0", "fc.0.module.0.running_mean", "conv.0.bias"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, key: str, bad: float) -> None:
    state = make_model("mlperf").state_dict()
    state[key].view(-1)[-1] = bad
    message = refused(tmp_path, state)
    assert "NaN or infinite" in message
    assert f" {key}" in message


def test_other_models_are_refused_with_their_keys(tmp_path: Path) -> None:
    kospeech = {
        "conv.conv.0.weight": torch.ones(32, 1, 41, 11),
        "rnn_layers.0.batch_norm.weight": torch.ones(4),
        "fc.0.weight": torch.ones(4),
    }
    message = refused(tmp_path, kospeech)
    assert "keys that do not fit: " + ", ".join(kospeech) in message
    assert "missing keys: conv.0.weight, rnns.0.rnn.weight_ih_l0" in message
    assert "missing keys" in refused(tmp_path, {})
    assert "missing keys" in refused(tmp_path, {"state_dict": {}})
    assert "state_dict: expected a dictionary, received list" in refused(tmp_path, {"state_dict": [1]})
    assert "keys that do not fit: 3" in refused(tmp_path, {"state_dict": {3: torch.ones(1)}})


def test_keys_of_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    state = make_model("v2", bidirectional=False).state_dict()
    message = refused(tmp_path, {**state, "conv.0.weight": torch.ones(32, 1, 41, 11)})
    assert "keys that do not fit: conv.0.weight" in message
    message = refused(tmp_path, {**state, "lookahead.0.weight": torch.ones(11, 4)})
    assert "keys that do not fit: lookahead.0.conv.weight" in message


@pytest.mark.parametrize("key", ["fc.0.module.1.weight", "lookahead.0.weight", "rnns.0.rnn.weight_ih_l0"])
def test_scalars_in_place_of_weights_are_refused(tmp_path: Path, key: str) -> None:
    state = make_model("2018-03", bidirectional=False).state_dict()
    message = refused(tmp_path, {**state, key: torch.tensor(1.0)})
    assert f"{key}: expected a weight, received torch.float32 of shape []" in message


def test_plain_recurrent_layers_are_refused(tmp_path: Path) -> None:
    state = make_model("v2").state_dict()
    state["rnns.0.rnn.weight_hh_l0"] = torch.ones(11, 11)
    assert "expected [3·H, H] (GRU) or [4·H, H] (LSTM), received [11, 11]" in refused(tmp_path, state)
    state["rnns.0.rnn.weight_hh_l0"] = torch.ones(11)
    assert "(LSTM), received [11]" in refused(tmp_path, state)


def test_values_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    state = make_model("v2").state_dict()
    state["conv.seq_module.0.weight"] = torch.ones(32, 1, 41, 11, dtype=torch.int64)
    state["fc.0.module.1.weight"] = "weights"
    state["fc.0.module.0.num_batches_tracked"] = None
    message = refused(tmp_path, state)
    assert (
        "conv.seq_module.0.weight: expected a weight, received torch.int64 of shape [32, 1, 41, 11]"
        in message
    )
    assert "fc.0.module.1.weight: expected a weight, received str" in message
    assert "fc.0.module.0.num_batches_tracked: expected a weight, received NoneType" in message


def test_metadata_that_contradict_the_weights_are_refused(tmp_path: Path) -> None:
    original = make_model("v2")
    message = refused(tmp_path, package(original, "v2", labels="_ABC"))
    assert "labels: expected 29" in message
    message = refused(tmp_path, package(original, "v2", bidirectional=False))
    assert "bidirectional: the file says False, its weights say True" in message
    message = refused(tmp_path, package(original, "v2", audio_conf={**AUDIO_CONF, "window_size": 0.025}))
    assert "rnns.0.rnn.weight_ih_l0: expected [33, 1632], received [33, 1312]" in message
    other = make_model("v2", labels="_ABC")
    assert "labels: the file has none for its 4 classes" in refused(tmp_path, other.state_dict())
    path = save(other.state_dict(), tmp_path / "model.pth")
    assert DeepSpeech2.from_checkpoint(path, labels="_XYZ").config.labels == ("_", "X", "Y", "Z")


def test_arguments_are_checked(tmp_path: Path) -> None:
    state = make_model("v2").state_dict()
    assert "layout: expected one of ('v1.0', 'v1.1'" in refused(tmp_path, state, layout="v9")
    assert "output: expected one of" in refused(tmp_path, state, output="logits")
    with pytest.raises(FileNotFoundError):
        DeepSpeech2.from_checkpoint(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"text\.pth is not a readable torch checkpoint"):
        DeepSpeech2.from_checkpoint(tmp_path / "text.pth")
