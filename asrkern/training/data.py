"""The two corpora of a recipe as Lightning's data module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lhotse.cut import Cut
from lightning.pytorch import LightningDataModule

from asrkern.recognizer.tokenizer import Tokenizer, make_tokenizer
from asrkern.training.batches import EpochBatches, Loader, plan_epoch, plan_valid, share
from asrkern.training.corpus import Corpus, prepare, text_of, with_labels
from asrkern.training.manifests import read_cuts, unique
from asrkern.training.recipe import Recipe, how_to_make


class SpeechData(LightningDataModule):
    """Reads the manifests and makes the tokenizer; then, from the model's output lengths, the corpora.

    Attributes:
        tokenizer: the recipe's, made from the training transcripts if it asks for that.
        train, valid: :class:`~asrkern.training.corpus.Corpus`, after :meth:`check`.
        position: (epoch, how many of its batches have been taken), where training continues; kept in checkpoints.

    Raises:
        OSError, ValueError: a corpus cannot be read; see :func:`asrkern.training.manifests.read_cuts`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self._train_cuts, self._valid_cuts = (
            with_labels(self._read(paths), recipe) for paths in (recipe.data.train, recipe.data.valid)
        )
        texts = [text_of(cut) for cut in self._train_cuts]
        self.tokenizer: Tokenizer = make_tokenizer(recipe.tokenizer, recipe.task, texts, recipe.path)
        self.position = (0, 0)
        self.train: Corpus
        self.valid: Corpus

    def check(self, output_length: Callable[[int], int]) -> None:
        """Leave out utterances that the model cannot learn from.

        Raises:
            ValueError: see :func:`asrkern.training.corpus.prepare`.
        """
        self.train = prepare("train", self._train_cuts, self.recipe, self.tokenizer, output_length)
        self.valid = prepare("valid", self._valid_cuts, self.recipe, self.tokenizer, output_length)
        self._train_loader = Loader(self.recipe, self.tokenizer)
        self._valid_loader = Loader(self.recipe, self.tokenizer)

    def train_dataloader(self) -> EpochBatches:
        """The batches of the present epoch that have not been taken."""
        trainer: Any = self.trainer
        epoch = trainer.current_epoch
        plan = self.epoch_plan(epoch)
        self._train_loader.plan = share(plan, trainer.global_rank, trainer.world_size, again=True)
        start = self.position[1] if self.position[0] == epoch else 0
        return EpochBatches(self._train_loader, start, self.recipe.data.workers)

    def val_dataloader(self) -> EpochBatches:
        """All batches of valid."""
        trainer: Any = self.trainer
        plan = plan_valid(self.valid, self.recipe)
        self._valid_loader.plan = share(plan, trainer.global_rank, trainer.world_size, again=False)
        return EpochBatches(self._valid_loader, 0, self.recipe.data.workers)

    def epoch_plan(self, epoch: int) -> list[list[Cut]]:
        """The batches of an epoch, of all processes together."""
        plan = plan_epoch(self.train, self.recipe, epoch)
        if self.recipe.task == "classify":
            # BatchNorm over clips needs at least two.
            plan = [batch for batch in plan if len(batch) > 1]
        return plan

    def state_dict(self) -> dict[str, tuple[int, int]]:
        """Where training continues."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, tuple[int, int]]) -> None:
        """Continue there."""
        epoch, batches = state["position"]
        self.position = (epoch, batches)

    def _read(self, paths: list[str]) -> list[Cut]:
        cuts: list[Cut] = []
        for value in paths:
            path = self.recipe.path(value)
            if not path.exists() and (how := how_to_make(value)):
                raise FileNotFoundError(
                    f"{value}: expected a manifest, received {str(path)!r}, which does not exist{how}"
                )
            cuts += read_cuts(path)
        return list(unique(cuts))
