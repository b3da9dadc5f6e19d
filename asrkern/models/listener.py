"""The listeners of Listen-Attend-Spell: from features to fewer frames, by each row's own length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asrkern import ops
from asrkern.models.las_config import LASConfig
from asrkern.nn import (
    GRU,
    LSTM,
    LockedDropout,
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    PyramidalRNN,
    stack_frames,
)
from asrkern.nn._conv_stages import folded, pool_window
from asrkern.nn._hooks import is_altered
from asrkern.nn._lengths import frame_mask, zero_padding
from asrkern.nn.attention import scaled_dot_product
from asrkern.nn.batch_norm import clamp_range, uses_batch_stats

_RNNS = {"lstm": LSTM, "gru": GRU}


class Listener(nn.Module):
    """Features [N, 1, F, T] with lengths → frames [N, T', listener_size], zero beyond the new lengths, int64.

    ``reductions`` are the (factor, remainder) by which its parts divide a length, in order. The result is rounded up
    for "pad", down for "drop".
    """

    def __init__(self, reductions: list[tuple[int, str]]) -> None:
        super().__init__()
        self.reductions = reductions

    @property
    def minimum_frames(self) -> int:
        """The fewest frames of input that leave one frame."""
        frames = 1
        for factor, remainder in reversed(self.reductions):
            frames = frames * factor if remainder == "drop" else (frames - 1) * factor + 1
        return frames

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths [N] after the listener, in exact integers."""
        for factor, remainder in self.reductions:
            lengths = (lengths + (factor - 1 if remainder == "pad" else 0)) // factor
        return lengths


def make_listener(config: LASConfig) -> Listener:
    """The listener that a configuration names."""
    return VGGListener(config) if config.listener == "vgg" else ConvListener(config)


class ConvListener(Listener):
    """HW4P2's: convolutions over time, (pyramidal) recurrent blocks, self-attention blocks.

    Keys ``embedding.*``, ``pblstm.N.blstm.*``, ``transformer_encoder.N.*``. Convolutions, batch norms and recurrent
    layers are asrkern's, the rest and depthwise convolutions in training torch's.
    """

    def __init__(self, config: LASConfig) -> None:
        factor = 2 if config.use_pyramidal else 1
        stride = 2 if config.listener == "mobile" else 1
        strides = [(stride, "pad")] * (len(config.conv_channels) - 1)
        super().__init__(strides + [(factor, config.remainder)] * len(config.rnn_layers))
        self.embedding = (_mobile_stack if config.listener == "mobile" else _conv1d_stack)(config)
        sizes = [config.conv_channels[-1], *[config.listener_size] * (len(config.rnn_layers) - 1)]
        self.pblstm = nn.ModuleList(
            _RecurrentBlock(size, layers, factor, config)
            for size, layers in zip(sizes, config.rnn_layers, strict=True)
        )
        self.transformer_encoder = nn.ModuleList(
            _EncoderBlock(config.listener_size, config.encoder_heads, config.stats)
            for _ in range(config.encoder_blocks)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = _run_stack(self.embedding, x.squeeze(1), lengths)
        x = x.transpose(1, 2)
        for block in self.pblstm:
            x, lengths = block(x, lengths)
        if len(self.transformer_encoder):
            x = x + sinusoidal_positions(x.shape[1], x.shape[2]).to(x)
        for block in self.transformer_encoder:
            x = block(x, lengths)
        return x, lengths


def _conv1d_stack(config: LASConfig) -> nn.Sequential:
    modules = []
    for before, after in zip((config.n_features, *config.conv_channels), config.conv_channels):
        modules += [
            nn.Conv1d(before, after, 3, padding=1, bias=False),
            MaskedBatchNorm1d(after, stats=config.stats),
            nn.GELU(),
        ]
    return nn.Sequential(*modules)


def _mobile_stack(config: LASConfig) -> nn.Sequential:
    """A convolution, then for each number of channels an inverted residual of stride 2 and one of stride 1."""
    first, *others = config.conv_channels
    modules = [
        nn.Conv1d(config.n_features, first, 3, padding=1, bias=False),
        MaskedBatchNorm1d(first, activation=(0, 6), stats=config.stats),
    ]
    for before, after in zip(config.conv_channels, others):
        modules += [
            InvertedResidual(before, after, 2, config.stats),
            InvertedResidual(after, after, 1, config.stats),
        ]
    return nn.Sequential(*modules)


class InvertedResidual(nn.Module):
    """Expand fourfold, convolve each channel over time, project (Sandler et al. 2018, in one dimension).

    [N, C, T] with lengths → [N, C', ceil(T / stride)]; the input is added where the shapes are the same.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, stats: str) -> None:
        super().__init__()
        inner = 4 * in_channels
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            nn.Conv1d(in_channels, inner, 1, bias=False),
            MaskedBatchNorm1d(inner, activation=(0, 6), stats=stats),
            nn.Conv1d(inner, inner, 3, stride, padding=1, groups=inner, bias=False),
            MaskedBatchNorm1d(inner, activation=(0, 6), stats=stats),
            nn.Conv1d(inner, out_channels, 1, bias=False),
            MaskedBatchNorm1d(out_channels, stats=stats),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, output_lengths = _run_stack(self.conv, x, lengths)
        return x + y if self.residual else y, output_lengths


def _run_stack(stack: nn.Sequential, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run modules over [N, C, T], with the lengths of the rows; zero beyond them."""
    modules: list[Any] = list(stack)
    while modules:
        module = modules.pop(0)
        if isinstance(module, InvertedResidual):
            x, lengths = module(x, lengths)
        elif isinstance(module, nn.Conv1d):
            folds = not is_altered(module) and _on_running_stats(modules[0])
            x, lengths = _masked_conv1d(module, modules.pop(0) if folds else None, x, lengths)
        elif isinstance(module, MaskedBatchNorm1d):
            x = module(x, lengths)
        else:
            x = module(x)
    return x, lengths


def _on_running_stats(module: nn.Module) -> bool:
    """Whether this is a batch norm that a convolution can run in its epilogue."""
    return isinstance(module, MaskedBatchNorm1d) and not is_altered(module) and not uses_batch_stats(module)


def _masked_conv1d(
    conv: Any, norm: MaskedBatchNorm1d | None, x: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """A convolution, and the batch norm on running statistics after it, if that is given."""
    (kernel_size,), (stride,), (padding,) = conv.kernel_size, conv.stride, conv.padding
    output_lengths = ops.conv_output_lengths(lengths, kernel_size, stride, padding)
    if (conv.groups > 1 and norm is None) or is_altered(conv):
        return zero_padding(conv(zero_padding(x, lengths, "NCT")), output_lengths, "NCT"), output_lengths
    y = ops.masked_conv2d(
        x.unsqueeze(2),
        conv.weight.unsqueeze(2),
        conv.bias,
        *((None, None) if norm is None else folded(norm)),
        activation=None if norm is None else norm.activation,
        lengths=lengths,
        output_lengths=output_lengths,
        stride=(1, stride),
        padding=(0, padding),
        groups=conv.groups,
    )
    return y.squeeze(2), output_lengths


def make_dropout(config: LASConfig) -> LockedDropout | nn.Dropout:
    """The configuration's kind of dropout, for [N, T, C]."""
    return LockedDropout(config.dropout) if config.locked_dropout else nn.Dropout(config.dropout)


class _RecurrentBlock(nn.Module):
    """A recurrent layer on ``factor`` frames at a time, then dropout; keys ``blstm.*``."""

    def __init__(self, input_size: int, layers: int, factor: int, config: LASConfig) -> None:
        super().__init__()
        self.factor = factor
        self.remainder = config.remainder
        self.blstm = _RNNS[config.rnn_type](
            factor * input_size,
            config.hidden_size,
            layers,
            batch_first=True,
            dropout=config.dropout if layers > 1 else 0,
            bidirectional=config.use_bidirectional,
        )
        self.dropout = make_dropout(config)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, after = stack_frames(x, lengths, self.factor, remainder=self.remainder)
        assert after is not None
        return self.dropout(self.blstm(x, lengths=after)[0]), after


def sinusoidal_positions(frames: int, size: int) -> Tensor:
    """[frames, size] with sin and cos of ``position / 10000^(2i / size)`` at 2i and 2i + 1 (Vaswani et al. 2017)."""
    angles = torch.arange(frames).double()[:, None] / 10000 ** (torch.arange(0, size, 2).double() / size)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1).float()


class _EncoderBlock(nn.Module):
    """Self-attention and two linear layers, each followed by its residual and a batch norm."""

    def __init__(self, size: int, num_heads: int, stats: str) -> None:
        super().__init__()
        self.attention = _SelfAttention(size, num_heads)
        self.bn1 = MaskedBatchNorm1d(size, stats=stats, layout="NTC")
        self.bn2 = MaskedBatchNorm1d(size, stats=stats, layout="NTC")
        self.MLP = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x: [N, T, size]; the output is zero beyond each length."""
        x = self.bn1(x + self.attention(x, lengths), lengths)
        return self.bn2(x + self.MLP(x), lengths)


class _SelfAttention(nn.Module):
    """Multi-head attention of frames to the valid ones of their row."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.W_q, self.W_k, self.W_v)
        )
        rows, steps = x.shape[:2]
        valid = frame_mask(lengths, rows, steps, x.device)
        y, _ = scaled_dot_product(q, k, v, valid[:, None, None])
        return self.W_o(y.transpose(1, 2).flatten(2))


class VGGListener(Listener):
    """KoSpeech's: convolutions and max-pools over frequency and time, then recurrent layers.

    Keys ``conv.N.*``, and ``bottom_rnn.*``, ``middle_rnn.rnn.*``, ``top_rnn.rnn.*`` (for further blocks
    ``pyramid_N``), or ``rnn.*`` without the pyramid. All layers but the second max-pool are asrkern's. As in the lineage
    the weights of the convolutions have time before frequency.
    """

    def __init__(self, config: LASConfig) -> None:
        pyramid = config.rnn_layers[1:] if config.use_pyramidal else ()
        super().__init__([(2, "drop")] * 2 + [(2, config.remainder)] * len(pyramid))
        self.conv = _vgg_stack(config)
        size = config.conv_channels[-1] * (config.n_features // 2 // 2)
        layers = config.rnn_layers[0] if config.use_pyramidal else sum(config.rnn_layers)
        rnn = _RNNS[config.rnn_type](
            size,
            config.hidden_size,
            layers,
            batch_first=True,
            dropout=config.dropout if layers > 1 else 0,
            bidirectional=config.use_bidirectional,
        )
        self.add_module("bottom_rnn" if config.use_pyramidal else "rnn", rnn)
        self.recurrent_names = ["bottom_rnn" if config.use_pyramidal else "rnn"]
        for index, layers in enumerate(pyramid):
            block = PyramidalRNN(
                config.listener_size,
                config.hidden_size,
                layers,
                _RNNS[config.rnn_type],
                config.use_bidirectional,
                dropout=config.dropout if layers > 1 else 0,
                remainder=config.remainder,
            )
            name = ("middle_rnn", "top_rnn")[index] if index < 2 else f"pyramid_{index}"
            self.add_module(name, block)
            self.recurrent_names.append(name)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        modules = list(self.conv)
        while modules:
            module = modules.pop(0)
            if isinstance(module, nn.Conv2d) and (
                is_altered(module) or is_altered(modules[0]) or clamp_range(modules[0]) is None
            ):
                # By torch's layers themselves, over [N, C, T, F].
                x = modules.pop(0)(module(zero_padding(x, lengths, "NCFT").transpose(2, 3))).transpose(2, 3)
                x = zero_padding(x, lengths, "NCFT")
            elif isinstance(module, nn.Conv2d):
                activation = clamp_range(modules.pop(0))
                pool = None if self.training else pool_window(modules[0])
                if pool is None:
                    pool = (1, 1)
                else:
                    modules.pop(0)
                x = ops.masked_conv2d(
                    x,
                    module.weight.transpose(2, 3),
                    module.bias,
                    lengths=lengths,
                    padding=(1, 1),
                    activation=activation,
                    pool=pool,
                )
                lengths = lengths // pool[1]
            elif isinstance(module, MaskedBatchNorm2d):
                x = module(x, lengths)
            elif isinstance(module, nn.MaxPool2d):
                # A window with a row's last frame and padding is beyond the new length, so it is not read.
                x, lengths = module(x), lengths // 2
            else:
                # Of other models: by channel, as BatchNorm2d, or by element.
                x = module(x)
        x = x.flatten(1, 2).transpose(1, 2)
        first, *others = (getattr(self, name) for name in self.recurrent_names)
        x = first(x, lengths=lengths)[0]
        for block in others:
            x, lengths = block(x, lengths)
        return x, lengths


def _vgg_stack(config: LASConfig) -> nn.Sequential:
    """Each convolution clamps in the same operation, and pools in it where the pool is next."""
    modules = []
    for index, (before, after) in enumerate(zip((1, *config.conv_channels), config.conv_channels)):
        modules += [nn.Conv2d(before, after, 3, padding=1), nn.Hardtanh(0, 20)]
        norm, pool = MaskedBatchNorm2d(after, stats=config.stats), nn.MaxPool2d(2)
        modules += {1: [pool, norm], 4: [norm, pool]}.get(index, [norm])
    return nn.Sequential(*modules)
