"""Where asrkern has no kernel for a device, torch's own layers do the work: on the CPU as a stand-in, and on a GPU."""

import importlib

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asrkern import ops, reference
from asrkern.ops import _recurrent
from tests.compare import assert_close

LENGTHS = torch.tensor([7, 0, 3, 5])
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
on_each_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture
def composed(monkeypatch):
    """Makes the operations treat the CPU as a device without kernels."""
    monkeypatch.setattr(_recurrent, "_kernel", _recurrent._composed)
    for name in ("batch_norm_act", "masked_conv2d"):
        module = importlib.import_module(f"asrkern.ops.{name}")
        monkeypatch.setattr(torch.ops.asrkern, name, module._composed)
    # cuDNN would otherwise round fp32 inputs to TF32.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def double(value):
    if isinstance(value, torch.Tensor):
        return value.cpu().double() if value.is_floating_point() else value.cpu()
    return value


def assert_matches(op, expected_op, args, options, device):
    """Outputs and gradients of an operation on a device against its reference in float64 on the CPU."""
    args = [
        a.to(device).requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in args
    ]
    doubles = [double(a.detach()).requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
               for a in args]  # fmt: skip
    outputs, expected = op(*args, **options), expected_op(*doubles, **options)
    inputs = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
    wanted_inputs = [a for a in doubles if isinstance(a, torch.Tensor) and a.requires_grad]
    output, wanted = (o if isinstance(o, torch.Tensor) else o[0] for o in (outputs, expected))
    assert_close(output.cpu(), wanted, 1e-5, "output")
    seed = torch.randn_like(output)
    grads = torch.autograd.grad(output, inputs, seed)
    for index, (grad, other) in enumerate(
        zip(grads, torch.autograd.grad(wanted, wanted_inputs, double(seed)))
    ):
        assert_close(grad.cpu(), other, 1e-4, f"gradient {index}")


@on_each_device
@pytest.mark.parametrize("name, gates, states", [("gru", 3, 1), ("lstm", 4, 2)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_states", [False, True])
def test_recurrent(composed, device, name, gates, states, packed, with_states):
    shapes = [(gates * 6, 5), (gates * 6, 6), (gates * 6,), (gates * 6,)]
    weights = [torch.randn(s) * 0.4 for _ in range(2) for s in shapes]
    x, options = torch.randn(7, 4, 5), {"lengths": LENGTHS}
    if packed:
        sequence = pack_padded_sequence(x, LENGTHS.clamp(min=1), enforce_sorted=False)
        x, options = sequence.data, {"batch_sizes": sequence.batch_sizes}
    initial = [torch.randn(2, 4, 6) for _ in range(states)] if with_states else []

    def call(layer):
        return lambda x, *tensors, **options: layer(x, tensors[:4], tensors[4:8], *tensors[8:], **options)

    assert_matches(
        call(getattr(ops, name)), call(getattr(reference, name)), [x, *weights, *initial], options, device
    )


@on_each_device
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stats", ["valid", "padded"])
@pytest.mark.parametrize("layout, shape", [("NCFT", (4, 3, 2, 7)), ("TNC", (7, 4, 3)), ("NTC", (4, 7, 3))])
def test_batch_norm_act(composed, device, training, stats, layout, shape):
    mean, var = torch.randn(3), torch.rand(3) + 0.5

    def call(op):
        def run(x, weight, bias, **options):
            at = {"dtype": x.dtype, "device": x.device}
            return op(x, weight, bias, mean.to(**at), var.to(**at), LENGTHS.to(x.device), **options)

        return run

    options = dict(layout=layout, training=training, stats=stats, activation=(-0.9, 1.3))
    args = [torch.randn(shape) * 2 + 1, torch.randn(3), torch.randn(3)]
    assert_matches(call(ops.batch_norm_act), call(reference.batch_norm_act), args, options, device)


@on_each_device
@pytest.mark.parametrize("with_lengths", [False, True])
def test_masked_conv2d(composed, device, with_lengths):
    def call(op):
        return lambda x, *rest, **options: op(
            x, *rest, lengths=LENGTHS.to(x.device) if with_lengths else None, **options
        )

    args = [torch.randn(4, 2, 9, 7), torch.randn(6, 2, 5, 3), *(torch.randn(6) for _ in range(3))]
    options = dict(stride=(2, 1), padding=(2, 1), activation=(0.0, 20.0))
    assert_matches(call(ops.masked_conv2d), call(reference.masked_conv2d), args, options, device)


@on_each_device
def test_linear(device):
    assert_matches(
        ops.linear, reference.linear, [torch.randn(2, 3, 5), torch.randn(4, 5), torch.randn(4)], {}, device
    )


class OnCuda(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True

    def get_device(self):
        return 0


# What is changed in a call that takes asrkern's CUDA kernels, and whether it still does.
CALLS = {
    "nothing": ({}, True),
    "bfloat16": ({"dtype": torch.bfloat16}, True),
    "float64": ({"dtype": torch.float64}, False),
    "another cell": ({"cell": "lstm"}, False),
    "more rows than it is for": ({"rows": 9}, False),
    "packed": ({"batch_sizes": torch.tensor([8, 2])}, True),
    "packed, more rows": ({"batch_sizes": torch.tensor([9, 1])}, False),
    "no kernel was checked": ({"checked": ()}, False),
    "gradients without their kernel": (
        {"requires_grad": True, "rows": 4, "checked": ("gru_forward",)},
        False,
    ),
    "gradients": ({"requires_grad": True, "rows": 4}, True),
    "gradients of fewer rows": ({"requires_grad": True, "rows": 5}, False),
}


@pytest.mark.parametrize("case", CALLS)
def test_which_gru_runs_on_cuda(monkeypatch, case):
    change, expected = CALLS[case]
    call = dict(cell="gru", dtype=torch.float32, rows=8, batch_sizes=None, requires_grad=False,
                checked=("gru_forward", "gru_backward")) | change  # fmt: skip
    asked = []

    def rows(name, device, value_bytes, size, directions, backward):
        asked.append((name, device, value_bytes, size, directions, backward))
        return 4 if backward else 8

    monkeypatch.setattr(_recurrent, "_cuda_rows", rows)
    monkeypatch.setattr(_recurrent._library, "cuda_kernel", lambda name: name in call["checked"])
    packed = call["batch_sizes"] is not None
    x = torch.randn((10, 5) if packed else (3, call["rows"], 5)).to(call["dtype"])
    weights = [torch.randn(shape).to(call["dtype"]) for shape in [(18, 5), (18, 6), (18,), (18,)] * 2]
    weights[0].requires_grad_(call["requires_grad"])
    cell = _recurrent.Cell(call["cell"], 3, 4, ("h0",))
    taken = _recurrent._takes_cuda(cell, x.as_subclass(OnCuda), (None,), weights, call["batch_sizes"], False)
    assert taken == expected
    assert all(question[:5] == ("gru", 0, x.itemsize, 6, 2) for question in asked)
