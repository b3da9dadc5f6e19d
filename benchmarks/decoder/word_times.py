"""How far the word times of CTC outputs are from a forced aligner's.

    asrkern train recipes/s1_grid.toml -o runs/grid
    python benchmarks/decoder/word_times.py runs/grid/best.safetensors $ASRKERN_DATA/grid/dev.jsonl

The manifest's lines have ``words``: word, start and end in seconds. The same words' times come from an alignment of
the transcript, as ``asrkern align`` makes it, and from ``CTCBeamDecoder`` where it finds the transcript. A frame is as
long as the model makes it.

That recipe trains for a minute and a half on two cores, to a word error rate of 7 %. On GRID's dev split (540 words) the
medians of the absolute differences are 50 (starts) and 40 ms (ends) by alignment, 50 and 50 ms with the model's label
priors subtracted. The frames of a word's tokens alone, which torchaudio's tutorial takes for the word's, are 80 and 80
ms off, by the same alignment: they start 10 ms late and end 40 ms early, since CTC asks for a token somewhere within its
sound. By beam search, which knows no more than these frames either, it is 80 and 90 ms (57 of 90 sentences are found).

What is left is the model's. Words with neighbours on both sides are 30 and 40 ms off. A sentence's first word starts 560
ms early and its last one ends 920 ms late: layers of both directions have read all of the recording at each frame, and
this model writes a sentence's first letters into the first frames and its last one into the last frames, in the silence,
each with a probability near 1. Alignments cannot tell. With ``seed=1`` it does not, and all words are 20 and 30 ms off
(by their tokens' frames 30 and 65); a deeper such model (``recipes/s4_grid.toml``) did so within the sentence, too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

# Run as a script: the benchmarks are not part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asrkern.data import collate, load_audio, read_manifest
from asrkern.decoder import CTCBeamDecoder, forced_align, token_spans
from asrkern.recognizer.alignment import word_seconds
from asrkern.recognizer.saved import Recognizer, load
from asrkern.recognizer.transcription import FrameTimes
from benchmarks._report import markdown_table

# Start and end in seconds.
Times = list[tuple[float, float]]

PARTS = {"first words": slice(0, 1), "last words": slice(-1, None), "words between": slice(1, -1)}


class Output(NamedTuple):
    """Of one utterance: log-probabilities [T, V], its seconds, normalised transcript, the aligner's times."""

    log_probs: Tensor
    seconds: float
    text: str
    times: Times


@torch.no_grad()
def outputs(recognizer: Recognizer, manifest: Path) -> Iterator[Output]:
    """Utterances whose words have times.

    Raises:
        ValueError: there are none.
    """
    extract, settings, any_times = recognizer.features.make(), recognizer.features, False
    for utterance in read_manifest(manifest):
        if "words" not in utterance.extra or utterance.audio_path is None:
            continue
        any_times = True
        samples = load_audio(
            utterance.audio_path,
            settings.sample_rate,
            offset_seconds=utterance.offset_seconds,
            duration_seconds=utterance.duration_seconds,
        )
        features, lengths = collate([extract(samples)])
        log_probs, frames = recognizer.model(features, lengths)
        yield Output(
            log_probs[0, : frames[0]],
            len(samples) / settings.sample_rate,
            recognizer.text(utterance.text),
            [(start, end) for _, start, end in utterance.extra["words"]],
        )
    if not any_times:
        raise ValueError(f"manifest: expected utterances with words, received none in {manifest}")


def aligned(
    output: Output, recognizer: Recognizer, log_priors: Tensor | None = None, *, only_tokens: bool = False
) -> Times:
    """Times of the words by the transcript's best alignment, as in asrkern align; or those of their tokens' frames."""
    tokenizer, frames = recognizer.tokenizer, FrameTimes.of(recognizer)
    tokens = tokenizer.encode(output.text)
    path, scores = forced_align(output.log_probs, tokens, blank=tokenizer.blank, log_priors=log_priors)
    space = tokenizer.labels.index(" ")
    spans = token_spans(path, scores, tokenizer.blank)
    words = [
        list(run) for is_space, run in itertools.groupby(spans, lambda s: s.token == space) if not is_space
    ]
    spaces = [] if only_tokens else [span for span in spans if span.token == space]
    return word_seconds(words, spaces, frames, output.seconds)


def decoded(output: Output, decoder: CTCBeamDecoder, frames: FrameTimes) -> Times | None:
    """Times of the words by beam search; None if it finds another text."""
    best = decoder.decode(output.log_probs)[0]
    if best.text != output.text:
        return None
    return [frames.seconds(word.start, word.end, output.seconds) for word in best.words]


def table_row(name: str, found: Sequence[Times | None], expected: Sequence[Times]) -> dict[str, str]:
    """Medians in milliseconds; negative ones are before the aligner's."""
    pairs = [
        (ours, theirs)
        for times, truth in zip(found, expected)
        if times is not None
        for ours, theirs in zip(times, truth, strict=True)
    ]
    cells = {
        "": name,
        "utterances": f"{sum(times is not None for times in found)} of {len(found)}",
        "words": str(len(pairs)),
    }
    for index, side in enumerate(("start", "end")):
        differences = [1000 * (ours[index] - theirs[index]) for ours, theirs in pairs]
        if differences:
            cells[f"{side}: median |difference| ms"] = f"{median(map(abs, differences)):.0f}"
            cells[f"{side}: median difference ms"] = f"{median(differences):+.0f}"
    return cells


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of a CTC model, made by asrkern train")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--beam-width", type=int, default=100)
    arguments = parser.parse_args(argv)
    try:
        recognizer = load(arguments.checkpoint)
        if recognizer.task_name != "ctc":
            raise ValueError(
                f"checkpoint: expected a CTC model, received one of task {recognizer.task_name!r}"
            )
        tokenizer = recognizer.tokenizer
        decoder = CTCBeamDecoder(tokenizer.labels, blank=tokenizer.blank, beam_width=arguments.beam_width)
        all_outputs = list(outputs(recognizer, arguments.manifest))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    expected = [output.times for output in all_outputs]
    frames = FrameTimes.of(recognizer)
    # As asrkern evaluate --priors and asrkern align --priors do it.
    priors = torch.cat([output.log_probs for output in all_outputs]).double().exp().mean(0).log().float()
    best = [aligned(output, recognizer, priors) for output in all_outputs]
    tokens = [aligned(output, recognizer, priors, only_tokens=True) for output in all_outputs]
    rows = [
        table_row("alignment", [aligned(output, recognizer) for output in all_outputs], expected),
        table_row("alignment, label priors", best, expected),
        *(
            table_row(f"its {name}", [times[part] for times in best], [times[part] for times in expected])
            for name, part in PARTS.items()
        ),
        table_row("its tokens' frames alone", tokens, expected),
        table_row("beam search", [decoded(output, decoder, frames) for output in all_outputs], expected),
    ]
    print(f"{recognizer.model_name}, frames of {1000 * frames.step_seconds:.0f} ms\n")
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
