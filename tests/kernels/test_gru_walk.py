"""The walk of the CUDA kernels' GRU on the CPU: lanes, epochs and ragged rows against the reference in float64."""

from __future__ import annotations

import ctypes
import signal
import subprocess

import pytest
import torch

from asrkern import reference
from tests.compare import assert_close
from tests.kernels.gru_host import SM_90, HostGRU, build_program, find_races


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 8, 16, 31, 32, 100])
def test_lanes_hold_what_mma_multiplies(gru_library, dtype, k):
    a, b, sums = torch.randn(16, k).to(dtype), torch.randn(8, k).to(dtype), torch.empty(16, 8)
    gru_library.fragment_product(
        dtype == torch.float32,
        *(ctypes.c_void_p(t.data_ptr()) for t in (a, b)),
        k,
        ctypes.c_void_p(sums.data_ptr()),
    )
    assert_close(sums, a.double() @ b.double().t(), 1e-6)


def test_sums_have_a_place_each_and_no_bank_conflicts(gru_library):
    places = {(row, column): gru_library.sum_place(row, column) for row in range(48) for column in range(32)}
    assert len(set(places.values())) == len(places) and max(places.values()) < 48 * 32
    for half in range(2):
        # 16 lanes store two neighbouring sums each.
        stored = {
            (places[half * 4 + lane // 4, 8 + 2 * (lane % 4) + i]) % 32
            for lane in range(16)
            for i in range(2)
        }
        assert len(stored) == 32
    for row in (0, 16, 32):
        read = {places[row + unit, column] % 32 for unit in range(16) for column in (6, 7)}
        assert len(read) == 32


# hidden_size, lengths, steps, multiprocessors, configs of both passes (None: as planned).
CASES = {
    "one unit, one row": (1, [3], 3, 132, None),
    "one block": (5, [4, 0, 2], 5, 132, None),
    "groups of rows": (11, [6, 1, 0, 9, 4, 4, 9, 2, 7, 3, 5, 8, 1, 9, 9, 6, 2], 9, 132, None),
    "several blocks": (17, [5, 2, 0], 6, 132, None),
    "several chunks of rows": (13, [1 + i * 7 % 5 for i in range(70)], 5, 2, (2, 0)),
    "two tiles": (35, [4, 6, 1, 3, 6], 7, 8, (1, 1)),
    "three tiles": (33, [3, 5, 0, 5], 5, 6, (2, 1)),
    "two groups of tiles": (45, [3, 4, 1], 4, 6, (3, 0)),
    "six tiles": (70, [2, 4, 4, 0], 4, 10, (4, 0)),
    "one direction at once": (21, [5, 2, 4], 5, 2, (2, 1)),
    "one launch a step": (37, [3, 6, 0, 2] * 9, 6, 1, (5, 2)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["TN", "NT", "packed"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_reference(gru_library, case, layout, directions, dtype):
    at_once = 1 if case == "one direction at once" else directions
    check(gru_library, CASES[case], layout, directions, dtype, at_once)


# Another shared memory: with little of it, blocks of weights pass through the ring.
EMULATED = {
    "one block": ((5, [3, 0, 2], 3, 132, None), torch.bfloat16, SM_90[1]),
    "float32 from tf32": ((17, [3, 0, 2], 3, 132, None), torch.float32, SM_90[1]),
    "several chunks of rows": ((9, [2, 1] * 20, 2, 2, (2, 0)), torch.bfloat16, SM_90[1]),
    "two tiles": ((35, [2, 1], 2, 8, (1, 1)), torch.bfloat16, SM_90[1]),
    "one launch a step": ((37, [3, 1], 3, 1, (5, 2)), torch.bfloat16, SM_90[1]),
    "registers, shared memory and ring": ((261, [2, 1], 2, 26, (4, 1)), torch.float32, 121 << 10),
}


@pytest.mark.parametrize("case", EMULATED)
def test_device_code_equals_reference(emulated_gru_library, case):
    """kernels/rnn/cuda/gru_cta.cuh itself, in 256 threads a block, with a stand-in for PTX."""
    shape, dtype, shared_bytes = EMULATED[case]
    directions = 1 if shape[0] > 200 else 2
    check(emulated_gru_library, shape, "TN", directions, dtype, directions, shared_bytes)


def misplaced(values):
    """A copy that begins at no multiple of 16 bytes, as a view of a caller's tensor may."""
    memory = torch.empty(values.numel() + 1, dtype=values.dtype)[1:]
    return memory.copy_(values.flatten()).view(values.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_at_any_address(emulated_gru_library, dtype):
    """Those at no multiple of 16 bytes are not read as vectors, which the stand-in refuses."""
    check(emulated_gru_library, (16, [2, 1], 2, 132, None), "TN", 1, dtype, 1, place=misplaced)


@pytest.mark.parametrize(
    "what, said",
    [
        ("agree", None),
        ("part", "a barrier that not all threads reach"),
        ("mma", "a barrier that not all threads reach"),
        ("misaligned", "a vector of 16 bytes at an address that is no multiple of 16"),
    ],
)
def test_what_a_device_would_not_run_is_told(divergence, what, said):
    result = subprocess.run([divergence, what], capture_output=True, text=True)
    if said is None:
        assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
    else:
        assert result.returncode == -signal.SIGABRT and result.stderr == f"{said}\n"


@pytest.fixture(scope="module")
def divergence(tmp_path_factory):
    return build_program(tmp_path_factory.mktemp("divergence"), "gru_divergence")


def check(
    library, shape, layout, directions, dtype, at_once, shared_bytes=SM_90[1], place=lambda weight: weight
):
    """Output, final state and gradients of a layer with random weights, against the reference in float64."""
    size, lengths, steps, multiprocessors, configs = shape
    forward_config, backward_config = configs or (-1, -1)
    packed, batch_first = layout == "packed", layout == "NT"
    if packed:
        lengths = sorted((n for n in lengths if n), reverse=True)
    rows, features = len(lengths), 6
    with_options = size % 2 == 1
    scale = max(size, 2) ** -0.5
    weights = [
        [place(torch.empty(s).uniform_(-scale, scale).to(dtype)) for s in
         [(3 * size, features), (3 * size, size), (3 * size,), (3 * size,)]]
        for _ in range(directions)
    ]  # fmt: skip
    if not with_options:
        weights = [[*w[:2], None, None] for w in weights]
    h0 = torch.randn(directions, rows, size).to(dtype) if with_options else None
    frames = sum(lengths) if packed else rows * steps
    x = torch.randn(frames, features).to(dtype)
    if not packed:
        x = x.reshape((rows, steps, features) if batch_first else (steps, rows, features))
        valid = torch.arange(steps) < torch.tensor(lengths)[:, None]
        x[~(valid if batch_first else valid.t())] = float("nan")

    options = dict(
        packed=packed, batch_first=batch_first, at_once=at_once, device=(multiprocessors, shared_bytes)
    )
    gru = HostGRU(library, x, weights, h0, lengths, config=forward_config, **options)
    output, h_n = gru.forward()

    doubles = [[None if v is None else v.double().requires_grad_() for v in w] for w in weights]
    x_double = x.double().requires_grad_()
    h0_double = None if h0 is None else h0.double().requires_grad_()
    how = (
        dict(batch_sizes=torch.tensor([sum(n > t for n in lengths) for t in range(max(lengths))]))
        if packed
        else dict(lengths=torch.tensor(lengths), batch_first=batch_first)
    )
    expected = reference.gru(x_double, doubles[0], doubles[1] if directions == 2 else None, h0_double, **how)
    forward_tolerance, tolerance = (1e-5, 1e-4) if dtype == torch.float32 else (1e-2, 3e-2)
    assert_close(output, expected[0], forward_tolerance, "output")
    assert_close(h_n, expected[1], forward_tolerance, "h_n")

    seeds = [torch.randn_like(output), torch.randn_like(h_n)]
    gru.shape.config = backward_config
    grads = gru.backward(*seeds)
    flat = [x_double, *([] if h0 is None else [h0_double]), *(v for w in doubles for v in w if v is not None)]
    wanted = dict(zip(map(id, flat), torch.autograd.grad(expected, flat, [s.double() for s in seeds])))
    dx, dh0, *of_weights = grads
    assert_close(
        dx.reshape(frames, -1)[gru.valid], wanted[id(x_double)].reshape(frames, -1)[gru.valid], tolerance
    )
    assert not dx.reshape(frames, -1)[~gru.valid].any()
    if h0 is not None:
        assert_close(dh0, wanted[id(h0_double)], tolerance, "h0")
    for d, w in enumerate(doubles):
        for name, value, grad in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), w, of_weights):
            if value is not None:
                assert_close(grad[d], wanted[id(value)], tolerance, f"{name} of direction {d}")


def test_epochs_order_every_exchange(tmp_path):
    result = find_races(tmp_path)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr
