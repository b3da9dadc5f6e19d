"""What is wrong with a run, in words: which collapse, the evidence, the likely causes and their remedies.

The causes are those reported by Zeyer et al. (2105.14849), deepspeech.pytorch, NeMo (#8185) and warp-ctc (#32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from asrkern.training.diagnostics.measures import DROPOUTS, LayerSignal, Measures, perplexity

LEAST_VARIATION = 1e-3  # relative, of a layer's output; below it later layers see a constant
LEAST_DEPENDENCE = 0.02  # in nats; below it all utterances get the same output
BLANK_FRACTION = 0.97
LEARNED = 0.6  # a model with a lower character error rate reads its input
FEW_TOKENS = 0.25  # least perplexity of the output's letters, relative to the targets'
NOISE = 0.1  # nats of dropout noise that can hide the input

NORMAL = ("learning", "blank phase", "warming up")


@dataclass(frozen=True)
class Verdict:
    """A judgement of a run.

    Attributes:
        name: "dying signal", "targets do not fit", "dropout collapse", "blank collapse", "unigram collapse", "plateau"
            or "diverged"; or something normal: "learning", "blank phase", "warming up".
    evidence: the measures that show it.
    causes: likely causes with their remedies, the likeliest first.
    """

    name: str
    evidence: str
    causes: tuple[str, ...] = ()

    @property
    def normal(self) -> bool:
        """Whether there is nothing to do."""
        return self.name in NORMAL

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.evidence}"]
        return "\n".join(lines + [f"  - {cause}" for cause in self.causes])


def diagnose(
    measures: Measures, model: nn.Module, labels: Sequence[str], *, spaces: bool = False, plateau: bool
) -> Verdict:
    """Judge one look at a model.

    Args:
        measures: from :func:`asrkern.training.diagnostics.measure`.
        model: shows what it is built of.
        labels: its labels.
        spaces: whether the transcripts had spaces before they became tokens.
        plateau: whether the loss has stopped falling. Until then blanks everywhere are normal.
    """
    m = measures
    if not math.isfinite(m.loss) and m.step:
        return Verdict(
            "diverged",
            f"the loss is {m.loss}",
            (
                "a step was too large: clip gradients, lower the learning rate, warm up",
                "16-bit arithmetic in the loss: compute CTC in float32",
            ),
        )
    dead = next((layer for layer in m.layers if layer.variation < LEAST_VARIATION), None)
    if dead is not None and m.error_rate > LEARNED:
        return Verdict("dying signal", _dying(dead), tuple(_dying_causes(m, model)))
    if m.error_rate <= LEARNED:
        return Verdict("learning", f"character error rate {m.error_rate:.1%}")
    if m.infeasible * 2 > m.utterances:
        return Verdict(
            "targets do not fit",
            f"{m.infeasible} of {m.utterances} targets are longer than their output "
            f"({m.frames_per_token:.1f} frames a token)",
            (
                "too few output frames: a smaller time stride, fewer pooling layers, or larger units than letters",
            ),
        )
    if m.dropout_noise > max(NOISE, m.dependence):
        rate = max((d.p for d in model.modules() if isinstance(d, DROPOUTS)), default=0.0)
        return Verdict(
            "dropout collapse",
            f"the output changes more with the dropout mask ({m.dropout_noise:.2f} nats) than with the utterance "
            f"({m.dependence:.2f} nats): random letters",
            (f"dropout up to {rate:g}: 0 until outputs are no longer all blank, then 0.1 to 0.3",),
        )
    if m.blank_fraction >= BLANK_FRACTION:
        evidence = f"{m.blank_fraction:.1%} of frames are blank"
        if not plateau:
            return Verdict("blank phase", f"{evidence}, and the loss still falls: every CTC model begins so")
        return Verdict(
            "blank collapse",
            f"{evidence} and the loss no longer falls",
            tuple(_causes(m, model, labels, spaces)),
        )
    few = perplexity(m.tokens) < FEW_TOKENS * perplexity(m.target_tokens)
    if m.dependence < LEAST_DEPENDENCE or m.distinct <= 0.5 or few:
        if not plateau:
            return Verdict("warming up", "utterances get the same output, and the loss still falls")
        return Verdict(
            "unigram collapse",
            f'{m.distinct:.0%} as many texts as there should be, the commonest is "{_short(m.commonest)}", of '
            f"{perplexity(m.tokens):.1f} letters where there should be {perplexity(m.target_tokens):.1f}; outputs of "
            f"different utterances differ by {m.dependence:.3f} nats: the model knows how often letters occur, not what "
            "is said",
            tuple(_causes(m, model, labels, spaces)),
        )
    if plateau:
        return Verdict(
            "plateau",
            f"the loss no longer falls at a character error rate of {m.error_rate:.0%}",
            (
                "learning rate: anneal it, or raise it after a warm-up",
                "overfit one batch first: a model that cannot has a bug",
            ),
        )
    return Verdict("learning", f"the loss falls; character error rate {m.error_rate:.0%}")


def _dying(layer: LayerSignal) -> str:
    return (
        f"the output of {layer.name} ({layer.kind}) varies by {layer.std:.1e} between frames, "
        f"{layer.variation:.1e} of its size: what follows sees a constant"
    )


def _dying_causes(m: Measures, model: nn.Module) -> list[str]:
    causes = []
    for before, layer in zip(m.layers, m.layers[1:]):
        if layer.kind == "Softmax" and layer is not m.layers[-1] and layer.variation < before.variation / 2:
            causes.append(
                f"softmax in a hidden layer ({layer.name}: the variation falls from {before.variation:.1e} to "
                f"{layer.variation:.1e}): ReLU or Hardtanh there, log_softmax once, at the output"
            )
    return causes + _structure(m, model)


def _causes(m: Measures, model: nn.Module, labels: Sequence[str], spaces: bool) -> list[str]:
    causes = []
    rates = [d.p for d in model.modules() if isinstance(d, DROPOUTS) and d.p > 0]
    if rates:
        causes.append(f"dropout of {max(rates):g} from the start: 0 until outputs are no longer all blank")
    if spaces and " " not in labels:
        causes.append("no label for the space: add space and apostrophe")
    if m.infeasible:
        causes.append(
            f"{m.infeasible} of {m.utterances} targets are longer than their output: count and drop them"
        )
    causes += _structure(m, model)
    if m.frames_per_token > 8:
        causes.append(
            f"{m.frames_per_token:.0f} output frames a token: a stride of 2 or more before the recurrent layers"
        )
    elif m.frames_per_token < 1.5:
        causes.append(f"only {m.frames_per_token:.1f} output frames a token: a smaller time stride")
    causes.append(
        "transcripts that belong to other recordings, or wrong lengths: overfit one batch to find out"
    )
    causes.append(
        "the order and the rate: shortest utterances first, warm-up over the first tenth, clipped gradients"
    )
    return causes


def _structure(m: Measures, model: nn.Module) -> list[str]:
    causes = []
    if not any("Norm" in type(module).__name__ for module in model.modules()):
        causes.append(
            "no normalisation between layers: BatchNorm after convolutions, sequence-wise BatchNorm before each "
            "recurrent layer"
        )
    if abs(m.feature_mean) > 1 or not 0.3 < m.feature_std < 3:
        causes.append(
            f"features are not normalised (mean {m.feature_mean:.2g}, standard deviation {m.feature_std:.2g}): "
            "subtract each utterance's mean and divide by its standard deviation"
        )
    return causes


def _short(text: str) -> str:
    return text if len(text) <= 30 else text[:29] + "…"
