"""Spectrograms of audio that arrives in chunks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from asrkern.data.features import Spectrogram, check_samples


@dataclass
class SpectrogramState:
    """Where one stream is; can be pickled and copied.

    Attributes:
        samples: [any number], from the first sample of the next frame on, with those reflected before the start; before
            the first frame is possible, all samples so far.
        last_samples: the latest samples, half a window and one more, which are reflected at the end.
        started: whether the start has been reflected.
        sums: of the normalisation, see :meth:`Spectrogram.normalised_after`.
    """

    samples: Tensor = field(default_factory=lambda: torch.empty(0))
    last_samples: Tensor = field(default_factory=lambda: torch.empty(0))
    started: bool = False
    sums: Tensor | None = None


class SpectrogramStream:
    """A :class:`Spectrogram` of one stream after another, each with a state of its own.

    The frames that :meth:`step` and :meth:`finish` return are together bit for bit those of the whole signal, however
    it is cut. A frame is returned once the last sample of its window is there: half a window after its centre.

    Args:
        spectrogram: with a normalization other than "utterance".

    Raises:
        TypeError: another transform.
        ValueError: it normalises by whole utterances.
    """

    def __init__(self, spectrogram: Spectrogram) -> None:
        if not isinstance(spectrogram, Spectrogram):
            raise TypeError(f"spectrogram: expected a Spectrogram, received {type(spectrogram).__name__}")
        # Raises for what cannot be streamed.
        spectrogram.normalised_after(None, torch.zeros(spectrogram.bins, 1))
        self.spectrogram = spectrogram

    def start(self) -> SpectrogramState:
        """The state before the first sample."""
        return SpectrogramState()

    def step(self, state: SpectrogramState, samples: Tensor) -> Tensor:
        """Feed the next samples.

        Args:
            state: it goes on; if an error is raised, it stays as it is.
            samples: [samples], floating point at the spectrogram's rate, any number.

        Returns:
            [bins, frames] float32, the frames that are complete, perhaps none.

        Raises:
            ValueError: samples of another shape or dtype.
        """
        check_samples(samples)
        features, following = self._advance(state, samples.float(), last=False)
        vars(state).update(vars(following))
        return features

    def finish(self, state: SpectrogramState) -> Tensor:
        """The remaining frames of a signal that ends here, [bins, frames] float32.

        Args:
            state: it stays as it is. If it has half a window of signal or less, which Spectrogram refuses, there are no
                frames.
        """
        return self._advance(state, torch.empty(0), last=True)[0]

    def _advance(
        self, state: SpectrogramState, samples: Tensor, *, last: bool
    ) -> tuple[Tensor, SpectrogramState]:
        n_fft, hop = self.spectrogram.n_fft, self.spectrogram.hop_samples
        half = n_fft // 2
        latest = torch.cat([state.last_samples, samples])[-half - 1 :]
        samples = torch.cat([state.samples, samples])
        started = state.started or len(samples) > half
        if started and not state.started:
            samples = torch.cat([samples[1 : half + 1].flip(0), samples])
        if started and last:
            samples = torch.cat([samples, latest[:-1].flip(0)])
        frames = max(0, (len(samples) - n_fft) // hop + 1) if started else 0
        sums = state.sums
        if frames:
            window = samples[: (frames - 1) * hop + n_fft]
            features, sums = self.spectrogram.normalised_after(
                sums, self.spectrogram.spectrum(window, reflect=False)
            )
        else:
            features = torch.empty(self.spectrogram.bins, 0)
        # Copies: views would keep all of the chunk in memory.
        return features, SpectrogramState(samples[frames * hop :].clone(), latest.clone(), started, sums)
