"""ASRKERN_LOG=ops."""

from __future__ import annotations

import os
import subprocess
import sys

from asrkern.ops import _autograd, _log

CODE = """
import torch, asrkern.decoder, asrkern.nn, asrkern.ops
layer = asrkern.nn.GRU(3, 4)
output, _ = layer(torch.randn(5, 2, 3), lengths=[5, 0])
output.sum().backward()
asrkern.ops.ctc_beam_search(torch.randn(1, 6, 3).log_softmax(-1), torch.tensor([6]), beam_width=2)
print(torch.func.vmap(lambda x: asrkern.ops.linear(x, torch.ones(2, 3)))(torch.ones(4, 5, 3)).shape)
compiled = torch.compile(lambda x: asrkern.ops.linear(x, torch.ones(2, 3)), backend="eager", fullgraph=True)
print(compiled(torch.ones(7, 3)).shape)
"""


def run(switch: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASRKERN_LOG": switch}
    return subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)


def test_each_call_is_a_line() -> None:
    done = run("ops")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("asrkern.")]
    assert lines[0] == (
        "asrkern.gru(input=float32[5, 2, 3], lengths=int64[2], weight_ih=float32[12, 3], weight_hh=float32[12, 4], "
        "bias_ih=float32[12], bias_hh=float32[12], batch_first=False, save_reserve=True)"
    )
    assert lines[1].startswith(
        "asrkern.gru_backward(grad_output=float32[5, 2, 4], grad_h_n=float32[1, 2, 4], "
    )
    assert lines[2].startswith("asrkern.ctc_beam_search(log_probs=float32[1, 6, 3], lengths=int64[1], ")
    assert "token_kinds=uint8[3], " in lines[2] and "beam_width=2, " in lines[2]
    # The traced call is none.
    assert [line.partition("(")[0] for line in lines[3:]] == ["asrkern.linear"]
    assert done.stdout == run("").stdout


def test_another_value_is_refused() -> None:
    done = run("op")
    assert done.returncode == 1 and "RuntimeError: ASRKERN_LOG: expected ops, received op" in done.stderr


def test_without_it_calls_are_themselves(monkeypatch) -> None:
    monkeypatch.delenv("ASRKERN_LOG", raising=False)
    assert _log.logged(run) is run
    assert os.environ.get("ASRKERN_LOG") or not hasattr(_autograd.call, "__wrapped__")
