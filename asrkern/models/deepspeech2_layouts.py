"""Recognise a DeepSpeech2 checkpoint by its keys and shapes, and fit its weights into the model.

The keys here are those of deepspeech.pytorch 2.0 to 3.0. Its earlier versions and MLPerf's copy differ:

=======  ================  =======================  ====  =============  =======================
layout   conv keys         conv padding             bias  BatchNorm      lookahead
=======  ================  =======================  ====  =============  =======================
v1.0     conv.N            none                     no    before 1, 2 …  none
v1.1     conv.N            10 frames, in the first  no    before 1, 2 …  lookahead.0.weight
2018-03  conv.seq_module   (20, 5), (10, 5)         no    before 1, 2 …  lookahead.0.weight
v2       conv.seq_module   (20, 5), (10, 5)         yes   before 1, 2 …  lookahead.0.conv.weight
mlperf   conv.N            none                     yes   none           none
=======  ================  =======================  ====  =============  =======================

(bias and BatchNorm: of and before the recurrent layers. Only unidirectional models have a lookahead.) Shapes decide
about everything that they can tell. Without a lookahead they cannot tell v1.0 from v1.1 (1.1 and 1.2). Then the
container's ``bidirectional`` entry does, which came with the lookahead.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from asrkern.models import weights
from asrkern.models.checkpoint import plain
from asrkern.models.conv_front_end import NO_PADDING, SAME_PADDING
from asrkern.models.deepspeech2_config import LABELS, DeepSpeech2Config

CONV_PADDING = {
    "v1.0": NO_PADDING,
    "v1.1": ((0, 10), (0, 0)),
    "2018-03": SAME_PADDING,
    "v2": SAME_PADDING,
    "mlperf": NO_PADDING,
}

_KIND = "DeepSpeech2"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_KEY = re.compile(
    rf"conv\.(seq_module\.)?([03]\.(weight|bias)|[14]\.{_NORM})"
    r"|rnns\.(?P<layer>\d+)\.rnn\.(weight|bias)_(ih|hh)_l0(_reverse)?"
    rf"|rnns\.\d+\.batch_norm\.module\.{_NORM}"
    r"|lookahead\.0\.(conv\.)?weight"
    rf"|fc\.0\.module\.(0\.{_NORM}|1\.weight)"
)
# Early versions write it although the first layer has no BatchNorm, and drop it on loading.
_STRAY = "rnns.0.batch_norm.module."
_WINDOW_LOOKAHEAD = "lookahead.0.weight"  # (H, context), a convolution's weight without its middle axis


def parse_checkpoint(
    container: Mapping[Any, Any], layout: str | None = None, labels: Sequence[str] | None = None
) -> tuple[DeepSpeech2Config, dict[str, Tensor]]:
    """The model that a checkpoint describes, and its weights by the file's keys.

    Args:
        container: what :func:`asrkern.models.checkpoint.read_checkpoint` returns: a package of
            deepspeech.pytorch, a Lightning checkpoint or a state_dict; DataParallel's ``module.`` may stand
            before the keys.
        layout: a key of :data:`CONV_PADDING`, for those that cannot be told apart; None to recognise it.
        labels: in place of those in the file.

    Raises:
        ValueError: no DeepSpeech2 layout fits (the message lists the keys), the layout is ambiguous, or
            metadata contradict the weights.
    """
    if layout is not None and layout not in CONV_PADDING:
        raise ValueError(f"layout: expected one of {tuple(CONV_PADDING)}, received {layout!r}")
    state = _state_dict(container)
    config_from_keys = _config_from_keys(state)
    layout = layout or _recognise(state, container, config_from_keys)
    state = {key: value for key, value in state.items() if not key.startswith(_STRAY)}
    metadata = _metadata(container)
    said = metadata.get("bidirectional")
    if said is not None and not isinstance(said, bool):
        raise ValueError(f"bidirectional: expected true or false, received {_shown(said)}")
    if said is not None and said != config_from_keys["bidirectional"]:
        raise ValueError(f"bidirectional: the file says {said}, its weights say {not said}")
    config = DeepSpeech2Config(
        labels=_labels(metadata, state["fc.0.module.1.weight"].shape[0], labels),
        conv_padding=CONV_PADDING[layout],
        # Up to version 2 the window is scipy.signal.hamming itself; their packages hold labels.
        window_periodic=layout == "v2" and "labels" not in container,
        **config_from_keys,
        **_audio(metadata),
    )
    return config, state


def fit_weights(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights of :func:`parse_checkpoint` by the model's keys.

    Raises:
        ValueError: as :func:`asrkern.models.weights.fit_weights`.
    """
    if _WINDOW_LOOKAHEAD in state:
        state = {**state, _WINDOW_LOOKAHEAD: state[_WINDOW_LOOKAHEAD].unsqueeze(1)}
    return weights.fit_weights(state, model, _KIND, lambda key: _file_key(key, state))


def _state_dict(container: Mapping[Any, Any]) -> dict[str, Tensor]:
    state = weights.find_state_dict(container, _KIND)
    wrapper = "seq_module." if any(key.startswith("conv.seq_module.") for key in state) else ""
    essential = (
        f"conv.{wrapper}0.weight",
        "rnns.0.rnn.weight_ih_l0",
        "rnns.0.rnn.weight_hh_l0",
        "fc.0.module.1.weight",
    )
    weights.check_keys(state, _KIND, _KEY, essential)
    return state


def _config_from_keys(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of DeepSpeech2Config that keys and shapes tell."""
    recurrent = state["rnns.0.rnn.weight_hh_l0"]
    rnn_types = {3: "gru", 4: "lstm"}
    hidden_size = recurrent.shape[1] if recurrent.dim() == 2 else 0
    gates = recurrent.shape[0] // hidden_size if hidden_size else 0
    if gates not in rnn_types or gates * hidden_size != recurrent.shape[0]:
        shape = list(recurrent.shape)
        expected = "expected [3·H, H] (GRU) or [4·H, H] (LSTM)"
        weights.raise_misfits(_KIND, malformed=[f"rnns.0.rnn.weight_hh_l0: {expected}, received {shape}"])
    matches = (_KEY.fullmatch(key) for key in state)
    layers = {match["layer"] for match in matches if match and match["layer"]}
    lookahead = [value for key, value in state.items() if key.startswith("lookahead.")]
    return {
        "hidden_size": hidden_size,
        "num_layers": len(layers),
        "rnn_type": rnn_types[gates],
        "bidirectional": "rnns.0.rnn.weight_hh_l0_reverse" in state,
        "bias": "rnns.0.rnn.bias_ih_l0" in state,
        "batch_norm_between": "rnns.1.batch_norm.module.weight" in state,
        "lookahead_context": lookahead[0].shape[-1] if lookahead else None,
    }


def _recognise(state: Mapping[str, Tensor], container: Mapping[Any, Any], config: Mapping[str, Any]) -> str:
    if "conv.seq_module.0.weight" in state:
        return "v2" if config["bias"] else "2018-03"
    if config["bias"] or (config["num_layers"] > 1 and not config["batch_norm_between"]):
        return "mlperf"
    if _WINDOW_LOOKAHEAD in state or "bidirectional" in container:
        return "v1.1"
    if "state_dict" in container:
        return "v1.0"
    raise ValueError(
        'layout: these keys fit "v1.0" and "v1.1" (1.1 and 1.2) alike, which pad differently; say which it is'
    )


def _file_key(key: str, state: Mapping[str, Tensor]) -> str:
    """The name of a present key in a file of an earlier layout."""
    if key.startswith("conv.seq_module.") and "conv.seq_module.0.weight" not in state:
        return key.replace("conv.seq_module.", "conv.", 1)
    if key == "lookahead.0.conv.weight" and _WINDOW_LOOKAHEAD in state:
        return _WINDOW_LOOKAHEAD
    return key


def _metadata(container: Mapping[Any, Any]) -> dict[str, Any]:
    """labels, audio_conf and bidirectional, from the package itself or from Lightning's hyper_parameters."""
    hyper = plain(container.get("hyper_parameters"))
    if hyper is not None and not isinstance(hyper, dict):
        raise ValueError(f"hyper_parameters: expected a dictionary, received {_shown(hyper)}")
    hyper = hyper or {}
    audio = hyper.get("spect_cfg", hyper.get("audio_conf"))
    found = {"labels": hyper.get("labels"), "audio_conf": audio}
    if "state_dict" in container:
        found.update(
            (key, plain(container[key]))
            for key in ("labels", "audio_conf", "bidirectional")
            if key in container
        )
    return found


def _labels(metadata: Mapping[str, Any], classes: int, given: Sequence[str] | None) -> Sequence[str]:
    labels = metadata["labels"] if given is None else given
    if labels is None:
        if classes != len(LABELS):
            raise ValueError(f"labels: the file has none for its {classes} classes; pass labels")
        labels = LABELS
    if not isinstance(labels, str | list | tuple) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels: expected a list of strings, received {_shown(labels)}")
    if len(labels) != classes:
        raise ValueError(
            f"labels: expected {classes}, one per row of fc.0.module.1.weight, received {len(labels)}"
        )
    return labels


def _audio(metadata: Mapping[str, Any]) -> dict[str, Any]:
    audio = metadata["audio_conf"]
    if audio is not None and not isinstance(audio, dict):
        raise ValueError(f"audio_conf: expected a dictionary, received {_shown(audio)}")
    found = {name: value for name, value in (audio or {}).items() if name in _AUDIO and value is not None}
    for name, value in found.items():
        kinds, expected = _AUDIO[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"audio_conf.{name}: expected {expected}, received {_shown(value)}")
    return found


_AUDIO: dict[str, tuple[Any, str]] = {
    "sample_rate": (int, "an integer in Hz"),
    "window_size": (int | float, "a number of seconds"),
    "window_stride": (int | float, "a number of seconds"),
    "window": (str, "a name"),
}


def _shown(value: Any) -> str:
    """A value of unknown origin for messages: the outermost of nested lists, the beginning of long texts."""
    return (
        f"{type(value).__name__} {reprlib.repr(value)}"
        if isinstance(value, str | float)
        else type(value).__name__
    )
