"""From the weights in a checkpoint to a model's, with every misfit named by the file's own keys.

``kind`` is what the messages call the model that the file should hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from asrkern.models.checkpoint import Inert

Model = TypeVar("Model", bound=nn.Module)


def raise_misfits(
    kind: str, *, missing: Sequence[Any] = (), unexpected: Sequence[Any] = (), malformed: Sequence[str] = ()
) -> None:
    """Raise ValueError with all of these, if there are any."""
    lists = {"missing keys": missing, "keys that do not fit": unexpected, "wrong values": malformed}
    found = [f"{name}: {', '.join(map(str, keys))}" for name, keys in lists.items() if keys]
    if found:
        raise ValueError(f"not a {kind} checkpoint of a known layout; " + "; ".join(found))


def find_state_dict(
    container: Mapping[Any, Any], kind: str, wrappers: Sequence[str] = ("state_dict",)
) -> dict[str, Any]:
    """The weights of a container, without DataParallel's ``module.`` before the keys.

    Args:
        container: what :func:`asrkern.models.checkpoint.read_checkpoint` returns.
        wrappers: keys that may hold the weights; without any of them the container is the weights.

    Raises:
        ValueError: what is there is no dictionary by strings.
    """
    wrapper = next((key for key in wrappers if key in container), None)
    state = container if wrapper is None else container[wrapper]
    if not isinstance(state, dict) or isinstance(state, Inert):
        raise ValueError(f"{wrapper}: expected a dictionary, received {type(state).__name__}")
    raise_misfits(kind, unexpected=[key for key in state if not isinstance(key, str)])
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def check_keys(
    state: Mapping[str, Any], kind: str, pattern: re.Pattern[str], essential: Iterable[str]
) -> None:
    """Raise ValueError unless all keys match, all values are weights, and the essential keys are there."""
    raise_misfits(
        kind,
        missing=[key for key in essential if key not in state],
        unexpected=[key for key in state if not pattern.fullmatch(key)],
        malformed=[
            f"{key}: expected a weight, received {_describe(value)}"
            for key, value in state.items()
            if pattern.fullmatch(key) and not _is_weight(key, value)
        ],
    )


def fit_weights(
    state: Mapping[str, Tensor], model: nn.Module, kind: str, file_key: Callable[[str], str] = str
) -> dict[str, Tensor]:
    """The weights of a file by the model's keys.

    Args:
        state: weights by the file's keys, each a weight (see :func:`check_keys`).
        model: may be on the meta device.
        file_key: the file's name of a model's key.

    Raises:
        ValueError: a key is missing or unexpected, a shape differs, or a weight is NaN or infinite; the
            message lists them all.
    """
    weights, missing, shapes = {}, [], []
    places = {file_key(key): (key, value.shape) for key, value in model.state_dict().items()}
    for name, (key, shape) in places.items():
        if name not in state:
            # Files of torch < 0.4.1 have no counters.
            missing += [] if key.endswith("num_batches_tracked") else [name]
            continue
        weights[key] = state[name]
        if weights[key].shape != shape:
            shapes.append(f"{name}: expected {list(shape)}, received {list(weights[key].shape)}")
    unexpected = [name for name in state if name not in places]
    raise_misfits(kind, missing=missing, unexpected=unexpected, malformed=shapes)
    broken = [name for name in places if name in state and not state[name].isfinite().all()]
    if broken:
        raise ValueError(f"weights with NaN or infinite values: {', '.join(broken)}")
    return weights


def with_weights(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """A model made on the meta device, with the weights of :func:`fit_weights`: in fp32 on the CPU, in eval mode.

    Buffers outside of the state_dict are left without values; a model should compute such ones when it needs them.
    """
    model.to_empty(device="cpu")
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    model.load_state_dict(weights, strict=False)
    return model.eval()


def _is_weight(key: str, value: Any) -> bool:
    if key.endswith("num_batches_tracked"):
        return isinstance(value, Tensor) and value.dim() == 0
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _describe(value: Any) -> str:
    return (
        f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
