"""Runs one GPU kernel of asrkern on small, awkward shapes, for compute-sanitizer: ``python _gpu_small.py KERNEL``.

What comes out is tested elsewhere; here only that it is finite, so that it really ran to its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern import _library, ops
from asrkern.decoder import CTCBeamDecoder, NGramLM

DEVICE = "cuda"
DTYPES = (torch.bfloat16, torch.float32)


def tensor(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size).to(DEVICE, dtype)


def gru(backward: bool) -> list[Tensor]:
    found = []
    for dtype, size, batch in [(dtype, *shape) for dtype in DTYPES for shape in ((40, 3), (512, 9))]:
        shapes = [(3 * size, 24), (3 * size, size), (3 * size,), (3 * size,)]
        weights = [tensor(*shape, dtype=dtype).mul_(0.1).requires_grad_(backward) for shape in shapes * 2]
        lengths = torch.tensor([5, 0, 7, 2, 7, 1, 3, 6, 4][:batch], device=DEVICE)
        with torch.set_grad_enabled(backward):
            output, h_n = ops.gru(
                tensor(7, batch, 24, dtype=dtype), weights[:4], weights[4:], lengths=lengths
            )
        found += [output, h_n]
        if backward:
            found += torch.autograd.grad(output.float().sum() + h_n.float().sum(), weights)
    return found


def batch_norm_act() -> list[Tensor]:
    found = []
    lengths = torch.tensor([5, 0, 33], device=DEVICE)
    for dtype in DTYPES:
        for layout, size in (("NCFT", (3, 5, 3, 33)), ("TNC", (33, 3, 37))):
            channels = size[layout.index("C")]
            x = tensor(*size, dtype=dtype).requires_grad_()
            parameters = [tensor(channels, dtype=dtype).requires_grad_() for _ in range(2)]
            running = tensor(channels, dtype=dtype), tensor(channels, dtype=dtype).abs() + 0.5
            for training in (False, True):
                result = ops.batch_norm_act(
                    x,
                    *parameters,
                    *running,
                    lengths,
                    layout=layout,
                    training=training,
                    activation=(0.0, 20.0),
                )
                found += [*result[:3], *torch.autograd.grad(result.output.float().sum(), [x, *parameters])]
                with torch.no_grad():
                    found += ops.batch_norm_act(
                        x, *parameters, *running, lengths, layout=layout, training=training
                    )[:3]
    return found


def masked_conv2d() -> list[Tensor]:
    found = []
    lengths = torch.tensor([37, 0, 10], device=DEVICE)
    for dtype in DTYPES:
        for channels, kernel, stride in ((1, (11, 5), (2, 2)), (32, (7, 3), (2, 1))):
            x = tensor(3, channels, 19, 37, dtype=dtype)
            weight, *others = (tensor(32, *size, dtype=dtype) for size in ((channels, *kernel), (), (), ()))
            options = {
                "stride": stride,
                "padding": (kernel[0] // 2, kernel[1] // 2),
                "activation": (0.0, 20.0),
            }
            found.append(ops.masked_conv2d(x, weight, *others, lengths=lengths, **options))
            found += ops.masked_conv2d_batch_norm_act(x, weight, *others, lengths=lengths, **options)[:3]
    return found


def ctc_beam_search() -> list[Tensor]:
    labels = "_ abc"
    lm = NGramLM.estimate(["ab c abc", "c ab", "abc c c ab", "b a"] * 5, order=3, discount_fallback=True)
    log_probs = torch.randn(3, 23, len(labels)).mul_(3).log_softmax(-1).to(DEVICE)
    lengths = torch.tensor([23, 0, 11], device=DEVICE)
    found = []
    for options in ({}, {"lm": lm}, {"lm": lm, "hotwords": ["abc"]}):
        decoder = CTCBeamDecoder(labels, beam_width=7, nbest=3, **options).to(DEVICE)
        found.append(
            ops.ctc_beam_search(log_probs, lengths, context=decoder.context, **decoder._options).scores[:, 0]
        )
    return found


RUN: dict[str, Callable[[], list[Tensor]]] = {
    "gru_forward": lambda: gru(backward=False),
    "gru_backward": lambda: gru(backward=True),
    "batch_norm_act": batch_norm_act,
    "masked_conv2d": masked_conv2d,
    "ctc_beam_search": ctc_beam_search,
}


def main(name: str) -> int:
    if not _library.cuda_kernel(name):
        print(f"{name} is off")
        return 1
    outputs = RUN[name]()
    finite = all(bool(t.isfinite().all()) for t in outputs)
    print(f"{name}: {len(outputs)} tensors, {'finite' if finite else 'NOT FINITE'}")
    return 0 if finite else 1


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main(sys.argv[1]))
