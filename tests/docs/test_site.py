"""The documentation: it builds without a warning, its examples compute what they say, and its tables are whole."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from asrkern._environment import VARIABLES
from asrkern._gpu_kernels import KERNELS

pytest.importorskip("sphinx")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PUBLIC = (ROOT / "tests" / "public_names.txt").read_text("utf-8").split()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, as CONTRIBUTING's command makes them."""
    [command] = re.findall(
        r"`python (-m sphinx .*) build/docs`", (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    )
    folder = tmp_path_factory.mktemp("site")
    # A folder of its own for what is kept between builds, so that pages of an earlier one are not taken.
    done = subprocess.run(
        [sys.executable, *command.split(), str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def test_every_page_is_there(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page


def test_every_public_name_is_described(site: Path) -> None:
    text = "".join(page.read_text("utf-8") for page in (site / "api").glob("*.html"))
    described = set(re.findall(r'id="(asrkern[\w.]+)"', text))
    # Under their own package's names, not those of the files that they are written in.
    undescribed = {
        name
        for name in PUBLIC
        if name not in described and name.replace(".compat.", ".compat.pyctcdecode.") not in described
    }
    assert (
        undescribed
        == {"asrkern.__version__", "asrkern.ops", "asrkern.decoder.compat.pyctcdecode"} - described
    )


def test_torchs_own_methods_are_left_out(site: Path) -> None:
    text = (site / "api" / "asrkern.nn.html").read_text("utf-8")
    assert 'id="asrkern.nn.GRU.forward"' in text and "asrkern.nn.GRU.register_buffer" not in text
    assert "Alias for field number" not in text


def test_environment_variables(site: Path) -> None:
    text = text_of(site / "environment.html").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for name, variable in VARIABLES.items():
        assert name in text and variable.effect.replace("`", "") in text


def test_gpu_kernels(site: Path) -> None:
    text = text_of(site / "gpu.html")
    assert all(name in text for name in KERNELS)


def test_names_have_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """All functions. Some classes have none, since they only come out of functions."""
    monkeypatch.syspath_prepend(DOCS)
    tables = importlib.import_module("_tables")
    names = tables.public_names()
    found = tables.tests_of(names)
    assert found["asrkern.nn.GRU"][0] == "nn/test_gru.py" and len(found["asrkern.nn.GRU"]) > 10
    assert found["asrkern.ops.gru"][0] == "ops/test_gru.py"
    assert found["asrkern.decoder.CTCBeamDecoder"][0] == "decoder/test_beam.py"
    assert all(tables._says(file) for files in found.values() for file in files[:1])
    # Called by a name that is put together.
    assert {name for name in set(names) - set(found) if not inspect.isclass(names[name])} == {
        "asrkern.ops.lstm_cell_prepacked"
    }


def test_blocks_that_need_files_are_python() -> None:
    for page in PAGES:
        for block in re.findall(r"^```py\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_pages(page: Path) -> None:
    """A page's sessions are one."""
    blocks = re.findall(r"^```pycon\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert ">>>" not in page.read_text("utf-8") or session.examples
    assert doctest.DocTestRunner().run(session).failed == 0


def test_examples_of_docstrings() -> None:
    files = [path for path in (ROOT / "asrkern").rglob("*.py") if ">>> " in path.read_text("utf-8")]
    modules = [
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files
    ]
    sessions = [
        session for module in modules for session in doctest.DocTestFinder().find(module) if session.examples
    ]
    assert sessions
    for session in sessions:
        assert doctest.DocTestRunner().run(session).failed == 0, session.name


def test_tests_that_show_exactness_are_there() -> None:
    page = (DOCS / "exactness.md").read_text("utf-8")
    named = re.findall(r"\| `([\w/]+\.py)` `(\w+)` \|", page)
    assert len(named) == page.count("\n| ") - 1 > 15  # each line but the head
    for file, test in named:
        text = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"^\s*def {test}\(", text, re.MULTILINE), f"{file}: {test}"
