"""benchmarks/models/crowded.py: CPU time apart from wall-clock time, and commands that fail."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "models" / "crowded.py"
WORK = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def test_measures_cpu_apart_from_wall_clock():
    result = run("--load", "4", "--", sys.executable, "-c", WORK)
    assert result.returncode == 0, result.stderr
    header, _, alone, beside, ratio = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines()
    )
    assert header == ["", "wall s", "CPU s"] and beside[0] == "beside 4"
    assert 0.4 <= float(alone[2]) < 2 and 0.5 < float(ratio[2]) < 2


def test_too_much_cpu_and_failures_are_errors():
    result = run("--load", "1", "--most", "0.1", "--", sys.executable, "-c", WORK)
    assert result.returncode == 1 and "expected at most 0.1 times" in result.stderr
    result = run("--", sys.executable, "-c", "raise SystemExit(3)")
    assert result.returncode == 1 and "exit status 3" in result.stderr
