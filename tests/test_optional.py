import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import asrkern
from asrkern._optional import EXTRAS, import_torchaudio, needs


@pytest.fixture
def fake_torchaudio(tmp_path, monkeypatch):
    """A torchaudio on sys.path whose import runs the given code."""

    def make(code):
        package = tmp_path / "torchaudio"
        package.mkdir()
        (package / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            monkeypatch.delitem(sys.modules, name)
        return package

    yield make
    sys.modules.pop("torchaudio", None)


def test_a_torchaudio_that_imports_is_returned(fake_torchaudio):
    fake_torchaudio("answer = 42")
    assert import_torchaudio().answer == 42


@pytest.mark.parametrize(
    "error", ["OSError('libcudart.so.13: cannot open')", "ImportError('undefined symbol')"]
)
def test_says_what_to_do_beside_a_cpu_torch(fake_torchaudio, monkeypatch, error):
    package = fake_torchaudio(f"raise {error}")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ImportError, match="remove them: rm ") as raised:
        import_torchaudio()
    assert str(package / "lib" / "*.so") in str(raised.value)


def test_says_what_to_do_beside_a_cuda_torch(fake_torchaudio, monkeypatch):
    fake_torchaudio("raise OSError('undefined symbol')")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ImportError, match="made for this torch"):
        import_torchaudio()


def test_says_that_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install torchaudio"):
        import_torchaudio()


def test_the_extras_are_those_of_the_project():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    declared = {
        name: re.findall(r'"([\w-]+)(?:\[([\w,]+)\])?', packages)
        for name, packages in re.findall(r"^(\w+) = \[(.*?)\n?\]$", text, re.MULTILINE | re.DOTALL)
    }

    def packages(extra):
        found = set()
        for package, extras in declared[extra]:
            found |= set().union(*map(packages, extras.split(","))) if extras else {package}
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
