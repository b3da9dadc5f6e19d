"""What minutes of audio take of memory, in a process of their own: no more than their samples and features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import soundfile

# Growth of the largest resident memory in MiB, beyond what importing, and a second of the same, took.
SCRIPT = """
import sys
from pathlib import Path
import torch
from asrkern.data import Spectrogram, load_audio
torch.set_num_threads(1)
def work(path):
    task = sys.argv[2]
    if task == "load":
        return len(load_audio(path))
    return Spectrogram(normalization=task)(torch.zeros(16000 * (1 if "second" in path else 180)))
def peak():
    # Not ru_maxrss, which begins with what the tests' process has.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
work(sys.argv[1] + "/second")
before = peak()
work(sys.argv[1] + "/minutes")
print(peak() - before)
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and three minutes of stereo at 44.1 kHz."""
    folder, draw = tmp_path_factory.mktemp("recordings"), numpy.random.default_rng(0)
    for name, seconds in (("second", 1), ("minutes", 180)):
        with soundfile.SoundFile(folder / name, "w", 44100, 2, "PCM_16", format="FLAC") as file:
            for _ in range(seconds):
                file.write(draw.integers(-99, 99, (44100, 2), numpy.int16))
    return folder


# The samples are 11 MiB, the spectrogram also. In one piece, loading took 1 to 3 GiB, and "running" features 188 MiB.
@pytest.mark.parametrize("task, most", [("load", 30), ("running", 120)])
def test_memory_is_bounded(recordings: Path, task: str, most: float) -> None:
    command = [sys.executable, "-c", SCRIPT, str(recordings), task]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < most
