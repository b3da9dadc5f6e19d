"""ctc_beam_search against all alignments written out, and against the reference."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern import ops
from asrkern.ops.ctc_beam_search import error_message
from asrkern.reference.ctc_beam_search import ctc_beam_search, enumerate_prefixes
from tests.decoder.models import random_log_probs

INF = math.inf


def hypotheses(result, row=0):
    """(tokens, score) of a row, the best first."""
    lengths = [length for length in result.token_lengths[row].tolist() if length >= 0]
    return [
        (tuple(result.tokens[row, rank, :length].tolist()), result.scores[row, rank].item())
        for rank, length in enumerate(lengths)
    ]


@st.composite
def tiny_problems(draw):
    """Probabilities [T, V] of small integers, zeros and ties among them, and a blank."""
    frames, vocabulary = draw(st.integers(0, 6)), draw(st.integers(1, 4))
    weight = st.integers(0, 5)
    rows = draw(
        st.lists(st.lists(weight, min_size=vocabulary, max_size=vocabulary).filter(any),
                 min_size=frames, max_size=frames)
    )  # fmt: skip
    weights = torch.tensor(rows, dtype=torch.float64).reshape(frames, vocabulary)
    return (weights / weights.sum(1, keepdim=True)).log(), draw(st.integers(0, vocabulary - 1))


@settings(max_examples=150, deadline=None)
@given(tiny_problems())
def test_an_unlimited_beam_is_exhaustive_enumeration(problem):
    log_probs, blank = problem
    exact = {tokens: p for tokens, p in enumerate_prefixes(log_probs.tolist(), blank).items() if p > -INF}
    if not len(log_probs):
        exact = {(): 0.0}
    found = hypotheses(ops.ctc_beam_search(log_probs[None], blank=blank, beam_width=5000, nbest=5000))
    assert {tokens for tokens, _ in found} == exact.keys()
    for tokens, score in found:
        assert abs(score - exact[tokens]) < 1e-5
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and abs(scores[0] - max(exact.values())) < 1e-5


@pytest.mark.parametrize(
    "frames, vocabulary, beam_width, options",
    [
        (63, 5, 7, {}),
        (40, 29, 33, {}),
        (17, 3, 1, {"blank": 2}),
        (31, 130, 20, {"blank": 64}),
        (50, 29, 100, {"token_min_logp": -3.0}),
        (50, 29, 20, {"beam_prune_logp": -4.0}),
        (50, 29, 20, {"top_tokens": 3, "blank": 28}),
        (50, 12, 20, {"blank_penalty": 1.5}),
        (50, 12, 20, {"token_min_logp": -2.0, "beam_prune_logp": -6.0, "top_tokens": 4, "blank_penalty": -0.5}),
        (30, 9, 15, {"token_min_logp": 0.0}),
        (40, 6, 12, {"log_add": False}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_equals_the_reference(frames, vocabulary, beam_width, options, sharpness):
    log_probs = random_log_probs(frames, vocabulary, sharpness=sharpness)
    expected = ctc_beam_search(
        log_probs.tolist(), beam_width=beam_width,
        **{**options, **({"log_add": max2} if "log_add" in options else {})},
    )  # fmt: skip
    found = hypotheses(
        ops.ctc_beam_search(log_probs[None], beam_width=beam_width, nbest=beam_width, **options)
    )
    assert [tokens for tokens, _ in found] == [h.tokens for h in expected]
    for (_, score), h in zip(found, expected):
        assert abs(score - h.score) < 2e-5


def max2(*values):
    return max(values)


@pytest.mark.numbers
def test_precision_does_not_sink_with_the_frames():
    log_probs = random_log_probs(4000, 5, sharpness=1.0)
    expected = ctc_beam_search(log_probs.tolist(), beam_width=6)[0]
    assert expected.score < -2000
    [(tokens, score)] = hypotheses(ops.ctc_beam_search(log_probs[None], beam_width=6))
    assert tokens == expected.tokens and abs(score - expected.score) < 1e-4


def viterbi(log_probs, tokens, blank):
    """The best of all alignments of tokens, by enumeration."""
    paths = []
    for path in itertools.product([blank, *set(tokens)], repeat=len(log_probs)):
        if [v for v, _ in itertools.groupby(path) if v != blank] == list(tokens):
            paths.append((sum(frame[v] for frame, v in zip(log_probs, path)), path))
    return max(paths)[1]


@pytest.mark.parametrize("seed", range(5))
def test_timesteps_are_those_of_the_best_alignment(seed):
    torch.manual_seed(seed)
    log_probs = random_log_probs(7, 4)
    result = ops.ctc_beam_search(log_probs[None], beam_width=5000, nbest=20)
    for rank, (tokens, _) in enumerate(hypotheses(result)):
        path = viterbi(log_probs.tolist(), tokens, 0)
        spans, frame = [], 0
        for token, run in itertools.groupby(path):
            end = frame + len(list(run))
            spans += [[frame, end]] * (token != 0)
            frame = end
        assert result.timesteps[0, rank, : len(tokens)].tolist() == spans


def test_confidence_is_the_posterior_of_the_word():
    # Without spaces the whole text is one word.
    log_probs = random_log_probs(6, 4)
    result = ops.ctc_beam_search(log_probs[None], beam_width=5000, nbest=3)
    exact = enumerate_prefixes(log_probs.tolist())
    for rank, (tokens, _) in enumerate(hypotheses(result)):
        if tokens:
            assert abs(result.confidences[0, rank, 0] - math.exp(exact[tokens])) < 1e-5


def test_rows_are_their_own():
    log_probs = random_log_probs(5, 30, 8)
    lengths = torch.tensor([30, 0, 17, 1, 29])
    options = dict(beam_width=12, nbest=4)
    batch = ops.ctc_beam_search(log_probs, lengths, **options)
    log_probs[2, 17:] = float("nan")
    for row, length in enumerate(lengths.tolist()):
        alone = ops.ctc_beam_search(log_probs[row : row + 1, :length], **options)
        assert hypotheses(alone) == hypotheses(batch, row)
        assert torch.equal(alone.timesteps[0], batch.timesteps[row, :, :length])


@pytest.mark.parametrize(
    "value, error",
    [
        (float("nan"), 1),
        (-INF, 2),
        (0.2, 3),
        (3.0, 4),
        (INF, 8),
    ],
)
def test_bad_values_are_an_error_of_their_row_alone(value, error):
    log_probs = random_log_probs(3, 9, 5)
    before = ops.ctc_beam_search(log_probs, beam_width=10)
    log_probs[1, 6] = value
    result = ops.ctc_beam_search(log_probs, beam_width=10)
    assert result.errors.tolist() == [[0, -1], [error, 6], [0, -1]]
    assert hypotheses(result, 1) == []
    for row in (0, 2):
        assert hypotheses(result, row) == hypotheses(before, row)


def test_unnormalised_values_are_scores_where_asked():
    logits = torch.randn(1, 12, 5) * 3
    [(tokens, score)] = hypotheses(ops.ctc_beam_search(logits, beam_width=50, check_normalized=False))
    [(expected, log_p)] = hypotheses(ops.ctc_beam_search(logits.log_softmax(-1), beam_width=50))
    assert tokens == expected and abs(score - logits.logsumexp(-1).sum().item() - log_p) < 1e-4


def call(x, lengths):
    return ops.ctc_beam_search(x, lengths, beam_width=6, nbest=3)


LENGTHS = torch.tensor([7, 0, 3, 5])


def test_opcheck():
    context = ops.CTCContext(torch.tensor([0, 0, 1, 0, 0], dtype=torch.uint8))
    args = (
        random_log_probs(4, 7, 5), LENGTHS, context.token_kinds, [], 0, 0, 0, None, [], [], None,
        0.0, 0.0, 0.0, 0.0, 0.0, 0, 6, 3, 5, -INF, -INF, 0.0, True, 512, True, 1,
    )  # fmt: skip
    result = torch.library.opcheck(torch.ops.asrkern.ctc_beam_search.default, args)
    assert set(result.values()) == {"SUCCESS"}


def same(actual, expected):
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(actual, expected))


def test_compiles_whole_with_dynamic_shapes():
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, time in ((4, 7), (2, 12)):
        x, lengths = random_log_probs(batch, time, 5), torch.randint(0, time + 1, (batch,))
        assert same(compiled(x, lengths), call(x, lengths))


def test_exports_with_dynamic_batch_and_time():
    class Module(torch.nn.Module):
        def forward(self, x, lengths):
            return tuple(call(x, lengths))

    batch, time = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("time", min=4, max=4096)
    program = torch.export.export(
        Module(), (random_log_probs(4, 7, 5), LENGTHS), dynamic_shapes=({0: batch, 1: time}, {0: batch})
    )
    x, lengths = random_log_probs(3, 11, 5), torch.tensor([11, 4, 0])
    assert same(program.module()(x, lengths), call(x, lengths))


def test_any_strides_and_dtypes():
    x = random_log_probs(4, 7, 5)
    expected = call(x, LENGTHS)
    strided = torch.stack([x.mT, x.mT], -1)[..., 0].mT
    assert not strided.is_contiguous() and same(call(strided, torch.stack([LENGTHS] * 2, -1)[:, 0]), expected)
    assert same(call(x.double(), LENGTHS.int()), expected)
    half = x.bfloat16()
    assert same(call(half, LENGTHS), call(half.float(), LENGTHS))


def test_gradients_stop():
    result = call(random_log_probs(4, 7, 5).requires_grad_(), LENGTHS)
    assert not any(tensor.requires_grad for tensor in result)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_arguments_compute_or_raise(data):
    """Anything: a result of the right kind, or an exception that names an argument."""
    sizes = [data.draw(st.integers(0, 4)) for _ in range(data.draw(st.sampled_from([3, 3, 3, 2])))]
    x = random_log_probs(*sizes)
    lengths = torch.tensor(
        data.draw(st.lists(st.integers(-1, 5), min_size=sizes[0], max_size=sizes[0])), dtype=torch.int64
    )
    number = st.integers(-1, 5)
    values = st.sampled_from([-INF, -2.0, 0.0, 1.0, float("nan")])
    options = {
        "blank": data.draw(number), "beam_width": data.draw(number), "nbest": data.draw(number),
        "top_tokens": data.draw(number), "token_min_logp": data.draw(values), "beam_prune_logp": data.draw(values),
        "blank_penalty": data.draw(values), "num_threads": data.draw(number),
    }  # fmt: skip
    try:
        result = ops.ctc_beam_search(x, lengths, **options)
    except (ValueError, TypeError) as error:
        assert any(str(error).startswith(n) for n in ("log_probs", "lengths", *options)), str(error)
    else:
        assert (result.errors[:, 0] == 0).all() and result.scores[:, 0].isfinite().all()


def test_error_messages():
    assert (
        error_message(6, -1, 3)
        == "log_probs: expected a length between 0 and its frames, received another (in row 3)"
    )
    assert error_message(1, 4).endswith("received NaN (at frame 4)")


MASK = torch.ones(1, dtype=torch.int64)


def hotwords(edge_begin, credit=None, completed=None, reach=None):
    """A table of phrases whose edges are of token 0 and lead to the root."""
    edges = torch.zeros(edge_begin[-1], dtype=torch.int32)
    begin = torch.tensor(edge_begin, dtype=torch.int32)
    worth = (
        torch.tensor(values or [0] * (len(begin) - 1), dtype=torch.float32)
        for values in (credit, completed, reach)
    )
    return (begin, edges, edges, begin.diff().long(), *worth)


@pytest.mark.parametrize(
    "context, message",
    [
        ({"token_kinds": torch.zeros(4, dtype=torch.uint8)}, "token_kinds: expected 5 values"),
        ({"token_kinds": torch.full((5,), 3, dtype=torch.uint8)}, "token_kinds: expected 0, 1 or 2"),
        ({"token_kinds": torch.zeros(5)}, "token_kinds: expected dtype uint8, received float32"),
        ({"texts": torch.zeros(5, 2, dtype=torch.int64)}, r"texts: expected shape \(6, 2\), received \(5, 2\)"),
        ({"texts": torch.zeros(6, 2)}, "texts: expected dtype int64, received float32"),
        ({"lexicon": (torch.zeros(1),)}, "lexicon: expected 9 tensors or none, received 1"),
        ({"hotwords": (torch.zeros(1),)}, "hotwords: expected 7 tensors or none, received 1"),
        ({"unk_score": None}, "lexicon: expected one where unknown words are not allowed"),
        ({"alpha": -1.0}, "alpha: expected a number from 0 to 1e20"),
        ({"language_model": (torch.zeros(3, 2),)}, "language_model: expected unigrams"),
        (
            {"hotwords": (*(torch.tensor(v, dtype=torch.int32) for v in ([0, 1], [0], [7])), MASK, *[torch.zeros(1)] * 3)},
            "hotwords: expected values from 0 to 0",
        ),
        (
            {"hotwords": (*(torch.tensor(v, dtype=torch.int32) for v in ([0, 2], [0], [0])), MASK, *[torch.zeros(1)] * 3)},
            "hotwords: expected the beginnings of runs",
        ),
        # Another token's bit; a token twice, with its bit and with the sum of both.
        *(
            (
                {"hotwords": (*(torch.tensor(v, dtype=torch.int32) for v in ([0, len(tokens)], tokens, [0] * len(tokens))),
                              torch.tensor([mask]), *[torch.zeros(1)] * 3)},
                "hotwords: expected each node's mask to be of its tokens, each of them once",
            )
            for tokens, mask in (([1], 4), ([1, 1], 2), ([1, 1], 4), ([1, 2], 2))
        ),
        *(
            ({"hotwords": hotwords([0, 1, 1, 1], **{name: [0, 0, value]})}, "hotwords: expected numbers between")
            for name in ("credit", "completed", "reach")
            for value in (INF, -INF, float("nan"), 3e38)
        ),
        ({"begin_reach": INF}, "unknown_look_ahead, begin_reach: expected numbers"),
        ({"unknown_look_ahead": float("nan")}, "unknown_look_ahead, begin_reach: expected numbers"),
        ({"hotwords": hotwords([0, 0])}, "hotwords: expected at least the nodes"),
        ({"hotwords": hotwords([0, 0, 1])}, "hotwords: expected a node 1 without edges that is worth nothing"),
        *(
            ({"hotwords": hotwords([0, 1, 1], **{name: [0, 2]})}, "hotwords: expected a node 1 without edges")
            for name in ("credit", "completed", "reach")
        ),
    ],
)  # fmt: skip
def test_bad_context(context, message):
    full = ops.CTCContext(torch.zeros(5, dtype=torch.uint8))._replace(**context)
    with pytest.raises(ValueError, match=message):
        ops.ctc_beam_search(random_log_probs(1, 3, 5), context=full)
    if len(full.token_kinds) == 5:
        # Refused before it goes where nobody checks it.
        with pytest.raises(ValueError, match=message):
            full.to("meta")
