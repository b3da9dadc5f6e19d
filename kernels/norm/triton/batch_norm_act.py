"""BatchNorm over the valid frames of a padded batch with a clamp and the time mask, forward and backward.

Programs are (tiles or pieces, channel blocks, batch rows); a tile is ROWS × COLUMNS values of one batch row n:

    TIME_LAST     [N, C, F, T], F = 1 for NCT    rows: bins, columns: frames, of one channel
    else          NTC, TNC, RC                   rows: frames, columns: channels

Statistics and gradients of the parameters are summed in pieces, [channels, pieces] in float32. The pieces are merged in
double in a fixed order: equal inputs give equal bits. A piece of statistics is a count, a mean and Σ (x − mean)² (Chan et al.
1979), so that a large mean does not cancel the variance.
"""

import triton
import triton.language as tl


@triton.jit
def _length(lengths, n, time):
    """Valid frames of row n. Values out of range, which a kernel cannot report, are clamped."""
    if lengths is None:
        return time
    else:
        return tl.minimum(tl.maximum(tl.load(lengths + n), 0), time).to(tl.int32)


@triton.jit
def _tile(
    first_bin, first_frame, batch, channels, inner, time,
    TIME_LAST: tl.constexpr, BATCH_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """(offset of the start, offsets from there, channels, frames, whether inside the tensor), each broadcastable to the tile."""
    n = tl.program_id(2)
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    # Offsets within a tile fit in 32 bits; its start may not.
    if TIME_LAST:
        channel = tl.program_id(1)
        frame = first_frame + column
        start = ((n * channels + channel).to(tl.int64) * inner + first_bin) * time + first_frame
        return start, row * time + column, channel, frame, (first_bin + row < inner) & (frame < time)
    else:
        channel = tl.program_id(1) * COLUMNS + column
        frame = first_frame + row
        if BATCH_FIRST:
            start = (n.to(tl.int64) * time + first_frame) * channels
            stride = channels
        else:
            start = (tl.cast(first_frame, tl.int64) * batch + n) * channels
            stride = batch * channels
        start += tl.program_id(1) * COLUMNS
        return start, row * stride + column, channel, frame, (frame < time) & (channel < channels)


@triton.jit
def _first(inner, time, TIME_LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(first bin, first frame) of this program's tile."""
    if TIME_LAST:
        blocks = tl.cdiv(time, COLUMNS)
        return tl.program_id(0) // blocks * ROWS, tl.program_id(0) % blocks * COLUMNS
    else:
        return tl.program_id(0) * 0, tl.program_id(0) * ROWS


@triton.jit
def _piece(end, frames_per_piece, TIME_LAST: tl.constexpr, ROWS: tl.constexpr):
    """(first bin, first frame, end frame) of this program's piece. Only frames before ``end`` are summed.

    TIME_LAST: all frames of ROWS bins; else frames_per_piece frames.
    """
    if TIME_LAST:
        return tl.program_id(0) * ROWS, end * 0, end
    else:
        first = tl.program_id(0) * frames_per_piece
        return tl.program_id(0) * 0, first, tl.minimum(end, first + frames_per_piece)


@triton.jit
def _sum(x, TIME_LAST: tl.constexpr):
    """Sum of a tile for each of its channels: [1] or [COLUMNS]."""
    if TIME_LAST:
        return tl.sum(tl.sum(x, 1, keep_dims=True), 0)
    else:
        return tl.sum(x, 0)


@triton.jit
def _store_piece(target, value, channels, TIME_LAST: tl.constexpr, COLUMNS: tl.constexpr):
    """Store a piece's sums, as _sum returns them, in target: [channels, pieces]."""
    if TIME_LAST:
        channel = tl.program_id(1) + tl.arange(0, 1)
    else:
        channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    pieces = tl.num_programs(0) * tl.num_programs(2)
    piece = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    tl.store(target + channel * pieces + piece, value, mask=channel < channels)


@triton.jit
def _count(batch, inner, time, lengths, COUNT_PADDING: tl.constexpr):
    """How many values of a channel the statistics are of, int64."""
    count = batch.to(tl.int64) * time * inner
    if (lengths is not None) and (not COUNT_PADDING):
        frames = tl.zeros((128,), tl.int64)
        for begin in range(0, batch, 128):
            n = begin + tl.arange(0, 128)
            length = tl.load(lengths + n, mask=n < batch, other=0)
            frames += tl.minimum(tl.maximum(length, 0), time)
        count = tl.sum(frames, 0) * inner
    return count


@triton.jit
def _affine(x, channel, here, mean, var, weight, bias, eps):
    """(x − mean, the factor that normalises it, the result before the clamp), in float32."""
    centered = x - tl.load(mean + channel, mask=here, other=0)
    factor = tl.rsqrt(tl.load(var + channel, mask=here, other=1) + eps)
    if weight is not None:
        factor = factor * tl.load(weight + channel, mask=here, other=0)
    offset = 0.0
    if bias is not None:
        offset = tl.load(bias + channel, mask=here, other=0)
    return centered, factor, centered * factor + offset


@triton.jit(do_not_specialize=["batch", "frames_per_piece"])
def piece_statistics(
    input, lengths, piece_mean, piece_deviation, piece_count,
    batch, channels, inner, time, frames_per_piece,
    COUNT_PADDING: tl.constexpr, TIME_LAST: tl.constexpr, BATCH_FIRST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Grid: (pieces of a row, channel blocks, batch). piece_count: [pieces] float32, the same for all channels."""
    length = _length(lengths, tl.program_id(2), time)
    first_bin, first_frame, end = _piece(time if COUNT_PADDING else length, frames_per_piece, TIME_LAST, ROWS)
    count = 0.0
    mean = tl.zeros((1 if TIME_LAST else COLUMNS,), tl.float32)
    deviation = tl.zeros((1 if TIME_LAST else COLUMNS,), tl.float32)
    for at in range(first_frame, end, COLUMNS if TIME_LAST else ROWS):
        start, offset, _, frame, inside = _tile(
            first_bin, at, batch, channels, inner, time, TIME_LAST, BATCH_FIRST, ROWS, COLUMNS
        )
        counted = inside & (frame < end)
        x = tl.load(input + start + offset, mask=counted, other=0).to(tl.float32)
        if TIME_LAST:
            tile_count = (tl.minimum(end - at, COLUMNS) * tl.minimum(inner - first_bin, ROWS)).to(tl.float32)
        else:
            tile_count = tl.minimum(end - at, ROWS).to(tl.float32)
        tile_mean = _sum(x, TIME_LAST) / tile_count
        x = tl.where(counted, x - tile_mean[None, :], 0.0)
        share = tile_count / (count + tile_count)
        delta = tile_mean - mean
        deviation += _sum(x * x, TIME_LAST) + delta * delta * (count * share)
        mean += delta * share
        count += tile_count
    _store_piece(piece_mean, mean, channels, TIME_LAST, COLUMNS)
    _store_piece(piece_deviation, deviation, channels, TIME_LAST, COLUMNS)
    if tl.program_id(1) == 0:
        tl.store(piece_count + tl.program_id(2) * tl.num_programs(0) + tl.program_id(0), count)


@triton.jit(do_not_specialize=["pieces"])
def merge_statistics(piece_mean, piece_deviation, piece_count, mean, var, pieces, BLOCK: tl.constexpr):
    """Mean and biased variance of each channel from its pieces; 0 and 0 where nothing counts. Grid: (channels,)."""
    channel = tl.program_id(0)
    piece_mean += channel.to(tl.int64) * pieces
    piece_deviation += channel.to(tl.int64) * pieces
    counts = tl.zeros((BLOCK,), tl.float64)
    sums = tl.zeros((BLOCK,), tl.float64)
    for begin in range(0, pieces, BLOCK):
        p = begin + tl.arange(0, BLOCK)
        count = tl.load(piece_count + p, mask=p < pieces, other=0).to(tl.float64)
        counts += count
        sums += count * tl.load(piece_mean + p, mask=p < pieces, other=0)
    total = tl.maximum(tl.sum(counts, 0), 1.0)
    average = tl.sum(sums, 0) / total
    deviations = tl.zeros((BLOCK,), tl.float64)
    for begin in range(0, pieces, BLOCK):
        p = begin + tl.arange(0, BLOCK)
        count = tl.load(piece_count + p, mask=p < pieces, other=0).to(tl.float64)
        delta = tl.load(piece_mean + p, mask=p < pieces, other=0) - average
        deviations += tl.load(piece_deviation + p, mask=p < pieces, other=0) + count * delta * delta
    tl.store(mean + channel, average.to(tl.float32))
    tl.store(var + channel, (tl.sum(deviations, 0) / total).to(tl.float32))


@triton.jit(do_not_specialize=["batch", "eps", "low", "high"])
def normalise(
    input, weight, bias, mean, var, lengths, output,
    count,  # int64 scalar
    batch, channels, inner, time, eps, low, high,
    COUNT_PADDING: tl.constexpr, TIME_LAST: tl.constexpr, BATCH_FIRST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles, channel blocks, batch)."""
    first_bin, first_frame = _first(inner, time, TIME_LAST, ROWS, COLUMNS)
    start, offset, channel, frame, inside = _tile(
        first_bin, first_frame, batch, channels, inner, time, TIME_LAST, BATCH_FIRST, ROWS, COLUMNS
    )
    valid = inside & (frame < _length(lengths, tl.program_id(2), time))
    x = tl.load(input + start + offset, mask=valid, other=0).to(tl.float32)
    _, _, y = _affine(x, channel, channel < channels, mean, var, weight, bias, eps)
    y = tl.maximum(y, low, propagate_nan=tl.PropagateNan.ALL)
    y = tl.minimum(y, high, propagate_nan=tl.PropagateNan.ALL)
    tl.store(output + start + offset, tl.where(valid, y, 0.0).to(output.dtype.element_ty), mask=inside)
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0) & (tl.program_id(2) == 0):
        tl.store(count, _count(batch, inner, time, lengths, COUNT_PADDING))


@triton.jit(do_not_specialize=["batch", "frames_per_piece", "eps", "low", "high"])
def piece_gradients(
    grad_output, input, weight, bias, mean, var, lengths,
    piece_sum,  # [channels, pieces] float32: Σ g, of the gradient that the clamp lets through
    piece_dot,  # likewise Σ g · (x − mean)
    batch, channels, inner, time, frames_per_piece, eps, low, high,
    TIME_LAST: tl.constexpr, BATCH_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Grid: (pieces of a row, channel blocks, batch)."""
    length = _length(lengths, tl.program_id(2), time)
    first_bin, first_frame, end = _piece(length, frames_per_piece, TIME_LAST, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    dots = tl.zeros((ROWS, COLUMNS), tl.float32)
    for at in range(first_frame, end, COLUMNS if TIME_LAST else ROWS):
        start, offset, channel, frame, inside = _tile(
            first_bin, at, batch, channels, inner, time, TIME_LAST, BATCH_FIRST, ROWS, COLUMNS
        )
        valid = inside & (frame < end)
        x = tl.load(input + start + offset, mask=valid, other=0).to(tl.float32)
        centered, _, y = _affine(x, channel, channel < channels, mean, var, weight, bias, eps)
        g = tl.load(grad_output + start + offset, mask=valid, other=0).to(tl.float32)
        g = tl.where((y > low) & (y < high), g, 0.0)
        sums += g
        dots += g * centered
    _store_piece(piece_sum, _sum(sums, TIME_LAST), channels, TIME_LAST, COLUMNS)
    _store_piece(piece_dot, _sum(dots, TIME_LAST), channels, TIME_LAST, COLUMNS)


@triton.jit(do_not_specialize=["pieces", "batch", "inner", "time", "eps"])
def merge_gradients(
    piece_sum, piece_dot, var, lengths, grad_weight, grad_bias,
    average,  # [channels] float32 or None: Σ g / count, as slope: Σ g · (x − mean) / (count · (var + eps))
    slope,
    pieces, batch, inner, time, eps,
    COUNT_PADDING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (channels,)."""
    channel = tl.program_id(0)
    piece_sum += channel.to(tl.int64) * pieces
    piece_dot += channel.to(tl.int64) * pieces
    sums = tl.zeros((BLOCK,), tl.float64)
    dots = tl.zeros((BLOCK,), tl.float64)
    for begin in range(0, pieces, BLOCK):
        p = begin + tl.arange(0, BLOCK)
        sums += tl.load(piece_sum + p, mask=p < pieces, other=0)
        dots += tl.load(piece_dot + p, mask=p < pieces, other=0)
    total = tl.sum(sums, 0)
    dot = tl.sum(dots, 0)
    inverse_std = tl.rsqrt(tl.load(var + channel) + eps).to(tl.float64)
    tl.store(grad_bias + channel, total.to(tl.float32))
    tl.store(grad_weight + channel, (dot * inverse_std).to(tl.float32))
    if average is not None:
        count = tl.maximum(_count(batch, inner, time, lengths, COUNT_PADDING), 1).to(tl.float64)
        tl.store(average + channel, (total / count).to(tl.float32))
        tl.store(slope + channel, (dot / count * inverse_std * inverse_std).to(tl.float32))


@triton.jit(do_not_specialize=["batch", "eps", "low", "high"])
def input_gradient(
    grad_output, input, weight, bias, mean, var, lengths, average, slope, grad_input,
    batch, channels, inner, time, eps, low, high,
    COUNT_PADDING: tl.constexpr, TIME_LAST: tl.constexpr, BATCH_FIRST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """weight/σ · (g − average − (x − mean) · slope), where g is 0 beyond a length. Grid: as normalise."""
    first_bin, first_frame = _first(inner, time, TIME_LAST, ROWS, COLUMNS)
    start, offset, channel, frame, inside = _tile(
        first_bin, first_frame, batch, channels, inner, time, TIME_LAST, BATCH_FIRST, ROWS, COLUMNS
    )
    valid = inside & (frame < _length(lengths, tl.program_id(2), time))
    here = channel < channels
    counted = inside if COUNT_PADDING else valid
    x = tl.load(input + start + offset, mask=counted, other=0).to(tl.float32)
    centered, factor, y = _affine(x, channel, here, mean, var, weight, bias, eps)
    g = tl.load(grad_output + start + offset, mask=valid, other=0).to(tl.float32)
    g = tl.where((y > low) & (y < high), g, 0.0)
    if average is not None:
        g = g - tl.load(average + channel, mask=here, other=0)
        g = g - centered * tl.load(slope + channel, mask=here, other=0)
    g = tl.where(counted, g * factor, 0.0)
    tl.store(grad_input + start + offset, g.to(grad_input.dtype.element_ty), mask=inside)
