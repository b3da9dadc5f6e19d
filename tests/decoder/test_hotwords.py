"""asrkern.decoder.read_hotwords: weights of their own in each form, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrkern.decoder import read_hotwords


def read(folder: Path, content: str | bytes, **options: float) -> dict[str, float]:
    file = folder / "hotwords.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_hotwords(file, **options)


def test_forms_of_lines(tmp_path: Path) -> None:
    lines = "new york :2.0\n\n  \nbasel\nbern\t3.5\nsaint gallen\t-1\n▁lu ce rn e :4\n▁ge n è ve\n"
    assert read(tmp_path, lines, weight=7.0) == {
        "new york": 2.0, "basel": 7.0, "bern": 3.5, "saint gallen": -1.0, "lucerne": 4.0, "genève": 7.0,
    }  # fmt: skip
    assert read(tmp_path, b"\xef\xbb\xbfzug") == {"zug": 10.0}


@pytest.mark.parametrize("content", [b"zug\tmuch\n", b"z\xfcg\n"], ids=["no number", "Latin-1"])
def test_what_is_wrong_names_the_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"hotwords\.txt"):
        read(tmp_path, content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hotwords(tmp_path / "none.txt")


def test_a_keyword_spotters_file(tmp_path: Path) -> None:
    """As sherpa-onnx's: a weight, the threshold of the spotter and the name that it shows."""
    lines = (
        "▁HE LL O ▁WORLD :1.5 #0.35 @HELLO_WORLD\nnew york :2.0 #0.6\nyes :3 @YES\nnumber #1\nmail @home\n"
    )
    expected = {"HELLO WORLD": 1.5, "new york": 2.0, "yes": 3.0, "number #1": 10.0, "mail @home": 10.0}
    assert read(tmp_path, lines) == expected
