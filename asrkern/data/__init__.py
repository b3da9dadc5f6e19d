"""From files to model input: audio, spectrograms, manifests."""

from asrkern.data.audio import load_audio
from asrkern.data.fbank import Fbank
from asrkern.data.feature_stream import SpectrogramState, SpectrogramStream
from asrkern.data.features import MFCC, LogMelSpectrogram, Spectrogram, collate
from asrkern.data.manifest import read_manifest
from asrkern.data.resampling import Resampler, resample
from asrkern.data.stream import read_stream
from asrkern.data.utterance import Utterance, load_features

__all__ = [
    "MFCC",
    "Fbank",
    "LogMelSpectrogram",
    "Resampler",
    "Spectrogram",
    "SpectrogramState",
    "SpectrogramStream",
    "Utterance",
    "collate",
    "load_audio",
    "load_features",
    "read_manifest",
    "read_stream",
    "resample",
]
