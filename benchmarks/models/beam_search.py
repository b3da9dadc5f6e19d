"""Beam search of a LAS model over stock torch's layers and over asrkern's: seconds for an utterance, and their ratio.

    python benchmarks/models/beam_search.py                              las_hw4, las_hw4_mobile and las_kospeech
    python benchmarks/models/beam_search.py las_hw4 --width 8 --seconds 4

The search is asrkern's, the listener, the steps of the speller and its attention are stock torch's layers or asrkern's, on
random weights and noise. No token ends a hypothesis, so that all take as many steps: 15 tokens for each second. Hypotheses
and their log-probabilities are compared before anything is timed; those of int8 weights are other ones, so there the
log-probabilities of the stock search's best tokens are compared. A model in which they differ has no times, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.models import LAS, las_search, registry
from asrkern.models.cost import FRAMES_PER_SECOND, TOKENS_PER_SECOND
from asrkern.models.las_search import Hypothesis, Ranking
from asrkern.models.speller import CellSpeller
from asrkern.models.speller_steps import Steps, steps_of
from asrkern.nn import freeze, quantize
from benchmarks._report import Progress, markdown_table, milliseconds
from benchmarks._timing import interleaved, machine
from benchmarks.models._systems import system_of
from benchmarks.models._torch_twin import sharing_weights, with_torch_layers, with_torch_operations

CPU = torch.device("cpu")
STOCK, ASRKERN, INT8 = "torch", "asrkern", "asrkern int8"
MODELS = ("las_hw4", "las_hw4_mobile", "las_kospeech")
# Of the log-probability of a hypothesis: float32 sums whose order differs.
TOLERANCE = 1e-4


class Search:
    """A backend: called, the hypotheses of one utterance, the best first."""

    def __init__(self, model: LAS, backend: str, frames: int, width: int) -> None:
        self.steps, self.width = steps_of, width
        if backend == STOCK:
            self.model, self.steps = with_torch_layers(model), Steps
        else:
            self.model = freeze(quantize(model) if backend == INT8 else sharing_weights(model))
        self.backend = backend
        self.features = torch.randn(
            1, 1, model.n_features, frames, generator=torch.Generator().manual_seed(0)
        )
        self.tokens = frames * TOKENS_PER_SECOND // FRAMES_PER_SECOND + 1

    def _run(self, function: Callable[[], list]) -> list:
        run = with_torch_operations(function) if self.backend == STOCK else function
        with torch.inference_mode(), mock.patch.object(las_search, "steps_of", self.steps):
            return run()

    def _memory(self):
        return self.model.listen(self.features, [self.features.shape[-1]])

    def __call__(self) -> list[Hypothesis]:
        def search() -> list[Hypothesis]:
            ends = self.model.config.sos_token, self.model.config.eos_token
            (found,) = las_search.beam_search(
                self.model.speller, self._memory(), *ends, self.tokens, self.width, Ranking()
            )
            return found

        return self._run(search)

    def log_probs(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, num_tokens] along the way of these tokens."""

        def walk() -> list[Tensor]:
            steps = self.steps(self.model.speller, self._memory())
            state, rows = steps.start(), []
            for token in (self.model.config.sos_token, *tokens[:-1]):
                logits, _, state = steps.step(torch.tensor([token]), state)
                rows.append(logits[0].log_softmax(-1))
            return rows

        return torch.stack(self._run(walk))


@torch.no_grad()
def without_end(model: LAS) -> None:
    """Make the end of a sequence improbable, so that no hypothesis takes it."""
    speller = model.speller
    output = speller.char_prob if isinstance(speller, CellSpeller) else speller.out
    output.bias[model.config.eos_token] = -1e4


def difference(searches: dict[str, Search]) -> str | None:
    """What differs between the backends, or None."""
    expected, ours = searches[STOCK](), searches[ASRKERN]()
    for a, b in zip(expected, ours, strict=True):
        if a.tokens != b.tokens or not abs(a.log_prob - b.log_prob) <= TOLERANCE * abs(a.log_prob):
            return f"FAILED: {b.log_prob:.6g} for {a.log_prob:.6g}, or other tokens"
    model, best = searches[STOCK].model, expected[0].tokens
    moved = (searches[INT8].log_probs(best) - searches[STOCK].log_probs(best)).abs().max()
    if not float(moved) <= system_of(model).quantized_tolerance:
        return f"FAILED: int8 moves a log-probability by {float(moved):.2g}"
    return None


def measure(name: str, frames: int, width: int, rounds: int) -> dict[str, str]:
    """Compare, then time: the cells of one row by the header of their columns."""
    torch.manual_seed(0)
    model = registry.build(name).eval()
    without_end(model)
    searches = {backend: Search(model, backend, frames, width) for backend in (STOCK, ASRKERN, INT8)}
    row = {"": name, "frames": str(frames), "steps": str(searches[STOCK].tokens), "width": str(width)}
    failure = difference(searches)
    if failure is not None:
        return {**row, f"{ASRKERN} ms": failure}
    times = interleaved(searches, rounds=rounds, seconds=0.0)
    stock = median(times[STOCK])
    return {
        **row,
        **{f"{backend} ms": milliseconds(taken) for backend, taken in times.items()},
        "rounds": str(rounds),
        **{f"{STOCK} / {backend}": f"{stock / median(times[backend]):.2f}" for backend in (ASRKERN, INT8)},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if an output differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--width", type=int, default=8, metavar="N", help="hypotheses at each step (8)")
    parser.add_argument("--seconds", type=int, default=4, metavar="N", help="of the utterance (4)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="for each model (5)")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.models if name not in MODELS]:
        parser.error(f"expected some of {', '.join(MODELS)}, received {unknown[0]!r}")
    for name in ("width", "seconds", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(
                f"argument --{name}: expected a positive integer, received {getattr(arguments, name)}"
            )
    about = machine(CPU)
    print(
        f"{about['cpu']}, {about['threads']} threads: torch {about['torch']} ({about['torch_isa']}), "
        f"asrkern ({about['asrkern_isa']}). An utterance's milliseconds: median (least..most).\n"
    )
    names, progress, rows = arguments.models or MODELS, Progress(), []
    progress.start("searches", len(names))
    for name in names:
        rows.append(measure(name, arguments.seconds * FRAMES_PER_SECOND, arguments.width, arguments.rounds))
        progress.step()
    progress.end()
    print(markdown_table(rows))
    return 0 if all("rounds" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
