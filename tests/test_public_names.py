"""What users import is listed in public_names.txt: a name that comes or goes is seen there."""

import importlib
from pathlib import Path

MODULES = (
    "", ".corpus", ".data", ".decoder", ".decoder.compat", ".decoder.compat.pyctcdecode", ".models", ".nn", ".ops", ".recognizer",
)  # fmt: skip


def test_public_names_are_those_of_the_list() -> None:
    listed = Path(__file__).with_name("public_names.txt").read_text("utf-8").splitlines()
    found = []
    for name in MODULES:
        module = importlib.import_module(f"asrkern{name}")
        assert len(set(module.__all__)) == len(module.__all__), module
        assert all(hasattr(module, public) for public in module.__all__), module
        found += [f"asrkern{name}.{public}" for public in module.__all__]
    assert sorted(found) == listed
