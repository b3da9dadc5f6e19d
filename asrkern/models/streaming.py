"""DeepSpeech2 over an utterance that arrives in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern.models._checks import check_spectrograms
from asrkern.models.conv_front_end import as_frames
from asrkern.models.deepspeech2 import DeepSpeech2
from asrkern.nn._recurrent import State
from asrkern.nn.mask_conv_stream import ConvState, MaskConvStream


class Latency(NamedTuple):
    """How long after the audio at its centre an output frame comes, in milliseconds.

    mean_ms, max_ms: the mean and the largest over all frames.
    """

    mean_ms: float
    max_ms: float


@dataclass
class StreamState:
    """Where one stream is; can be pickled and copied.

    Attributes:
        conv: frames of input that the convolutions still need.
        rnn: state of each recurrent layer; None before the first frame.
        lookahead: [frames, 1, H], output of the recurrent layers whose context is not complete.
        frames: how many output frames have been returned.
    """

    conv: ConvState
    rnn: tuple[State | None, ...]
    lookahead: Tensor | None = None
    frames: int = 0


class StreamingDeepSpeech2:
    """Runs a unidirectional :class:`DeepSpeech2` on utterances in chunks, each with a state of its own.

    The frames that :meth:`step` and :meth:`finish` return are together, on the CPU, bit for bit the model's for the whole
    utterance, however it is cut::

        stream = StreamingDeepSpeech2(model)
        state = stream.start()
        for chunk in features:
            decoder.step(decoder_state, stream.step(state, chunk))
        decoder.step(decoder_state, stream.finish(state))

    The normalisation of the input must not depend on later audio: see ``normalization`` of
    :class:`asrkern.data.Spectrogram`.

    Args:
        model: in eval mode. It may be quantised (:func:`asrkern.nn.quantize`).
        low_latency: frames come as soon as the convolutions' windows are there, without waiting for their tiles. They are
            the whole utterance's to within rounding, not to the bit: see :class:`asrkern.nn.MaskConvStream`.

    Raises:
        TypeError: the model is no DeepSpeech2.
        ValueError: it is bidirectional, in training mode, or has convolutions that cannot be cut.
    """

    def __init__(self, model: DeepSpeech2, *, low_latency: bool = False) -> None:
        if not isinstance(model, DeepSpeech2):
            raise TypeError(f"model: expected a DeepSpeech2, received {type(model).__name__}")
        if model.config.bidirectional:
            raise ValueError(
                "model: expected a unidirectional DeepSpeech2, received a bidirectional one, "
                "whose backward layers begin at the utterance's end"
            )
        self.model = model
        self._check_mode()
        self._conv = MaskConvStream(model.conv, low_latency=low_latency)

    @property
    def latency(self) -> Latency:
        """How far the output is behind the audio, by windows, tiles of the convolutions (unless of low latency) and
        lookahead.

        Time for computing, and for filling a chunk, comes on top. At the end of the utterance nothing is waited for.
        """
        config = self.model.config
        context = config.lookahead_context or 1
        start, period = 10 * self._conv.period, self._conv.period
        frames = [
            self._conv.frames_needed(frame + context - 1) - 1 - self._conv.centre(frame)
            for frame in range(start, start + period)
        ]
        half_window = config.window_size / 2
        mean, most = (f * config.window_stride + half_window for f in (sum(frames) / period, max(frames)))
        return Latency(1000 * mean, 1000 * most)

    def start(self) -> StreamState:
        """The state before an utterance.

        Raises:
            ValueError: the model is in training mode, or its convolutions are no longer those of a stream.
        """
        self._check_mode()
        return StreamState(self._conv.start(), (None,) * len(self.model.rnns))

    def step(self, state: StreamState, features: Tensor) -> Tensor:
        """Feed the next frames.

        Args:
            state: it goes on; if an error is raised, it stays as it is.
            features: [F, frames], F being the model's ``n_features``, any number of frames, none included.

        Returns:
            The model's output for the frames that are complete, [frames', V]; often there are none.

        Raises:
            TypeError: features is no tensor.
            ValueError: another shape or dtype, or the model is in training mode.
        """
        self._check_mode()
        if isinstance(features, Tensor) and features.dim() != 2:
            raise ValueError(
                f"features: expected [{self.model.n_features}, frames], received {list(features.shape)}"
            )
        x = check_spectrograms(
            features[None] if isinstance(features, Tensor) else features, self.model.n_features
        )
        output, following = self._advance(state, x, last=False)
        vars(state).update(vars(following))
        return output

    def finish(self, state: StreamState) -> Tensor:
        """The remaining frames of an utterance that ends here, [frames', V].

        Args:
            state: it stays as it is. So while audio still comes, this tells the rest of the output if it ended now, to
                within the rounding of the convolutions, without :attr:`latency`.
        """
        self._check_mode()
        parameter = next(self.model.parameters())
        nothing = parameter.new_empty(1, 1, self.model.n_features, 0)
        return self._advance(state, nothing, last=True)[0]

    def _check_mode(self) -> None:
        if self.model.training:
            raise ValueError("model: expected eval mode, received a model in training mode")

    @torch.no_grad()
    def _advance(self, state: StreamState, x: Tensor, *, last: bool) -> tuple[Tensor, StreamState]:
        x, conv = self._conv.step(state.conv, x, last=last)
        x = as_frames(x)
        rnn = state.rnn
        if len(x):
            following = []
            for layer, h in zip(self.model.rnns, rnn, strict=True):
                x, h = layer(x, None, h)
                following.append(h)
            rnn = tuple(following)
        else:
            x = x.new_empty(0, 1, self.model.config.hidden_size)
        x, lookahead = self._look_ahead(state.lookahead, x, last)
        if len(x):
            output = self.model.fc_stage(x)[0]
        else:
            output = x.new_empty(0, len(self.model.config.labels))
        return output, StreamState(conv, rnn, lookahead, state.frames + len(output))

    def _look_ahead(self, held: Tensor | None, x: Tensor, last: bool) -> tuple[Tensor, Tensor | None]:
        """The frames whose context is complete, [frames, 1, H], and the frames whose context is not."""
        if self.model.lookahead is None:
            return x, None
        lookahead: Any
        lookahead, clamp = self.model.lookahead
        x = x if held is None else torch.cat([held, x])
        complete = len(x) if last else max(0, len(x) - lookahead.context + 1)
        if not complete:
            return x[:0], x
        return clamp(lookahead(x)[:complete]), x[complete:].clone()
