"""MaskConv against the plain stack of convolutions on each row alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from asrkern.nn import MaskConv, MaskedBatchNorm2d

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def stack(*extra: nn.Module) -> nn.Sequential:
    """The front end of DeepSpeech2, small."""
    layers = nn.Sequential(
        nn.Conv2d(1, 4, (5, 3), stride=(2, 2), padding=(2, 1)),
        nn.BatchNorm2d(4),
        nn.Hardtanh(0, 20, inplace=True),
        nn.Conv2d(4, 3, (3, 5), stride=(2, 1), padding=(1, 1), bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        *extra,
    ).double()
    for norm in layers:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return layers


def mask(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return x.masked_fill((torch.arange(x.shape[-1]) >= lengths[:, None])[:, None, None], 0)


def masked_after_each(layers: nn.Sequential, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What deepspeech.pytorch computes: every module, then the mask by the final lengths."""
    for layer in layers:
        x = mask(layer(x), lengths)
    return x


@pytest.mark.parametrize("training", [False, True])
def test_output_lengths_as_in_the_original(training):
    layers = stack().train(training)
    ours = MaskConv(copy.deepcopy(layers), stats="padded").train(training)
    x = torch.randn(4, 1, 13, 22, dtype=torch.float64)
    lengths = torch.tensor([9, 0, 3, 8], dtype=torch.int32)
    for _ in range(2):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        output, same = ours(a, lengths)
        expected = masked_after_each(layers, b, lengths)
        assert same is lengths
        torch.testing.assert_close(output, expected, **CLOSE)
        (output**2).sum().backward()
        (expected**2).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-8)
    for (name, p), q in zip(ours.named_parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    for (name, p), q in zip(ours.state_dict().items(), layers.state_dict().values(), strict=True):
        assert name.startswith("seq_module.")
        torch.testing.assert_close(p, q, **CLOSE)


def test_input_lengths_give_each_row_what_it_gets_alone():
    ours = MaskConv(stack(nn.Dropout(0.5), nn.MaxPool2d((1, 2)))).eval()
    lengths = torch.tensor([22, 0, 5, 6, 17])
    x = torch.randn(5, 1, 13, 22, dtype=torch.float64)
    x = x.masked_fill((torch.arange(22) >= lengths[:, None])[:, None, None], float("nan"))
    output, output_lengths = ours(x, input_lengths=lengths)
    assert output_lengths.tolist() == [4, 0, 0, 0, 3]
    assert output_lengths.dtype == torch.int64
    for i in (0, 4):
        alone = ours.seq_module(x[i : i + 1, ..., : lengths[i]])
        assert alone.shape[-1] == output_lengths[i]
        torch.testing.assert_close(output[i, ..., : output_lengths[i]], alone[0], **CLOSE)
    assert mask(output, output_lengths).equal(output)


def test_input_lengths_in_training_count_valid_frames_only():
    """One row's valid part alone and padded give the same statistics, so the same output and gradients."""
    ours = MaskConv(stack())
    alone = copy.deepcopy(ours)
    x = torch.randn(1, 1, 13, 15, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (0, 8), value=float("nan"))
    output, lengths = ours(padded, input_lengths=torch.tensor([15]))
    expected, none = alone(x)
    assert none is None
    torch.testing.assert_close(output[..., : lengths[0]], expected, **CLOSE)
    (output**2).sum().backward()
    (expected**2).sum().backward()
    for p, q in zip(ours.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-8)
    for p, q in zip(ours.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(p, q, **CLOSE)


@pytest.mark.parametrize("training", [False, True])
def test_without_lengths_is_the_plain_stack(training):
    layers = stack().train(training)
    ours = MaskConv(copy.deepcopy(layers)).train(training)
    x = torch.randn(3, 1, 13, 22, dtype=torch.float64)
    output, lengths = ours(x)
    assert lengths is None
    torch.testing.assert_close(output, layers(x), **CLOSE)


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(nn.Conv2d(2, 4, 3, dilation=(1, 2)), nn.BatchNorm2d(4), nn.Hardtanh()),
        nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.GELU()),
        nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.ReLU6()),
        nn.Sequential(nn.Conv2d(2, 4, (1, 3), padding="valid"), nn.Hardtanh()),
        nn.Sequential(nn.BatchNorm2d(2, affine=False), nn.ReLU(), nn.Conv2d(2, 3, 3)),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Hardtanh(-0.1, 0.1), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(2, 4, 3), MaskedBatchNorm2d(4, activation=(0.0, 1.0)), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()),
    ],
)
def test_other_stacks_equal_torch_on_full_rows(layers):
    layers = layers.double().eval()
    x = torch.randn(3, 2, 9, 16, dtype=torch.float64)
    expected = layers(x)
    output, output_lengths = MaskConv(layers)(x, input_lengths=torch.tensor([16, 16, 16]))
    assert output_lengths.tolist() == [expected.shape[-1]] * 3
    torch.testing.assert_close(output, expected, **CLOSE)


@pytest.mark.parametrize("index", [3, 4, 5])
def test_replaced_forwards_inside_run(index):
    ours, x = MaskConv(stack()).eval(), torch.randn(2, 1, 9, 11, dtype=torch.float64)
    module = ours.seq_module[index]
    before = module.forward
    module.forward = lambda x: before(x) * 0 + 7
    torch.testing.assert_close(ours(x)[0], ours.seq_module(x), **CLOSE)


def test_hooks_inside_still_run():
    ours = MaskConv(stack()).eval()
    x = torch.randn(2, 1, 13, 22, dtype=torch.float64)
    expected, _ = ours(x)
    seen = []
    for layer in ours.seq_module[:3]:
        layer.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    torch.testing.assert_close(ours(x)[0], expected, **CLOSE)
    assert seen == ["Conv2d", "BatchNorm2d", "Hardtanh"]


def test_frozen_batch_norm_in_a_training_stack_trains_the_rest():
    layers = stack()
    ours = MaskConv(copy.deepcopy(layers))
    for module in (layers, ours.seq_module):
        module[1].eval(), module[4].eval()
    x = torch.randn(2, 1, 13, 22, dtype=torch.float64)
    (ours(x)[0] ** 2).sum().backward()
    (layers(x) ** 2).sum().backward()
    for p, q in zip(ours.parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d((2, 1)),
        nn.MaxPool2d((1, 2)),
        nn.MaxPool2d(2),
        # These run by themselves.
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d((2, 1), ceil_mode=True),
        nn.MaxPool2d(3, 3, padding=1),
        nn.MaxPool2d(2, dilation=(2, 1)),
    ],
)
@pytest.mark.parametrize("known", ["input_lengths", "lengths", None])
@pytest.mark.parametrize("training", [False, True])
def test_a_pool_after_a_convolution(pool, known, training, monkeypatch):
    layers = stack(pool, nn.Conv2d(3, 2, (1, 3)), nn.ReLU()).train(training)
    ours = MaskConv(copy.deepcopy(layers), stats="padded").train(training)
    x = torch.randn(2, 1, 16, 22, dtype=torch.float64)
    calls = []
    run = nn.MaxPool2d.forward
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda *args: calls.append(1) or run(*args))
    if known == "lengths":
        with torch.no_grad():
            frames = copy.deepcopy(layers)(x).shape[-1]
        lengths = {"lengths": torch.tensor([frames, 1])}
        expected = masked_after_each(layers, x, lengths["lengths"])
    else:
        lengths = {} if known is None else {known: torch.tensor([22, 22])}
        expected = layers(x)
    calls.clear()
    output, _ = ours(x, **lengths)
    torch.testing.assert_close(output, expected, **CLOSE)
    plain = pool.kernel_size in ((2, 1), (1, 2), 2) and pool.stride == pool.kernel_size
    plain &= not pool.ceil_mode and pool.padding == 0 and pool.dilation == 1
    fused = plain and not training and not (known == "lengths" and pool.kernel_size != (2, 1))
    assert len(calls) == (0 if fused else 1)


def test_a_pool_with_a_hook_runs_itself():
    ours = MaskConv(stack(nn.MaxPool2d(2))).eval()
    seen = []
    ours.seq_module[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(2, 1, 16, 22, dtype=torch.float64)
    output, _ = ours(x)
    assert len(seen) == 1 and torch.equal(seen[0], output)


def test_a_pool_after_batch_statistics_is_not_lost():
    """As when running statistics are estimated anew: batch norms alone in training mode."""
    layers = stack(nn.MaxPool2d((2, 1))).eval()
    layers[4].train()
    ours = MaskConv(copy.deepcopy(layers), stats="padded").eval()
    ours.seq_module[4].train()
    x = torch.randn(2, 1, 16, 22, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], layers(x), **CLOSE)


def test_bad_arguments_are_named():
    ours = MaskConv(stack()).eval()
    x = torch.randn(2, 1, 13, 22, dtype=torch.float64)
    lengths = torch.tensor([3, 4])
    with pytest.raises(ValueError, match=r"lengths, input_lengths: .*received both"):
        ours(x, lengths, input_lengths=lengths)
    with pytest.raises(ValueError, match="lengths"):
        ours(x, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"stats.*'none'"):
        MaskConv(stack(), stats="none")
    shrinking = MaskConv(nn.Sequential(nn.AdaptiveAvgPool2d((3, 3))))
    with pytest.raises(ValueError, match=r"input_lengths: cannot follow AdaptiveAvgPool2d.*3 frames of 22"):
        shrinking(x, input_lengths=lengths)
