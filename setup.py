"""Finds torch, runs CMake; nothing else. Metadata: pyproject.toml; sources: CMakeLists.txt."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

OLDEST_TORCH = (2, 10)


def fail(message):
    sys.exit(f"asrkern: {message}")


def find_torch():
    """The torch to build against: the user's own, which pip's build isolation hides from import but not from disk, or
    the one in ASRKERN_TORCH_DIR, which may be another Python's."""
    if chosen := os.environ.get("ASRKERN_TORCH_DIR"):
        return Path(chosen)
    installed = Path(sysconfig.get_path("purelib")) / "torch"
    if (installed / "version.py").is_file():
        return installed
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def torch_version(torch):
    """The text of torch's version.py, if that torch is new enough."""
    expected = f"torch >= {'.'.join(map(str, OLDEST_TORCH))}"
    if torch is None:
        fail(f"building needs {expected}: pip install torch")
    file = torch / "version.py"
    text = file.read_text() if file.is_file() else ""
    version = re.search(r"^__version__ = '((\d+)\.(\d+).*)'", text, re.MULTILINE)
    if not version or (int(version[2]), int(version[3])) < OLDEST_TORCH:
        fail(f"building needs {expected}, found {version[1] if version else 'none'} in {torch}")
    return text


def check_machine():
    system, machine = platform.system(), platform.machine()
    if (system, machine.lower()) not in (("Linux", "x86_64"), ("Linux", "amd64")):
        fail(f"builds on Linux on x86-64 only, so far; this is {system} on {machine}")


def check_compiler():
    command = shlex.split(os.environ.get("CXX", "c++"))
    wanted = "g++ >= 11 or clang >= 14"
    if not command or not shutil.which(command[0]):
        fail(f"building needs a C++20 compiler: install {wanted}, or set CXX")
    macros = subprocess.run(
        [*command, "-x", "c++", "-dM", "-E", "-"],
        **{"input": "", "capture_output": True, "text": True},
    ).stdout
    found = dict(re.findall(r"^#define (__clang_major__|__GNUC__|__cplusplus) (\d+)", macros, re.MULTILINE))
    if "__cplusplus" not in found:
        fail(f"CXX={shlex.join(command)} does not compile C++: install {wanted}")
    # clang says that it is GCC 4, too.
    name, oldest = ("__clang_major__", 14) if "__clang_major__" in found else ("__GNUC__", 11)
    if int(found.get(name, 0)) < oldest:
        fail(f"CXX={shlex.join(command)} is version {found.get(name)}: install {wanted}")


def keep_pybind11():
    """A copy of pybind11 under build/: pip's build isolation has it in another folder each time, for which ninja would
    compile all again."""
    import pybind11

    kept = Path("build", f"pybind11-{pybind11.__version__}").resolve()
    if not kept.exists():
        part = kept.parent / f"{kept.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(Path(pybind11.__file__).parent, part)
        part.rename(kept)
    return kept


def build_folder():
    """Not build_temp, which an editable install throws away. One for all Pythons: only _decoder differs between them."""
    build = Path("build", "cmake").resolve()
    try:
        build.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot build in {build}: {error.strerror}")
    cache = build / "CMakeCache.txt"
    if cache.is_file():
        known = cache.read_text()
        if f"={build}\n" not in known:
            # Of a tree that was moved or copied, which CMake refuses.
            shutil.rmtree(build)
        elif f"={sys.executable}\n" not in known:
            # Objects stay, what was found of another Python goes.
            cache.unlink()
    return build


class CMakeBuild(build_ext):
    def run(self):
        check_machine()
        torch = find_torch()
        version = torch_version(torch)
        check_compiler()
        for tool in ("cmake", "ninja"):
            if not shutil.which(tool):
                fail(f"building without isolation needs {tool}: pip install {tool}")
        if not importlib.util.find_spec("pybind11"):
            fail("building without isolation needs pybind11: pip install pybind11")
        # version.py of a torch with CUDA says cuda = '13.0', of one without cuda = None.
        cuda = bool(re.search(r"^cuda(?:: [^=]*)? = '", version, re.MULTILINE))
        output = Path("asrkern" if self.inplace else Path(self.build_lib) / "asrkern").resolve()
        build = build_folder()
        configure = [
            *("cmake", "-S", str(Path(__file__).parent.resolve()), "-B", str(build), "-G", "Ninja"),
            f"-DASRKERN_TORCH_DIR={torch}",
            f"-DASRKERN_OUTPUT_DIR={output}",
            f"-DASRKERN_CUDA={'ON' if cuda and shutil.which('nvcc') else 'OFF'}",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={keep_pybind11() / 'share/cmake/pybind11'}",
        ]
        for step in (configure, ["cmake", "--build", str(build)]):
            if subprocess.run(step).returncode:
                fail(f"the build failed at `{' '.join(step[:4])} …`; its first error is above")

    def get_outputs(self):
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        folder = Path(self.build_lib) / "asrkern"
        return [
            str(p)
            for p in map(folder.joinpath, ("_C.so", "_C_cuda.so", f"_decoder{suffix}", "_gpu_checked.json"))
            if p.exists()
        ]

    def get_output_mapping(self):
        return {}


setup(
    # The extension's name marks the wheel as built for this platform; CMake knows what it is made of.
    ext_modules=[Extension("asrkern._C", [])],
    cmdclass={"build_ext": CMakeBuild},
    # Only when there is none: the torch that is already there is the one to build against.
    setup_requires=[] if find_torch() else [f"torch>={'.'.join(map(str, OLDEST_TORCH))}"],
)
