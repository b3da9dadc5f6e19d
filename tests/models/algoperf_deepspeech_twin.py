"""AlgoPerf's DeepSpeech in plain PyTorch, with the keys of AlgoPerf's own; nothing of asrkern is imported."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LABELS = "_ABCDEFGHIJ"


class PlainNorm(nn.Module):
    """A normalisation whose weight is less one."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_parameter("weight" if kind == "batch" else "scale", nn.Parameter(torch.zeros(width)))
        self.bias = nn.Parameter(torch.zeros(width))
        if kind == "batch":
            self.register_buffer("running_mean", torch.zeros(width))
            self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], 1 + self.scale, self.bias, 1e-6)
        x = (x - self.running_mean) / (self.running_var + 1e-3).sqrt()
        return x * (1 + self.weight) + self.bias


class Plain(nn.Module):
    """The model, in eval mode, for one utterance at a time."""

    def __init__(
        self,
        n_mels: int,
        width: int = 14,
        activation: str = "relu",
        norm: str = "batch",
        residual: bool = True,
        final_layer_norm: bool = True,
    ) -> None:
        super().__init__()
        self.activate, self.residual = getattr(torch, activation), residual
        self.subsample = nn.Module()
        for index, channels in enumerate((1, width), 1):
            conv = nn.Module()
            conv.kernel = nn.Parameter(torch.randn(width, channels, 3, 3) / 3 / channels**0.5)
            conv.bias = nn.Parameter(torch.randn(width))
            setattr(self.subsample, f"conv{index}", conv)
        self.subsample.lin = nn.Linear(-(-n_mels // 4) * width, width)
        name = "normalization_layer" if norm == "layer" else "bn_normalization_layer"
        self.lstms, self.ffns = nn.ModuleList(), nn.ModuleList()
        for _ in range(2):
            lstm, ffn = nn.Module(), nn.Module()
            lstm.lstm = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)
            ffn.lin = nn.Linear(width, width)
            for layers, layer in ((self.lstms, lstm), (self.ffns, ffn)):
                setattr(layer, name, PlainNorm(width, norm))
                layer.norm = lambda x, layer=layer: getattr(layer, name)(x)
                layers.append(layer)
        if final_layer_norm:
            self.ln = PlainNorm(width, "layer")
        self.final_layer_norm = final_layer_norm
        self.lin = nn.Linear(width, len(LABELS))
        with torch.no_grad():
            for key, value in self.state_dict().items():
                if key.endswith("running_var"):
                    value.uniform_(0.5, 2)
                elif "norm" in key or key.startswith("ln."):
                    value.normal_(0, 0.3)

    def forward(self, features: Tensor) -> Tensor:
        """[n_mels, T] → [T', labels]."""
        x = features.t()[None, None]
        for conv, time in ((self.subsample.conv1, (0, 2)), (self.subsample.conv2, (1, 1))):
            x = F.pad(x, (*same(x.shape[-1]), *time))
            x = self.activate(F.conv2d(x, conv.kernel, conv.bias, 2))
        x = self.subsample.lin(x.permute(0, 2, 3, 1).flatten(2))
        for layer in self.lstms:
            y, _ = layer.lstm(layer.norm(x))
            x = x + y if self.residual else y
        for layer in self.ffns:
            y = self.activate(layer.lin(layer.norm(x)))
            x = x + y if self.residual else y
        return self.lin(self.ln(x) if self.final_layer_norm else x)[0].log_softmax(-1)


def same(size: int) -> tuple[int, int]:
    """The zeros that TensorFlow's padding "SAME" puts before and after so many values, for 3 taps with stride 2."""
    total = max(0, 2 * (-(-size // 2) - 1) + 3 - size)
    return total // 2, total - total // 2
