"""forced_align and ctc_score against all alignments written out, torch's ctc_loss and torchaudio."""

import itertools
import math
import subprocess
import sys

import pytest
import torch

from asrkern import _decoder
from asrkern.decoder import CTCBeamDecoder, ctc_score, forced_align, token_spans
from asrkern.reference.ctc_beam_search import collapse, enumerate_prefixes
from tests.decoder.models import random_log_probs


def best_path(log_probs, tokens, blank):
    """By enumeration of all V^T paths."""
    paths = itertools.product(range(log_probs.shape[1]), repeat=len(log_probs))
    scored = (
        (sum(frame[v] for frame, v in zip(log_probs.tolist(), path)), path)
        for path in paths
        if collapse(path, blank) == tokens
    )
    return max(scored, default=None)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_equal_enumeration(seed, blank):
    torch.manual_seed(seed)
    log_probs = random_log_probs(6, 3).double()
    for tokens, expected in enumerate_prefixes(log_probs.tolist(), blank).items():
        assert abs(ctc_score(log_probs, tokens, blank=blank).item() - expected) < 1e-6
        score, path = best_path(log_probs, tokens, blank)
        found = forced_align(log_probs, tokens, blank=blank)
        assert tuple(found.path.tolist()) == path
        assert abs(found.scores.sum().item() - score) < 1e-5


@pytest.mark.parametrize(
    "batch, frames, vocabulary, tokens", [(1, 1, 2, 1), (5, 63, 7, 20), (3, 200, 30, 81)]
)
def test_score_is_the_negative_of_ctc_loss(batch, frames, vocabulary, tokens):
    log_probs = random_log_probs(batch, frames, vocabulary)
    blank = vocabulary - 1
    targets = torch.randint(0, vocabulary - 1, (batch, tokens))
    lengths = torch.randint(0, frames + 1, (batch,))
    lengths[0] = frames
    counts = torch.randint(0, tokens + 1, (batch,))
    counts[0] = tokens
    found = ctc_score(log_probs, targets, lengths, counts, blank)
    for row in range(batch):
        # ctc_loss refuses rows without frames.
        if lengths[row] == 0:
            assert found[row] == (0.0 if counts[row] == 0 else -math.inf)
            continue
        loss = torch.nn.functional.ctc_loss(
            log_probs[row, :, None].double(), targets[row : row + 1], lengths[row : row + 1], counts[row : row + 1],
            blank, "none",
        )  # fmt: skip
        assert found[row].item() == pytest.approx(-loss.item(), rel=1e-9, abs=1e-6)


def test_handwriting_oracle(data_dir):
    import json

    import numpy as np

    about = json.loads((data_dir / "decoder_oracles" / "handwriting.json").read_text())
    logits = np.load(data_dir / "decoder_oracles" / "handwriting.npz")["line_logits"]
    targets = [about["chars"].index(letter) for letter in about["line"]["truth"]]
    score = ctc_score(torch.tensor(logits).log_softmax(-1), targets, blank=79).item()
    assert abs(score + about["line"]["ctc_loss_of_truth"]) < 1e-4
    assert math.exp(score) == pytest.approx(about["line"]["prob_of_truth"], rel=1e-4)


def test_equals_torchaudio(torchaudio):
    log_probs, targets = random_log_probs(1, 90, 12), torch.randint(1, 12, (1, 25))
    try:
        path, scores = torchaudio.functional.forced_align(log_probs, targets)
    except (AttributeError, RuntimeError, OSError) as error:
        pytest.skip(f"torchaudio's compiled functions are not there: {error}")
    found = forced_align(log_probs, targets)
    assert torch.equal(found.path, path.long())
    assert torch.allclose(found.scores, scores)


def test_a_padded_batch_is_its_rows():
    log_probs, targets = random_log_probs(3, 30, 6), torch.randint(1, 6, (3, 9))
    lengths, counts = torch.tensor([21, 30, 25]), torch.tensor([0, 9, 4])
    found = forced_align(log_probs, targets, lengths, counts)
    assert found.path.shape == found.scores.shape == (3, 30)
    for row in range(3):
        alone = forced_align(log_probs[row, : lengths[row]], targets[row, : counts[row]])
        assert torch.equal(found.path[row, : lengths[row]], alone.path)
        assert torch.equal(found.scores[row, : lengths[row]], alone.scores)
        assert (found.path[row, lengths[row] :] == -1).all()
    assert [span.token for span in token_spans(found.path[1], found.scores[1])] == targets[1].tolist()


def test_beam_search_finds_the_alignment_of_its_text():
    log_probs = random_log_probs(40, 5)
    for best in CTCBeamDecoder(["-", " ", "a", "b", "c"], nbest=20).decode(log_probs):
        spans = token_spans(*forced_align(log_probs, best.tokens))
        assert best.timesteps == [span.start for span in spans]
        # Alignments outside of the beam are missing from the beam's sum.
        assert best.am_score <= ctc_score(log_probs, best.tokens) + 1e-5


def test_spans():
    path, scores = torch.tensor([0, 2, 2, 0, 2, 1, -1]), torch.tensor([0.0, -1, -3, 0, -4, -5, 0])
    assert token_spans(path, scores) == [(2, 1, 3, -2.0), (2, 4, 5, -4.0), (1, 5, 6, -5.0)]


@pytest.mark.parametrize(
    "args, message",
    [
        ((torch.zeros(3), [1]), "log_probs: expected shape"),
        ((torch.zeros(3, 4, dtype=torch.int64), [1]), "log_probs: expected a floating-point dtype"),
        ((torch.zeros(3, 4), [1.0]), "targets: expected an integer dtype"),
        (
            (torch.zeros(3, 4), [4]),
            "targets: expected tokens between 0 and 3 other than blank, 0, received 4",
        ),
        ((torch.zeros(3, 4), [0]), "targets: expected tokens .* received 0"),
        ((torch.zeros(3, 4), [[1]]), r"targets: expected shape \[L\]"),
        ((torch.zeros(2, 3, 4), [[1]]), r"targets: expected shape \[2, L\]"),
        ((torch.zeros(3, 4), [1], None, None, 4), "blank: expected a token between 0 and 3, received 4"),
        ((torch.zeros(3, 4), [1], None, None, -1), "blank: expected the index of a label, .* received -1"),
        ((torch.zeros(3, 4), [1], None, None, 1.5), "blank: expected the index of a label, received 1.5"),
        ((torch.zeros(1, 3, 4), [[1]], [4]), r"lengths: expected 0 to 3 \(T\), received 4 to 4"),
        (
            (torch.zeros(1, 3, 4), [[1]], None, [1, 1]),
            r"target_lengths: expected shape \[1\], received \[2\]",
        ),
        ((torch.full((3, 4), float("nan")), [1]), "log_probs: expected numbers, received NaN at frame 0"),
        ((torch.full((3, 4), math.inf), [1]), r"log_probs: .* infinite values \(in row 0\)"),
    ],
)
@pytest.mark.parametrize("function", [forced_align, ctc_score])
def test_bad_input(function, args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        function(*args)


@pytest.mark.parametrize(
    "path, scores, message",
    [
        ([1.5, 2.0], torch.zeros(2), "path: expected an integer dtype, received torch.float32"),
        ([1, 2, 3], torch.zeros(2), r"expected shapes \[T\] of one row, received \[3\] and \[2\]"),
        ([[1, 2]], torch.zeros(1, 2), r"expected shapes \[T\] of one row, received \[1, 2\] and \[1, 2\]"),
    ],
)
def test_spans_of_other_things(path, scores, message):
    with pytest.raises((ValueError, TypeError), match=message):
        token_spans(path, scores)


def test_texts_that_do_not_fit():
    log_probs = random_log_probs(3, 4)
    assert ctc_score(log_probs, [1, 1, 1]) == -math.inf
    with pytest.raises(ValueError, match="targets: expected a text that can be aligned to 3 frames"):
        forced_align(log_probs, [1, 1, 1])
    assert ctc_score(log_probs[:0], []) == 0 and forced_align(log_probs[:0], []).path.shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_priors_equal_enumeration(seed):
    torch.manual_seed(seed)
    log_probs, log_priors = random_log_probs(6, 3).double(), torch.randn(3)
    for tokens in enumerate_prefixes(log_probs.tolist(), 0):
        score, path = best_path(log_probs - log_priors, tokens, 0)
        found = forced_align(log_probs, tokens, log_priors=log_priors)
        assert tuple(found.path.tolist()) == path
        # Scores are those of the outputs.
        expected = log_probs.gather(1, found.path[:, None])[:, 0].float()
        torch.testing.assert_close(found.scores, expected, rtol=0, atol=0)
        assert abs((found.scores - log_priors[found.path]).sum().item() - score) < 1e-5
    batch = forced_align(log_probs.repeat(2, 1, 1), [[1, 2], [2, 1]], [6, 4], [2, 1], log_priors=log_priors)
    alone = forced_align(log_probs[:4], [2], log_priors=log_priors.numpy())
    assert batch.path[1].tolist() == [*alone.path.tolist(), -1, -1]


@pytest.mark.parametrize(("frames", "tokens"), [(1, 0), (1, 1), (40, 0), (61, 17), (61, 60), (61, 30)])
def test_the_path_does_not_depend_on_the_blocks(frames, tokens):
    """Scores are kept at the beginning of each block of frames, and choices computed again."""
    log_probs = random_log_probs(frames, 5)
    # With repeats where there is room for their blanks.
    targets = torch.randint(1, 5, (tokens,)) if 2 * tokens <= frames else torch.arange(tokens) % 4 + 1
    whole = _decoder.forced_align(log_probs.numpy(), targets.numpy(), 0)
    assert len(whole) == frames and collapse(whole.tolist(), 0) == tuple(targets.tolist())
    for block in (1, 2, 7, frames, frames + 1):
        found = _decoder.forced_align(log_probs.numpy(), targets.numpy(), 0, None, block)
        assert (found == whole).all()


@pytest.mark.numbers
def test_long_alignments_take_little_memory():
    """20,000 frames against 4,000 tokens: all choices at once would be 160 MB."""
    code = (
        "import torch\n"
        "from pathlib import Path\n"
        "from asrkern.decoder import forced_align\n"
        "log_probs = torch.randn(20_000, 5).log_softmax(-1)\n"
        "forced_align(log_probs[:1000], torch.arange(200) % 4 + 1)\n"
        # Not ru_maxrss, which begins with what the tests' process has.
        "status = Path('/proc/self/status')\n"
        "peak = lambda: int(status.read_text().partition('VmHWM:')[2].split()[0]) / 1024\n"
        "before = peak()\n"
        "path = forced_align(log_probs, torch.arange(4000) % 4 + 1).path\n"
        "assert int((path[1:] != path[:-1]).sum()) >= 4000\n"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 30


@pytest.mark.parametrize(
    ("priors", "error", "message"),
    [
        (torch.zeros(4), ValueError, r"log_priors: expected \[3\] finite numbers, received \[4\]"),
        (torch.zeros(3, 1), ValueError, r"log_priors: expected \[3\] finite numbers, received \[3, 1\]"),
        (
            torch.tensor([0.0, -math.inf, 0.0]),
            ValueError,
            "log_priors: expected .* received infinite ones or NaN",
        ),
        (torch.tensor([0.0, math.nan, 0.0]), ValueError, "log_priors: expected"),
        (torch.zeros(3, dtype=torch.int64), TypeError, "log_priors: expected a floating-point dtype"),
        ([0.0, 0.0, 0.0], TypeError, "log_priors: expected a tensor or an array, received list"),
    ],
)
def test_bad_priors_are_named(priors, error, message):
    with pytest.raises(error, match=message):
        forced_align(random_log_probs(6, 3), [1, 2], log_priors=priors)
