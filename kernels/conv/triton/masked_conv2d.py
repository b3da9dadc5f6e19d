"""Masked convolution as an implicit GEMM with a fused epilogue.

out[n, o, f, t] = Σ_k A[t, k] · W[k, o] with k running over (input row, kernel frame, input channel), flattened.

Three kernels. ``unfold`` writes the masked, zero-padded input so that the values that an output frame reads in one input
row are contiguous: then the GEMM loads A in 16-byte pieces without testing bounds. ``pack_weight`` lays out W.
``masked_conv2d`` multiplies. With as few as 32 output channels a tile would load A for too little arithmetic, so it covers
GROUP neighbouring output bins, which share most of their input rows. Rows that a bin does not read have weight 0 for it, so
NaN or infinity in the input reaches all bins of a tile. Tiles past a row's length only write zeros.

    unfolded  [batch, rows, positions, INNER]       rows: input bins with padding
              position p, inner i: TIME_UNFOLDED    channel i // KERNEL_T, frame p·STRIDE_T + i % KERNEL_T − PADDING_T
                                   else             channel i,             frame p − PADDING_T
    packed    [channel blocks, GROUP · BLOCK_O, columns]    columns: (row, RUN) flattened, padded to BLOCK_K with 0
    affine    [2, channel blocks · BLOCK_O]: the factor and the offset that bias, scale and shift amount to
        RUN       the contiguous values that an output frame reads in one row; STEP: from one frame's first value to the next's
"""

import triton
import triton.language as tl


@triton.jit
def _row_lengths(
    lengths, output_lengths, n, in_frames, out_frames,
    KERNEL_T: tl.constexpr, STRIDE_T: tl.constexpr, PADDING_T: tl.constexpr,
):  # fmt: skip
    """(input frames, output frames) of row n. Values out of range, which a kernel cannot report, are clamped."""
    in_length = in_frames
    out_length = out_frames
    if lengths is not None:
        in_length = tl.minimum(tl.maximum(tl.load(lengths + n), 0), in_frames).to(tl.int32)
        span = in_length + 2 * PADDING_T - KERNEL_T
        out_length = tl.where((in_length > 0) & (span >= 0), tl.maximum(span, 0) // STRIDE_T + 1, 0)
    if output_lengths is not None:
        out_length = tl.minimum(tl.maximum(tl.load(output_lengths + n), 0), out_frames).to(tl.int32)
    return in_length, out_length


@triton.jit
def _round(value, TF32: tl.constexpr):
    """float32 rounded to the nearest TF32 (10 bits of mantissa, ties away from 0); the tensor cores would cut off."""
    if TF32:
        nearest = (value.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
        # NaN stays as it is: its bits may overflow.
        return tl.where(value == value, nearest.to(tl.float32, bitcast=True), value)
    else:
        return value


@triton.jit(do_not_specialize=["bins", "in_frames", "out_frames", "rows", "positions"])
def unfold(
    input,  # [batch, CHANNELS, bins, in_frames], any strides
    unfolded,
    lengths,  # [batch] int64 or None, as output_lengths
    output_lengths,
    stride_n, stride_c, stride_f, stride_t,
    bins, in_frames, out_frames, rows, positions,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, TIME_UNFOLDED: tl.constexpr,
    KERNEL_T: tl.constexpr, STRIDE_T: tl.constexpr, PADDING_F: tl.constexpr, PADDING_T: tl.constexpr,
    TF32: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """Grid: (position blocks, rows · inner blocks, batch)."""
    row = tl.program_id(1) % rows
    n = tl.program_id(2).to(tl.int64)
    in_length, out_length = _row_lengths(
        lengths, output_lengths, n, in_frames, out_frames, KERNEL_T, STRIDE_T, PADDING_T
    )
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]
    i = tl.program_id(1) // rows * BLOCK_I + tl.arange(0, BLOCK_I)[None, :]
    # Positions that no valid output frame reads stay unwritten.
    if TIME_UNFOLDED:
        needed = out_length
        channel = i // KERNEL_T
        frame = p * STRIDE_T + i % KERNEL_T - PADDING_T
    else:
        needed = (out_length - 1) * STRIDE_T + KERNEL_T
        channel = i
        frame = p - PADDING_T
    if (tl.program_id(0) * BLOCK_P < needed) & (out_length > 0):
        bin = row - PADDING_F
        frames = tl.where((bin >= 0) & (bin < bins), in_length, 0)
        inside = (channel < CHANNELS) & (frame >= 0) & (frame < frames)
        source = input + n * stride_n + channel.to(tl.int64) * stride_c + bin * stride_f + frame * stride_t
        value = _round(tl.load(source, mask=inside, other=0), TF32)
        target = unfolded + (n * rows + row) * positions * INNER + p * INNER + i
        tl.store(target, value.to(unfolded.dtype.element_ty), mask=(p < positions) & (i < INNER))


@triton.jit
def pack_weight(
    weight,  # [out_channels, CHANNELS, KERNEL_F, KERNEL_T]
    bias,  # [out_channels] float32 or None, as scale and shift
    scale,
    shift,
    packed,
    affine,
    out_channels,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, TIME_UNFOLDED: tl.constexpr,
    KERNEL_F: tl.constexpr, KERNEL_T: tl.constexpr, STRIDE_F: tl.constexpr,
    RUN: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, BLOCK_O: tl.constexpr,
    TF32: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (column blocks, GROUP · BLOCK_O, channel blocks)."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bin = tl.program_id(1) // BLOCK_O
    o = tl.program_id(2) * BLOCK_O + tl.program_id(1) % BLOCK_O
    tap_f = k // RUN - bin * STRIDE_F
    i = k % RUN
    if TIME_UNFOLDED:
        channel = i // KERNEL_T
        tap_t = i % KERNEL_T
    else:
        channel = i % INNER
        tap_t = i // INNER
    taps_f = tl.where(o < out_channels, KERNEL_F, 0)
    used = (tap_f >= 0) & (tap_f < taps_f) & (channel < CHANNELS)
    source = weight + ((o * CHANNELS + channel) * KERNEL_F + tap_f) * KERNEL_T + tap_t
    value = _round(tl.load(source, mask=used, other=0), TF32)
    target = packed + (tl.program_id(2) * GROUP * BLOCK_O + tl.program_id(1)) * COLUMNS + k
    tl.store(target, value.to(packed.dtype.element_ty), mask=k < COLUMNS)
    if (tl.program_id(0) == 0) & (bin == 0):
        here = o < out_channels
        factor = 1.0
        offset = 0.0
        if scale is not None:
            factor = tl.load(scale + o, mask=here, other=0)
        if bias is not None:
            offset = tl.load(bias + o, mask=here, other=0) * factor
        if shift is not None:
            offset += tl.load(shift + o, mask=here, other=0)
        tl.store(affine + o, factor)
        tl.store(affine + tl.num_programs(2) * BLOCK_O + o, offset)


@triton.jit
def _store(output, values, o, bin, t, out_channels, out_bins, out_frames):
    """Store values: [frames, columns] in one row's output. Called after the GEMM, which needs all registers."""
    target = ((o * out_bins + bin) * out_frames)[None, :] + t[:, None]
    inside = ((o < out_channels) & (bin < out_bins))[None, :] & (t < out_frames)[:, None]
    tl.store(output + target, values.to(output.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=[
        "in_frames",
        "out_channels",
        "out_bins",
        "out_frames",
        "rows",
        "positions",
        "low",
        "high",
    ]
)
def masked_conv2d(
    unfolded,
    packed,
    affine,
    lengths,
    output_lengths,
    output,  # [batch, out_channels, out_bins, out_frames]
    tile_mean,  # [out_channels, tiles] float32 or None: statistics of each tile, as tile_deviation, Σ (x − mean)²
    tile_deviation,
    tile_count,  # [tiles] float32
    in_frames, out_channels, out_bins, out_frames, rows, positions, low, high,
    COUNT_PADDING: tl.constexpr,
    KERNEL_T: tl.constexpr, STRIDE_F: tl.constexpr, STRIDE_T: tl.constexpr, PADDING_T: tl.constexpr,
    INNER: tl.constexpr, STEP: tl.constexpr, RUN: tl.constexpr, USED: tl.constexpr, COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (frame blocks, bin groups · channel blocks, batch). USED: columns of packed that are not padding."""
    WIDTH: tl.constexpr = GROUP * BLOCK_O
    groups = tl.cdiv(out_bins, GROUP)
    group = tl.program_id(1) % groups
    block_o = tl.program_id(1) // groups
    n = tl.program_id(2).to(tl.int64)
    _, out_length = _row_lengths(
        lengths, output_lengths, n, in_frames, out_frames, KERNEL_T, STRIDE_T, PADDING_T
    )
    first = tl.program_id(0) * BLOCK_T
    t = first + tl.arange(0, BLOCK_T)
    column = tl.arange(0, WIDTH)
    bin = group * GROUP + column // BLOCK_O
    o = block_o * BLOCK_O + column % BLOCK_O
    output += n * out_channels * out_bins * out_frames
    tile = (n * tl.num_programs(0) + tl.program_id(0)) * groups + group
    tiles = tl.num_programs(2) * tl.num_programs(0) * groups
    tile_bins = tl.minimum(out_bins - group * GROUP, GROUP)
    tile_frames = tl.minimum((out_frames if COUNT_PADDING else out_length) - first, BLOCK_T)
    channel = block_o * BLOCK_O + tl.arange(0, BLOCK_O)
    if tile_mean is not None:
        # The programs of all channel blocks write the same count.
        count = tl.maximum(tile_bins * tile_frames, 0).to(tl.float32)
        tl.store(tile_count + tile, count)

    if first >= out_length:
        _store(output, tl.zeros((BLOCK_T, WIDTH), tl.float32), o, bin, t, out_channels, out_bins, out_frames)
        if tile_mean is not None:
            nothing = tl.zeros((BLOCK_O,), tl.float32)
            tl.store(tile_mean + channel * tiles + tile, nothing, mask=channel < out_channels)
            tl.store(tile_deviation + channel * tiles + tile, nothing, mask=channel < out_channels)
        return

    k = tl.arange(0, BLOCK_K)
    row_size = positions * INNER
    a = unfolded + (n * rows + group * GROUP * STRIDE_F) * row_size + first * STEP
    a = a + tl.arange(0, BLOCK_T)[:, None] * STEP
    b = packed + block_o * WIDTH * COLUMNS + column[None, :] * COLUMNS + k[:, None]
    total = tl.zeros((BLOCK_T, WIDTH), tl.float32)
    for begin in range(0, COLUMNS, BLOCK_K):
        at = begin + k
        offset = (at // RUN * row_size + at % RUN)[None, :]
        if USED == COLUMNS:
            values = tl.load(a + offset)
        else:
            values = tl.load(a + offset, mask=(at < USED)[None, :], other=0)
        total = tl.dot(values, tl.load(b + begin), total, input_precision=PRECISION)

    offset = affine + tl.num_programs(1) // groups * BLOCK_O
    total = total * tl.load(affine + o)[None, :] + tl.load(offset + o)[None, :]
    total = tl.maximum(total, low, propagate_nan=tl.PropagateNan.ALL)
    total = tl.minimum(total, high, propagate_nan=tl.PropagateNan.ALL)
    total = tl.where((t < out_length)[:, None], total, 0.0)
    result = total.to(output.dtype.element_ty)
    _store(output, result, o, bin, t, out_channels, out_bins, out_frames)

    if tile_mean is not None:
        # Statistics of the values as they are stored. Frames beyond the length are 0, and count only with COUNT_PADDING.
        counted = ((t - first) < tile_frames)[:, None] & ((bin < out_bins) & (o < out_channels))[None, :]
        x = tl.where(counted, result.to(tl.float32), 0.0)
        sums = tl.sum(tl.reshape(tl.sum(x, 0), (GROUP, BLOCK_O)), 0)
        mean = sums / tl.maximum(tile_bins * tile_frames, 1).to(tl.float32)
        centre = tl.reshape(tl.broadcast_to(mean[None, :], (GROUP, BLOCK_O)), (WIDTH,))
        x = tl.where(counted, x - centre[None, :], 0.0)
        deviation = tl.sum(tl.reshape(tl.sum(x * x, 0), (GROUP, BLOCK_O)), 0)
        tl.store(tile_mean + channel * tiles + tile, mean, mask=channel < out_channels)
        tl.store(tile_deviation + channel * tiles + tile, deviation, mask=channel < out_channels)
