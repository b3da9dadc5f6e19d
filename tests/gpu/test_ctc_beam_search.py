"""The CUDA beam search against the CPU's. tests/kernels/test_ctc_beam_team.py checks the algorithm without a GPU."""

import pickle

import pytest
import torch

from asrkern import _library, ops
from asrkern.decoder import CTCBeamDecoder
from tests.decoder.contexts import CONTEXTS, LETTERS, PIECES, make_decoder
from tests.decoder.models import random_log_probs, small_lm

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _forced(monkeypatch):
    monkeypatch.setenv("ASRKERN_CUDA", "force")
    assert _library.cuda_kernel("ctc_beam_search")


def on_cpu(result):
    return ops.CTCBeamSearchResult(*(tensor.cpu() for tensor in result))


def assert_same(found, expected):
    """found's n-best is expected's: scores within 1e-4, and where no other score is that near, all the rest."""
    found = on_cpu(found)
    assert found.tokens.shape == expected.tokens.shape
    assert torch.equal(found.errors, expected.errors)
    assert torch.equal(found.token_lengths >= 0, expected.token_lengths >= 0)
    there = expected.token_lengths >= 0
    assert ((found.scores - expected.scores)[there].abs() < 1e-4).all()
    assert (found.scores[~there] == -torch.inf).all() and (found.am_scores[~there] == -torch.inf).all()
    apart = torch.ones_like(there)
    gaps = (expected.scores[:, 1:] - expected.scores[:, :-1]).abs().nan_to_num(torch.inf) > 2e-4
    apart[:, 1:] &= gaps
    apart[:, :-1] &= gaps
    # The last may be the other one of a pair that the end of the list, or of the beam, parts.
    compared = 0
    for row, rank in torch.nonzero(there & apart).tolist():
        if rank > 0 and rank == there[row].sum() - 1:
            continue
        compared += 1
        assert abs(found.am_scores[row, rank] - expected.am_scores[row, rank]) < 1e-4
        for name in ("token_lengths", "tokens", "timesteps", "words"):
            ours, theirs = getattr(found, name)[row, rank], getattr(expected, name)[row, rank]
            assert torch.equal(ours, theirs), (name, row, rank)
        assert (found.confidences - expected.confidences)[row, rank].abs().max() < 1e-4
    assert compared > 0
    # What nobody holds is as on the CPU.
    assert torch.equal(found.tokens[~there], expected.tokens[~there])
    assert torch.equal(found.words[~there], expected.words[~there])


def compare(decoder, log_probs, lengths=None, **options):
    options = {**decoder._options, **options}
    expected = ops.ctc_beam_search(log_probs, lengths, context=decoder.context, **options)
    there = decoder.to("cuda")
    lengths = None if lengths is None else lengths.cuda()
    # Freed memory that the outputs may get holds NaN.
    poison = torch.full((1 << 22,), float("nan"), device="cuda")
    del poison
    found = ops.ctc_beam_search(log_probs.cuda(), lengths, context=there.context, **options)
    assert all(tensor.is_cuda for tensor in found)
    assert_same(found, expected)
    return found


@pytest.mark.parametrize(
    "context, labels",
    # A model of characters is of letters.
    [(c, labels) for c in CONTEXTS for labels in (LETTERS, PIECES) if (c, labels) != ("characters", PIECES)],
)
@pytest.mark.parametrize("beam_width", [1, 16, 100])
def test_contexts(context, labels, beam_width):
    decoder = make_decoder(labels, beam_width=beam_width, nbest=min(beam_width, 10), **CONTEXTS[context])
    log_probs = random_log_probs(5, 50, len(labels), sharpness=1.5)
    compare(decoder, log_probs, torch.tensor([50, 0, 23, 1, 49]))


@pytest.mark.parametrize(
    "vocabulary, beam_width, options",
    [
        (5, 1, {}),
        (5, 100, {}),
        (29, 16, {}),
        (29, 100, {"token_min_logp": -4.0, "beam_prune_logp": -8.0}),
        (128, 16, {"top_tokens": 7, "blank": 64}),
        (128, 100, {"blank": 127}),
        (128, 200, {"log_add": False}),
        (1000, 16, {"top_tokens": 40}),
        (12, 20, {"blank_penalty": 1.5, "top_tokens": 1}),
        (2, 3, {"blank": 1}),
        (1, 2, {}),
    ],
)
def test_options(vocabulary, beam_width, options):
    log_probs = random_log_probs(3, 60, vocabulary)
    options = {"beam_width": beam_width, "nbest": min(beam_width, 5), **options}
    expected = ops.ctc_beam_search(log_probs, **options)
    assert_same(ops.ctc_beam_search(log_probs.cuda(), **options), expected)


def test_words_of_one_spelling():
    labels = ["-", "|", "r", "e", "d", "ea"]
    lexicon = {"red": [["r", "e", "d", "|"]], "read": [["r", "ea", "d", "|"], ["r", "e", "d", "|"]]}
    lexicon |= {f"word {i}": [["e", "d"]] for i in range(6)}
    decoder = CTCBeamDecoder(labels, small_lm(["read", "red"]), lexicon, beam_width=20, nbest=3)
    compare(decoder, random_log_probs(3, 30, 6, sharpness=1.0))


def test_long_utterances():
    """Trees are compacted: 4000 frames make more nodes than they hold."""
    decoder = make_decoder(LETTERS, beam_width=32, nbest=4, **CONTEXTS["everything"])
    compare(decoder, random_log_probs(2, 4000, len(LETTERS), sharpness=3.0))


def test_many_rows_are_their_own():
    log_probs, lengths = random_log_probs(300, 20, 29), torch.randint(0, 21, (300,))
    options = {"beam_width": 16, "nbest": 2}
    batch = on_cpu(ops.ctc_beam_search(log_probs.cuda(), lengths.cuda(), **options))
    beyond = torch.arange(20) >= lengths[:, None]
    log_probs[beyond] = float("nan")
    assert_same(ops.ctc_beam_search(log_probs.cuda(), lengths.cuda(), **options), batch)
    for row in (0, 150, 299):
        alone = ops.ctc_beam_search(log_probs[row : row + 1].cuda(), lengths[row : row + 1].cuda(), **options)
        assert torch.equal(alone.scores.cpu()[0], batch.scores[row])


def test_the_same_every_time():
    decoder = make_decoder(LETTERS, beam_width=60, nbest=60, **CONTEXTS["everything"]).to("cuda")
    log_probs = random_log_probs(8, 100, len(LETTERS)).cuda()
    first, *others = (
        ops.ctc_beam_search(log_probs, context=decoder.context, **decoder._options) for _ in range(5)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other))


def test_bad_rows_and_lengths():
    log_probs = random_log_probs(8, 6, 5)
    good = log_probs.clone()
    for row, value in {1: float("nan"), 2: -torch.inf, 3: 0.2, 4: 3.0}.items():
        log_probs[row, 4] = value
    lengths = torch.tensor([6, 5, 6, 6, 6, 7, -1, 2])
    found = on_cpu(ops.ctc_beam_search(log_probs.cuda(), lengths.cuda(), beam_width=7, nbest=2))
    assert found.errors.tolist() == [[0, -1], [1, 4], [2, 4], [3, 4], [4, 4], [6, -1], [6, -1], [0, -1]]
    expected = ops.ctc_beam_search(good, lengths.clamp(0, 6), beam_width=7, nbest=2)
    for row in range(8):
        if found.errors[row, 0]:
            assert (found.token_lengths[row] == -1).all() and (found.tokens[row] == -1).all()
        else:
            assert ((found.scores - expected.scores)[row].abs() < 1e-4).all()


@pytest.mark.parametrize("shape", [(0, 7, 5), (3, 0, 5)])
def test_nothing_to_do(shape):
    found = on_cpu(ops.ctc_beam_search(torch.zeros(shape, device="cuda"), beam_width=4))
    expected = ops.ctc_beam_search(torch.zeros(shape), beam_width=4)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_a_graph_replays_with_other_values_and_lengths():
    decoder = make_decoder(LETTERS, beam_width=16, nbest=3, **CONTEXTS["everything"])
    there = decoder.to("cuda")
    x = random_log_probs(4, 40, len(LETTERS)).cuda()
    lengths = torch.tensor([40, 3, 0, 17]).cuda()

    def search():
        return ops.ctc_beam_search(x, lengths, context=there.context, **there._options)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        search()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = search()
    for new in ([40, 3, 0, 17], [1, 40, 22, 0]):
        values = random_log_probs(4, 40, len(LETTERS))
        x.copy_(values)
        lengths.copy_(torch.tensor(new))
        graph.replay()
        torch.cuda.synchronize()
        assert_same(
            found, ops.ctc_beam_search(values, torch.tensor(new), context=decoder.context, **decoder._options)
        )


def test_compiles_whole():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: ops.ctc_beam_search(x, beam_width=6, nbest=3), fullgraph=True, backend="aot_eager"
    )
    x = random_log_probs(4, 7, 5)
    assert_same(compiled(x.cuda()), ops.ctc_beam_search(x, beam_width=6, nbest=3))


def test_a_beam_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"beam_width: 4000 prefixes with 29 tokens take .*device=\"cpu\""):
        ops.ctc_beam_search(random_log_probs(1, 3, 29).cuda(), beam_width=4000)


def test_tensors_of_other_devices_are_named():
    decoder = make_decoder(LETTERS, **CONTEXTS["everything"])
    x = random_log_probs(1, 3, len(LETTERS))
    with pytest.raises(ValueError, match="token_kinds: expected tensors on the device of log_probs"):
        ops.ctc_beam_search(x.cuda(), context=decoder.context, **decoder._options)
    with pytest.raises(ValueError, match="token_kinds: expected tensors on the device of log_probs"):
        ops.ctc_beam_search(x, context=decoder.to("cuda").context, **decoder._options)


def same_hypotheses(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a.text, a.tokens, a.timesteps) == (b.text, b.tokens, b.timesteps)
            assert abs(a.score - b.score) < 1e-4 and abs(a.am_score - b.am_score) < 1e-4
            assert [word[:3] for word in a.words] == [word[:3] for word in b.words]
            assert all(abs(v.confidence - w.confidence) < 1e-4 for v, w in zip(a.words, b.words))


def test_decoder():
    decoder = make_decoder(LETTERS, beam_width=40, nbest=2, **CONTEXTS["everything"])
    there = decoder.to("cuda")
    assert there.device.type == "cuda" and there.context.token_kinds.is_cuda and decoder.device.type == "cpu"
    log_probs = random_log_probs(4, 30, len(LETTERS), sharpness=4.0)
    lengths = [30, 0, 11, 29]
    expected = decoder.decode(log_probs, lengths)
    for x in (log_probs, log_probs.cuda(), log_probs.numpy(), log_probs.cuda().double()):
        same_hypotheses(there.decode(x, lengths), expected)
    # A decoder on the CPU takes them too.
    assert decoder.decode(log_probs.cuda(), torch.tensor(lengths).cuda()) == expected
    utterances = [x[:length] for x, length in zip(log_probs.cuda(), lengths)]
    same_hypotheses(there.decode_batch(utterances), expected)
    same_hypotheses([pickle.loads(pickle.dumps(there)).decode(log_probs[0])], [decoder.decode(log_probs[0])])
    wider = there.replace(beam_width=50, hotwords=["cab"])
    same_hypotheses(
        wider.decode(log_probs), decoder.replace(beam_width=50, hotwords=["cab"]).decode(log_probs)
    )
    # Streams are the CPU's.
    state = there.start()
    there.step(state, log_probs[0].cuda())
    assert there.finish(state) == expected[0]
    assert there.to("cpu").decode(log_probs, lengths) == expected


def test_a_bad_utterance_of_a_batch():
    decoder = make_decoder(LETTERS).to("cuda")
    log_probs = random_log_probs(3, 9, len(LETTERS)).cuda()
    log_probs[1] = log_probs[1].exp()
    found = decoder.decode_batch(log_probs, [9, 9, 12])
    assert found[0][0].text is not None
    assert "received probabilities" in str(found[1]) and "length between 0" in str(found[2])
    with pytest.raises(ValueError, match=r"probabilities.* \(in row 1 at frame 0\)"):
        decoder.decode(log_probs)


def test_off_by_default(monkeypatch):
    monkeypatch.setenv("ASRKERN_CUDA", "off")
    with pytest.raises(ValueError, match="device: expected cpu"):
        make_decoder(LETTERS).to("cuda")
    with pytest.raises(ValueError, match="log_probs: expected a tensor on the CPU"):
        ops.ctc_beam_search(random_log_probs(1, 3, 5).cuda())
