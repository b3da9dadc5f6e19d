"""A trained model on a corpus: its metrics, the worst utterances, and what it takes for what."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lhotse.cut import Cut
from torch import Tensor

from asrkern._names import nearest
from asrkern._optional import require
from asrkern.data import collate
from asrkern.recognizer.saved import Recognizer
from asrkern.recognizer.transcription import Transcriber, Transcript, check_frames
from asrkern.training.batches import load_cut, load_samples
from asrkern.training.metrics import ErrorCounts

levenshtein = require("rapidfuzz", "train").distance.Levenshtein

Unit = Literal["word", "character"]

# The most frames (padding included) and utterances of a batch: enough to keep two cores busy.
_BATCH_FRAMES, _BATCH_UTTERANCES = 12_000, 16


@dataclass(frozen=True)
class Result:
    """One utterance: the normalised reference, what the model heard and, for a class, its probability."""

    id: str
    reference: str
    hypothesis: str
    seconds: float
    probability: float | None = None


@dataclass(frozen=True)
class Confusions:
    """How often each edit occurs that turns references into hypotheses, words or characters, in one best alignment.

    Attributes:
        substitutions: (reference, hypothesis) → how often.
        insertions: only in the hypothesis → how often.
        deletions: only in the reference → how often.
    """

    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)

    def totals(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: getattr(self, kind).total() for kind in ("substitutions", "deletions", "insertions")}

    def most_common(self, count: int | None = None) -> list[tuple[str, str, int]]:
        """(reference, hypothesis, how often) of the most frequent edits. "" stands for nothing."""
        edits = Counter(self.substitutions)
        edits.update({("", said): times for said, times in self.insertions.items()})
        edits.update({(meant, ""): times for meant, times in self.deletions.items()})
        ordered = sorted(edits.items(), key=lambda item: (-item[1], item[0]))
        return [(meant, said, times) for (meant, said), times in ordered[:count]]


@dataclass
class Evaluation:
    """What :func:`evaluate` found.

    Attributes:
        task: "ctc", "attention" or "classify".
        has_spaces: whether transcripts consist of words; if not, there is no WER.
        metric: the one that the model was trained for, by which utterances are ranked.
        classes: a classifier's classes.
        results: in the order of the corpus.
        left_out: for each utterance that could not be measured the reason.
        unknown: characters of the references that the model cannot write → in how many utterances.
        processing_seconds: time for features, model and search.
    """

    task: str
    has_spaces: bool
    metric: str
    classes: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    processing_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of speech."""
        return sum(result.seconds for result in self.results)

    @property
    def counts(self) -> ErrorCounts:
        """Sums over all utterances."""
        return ErrorCounts().add_all(
            (result.hypothesis for result in self.results), (result.reference for result in self.results)
        )

    def metrics(self) -> dict[str, float]:
        """The metrics that the task has, by name: see :meth:`asrkern.training.metrics.ErrorCounts.value`; and ``rtf``, the
        processing time divided by the time of speech."""
        names = (
            ["accuracy"]
            if self.task == "classify"
            else ["wer"] * self.has_spaces + ["cer", "crr", "distance"]
        )
        counts = self.counts
        rtf = self.processing_seconds / self.seconds if self.seconds else math.nan
        return {**{name: counts.value(name) for name in names}, "rtf": rtf}

    def errors(self, result: Result) -> tuple[int, float]:
        """(edits, their share of the reference) of an utterance; for a wrong class (1, how sure the model was)."""
        if self.task == "classify":
            wrong = result.reference != result.hypothesis
            return int(wrong), wrong * (result.probability or 0.0)
        unit: Unit = "word" if self.metric == "wer" else "character"
        reference = _units(result.reference, unit)
        edits = levenshtein.distance(_units(result.hypothesis, unit), reference)
        return edits, edits / len(reference) if reference else math.inf * edits if edits else 0.0

    def worst(self, count: int) -> list[Result]:
        """Utterances with errors, the largest share of errors first, then the most errors."""
        errors = {id(result): self.errors(result) for result in self.results}
        wrong = [result for result in self.results if errors[id(result)][0]]
        return sorted(wrong, key=lambda result: errors[id(result)][::-1], reverse=True)[:count]

    def confusions(self, unit: Unit) -> Confusions:
        """Which words or characters are taken for which."""
        found = Confusions()
        for result in self.results:
            reference, hypothesis = _units(result.reference, unit), _units(result.hypothesis, unit)
            for edit in levenshtein.editops(reference, hypothesis):
                if edit.tag == "replace":
                    found.substitutions[reference[edit.src_pos], hypothesis[edit.dest_pos]] += 1
                elif edit.tag == "insert":
                    found.insertions[hypothesis[edit.dest_pos]] += 1
                else:
                    found.deletions[reference[edit.src_pos]] += 1
        return found

    def edits(self) -> dict[str, dict[str, int]]:
        """Substitutions, deletions and insertions of "words", if there are any, and "characters"; {} for a classifier."""
        return {f"{unit}s": self.confusions(unit).totals() for unit in self._units()}

    def _units(self) -> list[Unit]:
        words: list[Unit] = ["word"] if self.has_spaces else []
        return [] if self.task == "classify" else [*words, "character"]

    def matrix(self) -> list[list[int]]:
        """For a classifier: how many clips of each class (row) were taken for each class (column)."""
        index = {label: i for i, label in enumerate(self.classes)}
        rows = [[0] * len(self.classes) for _ in self.classes]
        for result in self.results:
            rows[index[result.reference]][index[result.hypothesis]] += 1
        return rows

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON. Metrics that are not defined are None."""
        value: dict[str, Any] = {
            "task": self.task,
            "metrics": {name: _finite(value) for name, value in self.metrics().items()},
            "counts": asdict(self.counts),
            "seconds": self.seconds,
            "processing_seconds": self.processing_seconds,
            "left_out": self.left_out,
            "unknown_characters": dict(self.unknown),
        }
        if self.task == "classify":
            value["confusion_matrix"] = {"classes": self.classes, "rows": self.matrix()}
        else:
            value["edits"] = self.edits()
            value["confusions"] = {f"{unit}s": self.confusions(unit).most_common() for unit in self._units()}
        value["utterances"] = [
            {**asdict(result), "errors": self.errors(result)[0]} for result in self.results
        ]
        return value


def evaluate(
    transcriber: Transcriber,
    cuts: Sequence[Cut],
    *,
    label: str = "label",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Let a model transcribe a corpus, in batches of equally long utterances, and count its errors.

    Recordings too long for a batch are read as :meth:`Transcriber.recording` does.

    Args:
        cuts: of :func:`asrkern.training.manifests.read_cuts`. Their texts are normalised as the training transcripts
            were.
        label: the field with a clip's class, for classifiers; "text" for the transcript.
        progress: called with how many utterances are done, and how many there are.

    Raises:
        ValueError: no utterance is left, or none has a transcript.
    """
    recognizer = transcriber.recognizer
    trained = recognizer.info.get("recipe", {})
    evaluation = Evaluation(
        recognizer.task_name,
        " " not in recognizer.text.remove,
        "accuracy" if recognizer.task_name == "classify" else trained.get("metric", "cer"),
        list(recognizer.tokenizer.labels) if recognizer.task_name == "classify" else [],
    )
    began = time.perf_counter()
    results: dict[int, Result] = {}
    order = sorted(range(len(cuts)), key=lambda index: cuts[index].duration)
    for index, reference, said in _transcripts(transcriber, cuts, order, label, evaluation.left_out):
        cut = cuts[index]
        results[index] = Result(cut.id, reference, said.text, cut.duration, said.probability)
        progress(len(results) + len(evaluation.left_out), len(cuts))
    evaluation.processing_seconds = time.perf_counter() - began
    evaluation.results = [results[index] for index in sorted(results)]
    if not results:
        why = evaluation.left_out[0] if evaluation.left_out else "no utterances"
        raise ValueError(f"expected utterances that can be measured, received none of {len(cuts)}: {why}")
    if not any(result.reference for result in evaluation.results):
        raise ValueError("text: expected transcripts in the manifest, received none")
    if evaluation.task != "classify":
        for result in evaluation.results:
            evaluation.unknown.update(recognizer.tokenizer.unknown(result.reference))
    return evaluation


def _transcripts(
    transcriber: Transcriber, cuts: Sequence[Cut], order: list[int], label: str, left_out: list[str]
) -> Iterator[tuple[int, str, Transcript]]:
    """(index, reference, transcript) of utterances, by length. left_out gets why others cannot be measured."""
    recognizer = transcriber.recognizer
    settings = recognizer.features
    longest = math.inf
    if recognizer.task_name != "classify" and settings.kind != "stored":
        longest = _BATCH_FRAMES * settings.hop_seconds
    batched = [index for index in order if cuts[index].duration <= longest]
    for batch in _batches(recognizer, cuts, batched, label, left_out):
        said = transcriber(*collate([features for _, _, features in batch]))
        for (index, reference, _), transcript in zip(batch, said, strict=True):
            yield index, reference, transcript
    for index in order[len(batched) :]:
        cut = cuts[index]
        try:
            reference = _reference(recognizer, cut, label)
            transcript = transcriber.recording(load_samples(cut, settings.sample_rate))
        except ValueError as error:
            left_out.append(_with_id(cut.id, str(error)))
            continue
        yield index, reference, transcript


def _batches(
    recognizer: Recognizer, cuts: Sequence[Cut], order: Iterable[int], label: str, left_out: list[str]
) -> Iterator[list[tuple[int, str, Tensor]]]:
    """(index, reference, features) of utterances that make a batch."""
    extract = recognizer.features.make()
    batch: list[tuple[int, str, Tensor]] = []
    for index in order:
        cut = cuts[index]
        try:
            reference = _reference(recognizer, cut, label)
            features = load_cut(cut, recognizer.features, extract)
            check_frames(recognizer.model, features.shape[1])
        except ValueError as error:
            left_out.append(_with_id(cut.id, str(error)))
            continue
        longest = max([features.shape[1], *(x.shape[1] for _, _, x in batch)])
        if len(batch) == _BATCH_UTTERANCES or (batch and longest * (len(batch) + 1) > _BATCH_FRAMES):
            yield batch
            batch = []
        batch.append((index, reference, features))
    if batch:
        yield batch


def _reference(recognizer: Recognizer, cut: Cut, label: str) -> str:
    supervision = cut.supervisions[0]
    if recognizer.task_name != "classify":
        return recognizer.text(supervision.text or "")
    found = supervision.text if label == "text" else (supervision.custom or {}).get(label)
    classes = recognizer.tokenizer.labels
    if found is None or str(found) not in classes:
        raise ValueError(f"{label}: expected {nearest(found, classes)}, received {found!r}")
    return str(found)


def _with_id(name: str, message: str) -> str:
    return message if message.startswith(f"{name}: ") else f"{name}: {message}"


def _units(text: str, unit: Unit) -> Sequence[str]:
    return text.split() if unit == "word" else text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
