"""What ``gpu_bench.py`` times, prepared: asrkern's GPU kernels beside torch's, on the same random inputs.

Each has an arithmetic: fp32 is exact float32, tf32 float32 rounded to TF32 in products, bf16 bfloat16
weights and inputs. What is expected is computed in float64 by torch from the same (rounded) weights and inputs.
"""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern import ops
from asrkern.decoder import CTCBeamDecoder, NGramLM
from asrkern.models import DeepSpeech2, DeepSpeech2Config
from asrkern.ops.batch_norm_act import _composed as composed_batch_norm_act
from benchmarks._timing import relative_error
from benchmarks.models._deepspeech2_twin import stock_deepspeech2
from benchmarks.shapes import ConvShape
from tests.models.stock_deepspeech2 import LABELS, StockDeepSpeech2, mask_frames

DEVICE = "cuda"
Call = Callable[[], Any]
Stage = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ASRKERN, PADDED, PACKED, EAGER, COMPILED = "asrkern", "padded", "packed", "eager", "torch.compile"
FRAMES_PER_SECOND = {"features": 100, "log-probabilities": 50}


class Arithmetic(NamedTuple):
    """dtype of weights and inputs; tf32: products of float32 are rounded; largest relative errors allowed."""

    dtype: torch.dtype
    tf32: bool
    forward: float
    backward: float


ARITHMETIC = {
    "bf16": Arithmetic(torch.bfloat16, False, 2e-2, 4e-2),
    "tf32": Arithmetic(torch.float32, True, 2e-3, 5e-3),
    "fp32": Arithmetic(torch.float32, False, 1e-5, 1e-4),
}


@dataclass(frozen=True)
class Backend:
    """One implementation.

    calls: the computation on each set of inputs; outputs: makes what is compared of what a call returns; graph:
    whether it can be captured as a CUDA graph; host: it ends on the host, whose clock counts.
    """

    calls: Sequence[Call]
    outputs: Callable[[Any], Sequence[Tensor]] = lambda result: [result]
    graph: bool = True
    host: bool = False


@dataclass(frozen=True)
class Case:
    """One row, prepared.

    Attributes:
        backends: asrkern's first.
        expected: of the first set of inputs.
        kernels: asrkern's, of ``_gpu_kernels.KERNELS``, that have to run for the row to count.
        tolerance: the largest error allowed.
        error: of outputs, given what is expected.
        floor_bytes: fewest bytes that have to be read and written.
        audio_seconds: speech in the batch.
    """

    backends: dict[str, Backend]
    expected: Sequence[Tensor]
    kernels: tuple[str, ...]
    tolerance: float
    error: Callable[[Sequence[Tensor], Sequence[Tensor]], float] = relative_error
    floor_bytes: float | None = None
    audio_seconds: float | None = None


def spread_lengths(batch: int, longest: int) -> Tensor:
    """Lengths evenly between a quarter of the longest and the longest, in random order, on the device."""
    lengths = (
        torch.linspace(longest / 4, longest, batch).round().long() if batch > 1 else torch.tensor([longest])
    )
    return lengths[torch.randperm(batch)].to(DEVICE)


def gru(size: int, batch: int, ragged: bool, backward: bool, steps: int, at: Arithmetic) -> Case:
    """A bidirectional layer as wide as its input. cuDNN gets sequences that are packed already."""
    module = nn.GRU(size, size, bidirectional=True, device=DEVICE, dtype=at.dtype)
    x = torch.randn(steps, batch, size, device=DEVICE, dtype=at.dtype)
    lengths = spread_lengths(batch, steps) if ragged else torch.full((batch,), steps, device=DEVICE)
    seed = torch.randn(steps, batch, 2 * size, device=DEVICE, dtype=at.dtype)
    shown = lengths.cpu()
    # Gradients of padding are nothing that torch's packed layers can be given.
    seed *= (torch.arange(steps, device=DEVICE)[:, None] < lengths)[..., None]

    def packed(module: nn.GRU, x: Tensor, *seeds: Tensor) -> Backend:
        data = pack_padded_sequence(x, shown, enforce_sorted=False)
        if backward:
            leaf = data._replace(data=data.data.detach().requires_grad_())
            seed = pack_padded_sequence(seeds[0], shown, enforce_sorted=False).data

            def step() -> list[Tensor]:
                return _gradients(module(leaf)[0].data, [leaf.data, *module.parameters()], seed)

            def outputs(found: Sequence[Tensor]) -> list[Tensor]:
                return [pad_packed_sequence(data._replace(data=found[0]), total_length=steps)[0], *found[1:]]

            return Backend([step], outputs, graph=False)
        forward = torch.inference_mode()(lambda: module(data)[0])
        return Backend(
            [forward], lambda found: [pad_packed_sequence(found, total_length=steps)[0]], graph=False
        )

    def whole(layer: Callable[[Tensor], Tensor]) -> Backend:
        if not backward:
            return Backend([torch.inference_mode()(lambda: layer(x))])
        leaf = x.detach().requires_grad_()
        return Backend([lambda: _gradients(layer(leaf), [leaf, *module.parameters()], seed)], list)

    def asrkern(x: Tensor) -> Tensor:
        return ops.gru(x, *module.all_weights, lengths=lengths if ragged else None)[0]

    exact = packed(copy.deepcopy(module).double(), x.double(), seed.double())
    backends = {ASRKERN: whole(asrkern), PACKED: packed(module, x, seed)}
    if not ragged:
        # With lengths it would compute something else: the reverse direction would begin in the padding.
        backends[PADDED] = whole(lambda x: module(x)[0])
    return Case(
        backends,
        exact.outputs(exact.calls[0]()),
        ("gru_forward", "gru_backward") if backward else ("gru_forward",),
        at.backward if backward else at.forward,
    )


def _gradients(output: Tensor, inputs: Sequence[Tensor], seed: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output, inputs, seed))


def calibrate(twin: StockDeepSpeech2, features: Tensor, lengths: Tensor) -> None:
    """Give the BatchNorms the statistics of a batch, so that activations have realistic sizes; torch's layers only."""
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        twin(features, lengths)
    twin.eval()


def deepspeech2_pair(
    model: DeepSpeech2, batch: int, ragged: bool, frames: int, at: Arithmetic
) -> tuple[DeepSpeech2, StockDeepSpeech2, StockDeepSpeech2, Tensor, Tensor]:
    """(model, its twin in torch, the twin in float64, features [N, 1, F, T], lengths [N]) on the device."""
    lengths = spread_lengths(batch, frames) if ragged else torch.full((batch,), frames, device=DEVICE)
    x = mask_frames(torch.randn(batch, 1, model.config.n_freq, frames, device=DEVICE), lengths)
    model = model.to(DEVICE).eval()
    calibrate(stock_deepspeech2(model), x, lengths)
    model, x = model.to(at.dtype), x.to(at.dtype)
    twin = stock_deepspeech2(model)
    return model, twin, copy.deepcopy(twin).double(), x, lengths


def conv(batch: int, ragged: bool, compiled: bool, frames: int, at: Arithmetic) -> Case:
    """DeepSpeech2's two convolutions with BatchNorm and Hardtanh; the mask is made on the device by all."""
    small = DeepSpeech2(DeepSpeech2Config(hidden_size=8, num_layers=1, rnn_type="gru"))
    model, twin, exact, x, lengths = deepspeech2_pair(small, batch, ragged, frames, at)
    inputs = [x, x.roll(1, 0) if batch > 1 else x.clone()]

    def backend(stage: Stage) -> Backend:
        return Backend([torch.inference_mode()(lambda x=x: stage(x, lengths)[0]) for x in inputs])

    backends = {ASRKERN: backend(model.conv_stage), EAGER: backend(twin.conv_stage)}
    if compiled:
        backends[COMPILED] = backend(torch.compile(twin.conv_stage, dynamic=False))
    with torch.inference_mode():
        expected = [exact.conv_stage(x.double(), lengths)[0]]
    return Case(backends, expected, ("masked_conv2d",), at.forward)


def conv_training(batch: int, compiled: bool, frames: int, at: Arithmetic) -> Case:
    """Forward and backward of the same in training. Lengths are equal: torch would count padding in its statistics."""
    small = DeepSpeech2(DeepSpeech2Config(hidden_size=8, num_layers=1, rnn_type="gru"))
    model, twin, exact, x, lengths = deepspeech2_pair(small, batch, False, frames, at)
    for module in (model, twin, exact):
        module.train()
    with torch.no_grad():
        output, _ = exact.conv_stage(x.double(), lengths)
    seed = torch.randn_like(output).to(at.dtype)
    for bound in (0.0, 20.0):
        # Where rounding may decide on which side of a kink a value is, and where all of the gradient is 0.
        seed.masked_fill_((output - bound).abs() < 20 * at.forward, 0)

    def backend(model: DeepSpeech2 | StockDeepSpeech2, x: Tensor, compiled: bool = False) -> Backend:
        # Not the convolutions' biases, which BatchNorm takes away again: their gradient is 0 but for rounding.
        biases = {id(module.bias) for module in model.conv.modules() if isinstance(module, nn.Conv2d)}
        parameters = [p for p in model.conv.parameters() if id(p) not in biases]
        stage = torch.compile(model.conv_stage, dynamic=False) if compiled else model.conv_stage
        return Backend([lambda: _gradients(stage(x, lengths)[0], parameters, seed.to(x.dtype))], list)

    backends = {ASRKERN: backend(model, x), EAGER: backend(twin, x)}
    if compiled:
        backends[COMPILED] = backend(twin, x, compiled=True)
    expected = backend(exact, x.double()).calls[0]()
    return Case(backends, expected, ("masked_conv2d", "batch_norm_act"), at.backward)


def conv_tiles(shape: ConvShape, at: Arithmetic) -> Case:
    """One convolution with each of the tiles that its launcher has: which are to be the default?"""
    from asrkern.ops import _masked_conv2d_cuda as launcher  # needs Triton

    lengths = spread_lengths(shape.batch, shape.frames)
    size = (shape.batch, shape.in_channels, shape.bins, shape.frames)
    x = torch.randn(size, device=DEVICE).to(at.dtype)
    taps = shape.in_channels * shape.kernel[0] * shape.kernel[1]
    weight = (torch.randn(shape.out_channels, *size[1:2], *shape.kernel, device=DEVICE) / taps**0.5).to(
        at.dtype
    )
    options = {
        "lengths": lengths,
        "stride": shape.stride,
        "padding": shape.padding,
        "activation": (0.0, 20.0),
    }

    def tiled(config: Any) -> Call:
        geometry = (lengths, None, list(shape.stride), list(shape.padding), 0.0, 20.0)
        return lambda: launcher.run(x, weight, None, None, None, *geometry, config=config)[0]

    precision = launcher.product_precision(at.dtype)
    configs = [c for (of, _), choices in launcher.CONFIGS.items() if of == precision for c in choices]
    backends = {ASRKERN: Backend([lambda: ops.masked_conv2d(x, weight, **options)])}
    backends |= {"x".join(map(str, config)): Backend([tiled(config)]) for config in configs}
    expected = [ops.masked_conv2d(x.double(), weight.double(), **options)]
    return Case(backends, expected, ("masked_conv2d",), at.forward)


class BatchNorm(NamedTuple):
    """A tensor whose dimensions are named by layout; C, T and N are in that order, F where it has one."""

    layout: str
    size: tuple[int, ...]
    activation: tuple[float, float] | None


def batch_norm(shape: BatchNorm, mode: str, compiled: bool, at: Arithmetic) -> Case:
    """mode: "eval", "training" (forward) or "backward" (forward and backward in training); all lengths differ."""
    axes = {name: shape.layout.index(name) for name in "NCT"}
    channels, frames = shape.size[axes["C"]], shape.size[axes["T"]]
    lengths = spread_lengths(shape.size[axes["N"]], frames)
    weight, bias, mean, var = (torch.rand(4, channels) + 0.5).to(DEVICE, at.dtype)
    inputs = [torch.randn(shape.size, device=DEVICE).add_(1).to(at.dtype) for _ in range(2)]
    low, high = shape.activation or (-torch.inf, torch.inf)
    training = mode != "eval"

    def asrkern(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options = {"layout": shape.layout, "training": training, "activation": shape.activation}
        return ops.batch_norm_act(x, weight, bias, mean, var, lengths, **options).output

    def stock(x: Tensor, weight: Tensor, bias: Tensor, bounds: tuple[float, float] = (low, high)) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = [t.to(dtype) for t in (x, weight, bias, mean, var)]
        options = (lengths, shape.layout, training, False, 1e-5, *bounds)
        return composed_batch_norm_act(*wide, *options)[0].to(x.dtype)

    doubles = [t.double() for t in (inputs[0], weight, bias)]
    seed = torch.randn(shape.size, device=DEVICE).to(at.dtype)
    for bound in shape.activation or ():
        # Where rounding may decide on which side of a kink a value is.
        near = (stock(*doubles, bounds=(-torch.inf, torch.inf)) - bound).abs() < 20 * at.forward
        seed.masked_fill_(near, 0)

    def backend(function: Callable[..., Tensor], inputs: Sequence[Tensor], *parameters: Tensor) -> Backend:
        if mode != "backward":
            calls = [torch.inference_mode()(lambda x=x: function(x, *parameters)) for x in inputs]
            return Backend(calls)
        leaves = [[t.detach().requires_grad_() for t in (x, *parameters)] for x in inputs]
        return Backend(
            [
                lambda leaves=leaves: _gradients(function(*leaves), leaves, seed.to(leaves[0].dtype))
                for leaves in leaves
            ],
            list,
        )

    backends = {ASRKERN: backend(asrkern, inputs, weight, bias), EAGER: backend(stock, inputs, weight, bias)}
    if compiled:
        backends[COMPILED] = backend(torch.compile(stock, dynamic=False), inputs, weight, bias)
    exact = backend(stock, doubles[:1], *doubles[1:])
    values = inputs[0].numel()
    valid = values * float(lengths.sum()) / (len(lengths) * frames)
    # Passes over memory: eval reads and writes; training reads twice; backward reads input and gradient twice.
    reads, writes = {"eval": (1, 1), "training": (2, 1), "backward": (6, 2)}[mode]
    return Case(
        backends,
        exact.outputs(exact.calls[0]()),
        ("batch_norm_act",),
        at.backward if mode == "backward" else at.forward,
        floor_bytes=(reads * valid + writes * values) * inputs[0].element_size(),
    )


@functools.cache
def language_model(sentences: int) -> tuple[list[str], NGramLM]:
    """Sentences of 50 000 made-up words, frequent and rare, each often followed by the same few; and their 4-grams."""
    generator = random.Random(0)
    syllables = ["".join(pair) for pair in itertools.product("BDFGKLMNPRSTVZ", "AEIOU")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(50_000)]
    zipf = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
    text = []
    for _ in range(sentences):
        line = generator.choices(range(len(words)), cum_weights=zipf, k=12)
        for index in range(1, len(line)):
            if generator.random() < 0.6:
                line[index] = (line[index - 1] * 31 + generator.randint(0, 3)) % len(words)
        text.append(" ".join(words[word] for word in line))
    return text, NGramLM.estimate(text, order=4)


def spoken(lines: Sequence[str], frames: int) -> Tensor:
    """Log-probabilities [N, frames, V] as of a CTC model that heard these texts and is not always sure."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(len(lines), frames, len(LABELS), generator=generator)
    for row, line in enumerate(lines):
        for index, character in enumerate(line):
            frame = 3 * index
            if frame + 3 > frames:
                break
            scores[row, frame, LABELS.index(character)] += 7
            scores[row, frame + 1 : frame + 3, 0] += 9
            if torch.rand((), generator=generator) < 0.15:
                other = int(torch.randint(1, len(LABELS), (), generator=generator))
                scores[row, frame, other] += 7
        scores[row, 3 * len(line) :, 0] += 9
    return scores.log_softmax(-1)


def beam_search(batch: int, beam_width: int, frames: int, sentences: int, at: Arithmetic) -> Case:
    """CTC prefix beam search with a 4-gram word model; expected are the CPU's scores, to 1e-4."""
    text, lm = language_model(sentences)
    on_cpu = CTCBeamDecoder(LABELS, lm, beam_width=beam_width)
    decoder = on_cpu.to(DEVICE)
    log_probs = spoken([" ".join(text[3 * row : 3 * row + 3]) for row in range(batch)], frames)
    there = log_probs.to(DEVICE)

    def search() -> ops.CTCBeamSearchResult:
        return ops.ctc_beam_search(there, context=decoder.context, **decoder._options)

    def scores(found: list[list[Any]]) -> list[Tensor]:
        return [torch.tensor([hypotheses[0].score for hypotheses in found])]

    decode = {ASRKERN + ", with texts": (decoder, there), ASRKERN + " on the CPU": (on_cpu, log_probs)}
    return Case(
        {
            ASRKERN: Backend([search], lambda found: [found.scores[:, 0].cpu()]),
            **{
                name: Backend([lambda d=d, x=x: d.decode(x)], scores, host=True)
                for name, (d, x) in decode.items()
            },
        },
        scores(on_cpu.decode(log_probs)),
        ("ctc_beam_search",),
        1e-4,
        error=lambda expected, actual: float((expected[0] - actual[0]).abs().max()),
        audio_seconds=batch * frames / FRAMES_PER_SECOND["log-probabilities"],
    )


def deepspeech2(preset: str, batch: int, ragged: bool, frames: int, at: Arithmetic) -> Case:
    """Features to log-probabilities."""
    with torch.device(DEVICE):
        model = DeepSpeech2.preset(preset)
    model, twin, exact, x, lengths = deepspeech2_pair(model, batch, ragged, frames, at)

    def backend(run: Stage, graph: bool) -> Backend:
        return Backend([torch.inference_mode()(lambda: run(x, lengths)[0])], graph=graph)

    def valid(found: Tensor) -> list[Tensor]:
        shown = (lengths - 1) // 2 + 1
        return [found[torch.arange(found.shape[1], device=DEVICE) < shown[:, None]]]

    backends = {ASRKERN: backend(model, True), PACKED: backend(twin, False)}
    with torch.inference_mode():
        expected = valid(exact(x.double(), lengths)[0])
    return Case(
        {name: Backend(b.calls, valid, b.graph) for name, b in backends.items()},
        expected,
        ("masked_conv2d", "gru_forward"),
        at.forward,
        audio_seconds=float(lengths.sum()) / FRAMES_PER_SECOND["features"],
    )
