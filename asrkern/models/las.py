"""Listen, Attend and Spell (Chan et al. 2016) as CMU's HW4P2 and early KoSpeech have it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asrkern._lengths import Lengths, as_lengths, values_are_known
from asrkern.models._checks import check_sizes, check_spectrograms, check_targets
from asrkern.models.checkpoint import read_checkpoint
from asrkern.models.las_config import PRESETS, LASConfig
from asrkern.models.las_layouts import KIND, options_of, parse_checkpoint
from asrkern.models.las_search import Hypothesis, Ranking, beam_search, greedy_search
from asrkern.models.listener import make_listener
from asrkern.models.speller import CellSpeller, GRUSpeller, make_attention
from asrkern.models.weights import fit_weights, outline, with_weights
from asrkern.nn import AttentionMemory
from asrkern.nn._lengths import reverse_frames

_IGNORED = -100


class LASOutput(NamedTuple):
    """What a model says of a batch with targets.

    Attributes:
        logits: [N, L', num_tokens], a step for each token to be predicted: the target's, then eos_token; before them
            sos_token if ``config.predicts_sos``. Steps beyond a row's length hold no information.
        lengths: [N] int64, steps of each row.
        alignments: [N, L', T'], attention weights over the listener's frames (the mean over heads).
    """

    logits: Tensor
    lengths: Tensor
    alignments: Tensor


class LAS(nn.Module):
    """A listener that shortens the utterance, attention to it, and a speller that predicts token after token.

    Lengths are exact integers throughout, no frame of padding is attended to, and the decoder's state begins with
    zeros. So in eval mode an utterance's result is the same alone and in any batch, up to the rounding of torch's
    linear layers, softmaxes and GELU (about 1e-6). asrkern's layers within are bit for bit independent.

    Args:
        config: the model; see also :meth:`preset` and :meth:`from_checkpoint`.
    """

    def __init__(self, config: LASConfig) -> None:
        super().__init__()
        self.config = config
        self.listener = make_listener(config)
        if config.speller == "lstm_cells":
            # In the model and in its speller, as in the lineage, whose checkpoints have it twice.
            self.attend = make_attention(config)
            self.speller: CellSpeller | GRUSpeller = CellSpeller(config, self.attend)
        else:
            self.speller = GRUSpeller(config)
        if config.tied_output:
            self.speller.tie_output()

    @classmethod
    def preset(cls, name: str, **options: Any) -> LAS:
        """A model of a named form with new weights.

        Args:
            name: "hw4" (CMU 11-685 HW4P2, the run of 15.505: three convolutions, pyramidal BiLSTMs, two
                self-attention blocks, 28 MFCC, 31 characters), "hw4_mobile" (its first variant) or "kospeech"
                (VGG and pyramidal BiGRUs, 128 mel bands, 2040 Korean characters, 20.7 M parameters).
            options: fields of :class:`LASConfig` in place of the preset's.

        Raises:
            ValueError: no preset has this name, or an option is out of range.
            TypeError: an option does not exist.
        """
        if name not in PRESETS:
            raise ValueError(f"name: expected one of {tuple(PRESETS)}, received {name!r}")
        return cls(LASConfig(**{**PRESETS[name], **options}))

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> LAS:
        """Load a checkpoint of either lineage; nothing in the file is executed.

        Args:
            path: a state_dict, alone or under ``model_state_dict`` (HW4P2's container) or ``state_dict``, or a
                whole module that was saved as it is (KoSpeech); perhaps with DataParallel's ``module.`` before the
                keys.
            options: fields of :class:`LASConfig` in place of what weights tell and of the lineage's defaults. No
                weight tells the heads of attention, ``attention_smoothing``, ``remainder``, ``reverse_input``,
                ``predicts_sos``, dropout and the special tokens; of KoSpeech these are taken to be the last three,
                ``<s> </s> _``, as in its label files.

        Returns:
            The model in fp32 on the CPU, in eval mode.

        Raises:
            OSError: the file cannot be opened.
            TypeError: an option does not exist.
            ValueError: it is no checkpoint of these lineages (what does not fit is listed), two copies of a weight
                disagree, weights are NaN or infinite (the keys are listed), or an option does not fit.
        """
        container = read_checkpoint(path, whole_module=True)
        try:
            state = parse_checkpoint(container)
            config = LASConfig(**{**options_of(state), **options})
            model = outline(partial(cls, config), len(state))
            weights = fit_weights(state, model, KIND)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        model = with_weights(model, weights)
        if model.config.tied_output:
            # Moving from the meta device separates the two tied weights.
            model.speller.tie_output()
        return model

    @property
    def n_features(self) -> int:
        """Features per frame of the input."""
        return self.config.n_features

    @property
    def n_classes(self) -> int:
        """Classes of the output."""
        return self.config.num_tokens

    def output_length(self, frames: int) -> int:
        """How many frames the listener makes of ``frames`` frames of input; 0 for too few."""
        return int(self.listener.output_lengths(torch.tensor(frames)))

    def listen(self, features: Tensor, lengths: Lengths) -> AttentionMemory:
        """The listener's frames, prepared for attention.

        Args:
            features, lengths: as in :meth:`forward`.
        """
        x = check_spectrograms(features, self.config.n_features)
        lengths = as_lengths("lengths", lengths, x.shape[0], x.shape[-1], self.listener.minimum_frames)
        lengths = lengths.to(x.device, torch.int64)
        if self.config.reverse_input:
            x = reverse_frames(x, lengths, "NCFT")
        return self.speller.remember(*self.listener(x, lengths))

    def forward(
        self,
        features: Tensor,
        lengths: Lengths,
        targets: Tensor,
        target_lengths: Lengths,
        teacher_forcing: float = 1.0,
    ) -> LASOutput:
        """Predict the tokens of known targets.

        Args:
            features: [N, 1, F, T] or [N, F, T], F being ``config.n_features``.
            lengths: integers [N], valid frames of each row, from ``listener.minimum_frames`` to T; in any order, on
                any device. What lies beyond them is not read.
            targets: integers [N, L] below ``config.num_tokens``, without pad, start and end of the sequence.
            target_lengths: integers [N], tokens of each row, from 1 to L. Tokens beyond are not read.
            teacher_forcing: probability with which a step's input is the target's token and not the model's own
                choice. Drawn from torch's generator, per step or per batch (``config.teacher_forcing_per``) for all
                rows together.

        Raises:
            TypeError: features is no tensor, or another argument not of integers.
            ValueError: a shape, a length, a token or teacher_forcing does not fit.
        """
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing: expected 0 to 1, received {teacher_forcing!r}")
        x = check_spectrograms(features, self.config.n_features)
        # Checked before the listener runs, which takes the time.
        labels, steps = self._labels(targets, target_lengths, x.shape[0])
        memory = self.listen(x, lengths)
        labels, steps = labels.to(memory.valid.device), steps.to(memory.valid.device)
        start = labels.new_full((labels.shape[0], 1), self.config.sos_token)
        tokens = torch.cat((start, labels[:, :-1]), 1)
        tokens = tokens.masked_fill(tokens == _IGNORED, self.config.pad_token)
        forced = None
        if teacher_forcing < 1:
            count = tokens.shape[1] if self.config.teacher_forcing_per == "step" else 1
            forced = (torch.rand(count) < teacher_forcing).expand(tokens.shape[1]).tolist()
            forced = None if all(forced) else [True, *forced[1:]]
        logits, alignments = self.speller(tokens, memory, forced)
        return LASOutput(logits, steps, alignments)

    def loss(self, logits: Tensor, targets: Tensor, target_lengths: Lengths) -> Tensor:
        """Cross entropy with ``config.label_smoothing``, the mean over all steps within the rows' lengths.

        Args:
            logits: of :meth:`forward`.
            targets, target_lengths: as there.

        Raises:
            TypeError: targets or target_lengths are not integers.
            ValueError: they do not fit, or logits do not fit them.
        """
        labels, _ = self._labels(targets, target_lengths, logits.shape[0])
        if logits.shape != (*labels.shape, self.config.num_tokens):
            raise ValueError(
                f"logits: expected {[*labels.shape, self.config.num_tokens]}, received {list(logits.shape)}"
            )
        return nn.functional.cross_entropy(
            logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
            labels.flatten().to(logits.device),
            ignore_index=_IGNORED,
            label_smoothing=self.config.label_smoothing,
        )

    def greedy(self, features: Tensor, lengths: Lengths, max_length: int = 500) -> list[Hypothesis]:
        """Spell with the most probable token at each step, until eos_token or max_length steps. For eval mode.

        Args:
            features, lengths: as in :meth:`forward`.
            max_length: steps at most, the end included.

        Returns:
            One ``Hypothesis`` per row.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        check_sizes(max_length=max_length)
        with torch.no_grad():
            memory = self.listen(features, lengths)
        return greedy_search(self.speller, memory, *self._ends, max_length)

    def beam_search(
        self,
        features: Tensor,
        lengths: Lengths,
        beam_width: int = 8,
        *,
        length_normalisation: float = 0.0,
        coverage_penalty: float = 0.0,
        max_length: int = 500,
    ) -> list[list[Hypothesis]]:
        """Spell with the beam_width most probable hypotheses at each step. For eval mode.

        Args:
            features, lengths: as in :meth:`forward`.
            beam_width: hypotheses; with 1 it is :meth:`greedy`.
            length_normalisation, coverage_penalty: α and β of ``asrkern.models.las_search.Ranking``.
            max_length: steps at most, the end included.

        Returns:
            For each row up to beam_width hypotheses, the best first.

        Raises:
            TypeError, ValueError: as :meth:`forward`; ValueError where the model's output is not a number.
        """
        check_sizes(max_length=max_length, beam_width=beam_width)
        for name, value in (
            ("length_normalisation", length_normalisation),
            ("coverage_penalty", coverage_penalty),
        ):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a number from 0 on, received {value!r}")
        with torch.no_grad():
            memory = self.listen(features, lengths)
        ranking = Ranking(length_normalisation, coverage_penalty)
        return beam_search(self.speller, memory, *self._ends, max_length, beam_width, ranking)

    @property
    def _ends(self) -> tuple[int, int]:
        return self.config.sos_token, self.config.eos_token

    def _labels(self, targets: Tensor, target_lengths: Lengths, rows: int) -> tuple[Tensor, Tensor]:
        """The token that each step is to predict, [N, L'], -100 beyond a row's steps; and how many steps, [N]."""
        config = self.config
        targets, target_lengths = check_targets(
            targets, target_lengths, rows, config.num_tokens, minimum_length=1
        )
        target_lengths = target_lengths.to(targets.device, torch.int64)
        positions = torch.arange(targets.shape[1] + 1, device=targets.device)
        labels = nn.functional.pad(targets.to(torch.int64), (0, 1))
        beyond = positions > target_lengths[:, None]
        labels = labels.masked_fill(beyond, _IGNORED)
        self._check_tokens(labels, positions < target_lengths[:, None])
        labels = labels.masked_fill(positions == target_lengths[:, None], config.eos_token)
        if config.predicts_sos:
            labels = nn.functional.pad(labels, (1, 0), value=config.sos_token)
        return labels, target_lengths + (2 if config.predicts_sos else 1)

    def _check_tokens(self, labels: Tensor, valid: Tensor) -> None:
        if not values_are_known(labels):
            return
        special = torch.tensor([self.config.pad_token, *self._ends])
        found = labels[valid & torch.isin(labels, special)]
        if len(found):
            raise ValueError(
                f"targets: expected tokens without pad, start and end {special.tolist()} within target_lengths, "
                f"received {int(found[0])}"
            )
