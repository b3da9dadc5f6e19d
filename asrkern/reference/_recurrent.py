"""A recurrent layer row by row and step by step, for any cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

States = tuple[Tensor, ...]


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.t()


def _one_row(
    cell: Callable, x: Tensor, weights, states: States, reverse: bool, multiply: Callable
) -> tuple[Tensor, States]:
    """x: [L, input_size] of one sequence, states: [hidden_size] each → outputs [L, hidden_size], final states."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates_x = multiply(x, weight_ih)
    if bias_ih is not None:
        gates_x = gates_x + bias_ih
    outputs = [states[0]] * x.shape[0]
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        gates_h = multiply(states[0], weight_hh)
        if bias_hh is not None:
            gates_h = gates_h + bias_hh
        states = cell(gates_x[t], gates_h, *states)
        outputs[t] = states[0]
    return (torch.stack(outputs) if outputs else x.new_zeros(0, states[0].shape[0])), states


def run_layer(
    cell: Callable[..., States],
    input: Tensor,
    weights,
    weights_reverse,
    states: tuple[Tensor | None, ...],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    batch_first: bool,
    multiply: Callable = _product,
) -> Any:
    """(output, *final states); cell(W_ih x + b_ih, W_hh h + b_hh, *states) → the next states, the output's first.

    multiply: (x [..., in_features], weight) → [..., out_features].
    """
    directions = [weights] if weights_reverse is None else [weights, weights_reverse]
    hidden_size = weights[1].shape[1]
    if batch_sizes is not None:
        sizes = batch_sizes.tolist()
        rows = sizes[0] if sizes else 0
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        indices = [[starts[t] + i for t in range(len(sizes)) if sizes[t] > i] for i in range(rows)]
        sequences = [input[index] for index in indices]
    else:
        x = input if batch_first else input.transpose(0, 1)
        rows, steps = x.shape[:2]
        ends = [steps] * rows if lengths is None else lengths.tolist()
        sequences = [x[i, : ends[i]] for i in range(rows)]
    zeros = input.new_zeros(len(directions), rows, hidden_size)
    states = [zeros if state is None else state for state in states]
    outputs, finals = [], []
    for i, x_i in enumerate(sequences):
        runs = [
            _one_row(cell, x_i, w, tuple(state[d, i] for state in states), d == 1, multiply)
            for d, w in enumerate(directions)
        ]
        outputs.append(torch.cat([output for output, _ in runs], -1))
        finals.append([torch.stack(values) for values in zip(*(final for _, final in runs))])
    finals = [torch.stack(values, 1) for values in zip(*finals)]
    if batch_sizes is not None:
        order = torch.tensor([j for index in indices for j in index])
        output = torch.zeros(input.shape[0], len(directions) * hidden_size, dtype=finals[0].dtype)
        return output.index_copy(0, order, torch.cat(outputs)), *finals
    output = torch.stack([torch.nn.functional.pad(o, (0, 0, 0, steps - o.shape[0])) for o in outputs])
    return output if batch_first else output.transpose(0, 1), *finals
