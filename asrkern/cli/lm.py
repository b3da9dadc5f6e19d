"""``asrkern lm``: language models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asrkern._decoder import MAX_ORDER
from asrkern.cli.command import Command
from asrkern.cli.console import bars, errors

if TYPE_CHECKING:
    from asrkern.decoder import NGramLM

app = typer.Typer(
    help="N-gram language models.\n\nExample: asrkern lm build text.txt -o 4gram.arpa", no_args_is_help=True
)
SUFFIXES = (".arpa", ".arpa.gz", ".safetensors")
STDIN = Path("-")

Characters = Annotated[bool, typer.Option("--characters", help="The model's words are characters.")]
Space = Annotated[
    str | None,
    typer.Option(
        help="What stands for white space in a model of characters. Default: ▁; of a file ▁, <space> or |, as it has.",
        show_default=False,
    ),
]

Tokenizer = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        show_default=False,
        help="What splits text into tokens, for a model of tokens: a sentencepiece .model, or a vocabulary of wordpieces.",
    ),
]


def _thresholds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as 0,0,1, received {text!r}") from None


def _inputs(paths: list[Path]) -> list[Path]:
    for path in paths:
        if path != STDIN and not path.is_file():
            raise typer.BadParameter(f"expected files, received {str(path)!r}, which is none")
    return paths


def _standard_input() -> Iterator[str]:
    return (line.decode(errors="surrogateescape") for line in sys.stdin.buffer)


def _output(path: Path) -> Path:
    if not path.name.endswith(SUFFIXES):
        raise typer.BadParameter(
            f"expected a name that ends in {' or '.join(SUFFIXES)}, received {path.name!r}"
        )
    if not path.parent.is_dir():
        raise typer.BadParameter(f"expected a file in an existing folder, received {str(path)!r}")
    return path


@app.command(cls=Command)
def build(
    texts: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEXT...",
            callback=_inputs,
            help="Text files, plain or .gz, a sentence a line; - is standard input.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", callback=_output, help=f"{', '.join(SUFFIXES)}", show_default=False),
    ],
    order: Annotated[int, typer.Option(min=1, max=MAX_ORDER, help="Words of the longest n-grams.")] = 4,
    prune: Annotated[
        str,
        typer.Option(
            help="Counts up to which n-grams are left out, for orders 1, 2, ...; the last one is for all higher orders."
        ),
    ] = "0",
    discount_fallback: Annotated[
        bool, typer.Option("--discount-fallback", help="Fixed discounts where a text's counts give none.")
    ] = False,
    characters: Characters = False,
    space: Space = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Estimate a model: interpolated modified Kneser-Ney.

    Example: asrkern lm build text.txt.gz --order 4 --prune 0,0,1 -o 4gram.safetensors
    """
    thresholds = _thresholds(prune)
    if characters and tokenizer is not None:
        raise typer.BadParameter("expected --characters or --tokenizer, received both")
    began = time.perf_counter()
    with errors():
        from asrkern.decoder import NGramLM, read_tokenizer
        from asrkern.decoder.ngram_lm import SPACES

        tokenize = None if tokenizer is None else read_tokenizer(tokenizer)
        with bars() as progress:
            lm = NGramLM.estimate(
                (item for text in texts for item in (_standard_input() if text == STDIN else [text])),
                order,
                prune=thresholds,
                discount_fallback=discount_fallback,
                unit="token" if tokenize else "character" if characters else "word",
                space=SPACES[0] if space is None else space,
                tokenize=tokenize,
                progress=progress,
            )
        _write(lm, output)
    typer.echo(f"{output}: {lm} in {time.perf_counter() - began:.1f} s", err=True)


def _write(lm: NGramLM, output: Path) -> None:
    """In the form that the file's name ends in."""
    if output.suffix == ".safetensors":
        lm.save(output)
    else:
        lm.to_arpa(output)


@app.command(cls=Command)
def verify(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            exists=True,
            dir_okay=False,
            help="Files of any kind that query takes; only .safetensors files have a checksum.",
        ),
    ],
) -> None:
    """Read models whole, of any size, and compare their checksums.

    Example: asrkern lm verify 4gram.safetensors
    """
    from asrkern.decoder import NGramLM

    for model in models:
        with errors():
            typer.echo(f"{model}: no damage found: {NGramLM.open(model, verify=True)}")


@app.command(cls=Command)
def convert(
    model: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="A file of any kind that query takes."),
    ],
    output: Annotated[Path, typer.Argument(callback=_output, help=f"{', '.join(SUFFIXES)}")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="8 bits a value, half the memory; for .safetensors.")
    ] = False,
    words: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A word a line: the vocabulary of a file of KenLM without words (build_binary -v).",
        ),
    ] = None,
    characters: Characters = False,
    space: Space = None,
) -> None:
    """Convert a model to ARPA or .safetensors.

    Example: asrkern lm convert 4gram.arpa.gz 4gram.safetensors --quantize

    iARPA is interpolated. KenLM's probing and .safetensors files hold only hashes of n-grams: to make ARPA of them, all
    pairs of words are tried.
    """
    if quantize and output.suffix != ".safetensors":
        raise typer.BadParameter(
            f"expected an output that ends in .safetensors with --quantize, received {output.name!r}"
        )
    with errors():
        from asrkern.decoder import NGramLM

        vocabulary = None if words is None else words.read_text("utf-8-sig", "surrogateescape").split("\n")
        lm = NGramLM.open(
            model,
            unit="character" if characters else None,
            space=space,
            words=vocabulary,
            keep_ngrams=output.suffix != ".safetensors",
        )
        if quantize:
            lm = lm.quantize()
        _write(lm, output)
    typer.echo(f"{output}: {lm}", err=True)


@app.command(cls=Command)
def prune(
    model: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="A file of any kind that query takes."),
    ],
    output: Annotated[Path, typer.Argument(callback=_output, help=f"{', '.join(SUFFIXES)}")],
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            show_default=False,
            help="An n-gram goes if the model's own perplexity grows by less than this part without it, such as 1e-8.",
        ),
    ],
    min_order: Annotated[int, typer.Option(min=2, help="N-grams of lower orders stay.")] = 2,
    characters: Characters = False,
    space: Space = None,
) -> None:
    """Leave out the n-grams that matter least, by relative entropy, as SRILM does.

    Example: asrkern lm prune 4gram.arpa.gz small.arpa.gz --threshold 1e-8
    """
    with errors():
        from asrkern.decoder import NGramLM

        lm = NGramLM.open(
            model, unit="character" if characters else None, space=space, keep_ngrams=True
        ).prune(threshold, min_order=min_order)
        _write(lm, output)
    typer.echo(f"{output}: {lm}", err=True)


def _weights(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as 0.7,0.3, received {text!r}") from None


def _note_tokens(lm: NGramLM, tokenizer: Path | None) -> None:
    if lm.unit == "token" and tokenizer is None:
        typer.echo(
            "note: the model is one of tokens, so the text's words are taken for tokens; --tokenizer splits them",
            err=True,
        )


@app.command(cls=Command)
def interpolate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", exists=True, dir_okay=False, help="Files of any kind that query takes."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", callback=_output, help=f"{', '.join(SUFFIXES)}", show_default=False),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="One for each model, with commas between; they sum to 1. Default: equal ones.",
            show_default=False,
        ),
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXT",
            exists=True,
            dir_okay=False,
            help="In place of weights: a sentence a line; the weights are those that make this text likeliest.",
        ),
    ] = None,
    characters: Characters = False,
    space: Space = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Mix models linearly into one, as SRILM does.

    Example: asrkern lm interpolate news.arpa talks.arpa --tune dev.txt -o both.arpa
    """
    given = _weights(weights)
    if given is not None and tune is not None:
        raise typer.BadParameter("expected --weights or --tune, received both")
    with errors():
        from asrkern.decoder import NGramLM, read_tokenizer
        from asrkern.decoder._ngram_estimate import read_sentences

        unit = "character" if characters else None
        lms = [NGramLM.open(model, unit=unit, space=space, keep_ngrams=True) for model in models]
        if tune is not None:
            tokenize = None if tokenizer is None else read_tokenizer(tokenizer)
            _note_tokens(lms[0], tokenizer)
            given = NGramLM.best_weights(lms, read_sentences(tune, tokenize))
            for model, weight in zip(models, given):
                typer.echo(f"{model}: weight {weight:.4f}", err=True)
        lm = NGramLM.interpolate(lms, [1 / len(lms)] * len(lms) if given is None else given)
        _write(lm, output)
    typer.echo(f"{output}: {lm}", err=True)


@app.command(cls=Command)
def info(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", exists=True, dir_okay=False, help="Files of any kind."),
    ],
) -> None:
    """Show what models are: kind, order, n-grams, bits of quantised ones, alpha and beta of scorer packages.

    Example: asrkern lm info 4gram.safetensors kenlm.binary
    """
    from asrkern.decoder._lm_info import describe

    for model in models:
        with errors():
            facts = describe(model)
        typer.echo(f"{model}:")
        for name, value in facts.items():
            typer.echo(f"  {name}: {value}")


@app.command(cls=Command)
def query(
    model: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="An ARPA file, a .safetensors file, KenLM's binary or a .scorer.",
        ),
    ],
    bos: Annotated[bool, typer.Option(help="Whether sentences begin after <s>.")] = True,
    eos: Annotated[bool, typer.Option(help="Whether the end of a sentence counts.")] = True,
    words: Annotated[
        bool, typer.Option("--words", help="Also show each word: log10 p and the n-gram's order.")
    ] = False,
    characters: Characters = False,
    space: Space = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Score the sentences of standard input.

    Example: asrkern lm query 4gram.safetensors --words < sentences.txt

    Prints for each: log10 probability, words, unknown words, text, with tabs between. At the end stands what KenLM's
    query has: perplexities with and without unknown words (OOVs), and how many words (tokens) there were, </s> among
    them; and what SRILM's ngram -ppl has: known words of probability 0 (zeroprobs), ppl without them and unknown words,
    and ppl1, which does not count </s> either.
    """
    with errors():
        from asrkern.decoder import NGramLM, read_tokenizer
        from asrkern.decoder.ngram_lm import LOG_PROB_ZERO

        lm = NGramLM.open(model, unit="character" if characters else None, space=space)
        tokenize = None if tokenizer is None else read_tokenizer(tokenizer)
    _note_tokens(lm, tokenizer)
    known = lm.words
    total = known_total = zero_total = 0.0
    count = unknown_count = zero_count = sentences = 0
    for line in sys.stdin.buffer:
        sentence = line.rstrip(b"\r\n").decode(errors="replace")
        if tokenize:
            sentence = " ".join(tokenize(sentence))
        scores = lm.full_scores(sentence, bos, eos)
        log_prob = sum(score.log_prob for score in scores)
        unknown = [score.log_prob for score in scores if score.unknown]
        zeros = [score.log_prob for score in scores if not score.unknown and score.log_prob < LOG_PROB_ZERO]
        typer.echo(f"{log_prob:.4f}\t{len(scores)}\t{len(unknown)}\t{sentence}")
        if words:
            ids = lm.encode(sentence) + [lm.eos] * eos
            for word, score in zip(ids, scores):
                typer.echo(
                    f"\t{score.log_prob:.4f}\t{score.order}\t{known[word] if word < len(known) else word}"
                )
        total += log_prob
        known_total += log_prob - sum(unknown)
        zero_total += sum(zeros)
        count += len(scores)
        unknown_count += len(unknown)
        zero_count += len(zeros)
        sentences += 1
    known_count, positive_count = count - unknown_count, count - unknown_count - zero_count
    for name, value in (
        ("Perplexity including OOVs", _perplexity(total, count)),
        ("Perplexity excluding OOVs", _perplexity(known_total, known_count)),
        ("OOVs", unknown_count),
        ("Tokens", count),
        ("Zeroprobs", zero_count),
        ("ppl", _perplexity(known_total - zero_total, positive_count)),
        ("ppl1", _perplexity(known_total - zero_total, positive_count - sentences * eos)),
    ):
        typer.echo(f"{name}:\t{value}")


def _perplexity(log_prob: float, count: int) -> str:
    from asrkern.decoder.ngram_lm import perplexity

    return f"{perplexity(log_prob, count):.6g}" if count > 0 else "undefined"
