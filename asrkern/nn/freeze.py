"""Weights for inference alone: kept in the kernels' order, not as parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.nn._recurrent import RecurrentLayers
from asrkern.nn.gru import GRU
from asrkern.nn.lstm import LSTM
from asrkern.nn.quantize import QuantizedGRU, QuantizedLSTM
from asrkern.ops._common import compute_dtype, output_dtype

_WAY_BACK = "asrkern.nn.unfreeze(model) gives the weights back"


class _FrozenRNN(RecurrentLayers, nn.Module):
    """A recurrent layer that keeps every weight_hh only in the order that the kernels read."""

    # Name of a weight → the packed weight. They are not buffers: their order depends on this CPU, so they must not be
    # stored or moved.
    _packed_hh: dict[str, Tensor]
    # The layer's class before freezing, to which unfreeze returns it; its weights in their order, and whether each had
    # gradients.
    _thawed: type[RecurrentLayers]
    _order: dict[str, bool]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("weight_hh_") and name in self.__dict__.get("_packed_hh", ()):
            raise AttributeError(f"{name}: the model is frozen, {_WAY_BACK}; state_dict() has a copy")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_packed_hh", ()):
            raise AttributeError(f"{name}: the model is frozen, {_WAY_BACK}")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The sizes of the layer as repr shows them."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"

    def flatten_parameters(self) -> None:
        """Does nothing: the packed weights are the weights, not copies."""

    def _layer(self, layer: int, x: Tensor, *states: Tensor, **options: Any) -> tuple[Tensor, ...]:
        # It raises here, as quantised layers do: if train() raised, part of the model would be left in each mode.
        if self.training:
            raise RuntimeError(f"{type(self).__name__} is for inference; call eval(), or {_WAY_BACK}")
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise RuntimeError(
                f"a frozen {self._thawed.__name__} is for this process: its weights are in the order of this CPU; "
                f"before exporting, {_WAY_BACK}"
            )
        directions = [
            self._packed_direction(key, self._packed_hh[f"weight_hh_{key}"])
            for key in (f"l{layer}", f"l{layer}_reverse")[: 2 if self.bidirectional else 1]
        ]
        if issubclass(self._thawed, nn.RNNBase):
            # With the dtypes of the layer before freezing: see run_layer.
            compute_dtype(x, weight_hh=directions[0].packed_hh)
            x = x.to(output_dtype(x, directions[0].packed_hh))
        reverse = directions[1] if self.bidirectional else None
        return self._prepacked_operation(x, directions[0], reverse, *states, **options)

    def _unpacked(self) -> Iterator[tuple[str, Tensor]]:
        """The weights before packing, as new tensors."""
        for name, packed in self._packed_hh.items():
            rows = getattr(self, name.replace("_hh_", "_ih_")).shape[0]
            weight = _unpack(packed, self._pack, (rows, self.hidden_size))
            # Compares bits, so that NaN equals NaN.
            if not torch.equal(self._pack(weight).view(torch.uint8), packed.view(torch.uint8)):
                raise RuntimeError(f"{name}: its packed form cannot be read back")
            yield name, weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _FrozenRNN:
        for name, packed in self._packed_hh.items():
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
            "_packed_hh": self._packed_hh if starting else dict(self._unpacked()),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._packed_hh = {
            name: weight if weight.dim() == 1 else self._pack(weight)
            for name, weight in self._packed_hh.items()
        }


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


KINDS = {GRU: FrozenGRU, LSTM: FrozenLSTM, QuantizedGRU: FrozenGRU, QuantizedLSTM: FrozenLSTM}


def freeze(model: nn.Module) -> nn.Module:
    """Keep the recurrent weights of a model for inference alone: packed, and no longer as parameters.

    Results are the same bits. Each weight_hh is in memory once; in eval mode without freezing there is a packed copy
    beside it. Calls need not find out whether the weights were edited, which short calls notice (``python
    benchmarks/ops/packed_weights.py``). Editing, training, moving and exporting are refused until :func:`unfreeze`.
    Outputs of a frozen layer take no part in autograd. ``state_dict()``, pickling and ``copy.deepcopy`` give what they
    gave before. What was made for the parameters before, such as an optimizer, still holds them.

    Args:
        model: its asrkern.nn.GRU and LSTM, and quantised ones, are changed in place. Their weights are float32, int8 or
            bfloat16 on the CPU. Left as they are: subclasses, among them layers with parametrizations, and layers with
            int8 activations.

    Returns:
        The model, in eval mode.

    Raises:
        TypeError: model is not a module.
        ValueError: there is no such layer; or one is on another device, has another dtype, or a weight_hh that is not a
            plain parameter (torch.nn.utils.weight_norm). Then the model is as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, received {type(model).__name__}")
    known = [(name, m) for name, m in model.named_modules() if type(m) in KINDS]
    if not known and not any(isinstance(m, _FrozenRNN) for m in model.modules()):
        raise ValueError(
            f"model: expected asrkern.nn.GRU or LSTM inside, received a {type(model).__name__} without; "
            "asrkern.nn.convert(model) puts them in torch's place"
        )
    # Sums of their weights are in the packs for int8 activations, too: _unpack would not tell them apart.
    found = [(name, m) for name, m in known if getattr(m, "activations", "float32") == "float32"]
    # Weight → packed weight, so that a weight of several layers is packed once.
    packs: dict[Tensor, Tensor] = {}
    # Tensors made in inference mode could not become parameters again.
    with torch.inference_mode(False), torch.no_grad():
        plans = [(module, _packed_of(name, module, packs)) for name, module in found]
    for module, packed in plans:
        own = _own(module)
        module._order = {name: tensor is not None and tensor.requires_grad for name, tensor in own.items()}
        module._packed_hh, module._thawed = packed, type(module)
        for name in packed:
            del own[name]
        # torch's own lists of the same parameters go, too.
        for name in ("_flat_weights", "_flat_weight_refs"):
            module.__dict__.pop(name, None)
        module._packed.clear()
        module.__class__ = KINDS[type(module)]
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
    for module in [m for m in model.modules() if isinstance(m, _FrozenRNN)]:
        weights, order = {}, module._order
        with torch.inference_mode(False), torch.no_grad():
            for name, weight in module._unpacked():
                if issubclass(module._thawed, nn.RNNBase):
                    weight = nn.Parameter(weight, order[name])
                weights[name] = thawed.setdefault(module._packed_hh[name], weight)
        module.__class__ = module._thawed
        for name in ("_packed_hh", "_order", "_thawed"):
            del module.__dict__[name]
        own = _own(module)
        own.update(weights)
        for name in order:
            own[name] = own.pop(name)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return model


def _own(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which a layer keeps its own weights."""
    return module._parameters or module._buffers


def _packed_of(name: str, module: RecurrentLayers, packs: dict[Tensor, Tensor]) -> dict[str, Tensor]:
    """Every weight_hh of a layer, packed, taken from ``packs`` if it is there. ValueError if one cannot be packed."""
    packed = {}
    for layer in range(module.num_layers):
        for key in (f"weight_hh_l{layer}", f"weight_hh_l{layer}_reverse")[: 2 if module.bidirectional else 1]:
            where = f"{name}.{key}" if name else key
            weight = _own(module).get(key)
            if type(weight) not in (Tensor, nn.Parameter):
                raise ValueError(
                    f"model: expected {where} to be a plain parameter, received one that is computed (weight_norm?)"
                )
            try:
                if weight not in packs:
                    packs[weight] = module._pack(weight)
            except ValueError as error:
                raise ValueError(f"model: {where}: {error}") from error
            packed[key] = packs[weight]
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
