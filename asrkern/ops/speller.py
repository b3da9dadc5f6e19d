"""The decoder of Listen, Attend and Spell for inference: embedding, cells, attention and output layers in one call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_integers
from asrkern.ops._autograd import call, not_differentiable
from asrkern.ops._common import check_tensor, lengths_on, register_fake

_STORED = (torch.float32, torch.bfloat16, torch.int8)


class Dense(NamedTuple):
    """A fully connected layer, ``(x Wᵀ) · scale + bias``.

    weight: [out_features, in_features], float32, bfloat16 or int8; scale, bias: [out_features] in float32, or None.
    """

    weight: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None


class SpellerCell(NamedTuple):
    """A recurrent cell, as torch.nn.LSTMCell and GRUCell keep it.

    input: weight_ih [gates·hidden_size, input_size] and bias_ih; hidden: weight_hh [gates·hidden_size, hidden_size] and
    bias_hh.
    """

    input: Dense
    hidden: Dense


class SpellerWeights(NamedTuple):
    """A speller. For one row, a step is as follows; context is the one of the step before, zeros at first:

    1. ``x = embedding[token]``, or ``[x; context]`` if feeds_context. The cells take x; the output of the last is the
       query.
    2. Scores of the row's valid frames t. "mean": 0. "dot": ``scale · q·keys[t]``, in each of ``heads`` equal parts.
       "additive": ``energy · tanh(q + keys[t] + l[t])``. q is the query, or the layer ``query`` of it if there is one.
       ``l[t] = location_bias + Σ_j location[j] · weights before[t + j − kernel_size // 2]``, from the second step on.
    3. ``weights = softmax(scores)``, or ``σ(scores) / Σ σ(scores)`` with smoothing; ``context = Σ_t weights[t]
       values[t]``.
    4. logits: the layers ``outputs``, with tanh between them, of the query, the context, or both (query first).

    Attributes:
        kind: of the cells, "lstm" or "gru".
        embedding: [num_tokens, embedding_size] in float32.
        cells: one or more; all weights of cells, query and outputs have one dtype.
        outputs: the last one has num_tokens outputs.
        features: what the first of the outputs takes: "query", "context" or "both".
        feeds_context: whether the first cell sees the context.
        scores: "mean", "dot" or "additive".
        query: a layer of the query, or None if the query is as wide as the keys.
        heads, scale: for "dot".
        energy, location, location_bias: for "additive": [size of keys], [kernel_size, size of keys], [size of keys].
            The latter two or neither.
        smoothing: normalised sigmoids in place of the softmax.
    """

    kind: str
    embedding: Tensor
    cells: tuple[SpellerCell, ...]
    outputs: tuple[Dense, ...]
    features: str = "both"
    feeds_context: bool = False
    scores: str = "dot"
    query: Dense | None = None
    heads: int = 1
    scale: float = 1.0
    energy: Tensor | None = None
    location: Tensor | None = None
    location_bias: Tensor | None = None
    smoothing: bool = False


class PackedSpeller(NamedTuple):
    """What :func:`pack_speller` makes, in the order in which this process' kernels read it: not for storing.

    The fields are the operations' own (``csrc/schema.cpp``): gru, whether the cells are GRUs; embedding [num_tokens,
    embedding_size] in float32; cells, of each cell W_ih and W_hh packed, their scales, the summed biases, a GRU's n
    part of b_hh; scores, heads, scale, smoothing, feeds_context as in :class:`SpellerWeights`; attention, the query's
    layer, then energy, location and its bias; features_begin, where in [query; context] the outputs' input begins;
    outputs, of each layer W packed, its scale and bias; widths, how many outputs each layer has. An empty tensor stands
    for none.
    """

    gru: bool
    embedding: Tensor
    cells: list[Tensor]
    scores: str
    heads: int
    scale: float
    smoothing: bool
    attention: list[Tensor]
    features_begin: int
    outputs: list[Tensor]
    widths: list[int]
    feeds_context: bool


class SpellerBeams(NamedTuple):
    """What a beam search finds, of each row beam_width hypotheses in the order in which they ended.

    tokens: [N, beam_width, L] int64, eos_token included, 0 beyond a hypothesis' end; counts: [N, beam_width] int64, how
    many tokens there are, 0 where there is no hypothesis; log_probs: [N, beam_width] float64, the sum of the tokens'
    natural log-probabilities, -inf where there is no hypothesis; coverage: [N, beam_width, T] float64, for each frame
    the sum of its weights over all steps.
    """

    tokens: Tensor
    counts: Tensor
    log_probs: Tensor
    coverage: Tensor


class SpellerStep(NamedTuple):
    """The results of a step.

    logits: [N, num_tokens]; weights: [N, T], 0 beyond a length, the mean over heads; states: shaped as the given ones;
    context: [N, C]. All are float32.
    """

    logits: Tensor
    weights: Tensor
    states: Tensor
    context: Tensor


def pack_speller(weights: SpellerWeights) -> PackedSpeller:
    """Put the weights of a speller in the order in which this process' kernels read them.

    Args:
        weights: a :class:`SpellerWeights` on the CPU. All layers but embedding have float32, bfloat16 or int8 weights.

    Raises:
        TypeError: something is no tensor.
        ValueError: an unknown name; shapes or dtypes that do not fit; or a tensor that is not on the CPU.
    """
    for name, choices in (
        ("kind", ("lstm", "gru")),
        ("scores", ("mean", "dot", "additive")),
        ("features", ("query", "context", "both")),
    ):
        if getattr(weights, name) not in choices:
            raise ValueError(f"{name}: expected one of {choices}, received {getattr(weights, name)!r}")
    gates = 3 if weights.kind == "gru" else 4
    check_tensor("embedding", weights.embedding, (2,))
    if not weights.cells or not weights.outputs:
        raise ValueError(
            f"cells, outputs: expected at least one each, received {len(weights.cells)} and {len(weights.outputs)}"
        )
    if weights.scores == "additive" and weights.energy is None:
        raise ValueError("energy: expected a tensor for additive scores, received None")
    if (weights.location is None) != (weights.location_bias is None):
        raise ValueError("location, location_bias: expected both or neither, received one of them")
    size = weights.cells[0].hidden.weight.shape[-1]
    nothing = torch.empty(0)

    def floats(tensor: Tensor | None) -> Tensor:
        return nothing if tensor is None else tensor.detach().float()

    def packed(name: str, layer: Dense, gates: int = 1) -> list[Tensor]:
        weight = layer.weight
        if not isinstance(weight, Tensor):
            raise TypeError(f"{name}: expected a Tensor, received {type(weight).__name__}")
        if weight.dim() != 2 or weight.dtype not in _STORED or weight.device.type != "cpu":
            raise ValueError(
                f"{name}: expected [out_features, in_features] of float32, bfloat16 or int8 on the CPU, received "
                f"{weight.dtype} of shape {tuple(weight.shape)} on {weight.device}"
            )
        return [
            call("speller_pack", weight.detach(), gates),
            floats(layer.scale),
            floats(layer.bias),
        ]

    cells = []
    for index, cell in enumerate(weights.cells):
        ih, scale_ih, bias_ih = packed(f"cells[{index}].input", cell.input, gates)
        hh, scale_hh, bias_hh = packed(f"cells[{index}].hidden", cell.hidden, gates)
        # A GRU's reset gate multiplies the n part of b_hh, too.
        own = size if weights.kind == "gru" else 0
        bias_n = nothing
        if len(bias_hh):
            bias_n = bias_hh[-own:].clone() if own else nothing
            summed = torch.cat((bias_hh[: len(bias_hh) - own], bias_hh.new_zeros(own)))
            bias_ih = bias_ih + summed if len(bias_ih) else summed
        cells += [ih, hh, scale_ih, scale_hh, bias_ih, bias_n]
    query = packed("query", weights.query) if weights.query is not None else [nothing] * 3
    outputs = [t for index, layer in enumerate(weights.outputs) for t in packed(f"outputs[{index}]", layer)]
    return PackedSpeller(
        weights.kind == "gru",
        floats(weights.embedding),
        cells,
        weights.scores,
        weights.heads,
        weights.scale,
        weights.smoothing,
        [*query, floats(weights.energy), floats(weights.location), floats(weights.location_bias)],
        size if weights.features == "context" else 0,
        outputs,
        [layer.weight.shape[0] for layer in weights.outputs],
        weights.feeds_context,
    )


def speller_step(
    weights: PackedSpeller,
    tokens: Lengths,
    states: Tensor,
    context: Tensor,
    previous: Tensor | None,
    keys: Tensor,
    values: Tensor,
    lengths: Lengths,
) -> SpellerStep:
    """One step of every row; see :class:`SpellerWeights`. For inference in float32 on the CPU: backward raises.

    A row's result is bit for bit independent of the other rows and of what lies beyond its length.

    Args:
        weights: of :func:`pack_speller`.
        tokens: integers [N].
        states: [cells, N, hidden_size], of LSTMs [2·cells, N, hidden_size]: h, c of the first cell, then of the next.
        context: [N, C], that of the step before.
        previous: [N, T], the weights of the step before; None at the first.
        keys, values: [M, T, size] and [M, T, C] of M utterances; row i of the N attends to number ``i // (N / M)``.
        lengths: integers [M], valid frames of each.

    Returns:
        :class:`SpellerStep`.

    Raises:
        TypeError: tokens or lengths are not integers, keys are no tensor, weights not packed.
        ValueError: shapes, dtypes, devices, tokens or lengths that do not fit.
    """
    tokens, lengths = _integers(weights, tokens, keys, lengths)
    return SpellerStep(
        *call("speller_step", tokens, states, context, previous, keys, values, lengths, *weights)
    )


def speller_greedy(
    weights: PackedSpeller,
    tokens: Lengths,
    states: Tensor,
    context: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Lengths,
    eos_token: int,
    max_length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps of every row, each of which takes the most probable token of the step before.

    The first step takes ``tokens``. A row ends with eos_token, or after max_length steps. Ended rows cost nothing.

    Args:
        weights, tokens, states, context, keys, values, lengths: as in :func:`speller_step`.
        eos_token: ends a row.
        max_length: steps at most.

    Returns:
        tokens [N, max_length] int64, eos_token included; counts [N] int64, how many of these there are; log_probs [N]
        float64, the sum of the tokens' natural log-probabilities.

    Raises:
        TypeError, ValueError: as :func:`speller_step`; ValueError for eos_token and max_length out of range.
    """
    tokens, lengths = _integers(weights, tokens, keys, lengths)
    return call(
        "speller_greedy",
        *(tokens, states, context, keys, values, lengths),
        *weights,
        *(eos_token, max_length),
    )


def speller_beam(
    weights: PackedSpeller,
    tokens: Lengths,
    states: Tensor,
    context: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Lengths,
    eos_token: int,
    max_length: int,
    beam_width: int,
) -> SpellerBeams:
    """Steps of every row that keep its most probable hypotheses, as :meth:`asrkern.models.LAS.beam_search` does.

    The first step takes ``tokens``. A hypothesis that takes eos_token leaves the beam, which becomes narrower by one;
    those that have not ended after max_length steps are found then. Of equally probable ones, that of the hypothesis
    ranked first at the step before is kept, then that of the lower token. What has ended costs nothing. A row is bit for
    bit independent of the others.

    Args:
        weights, tokens, states, context, keys, values, lengths: as in :func:`speller_step`.
        eos_token: ends a hypothesis.
        max_length: steps at most.
        beam_width: hypotheses of each row.

    Returns:
        :class:`SpellerBeams`. Where logits are not numbers, a row's search ends with a hypothesis of log-probability
        NaN.

    Raises:
        TypeError, ValueError: as :func:`speller_step`; ValueError for eos_token, max_length and beam_width out of range.
        MemoryError: there is no memory for beam_width hypotheses of each row.
    """
    tokens, lengths = _integers(weights, tokens, keys, lengths)
    return SpellerBeams(
        *call(
            "speller_beam",
            *(tokens, states, context, keys, values, lengths),
            *weights,
            *(eos_token, max_length, beam_width),
        )
    )


def _integers(
    weights: PackedSpeller, tokens: Lengths, keys: Tensor, lengths: Lengths
) -> tuple[Tensor, Tensor]:
    """tokens and lengths as the operations take them."""
    if not isinstance(weights, PackedSpeller):
        raise TypeError(f"weights: expected what pack_speller returns, received {type(weights).__name__}")
    check_tensor("keys", keys, (3,))
    tokens = as_integers("tokens", tokens, ("N",)).to(torch.int64)
    return tokens, lengths_on(keys.device, "lengths", lengths, keys.shape[0])


@register_fake("asrkern::speller_pack")
def _fake_pack(weight, gates):
    # The size depends on the instruction set of the process that computes.
    return weight.new_empty(torch.library.get_ctx().new_dynamic_size())


@register_fake("asrkern::speller_step")
def _fake_step(tokens, states, context, previous, keys, values, lengths, gru, embedding, *weights):
    rows = tokens.shape[0]
    return (
        keys.new_empty(rows, embedding.shape[0]),
        keys.new_empty(rows, keys.shape[1]),
        states.new_empty(states.shape),
        context.new_empty(context.shape),
    )


@register_fake("asrkern::speller_greedy")
def _fake_greedy(tokens, states, context, keys, values, lengths, *weights):
    rows = tokens.shape[0]
    return (
        tokens.new_empty(rows, weights[-1]),
        tokens.new_empty(rows),
        keys.new_empty(rows, dtype=torch.float64),
    )


@register_fake("asrkern::speller_beam")
def _fake_beam(tokens, states, context, keys, values, lengths, *weights):
    rows, beam_width = tokens.shape[0], weights[-1]
    # What is found says how long the longest hypothesis is.
    longest = torch.library.get_ctx().new_dynamic_size()
    return (
        tokens.new_empty(rows, beam_width, longest),
        tokens.new_empty(rows, beam_width),
        keys.new_empty(rows, beam_width, dtype=torch.float64),
        keys.new_empty(rows, beam_width, keys.shape[1], dtype=torch.float64),
    )


not_differentiable("speller_pack", "speller_step", "speller_greedy", "speller_beam")
