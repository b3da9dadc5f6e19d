"""asrkern.nn.LSTM against torch.nn.LSTM: values, gradients, keys, options, packed and padded."""

from __future__ import annotations

import pytest
import torch

from asrkern.nn import LSTM
from tests.nn.recurrent import RecurrentTests


class TestLSTM(RecurrentTests):
    ours = LSTM
    stock = torch.nn.LSTM
    states = 2

    def test_options_by_position_are_those_of_torch(self):
        arguments = (4, 5, 2, False, True, 0.0, True, 0, "cpu", torch.float64)
        assert repr(LSTM(*arguments)) == repr(torch.nn.LSTM(*arguments))
        assert LSTM(*arguments).weight_ih_l0.dtype == torch.float64

    def test_projections_are_refused(self):
        with pytest.raises(ValueError, match="proj_size: expected 0, received 3"):
            LSTM(4, 5, proj_size=3)
