"""Packages that are missing are named with what installs them."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import asrkern
from asrkern._optional import EXTRAS, needs, require


def test_a_package_that_is_there_is_returned():
    assert require("json", "cli") is json
    assert require("json.decoder", "cli") is json.decoder


def test_a_missing_one_is_named_with_what_installs_it():
    with pytest.raises(
        ImportError, match=r"no_such_package is not installed: pip install 'asrkern\[train\]'"
    ):
        require("no_such_package.part", "train")


def test_the_extras_are_those_of_the_project():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    declared = {
        name: re.findall(r'"([\w-]+)(?:\[([\w,]+)\])?', packages)
        for name, packages in re.findall(r"^(\w+) = \[(.*?)\n?\]$", text, re.MULTILINE | re.DOTALL)
    }

    def packages(extra):
        found = set()
        for package, extras in declared[extra]:
            found |= set().union(*map(packages, extras.split(","))) if extras else {package.replace("-", "_")}
        return found

    for extra, needed in EXTRAS.items():
        assert set(needed) <= packages(extra), extra


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
