"""``asrkern decode``: texts of CTC outputs."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from asrkern._file_kinds import in_words
from asrkern.cli.console import bars, errors
from asrkern.cli.language_model import Hotwords, HotwordWeight, LanguageModel, with_language_model

if TYPE_CHECKING:
    import numpy as np

    from asrkern.decoder import CTCBeamDecoder, Hypothesis

# Utterances decoded at once, on several threads.
BATCH = 16

Found: TypeAlias = "list[Hypothesis] | ValueError"

CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".model")
_CHECKPOINT = (
    "a checkpoint of torch.save: asrkern convert makes one of it that asrkern transcribe and evaluate take; this command "
    "takes the outputs of a model"
)

_LACKS_BLANK = "; if the labels lack the blank, as NeMo's do, add a line '<blank>' where the model has it"
_ADDED_BLANK = (
    "; the blank was taken to be behind the labels, as in NeMo's models: --blank says which label it is"
)


def read_lines(path: Path) -> list[str]:
    """Those that are not empty.

    Raises:
        ValueError: the file is not UTF-8.
    """
    from asrkern.decoder._files import about
    from asrkern.decoder.labels import fields

    with about(path):
        return list(filter(fields, path.read_text(encoding="utf-8-sig").split("\n")))


def read_lexicon(path: Path) -> list[str] | dict[str, list[list[str]]]:
    """A word a line, or a word and the labels that spell it, several times if there are several spellings.

    Raises:
        ValueError: only some words have spellings.
    """
    from asrkern.decoder.labels import fields

    lines = list(map(fields, read_lines(path)))
    if all(len(line) == 1 for line in lines):
        return [word for [word] in lines]
    lexicon: dict[str, list[list[str]]] = {}
    for word, *spelling in lines:
        if not spelling:
            raise ValueError(
                f"{path}: expected a spelling of every word or of none, received {word!r} without"
            )
        lexicon.setdefault(word, []).append(spelling)
    return lexicon


def open_arrays(path: Path) -> np.lib.npyio.NpzFile:
    """Arrays are read one by one.

    Raises:
        ValueError: the file is no .npz.
    """
    import numpy as np

    received: object = "a single array"
    try:
        arrays = np.load(path)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        received = in_words(path) or (_CHECKPOINT if path.suffix in CHECKPOINTS else error)
    else:
        if isinstance(arrays, np.lib.npyio.NpzFile):
            if not any(name.endswith("data.pkl") for name in arrays.files):
                return arrays
            received = _CHECKPOINT
    raise ValueError(f"{path}: expected a file of numpy.savez, received {received}")


def read_utterance(arrays: np.lib.npyio.NpzFile, name: str, labels: Sequence[str]) -> np.ndarray | ValueError:
    """Log-probabilities [T, V], or what is wrong with them."""
    import numpy as np

    try:
        array = arrays[name]
    # Of zip, zlib, Python's tokenizer: whatever damage makes numpy's parsers raise.
    except Exception as error:
        return ValueError(f"cannot be read: {error}")
    if not isinstance(array, np.ndarray):
        return ValueError("expected an array, received another file")
    if array.ndim != 2 or array.shape[1] != len(labels) or array.dtype.kind != "f":
        hint = ""
        if array.shape[1:] == (len(labels) + 1,):
            hint = _LACKS_BLANK
        elif array.shape[1:] == (len(labels) - 1,) and labels[-1] == "<blank>":
            hint = _ADDED_BLANK
        return ValueError(
            f"expected floating-point numbers [T, {len(labels)}], one for each label, received {array.dtype} "
            f"{list(array.shape)}{hint}"
        )
    return array


def decode_all(decoder: CTCBeamDecoder, arrays: np.lib.npyio.NpzFile) -> Iterator[tuple[str, Found]]:
    """Each utterance's name and n-best, or what is wrong with it."""
    for first in range(0, len(arrays.files), BATCH):
        names = arrays.files[first : first + BATCH]
        utterances = [read_utterance(arrays, name, decoder.labels) for name in names]
        found = iter(decoder.decode_batch([u for u in utterances if not isinstance(u, ValueError)]))
        for name, utterance in zip(names, utterances):
            yield name, utterance if isinstance(utterance, ValueError) else next(found)


def as_json(name: str, found: Sequence[Hypothesis]) -> str:
    hypotheses: list[dict[str, Any]] = [
        {**hypothesis._asdict(), "words": [word._asdict() for word in hypothesis.words]}
        for hypothesis in found
    ]
    return json.dumps({"name": name, "hypotheses": hypotheses}, ensure_ascii=False)


@with_language_model
def decode(
    *,
    log_probs: Annotated[
        Path,
        typer.Argument(
            metavar="LOGPROBS.npz",
            exists=True,
            dir_okay=False,
            help="Log-probabilities, an array [T, V] for each utterance.",
        ),
    ],
    labels: Annotated[
        Path,
        typer.Option(
            exists=True,
            dir_okay=False,
            show_default=False,
            help="The labels, one a line or a .json list; or a tokens.txt, vocab.json, vocab.txt, .vocab, fairseq's "
            "dict.txt or a sentencepiece model, tokenizer.model. If none can be the blank, it is behind them, as in NeMo's "
            "models.",
        ),
    ],
    blank: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The blank's index. Default: that of the label named <blk>, <blank>, <pad> or so, else 0.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="The label between words, '' for none. Default: a space, <space> or |, unless labels begin with ▁.",
            show_default=False,
        ),
    ] = None,
    language_model: LanguageModel,
    lexicon: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The only words allowed, one a line, alone or with the labels that spell it.",
        ),
    ] = None,
    hotwords: Hotwords = None,
    hotword_weight: HotwordWeight = 10.0,
    beam_width: Annotated[int, typer.Option(min=1, help="Prefixes kept at each frame.")] = 100,
    nbest: Annotated[int, typer.Option(min=1, help="Texts of each utterance.")] = 1,
    token_min_logp: Annotated[
        float, typer.Option(max=0, help="Less likely labels are impossible in a frame; -5 is fast.")
    ] = -math.inf,
    beam_prune_logp: Annotated[
        float, typer.Option(max=0, help="Prefixes that far below the best are dropped; -10 is fast.")
    ] = -math.inf,
    unk_score: Annotated[
        float | None,
        typer.Option(
            help="Added for unknown words. Default: -10, or -inf with a lexicon.", show_default=False
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all.", show_default=False)] = None,
    as_json_lines: Annotated[
        bool,
        typer.Option("--json", help="An object a line: texts, scores, words with times and confidences."),
    ] = False,
) -> None:
    """Texts of CTC outputs by beam search.

    Example: asrkern decode outputs.npz --labels labels.txt --lm 4gram.arpa.gz

    Prints for each text: utterance, score, text, with tabs between. Utterances that cannot be decoded are named on
    stderr, and the exit status is 1.
    """
    with errors():
        from asrkern.decoder import CTCBeamDecoder, read_hotwords

        arrays = open_arrays(log_probs)
        decoder = CTCBeamDecoder.from_tokens(
            labels,
            language_model.open(),
            None if lexicon is None else read_lexicon(lexicon),
            beam_width=beam_width,
            nbest=nbest,
            token_min_logp=token_min_logp,
            beam_prune_logp=beam_prune_logp,
            blank=blank,
            space=space,
            hotwords=None if hotwords is None else read_hotwords(hotwords, hotword_weight),
            unk_score=unk_score,
            num_threads=threads,
            **language_model.weights,
        )
    failed = 0
    with bars() as progress:
        for done, (name, found) in enumerate(decode_all(decoder, arrays), 1):
            if isinstance(found, ValueError):
                failed += 1
                typer.echo(f"error: {name}: {found}", err=True)
            elif as_json_lines:
                typer.echo(as_json(name, found))
            else:
                for hypothesis in found:
                    typer.echo(f"{name}\t{hypothesis.score:.4f}\t{hypothesis.text}")
            progress("decoding", done, len(arrays.files))
    if failed:
        typer.echo(f"error: {failed} of {len(arrays.files)} utterances were not decoded", err=True)
        raise typer.Exit(1)
