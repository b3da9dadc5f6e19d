"""torchaudio's ``cuda_ctc_decoder`` against sums over all alignments and the plain prefix search."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch

from asrkern.decoder.compat import CUCTCDecoder, CUCTCHypothesis, cuda_ctc_decoder
from asrkern.reference.ctc_beam_search import ctc_beam_search, enumerate_prefixes

TOKENS = ["<blank>", "a", "b", "a"]


def draw(rows: int, frames: int, seed: int = 0, sharp: float = 2.0) -> torch.Tensor:
    """Log-probabilities in which about a third of the frames is a nearly certain blank."""
    generator = torch.Generator().manual_seed(seed)
    x = sharp * torch.randn(rows, frames, len(TOKENS), generator=generator)
    x[..., 0] += 9 * (torch.rand(rows, frames, generator=generator) < 0.3)
    return x.log_softmax(-1)


def skipped(row: torch.Tensor, threshold: float) -> list[list[float]]:
    """A row whose likely blanks are certain: torchaudio leaves such frames out and moves all paths to the blank."""
    certain = [0.0, *[-math.inf] * (len(TOKENS) - 1)]
    limit = math.log(threshold) if threshold else -math.inf
    return [certain if frame[0] > limit else frame for frame in row.tolist()]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95, 1.0])
def test_sums_over_all_alignments(threshold: float) -> None:
    # A beam as wide as torchaudio allows, of few frames and tokens: nothing is lost that would be among the best.
    x, lengths = draw(5, 5, seed=1), torch.tensor([5, 1, 4, 0, 5], dtype=torch.int32)
    found = cuda_ctc_decoder(TOKENS, nbest=1, beam_size=4, blank_skip_threshold=threshold)(x, lengths)
    for row, length, [best] in zip(x, lengths.tolist(), found, strict=True):
        sums = enumerate_prefixes(skipped(row[:length], threshold))
        assert best.score <= sums[tuple(best.tokens)] + 1e-5
        assert best.score == pytest.approx(max(sums.values()), abs=0.25)
        assert isinstance(best, CUCTCHypothesis) and best.words == [TOKENS[index] for index in best.tokens]


@pytest.mark.parametrize("threshold, beam_size", [(0.95, 4), (0.6, 3), (1.0, 2)])
def test_against_the_plain_search(threshold: float, beam_size: int) -> None:
    x, lengths = draw(6, 23, seed=2, sharp=1.5), torch.tensor([23, 11, 22, 1, 23, 7])
    decoder = CUCTCDecoder(TOKENS, 0, beam_size, beam_size, threshold)
    for row, length, hypotheses in zip(x, lengths.tolist(), decoder(x, lengths), strict=True):
        expected = ctc_beam_search(skipped(row[:length], threshold), 0, beam_size)[: len(hypotheses)]
        assert [tuple(each.tokens) for each in hypotheses] == [each.tokens for each in expected]
        assert [each.score for each in hypotheses] == pytest.approx(
            [each.score for each in expected], abs=1e-4
        )
        assert len(hypotheses) == beam_size or length == 1


def test_repeated_tokens_stay_apart_across_skipped_frames() -> None:
    x = torch.full((1, 6, 4), -12.0)
    for frame, token in enumerate((0, 1, 0, 0, 1, 0)):
        x[0, frame, token] = 0.0
    [[best]] = cuda_ctc_decoder(TOKENS)(x, torch.tensor([6]))
    assert best == CUCTCHypothesis([1, 1], ["a", "a"], pytest.approx(0.0, abs=1e-4))
    [[best]] = cuda_ctc_decoder(TOKENS)(x, torch.tensor([1]))
    assert best == CUCTCHypothesis([], [], pytest.approx(0.0, abs=1e-6))


def test_files_and_signature(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<blank> 0\na 1\nb 2\na 3\n")
    x, lengths = draw(2, 9), [9, 8]
    assert cuda_ctc_decoder(str(tmp_path / "tokens.txt"))(x, lengths) == cuda_ctc_decoder(TOKENS)(x, lengths)
    names = {"tokens": inspect.Parameter.empty, "nbest": 1, "beam_size": 10, "blank_skip_threshold": 0.95}
    parameters = inspect.signature(cuda_ctc_decoder).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == names


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: cuda_ctc_decoder([]), ValueError, "tokens: expected at least one, received none"),
        (lambda x: cuda_ctc_decoder(TOKENS, nbest=5), ValueError, "nbest: expected at most .* 4, received 5"),
        (lambda x: cuda_ctc_decoder(TOKENS, beam_size=0), ValueError, "beam_size: expected an integer of at least 1"),
        (lambda x: cuda_ctc_decoder(TOKENS, blank_skip_threshold=1.1), ValueError, "expected 0 to 1, received 1.1"),
        (lambda x: CUCTCDecoder(TOKENS, blank_id=4), ValueError, "blank_id: "),
        (lambda x: CUCTCDecoder(TOKENS, cuda_stream=3), TypeError, "cuda_stream: expected a torch.cuda.Stream"),
        (lambda x: cuda_ctc_decoder(TOKENS)(x[0], [3]), ValueError, "log_prob: expected a float32 tensor"),
        (lambda x: cuda_ctc_decoder(TOKENS)(x.double(), [3]), ValueError, "log_prob: .* received torch.float64"),
        (lambda x: cuda_ctc_decoder(TOKENS[:3])(x, [3]), ValueError, "log_prob: expected 3 tokens, received"),
        (lambda x: cuda_ctc_decoder(TOKENS)(x, [4]), ValueError, "encoder_out_lens: expected 0 to 3, the frames"),
        (lambda x: cuda_ctc_decoder(TOKENS)(x, [-1]), ValueError, "encoder_out_lens: expected 0 to 3, the frames"),
        (lambda x: cuda_ctc_decoder(TOKENS)(x, [2.0]), TypeError, "encoder_out_lens: "),
        (lambda x: cuda_ctc_decoder(TOKENS)(x * math.nan, [3]), ValueError, "log_prob: .*NaN"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call(draw(1, 3))
