"""Listen-Attend-Spell as an entry of the registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from asrkern._names import nearest
from asrkern.models.las import LAS
from asrkern.models.las_config import HW4_LABELS, LASConfig
from asrkern.models.system import Converted, Features, Labels, System

# A transcript ends here at the latest: nobody speaks 25 characters a second (Korean: 10 syllables).
_TOKENS_PER_FRAME = 0.25


def _decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    special = {"pad_token": tokenizer.pad, "sos_token": tokenizer.sos, "eos_token": tokenizer.eos}
    return {"num_tokens": tokenizer.size, "n_features": features.n_features, **special}


def _convert(
    path: str | os.PathLike[str], labels: Sequence[str] | None, options: dict[str, Any]
) -> Converted:
    known = LASConfig.__dataclass_fields__
    for name in options:
        if name not in known:
            raise TypeError(f"options: LAS has no {name!r}, expected {nearest(name, known)}")
    model = LAS.from_checkpoint(path, **options)
    config = model.config
    hw4 = config.speller == "lstm_cells"
    if labels is None and hw4 and config.num_tokens == len(HW4_LABELS):
        labels = HW4_LABELS
    if hw4:
        name = "las_hw4_mobile" if config.listener == "mobile" else "las_hw4"
    else:
        name = "las_kospeech"
    return Converted(
        model,
        name,
        asdict(config),
        {"kind": "mfcc" if hw4 else "log_mel", "bins": config.n_features},
        labels,
        "start, end and padding among them",
        {"pad": config.pad_token, "sos": config.sos_token, "eos": config.eos_token},
        _TOKENS_PER_FRAME,
    )


LISTEN_ATTEND_SPELL = System(
    title="Listen-Attend-Spell",
    task="attention",
    names={
        "las_hw4": partial(LAS.preset, "hw4"),
        "las_hw4_mobile": partial(LAS.preset, "hw4_mobile"),
        "las_kospeech": partial(LAS.preset, "kospeech"),
    },
    options=LASConfig,
    decided=_decided,
    sign="speller.embedding.weight",
    convert=_convert,
)
