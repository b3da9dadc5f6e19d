"""A trained model and what is done with it: read, transcribe, stream. Needs the extra ``recognizer``.

``saved``           a trained model in one file: safetensors with everything else as JSON in its header
``onnx_model``      CTC models in ONNX files
``tokenizer``       transcripts to indices and back: characters, class labels, sentencepiece
``feature_settings``  which features; recorded in the file
``text``            transcripts made uniform; recorded in the file
``tasks``           loss and transcripts of CTC models, attention models and classifiers
``transcription``   texts, words with times, classes; long recordings cut at pauses, or in windows
``stream_transcription``  the same while audio comes in
``alignment``       times of the words of a given text
``subtitles``, ``word_times``  words with times as SubRip, WebVTT, CTM, TextGrid
``transcript_forms``  each form that a transcript is written in
``conversion``      checkpoints of other projects as asrkern's

Nothing here needs Lightning or lhotse; :mod:`asrkern.training` is built on it.
"""

# ruff: noqa: E402
from asrkern._optional import needs

# Before the modules below import its packages: then the message says what to install.
needs("recognizer")

from asrkern.recognizer.alignment import align, estimate_log_priors
from asrkern.recognizer.conversion import convert
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer, load, save
from asrkern.recognizer.stream_transcription import Heard, StreamTranscriber
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer, SentencePieceTokenizer
from asrkern.recognizer.transcription import SpokenSegment, SpokenWord, Transcriber, Transcript

__all__ = [
    "CharacterTokenizer",
    "FeatureSettings",
    "Heard",
    "Recognizer",
    "SentencePieceTokenizer",
    "SpokenSegment",
    "SpokenWord",
    "StreamTranscriber",
    "TextNormalization",
    "Transcriber",
    "Transcript",
    "align",
    "convert",
    "estimate_log_priors",
    "load",
    "save",
]
