"""What the doors of language models share: how files are damaged, and what a model that was read has to hold."""

from __future__ import annotations

import re

import numpy as np

from asrkern.decoder import NGramLM

NUMBERS = (
    b"0", b"-0", b"-1", b"1", b"-99", b"99", b"1e-99", b"-1e-99", b"1e99", b"-1e99", b"nan", b"-nan", b"inf",
    b"-inf", b"2147483648", b"-2147483649", b"4611686018427387904", b"18446744073709551615", b"9" * 40, b"1.5", b"0x1",
)  # fmt: skip
_NUMBER = re.compile(rb"[-+]?\d[\d.e+-]*")
_INTEGERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1e6, -1.1e6, 98.0, 100.0, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e-45)


def damage(rng: np.random.Generator, content: bytes, other: bytes, text: bool) -> bytes:
    """The content after one to four faults; other: where foreign bytes come from."""
    data = bytearray(content)
    for _ in range(min(4, rng.geometric(0.5))):
        size = len(data)
        if size < 2:
            break
        at = int(rng.integers(size))
        end = min(size, at + int(rng.integers(1, 40)))
        fault = rng.integers(8)
        if fault <= 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif fault == 2:
            data[at:end] = rng.bytes(end - at)
        elif fault == 3:
            del data[at:end]
        elif fault == 4:
            data[at:at] = data[at:end]
        elif fault == 5:
            begin = int(rng.integers(max(1, len(other) - 40)))
            data[at:end] = other[begin : begin + int(rng.integers(40))]
        elif fault == 6 and rng.random() < 0.3:
            del data[at:]
        elif text:
            found = _NUMBER.search(data, at)
            if found:
                data[found.start() : found.end()] = NUMBERS[rng.integers(len(NUMBERS))]
        else:
            at -= at % 4
            if rng.random() < 0.5:
                number = np.uint64(_INTEGERS[rng.integers(len(_INTEGERS))]).tobytes()[: rng.choice([1, 4, 8])]
            else:
                number = np.float32(_FLOATS[rng.integers(len(_FLOATS))]).tobytes()
            data[at : at + len(number)] = number
    return bytes(data)


# What models are estimated from.
TEXTS = ["the cat sat", "the fat cat", "a cat sat on the fat cat", "on a cat"]


def sentences(rng: np.random.Generator) -> list[str]:
    words = rng.choice(["the", "fat", "cat", "sat", "on", "a", "zebra", "<unk>", "<s>"], size=(3, 5))
    return ["", *(" ".join(row) for row in words)]


def assert_scores_are_sane(lm: NGramLM, texts: list[str]) -> None:
    """Finite, and at most 0: or what positive back-off weights, of which a word's score has order − 1, add to it."""
    backoffs = [lm.tensors["unigrams"].numpy()[:, 1]]
    if lm.is_mapped:
        backoffs.append(np.array([99.0]))
    elif "codebook" in lm.tensors:
        backoffs.append(lm.tensors["codebook"].numpy()[1])
    else:
        backoffs.append(lm.tensors["ngrams"].numpy().view(np.float32)[:, 3])
    most = max(0.0, *(float(values.max()) for values in backoffs)) * (lm.order - 1) * 1.001
    for text in texts:
        scores = [score.log_prob for score in lm.full_scores(text)]
        assert np.isfinite(scores).all() and max(scores, default=0) <= most, (text, scores)
    assert np.isfinite(lm.score_batch(texts).numpy()).all()
    assert len(lm.words) in (0, lm.vocabulary_size)
