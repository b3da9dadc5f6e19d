"""speller_step and speller_greedy against the reference, over kinds of cells, scores, sizes and weights."""

from __future__ import annotations

import pytest
import torch

from asrkern import ops, reference
from asrkern.ops import Dense, SpellerCell, SpellerWeights
from tests.compare import assert_close, assert_same_bits

FORMATS = ("fp32", "bf16", "int8")


def dense(out_features, in_features, format="fp32", bias=True):
    weight = torch.randn(out_features, in_features) / in_features**0.5
    scale = None
    if format != "fp32":
        weight, scale = ops.quantize_weight(weight, format)
    return Dense(weight, scale, torch.randn(out_features) / 3 if bias else None)


def make(
    kind="lstm", scores="dot", format="fp32", bias=True, cells=2, size=21, attended=18, values=15, **options
):
    """A speller of 23 tokens with odd sizes; its keys have ``attended`` features and its values ``values``."""
    gates = 3 if kind == "gru" else 4
    feeds = options.pop("feeds_context", kind == "lstm")
    features = options.pop("features", "both")
    first = 9 + (values if feeds else 0)
    widths = {"both": size + values, "query": size, "context": values}
    located = options.pop("located", False)
    return SpellerWeights(
        kind,
        torch.randn(23, 9),
        tuple(
            SpellerCell(
                dense(gates * size, size if i else first, format, bias),
                dense(gates * size, size, format, bias),
            )
            for i in range(cells)
        ),
        (dense(14, widths[features], format, bias), dense(23, 14, format, bias)),
        features,
        feeds,
        scores,
        None if options.pop("bare", False) else dense(attended, size, format, bias),
        energy=torch.randn(attended) if scores == "additive" else None,
        location=torch.randn(5, attended) if located else None,
        location_bias=torch.randn(attended) if located else None,
        **options,
    )


def inputs(weights, rows=3, memories=3, frames=19, attended=18, values=15, size=21):
    count = len(weights.cells) * (1 if weights.kind == "gru" else 2)
    return {
        "tokens": torch.randint(23, (rows,)),
        "states": torch.randn(count, rows, size),
        "context": torch.randn(rows, values),
        "keys": torch.randn(memories, frames, attended),
        "values": torch.randn(memories, frames, values),
        "lengths": torch.randint(1, frames + 1, (memories,)),
    }


def doubled(value):
    """Floats in float64, weights of few bits as they are."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() and value.dtype != torch.bfloat16 else value
    if isinstance(value, tuple):
        made = [doubled(v) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return value


CASES = {
    "hw4": dict(kind="lstm", scores="dot", cells=3, scale=0.3),
    "heads": dict(kind="lstm", scores="dot", heads=3, scale=0.7),
    "gru": dict(kind="gru", scores="dot", bare=True, attended=21),
    "gru fed": dict(kind="gru", scores="dot", feeds_context=True),
    "additive": dict(kind="gru", scores="additive", features="context"),
    "location": dict(kind="gru", scores="additive", features="context", located=True, smoothing=True),
    "lstm location": dict(kind="lstm", scores="additive", located=True),
    "mean": dict(kind="gru", scores="mean", features="query", bare=True),
    "no biases": dict(kind="lstm", bias=False),
    "gru without biases": dict(kind="gru", bias=False),
    "one cell": dict(kind="lstm", cells=1, size=7),
    "wide": dict(kind="lstm", size=70, attended=64, values=96, heads=4),
}
cases = pytest.mark.parametrize("case", CASES)


def sizes(case):
    return {name: CASES[case][name] for name in ("attended", "values", "size") if name in CASES[case]}


@cases
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("first", [True, False])
def test_a_step_is_the_references(case, format, first):
    weights = make(format=format, **CASES[case])
    for rows, memories, frames in ((1, 1, 1), (3, 3, 11), (26, 2, 5)):
        given = inputs(weights, rows, memories, frames, **sizes(case))
        previous = None if first else torch.rand(rows, frames).softmax(1)
        got = ops.speller_step(ops.pack_speller(weights), previous=previous, **given)
        with torch.no_grad():
            expected = reference.speller_step(
                doubled(weights), previous=doubled(previous), **{k: doubled(v) for k, v in given.items()}
            )
        for name, actual, wanted in zip(got._fields, got, expected, strict=True):
            assert_close(actual, wanted, 1e-5, f"{name} of {rows} rows")


@cases
def test_rows_are_invariant(case):
    raw = make(**CASES[case])
    weights = ops.pack_speller(raw)
    given = inputs(raw, 12, 4, 23, **sizes(case))
    previous = torch.rand(12, 23).softmax(1)
    for row in (0, 5, 11):
        length = int(given["lengths"][row // 3])
        # Alone, and with other frames beyond its length.
        alone = {
            "tokens": given["tokens"][row : row + 1],
            "states": given["states"][:, row : row + 1],
            "context": given["context"][row : row + 1],
            "lengths": given["lengths"][row // 3 : row // 3 + 1],
        }
        for name in ("keys", "values"):
            memory = given[name][row // 3 : row // 3 + 1, : length + 2].clone()
            memory[:, length:] = torch.nan
            alone[name] = memory
        frames = alone["keys"].shape[1]
        before = previous[row : row + 1].clone()
        before[:, length:] = 0
        padded = torch.nn.functional.pad(before[:, :length], (0, frames - length))
        one = ops.speller_step(weights, previous=padded, **alone)
        rest = ops.speller_step(weights, previous=before, **given_of(given, row))
        for name in ("logits", "states", "context"):
            assert_same_bits(getattr(one, name), getattr(rest, name))
        assert_same_bits(one.weights[:, :length], rest.weights[:, :length])
        assert not one.weights[:, length:].any()
    masked = previous.clone()
    for memory, length in enumerate(given["lengths"].tolist()):
        masked[3 * memory : 3 * memory + 3, length:] = 0
    whole = ops.speller_step(weights, previous=masked, **given)
    for row in range(12):
        rest = ops.speller_step(weights, previous=masked[row : row + 1], **given_of(given, row))
        assert_same_bits(whole.logits[row], rest.logits[0])
        assert_same_bits(whole.states[:, row], rest.states[:, 0])


def given_of(given, row):
    return {
        "tokens": given["tokens"][row : row + 1],
        "states": given["states"][:, row : row + 1],
        "context": given["context"][row : row + 1],
        **{name: given[name][row // 3 : row // 3 + 1] for name in ("keys", "values", "lengths")},
    }


@cases
@pytest.mark.parametrize("format", FORMATS)
def test_greedy_is_steps_one_after_the_other(case, format):
    raw = make(format=format, **CASES[case])
    # An end that comes now and then.
    if raw.outputs[-1].bias is not None:
        raw.outputs[-1].bias[2] += 1.5
    weights = ops.pack_speller(raw)
    given = inputs(raw, 9, 9, 17, **sizes(case))
    tokens, counts, log_probs = ops.speller_greedy(weights, **given, eos_token=2, max_length=11)
    state, previous, running = dict(given), None, torch.ones(9, dtype=torch.bool)
    total, expected = torch.zeros(9, dtype=torch.float64), []
    for _ in range(11):
        step = ops.speller_step(weights, previous=previous, **state)
        best, token = step.logits.double().log_softmax(1).max(1)
        total += torch.where(running, best, 0)
        expected.append(torch.where(running, token, 0))
        running = running & (token != 2)
        previous = step.weights
        state.update(tokens=token, states=step.states, context=step.context)
    expected = torch.stack(expected, 1)
    assert torch.equal(tokens, expected)
    assert counts.tolist() == [row.index(2) + 1 if 2 in row else 11 for row in (r.tolist() for r in expected)]
    assert_close(log_probs, total, 1e-12)


def test_greedy_is_the_references():
    raw = make(**CASES["hw4"])
    given = inputs(raw, 5, 5, 13)
    got = ops.speller_greedy(ops.pack_speller(raw), **given, eos_token=4, max_length=8)
    expected = reference.speller_greedy(
        doubled(raw), **{k: doubled(v) for k, v in given.items()}, eos_token=4, max_length=8
    )
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
    assert_close(got[2], expected[2], 1e-5)


BEAMS = {"of one": (1, 6), "narrow": (3, 9), "wider than the tokens": (40, 3)}


@cases
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("beam", BEAMS)
def test_a_beam_is_the_references(case, format, beam):
    width, max_length = BEAMS[beam]
    raw = make(format=format, **CASES[case])
    # An end that comes now and then.
    if raw.outputs[-1].bias is not None:
        raw.outputs[-1].bias[2] += 1.5
    # Of one frame, a context and what follows from it alone would be the same at each step: ties.
    for rows, memories, frames in ((1, 1, 5), (4, 2, 13)):
        given = inputs(raw, rows, memories, frames, **sizes(case))
        given["lengths"].clamp_(min=3)
        search = dict(eos_token=2, max_length=max_length, beam_width=width)
        got = ops.speller_beam(ops.pack_speller(raw), **given, **search)
        with torch.no_grad():
            expected = reference.speller_beam(
                doubled(raw), **{k: doubled(v) for k, v in given.items()}, **search
            )
        assert torch.equal(got.tokens, expected.tokens) and torch.equal(got.counts, expected.counts)
        assert torch.equal(got.log_probs.isinf(), expected.log_probs.isinf())
        there = expected.log_probs.isfinite()
        assert_close(got.log_probs[there], expected.log_probs[there], 1e-5)
        assert_close(got.coverage, expected.coverage, 1e-5)


@cases
def test_a_row_has_its_beam_in_any_batch(case):
    raw = make(**CASES[case])
    if raw.outputs[-1].bias is not None:
        raw.outputs[-1].bias[2] += 2
    weights = ops.pack_speller(raw)
    given = inputs(raw, 9, 3, 23, **sizes(case))
    search = dict(eos_token=2, max_length=12, beam_width=4)
    together = ops.speller_beam(weights, **given, **search)
    for row in range(9):
        memory = {name: given[name][row // 3 : row // 3 + 1] for name in ("keys", "values", "lengths")}
        alone = ops.speller_beam(
            weights,
            given["tokens"][row : row + 1],
            given["states"][:, row : row + 1],
            given["context"][row : row + 1],
            **memory,
            **search,
        )
        longest = alone.tokens.shape[2]
        assert torch.equal(alone.tokens[0], together.tokens[row, :, :longest])
        assert not together.tokens[row, :, longest:].any()
        for name in ("counts", "log_probs", "coverage"):
            assert_same_bits(getattr(alone, name)[0], getattr(together, name)[row])


def test_a_beam_of_one_is_greedy():
    raw = make(**CASES["gru"])
    raw.outputs[-1].bias[2] += 1.5
    packed, given = ops.pack_speller(raw), inputs(raw, 6, 3, attended=21)
    tokens, counts, log_probs = ops.speller_greedy(packed, **given, eos_token=2, max_length=11)
    beams = ops.speller_beam(packed, **given, eos_token=2, max_length=11, beam_width=1)
    assert torch.equal(beams.counts[:, 0], counts)
    assert torch.equal(beams.tokens[:, 0], tokens[:, : beams.tokens.shape[2]])
    assert_close(beams.log_probs[:, 0], log_probs, 1e-12)


def test_equally_probable_hypotheses_keep_their_order():
    raw = make()
    for layer in (raw.outputs[-1].weight, raw.outputs[-1].bias):
        layer.zero_()
    given = inputs(raw)
    beams = ops.speller_beam(ops.pack_speller(raw), **given, eos_token=1, max_length=2, beam_width=4)
    # First 0, 1, 2, 3, of which 1 has ended; then the best of 0, the first row.
    assert beams.tokens[0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 2]]


def test_a_beam_of_impossible_tokens_is_narrower():
    raw = make()
    raw.outputs[-1].bias[3:] = -torch.inf
    given = inputs(raw)
    beams = ops.speller_beam(ops.pack_speller(raw), **given, eos_token=1, max_length=1, beam_width=5)
    assert beams.counts.tolist() == 3 * [[1, 1, 1, 0, 0]]
    assert (beams.log_probs[:, 3:] == -torch.inf).all() and beams.log_probs[:, :3].isfinite().all()


def test_a_beam_without_numbers_ends_alone():
    raw = make()
    given = inputs(raw)
    packed, search = ops.pack_speller(raw), dict(eos_token=1, max_length=4, beam_width=3)
    expected = ops.speller_beam(packed, **given, **search)
    given["states"][0, 1, 3] = torch.nan
    beams = ops.speller_beam(packed, **given, **search)
    assert beams.counts[1].tolist() == [1, 0, 0] and beams.log_probs[1, 0].isnan()
    for row in (0, 2):
        assert torch.equal(beams.tokens[row], expected.tokens[row])
        assert_same_bits(beams.log_probs[row], expected.log_probs[row])


def test_an_utterance_of_no_frames_has_no_context():
    raw = make()
    given = inputs(raw, 2, 2)
    given["lengths"] = torch.tensor([0, 19])
    step = ops.speller_step(ops.pack_speller(raw), previous=None, **given)
    assert not step.weights[0].any() and not step.context[0].any() and step.logits.isfinite().all()


BAD = {
    "tokens beyond": (
        dict(tokens=torch.tensor([1, 23, 0])),
        r"tokens: expected values below the 23.*23 at row 1",
    ),
    "negative token": (dict(tokens=torch.tensor([1, -1, 0])), "received -1 at row 1"),
    "rows": (dict(tokens=torch.zeros(4, dtype=torch.int64)), "states: expected shape"),
    "no rows": (
        dict(tokens=torch.zeros(0, dtype=torch.int64), states=torch.zeros(4, 0, 21)),
        "tokens: expected rows",
    ),
    "states of another count": (dict(states=torch.zeros(3, 3, 21)), r"states: expected shape \(4, 3, any\)"),
    "states of another size": (dict(states=torch.zeros(4, 3, 22)), "packed for this speller"),
    "states' dtype": (dict(states=torch.zeros(4, 3, 21).double()), "states: expected dtype float32"),
    "context": (dict(context=torch.zeros(3, 14)), r"context: expected shape \(3, 15\)"),
    "keys": (dict(keys=torch.zeros(3, 19, 17)), "attention: W: expected shape"),
    "keys' rank": (dict(keys=torch.zeros(3, 19)), "keys: expected 3 dimensions"),
    "values": (dict(values=torch.zeros(3, 18, 15)), r"values: expected shape \(3, 19, any\)"),
    "values' size": (
        dict(values=torch.zeros(3, 19, 16), context=torch.zeros(3, 16)),
        "packed for this speller",
    ),
    "lengths": (dict(lengths=torch.tensor([1, 20, 3])), "lengths: expected values between 0 and the 19"),
    "lengths' count": (dict(lengths=torch.tensor([1, 2])), "lengths: expected shape .3"),
    "previous": (dict(previous=torch.zeros(3, 18)), r"previous: expected shape \(3, 19\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_are_named(what):
    changes, message = BAD[what]
    raw = make()
    given = {"previous": None, **inputs(raw), **changes}
    with pytest.raises(ValueError, match=message):
        ops.speller_step(ops.pack_speller(raw), **given)


def test_what_is_no_tensor_of_its_kind_is_named():
    packed, given = ops.pack_speller(make()), {"previous": None, **inputs(make())}
    for changes, message in (
        (dict(tokens=torch.tensor([1.0, 1, 0])), "tokens: expected an integer dtype, received torch.float32"),
        (dict(tokens=None), "tokens: expected a tensor, an array or a list"),
        (dict(keys=None), "keys: expected a Tensor, received NoneType"),
        (dict(weights=make()), "weights: expected what pack_speller returns, received SpellerWeights"),
    ):
        with pytest.raises(TypeError, match=message):
            ops.speller_step(**{"weights": packed, **given, **changes})


def test_tokens_of_any_kind():
    packed, given = ops.pack_speller(make()), {"previous": None, **inputs(make())}
    tokens = given.pop("tokens")
    expected = ops.speller_step(packed, tokens, **given).logits
    for same in (tokens.to(torch.int32), tokens.tolist(), tokens.numpy()):
        assert_same_bits(ops.speller_step(packed, same, **given).logits, expected)


def test_derivatives_are_refused_and_vmap_maps():
    packed, given = ops.pack_speller(make()), {"previous": None, **inputs(make())}
    keys = given.pop("keys")

    def logits(keys):
        return ops.speller_step(packed, keys=keys, **given).logits

    recorded = logits(keys.clone().requires_grad_())
    assert_same_bits(recorded.detach(), logits(keys))
    for derive in (
        lambda: recorded.sum().backward(),
        lambda: torch.func.grad(lambda keys: logits(keys).sum())(keys),
    ):
        with pytest.raises(RuntimeError, match="speller_step is for inference and has no derivative"):
            derive()
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(logits, (keys,), (keys,))
    more = torch.stack([keys, 2 * keys])
    mapped = torch.func.vmap(logits)(more)
    for got, one in zip(mapped, more, strict=True):
        assert_same_bits(got, logits(one))


def test_bad_weights_are_named():
    raw = make()
    for changes, message in (
        (dict(kind="rnn"), "kind: expected one of"),
        (dict(scores="cosine"), "scores: expected one of"),
        (dict(features="none"), "features: expected one of"),
        (dict(cells=()), "cells, outputs: expected at least one"),
        (dict(scores="additive"), "energy: expected a tensor"),
        (dict(location=torch.zeros(3, 18)), "location, location_bias: expected both"),
        (dict(query=Dense(torch.zeros(3, 4).double())), "query: expected .*float64"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.pack_speller(raw._replace(**changes))
    packed, given = ops.pack_speller(raw), {"previous": None, **inputs(raw)}
    for changes, message in (
        (dict(heads=2), "heads: expected a divisor"),
        (dict(heads=0), "heads: expected a divisor"),
        (dict(cells=packed.cells[:-1]), "cells: expected 6 tensors for each cell"),
        (dict(cells=[]), "cells: expected 6 tensors"),
        (dict(cells=[*packed.cells[:6], *[torch.zeros(5)] * 6]), "packed for this speller"),
        (dict(attention=packed.attention[:-1]), "attention: expected 6"),
        (dict(outputs=packed.outputs[:-3]), "outputs: expected 6 tensors, received 3"),
        (dict(widths=[14, 22]), "widths: expected one or more, the last the 23"),
        (dict(widths=[2**62, 23]), "widths: expected sizes of layers"),
        (dict(widths=[-1, 23]), "widths: expected sizes of layers"),
        (dict(widths=[], outputs=[]), "widths: expected one or more"),
        (dict(features_begin=22), "features_begin: expected 0 to 21"),
        (dict(features_begin=-1), "features_begin: expected 0 to 21"),
        (dict(scores="other"), "scores: expected mean, dot or additive"),
        (dict(embedding=torch.zeros(23)), "embedding: expected 2 dimensions"),
        (dict(embedding=torch.zeros(23, 10)), "packed for this speller"),
        (dict(gru=True), "states: expected shape"),
        (dict(feeds_context=False), "packed for this speller"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.speller_step(packed._replace(**changes), **given)
    given.pop("previous")
    for changes, message in (
        (dict(eos_token=23), "eos: expected a token below 23"),
        (dict(eos_token=-1), "eos: expected"),
        (dict(max_length=0), "max_length: expected at least 1"),
    ):
        search = {"eos_token": 1, "max_length": 5, **changes}
        with pytest.raises(ValueError, match=message):
            ops.speller_greedy(packed, **given, **search)
        with pytest.raises(ValueError, match=message):
            ops.speller_beam(packed, **given, **search, beam_width=3)
    for beam_width in (0, -4):
        with pytest.raises(ValueError, match=f"beam_width: expected at least 1, received {beam_width}"):
            ops.speller_beam(packed, **given, eos_token=1, max_length=5, beam_width=beam_width)
    for beam_width in (2**40, 2**63 - 1):
        with pytest.raises(MemoryError, match=f"no memory for {beam_width} hypotheses of each of 3 rows"):
            ops.speller_beam(packed, **given, eos_token=1, max_length=5, beam_width=beam_width)


def test_opcheck():
    raw = make(**CASES["gru"])
    packed, given = ops.pack_speller(raw), inputs(raw, attended=21)
    arguments = [given[name] for name in ("tokens", "states", "context")]
    memory = [given[name] for name in ("keys", "values", "lengths")]
    torch.library.opcheck(torch.ops.asrkern.speller_step, (*arguments, None, *memory, *packed))
    torch.library.opcheck(torch.ops.asrkern.speller_greedy, (*arguments, *memory, *packed, 2, 5))
    torch.library.opcheck(torch.ops.asrkern.speller_beam, (*arguments, *memory, *packed, 2, 5, 3))
    torch.library.opcheck(torch.ops.asrkern.speller_pack, (torch.randn(12, 5), 4))
