"""From the weights in a checkpoint to a model's. Every misfit is named by the file's own keys.

``kind`` is the name that messages give the model that the file should hold.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asrkern._memory import in_words, memory_for
from asrkern.models.checkpoint import Inert

Model = TypeVar("Model", bound=nn.Module)

# What wraps a whole model: DataParallel and AveragedModel, torch.compile, Lightning's modules, FSDP.
_OUTER = re.compile(r"(?:(?:module|_orig_mod|model|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)*")
# What may also wrap parts of a model, and is no name of a part.
_INNER = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = "n_averaged"  # AveragedModel's counter
# How many copies of a weight (tied ones, those of attention) a file may hold as one.
_MAX_COPIES = 4
_SHOWN = 50


def raise_misfits(
    kind: str, *, missing: Sequence[Any] = (), unexpected: Sequence[Any] = (), malformed: Sequence[str] = ()
) -> None:
    """Raise ValueError with these misfits, if there are any: with all of them, or with the first and how many more."""
    lists = {"missing keys": missing, "keys that do not fit": unexpected, "wrong values": malformed}
    found = [f"{name}: {_listed(keys)}" for name, keys in lists.items() if keys]
    if found:
        raise ValueError(f"not a {kind} checkpoint of a known layout; " + "; ".join(found))


def find_state_dict(
    container: Mapping[Any, Any], kind: str, wrappers: Sequence[str] = ("state_dict",)
) -> dict[str, Any]:
    """The weights of a container, by the model's own keys.

    Prefixes of wrappers are removed, in any order and number: ``module.`` (DataParallel), ``model.`` (Lightning),
    ``_orig_mod.`` (torch.compile; also of parts) and FSDP's.

    Args:
        container: what :func:`asrkern.models.checkpoint.read_checkpoint` returns.
        wrappers: keys that may hold the weights; without any of them the container is the weights.

    Raises:
        ValueError: it is no dictionary with strings as keys, or two keys become equal without wrappers.
    """
    wrapper = next((key for key in wrappers if key in container), None)
    state = container if wrapper is None else container[wrapper]
    if not isinstance(state, dict) or isinstance(state, Inert):
        raise ValueError(f"{wrapper}: expected a dictionary, received {type(state).__name__}")
    raise_misfits(kind, unexpected=[key for key in state if not isinstance(key, str)])
    named = {_INNER.sub("", key): value for key, value in state.items() if key != _AVERAGED}
    if len(named) != len(state) - (_AVERAGED in state):
        seen: dict[str, str] = {}
        twice = next(key for key in state if seen.setdefault(_INNER.sub("", key), key) != key)
        raise_misfits(kind, malformed=[f"{twice}: expected once, received {seen[_INNER.sub('', twice)]} too"])
    common = os.path.commonprefix([_outer(key) for key in named])  # noqa: RUF071
    outer = len(_outer(common))
    return {key[outer:]: value for key, value in named.items()}


def _outer(key: str) -> str:
    found = _OUTER.match(key)
    return found[0] if found else ""


def check_keys(
    state: Mapping[str, Any], kind: str, pattern: re.Pattern[str], essential: Iterable[str]
) -> None:
    """Raise ValueError unless all keys match, all values are weights of their own, and the essential keys are there."""
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
    _check_extent(state)


def outline(make: Callable[[], Model], tensors: int) -> Model:
    """The model that ``make`` makes, on the meta device: its keys and shapes, without memory.

    Args:
        tensors: how many the file has. Making a model that needs far more is given up.

    Raises:
        TypeError, ValueError: as ``make``; or the model has too many or too large parts.
    """
    try:
        with torch.device("meta"), _Outlining(500 + 12 * tensors):
            return make()
    except (OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"expected sizes of a model, received such that torch cannot count: {reason}"
        ) from None


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
            message lists them.
    """
    weights, missing, shapes = {}, [], []
    places = {file_key(key): (key, value) for key, value in model.state_dict().items()}
    for name, (key, wanted) in places.items():
        if name not in state:
            # Files of torch before 0.4.1 have no counters.
            missing += [] if key.endswith("num_batches_tracked") else [name]
            continue
        weights[key] = state[name]
        if weights[key].shape != wanted.shape:
            shapes.append(f"{name}: expected {list(wanted.shape)}, received {list(weights[key].shape)}")
    unexpected = [name for name in state if name not in places]
    raise_misfits(kind, missing=missing, unexpected=unexpected, malformed=shapes)
    # As the model will have them: float64 may hold what is infinite in float32.
    broken = [
        name
        for name, (_, wanted) in places.items()
        if name in state and not state[name].to(wanted.dtype).isfinite().all()
    ]
    if broken:
        raise ValueError(f"weights with NaN or infinite values: {_listed(broken)}")
    return weights


def with_weights(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """A model made on the meta device, with the weights of :func:`fit_weights`: in fp32 on the CPU, in eval mode.

    Where a file has them as the model wants them, they stay in the memory that they were read into.

    Buffers outside of the state_dict are left without values; a model should compute these when it needs them.

    Raises:
        MemoryError: it does not fit into memory.
    """
    size = sum(value.nbytes for value in model.state_dict().values())
    with memory_for(f"a model of {in_words(size)}"):
        model.to_empty(device="cpu")
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    model.load_state_dict(_owned(weights, model), strict=False, assign=True)
    return model.eval()


def _owned(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights as the model's own: what is alone in its memory stays there, and is not copied."""
    dtypes = {key: value.dtype for key, value in model.state_dict().items()}
    uses = Counter(value.untyped_storage().data_ptr() for value in weights.values())
    owned = {}
    for key, value in weights.items():
        storage = value.untyped_storage()
        alone = uses[storage.data_ptr()] == 1 and storage.nbytes() == value.nbytes and value.is_contiguous()
        owned[key] = value.to(dtypes[key], copy=not alone, memory_format=torch.contiguous_format)
    return owned


class _Outlining(TorchFunctionMode):
    """Draws no values, and gives up after so many operations. A model takes about four for each of its tensors."""

    def __init__(self, operations: int) -> None:
        super().__init__()
        self._left = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The end of torch.no_grad() comes by here, too, and must always happen.
        if func is torch._C._set_grad_enabled:
            return func(*args, **(kwargs or {}))
        self._left -= 1
        if self._left < 0:
            raise ValueError(
                "expected a model whose weights are in the file, received the sizes of a larger one"
            )
        kwargs = kwargs or {}
        # To draw from a normal distribution on the meta device torch imports its compiler, which takes seconds.
        if func in _DRAWS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_DRAWS = (Tensor.normal_, Tensor.uniform_)


def _check_extent(state: Mapping[str, Tensor]) -> None:
    """Refuse views (expanded, overlapping) that make many weights of a few values: the model has memory for each."""
    storages, total = {}, 0
    for key, value in state.items():
        storage = value.untyped_storage()
        if value.nbytes > storage.nbytes():
            raise ValueError(f"{key}: expected a number for each place, received {_describe(value)} of fewer")
        storages[storage.data_ptr()] = storage.nbytes()
        total += value.nbytes
    if total > _MAX_COPIES * sum(storages.values()):
        raise ValueError(
            f"weights: expected {in_words(total)} for their shapes, received {in_words(sum(storages.values()))} that they share"
        )


def _listed(keys: Sequence[Any]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(map(str, keys[:_SHOWN])) + more


def _is_weight(key: str, value: Any) -> bool:
    if key.endswith("num_batches_tracked"):
        return isinstance(value, Tensor) and value.dim() == 0
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _describe(value: Any) -> str:
    return (
        f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
