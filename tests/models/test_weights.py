"""Weights by a model's own keys, whatever wrapped it; models outlined without being made."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from asrkern.models import LAS, DeepSpeech2, build
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.conv_transformer import ConvRNNClassifier
from asrkern.models.registry import list_models
from asrkern.models.weights import find_state_dict, fit_weights, outline, with_weights
from asrkern.training.memory import peak_memory_mib, reset_peak_memory
from tests.models.las_twins import HW4Model
from tests.models.test_conv_transformer import N_FREQ, plain_rnn
from tests.models.test_deepspeech2_checkpoints import make_model, package

WRAPPERS = ("module.", "model.", "_orig_mod.")


@pytest.mark.parametrize(
    "prefix", ["".join(parts) for n in range(4) for parts in itertools.product(WRAPPERS, repeat=n)]
)
def test_wrappers_in_any_order(prefix: str) -> None:
    """The keys have a ``module`` of their own inside, as DeepSpeech2's."""
    state = {"rnns.1.batch_norm.module.weight": torch.ones(1), "fc.0.module.1.weight": torch.zeros(2)}
    found = find_state_dict({"state_dict": {prefix + key: value for key, value in state.items()}}, "kind")
    assert found.keys() == state.keys()
    assert all(found[key] is value for key, value in state.items())


def test_wrapped_parts() -> None:
    """torch.compile of layers, FSDP's and activation checkpointing's wrappers, and an average of weights."""
    state = {
        "n_averaged": torch.tensor(7),
        "module._orig_mod.rnns.0._orig_mod.rnn.weight_ih_l0": torch.ones(1),
        "module._orig_mod.rnns.1.batch_norm._orig_mod.module.weight": torch.ones(2),
        "module._orig_mod.fc._fsdp_wrapped_module.0.module._checkpoint_wrapped_module.1.weight": torch.ones(
            3
        ),
    }
    found = find_state_dict(state, "kind")
    assert list(found) == [
        "rnns.0.rnn.weight_ih_l0",
        "rnns.1.batch_norm.module.weight",
        "fc.0.module.1.weight",
    ]
    assert [len(value) for value in found.values()] == [1, 2, 3]


def test_wrappers_many_times_over() -> None:
    began = time.process_time()
    for wrapper in WRAPPERS:
        assert list(find_state_dict({wrapper * 200_000 + "a": torch.ones(1)}, "kind")) == ["a"]
    assert time.process_time() - began < 1


def test_names_that_only_look_like_wrappers_stay() -> None:
    for state in (
        {"model.a": torch.ones(1), "b": torch.ones(1)},
        {"model.a": torch.ones(1), "module.b": torch.ones(1), "modulo.c": torch.ones(1)},
        {"remodel.a": torch.ones(1)},
        {"my_orig_mod.a": torch.ones(1)},
        {"modules.a": torch.ones(1)},
    ):
        assert find_state_dict(state, "kind") == state
    assert find_state_dict({}, "kind") == {}


def test_keys_that_are_one_without_wrappers_are_refused() -> None:
    state = {"a._orig_mod.b": torch.ones(1), "a.b": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"wrong values: a\.b: expected once, received a\._orig_mod\.b too"):
        find_state_dict(state, "kind")


@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "model._orig_mod.", "module.model._orig_mod."])
def test_models_of_all_lineages_are_unwrapped(tmp_path: Path, prefix: str) -> None:
    def wrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {prefix + key: value for key, value in state.items()}

    deepspeech2 = make_model("v2")
    rnn = plain_rnn("only_hidden", "gru", True)
    twin = HW4Model(layers=(1,))
    for value, read, expected in (
        (
            package(deepspeech2, "v2", state_dict=wrapped(deepspeech2.state_dict())),
            DeepSpeech2.from_checkpoint,
            deepspeech2,
        ),
        (
            {"state_dict": wrapped(rnn.state_dict())},
            partial(ConvRNNClassifier.from_checkpoint, n_freq=N_FREQ),
            rnn,
        ),
        ({"model_state_dict": wrapped(twin.state_dict())}, LAS.from_checkpoint, twin),
    ):
        torch.save(value, tmp_path / "x.pth")
        state = read(tmp_path / "x.pth").state_dict()
        given = expected.state_dict()
        assert state.keys() & given.keys()
        assert all(torch.equal(state[key], given[key]) for key in state.keys() & given.keys())


def test_a_whole_compiled_module(tmp_path: Path) -> None:
    """Saved as it is, inside of what wraps it: the keys have the wrappers' names."""

    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = nn.Module()
            self.module._orig_mod = inner

    twin = HW4Model(layers=(1,))
    Wrapper.__module__, Wrapper.__qualname__ = "tests.models.test_weights", "Wrapper"
    globals()["Wrapper"] = Wrapper
    torch.save(Wrapper(twin), tmp_path / "x.pth")
    state = LAS.from_checkpoint(tmp_path / "x.pth").state_dict()
    assert torch.equal(state["speller.embedding.weight"], twin.state_dict()["speller.embedding.weight"])


def test_long_lists_of_misfits_are_cut(tmp_path: Path) -> None:
    state = {f"other.{i}": torch.ones(1) for i in range(3000)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"other\.49 and 2950 more") as raised:
        LAS.from_checkpoint(tmp_path / "x.pth")
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("name", list_models())
def test_outlines_have_the_shapes_of_models(name: str) -> None:
    make = partial(build, name)
    sketch = outline(make, 40)
    with torch.device("meta"):
        expected = make().state_dict()
    state = sketch.state_dict()
    assert {key: (value.shape, value.dtype) for key, value in state.items()} == {
        key: (value.shape, value.dtype) for key, value in expected.items()
    }
    assert all(value.is_meta for value in state.values())


def test_outlines_import_no_compiler() -> None:
    """Which torch does where weights are drawn on the meta device, for two seconds."""
    code = (
        "import sys; from functools import partial; from asrkern.models import build\n"
        "from asrkern.models.weights import outline; outline(partial(build, 'las_hw4'), 40)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deepspeech2_small", {"num_layers": 1_000_000}),
        ("vgg_gru_ctc", {"num_layers": 2**62}),
        ("deepspeech2_algoperf", {"num_layers": 10**9}),
        ("las_hw4", {"rnn_layers": (10**9,)}),
        ("las_hw4", {"speller_layers": 10**9}),
        ("las_hw4", {"encoder_blocks": 10**9}),
        ("conv_transformer", {"num_layers": 10**9}),
        ("conv_rnn", {"num_layers": 10**9}),
        ("deepspeech2_small", {"hidden_size": 2**40}),
        ("vgg_gru_ctc", {"dnn_size": 2**62}),
    ],
)
def test_models_larger_than_their_file_are_given_up(name: str, options: dict[str, object]) -> None:
    began = time.process_time()
    with pytest.raises(
        ValueError, match=r"expected (sizes of a model|a model whose weights are in the file)"
    ):
        outline(partial(build, name, **options), 40)
    assert time.process_time() - began < 2
    # A model that is given up leaves no_grad() on its way out.
    assert torch.is_grad_enabled()


def test_sizes_that_torch_cannot_have_are_named() -> None:
    with pytest.raises(
        ValueError, match="classes: expected a positive integer, received 1180591620717411303424"
    ):
        outline(partial(build, "conv_rnn", classes=2**70), 40)


def test_what_is_infinite_in_float32_is_refused() -> None:
    model = nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 2, dtype=torch.float64), "bias": torch.zeros(3)}
    fit_weights(state, model, "small")
    state["weight"][1, 1] = 1e300
    with pytest.raises(ValueError, match="weights with NaN or infinite values: weight"):
        fit_weights(state, model, "small")


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)


def test_weights_stay_in_the_memory_that_they_were_read_into() -> None:
    with torch.device("meta"):
        model = _Small()
    shared, half = torch.randn(24), torch.randn(4).half()
    given = {
        "first.weight": torch.randn(4, 3),
        "first.bias": half,
        # Two weights of one storage, one of them turned: each has to become one of its own.
        "second.weight": shared[:12].view(4, 3).t(),
        "second.bias": shared[12:15],
        "norm.weight": torch.randn(5)[:3],
    }
    expected = {key: value.float().clone() for key, value in given.items()}
    places = {key: value.data_ptr() for key, value in given.items()}
    model = with_weights(model, given)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert [key for key in given if state[key].data_ptr() == places[key]] == ["first.weight"]
    assert {p.untyped_storage().nbytes() - p.nbytes for p in model.parameters()} == {0}
    assert all(p.is_leaf and p.requires_grad and p.is_contiguous() for p in model.parameters())
    assert model.norm.num_batches_tracked == 0 and state["norm.weight"].dtype == torch.float32


def test_a_checkpoint_is_in_memory_once(tmp_path: Path) -> None:
    twin = HW4Model(layers=(1,))
    torch.save({"model_state_dict": {"weight": torch.randn(2**22), **twin.state_dict()}}, tmp_path / "x.pt")
    reset_peak_memory()
    before = peak_memory_mib()
    state = read_checkpoint(tmp_path / "x.pt")["model_state_dict"]
    assert peak_memory_mib() - before < 1.5 * (tmp_path / "x.pt").stat().st_size / 2**20
    assert state["weight"].untyped_storage().nbytes() == 2**24
