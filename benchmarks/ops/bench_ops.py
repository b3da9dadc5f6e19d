"""The rows of ``run.py`` under pytest-benchmark, for its statistics, its JSON and its comparison of saved runs.

pytest benchmarks/ops/bench_ops.py -k "gru and H=512"
"""

from __future__ import annotations

import pytest

from benchmarks.ops.registry import OPERATIONS
from benchmarks.ops.run import ASRKERN, GRADIENT_TOLERANCE, STOCK, TOLERANCE, calls

CASES = [
    pytest.param(make, training, id=f"{name}, {row}, {'training' if training else 'inference'}")
    for name, operation in OPERATIONS.items()
    for training, rows in enumerate(operation)
    for row, make in rows.items()
]


@pytest.mark.parametrize("backend", [STOCK, ASRKERN])
@pytest.mark.parametrize("make, training", CASES)
def test_operation(benchmark, make, training, backend):
    case = make()
    both = calls(case, bool(training))
    # Nothing is timed that is not right.
    assert case.error(both[STOCK](), both[ASRKERN]()) <= (GRADIENT_TOLERANCE if training else TOLERANCE)
    benchmark.group = benchmark.name.rpartition("-")[0]
    benchmark(both[backend])
