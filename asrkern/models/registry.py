"""Every kind of model, found by a model's name.

A new kind is a file with its class and its :class:`~asrkern.models.system.System`, and an entry below; or, outside of
asrkern, a call of :func:`register`. Everything else, from ``asrkern train`` to ``asrkern convert``, asks that entry.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from torch import nn

from asrkern._names import nearest
from asrkern.models.algoperf_deepspeech_system import ALGOPERF_DEEPSPEECH
from asrkern.models.conv_classifier_systems import CONV_RNN, CONV_TRANSFORMER
from asrkern.models.deepspeech2_system import DEEPSPEECH2
from asrkern.models.las_system import LISTEN_ATTEND_SPELL
from asrkern.models.system import System
from asrkern.models.vgg_gru_ctc_system import VGG_GRU_CTC

_SYSTEMS: dict[str, System] = {}


def register(system: System) -> None:
    """Make the models of a system known by their names.

    Raises:
        ValueError: a model has one of the names already.
    """
    for name in system.names:
        if name in _SYSTEMS:
            raise ValueError(
                f"names: expected new ones, received {name!r}, which is {_SYSTEMS[name].title}'s"
            )
    _SYSTEMS.update(dict.fromkeys(system.names, system))


for _system in (
    DEEPSPEECH2,
    ALGOPERF_DEEPSPEECH,
    CONV_TRANSFORMER,
    CONV_RNN,
    VGG_GRU_CTC,
    LISTEN_ATTEND_SPELL,
):
    register(_system)


def find(name: str) -> System:
    """The system of a model.

    Raises:
        ValueError: no model has this name.
    """
    if name not in _SYSTEMS:
        raise ValueError(f"name: expected {nearest(name, _SYSTEMS)}, received {name!r}")
    return _SYSTEMS[name]


def convertible() -> list[System]:
    """The systems of which other projects have checkpoints."""
    systems = {id(system): system for system in _SYSTEMS.values() if system.convert is not None}
    return list(systems.values())


def recognise(keys: Collection[str]) -> System | None:
    """The system whose state_dict this is, in another project's form, by its keys; None if it is of none."""
    return next((system for system in convertible() if system.sign in keys), None)


def list_models() -> list[str]:
    """The names that :func:`build` takes."""
    return list(_SYSTEMS)


def build(name: str, **options: Any) -> nn.Module:
    """A model with new weights.

    Args:
        name: one of ``asrkern.models.list()``.
        options: in place of the model's defaults: fields or arguments of :class:`DeepSpeech2Config`,
            :class:`LASConfig`, :class:`AlgoPerfDeepSpeech`, :class:`ConvTransformerClassifier`, :class:`ConvRNNClassifier`
            or :class:`VGGGRUCTC`.

    Raises:
        ValueError: no model has this name, or an option is out of range.
        TypeError: the model has no such option.
    """
    system = find(name)
    known = inspect.signature(system.options).parameters
    for option in options:
        if option not in known:
            raise TypeError(f"options: {name} has no {option!r}, expected {nearest(option, known)}")
    return system.names[name](**options)


def typical_seconds(name: str) -> float:
    """Length of an utterance that a model is for: a few sentences, or one word for the classifiers.

    Raises:
        ValueError: no model has this name.
    """
    return find(name).typical_seconds
