"""The launchers of the Triton kernels in the place of the CPU's operations, for Triton's interpreter."""

from __future__ import annotations

import torch

from asrkern.ops import _batch_norm_act_cuda, _masked_conv2d_cuda


class OnTheCPU:
    """While it is entered, the CPU runs the GPU's launchers: dispatch and autograd are those of the GPU."""

    def __enter__(self) -> None:
        self.library = torch.library.Library("asrkern", "IMPL")
        for op, function in (
            ("masked_conv2d", _masked_conv2d_cuda.forward),
            ("masked_conv2d_batch_norm_act", _masked_conv2d_cuda.forward_batch_norm_act),
            ("batch_norm_act", _batch_norm_act_cuda.forward),
            ("batch_norm_act_backward", _batch_norm_act_cuda.backward),
        ):
            self.library.impl(op, function, "CPU", allow_override=True)

    def __exit__(self, *_: object) -> None:
        self.library._destroy()
