"""InferenceBatchSoftmax: softmax in eval mode, the identity in training."""

from __future__ import annotations

import torch

from asrkern.nn import InferenceBatchSoftmax


def test_softmax_in_eval_identity_in_training():
    layer = InferenceBatchSoftmax()
    x = 5 * torch.randn(3, 4, 29)
    assert layer.train()(x) is x
    expected = x.exp() / x.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(layer.eval()(x), expected, rtol=1e-5, atol=1e-7)


def test_half_input_gives_fp32():
    x = torch.randn(3, 29, dtype=torch.bfloat16)
    assert InferenceBatchSoftmax().eval()(x).dtype == torch.float32
    assert InferenceBatchSoftmax().eval()(x.double()).dtype == torch.float64
