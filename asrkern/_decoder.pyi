"""Types of the compiled module ``_decoder``, which ``csrc/decoder/`` has; people use :mod:`asrkern.decoder`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

# What an array is turned into stands in the C++ function.
_Columns: TypeAlias = tuple[list[int], list[int], list[int], list[int], list[float]]
_Hypothesis: TypeAlias = tuple[float, float, list[int], list[int], list[int], list[int], list[float]]
# Tokens, their first frames, words, and the frame after the last token.
_Read: TypeAlias = tuple[list[int], list[int], list[Any], int]
_Ngrams: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]

_Text: TypeAlias = str | bytes

MAX_ORDER: int

class NGramState:
    """What a model keeps of the words before; made by NGramLM.start and step."""

    @property
    def words(self) -> list[int]:
        """Ids of the words that still count, most recent first."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getstate__(self) -> bytes: ...
    def __setstate__(self, state: bytes, /) -> None: ...

class MappedTrie:
    """A trie of KenLM that is asked where it lies."""

    def __init__(self, trie: NDArray[np.uint8], trie_shape: NDArray[np.int64]) -> None: ...
    @property
    def bytes(self) -> int: ...
    def find_word(self, word: _Text, /) -> int: ...
    def unigrams(self) -> NDArray[np.float32]: ...

class NGramModel:
    """The tables of a language model."""

    def __init__(
        self,
        unigrams: NDArray[np.float32],
        ngrams: NDArray[np.int64] | None,
        codebook: NDArray[np.float32] | None,
        words: NDArray[np.int64] | None,
        order: int,
        bos: int,
        eos: int,
        characters: bool,
        space: str,
        trie: MappedTrie | None = None,
    ) -> None: ...
    def word_id(self, word: str, /) -> int: ...
    def encode(self, sentence: str, /) -> list[int]: ...
    def start(self, bos: bool, /) -> NGramState: ...
    def step(self, state: NGramState, word: int, /) -> tuple[float, NGramState]: ...
    def check_values(self) -> None: ...
    def recover(self, most_pairs: int, /) -> list[_Ngrams]: ...
    def score_ngrams(self, words: ArrayLike, /) -> NDArray[np.float32]: ...
    def score_words(
        self, sentence: str, bos: bool, eos: bool, /
    ) -> tuple[list[float], list[int], list[int]]: ...
    def score_sentence(self, sentence: str, bos: bool, eos: bool, /) -> float: ...
    def score_sentences(self, sentences: Sequence[str], bos: bool, eos: bool, /) -> NDArray[np.float64]: ...

class ArpaReader:
    """Reads an ARPA file in pieces."""

    def __init__(self, keep: bool = False) -> None: ...
    @property
    def order(self) -> int: ...
    @property
    def unit(self) -> bytes: ...
    def feed(self, content: bytes, /) -> None: ...
    def finish(self) -> None: ...
    def warnings(self) -> list[str]: ...
    def word_id(self, word: _Text, /) -> int: ...
    def ngrams(self) -> list[_Ngrams]: ...
    def tables(self) -> dict[str, NDArray[Any]]: ...

class KneserNey:
    """Counts n-grams and estimates a model of them."""

    def __init__(self, order: int, characters: bool, space: str, /) -> None: ...
    def begin_text(self) -> None: ...
    def feed(self, text: _Text, /) -> None: ...
    def finish(self, prune: Sequence[int], fallback: Sequence[float] | None, /) -> None: ...
    def estimate(self, n: int, /) -> None: ...
    def strings(self) -> bytes: ...
    def ngrams(self, n: int, /) -> _Ngrams: ...

class HotwordBuilder:
    """Builds automata of phrases; see kernels/ctc/trie_builder.h."""

    def __init__(self, token_symbols: ArrayLike, token_begin: ArrayLike, kinds: ArrayLike, /) -> None: ...
    def build(
        self, symbols: ArrayLike, begin: ArrayLike, weights: ArrayLike, /
    ) -> tuple[NDArray[Any], ...]: ...

class CtcBeamState:
    """A beam search in progress; made by CTCBeamDecoder.start."""

    @property
    def frames(self) -> int:
        """Frames taken so far."""

    @property
    def stable_tokens(self) -> int:
        """How many tokens all prefixes of the beam begin with."""

    @property
    def tree_bytes(self) -> int:
        """Memory of what the prefixes of the beam differ in, in bytes."""

    def __getstate__(self) -> bytes: ...
    def __setstate__(self, state: bytes, /) -> None: ...

class Labels:
    """What tokens stand for."""

    def __init__(
        self,
        word: type,
        kinds: ArrayLike,
        texts: list[str],
        names: list[str],
        finish: Callable[[str], str] | None = None,
    ) -> None: ...
    def read_rows(
        self,
        lengths: ArrayLike,
        tokens: ArrayLike,
        times: ArrayLike,
        words: ArrayLike,
        confidences: ArrayLike,
    ) -> list[list[_Read]]:
        """The hypotheses of each row. lengths: [N, K]; tokens, words, confidences: [N, K, T]; times: [N, K, T, 2]."""

class CtcBeamSearch:
    """A model and options of a beam search; see kernels/ctc/ctc_beam.h."""

    def __init__(
        self,
        *,
        context: dict[str, Any],
        language_model: NGramModel | None,
        options: dict[str, Any],
        labels: Labels,
    ) -> None: ...
    def replace(self, *, options: dict[str, Any], hotwords: Sequence[NDArray[Any]]) -> CtcBeamSearch: ...
    def start(self, before: NGramState | None = None) -> CtcBeamState: ...
    def step(self, state: CtcBeamState, log_probs: ArrayLike, /) -> tuple[int, int]: ...
    def results(self, stream: CtcBeamState, sentence: bool = True) -> list[tuple[float, float, _Read]]: ...
    def partial(self, state: CtcBeamState, after: int, /) -> tuple[_Columns, _Hypothesis, int, int, int]: ...
    def committed(self, state: CtcBeamState, end: int, /) -> _Columns: ...

def search_rows(
    searches: Sequence[CtcBeamSearch], log_probs: ArrayLike, lengths: ArrayLike, threads: int
) -> list[list[tuple[float, float, _Read]] | tuple[int, int]]:
    """For each row its n-best, or an error and the frame where it is."""

def text_hashes(symbols: ArrayLike, begin: ArrayLike, /) -> NDArray[np.int64]: ...
def greedy_decode(
    log_probs: ArrayLike, lengths: Iterable[int], blank: int
) -> list[tuple[list[int], list[int]]]: ...
def ctc_score(log_probs: ArrayLike, targets: ArrayLike, blank: int) -> float: ...
def forced_align(
    log_probs: ArrayLike, targets: ArrayLike, blank: int, log_priors: ArrayLike | None = None, block: int = 0
) -> NDArray[np.int64]: ...
def lexicon_graph(
    symbols: ArrayLike,
    begin: ArrayLike,
    word_of: ArrayLike,
    word_count: int,
    token_symbols: ArrayLike,
    token_begin: ArrayLike,
    kinds: ArrayLike,
    /,
) -> dict[str, NDArray[Any]]:
    """The edges and words of a lexicon; see kernels/ctc/trie_builder.h."""

def best_word_below(
    parent: ArrayLike, word_begin: ArrayLike, words: ArrayLike, word_scores: ArrayLike, /
) -> NDArray[np.float32]:
    """The best score of the words at and below each node of a lexicon."""

def make_tables(strings: bytes, ngrams: Sequence[tuple[NDArray[Any], ...]], /) -> dict[str, NDArray[Any]]: ...
def make_hash_table(keys: ArrayLike, payloads: ArrayLike, /) -> NDArray[np.int64]: ...
def make_small_hash_table(keys: ArrayLike, codes: ArrayLike, /) -> NDArray[np.int64]: ...
def format_ngrams(
    strings: bytes,
    words: ArrayLike,
    log_probs: ArrayLike,
    backoffs: ArrayLike | None,
    begin: int,
    end: int,
    /,
) -> bytes: ...
def find_word(words: NDArray[np.int64], word: _Text, /) -> int | None: ...
def read_kenlm_trie(trie: ArrayLike, trie_shape: ArrayLike, /) -> tuple[dict[str, NDArray[Any]], int]: ...
def list_kenlm_trie(trie: ArrayLike, trie_shape: ArrayLike, /) -> list[_Ngrams]: ...
