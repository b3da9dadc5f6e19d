"""Packages that are missing are named with what installs them."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import asrkern
from asrkern._optional import EXTRAS, needs, require

ROOT = Path(__file__).parents[1]


def test_a_package_that_is_there_is_returned():
    assert require("json", "cli") is json
    assert require("json.decoder", "cli") is json.decoder


def test_a_missing_one_is_named_with_what_installs_it():
    with pytest.raises(
        ImportError, match=r"no_such_package is not installed: pip install 'asrkern\[train\]'"
    ):
        require("no_such_package.part", "train")


def packages_of(extra):
    """What an extra of the project installs."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    [declared] = re.findall(rf"^{extra} = \[(.*?)\n?\]$", text, re.MULTILINE | re.DOTALL)
    found = set()
    for package, extras in re.findall(r'"([\w-]+)(?:\[([\w,]+)\])?', declared):
        found |= (
            set().union(*map(packages_of, extras.split(",")))
            if package == "asrkern"
            else {package.replace("-", "_")}
        )
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_extras_are_those_of_the_project(extra):
    assert set(EXTRAS[extra]) <= packages_of(extra)


def test_what_is_asked_for_is_in_the_extra_that_is_named():
    calls = re.compile(r"\b(?:require|folder_of)\(\s*\"(\w+)[\w.]*\", \"(\w+)\"")
    asked = {
        call for path in (ROOT / "asrkern").rglob("*.py") for call in calls.findall(path.read_text("utf-8"))
    }
    assert {extra for _, extra in asked} >= {"av", "vad", "ray", "hf", "onnx", "train"}
    assert {extra for _, extra in asked} <= set(EXTRAS)
    assert {(package, extra) for package, extra in asked if package not in packages_of(extra)} == set()


def test_what_is_missing_is_named(monkeypatch):
    find = importlib.util.find_spec
    needs("cli")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rich" else find(name))
    with pytest.raises(ImportError, match=r"^rich is not installed: pip install 'asrkern\[cli\]'$"):
        needs("cli")


def test_reading_a_checkpoint_names_what_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pydantic" else find(name))
    with pytest.raises(ImportError, match=r"pip install 'asrkern\[recognizer\]'"):
        asrkern.load("absent.safetensors")
