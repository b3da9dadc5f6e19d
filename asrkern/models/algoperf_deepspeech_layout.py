"""Weights of AlgoPerf's PyTorch DeepSpeech, by this package's keys and in its order of axes.

AlgoPerf's convolutions are over [N, C, T, F] and its linear layer's input is [F, C]; here they are over [N, C, F, T]
from the highest band down, and the input is [C, F]. AlgoPerf's normalisations multiply by 1 + their weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asrkern.models import weights

_KIND = "DeepSpeech (AlgoPerf)"
# The features' window and normalisation.
_FEATURES = "preprocessor."
_NORM = r"bn_normalization_layer\.(weight|bias|running_(mean|var))|normalization_layer\.(scale|bias)"
_KEY = re.compile(
    r"subsample\.(conv[12]\.(kernel|bias)|lin\.(weight|bias))"
    rf"|lstms\.(?P<lstm>\d+)\.({_NORM}|lstm\.(weight|bias)_(ih|hh)_l0(_reverse)?)"
    rf"|ffns\.(?P<ffn>\d+)\.({_NORM}|lin\.(weight|bias))"
    r"|ln\.(scale|bias)|lin\.(weight|bias)"
)
_ESSENTIAL = (
    "subsample.conv1.kernel",
    "subsample.conv2.kernel",
    "subsample.lin.weight",
    "lstms.0.lstm.weight_ih_l0",
    "ffns.0.lin.weight",
    "lin.weight",
    "lin.bias",
)
_SCALE = re.compile(r".*\bbn_normalization_layer\.weight|.*\.scale")
# The beginnings of the model's keys, and the file's for them where the model has BatchNorm.
_NAMES = {
    r"conv\.seq_module\.0\.weight": "subsample.conv1.kernel",
    r"conv\.seq_module\.2\.weight": "subsample.conv2.kernel",
    r"conv\.seq_module\.0\.": "subsample.conv1.",
    r"conv\.seq_module\.2\.": "subsample.conv2.",
    r"projection\.module\.0\.": "subsample.lin.",
    r"rnns\.(\d+)\.norm\.module\.": r"lstms.\1.bn_normalization_layer.",
    r"rnns\.(\d+)\.rnn\.": r"lstms.\1.lstm.",
    r"ffns\.(\d+)\.module\.0\.": r"ffns.\1.bn_normalization_layer.",
    r"ffns\.(\d+)\.module\.1\.": r"ffns.\1.lin.",
    r"fc\.module\.0\.weight": "ln.scale",
    r"fc\.module\.0\.": "ln.",
    r"fc\.module\.1\.": "lin.",
}


def parse_checkpoint(container: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint by the file's keys, without those of the features.

    Args:
        container: what :func:`asrkern.models.checkpoint.read_checkpoint` returns.

    Raises:
        ValueError: a key is missing or does not fit, or a value is no weight; the message lists them.
    """
    state = weights.find_state_dict(container, _KIND, ("model_params", "state_dict"))
    state = {key: value for key, value in state.items() if not key.startswith(_FEATURES)}
    weights.check_keys(state, _KIND, _KEY, _ESSENTIAL)
    weights.raise_misfits(
        _KIND,
        malformed=[
            f"{key}: expected {axes} axes, received {list(state[key].shape)}"
            for key, axes in zip(_ESSENTIAL, (4, 4, 2, 2, 2, 2, 1))
            if state[key].dim() != axes
        ],
    )
    return state


def options_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of :class:`asrkern.models.AlgoPerfDeepSpeech` that keys and shapes tell, except the labels."""
    hidden_size = state["lin.weight"].shape[1]
    matches: list[Any] = [_KEY.fullmatch(key) for key in state]
    bands = state["subsample.lin.weight"].shape[1] // max(1, hidden_size)
    return {
        "n_mels": 4 * bands,
        "hidden_size": hidden_size,
        "num_layers": len({match["lstm"] for match in matches} - {None}),
        "num_ffn_layers": len({match["ffn"] for match in matches} - {None}),
        "norm": "layer" if "lstms.0.normalization_layer.scale" in state else "batch",
        "final_layer_norm": "ln.scale" in state,
    }


def fit_weights(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights of :func:`parse_checkpoint` by the model's keys.

    Raises:
        ValueError: as :func:`asrkern.models.weights.fit_weights`.
    """
    layer_norm = "lstms.0.normalization_layer.scale" in state
    return weights.fit_weights(
        {key: _converted(key, value, model) for key, value in state.items()},
        model,
        _KIND,
        lambda key: _file_key(key, layer_norm),
    )


def _converted(key: str, value: Tensor, model: Any) -> Tensor:
    """A weight in the model's order of axes."""
    if _SCALE.fullmatch(key):
        return 1 + value.float()  # A half has fewer places at 1 than near 0.
    if key.endswith("kernel"):
        return value.transpose(2, 3).flip(2)
    bands = -(-model.n_mels // 4)
    if key == "subsample.lin.weight" and value.shape[1] == bands * model.hidden_size:
        return value.unflatten(1, (bands, -1)).flip(1).transpose(1, 2).flatten(1)
    return value


def _file_key(key: str, layer_norm: bool) -> str:
    """The file's name of a model's key."""
    beginning, name = next((pattern, name) for pattern, name in _NAMES.items() if re.match(pattern, key))
    key = re.sub(beginning, name, key, count=1)
    if layer_norm:
        key = key.replace("bn_normalization_layer.weight", "normalization_layer.scale").replace("bn_", "")
    return key
