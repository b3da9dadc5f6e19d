"""All steps of HW4P2's speller in training, with gradients that wait for the last step.

Step by step, autograd forms the gradient of each weight, of the keys and of the values once a step, and adds it to what
was there. Here the steps run in one loop forward and one backward, which leaves what enters those gradients; then each
is one matrix product over many steps. What each step needs of the next one, through the cells' states and the context,
is computed step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from asrkern._transforms import transforming
from asrkern.nn import AttentionMemory, DotAttention, LockedDropout, LSTMCell, MultiHeadAttention
from asrkern.nn._hooks import is_altered
from asrkern.ops._autograd import call

# Classes that are computed here like. Subclasses (parametrizations make some) may compute something else.
_LAYERS = {
    *(nn.Embedding, nn.LSTMCell, LSTMCell, nn.Linear, DotAttention, MultiHeadAttention),
    *(nn.ModuleList, nn.Dropout, LockedDropout),
}
# A product over so many frames is as fast as one over all, and what waits for it takes less memory.
_FRAMES_AT_ONCE = 1024


class _Plan(NamedTuple):
    """heads, scale: of the dot products. forced, choose: as in :func:`spell`."""

    heads: int
    scale: float
    forced: list[bool] | None
    choose: Callable[[Tensor], Tensor]


def can_spell(speller: Any, memory: AttentionMemory, forced: list[bool] | None) -> bool:
    """Whether :func:`spell` computes what ``speller``, a CellSpeller, computes step by step.

    That is with gradients, on the CPU, with dot products for scores, and with every layer of its original class and
    without hooks. Own choices are fed back if they are the same for all draws: without dropout, or with locked dropout.
    """
    if not torch.is_grad_enabled() or transforming() or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    modules = [m for layer in speller.children() for m in layer.modules()]
    if any(type(m) not in _LAYERS or is_altered(m) for m in modules):
        return False
    dropout, embedding = speller.dropout, speller.embedding
    if embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse:
        return False
    drawn_anew = isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0
    tensors = [memory.keys, memory.values, *speller.parameters()]
    dtypes = {t.dtype for t in tensors}
    return (
        not (forced is not None and drawn_anew)
        and all(type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu" for t in tensors)
        and dtypes in ({torch.float32}, {torch.float64})
    )


def spell(
    speller: Any,
    tokens: Tensor,
    memory: AttentionMemory,
    forced: list[bool] | None,
    choose: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """From a state of zeros, take tokens.

    Args:
        speller: a CellSpeller for which :func:`can_spell`.
        tokens: [N, L], the correct input of each step.
        memory: of ``speller.remember``.
        forced: for each step whether it takes its token from tokens, or else the own choice of the step before; the
            first always does. None: all of them.
        choose: from the features of a step, [N, D], to the most probable tokens, [N].

    Returns:
        features [N, L, D] and attention weights [N, L, T'].
    """
    attend = speller.attend
    heads, scale, query = 1, 1.0, (None, None)
    if isinstance(attend, MultiHeadAttention):
        heads, query = attend.num_heads, (attend.QW.weight, attend.QW.bias)
        scale = 1 / math.sqrt(attend.QW.out_features // heads)
    cells = [t for m in speller.lstm_cells for t in (m.weight_ih, m.weight_hh, m.bias_ih, m.bias_hh)]
    plan = _Plan(heads, scale, forced, choose)
    embedding = speller.embedding
    return _Spelling.apply(plan, tokens, embedding.padding_idx, embedding.weight, *memory, *query, *cells)


def _by_heads(x: Tensor, heads: int) -> Tensor:
    """[N, T, heads · size] → [N · heads, T, size]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _from_heads(x: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`_by_heads`."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


class _Spelling(torch.autograd.Function):
    """The loops of :func:`spell`. Time comes first in what they write, and rows and heads are one axis, R = N · heads."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        tokens: Tensor,
        padding_idx: int | None,
        embedding: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor,
        query_weight: Tensor | None,
        query_bias: Tensor | None,
        *cells: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights = [cells[i : i + 4] for i in range(0, len(cells), 4)]
        (rows, steps), heads = tokens.shape, plan.heads
        size, width = weights[0][1].shape[1], embedding.shape[1]
        context_size, attended = values.shape[2], keys.shape[2]
        keys_of, values_of = _by_heads(keys, heads), _by_heads(values, heads)
        hidden = ~valid.repeat_interleave(heads, 0)[:, None]
        lowest = torch.finfo(keys.dtype).min

        first = keys.new_zeros(steps, rows, width + context_size)
        states = [keys.new_zeros(steps + 1, rows, size) for _ in weights]
        cell_states = [[keys.new_zeros(rows, size)] for _ in weights]
        reserves: list[list[Tensor]] = [[] for _ in weights]
        queries = keys.new_empty(steps, rows, attended)
        attention = keys.new_empty(rows * heads, steps, keys.shape[1])
        features = keys.new_empty(steps, rows, size + context_size)
        # Float32 is all that steps over packed weights are made for.
        packed = keys.dtype == torch.float32
        step = "lstm_cell_prepacked" if packed else "lstm_cell"
        matrices = [[call("speller_pack", w, 4) if packed else w for w in of_cell[:2]] for of_cell in weights]
        taken, token = tokens.clone(), tokens[:, 0]
        context = keys.new_zeros(rows, context_size)
        for t in range(steps):
            if t > 0:
                own = plan.forced is not None and not plan.forced[t]
                token = plan.choose(features[t - 1]) if own else tokens[:, t]
                taken[:, t] = token
            first[t, :, :width] = embedding[token]
            first[t, :, width:] = context
            x = first[t]
            for i, ((of_x, of_h), (_, _, *biases)) in enumerate(zip(matrices, weights, strict=True)):
                x, c, reserve = call(
                    step, x, states[i][t], cell_states[i][t], of_x, None, of_h, None, *biases, True
                )
                states[i][t + 1] = x
                cell_states[i].append(c)
                reserves[i].append(reserve)
            queries[t] = x if query_weight is None else nn.functional.linear(x, query_weight, query_bias)
            scores = torch.bmm(queries[t].view(rows * heads, 1, -1), keys_of.transpose(1, 2))
            scores = (scores * plan.scale).masked_fill_(hidden, lowest).softmax(-1).masked_fill_(hidden, 0)
            attention[:, t] = scores[:, 0]
            context = torch.bmm(scores, values_of).view(rows, context_size)
            features[t, :, :size] = x
            features[t, :, size:] = context
        ctx.plan, ctx.padding_idx, ctx.taken = plan, padding_idx, taken
        ctx.kept = first, states, cell_states, reserves, queries, attention
        ctx.save_for_backward(embedding, keys_of, values_of, query_weight, query_bias, *cells)
        ctx.set_materialize_grads(False)
        shown = attention.unflatten(0, (rows, heads)).mean(1) if heads > 1 else attention.clone()
        return features.transpose(0, 1).contiguous(), shown

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_features: Tensor | None, grad_shown: Tensor | None) -> tuple[Any, ...]:
        embedding, keys, values, query_weight, query_bias, *cells = ctx.saved_tensors
        first, states, cell_states, reserves, queries, attention = ctx.kept
        weights = [cells[i : i + 4] for i in range(0, len(cells), 4)]
        plan, heads = ctx.plan, ctx.plan.heads
        steps, rows, size = first.shape[0], first.shape[1], states[0].shape[2]
        width = embedding.shape[1]
        # What linear takes as weights of the gradients of x and h together.
        joint = [
            torch.cat((weight_ih, weight_hh), 1).t().contiguous() for weight_ih, weight_hh, *_ in weights
        ]
        grads = [
            [torch.zeros_like(w) for w in (weight_ih, weight_hh)] for weight_ih, weight_hh, *_ in weights
        ]
        grad_biases = [weight_ih.new_zeros(weight_ih.shape[0]) for weight_ih, *_ in weights]
        at_once = max(1, _FRAMES_AT_ONCE // max(rows, 1))
        gates = [weight_ih.new_empty(at_once, rows, weight_ih.shape[0]) for weight_ih, *_ in weights]
        grad_embedded = first.new_empty(steps, rows, width)
        grad_contexts = values.new_empty(steps, rows, first.shape[2] - width)
        grad_queries, grad_scores = torch.empty_like(queries), torch.empty_like(attention)
        grad_h = [first.new_zeros(rows, size) for _ in weights]
        grad_c = [first.new_zeros(rows, size) for _ in weights]
        grad_context = first.new_zeros(rows, grad_contexts.shape[2])
        # The last step of those whose gates' gradients wait.
        last = steps - 1
        for t in reversed(range(steps)):
            above = 0
            if grad_features is not None:
                above, grad_context = grad_features[:, t, :size], grad_context + grad_features[:, t, size:]
            grad_contexts[t] = grad_context
            grad_weights = torch.bmm(grad_context.view(rows * heads, 1, -1), values.transpose(1, 2))[:, 0]
            if grad_shown is not None:
                grad_weights += (grad_shown[:, t] / heads).repeat_interleave(heads, 0)
            w = attention[:, t]
            of_scores = w * grad_weights
            of_scores = torch.addcmul(of_scores, w, of_scores.sum(-1, keepdim=True), value=-1).mul_(
                plan.scale
            )
            grad_scores[:, t] = of_scores
            of_query = torch.bmm(of_scores[:, None], keys).view(rows, -1)
            grad_queries[t] = of_query
            above = above + (of_query if query_weight is None else of_query @ query_weight)
            for i in reversed(range(len(weights))):
                of_gates, grad_c[i] = call(
                    "lstm_cell_backward", grad_h[i] + above, grad_c[i], cell_states[i][t], reserves[i][t]
                )
                # In the order of the steps, at the end.
                gates[i][at_once - 1 - last + t] = of_gates
                of_both = call("linear", of_gates, joint[i], None)
                above, grad_h[i] = of_both.split((joint[i].shape[0] - size, size), 1)
            grad_embedded[t], grad_context = above[:, :width], above[:, width:]
            if last - t + 1 == at_once or t == 0:
                _add_products(grads, grad_biases, gates, first, states, t, last)
                last = t - 1
        results: list[Tensor | None] = []
        for (of_ih, of_hh), of_bias, (*_, bias, _) in zip(grads, grad_biases, weights, strict=True):
            results += [of_ih, of_hh, *((None, None) if bias is None else (of_bias, of_bias.clone()))]
        of_rows = attention.transpose(1, 2), grad_scores.transpose(1, 2)
        grad_values = torch.bmm(of_rows[0], _by_heads(grad_contexts.transpose(0, 1), heads))
        grad_keys = torch.bmm(of_rows[1], _by_heads(queries.transpose(0, 1), heads))
        of_query = of_query_bias = None
        if query_weight is not None:
            of_query = grad_queries.flatten(0, 1).t() @ states[-1][1:].flatten(0, 1)
            of_query_bias = None if query_bias is None else grad_queries.sum((0, 1))
        padding_idx = -1 if ctx.padding_idx is None else ctx.padding_idx
        of_embedding = torch.ops.aten.embedding_dense_backward(
            grad_embedded, ctx.taken.t().contiguous(), embedding.shape[0], padding_idx, False
        )
        memory = _from_heads(grad_keys, heads), _from_heads(grad_values, heads), None
        return None, None, None, of_embedding, *memory, of_query, of_query_bias, *results


def _add_products(
    grads: list[list[Tensor]],
    grad_biases: list[Tensor],
    gates: list[Tensor],
    first: Tensor,
    states: list[Tensor],
    begin: int,
    last: int,
) -> None:
    """Add the steps from begin to last, whose gates' gradients are the last ones of gates."""
    for i, of_gates in enumerate(gates):
        of_gates = of_gates[begin - last - 1 :].flatten(0, 1)
        inputs = first if i == 0 else states[i - 1][1:]
        for of_weight, x in zip(grads[i], (inputs, states[i]), strict=True):
            of_weight.addmm_(of_gates.t(), x[begin : last + 1].flatten(0, 1))
        grad_biases[i] += of_gates.sum(0)
