"""gpu_check.py as it is, with a stand-in for the device: ``python -m tests.kernels.rehearsal FOLDER [KERNEL:STAGE=BEHAVIOUR…] -- …``.

What follows the dashes are gpu_check.py's arguments. Processes, deadlines and the record are its own. In place of what
needs a GPU it runs: of the build, a file and what ptxas would print; of the small cases, ``stand_in.py``; of the tests,
one that passes; of the times, a row. STAGE is "small" or "tests"; BEHAVIOUR is "fails", "hangs", "hangs long" or "dies".
FOLDER has what stand_in.py needs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.qualification import gpu_check

ABOUT = {"python": "3", "torch": "2", "cuda": "13.0", "device": "stand-in", "capability": [9, 0]}
PTXAS = """ptxas info    : Compiling entry function 'f' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers"""
TEST = """
import ctypes, os
import pytest

@pytest.mark.gpu
def test_first():
    pass

@pytest.mark.gpu
def test_second():
    {}
"""
BEHAVIOURS = {
    "": "pass",
    "fails": "assert 1 == 2",
    "hangs": "ctypes.PyDLL(None).pause()",
    "dies": "os.abort()",
}
#: Of what hangs, which is not waited for long; of all else, so that only a hang is killed, however busy the machine.
HANG_SECONDS, SECONDS = 6, 300


def printing(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


class Rehearsal:
    """In place of gpu_check.run; behaviours: "KERNEL:STAGE" → BEHAVIOUR."""

    def __init__(self, folder: Path, behaviours: dict[str, str]) -> None:
        self.folder, self.behaviours, self.real = folder, behaviours, gpu_check.run

    def __call__(self, command: list[str], seconds: float, **environment: str) -> gpu_check.Finished:
        text = " ".join(command)
        behaviour = ""
        if "platform.python_version" in text:
            command = printing(json.dumps(ABOUT))
        elif "pip install" in text:
            built = self.folder / "tree" / "built"
            built.mkdir(parents=True, exist_ok=True)
            (built / "_C.so").write_text("compiled")
            command = printing(PTXAS)
        elif text.endswith("-m asrkern"):
            # What is not built, or unpacked, does not load.
            command = [sys.executable, "-c", f"open({str(self.folder / 'tree' / 'built' / '_C.so')!r})"]
        elif "_gpu_small.py" in text:
            behaviour = self.behaviours.get(f"{command[-1]}:small", "")
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.kernels.stand_in",
                str(self.folder),
                command[-1],
            ]
            command += behaviour.split()[:1]
            environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        elif "-m pytest" in text:
            name = kernel_tested(command)
            behaviour = self.behaviours.get(f"{name}:tests", "")
            file = self.folder / f"test_{name}.py"
            file.write_text(TEST.format(BEHAVIOURS[behaviour]))
            command = [*command[: command.index("-v") + 1], "-p", "no:cacheprovider", str(file)]
            # Others' plugins take most of such a run's time.
            environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        elif "gpu_bench.py" in text:
            command = [sys.executable, "-c", WRITE_ROW, command[command.index("--out") + 1], command[-1]]
        return self.real(command, HANG_SECONDS if behaviour == "hangs" else SECONDS, **environment)


WRITE_ROW = """
import json, sys
ceilings = dict(copy_gb_s=1.0, bf16_tflop_s=1.0, tf32_tflop_s=1.0, fp32_tflop_s=1.0)
times = {"asrkern": dict(median=1.0, low=1.0, high=1.0, samples=1, graph=False)}
row = dict(title="t", row="r", arithmetic="fp32", kernels={}, errors={"asrkern": 0.0}, tolerance=1.0, wrong=[],
           fallback=[], times=times, goals={})
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"group": sys.argv[2], **(ceilings if sys.argv[2] == "ceilings" else row)}) + "\\n")
"""


def kernel_tested(command: list[str]) -> str:
    for name, (chosen, path) in gpu_check.TESTS.items():
        if path in command and (not chosen or chosen in command):
            return name
    return "other"


def main(argv: list[str]) -> int:
    dashes = argv.index("--")
    folder, *behaviours = argv[:dashes]
    gpu_check.run = Rehearsal(Path(folder), dict(text.split("=") for text in behaviours))
    gpu_check.shutil.which = lambda name: None
    gpu_check.BUILT, gpu_check.BUILD_ROOT = ("built/*",), Path(folder) / "tree"
    gpu_check.RESULTS = Path(folder) / "no results"
    return gpu_check.main(argv[dashes + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
