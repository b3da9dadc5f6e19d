"""Every public callable takes lengths as a tensor, an array or a list, and refuses bad ones in the same words."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import asrkern.decoder
import asrkern.models
import asrkern.models.losses
import asrkern.nn
import asrkern.ops
from tests.ops.calls import speller as speller_call

ROWS, STEPS, SIZE, BINS = 3, 41, 6, 161
GOOD = [40, 31, 41]


def public() -> list[tuple[str, str]]:
    """(callable, parameter) of all lengths."""
    found = []
    for module in (asrkern.nn, asrkern.ops, asrkern.models, asrkern.models.losses, asrkern.decoder):
        for name in getattr(module, "__all__", ["ctc_loss"]):
            value = getattr(module, name)
            functions = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else []
            functions = [(f"{name}.{key}", function) for key, function in functions if key[0] != "_"]
            for key, function in [(name, value)] if inspect.isfunction(value) else functions:
                if function.__module__.startswith("asrkern"):
                    names = inspect.signature(function).parameters
                    found += [(key, p) for p in names if re.fullmatch(r"(\w+_)?lengths|batch_sizes", p)]
    return found


def _recurrent(name):
    return getattr(asrkern.nn, name)(SIZE, 5, batch_first=True)


def _weights(kind, gates):
    ih, hh = torch.randn(gates * 5, SIZE), torch.randn(gates * 5, 5)
    packed = getattr(asrkern.ops, f"pack_{kind}_weight")(hh)
    return (ih, hh), getattr(asrkern.ops, f"Packed{kind.upper()}Weights")(ih, None, packed, None)


def _models():
    options = {"fc_sizes": (4, 4)}
    return {
        "DeepSpeech2": asrkern.models.build("deepspeech2_mlperf", hidden_size=4),
        "AlgoPerfDeepSpeech": asrkern.models.build(
            "deepspeech2_algoperf", hidden_size=4, num_layers=1, num_ffn_layers=1
        ),
        "VGGGRUCTC": asrkern.models.build("vgg_gru_ctc", channels=(4, 5), hidden_size=4, dnn_size=4),
        "ConvTransformerClassifier": asrkern.models.build(
            "conv_transformer", decoder_steps=2, num_layers=1, dim_feedforward=4, **options
        ),
        "ConvRNNClassifier": asrkern.models.build("conv_rnn", hidden_size=4, classify="combine", **options),
        "LAS": asrkern.models.build(
            "las_hw4",
            conv_channels=(8,),
            hidden_size=4,
            embedding_size=12,
            speller_size=12,
            attention_size=8,
        ),
    }  # fmt: skip


def calls() -> dict[str, tuple]:
    """A callable of each, its arguments but the lengths, and good values of those that are not GOOD."""
    rows, frames, image = (
        torch.randn(ROWS, STEPS, SIZE),
        torch.randn(STEPS, ROWS, SIZE),
        torch.randn(ROWS, 2, 7, STEPS),
    )
    conv, norm = nn.Conv2d(2, 3, 3, (1, 2)), nn.BatchNorm1d(SIZE)
    halves = [20, 15, 1]
    stack = asrkern.nn.MaskConv(nn.Sequential(conv, nn.BatchNorm2d(3), nn.Hardtanh(0, 20)))
    result = {
        "stack_frames": (asrkern.nn.stack_frames, {"input": rows}),
        "PyramidalRNN.forward": (asrkern.nn.PyramidalRNN(SIZE, 5), {"input": rows}),
        "BatchRNN.forward": (asrkern.nn.BatchRNN(SIZE, 5), {"x": frames}),
        "SequenceWise.forward": (asrkern.nn.SequenceWise(norm), {"x": frames}),
        "Lookahead.forward": (asrkern.nn.Lookahead(SIZE, 3), {"x": frames}),
        "MaskConv.forward": (stack, {"x": image}, {"lengths": halves}),
        "MaskedBatchNorm1d.forward": (
            asrkern.nn.MaskedBatchNorm1d(SIZE),
            {"input": rows.transpose(1, 2)},
        ),
        "MaskedBatchNorm2d.forward": (asrkern.nn.MaskedBatchNorm2d(2), {"input": image}),
        "batch_norm_act": (
            asrkern.ops.batch_norm_act,
            {"input": rows, "layout": "NTC", "training": True}
            | dict.fromkeys(("weight", "bias", "running_mean", "running_var")),
        ),
        "conv_output_lengths": (asrkern.ops.conv_output_lengths, {"kernel_size": 3}),
        "masked_conv2d": (
            asrkern.ops.masked_conv2d,
            {"input": image, "weight": conv.weight, "stride": (1, 2)},
            {"output_lengths": halves},
        ),
        "masked_conv2d_batch_norm_act": (
            asrkern.ops.masked_conv2d_batch_norm_act,
            {"input": image, "weight": conv.weight, "stride": (1, 2)}
            | dict.fromkeys(("bias", "norm_weight", "norm_bias")),
            {"output_lengths": halves},
        ),
    }
    for name in ("GRU", "LSTM", "LightGRU"):
        result[f"{name}.forward"] = (_recurrent(name), {"input": rows})
    for name in ("GRU", "LSTM"):
        quantized = asrkern.nn.quantize(_recurrent(name)).eval()
        result[f"Quantized{name}.forward"] = (quantized, {"input": rows})
        result[f"Frozen{name}.forward"] = (asrkern.nn.freeze(_recurrent(name)), {"input": rows})
    packed = torch.randn(sum(GOOD), SIZE)
    result["attention"] = (
        asrkern.ops.attention,
        {"query": packed, "key": packed, "value": packed, "heads": 2},
    )
    for kind in ("Encoder", "Decoder"):
        layer = getattr(asrkern.nn, f"Transformer{kind}Layer")(SIZE, 2, 5, batch_first=True).eval()
        inputs = {"src": rows} if kind == "Encoder" else {"tgt": rows, "memory": rows}
        result[f"Transformer{kind}Layer.forward"] = (layer, inputs)
        result[f"QuantizedTransformer{kind}Layer.forward"] = (asrkern.nn.quantize(layer), inputs)
    for name, search in (("speller_step", None), ("speller_greedy", "greedy"), ("speller_beam", "beam")):
        call = speller_call(search, rows=ROWS, memories=ROWS, frames=STEPS)
        packed = asrkern.ops.PackedSpeller(*(call.pop(field) for field in asrkern.ops.PackedSpeller._fields))
        call = {
            "eos_token" if key == "eos" else key: value for key, value in call.items() if key != "lengths"
        }
        result[name] = (getattr(asrkern.ops, name), {"weights": packed, **call})
    for kind, gates in (("gru", 3), ("lstm", 4)):
        for op, weights in zip((kind, f"{kind}_prepacked"), _weights(kind, gates)):
            result[op] = (getattr(asrkern.ops, op), {"weights": weights}, {"batch_sizes": [3, 3, 2, 1, 1]})
    for name, sizes in (
        *(
            ("Attention", ()),
            ("MeanAttention", ()),
            ("DotAttention", ()),
            ("AdditiveAttention", (4, SIZE, 5)),
        ),
        *(("LocationAwareAttention", (4, SIZE, 5)), ("MultiHeadAttention", (4, SIZE, 6, 2))),
    ):
        result[f"{name}.remember"] = (getattr(asrkern.nn, name)(*sizes).remember, {"memory": rows})

    log_probs, targets = torch.randn(ROWS, STEPS, 5).log_softmax(-1), torch.randint(1, 5, (ROWS, 7))
    counts = {"target_lengths": [7, 1, 4]}
    decoder = asrkern.decoder.CTCBeamDecoder(["-", " ", "a", "b", "c"])
    scores = {"log_probs": log_probs}
    for name in ("forced_align", "ctc_score"):
        result[name] = (getattr(asrkern.decoder, name), {**scores, "targets": targets}, counts)
    for name in ("decode", "decode_batch"):
        result[f"CTCBeamDecoder.{name}"] = (getattr(decoder, name), scores)
    result["greedy_decode"] = (asrkern.decoder.greedy_decode, scores)
    result["ctc_beam_search"] = (asrkern.ops.ctc_beam_search, scores)
    result["ctc_loss"] = (asrkern.models.losses.ctc_loss, {**scores, "targets": targets}, counts)

    for name, model in _models().items():
        model.eval()
        features = {"features": torch.randn(ROWS, 1, model.n_features, STEPS)}
        for method in ("forward", "conv_stage", "listen"):
            result[f"{name}.{method}"] = (getattr(model, method, None), features)
        if hasattr(model, "conv_stage"):
            x, lengths = model.conv_stage(features["features"], torch.tensor(GOOD))
            for method in ("rnn_stage", "body_stage"):
                stage = getattr(model, method, None)
                result[f"{name}.{method}"] = (stage, {"x": x}, {"output_lengths": lengths.tolist()})
            if hasattr(model, "rnn_stage"):
                hidden = {"x": model.rnn_stage(x, lengths)}
                for method in ("fc_stage", "dnn_stage"):
                    stage = getattr(model, method, None)
                    result[f"{name}.{method}"] = (stage, hidden, {"output_lengths": lengths.tolist()})
        else:
            targets = torch.randint(3, 20, (ROWS, 7))
            logits = model(*features.values(), GOOD, targets, counts["target_lengths"]).logits.detach()
            result["LAS.forward"] = (model, {**features, "targets": targets}, counts)
            result["LAS.loss"] = (model.loss, {"logits": logits, "targets": targets}, counts)
            for method in ("greedy", "beam_search"):
                result[f"LAS.{method}"] = (getattr(model, method), {**features, "max_length": 3})
    return result


@pytest.fixture(scope="module")
def known() -> dict[str, tuple]:
    torch.manual_seed(0)
    return calls()


def prepare(known, name, parameter):
    """The call as a function of one of its lengths, and good values for that."""
    function, arguments, *values = known[name]
    good = {**dict.fromkeys((p for key, p in public() if key == name), GOOD), **(values[0] if values else {})}
    if parameter == "batch_sizes":
        arguments = {**arguments, "input": torch.randn(10, SIZE)}
    elif name in ("gru", "lstm", "gru_prepacked", "lstm_prepacked"):
        arguments = {**arguments, "input": torch.randn(STEPS, ROWS, SIZE)}
    others = {} if name.startswith(("MaskConv", "gru", "lstm")) else good
    others = {key: torch.tensor(value) for key, value in others.items() if key != parameter}
    return lambda lengths: function(**arguments, **others, **{parameter: lengths}), good[parameter]


cases = pytest.mark.parametrize(
    "name, parameter", [pytest.param(*case, id="-".join(case)) for case in public()]
)


@cases
def test_lists_and_arrays_are_lengths(known, name, parameter):
    call, good = prepare(known, name, parameter)
    wanted = tree_leaves(call(torch.tensor(good)))
    for lengths in (good, tuple(good), np.array(good, np.uint8), np.array(good[::-1], ">i4")[::-1]):
        for found, expected in zip(tree_leaves(call(lengths)), wanted, strict=True):
            if isinstance(expected, torch.Tensor):
                torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            else:
                assert repr(found) == repr(expected)


@cases
def test_bad_lengths_are_named_as_they_were_passed(known, name, parameter):
    call, good = prepare(known, name, parameter)
    floats = torch.tensor(good).float()
    for bad in (floats, floats.numpy(), floats.tolist(), floats > 0, [None] * len(good), 3, "abc"):
        with pytest.raises(TypeError, match=f"^{parameter}: expected .*integer"):
            call(bad)
    if name == "conv_output_lengths":
        return
    for bad in (good[:-1], [good], [-1, *good[1:]], [*good[:-1], 10**6]):
        if parameter == "batch_sizes" and bad == good[:-1]:
            continue
        with pytest.raises(ValueError, match=f"^{parameter}: expected"):
            call(torch.tensor(bad))


def test_none_is_forgotten(known):
    assert {name for name, _ in public()} == {name for name, value in known.items() if value[0] is not None}


def test_lists_under_compile_and_export():
    layer, x = asrkern.nn.GRU(SIZE, 5).eval(), torch.randn(9, ROWS, SIZE)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for lengths in ([9, 0, 4], [2, 9, 7], [5, 5, 5]):
        for given in (lengths, torch.tensor(lengths)):
            assert torch.equal(compiled(x, lengths=given)[0], layer(x, lengths=torch.tensor(lengths))[0])
    program = torch.export.export(layer, (x,), {"lengths": [9, 0, 4]})
    assert torch.equal(program.module()(x, lengths=[9, 0, 4])[0], layer(x, lengths=[9, 0, 4])[0])
