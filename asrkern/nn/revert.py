"""Puts torch's own layers in the place of asrkern's."""

from __future__ import annotations

import copy

from torch import nn

from asrkern.nn.batch_norm import MaskedBatchNorm1d, MaskedBatchNorm2d
from asrkern.nn.cells import GRUCell, LSTMCell
from asrkern.nn.convert import ConversionReport, type_name
from asrkern.nn.fused_sequential import FusedSequential
from asrkern.nn.gru import GRU
from asrkern.nn.lstm import LSTM
from asrkern.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer, TransformerLayer

_STOCK = {
    GRU: nn.GRU,
    LSTM: nn.LSTM,
    GRUCell: nn.GRUCell,
    LSTMCell: nn.LSTMCell,
    MaskedBatchNorm1d: nn.BatchNorm1d,
    MaskedBatchNorm2d: nn.BatchNorm2d,
    FusedSequential: nn.Sequential,
    TransformerEncoderLayer: nn.TransformerEncoderLayer,
    TransformerDecoderLayer: nn.TransformerDecoderLayer,
}
# Attributes that torch's layers do not have, and the value for which a layer computes what torch's computes.
_OWN = {"merge": "concat", "activation": None, "layout": "NCT", "stats": ..., "_packed": ...}


def revert(model: nn.Module, *, inplace: bool = True) -> ConversionReport:
    """Replace asrkern's layers by torch's where torch has the same: for tools that know only torch's layers.

    A GRU, LSTM, GRUCell, LSTMCell, TransformerEncoderLayer, TransformerDecoderLayer, MaskedBatchNorm1d or 2d and FusedSequential becomes
    torch.nn's layer of the same parameters, keys, modes and hooks. Those take no ``lengths``: a model that passes them has to pack its batches again.

    Left as they are, with the reason in the report: layers that torch does not have (MaskConv, SequenceWise, BatchRNN,
    Lookahead, LightGRU, PyramidalRNN, quantised ones) and their children; recurrent layers with ``merge="sum"``; batch
    norms with an activation or another layout than torch's; layers whose forward was replaced.

    Args:
        model: any module.
        inplace: True: change this very model. False: change a deep copy, with weights of its own.

    Returns:
        The report; its ``model`` is the model, or the copy.

    Raises:
        TypeError: model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, received {type(model).__name__}")
    report = ConversionReport(model if inplace else copy.deepcopy(model))
    _visit(report.model, "", report, set())
    return report


def _visit(module: nn.Module, name: str, report: ConversionReport, seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    before = type_name(module)
    if type(module) in _STOCK:
        # A Transformer's layer has none; what it calls its activation is torch's.
        attributes = {} if isinstance(module, TransformerLayer) else _OWN
        own = [
            key
            for key, value in attributes.items()
            if value is not ... and getattr(module, key, value) != value
        ]
        if "forward" in module.__dict__:
            report.left.append((name, before, "its forward was replaced"))
        elif own:
            report.left.append((name, before, f"torch's has no {own[0]}={getattr(module, own[0])!r}"))
        else:
            module.__class__ = _STOCK[type(module)]
            for key in attributes:
                module.__dict__.pop(key, None)
            report.swapped.append((name, before, type_name(module)))
    elif before.startswith("asrkern.nn."):
        report.left.append((name, before, "torch has no such layer"))
    # A layer of asrkern's calls its children in its own way.
    if not type(module).__module__.startswith("asrkern.nn."):
        for key, child in module.named_children():
            _visit(child, f"{name}.{key}" if name else key, report, seen)
