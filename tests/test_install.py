"""What pip installs is found from the folder above a clone named asrkern, too."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Without setup.py, which compiles.
METADATA = ("pyproject.toml", "README.md", "LICENSE")


def run(code: str, *args: object, cwd: Path) -> str:
    """What the code prints, in a Python that knows its own modules and the current folder only (-S)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", f"import sys; {code}", *map(str, args)]
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_a_clone_named_asrkern_does_not_hide_the_package(tmp_path, kind):
    setuptools = pytest.importorskip("setuptools", "77")
    clone, site = tmp_path / "asrkern", tmp_path / "site"
    # asrkern/_triton is a link.
    for folder, _, files in os.walk(ROOT / "asrkern", followlinks=True):
        if "__init__.py" in files:
            package = clone / Path(folder).relative_to(ROOT)
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
    for name in METADATA:
        shutil.copy(ROOT / name, clone)
    run(
        "sys.path.append(sys.argv[1]); from setuptools import build_meta; "
        f"build_meta.build_{kind}(sys.argv[2])",
        *(Path(setuptools.__file__).parents[1], site),
        cwd=clone,
    )
    [wheel] = site.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    found = run(
        "import site; site.addsitedir(sys.argv[1]); import asrkern.nn; print(asrkern.__file__)",
        site,
        cwd=tmp_path,
    )
    assert Path(found) == (clone if kind == "editable" else site) / "asrkern" / "__init__.py"
