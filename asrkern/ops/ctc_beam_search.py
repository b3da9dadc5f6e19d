"""CTC prefix beam search with words, a language model and hotwords."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrkern import _library
from asrkern._lengths import Lengths
from asrkern.ops._common import check_tensor, lengths_on, register_fake
from asrkern.ops._log import logged

_NO_LIMIT = (1 << 31) - 1


class CTCContext(NamedTuple):
    """What prefixes are worth beside their acoustic scores, as tensors; :class:`asrkern.decoder.CTCBeamDecoder` makes it.

    Scores are natural logarithms, already weighted, except the language model's (log10). Parts that are missing are
    empty.

    Attributes:
        token_kinds: [V] uint8: 0 inside a word, 1 ends a word (a space), 2 begins one ("▁the").
        language_model: unigrams [vocabulary, 2] float32; ngrams [slots, 2] int64, or [slots] and a codebook [2, 256]
            (``NGramLM.tensors``). Or, on the CPU, unigrams, trie [bytes] uint8 and trie_shape
            [2 + order] int64, of a mapped trie.
        lm_order, lm_bos, lm_eos: of the language model.
        lm_tokens: [V] int32, its words for the tokens if it is a model of characters, else None.
        lexicon: edge_begin [nodes + 1], edge_token [edges], edge_target [edges], int32, edge_mask [nodes] int64;
            word_begin [nodes + 1], words, lm_words, int32; look_ahead [nodes], reach [nodes], float32
            (``kernels/ctc/ctc_context.h``).
        hotwords: edge_begin, edge_token, edge_target, edge_mask as for lexicon; credit, completed, reach [nodes],
                float32. Node 0: no phrase is begun. Node 1: no phrase continues with the word; it has no edges and no
                credit.
        alpha: weight of the language model's log-probabilities.
        beta: added for each word (each token with a model of characters).
        unk_score: added for each word that is not in the lexicon; None: such words are not allowed.
        unknown_look_ahead: the expected score of such a word, from where it leaves the lexicon on.
        begin_reach: the most that a token that begins a word can gain.
        texts: [1 + V + words, 2] int64: hashes of the text between words, of each token's text and of each word of the
            lexicon (``kernels/ctc/text_hash.h``). Prefixes with the same text become one result, whose scores are the
            logarithm of the sum. None: each prefix is a result.
    """

    token_kinds: Tensor
    language_model: tuple[Tensor, ...] = ()
    lm_order: int = 0
    lm_bos: int = 0
    lm_eos: int = 0
    lm_tokens: Tensor | None = None
    lexicon: tuple[Tensor, ...] = ()
    hotwords: tuple[Tensor, ...] = ()
    alpha: float = 0.0
    beta: float = 0.0
    unk_score: float | None = 0.0
    unknown_look_ahead: float = 0.0
    begin_reach: float = 0.0
    texts: Tensor | None = None

    def to(self, device: torch.device | str) -> CTCContext:
        """This context with its tensors on ``device``.

        Raises:
            ValueError: it leaves the CPU, and its values are not those of a context. A GPU's search does not check
                them.
        """
        if self.token_kinds.device.type == "cpu" and torch.device(device).type != "cpu":
            ctc_beam_search(torch.zeros(0, 0, len(self.token_kinds)), context=self, beam_width=1)
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else tuple(t.to(device) for t in value)
            for name, value in self._asdict().items()
            if isinstance(value, (Tensor, tuple))
        }
        return self._replace(**moved)


class CTCBeamSearchResult(NamedTuple):
    """The n-best of each row, the best first. L = T is the room for tokens.

    Prefixes with the same text (``texts`` of :class:`CTCContext`) are one hypothesis: tokens, times and words are those of the
    best prefix, scores those of all.

    Attributes:
        tokens: [N, nbest, L] int32, −1 beyond token_lengths.
        timesteps: [N, nbest, L, 2] int32, frames of each token in the best alignment: its first, the one after its
            last.
        words: [N, nbest, L] int32, the lexicon's word that each token is in; −1: an unknown word, −2: a space.
        confidences: [N, nbest, L] float32, posterior probability within the beam of the word that each token is in.
        token_lengths: [N, nbest] int32, −1 where there are fewer hypotheses.
        scores: [N, nbest] float64, ``log p_ctc + alpha · ln p_lm + beta · words + …``.
        am_scores: [N, nbest] float64, ``log p_ctc``. What the context added is the difference.
        errors: [N, 2] int32, what was wrong with a row (``ERRORS``; 0: nothing) and at which frame. Such a row has
            no n-best.
    """

    tokens: Tensor
    timesteps: Tensor
    words: Tensor
    confidences: Tensor
    token_lengths: Tensor
    scores: Tensor
    am_scores: Tensor
    errors: Tensor


ERRORS = {
    1: "expected log-probabilities, received NaN",
    2: "expected log-probabilities, received −inf for every token",
    3: "expected log-probabilities, received probabilities; take their logarithm",
    4: "expected log-probabilities, received values whose exponentials do not sum to 1, as logits; use log_softmax",
    5: "no prefix of the beam can go on: the lexicon allows none of the possible tokens",
    6: "expected a length between 0 and its frames, received another",
    7: "more prefixes or words than a GPU's search has memory for; decode it on the CPU",
    8: "expected log-probabilities, received infinite values",
}


def error_message(error: int, frame: int, row: int | None = None) -> str:
    """What an error of :attr:`CTCBeamSearchResult.errors` means, in words; frame −1 and row None are not named."""
    where = [f"in row {row}"] * (row is not None) + [f"at frame {frame}"] * (frame >= 0)
    return f"log_probs: {ERRORS[error]} ({' '.join(where)})"


def has_kernel(device: torch.device) -> bool:
    """Whether the beam search runs on a device that is not the CPU."""
    return device.type == "cuda" and _library.cuda_kernel("ctc_beam_search")


def ctc_beam_search(
    log_probs: Tensor,
    lengths: Lengths | None = None,
    *,
    blank: int = 0,
    beam_width: int = 100,
    nbest: int = 1,
    top_tokens: int | None = None,
    token_min_logp: float = -math.inf,
    beam_prune_logp: float = -math.inf,
    blank_penalty: float = 0.0,
    log_add: bool = True,
    history: int | None = 512,
    check_normalized: bool = True,
    context: CTCContext | None = None,
    num_threads: int = 0,
) -> CTCBeamSearchResult:
    """Prefix beam search (Graves et al. 2006; Hannun et al. 2014) over a batch of CTC outputs.

    A prefix's score is the logarithm of the sum over all its alignments, plus what ``context`` adds. Equal prefixes are
    merged before the ``beam_width`` best are kept. Nothing is differentiable.

    Args:
        log_probs: [N, T, V] log-probabilities, any floating dtype. Computed in float32 relative to the best prefix, so
            precision does not sink over time. On a GPU one kernel does the whole search, with ``context`` on the same
            device, and can be captured in a CUDA graph. It finds what the CPU finds, except for the order of equal
            scores. Beams that do not fit into a block's shared memory (on an H200 about 700 prefixes of 29 tokens, or
            100 of 23,000) are an error; each row takes about 3 MB of the device's memory.
        lengths: [N] integers, frames of each row; None: all T. On a GPU a length out of range is an entry in
            ``errors``.
        blank: index of the blank token.
        beam_width: prefixes kept at each frame.
        nbest: hypotheses returned, at most beam_width.
        top_tokens: only so many of the likeliest tokens of a frame are possible; None: all.
        token_min_logp: less likely tokens are impossible, but never a frame's likeliest.
        beam_prune_logp: prefixes whose score is further than this below the best are dropped; ≤ 0.
        blank_penalty: subtracted from blank's log-probability, before all pruning.
        log_add: True: alignments are summed. False: the best one counts.
        history: in tokens. Prefixes that differ from the best one further back are dropped, each time texts have become
            longer by half of it, so that a frame takes no more memory and time in long recordings; None: never.
        check_normalized: report rows whose probabilities do not sum to 1 within a factor of e^0.5.
        context: words, language model, hotwords; None: acoustics only. On the CPU all its values are checked. On a GPU
            they are not: :meth:`CTCContext.to` has checked them.
        num_threads: at most so many of torch's threads on the CPU; 0: all.

    Returns:
        :class:`CTCBeamSearchResult`. Rows with bad values have an entry in ``errors``; the others are not affected.

    Raises:
        TypeError: log_probs is not floating-point, or lengths not integer.
        ValueError: wrong rank or device, no tokens, lengths beyond T, an option out of range, or a beam that does not
            fit into the device's fast memory.
    """
    check_tensor("log_probs", log_probs, (3,))
    if log_probs.device.type != "cpu" and not has_kernel(log_probs.device):
        raise ValueError(
            f"log_probs: expected a tensor on the CPU, received one on {log_probs.device}, where there is no beam search "
            "of asrkern's that has been checked (ASRKERN_CUDA=force takes one that has not)"
        )
    vocabulary = log_probs.shape[2]
    if vocabulary == 0:
        raise ValueError(f"log_probs: expected at least one token, received shape {tuple(log_probs.shape)}")
    # The kernel would refuse these sizes as well, but the fake kernel needs them before.
    if beam_width < 1:
        raise ValueError(f"beam_width: expected at least 1, received {beam_width}")
    if not 1 <= nbest <= beam_width:
        raise ValueError(f"nbest: expected 1 to beam_width, {beam_width}, received {nbest}")
    if num_threads < 0:
        raise ValueError(f"num_threads: expected at least 0, received {num_threads}")
    lengths = lengths_on(log_probs.device, "lengths", lengths, log_probs.shape[0])
    if context is None:
        context = CTCContext(torch.zeros(vocabulary, dtype=torch.uint8, device=log_probs.device))
    found = _call(
        "ctc_beam_search",
        log_probs.detach().float(),
        lengths,
        **context._asdict(),
        blank=blank,
        beam_width=beam_width,
        nbest=nbest,
        top_tokens=vocabulary if top_tokens is None else top_tokens,
        token_min_logp=token_min_logp,
        beam_prune_logp=beam_prune_logp,
        blank_penalty=blank_penalty,
        log_add=log_add,
        history=_NO_LIMIT if history is None else history,
        check_normalized=check_normalized,
        num_threads=num_threads,
    )
    return CTCBeamSearchResult(*found)


# Not _autograd.call: it has no derivative that a transform could ask for.
@logged
def _call(name: str, *args: Any, **named: Any) -> tuple[Tensor, ...]:
    return getattr(torch.ops.asrkern, name)(*args, **named)


_ARGUMENTS = [argument.name for argument in torch.ops.asrkern.ctc_beam_search.default._schema.arguments]


@register_fake("asrkern::ctc_beam_search")
def _fake(*values, **named):
    arguments = dict(zip(_ARGUMENTS, values), **named)
    log_probs, nbest = arguments["log_probs"], arguments["nbest"]
    rows, frames, _ = log_probs.shape

    def make(dtype, *sizes):
        return log_probs.new_empty((rows, *sizes), dtype=dtype)

    return (
        make(torch.int32, nbest, frames),
        make(torch.int32, nbest, frames, 2),
        make(torch.int32, nbest, frames),
        make(torch.float32, nbest, frames),
        make(torch.int32, nbest),
        make(torch.float64, nbest),
        make(torch.float64, nbest),
        make(torch.int32, 2),
    )
