"""Operations called as torch.ops.asrkern.*, without asrkern.ops: what memory depends on is checked behind the schema."""

from __future__ import annotations

import re

import pytest
import torch

from asrkern import ops
from asrkern.ops import GRUWeights, LSTMWeights
from tests.compare import assert_close

INF = float("inf")
PETABYTES = 2**50


def g(*shape):
    return torch.randn(shape)


def op(name):
    return getattr(torch.ops.asrkern, name)


def recurrent(cell, *, prepacked=False, directions=2, steps=4, rows=3, features=5, size=6):
    """The arguments of a recurrent operation by name, all of them there."""
    gates, states = (3, ("h0",)) if cell == "gru" else (4, ("h0", "c0"))

    def one(end, there=True):
        parameters = {
            "weight_ih": g(gates * size, features),
            "scale_ih": g(gates * size),
            "packed_hh" if prepacked else "weight_hh": g(gates * size, size),
            "scale_hh": g(gates * size),
            "bias_ih": g(gates * size),
            "bias_hh": g(gates * size),
        }
        if prepacked:
            parameters["packed_hh"] = op(f"{cell}_pack")(parameters["packed_hh"])
        parameters = {
            k + end: v if there else None for k, v in parameters.items() if prepacked or "scale" not in k
        }
        return parameters

    return {
        "input": g(steps, rows, features),
        "lengths": torch.randint(0, steps + 1, (rows,)),
        "batch_sizes": None,
        **{name: g(directions, rows, size) for name in states},
        **one(""),
        **one("_reverse", directions == 2),
        "batch_first": False,
        **({} if prepacked else {"save_reserve": True}),
    }


def backward(cell, **options):
    a = recurrent(cell, **options)
    output, *finals, reserve = op(cell)(*a.values())
    del a["save_reserve"]
    batch_first = a.pop("batch_first")
    a = {k: v for k, v in a.items() if "bias" not in k}
    grads = {f"grad_{k}": torch.randn_like(v) for k, v in zip(("output", "h_n", "c_n"), (output, *finals))}
    return grads | a | {"output": output, "reserve": reserve, "batch_first": batch_first}


def batch_norm(layout="NCFT", training=False):
    return {
        "input": g(*(dict(N=4, C=3, F=2, T=7, R=5)[d] for d in layout)), "weight": g(3), "bias": g(3), "running_mean": g(3),
        "running_var": g(3).abs() + 0.5, "lengths": None if layout == "RC" else torch.tensor([7, 0, 3, 5]),
        "layout": layout, "training": training, "count_padding": False, "eps": 1e-5, "min": 0.0, "max": 20.0,
    }  # fmt: skip


def batch_norm_backward():
    a = batch_norm()
    a["mean"], a["var"] = a.pop("running_mean"), a.pop("running_var")
    order = ("input", "weight", "bias", "mean", "var", "lengths")
    rest = {k: v for k, v in a.items() if k not in order}
    return {"grad_output": torch.randn_like(a["input"])} | {k: a[k] for k in order} | rest


def conv():
    return {
        "input": g(4, 2, 9, 7), "weight": g(6, 2, 5, 3), "bias": g(6), "scale": g(6), "shift": g(6),
        "lengths": torch.tensor([7, 0, 3, 5]), "output_lengths": None, "stride": [2, 1], "padding": [2, 1],
        "min": 0.0, "max": 20.0,
    }  # fmt: skip


def beam_search():
    return {
        "log_probs": g(2, 5, 4).log_softmax(-1), "lengths": torch.tensor([5, 3]),
        "token_kinds": torch.zeros(4, dtype=torch.uint8), "language_model": [], "lm_order": 0, "lm_bos": 0, "lm_eos": 0,
        "lm_tokens": None, "lexicon": [], "hotwords": [], "alpha": 0.0, "beta": 0.0, "unk_score": 0.0,
        "unknown_look_ahead": 0.0, "begin_reach": 0.0, "blank": 0, "beam_width": 4, "nbest": 2, "top_tokens": 4,
        "token_min_logp": -INF, "beam_prune_logp": -INF, "blank_penalty": 0.0, "log_add": True, "check_normalized": True,
        "num_threads": 1, "texts": torch.zeros(5, 2, dtype=torch.int64), "history": 512,
    }  # fmt: skip


def model(**changes):
    tensors = {"unigrams": -g(5, 2).abs(), "ngrams": torch.zeros(4, 2, dtype=torch.int64), **changes}
    return {"language_model": list(tensors.values()), "lm_order": 2}


QUANTIZED = {"input": g(3, 5), "weight": torch.ones(4, 5, dtype=torch.int8), "scale": g(4), "bias": g(4)}
CALLS = {
    "gru": lambda: recurrent("gru"),
    "gru_backward": lambda: backward("gru"),
    "gru_prepacked": lambda: recurrent("gru", prepacked=True),
    "lstm": lambda: recurrent("lstm"),
    "lstm_backward": lambda: backward("lstm"),
    "lstm_prepacked": lambda: recurrent("lstm", prepacked=True),
    "linear": lambda: {"input": g(3, 5), "weight": g(4, 5), "bias": g(4)},
    "linear_quantized": lambda: dict(QUANTIZED),
    "batch_norm_act": batch_norm,
    "batch_norm_act_backward": batch_norm_backward,
    "masked_conv2d": conv,
    "ctc_beam_search": beam_search,
}
INTEGERS = ("lengths", "output_lengths", "token_kinds")


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
    names = "|".join((*tensors, "weight_hh", "packed_hh"))
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


CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])


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
@pytest.mark.parametrize("name", ["credit", "completed", "reach", "look_ahead"])
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


def wide(*shape):
    """One value as often as there is no memory for."""
    return torch.zeros([1] * len(shape)).expand(shape)


@pytest.mark.parametrize(
    "name, call",
    [
        ("linear", lambda: op("linear")(wide(PETABYTES, 4), g(3, 4), None)),
        ("linear", lambda: op("linear")(torch.zeros(1, 0).expand(PETABYTES, 0), g(3, 0), None)),
        ("gru", lambda: op("gru")(wide(PETABYTES, 1, 5), None, None, None, g(18, 5), g(18, 6), *[None] * 6, False, False)),
        ("gru", lambda: op("gru")(wide(2, PETABYTES, 5), None, None, None, g(18, 5), g(18, 6), *[None] * 6, False, False)),
        ("batch_norm_act", lambda: op("batch_norm_act")(*(batch_norm("NTC") | {"input": wide(4, PETABYTES, 3)}).values())),
        ("masked_conv2d", lambda: op("masked_conv2d")(wide(1, 1, 3, PETABYTES), g(1, 1, 3, 3), *[None] * 5, [1, 1], [0, 0], -INF, INF)),
        ("ctc_beam_search", lambda: op("ctc_beam_search")(*(beam_search() | {"log_probs": wide(1, PETABYTES, 4), "lengths": None}).values())),
    ],
)  # fmt: skip
def test_no_memory(name, call):
    """Which operation wanted how much for what, and nothing of how torch was built."""
    with pytest.raises(MemoryError) as error:
        call()
    assert re.match(rf"asrkern::{name}: no memory for ", str(error.value)), str(error.value)
    assert not re.search(r"\.h|\.cpp|/", str(error.value)), str(error.value)


def test_no_memory_for_frames_without_features():
    call = (None, None, None, g(18, 0), g(18, 6), *[None] * 6, False, False)
    with pytest.raises(MemoryError, match=rf"asrkern::gru: .* a tensor of shape \({2**45}, 5\)"):
        op("gru")(torch.zeros(1, 1, 0).expand(2**45, 5, 0), *call)


def test_no_memory_for_utterances_without_frames():
    log_probs = torch.zeros(1, 0, 4).expand(PETABYTES, 0, 4)
    with pytest.raises(MemoryError, match=rf"asrkern::ctc_beam_search: .*\({PETABYTES}, 2"):
        op("ctc_beam_search")(*(beam_search() | {"log_probs": log_probs, "lengths": None}).values())


def test_no_memory_says_how_much():
    with pytest.raises(MemoryError) as error:
        op("linear")(torch.zeros(1, 0).expand(PETABYTES, 0), g(3, 0), None)
    expected = f"asrkern::linear: no memory for {PETABYTES * 12} bytes, a tensor of shape ({PETABYTES}, 3)"
    assert str(error.value) == expected


def test_more_bytes_than_integers():
    with pytest.raises(
        ValueError, match=r"a tensor of shape \(4611686018427387904, 3\) would have more bytes than"
    ):
        op("linear")(torch.zeros(1, 0).expand(2**62, 0), g(3, 0), None)


@pytest.mark.parametrize("argument", ["lengths", "h0", "weight_hh", "bias_hh_reverse"])
def test_a_tensor_without_memory_never_reaches_a_kernel(argument):
    arguments = recurrent("gru")
    with pytest.raises(ValueError, match="asrkern::gru: expected all tensors on the meta device or none"):
        op("gru")(*(arguments | {argument: arguments[argument].to("meta")}).values())
    on_meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    assert all(result.is_meta for result in op("gru")(*on_meta.values()))


# --- batches of no rows ---------------------------------------------------------------------------------------------


@CELLS
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_no_rows_as_torch(cell, batch_first, bidirectional, with_lengths):
    stock = getattr(torch.nn, cell.upper())(5, 6, bidirectional=bidirectional, batch_first=batch_first)
    parameters = [p.detach().requires_grad_() for p in stock.parameters()]
    x = torch.randn((0, 4, 5) if batch_first else (4, 0, 5), requires_grad=True)
    lengths = torch.zeros(0, dtype=torch.int64) if with_lengths else None
    expected, finals = stock(x)
    finals = (finals,) if cell == "gru" else finals
    weights = (parameters[:4], parameters[4:] if bidirectional else None)
    output, *states = getattr(ops, cell)(x, *weights, lengths=lengths, batch_first=batch_first)
    assert output.shape == expected.shape
    assert [s.shape for s in states] == [s.shape for s in finals]
    (output.sum() + sum(s.sum() for s in states)).backward()
    assert x.grad.shape == x.shape
    for p in parameters:
        assert torch.equal(p.grad, torch.zeros_like(p))
    arguments = recurrent(cell, prepacked=True, rows=0)
    output, *states = op(f"{cell}_prepacked")(*arguments.values())
    assert output.shape == (4, 0, 12) and all(s.shape == (2, 0, 6) for s in states)


@CELLS
@pytest.mark.parametrize("rows", [0, 3])
def test_no_frames_are_refused_as_by_torch(cell, rows):
    arguments = recurrent(cell, steps=1, rows=rows) | {"input": g(0, rows, 5)}
    with pytest.raises(
        ValueError, match=rf"input: expected at least one frame, received shape \(0, {rows}, 5\)"
    ):
        op(cell)(*arguments.values())


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (3, 0)])
@pytest.mark.parametrize("outputs", [0, 4])
def test_linear_of_nothing(shape, outputs):
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in (shape, (outputs, shape[-1]), (outputs,)))
    output, expected = ops.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    assert_close(output, expected, 0.0)
    seed = torch.randn_like(expected)
    grads = torch.autograd.grad(output, (x, weight, bias), seed)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, (x, weight, bias), seed)):
        assert_close(grad, wanted, 1e-6)


def test_linear_of_no_rows_takes_no_time():
    output = op("linear")(g(0, 0), g(1, 0).expand(2**48, 0), None)
    assert output.shape == (0, 2**48)


@pytest.mark.parametrize("layout, shape", [("NCT", (0, 3, 5)), ("NTC", (2, 0, 3)), ("TNC", (4, 0, 3)), ("NCFT", (2, 3, 0, 4)), ("RC", (0, 3))])  # fmt: skip
def test_batch_norm_of_nothing(layout, shape):
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in (shape, (3,), (3,)))
    mean, var = g(3), g(3).abs() + 1
    result = ops.batch_norm_act(x, weight, bias, mean, var, layout=layout, training=False)
    assert result.output.shape == shape and result.count == 0
    assert torch.equal(result.mean, mean) and torch.equal(result.var, var)
    result.output.sum().backward()
    assert (
        x.grad.shape == shape
        and torch.equal(weight.grad, torch.zeros(3))
        and torch.equal(bias.grad, torch.zeros(3))
    )
    with pytest.raises(ValueError, match="input: expected at least one value in every dimension"):
        ops.batch_norm_act(x, weight, bias, mean, var, layout=layout, training=True)


def test_masked_conv2d_of_no_rows():
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in ((0, 2, 9, 7), (6, 2, 5, 3), (6,)))
    output = ops.masked_conv2d(
        x, weight, bias, stride=(2, 1), padding=(2, 1), lengths=torch.zeros(0, dtype=torch.int64)
    )
    expected = torch.nn.functional.conv2d(x, weight, bias, (2, 1), (2, 1))
    assert output.shape == expected.shape == (0, 6, 5, 7)
    output.sum().backward()
    assert x.grad.shape == x.shape and torch.equal(weight.grad, torch.zeros_like(weight))
    assert torch.equal(bias.grad, torch.zeros(6))


def test_beam_search_of_no_utterances():
    result = ops.ctc_beam_search(g(0, 5, 4), torch.zeros(0, dtype=torch.int64), beam_width=3, nbest=2)
    assert result.tokens.shape == (0, 2, 5) and result.errors.shape == (0, 2)
