"""torch.nn.GRU on :func:`asrkern.ops.gru`."""

from __future__ import annotations

import torch

from asrkern import ops
from asrkern.nn._recurrent import RecurrentLayers


class GRU(RecurrentLayers, torch.nn.GRU):
    """Drop-in replacement of torch.nn.GRU: same constructor, state_dict and return values.

    On top of torch's:

    * ``lengths=`` takes a padded batch as it is, in any order and with zero lengths; nothing is packed. Each
      direction runs over the valid frames only, output beyond a length is zero, and the final hidden state is
      the one at the row's own end (h0 where the length is zero).
    * ``merge="sum"`` adds the two directions of the output, which then has ``hidden_size`` features. It
      applies to the last layer's output only, so that the weights of upper layers keep torch's shapes; h_n
      is not merged.

    In eval mode and fp32 a row's result is bit for bit independent of the other rows and of its padding.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype:
            as in torch.nn.GRU.
        merge: "concat" (torch's) or "sum".

    Raises:
        ValueError: merge is neither "concat" nor "sum".
    """

    _operation = staticmethod(ops.gru)
    _prepacked_operation = staticmethod(ops.gru_prepacked)
    _pack = staticmethod(ops.pack_gru_weight)
