"""torch.nn.GRU on :func:`asrkern.ops.gru`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asrkern import ops
from asrkern.nn._packed import PackedCache, can_pack
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packed = PackedCache()

    def flatten_parameters(self) -> None:
        """Forget the packed copies of the weights; the next call makes them again."""
        # torch's constructor calls this before there are any.
        if "_packed" in self.__dict__:
            self._packed.clear()

    def _layer(self, layer: int, x: Tensor, *states: Tensor, **options: Any) -> tuple[Tensor, ...]:
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        weights = [self._weights(layer, suffix) for suffix in suffixes]
        tensors = [t for direction in weights for t in direction if t is not None]
        if self.training or not can_pack(x, *tensors):
            return super()._layer(layer, x, *states, **options)
        packed = [
            ops.PackedGRUWeights(
                w.weight_ih,
                None,
                self._packed.get(f"{layer}{suffix}", w.weight_hh, ops.pack_gru_weight),
                None,
                w.bias_ih,
                w.bias_hh,
            )
            for suffix, w in zip(suffixes, weights)
        ]
        return ops.gru_prepacked(x, packed[0], packed[1] if self.bidirectional else None, *states, **options)
