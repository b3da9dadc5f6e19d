"""Recurrent layers over pairs of frames, which halve the length (Chan et al. 2016, "Listen, Attend and Spell")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.nn._lengths import zero_padding
from asrkern.nn.gru import GRU
from asrkern.nn.lstm import LSTM


def stack_frames(
    input: Tensor, lengths: Lengths | None = None, factor: int = 2, *, remainder: str = "pad"
) -> tuple[Tensor, Tensor | None]:
    """Concatenate the features of ``factor`` frames in a row; composed of torch's operations.

    Each row is cut by its own length, in exact integers. Frames beyond it are not read. Frames left over at its end are
    followed by zeros, or left out, whatever batch the row is in.

    Args:
        input: [N, T, C].
        lengths: integers [N], valid frames per row; all T if None.
        factor: frames that become one.
        remainder: for lengths that are no multiple of factor: "pad" with zeros, so that a length becomes
            ceil(length / factor), or "drop", floor(length / factor).

    Returns:
        [N, T', factor * C], with T' = ceil(T / factor) or floor(T / factor), zero beyond each new length; and
        the new lengths, int64 (None if lengths is).

    Raises:
        TypeError: lengths are not integers.
        ValueError: input has not three dimensions, lengths the wrong shape, factor is less than 1, or
            remainder is neither.
    """
    _check_options(factor, remainder)
    if input.dim() != 3:
        raise ValueError(f"input: expected [N, T, C], received {list(input.shape)}")
    if lengths is not None:
        # Checked before: once divided, a length that is too large could pass for a valid one.
        rows, frames = input.shape[:2]
        lengths = as_lengths("lengths", lengths, rows, frames).to(torch.int64)
    steps, rounded_up = input.shape[1], factor - 1 if remainder == "pad" else 0
    frames = (steps + rounded_up) // factor
    kept = lengths if lengths is None or remainder == "pad" else lengths // factor * factor
    # The padding may be positive, zero or negative: as one expression torch.export accepts any number of frames.
    x = nn.functional.pad(zero_padding(input, kept, "NTC"), (0, 0, 0, frames * factor - steps))
    x = x.reshape(input.shape[0], frames, factor * input.shape[2])
    if lengths is None:
        return x, None
    return x, (lengths + rounded_up) // factor


def _check_options(factor: int, remainder: str) -> None:
    if factor < 1:
        raise ValueError(f"factor: expected at least 1, received {factor}")
    if remainder not in ("pad", "drop"):
        raise ValueError(f'remainder: expected "pad" or "drop", received {remainder!r}')


class PyramidalRNN(nn.Module):
    """A recurrent layer on ``factor`` frames at a time; keys ``rnn.*``.

    Frames are put together by :func:`stack_frames` and the layer is asrkern's GRU or LSTM, so that in eval
    mode and fp32 a row is bit for bit independent of its batch and padding.

    Args:
        input_size: features per frame; the layer's own input is factor times that.
        hidden_size, num_layers, bias, dropout, bidirectional: of the layer.
        rnn_type: asrkern.nn.LSTM or asrkern.nn.GRU; torch.nn.LSTM or GRU stand for these.
        factor, remainder: as in :func:`stack_frames`.

    Raises:
        TypeError: rnn_type is no class of GRUs or LSTMs.
        ValueError: factor is less than 1, or remainder neither "pad" nor "drop".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        rnn_type: type[nn.RNNBase] = LSTM,
        bidirectional: bool = True,
        bias: bool = True,
        dropout: float = 0.0,
        *,
        factor: int = 2,
        remainder: str = "pad",
    ) -> None:
        super().__init__()
        _check_options(factor, remainder)
        if not (isinstance(rnn_type, type) and issubclass(rnn_type, nn.GRU | nn.LSTM)):
            raise TypeError(f"rnn_type: expected a class of GRUs or LSTMs, received {rnn_type!r}")
        self.factor = factor
        self.remainder = remainder
        self.rnn = (GRU if issubclass(rnn_type, nn.GRU) else LSTM)(
            factor * input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first=True,
            dropout=dropout,
            bidirectional=bidirectional,
        )

    def forward(self, input: Tensor, lengths: Lengths | None = None) -> tuple[Tensor, Tensor | None]:
        """Run the layer.

        Args:
            input: [N, T, input_size].
            lengths: integers [N], valid frames per row, zeros allowed; all T if None.

        Returns:
            [N, T', directions * hidden_size], zero beyond each new length, and the new lengths, int64 (None
            if lengths is); as :func:`stack_frames`.

        Raises:
            TypeError: lengths are not integers.
            ValueError: a shape does not fit, or a length is out of range.
        """
        x, lengths = stack_frames(input, lengths, self.factor, remainder=self.remainder)
        return self.rnn(x, lengths=lengths)[0], lengths

    def extra_repr(self) -> str:
        return f"factor={self.factor}, remainder={self.remainder}"
