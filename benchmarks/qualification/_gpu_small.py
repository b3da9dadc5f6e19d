"""Runs one GPU kernel of asrkern on small, awkward shapes: ``python _gpu_small.py KERNEL``.

The first that a new device is asked, and what compute-sanitizer looks at. Each case is named before it runs, so that a
hang has a name, and compared with the same operation in float64 on the CPU (the beam search: with the CPU's). Frames
beyond a length hold NaN. The exit status is 1 if a case is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern import _library, ops
from asrkern.decoder import CTCBeamDecoder, NGramLM
from benchmarks._timing import relative_error

DEVICE = "cuda"
#: dtype → relative errors of outputs and of gradients.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (2e-2, 4e-2)}
HARDTANH = (0.0, 20.0)
#: (hidden_size, rows)
GRU_SHAPES = ((5, 1), (40, 3), (512, 9))
#: (bins, frames) of convolutions' inputs.
CONV_SIZE = (19, 37)


class Case(NamedTuple):
    """One shape. run: (device, dtype, None for the case's own) → what is compared."""

    name: str
    run: Callable[[str, torch.dtype | None], Sequence[Tensor]]
    tolerance: float


def padded(x: Tensor, lengths: Tensor, layout: str) -> Tensor:
    """x with NaN beyond each length; layout names its dimensions."""
    n, t = layout.index("N"), layout.index("T")
    beyond = torch.arange(x.shape[t]) >= lengths[:, None]
    shape = [size if axis in (n, t) else 1 for axis, size in enumerate(x.shape)]
    return x.masked_fill((beyond if n < t else beyond.t()).reshape(shape), float("nan"))


def gru(backward: bool) -> Iterator[Case]:
    steps, features = 7, 24
    for size, batch in GRU_SHAPES:
        lengths = torch.tensor([7, 0, 5, 2, 7, 1, 3, 6, 4][:batch])
        shapes = [(3 * size, features), (3 * size, size), (3 * size,), (3 * size,)] * 2
        weights = [torch.empty(shape).uniform_(-1, 1) / size**0.5 for shape in shapes]
        x = padded(torch.randn(steps, batch, features), lengths, "TNC")
        seeds = [torch.randn(steps, batch, 2 * size), torch.randn(2, batch, size)]
        for own, tolerances in TOLERANCES.items():
            tensors = [t.to(own) for t in (x, *weights)]

            def run(device: str, dtype: torch.dtype | None, tensors=tensors, seeds=seeds, lengths=lengths):
                leaves = [t.to(device, dtype).requires_grad_(backward) for t in tensors]
                found = ops.gru(leaves[0], leaves[1:5], leaves[5:], lengths=lengths.to(device))
                if backward:
                    return torch.autograd.grad(found, leaves, [s.to(f) for s, f in zip(seeds, found)])
                return found

            yield Case(f"H={size} N={batch} {own}", run, tolerances[backward])


def batch_norm_act() -> Iterator[Case]:
    lengths = torch.tensor([33, 0, 5])
    for layout, size in (("TNC", (33, 3, 37)), ("NCFT", (3, 5, 3, 33))):
        channels = size[layout.index("C")]
        x = padded(torch.randn(size) + 2, lengths, layout)
        parameters = [
            torch.randn(channels),
            torch.randn(channels),
            torch.randn(channels),
            torch.rand(channels) + 0.5,
        ]
        seed = torch.randn(size)
        for own, tolerances in TOLERANCES.items():
            tensors = [t.to(own) for t in (x, *parameters)]
            for training in (False, True):

                def run(device: str, dtype: torch.dtype | None, tensors=tensors, layout=layout, training=training,
                        seed=seed):  # fmt: skip
                    *leaves, mean, var = [t.to(device, dtype) for t in tensors]
                    leaves = [t.requires_grad_() for t in leaves]
                    args = (*leaves, mean, var, lengths.to(device))
                    options = {"layout": layout, "training": training}
                    clamped = ops.batch_norm_act(*args, activation=HARDTANH, **options)
                    free = ops.batch_norm_act(*args, **options).output
                    return [*clamped[:3], *torch.autograd.grad(free, leaves, seed.to(free))]

                yield Case(f"{layout} {'training' if training else 'eval'} {own}", run, tolerances[1])


def masked_conv2d() -> Iterator[Case]:
    bins, frames = CONV_SIZE
    lengths = torch.tensor([frames, 0, frames // 4])
    torch.backends.cudnn.allow_tf32 = False
    for channels, kernel, stride in ((1, (11, 5), (2, 2)), (32, (7, 3), (2, 1))):
        x = padded(torch.randn(3, channels, bins, frames), lengths, "NCFT")
        weight = torch.randn(32, channels, *kernel) / (channels * kernel[0] * kernel[1]) ** 0.5
        per_channel = [torch.randn(32), torch.rand(32) + 0.5, torch.randn(32)]
        for own, (tolerance, _) in TOLERANCES.items():
            tensors = [t.to(own) for t in (x, weight, *per_channel)]
            options = {"stride": stride, "padding": (kernel[0] // 2, kernel[1] // 2), "activation": HARDTANH}
            for operation in (ops.masked_conv2d, ops.masked_conv2d_batch_norm_act):

                def run(device: str, dtype: torch.dtype | None, tensors=tensors, options=options,
                        operation=operation):  # fmt: skip
                    found = operation(
                        *(t.to(device, dtype) for t in tensors), lengths=lengths.to(device), **options
                    )
                    return [found] if isinstance(found, Tensor) else found[:3]

                yield Case(f"{operation.__name__} C={channels} {own}", run, tolerance)


def ctc_beam_search() -> Iterator[Case]:
    labels = "_ abc"
    lm = NGramLM.estimate(["ab c abc", "c ab", "abc c c ab", "b a"] * 5, order=3, discount_fallback=True)
    log_probs = torch.randn(3, 23, len(labels)).mul_(3).log_softmax(-1)
    lengths = torch.tensor([23, 0, 11])
    for name, options in (
        ("no model", {}),
        ("words", {"lm": lm}),
        ("hotwords", {"lm": lm, "hotwords": ["abc"]}),
    ):
        decoder = CTCBeamDecoder(labels, beam_width=7, nbest=3, **options)

        def run(device: str, _: torch.dtype | None, decoder=decoder):
            there = decoder.to(device)
            found = ops.ctc_beam_search(
                log_probs.to(device), lengths.to(device), context=there.context, **there._options
            )
            return [found.scores[:, 0], found.tokens[:, 0], found.timesteps[:, 0]]

        yield Case(name, run, 1e-5)


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "gru_forward": lambda: gru(backward=False),
    "ctc_beam_search": ctc_beam_search,
    "masked_conv2d": masked_conv2d,
    "batch_norm_act": batch_norm_act,
    "gru_backward": lambda: gru(backward=True),
}


def error_of(case: Case) -> float:
    """The largest relative error of what a case returns; inf where something is NaN or has another shape."""
    expected, found = case.run("cpu", torch.float64), case.run(DEVICE, None)
    return relative_error([t.detach() for t in expected], [t.detach().cpu() for t in found])


def main(name: str) -> int:
    if not _library.cuda_kernel(name):
        print(f"{name} is off")
        return 1
    torch.manual_seed(0)
    errors: list[bool] = []
    for case in CASES[name]():
        print(f"{name} {case.name}: ", end="", flush=True)
        error = error_of(case)
        errors.append(not error <= case.tolerance)
        print(f"{error:.1e}" + (f" WRONG, allowed {case.tolerance:.0e}" if errors[-1] else ""), flush=True)
    print(f"{len(errors)} cases, {sum(errors)} wrong")
    return 1 if any(errors) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
