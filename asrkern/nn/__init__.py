"""Drop-in layers with the names, constructors and keys of torch.nn and deepspeech.pytorch, on asrkern.ops."""

from asrkern.nn import _fx, _torchscript
from asrkern.nn.attention import (
    AdditiveAttention,
    Attention,
    AttentionMemory,
    DotAttention,
    LocationAwareAttention,
    MeanAttention,
    MultiHeadAttention,
)
from asrkern.nn.batch_norm import MaskedBatchNorm1d, MaskedBatchNorm2d
from asrkern.nn.batch_rnn import BatchRNN
from asrkern.nn.cells import GRUCell, LSTMCell
from asrkern.nn.convert import ConversionReport, convert
from asrkern.nn.freeze import FrozenGRU, FrozenGRUCell, FrozenLSTM, FrozenLSTMCell, freeze, unfreeze
from asrkern.nn.fused_sequential import FusedSequential
from asrkern.nn.gru import GRU
from asrkern.nn.light_gru import LightGRU
from asrkern.nn.locked_dropout import LockedDropout
from asrkern.nn.lookahead import Lookahead
from asrkern.nn.lstm import LSTM
from asrkern.nn.mask_conv import MaskConv
from asrkern.nn.mask_conv_stream import MaskConvStream
from asrkern.nn.pyramidal_rnn import PyramidalRNN, stack_frames
from asrkern.nn.quantize import QuantizedCell, QuantizedGRU, QuantizedLinear, QuantizedLSTM, quantize
from asrkern.nn.quantized_transformer import (
    QuantizedTransformerDecoderLayer,
    QuantizedTransformerEncoderLayer,
)
from asrkern.nn.revert import revert
from asrkern.nn.sequence_wise import SequenceWise
from asrkern.nn.softmax import InferenceBatchSoftmax
from asrkern.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "GRU",
    "LSTM",
    "AdditiveAttention",
    "Attention",
    "AttentionMemory",
    "BatchRNN",
    "ConversionReport",
    "DotAttention",
    "FrozenGRU",
    "FrozenGRUCell",
    "FrozenLSTM",
    "FrozenLSTMCell",
    "FusedSequential",
    "GRUCell",
    "InferenceBatchSoftmax",
    "LSTMCell",
    "LightGRU",
    "LocationAwareAttention",
    "LockedDropout",
    "Lookahead",
    "MaskConv",
    "MaskConvStream",
    "MaskedBatchNorm1d",
    "MaskedBatchNorm2d",
    "MeanAttention",
    "MultiHeadAttention",
    "PyramidalRNN",
    "QuantizedCell",
    "QuantizedGRU",
    "QuantizedLSTM",
    "QuantizedLinear",
    "QuantizedTransformerDecoderLayer",
    "QuantizedTransformerEncoderLayer",
    "SequenceWise",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "convert",
    "freeze",
    "quantize",
    "revert",
    "stack_frames",
    "unfreeze",
]

_LAYERS = (
    *(
        GRU,
        LSTM,
        GRUCell,
        LSTMCell,
        BatchRNN,
        FrozenGRU,
        FrozenLSTM,
        LightGRU,
        LockedDropout,
        Lookahead,
        MaskConv,
    ),
    *(MaskedBatchNorm1d, MaskedBatchNorm2d, PyramidalRNN, SequenceWise),
    *(QuantizedCell, QuantizedGRU, QuantizedLSTM, QuantizedLinear),
    *(TransformerDecoderLayer, TransformerEncoderLayer),
    *(QuantizedTransformerDecoderLayer, QuantizedTransformerEncoderLayer),
)
_torchscript.refuse(*_LAYERS, FusedSequential, MaskConvStream)
_fx.make_leaves(*_LAYERS)
