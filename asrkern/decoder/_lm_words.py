"""Which words of a language model labels stand for, or words spelled by labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral

from asrkern.decoder._tokens import BYTES, ENDS_WORD, WORD_MARK, WORDPIECE_MARK, Tokens
from asrkern.decoder._warn import warn
from asrkern.decoder.ngram_lm import SPACES, UNITS, NGramLM

_CASES: dict[str | None, Callable[[str], str]] = {None: str, "upper": str.upper, "lower": str.lower}
_OTHER = {"upper": "lower", "lower": "upper"}
MARKS = ("<unk>", "<s>", "</s>")
# How many words are looked at to tell the case of all.
_SAMPLE = 1000
_CODE_POINTS, _SURROGATES = 0x110000, range(0xD800, 0xE000)
# In NeMo's models of subwords token i is the word chr(i + 100).
NEMO_OFFSET = 100
# With so many words all of which are characters behind the offset, the model is NeMo's, even if it lacks most tokens.
_ENOUGH_WORDS = 256


def check_case(lm_case: str | None) -> None:
    """Raises ValueError unless it is "upper", "lower" or None."""
    if lm_case not in tuple(_CASES):
        raise ValueError(f"lm_case: expected 'upper', 'lower' or None, received {lm_case!r}")


def check_unit(unit: str | None, offset: int | None) -> None:
    """Raises TypeError or ValueError unless these are arguments that CTCBeamDecoder takes."""
    if unit not in (None, *UNITS):
        raise ValueError(f"unit: expected one of {', '.join(map(repr, UNITS))} or None, received {unit!r}")
    if offset is None:
        return
    if isinstance(offset, bool) or not isinstance(offset, Integral):
        raise TypeError(f"lm_token_offset: expected an integer or None, received {offset!r}")
    if not 0 <= offset < _CODE_POINTS:
        raise ValueError(f"lm_token_offset: expected 0 to {_CODE_POINTS - 1}, received {offset}")
    if offset and unit not in (None, "token"):
        raise ValueError(f"lm_token_offset: expected 0 or None with unit {unit!r}, received {offset}")


def unit_of(lm: NGramLM, tokens: Tokens, unit: str | None, offset: int | None) -> str:
    """What a model's words are: as said; else by the model; else tokens if its words are labels or NeMo's."""
    if unit is not None:
        return unit
    if offset:
        return "token"
    if lm.unit == "word" and (_are_pieces(lm, tokens) or (offset is None and _is_nemo(lm, tokens))):
        return "token"
    return lm.unit


def token_ids(lm: NGramLM, tokens: Tokens, lm_case: str | None, unit: str, offset: int | None) -> list[int]:
    """For each token the id of its word in a model of tokens or characters; 0, which is ``<unk>``, if it has none.

    offset: of NeMo's words, 0: they are labels, None: either.

    Raises:
        ValueError: the model knows none of them.
    """
    if offset is None and _is_nemo(lm, tokens):
        offset = NEMO_OFFSET
    if offset:
        # NeMo's blank is the last token, and the other tokens are numbered without it.
        numbers = (index - (index > tokens.blank) for index in range(len(tokens.labels)))
        names = [_character(offset + number) for number in numbers]
    elif unit == "token":
        names = [_CASES[lm_case](label) for label in tokens.labels]
    else:
        names = [_CASES[lm_case](label) for label in tokens.labels]
        for index, kind in enumerate(tokens.kinds):
            if kind == ENDS_WORD:
                known = filter(lm.word_id, (lm.space, names[index], *SPACES))
                names[index] = next(known, names[index])
        if lm_case is None:
            _warn_of_case(lm, tokens.labels)
    ids = [
        0 if index == tokens.blank or name in MARKS else lm.word_id(name) for index, name in enumerate(names)
    ]
    if not any(ids):
        raise ValueError("lm: expected a model of these labels, received one that knows none of them")
    for kind, name, known in zip(tokens.kinds, tokens.labels, ids):
        if unit == "character" and kind == ENDS_WORD and not known:
            warn(
                f"lm: what stands between words, {name!r}, is none of the model's words, so each counts as <unk>; "
                "NGramLM.open(space=...), or --lm-space, says what stands for it"
            )
            break
    spelling = (known for label, known in zip(tokens.labels, ids) if label in BYTES)
    if unit == "character" and tokens.has_bytes and not any(spelling):
        warn(
            "lm: the model's words are characters and none of them a byte, such as '<0xC3>', so each byte counts as "
            "<unk>, also of letters that the model knows; a model of tokens (unit='token') has bytes"
        )
    return ids


def known_words(lm: NGramLM, tokens: Tokens, lm_case: str | None) -> dict[str, int]:
    """The words of a model of words as the labels spell them, and their ids.

    Raises:
        ValueError: the model's file has no words.
    """
    words = {word: index for index, word in enumerate(lm.words) if word not in MARKS}
    if not words:
        raise ValueError("lexicon: expected words, since the language model's file does not have its own")
    if tokens.joiner and all(len(word) == 1 or word in SPACES for word in words):
        warn(
            "lm: the model's words are single characters, so that longer words are unknown to it; "
            "NGramLM.open(unit='character'), or --characters, reads it as what it is"
        )
    if lm_case is not None:
        of_lm, spelled = _CASES[lm_case], _CASES[_OTHER[lm_case]]
        return {spelled(word): index for word, index in words.items() if word == of_lm(word)}
    of_labels, of_words = _case(tokens.texts), _case(_sample(list(words)))
    if of_labels and of_words and of_labels != of_words:
        _warn_that(of_words)
    return words


def ids_of_words(lm: NGramLM, words: Sequence[str], lm_case: str | None) -> dict[str, int]:
    """Word → its id in a model of words, 0 if the model does not know it."""
    if lm_case is None:
        _warn_of_case(lm, words)
    return {word: lm.word_id(_CASES[lm_case](word)) for word in words}


def _character(code: int) -> str:
    """chr(code); "<unk>" where UTF-8 has no such character, so that no file has the word."""
    return chr(code) if code < _CODE_POINTS and code not in _SURROGATES else MARKS[0]


def _is_nemo(lm: NGramLM, tokens: Tokens) -> bool:
    """Whether the model's words are NeMo's for these tokens, not labels or letters that look like some of them.

    Words are asked for, not listed: the model may have hashes of them alone.
    """
    words = lm.vocabulary_size - len(MARKS)
    if not min(len(tokens.labels) / 4, _ENOUGH_WORDS) <= words <= len(tokens.labels):
        return False
    names = map(_character, range(NEMO_OFFSET, NEMO_OFFSET + len(tokens.labels)))
    known = [name for name in names if name not in MARKS and lm.word_id(name)]
    labels = set(tokens.labels)
    return len(known) == words and 2 * sum(word in labels for word in known) < min(words, len(labels))


def _are_pieces(lm: NGramLM, tokens: Tokens) -> bool:
    """Whether most of the model's words are labels, and one of them is a label with a mark of words."""
    marked = [
        label
        for label in tokens.labels
        if label.startswith((WORD_MARK, WORDPIECE_MARK)) and label not in (WORD_MARK, WORDPIECE_MARK)
    ]
    if not any(map(lm.word_id, marked)):
        return False
    known = sum(lm.word_id(label) > 0 for label in set(tokens.labels))
    return 2 * known >= lm.vocabulary_size - len(MARKS)


def _sample(words: Sequence[str]) -> Sequence[str]:
    return words[:: max(1, len(words) // _SAMPLE)]


def _case(texts: Iterable[str]) -> str | None:
    """The case of nearly all texts that have letters; None if they have both."""
    upper, lower = (sum(map(test, texts)) for test in (str.isupper, str.islower))
    return "upper" if upper > 10 * lower else "lower" if lower > 10 * upper else None


def _warn_of_case(lm: NGramLM, words: Sequence[str]) -> None:
    """Warn if the model knows hardly any of these words, but would know them in the other case."""
    asked = [word for word in _sample(words) if word.upper() != word.lower()]
    known = {case: sum(lm.word_id(change(word)) > 0 for word in asked) for case, change in _CASES.items()}
    for case in _OTHER:
        if known[case] > 10 * known[None]:
            _warn_that(case)


def _warn_that(lm_case: str) -> None:
    warn(
        f"lm: the model's words are {lm_case} case and the labels {_OTHER[lm_case]}, so it knows none of what is said; "
        f"lm_case={lm_case!r} asks it for words of its own case"
    )
