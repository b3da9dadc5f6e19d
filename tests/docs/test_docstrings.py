"""Docstrings of what users import: each is there, names every parameter, and says what the code raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NAMES = (Path(__file__).parents[1] / "public_names.txt").read_text("utf-8").splitlines()


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def is_documented(value: object) -> bool:
    """Functions and classes; modules and numbers have no parameters."""
    return inspect.isroutine(value) or inspect.isclass(value)


CONSTRUCTORS = ("__init__", "__post_init__")
DOCUMENTED = [name for name in NAMES if is_documented(resolve(name))]


def has_source(function: Callable) -> bool:
    return function.__module__.startswith("asrkern.") and function.__code__.co_filename.endswith(".py")


def functions_of(cls: type) -> Iterator[tuple[str, Callable]]:
    """Public methods, properties and the constructor that asrkern writes, each where it is first found."""
    found: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("asrkern."):
            continue
        for name, value in vars(base).items():
            # Of properties, cached properties, class and static methods.
            function = getattr(value, "fget", None) or getattr(value, "func", None) or value
            function = inspect.unwrap(getattr(function, "__func__", function))
            is_public = not name.startswith("_") or name in (*CONSTRUCTORS, "__call__")
            # What dataclass and NamedTuple make has no source.
            if name in found or not is_public or not inspect.isfunction(function) or not has_source(function):
                continue
            found.add(name)
            yield name, function


def parameters(function: Callable) -> list[str]:
    """The names that callers pass values by: of a class without a constructor of its own, its fields."""
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in ("self", "cls")
    ]


def raised(function: Callable) -> set[str]:
    """The classes of exceptions that a function's own source raises; "" for one that has another name there."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = called.id if isinstance(called, ast.Name) else ""
            found.add(name if name[:1].isupper() else "")
    return found


def faults(name: str, function: Callable, doc: str | None) -> list[str]:
    """What the docstring of a function (that of its class for a constructor) lacks."""
    if not (doc or "").strip():
        return [f"{name}: no docstring"]
    lacking = [
        f"{name}: {parameter} is not in its docstring"
        for parameter in parameters(function)
        if not re.search(rf"(?<!\w){re.escape(parameter)}(?!\w)", doc)
    ]
    if inspect.isclass(function):
        return lacking
    expected = raised(function)
    _, section, errors = doc.partition("Raises:\n")
    if expected and not section:
        lacking.append(f"{name}: no Raises, but it raises {', '.join(sorted(expected))}")
    elif section:
        lacking += [
            f"{name}: {error} is not among what it raises"
            for error in sorted(expected)
            if not re.search(rf"\b{error}\b", errors)
        ]
    return lacking


def faults_of(name: str, value: object) -> list[str]:
    if not inspect.isclass(value):
        return faults(name, inspect.unwrap(value), inspect.getdoc(value))
    # Not a base class' docstring: a subclass says what it is.
    own = inspect.cleandoc(vars(value).get("__doc__") or "")
    lacking, has_constructor = [], False
    for method, function in functions_of(value):
        if method in CONSTRUCTORS:
            has_constructor = has_constructor or method == "__init__"
            lacking += faults(name, function, "\n".join(filter(None, (own, inspect.getdoc(function)))))
        else:
            lacking += faults(f"{name}.{method}", function, inspect.getdoc(getattr(value, method)))
    if not own:
        lacking.append(f"{name}: no docstring")
    elif not has_constructor:
        lacking += faults(name, value, own)
    return lacking


def bare(x):
    return x


def half_said(x, *, scale):
    """x times another number.

    Raises:
        ValueError: x is negative.
    """
    if scale is None:
        raise TypeError("scale: expected a number")
    if x < 0:
        raise ValueError("x: expected at least 0")
    return scale * x


def unsaid(x):
    """The root of x."""
    if x < 0:
        raise ValueError("x: expected at least 0")
    return x**0.5


def whole(x, *_, **__):
    """x, or 0 for less.

    Raises:
        TypeError: it is no number.
    """
    try:
        return max(x, 0)
    except TypeError as error:
        raise TypeError("x: expected a number") from error


@pytest.mark.parametrize(
    ("function", "lacking"),
    [
        (bare, ["f: no docstring"]),
        (half_said, ["f: scale is not in its docstring", "f: TypeError is not among what it raises"]),
        (unsaid, ["f: no Raises, but it raises ValueError"]),
        (whole, []),
    ],
)
def test_what_lacks_is_found(function: Callable, lacking: list[str]) -> None:
    assert faults("f", function, inspect.getdoc(function)) == lacking


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_is_whole(name: str) -> None:
    lacking = faults_of(name, resolve(name))
    assert not lacking, "\n".join(lacking)
