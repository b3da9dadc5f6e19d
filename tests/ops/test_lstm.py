"""lstm against the reference: values, gradients, lengths, rows that do not depend on others."""

import pytest
import torch

from asrkern import ops, reference
from tests.compare import assert_same_bits
from tests.ops.recurrent import RecurrentTests


class TestLSTM(RecurrentTests):
    op = staticmethod(ops.lstm)
    reference = staticmethod(reference.lstm)
    weights = ops.LSTMWeights
    gates = 4
    states = 2

    def test_either_initial_state_may_be_left_out(self):
        weights, x, state = self.make_weights(3, 4, True), torch.randn(5, 2, 3), torch.randn(2, 2, 4)
        for name, other in (("h0", "c0"), ("c0", "h0")):
            results = self.op(x, *weights, **{name: state})
            expected = self.op(x, *weights, **{name: state, other: torch.zeros_like(state)})
            for result, wanted in zip(results, expected, strict=True):
                assert_same_bits(result, wanted)

    def test_initial_states_have_to_agree(self):
        states = torch.zeros(1, 3, 2), torch.zeros(1, 2, 2)
        weights = self.make_weights(5, 2, False)
        with pytest.raises(ValueError, match=r"c0: expected shape \(1, 3, 2\), received \(1, 2, 2\)"):
            self.op(torch.randn(6, 5), *weights, *states, batch_sizes=torch.tensor([3, 3]))
