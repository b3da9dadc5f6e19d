"""DeepSpeech2 in plain PyTorch: what a user runs without asrkern, and the independent twin of the tests.

Nothing of asrkern is imported. Every published layout of the deepspeech.pytorch line (Sean Naren) and of
MLPerf's v0.5 copy can be built, with the keys that its own checkpoints have. The length mask is one
comparison on the device instead of the original's loop over the batch: a comparison of speed is then fair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LABELS = "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "


@dataclass(frozen=True)
class Layout:
    """What differs between the published versions; paddings are (frequency, time) of the two convolutions."""

    conv_padding: tuple[tuple[int, int], tuple[int, int]]
    wrapped_conv: bool  # keys conv.seq_module.N instead of conv.N
    bias: bool
    batch_norm: bool
    lookahead: str | None  # "weight": (H, context + 1), "conv": (H, 1, context)
    output: str


LAYOUTS = {
    "v1.0": Layout(((0, 0), (0, 0)), False, False, True, None, "log_softmax"),
    "v1.1": Layout(((0, 10), (0, 0)), False, False, True, "weight", "softmax"),
    "2018-03": Layout(((20, 5), (10, 5)), True, False, True, "weight", "softmax"),
    "v2": Layout(((20, 5), (10, 5)), True, True, True, "conv", "softmax"),
    "mlperf": Layout(((0, 0), (0, 0)), False, True, False, None, "log_softmax"),
}


def mask_frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Zero the frames of x: [N, C, F, T] beyond each utterance's length."""
    beyond = torch.arange(x.shape[-1], device=x.device) >= lengths.to(x.device)[:, None]
    return x.masked_fill(beyond[:, None, None, :], 0)


class MaskedConv(nn.Module):
    """The convolutions of the later versions, which keep them one level down, under ``seq_module``."""

    def __init__(self, seq_module: nn.Sequential) -> None:
        super().__init__()
        self.seq_module = seq_module


class SequenceWise(nn.Module):
    """Apply a module to the T·N rows of x: [T, N, H]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class BatchRNN(nn.Module):
    """BatchNorm (not in the first layer), then one recurrent layer whose two directions are added."""

    def __init__(
        self,
        rnn: type[nn.RNNBase],
        input_size: int,
        hidden_size: int,
        bidirectional: bool,
        bias: bool,
        norm: bool,
    ) -> None:
        super().__init__()
        self.batch_norm = SequenceWise(nn.BatchNorm1d(input_size)) if norm else None
        self.rnn = rnn(input_size, hidden_size, bidirectional=bidirectional, bias=bias)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """x: [T, N, input_size] → [T, N, hidden_size]; without lengths the layer runs through the padding."""
        steps = x.shape[0]
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        if lengths is None:
            x, _ = self.rnn(x)
        else:
            packed, _ = self.rnn(pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False))
            x, _ = pad_packed_sequence(packed, total_length=steps)
        return x.unflatten(-1, (2, -1)).sum(2) if self.rnn.bidirectional else x


class WindowLookahead(nn.Module):
    """Lookahead of the first versions: y[t] = Σⱼ weight[:, j] · x[t + j], j = 0 … context."""

    def __init__(self, hidden_size: int, context: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, context + 1).uniform_(-0.3, 0.3))

    def forward(self, x: Tensor) -> Tensor:
        width = self.weight.shape[1]
        return (F.pad(x, (0, 0, 0, 0, 0, width - 1)).unfold(0, width, 1) * self.weight).sum(-1)


class ConvLookahead(nn.Module):
    """Lookahead of the later versions: a depthwise convolution over ``context`` frames, this one first."""

    def __init__(self, hidden_size: int, context: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, context, groups=hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.permute(1, 2, 0), (0, self.conv.kernel_size[0] - 1))
        return self.conv(x).permute(2, 0, 1)


class StockDeepSpeech2(nn.Module):
    """DeepSpeech2 of one published layout.

    Args:
        layout: a key of :data:`LAYOUTS`.
        labels: one label per output class, blank first.
        n_freq: frequency bins of the input (161 at 16 kHz with 20 ms windows).
        rnn_type: "gru" or "lstm".
        lookahead_context: frames of a unidirectional model's lookahead, in the layout's own counting.
        packed: mask the padding and pack the recurrent layers by length, as the versions since 2018-03 do in
            any case. False lets the earlier versions and MLPerf's copy run through the padding, as they did.
        output: what :meth:`forward` returns in eval, "log_softmax" or "softmax"; ``LAYOUTS[layout].output``
            is what the original returned.
    """

    def __init__(
        self,
        layout: str = "v2",
        *,
        labels: str = LABELS,
        n_freq: int = 161,
        hidden_size: int = 1024,
        num_layers: int = 5,
        rnn_type: str = "lstm",
        bidirectional: bool = True,
        lookahead_context: int = 20,
        packed: bool = True,
        output: str = "log_softmax",
    ) -> None:
        super().__init__()
        self.layout = LAYOUTS[layout]
        self.packed = packed
        self.output = output
        padding = self.layout.conv_padding
        conv = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=padding[0]),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(32, 32, (21, 11), stride=(2, 1), padding=padding[1]),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
        )
        n_freq = (n_freq + 2 * padding[0][0] - 41) // 2 + 1
        n_freq = (n_freq + 2 * padding[1][0] - 21) // 2 + 1
        rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[rnn_type]
        layers = [
            BatchRNN(
                rnn,
                hidden_size if i else 32 * n_freq,
                hidden_size,
                bidirectional,
                self.layout.bias,
                norm=i > 0 and self.layout.batch_norm,
            )
            for i in range(num_layers)
        ]
        self.conv = MaskedConv(conv) if self.layout.wrapped_conv else conv
        self.rnns = nn.Sequential(*layers)
        self.lookahead = None
        if not bidirectional and self.layout.lookahead is not None:
            kind = WindowLookahead if self.layout.lookahead == "weight" else ConvLookahead
            self.lookahead = nn.Sequential(kind(hidden_size, lookahead_context), nn.Hardtanh(0, 20))
        head = nn.Sequential(nn.BatchNorm1d(hidden_size), nn.Linear(hidden_size, len(labels), bias=False))
        self.fc = nn.Sequential(SequenceWise(head))

    def conv_stage(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features: [N, 1, F, T] or [N, F, T], lengths: [N] → x: [T', N, 32 · F'], output lengths: [N]."""
        x = features if features.dim() == 4 else features[:, None]
        masked = self.packed or self.layout.wrapped_conv
        x = mask_frames(x, lengths) if masked else x
        for module in self.conv.seq_module if self.layout.wrapped_conv else self.conv:
            x = module(x)
            if isinstance(module, nn.Conv2d):
                kernel, stride, padding = module.kernel_size[1], module.stride[1], module.padding[1]
                lengths = (lengths + 2 * padding - kernel) // stride + 1
            x = mask_frames(x, lengths) if masked else x
        return x.flatten(1, 2).permute(2, 0, 1).contiguous(), lengths

    def rnn_stage(self, x: Tensor, output_lengths: Tensor) -> Tensor:
        """x: [T', N, 32 · F'], output_lengths: [N] → [T', N, H], the lookahead included."""
        for layer in self.rnns:
            x = layer(x, output_lengths if self.packed or self.layout.wrapped_conv else None)
        return x if self.lookahead is None else self.lookahead(x)

    def fc_stage(self, x: Tensor, output_lengths: Tensor | None = None) -> Tensor:
        """x: [T', N, H] → [N, T', V], log-probabilities unless ``output`` is "softmax"."""
        logits = self.fc(x).transpose(0, 1)
        if self.output == "softmax" and not self.training:
            return logits.softmax(-1)
        return logits.log_softmax(-1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features: [N, 1, F, T] or [N, F, T], lengths: [N] int → output [N, T', V], output lengths [N]."""
        x, output_lengths = self.conv_stage(features, lengths)
        return self.fc_stage(self.rnn_stage(x, output_lengths)), output_lengths
