"""The Transformer's layers against torch's: values, masks, lengths, rows that do not depend on others; and conversion,
quantisation, copies, compilation."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import asrkern.nn
from asrkern import ops
from asrkern.nn import TransformerDecoderLayer, TransformerEncoderLayer, convert, quantize, revert
from tests.compare import assert_close, assert_same_bits

SIZE, HEADS, ROWS, STEPS, FRAMES = 24, 4, 3, 11, 17
KINDS = {"encoder": TransformerEncoderLayer, "decoder": TransformerDecoderLayer}
STOCK = {"encoder": nn.TransformerEncoderLayer, "decoder": nn.TransformerDecoderLayer}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, **options):
    """In eval mode, with norms and biases that are no identities."""
    layer = KINDS[kind](SIZE, HEADS, 40, **options).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) / 3)
    return layer


def stock(layer):
    """What torch's forward of the same weights computes, in float64."""
    twin = revert(copy.deepcopy(layer)).model.double()
    assert type(twin) in STOCK.values()
    return twin


def inputs(kind, batch_first=False, rows=ROWS, steps=STEPS, frames=FRAMES):
    shapes = [(rows, steps), (rows, frames)][: 1 if kind == "encoder" else 2]
    return [torch.randn(*(s if batch_first else s[::-1]), SIZE) for s in shapes]


def doubles(values):
    return [x.double() for x in values]


@pytest.fixture
def used(monkeypatch):
    """How often the kernel of attention was called."""
    calls = []
    original = ops.attention
    monkeypatch.setattr(ops, "attention", lambda *a, **k: calls.append(1) or original(*a, **k))
    return calls


def hidden(*lengths, steps):
    return torch.arange(steps) >= torch.tensor(lengths)[:, None]


@each_kind
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_equals_torch(kind, norm_first, batch_first, bias, used):
    layer = make(kind, norm_first=norm_first, batch_first=batch_first, bias=bias, activation=nn.ReLU())
    x = inputs(kind, batch_first)
    assert_close(layer(*x), stock(layer)(*doubles(x)), 1e-5)
    assert used


def masks_of(kind):
    causal = nn.Transformer.generate_square_subsequent_mask(STEPS)
    some = torch.rand(STEPS, STEPS) < 0.4
    some.fill_diagonal_(False)
    scattered = torch.rand(ROWS, STEPS) < 0.4
    scattered[:, 0] = False
    own = torch.randn(ROWS * HEADS, STEPS, STEPS)
    first = "src" if kind == "encoder" else "tgt"
    flag = "is_causal" if kind == "encoder" else "tgt_is_causal"
    padding = f"{first}_key_padding_mask"
    found = [
        {f"{first}_mask": causal},
        {f"{first}_mask": causal, flag: True},
        {f"{first}_mask": causal == -torch.inf, flag: True},
        {f"{first}_mask": some},
        {f"{first}_mask": own},
        {padding: scattered},
        {f"{first}_mask": some, padding: scattered},
        {f"{first}_mask": causal, padding: torch.randn(ROWS, STEPS)},
    ]
    if kind == "decoder":
        memory = torch.rand(STEPS, FRAMES) < 0.4
        memory[:, 0] = False
        padded = hidden(17, 1, 9, steps=FRAMES)
        found += [
            {"memory_mask": memory},
            {"memory_mask": torch.randn(ROWS * HEADS, STEPS, FRAMES)},
            {"memory_key_padding_mask": padded},
            {"memory_key_padding_mask": padded, "memory_mask": memory, "tgt_mask": some},
            {"memory_key_padding_mask": torch.zeros(padded.shape).masked_fill(padded, -torch.inf)},
            {"memory_mask": torch.ones(STEPS, FRAMES).triu(1).bool(), "memory_is_causal": True},
        ]
    return found


@each_kind
@pytest.mark.parametrize("index", range(14))
@torch.no_grad()
def test_masks(kind, index, used):
    masks = masks_of(kind)
    if index >= len(masks):
        pytest.skip("an encoder has fewer")
    layer, x = make(kind), inputs(kind)
    wide = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in masks[index].items()
    }
    assert_close(layer(*x, **masks[index]), stock(layer)(*doubles(x), **wide), 1e-5)
    assert used


@each_kind
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_lengths(kind, batch_first, training):
    """As a mask of padding, and zeros beyond; also in torch's forward, which training takes."""
    layer, (x, *memory) = make(kind, batch_first=batch_first, dropout=0.0), inputs(kind, batch_first)
    lengths, first = [11, 4, 1], "src" if kind == "encoder" else "tgt"
    beyond = hidden(*lengths, steps=STEPS)
    padding = {f"{first}_key_padding_mask": beyond}
    options = {"memory_lengths": [17, 1, 5]} if memory else {}
    if memory:
        padding["memory_key_padding_mask"] = hidden(17, 1, 5, steps=FRAMES)
    expected = stock(layer)(*doubles([x, *memory]), **padding)
    beyond = beyond if batch_first else beyond.t()
    with torch.set_grad_enabled(training):
        y = layer.train(training)(x, *memory, lengths=lengths, **options)
        masked = layer(x, *memory, **padding)
    assert_close(y, expected.masked_fill(beyond[..., None], 0), 1e-5)
    assert y.requires_grad == training
    assert training or torch.equal(y, masked)
    # Together with a mask of its own.
    other = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    other[0, 3] = True
    padding[f"{first}_key_padding_mask"] = other | hidden(*lengths, steps=STEPS)
    expected = stock(layer)(*doubles([x, *memory]), **padding).masked_fill(beyond[..., None], 0)
    for mask in (other, torch.zeros(ROWS, STEPS).masked_fill(other, -torch.inf)):
        with torch.set_grad_enabled(training):
            y = layer(x, *memory, lengths=lengths, **{f"{first}_key_padding_mask": mask}, **options)
        assert_close(y, expected, 1e-5)


@each_kind
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_a_row_in_a_batch_equals_the_row_alone(kind, norm_first, quantized):
    """Whatever is beyond its length; in a decoder with rows of few and of many steps, which are computed apart."""
    layer = make(kind, norm_first=norm_first, batch_first=True)
    layer = quantize(layer) if quantized else layer
    lengths, memory_lengths = [11, 2, 0, 7, 1], [1, 17, 5, 0, 9]
    x = inputs(kind, True, len(lengths))
    for padded, counts in zip(x, (lengths, memory_lengths)):
        padded[hidden(*counts, steps=padded.shape[1])] = float("nan")
    options = {"memory_lengths": memory_lengths} if kind == "decoder" else {}
    y = layer(*x, lengths=lengths, **options)
    assert y.isfinite().all()
    for row, counts in enumerate(zip(lengths, memory_lengths)):
        if 0 in counts[: len(x)]:
            continue
        alone = layer(*(padded[row : row + 1, :count] for padded, count in zip(x, counts)))
        assert_same_bits(y[row, : counts[0]], alone[0], f"row {row}")
        assert not y[row, counts[0] :].any()
    order = [4, 1, 0]
    picked = [F.pad(padded[order], (0, 0, 0, 3), value=5.0) for padded in x]
    options = {key: [value[i] for i in order] for key, value in options.items()}
    again = layer(*picked, lengths=[lengths[i] for i in order], **options)
    assert_same_bits(again[:, :STEPS], y[order])


@torch.no_grad()
def test_nested_tensors(used):
    layer = make("encoder", batch_first=True)
    rows = [torch.randn(n, SIZE) for n in (5, 1, 9)]
    y = layer(torch.nested.nested_tensor(rows))
    assert y.is_nested and used
    for found, row in zip(y.unbind(), rows):
        assert_same_bits(found, layer(row[None])[0])


@each_kind
@pytest.mark.parametrize(
    "case",
    ["gelu", "callable", "gradients", "float64", "unbatched", "hooks", "autocast", "training", "subclass"],
)
def test_what_is_torchs(kind, case, used):
    """Of what asrkern has no kernel for, torch's forward decides."""
    activation = {"gelu": "gelu", "callable": torch.tanh}.get(case, "relu")
    layer, x = make(kind, activation=activation, dropout=0.0), inputs(kind)
    layer = {"float64": layer.double, "training": layer.train}.get(case, layer.eval)()
    if case == "float64":
        x = doubles(x)
    if case == "unbatched":
        x = [value[:, 0] for value in x]
    if case == "hooks":
        layer.linear1.register_forward_hook(lambda module, args, output: output + 1)
    if case == "subclass":
        base = type(layer)
        layer.__class__ = type("Own", (base,), {"_ff_block": lambda self, y: base._ff_block(self, y) * 2})
    with torch.set_grad_enabled(case == "gradients"), torch.autocast("cpu", enabled=case == "autocast"):
        y, expected = layer(*x), STOCK[kind].forward(layer, *x)
    assert torch.equal(y, expected) and not used
    assert y.requires_grad == (case == "gradients")


@each_kind
def test_training_is_torchs(kind):
    layer = make(kind, dropout=0.3).train()
    twin = STOCK[kind](SIZE, HEADS, 40, dropout=0.3).train()
    twin.load_state_dict(layer.state_dict())
    assert list(twin.state_dict()) == list(layer.state_dict())
    x = inputs(kind)
    grads = []
    for module in (layer, twin):
        torch.manual_seed(3)
        module(*x).square().sum().backward()
        grads.append([p.grad for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@each_kind
@torch.no_grad()
def test_edits_of_weights_are_seen(kind):
    layer, x = make(kind), inputs(kind)
    layer(*x)
    layer.self_attn.in_proj_weight.data.mul_(1.5)
    layer.linear2.weight.data.numpy()[:] *= 0.5
    assert_close(layer(*x), stock(layer)(*doubles(x)), 1e-5)


@each_kind
@torch.no_grad()
def test_copies(kind):
    layer, x = make(kind), inputs(kind)
    y = layer(*x)
    assert_same_bits(copy.deepcopy(layer)(*x), y)
    for value in (layer, quantize(layer)):
        stream = io.BytesIO()
        torch.save(value, stream)
        stream.seek(0)
        assert_same_bits(torch.load(stream, weights_only=False)(*x), value(*x))


def model():
    return nn.Transformer(SIZE, HEADS, 2, 2, 40, dropout=0.0, batch_first=True).eval()


@torch.no_grad()
def test_convert_and_revert(used):
    stocks = model()
    x = inputs("decoder", True)
    padded = hidden(11, 3, 7, steps=STEPS)
    masks = {"src_key_padding_mask": padded, "memory_key_padding_mask": padded}
    mask = nn.Transformer.generate_square_subsequent_mask(FRAMES)
    expected = copy.deepcopy(stocks).double()(*doubles(x), tgt_mask=mask.double(), **masks)
    keys, parameters = list(stocks.state_dict()), list(stocks.parameters())
    report = convert(stocks)
    assert len(report.swapped) == 4 and not report.left
    assert type(stocks.encoder.layers[1]) is TransformerEncoderLayer
    assert list(stocks.state_dict()) == keys
    assert all(a is b for a, b in zip(parameters, stocks.parameters(), strict=True))
    assert_close(stocks(*x, tgt_mask=mask, **masks), expected, 1e-5)
    assert len(used) == 2 + 2 * 2
    assert len(revert(stocks).swapped) == 4
    assert type(stocks.decoder.layers[0]) is nn.TransformerDecoderLayer
    assert_close(stocks(*x, tgt_mask=mask, **masks), expected, 1e-5)
    assert len(used) == 2 + 2 * 2


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda kind: kind(8, 2, 4, activation="gelu"), "no kernel for its activation"),
        (lambda kind: type("Own", (kind,), {})(8, 2, 4), "a subclass"),
        (lambda kind: _changed(kind(8, 2, 4), "linear1", nn.Sequential(nn.Linear(8, 4))), "a part of it"),
    ],
)
@each_kind
def test_what_is_left(kind, build, reason):
    layer = build(STOCK[kind])
    report = convert(nn.Sequential(layer))
    assert [reason in why for _, _, why in report.left] == [True] and not report.swapped
    assert report.model[0] is layer


def _changed(layer, name, part):
    setattr(layer, name, part)
    return layer


@pytest.mark.parametrize("format, tolerance", [("int8", 2e-2), ("bf16", 1e-2)])
@pytest.mark.parametrize("converted", [False, True])
@torch.no_grad()
def test_quantized(format, tolerance, converted):
    stocks = model()
    x = inputs("decoder", True)
    padded = hidden(11, 3, 7, steps=STEPS)
    masks = {"src_key_padding_mask": padded, "memory_key_padding_mask": padded}
    expected = stocks(*x, **masks)
    if converted:
        convert(stocks)
    small = quantize(stocks, format)
    assert isinstance(small.encoder.layers[0], asrkern.nn.QuantizedTransformerEncoderLayer)
    assert isinstance(small.decoder.layers[1], asrkern.nn.QuantizedTransformerDecoderLayer)
    assert not any(type(m) in (nn.Linear, nn.MultiheadAttention) for m in small.modules())
    assert_close(small(*x, **masks), expected, tolerance)
    with pytest.raises(RuntimeError, match="is for inference"):
        small.train()(*x, **masks)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_quantized_equals_its_own_weights(kind):
    layer = make(kind)
    small = quantize(layer)
    for name, part in small.named_modules():
        if isinstance(part, asrkern.nn.QuantizedLinear):
            weight = part.weight * part.scale[:, None]
            name = name.replace(".in_proj", "")
            target = layer.get_submodule(name)
            getattr(target, "weight", getattr(target, "in_proj_weight", None)).copy_(weight)
    x = inputs(kind)
    assert_close(small(*x), layer(*x), 1e-5)
    single = [value[:, 1] for value in x]
    assert_close(small(*single), small(*x)[:, 1], 1e-5)
    assert small(*(value.bfloat16() for value in x)).dtype == torch.bfloat16


@each_kind
def test_bad_input_of_quantized(kind):
    layer, x = quantize(make(kind)), inputs(kind)
    name = "src" if kind == "encoder" else "tgt"
    for options, message in (
        ({f"{name}_mask": torch.zeros(3, 3)}, f"{name}_mask: expected shape"),
        ({f"{name}_key_padding_mask": torch.zeros(3, 3)}, f"{name}_key_padding_mask: expected shape"),
        ({f"{name}_mask": torch.zeros(11, 11, dtype=torch.int32)}, f"{name}_mask: expected a bool"),
        ({"is_causal" if kind == "encoder" else "tgt_is_causal": True}, "expected the causal mask"),
        ({"lengths": [12, 1, 1]}, "lengths: expected 0 to 11"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            layer(*x, **options)
    with pytest.raises(ValueError, match=f"{name}: expected shape"):
        layer(*(value[..., :5] for value in x))
    with pytest.raises(ValueError, match="lengths: expected None"):
        make(kind)(*(value[:, 0] for value in x), lengths=[3])


@each_kind
@pytest.mark.parametrize("name", ["linear1", "self_attn", "self_attn.in_proj", "self_attn.out_proj"])
def test_altered_parts_of_quantized_are_refused(kind, name):
    """Their weights are read, so that a hook on them would not run, nor LoRA's forward."""
    small, x = asrkern.nn.quantize(make(kind)), inputs(kind)
    expected = small(*x)
    part = small.get_submodule(name)
    hook = part.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match=f"^{name}: expected a part without hooks"):
        small(*x)
    hook.remove()
    part.forward = lambda x: x
    with pytest.raises(RuntimeError, match=f"^{name}: expected a part without hooks"):
        small(*x)
    del part.forward
    # Norms are called.
    seen = []
    small.norm1.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(small(*x), expected)
    assert seen


class WithLengths(nn.Module):
    def __init__(self, kind, quantized):
        super().__init__()
        self.layer = make(kind, batch_first=True)
        self.layer = quantize(self.layer) if quantized else self.layer

    def forward(self, lengths, *x):
        return self.layer(*x, lengths=lengths)


@each_kind
@pytest.mark.parametrize("quantized", [False, True])
@torch.no_grad()
def test_compile_export_and_trace(kind, quantized):
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13) and not quantized:
        pytest.skip("torch's own layer, which is compiled here, cannot be before torch 2.13")
    module = WithLengths(kind, quantized).eval()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, steps, frames in ((3, 11, 17), (2, 5, 9)):
        x = inputs(kind, True, rows, steps, frames)
        lengths = torch.arange(steps, steps - rows, -1)
        assert_close(compiled(lengths, *x), module(lengths, *x), 1e-5)
    rows, steps, frames = (torch.export.Dim(n, min=2, max=64) for n in ("rows", "steps", "frames"))
    shapes = ({0: rows}, ({0: rows, 1: steps}, {0: rows, 1: frames})[: 1 if kind == "encoder" else 2])
    x = inputs(kind, True)
    program = torch.export.export(module, (torch.tensor([11, 4, 2]), *x), dynamic_shapes=shapes)
    x = inputs(kind, True, 4, 13, 9)
    lengths = torch.tensor([13, 1, 2, 9])
    assert_close(program.module()(lengths, *x), module(lengths, *x), 1e-5)
    traced = torch.jit.trace(module, (torch.tensor([11, 4, 2]), *inputs(kind, True)), check_trace=False)
    x = inputs(kind, True)
    lengths = torch.tensor([3, 11, 7])
    assert_close(traced(lengths, *x), module(lengths, *x), 1e-5)


@each_kind
@pytest.mark.parametrize("quantized", [False, True])
@torch.no_grad()
def test_a_node_of_fx(kind, quantized):
    module = WithLengths(kind, quantized).eval()
    # A tracer has no variable number of arguments.
    several = {"encoder": lambda self, lengths, a: self.layer(a, lengths=lengths)}.get(
        kind, lambda self, lengths, a, b: self.layer(a, b, lengths=lengths)
    )
    module.__class__ = type("Traced", (WithLengths,), {"forward": several})
    traced = torch.fx.symbolic_trace(module)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["layer"]
    x = inputs(kind, True)
    assert_same_bits(traced(torch.tensor([3, 11, 7]), *x), module(torch.tensor([3, 11, 7]), *x))


@each_kind
@pytest.mark.parametrize("quantized", [False, True])
@torch.no_grad()
def test_vmap(kind, quantized):
    layer = make(kind, batch_first=True)
    layer = quantize(layer) if quantized else layer
    many = [torch.stack([a, b]) for a, b in zip(inputs(kind, True), inputs(kind, True))]
    lengths = torch.tensor([[11, 2, 5], [1, 9, 11]])
    y = torch.func.vmap(lambda counts, *x: layer(*x, lengths=counts))(lengths, *many)
    for i in range(2):
        assert_close(y[i], layer(*(x[i] for x in many), lengths=lengths[i]), 1e-5)
