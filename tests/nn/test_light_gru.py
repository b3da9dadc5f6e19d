"""asrkern.nn.LightGRU against its reference: every option, gradients, statistics, and rows on their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from asrkern import reference
from asrkern.nn import BatchRNN, LightGRU
from tests.compare import assert_close

EXACT = {"rtol": 1e-9, "atol": 1e-10}
LENGTHS = torch.tensor([11, 3, 0, 1, 7])


def make(*args, **options) -> LightGRU:
    """A layer in fp64 whose norms are no identities."""
    layer = LightGRU(*args, **options).double()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if name.endswith((".weight", "running_var")):
                tensor.uniform_(0.5, 2)
            elif name.endswith((".bias", "running_mean")):
                tensor.normal_(0, 0.3)
    return layer


def by_reference(
    layer: LightGRU, x: Tensor, h0: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All layers by asrkern.reference, x [T, N, features]."""

    def weights(name: str):
        norm = getattr(layer, f"batch_norm_{name}")
        return (
            getattr(layer, f"weight_ih_{name}"),
            getattr(layer, f"weight_hh_{name}"),
            *(norm.weight, norm.bias, norm.running_mean, norm.running_var),
        )

    directions = 2 if layer.bidirectional else 1
    finals = []
    for i in range(layer.num_layers):
        x, final = reference.light_gru(
            x,
            weights(f"l{i}"),
            weights(f"l{i}_reverse") if layer.bidirectional else None,
            None if h0 is None else h0[i * directions : (i + 1) * directions],
            lengths=lengths,
            training=layer.training,
        )
        finals.append(final)
    return x, torch.cat(finals)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("steps", "rows", "hidden", "layers", "bidirectional", "ragged"),
    [
        (2, 1, 1, 1, False, False),
        (11, 5, 7, 1, False, True),
        (11, 5, 6, 1, True, True),
        (11, 5, 13, 3, True, True),
        (63, 2, 5, 2, True, False),
    ],
)
def test_matches_the_reference(steps, rows, hidden, layers, bidirectional, ragged, training):
    layer = make(3, hidden, layers, bidirectional=bidirectional).train(training)
    lengths = LENGTHS if ragged else None
    x = torch.randn(steps, rows, 3, dtype=torch.float64)
    h0 = torch.randn(layers * (1 + bidirectional), rows, hidden, dtype=torch.float64)
    results = []
    for run in (
        lambda a, h: layer(a, h, lengths=lengths),
        lambda a, h: by_reference(layer, a, h, lengths),
    ):
        layer.zero_grad()
        inputs = [x.clone().requires_grad_(), h0.clone().requires_grad_()]
        output, final = run(*inputs)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        ((output * weights).sum() + final.square().sum()).backward()
        results.append([output, final, *(i.grad for i in inputs), *(p.grad for p in layer.parameters())])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **EXACT)
    assert all(tensor.abs().max() > 0 for tensor in results[0])


def test_a_step_is_the_formula_of_the_paper():
    """Written out for one unit and two frames."""
    layer = make(1, 1).eval()
    (w_z,), (w_c,) = layer.weight_ih_l0.tolist()
    (u_z,), (u_c,) = layer.weight_hh_l0.tolist()
    norm = layer.batch_norm_l0
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    h = torch.zeros((), dtype=torch.float64)
    for t, x in enumerate((0.7, -1.3)):
        n_z, n_c = (
            torch.tensor([w_z * x, w_c * x], dtype=torch.float64) - norm.running_mean
        ) * scale + norm.bias
        z = torch.sigmoid(n_z + u_z * h)
        h = z * h + (1 - z) * torch.relu(n_c + u_c * h)
        output, _ = layer(torch.tensor([0.7, -1.3], dtype=torch.float64)[: t + 1, None])
        torch.testing.assert_close(output[t, 0], h, **EXACT)


def test_statistics_are_those_of_the_valid_frames():
    layer = make(3, 4)
    x = torch.randn(11, 5, 3, dtype=torch.float64)
    norm = layer.batch_norm_l0
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    layer(x.masked_fill((torch.arange(11)[:, None] >= LENGTHS)[..., None], 1e3), lengths=LENGTHS)
    frames = torch.cat([x[:length, row] for row, length in enumerate(LENGTHS.tolist())])
    projected = frames @ layer.weight_ih_l0.t()
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * projected.mean(0), **EXACT)
    torch.testing.assert_close(norm.running_var, 0.9 * var + 0.1 * projected.var(0), **EXACT)


def test_padded_statistics_on_request():
    layer = make(3, 4, stats="padded")
    x = torch.randn(11, 5, 3, dtype=torch.float64)
    mean = layer.batch_norm_l0.running_mean.clone()
    layer(x, lengths=LENGTHS)
    projected = x.flatten(0, 1) @ layer.weight_ih_l0.t()
    expected = 0.9 * mean + 0.1 * projected.mean(0)
    torch.testing.assert_close(layer.batch_norm_l0.running_mean, expected, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_a_row_in_a_batch_is_the_row_alone(batch):
    layer = make(13, 37, 2, bidirectional=True).float().eval()
    lengths = torch.randint(1, 41, (batch,))
    x = torch.randn(45, batch, 13)
    x[torch.arange(45)[:, None] >= lengths] = float("nan")
    output, h_n = layer(x, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_h = layer(x[:length, row : row + 1])
        assert_close(output[:length, row], alone[:, 0], 1e-5)
        assert_close(h_n[:, row], alone_h[:, 0], 1e-5)
        assert output[length:, row].eq(0).all()


def test_more_padding_changes_no_gradient():
    x = torch.randn(11, 5, 3, dtype=torch.float64)
    gradients = []
    for extra in (0, 6):
        torch.manual_seed(1)
        layer = make(3, 4, 2, bidirectional=True)
        padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, extra), value=9.0)
        layer(padded, lengths=LENGTHS)[0].square().sum().backward()
        gradients.append([p.grad for p in layer.parameters()])
    for short, long in zip(*gradients, strict=True):
        torch.testing.assert_close(long, short, **EXACT)


@torch.no_grad()
def test_interface_is_that_of_the_gru():
    layer = make(3, 4, 2, bidirectional=True).eval()
    rows = [torch.randn(length, 3, dtype=torch.float64) for length in (5, 9, 1)]
    packed, h_packed = layer(pack_sequence(rows, enforce_sorted=False))
    padded = torch.nn.utils.rnn.pad_sequence(rows)
    output, h_n = layer(padded, lengths=torch.tensor([5, 9, 1]))
    assert output.shape == (9, 3, 8) and h_n.shape == (4, 3, 4)
    torch.testing.assert_close(h_packed, h_n, **EXACT)
    for i, row in enumerate(unpack_sequence(packed)):
        torch.testing.assert_close(row, output[: len(rows[i]), i], **EXACT)
        alone, _ = layer(rows[i])
        torch.testing.assert_close(row, alone, **EXACT)
    other = LightGRU(3, 4, 2, batch_first=True, bidirectional=True, merge="sum").double().eval()
    other.load_state_dict(layer.state_dict())
    summed, _ = other(padded.transpose(0, 1), lengths=torch.tensor([5, 9, 1]))
    torch.testing.assert_close(summed.transpose(0, 1), output[..., :4] + output[..., 4:], **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [True, False])
def test_batch_rnn_takes_it(bidirectional):
    layer = BatchRNN(3, 4, LightGRU, bidirectional, batch_norm=False, stats="padded").double().eval()
    assert layer.rnn.batch_norm_l0.stats == "padded"
    x = torch.randn(11, 5, 3, dtype=torch.float64)
    output, h_n = layer(x, LENGTHS)
    expected, expected_h = by_reference(layer.rnn, x, None, LENGTHS)
    expected = expected.unflatten(-1, (-1, 4)).sum(2)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(h_n, expected_h, **EXACT)


def test_initial_state_matrices_are_orthogonal():
    for gate in LightGRU(3, 16).weight_hh_l0.chunk(2):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("input", "lengths", "message"),
    [
        ((6, 3, 5), None, "input: expected 4 features"),
        ((6, 3, 4, 1), None, "input: expected 3 dimensions"),
        ((0, 3, 4), None, "input: expected at least one row and one frame"),
        ((6, 3, 4), [6, 7, 1], r"lengths: expected 0 to 6 \(T\), received 1 to 7"),
        ((6, 3, 4), [6, -1, 1], r"lengths: expected 0 to 6 \(T\), received -1 to 6"),
        ((6, 3, 4), [6, 1], r"lengths: expected shape \[3\]"),
    ],
)
def test_bad_input_is_named(input, lengths, message):
    with pytest.raises(ValueError, match=message):
        LightGRU(4, 5)(torch.zeros(input), lengths=lengths and torch.tensor(lengths))


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="bias: expected True"):
        LightGRU(4, 5, bias=False)
    with pytest.raises(ValueError, match="stats: expected"):
        LightGRU(4, 5, stats="all")
    with pytest.raises(ValueError, match="merge: expected"):
        LightGRU(4, 5, merge="mul")
