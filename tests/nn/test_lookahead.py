"""Lookahead against the depthwise convolution that it is."""

from __future__ import annotations

import pytest
import torch

from asrkern.nn import Lookahead


@pytest.mark.parametrize(
    ("steps", "batch", "features", "context"), [(1, 1, 1, 1), (63, 3, 5, 20), (2, 7, 3, 5)]
)
def test_equals_the_depthwise_convolution(steps, batch, features, context):
    ours = Lookahead(features, context).double()
    x = torch.randn(steps, batch, features, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    output = ours(a)
    expected = ours.conv(torch.nn.functional.pad(b.permute(1, 2, 0), (0, context - 1))).permute(2, 0, 1)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad((output**2).sum(), ours.conv.weight, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad((expected**2).sum(), ours.conv.weight, retain_graph=True)
    torch.testing.assert_close(gradient, expected_gradient)
    (output**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_frames_beyond_lengths_are_not_seen():
    ours = Lookahead(5, 4).double()
    lengths = torch.tensor([6, 0, 2])
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    x[torch.arange(6)[:, None] >= lengths] = float("nan")
    output = ours(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        assert torch.equal(output[:length, i], ours(x[:length, i : i + 1])[:, 0])
        assert output[length:, i].eq(0).all()


def test_loads_the_weight_of_v1():
    ours = Lookahead(5, 4).double()
    weight = torch.randn(5, 4, dtype=torch.float64)  # context 3 in V1's counting
    state = {"weight": weight}
    assert not any(ours.load_state_dict(state))
    assert list(state) == ["weight"]
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    padded = torch.cat([x, torch.zeros(3, 2, 5, dtype=torch.float64)])
    expected = torch.stack([(padded[t : t + 4].permute(1, 2, 0) * weight).sum(-1) for t in range(9)])
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match=r"size mismatch for conv\.weight"):
        ours.load_state_dict({"weight": torch.randn(5, 3)})


def test_keys_and_errors():
    assert {k: tuple(v.shape) for k, v in Lookahead(5, 4).state_dict().items()} == {"conv.weight": (5, 1, 4)}
    with pytest.raises(ValueError, match="context: expected at least 1, received 0"):
        Lookahead(5, 0)
    with pytest.raises(ValueError, match=r"x: expected \[T, N, 5\], received \[6, 2, 4\]"):
        Lookahead(5, 4)(torch.zeros(6, 2, 4))
