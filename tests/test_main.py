"""What python -m asrkern prints, and that importing asrkern stays light."""

import os
import re
import subprocess
import sys

import pytest
import torch

import asrkern
from asrkern._report import describe


def run(code_or_module, **environment):
    args = [sys.executable, *code_or_module]
    return subprocess.run(args, capture_output=True, text=True, env={**os.environ, **environment})


def test_prints_what_is_active():
    result = run(["-m", "asrkern"], ASRKERN_CPU_ISA="scalar")
    assert result.returncode == 0, result.stderr
    printed = dict(
        line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith("CPU")
    )
    assert printed["asrkern"] == asrkern.__version__
    assert printed["torch"] == torch.__version__
    assert re.search("^CPU kernels +scalar$", result.stdout, re.MULTILINE)
    assert set(describe()) >= {"threads", "CUDA", "gru_forward", "triton"}


@pytest.mark.parametrize("isa", ["avx1024", "AVX2"])
def test_an_unknown_isa_is_refused(isa):
    result = run(["-m", "asrkern"], ASRKERN_CPU_ISA=isa)
    assert result.returncode == 1
    assert f"ASRKERN_CPU_ISA: expected scalar, avx2, avx512 or avx512_vnni, received {isa}" in result.stderr


def test_import_stays_light():
    code = "import sys, asrkern, asrkern.nn, asrkern.models; print([m for m in ('torchaudio', 'torch._dynamo') if m in sys.modules])"
    result = run(["-c", code])
    assert result.stdout.strip() == "[]", result.stderr


def test_check_mode_fills_outputs_with_nan_and_none_is_left():
    code = (
        "import torch; from asrkern import ops\n"
        "w = ops.GRUWeights(torch.randn(6, 3), torch.randn(6, 2))\n"
        "o, h = ops.gru(torch.randn(5, 3, 3), w, w, lengths=torch.tensor([2, 0, 4]))\n"
        "c = ops.masked_conv2d(torch.randn(2, 1, 5, 9), torch.randn(3, 1, 3, 3), lengths=torch.tensor([9, 4]))\n"
        "b = ops.batch_norm_act(torch.randn(2, 4, 3), None, None, None, None, torch.tensor([4, 1]), layout='NTC', training=True)\n"
        "print(all(t.isfinite().all() for t in (o, h, c, b.output)))"
    )
    result = run(["-c", code], ASRKERN_CHECK="1")
    assert result.stdout.strip() == "True", result.stderr
