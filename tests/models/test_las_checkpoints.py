"""LAS.from_checkpoint: files of both lineages give what an independent plain-torch model gives, utterance by utterance."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asrkern.models import LAS
from tests.models import las_twins
from tests.models.las_twins import HW4Model, ListenAttendSpell, randomise


def save(value: object, path: Path, zip_format: bool = True, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zip_format, pickle_protocol=protocol)
    return path


def hw4_container(model: nn.Module) -> dict[str, Any]:
    return {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.randn(4)}}, "param_groups": [{"lr": 1e-4}]},
        "scheduler_state_dict": {"best": 15.505, "patience": 5},
        "valid_dist": 15.505,
        "epoch": 99,
    }


def batch(lengths: list[int], features: int) -> tuple[Tensor, Tensor]:
    """[N, F, T], NaN beyond each length."""
    x = torch.full((len(lengths), features, max(lengths) + 3), float("nan"))
    for row, length in zip(x, lengths):
        row[:, :length] = torch.randn(features, length)
    return x, torch.tensor(lengths)


def targets(low: int, high: int) -> tuple[Tensor, Tensor]:
    return torch.randint(low, high, (3, 9)), torch.tensor([9, 4, 1])


@torch.no_grad()
def assert_same_as_hw4(model: LAS, twin: HW4Model, lengths: list[int]) -> None:
    x, frames = batch(lengths, model.config.n_features)
    y, counts = targets(3, model.config.num_tokens)
    output = model(x, frames, y, counts)
    spread = 0.0
    for row, (length, count) in enumerate(zip(lengths, counts.tolist())):
        spelled = torch.tensor([[las_twins.SOS, *y[row, :count], las_twins.EOS]])
        expected = twin(x[row : row + 1, :, :length].transpose(1, 2), frames[row : row + 1], spelled)[0]
        assert output.lengths[row] == count + 2 == len(expected)
        torch.testing.assert_close(output.logits[row, : count + 2], expected, rtol=0, atol=1e-5)
        spread = max(spread, float(expected.std(0).max()))
    # The test could not fail if the logits hardly depended on anything.
    assert spread > 1e-2


@torch.no_grad()
def assert_same_as_kospeech(model: LAS, twin: ListenAttendSpell, lengths: list[int]) -> None:
    x, frames = batch(lengths, model.config.n_features)
    y, counts = targets(0, model.config.num_tokens - 3)
    output = model(x, frames, y, counts)
    spread = 0.0
    for row, (length, count) in enumerate(zip(lengths, counts.tolist())):
        spelled = torch.tensor([[*y[row, :count], model.config.eos_token]])
        expected = twin(x[row : row + 1, :, :length].transpose(1, 2), spelled)[0]
        assert output.lengths[row] == count + 1 == len(expected)
        torch.testing.assert_close(output.logits[row, : count + 1], expected, rtol=0, atol=1e-5)
        spread = max(spread, float(expected.std(0).max()))
    assert spread > 1e-2


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": (1, 2), "blocks": 1, "speller_layers": 1},
        {"channels": (6,), "layers": (1,), "features": 13, "tokens": 12, "embedding": 7, "attention": 5},
        {"channels": (6, 6, 6, 6), "layers": (1, 1, 1, 1), "blocks": 3, "speller_layers": 4},
    ],
    ids=["three of each", "two levels", "one of each", "four of each"],
)
def test_hw4_gives_the_original_output(tmp_path: Path, options: dict, zip_format: bool) -> None:
    twin = randomise(HW4Model(**options))
    model = LAS.from_checkpoint(save(hw4_container(twin), tmp_path / "model.pth", zip_format))
    assert not model.training
    assert model.config.tied_output
    assert model.speller.char_prob.weight is model.speller.embedding.weight
    assert model.speller.attend is model.attend
    assert_same_as_hw4(model, twin, [53, 40, 16 * 3 + 15])
    assert_same_as_hw4(model, twin, [16, 33, 47])


def test_hw4_bare_and_from_data_parallel(tmp_path: Path) -> None:
    twin = randomise(HW4Model(heads=4))
    state = {f"module.{key}": value for key, value in twin.state_dict().items()}
    model = LAS.from_checkpoint(save(state, tmp_path / "model.pth"), encoder_heads=4)
    assert_same_as_hw4(model, twin, [41, 57, 24])


def test_hw4_untied_output(tmp_path: Path) -> None:
    twin = HW4Model()
    twin.speller.char_prob.weight = nn.Parameter(torch.randn(31, 10))
    randomise(twin)
    model = LAS.from_checkpoint(save(twin.state_dict(), tmp_path / "model.pth"))
    assert not model.config.tied_output
    assert_same_as_hw4(model, twin, [41, 57, 24])


KOSPEECH = {
    "dot": {},
    "additive": {"attention": "additive"},
    "location": {"attention": "location", "inner": 40},
    "without pyramid": {"layers": (3,)},
    "one direction": {"bidirectional": False},
    "80 bands": {"mels": 80},
    "128 bands": {"mels": 128, "channels": (2, 3, 4, 5, 6)},
}


@pytest.mark.parametrize("name", KOSPEECH)
def test_kospeech_gives_the_original_output(tmp_path: Path, name: str) -> None:
    twin = randomise(ListenAttendSpell(**KOSPEECH[name]))
    model = LAS.from_checkpoint(save(twin.state_dict(), tmp_path / "model.pt"))
    config = model.config
    assert (config.num_tokens, config.sos_token, config.eos_token, config.pad_token) == (40, 37, 38, 39)
    assert config.attention == KOSPEECH[name].get("attention", "dot")
    assert config.n_features == KOSPEECH[name].get("mels", 20)
    assert_same_as_kospeech(model, twin, [50, 4, 47])
    assert_same_as_kospeech(model, twin, [33, 64, 29])


def test_kospeech_without_attention_loads(tmp_path: Path) -> None:
    """Its output cannot agree: the original's speller heard nothing. The weights are the file's all the same."""
    twin = randomise(ListenAttendSpell(attention=None))
    model = LAS.from_checkpoint(save(twin.state_dict(), tmp_path / "model.pt"))
    assert not model.config.use_attention
    assert model.state_dict().keys() == twin.state_dict().keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in twin.state_dict().items())


@pytest.fixture
def vanishing() -> Any:
    """The twins as a module of another name, which is gone once :func:`vanish` was called."""
    spec = importlib.util.spec_from_file_location("vanished_las", las_twins.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules["vanished_las"] = module
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("vanished_las", None)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["dot", "location"])
def test_whole_modules_are_read_without_their_classes(
    tmp_path: Path, vanishing: ModuleType, name: str, zip_format: bool, protocol: int
) -> None:
    twin = randomise(vanishing.ListenAttendSpell(**KOSPEECH[name]))
    path = save(twin, tmp_path / "model.pt", zip_format, protocol)
    parallel = save(nn.DataParallel(twin), tmp_path / "parallel.pt", zip_format, protocol)
    del sys.modules["vanished_las"]
    for file in (path, parallel):
        assert_same_as_kospeech(LAS.from_checkpoint(file), twin, [50, 4, 47])
    assert "vanished_las" not in sys.modules


def test_a_whole_hw4_module(tmp_path: Path, vanishing: ModuleType) -> None:
    twin = randomise(vanishing.HW4Model())
    path = save(twin, tmp_path / "model.pt")
    del sys.modules["vanished_las"]
    assert_same_as_hw4(LAS.from_checkpoint(path), twin, [41, 57, 24])


class Touches:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_nothing_in_a_whole_module_is_executed(tmp_path: Path, zip_format: bool) -> None:
    marker = tmp_path / "executed"
    twin = randomise(ListenAttendSpell())
    twin.listener.device = Touches(marker)
    twin._forward_hooks[0] = Touches(marker)
    path = save(twin, tmp_path / "model.pt", zip_format)
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload works on a reader that executes it"
    marker.unlink()
    twin._forward_hooks.clear()
    assert_same_as_kospeech(LAS.from_checkpoint(path), twin, [50, 4, 47])
    assert not marker.exists()


def small(preset: str, **options: Any) -> LAS:
    sizes = {
        "hw4": {"conv_channels": (6, 8), "rnn_layers": (1, 2), "speller_size": 12, "embedding_size": 8},
        "hw4_mobile": {"conv_channels": (4, 6, 8), "speller_size": 12, "embedding_size": 8},
        "kospeech": {
            "conv_channels": (3, 3, 4, 4, 4),
            "num_tokens": 30,
            "n_features": 16,
            "speller_layers": 2,
        },
    }[preset]
    tokens = (
        {"sos_token": 27, "eos_token": 28, "pad_token": 29} if preset == "kospeech" else {"attention_size": 8}
    )
    return randomise(LAS.preset(preset, hidden_size=8, **{**sizes, **tokens, **options}))


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("hw4", {}),
        ("hw4", {"use_pyramidal": False}),
        ("hw4", {"use_bidirectional": False, "encoder_heads": 2}),
        ("hw4", {"attention": "location"}),
        ("hw4", {"attention": "dot", "speller_size": 16, "attention_size": 256}),
        ("hw4", {"rnn_type": "gru", "tied_output": False}),
        ("hw4_mobile", {}),
        ("kospeech", {}),
        ("kospeech", {"rnn_layers": (1, 1, 1, 2, 1)}),
        ("kospeech", {"attention": "multi_head", "attention_size": 8, "tied_output": True}),
        ("kospeech", {"use_attention": False, "rnn_type": "lstm"}),
    ],
)
def test_asrkern_loads_what_it_saves(tmp_path: Path, preset: str, options: dict) -> None:
    model = small(preset, **options)
    untold = {"attention_heads": 4} if preset == "hw4_mobile" else {}
    loaded = LAS.from_checkpoint(save(model.state_dict(), tmp_path / "model.pt"), **untold)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    x, lengths = batch([60, 47], model.config.n_features)
    y, counts = torch.randint(3, 20, (2, 5)), torch.tensor([5, 3])
    with torch.no_grad():
        assert torch.equal(loaded(x, lengths, y, counts).logits, model(x, lengths, y, counts).logits)
    count = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in loaded.parameters()) == count, "tied weights are one again"


def refused(tmp_path: Path, value: object, **options: Any) -> str:
    """The message with which a checkpoint is refused."""
    with pytest.raises(ValueError, match=r"model\.pth") as error:
        LAS.from_checkpoint(save(value, tmp_path / "model.pth"), **options)
    return str(error.value)


def test_two_copies_of_the_attention_must_agree(tmp_path: Path) -> None:
    state = HW4Model().state_dict()
    state["speller.attend.KW.bias"] = state["speller.attend.KW.bias"].clone()
    state["speller.attend.KW.bias"][3] += 1e-3
    message = refused(tmp_path, {"model_state_dict": state})
    assert "speller.attend.KW.bias: expected the values of attend.KW.bias" in message
    assert "KW.weight" not in message
    del state["speller.attend.KW.bias"]
    assert "missing keys: speller.attend.KW.bias" in refused(tmp_path, state)


@pytest.mark.parametrize("make", [HW4Model, ListenAttendSpell])
def test_misfits_are_all_listed(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    state = make().state_dict()
    hw4 = make is HW4Model
    layer = "listener.pblstm.1.blstm" if hw4 else "listener.middle_rnn.rnn"
    norm = "listener.embedding.4" if hw4 else "listener.conv.6"
    del state[f"{layer}.weight_ih_l0"]
    state[f"{norm}.running_var"] = torch.ones(3)
    state["ctc.weight"] = torch.ones(2)
    message = refused(tmp_path, {"state_dict": state})
    width = 20 if hw4 else 4
    for part in (
        f"missing keys: {layer}.weight_ih_l0",
        "keys that do not fit: ctc.weight",
        f"wrong values: {norm}.running_var: expected [{width}], received [3]",
    ):
        assert part in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("make", "key"),
    [
        (HW4Model, "listener.transformer_encoder.1.bn2.running_mean"),
        (HW4Model, "attend.VW.weight"),
        (HW4Model, "speller.embedding.weight"),
        (ListenAttendSpell, "speller.out.bias"),
        (ListenAttendSpell, "listener.top_rnn.rnn.weight_hh_l0_reverse"),
    ],
)
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, make: Callable[[], nn.Module], key: str, bad: float
) -> None:
    state = make().state_dict()
    state[key].view(-1)[-1] = bad
    message = refused(tmp_path, state)
    assert "NaN or infinite" in message
    assert key in message


def test_other_models_are_refused_with_their_keys(tmp_path: Path) -> None:
    message = refused(tmp_path, {"rnns.0.rnn.weight_hh_l0": torch.ones(3, 1), "fc.weight": torch.ones(2)})
    assert "missing keys: speller.lstm_cells.0.weight_hh or speller.rnn.weight_hh_l0" in message
    assert "keys that do not fit: rnns.0.rnn.weight_hh_l0, fc.weight" in message
    assert "missing keys" in refused(tmp_path, {})
    assert "missing keys" in refused(tmp_path, nn.Linear(2, 2))
    assert "model_state_dict: expected a dictionary, received list" in refused(
        tmp_path, {"model_state_dict": []}
    )
    assert "holds an object of list" in refused(tmp_path, [1])


def test_values_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    state = ListenAttendSpell().state_dict()
    message = refused(
        tmp_path, {**state, "speller.rnn.weight_hh_l0": "text", "listener.conv.0.bias": torch.ones(4).int()}
    )
    assert "speller.rnn.weight_hh_l0: expected a weight, received str" in message
    assert "listener.conv.0.bias: expected a weight, received torch.int32 of shape [4]" in message
    message = refused(tmp_path, {**state, "speller.embedding.weight": torch.ones(3)})
    assert "speller.embedding.weight: expected more axes or values, received shape [3]" in message
    message = refused(tmp_path, {**state, "listener.bottom_rnn.weight_hh_l0": torch.ones(9, 9)})
    assert "expected [3·H, H] (GRU) or [4·H, H] (LSTM), received [9, 9]" in message


def test_options_stand_in_for_what_no_weight_tells(tmp_path: Path) -> None:
    path = save(ListenAttendSpell().state_dict(), tmp_path / "model.pth")
    model = LAS.from_checkpoint(
        path, sos_token=1, eos_token=2, pad_token=0, n_features=23, reverse_input=True
    )
    config = model.config
    assert (config.sos_token, config.eos_token, config.n_features, config.reverse_input) == (1, 2, 23, True)
    assert config.label_smoothing == 0.1
    with pytest.raises(TypeError, match="width"):
        LAS.from_checkpoint(path, width=3)
    with pytest.raises(
        ValueError, match=r"speller\.embedding\.weight: expected \[50, 18\], received \[40, 18\]"
    ):
        LAS.from_checkpoint(path, num_tokens=50)
    with pytest.raises(FileNotFoundError):
        LAS.from_checkpoint(tmp_path / "missing.pth")
