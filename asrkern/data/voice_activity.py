"""Where somebody speaks: detectors that give each frame of a recording a probability of speech."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F

from asrkern._optional import folder_of, require

DETECTORS = ("auto", "silero", "energy")

_FRAME_SECONDS = 0.032


class Detector(Protocol):
    """What says how likely speech is, frame after frame. Several recordings may be heard by one detector in turns.

    Attributes:
        sample_rate: in Hz.
        frame_samples: length of a frame.
    """

    sample_rate: int
    frame_samples: int

    def start(self) -> Any:
        """The state of a new recording."""
        ...

    def step(self, state: Any, frames: Tensor) -> Tensor:
        """Probabilities [n] of the next frames [n, frame_samples] float32 of a recording, whose state goes on."""
        ...


def make_detector(name: str, sample_rate: int) -> Detector:
    """A detector by its name.

    Args:
        name: "silero", "energy", or "auto": silero where its packages are installed.
        sample_rate: of the recordings, in Hz.

    Raises:
        ValueError: another name.
        ImportError: silero without the packages of the extra ``vad``.
    """
    if name not in DETECTORS:
        raise ValueError(f"vad: expected one of {', '.join(DETECTORS)}, received {name!r}")
    if name == "auto":
        there = all(importlib.util.find_spec(package) for package in ("silero_vad", "onnxruntime"))
        name = "silero" if there else "energy"
    return SileroDetector(sample_rate) if name == "silero" else EnergyDetector(sample_rate)


@dataclass
class _Heard:
    """What Silero's network remembers: its state, and the last samples of the frame before."""

    hidden: numpy.ndarray = field(default_factory=lambda: numpy.zeros((1, 1, 128), numpy.float32))
    cell: numpy.ndarray = field(default_factory=lambda: numpy.zeros((1, 1, 128), numpy.float32))
    context: numpy.ndarray = field(default_factory=lambda: numpy.zeros((1, 64), numpy.float32))


class SileroDetector:
    """The network of the package silero-vad, in ONNX Runtime.

    The package itself is not imported: that would set torch to one thread. Other rates than its 16 kHz are interpolated.

    Args:
        sample_rate: in Hz.

    Raises:
        ImportError: the packages of the extra ``vad`` are not installed.
    """

    _FRAME = 512

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.frame_samples = round(_FRAME_SECONDS * sample_rate)
        # It is read when somebody listens: most recordings are short.
        for package in ("silero_vad", "onnxruntime"):
            folder_of(package, "vad")

    def start(self) -> _Heard:
        """The state of a new recording."""
        return _Heard()

    def step(self, state: _Heard, frames: Tensor) -> Tensor:
        """Probabilities [n] of the next frames [n, frame_samples]; ``state`` goes on."""
        if not len(frames):
            return frames.new_empty(0)
        if frames.shape[1] != self._FRAME:
            signal = F.interpolate(frames.reshape(1, 1, -1), len(frames) * self._FRAME, mode="linear")
            frames = signal.reshape(-1, self._FRAME)
        array = frames.numpy()
        size = state.context.shape[1]
        before = numpy.concatenate([state.context, array[:-1, -size:]])
        names = ["speech_probs", "hn", "cn"]
        given = {"input": numpy.concatenate([before, array], 1), "h": state.hidden, "c": state.cell}
        probabilities, state.hidden, state.cell = _silero().run(names, given)
        state.context = array[-1:, -size:].copy()
        return torch.from_numpy(probabilities.reshape(-1))


@cache
def _silero() -> Any:
    folder, runtime = folder_of("silero_vad", "vad"), require("onnxruntime", "vad")
    options = runtime.SessionOptions()
    # Its steps are too small for several threads.
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    model = folder / "data" / "silero_vad_16k_sequence.onnx"
    return runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class EnergyDetector:
    """Speech is what is clearly louder than the quietest moment of the last ten seconds.

    By how much, 6 to 12 dB, follows from how far apart loud and quiet are in these. Other sounds are taken for speech,
    too: what is left out are pauses.

    Args:
        sample_rate: in Hz.
    """

    # As if it had been so quiet before a recording, which may begin with speech; what is quieter is equally quiet.
    _BEFORE_DB, _LEAST_DB = -60.0, -70.0
    _LOUDER_DB, _SHARE = (6.0, 12.0), 0.4
    _FRAMES = round(10 / _FRAME_SECONDS)

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.frame_samples = round(_FRAME_SECONDS * sample_rate)

    def start(self) -> list[Tensor]:
        """The state of a new recording: the levels of the last ten seconds."""
        return [torch.full((self._FRAMES - 1,), self._BEFORE_DB)]

    def step(self, state: list[Tensor], frames: Tensor) -> Tensor:
        """Probabilities [n] of the next frames [n, frame_samples]; ``state`` goes on."""
        if not len(frames):
            return frames.new_empty(0)
        found = 10 * frames.square().mean(1).log10()
        levels = torch.cat([state[0], found.clamp(min=self._LEAST_DB)])
        state[0] = levels[len(frames) :]
        quiet, loud = (sign * F.max_pool1d(sign * levels[None], self._FRAMES, 1)[0] for sign in (-1, 1))
        louder = (self._SHARE * (loud - quiet)).clamp(*self._LOUDER_DB)
        # Not so steep that loud frames could not be told apart.
        return ((levels[self._FRAMES - 1 :] - quiet - louder) / self._LOUDER_DB[0]).sigmoid()
