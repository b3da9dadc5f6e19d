"""Tiny recognizers with random weights, whose outputs are no constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkern.models import build
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.saved import Recognizer, save
from asrkern.recognizer.text import TextNormalization
from asrkern.recognizer.tokenizer import CharacterTokenizer, TokenizerSettings, make_tokenizer
from tests.training.tones import RATE, tone

CLASSES = ("high", "low")
CTC_OPTIONS = {"n_mels": 12, "channels": [4], "hidden_size": 8, "num_layers": 1, "dnn_size": 16}
LAS_OPTIONS = {
    "num_tokens": 31,
    "n_features": 12,
    "conv_channels": [8],
    "hidden_size": 8,
    "rnn_layers": [1],
    "encoder_blocks": 0,
    "speller_size": 16,
    "speller_layers": 1,
    "embedding_size": 8,
    "attention_size": 8,
}
CLASSIFIER_OPTIONS = {"classes": 2, "n_freq": 81, "hidden_size": 8, "num_layers": 1, "fc_sizes": [8, 8]}


def lively(model: torch.nn.Module, scale: float = 4.0) -> torch.nn.Module:
    """With larger weights: then outputs differ from frame to frame and from utterance to utterance."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter.dim() > 1 else 1.0)
    return model.eval()


def make_recognizer(task: str, seed: int = 0, **changes: Any) -> Recognizer:
    """Of "ctc" (VGG-GRU), "attention" (LAS, HW4P2's form) or "classify" (convolutions and a GRU)."""
    torch.manual_seed(seed)
    info = {"recipe": {"metric": "cer", "data": {"label": "pitch"}}}
    if task == "classify":
        tokenizer = CharacterTokenizer(CLASSES, unit="class")
        name, options, features = "conv_rnn", CLASSIFIER_OPTIONS, FeatureSettings(sample_rate=RATE)
    else:
        tokenizer = make_tokenizer(TokenizerSettings(), task, [])
        name, options, kind = ("vgg_gru_ctc", CTC_OPTIONS, "log_mel")
        if task == "attention":
            name, options, kind = "las_hw4", LAS_OPTIONS, "mfcc"
        features = FeatureSettings(kind=kind, bins=12, sample_rate=RATE)
    options = {**options, **changes}
    model = lively(build(name, **options))
    return Recognizer(model, name, options, task, tokenizer, features, TextNormalization(), 0.1, info)


def make_deepspeech2(seed: int = 0, normalization: str = "running", **options: Any) -> Recognizer:
    """A unidirectional one with a lookahead, at 8 kHz."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(TokenizerSettings(), "ctc", [])
    known = {"labels": list(tokenizer.labels), "sample_rate": RATE, "hidden_size": 16, "num_layers": 2}
    options = {**known, "bidirectional": False, "lookahead_context": 4, **options}
    model = lively(build("deepspeech2_small", **options), 2.0)
    features = FeatureSettings(sample_rate=RATE, normalization=normalization)
    return Recognizer(model, "deepspeech2_small", options, "ctc", tokenizer, features, TextNormalization())


def speech(seconds: float, seed: int = 0) -> Tensor:
    """Tones one after another, [samples]."""
    draw = torch.Generator().manual_seed(seed)
    letters = "".join("ABCDE "[i] for i in torch.randint(6, (round(seconds * 10),), generator=draw))
    samples = torch.cat([torch.from_numpy(tone(letter, 0.1)).float() for letter in letters])
    return samples + 0.01 * torch.randn(len(samples), generator=draw)


@torch.no_grad()
def write_words(recognizer: Recognizer) -> None:
    """What the model writes most often becomes the space."""
    features = recognizer.features.make()(speech(5, seed=1))
    best = recognizer.model(features[None, None], torch.tensor([features.shape[1]]))[0][0].argmax(-1)
    labels = list(recognizer.tokenizer.labels)
    space, often = labels.index(" "), int(best[best > 0].mode()[0])
    labels[space], labels[often] = labels[often], labels[space]
    recognizer.tokenizer = CharacterTokenizer(tuple(labels), blank=0)


def write(folder: Path, recognizer: Recognizer) -> Path:
    """Saved as model.safetensors."""
    save(folder / "model.safetensors", recognizer)
    return folder / "model.safetensors"
