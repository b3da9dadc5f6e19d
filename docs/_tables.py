"""Tables that the documentation is built with, made of what is in the repository; and the directive ``generated-table``."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from asrkern import _environment, _gpu_kernels

ROOT = Path(__file__).parents[1]


def environment() -> str:
    """Every environment variable of asrkern's."""
    rows = [(f"`{name}`", known.values, known.effect) for name, known in _environment.VARIABLES.items()]
    return _table(("variable", "values", "what it does"), rows)


def gpu_kernels() -> str:
    """Each GPU kernel and the device on which it has passed its check with its present sources, if any."""
    record = _gpu_kernels.read_record(ROOT / _gpu_kernels.RECORD)
    checked = _gpu_kernels.checked_kernels(record, ROOT)
    rows = []
    for name, (source, *_) in _gpu_kernels.KERNELS.items():
        check = checked.get(name)
        state = f"{check['device']}, {check['date']}" if check else "**unverified**"
        rows.append((f"`{name}`", "Triton" if _gpu_kernels.is_triton(name) else "CUDA", f"`{source}`", state))
    said = "" if record else "No kernel has run on a GPU yet.\n\n"
    return said + _table(("kernel", "written in", "source", "checked on"), rows)


def verification() -> str:
    """Each public name, the file of tests that is about it, and what that says it compares."""
    names = public_names()
    found = tests_of(names)
    parts = []
    for package in dict.fromkeys(name.rpartition(".")[0] for name in names):
        rows = []
        for name in sorted((n for n in found if n.rpartition(".")[0] == package), key=str.lower):
            file, *others = found[name]
            more = f" and {len(others)} more" if others else ""
            rows.append((f"`{name.rpartition('.')[2]}`", f"`{file}`{more}", _says(file)))
        if rows:
            parts.append(f"## {package}\n\n{_table(('name', 'in tests/', 'what they compare'), rows)}")
    others = ", ".join(f"`{name.removeprefix('asrkern.')}`" for name in names if name not in found)
    return "\n".join([*parts, f"## Others\n\nNo file of tests has these by name: {others}."])


def public_names() -> dict[str, object]:
    """The classes and functions that users import; what has two names, under the first."""
    found: dict[int, tuple[str, object]] = {}
    for name in (ROOT / "tests" / "public_names.txt").read_text("utf-8").split():
        value = _resolve(name)
        if inspect.isclass(value) or inspect.isroutine(value):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def tests_of(names: dict[str, object]) -> dict[str, list[str]]:
    """Public name → files of tests/ that use it: the one named as its module, then those that use it more often.

    tests/gpu is left out, which a machine without a GPU skips.
    """
    known = {id(value): name for name, value in names.items()}
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(ROOT / "tests").as_posix()
        if not file.startswith("gpu/"):
            for name in _used(ast.parse(path.read_text("utf-8")), known):
                uses[name][file] += 1

    def ranked(name: str) -> list[str]:
        *folders, module = inspect.getmodule(names[name]).__name__.split(".")[1:] or [""]
        own = "/".join((*folders, f"test_{module}.py"))
        return sorted(uses[name], key=lambda file: (file != own, -uses[name][file], file))

    return {name: ranked(name) for name in names if uses[name]}


def _used(tree: ast.Module, known: dict[int, str]) -> Iterator[str]:
    """The public name of each expression that is one."""
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    if "asrkern" in imported:
        # Whichever of its modules it was imported with.
        imported["asrkern"] = "asrkern"
    for node in ast.walk(tree):
        name = _dotted(node, imported)
        if name is not None and name.startswith("asrkern.") and id(_resolve(name)) in known:
            yield known[id(_resolve(name))]


def _dotted(node: ast.AST, imported: dict[str, str]) -> str | None:
    """What ``name.name…`` stands for, by a file's imports."""
    if isinstance(node, ast.Name):
        return imported.get(node.id)
    if isinstance(node, ast.Attribute):
        value = _dotted(node.value, imported)
        return value and f"{value}.{node.attr}"
    return None


@functools.cache
def _resolve(name: str) -> object:
    """What a dotted name stands for: an attribute, else a module; None for neither."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def _says(file: str) -> str:
    """The first paragraph of the docstring of a file of tests/."""
    doc = ast.get_docstring(ast.parse((ROOT / "tests" / file).read_text("utf-8"))) or ""
    return " ".join(doc.partition("\n\n")[0].split()).replace("``", "`")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


TABLES = {"environment": environment, "gpu-kernels": gpu_kernels, "verification": verification}


class Table(SphinxDirective):
    """``generated-table``: one of TABLES."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(TABLES[self.arguments[0]](), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("generated-table", Table)
    return {"parallel_read_safe": True}
