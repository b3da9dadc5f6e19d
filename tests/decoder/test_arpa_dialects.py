"""ARPA files as the tools that write them format them, of a model of our own: all give that model."""

import math
import random
import warnings

import pytest

from asrkern.decoder import NGramLM
from asrkern.reference import ngram as reference

CHANCE = random.Random(3)
SENTENCES = [CHANCE.choices(["red", "car", "the", "ärger", "a"], [9, 5, 4, 2, 1], k=5) for _ in range(40)]
FALLBACK = (0.5, 1.0, 1.5)


def make(order, unk=True):
    model = reference.kneser_ney(SENTENCES, order, [0] * order, FALLBACK)
    if not unk:
        del model["<unk>",]
    return model


def sections(model):
    """(order, n-grams) from 1 on."""
    orders = range(1, max(map(len, model)) + 1)
    return [(n, [gram for gram in model if len(gram) == n]) for n in orders]


def has_followers(model, gram):
    return any(other[:-1] == gram for other in model)


def counts(model, form):
    return [form % (n, len(grams)) for n, grams in sections(model)]


def kenlm(model):
    lines = ["\\data\\", *counts(model, "ngram %d=%d"), ""]
    for n, grams in sections(model):
        lines.append(f"\\{n}-grams:")
        for gram in grams:
            p, weight = model[gram]
            lines.append(f"{p!r}\t{' '.join(gram)}" + f"\t{weight!r}" * (n < len(sections(model))))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def srilm(model):
    lines = ["", "\\data\\", *counts(model, "ngram %d=%d")]
    for n, grams in sections(model):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(grams):
            p, weight = model[gram]
            p = -99 if gram == ("<s>",) else p
            lines.append(f"{p:.7g}\t{' '.join(gram)}" + f"\t{weight:.7g}" * has_followers(model, gram))
    return "\n".join([*lines, "", "\\end\\", ""])


def irstlm(model):
    lines = ["", "\\data\\", *counts(model, "ngram %2d=%10d"), ""]
    for n, grams in sections(model):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(grams, key=lambda gram: gram == ("<unk>",)):
            p, weight = model[gram]
            lines.append(f"{p:.6g}\t{' '.join(gram)}" + f"\t{weight:.6g}" * (weight != 0))
    return "\n".join([*lines, "\\end\\", ""])


def irstlm_build_lm(model):
    lines = ["ARPA", "", "\\data\\", *counts(model, "ngram %d=\t%d"), ""]
    for n, grams in sections(model):
        lines.append(f"\\{n}-grams:")
        for gram in sorted(grams, key=lambda gram: gram == ("<unk>",)):
            p, weight = model[gram]
            if gram == ("<unk>",):
                lines.append(f"{p:f} <unk>")
            else:
                lines.append(f"{p:f}\t{' '.join(gram)}" + f"\t{weight:f}" * (n < len(sections(model))))
    return "\n".join([*lines, "\\end\\", ""])


def opengrm(model):
    lines = ["", "\\data\\", *counts(model, "ngram %d=%d"), ""]
    for n, grams in sections(model):
        lines.append(f"\\{n}-grams:")
        if n == 1:
            bos = f"{model['<s>',][1]:.7g}" if len(sections(model)) > 1 else ""
            lines.append(f"-99\t<s>\t{bos}")
        for gram in sorted(grams, key=lambda gram: (gram[:-1], gram[-1] != "</s>")):
            p, weight = model[gram]
            if gram != ("<s>",):
                p = "-inf" if p == -99 else f"{p:.7g}"
                lines.append(f"{p}\t{' '.join(gram)}" + f"\t{weight:.7g}" * has_followers(model, gram))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def mitlm(model):
    lines = ["", "\\data\\", *counts(model, "ngram %d=%d")]
    for n, grams in sections(model):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(grams, key=lambda gram: (gram != ("</s>",), gram != ("<s>",))):
            p, weight = model[gram]
            p = "-99" if gram == ("<s>",) or p == -99 else f"{p:.6f}"
            lines.append(
                f"{p}\t{' '.join(gram)}" + f"\t{weight:.6f}" * (weight != 0 and n < len(sections(model)))
            )
    return "\n".join([*lines, "", "\\end\\", ""])


def cmu(model):
    order = len(sections(model))
    lines = ["#" * 77, "## Copyright (c) 1996, someone", "#" * 77, f"This is a {order}-gram language model"]
    lines += ["This is an OPEN-vocabulary model (type 1)", "Good-Turing discounting was applied."]
    lines += [
        "1-gram frequency of frequency : 12 4 ",
        "This file is in the ARPA-standard format introduced by someone.",
    ]
    lines += [
        "",
        "p(wd2|wd1)= if(bigram exists) p_2(wd1,wd2)",
        "            else              bo_wt_1(wd1)*p_1(wd2)",
    ]
    lines += ["", "Beginning of data mark: \\data\\"]
    lines += [f"ngram {n}=nr            # number of {n}-grams" for n in range(1, order + 1)]
    for n in range(1, order + 1):
        lines += ["", f"\\{n}-grams:", f"p_{n}     wd_1 bo_wt_{n}"]
    lines += ["", "end of data mark: \\end\\", "", "\\data\\", *counts(model, "ngram %d=%d")]
    for n, grams in sections(model):
        lines += ["", f"\\{n}-grams:"]
        for gram in grams:
            p, weight = (-99.999 if value == -99 else value for value in model[gram])
            words = " ".join(gram).replace("<unk>", "<UNK>")
            if n == 1:
                lines.append(f"{p:.4f} {words}" + f"\t{weight:.4f}" * (order > 1))
            else:
                lines.append(f"{p:.4f} {words} " + f"{weight:.4f}" * (n < order))
    return "\n".join([*lines, "", "\\end\\", ""])


def sphinxbase(model):
    lines = ["This is an ARPA-format language model file, generated by CMU Sphinx"]
    lines += ["\\data\\", *counts(model, "ngram %d=%d")]
    for n, grams in sections(model):
        lines += ["", f"\\{n}-grams:"]
        for gram in grams:
            p, weight = model[gram]
            weights = f"\t{weight:.4f}" * (n < len(sections(model)))
            lines.append("\t".join([f"{p:.4f}", *gram]) + weights)
    return "\n".join([*lines, "", "\\end\\", ""])


# The writer, whether its files have <unk>, and how far rounding takes a word's score from the model's.
DIALECTS = {
    "kenlm": (kenlm, True, 1e-6),
    "srilm": (srilm, False, 4e-6),
    "srilm -unk": (srilm, True, 4e-6),
    "irstlm": (irstlm, True, 4e-5),
    "irstlm build-lm": (irstlm_build_lm, True, 4e-6),
    "opengrm": (opengrm, False, 4e-6),
    "mitlm": (mitlm, False, 4e-6),
    "cmu": (cmu, True, 3e-4),
    "sphinxbase": (sphinxbase, True, 3e-4),
}


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_is_read_without_a_word(tmp_path, dialect, order):
    write, unk, rounding = DIALECTS[dialect]
    model = make(order, unk)
    path = tmp_path / "model.arpa"
    path.write_text(write(model), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm = NGramLM.open(path)
    assert lm.order == order and set(lm.words) == {"<unk>", *(gram[0] for gram in model if len(gram) == 1)}
    for sentence in [[], ["red", "zebra", "car"], ["a", "a", "ärger"], *SENTENCES[:20]]:
        scores = lm.full_scores(" ".join(sentence))
        assert [score.log_prob for score in scores] == pytest.approx(
            reference.score(model, sentence), abs=rounding
        )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_probability_0(tmp_path, dialect):
    """As each writes it, of an n-gram and of a word."""
    write, unk, _ = DIALECTS[dialect]
    model = make(2, unk)
    model["red", "car"] = (-99.0, 0.0)
    model["a",] = (-99.0, model["a",][1])
    path = tmp_path / "model.arpa"
    path.write_text(write(model), encoding="utf-8")
    lm = NGramLM.open(path)
    scores = lm.full_scores("red car a a")
    assert [score.order for score in scores[1:2]] == [2] and scores[1].log_prob == pytest.approx(-99, abs=1)
    assert lm.full_scores("a", bos=False)[0].log_prob == pytest.approx(-99, abs=1)
    assert all(math.isfinite(score.log_prob) for score in scores)
