"""Swaps convertible layers inside an existing model for asrkern's, sharing the weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from asrkern.nn._hooks import has_hooks, is_altered
from asrkern.nn._recurrent import RecurrentLayers
from asrkern.nn.batch_norm import MaskedBatchNorm1d, MaskedBatchNorm2d, clamp_range
from asrkern.nn.batch_rnn import BatchRNN
from asrkern.nn.cells import GRUCell, LSTMCell, RecurrentCell
from asrkern.nn.fused_sequential import FusedSequential, pays, with_activations
from asrkern.nn.gru import GRU
from asrkern.nn.lookahead import Lookahead
from asrkern.nn.lstm import LSTM
from asrkern.nn.mask_conv import MaskConv
from asrkern.nn.sequence_wise import SequenceWise
from asrkern.nn.softmax import InferenceBatchSoftmax
from asrkern.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer, is_plain, is_relu


@dataclass
class ConversionReport:
    """What :func:`convert` did.

    Attributes:
        model: the model, converted; its replacement if it was itself a convertible layer.
        swapped: (name, type before, type after) of every layer replaced.
        left: (name, type, reason) of every candidate that was not.
    """

    model: nn.Module
    swapped: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"swapped {len(self.swapped)}, left {len(self.left)}"]
        lines += [f"  {name}: {before} -> {after}" for name, before, after in self.swapped]
        lines += [f"  {name}: {kind} left, {reason}" for name, kind, reason in self.left]
        return "\n".join(lines)


class _Left(Exception):
    """A candidate that cannot be swapped. The message says why."""


def convert(
    model: nn.Module, *, stats: str = "padded", inplace: bool = True, cells: bool = False
) -> ConversionReport:
    """Swap the layers that asrkern has for its own; the model computes what it did before.

    Converted are torch.nn.GRU and LSTM; TransformerEncoderLayer and TransformerDecoderLayer with ReLU; deepspeech.pytorch's
    MaskConv, SequenceWise, BatchRNN, Lookahead and InferenceBatchSoftmax, recognised by class name and attributes and
    then compared with their replacement on a small random input; and a torch.nn.Sequential with a BatchNorm1d, 2d or
    SyncBatchNorm before a Hardtanh, ReLU6 or ReLU, or with a convolution that asrkern computes faster, which then runs
    such neighbours as one (all stay what they are, see :class:`asrkern.nn.FusedSequential`). GRUCell and LSTMCell are
    converted if asked for. Parameters and buffers are the same objects as before, so optimizers keep working; training
    mode, dtype and device are kept, and so are the keys.

    Left as they are, with the reason in the report: subclasses of torch.nn.GRU, LSTM and cells; layers with forward or
    backward hooks or parametrizations (weight_norm among them); layers that turn out to compute something else;
    torch.nn.RNN, RNNCell and LSTMs with proj_size, for which asrkern has no kernels; and a batch norm and a clamp after
    it that are not neighbours in a torch.nn.Sequential.

    A converted BatchRNN keeps the number of frames of its input, where the original cuts to the longest
    length.

    Args:
        model: any module.
        stats: frames that count for batch statistics in training where lengths are known, "padded" as in the
            original, or "valid".
        inplace: True: replace the layers of this very model. False: convert a deep copy, with weights of its own.
        cells: whether GRUCell and LSTMCell are converted. asrkern's give a row the same bits in any batch, and are
            the faster ones in inference with 8 rows or more of 512 units or more; torch's are with fewer, unless the
            model is frozen (:func:`asrkern.nn.freeze`).

    Returns:
        The report; its ``model`` is the one to use from here on.

    Raises:
        TypeError: model is not a module.
        ValueError: stats is neither "valid" nor "padded".
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, received {type(model).__name__}")
    if stats not in ("valid", "padded"):
        raise ValueError(f'stats: expected "valid" or "padded", received {stats!r}')
    model = model if inplace else copy.deepcopy(model)
    report = ConversionReport(model)
    report.model = _Converter(report, stats, cells).visit(model, "")
    return report


_OURS = (
    RecurrentLayers,
    RecurrentCell,
    MaskConv,
    SequenceWise,
    FusedSequential,
    BatchRNN,
    Lookahead,
    InferenceBatchSoftmax,
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    TransformerEncoderLayer,
    TransformerDecoderLayer,
)

_RECURRENT = {nn.GRU: GRU, nn.LSTM: LSTM}
_CELLS = {nn.GRUCell: GRUCell, nn.LSTMCell: LSTMCell}
_TRANSFORMER = {
    nn.TransformerEncoderLayer: TransformerEncoderLayer,
    nn.TransformerDecoderLayer: TransformerDecoderLayer,
}


class _Converter:
    def __init__(self, report: ConversionReport, stats: str, cells: bool) -> None:
        self.report = report
        self.stats = stats
        self.cells = cells
        # id → (module, its replacement); the module is kept so that its id stays taken
        self.done: dict[int, tuple[nn.Module, nn.Module]] = {}

    def visit(self, module: nn.Module, name: str) -> nn.Module:
        """The module to put in the place of this one. A module with several parents is replaced once."""
        if id(module) not in self.done:
            self.done[id(module)] = (module, self._visit(module, name))
        return self.done[id(module)][1]

    def _visit(self, module: nn.Module, name: str) -> nn.Module:
        if isinstance(module, MaskConv):
            return module
        if isinstance(module, torch.jit.ScriptModule):
            self._leave(name, module, "TorchScript")
            return module
        build = None if isinstance(module, _OURS) else self._builder(module)
        # A MaskConv fuses its children, so it is converted before them; other modules are converted after theirs.
        if build == self._mask_conv:
            replacement = self._swap(module, name, build)
            if replacement is not module:
                return replacement
            build = None
        for key, child in list(module._modules.items()):
            if child is not None:
                module._modules[key] = self.visit(child, f"{name}.{key}" if name else key)
        if type(module) is nn.Sequential:
            self._fuse_pairs(module, name)
        self._leave_pairs(module, name)
        return module if build is None else self._swap(module, name, build)

    def _builder(self, module: nn.Module) -> Callable[[Any], nn.Module] | None:
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return self._rnn
        if isinstance(module, tuple(_TRANSFORMER)):
            return self._transformer
        return {
            "MaskConv": self._mask_conv,
            "SequenceWise": self._sequence_wise,
            "BatchRNN": self._batch_rnn,
            "Lookahead": self._lookahead,
            "InferenceBatchSoftmax": self._softmax,
        }.get(type(module).__name__)

    def _leave(self, name: str, module: nn.Module, reason: str) -> None:
        self.report.left.append((name, type_name(module), reason))

    def _swap(self, module: nn.Module, name: str, build: Callable[[Any], nn.Module]) -> nn.Module:
        try:
            _refuse_altered(module)
            replacement = build(module)
            _refuse_more_parts(module, replacement)
            _take_over(replacement, module)
        except _Left as reason:
            self._leave(name, module, str(reason))
            return module
        self.report.swapped.append((name, type_name(module), type_name(replacement)))
        return replacement

    def _fuse_pairs(self, stack: nn.Sequential, name: str) -> None:
        """Let a Sequential run its pairs as one operation, in place: only its forward changes."""
        fused = any(activation is not None for _, activation in with_activations(stack)) or any(
            map(pays, stack)
        )
        if fused and "forward" not in stack.__dict__:
            before = type_name(stack)
            stack.__class__ = FusedSequential
            self.report.swapped.append((name, before, type_name(stack)))

    def _leave_pairs(self, module: nn.Module, name: str) -> None:
        """Report the batch norms with a clamp after them that do not run as one operation."""
        is_stack = isinstance(module, nn.Sequential)
        children = [(key, child) for key, child in module.named_children() if child is not None]
        for (key, norm), (_, activation) in pairwise(children):
            if not isinstance(norm, _BatchNorm) or clamp_range(activation) is None:
                continue
            reason = "they are attributes of a module whose forward asrkern does not know, not of a torch.nn.Sequential"
            if is_stack and type(module) not in (nn.Sequential, FusedSequential):
                reason = f"a {type_name(module)} may compute something else"
            elif is_stack:
                altered = [m for m in (norm, activation) if is_altered(m)]
                if not altered:
                    continue
                reason = f"the {type_name(altered[0])} has hooks or another forward"
            self._leave(
                f"{name}.{key}" if name else key, norm, f"not fused with the activation after it: {reason}"
            )

    def _rnn(self, old: Any) -> nn.Module:
        kind: Any = next((kind for kind in (*_RECURRENT, *_CELLS) if isinstance(old, kind)), None)
        if kind is None:
            raise _Left("asrkern has no kernel for it")
        if type(old) is not kind:
            raise _Left(f"a subclass of {_kind_name(kind)} may compute something else")
        if kind in _CELLS:
            if not self.cells:
                raise _Left("torch's is faster for few rows; cells=True converts it")
            return _CELLS[kind](old.input_size, old.hidden_size, old.bias, device="meta")
        if old.proj_size:
            raise _Left("asrkern has no kernel for proj_size")
        return _recurrent(_RECURRENT[kind], old, "concat")

    def _transformer(self, old: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> nn.Module:
        kind = next(kind for kind in _TRANSFORMER if isinstance(old, kind))
        if type(old) is not kind:
            raise _Left(f"a subclass of {_kind_name(kind)} may compute something else")
        if not is_relu(old.activation):
            raise _Left("asrkern has no kernel for its activation")
        if not is_plain(old):
            raise _Left("a part of it is not what its constructor makes")
        # No weights of its own, which would only be thrown away.
        new = _TRANSFORMER[kind].__new__(_TRANSFORMER[kind])
        new.__dict__.update(old.__dict__)
        return new

    def _mask_conv(self, old: Any) -> nn.Module:
        stack = _attribute(old, "seq_module", nn.Sequential)
        new = MaskConv(stack, self.stats)
        convs = [m for m in stack.modules() if isinstance(m, nn.Conv2d)]
        if not convs:
            raise _Left("seq_module has no Conv2d")
        height, width = (_smallest_input(convs, axis) for axis in (0, 1))
        # Long enough for at least two output frames.
        x = _random(old, 2, convs[0].in_channels, height, 4 * width)
        with torch.no_grad(), _in_mode(old, training=False):
            try:
                frames = stack(x.clone()).shape[-1]
            except Exception as error:
                raise _Left(f"seq_module does not run on {list(x.shape)}: {error}") from error
        _compare(old, new, x, torch.tensor([frames, max(frames - 1, 1)], dtype=torch.int32))
        return new

    def _sequence_wise(self, old: Any) -> nn.Module:
        inner = _attribute(old, "module", nn.Module)
        new = SequenceWise(inner, self.stats)
        sizes = (
            getattr(m, key)
            for m in inner.modules()
            for key in ("in_features", "num_features", "input_size")
            if isinstance(getattr(m, key, None), int)
        )
        size = next(sizes, None)
        if size is None:
            raise _Left("the number of features it takes is not known")
        _compare(old, new, _random(old, 3, 2, size))
        return new

    def _batch_rnn(self, old: Any) -> nn.Module:
        rnn = _attribute(old, "rnn", nn.RNNBase)
        norm = getattr(old, "batch_norm", None)
        if type(rnn) not in (GRU, LSTM, nn.RNN):
            raise _Left(f"its rnn is {type_name(rnn)}")
        if not (norm is None or isinstance(norm, SequenceWise)):
            raise _Left(f"its batch_norm is {type_name(norm)}")
        if rnn.batch_first:
            raise _Left("its rnn is batch_first")
        x = _random(old, 4, 2, rnn.input_size)
        arguments = [x, torch.tensor([4, 3], dtype=torch.int32)][: _arity(old)]
        with torch.device("meta"):
            new = BatchRNN(rnn.input_size, rnn.hidden_size, type(rnn), rnn.bidirectional, batch_norm=False)
        ours = isinstance(rnn, RecurrentLayers)
        new.rnn = _take_over(_recurrent(type(rnn), rnn, "sum"), rnn) if ours else rnn
        new.batch_norm = norm
        new.returns_hidden = isinstance(_run(old, arguments), tuple)
        _compare(old, new, *arguments)
        return new

    def _lookahead(self, old: Any) -> nn.Module:
        conv = _attribute(old, "conv", nn.Conv1d)
        with torch.device("meta"):
            new = Lookahead(conv.in_channels, conv.kernel_size[0])
        if conv.weight.shape != new.conv.weight.shape or conv.bias is not None:
            raise _Left("its conv is not depthwise without bias")
        new.conv = conv
        _compare(old, new, _random(old, conv.kernel_size[0] + 2, 2, conv.in_channels))
        return new

    def _softmax(self, old: nn.Module) -> nn.Module:
        new = InferenceBatchSoftmax()
        for training in (False, True):
            _compare(old, new, _random(old, 2, 3, 5), training=training)
        return new


def type_name(module: nn.Module) -> str:
    """A module's class as people write it: torch.nn.GRU, asrkern.nn.GRU."""
    return _kind_name(type(module))


def _kind_name(kind: type[nn.Module]) -> str:
    package = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{'asrkern.nn' if package.startswith('asrkern.nn.') else package}.{kind.__qualname__}"


def _refuse_altered(module: nn.Module) -> None:
    if is_parametrized(module):
        raise _Left("it has parametrizations")
    if has_hooks(module):
        raise _Left("it has hooks")
    if "forward" in module.__dict__:
        raise _Left("its forward was replaced")


def _refuse_more_parts(old: nn.Module, new: nn.Module) -> None:
    """Refuse parts that the new layer has no place for: they may act in training only, which no comparison sees."""
    more = [
        name
        for parts in ("_parameters", "_buffers", "_modules")
        for name, value in getattr(old, parts).items()
        if value is not None and name not in getattr(new, parts)
    ]
    if more:
        raise _Left(f"it has parts that asrkern's layer has not: {', '.join(more)}")


def _attribute(module: nn.Module, name: str, kind: type) -> Any:
    value = getattr(module, name, None)
    if not isinstance(value, kind):
        raise _Left(f"{name}: expected a {kind.__name__}, received {type(value).__name__}")
    return value


def _take_over(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give ``new`` the parameters, buffers, mode and all further attributes of ``old``: the same objects."""
    for name, value in [*old._parameters.items(), *old._buffers.items()]:
        setattr(new, name, value)
    for name, value in old.__dict__.items():
        new.__dict__.setdefault(name, value)
    # In the old order, since optimizers number parameters by it in their state_dict.
    new._modules = {name: new._modules[name] for name in old._modules if name in new._modules}
    new.training = old.training
    return new


def _recurrent(kind: type[GRU] | type[LSTM], old: nn.RNNBase, merge: str) -> GRU | LSTM:
    # Dropout is set afterwards, so that the constructor does not repeat a warning about it.
    new = kind(
        old.input_size,
        old.hidden_size,
        old.num_layers,
        old.bias,
        old.batch_first,
        bidirectional=old.bidirectional,
        device="meta",
        merge=merge,
    )
    new.dropout = old.dropout
    return new


def _smallest_input(convs: list[nn.Conv2d], axis: int) -> int:
    """The input size from which a chain of convolutions makes at least one output, without help of its padding."""
    size = 1
    for conv in reversed(convs):
        size = (size - 1) * conv.stride[axis] + conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
    return size


def _arity(module: nn.Module) -> int:
    """How many arguments forward takes."""
    return len(inspect.signature(module.forward).parameters)


def _random(module: nn.Module, *shape: int) -> Tensor:
    """Standard normal input in the module's dtype, on its device. The global generators are not touched."""
    like = next(module.parameters(), torch.empty(0))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)


@contextmanager
def _in_mode(*modules: nn.Module, training: bool) -> Iterator[None]:
    before = [(m, m.training) for module in modules for m in module.modules()]
    try:
        for m, _ in before:
            m.training = training
        yield
    finally:
        for m, mode in before:
            m.training = mode


def _run(module: nn.Module, arguments: list[Tensor], training: bool = False) -> Any:
    with torch.no_grad(), _in_mode(module, training=training):
        try:
            return module(*(argument.clone() for argument in arguments))
        except Exception as error:
            shapes = [list(argument.shape) for argument in arguments]
            raise _Left(f"{type_name(module)} does not run on inputs {shapes}: {error}") from error


def _compare(old: nn.Module, new: nn.Module, *arguments: Tensor, training: bool = False) -> None:
    """Refuse the swap unless both modules give the same on these arguments, up to rounding."""
    expected, received = (_tensors(_run(module, list(arguments), training)) for module in (old, new))
    same = len(expected) == len(received) and all(map(_close, expected, received))
    if not same:
        raise _Left("it computes something else than asrkern's layer of that name")


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for item in value for t in _tensors(item)]


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    precisions = [torch.finfo(t.dtype).eps for t in (a, b) if t.is_floating_point()]
    a, b = a.double(), b.double()
    tolerance = 16 * max(precisions, default=0.0) ** 0.75 * a.abs().max().clamp(min=1)
    return bool((a - b).abs().max() <= tolerance)
