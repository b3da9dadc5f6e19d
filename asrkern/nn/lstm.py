"""torch.nn.LSTM on :func:`asrkern.ops.lstm`."""

from __future__ import annotations

import torch

from asrkern import ops
from asrkern.nn._recurrent import RecurrentLayers


class LSTM(RecurrentLayers, torch.nn.LSTM):  # type: ignore[misc]  # takes lengths, too
    """Drop-in replacement of torch.nn.LSTM: same constructor, state_dict and return values.

    On top of torch's:

    * ``lengths=`` takes a padded batch as it is, in any order and with zero lengths; nothing is packed. Each
      direction runs over the valid frames only, output beyond a length is zero, and the final states are those
      at the row's own end (the initial ones where the length is zero).
    * ``merge="sum"`` adds the two directions of the output, which then has ``hidden_size`` features. It
      applies to the last layer's output only, so that the weights of upper layers keep torch's shapes; the
      final states are not merged.

    In eval mode and fp32 a row's result is bit for bit independent of the other rows and of its padding.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype:
            as in torch.nn.LSTM.
        proj_size: 0; there is no kernel for projections.
        merge: "concat" (torch's) or "sum".

    Raises:
        ValueError: proj_size is not 0, or merge is neither "concat" nor "sum".
    """

    _operation = staticmethod(ops.lstm)
    _prepacked_operation = staticmethod(ops.lstm_prepacked)
    _pack = staticmethod(ops.pack_lstm_weight)
    _state_count = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        merge: str = "concat",
    ) -> None:
        if proj_size != 0:
            raise ValueError(f"proj_size: expected 0, received {proj_size}; torch.nn.LSTM has projections")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            merge=merge,
        )
