"""Swap the layers of a model for asrkern's, compare its output, and time both.

python examples/swap_layers.py [MODULE:FUNCTION]

MODULE:FUNCTION names a function of yours that returns a model and a tuple of its inputs. Without it, the model is the
one below.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time

import torch
from torch import Tensor, nn

import asrkern

ROUNDS = 3


class SomeonesModel(nn.Module):
    """Convolutions, three bidirectional LSTMs and an output layer, in nothing but torch: [N, 80, T] → [N, T / 2, 29]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=(20, 5)), nn.BatchNorm2d(32), nn.Hardtanh(0, 20)
        )
        self.rnn = nn.LSTM(32 * 40, 256, num_layers=3, bidirectional=True, batch_first=True)
        self.output = nn.Linear(512, 29)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv(features[:, None])  # [N, 32, 40, T / 2]
        x, _ = self.rnn(x.flatten(1, 2).transpose(1, 2))
        return self.output(x).log_softmax(-1)


def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model, and 3 s of an utterance."""
    torch.manual_seed(0)
    return SomeonesModel(), (torch.randn(1, 80, 300),)


def find(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What the function MODULE:FUNCTION returns; modules of the working directory count."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), function)()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("function", nargs="?", metavar="MODULE:FUNCTION")
    options = parser.parse_args()
    theirs, inputs = find(options.function) if options.function else make()
    theirs.eval()

    # A copy; without inplace=False the layers of the model itself are swapped.
    report = asrkern.nn.convert(theirs, inplace=False)
    print(report)
    ours = report.model

    difference = (theirs(*inputs) - ours(*inputs)).abs().max().item()
    print(f"largest difference: {difference:.1e}")
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    for _ in range(ROUNDS):  # by turns, so that a busy machine slows both
        for name, model in zip(seconds, (theirs, ours)):
            start = time.perf_counter()
            model(*inputs)
            seconds[name].append(time.perf_counter() - start)
    before, after = map(statistics.median, seconds.values())
    print(f"before: {1000 * before:.1f} ms, after: {1000 * after:.1f} ms, {before / after:.2f} times as fast")


if __name__ == "__main__":
    main()
