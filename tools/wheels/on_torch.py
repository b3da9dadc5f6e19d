"""python tools/wheels/on_torch.py WHEEL VERSION… [-- PYTEST ARGUMENTS]: the same wheel's tests on several torches.

    python tools/wheels/on_torch.py wheelhouse/asrkern-*-cp311-*.whl 2.10.0 2.14.1 -- tests/ops tests/nn tests/decoder

Each torch is the one that PyPI has, in an environment of its own, which takes up to 7 GB and is removed after. What
tests compare with and is not installed is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ("tests/ops", "tests/nn", "tests/decoder")
# What these tests import, and what they run on that is not in the wheel.
PACKAGES = ("pytest", "hypothesis", "safetensors", "sentencepiece", "setuptools")
FILES = ("tests", "benchmarks", "docs", "pyproject.toml")


def passes(wheel: Path, version: str, arguments: list[str], folder: Path) -> bool:
    """Whether the tests pass, in a folder where only the installed package is found."""
    venv, tree = folder / "venv", folder / "tree"
    python = venv / "bin/python"
    name = wheel.name.split("-")[2].removeprefix("cp")
    subprocess.run(["uv", "venv", "-q", "--python", f"{name[0]}.{name[1:]}", venv], check=True)
    packages = [f"torch=={version}", f"asrkern @ {wheel.resolve().as_uri()}", *PACKAGES]
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, *packages], check=True)
    tree.mkdir()
    for path in map(ROOT.joinpath, FILES):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tree / path.name)
    return subprocess.run([python, "-m", "pytest", "-q", *arguments], cwd=tree).returncode == 0


def main() -> None:
    given = sys.argv[1:]
    middle = given.index("--") if "--" in given else len(given)
    [wheel, *versions], arguments = given[:middle] or [""], given[middle + 1 :] or list(TESTS)
    if not Path(wheel).is_file() or not versions:
        sys.exit(__doc__)
    failed = []
    for version in versions:
        print(f"torch {version}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if not passes(Path(wheel), version, arguments, Path(folder)):
                failed.append(version)
    if failed:
        sys.exit(f"failed on torch {', '.join(failed)}")


if __name__ == "__main__":
    main()
