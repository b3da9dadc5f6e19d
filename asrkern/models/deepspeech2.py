"""DeepSpeech2 (Amodei et al. 2015) as deepspeech.pytorch and MLPerf v0.5 have it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.conv_front_end import (
    FrameGeometry,
    check_conv_input,
    conv_frames,
    conv_length,
    frame_geometry,
    make_conv,
)
from asrkern.models.deepspeech2_config import PRESETS, DeepSpeech2Config
from asrkern.models.deepspeech2_layouts import fit_weights, parse_checkpoint
from asrkern.models.weights import outline, with_weights
from asrkern.nn import GRU, LSTM, BatchRNN, Lookahead, SequenceWise


class DeepSpeech2(nn.Module):
    """Two masked convolutions, recurrent layers, one linear layer; keys as in deepspeech.pytorch 2.0 to 3.0.

    Lengths are exact integers throughout. In eval mode and fp32 an utterance's output is bit for bit the same
    alone and in any batch, however it is padded.

    Args:
        config: the model; see also :meth:`preset` and :meth:`from_checkpoint`.
    """

    def __init__(self, config: DeepSpeech2Config) -> None:
        super().__init__()
        self.config = config
        self.conv = make_conv(config.conv_padding, config.stats)
        self.rnns = nn.Sequential(
            *(
                BatchRNN(
                    config.hidden_size if index else config.rnn_input_size,
                    config.hidden_size,
                    {"gru": GRU, "lstm": LSTM}[config.rnn_type],
                    config.bidirectional,
                    batch_norm=index > 0 and config.batch_norm_between,
                    bias=config.bias,
                    stats=config.stats,
                )
                for index in range(config.num_layers)
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.lookahead = None
        if config.lookahead_context is not None:
            lookahead = Lookahead(config.hidden_size, config.lookahead_context)
            self.lookahead = nn.Sequential(lookahead, nn.Hardtanh(0, 20, inplace=True))
        classifier = nn.Sequential(
            nn.BatchNorm1d(config.hidden_size),
            nn.Linear(config.hidden_size, len(config.labels), bias=False),
        )
        self.fc = nn.Sequential(SequenceWise(classifier, config.stats))

    @classmethod
    def preset(cls, name: str, **options: Any) -> DeepSpeech2:
        """A model of a named size with new weights.

        Args:
            name: "mlperf" (3 unidirectional GRUs of 2560, as MLPerf's code has it, 103.8 M parameters),
                "paper" (5 bidirectional GRUs of 2560, as MLPerf's summary says, otherwise like v3), "v3"
                (5 bidirectional LSTMs of 1024, deepspeech.pytorch's default, 86.6 M) or "small"
                (2 bidirectional GRUs of 128).
            options: fields of :class:`DeepSpeech2Config` in place of the preset's.

        Raises:
            ValueError: no preset has this name, or an option is out of range.
            TypeError: an option does not exist.
        """
        if name not in PRESETS:
            raise ValueError(f"name: expected one of {tuple(PRESETS)}, received {name!r}")
        return cls(replace(PRESETS[name], **options))

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        layout: str | None = None,
        labels: Sequence[str] | None = None,
        output: str = "log_softmax",
        stats: str = "valid",
        emulate_length_rounding: bool = False,
    ) -> DeepSpeech2:
        """Load a checkpoint of any layout of the line; nothing in the file is executed.

        Args:
            path: a package or state_dict of deepspeech.pytorch 1.0 to 3.0 or of MLPerf v0.5 (zip or legacy
                format), or a Lightning checkpoint.
            layout: "v1.0", "v1.1" (1.1 and 1.2), "2018-03", "v2" (2.0 to 3.0) or "mlperf"; None to recognise
                it. Needed only for a bare state_dict that fits both v1.0 and v1.1.
            labels: in place of those in the file; needed if it has none and not 29 classes.
            output, stats, emulate_length_rounding: fields of :class:`DeepSpeech2Config`. The original returns
                "log_softmax" in v1.0 and mlperf, "softmax" in the others.

        Returns:
            The model in fp32 on the CPU, in eval mode.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is no checkpoint, or none of a known layout (the keys that do not fit are listed),
                or weights are NaN or infinite (the keys are listed), or layout or labels cannot be told.
        """
        container = read_checkpoint(path)
        try:
            config, state = parse_checkpoint(container, layout, labels)
            config = replace(
                config, output=output, stats=stats, emulate_length_rounding=emulate_length_rounding
            )
            model = outline(partial(cls, config), len(state))
            weights = fit_weights(state, model)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        return with_weights(model, weights)

    @property
    def n_features(self) -> int:
        """Features per frame of the input."""
        return self.config.n_freq

    @property
    def n_classes(self) -> int:
        """Classes of the output."""
        return len(self.config.labels)

    def output_length(self, frames: int) -> int:
        """How many frames of output ``frames`` frames of input make; 0 for too few."""
        return max(0, conv_length(frames, 1, self.config.conv_padding))

    @property
    def frame_geometry(self) -> FrameGeometry:
        """Where the output's frames are in the input."""
        return frame_geometry(self.conv.seq_module)

    def conv_stage(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Convolutions.

        Args:
            features, lengths: as in :meth:`forward`.

        Returns:
            x [T', N, rnn_input_size], zero beyond each output length, and the output lengths [N], int64.
        """
        x, lengths = check_conv_input(features, lengths, self.config.n_freq, self.config.conv_padding)
        if self.config.emulate_length_rounding:
            frames = x.shape[-1]
            lengths = ((lengths.double() / frames).float() * frames).long()
        return conv_frames(self.conv, x, lengths)

    def rnn_stage(self, x: Tensor, output_lengths: Lengths) -> Tensor:
        """Recurrent layers, and the lookahead if the model has one: x [T', N, rnn_input_size] → [T', N, H].

        output_lengths: integers [N]; the result is zero beyond them.
        """
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        for rnn in self.rnns:
            x, _ = rnn(x, output_lengths)
            x = self.dropout(x)
        if self.lookahead is not None:
            lookahead, clamp = self.lookahead
            x = clamp(lookahead(x, output_lengths))
        return x

    def fc_stage(self, x: Tensor, output_lengths: Lengths | None = None) -> Tensor:
        """Classifier: x [T', N, H] → [N, T', V], as :meth:`forward` returns it.

        output_lengths, integers [N] (None: all frames), matter to BatchNorm in training only.
        """
        output_lengths = as_lengths("output_lengths", output_lengths, *x.shape[1::-1])
        logits = self.fc[0](x, output_lengths).transpose(0, 1)
        if self.config.output == "softmax" and not self.training:
            return logits.softmax(-1)
        return logits.log_softmax(-1)

    def forward(self, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Run the model.

        Args:
            features: [N, 1, F, T] or [N, F, T], normalised log spectrograms, F being ``config.n_freq``.
            lengths: integers [N], valid frames of each row, at most T; in any order, on any device. What lies
                beyond them is not read.

        Returns:
            log-probabilities [N, T', V] (probabilities in eval mode if ``config.output`` is "softmax"), and
            the output lengths [N], int64. An utterance too short for the convolutions has output length zero;
            frames beyond a length hold no information.

        Raises:
            TypeError: features is no tensor, or lengths are not integers.
            ValueError: a shape, a dtype or a length does not fit.
        """
        x, output_lengths = self.conv_stage(features, lengths)
        return self.fc_stage(self.rnn_stage(x, output_lengths), output_lengths), output_lengths
