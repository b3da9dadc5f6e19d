"""Operations as functions: each validates its arguments and calls the kernel registered with torch."""

from asrkern.ops.attention import attention
from asrkern.ops.batch_norm_act import BatchNormActResult, batch_norm_act
from asrkern.ops.cells import (
    PackedCellWeights,
    gru_cell,
    gru_cell_prepacked,
    lstm_cell,
    lstm_cell_prepacked,
    pack_cell_weight,
)
from asrkern.ops.conv_tile import ConvTile, conv_tile
from asrkern.ops.ctc_beam_search import CTCBeamSearchResult, CTCContext, ctc_beam_search
from asrkern.ops.gru import GRUWeights, PackedGRUWeights, gru, gru_prepacked, pack_gru_weight
from asrkern.ops.linear import linear, linear_quantized, quantize_weight
from asrkern.ops.linear_heads import linear_heads
from asrkern.ops.lstm import LSTMWeights, PackedLSTMWeights, lstm, lstm_prepacked, pack_lstm_weight
from asrkern.ops.masked_conv2d import conv_output_lengths, masked_conv2d
from asrkern.ops.masked_conv2d_batch_norm_act import masked_conv2d_batch_norm_act
from asrkern.ops.speller import (
    Dense,
    PackedSpeller,
    SpellerBeams,
    SpellerCell,
    SpellerStep,
    SpellerWeights,
    pack_speller,
    speller_beam,
    speller_greedy,
    speller_step,
)

__all__ = [
    "BatchNormActResult",
    "CTCBeamSearchResult",
    "CTCContext",
    "ConvTile",
    "Dense",
    "GRUWeights",
    "LSTMWeights",
    "PackedCellWeights",
    "PackedGRUWeights",
    "PackedLSTMWeights",
    "PackedSpeller",
    "SpellerBeams",
    "SpellerCell",
    "SpellerStep",
    "SpellerWeights",
    "attention",
    "batch_norm_act",
    "conv_output_lengths",
    "conv_tile",
    "ctc_beam_search",
    "gru",
    "gru_cell",
    "gru_cell_prepacked",
    "gru_prepacked",
    "linear",
    "linear_heads",
    "linear_quantized",
    "lstm",
    "lstm_cell",
    "lstm_cell_prepacked",
    "lstm_prepacked",
    "masked_conv2d",
    "masked_conv2d_batch_norm_act",
    "pack_cell_weight",
    "pack_gru_weight",
    "pack_lstm_weight",
    "pack_speller",
    "quantize_weight",
    "speller_beam",
    "speller_greedy",
    "speller_step",
]
