"""Operations called as torch.ops.asrkern.*, without asrkern.ops: what memory depends on is checked behind the schema."""

from __future__ import annotations

import re

import pytest
import torch

from asrkern import ops
from asrkern.ops import GRUWeights, LSTMWeights
from tests.ops.calls import CALLS, CELLS, INF, batch_norm, beam_search, conv, g, model, op, recurrent

INTEGERS = ("lengths", "output_lengths", "token_kinds", "tokens")


def spoilt(value, integers):
    """What each tensor must not be replaced by: (what, tensor)."""
    yield "0-dimensional", value.new_ones(())
    yield "another rank", value[None]
    yield "empty", value[:0]
    yield "one more", torch.cat([value, value[:1]])
    yield "one value", value.new_ones([1] * value.dim()).expand(2**48, *value.shape[1:])
    for dtype in (torch.int32, torch.float64, torch.float16, torch.bool, torch.complex64):
        yield f"{dtype}", value.to(dtype)
    if not integers:
        yield "integers", value.to(torch.int64)


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("name", CALLS)
def test_each_tensor_of_a_call_is_checked(name):
    """Each tensor in turn replaced by what does not fit: an error that names it, or the one that no longer fits it."""
    arguments = CALLS[name]()
    assert all(
        isinstance(result, torch.Tensor) for result in op(name)(*arguments.values()) if name != "linear"
    )
    tensors = {k: v for k, v in arguments.items() if isinstance(v, torch.Tensor)}
    # A size may be another's in a list of tensors, too.
    lists = [k for k, v in arguments.items() if isinstance(v, list)]
    names = "|".join((*tensors, *lists, "weight_hh", "packed_hh"))
    for argument, value in tensors.items():
        for what, other in spoilt(value, argument in INTEGERS):
            if other.dtype == value.dtype and other.shape == value.shape:
                continue
            # linear takes any shape with as many features, a recurrent layer any number of frames.
            if (
                name.startswith("linear")
                and argument == "input"
                and other.dtype == value.dtype
                and other.dim() > 0
            ):
                continue
            if "backward" not in name and argument == "input" and what == "one more" and name[0] in "gl":
                continue
            with pytest.raises((ValueError, MemoryError)) as error:
                op(name)(*(arguments | {argument: other}).values())
            assert re.match(rf"({names})(\W|$)|asrkern::{name}: |a tensor of shape", str(error.value)), (
                f"{argument}, {what}: {error.value}"
            )


@pytest.mark.parametrize("name", CALLS)
def test_none_where_a_tensor_belongs(name):
    arguments = CALLS[name]()
    required = [a.name for a in op(name).default._schema.arguments if str(a.type) == "Tensor"]
    assert required
    for argument in required:
        with pytest.raises(
            (ValueError, TypeError), match=f"{argument}: expected a tensor, received None|NoneType"
        ):
            op(name)(*(arguments | {argument: None}).values())


@pytest.mark.parametrize("name", [n for n in CALLS if "_backward" not in n])
def test_tensors_where_none_belong(name):
    arguments = CALLS[name]()
    for argument, value in arguments.items():
        if value is None and argument not in ("output_lengths", "lm_tokens"):
            with pytest.raises(ValueError):
                op(name)(*(arguments | {argument: g(3)}).values())


@CELLS
@pytest.mark.parametrize("prepacked", [False, True])
def test_one_direction_has_nothing_of_the_other(cell, prepacked):
    name = f"{cell}_prepacked" if prepacked else cell
    arguments = recurrent(cell, prepacked=prepacked, directions=1)
    both = recurrent(cell, prepacked=prepacked)
    for argument in (k for k in arguments if k.endswith("_reverse")):
        with pytest.raises(ValueError, match="reverse: expected"):
            op(name)(*(arguments | {argument: both[argument]}).values())
    for argument in ("bias_ih", "bias_hh"):
        with pytest.raises(ValueError, match=r"bias_.h: expected .*as bias_ih is"):
            op(name)(*(arguments | {argument: None}).values())


@CELLS
def test_prepacked_rows_that_are_no_gates(cell):
    arguments = recurrent(cell, prepacked=True, directions=1)
    gates = {"gru": 3, "lstm": 4}[cell]
    spoilt = {k: arguments[k][:-1] for k in ("weight_ih", "scale_ih", "scale_hh", "bias_ih", "bias_hh")}
    message = (
        rf"weight_ih: expected \[{gates}·hidden_size, input_size\], received shape \({6 * gates - 1}, 5\)"
    )
    with pytest.raises(ValueError, match=message):
        op(f"{cell}_prepacked")(*(arguments | spoilt).values())


@CELLS
@pytest.mark.parametrize("prepacked", [False, True])
def test_states_of_fewer_rows_than_the_batch(cell, prepacked):
    name = f"{cell}_prepacked" if prepacked else cell
    arguments = recurrent(cell, prepacked=prepacked)
    packed = {"input": g(6, 5), "lengths": None, "batch_sizes": torch.tensor([3, 2, 1])}
    op(name)(*(arguments | packed).values())
    for state in ("h0", "c0")[: 1 if cell == "gru" else 2]:
        for rows in (0, 1, 2, 4):
            with pytest.raises(
                ValueError, match=rf"{state}: expected shape \(2, 3, 6\), received \(2, {rows}, 6\)"
            ):
                op(name)(*(arguments | packed | {state: g(2, rows, 6)}).values())


@CELLS
def test_states_of_fewer_rows_than_the_batch_through_python(cell):
    weights = {"gru": GRUWeights, "lstm": LSTMWeights}[cell]
    arguments = recurrent(cell, directions=1)
    parameters = weights(*(arguments[k] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
    with pytest.raises(ValueError, match=r"h0: expected shape \(1, 3, 6\), received \(1, 2, 6\)"):
        getattr(ops, cell)(g(6, 5), parameters, h0=g(1, 2, 6), batch_sizes=torch.tensor([3, 2, 1]))


@pytest.mark.parametrize(
    "sizes, message",
    [
        ([2**62, 2**62, 2**62], "batch_sizes: expected values that sum to the 6 frames"),
        ([3, 4], "batch_sizes: expected positive values that never grow, received 4 at step 1"),
        ([3, 2], "batch_sizes: expected values that sum to the 6 frames of the input, received the sum 5"),
        (
            [3, 2, 2],
            "batch_sizes: expected values that sum to the 6 frames of the input, received 2 at step 2",
        ),
        ([], "batch_sizes: expected values that sum to the 6 frames of the input"),
        ([-1], "batch_sizes: expected positive values"),
    ],
)
def test_batch_sizes(sizes, message):
    arguments = recurrent("gru") | {"h0": None, "lengths": None, "input": g(6, 5)}
    with pytest.raises(ValueError, match=message):
        op("gru")(*(arguments | {"batch_sizes": torch.tensor(sizes, dtype=torch.int64)}).values())


@pytest.mark.parametrize("layout", ["", "N", "TCN", "NCFTR", "XC", "NN"])
@pytest.mark.parametrize("name", ["batch_norm_act", "batch_norm_act_backward"])
def test_layouts(name, layout):
    with pytest.raises(ValueError, match="layout: expected one of RC, NTC, TNC, NCT, NCFT, received"):
        op(name)(*(CALLS[name]() | {"layout": layout}).values())


@pytest.mark.parametrize("statistics", ["running_mean", "running_var"])
def test_batch_norm_without_statistics(statistics):
    with pytest.raises(ValueError, match=f"{statistics}: expected a tensor when not training, received None"):
        op("batch_norm_act")(*(batch_norm() | {statistics: None}).values())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stride": [1]}, "stride: expected two integers, received 1"),
        ({"padding": []}, "padding: expected two integers, received 0"),
        ({"pool": [1]}, "pool: expected two integers, received 1"),
        ({"pool": [0, 1]}, r"pool: expected 1 to 5, the convolution's F' \(frequency\), received 0"),
        (
            {"pool": [1, 2**62]},
            r"pool: expected 1 to 7, the convolution's T' \(time\), received 4611686018427387904",
        ),
        ({"stride": [0, 1]}, "stride: expected at least 1, received 0"),
        ({"stride": [1, -(2**62)]}, "stride: expected at least 1"),
        ({"padding": [2**62, 0]}, r"padding: expected 0 to 2147483647, received 4611686018427387904 along F"),
        ({"padding": [0, -1]}, r"padding: expected 0 to 2147483647, received -1 along T"),
        ({"weight": g(6, 2, 0, 3)}, "weight: expected at least one value in every dimension"),
        (
            {"weight": g(6, 2, 5, 10), "padding": [0, 1]},
            r"input: expected T \(time\) of at least 8.*received 7",
        ),
        ({"input": g(4, 2, 9, 0)}, "input: expected at least one value in every dimension but the first"),
    ],
)
def test_masked_conv2d_geometry(change, message):
    with pytest.raises(ValueError, match=message):
        op("masked_conv2d")(*(conv() | change).values())


@pytest.mark.parametrize("stride", [(2**62, 1), (1, 2**62), (2**63 - 1, 2**63 - 1), (2**32, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stride_beyond_the_input_takes_one_window(stride, dtype):
    x, weight = (t.to(dtype) for t in (g(3, 2, 9, 40), g(5, 2, 4, 11)))
    lengths = torch.tensor([40, 0, 17])
    output = ops.masked_conv2d(x, weight, lengths=lengths, stride=stride, padding=(2, 5))
    # One window as any stride as long as the padded input has it.
    near = ops.masked_conv2d(
        x, weight, lengths=lengths, stride=tuple(min(s, 60) for s in stride), padding=(2, 5)
    )
    assert output.shape == near.shape == (3, 5, 10 if stride[0] == 1 else 1, 40 if stride[1] == 1 else 1)
    assert torch.equal(output, near)


@pytest.mark.parametrize("which", ["stride", "padding"])
def test_geometry_beyond_integers_through_python(which):
    with pytest.raises(ValueError, match=f"{which}: expected two integers of at most"):
        ops.masked_conv2d(g(1, 1, 5, 5), g(1, 1, 3, 3), **{which: (2**63, 1)})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"language_model": [g(5, 2)]}, "language_model: expected unigrams"),
        (model(ngrams=torch.zeros(4, dtype=torch.int64)), "language_model: expected unigrams"),
        (model(ngrams=torch.zeros(5, 2, dtype=torch.int64)), "language_model: expected unigrams"),
        (model(unigrams=g(5, 2).double()), "language_model: expected dtype float32, received float64"),
        (model(unigrams=g(1, 1).expand(2**40, 2)), "language_model: expected unigrams"),
        (model() | {"lm_bos": 5}, "language_model: expected <s> and </s> between 0 and 4, received 5"),
        (model() | {"lm_order": 7}, "language_model: expected an order of 1 to 6, received 7"),
        ({"lexicon": [g(3)]}, "lexicon: expected 9 tensors or none, received 1"),
        ({"hotwords": [g(3)] * 6}, "hotwords: expected 7 tensors or none, received 6"),
        ({"hotwords": [g(3)] * 7}, "hotwords: expected dtype int32, received float32"),
        ({"token_kinds": torch.zeros(3, dtype=torch.uint8)}, "token_kinds: expected 4 values"),
        ({"log_probs": g(2, 5, 0)}, "log_probs: expected 1 to 2147483647 tokens, received shape"),
        ({"log_probs": g(1, 0, 1).expand(1, 0, 2**32)}, "log_probs: expected 1 to 2147483647 tokens"),
        ({"nbest": 5}, "nbest: expected 1 to beam_width, 4, received 5"),
        ({"beam_width": 2**62}, r"beam_width: expected 1 to 2\^20"),
        ({"lengths": torch.tensor([5, 6])}, "lengths: expected values between 0 and the 5 frames"),
    ],
)
def test_beam_search(change, message):
    with pytest.raises(ValueError, match=message):
        op("ctc_beam_search")(*(beam_search() | change).values())


NODES = {
    "edge_begin": torch.tensor([0, 2, 2, 3], dtype=torch.int32),
    "edge_token": torch.tensor([1, 2, 3], dtype=torch.int32),
    "edge_target": torch.tensor([0, 2, 0], dtype=torch.int32),
    "edge_mask": torch.tensor([6, 0, 8]),
}


def phrases(**changes):
    values = {
        "credit": torch.tensor([0.5, 0.0, 1.0]),
        "completed": torch.zeros(3),
        "reach": torch.tensor([1.0, 0.0, 1.0]),
    }
    return {"hotwords": [*NODES.values(), *(values | changes).values()]}


def words(**changes):
    arrays = {
        "word_begin": torch.tensor([0, 0, 1, 2], dtype=torch.int32),
        "words": torch.tensor([0, 1], dtype=torch.int32),
        "lm_words": torch.tensor([1, 2], dtype=torch.int32),
        "look_ahead": torch.tensor([0.0, -1.0, -2.0]),
        "reach": torch.zeros(3),
    }
    lexicon = [*NODES.values(), *(arrays | changes).values()]
    return {"lexicon": lexicon, "texts": torch.zeros(7, 2, dtype=torch.int64)}


@pytest.mark.parametrize("worth", [INF, float("nan"), 1e21, -1e21])
@pytest.mark.parametrize("name", ["credit", "completed", "look_ahead"])
def test_beam_search_refuses_what_would_come_to_infinities(name, worth):
    """An unlimited worth of a prefix once had more of them chosen than there was room for."""
    make = words if name == "look_ahead" else phrases
    op("ctc_beam_search")(*(beam_search() | make()).values())
    changed = make(**{name: torch.tensor([0.0, 0.0, worth])})
    with pytest.raises(ValueError, match=f"{next(iter(changed))}: expected numbers between -1e20"):
        op("ctc_beam_search")(*(beam_search() | changed).values())
    for option in ("unknown_look_ahead", "begin_reach"):
        with pytest.raises(ValueError, match=f"{option}.*: expected numbers between"):
            op("ctc_beam_search")(*(beam_search() | {option: worth}).values())


@pytest.mark.parametrize("worth", [INF, -INF, float("nan"), 3e38, -3e38])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("width", [1, 3, 8])
def test_beam_search_over_a_language_model_of_any_numbers(worth, column, width):
    """Its tables are too long to look through at each call: nothing may be made of them but scores."""
    unigrams = -g(5, 2).abs()
    unigrams[torch.randint(5, (2,)), column] = worth
    context = (
        model(unigrams=unigrams)
        | words()
        | {"alpha": 1.0, "token_kinds": torch.tensor([0, 0, 1, 2], dtype=torch.uint8)}
    )
    call = beam_search() | context | {"log_probs": g(3, 40, 4).log_softmax(-1), "lengths": None}
    tokens, *_, lengths, scores, _, errors = op("ctc_beam_search")(
        *(call | {"beam_width": width, "nbest": 1}).values()
    )
    assert ((tokens >= -1) & (tokens < 4)).all() and (lengths <= 40).all()
    assert not scores.isnan().any() and (errors[:, 0] >= 0).all()


@pytest.mark.parametrize("name", ["gru_pack", "lstm_pack"])
@pytest.mark.parametrize(
    "weight", [g(7, 2), g(0, 0), g(9), g(), g(6, 2).double(), g(0, 2)], ids=lambda t: str(tuple(t.shape))
)
def test_packs_of_other_weights(name, weight):
    with pytest.raises(ValueError, match="weight_hh: expected"):
        op(name)(weight)


@pytest.mark.parametrize("argument", ["lengths", "h0", "weight_hh", "bias_hh_reverse"])
def test_a_tensor_without_memory_never_reaches_a_kernel(argument):
    arguments = recurrent("gru")
    with pytest.raises(ValueError, match="asrkern::gru: expected all tensors on the meta device or none"):
        op("gru")(*(arguments | {argument: arguments[argument].to("meta")}).values())
    on_meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    assert all(result.is_meta for result in op("gru")(*on_meta.values()))
