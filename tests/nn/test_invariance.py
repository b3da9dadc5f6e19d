"""In eval mode and fp32 a row is bit for bit what it is alone, whatever batch mates and padding hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asrkern.nn import (
    GRU,
    LSTM,
    BatchRNN,
    InferenceBatchSoftmax,
    Lookahead,
    MaskConv,
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    SequenceWise,
)


def front_end() -> MaskConv:
    return MaskConv(
        nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=(20, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
            nn.Conv2d(32, 32, (21, 11), stride=(2, 1), padding=(10, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
        )
    )


def stacked(state):
    """h, or an LSTM's h and c, as one tensor."""
    return state if isinstance(state, torch.Tensor) else torch.cat(state)


def run_recurrent(module, x, lengths):
    output, state = module(x, lengths=lengths)
    return output, lengths, stacked(state)


def run_plain(module, x, lengths):
    return module(x, lengths), lengths, None


def run_batch_rnn(module, x, lengths):
    output, state = module(x, lengths)
    return output, lengths, stacked(state)


def run_conv(module, x, lengths):
    return *module(x, input_lengths=lengths), None


def run_softmax(module, x, lengths):
    # As the models call it: on the transposed view of [T, N, labels].
    return module(x.transpose(0, 1)).transpose(0, 1), lengths, None


# name → (module, how to run it → output, output lengths, [·, N, H] state, axes of input and output)
LAYERS = {
    "gru": (lambda: GRU(13, 37, 2, bidirectional=True), run_recurrent, "TN13"),
    "gru_sum_batch_first": (
        lambda: GRU(13, 64, bidirectional=True, merge="sum", batch_first=True),
        run_recurrent,
        "NT13",
    ),
    "lstm": (lambda: LSTM(13, 37, 2, bidirectional=True), run_recurrent, "TN13"),
    "batch_rnn_lstm": (lambda: BatchRNN(48, 29, LSTM, bidirectional=True), run_batch_rnn, "TN48"),
    "batch_rnn": (lambda: BatchRNN(48, 29, GRU, bidirectional=True), run_batch_rnn, "TN48"),
    "mask_conv": (front_end, run_conv, "N1FT"),
    "sequence_wise": (
        lambda: SequenceWise(nn.Sequential(nn.BatchNorm1d(48), nn.Linear(48, 29, bias=False))),
        run_plain,
        "TN48",
    ),
    "batch_norm_1d": (lambda: MaskedBatchNorm1d(13, activation=(0.0, 20.0)), run_plain, "N13T"),
    "batch_norm_2d": (lambda: MaskedBatchNorm2d(1), run_plain, "N1FT"),
    "lookahead": (lambda: Lookahead(37, 20), run_plain, "TN37"),
    "softmax": (InferenceBatchSoftmax, run_softmax, "TN29"),
}


def shape(axes: str, batch: int, steps: int) -> list[int]:
    """ "TN13" → [steps, batch, 13]; F is 45 bins."""
    digits = "".join(c for c in axes if c.isdigit())
    names = axes.replace(digits, "C")
    return [{"N": batch, "T": steps, "F": 45, "C": int(digits)}[c] for c in names]


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("name", LAYERS)
def test_row_in_a_batch_equals_the_row_alone(name, batch):
    build, run, axes = LAYERS[name]
    module = build().eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    digits = "".join(c for c in axes if c.isdigit())
    letters = axes.replace(digits, "C")
    row_axis, time_axis = letters.index("N"), letters.index("T")
    steps = 70
    lengths = torch.randint(20, steps + 1, (batch,))
    x = torch.randn(shape(axes, batch, steps))
    beyond = torch.arange(steps) >= lengths[:, None]
    sizes = [1] * x.dim()
    sizes[row_axis], sizes[time_axis] = batch, steps
    beyond = (beyond if row_axis < time_axis else beyond.t()).reshape(sizes).expand_as(x)
    x[beyond] = torch.tensor([float("nan"), float("inf"), 1e30])[torch.randint(3, (int(beyond.sum()),))]
    with torch.no_grad():
        output, output_lengths, h_n = run(module, x, lengths)
        for i, length in enumerate(lengths.tolist()):
            row = x.narrow(row_axis, i, 1).narrow(time_axis, 0, length)
            alone, alone_lengths, alone_h = run(module, row, lengths[i : i + 1])
            frames = int(alone_lengths)
            assert output_lengths[i] == frames
            got = output.narrow(row_axis, i, 1).narrow(time_axis, 0, frames)
            assert torch.equal(got, alone.narrow(time_axis, 0, frames))
            if h_n is not None:
                assert torch.equal(h_n[:, i : i + 1], alone_h)


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_packed_rows_equal_rows_alone(kind):
    module = kind(13, 37, 2, bidirectional=True).eval()
    rows = [torch.randn(length, 13) for length in (9, 31, 1, 17, 31)]
    with torch.no_grad():
        output, state = module(nn.utils.rnn.pack_sequence(rows, enforce_sorted=False))
        unpacked = nn.utils.rnn.unpack_sequence(output)
        for i, row in enumerate(rows):
            alone, alone_state = module(row)
            assert torch.equal(unpacked[i], alone)
            assert torch.equal(stacked(state)[:, i], stacked(alone_state))
