"""A user's first calls, with the installed package alone: layers against torch's, a beam search, errors."""

import sys

import torch

import asrkern.nn
from asrkern import _decoder
from asrkern.decoder import CTCBeamDecoder

torch.manual_seed(0)
x = torch.randn(9, 3, 20)

stock = torch.nn.GRU(20, 16, bidirectional=True)
ours = asrkern.nn.GRU(20, 16, bidirectional=True)
ours.load_state_dict(stock.state_dict())
torch.testing.assert_close(ours(x)[0], stock(x)[0], rtol=1e-5, atol=1e-6)
ours(x)[0].sum().backward()

log_probs = torch.randn(2, 9, 4).log_softmax(-1)
decoder = CTCBeamDecoder(["_", "a", "b", " "], beam_width=8)
[[best, *_], _] = decoder.decode(log_probs, [9, 5])

# Errors of both modules' C++ on their way through that of torch and Python.
for call in (
    lambda: ours(x, lengths=[9, 10, 1]),
    lambda: _decoder.ArpaReader().feed(b"\\data\\\nngram 1=x\n"),
):
    try:
        call()
    except ValueError:
        continue
    sys.exit("expected a ValueError")

print(
    f"asrkern {asrkern.__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.ops.asrkern.cpu_isa()}"
)
