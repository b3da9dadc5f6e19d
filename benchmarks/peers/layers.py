"""The same layers in stock torch, ONNX Runtime, OpenVINO and asrkern on the CPU: times, and their ratios.

    python benchmarks/peers/layers.py --quick

Weights and inputs are the same for every backend, and outputs are compared before anything is timed: a row in
which one differs from stock torch has no times, and the exit status is 1. Each round runs every backend once,
another one first each time. Runtimes that are not installed are named and left out: ``pip install 'asrkern[peers]'``.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asrkern
from asrkern.models import DeepSpeech2, DeepSpeech2Config
from asrkern.nn import convert, quantize
from benchmarks import rtf
from benchmarks._report import Progress, command_line, markdown_table, milliseconds, section, write_sections
from benchmarks._timing import interleaved, machine, peak_memory_mib, relative_error
from benchmarks.models._deepspeech2_twin import stock_deepspeech2
from benchmarks.ops.batch_norm_act import BatchNormAct
from benchmarks.peers._runtimes import (
    ASRKERN,
    COMPILED,
    FEWER_BITS,
    PACKED,
    QUANTIZED,
    RUNTIMES,
    TORCH,
    Backend,
    Call,
    installed,
    not_installed,
    onnx_conv_stack,
    onnx_export,
    rnn_backends,
    rnn_forward,
)
from benchmarks.shapes import (
    BATCH_NORM_ACT,
    GRU_INFERENCE,
    GRU_TRAINING,
    LSTM_INFERENCE,
    LSTM_TRAINING,
    BatchNormShape,
    RecurrentShape,
)
from tests.models.stock_deepspeech2 import mask_frames

RESULTS = Path(__file__).parents[1] / "results" / "cpu.md"

# Relative to the largest value: for fp32, whose sums differ in their order only, and for weights of 8 bits of precision.
TOLERANCE = 1e-4

# At least so many rounds for each row, and more until the seconds are over.
FULL = {"rounds": 7, "seconds": 5.0}
QUICK = {"rounds": 5, "seconds": 2.0}

CPU = torch.device("cpu")


class ConvStack(NamedTuple):
    """10 s of audio through DeepSpeech2's two convolutions."""

    batch: int
    ragged: bool
    compiled: bool = True

    def __str__(self) -> str:
        return f"N={self.batch}, {'ragged' if self.ragged else 'equal'} lengths"


class WholeModel(NamedTuple):
    """A preset of DeepSpeech2 on a batch of equally long utterances."""

    preset: str
    batch: int
    frames: int
    hidden_size: int | None = None

    def __str__(self) -> str:
        return f"{self.preset} N={self.batch}, {self.frames / 100:.0f} s"


class BatchNorm(NamedTuple):
    shape: BatchNormShape
    backward: bool

    def __str__(self) -> str:
        return f"{self.shape}, {'forward + backward' if self.backward else 'forward'}"


@dataclass(frozen=True)
class Group:
    """One table: ``backends`` of a row's shape, stock torch first; what the rows are, in full and quick."""

    title: str
    backends: Callable[[Any], dict[str, Backend]]
    rows: Sequence[Any]
    quick: Sequence[Any]
    memory: bool = False
    rounds: int | None = None  # in place of FULL's, where the slowest backend takes long


def rnn(
    shape: RecurrentShape, kind: type[nn.RNNBase], ragged: bool = False, quantized: bool = False
) -> dict[str, Backend]:
    torch.manual_seed(0)
    module = kind(shape.hidden_size, shape.hidden_size, bidirectional=True).eval()
    x = torch.randn(shape.steps, shape.batch, shape.hidden_size)
    lengths = None
    if ragged:
        # Evenly spread, as a uniform distribution is: random ones make a batch lighter or heavier by chance.
        spread = torch.linspace(shape.steps / 4, shape.steps, shape.batch).round().long()
        lengths = spread[torch.randperm(shape.batch)]
    return rnn_backends(module, x, lengths, quantized)


def rnn_training(shape: RecurrentShape, kind: type[nn.RNNBase]) -> dict[str, Backend]:
    torch.manual_seed(0)
    module = kind(shape.hidden_size, shape.hidden_size, shape.layers, bidirectional=True)
    x = torch.randn(shape.steps, shape.batch, shape.hidden_size, requires_grad=True)
    lengths = torch.randint(shape.steps // 2, shape.steps + 1, (shape.batch,))
    gradient = torch.randn(shape.steps, shape.batch, 2 * shape.hidden_size)
    inputs = [x, *module.parameters()]

    def stock() -> Call:
        return lambda: torch.autograd.grad(rnn_forward(module, x, lengths), inputs, gradient)

    def asrkern() -> Call:
        layer = convert(module).model
        return lambda: torch.autograd.grad(layer(x, lengths=lengths)[0], inputs, gradient)

    return {TORCH: stock, ASRKERN: asrkern}


def conv(shape: ConvStack) -> dict[str, Backend]:
    torch.manual_seed(0)
    model = DeepSpeech2(DeepSpeech2Config(hidden_size=8, num_layers=1, rnn_type="gru"))
    frames = 1001
    lengths = torch.full((shape.batch,), frames)
    if shape.ragged:
        lengths = torch.randint(frames // 4, frames + 1, (shape.batch,))
    x = mask_frames(torch.randn(shape.batch, 1, model.config.n_freq, frames), lengths)
    rtf.calibrate(model, nn.Identity(), list(x[:, 0]))
    twin = stock_deepspeech2(model)

    def stage(run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Call:
        return torch.inference_mode()(lambda: [run(x, lengths)[0]])

    inputs = {"x": x}
    if shape.ragged:
        # Made beforehand: exported models pay for no more than multiplying by them.
        after = mask_frames(torch.ones(shape.batch, 1, 1, frames // 2 + 1), (lengths - 1) // 2 + 1)
        inputs["before"] = mask_frames(torch.ones(shape.batch, 1, 1, frames), lengths)
        inputs["between"] = inputs["after"] = after

    def exported(runtime: Callable[..., Call]) -> Backend:
        return lambda: runtime(onnx_conv_stack(twin.conv.seq_module, inputs), inputs)

    backends = {TORCH: lambda: stage(twin.conv_stage)}
    if shape.compiled:
        backends[COMPILED] = lambda: stage(torch.compile(twin.conv_stage))
    backends |= {name: exported(runtime) for name, runtime in installed().items()}
    return {**backends, ASRKERN: lambda: stage(model.conv_stage)}


def deepspeech2(row: WholeModel) -> dict[str, Backend]:
    torch.manual_seed(0)
    options = {} if row.hidden_size is None else {"hidden_size": row.hidden_size}
    model = DeepSpeech2.preset(row.preset, **options)
    lengths = torch.full((row.batch,), row.frames)
    x = torch.randn(row.batch, 1, model.config.n_freq, row.frames)
    rtf.calibrate(model, nn.Identity(), list(x[:, 0]))

    def call(run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Call:
        return torch.inference_mode()(lambda: [run(x, lengths)[0]])

    def stock(packed: bool) -> nn.Module:
        twin = stock_deepspeech2(model)
        twin.packed = packed
        return twin

    def exported(runtime: Callable[..., Call]) -> Backend:
        return lambda: runtime(onnx_export(_OfEqualLengths(stock(False), lengths), x), {"x": x})

    peers = {name: exported(runtime) for name, runtime in installed().items()}
    fewer_bits = {
        name: lambda types=types: call(quantize(model, *types)) for name, types in QUANTIZED.items()
    }
    return {
        TORCH: lambda: call(stock(False)),
        PACKED: lambda: call(stock(True)),
        **peers,
        ASRKERN: lambda: call(model.eval()),
        **fewer_bits,
    }


class _OfEqualLengths(nn.Module):
    def __init__(self, model: nn.Module, lengths: Tensor) -> None:
        super().__init__()
        self.model, self.lengths = model, lengths

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.lengths)[0]


def batch_norm(row: BatchNorm) -> dict[str, Backend]:
    case = BatchNormAct(row.shape, stats="padded")
    if not row.backward:

        def forward(run: Callable[..., Tensor]) -> Call:
            return torch.inference_mode()(lambda: [run(training=True)])

        return {TORCH: lambda: forward(case.stock), ASRKERN: lambda: forward(case.asrkern)}
    inputs, gradient = [x.requires_grad_() for x in case.inputs], case.output_gradient()

    def step(run: Callable[..., Tensor]) -> Call:
        return lambda: torch.autograd.grad(run(training=True), inputs, gradient)

    return {TORCH: lambda: step(case.stock), ASRKERN: lambda: step(case.asrkern)}


CONV = [ConvStack(1, ragged=False), ConvStack(8, ragged=False), ConvStack(8, ragged=True)]
BATCH_NORM = [BatchNorm(shape, backward) for shape in BATCH_NORM_ACT for backward in (False, True)]
GRU_RAGGED = [shape for shape in GRU_INFERENCE if shape.batch == 16]
LSTM_RAGGED = [shape for shape in LSTM_INFERENCE if shape.batch > 1]
INT8 = [
    shape for shape in GRU_INFERENCE if (shape.hidden_size, shape.batch) in ((1024, 1), (1024, 16), (512, 16))
]
LARGE = [shape for shape in GRU_INFERENCE if shape.hidden_size == 2560 and shape.batch < 16]
WHOLE = [WholeModel("mlperf", 1, 300), WholeModel("mlperf", 4, 300)]
GRU, LSTM = {"kind": nn.GRU}, {"kind": nn.LSTM}

GROUPS = {
    "gru": Group(
        "BiGRU forward, equal lengths; torch: padded",
        functools.partial(rnn, **GRU),
        GRU_INFERENCE,
        [shape for shape in GRU_INFERENCE if shape.batch == 1 or shape.hidden_size == 512],
    ),
    "gru-ragged": Group(
        "BiGRU forward, lengths between T/4 and T; torch: packed",
        functools.partial(rnn, **GRU, ragged=True),
        GRU_RAGGED,
        GRU_RAGGED[:2],
    ),
    "gru-quantized": Group(
        "BiGRU forward in fewer bits, equal lengths; torch: padded",
        functools.partial(rnn, **GRU, quantized=True),
        [*INT8, *LARGE],
        [*INT8[:1], *LARGE[:1]],
    ),
    "gru-train": Group(
        "BiGRU forward + backward, lengths between T/2 and T; torch: packed",
        functools.partial(rnn_training, **GRU),
        GRU_TRAINING,
        GRU_TRAINING,
        memory=True,
    ),
    "lstm": Group(
        "BiLSTM forward, equal lengths; torch: padded",
        functools.partial(rnn, **LSTM),
        LSTM_INFERENCE,
        [LSTM_INFERENCE[0]],
    ),
    "lstm-ragged": Group(
        "BiLSTM forward, lengths between T/4 and T; torch: packed",
        functools.partial(rnn, **LSTM, ragged=True),
        LSTM_RAGGED,
        LSTM_RAGGED[:1],
    ),
    "lstm-quantized": Group(
        "BiLSTM forward in fewer bits, equal lengths; torch: padded",
        functools.partial(rnn, **LSTM, quantized=True),
        INT8,
        INT8[:1],
    ),
    "lstm-train": Group(
        "BiLSTM forward + backward, lengths between T/2 and T; torch: packed",
        functools.partial(rnn_training, **LSTM),
        LSTM_TRAINING,
        [LSTM_TRAINING[-1]],
        memory=True,
        rounds=3,
    ),
    "conv": Group(
        "DeepSpeech2's masked convolutions with BatchNorm and Hardtanh, 10 s, inference",
        conv,
        CONV,
        [row._replace(compiled=False) for row in CONV],
    ),
    "deepspeech2": Group("DeepSpeech2, features to log-probabilities", deepspeech2, WHOLE, WHOLE[:1]),
    "bn": Group(
        "BatchNorm (training, statistics of all frames), Hardtanh, mask",
        batch_norm,
        BATCH_NORM,
        BATCH_NORM,
    ),
}

# Not in the tables, for the reason given.
LEFT_OUT = {"torch.compile of nn.GRU": "dynamo runs the module as it is, uncompiled"}


def prepare_alone(group: str, row: Any, backend: str, threads: int) -> Call:
    """In a new process: one backend of one row."""
    torch.set_num_threads(threads)
    return GROUPS[group].backends(row)[backend]()


def measure(name: str, row: Any, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Compare, then time, then measure memory if the group asks for it; ``times`` is missing after a failure."""
    group = GROUPS[name]
    calls = {backend: prepare() for backend, prepare in group.backends(row).items()}
    expected = calls[TORCH]()
    errors = {backend: relative_error(expected, call()) for backend, call in calls.items()}
    found: dict[str, Any] = {"row": row, "errors": errors}
    if not wrong(errors):
        found["times"] = interleaved(calls, rounds=rounds, seconds=seconds)
        if group.memory:
            found["memory"] = {
                backend: peak_memory_mib(CPU, prepare_alone, name, row, backend, torch.get_num_threads())
                for backend in errors
            }
    return found


def wrong(errors: dict[str, float]) -> dict[str, float]:
    """The errors that are over their tolerance."""
    return {name: error for name, error in errors.items() if not error <= FEWER_BITS.get(name, TOLERANCE)}


def table_row(found: dict[str, Any]) -> dict[str, str]:
    """The cells of one row by the header of their columns."""
    errors = found["errors"]
    cells = {"": str(found["row"])}
    if "times" not in found:
        failed = ", ".join(f"{name} {error:.0e}" for name, error in wrong(errors).items())
        return cells | {"largest error": f"FAILED: {failed}"}
    medians = {name: median(times) for name, times in found["times"].items()}
    cells |= {f"{name} ms": milliseconds(times) for name, times in found["times"].items()}
    for name, mib in found.get("memory", {}).items():
        cells[f"{name} MiB"] = f"{mib:.0f}"
    ours = [name for name in medians if name == ASRKERN or name in QUANTIZED]
    best = min(time for name, time in medians.items() if name not in ours)
    cells["rounds"] = str(len(found["times"][ASRKERN]))
    cells["largest error"] = f"{max(error for name, error in errors.items() if name not in FEWER_BITS):.0e}"
    for name in errors:
        if name in FEWER_BITS:
            cells[f"{name} error"] = f"{errors[name]:.0e}"
    for name in ours:
        cells[f"best peer / {name}"] = f"{best / medians[name]:.2f}"
        cells[f"torch / {name}"] = f"{medians[TORCH] / medians[name]:.2f}"
    return cells


def describe(script: str, argv: Sequence[str]) -> str:
    """The command, and all that its figures depend on."""
    about = machine(CPU)
    versions = [f"{name} {version(RUNTIMES[name].package)}" for name in installed()]
    return (
        f"`{command_line(f'benchmarks/peers/{script}', argv)}` on {about['cpu']}, {about['threads']} threads: "
        + ", ".join(
            [
                f"torch {about['torch']} ({about['torch_isa']})",
                *versions,
                f"asrkern {asrkern.__version__} ({about['asrkern_isa']})",
            ]
        )
        + ". Milliseconds: median (least..most)."
    )


def write(sections: dict[str, str]) -> None:
    """Put these into RESULTS, in place of those before."""
    write_sections(RESULTS, [group.title for group in GROUPS.values()], sections)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    def groups(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in GROUPS]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(GROUPS)}, received {unknown[0]!r}")
        return names

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rows and rounds; under 5 minutes on 2 cores"
    )
    parser.add_argument(
        "--only", type=groups, default=list(GROUPS), metavar="GROUP[,GROUP]", help=", ".join(GROUPS)
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the tables into benchmarks/results/cpu.md, in place of those before",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if an output differed."""
    arguments = parse_arguments(argv)
    sections, passed = {}, True
    for name in arguments.only:
        group, progress = GROUPS[name], Progress()
        rows = group.quick if arguments.quick else group.rows
        progress.start(name, len(rows))
        results = []
        effort = QUICK if arguments.quick else FULL
        if group.rounds is not None:
            effort = {**effort, "rounds": min(group.rounds, effort["rounds"])}
        for row in rows:
            results.append(measure(name, row, **effort))
            progress.step()
        progress.end()
        table = markdown_table([table_row(found) for found in results])
        sections[group.title] = f"{describe('layers.py', argv)}\n\n{table}"
        print(section(group.title, sections[group.title]), flush=True)
        passed = passed and all("times" in found for found in results)
    for name, reason in {**LEFT_OUT, **not_installed()}.items():
        print(f"Left out: {name} ({reason}).")
    if not passed:
        print(
            f"FAILED: an output differs from torch's by more than {TOLERANCE:.0e} of its largest value, "
            "or more than _runtimes.FEWER_BITS says with fewer bits."
        )
    if arguments.write:
        write(sections)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
