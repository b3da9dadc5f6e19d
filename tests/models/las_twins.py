"""The two Listen-Attend-Spell lineages in plain torch, as they were: with their keys, and with their defects.

Alone and unpadded an utterance meets none of the defects but the random state, which ``random_state`` turns on:
lengths are clamped (HW4P2) or not there at all (KoSpeech), padding is attended to and enters the batch norms, and
decoding goes on for a fixed number of steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

SOS, EOS = 1, 2


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Eval mode, random batch norms, and weights so large that speech and tokens matter to the output."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    for name, parameter in model.speller.named_parameters():
        if parameter.dim() > 1 and "embedding" not in name and "char_prob" not in name:
            parameter.mul_(3)
    for name, parameter in model.listener.named_parameters():
        if "weight_ih_l" in name or "weight_hh_l" in name:
            parameter.mul_(2)
    return model.eval()


class PBLSTM(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.blstm = nn.LSTM(2 * input_size, hidden_size, layers, batch_first=True, bidirectional=True)

    def forward(self, packed: PackedSequence) -> PackedSequence:
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        if x.shape[1] % 2:
            x, lengths = x[:, :-1], lengths - 1
        half = x.shape[1] // 2
        x = x.reshape(len(x), half, 2 * x.shape[2])
        packed = pack_padded_sequence(x, lengths.clamp(max=half), batch_first=True, enforce_sorted=False)
        return self.blstm(packed)[0]


class HW4SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, t, size = x.shape
        q, k, v = (
            w(x).view(n, t, self.heads, size // self.heads).transpose(1, 2)
            for w in (self.W_q, self.W_k, self.W_v)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(size // self.heads), 3)
        return self.W_o((weights @ v).transpose(1, 2).reshape(n, t, size))


class HW4EncoderBlock(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.attention = HW4SelfAttention(size, heads)
        self.bn1, self.bn2 = nn.BatchNorm1d(size), nn.BatchNorm1d(size)
        self.MLP = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1((x + self.attention(x)).transpose(1, 2)).transpose(1, 2)
        return self.bn2((x + self.MLP(x)).transpose(1, 2)).transpose(1, 2)


class HW4Listener(nn.Module):
    def __init__(
        self,
        features: int,
        channels: tuple[int, ...],
        hidden: int,
        layers: tuple[int, ...],
        blocks: int,
        heads: int,
    ) -> None:
        super().__init__()
        modules = []
        for before, after in zip((features, *channels), channels):
            modules += [nn.Conv1d(before, after, 3, padding=1, bias=False), nn.BatchNorm1d(after), nn.GELU()]
        self.embedding = nn.Sequential(*modules)
        sizes = [channels[-1], *[2 * hidden] * (len(layers) - 1)]
        self.pblstm = nn.ModuleList(PBLSTM(n, hidden, k) for n, k in zip(sizes, layers))
        self.transformer_encoder = nn.Sequential(*(HW4EncoderBlock(2 * hidden, heads) for _ in range(blocks)))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(x.transpose(1, 2)).transpose(1, 2)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        for block in self.pblstm:
            packed = block(packed)
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        size = x.shape[2]
        for position in range(x.shape[1]):
            for i in range(size // 2):
                angle = position / 10000 ** (2 * i / size)
                x[:, position, 2 * i] += math.sin(angle)
                x[:, position, 2 * i + 1] += math.cos(angle)
        return self.transformer_encoder(x), lengths


class HW4Attention(nn.Module):
    def __init__(self, listener: int, speller: int, size: int) -> None:
        super().__init__()
        self.VW, self.KW, self.QW = (
            nn.Linear(listener, size),
            nn.Linear(listener, size),
            nn.Linear(speller, size),
        )

    def forward(self, query: Tensor, frames: Tensor) -> Tensor:
        q, k, v = self.QW(query), self.KW(frames), self.VW(frames)
        weights = torch.softmax((k @ q[:, :, None])[:, :, 0] / math.sqrt(q.shape[1]), 1)
        return (weights[:, None] @ v)[:, 0]


class HW4Speller(nn.Module):
    def __init__(
        self, tokens: int, embedding: int, size: int, layers: int, context: int, attend: nn.Module
    ) -> None:
        super().__init__()
        self.attend = attend
        self.context = context
        self.embedding = nn.Embedding(tokens, embedding, padding_idx=0)
        inputs = [embedding + context, *[size] * (layers - 1)]
        self.lstm_cells = nn.Sequential(*(nn.LSTMCell(n, size) for n in inputs))
        self.output_to_char = nn.Linear(size + context, embedding)
        self.linear1 = nn.Linear(embedding, embedding)
        self.char_prob = nn.Linear(embedding, tokens)
        self.char_prob.weight = self.embedding.weight

    def forward(self, frames: Tensor, y: Tensor | None, steps: int) -> Tensor:
        token = torch.full((len(frames),), SOS)
        context = frames.new_zeros(len(frames), self.context)
        states: list = [None] * len(self.lstm_cells)
        logits = []
        for step in range(steps):
            if y is not None and step:
                token = y[:, step - 1]
            x = torch.cat((self.embedding(token), context), 1)
            for i, cell in enumerate(self.lstm_cells):
                states[i] = cell(x, states[i])
                x = states[i][0]
            context = self.attend(x, frames)
            hidden = torch.tanh(self.output_to_char(torch.cat((x, context), 1)))
            logits.append(self.char_prob(torch.tanh(self.linear1(hidden))))
            token = logits[-1].argmax(1)
        return torch.stack(logits, 1)


class HW4Model(nn.Module):
    """The targets y [N, L] begin with SOS and end with EOS; without them ``steps`` are decoded, past any EOS."""

    def __init__(
        self,
        tokens: int = 31,
        features: int = 28,
        channels: tuple[int, ...] = (12, 20, 16),
        hidden: int = 8,
        layers: tuple[int, ...] = (3, 3, 3),
        blocks: int = 2,
        heads: int = 2,
        embedding: int = 10,
        speller: int = 14,
        speller_layers: int = 3,
        attention: int = 12,
    ) -> None:
        super().__init__()
        self.listener = HW4Listener(features, channels, hidden, layers, blocks, heads)
        self.attend = HW4Attention(2 * hidden, speller, attention)
        self.speller = HW4Speller(tokens, embedding, speller, speller_layers, attention, self.attend)

    def forward(self, x: Tensor, lengths: Tensor, y: Tensor | None = None, steps: int = 0) -> Tensor:
        """x: [N, T, F] → logits [N, L, tokens]."""
        frames, _ = self.listener(x, lengths)
        return self.speller(frames, y, steps if y is None else y.shape[1])


class PyramidalGRU(nn.Module):
    def __init__(self, size: int, hidden: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(2 * size, hidden, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2:
            x = torch.cat((x, x.new_zeros(len(x), 1, x.shape[2])), 1)
        return self.rnn(x.reshape(len(x), x.shape[1] // 2, -1))[0]


class KoSpeechListener(nn.Module):
    def __init__(
        self, mels: int, channels: tuple[int, ...], hidden: int, layers: tuple[int, ...], bidirectional: bool
    ) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((1, *channels), channels)):
            modules += [nn.Conv2d(before, after, 3, padding=1), nn.Hardtanh(0, 20, inplace=True)]
            if index == 1:
                modules.append(nn.MaxPool2d(2, 2))
            modules.append(nn.BatchNorm2d(after))
            if index == 4:
                modules.append(nn.MaxPool2d(2, 2))
        self.conv = nn.Sequential(*modules)
        size, width = channels[-1] * (mels // 4), hidden * (2 if bidirectional else 1)
        options = {"batch_first": True, "bidirectional": bidirectional}
        if len(layers) == 1:
            self.rnn = nn.GRU(size, hidden, layers[0], **options)
        else:
            self.bottom_rnn = nn.GRU(size, hidden, layers[0], **options)
            self.middle_rnn = PyramidalGRU(width, hidden, layers[1], bidirectional)
            self.top_rnn = PyramidalGRU(width, hidden, layers[2], bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x[:, None]).transpose(1, 2).flatten(2)
        if hasattr(self, "rnn"):
            return self.rnn(x)[0]
        return self.top_rnn(self.middle_rnn(self.bottom_rnn(x)[0]))


class DotProduct(nn.Module):
    def __init__(self, size: int, _: int) -> None:
        super().__init__()
        self.W = nn.Linear(2 * size, size)

    def forward(self, query: Tensor, frames: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = torch.softmax((frames @ query[:, :, None])[:, :, 0], 1)
        context = (weights[:, None] @ frames)[:, 0]
        return torch.tanh(self.W(torch.cat((context, query), 1))), weights


class ContentBased(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.W, self.V = nn.Linear(size, inner, bias=False), nn.Linear(size, inner, bias=False)
        self.b = nn.Parameter(torch.empty(inner).uniform_(-0.1, 0.1))
        self.w = nn.Linear(inner, 1, bias=False)

    def energy(self, query: Tensor, frames: Tensor, more: Tensor | float = 0.0) -> Tensor:
        return self.w(torch.tanh(self.W(query)[:, None] + self.V(frames) + more + self.b))[:, :, 0]

    def forward(self, query: Tensor, frames: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.energy(query, frames), 1)
        return (weights[:, None] @ frames)[:, 0], weights


class Hybrid(ContentBased):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__(size, inner)
        self.loc_conv = nn.Conv1d(1, 10, 3, padding=1)
        self.U = nn.Linear(10, inner, bias=False)

    def forward(self, query: Tensor, frames: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        location = 0.0 if last is None else self.U(self.loc_conv(last[:, None]).transpose(1, 2))
        scores = torch.sigmoid(self.energy(query, frames, location))
        weights = scores / scores.sum(1, keepdim=True)
        return (weights[:, None] @ frames)[:, 0], weights


class KoSpeechAttention(nn.Module):
    def __init__(self, kind: str, size: int, inner: int) -> None:
        super().__init__()
        kinds = {"dot": DotProduct, "additive": ContentBased, "location": Hybrid}
        self.attention = kinds[kind](size, inner)

    def forward(self, *args: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.attention(*args)


class KoSpeechSpeller(nn.Module):
    def __init__(self, tokens: int, size: int, layers: int, kind: str | None, inner: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(size, size, layers, batch_first=True)
        self.embedding = nn.Embedding(tokens, size)
        if kind is not None:
            self.attention = KoSpeechAttention(kind, size, inner)
        self.out = nn.Linear(size, tokens)
        self.sos = tokens - 3
        self.random_state = False

    def forward(self, frames: Tensor, y: Tensor | None, steps: int) -> Tensor:
        shape = (self.rnn.num_layers, len(frames), self.rnn.hidden_size)
        h = torch.empty(shape).uniform_(-1, 1) if self.random_state else torch.zeros(shape)
        token, last, logits = torch.full((len(frames),), self.sos), None, []
        for step in range(steps):
            if y is not None and step:
                token = y[:, step - 1]
            query, h = self.rnn(self.embedding(token)[:, None], h)
            output = query[:, 0]
            if hasattr(self, "attention"):
                output, last = self.attention(output, frames, last)
            logits.append(self.out(output))
            token = logits[-1].argmax(1)
        return torch.stack(logits, 1)


class ListenAttendSpell(nn.Module):
    """The targets y [N, L] end with EOS; without them ``steps`` are decoded, past any EOS."""

    def __init__(
        self,
        tokens: int = 40,
        mels: int = 20,
        channels: tuple[int, ...] = (4, 4, 6, 6, 6),
        hidden: int = 9,
        layers: tuple[int, ...] = (2, 2, 1),
        speller_layers: int = 3,
        attention: str | None = "dot",
        inner: int = 11,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.listener = KoSpeechListener(mels, channels, hidden, layers, bidirectional)
        size = hidden * (2 if bidirectional else 1)
        self.speller = KoSpeechSpeller(tokens, size, speller_layers, attention, inner)

    def forward(self, x: Tensor, y: Tensor | None = None, steps: int = 0) -> Tensor:
        """x: [N, T, mels] → logits [N, L, tokens]."""
        return self.speller(self.listener(x), y, steps if y is None else y.shape[1])
