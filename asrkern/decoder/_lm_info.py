"""What a file of a language model is, told without loading it."""

from __future__ import annotations

import os
from itertools import islice

from asrkern._file_kinds import is_safetensors
from asrkern.decoder import _kenlm_binary, _saved_lm, _scorer_package
from asrkern.decoder._files import about, read_chunks
from asrkern.decoder._foreign_lm import refuse_foreign
from asrkern.decoder._ngram_estimate import UNIT_COMMENT
from asrkern.decoder.ngram_lm import NGramLM

# An ARPA file's counts stand at its beginning.
_HEAD_CHUNKS = 2


def describe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Names and values in words, for people: kind, order, n-grams of each order, and what the kind has beside.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no language model, or is damaged.
    """
    with open(path, "rb") as file:
        beginning = file.read(len(_kenlm_binary.MAGIC_ANY))
    with about(path):
        if is_safetensors(beginning):
            facts = _describe_saved(path)
        elif beginning == _kenlm_binary.MAGIC_ANY:
            facts = _describe_kenlm(path)
        else:
            facts = _describe_arpa(path)
    return facts | {"file": f"{os.path.getsize(path) / 2**20:.1f} MiB"}


def _ngrams(counts: list[int]) -> dict[str, str]:
    return {f"{order}-grams": str(count) for order, count in enumerate(counts, 1)}


def _describe_saved(path: str | os.PathLike[str]) -> dict[str, str]:
    tensors, fields, checksum = _saved_lm.read(path)
    lm = NGramLM(tensors, **fields)
    return {
        "kind": "file of NGramLM.save" + (", quantised" if "codebook" in tensors else ""),
        "order": str(lm.order),
        "unit": lm.unit,
        "1-grams": str(lm.vocabulary_size),
        "n-grams of higher orders": str(
            int((tensors["ngrams"].reshape(len(tensors["ngrams"]), -1)[:, 0] != 0).sum())
        ),
        "words": "in the file" if len(tensors["strings"]) else "hashes only",
        "checksum": checksum or "none",
    }


def _describe_kenlm(path: str | os.PathLike[str]) -> dict[str, str]:
    facts = _kenlm_binary.describe(path)
    if facts["words"] != _kenlm_binary.WORDS_MISSING:
        return facts
    end = NGramLM._read_kenlm_binary(path)[1]
    if end < os.path.getsize(path):
        package = _scorer_package.read(path, end)
        facts["kind"] = f"scorer package of DeepSpeech and Coqui STT, in it {facts['kind']}"
        facts |= {"alpha": f"{package.alpha:g}", "beta": f"{package.beta:g}"}
    return facts


def _describe_arpa(path: str | os.PathLike[str]) -> dict[str, str]:
    head = b"".join(islice(read_chunks(path), _HEAD_CHUNKS))
    refuse_foreign(head)
    unit = "token" if head.startswith(UNIT_COMMENT + b"token\n") else "word"
    lines = iter(head.decode(errors="replace").splitlines())
    first = next((line.split()[0] for line in lines if line.split()), "")
    found = first == "\\data\\" or any(line.strip() == "\\data\\" for line in lines)
    counts: list[int] = []
    for line in lines if found else ():
        if not line.split():
            continue
        name, _, count = line.partition("=")
        if name.split() != ["ngram", str(len(counts) + 1)] or not count.strip().isdecimal():
            break
        counts.append(int(count))
    if not counts:
        raise ValueError(
            "expected an ARPA file with its counts after \\data\\, received none: this is no ARPA file"
        )
    return {
        "kind": "iARPA" if first.startswith("iARPA") else "ARPA",
        "order": str(len(counts)),
        "unit": unit,
        **_ngrams(counts),
    }
