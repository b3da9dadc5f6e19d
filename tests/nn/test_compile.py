"""torch.compile without graph breaks, torch.export, both with dynamic batch and time, and autocast."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

import asrkern
from asrkern.nn import (
    GRU,
    LSTM,
    BatchRNN,
    FusedSequential,
    InferenceBatchSoftmax,
    LightGRU,
    Lookahead,
    MaskConv,
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    PyramidalRNN,
    SequenceWise,
    quantize,
)
from tests.compare import assert_same_bits

ROOT = Path(__file__).parents[2]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SIZES = [(3, 17), (2, 9), (5, 30)]


class ByInputLengths(nn.Module):
    """MaskConv with positional input_lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = MaskConv(
            nn.Sequential(
                nn.Conv2d(1, 4, (5, 3), stride=(2, 2), padding=(2, 1)),
                nn.BatchNorm2d(4),
                nn.Hardtanh(0, 20),
                nn.Conv2d(4, 3, (3, 5), padding=(1, 2)),
                nn.BatchNorm2d(3),
                nn.Hardtanh(0, 20),
            )
        )

    def forward(self, x, lengths):
        return self.conv(x, input_lengths=lengths)


class Fused(nn.Module):
    """Without lengths, which a FusedSequential does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = FusedSequential(nn.BatchNorm1d(6), nn.ReLU())

    def forward(self, x, lengths):
        return self.stack(x)


class WithLengths(nn.Module):
    """A recurrent layer called with lengths alone."""

    def __init__(self, kind=GRU, **options) -> None:
        super().__init__()
        self.rnn = kind(6, 5, 2, **options)

    def forward(self, x, lengths):
        return self.rnn(x, lengths=lengths)


# name → (module, shape of its input, with N and T for the batch size and the number of frames)
LAYERS = {
    "gru": (lambda: WithLengths(bidirectional=True), "TN6"),
    "lstm": (lambda: WithLengths(LSTM, bidirectional=True), "TN6"),
    "gru_batch_first_sum": (lambda: WithLengths(batch_first=True, bidirectional=True, merge="sum"), "NT6"),
    "batch_rnn_lstm": (lambda: BatchRNN(6, 5, LSTM, bidirectional=True), "TN6"),
    "batch_rnn": (lambda: BatchRNN(6, 5, GRU, bidirectional=True), "TN6"),
    "mask_conv": (ByInputLengths, "N19T"),
    "sequence_wise": (lambda: SequenceWise(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))), "TN6"),
    "batch_norm_1d": (lambda: MaskedBatchNorm1d(6, activation=(0.0, 1.0)), "N6T"),
    "batch_norm_2d": (lambda: MaskedBatchNorm2d(6, momentum=None), "N69T"),
    "fused": (Fused, "N6T"),
    "lookahead": (lambda: Lookahead(6, 4), "TN6"),
    "pyramid": (lambda: PyramidalRNN(6, 5, remainder="drop"), "NT6"),
}


def inputs(axes: str, batch: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    sizes = {"N": batch, "T": steps}
    x = torch.randn([sizes[axis] if axis in sizes else int(axis) for axis in axes])
    lengths = torch.randint(1, steps + 1, (batch,))
    lengths[0] = steps
    return x, lengths


def flat(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in flat(v)]


def assert_same(got, expected) -> None:
    for a, b in zip(flat(got), flat(expected), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize(
    ("name", "training"), [*((name, True) for name in LAYERS), ("mask_conv", False), ("batch_rnn", False)]
)
def test_compiles_as_one_graph_with_dynamic_shapes(name, training):
    build, axes = LAYERS[name]
    module = build().train(training)
    twin = build().train(training)
    twin.load_state_dict(module.state_dict())
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, steps in SIZES:
        x, lengths = inputs(axes, batch, steps)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, expected = compiled(a, lengths), twin(b, lengths)
        assert_same(got, expected)
        flat(got)[0].square().sum().backward()
        flat(expected)[0].square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for (key, value), other in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, **CLOSE, msg=lambda m, k=key: f"{k}: {m}")


def test_compiles_with_inductor():
    module = BatchRNN(6, 5, GRU, bidirectional=True).eval()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch, steps in SIZES:
            arguments = inputs("TN6", batch, steps)
            assert_same(compiled(*arguments), module(*arguments))


def test_compiles_in_another_thread():
    module, arguments = WithLengths(), inputs("TN6", 3, 7)
    torch._dynamo.reset()
    results = []

    def work() -> None:
        results.append(torch.compile(module, fullgraph=True, backend="eager")(*arguments))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert_same(results[0], module(*arguments))


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_compiles_with_a_packed_sequence(kind, enforce_sorted):
    module = kind(6, 5, 2, bidirectional=True)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, steps in SIZES:
        x, lengths = inputs("TN6", batch, steps)
        lengths = lengths.sort(descending=True).values
        packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        (output, state), (expected, expected_state) = compiled(packed), module(packed)
        assert isinstance(output, PackedSequence)
        assert_same([output.data, state], [expected.data, expected_state])


@pytest.mark.parametrize("name", LAYERS)
def test_exports_with_dynamic_batch_and_time(name):
    build, axes = LAYERS[name]
    module = build().eval()
    sizes = {"N": Dim("batch", min=1, max=64), "T": Dim("time", min=4, max=4096)}
    shapes = ({i: sizes[axis] for i, axis in enumerate(axes) if axis in sizes}, {0: sizes["N"]})
    program = torch.export.export(module, inputs(axes, *SIZES[0]), dynamic_shapes=shapes)
    for batch, steps in [*SIZES[1:], (1, 4)]:
        arguments = inputs(axes, batch, steps)
        assert_same(program.module()(*arguments), module(*arguments))


def test_exports_a_packed_sequence():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = GRU(6, 5, bidirectional=True)

        def forward(self, data, batch_sizes, sorted_indices, unsorted_indices):
            packed = PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)
            output, h_n = self.gru(packed)
            return output.data, h_n

    def packed(batch: int, steps: int) -> tuple[torch.Tensor, ...]:
        x, lengths = inputs("TN6", batch, steps)
        return tuple(pack_padded_sequence(x, lengths, enforce_sorted=False))

    module = Packed().eval()
    frames, batch, steps = Dim("frames", max=10**6), Dim("batch", max=64), Dim("time", max=4096)
    shapes = ({0: frames}, {0: steps}, {0: batch}, {0: batch})
    program = torch.export.export(module, packed(*SIZES[0]), dynamic_shapes=shapes)
    for size in SIZES[1:]:
        arguments = packed(*size)
        assert_same(program.module()(*arguments), module(*arguments))


def test_a_light_gru_for_one_number_of_frames():
    module, arguments = WithLengths(LightGRU).eval(), inputs("TN6", 3, 7)
    torch._dynamo.reset()
    expected = module(*arguments)
    assert_same(torch.compile(module, fullgraph=True, backend="aot_eager")(*arguments), expected)
    assert_same(torch.export.export(module, arguments).module()(*arguments), expected)


@pytest.mark.parametrize("name", [*LAYERS, "light_gru"])
@pytest.mark.parametrize("training", [False, True])
def test_runs_under_autocast(name, training):
    """In bf16, also on bf16 input, close to fp32 and with gradients in the parameters' dtype."""
    build, axes = {**LAYERS, "light_gru": (lambda: WithLengths(LightGRU), "TN6")}[name]
    module = build().train(training)
    x, lengths = inputs(axes, 3, 17)
    x = x.bfloat16()
    expected = flat(module(x.float(), lengths))[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = flat(module(x, lengths))[0]
        if not training:
            assert InferenceBatchSoftmax().eval()(output).dtype == torch.float32
    torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    output.float().square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("kind", [GRU, LSTM])
@pytest.mark.parametrize("in_order", [False, True])
def test_a_compiled_layer_refuses_states_of_another_batch(kind, in_order):
    torch._dynamo.reset()
    layer = kind(6, 5, bidirectional=True).train(in_order)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
    lengths = torch.tensor([7, 4, 2] if in_order else [4, 7, 2])
    x = pack_padded_sequence(torch.randn(7, 3, 6), lengths, enforce_sorted=in_order)

    def states(rows):
        hx = torch.randn(2, rows, 5)
        return hx if kind is GRU else (hx, torch.randn(2, rows, 5))

    for rows in (1, 2, 4):
        for run in (layer, compiled):
            with pytest.raises(ValueError, match=r"(h0|c0|hx.*): expected shape"):
                run(x, states(rows))
    hx = states(3)
    assert torch.equal(compiled(x, hx)[0].data, layer(x, hx)[0].data)


class Quantized(nn.Module):
    def __init__(self, kind, *types) -> None:
        super().__init__()
        self.rnn = quantize(kind(6, 5, 2, bidirectional=True), *types)

    def forward(self, x, lengths):
        return self.rnn(x, lengths=lengths)


def export(module: nn.Module) -> torch.export.ExportedProgram:
    """With dynamic numbers of rows and frames."""
    rows, frames = Dim("rows", min=1, max=100), Dim("frames", min=4, max=1000)
    return torch.export.export(module, inputs("TN6", 3, 7), dynamic_shapes=({0: frames, 1: rows}, {0: rows}))


FORMATS = pytest.mark.parametrize("types", [("int8",), ("bf16",), ("int8", "int8")], ids="/".join)


@FORMATS
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_quantised_layers_compile_and_export(kind, types):
    module = Quantized(kind, *types).eval()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    exported = export(module).module()
    with torch.no_grad():
        for batch, steps in SIZES:
            arguments = inputs("TN6", batch, steps)
            expected = flat(module(*arguments))
            for other in (compiled, exported):
                assert all(map(torch.equal, flat(other(*arguments)), expected))
        # Packed at each run: weights of today.
        module.rnn.weight_hh_l0.zero_()
        assert all(map(torch.equal, flat(compiled(*arguments)), flat(module(*arguments))))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_quantised_layers_under_autocast(kind):
    module, (x, lengths) = Quantized(kind, "int8").eval(), inputs("TN6", 3, 7)
    with torch.autocast("cpu", torch.bfloat16):
        output = flat(module(x.bfloat16(), lengths))[0]
    expected = flat(module(x.bfloat16().float(), lengths))[0]
    torch.testing.assert_close(output.float(), expected, rtol=0.01, atol=0.01)


class Everything(nn.Module):
    """Layers in float32 and a quantised one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = MaskConv(
            nn.Sequential(
                nn.Conv2d(1, 3, (4, 3), stride=(2, 1), padding=(2, 1)), nn.BatchNorm2d(3), nn.ReLU()
            )
        )
        self.gru = quantize(nn.GRU(12, 5, 2, bidirectional=True), "int8", "int8")
        self.lstm = LSTM(10, 4, bidirectional=True)
        self.batch_rnn = BatchRNN(8, 5, GRU)
        self.norm = MaskedBatchNorm1d(5, layout="TNC", activation=(-1.0, 1.0))
        self.pyramid = PyramidalRNN(6, 3)
        self.rows = SequenceWise(nn.Linear(5, 4))
        self.lookahead = Lookahead(4, 2)

    def forward(self, x, lengths):
        halves = self.pyramid(x.transpose(0, 1), lengths)
        x, lengths = self.conv(x.permute(1, 2, 0)[:, None], input_lengths=lengths)
        x, _ = self.gru(x.flatten(1, 2).permute(2, 0, 1), lengths=lengths)
        x, state = self.lstm(x, lengths=lengths)
        x, _ = self.batch_rnn(x, lengths)
        return self.lookahead(self.rows(self.norm(x, lengths)), lengths), lengths, state, halves


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """The layers, what torch.export makes of them, and AOTInductor's file."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
        pytest.skip("torch.export before 2.13 does not see that min(frames, 4 * frames) is frames")
    torch.manual_seed(0)
    module = Everything().eval()
    exported = export(module)
    path = str(tmp_path_factory.mktemp("aotinductor") / "model.pt2")
    return module, exported, torch._inductor.aoti_compile_and_package(exported, package_path=path)


def test_layers_through_aotinductor(packaged):
    module, _, path = packaged
    loaded = torch._inductor.aoti_load_package(path)
    for batch, steps in SIZES:
        arguments = inputs("TN6", batch, steps)
        with torch.no_grad():
            assert_same(loaded(*arguments), module(*arguments))


IN_A_FRESH_PROCESS = """
import sys
import torch, asrkern
arguments, expected = torch.load(sys.argv[1])
packaged = torch._inductor.aoti_load_package(sys.argv[2])
exported = torch.export.load(sys.argv[3]).module()
with torch.no_grad():
    for results in (packaged(*arguments), exported(*arguments)):
        torch.testing.assert_close(torch.utils._pytree.tree_leaves(results), expected, rtol=1e-5, atol=1e-6)
assert not {"asrkern.nn", "asrkern.models"} & set(sys.modules)
"""


def test_a_packaged_model_is_loaded_where_its_code_is_not(packaged, tmp_path):
    """By a process that knows asrkern's operations, and no layer."""
    module, exported, path = packaged
    paths = [tmp_path / "calls.pt", path, tmp_path / "exported.pt2"]
    arguments = inputs("TN6", *SIZES[-1])
    with torch.no_grad():
        torch.save((arguments, tree_leaves(module(*arguments))), paths[0])
    torch.export.save(exported, paths[2])
    # Not the package's folder, and no compiler.
    process = [sys.executable, "-c", IN_A_FRESH_PROCESS, *map(str, paths)]
    environment = {**os.environ, "PATH": "", "PYTHONPATH": str(Path(asrkern.__file__).parents[1])}
    done = subprocess.run(process, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_packaged_model_is_run_from_cpp(packaged, tmp_path):
    """By docs/torch_features.md's program and commands."""
    _, _, path = packaged
    page = (ROOT / "docs/torch_features.md").read_text("utf-8")
    [program] = re.findall(r"^```cpp\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [*commands, run] = re.findall(r"^((?:torch|operations)=.*|c\+\+ .*|\./run .*)$", page, re.MULTILINE)
    (tmp_path / "run.cpp").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(asrkern.__file__).parents[1])}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    subprocess.run("set -e\n" + "\n".join(commands), shell=True, cwd=tmp_path, env=environment, check=True)
    shutil.copy(path, tmp_path)
    for batch, steps in SIZES:
        arguments = inputs("TN6", batch, steps)
        torch.save(arguments, tmp_path / "inputs.pt")
        subprocess.run("\n".join((*commands[:2], run)), shell=True, cwd=tmp_path, env=environment, check=True)
        expected = tree_leaves(torch._inductor.aoti_load_package(path)(*arguments))
        got = torch.load(tmp_path / "outputs.pt")
        assert len(got) == len(expected)
        for ours, theirs in zip(got, expected):
            assert_same_bits(ours, theirs)
    # Without asrkern's operations the package is refused by their name.
    subprocess.run(["c++", "-shared", "-x", "c++", os.devnull, "-o", tmp_path / "empty.so"], check=True)
    done = subprocess.run(
        ["./run", "./empty.so", "model.pt2", "inputs.pt", "none.pt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "asrkern::" in done.stderr and not (tmp_path / "none.pt").exists()


@pytest.mark.parametrize("bias", [True, False])
@FORMATS
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.GRUCell, nn.LSTMCell, nn.Linear])
def test_quantised_layers_are_exported_by_themselves(kind, types, bias):
    layer = quantize(kind(5, 7, bias=bias), *types)
    x = torch.randn(4, 2, 5) if kind in (nn.GRU, nn.LSTM, nn.Linear) else torch.randn(4, 5)
    with torch.no_grad():
        exported = torch.export.export(layer, (x,)).module()
        for got, expected in zip(tree_leaves(exported(x)), tree_leaves(layer(x)), strict=True):
            assert_same_bits(got, expected)
