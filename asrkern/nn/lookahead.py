"""Lookahead convolution of unidirectional models (Wang et al. 2016, as deepspeech.pytorch has it)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.nn._hooks import is_altered
from asrkern.nn._lengths import zero_padding


class Lookahead(nn.Module):
    """``y[t] = Σ_j weight[:, j] · x[t + j]`` over the present frame and the context - 1 frames after it.

    Key ``conv.weight`` [n_features, 1, context]. A state dict of deepspeech.pytorch V1, with ``weight``
    [n_features, V1's context + 1], loads into a Lookahead of that context + 1.

    Args:
        n_features: H.
        context: frames each output sees, itself included.

    Raises:
        ValueError: context is less than 1.
    """

    def __init__(self, n_features: int, context: int) -> None:
        super().__init__()
        if context < 1:
            raise ValueError(f"context: expected at least 1, received {context}")
        self.n_features = n_features
        self.context = context
        self.conv = nn.Conv1d(n_features, n_features, context, groups=n_features, bias=False)

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        """Convolve.

        Args:
            x: [T, N, n_features].
            lengths: integers [N], valid frames per row: frames beyond are read as zero, and are zero in the
                output.

        Returns:
            [T, N, n_features]. A row's bits do not depend on its mates, unless ``conv`` has hooks or a forward of its own,
            which then compute.

        Raises:
            TypeError: lengths are not integers.
            ValueError: x or lengths has the wrong shape, or a length is out of range.
        """
        if x.dim() != 3 or x.shape[2] != self.n_features:
            raise ValueError(f"x: expected [T, N, {self.n_features}], received {list(x.shape)}")
        lengths = as_lengths("lengths", lengths, x.shape[1])
        x = zero_padding(x, lengths, "TNC")
        padded = nn.functional.pad(x, (0, 0, 0, 0, 0, self.context - 1))
        if is_altered(self.conv):
            return zero_padding(self.conv(padded.permute(1, 2, 0)).permute(2, 0, 1), lengths, "TNC")
        weight = self.conv.weight.squeeze(1).t().contiguous()
        # Tap by tap in a fixed order: conv1d's order of summation depends on the batch. Products and sums are separate
        # operations: fused, they could round differently where threads split a row.
        y = x * weight[0]
        for tap in range(1, self.context):
            y += padded.narrow(0, tap, x.shape[0]) * weight[tap]
        return zero_padding(y, lengths, "TNC")

    def extra_repr(self) -> str:
        return f"n_features={self.n_features}, context={self.context}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "weight" in state_dict:
            state_dict[prefix + "conv.weight"] = state_dict.pop(prefix + "weight").unsqueeze(1)
        super()._load_from_state_dict(state_dict, prefix, *args)
