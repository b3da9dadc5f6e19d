import sys

import pytest
import torch

from asrkern._optional import import_torchaudio


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
