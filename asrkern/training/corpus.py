"""The utterances of a corpus that a model can learn from. The others are counted, named and left out."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asrkern.recognizer.tokenizer import Tokenizer
from asrkern.training.recipe import Recipe

_NAMED = 5


@dataclass
class Corpus:
    """Utterances with normalised transcripts.

    Attributes:
        name: "train" or "valid".
        cuts: lhotse's cuts with one supervision each, whose text is the normalised transcript (the class, for clips).
        left_out: reason → ids of the utterances that are not in ``cuts``.
        tokens, output_frames: of all utterances together.
        infeasible: ids of utterances whose target does not fit into CTC's output. They are left out of "train".
        tokens_per_frame: the largest ratio of tokens to input frames.
    """

    name: str
    cuts: list[Cut] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    tokens: int = 0
    output_frames: int = 0
    infeasible: list[str] = field(default_factory=list)
    tokens_per_frame: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of speech."""
        return sum(cut.duration for cut in self.cuts)

    @property
    def texts(self) -> list[str]:
        """The transcripts, or classes."""
        return [text_of(cut) for cut in self.cuts]

    def describe(self, unit: str = "character") -> str:
        """A few lines for the log."""
        lines = [f"{self.name}: {len(self.cuts)} utterances, {self.seconds / 60:.1f} min"]
        if unit != "class" and self.tokens:
            lines[0] += (
                f", {self.tokens / len(self.cuts):.1f} {unit}s each, "
                f"{self.output_frames / self.tokens:.1f} output frames per {unit}"
            )
        lines += [f"  left out, {reason}: {_names(ids)}" for reason, ids in self.left_out.items()]
        if self.infeasible and self.name != "train":
            lines.append(f"  targets that do not fit into the output: {_names(self.infeasible)}")
        return "\n".join(lines)


def text_of(cut: Cut) -> str:
    """The transcript, or the class, of a cut of a :class:`Corpus`."""
    return cut.supervisions[0].text or ""


def with_labels(cuts: Iterable[Cut], recipe: Recipe) -> list[Cut]:
    """Cuts whose text is the normalised transcript, or the class of the clip.

    Raises:
        ValueError: a clip has no class.
    """
    labelled = []
    for cut in cuts:
        supervision = cut.supervisions[0]
        if recipe.task == "classify" and recipe.data.label != "text":
            text = (supervision.custom or {}).get(recipe.data.label)
            if text is None:
                raise ValueError(
                    f"data.label: expected the field {recipe.data.label!r} of {cut.id}, received none"
                )
            text = str(text)
        else:
            text = recipe.text(supervision.text or "")
        labelled.append(fastcopy(cut, supervisions=[fastcopy(supervision, text=text)]))
    return labelled


def prepare(
    name: str, cuts: Iterable[Cut], recipe: Recipe, tokenizer: Tokenizer, output_length: Callable[[int], int]
) -> Corpus:
    """The utterances that a model can be trained on, or measured with.

    Args:
        name: "train" or "valid"; less is left out of "valid".
        cuts: as :func:`with_labels` returns them.
        output_length: input frames → frames of the model's output, 0 for too few.

    Raises:
        ValueError: transcripts have characters (or clips a class) that the tokenizer lacks, or nothing is left.
    """
    cuts = list(cuts)
    training = name == "train"
    corpus = Corpus(name)
    unknown: Counter[str] = Counter()
    examples: dict[str, str] = {}
    fastest = max(recipe.augment.speeds) if training else 1.0
    for cut in cuts:
        text = text_of(cut)
        strange = tokenizer.unknown(text)
        unknown.update(strange)
        examples.update({character: cut.id for character in strange - examples.keys()})
        tokens = [] if strange else tokenizer.encode(text)
        frames = recipe.features.frames(cut.duration / fastest)
        produced = output_length(frames)
        fits = recipe.task != "ctc" or frames_needed(tokens) <= produced
        if not fits and not strange:
            corpus.infeasible.append(cut.id)
        if reason := _reason(recipe, training, cut.duration, bool(strange), len(tokens), produced, fits):
            corpus.left_out.setdefault(reason, []).append(cut.id)
            continue
        corpus.cuts.append(cut)
        corpus.tokens += len(tokens)
        corpus.output_frames += produced
        corpus.tokens_per_frame = max(corpus.tokens_per_frame, len(tokens) / frames)
    if unknown and not recipe.data.leave_out_unknown:
        raise ValueError(_strangers(name, unknown, examples, tokenizer))
    if not corpus.cuts:
        raise ValueError(f"data.{name}: no utterance is left; {corpus.describe()}")
    return corpus


def frames_needed(tokens: list[int]) -> int:
    """The fewest frames in which CTC can emit a target: its length, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def _reason(
    recipe: Recipe, training: bool, seconds: float, strange: bool, tokens: int, produced: int, fits: bool
) -> str | None:
    if strange:
        return "unknown characters"
    if produced < 1:
        return "too short for the model"
    if not tokens and recipe.task != "ctc":
        return "no transcript"
    if training and seconds > recipe.data.max_seconds:
        return f"longer than {recipe.data.max_seconds:g} s (data.max_seconds)"
    if training and seconds < recipe.data.min_seconds:
        return f"shorter than {recipe.data.min_seconds:g} s (data.min_seconds)"
    if training and not fits:
        return "target too long for the output"
    return None


def _names(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{len(ids)} ({', '.join(ids[:_NAMED])}{more})"


def _strangers(name: str, unknown: Counter[str], examples: dict[str, str], tokenizer: Tokenizer) -> str:
    if tokenizer.unit == "class":
        found = ", ".join(
            f"{label!r} ({count} clips, e.g. {examples[label]})" for label, count in unknown.items()
        )
        return f"data.{name}: expected the classes {list(tokenizer.labels)} of the training clips, received {found}"
    found = ", ".join(
        f"{c!r} (U+{ord(c[0]):04X} {unicodedata.name(c[0], 'unnamed')}, {count} transcripts, e.g. {examples[c]})"
        for c, count in unknown.most_common(_NAMED)
    )
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return (
        f"data.{name}: the tokenizer has no label for {found}{more}; change the transcripts with text.replace or "
        "text.remove, take another tokenizer.vocabulary, or set data.leave_out_unknown = true"
    )
