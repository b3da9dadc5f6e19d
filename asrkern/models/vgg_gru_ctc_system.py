"""The VGG-GRU CTC model as an entry of the registry."""

from __future__ import annotations

from functools import partial
from typing import Any

from asrkern.models.system import Features, Labels, System
from asrkern.models.vgg_gru_ctc import VGGGRUCTC


def _decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    return {"labels": list(tokenizer.labels), "n_mels": features.n_features}


VGG_GRU_CTC = System(
    title="VGG-GRU",
    task="ctc",
    names={"vgg_gru_ctc": VGGGRUCTC, "vgg_gru_ctc_original": partial(VGGGRUCTC.preset, "original")},
    options=VGGGRUCTC,
    decided=_decided,
)
