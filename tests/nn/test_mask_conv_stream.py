"""asrkern.nn.MaskConvStream beside MaskConv: any stack of convolutions, any chunks, the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asrkern.nn import MaskConv, MaskConvStream, MaskedBatchNorm2d
from tests.compare import assert_same_bits


def make_conv(geometry: list[tuple[int, int, int]]) -> MaskConv:
    """A convolution, batch norm and clamp for each (kernel size, stride, padding) along time, in eval mode."""
    modules: list[nn.Module] = []
    for index, (kernel_size, stride, padding) in enumerate(geometry):
        conv = nn.Conv2d(3 if index else 1, 3, (3, kernel_size), (1, stride), (1, padding), bias=index == 0)
        modules += [conv, nn.BatchNorm2d(3), nn.Hardtanh(0, 20)]
    for module in modules[1::3]:
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
    return MaskConv(nn.Sequential(*modules)).eval()


def in_chunks(stream: MaskConvStream, x: Tensor, sizes: list[int]) -> Tensor:
    state, output, first = stream.start(), [], 0
    while first < x.shape[3]:
        for size in sizes:
            y, state = stream.step(state, x[..., first : first + size])
            output.append(y)
            first += size
    return torch.cat([*output, stream.step(state, x[..., :0], last=True)[0]], 3)


# Kernels of one tap, those that tiles of 32 points take, and longer ones; padding up to more than the kernel.
GEOMETRY = st.tuples(
    st.sampled_from([1, 3, 5, 11, 16, 19]), st.integers(1, 3), st.sampled_from([0, 1, 5, 12])
)


@settings(max_examples=80, deadline=None)
@given(
    geometry=st.lists(GEOMETRY, min_size=1, max_size=3),
    frames=st.integers(0, 300),
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=4).filter(any),
)
@torch.no_grad()
def test_any_chunks_give_the_same_bits(geometry, frames, sizes):
    torch.manual_seed(frames)
    conv = make_conv(geometry)
    x = torch.randn(1, 1, 4, frames)
    # Padded, so that none is too short for the operation.
    padded = nn.functional.pad(x, (0, 400))
    expected, lengths = conv(padded, input_lengths=torch.tensor([frames]))
    expected = expected[..., : lengths[0]]
    assert_same_bits(in_chunks(MaskConvStream(conv), x, sizes), expected)
    found = in_chunks(MaskConvStream(conv, low_latency=True), x, sizes)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)  # of values up to 20


@pytest.mark.parametrize("low_latency", [False, True])
@torch.no_grad()
def test_frames_come_when_their_input_is_there(low_latency):
    conv = make_conv([(11, 2, 5), (11, 1, 5)])
    stream = MaskConvStream(conv, low_latency=low_latency)
    x = torch.randn(1, 1, 4, 160)
    state, done = stream.start(), 0
    for received in range(1, 161):
        y, state = stream.step(state, x[..., received - 1 : received])
        for frame in range(done, done + y.shape[3]):
            assert stream.frames_needed(frame) == received
        done += y.shape[3]
    assert stream.period == (1 if low_latency else 27 * 22)
    # The windows of both: 11 frames of 2, and 11.
    assert done == (160 + 5 - 11 - 2 * 5) // 2 + 1 if low_latency else done < 70


@torch.no_grad()
def test_masked_batch_norms_and_bare_convolutions():
    conv = MaskConv(
        nn.Sequential(
            nn.Conv2d(1, 2, 3), MaskedBatchNorm2d(2, activation=(0, 1)), nn.Conv2d(2, 2, (1, 7)), nn.ReLU()
        )
    ).eval()
    x = torch.randn(1, 1, 5, 90)
    expected, _ = conv(x, input_lengths=torch.tensor([90]))
    assert_same_bits(in_chunks(MaskConvStream(conv), x, [50, 3]), expected)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)], "expected plain convolutions, received MaxPool2d"),
        ([nn.BatchNorm2d(1)], "expected plain convolutions, received BatchNorm2d"),
        ([nn.Conv2d(1, 1, 3, dilation=2)], "expected plain convolutions, received Conv2d"),
        ([nn.Conv2d(1, 1, 3), nn.Dropout()], "expected plain convolutions, received Dropout"),
    ],
)
def test_other_stacks_are_refused(modules, message):
    with pytest.raises(ValueError, match=message):
        MaskConvStream(MaskConv(nn.Sequential(*modules)).eval())


def test_batch_statistics_are_refused():
    conv = make_conv([(3, 1, 1)])
    with pytest.raises(ValueError, match=r"expected running statistics \(eval mode\), received BatchNorm2d"):
        MaskConvStream(conv.train())
