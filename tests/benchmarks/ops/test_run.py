"""benchmarks/ops/run.py: what is compared, and that nothing that differs is timed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from asrkern import ops, reference
from benchmarks.ops import run
from benchmarks.ops.attention import Attention
from benchmarks.ops.batch_norm_act import BatchNormAct
from benchmarks.ops.cell import Cell, FrozenCell
from benchmarks.ops.linear import Linear, LinearQuantized
from benchmarks.ops.masked_conv2d import MaskedConv2d
from benchmarks.ops.recurrent import Recurrent
from benchmarks.ops.registry import OPERATIONS, Operation
from benchmarks.ops.speller import Speller
from benchmarks.ops.transformer import TransformerLayer
from benchmarks.shapes import (
    AttentionShape,
    BatchNormShape,
    CellShape,
    ConvShape,
    LinearShape,
    RecurrentShape,
    SpellerShape,
    TransformerShape,
)

SHAPE = RecurrentShape(5, 3, 7, layers=2)
CASES = {
    "gru": {
        "equal": partial(Recurrent, torch.nn.GRU, ops.gru, SHAPE, False),
        "ragged": partial(Recurrent, torch.nn.GRU, ops.gru, SHAPE, True),
    },
    "lstm": {
        "equal": partial(Recurrent, torch.nn.LSTM, ops.lstm, SHAPE, False),
        "ragged": partial(Recurrent, torch.nn.LSTM, ops.lstm, SHAPE, True),
    },
    "lstm_cell": {"": partial(Cell, CellShape(5, 3))},
    "lstm_cell_prepacked": {"": partial(FrozenCell, CellShape(5, 3))},
    "linear": {"": partial(Linear, LinearShape(3, 5, 7))},
    "linear_quantized": {"": partial(LinearQuantized, LinearShape(3, 5, 7))},
    "batch_norm_act": {
        "NCFT": partial(BatchNormAct, BatchNormShape("NCFT", (3, 4, 5, 9), (0.0, 1.5))),
        "TNC": partial(BatchNormAct, BatchNormShape("TNC", (9, 3, 5), None)),
    },
    "masked_conv2d": {
        "": partial(MaskedConv2d, ConvShape("", 3, 2, 9, 13, (5, 3), (2, 1), (2, 1), 4)),
        "pooled": partial(MaskedConv2d, ConvShape("", 3, 16, 9, 13, (1, 3), (1, 1), (0, 1), 16, (3, 2))),
    },
    "speller": {"": partial(Speller, SpellerShape("hw4", 2, 7))},
    "attention": {"": partial(Attention, AttentionShape(2, 7, 3, 5))},
    "transformer": {
        "encoder": partial(TransformerLayer, TransformerShape("encoder", 3, 9, 16, True)),
        "decoder": partial(TransformerLayer, TransformerShape("decoder", 3, 9, 16, True)),
    },
}
# A pool is for inference, as these operations are.
INFERENCE = {"lstm_cell_prepacked", "linear_quantized", "speller", "attention", "transformer"}
CASES_OF_BOTH = {
    name: Operation(
        rows, {} if name in INFERENCE else {row: case for row, case in rows.items() if row != "pooled"}
    )
    for name, rows in CASES.items()
}
every_call = pytest.mark.parametrize(
    "name, row, training",
    [
        (name, row, training)
        for name, operation in CASES_OF_BOTH.items()
        for training, rows in zip((False, True), operation)
        for row in rows
    ],
)


def test_every_operation_with_a_reference_is_registered() -> None:
    with_reference = {path.stem for path in Path(reference.__file__).parent.glob("[a-z]*.py")}
    # The beam search is timed by benchmarks/decoder/ctc_beam.py, linear_heads in a Transformer's decoder.
    elsewhere = {"ctc_beam_search", "linear_heads"}
    timed = {name for name in with_reference if hasattr(ops, name)} - elsewhere
    # Those whose reference is that of another, or of several operations.
    assert set(OPERATIONS) == timed | {"transformer", "lstm_cell", "lstm_cell_prepacked", "linear_quantized"}
    assert set(OPERATIONS) == set(CASES)
    for operation in OPERATIONS.values():
        assert operation.inference
        assert operation.training or operation in [OPERATIONS[name] for name in INFERENCE]


@every_call
def test_both_backends_agree(name: str, row: str, training: bool) -> None:
    case = CASES[name][row]()
    found = run.calls(case, training)
    expected, actual = found[run.STOCK](), found[run.ASRKERN]()
    assert len(expected) == len(actual) == (len(case.inputs) if training else 1)
    assert all(y.abs().max() > 0 for y in expected)
    assert case.error(expected, actual) < (1e-5 if training else 2e-6)


@every_call
def test_stock_torch_is_stock_torch(name: str, row: str, training: bool) -> None:
    """What is called torch's runs none of asrkern's operations."""

    class NoAsrkern(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.namespace != "asrkern", func
            return func(*args, **(kwargs or {}))

    found = run.calls(CASES[name][row](), training)
    with NoAsrkern():
        found[run.STOCK]()
    with NoAsrkern(), pytest.raises(AssertionError, match="asrkern"):
        found[run.ASRKERN]()


@every_call
@pytest.mark.parametrize(
    "change",
    [lambda y: y + 2e-4 * y.abs().max(), lambda y: y[:-1], lambda y: y * torch.nan],
    ids=["over the tolerance", "too short", "nan"],
)
def test_what_differs_is_not_timed(name: str, row: str, training: bool, change, monkeypatch) -> None:
    case = CASES[name][row]()
    ours = run.calls(case, training)[run.ASRKERN]
    stock = run.calls(case, training)[run.STOCK]
    *same, last = ours()
    wrong = {run.STOCK: stock, run.ASRKERN: lambda: [*same, change(last)]}
    monkeypatch.setattr(run, "calls", lambda *_: wrong)
    monkeypatch.setattr(run, "interleaved", lambda *_, **__: pytest.fail("timed"))
    assert list(run.measure(case, training, 1, 0.0)) == ["largest error"]


def test_tables_and_the_choice_of_rows(monkeypatch, capsys) -> None:
    monkeypatch.setattr(run, "OPERATIONS", CASES_OF_BOTH)
    options = ["--rounds", "2", "--seconds", "0"]
    assert run.main(options) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("### ")]
    assert titles == [
        f"### {name} forward{more}"
        for name, operation in CASES_OF_BOTH.items()
        for more in ("", " + backward")[: 2 if operation.training else 1]
    ]
    assert run.main([*options, "gru", "lstm", "--rows", "ragged"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| ragged |") == 4 and "equal" not in printed
    assert printed.count("torch / asrkern") == 4


def test_a_difference_is_the_exit_status(monkeypatch, capsys) -> None:
    monkeypatch.setattr(run, "OPERATIONS", {"linear": Operation(CASES["linear"], {})})
    monkeypatch.setattr(run, "TOLERANCE", -1.0)
    assert run.main(["linear", "--rounds", "1", "--seconds", "0"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["gro"], "expected some of gru, lstm"),
        (["--rounds", "0"], "expected a positive integer, received 0"),
        (
            ["gru", "--rows", "H=3"],
            "expected part of a row's name, such as 'H=512 N=1 T=200, equal', received 'H=3'",
        ),
    ],
)
def test_bad_options_are_refused(options: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(options)
    assert message in capsys.readouterr().err
