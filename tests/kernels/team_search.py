"""Runs tests/kernels/cpp/ctc_beam_search.cpp, the algorithm of the CUDA kernel on threads of the CPU."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrkern.ops import CTCBeamSearchResult, CTCContext

ROOT = Path(__file__).resolve().parents[2]
_EXACT = [
    "-std=c++20",
    "-ffp-contract=off",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Werror",
]


def build(folder: Path, *flags: str, name: str = "ctc_beam_search") -> Path:
    """Compiles tests/kernels/cpp/<name>.cpp with these flags more."""
    program = folder / name
    source = ROOT / f"tests/kernels/cpp/{name}.cpp"
    trie = ROOT / "kernels/lm/ngram_trie.cpp"
    subprocess.run(["c++", *_EXACT, *flags, "-I", ROOT, source, trie, "-o", program], check=True)
    return program


def search(
    program: Path,
    log_probs: Tensor,
    lengths: Tensor | None = None,
    *,
    context: CTCContext,
    threads: int,
    block: bool = False,
    tree_room: int = 0,
    blank: int = 0,
    beam_width: int = 100,
    nbest: int = 1,
    top_tokens: int | None = None,
    token_min_logp: float = -math.inf,
    beam_prune_logp: float = -math.inf,
    blank_penalty: float = 0.0,
    log_add: bool = True,
    history: int = 512,
    check_normalized: bool = True,
) -> CTCBeamSearchResult:
    """asrkern.ops.ctc_beam_search by a team of ``threads`` threads; 0: the team that is one thread.

    block: as a block of a GPU, of warps of 32, whose instructions are emulated.
    tree_room: nodes that the trees of prefixes and alignments may have; 0: as many as the plan gives them.
    """
    rows, frames, vocabulary = log_probs.shape
    sizes = [
        rows, frames, vocabulary, threads, tree_room, block, context.lm_order, context.lm_bos, context.lm_eos,
    ]  # fmt: skip
    numbers = [
        context.alpha, context.beta, math.nan if context.unk_score is None else context.unk_score,
        context.unknown_look_ahead, context.begin_reach,
    ]  # fmt: skip
    options = [
        blank, beam_width, nbest, top_tokens or vocabulary, token_min_logp, beam_prune_logp, blank_penalty, log_add,
        history, check_normalized,
    ]  # fmt: skip
    empty = torch.zeros(0)
    arrays = [
        np.array(sizes, np.int64), np.array(numbers, np.float64), np.array(options, np.float64), log_probs.float(),
        empty if lengths is None else lengths.long(), context.token_kinds,
        *(*context.language_model, empty, empty, empty)[:3],
        empty if context.lm_tokens is None else context.lm_tokens,
        *(context.lexicon or [empty] * 9), *(context.hotwords or [empty] * 7),
        empty if context.texts is None else context.texts,
    ]  # fmt: skip
    problem, result = program.with_suffix(".problem"), program.with_suffix(".result")
    with problem.open("wb") as file:
        for array in arrays:
            values = np.ascontiguousarray(array)
            file.write(np.int64(values.nbytes).tobytes() + values.tobytes())
    done = subprocess.run([program, problem, result], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = result.read_bytes()

    def take(dtype, *shape):
        nonlocal data
        size = int.from_bytes(data[:8], "little")
        values = np.frombuffer(data[8 : 8 + size], dtype).reshape(shape)
        data = data[8 + size :]
        return torch.from_numpy(values.copy())

    tokens = take(np.int32, rows, nbest, frames)
    timesteps = take(np.int32, rows, nbest, frames, 2)
    words = take(np.int32, rows, nbest, frames)
    confidences = take(np.float32, rows, nbest, frames)
    token_lengths = take(np.int32, rows, nbest)
    scores, am_scores = take(np.float64, rows, nbest), take(np.float64, rows, nbest)
    return CTCBeamSearchResult(
        tokens, timesteps, words, confidences, token_lengths, scores, am_scores, take(np.int32, rows, 2)
    )
