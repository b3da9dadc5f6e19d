"""Launches the Triton kernels of masked_conv2d; imported when the first one runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from asrkern._triton import masked_conv2d as kernels
from asrkern.ops._batch_norm_act_cuda import merge_statistics, normalise
from asrkern.ops._launch import device_of, empty, launch
from asrkern.ops.masked_conv2d import max_pool, resolve_output_lengths


class Config(NamedTuple):
    """A tile of the GEMM, and how a program computes it.

    frames, columns: the tile, whose columns are bins · channels; depth: values of K a step; num_warps, num_stages: of
        the
    program.
    """

    frames: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int


#: Precision of the products and kind of shape → configurations. "few" is for inputs whose large tiles would not fill
#: the GPU. The first configuration is used; benchmarks/qualification/gpu_check.py times the others, too. "ieee"
#: multiplies without tensor cores.
CONFIGS: dict[tuple[str, str], list[Config]] = {
    ("half", "many"): [Config(128, 128, 64, 8, 3), Config(256, 64, 64, 8, 3), Config(128, 64, 64, 4, 4)],
    ("half", "few"): [Config(64, 64, 64, 4, 4), Config(64, 128, 64, 4, 3)],
    ("tf32", "many"): [Config(128, 128, 32, 8, 3), Config(256, 64, 32, 8, 3), Config(128, 64, 32, 4, 4)],
    ("tf32", "few"): [Config(64, 64, 32, 4, 4), Config(64, 128, 32, 4, 3)],
    ("ieee", "many"): [Config(64, 64, 16, 8, 3), Config(128, 64, 16, 8, 3)],
    ("ieee", "few"): [Config(64, 32, 16, 4, 3), Config(32, 64, 16, 4, 2)],
}
#: With fewer programs the tiles are "few". So many fill the largest GPU twice.
PROGRAMS_TO_FILL_A_GPU = 264


def product_precision(dtype: torch.dtype) -> str:
    """How products are formed: "half" (float16 and bfloat16), "tf32" or "ieee" (float32). Sums are float32.

    float32 is "tf32" where torch lets cuDNN use that (``torch.backends.cudnn``, on by default)."""
    if dtype != torch.float32:
        return "half"
    try:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    except RuntimeError:
        # torch refuses the old switch once convolutions and RNNs have different settings.
        return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"


class Statistics(NamedTuple):
    """Statistics of each tile of the output, in float32.

    mean, deviation (Σ (x − mean)²): [channels, tiles]; count, the values of a channel: [tiles].
    """

    mean: Tensor
    deviation: Tensor
    count: Tensor


class Plan:
    """How one convolution is laid out: the unfolded input, the packed weight and the tiles.

    Args:
        input: [N, C, F, T].
        weight: [O, C, kernel_F, kernel_T].
        stride, padding: (frequency, time).
        config: None for the one that CONFIGS has for this shape.
    """

    def __init__(
        self,
        input: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        config: Config | None = None,
    ) -> None:
        self.batch, self.channels, self.bins, self.frames = input.shape
        self.out_channels, _, self.kernel_f, self.kernel_t = weight.shape
        self.stride, self.padding = stride, padding
        self.out_bins = (self.bins + 2 * padding[0] - self.kernel_f) // stride[0] + 1
        self.out_frames = (self.frames + 2 * padding[1] - self.kernel_t) // stride[1] + 1
        self.precision = product_precision(input.dtype)
        if config is None:
            config = CONFIGS[self.precision, "many"][0]
            if self._tiles(config) < PROGRAMS_TO_FILL_A_GPU:
                config = CONFIGS[self.precision, "few"][0]
        self.config = config
        self.block_t, self.block_o, self.group = self._blocks(config)
        self.groups = triton.cdiv(self.out_bins, self.group)
        self.channel_blocks = triton.cdiv(self.out_channels, self.block_o)
        self.frame_blocks = triton.cdiv(self.out_frames, self.block_t)

        # With few channels a piece of 16 bytes holds several frames. Then each output frame gets a copy of its own of
        # the input that it reads.
        self.time_unfolded = self.channels < 8
        frames = self.frame_blocks * self.block_t
        if self.time_unfolded:
            self.inner = triton.cdiv(self.channels * self.kernel_t, 16) * 16
            self.positions, self.step, self.run = frames, self.inner, self.inner
        else:
            self.inner = triton.cdiv(self.channels, 8) * 8
            self.positions = (frames - 1) * stride[1] + self.kernel_t
            self.step, self.run = stride[1] * self.inner, self.kernel_t * self.inner
        self.rows = (self.groups * self.group - 1) * stride[0] + self.kernel_f
        self.used = ((self.group - 1) * stride[0] + self.kernel_f) * self.run
        self.columns = triton.cdiv(self.used, config.depth) * config.depth

    def _blocks(self, config: Config) -> tuple[int, int, int]:
        """(frames, channels, bins) of a tile."""
        channels = 16 if self.out_channels <= 16 else 32
        while channels < config.columns and self.out_channels % (2 * channels) == 0:
            channels *= 2
        bins = min(config.columns // channels, triton.next_power_of_2(self.out_bins))
        return max(16, min(config.frames, triton.next_power_of_2(self.out_frames))), channels, bins

    def _tiles(self, config: Config) -> int:
        blocks = self._blocks(config)
        sizes = (self.out_frames, self.out_channels, self.out_bins)
        frames, channels, bins = (triton.cdiv(size, block) for size, block in zip(sizes, blocks))
        return self.batch * frames * channels * bins

    def fits(self) -> bool:
        """Whether the offsets within a row fit in 32 bits, and the batch in a grid."""
        unfolded = self.rows * self.positions * self.inner
        output = self.out_channels * self.out_bins * self.out_frames
        return max(unfolded, output) < 2**31 and self.batch < 2**16

    @property
    def lengths_constants(self) -> dict[str, int]:
        return {"KERNEL_T": self.kernel_t, "STRIDE_T": self.stride[1], "PADDING_T": self.padding[1]}


def unfold(plan: Plan, input: Tensor, lengths: Tensor | None, output_lengths: Tensor | None) -> Tensor:
    """Lay out the input as kernels/conv/triton/masked_conv2d.py describes."""
    unfolded = empty((plan.batch, plan.rows, plan.positions, plan.inner), input, input.dtype)
    block_i = min(64, triton.next_power_of_2(plan.inner))
    block_p = 2048 // block_i
    grid = (
        triton.cdiv(plan.positions, block_p),
        plan.rows * triton.cdiv(plan.inner, block_i),
        plan.batch,
    )
    launch(
        kernels.unfold, grid,
        input, unfolded, lengths, output_lengths, *input.stride(),
        plan.bins, plan.frames, plan.out_frames, plan.rows, plan.positions,
        CHANNELS=plan.channels, INNER=plan.inner, TIME_UNFOLDED=plan.time_unfolded,
        PADDING_F=plan.padding[0], TF32=plan.precision == "tf32", BLOCK_P=block_p, BLOCK_I=block_i, **plan.lengths_constants,
    )  # fmt: skip
    return unfolded


def pack_weight(
    plan: Plan, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Lay out the weight, and the affine map after the product, as kernels/conv/triton/masked_conv2d.py describes."""
    width = plan.group * plan.block_o
    packed = empty((plan.channel_blocks, width, plan.columns), weight, weight.dtype)
    affine = empty((2, plan.channel_blocks * plan.block_o), weight, torch.float32)
    launch(
        kernels.pack_weight, (triton.cdiv(plan.columns, 1024), width, plan.channel_blocks),
        weight.contiguous(), *(None if t is None else t.float().contiguous() for t in (bias, scale, shift)),
        packed, affine, plan.out_channels,
        CHANNELS=plan.channels, INNER=plan.inner, TIME_UNFOLDED=plan.time_unfolded,
        KERNEL_F=plan.kernel_f, KERNEL_T=plan.kernel_t, STRIDE_F=plan.stride[0],
        RUN=plan.run, COLUMNS=plan.columns, GROUP=plan.group, BLOCK_O=plan.block_o,
            TF32=plan.precision == "tf32", BLOCK=1024,
    )  # fmt: skip
    return packed, affine


def convolve(
    plan: Plan, unfolded: Tensor, packed: Tensor, affine: Tensor,
    lengths: Tensor | None, output_lengths: Tensor | None, low: float, high: float, statistics: str | None = None,
) -> tuple[Tensor, Statistics | None]:  # fmt: skip
    """The output. With statistics "valid" or "padded" also the statistics of its tiles, over these frames."""
    output = empty((plan.batch, plan.out_channels, plan.out_bins, plan.out_frames), unfolded, unfolded.dtype)
    tiles = None
    if statistics is not None:
        count = plan.batch * plan.frame_blocks * plan.groups
        shapes = (plan.out_channels, count), (plan.out_channels, count), (count,)
        tiles = Statistics(*(empty(shape, unfolded, torch.float32) for shape in shapes))
    launch(
        kernels.masked_conv2d, (plan.frame_blocks, plan.groups * plan.channel_blocks, plan.batch),
        unfolded, packed, affine, lengths, output_lengths, output, *(tiles or (None, None, None)),
        plan.frames, plan.out_channels, plan.out_bins, plan.out_frames, plan.rows, plan.positions, low, high,
        COUNT_PADDING=statistics == "padded", STRIDE_F=plan.stride[0],
        INNER=plan.inner, STEP=plan.step, RUN=plan.run, USED=plan.used, COLUMNS=plan.columns,
        GROUP=plan.group, BLOCK_O=plan.block_o, BLOCK_T=plan.block_t, BLOCK_K=plan.config.depth,
        PRECISION="ieee" if plan.precision == "half" else plan.precision,
        num_warps=plan.config.num_warps, num_stages=plan.config.num_stages, **plan.lengths_constants,
    )  # fmt: skip
    return output, tiles


def run(
    input: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None,
    lengths: Tensor | None, output_lengths: Tensor | None, stride: list[int], padding: list[int],
    low: float, high: float, *, statistics: str | None = None, config: Config | None = None,
) -> tuple[Tensor, Statistics | None]:  # fmt: skip
    """Run all three kernels. statistics: as in convolve; config: as in Plan."""
    plan = Plan(input, weight, stride, padding, config)
    if not plan.fits():
        raise ValueError(
            f"input: expected fewer than 65536 rows, each of fewer than 2**31 values once its {plan.inner} values "
            f"per frame are laid out, received shape {tuple(input.shape)}"
        )
    with device_of(input):
        unfolded = unfold(plan, input, lengths, output_lengths)
        packed, affine = pack_weight(plan, weight, bias, scale, shift)
        return convolve(plan, unfolded, packed, affine, lengths, output_lengths, low, high, statistics)


def forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None,
    lengths: Tensor | None, output_lengths: Tensor | None, stride: list[int], padding: list[int],
    low: float, high: float, pool: Sequence[int] = (1, 1),
) -> Tensor:  # fmt: skip
    """``torch.ops.asrkern.masked_conv2d``, for input and weight both float32, float16 or bfloat16."""
    after = resolve_output_lengths(lengths, output_lengths, weight, stride, padding)
    output, _ = run(input, weight, bias, scale, shift, lengths, output_lengths, stride, padding, low, high)
    return max_pool(output, after, pool)


def forward_batch_norm_act(
    input: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, norm_bias: Tensor | None,
    lengths: Tensor | None, output_lengths: Tensor | None, stride: list[int], padding: list[int],
    count_padding: bool, eps: float, low: float, high: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """``torch.ops.asrkern.masked_conv2d_batch_norm_act``: the statistics come from the convolution's own tiles."""
    convolved, tiles = run(
        input, weight, bias, None, None, lengths, output_lengths, stride, padding, -math.inf, math.inf,
        statistics="padded" if count_padding else "valid",
    )  # fmt: skip
    with device_of(input):
        mean, var = merge_statistics(*tiles)
        output, count = normalise(
            convolved,
            norm_weight,
            norm_bias,
            mean,
            var,
            output_lengths,
            "NCFT",
            count_padding,
            eps,
            low,
            high,
        )
    return output, convolved, mean, var, count
