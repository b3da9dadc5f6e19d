"""Generated requests, most of them bad, from the server's own description.

For longer, against a server that runs: the same command with more examples.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from asrkern.serve.limits import Limits
from tests.serve.live import serving, streaming_searches

SCHEMATHESIS = shutil.which("schemathesis")


@pytest.mark.skipif(SCHEMATHESIS is None, reason="no schemathesis here")
def test_answers_are_those_of_the_description(tmp_path: Path) -> None:
    with serving(streaming_searches(), Limits(upload_mib=4)) as live:
        # A generated file is no audio, so valid forms are refused.
        options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "25", "--no-color"]
        command = [SCHEMATHESIS, "run", f"{live.url}/openapi.json", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert live.get("/healthz").json()["status"] == "ok"
