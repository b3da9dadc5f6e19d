"""What wheels are made of: the sdist, libraries as old as the policy says, torch's interface as old as we claim."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from asrkern import _decoder

pytest.importorskip("auditwheel")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools/wheels"))
import modules  # noqa: E402
import old_libraries  # noqa: E402

sys.path.pop(0)

#: What libtorch_cpu.so of torch 2.10.0 defines, but for aoti_torch_cpu_…, which are of single operations of torch's.
TORCH_2_10 = set((ROOT / "tests/torch_2_10_symbols.txt").read_text("utf-8").split())
USES_NEW_SYMBOLS = """
#include <pthread.h>
#include <charconv>
#include <cmath>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <vector>
double global = 1;
extern "C" double use(double x, const char* text) {
  static pthread_once_t once;
  pthread_once(&once, [] { global = 2; });
  std::ostringstream stream;
  stream << x << *std::make_shared<double>(global);
  std::from_chars(text, text + 3, x);
  if (!(x > 0)) throw std::invalid_argument(stream.str());
  return std::exp(x) + std::pow(x, global) + double(std::vector<double>(size_t(x)).size());
}
"""


def compile_module(path: Path, *flags: str) -> Path:
    path.with_suffix(".cpp").write_text(USES_NEW_SYMBOLS)
    command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", path.with_suffix(".cpp"), *flags, "-o", path]
    subprocess.run(command, check=True)
    return path


def versions_of(path: Path) -> set[str]:
    """The versions of symbols that a module asks for."""
    listed = subprocess.check_output(["readelf", "--version-info", "--wide", path], text=True)
    return set(re.findall(r"Name: ((?:GLIBC|GLIBCXX|CXXABI|GCC)_[\w.]+)  Flags", listed))


@pytest.mark.parametrize("policy", ["manylinux_2_17", "manylinux_2_28"])
def test_modules_ask_for_nothing_later_than_the_policy(tmp_path, policy):
    allowed = old_libraries.allowed_versions(policy, "x86_64")
    flags = old_libraries.make(tmp_path / "old", policy, "x86_64", "c++")
    old = compile_module(tmp_path / "old.so", *flags, "-Wl,-z,defs")
    assert versions_of(old) <= allowed
    assert not versions_of(compile_module(tmp_path / "new.so")) <= allowed, "this test cannot fail here"
    assert not modules.unversioned_symbols(old)
    # Where threads were no part of libc, its libpthread is asked for.
    assert "[libpthread.so.0]" in subprocess.check_output(["readelf", "-d", old], text=True)
    # CMake asks whether the compiler makes programs.
    program = ["c++", "-x", "c++", "-", *flags, "-o", tmp_path / "program"]
    subprocess.run(program, input="int main() {}", text=True, check=True)
    code = f"""
import ctypes
use = ctypes.CDLL({str(old)!r}).use
use.restype, use.argtypes = ctypes.c_double, [ctypes.c_double, ctypes.c_char_p]
print(use(1.0, b"2.5"))
"""
    expected = 2.718281828459045**2.5 + 2.5**2 + 2
    assert float(subprocess.check_output([sys.executable, "-c", code])) == pytest.approx(expected, rel=1e-14)


def test_a_policy_has_the_newest_version_it_allows(tmp_path):
    allowed = {"GLIBC_2.2.5", "GLIBC_2.14"}
    found = old_libraries.allowed_symbols("c++", "libc.so.6", allowed)
    assert found["memcpy"] == ("function", "GLIBC_2.14")
    assert found["memset"] == ("function", "GLIBC_2.2.5")
    assert "getrandom" not in found
    assert old_libraries.allowed_symbols("c++", "libm.so.6", allowed)["exp"] == ("function", "GLIBC_2.2.5")


def test_c_asks_torch_for_what_the_oldest_one_has():
    asked = modules.unversioned_symbols(ROOT / "asrkern/_C.so")
    assert len(asked) > 50 and asked <= TORCH_2_10, asked - TORCH_2_10


def test_the_decoder_asks_python_alone():
    asked = modules.unversioned_symbols(Path(_decoder.__file__))
    assert asked and {name for name in asked if not name.startswith(("Py", "_Py"))} == set()


def test_the_sdist_has_what_the_build_reads(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, "sdist", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        has = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        str(path.relative_to(ROOT))
        for folder in ("asrkern", "csrc", "kernels")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".pyi", ".cpp", ".cu", ".cuh", ".h", ".html", ".js")
    }
    needed = {"CMakeLists.txt", "pyproject.toml", "setup.py", "benchmarks/results/avx512.json", "LICENSE"}
    # What tests run on.
    for folder in (".ci", ".github", "examples", "recipes"):
        found = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        needed |= {name for name in found if "__pycache__" not in name}
    assert len(sources) > 250 and sources | needed <= has, (sources | needed) - has
    assert not {name for name in has if name.endswith(".so") or "__pycache__" in name}
