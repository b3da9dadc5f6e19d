"""What mypy is to know of asrkern where users meet it: checked by ``mypy``, run by nobody."""

from typing import Any, assert_type

import numpy as np
from torch import Tensor

import asrkern
from asrkern.decoder import CTCBeamDecoder, Hypothesis, NGramLM


def decoding(decoder: CTCBeamDecoder, scores: Tensor, lengths: Tensor, lm: NGramLM) -> None:
    assert_type(decoder.decode(scores, lengths), list[list[Hypothesis]])
    assert_type(decoder.decode(scores, [3, 4]), list[list[Hypothesis]])
    utterance, batch = np.zeros((3, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    assert_type(decoder.decode(utterance), list[Hypothesis])
    assert_type(decoder.decode(batch), list[list[Hypothesis]])
    # Of a tensor only a value tells the rank.
    assert_type(decoder.decode(scores), list[Any])
    assert_type(decoder.decode_batch(scores, lengths), list[list[Hypothesis] | ValueError])
    assert_type(decoder.decode(scores, lengths)[0][0].text, str)
    state = decoder.start(lm.start())
    assert_type(decoder.finish(state), list[Hypothesis])
    assert_type(state.frames, int)


def parts(x: Tensor, lengths: Tensor) -> None:
    """The packages are there after ``import asrkern``."""
    layer = asrkern.nn.GRU(3, 4)
    assert_type(layer.hidden_size, int)
    output, final = layer(x, lengths=lengths)
    weights = asrkern.ops.GRUWeights(x, x)
    assert_type(asrkern.ops.gru(x, weights, lengths=lengths), tuple[Tensor, Tensor])
    assert_type(asrkern.ops.linear(x, x), Tensor)
    recognizer = asrkern.load("best.safetensors")
    assert_type(recognizer, asrkern.recognizer.Recognizer)
    converted: asrkern.nn.ConversionReport = asrkern.nn.convert(layer)
    assert converted and output is not None and final is not None
