"""Packed weights that layers keep between calls: they follow every change of the weights."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch

from asrkern.nn import GRU, LSTM, quantize
from tests.compare import assert_same_bits

kinds = pytest.mark.parametrize("kind", [GRU, LSTM])


def infer(layer, x):
    with torch.inference_mode():
        return layer(x)[0]


def fresh(layer, x):
    """The output without any kept copy of a weight."""
    with torch.enable_grad():
        return layer(x)[0].detach()


CHANGES = {
    "in place": lambda layer: layer.weight_hh_l0.mul_(2),
    "through data": lambda layer: layer.weight_hh_l0.data.copy_(torch.randn_like(layer.weight_hh_l0)),
    "another tensor": lambda layer: setattr(layer.weight_hh_l0, "data", torch.randn_like(layer.weight_hh_l0)),
    "load_state_dict": lambda layer: layer.load_state_dict(type(layer)(5, 9).state_dict()),
    "another parameter": lambda layer: setattr(
        layer, "weight_hh_l0", torch.nn.Parameter(torch.randn_like(layer.weight_hh_l0))
    ),
    "a column through data": lambda layer: layer.weight_hh_l0.data[:, 3].zero_(),
    "through numpy": lambda layer: layer.weight_hh_l0.detach().numpy().__setitem__((7, 2), 4.0),
    "through a view of its storage": lambda layer: (
        torch.empty(0).set_(layer.weight_hh_l0.untyped_storage())[-1:].fill_(3.0)
    ),
    "two values exchanged": lambda layer: layer.weight_hh_l0.data[0, :2].copy_(
        layer.weight_hh_l0[0, :2].flip(0)
    ),
}


@kinds
@pytest.mark.parametrize("change", CHANGES)
def test_packed_weights_follow_changes(kind, change):
    layer, x = kind(5, 9).eval(), torch.randn(6, 2, 5)
    before = infer(layer, x)
    assert_same_bits(infer(layer, x), before)
    with torch.no_grad():
        CHANGES[change](layer)
    after = infer(layer, x)
    assert not torch.equal(after, before)
    assert_same_bits(after, fresh(layer, x))


@kinds
def test_packed_weights_follow_an_optimiser(kind):
    layer, x = kind(5, 9), torch.randn(6, 2, 5)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        infer(layer.eval(), x)
        layer.train()(x)[0].sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        assert_same_bits(infer(layer.eval(), x), fresh(layer, x))


@kinds
def test_copies_and_pickles_pack_for_themselves(kind):
    layer, x = kind(5, 9, bidirectional=True).eval(), torch.randn(6, 2, 5)
    expected = infer(layer, x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(infer(twin, x), expected)
        with torch.no_grad():
            twin.weight_hh_l0.zero_()
        assert not torch.equal(infer(twin, x), expected)
    assert_same_bits(infer(layer, x), expected)


@kinds
def test_inference_from_several_threads(kind):
    layer, x = kind(5, 150, bidirectional=True).eval(), torch.randn(20, 3, 5)
    expected, results = fresh(layer, x), []
    workers = [
        threading.Thread(target=lambda: results.extend(infer(layer, x) for _ in range(20))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 80
    for result in results:
        assert_same_bits(result, expected)


@kinds
@pytest.mark.parametrize("hidden_size", [64, 512])
def test_every_column_counts(kind, hidden_size):
    layer, x = kind(3, hidden_size).eval(), torch.randn(2, 1, 3)
    weight = layer.weight_hh_l0.detach().numpy()
    before = infer(layer, x)
    for column in torch.randperm(hidden_size)[:20].tolist():
        weight[:, column] = 0
        after = infer(layer, x)
        assert not torch.equal(after, before), column
        before = after
    assert_same_bits(after, fresh(layer, x))


@kinds
@pytest.mark.parametrize("weights", ["int8", "bf16"])
def test_quantised_weights_follow_changes(kind, weights):
    layer, other = (quantize(kind(5, 37), weights) for _ in range(2))
    x = torch.randn(6, 2, 5)
    infer(layer, x)
    # The least change that a byte has: one bit of one value.
    bits = layer.weight_hh_l0.view(torch.uint8).numpy().reshape(-1)
    bits[-5] ^= 1
    infer(layer, x)
    assert_same_bits(infer(layer, x), infer(copy.deepcopy(layer), x))
    for name, buffer in layer.named_buffers():
        buffer.data.copy_(other.get_buffer(name))
    assert_same_bits(infer(layer, x), infer(other, x))


@kinds
def test_weights_made_in_inference_mode(kind):
    with torch.inference_mode():
        layer, x = kind(5, 9).eval(), torch.randn(6, 2, 5)
        before = layer(x)[0]
        layer.weight_hh_l0[:, 4] = 0
        after = layer(x)[0]
        assert not torch.equal(after, before)
        assert_same_bits(after, copy.deepcopy(layer)(x)[0])
