"""Weights in fewer bits, for inference on the CPU."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.nn._hooks import has_hooks
from asrkern.nn._packed import PackedCache
from asrkern.nn._recurrent import RecurrentLayers
from asrkern.nn.cells import GRUCell, LSTMCell
from asrkern.nn.gru import GRU
from asrkern.nn.lstm import LSTM
from asrkern.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer, is_plain
from asrkern.ops._common import check_shape, check_tensor, takes_int8
from asrkern.ops._prepacked import PackedWeights

# Drop-in layers, whose forward is not torch's.
_OURS = (GRU, LSTM, GRUCell, LSTMCell, TransformerEncoderLayer, TransformerDecoderLayer)


class _EvalOnly(nn.Module):
    """A layer without a backward pass."""

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        """A buffer, or an attribute that is None: torch.export loses count where a buffer is."""
        if tensor is None:
            setattr(self, name, None)
        else:
            self.register_buffer(name, tensor)

    def _require_eval(self) -> None:
        if self.training:
            raise RuntimeError(
                f"{type(self).__name__} is for inference: its weights are rounded and have no gradient; call eval(), "
                "and train the model that it was made from"
            )


def _bias_of(bias: Tensor | None) -> Tensor | None:
    """In float32, and never the layer's own."""
    return None if bias is None else bias.detach().to(torch.float32, copy=True)


def _repr_of(activations: str) -> str:
    return "" if activations == "float32" else f", activations={activations}"


class QuantizedLinear(_EvalOnly):
    """torch.nn.Linear with int8 or bfloat16 weights, made from ``linear``; weights and activations: see :func:`quantize`.

    Buffers: weight [out_features, in_features], scale [out_features] (int8), bias [out_features] (float32).
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, weights: str, activations: str = "float32") -> None:
        super().__init__()
        self.in_features, self.out_features, self.format = linear.in_features, linear.out_features, weights
        self.activations = activations
        weight, scale = ops.quantize_weight(linear.weight, weights)
        self._keep("weight", weight)
        self._keep("scale", scale)
        self._keep("bias", _bias_of(linear.bias))
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """input [..., in_features], floating point → [..., out_features], in the dtype of input."""
        self._require_eval()
        return ops.linear_quantized(input, self.weight, self.scale, self.bias, self.activations)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, weights={self.format}"
            + _repr_of(self.activations)
        )


class QuantizedCell(_EvalOnly):
    """torch.nn.LSTMCell or GRUCell with int8 or bfloat16 weights, made from ``cell``; weights: "int8" or "bf16".

    activations: "float32" whatever is asked for: a row or two meet the weights once, and reading those is the time.

    Buffers: weight_ih, weight_hh, their scales weight_ih_scale, weight_hh_scale (int8), and the biases in float32.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    weight_ih_scale: Tensor | None
    weight_hh_scale: Tensor | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(self, cell: nn.LSTMCell | nn.GRUCell, weights: str, activations: str = "float32") -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.format = cell.input_size, cell.hidden_size, weights
        self.gates = 4 if isinstance(cell, nn.LSTMCell) else 3
        for part in ("ih", "hh"):
            weight, scale = ops.quantize_weight(getattr(cell, f"weight_{part}"), weights)
            bias = getattr(cell, f"bias_{part}")
            self._keep(f"weight_{part}", weight)
            self._keep(f"weight_{part}_scale", scale)
            self._keep(f"bias_{part}", _bias_of(bias))
        self.train(cell.training)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As torch's: input [N, input_size] or [input_size], h or (h, c) of an LSTM → the new h or (h, c).

        Raises:
            TypeError: something is no tensor, or hx of an LSTM no pair of them.
            ValueError: a shape does not fit.
        """
        self._require_eval()
        check_tensor("input", input, (1, 2))
        rows = input.shape[:-1]
        check_shape("input", input, (*rows, self.input_size))
        if hx is None:
            zeros = input.new_zeros(*rows, self.hidden_size)
            hx = (zeros, zeros) if self.gates == 4 else zeros
        states = hx if self.gates == 4 else (hx,)
        if not isinstance(states, tuple | list) or len(states) != (2 if self.gates == 4 else 1):
            raise TypeError(f"hx: expected a pair (h, c), received {type(hx).__name__}")
        for name, state in zip(("h", "c"), states):
            check_shape(name, state, (*rows, self.hidden_size))
        weights: Any = ops.GRUWeights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        scales = self.weight_ih_scale, self.weight_hh_scale
        x, *states = (t if rows else t[None] for t in (input, *states))
        if self.gates == 4:
            h, c = ops.lstm_cell(x, weights, *states, scales=scales)
            return (h, c) if rows else (h[0], c[0])
        h = ops.gru_cell(x, weights, *states, scales=scales)
        return h if rows else h[0]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, weights={self.format}"


class _QuantizedRNN(RecurrentLayers, _EvalOnly):
    """Buffers: weight_ih_l0, weight_hh_l0, …, their scales weight_ih_l0_scale, … (int8), and the biases in float32."""

    def __init__(self, rnn: nn.RNNBase, weights: str, activations: str = "float32") -> None:
        _EvalOnly.__init__(self)
        for name in (
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "batch_first",
            "dropout",
            "bidirectional",
        ):
            setattr(self, name, getattr(rnn, name))
        self.merge, self.format = getattr(rnn, "merge", "concat"), weights
        self.activations = activations
        # By name, since parametrizations compute some of them.
        for name in itertools.chain.from_iterable(rnn._all_weights):
            parameter = getattr(rnn, name).detach()
            value: Tensor | None = parameter
            if name.startswith("weight"):
                value, scale = ops.quantize_weight(parameter, weights)
                self._keep(f"{name}_scale", scale)
            else:
                value = _bias_of(parameter)
            self._keep(name, value)
        self._packed = PackedCache()
        self.train(rnn.training)

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, weights={self.format}"
            + _repr_of(self.activations)
        )

    def _direction(self, key: str) -> PackedWeights:
        name = f"weight_hh_{key}"
        pack = functools.partial(self._pack, activations=self.activations)
        return self._packed_direction(
            key, self._packed.get(name, getattr(self, name), pack, self.activations)
        )

    def _layer(self, layer: int, x: Tensor, *states: Tensor, **options: Any) -> tuple[Tensor, ...]:
        self._require_eval()
        reverse = self._direction(f"l{layer}_reverse") if self.bidirectional else None
        return self._prepacked_operation(
            x, self._direction(f"l{layer}"), reverse, *states, activations=self.activations, **options
        )


class QuantizedGRU(_QuantizedRNN):
    """torch.nn.GRU with int8 or bfloat16 weights, made from ``rnn``; called as :class:`asrkern.nn.GRU`.

    weights and activations: see :func:`quantize`.
    Buffers: weight_ih_l0, weight_hh_l0, …, their scales weight_ih_l0_scale, … (int8), and the biases in float32.
    """

    _prepacked_operation = staticmethod(ops.gru_prepacked)
    _pack = staticmethod(ops.pack_gru_weight)


class QuantizedLSTM(_QuantizedRNN):
    """torch.nn.LSTM with int8 or bfloat16 weights, made from ``rnn``; called as :class:`asrkern.nn.LSTM`.

    weights and activations: see :func:`quantize`.
    Buffers: as those of :class:`QuantizedGRU`.
    """

    _prepacked_operation = staticmethod(ops.lstm_prepacked)
    _pack = staticmethod(ops.pack_lstm_weight)
    _state_count = 2


def quantize(model: nn.Module, weights: str = "int8", activations: str = "float32") -> nn.Module:
    """A copy of a model whose GRUs, LSTMs, their cells, Transformer layers and linear layers hold weights in fewer bits.

    Few rows at a time are bound by the bytes of the weights, of which int8 has a quarter and bfloat16 half. Sums stay
    in float32, activations are not rounded unless that is asked for, and a row's result is bit-identical whatever its
    batch, as with float32. With ``activations="int8"`` many rows are faster, too: each row that meets int8 weights in a
    GRU, an LSTM, a Linear or a Transformer layer is rounded to eight bits by its own largest value, and products are
    those of integers. Cells, the layers of a LAS speller in its fused step, and the few queries of a Transformer decoder
    that meet its memory's weights themselves, keep float32 activations. Of a bidirectional GRU of 2560 units an output
    differs from float32's by up to 8e-3 (int8) or 3e-3 (bf16) of the largest one, as
    ``benchmarks/peers/layers.py --only gru-quantized`` prints.

    Args:
        model: torch.nn.GRU, LSTM, GRUCell, LSTMCell, Linear, TransformerEncoderLayer and TransformerDecoderLayer (with
            ReLU) inside it, and asrkern's, are replaced; the rest is copied, as are those that torch's attention and
            the fast path of its encoder layers read themselves, and those with hooks (torch.nn.utils' weight_norm and
            prune have some) or with a forward of their own. Parametrizations are applied and go.
        weights: "int8" (symmetric, one scale a row) or "bf16".
        activations: "float32" or, with int8 weights, "int8".

    Returns:
        The copy, in eval mode; calling a replaced layer in train mode raises RuntimeError.

    Warns:
        UserWarning: layers have hooks or a forward of their own, and are left as they are.

    Raises:
        ValueError: another format, int8 activations with bf16 weights, weights that are not finite, an LSTM with
            proj_size, a frozen model, or nothing to replace.
    """
    if weights not in ("int8", "bf16"):
        raise ValueError(f'weights: expected "int8" or "bf16", received {weights!r}')
    if takes_int8(activations) and weights != "int8":
        raise ValueError(f'activations: expected "float32" with weights="bf16", received {activations!r}')
    for name, module in model.named_modules():
        if hasattr(module, "_packed_weights"):
            raise ValueError(
                f"model: expected one that is not frozen, received {type(module).__name__} in {name or 'the layer itself'}; "
                "asrkern.nn.unfreeze(model) gives the weights back"
            )
    # They are made of the layers here.
    from asrkern.nn.quantized_transformer import KINDS

    kinds: dict[Any, Any] = {
        **KINDS,
        nn.GRU: QuantizedGRU,
        nn.LSTM: QuantizedLSTM,
        nn.GRUCell: QuantizedCell,
        nn.LSTMCell: QuantizedCell,
        nn.Linear: QuantizedLinear,
    }
    unasked = _read_by_others(model)
    known = [
        (name, module, base)
        for name, module in model.named_modules(remove_duplicate=False)
        for base in kinds
        if isinstance(module, base) and module not in unasked
    ]
    left = {
        name: reason for name, module, base in known if (reason := _more_than_its_class_says(module, base))
    }
    found = [(name, kinds[base]) for name, _, base in known if name not in left]
    such_as = "".join(f"{name or 'the layer itself'} {reason}" for name, reason in [*left.items()][:1])
    if not found:
        raise ValueError(
            f"model: expected a GRU, an LSTM or a Linear inside, received a {type(model).__name__} without"
            + (f" any that can be replaced: {such_as}" if left else "")
        )
    if left:
        warnings.warn(f"model: {len(left)} layers are left as they are: {such_as}", stacklevel=2)
    for name, _ in found:
        if proj_size := getattr(model.get_submodule(name), "proj_size", 0):
            raise ValueError(
                f"model: expected LSTMs without projections, received proj_size={proj_size} in {name or 'the layer itself'}"
            )
    # Buffers made in inference mode could not be recognised when they change.
    with torch.inference_mode(False):
        # What the copy has in place of a layer, by its id, so that the layer's own weights are not copied before.
        replacements: dict[int, Any] = {}
        for name, kind in found:
            layer = model.get_submodule(name)
            if id(layer) in replacements:
                continue
            on_cpu = all(parameter.device.type == "cpu" for parameter in layer.parameters())
            there = layer if on_cpu else copy.deepcopy(layer).cpu()
            replacements[id(layer)] = kind(there, weights, activations)
        for tensor in _computed(model):
            replacements[id(tensor)] = tensor.detach().clone()
        model = copy.deepcopy(model, replacements).cpu()
        for module in model.modules():
            # Its nested tensors are for torch's fast path, whose weights it would read.
            if isinstance(module, nn.TransformerEncoder) and isinstance(module.layers[0], _EvalOnly):
                module.use_nested_tensor = False
    return model.eval()


def _computed(model: nn.Module) -> Iterator[Tensor]:
    """Weights that hooks keep as attributes, and compute anew in each call. deepcopy refuses those with a graph."""
    for module in model.modules():
        for value in vars(module).values():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Tensor) and not part.is_leaf:
                    yield part


def _more_than_its_class_says(module: nn.Module, base: type[nn.Module]) -> str | None:
    """Why a layer of a class, or of asrkern's in its place, cannot be replaced; None if it can."""
    if has_hooks(module):
        return "has hooks (weight_norm and prune of torch.nn.utils are some)"
    # Those of parametrizations have the forward of the class before.
    forwards = {base.forward, *(kind.forward for kind in _OURS if issubclass(kind, base))}
    if "forward" in module.__dict__ or type(module).forward not in forwards:
        return f"has a forward of its own ({type(module).__name__})"
    return None


def _read_by_others(model: nn.Module) -> set[nn.Module]:
    """Linear layers whose weights torch's attention reads itself: in their place another layer would not be asked."""
    found: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            # Replaced as a whole, or not at all.
            found |= set(module.modules()) - {module} if is_plain(module) else {module}
        if isinstance(module, nn.MultiheadAttention):
            found.add(module.out_proj)
        elif isinstance(module, nn.TransformerEncoderLayer) and module.self_attn.batch_first:
            # Its fast path.
            found |= {module.linear1, module.linear2}
    return found
