"""Each operation of :mod:`asrkern.ops` in a few lines of plain PyTorch: the truth that tests compare with."""

from asrkern.reference.attention import attention
from asrkern.reference.batch_norm_act import batch_norm_act
from asrkern.reference.gru import gru
from asrkern.reference.int8 import gru_int8, linear_int8, lstm_int8
from asrkern.reference.light_gru import light_gru
from asrkern.reference.linear import linear
from asrkern.reference.linear_heads import linear_heads
from asrkern.reference.lstm import lstm
from asrkern.reference.masked_conv2d import masked_conv2d
from asrkern.reference.speller import speller_beam, speller_greedy, speller_step

__all__ = [
    "attention",
    "batch_norm_act",
    "gru",
    "gru_int8",
    "light_gru",
    "linear",
    "linear_heads",
    "linear_int8",
    "lstm",
    "lstm_int8",
    "masked_conv2d",
    "speller_beam",
    "speller_greedy",
    "speller_step",
]
