"""AlgoPerf's DeepSpeech as an entry of the registry."""

from __future__ import annotations

from functools import partial
from typing import Any

from asrkern.models.algoperf_deepspeech import AlgoPerfDeepSpeech
from asrkern.models.system import Features, Labels, System


def _decided(tokenizer: Labels, features: Features) -> dict[str, Any]:
    return {"labels": list(tokenizer.labels), "n_mels": features.n_features}


ALGOPERF_DEEPSPEECH = System(
    title="AlgoPerf's DeepSpeech",
    task="ctc",
    names={
        "deepspeech2_algoperf": AlgoPerfDeepSpeech,
        "deepspeech2_algoperf_tanh": partial(AlgoPerfDeepSpeech.preset, "tanh"),
        "deepspeech2_algoperf_no_resnet": partial(AlgoPerfDeepSpeech.preset, "no_resnet"),
        "deepspeech2_algoperf_norm_and_spec_aug": partial(AlgoPerfDeepSpeech.preset, "norm_and_spec_aug"),
    },
    options=AlgoPerfDeepSpeech,
    decided=_decided,
)
