"""Each lineage's form, at reduced width, learns eight utterances of real speech by heart."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from asrkern.data import MFCC, LogMelSpectrogram, collate, load_audio, read_manifest
from asrkern.models import LAS
from asrkern.models.las_config import HW4_LABELS
from tests.metrics import character_error_rate

FORMS = {
    "hw4": {
        "conv_channels": (32, 64, 64),
        "hidden_size": 32,
        "speller_size": 128,
        "embedding_size": 64,
        "attention_size": 64,
        "dropout": 0.1,
    },
    "kospeech": {
        "n_features": 80,
        "conv_channels": (8, 8, 16, 16, 16),
        "hidden_size": 48,
        "num_tokens": 31,
        "sos_token": 28,
        "eos_token": 29,
        "pad_token": 30,
        "dropout": 0.1,
    },
}


@pytest.mark.parametrize("preset", FORMS)
def test_eight_utterances_of_speech_are_learned(preset: str, data_dir) -> None:
    """CER 0 when the model is fed its own choices; the lengths differ, since each clip ends after its last word."""
    torch.manual_seed(1)
    utterances = read_manifest(data_dir / "grid" / "dev.jsonl")[::12][:8]
    extract = MFCC() if preset == "hw4" else LogMelSpectrogram(80)
    features, lengths = collate(
        [extract(load_audio(u.audio_path)[: int(16000 * u.extra["words"][-1][2])]) for u in utterances]
    )
    assert len(set(lengths.tolist())) > 4
    texts = [u.text.upper() for u in utterances]
    assert len(set(texts)) == 8
    # KoSpeech's special tokens are the last ones.
    characters = HW4_LABELS if preset == "hw4" else HW4_LABELS[3:]
    rows = [torch.tensor([characters.index(c) for c in text]) for text in texts]
    targets, target_lengths = (
        nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.tensor(list(map(len, rows))),
    )

    model = LAS.preset(preset, **FORMS[preset])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    begin, rate = time.monotonic(), None
    for step in range(1, 401):
        model.train()
        output = model(features, lengths, targets, target_lengths)
        optimizer.zero_grad()
        model.loss(output.logits, targets, target_lengths).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            found = model.eval().greedy(features, lengths, max_length=60)
            spelled = [
                "".join(characters[t] if t < len(characters) else "?" for t in h.tokens) for h in found
            ]
            rate = character_error_rate(spelled, texts)
            if rate == 0:
                break
    assert rate == 0, f"CER {rate:.3f} after {step} steps, {time.monotonic() - begin:.0f} s"
    assert all(h.ended for h in found)
