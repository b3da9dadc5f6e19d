"""Weights for inference alone: kept in the kernels' order, not as parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.nn._recurrent import RecurrentLayers
from asrkern.nn.cells import GRUCell, LSTMCell, OneState, RecurrentCell, TwoStates
from asrkern.nn.gru import GRU
from asrkern.nn.lstm import LSTM
from asrkern.nn.quantize import QuantizedCell, QuantizedGRU, QuantizedLSTM
from asrkern.ops._autograd import call
from asrkern.ops._common import compute_dtype, output_dtype

# Before, TorchDynamo took each compilation for an export.
_TELLS_EXPORTS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)
_WAY_BACK = "asrkern.nn.unfreeze(model) gives the weights back"


class _Frozen(nn.Module):
    """A layer or a cell that keeps the weights of its steps only in the order that the kernels read."""

    # Name of a weight → the packed weight. They are not buffers: their order depends on this CPU, so they must not be
    # stored or moved.
    _packed_weights: dict[str, Tensor]
    # The layer's class before freezing, to which unfreeze returns it; its weights in their order, and whether each had
    # gradients.
    _thawed: type[nn.Module]
    _order: dict[str, bool]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("weight_") and name in self.__dict__.get("_packed_weights", ()):
            raise AttributeError(f"{name}: the model is frozen, {_WAY_BACK}; state_dict() has a copy")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_packed_weights", ()):
            raise AttributeError(f"{name}: the model is frozen, {_WAY_BACK}")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The sizes of the layer as repr shows them."""
        return f"{self.input_size}, {self.hidden_size}"

    @staticmethod
    def _weight_names(module: nn.Module) -> list[str]:
        """Which weights of the layer before freezing are packed."""
        raise NotImplementedError

    def _shape_of(self, name: str) -> tuple[int, int]:
        """That of a weight before packing."""
        raise NotImplementedError

    def _check_use(self) -> None:
        # It raises here, as quantised layers do: if train() raised, part of the model would be left in each mode.
        if self.training:
            raise RuntimeError(f"{type(self).__name__} is for inference; call eval(), or {_WAY_BACK}")
        exporting = torch.compiler.is_exporting() and (
            _TELLS_EXPORTS or not torch.compiler.is_dynamo_compiling()
        )
        if exporting or torch.jit.is_tracing():
            raise RuntimeError(
                f"a frozen {self._thawed.__name__} is for this process: its weights are in the order of this CPU; "
                f"before exporting, {_WAY_BACK}"
            )

    def _as_before(self, x: Tensor, packed: Tensor) -> Tensor:
        """x in the dtype of the layer's results: see run_layer."""
        if not issubclass(self._thawed, _PARAMETERS_OF):
            return x
        compute_dtype(x, weight_hh=packed)
        return x.to(output_dtype(x, packed))

    def _unpacked(self) -> Iterator[tuple[str, Tensor]]:
        """The weights before packing, as new tensors."""
        for name, packed in self._packed_weights.items():
            weight = _unpack(packed, self._pack, self._shape_of(name))
            # Compares bits, so that NaN equals NaN.
            if not torch.equal(self._pack(weight).view(torch.uint8), packed.view(torch.uint8)):
                raise RuntimeError(f"{name}: its packed form cannot be read back")
            yield name, weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Frozen:
        for name, packed in self._packed_weights.items():
            probe = fn(packed[:0])
            if probe.device != packed.device or probe.dtype != packed.dtype:
                raise RuntimeError(
                    f"{name}: expected a frozen model to stay {packed.dtype} on the CPU, received {probe.dtype} on "
                    f"{probe.device}; {_WAY_BACK}"
                )
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weights = dict(self._unpacked())
        for name in self._order:
            if name in weights or prefix + name in destination:
                destination[prefix + name] = destination.pop(prefix + name, weights.get(name))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        lists[-1].append(f"{prefix[:-1] or 'the model'} is frozen and takes no weights; {_WAY_BACK}")

    def __getstate__(self) -> dict[str, Any]:
        # A process that is being started has this CPU, too. It reads what is shared with it after this call, when
        # copies made here would be gone.
        starting = get_spawning_popen() is not None
        return {
            **super().__getstate__(),
            "_packed_weights": self._packed_weights if starting else dict(self._unpacked()),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._packed_weights = {
            name: weight if weight.dim() == 1 else self._pack(weight)
            for name, weight in self._packed_weights.items()
        }


class _FrozenRNN(RecurrentLayers, _Frozen):
    """Every weight_hh is packed."""

    def extra_repr(self) -> str:
        """The sizes of the layer as repr shows them."""
        return _Frozen.extra_repr(self) + f", num_layers={self.num_layers}"

    def flatten_parameters(self) -> None:
        """Does nothing: the packed weights are the weights, not copies."""

    @staticmethod
    def _weight_names(module: Any) -> list[str]:
        ends = ("", "_reverse")[: 2 if module.bidirectional else 1]
        return [f"weight_hh_l{layer}{end}" for layer in range(module.num_layers) for end in ends]

    def _shape_of(self, name: str) -> tuple[int, int]:
        return getattr(self, name.replace("_hh_", "_ih_")).shape[0], self.hidden_size

    def _layer(self, layer: int, x: Tensor, *states: Tensor, **options: Any) -> tuple[Tensor, ...]:
        self._check_use()
        directions = [
            self._packed_direction(key, self._packed_weights[f"weight_hh_{key}"])
            for key in (f"l{layer}", f"l{layer}_reverse")[: 2 if self.bidirectional else 1]
        ]
        x = self._as_before(x, directions[0].packed_hh)
        reverse = directions[1] if self.bidirectional else None
        return self._prepacked_operation(x, directions[0], reverse, *states, **options)


class FrozenGRU(_FrozenRNN):
    """A GRU, or a quantised GRU, of a model that :func:`freeze` has frozen.

    It is not made by its constructor but by :func:`freeze`; called as :class:`asrkern.nn.GRU`. input_size, hidden_size,
    num_layers, bias, batch_first, dropout, bidirectional, device, dtype and merge are those of the layer.

    Raises:
        ValueError: merge is neither "concat" nor "sum".
    """

    _prepacked_operation = staticmethod(ops.gru_prepacked)
    _pack = staticmethod(ops.pack_gru_weight)


class FrozenLSTM(_FrozenRNN):
    """An LSTM, or a quantised LSTM, of a model that :func:`freeze` has frozen.

    It is not made by its constructor but by :func:`freeze`; called as :class:`asrkern.nn.LSTM`. input_size,
    hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype and merge are those of the layer.

    Raises:
        ValueError: merge is neither "concat" nor "sum".
    """

    _prepacked_operation = staticmethod(ops.lstm_prepacked)
    _pack = staticmethod(ops.pack_lstm_weight)
    _state_count = 2


class _FrozenCell(RecurrentCell, _Frozen):
    """Both weights are packed."""

    _gates: int
    # The operation by its name, which checks what memory depends on, and no more.
    _unchecked: str

    @staticmethod
    def _weight_names(module: nn.Module) -> list[str]:
        return ["weight_ih", "weight_hh"]

    def _shape_of(self, name: str) -> tuple[int, int]:
        return self._gates * self.hidden_size, self.input_size if name == "weight_ih" else self.hidden_size

    def _step(self, x: Tensor, *states: Tensor) -> Tensor | tuple[Tensor, ...]:
        self._check_use()
        packed_ih, packed_hh = self._packed_weights["weight_ih"], self._packed_weights["weight_hh"]
        scale_ih, scale_hh = (getattr(self, f"weight_{part}_scale", None) for part in ("ih", "hh"))
        weights = ops.PackedCellWeights(packed_ih, scale_ih, packed_hh, scale_hh, self.bias_ih, self.bias_hh)
        # The operation's checks take as long as a step of 256 units. Shapes were checked above, and csrc checks them.
        packed = (packed_ih, packed_hh) if issubclass(self._thawed, _PARAMETERS_OF) else ()
        beside = (scale_ih, scale_hh, self.bias_ih, self.bias_hh)
        floats = (x, *states, *packed, *(t for t in beside if t is not None))
        if not torch.is_grad_enabled() and all(t.dtype is torch.float32 and t.is_cpu for t in floats):
            *after, _reserve = call(self._unchecked, x, *states, *weights)
            return after[0] if len(after) == 1 else tuple(after)
        return self._operation(self._as_before(x, packed_hh), weights, *states)


class FrozenGRUCell(_FrozenCell, OneState):
    """A GRUCell, or a quantised one, of a model that :func:`freeze` has frozen.

    It is not made by its constructor but by :func:`freeze`; called as :class:`asrkern.nn.GRUCell`.
    """

    _gates = 3
    _operation = staticmethod(ops.gru_cell_prepacked)
    _unchecked = "gru_cell_prepacked"
    _pack = staticmethod(functools.partial(ops.pack_cell_weight, gates=3))


class FrozenLSTMCell(_FrozenCell, TwoStates):
    """An LSTMCell, or a quantised one, of a model that :func:`freeze` has frozen.

    It is not made by its constructor but by :func:`freeze`; called as :class:`asrkern.nn.LSTMCell`.
    """

    _gates = 4
    _operation = staticmethod(ops.lstm_cell_prepacked)
    _unchecked = "lstm_cell_prepacked"
    _pack = staticmethod(functools.partial(ops.pack_cell_weight, gates=4))


# The classes of layers that freeze knows, and what it makes of them.
_KINDS: dict[type[nn.Module], type[_Frozen]] = {
    GRU: FrozenGRU,
    LSTM: FrozenLSTM,
    GRUCell: FrozenGRUCell,
    LSTMCell: FrozenLSTMCell,
    QuantizedGRU: FrozenGRU,
    QuantizedLSTM: FrozenLSTM,
}
# Of those, the layers with parameters; quantised ones have buffers.
_PARAMETERS_OF = (nn.RNNBase, nn.RNNCellBase)


def frozen_kind(module: nn.Module) -> Any:
    """What freeze makes of a layer; None if it leaves it."""
    if type(module) is QuantizedCell:
        return FrozenLSTMCell if module.gates == FrozenLSTMCell._gates else FrozenGRUCell
    return _KINDS.get(type(module))


def freeze(model: nn.Module) -> nn.Module:
    """Keep the recurrent weights of a model for inference alone: packed, and no longer as parameters.

    Results are the same bits. Each weight_hh, and both weights of a cell, are in memory once; in eval mode without
    freezing a layer has a packed copy beside it, and a cell packs at every step. Calls need not find out whether the
    weights were edited, which short calls notice (``python benchmarks/ops/packed_weights.py``). Editing, training, moving and exporting are refused until :func:`unfreeze`.
    Outputs of a frozen layer take no part in autograd. ``state_dict()``, pickling and ``copy.deepcopy`` give what they
    gave before. What was made for the parameters before, such as an optimizer, still holds them.

    Args:
        model: its asrkern.nn.GRU, LSTM, GRUCell and LSTMCell, and quantised ones, are changed in place. Their weights
            are float32, int8 or bfloat16 on the CPU. Left as they are: subclasses, among them layers with
            parametrizations, layers with int8 activations, and those of a LAS speller, which keeps packed weights of
            its own.

    Returns:
        The model, in eval mode.

    Raises:
        TypeError: model is not a module.
        ValueError: there is no such layer; or one is on another device, has another dtype, or a weight that is not a
            plain parameter (torch.nn.utils.weight_norm). Then the model is as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, received {type(model).__name__}")
    known = [(name, m) for name, m in model.named_modules() if frozen_kind(m)]
    if not known and not any(isinstance(m, _Frozen) for m in model.modules()):
        raise ValueError(
            f"model: expected asrkern.nn.GRU, LSTM or their cells inside, received a {type(model).__name__} without; "
            "asrkern.nn.convert(model) puts them in torch's place"
        )
    # Sums of their weights are in the packs for int8 activations, too: _unpack would not tell them apart.
    packing = {part for m in model.modules() if getattr(m, "packs_its_layers", False) for part in m.modules()}
    found = [
        (name, m)
        for name, m in known
        if getattr(m, "activations", "float32") == "float32" and m not in packing
    ]
    # Weight and kind → packed weight, so that a weight of several layers is packed once.
    packs: dict[tuple[Tensor, type[_Frozen]], Tensor] = {}
    # Tensors made in inference mode could not become parameters again.
    with torch.inference_mode(False), torch.no_grad():
        plans = [(module, _packed_of(name, module, packs)) for name, module in found]
    for module, packed in plans:
        own = _own(module)
        module._order = {name: tensor is not None and tensor.requires_grad for name, tensor in own.items()}
        module._packed_weights, module._thawed = packed, type(module)
        for name in packed:
            del own[name]
        # torch's own lists of the same parameters go, too.
        for name in ("_flat_weights", "_flat_weight_refs"):
            module.__dict__.pop(name, None)
        if isinstance(module, RecurrentLayers):
            module._packed.clear()
        module.__class__ = frozen_kind(module)
    return model.eval()


def unfreeze(model: nn.Module) -> nn.Module:
    """Undo :func:`freeze`, in place: the same layers with the same weights, which are new parameters.

    Args:
        model: any module; layers that are not frozen stay as they are.


    Raises:
        TypeError: model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, received {type(model).__name__}")
    # Packed weight → parameter, so that layers that shared a weight share one again.
    thawed: dict[Tensor, Tensor] = {}
    for module in [m for m in model.modules() if isinstance(m, _Frozen)]:
        weights, order = {}, module._order
        with torch.inference_mode(False), torch.no_grad():
            for name, weight in module._unpacked():
                if issubclass(module._thawed, _PARAMETERS_OF):
                    weight = nn.Parameter(weight, order[name])
                weights[name] = thawed.setdefault(module._packed_weights[name], weight)
        module.__class__ = module._thawed  # type: ignore[assignment]
        for name in ("_packed_weights", "_order", "_thawed"):
            del module.__dict__[name]
        own = _own(module)
        own.update(weights)
        for name in order:
            own[name] = own.pop(name)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return model


def _own(module: nn.Module) -> dict[str, Any]:
    """The dictionary in which a layer keeps its own weights."""
    return module._parameters or module._buffers


def _packed_of(
    name: str, module: nn.Module, packs: dict[tuple[Tensor, type[_Frozen]], Tensor]
) -> dict[str, Tensor]:
    """The weights of a layer, packed, taken from ``packs`` if they are there. ValueError if one cannot be packed."""
    packed: dict[str, Tensor] = {}
    kind = frozen_kind(module)
    for key in kind._weight_names(module):
        where = f"{name}.{key}" if name else key
        weight: Any = _own(module).get(key)
        if type(weight) not in (Tensor, nn.Parameter):
            raise ValueError(
                f"model: expected {where} to be a plain parameter, received one that is computed (weight_norm?)"
            )
        try:
            if (weight, kind) not in packs:
                packs[weight, kind] = kind._pack(weight)
        except ValueError as error:
            raise ValueError(f"model: {where}: {error}") from error
        packed[key] = packs[weight, kind]
    return packed


def _unpack(packed: Tensor, pack: Callable[[Tensor], Tensor], shape: tuple[int, int]) -> Tensor:
    """The weight of which ``pack`` made ``packed``: packing the numbers of its places shows where each value went."""
    rows, columns = (torch.arange(1, size + 1, dtype=torch.float32) for size in shape)
    places = [pack(numbers.expand(shape).contiguous()).long() for numbers in (rows[:, None], columns)]
    # Places of padding have number 0.
    real = places[0] > 0
    weight = packed.new_empty(shape)
    weight[places[0][real] - 1, places[1][real] - 1] = packed[real]
    return weight
