"""Sphinx's settings: python -m sphinx -W docs build/docs."""

# ruff: noqa: E402
from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

# This folder for _tables, and the one above it, whose asrkern is the one that is described.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from sphinx.application import Sphinx

import asrkern

project = "asrkern"
version = release = asrkern.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "_tables"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|lightning|pydantic|pathlib|collections)\..*")]

autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Several names of one description stay together.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

html_theme = "furo"
html_title = f"asrkern {release}"
html_show_copyright = False
html_copy_source = False


def skip_what_others_wrote(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Of classes, what they have from torch, pydantic or tuples, and what torch calls."""
    if what != "class":
        return None
    if name == "extra_repr":
        return True
    function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "func", None) or value)
    return None if str(getattr(function, "__module__", None)).startswith("asrkern.") else True


def hide_passed_on(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """A constructor that hands its arguments on says nothing by its signature."""
    return ("", None) if signature == "(*_, **__)" else None


def list_modules(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A package's map is a paragraph of lines that each begin with a module: here they are a list."""
    if what != "module":
        return
    paragraphs = "\n".join(lines).split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        if all(line.startswith("``") for line in paragraph.splitlines()):
            paragraphs[i] = paragraph.replace("\n``", "\n* ``").replace("``", "* ``", 1)
    lines[:] = "\n\n".join(paragraphs).splitlines()


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skip_what_others_wrote)
    app.connect("autodoc-process-signature", hide_passed_on)
    app.connect("autodoc-process-docstring", list_modules)
