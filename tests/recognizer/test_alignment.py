"""Times of the words of a given text."""

from __future__ import annotations

import pytest
import torch

from asrkern.decoder import TokenSpan, forced_align, token_spans
from asrkern.recognizer import align, estimate_log_priors
from asrkern.recognizer.alignment import word_seconds
from asrkern.recognizer.subtitles import subtitles
from asrkern.recognizer.transcription import FrameTimes, SpokenWord, Transcript
from asrkern.recognizer.word_times import as_ctm, as_textgrid, as_tsv
from tests.cli.tiny import make_recognizer, speech

SECONDS = 3


def test_times_are_those_of_the_alignment() -> None:
    recognizer = make_recognizer("ctc")
    samples = speech(SECONDS)
    rate = recognizer.features.sample_rate
    features = recognizer.features.make()(samples)
    with torch.no_grad():
        log_probs, _ = recognizer.model(features[None, None], torch.tensor([features.shape[1]]))
    tokens = recognizer.tokenizer.encode("AB A BBA")
    blank, times = recognizer.tokenizer.blank, FrameTimes.of(recognizer)
    path = forced_align(log_probs[0], tokens, blank=blank)
    spans = token_spans(path.path, path.scores, blank)
    found = align(recognizer, samples, " ab,  A\n– bba!")
    # As they are written; a dash alone is no word. Three spans, a space, one, a space, three.
    assert found.text == "ab, A bba!" and [word.text for word in found.words] == ["ab,", "A", "bba!"]
    parts = [spans[first:last] for first, last in ((0, 2), (3, 4), (5, 8))]
    seconds = word_seconds(parts, [spans[2], spans[4]], times, len(samples) / rate)
    for word, own, expected in zip(found.words, parts, seconds, strict=True):
        assert (word.start_seconds, word.end_seconds) == pytest.approx(expected)
        mean = sum(span.score for span in own) / len(own)
        assert word.confidence == pytest.approx(torch.tensor(mean).exp().item(), rel=1e-5)
    # Windows that see as far as the convolutions give the same.
    shares: list[float] = []
    windowed = align(
        recognizer, samples, "ab A bba", window_seconds=1.0, margin_seconds=0.3, progress=shares.append
    )
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 2
    assert [word.text for word in windowed.words] == ["ab", "A", "bba"]


def spans_of(path: str) -> tuple[list[list[TokenSpan]], list[TokenSpan]]:
    """Words and spaces of an alignment, a character a frame; "-" is blank."""
    tokens = torch.tensor(["- ABC".index(each) for each in path])
    words, spaces = [[]], []
    for span in token_spans(tokens, torch.zeros(len(path)), 0):
        if span.token == 1:
            spaces.append(span)
            words.append([])
        else:
            words[-1].append(span)
    return words, spaces


# Frames of 20 ms, the first of which is centred on 10 ms: frame t lasts from 20 t to 20 (t + 1) ms.
FRAMES = FrameTimes(0.02, 0.01)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # Neighbours meet at the end of the space, though blanks are around it.
        ("--AB--  ---C-", [(2, 8), (8, 12)]),
        # Nothing between them but the space; of one letter each; from the first frame to the last.
        ("A B", [(0, 2), (2, 3)]),
        ("A  B C", [(0, 3), (3, 5), (5, 6)]),
        # Just within 0.1 s, five frames, and one more: a pause, of which the words have no more than that.
        ("A---- -----B", [(0, 6), (6, 12)]),
        ("A----- ------B", [(0, 6), (8, 14)]),
        # A pause on one side of the space only, which is a part of it or not.
        ("A- " + 20 * "-" + "B", [(0, 3), (18, 24)]),
        ("A" + 20 * " " + "-B-", [(0, 6), (21, 23)]),
        # One word: its tokens' frames.
        ("---A-BB----", [(3, 7)]),
    ],
)
def test_where_words_begin_and_end(path: str, expected: list[tuple[int, int]]) -> None:
    words, spaces = spans_of(path)
    found = word_seconds(words, spaces, FRAMES, 10.0)
    assert found == [pytest.approx((0.02 * begin, 0.02 * end)) for begin, end in expected]
    # Not beyond the recording.
    assert max(end for _, end in word_seconds(words, spaces, FRAMES, 0.05)) <= 0.05


def test_words_without_spaces_have_their_tokens_frames() -> None:
    words, spaces = spans_of("-AA--B  -C-")
    assert word_seconds(words, [], FRAMES, 10.0) == [pytest.approx((0.02, 0.12)), pytest.approx((0.18, 0.2))]
    # Frames longer than 0.1 s: the reach is a part of one.
    long = word_seconds(*spans_of("A- -B"), FrameTimes(0.2, 0.1), 10.0)
    assert long == [pytest.approx((0.0, 0.3)), pytest.approx((0.7, 1.0))]
    with pytest.raises(ValueError, match="spaces: expected 1 between 2 words, received 2"):
        word_seconds(words, 2 * spaces, FRAMES, 10.0)


def test_priors_are_the_mean_of_the_output() -> None:
    recognizer = make_recognizer("ctc")
    features = [recognizer.features.make()(speech(seconds)) for seconds in (1, 2)]
    total = 0
    with torch.no_grad():
        for each in features:
            log_probs, _ = recognizer.model(each[None, None], torch.tensor([each.shape[1]]))
            total = total + log_probs[0].double().exp().sum(0)
    expected = (total / total.sum()).log()
    found = estimate_log_priors(recognizer, features)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    # Of a model that gives one label nearly everywhere they move the others' frames.
    samples = speech(SECONDS)
    with torch.no_grad():
        recognizer.model.dnn.module[-1].bias[recognizer.tokenizer.blank] += 40
    features = recognizer.features.make()(samples)
    priors = estimate_log_priors(recognizer, [features])
    assert priors.argmax() == recognizer.tokenizer.blank
    plain, wide = (align(recognizer, samples, "abab", log_priors=each) for each in (None, priors))
    lengths = [each.words[0].end_seconds - each.words[0].start_seconds for each in (plain, wide)]
    assert lengths[1] != lengths[0]


def test_what_cannot_be_aligned_is_named() -> None:
    recognizer = make_recognizer("ctc")
    samples = speech(1)
    with pytest.raises(
        ValueError, match="text: expected letters that the model can write, received '1', 'Ü'; write num"
    ):
        align(recognizer, samples, "ab 1 ü")
    for nothing in ("", " – ? "):
        with pytest.raises(ValueError, match="text: expected words, received none"):
            align(recognizer, samples, nothing)
    with pytest.raises(ValueError, match="text: targets: expected a text that can be aligned to"):
        align(recognizer, samples, "a" * 500)
    with pytest.raises(ValueError, match="window_seconds: expected more than two margins"):
        align(recognizer, samples, "ab", window_seconds=6.0)
    with pytest.raises(ValueError, match=r"log_priors: expected \[\d+\] finite numbers, received \[3\]"):
        align(recognizer, samples, "ab", log_priors=torch.zeros(3))
    with pytest.raises(ValueError, match="samples: expected more than half a window"):
        align(recognizer, samples[:0], "ab")
    with pytest.raises(ValueError, match="recognizer: expected a CTC model, received las_hw4"):
        align(make_recognizer("attention"), samples, "ab")
    with pytest.raises(ValueError, match="recognizer: expected a CTC model"):
        estimate_log_priors(make_recognizer("attention"), [])
    with pytest.raises(ValueError, match="features: expected utterances, received none"):
        estimate_log_priors(recognizer, [])


WORDS = [
    SpokenWord("a<b", 0.0, 0.25, 0.5),
    SpokenWord('say"x', 0.5, 0.5, 0.25),
    SpokenWord("c", 1.0, 2.0, 1.0),
]


def test_forms() -> None:
    found = Transcript("a<b say c", WORDS)
    assert as_ctm(found, "my talk") == (
        'my_talk 1 0.000 0.250 a<b 0.500\nmy_talk 1 0.500 0.000 say"x 0.250\nmy_talk 1 1.000 1.000 c 1.000\n'
    )
    assert as_tsv(found).splitlines()[:2] == ["start\tend\tconfidence\tword", "0.000\t0.250\t0.5000\ta<b"]
    vtt = subtitles(Transcript('a<b say"x c', WORDS), "vtt")
    assert vtt == 'WEBVTT\n\n00:00:00.000 --> 00:00:02.000\na&lt;b say"x c\n'
    with pytest.raises(ValueError, match="form: expected 'srt' or 'vtt', received 'ass'"):
        subtitles(found, "ass")
    for form in (lambda words: as_ctm(words, "x"), as_tsv, lambda words: as_textgrid(words, 1.0)):
        with pytest.raises(ValueError, match="expected words with times"):
            form(Transcript("a"))


def read_textgrid(text: str) -> list[tuple[float, float, str]]:
    """The intervals of a TextGrid; what is in front of them says how many."""
    head, *parts = text.split("intervals [")
    found = []
    for number, part in enumerate(parts, 1):
        lines = [line.strip() for line in part.splitlines()]
        assert lines[0] == f"{number}]:"
        values = dict(line.split(" = ", 1) for line in lines[1:4])
        assert values["text"][0] == values["text"][-1] == '"'
        found.append((float(values["xmin"]), float(values["xmax"]), values["text"][1:-1].replace('""', '"')))
    assert f"intervals: size = {len(found)}" in head and head.startswith('File type = "ooTextFile"\n')
    return found


def test_a_textgrid_has_no_gaps() -> None:
    words = [WORDS[0], SpokenWord('say"x', 0.25, 0.5, 1.0), *WORDS[1:]]
    intervals = read_textgrid(as_textgrid(Transcript("", words), 2.5))
    # The word without duration is left out.
    assert intervals == [
        (0.0, 0.25, "a<b"),
        (0.25, 0.5, 'say"x'),
        (0.5, 1.0, ""),
        (1.0, 2.0, "c"),
        (2.0, 2.5, ""),
    ]
    assert read_textgrid(as_textgrid(Transcript("", []), 1.0)) == [(0.0, 1.0, "")]
