"""What pip builds and installs, and what is said where it cannot."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from asrkern import _library

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


# Not imported: it wants to be before others.
SETUPTOOLS = importlib.util.find_spec("setuptools")
pytestmark = pytest.mark.skipif(
    SETUPTOOLS is None or int(version("setuptools").split(".")[0]) < 77, reason="needs setuptools 77"
)


def build_metadata(kind: str, clone: Path, site: Path) -> Path:
    """The wheel of a clone that has no more than its packages' names."""
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
        *(Path(SETUPTOOLS.origin).parents[1], site),
        cwd=clone,
    )
    [wheel] = site.glob("*.whl")
    return wheel


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_a_clone_named_asrkern_does_not_hide_the_package(tmp_path, kind):
    clone, site = tmp_path / "asrkern", tmp_path / "site"
    zipfile.ZipFile(build_metadata(kind, clone, site)).extractall(site)
    found = run(
        "import site; site.addsitedir(sys.argv[1]); import asrkern.nn; print(asrkern.__file__)",
        site,
        cwd=tmp_path,
    )
    assert Path(found) == (clone if kind == "editable" else site) / "asrkern" / "__init__.py"


# Looked for in a process of its own: find_spec("pip") is enough for setuptools to leave distutils alone from then on
# (findings/setuptools_find_spec_pip.sh), and torch.compile imports setuptools.
@pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import pip"], capture_output=True).returncode != 0,
    reason="needs pip",
)
def test_a_python_too_old_is_refused_in_one_line(tmp_path):
    wheel = build_metadata("wheel", tmp_path / "asrkern", tmp_path / "site")
    # `pip install` asks the Python that it runs in.
    options = ("--no-index", "--no-deps", "--only-binary=:all:", "--python-version=3.9", f"-d{tmp_path}")
    command = [sys.executable, "-m", "pip", "download", *options, wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert "requires a different Python: 3.9.0 not in '>=3.10'" in line


GCC_9 = """#!/bin/sh
printf '#define __GNUC__ 9\\n#define __cplusplus 201402\\n'
"""
CLANG_13 = """#!/bin/sh
printf '#define __GNUC__ 4\\n#define __clang_major__ 13\\n#define __cplusplus 201402\\n'
"""
GCC_13 = GCC_9.replace(" 9", " 13")
TORCH = "__version__ = '2.13.0+cpu'\ncuda = None\n"


class Setup:
    """A tree of setup.py alone, its fake torch and compiler, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.torch, self.compiler = folder / "tree", folder / "torch", folder / "c++"
        for path in (self.tree, self.torch):
            path.mkdir()
        for name in (*METADATA, "setup.py"):
            shutil.copy(ROOT / name, self.tree)
        self.write_compiler(GCC_13)
        (self.torch / "version.py").write_text(TORCH)
        self.environment = {"ASRKERN_TORCH_DIR": str(self.torch), "CXX": str(self.compiler)}

    def write_compiler(self, text: str) -> None:
        self.compiler.write_text(text)
        self.compiler.chmod(0o755)

    def says(self, before: str = "") -> str:
        """The line that the build ends with."""
        code = f"import runpy, sys; sys.argv = ['setup.py', '-q', 'build_ext']; {before}\n"
        code += "runpy.run_path('setup.py', run_name='__main__')"
        env = {**os.environ, **self.environment}
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, cwd=self.tree, env=env, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        [line] = [line for line in done.stderr.splitlines() if line.startswith("asrkern: ")]
        return line.removeprefix("asrkern: ")


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


@pytest.mark.parametrize("version", ["2.9.1+cpu", "1.13.0", "2.9.0a0+git1234"])
def test_a_torch_too_old_to_build_against(setup, version):
    (setup.torch / "version.py").write_text(f"__version__ = '{version}'\n")
    assert setup.says() == f"building needs torch >= 2.10, found {version} in {setup.torch}"


def test_no_torch_where_one_was_promised(setup):
    (setup.torch / "version.py").unlink()
    assert setup.says() == f"building needs torch >= 2.10, found none in {setup.torch}"


def test_no_compiler(setup):
    setup.compiler.unlink()
    assert setup.says() == "building needs a C++20 compiler: install g++ >= 11 or clang >= 14, or set CXX"


@pytest.mark.parametrize(
    "script, problem",
    [
        (GCC_9, "is version 9"),
        (CLANG_13, "is version 13"),
        ("#!/bin/sh\nexit 1\n", "does not compile C++"),
    ],
)
def test_a_wrong_compiler(setup, script, problem):
    setup.write_compiler(script)
    assert setup.says() == f"CXX={setup.compiler} {problem}: install g++ >= 11 or clang >= 14"


@pytest.mark.parametrize("system, machine", [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_machines_that_nothing_was_built_on(setup, system, machine):
    said = setup.says(
        f"import platform; platform.system = lambda: '{system}'; platform.machine = lambda: '{machine}'"
    )
    assert said == f"builds on Linux on x86-64 only, so far; this is {system} on {machine}"


def test_offline_without_isolation_what_is_missing_is_named(setup):
    absent = "import shutil; which = shutil.which; shutil.which = lambda name: which(name) if '/' in name else None"
    assert setup.says(absent) == "building without isolation needs cmake: pip install cmake"
    present = "import shutil; shutil.which = lambda name: name"
    said = setup.says(f"{present}; sys.modules['pybind11'] = None")
    assert said == "building without isolation needs pybind11: pip install pybind11"


def test_a_tree_that_cannot_be_written(setup):
    (setup.tree / "build").touch()
    present = "import shutil; shutil.which = lambda name: name; import types; "
    said = setup.says(
        present + "sys.modules['pybind11'] = module = types.ModuleType('pybind11'); module.__spec__ = 1"
    )
    assert said == f"cannot build in {setup.tree / 'build/cmake'}: Not a directory"


def test_the_oldest_torch_is_the_same_everywhere():
    """In what pip reads, the build, the interface that is compiled for, the import, and what users read."""
    [(major, minor)] = re.findall(r'"torch>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"OLDEST_TORCH = ({major}, {minor})" in (ROOT / "setup.py").read_text("utf-8")
    assert f"TORCH_TARGET_VERSION=0x{int(major):02x}{int(minor):02x}{0:012x}" in (
        ROOT / "CMakeLists.txt"
    ).read_text("utf-8")
    assert (int(major), int(minor)) == _library._OLDEST_TORCH


@pytest.mark.parametrize("version", ["2.9.1+cu128", "1.13.1"])
def test_a_torch_too_old_is_named_when_asrkern_is_imported(version):
    code = f"import torch; torch.__version__ = {version!r}; import asrkern"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    expected = f"ImportError: asrkern: expected torch >= 2.10, found {version}; pip install 'torch>=2.10'"
    assert done.stderr.splitlines()[-1] == expected


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+b4e4ee8", "2.15.1+cu130", "3.0.0"])
def test_others_are_not_refused(version):
    _library._check_torch(version)


def test_nothing_is_written_beside_the_package():
    """It may lie where its user can only read: all that is opened to be written is elsewhere."""
    code = """
import sys
def watch(event, args):
    if event in ("open", "os.mkdir", "os.rename", "os.remove"):
        if event != "open" or (isinstance(args[1], str) and set(args[1]) & set("wax+")) or args[2] & 3:
            written.append(str(args[0]))
written = []
sys.dont_write_bytecode = True
sys.addaudithook(watch)
import torch, asrkern, asrkern.nn, asrkern.decoder, asrkern.models, os
asrkern.nn.GRU(3, 4)(torch.randn(2, 3, 3))[0].sum().backward()
asrkern.decoder.CTCBeamDecoder(["_", "a"]).decode(torch.zeros(1, 3, 2).log_softmax(-1))
open(os.devnull, "w").close()
assert os.devnull in written
print([path for path in written if path.startswith(os.path.dirname(asrkern.__file__))])
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"
