"""benchmarks/decoder/word_times.py: times of words by alignment and by beam search."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning")
from asrkern.decoder import CTCBeamDecoder
from asrkern.recognizer.tokenizer import CharacterTokenizer
from asrkern.recognizer.transcription import FrameTimes
from benchmarks.decoder import word_times

LABELS = ("-", "A", "B", "C", " ")


@pytest.fixture
def output():
    path = [LABELS.index(label or " ") for label in ["-", "A", "A", "-", "B", " ", "-", "C", "C", "-"]]
    log_probs = torch.nn.functional.one_hot(torch.tensor(path), len(LABELS)).mul(12.0).log_softmax(-1)
    return word_times.Output(log_probs, 0.2, "AB C", [(0.03, 0.11), (0.13, 0.2)])


def test_times(output):
    # Frames of 20 ms, the first of which is centred on 10 ms.
    recognizer = SimpleNamespace(
        tokenizer=CharacterTokenizer(LABELS, blank=0),
        model=SimpleNamespace(frame_geometry=SimpleNamespace(step=2, offset=1)),
        features=SimpleNamespace(hop_seconds=0.01, first_seconds=0.0),
    )
    expected = [pytest.approx((0.02, 0.10)), pytest.approx((0.14, 0.18))]
    assert word_times.aligned(output, recognizer, only_tokens=True) == expected
    # The words meet at the end of the space.
    meeting = [pytest.approx((0.02, 0.12)), pytest.approx((0.12, 0.18))]
    assert word_times.aligned(output, recognizer) == meeting
    # A prior that makes "C" cheap moves it to the blank beside it.
    log_priors = torch.tensor([20.0, 0.0, 0.0, 0.0, 0.0])
    assert word_times.aligned(output, recognizer, log_priors)[1] != meeting[1]
    decoder, frames = CTCBeamDecoder(LABELS), FrameTimes.of(recognizer)
    assert word_times.decoded(output, decoder, frames) == expected
    assert word_times.decoded(output._replace(text="AC"), decoder, frames) is None


def test_table_row():
    found = [[(0.02, 0.10), (0.14, 0.18)], None, [(1.0, 2.0)]]
    expected = [[(0.03, 0.11), (0.13, 0.2)], [(0.0, 1.0)], [(0.9, 2.0)]]
    assert word_times.table_row("name", found, expected) == {
        "": "name",
        "utterances": "2 of 3",
        "words": "3",
        "start: median |difference| ms": "10",
        "start: median difference ms": "+10",
        "end: median |difference| ms": "10",
        "end: median difference ms": "-10",
    }
    assert word_times.table_row("name", [None], [[]]) == {"": "name", "utterances": "0 of 1", "words": "0"}
