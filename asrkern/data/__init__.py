"""From files to model input: audio, where speech is in it, spectrograms, manifests."""

from asrkern.data.audio import load_audio
from asrkern.data.fbank import Fbank
from asrkern.data.feature_stream import SpectrogramState, SpectrogramStream
from asrkern.data.features import MFCC, LogMelSpectrogram, Spectrogram, collate
from asrkern.data.manifest import read_manifest
from asrkern.data.resampling import Resampler, resample
from asrkern.data.segmentation import Segment, speech_segments
from asrkern.data.stream import read_stream
from asrkern.data.utterance import Utterance, load_features
from asrkern.data.voice_activity import Detector, EnergyDetector, SileroDetector, make_detector

__all__ = [
    "MFCC",
    "Detector",
    "EnergyDetector",
    "Fbank",
    "LogMelSpectrogram",
    "Resampler",
    "Segment",
    "SileroDetector",
    "Spectrogram",
    "SpectrogramState",
    "SpectrogramStream",
    "Utterance",
    "collate",
    "load_audio",
    "load_features",
    "make_detector",
    "read_manifest",
    "read_stream",
    "resample",
    "speech_segments",
]
