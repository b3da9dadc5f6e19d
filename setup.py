"""Finds torch, runs CMake; nothing else. Metadata: pyproject.toml; sources: CMakeLists.txt."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def find_torch():
    """The torch to build against: the user's own, which pip's build isolation hides from import but not from disk."""
    installed = Path(sysconfig.get_path("purelib")) / "torch"
    if (installed / "version.py").is_file():
        return installed
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


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


def fail(message):
    sys.exit(f"asrkern: {message}")


class CMakeBuild(build_ext):
    def run(self):
        torch = find_torch()
        if torch is None:
            fail("building needs torch >= 2.10: pip install torch")
        version = re.search(r"__version__ = '(\d+)\.(\d+)", (torch / "version.py").read_text())
        if not version or (int(version[1]), int(version[2])) < (2, 10):
            fail(
                f"building needs torch >= 2.10, found {version.group() if version else 'another'} in {torch}"
            )
        if not shutil.which(os.environ.get("CXX", "c++").split()[0]):
            fail("building needs a C++20 compiler: install g++ >= 11 or clang >= 14, or set CXX")
        for tool in ("cmake", "ninja"):
            if not shutil.which(tool):
                fail(f"building without isolation needs {tool}: pip install {tool}")
        # version.py of a torch with CUDA says cuda = '13.0', of one without cuda = None.
        cuda = bool(re.search(r"^cuda(?:: [^=]*)? = '", (torch / "version.py").read_text(), re.MULTILINE))
        output = Path("asrkern" if self.inplace else Path(self.build_lib) / "asrkern").resolve()
        # Not build_temp, which an editable install throws away.
        build = Path("build", f"cmake-{sys.implementation.cache_tag}").resolve()
        cache = build / "CMakeCache.txt"
        if cache.is_file() and f"={build}\n" not in cache.read_text():
            # Of a tree that was moved or copied, which CMake refuses.
            shutil.rmtree(build)
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
    setup_requires=[] if find_torch() else ["torch>=2.10"],
)
