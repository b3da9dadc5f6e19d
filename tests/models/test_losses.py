"""asrkern.models.losses: their formulas, and every bad target named."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from asrkern.models.losses import cross_entropy, ctc_loss


def probability(log_probs: Tensor, target: list[int], blank: int) -> float:
    """P(target) summed over every path, log_probs [T, V]."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        if [token for token, _ in itertools.groupby(path) if token != blank] == target:
            total += math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
    return total


@pytest.mark.parametrize("blank", [0, 3])
def test_ctc_loss_is_the_sum_over_paths(blank):
    log_probs = torch.randn(3, 5, 4, dtype=torch.float64).log_softmax(-1)
    output_lengths, target_lengths = torch.tensor([5, 4, 2], dtype=torch.int32), torch.tensor([2, 3, 0])
    a, b = (1, 2) if blank == 0 else (0, 2)
    # What stands beyond a target's length is never a token.
    targets = torch.tensor([[a, a, -7], [b, a, b], [99, blank, -1]])
    loss = ctc_loss(log_probs, output_lengths, targets, target_lengths, blank=blank)
    expected = [
        -math.log(probability(row[:frames], target[:length].tolist(), blank)) / max(length, 1)
        for row, frames, target, length in zip(
            log_probs, output_lengths.tolist(), targets, target_lengths.tolist()
        )
    ]
    assert float(loss) == pytest.approx(sum(expected) / 3, rel=1e-12)


def test_targets_that_do_not_fit_count_as_zero_and_have_no_gradient():
    logits = torch.randn(2, 4, 3, requires_grad=True)
    # 1 1 2 needs five frames, 1 2 1 three.
    targets, target_lengths = torch.tensor([[1, 1, 2], [1, 2, 1]]), torch.tensor([3, 3])
    output_lengths = torch.tensor([3, 4])
    loss = ctc_loss(logits.log_softmax(-1), output_lengths, targets, target_lengths)
    loss.backward()
    assert logits.grad[0].eq(0).all()
    assert logits.grad[1].abs().max() > 0 and logits.grad.isfinite().all()
    alone = ctc_loss(logits[1:].log_softmax(-1), output_lengths[1:], targets[1:], target_lengths[1:])
    torch.testing.assert_close(loss, alone / 2)


def test_all_targets_and_outputs_may_be_empty():
    log_probs = torch.randn(2, 4, 3).log_softmax(-1)
    targets, target_lengths = torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0])
    loss = ctc_loss(log_probs, torch.tensor([4, 0]), targets, target_lengths)
    torch.testing.assert_close(loss, -log_probs[0, :, 0].sum() / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ctc_loss_of_half_precision_is_computed_in_float(dtype):
    log_probs = torch.randn(2, 30, 5).log_softmax(-1).to(dtype)
    targets, lengths = torch.tensor([[1, 2, 3], [4, 4, 1]]), torch.tensor([3, 3])
    arguments = (torch.tensor([30, 30]), targets, lengths)
    loss = ctc_loss(log_probs, *arguments)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, ctc_loss(log_probs.float(), *arguments))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss, ctc_loss(log_probs, *arguments))


def test_ctc_loss_does_not_depend_on_the_padding():
    log_probs = torch.randn(2, 9, 5).log_softmax(-1)
    targets, target_lengths = torch.tensor([[1, 2, 3], [4, 4, 1]]), torch.tensor([3, 2])
    output_lengths = torch.tensor([9, 6])
    loss = ctc_loss(log_probs, output_lengths, targets, target_lengths)
    other = torch.cat([log_probs, torch.full((2, 4, 5), 7.0)], 1)
    other[1, 6:] = -3.0
    wider = torch.nn.functional.pad(targets, (0, 2), value=2)
    torch.testing.assert_close(ctc_loss(other, output_lengths, wider, target_lengths), loss)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"log_probs": torch.zeros(2, 9)},
            r"log_probs: expected floating point of shape \[N, T, V\], received",
        ),
        ({"log_probs": torch.zeros(2, 9, 5, dtype=torch.int64)}, "log_probs: .* received torch.int64"),
        ({"log_probs": torch.zeros(2, 0, 5)}, r"log_probs: .* received torch.float32 of shape \[2, 0, 5\]"),
        (
            {"output_lengths": torch.tensor([9, 10])},
            r"output_lengths: expected 0 to 9 \(T\), received 9 to 10",
        ),
        ({"output_lengths": torch.tensor([9])}, r"output_lengths: expected shape \[2\], received \[1\]"),
        ({"targets": torch.tensor([[1, 2, 5], [1, 1, 1]])}, r"targets: expected 1 to 4 .*received 1 to 5"),
        ({"targets": torch.tensor([[1, 2, 4], [-1, 1, 1]])}, r"targets: expected 1 to 4 .*received -1 to 4"),
        ({"targets": torch.tensor([[1, 0, 4], [1, 1, 1]])}, r"targets: expected 1 to 4 .*received 0 to 4"),
        ({"targets": torch.tensor([1, 2, 3, 1])}, r"targets: expected shape \[2, L\], received \[4\]"),
        ({"target_lengths": torch.tensor([3, 4])}, r"target_lengths: expected 0 to 3 \(L\), received 3 to 4"),
        (
            {"target_lengths": torch.tensor([3, -1])},
            r"target_lengths: expected 0 to 3 \(L\), received -1 to 3",
        ),
        ({"blank": 2}, r"blank: expected 0 or 4 \(the last class\), received 2"),
    ],
)
def test_bad_arguments_of_ctc_loss_are_named(changed, message):
    arguments = {
        "log_probs": torch.zeros(2, 9, 5),
        "output_lengths": torch.tensor([9, 6]),
        "targets": torch.ones(2, 3, dtype=torch.int64),
        "target_lengths": torch.tensor([3, 3]),
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        ctc_loss(**arguments)


def test_the_last_class_as_blank_is_no_target():
    with pytest.raises(ValueError, match=r"targets: expected 0 to 3 \(classes\), received 1 to 4"):
        ctc_loss(torch.zeros(1, 9, 5), torch.tensor([9]), torch.tensor([[1, 4]]), torch.tensor([2]), blank=4)


def test_other_types_are_refused():
    for targets in (torch.ones(1, 1), [[1], [2, 3]], None):
        with pytest.raises(TypeError, match=r"^targets: expected .*integer"):
            ctc_loss(torch.zeros(1, 9, 5), [9], targets, [1])
    with pytest.raises(TypeError, match=r"labels: expected an integer dtype, received torch\.float32"):
        cross_entropy(torch.zeros(1, 3), torch.tensor([0.0]))
    with pytest.raises(TypeError, match="logits: expected a tensor, received list"):
        cross_entropy([[1.0]], torch.tensor([0]))


def test_cross_entropy_is_its_formula_and_names_bad_labels():
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, 2], dtype=torch.uint8)
    expected = -sum(logits[row].log_softmax(-1)[int(label)] for row, label in enumerate(labels)) / 4
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    for bad, message in (
        (torch.tensor([0, 3, 1, 2]), "labels: expected 0 to 2 .*received 0 to 3"),
        (torch.tensor([0, -1, 1, 2]), "labels: expected 0 to 2 .*received -1 to 2"),
        (torch.tensor([0, 1]), r"labels: expected shape \[4\], received \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            cross_entropy(logits, bad)
