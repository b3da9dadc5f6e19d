"""asrkern.nn.LockedDropout: one mask per sequence, and dropout's share and scale."""

from __future__ import annotations

import pytest
import torch

from asrkern.nn import LockedDropout


@pytest.mark.parametrize("layout", ["NTC", "TNC"])
def test_the_mask_is_the_same_over_time_and_another_for_each_sequence(layout: str) -> None:
    dropout = LockedDropout(0.4, layout=layout)
    x = torch.rand(5, 7, 64) + 0.5
    x = x if layout == "NTC" else x.transpose(0, 1)
    ratio = dropout(x) / x
    ratio = ratio if layout == "NTC" else ratio.transpose(0, 1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-6, atol=0)
    masks = ratio[:, 0] > 0
    torch.testing.assert_close(ratio[:, 0][masks], torch.full((int(masks.sum()),), 1 / 0.6))
    assert all((masks[i] != masks[j]).any() for i in range(5) for j in range(i))


def test_share_and_mean() -> None:
    y = LockedDropout(0.3)(torch.ones(200, 3, 500))
    assert abs(y.ne(0).float().mean().item() - 0.7) < 0.008  # 5 standard deviations of 100,000 draws
    assert abs(y.mean().item() - 1) < 0.011


def test_it_is_the_identity_in_eval_mode_and_at_zero() -> None:
    x = torch.randn(2, 3, 4)
    assert LockedDropout(0.5).eval()(x) is x
    assert LockedDropout(0.0)(x) is x
    assert not LockedDropout(1.0)(x).any()
    assert LockedDropout(0.5).eval().sample(x[:, 0]).eq(1).all()


def test_a_sampled_mask_serves_pieces_of_a_sequence() -> None:
    dropout = LockedDropout(0.5)
    x = torch.randn(3, 8, 16)
    mask = dropout.sample(x[:, 0])
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    pieces = torch.cat([dropout(x[:, :5], mask), dropout(x[:, 5:], mask)], 1)
    assert torch.equal(pieces, dropout(x, mask))
    assert torch.equal(pieces, x * mask[:, None])


def test_gradient_goes_through_the_mask() -> None:
    x = torch.randn(3, 8, 16, requires_grad=True)
    y = LockedDropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_no_frames() -> None:
    assert LockedDropout(0.5)(torch.randn(3, 0, 4)).shape == (3, 0, 4)


def test_bad_arguments_are_named() -> None:
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="p: expected 0 to 1"):
            LockedDropout(p)
    with pytest.raises(ValueError, match=r"layout: expected .*'NCT'"):
        LockedDropout(0.5, layout="NCT")
    with pytest.raises(ValueError, match=r"input: expected N, T, C, received \[3, 4\]"):
        LockedDropout(0.5)(torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"mask: expected \[3, 4\], received \[3, 5\]"):
        LockedDropout(0.5)(torch.randn(3, 2, 4), torch.ones(3, 5))
