"""``_decoder.pyi`` has the names and parameters of the compiled module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from asrkern import _decoder

STUB = ast.parse(Path(_decoder.__file__).with_name("_decoder.pyi").read_text("utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def functions(body: list[ast.stmt]) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def parameters(documented: str) -> list[str] | None:
    """The names in the first line of a docstring of pybind11's; None where there is none. arg0, … have no name."""
    found = re.match(r"\w+\((.*)\) -> ", documented.split("\n")[0] if documented else "")
    if not found:
        return None
    # Without what types hold in brackets.
    plain, last = found[1], ""
    while plain != last:
        plain, last = re.sub(r"\[[^\[\]]*\]", "", plain), plain
    names = [part.split(":")[0].split("=")[0].strip() for part in plain.split(",")]
    return [name for name in names if name not in ("", "*", "self")]


def compare(function: ast.FunctionDef, documented: str) -> None:
    found = parameters(documented)
    assert found is not None, documented
    positional = [a.arg for a in function.args.posonlyargs if a.arg != "self"]
    named = [a.arg for a in (*function.args.args, *function.args.kwonlyargs) if a.arg != "self"]
    expected = [f"arg{index}" for index in range(len(positional))]
    assert [name for name in found if re.fullmatch(r"arg\d", name)] == expected, function.name
    assert [name for name in found if not re.fullmatch(r"arg\d", name)] == named, function.name


def test_names_of_the_module() -> None:
    constants = {
        node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign) and is_public(node.target.id)
    }
    assert {*CLASSES, *functions(STUB.body), *constants} == set(filter(is_public, dir(_decoder)))


@pytest.mark.parametrize("name", functions(STUB.body))
def test_functions(name: str) -> None:
    compare(functions(STUB.body)[name], getattr(_decoder, name).__doc__)


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str) -> None:
    kind, stubbed = getattr(_decoder, name), functions(CLASSES[name].body)
    assert set(filter(is_public, stubbed)) == set(filter(is_public, vars(kind)))
    for method, function in stubbed.items():
        value = vars(kind)[method]
        is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)
        assert is_property == isinstance(value, property), method
        if not is_property and (is_public(method) or method == "__init__"):
            compare(function, value.__doc__)


def test_parameters_of_a_docstring() -> None:
    assert parameters("f(self: a.B, arg0: dict[str, list[int]], *, x: int | None = None) -> None") == [
        "arg0",
        "x",
    ]
    assert parameters("f() -> int") == []
    assert parameters("Says nothing.") is None
