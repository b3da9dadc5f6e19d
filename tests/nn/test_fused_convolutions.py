"""Convolutions in a torch.nn.Sequential that asrkern runs with what comes after them, once it is converted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import asrkern.nn
from asrkern import ops
from asrkern.nn import convert

# Winograd's transforms and Fourier space round otherwise than sums do.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

STACKS = {
    "vgg": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 33, (2, 3), padding=(0, 1), bias=False),
            nn.Hardtanh(0, 20),
            nn.BatchNorm2d(33),
            nn.MaxPool2d((2, 3)),
            nn.Flatten(),
        ),
        (3, 14, 23),
        2,
    ),
    "pooled": (
        lambda: nn.Sequential(nn.Conv2d(1, 40, 3), nn.BatchNorm2d(40), nn.ReLU6(), nn.MaxPool2d(3)),
        (1, 12, 25),
        1,
    ),
    "1-d": (
        lambda: nn.Sequential(
            nn.Conv1d(7, 48, 3, padding=1, bias=False),
            nn.BatchNorm1d(48),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(48, 32, 3),
            nn.BatchNorm1d(32, affine=False),
            nn.GELU(),
        ),
        (7, 41),
        2,
    ),
    "deepspeech": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, (41, 11), (2, 2), (20, 5)), nn.BatchNorm2d(8), nn.Hardtanh(0, 20)
        ),
        (1, 61, 33),
        1,
    ),
    "alone": (lambda: nn.Sequential(nn.Conv1d(5, 32, 3), nn.Tanh()), (5, 9), 1),
    # Those that torch computes faster, or asrkern not at all.
    "left": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 32, 3, stride=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, groups=32),
            nn.Conv2d(32, 16, 3),
            nn.Conv2d(16, 64, 1),
            nn.Conv2d(64, 64, 3, padding="same"),
        ),
        (4, 21, 22),
        0,
    ),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The pool of each call of the operation."""
    seen: list[tuple[int, ...]] = []
    kernel = ops.masked_conv2d

    def counted(*arguments, **options):
        seen.append(options["pool"])
        return kernel(*arguments, **options)

    monkeypatch.setattr(ops, "masked_conv2d", counted)
    return seen


def settled(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A stack whose batch norms have seen something, in eval mode, and an input."""
    build, shape, _ = STACKS[name]
    model = build()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(4, *shape) + 0.3)
    return model.eval(), torch.randn(5, *shape)


@pytest.mark.parametrize("name", STACKS)
def test_the_model_computes_what_it_did(name: str, calls: list) -> None:
    model, x = settled(name)
    twin = copy.deepcopy(model)
    keys = list(model.state_dict())
    report = convert(model)
    assert report.model is model and type(model) is asrkern.nn.FusedSequential
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        expected = twin(x)
        torch.testing.assert_close(model(x), expected, **CLOSE)
        assert len(calls) == STACKS[name][2]
        # A row is computed as if it were alone.
        if calls:
            x[1:] = torch.rand_like(x[1:])
            torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=0, atol=0)
            assert not torch.equal(x[1], x[0])


def test_a_pool_is_part_of_the_call_where_it_fits(calls: list) -> None:
    model, x = settled("pooled")
    convert(model)
    with torch.no_grad():
        model(x)
        assert calls == [(3, 3)]
        # Ten bins of which the convolution leaves two: torch says that the pool is too large.
        with pytest.raises(RuntimeError, match="Output size is too small"):
            model(x[:, :, :4])
    assert calls == [(3, 3), (1, 1)]


def test_training_gradients_and_other_dtypes_are_torchs(calls: list) -> None:
    model, x = settled("vgg")
    twin = copy.deepcopy(model)
    convert(model)
    # Out of inference only the batch norm and its clamp are one: same values up to rounding.
    for training in (True, False):
        model.train(training), twin.train(training)
        torch.testing.assert_close(model(x), twin(x), **CLOSE)
    model.zero_grad(), twin.zero_grad()
    model(x).square().sum().backward(), twin(x).square().sum().backward()
    torch.testing.assert_close(model[0].weight.grad, twin[0].weight.grad, rtol=1e-4, atol=1e-2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x), twin(x), rtol=0.02, atol=0.1)
    # Training moved the running statistics, each by its own rounding.
    model.load_state_dict(twin.state_dict())
    model.double(), twin.double()
    with torch.no_grad():
        torch.testing.assert_close(model(x.double()), twin(x.double()), rtol=1e-9, atol=1e-9)
    assert calls == []


def test_inputs_that_do_not_fit_get_torchs_words(calls: list) -> None:
    model, x = settled("1-d")
    convert(model)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="to conv1d, but got input of size"):
            model(x[0, 0])
        with pytest.raises(RuntimeError, match="to have 7 channels, but got 6 channels"):
            model(x[:, :6])
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            model[4](torch.randn(1, 48, 2))
    assert calls == []


def test_hooks_added_later_run(calls: list) -> None:
    model, x = settled("1-d")
    convert(model)
    with torch.no_grad():
        expected = model(x)
        seen: list[int] = []
        model[1].register_forward_hook(lambda *_: seen.append(1))
        model[4].register_forward_hook(lambda *_: seen.append(4))
        calls.clear()
        torch.testing.assert_close(model(x), expected, **CLOSE)
    assert seen == [1, 4] and calls == [(1, 1)]


def test_a_compiled_model_has_the_operation() -> None:
    model, x = settled("pooled")
    expected = copy.deepcopy(model)(x)
    convert(model)
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        torch.testing.assert_close(exported.module()(x), expected, **CLOSE)
    assert "asrkern.masked_conv2d" in str(exported.graph)
