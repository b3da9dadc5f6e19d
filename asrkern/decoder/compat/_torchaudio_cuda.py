"""``torchaudio.models.decoder.cuda_ctc_decoder``."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths
from asrkern.decoder.beam import CTCBeamDecoder, Hypothesis, _count
from asrkern.decoder.compat._names import renamed
from asrkern.decoder.compat._torchaudio import _read_lines
from asrkern.decoder.labels import fields
from asrkern.ops.ctc_beam_search import has_kernel

_NAMES = {"labels": "tokens", "beam_width": "beam_size", "blank": "blank_id", "log_probs": "log_prob"}
_SKIP = 0.95


class CUCTCHypothesis(NamedTuple):
    """One hypothesis, with torchaudio's fields.

    tokens: the indices of its tokens; words: their names; score: the logarithm of the probability of all of its alignments
    that were kept, without the frames that were skipped.
    """

    tokens: list[int]
    words: list[str]
    score: float


class _Sequences(CTCBeamDecoder):
    """A decoder whose results are sequences of tokens, not texts."""

    _joins_texts = False


class CUCTCDecoder:
    """torchaudio's CUDA decoder, which runs on the CPU, too; :func:`cuda_ctc_decoder` makes it.

    Args:
        vocab_list: names of the tokens.
        blank_id: the index of the blank; there only 0.
        beam_size: prefixes kept at each frame; no more than there are tokens.
        nbest: hypotheses returned, at most beam_size.
        blank_skip_threshold: frames whose blank is likelier than this are taken for a certain blank, and cost nothing.
        cuda_stream: where a GPU searches; None: the current stream.

    Raises:
        TypeError: another kind of stream.
        ValueError: an argument out of its range.
    """

    vocab_list: list[str]
    blank_id: int
    blank_skip_threshold: float
    _stream: torch.cuda.Stream | None
    _decoder: CTCBeamDecoder

    def __init__(
        self,
        vocab_list: Sequence[str],
        blank_id: int = 0,
        beam_size: int = 10,
        nbest: int = 1,
        blank_skip_threshold: float = _SKIP,
        cuda_stream: torch.cuda.Stream | None = None,
    ) -> None:
        if cuda_stream is not None and not isinstance(cuda_stream, torch.cuda.Stream):
            raise TypeError(
                f"cuda_stream: expected a torch.cuda.Stream, received {type(cuda_stream).__name__}"
            )
        if not isinstance(blank_skip_threshold, Real) or not 0 <= blank_skip_threshold <= 1:
            raise ValueError(f"blank_skip_threshold: expected 0 to 1, received {blank_skip_threshold!r}")
        self.vocab_list, self.blank_id = list(vocab_list), blank_id
        self.beam_size = min(_count("beam_size", beam_size), max(1, len(self.vocab_list)))
        self.nbest = _count("nbest", nbest)
        if nbest > self.beam_size:
            raise ValueError(
                f"nbest: expected at most beam_size and tokens, {self.beam_size}, received {nbest}"
            )
        self.blank_skip_threshold = math.log(blank_skip_threshold) if blank_skip_threshold else -math.inf
        self._stream = cuda_stream
        with renamed(**_NAMES):
            self._decoder = _Sequences(
                self.vocab_list, beam_width=self.beam_size, nbest=nbest, blank=blank_id, space="", unk_score=0.0,
                history=None, check_normalized=False,
            )  # fmt: skip

    @renamed(**_NAMES)
    def __call__(self, log_prob: Tensor, encoder_out_lens: Lengths) -> list[list[CUCTCHypothesis]]:
        """The n-best of each row.

        Args:
            log_prob: [N, T, V] float32 log-probabilities. On a GPU where asrkern's beam search has been checked it runs
                there, else on the CPU.
            encoder_out_lens: [N] integers, frames of each row.

        Returns:
            N lists, the best hypothesis first; fewer than ``nbest`` where the search has found fewer.

        Raises:
            TypeError: encoder_out_lens are not integers.
            ValueError: log_prob of another shape or dtype, or with NaN; lengths beyond T.
        """
        if not isinstance(log_prob, Tensor) or log_prob.dtype != torch.float32 or log_prob.dim() != 3:
            found = (
                f"{log_prob.dtype} {list(log_prob.shape)}" if isinstance(log_prob, Tensor) else type(log_prob)
            )
            raise ValueError(
                f"log_prob: expected a float32 tensor [N, T, {len(self.vocab_list)}], received {found}"
            )
        if log_prob.shape[2] != len(self.vocab_list):
            raise ValueError(
                f"log_prob: expected {len(self.vocab_list)} tokens, received {list(log_prob.shape)}"
            )
        lengths = as_lengths("encoder_out_lens", encoder_out_lens, len(log_prob)).cpu()
        if bool(((lengths < 0) | (lengths > log_prob.shape[1])).any()):
            raise ValueError(
                f"encoder_out_lens: expected 0 to {log_prob.shape[1]}, the frames, received {lengths.tolist()}"
            )
        on_gpu = log_prob.is_cuda and has_kernel(log_prob.device)
        if on_gpu and self._decoder.device != log_prob.device:
            self._decoder = self._decoder.to(log_prob.device)
        decoder = self._decoder if on_gpu else self._decoder.to("cpu")
        with torch.cuda.stream(self._stream) if on_gpu and self._stream else contextlib.nullcontext():
            found = decoder.decode(*self._without_skipped(log_prob, lengths))
        return [[self._hypothesis(best) for best in row] for row in found]

    def _hypothesis(self, found: Hypothesis) -> CUCTCHypothesis:
        return CUCTCHypothesis(
            list(found.tokens), [self.vocab_list[index] for index in found.tokens], found.score
        )

    def _without_skipped(self, log_prob: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Of neighbouring frames that are skipped one stays, as a certain blank, so that repeated tokens stay apart."""
        is_blank = log_prob[..., self.blank_id] > self.blank_skip_threshold
        again = is_blank.clone()
        again[:, 1:] &= is_blank[:, :-1]
        again[:, :1] = False
        inside = torch.arange(log_prob.shape[1], device=log_prob.device) < lengths[:, None].to(
            log_prob.device
        )
        kept = inside & ~again
        counts = kept.sum(1)
        # The frames that stay come first, in their order.
        order = (
            (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts.max()) if len(counts) else 0]
        )
        rows = torch.arange(len(log_prob), device=log_prob.device)[:, None]
        certain_blank = log_prob.new_full((log_prob.shape[2],), -math.inf)
        certain_blank[self.blank_id] = 0.0
        frames = torch.where(is_blank[rows, order][..., None], certain_blank, log_prob[rows, order])
        return frames, counts.cpu()


@renamed(**_NAMES)
def cuda_ctc_decoder(
    tokens: str | os.PathLike[str] | Sequence[str],
    nbest: int = 1,
    beam_size: int = 10,
    blank_skip_threshold: float = _SKIP,
) -> CUCTCDecoder:
    """``torchaudio.models.decoder.cuda_ctc_decoder``; arguments as there. The blank is the first token.

    Args:
        tokens: names, or a file of them: the first of each line.
        nbest: hypotheses returned, at most beam_size.
        beam_size: prefixes kept at each frame; no more than there are tokens.
        blank_skip_threshold: frames whose blank is likelier than this are taken for a certain blank, and cost nothing.

    Raises:
        OSError: the file cannot be read.
        ValueError: no tokens, or an argument out of its range.
    """
    if isinstance(tokens, (str, os.PathLike)):
        tokens = [line[0] for line in map(fields, _read_lines(tokens)) if line]
    return CUCTCDecoder(tokens, beam_size=beam_size, nbest=nbest, blank_skip_threshold=blank_skip_threshold)
