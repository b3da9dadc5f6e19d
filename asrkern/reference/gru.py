"""The gated recurrent unit, row by row and step by step."""

from __future__ import annotations

import torch
from torch import Tensor


def gru_cell(gates_x: Tensor, h: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> Tensor:
    """One step of torch.nn.GRU's formula: the reset gate multiplies after the matmul."""
    gates_h = h @ weight_hh.t()
    if bias_hh is not None:
        gates_h = gates_h + bias_hh
    x_r, x_z, x_n = gates_x.chunk(3, -1)
    h_r, h_z, h_n = gates_h.chunk(3, -1)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def _one_row(x: Tensor, weights, h: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """x: [L, input_size] of one sequence, h: [hidden_size] → outputs [L, hidden_size], final h."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates_x = x @ weight_ih.t()
    if bias_ih is not None:
        gates_x = gates_x + bias_ih
    outputs = [h] * x.shape[0]
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        h = gru_cell(gates_x[t], h, weight_hh, bias_hh)
        outputs[t] = h
    return (torch.stack(outputs) if outputs else x.new_zeros(0, h.shape[0])), h


def gru(
    input: Tensor,
    weights,
    weights_reverse=None,
    h0: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """Reference of :func:`asrkern.ops.gru`; same arguments."""
    directions = [weights] if weights_reverse is None else [weights, weights_reverse]
    hidden_size = weights[1].shape[1]
    if batch_sizes is not None:
        sizes = batch_sizes.tolist()
        rows = sizes[0] if sizes else 0
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        indices = [[starts[t] + i for t in range(len(sizes)) if sizes[t] > i] for i in range(rows)]
        flat, sequences = input, [input[index] for index in indices]
    else:
        x = input if batch_first else input.transpose(0, 1)
        rows, steps = x.shape[:2]
        ends = [steps] * rows if lengths is None else lengths.tolist()
        sequences = [x[i, : ends[i]] for i in range(rows)]
    if h0 is None:
        h0 = input.new_zeros(len(directions), rows, hidden_size)
    outputs, finals = [], []
    for i, x_i in enumerate(sequences):
        runs = [_one_row(x_i, w, h0[d, i], d == 1) for d, w in enumerate(directions)]
        outputs.append(torch.cat([run[0] for run in runs], -1))
        finals.append(torch.stack([run[1] for run in runs]))
    h_n = torch.stack(finals, 1)
    if batch_sizes is not None:
        order = torch.tensor([j for index in indices for j in index])
        output = torch.zeros(flat.shape[0], len(directions) * hidden_size, dtype=h_n.dtype)
        return output.index_copy(0, order, torch.cat(outputs)), h_n
    output = torch.stack([torch.nn.functional.pad(o, (0, 0, 0, steps - o.shape[0])) for o in outputs])
    return (output if batch_first else output.transpose(0, 1)), h_n
