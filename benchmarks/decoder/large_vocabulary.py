"""CTC search over large vocabularies with a language model of tokens, on one core: greedy, and beam 16.

    python benchmarks/decoder/large_vocabulary.py

Outputs and language model are made up: tokens are as unevenly frequent as words of a language (Zipf), and the network
gives the right one of them (or blank) about half of the probability (``unsure``) or nearly all (``sure``), and noise to
the others. The model of order 3 is estimated from such tokens. Stands beside greedy decoding without a model: beam 1 is
greedy with the model (shallow fusion), which takes at each frame the best of staying and of log p + alpha ln p_lm + beta.
``acoustic model`` is what DeepSpeech2's preset ``small`` takes for one of its 50 frames a second, with 1,024 labels and
random weights. Each search's texts are compared with those of a beam of the same width in which nothing is skipped, in
plain Python, for the first frames of the smaller vocabularies. Each round runs everything once, another one first each
time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern import models
from asrkern.decoder import CTCBeamDecoder, NGramLM, greedy_decode
from asrkern.reference.ctc_beam_search import greedy_with_lm
from benchmarks._report import markdown_table
from benchmarks._timing import interleaved, machine

VOCABULARIES = (1024, 128_000)
FRAMES = {1024: 500, 128_000: 60}
COMPARED_FRAMES = 40
PRUNING = {"token_min_logp": -5.0, "beam_prune_logp": -10.0}
# Of the network's right token above ln V, by which all others together weigh as much as 1 of it.
SURENESS = {"unsure": 0.5, "sure": 5.0}
ALPHA, BETA = 0.5, 0.0
GREEDY, ACOUSTIC = "greedy, no model", "acoustic model"


def tokens_of(count: int, vocabulary: int, seed: int) -> list[int]:
    """Token i is as frequent as 1 / (i + 1)."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, vocabulary + 1)))
    return random.Random(seed).choices(range(vocabulary), cum_weights=weights, k=count)


def labels_of(vocabulary: int) -> list[str]:
    return [*(f"{'▁' * (i % 2)}t{i}" for i in range(vocabulary)), "<blank>"]


def make_model(vocabulary: int, sentences: int = 20_000, length: int = 12) -> NGramLM:
    labels = labels_of(vocabulary)
    words = iter(labels[i] for i in tokens_of(sentences * length, vocabulary, 0))
    text = (" ".join(itertools.islice(words, length)) for _ in range(sentences))
    return NGramLM.estimate(text, 3, unit="token", discount_fallback=True)


def make_log_probs(vocabulary: int, frames: int, sureness: float) -> Tensor:
    """[frames, vocabulary + 1], the blank last; one to four blanks behind each token."""
    draw = random.Random(1)
    path: list[int] = []
    for token in tokens_of(frames, vocabulary, 1):
        path += [token, *[vocabulary] * draw.randint(1, 4)]
    noise = torch.randn(frames, vocabulary + 1, generator=torch.Generator().manual_seed(0))
    noise[torch.arange(frames), torch.tensor(path[:frames])] += math.log(vocabulary) + 0.5 + sureness
    return noise.log_softmax(-1)


def searches(vocabulary: int, lm: NGramLM) -> dict[str, CTCBeamDecoder]:
    labels = labels_of(vocabulary)
    options = {"alpha": ALPHA, "beta": BETA, "num_threads": 1, "unit": "token", "lm_token_offset": 0}
    greedy = CTCBeamDecoder(labels, lm, beam_width=1, **options)
    beam = greedy.replace(beam_width=16)
    return {
        "beam 1 (greedy)": greedy,
        "beam 16, pruned": beam.replace(**PRUNING),
        "beam 16, top 64 tokens": beam.replace(top_tokens=64),
        "beam 16, everything": beam,
        "beam 16, everything, no model": CTCBeamDecoder(labels, beam_width=16, num_threads=1),
    }


def differs(decoder: CTCBeamDecoder, log_probs: Tensor, lm: NGramLM) -> bool:
    """Whether greedy search with the model finds something else than the reference."""
    rows = log_probs[:COMPARED_FRAMES].tolist()
    ids = decoder.context.lm_tokens.tolist()
    found, _ = greedy_with_lm(rows, lm, ids, blank=len(rows[0]) - 1, alpha=ALPHA, beta=BETA)
    return tuple(decoder.decode(log_probs[:COMPARED_FRAMES])[0].tokens) != found


def acoustic_model() -> tuple[Callable[[], object], int]:
    """A call over ten seconds of audio, and its frames of output."""
    labels = tuple(labels_of(1024))
    torch.manual_seed(0)
    model = models.build("deepspeech2_small", labels=labels).eval()
    features = torch.randn(1, 1, model.n_features, 1000)
    lengths = torch.tensor([1000])
    return torch.no_grad()(lambda: model(features, lengths)), int(model.output_length(1000))


def measure(vocabulary: int, rounds: int) -> list[dict[str, str]]:
    lm = make_model(vocabulary)
    decoders = searches(vocabulary, lm)
    per_frame: dict[str, dict[str, float]] = {}
    for name, sureness in SURENESS.items():
        frames = FRAMES.get(vocabulary, 100)
        log_probs = make_log_probs(vocabulary, frames, sureness)
        if vocabulary <= 4096 and differs(decoders["beam 1 (greedy)"], log_probs, lm):
            raise SystemExit(
                f"FAILED: greedy search finds another text than the reference ({vocabulary}, {name})"
            )
        calls: dict[str, Callable[[], object]] = {
            GREEDY: lambda x=log_probs: greedy_decode(x[None], blank=vocabulary),
            **{title: lambda d=d, x=log_probs: d.decode(x) for title, d in decoders.items()},
        }
        for title, seconds in interleaved(calls, rounds=rounds, seconds=0).items():
            per_frame.setdefault(title, {})[name] = 1e6 * median(seconds) / frames
    return [
        {
            "labels": str(vocabulary),
            "": title,
            **{f"µs a frame, {name}": f"{x:.3g}" for name, x in found.items()},
        }
        for title, found in per_frame.items()
    ]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 if a text differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=positive, nargs="+", default=list(VOCABULARIES))
    parser.add_argument("--rounds", type=positive, default=7)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    about = machine(torch.device("cpu"))
    print(
        f"{about['cpu']}, one thread, torch {about['torch']}. Medians of {arguments.rounds} rounds.\n",
        flush=True,
    )
    rows = [row for vocabulary in arguments.vocabulary for row in measure(vocabulary, arguments.rounds)]
    call, frames = acoustic_model()
    [seconds] = interleaved({ACOUSTIC: call}, rounds=3, seconds=0).values()
    cost = f"{1e6 * median(seconds) / frames:.3g}"
    rows.append({"labels": "1024", "": ACOUSTIC, **{f"µs a frame, {name}": cost for name in SURENESS}})
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
