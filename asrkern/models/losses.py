"""The losses that models are trained by, with checked targets: for some bad ones torch reads beyond its tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkern._lengths import Lengths, as_lengths
from asrkern.models._checks import check_labels, check_scores, check_targets


def ctc_loss(
    log_probs: Tensor, output_lengths: Lengths, targets: Tensor, target_lengths: Lengths, *, blank: int = 0
) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), computed in float32 at least.

    Args:
        log_probs: [N, T, V], as the models return them.
        output_lengths: integers [N], 0 to T.
        targets: integers [N, L], padded with anything; classes of 0 to V - 1 without the blank.
        target_lengths: integers [N], 0 to L; an empty target is an utterance of blanks.
        blank: class of the blank, 0 or V - 1.

    Returns:
        The mean over utterances of -log P(target) / max(target length, 1). Utterances whose target does not fit into
        their output (length + repeated characters > output length) count as 0 and have no gradient.

    Raises:
        TypeError: an argument is no tensor, or not of integers.
        ValueError: a shape, a length or a token does not fit.
    """
    check_scores("log_probs", log_probs, "NTV")
    rows, frames, classes = log_probs.shape
    if blank not in (0, classes - 1):
        raise ValueError(f"blank: expected 0 or {classes - 1} (the last class), received {blank!r}")
    output_lengths = as_lengths("output_lengths", output_lengths, rows, frames)
    used = {"classes": classes, "first_class": 1} if blank == 0 else {"classes": classes - 1}
    targets, target_lengths = check_targets(targets, target_lengths, rows, **used)
    with torch.autocast(log_probs.device.type, enabled=False):
        return torch.nn.functional.ctc_loss(
            log_probs.to(torch.promote_types(log_probs.dtype, torch.float32)).transpose(0, 1),
            targets.to(torch.int64),
            output_lengths.to(torch.int64),
            target_lengths.to(torch.int64),
            blank,
            zero_infinity=True,
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label].

    Args:
        logits: [N, V].
        labels: integers [N], 0 to V - 1.

    Raises:
        TypeError: an argument is no tensor, or not of integers.
        ValueError: a shape or a label does not fit.
    """
    check_scores("logits", logits, "NV")
    labels = check_labels(labels, *logits.shape)
    return torch.nn.functional.cross_entropy(logits, labels.to(torch.int64))
