"""deepspeech.pytorch's batch-normalised recurrent layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern._lengths import Lengths, as_lengths
from asrkern.nn._lengths import zero_padding
from asrkern.nn._recurrent import RecurrentLayers, State
from asrkern.nn.gru import GRU
from asrkern.nn.light_gru import LightGRU
from asrkern.nn.lstm import LSTM
from asrkern.nn.sequence_wise import SequenceWise


class BatchRNN(nn.Module):
    """SequenceWise batch norm, then a recurrent layer whose directions are summed.

    If rnn_type is a GRU or LSTM, torch's or asrkern's, the layer is asrkern's and nothing is packed. torch.nn.RNN stays
    torch's behind the same interface. It is packed inside: that copies the lengths to the CPU, does not trace, and is
    not bit for bit independent of the batch. Keys ``batch_norm.module.*``, ``rnn.*``.

    Args:
        input_size, hidden_size: features in and out.
        rnn_type: torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN, asrkern.nn.LSTM, asrkern.nn.GRU or asrkern.nn.LightGRU
            (which normalises its projections itself).
        bidirectional: run both directions and add their outputs.
        batch_norm: normalise the input first.
        bias: of the recurrent layer.
        stats: frames that count for batch statistics in training, "valid" or "padded".
        returns_hidden: return (x, h) as deepspeech.pytorch does since V3, or x alone as before.

    Raises:
        TypeError: rnn_type is not a class of recurrent layers.
        ValueError: stats is neither "valid" nor "padded".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rnn_type: type[nn.RNNBase] = nn.LSTM,
        bidirectional: bool = False,
        batch_norm: bool = True,
        bias: bool = True,
        *,
        stats: str = "valid",
        returns_hidden: bool = True,
    ) -> None:
        super().__init__()
        if not (isinstance(rnn_type, type) and issubclass(rnn_type, (nn.RNNBase, LightGRU))):
            raise TypeError(f"rnn_type: expected a class such as torch.nn.GRU, received {rnn_type!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bidirectional = bidirectional
        self.num_directions = 2 if bidirectional else 1
        self.returns_hidden = returns_hidden
        self.batch_norm = SequenceWise(nn.BatchNorm1d(input_size), stats) if batch_norm else None
        options: dict[str, Any] = {"merge": "sum"}
        if issubclass(rnn_type, LightGRU):
            options["stats"] = stats
        elif issubclass(rnn_type, nn.GRU):
            rnn_type = GRU
        elif issubclass(rnn_type, nn.LSTM):
            rnn_type = LSTM
        else:
            options = {}
        make: Any = rnn_type
        self.rnn = make(input_size, hidden_size, bidirectional=bidirectional, bias=bias, **options)

    def flatten_parameters(self) -> None:
        """Call the recurrent layer's flatten_parameters."""
        self.rnn.flatten_parameters()

    def forward(
        self, x: Tensor, output_lengths: Lengths | None = None, h: State | None = None
    ) -> tuple[Tensor, State] | Tensor:
        """Run the layer.

        Args:
            x: [T, N, input_size].
            output_lengths: integers [N], valid frames per row, in any order, zeros allowed. All frames if
                None.
            h: initial state, [directions, N, hidden_size], or a pair of these for an LSTM; zeros if None.

        Returns:
            x [T, N, hidden_size], zero beyond each length (T stays, where deepspeech.pytorch cuts to the
            longest), and the final state unless returns_hidden is False.

        Raises:
            TypeError: output_lengths are not integers.
            ValueError: a shape does not fit, or a length is out of range.
        """
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        if self.batch_norm is not None:
            x = self.batch_norm(x, output_lengths)
        if isinstance(self.rnn, RecurrentLayers):
            x, h = self.rnn(x, h, lengths=output_lengths)
        else:
            x, h = self._packed(x, output_lengths, h)
        return (x, h) if self.returns_hidden else x

    def _packed(self, x: Tensor, lengths: Tensor | None, h: Any) -> tuple[Tensor, Tensor]:
        if lengths is None:
            x, h_n = self.rnn(x, h)
        else:
            # Packing refuses empty rows. They run for one frame; their results are replaced below.
            packed = pack_padded_sequence(x, lengths.cpu().clamp(min=1), enforce_sorted=False)
            packed, h_n = self.rnn(packed, h)
            x, _ = pad_packed_sequence(packed, total_length=x.shape[0])
            x = zero_padding(x, lengths, "TNC")
            empty = lengths.to(x.device) == 0
            h_n = torch.where(empty[:, None], torch.zeros_like(h_n) if h is None else h, h_n)
        if self.bidirectional:
            x = x[..., : self.hidden_size] + x[..., self.hidden_size :]
        return x, h_n
