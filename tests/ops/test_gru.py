"""gru against the reference: values, gradients, lengths, rows that do not depend on others."""

from asrkern import ops, reference
from tests.ops.recurrent import RecurrentTests


class TestGRU(RecurrentTests):
    op = staticmethod(ops.gru)
    reference = staticmethod(reference.gru)
    weights = ops.GRUWeights
    gates = 3
    states = 1
