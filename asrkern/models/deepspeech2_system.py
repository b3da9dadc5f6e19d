"""DeepSpeech2 as an entry of the registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from asrkern._names import nearest
from asrkern.models.deepspeech2 import DeepSpeech2
from asrkern.models.deepspeech2_config import DeepSpeech2Config
from asrkern.models.streaming import StreamingDeepSpeech2
from asrkern.models.system import Converted, Features, Labels, System


def _decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    decided = {"labels": list(tokenizer.labels), "window_stride": features.hop_seconds}
    if features.kind != "spectrogram":
        return {**decided, "bins": features.n_features}
    return {
        **decided,
        "sample_rate": features.sample_rate,
        "window_size": features.window,
        "window_periodic": features.periodic,
    }


def _convert(
    path: str | os.PathLike[str], labels: Sequence[str] | None, options: dict[str, Any]
) -> Converted:
    known = ("layout", "emulate_length_rounding")
    for name in options:
        if name not in known:
            raise TypeError(f"options: DeepSpeech2 has no {name!r}, expected {nearest(name, known)}")
    model = DeepSpeech2.from_checkpoint(path, labels=labels, **options)
    config = model.config
    if config.window != "hamming":
        raise ValueError(
            f"{os.fspath(path)}: window: expected 'hamming', the one that asrkern computes, received {config.window!r}"
        )
    features = {
        "sample_rate": config.sample_rate,
        "window_seconds": config.window_size,
        "hop_seconds": config.window_stride,
        "periodic": config.window_periodic,
    }
    blank = config.labels.index("_") if "_" in config.labels else 0
    return Converted(model, "deepspeech2", asdict(config), features, config.labels, special={"blank": blank})


DEEPSPEECH2 = System(
    title="DeepSpeech2",
    task="ctc",
    names={
        "deepspeech2": partial(DeepSpeech2.preset, "v3"),
        "deepspeech2_mlperf": partial(DeepSpeech2.preset, "mlperf"),
        "deepspeech2_paper": partial(DeepSpeech2.preset, "paper"),
        "deepspeech2_small": partial(DeepSpeech2.preset, "small"),
    },
    options=DeepSpeech2Config,
    decided=_decided,
    sign="rnns.0.rnn.weight_ih_l0",
    convert=_convert,
    stream=StreamingDeepSpeech2,
)
