"""Classifiers of short clips: DeepSpeech2's convolutions, then a Transformer or recurrent layers, then one decision."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.models._checks import check_choices, check_list, check_probability, check_sizes
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.conv_front_end import (
    SAME_PADDING,
    check_conv_input,
    conv_frames,
    conv_length,
    conv_output_size,
    make_conv,
)
from asrkern.models.weights import (
    check_keys,
    find_state_dict,
    fit_weights,
    outline,
    raise_misfits,
    with_weights,
)
from asrkern.nn import GRU, LSTM, TransformerDecoderLayer, TransformerEncoderLayer
from asrkern.nn._lengths import frame_mask

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_CONV_AND_FC_KEYS = (
    rf"conv\.seq_module\.([03]\.(weight|bias)|[14]\.{_NORM})"
    rf"|fc\.([025]\.{_NORM}|[14]\.(weight|bias)|7\.weight)"
)
_KIND = "classifier"


class _ConvClassifier(nn.Module):
    """What the classifiers share. A subclass adds the body: it makes one vector of a clip, on which ``fc`` decides."""

    # Keys of the body, as a regular expression, and the one of them whose shape says how large it is.
    _body_keys: ClassVar[str]
    _essential_key: ClassVar[str]

    def __init__(self, n_freq: int, stats: str) -> None:
        super().__init__()
        check_sizes(n_freq=n_freq)
        check_choices(stats=(stats, ("valid", "padded")))
        self.n_freq = n_freq
        self.d_model = conv_output_size(n_freq, SAME_PADDING)
        self.conv = make_conv(SAME_PADDING, stats)

    fc: Any

    @property
    def n_features(self) -> int:
        """Features per frame of the input."""
        return self.n_freq

    @property
    def n_classes(self) -> int:
        """Classes of the output."""
        return self.fc[-1].out_features

    def output_length(self, frames: int) -> int:
        """How many frames the convolutions make of ``frames`` frames of input; 0 for too few."""
        return max(0, conv_length(frames, 1, SAME_PADDING))

    @staticmethod
    def _make_fc(size: int, hidden_sizes: tuple[int, int], classes: int) -> nn.Sequential:
        check_list("fc_sizes", hidden_sizes)
        if len(hidden_sizes) != 2:
            raise ValueError(f"fc_sizes: expected two sizes, received {reprlib.repr(hidden_sizes)}")
        first, second = hidden_sizes
        check_sizes(classes=classes, **{"fc_sizes[0]": first, "fc_sizes[1]": second})
        return nn.Sequential(
            nn.BatchNorm1d(size),
            nn.Linear(size, first),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.BatchNorm1d(second),
            nn.ReLU(),
            nn.Linear(second, classes, bias=False),
        )

    @classmethod
    def options_of(cls, state: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor's options that a state_dict's keys and shapes tell.

        Args:
            state: weights by key, without prefixes of wrappers.


        Raises:
            ValueError: it is not of this model; the message lists what does not fit.
        """
        essential = (cls._essential_key, "fc.1.weight", "fc.4.weight", "fc.7.weight")
        check_keys(state, _KIND, re.compile(f"{_CONV_AND_FC_KEYS}|{cls._body_keys}"), essential)
        flat = [f"{key}: expected two dimensions" for key in essential if state[key].dim() != 2]
        raise_misfits(_KIND, malformed=flat)
        return {
            "classes": len(state["fc.7.weight"]),
            "fc_sizes": (len(state["fc.1.weight"]), len(state["fc.4.weight"])),
            **cls._body_options(state),
        }

    @classmethod
    def _body_options(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The options of the body."""
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> _ConvClassifier:
        """Load a checkpoint; nothing in the file is executed.

        Args:
            path: a state_dict, alone or under ``state_dict`` in a container, perhaps with DataParallel's
                ``module.`` before the keys.
            options: of the constructor, those that no weight tells: ``n_freq`` (161 if not given), ``dropout``,
                ``stats``, ``num_heads``.

        Returns:
            The model in fp32 on the CPU, in eval mode.

        Raises:
            OSError: the file cannot be opened.
            TypeError: an option does not exist, or is one that the weights tell.
            ValueError: it is no checkpoint of this model (what does not fit is listed), or weights are NaN or
                infinite (the keys are listed).
        """
        container = read_checkpoint(path)
        try:
            state = find_state_dict(container, _KIND)
            known = cls.options_of(state)
            model = outline(partial(cls, **known, **options), len(state))
            weights = fit_weights(state, model, _KIND)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        return with_weights(model, weights)

    def conv_stage(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """The convolutions.

        Args:
            features, lengths: as in :meth:`forward`.

        Returns:
            x [T', N, d_model], zero beyond each output length, and the output lengths [N], int64.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        x, lengths = check_conv_input(features, lengths, self.n_freq, SAME_PADDING, minimum_length=1)
        if self.training and len(x) < 2:
            raise ValueError("features: expected at least 2 clips in training, for BatchNorm, received 1")
        return conv_frames(self.conv, x, lengths)

    def body_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """The body: x [T', N, d_model] and output_lengths, integers [N] → one vector for each clip, [N, size]."""
        raise NotImplementedError

    def fc_stage(self, x: Tensor) -> Tensor:
        """The decision: x [N, size] of :meth:`body_stage` → logits [N, classes]."""
        return self.fc(x)

    def forward(self, features: Tensor, lengths: Lengths) -> Tensor:
        """Classify.

        Args:
            features: [N, 1, F, T] or [N, F, T], normalised log spectrograms, F being ``n_freq``.
            lengths: integers [N], valid frames of each clip, 1 to T, in any order, on any device. What lies
                beyond them is not read.

        Returns:
            Logits [N, classes].

        Raises:
            TypeError: features is no tensor, or lengths are not integers.
            ValueError: a shape, a dtype or a length does not fit (a clip without frames has no class), or there
                is one clip only in training.
        """
        return self.fc_stage(self.body_stage(*self.conv_stage(features, lengths)))


class ConvTransformerClassifier(_ConvClassifier):
    """DeepSpeech2's convolutions, torch.nn.Transformer, and a classifier on the decoder's whole output.

    The decoder reads ``decoder_steps`` queries. With "zero" ones nothing tells its steps apart in eval mode, where
    they are all equal, as in the original with its initial state 0. No padded frame is attended to. In eval mode and
    fp32 a clip's logits are, up to rounding, the same alone and in any batch, however it is padded; what the classifier
    ``fc`` is given is bit for bit, in inference on the CPU. The defaults have 237.4 M parameters.

    Keys: ``conv.seq_module.*``, ``transformer.{encoder,decoder}.*``, ``fc.{0,1,2,4,5,7}.*``, ``query`` if learned.

    Args:
        classes: logits of the output.
        n_freq: frequency bins of the input; 161 make frames of d_model = 1312 features.
        num_layers: of the encoder, and as many of the decoder.
        decoder_steps: length of the decoder's query and output.
        query: "zero" or "learned".
        num_heads: of the attentions, which divide d_model.
        dim_feedforward: width inside the Transformer's layers.
        dropout: inside the Transformer's layers.
        fc_sizes: hidden layers of the classifier.
        stats: frames that count for the convolutions' BatchNorm in training, "valid" or "padded".

    Raises:
        ValueError: an option is out of range.
    """

    _body_keys = (
        r"query|transformer\.((en|de)coder)\.norm\.(weight|bias)"
        r"|transformer\.((?P<part>en|de)coder)\.layers\.(?P<layer>\d+)\.("
        r"(self_attn|multihead_attn)\.(in_proj_weight|in_proj_bias|out_proj\.(weight|bias))"
        r"|linear[12]\.(weight|bias)|norm[123]\.(weight|bias))"
    )
    _essential_key = "transformer.encoder.layers.0.linear1.weight"

    def __init__(
        self,
        *,
        classes: int = 3,
        n_freq: int = 161,
        num_layers: int = 2,
        decoder_steps: int = 64,
        query: str = "zero",
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        dropout: float = 0.5,
        fc_sizes: tuple[int, int] = (2048, 1024),
        stats: str = "valid",
    ) -> None:
        super().__init__(n_freq, stats)
        check_sizes(
            num_layers=num_layers,
            decoder_steps=decoder_steps,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
        )
        check_choices(query=(query, ("zero", "learned")))
        check_probability("dropout", dropout)
        if self.d_model % num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of {self.d_model} (d_model), received {num_heads}"
            )
        layer = (self.d_model, num_heads, dim_feedforward, dropout)
        # Not nested tensors, which those layers would have to take apart again.
        encoder = nn.TransformerEncoder(
            TransformerEncoderLayer(*layer),
            num_layers,
            nn.LayerNorm(self.d_model),
            enable_nested_tensor=False,
        )
        decoder = nn.TransformerDecoder(
            TransformerDecoderLayer(*layer), num_layers, nn.LayerNorm(self.d_model)
        )
        self.transformer = nn.Transformer(
            self.d_model, num_heads, custom_encoder=encoder, custom_decoder=decoder
        )
        self.decoder_steps = decoder_steps
        self.query = None
        if query == "learned":
            self.query = nn.Parameter(torch.randn(decoder_steps, self.d_model) * self.d_model**-0.5)
        self.fc = self._make_fc(decoder_steps * self.d_model, fc_sizes, classes)

    @classmethod
    def _body_options(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        feedforward, d_model = state[cls._essential_key].shape
        matches = [re.fullmatch(cls._body_keys, key) for key in state]
        layers = {match["layer"] for match in matches if match and match["part"] == "en"}
        return {
            "num_layers": len(layers),
            "decoder_steps": max(1, state["fc.1.weight"].shape[1] // max(1, d_model)),
            "query": "learned" if "query" in state else "zero",
            "dim_feedforward": feedforward,
        }

    def body_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """The Transformer: x [T', N, d_model] and its output_lengths, integers [N] → [N, decoder_steps * d_model]."""
        frames, clips, _ = x.shape
        output_lengths = as_lengths("output_lengths", output_lengths, clips, frames)
        # A clip without frames, possible only on a GPU, where lengths are not read, attends to one frame of zeros.
        padded = ~frame_mask(output_lengths.clamp(min=1), clips, frames, x.device)
        # Equal steps are computed once: with equal keys and values attention gives the same for one as for many. With
        # dropout, which may be on at inference, too, they differ.
        equal = self.query is None and not any(module.training for module in self.transformer.modules())
        query = self.query
        if query is None:
            query = x.new_zeros(1 if equal else self.decoder_steps, self.d_model)
        queries = query[:, None].expand(-1, clips, -1).to(x.dtype)
        y = self.transformer(x, queries, src_key_padding_mask=padded, memory_key_padding_mask=padded)
        if equal:
            y = y.expand(self.decoder_steps, -1, -1)
        return y.transpose(0, 1).flatten(1)


class ConvRNNClassifier(_ConvClassifier):
    """DeepSpeech2's convolutions, recurrent layers, and a classifier.

    What is classified: the final hidden state of every layer and direction ("only_hidden"); or that and the mean of the
    last layer's output over the clip's frames ("combine"; a mean, since clips differ in length).

    Keys: ``conv.seq_module.*``, ``rnn.*`` as torch.nn.GRU's, ``fc.{0,1,2,4,5,7}.*``.

    Args:
        classes, n_freq, fc_sizes, stats: as in :class:`ConvTransformerClassifier`.
        classify: "only_hidden" or "combine".
        rnn_type: "gru" or "lstm".
        hidden_size: of the recurrent layers.
        num_layers: recurrent layers.
        bidirectional: two directions per layer, concatenated.
        dropout: between the recurrent layers.

    Raises:
        ValueError: an option is out of range.
    """

    _body_keys = r"rnn\.(weight|bias)_(ih|hh)_l(?P<layer>\d+)(_reverse)?"
    _essential_key = "rnn.weight_hh_l0"

    def __init__(
        self,
        *,
        classes: int = 3,
        n_freq: int = 161,
        classify: str = "only_hidden",
        rnn_type: str = "gru",
        hidden_size: int = 1312,
        num_layers: int = 2,
        bidirectional: bool = False,
        dropout: float = 0.5,
        fc_sizes: tuple[int, int] = (2048, 1024),
        stats: str = "valid",
    ) -> None:
        super().__init__(n_freq, stats)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        check_choices(
            classify=(classify, ("only_hidden", "combine")),
            rnn_type=(rnn_type, ("gru", "lstm")),
            bidirectional=(bidirectional, (True, False)),
        )
        check_probability("dropout", dropout)
        self.combines = classify == "combine"
        self.rnn = {"gru": GRU, "lstm": LSTM}[rnn_type](
            self.d_model,
            hidden_size,
            num_layers,
            # With one layer there is nothing between layers, and torch would warn.
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        vectors = (2 if bidirectional else 1) * (num_layers + self.combines)
        self.fc = self._make_fc(vectors * hidden_size, fc_sizes, classes)

    @classmethod
    def _body_options(cls, state: Mapping[str, Tensor]) -> dict[str, Any]:
        rows, hidden_size = state[cls._essential_key].shape
        rnn_type = {3 * hidden_size: "gru", 4 * hidden_size: "lstm"}.get(rows)
        if rnn_type is None or not hidden_size:
            shape = [rows, hidden_size]
            raise_misfits(
                _KIND, malformed=[f"{cls._essential_key}: expected [3·H, H] or [4·H, H], received {shape}"]
            )
        matches = [re.fullmatch(cls._body_keys, key) for key in state]
        num_layers = len({match["layer"] for match in matches if match})
        bidirectional = f"{cls._essential_key}_reverse" in state
        hidden = (2 if bidirectional else 1) * num_layers * hidden_size
        return {
            "classify": "only_hidden" if state["fc.1.weight"].shape[1] == hidden else "combine",
            "rnn_type": rnn_type,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "bidirectional": bidirectional,
        }

    def body_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """Recurrent layers: x [T', N, d_model] and its output_lengths, integers [N] → [N, vectors * hidden_size]."""
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        output, state = self.rnn(x, lengths=output_lengths)
        hidden = state[0] if isinstance(state, tuple) else state
        vector = hidden.transpose(0, 1).flatten(1)
        if not self.combines:
            return vector
        # The output is zero beyond each length.
        mean = output.sum(0) / output_lengths.to(x.device).clamp(min=1)[:, None]
        return torch.cat([mean, vector], 1)
