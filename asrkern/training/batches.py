"""Which utterances form which batch of which epoch, and loading them.

An epoch's plan follows from recipe, seed and epoch alone. So it is the same in every process, and after a restart,
which continues in the middle of an epoch. lhotse's dynamic bucketing makes the plan; rank r of n takes every n-th
batch.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lhotse import CutSet, MonoCut, MultiCut
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler
from lhotse.utils import fastcopy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asrkern.data import Utterance, collate, load_audio, load_features, resample
from asrkern.data.formats import is_readable
from asrkern.data.mel import cepstral_warp
from asrkern.recognizer.feature_settings import FeatureSettings
from asrkern.recognizer.tokenizer import Tokenizer
from asrkern.training.corpus import Corpus, text_of
from asrkern.training.cuts import brief
from asrkern.training.recipe import Recipe

# How much shorter than its manifest says a recording may be; lhotse's value.
_TOLERANCE_SECONDS = 0.025


@dataclass
class Batch:
    """A batch of utterances.

    Attributes:
        features: [N, 1, F, T] float32, zero beyond each length.
        lengths: [N] int64, frames.
        targets: [N, L] int64, indices of the tokenizer, zero beyond each length; [N, 1] for a classifier.
        target_lengths: [N] int64.
        texts: normalised transcripts, or classes.
        ids: names of the utterances.
        counted: False for a batch that only fills up a process's share of valid. It is in no measure.
    """

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    texts: list[str]
    ids: list[str]
    counted: bool = True

    def __len__(self) -> int:
        """How many utterances the batch has."""
        return len(self.ids)

    def rows(self, start: int, stop: int) -> Batch:
        """Utterances start … stop - 1, padded no more than they need."""
        part = slice(start, stop)
        frames = int(self.lengths[part].max())
        tokens = int(self.target_lengths[part].max())
        return Batch(
            self.features[part, ..., :frames],
            self.lengths[part],
            self.targets[part, :tokens],
            self.target_lengths[part],
            self.texts[part],
            self.ids[part],
            self.counted,
        )


def plan_epoch(corpus: Corpus, recipe: Recipe, epoch: int) -> list[list[Cut]]:
    """The batches of an epoch of training, in order."""
    data, seed = recipe.data, f"{recipe.seed}:{epoch}"
    cuts = corpus.cuts
    if (speeds := recipe.augment.speeds) != (1.0,):
        cepstra = recipe.augment.cepstra
        cuts = [_faster(cut, random.Random(f"{seed}:{cut.id}").choice(speeds), cepstra) for cut in cuts]
    if epoch < data.sorted_epochs:
        return _split(sorted(cuts, key=lambda cut: cut.duration), recipe)
    cuts = random.Random(seed).sample(cuts, len(cuts))
    # Each bucket leaves one batch that is not full.
    buckets = min(data.buckets, len({cut.duration for cut in cuts}), len(cuts) // (2 * data.batch_utterances))
    if buckets < 2:
        return _split(cuts, recipe)
    with warnings.catch_warnings():
        # Reading lazily would save no memory here: the corpus is in memory.
        warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler with an eagerly read CutSet")
        sampler = DynamicBucketingSampler(
            CutSet.from_cuts(cuts),
            **_budget(recipe),
            num_buckets=buckets,
            shuffle=True,
            seed=recipe.seed,
            world_size=1,
            rank=0,
        )
    sampler.set_epoch(epoch)
    # lhotse 1.33 takes from its buckets in the same order in each epoch and with each seed, or, told not to
    # (sync_buckets=False), leaves out utterances.
    batches = [list(batch) for batch in sampler]
    return random.Random(seed).sample(batches, len(batches))


def plan_valid(corpus: Corpus, recipe: Recipe) -> list[list[Cut]]:
    """The batches of a corpus that is measured, the longest first: one that does not fit into memory fails at once."""
    return _split(sorted(corpus.cuts, key=lambda cut: cut.duration, reverse=True), recipe)


def _split(cuts: Sequence[Cut], recipe: Recipe) -> list[list[Cut]]:
    sampler = SimpleCutSampler(CutSet.from_cuts(cuts), **_budget(recipe), shuffle=False, world_size=1, rank=0)
    return [list(batch) for batch in sampler]


def _budget(recipe: Recipe) -> dict[str, float]:
    seconds = recipe.data.batch_frames * recipe.features.hop_seconds
    return {"max_duration": seconds, "max_cuts": recipe.data.batch_utterances}


def _faster(cut: Cut, speed: float, cepstra: bool) -> Cut:
    if speed == 1:
        return cut
    if cut.has_recording:
        return cut.perturb_speed(speed)
    custom = {**(cut.custom or {}), "features_speed": speed, "features_are_cepstra": cepstra}
    return fastcopy(cut, id=f"{cut.id}_sp{speed}", duration=cut.duration / speed, custom=custom)


class Loader(Dataset):
    """Loads planned batches.

    Args:
        recipe: says which features, and how much memory keeps them.
        tokenizer: makes the targets.
    """

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer) -> None:
        self.plan: list[tuple[list[Cut], bool]] = []
        self._settings = recipe.features
        self._tokenizer = tokenizer
        self._extract = recipe.features.make()
        self._cache: dict[str, Tensor] = {}
        self._room = recipe.data.cache_mib * 2**20

    def __len__(self) -> int:
        """How many batches the plan has."""
        return len(self.plan)

    def __getitem__(self, index: int) -> Batch:
        """One batch.

        Raises:
            ValueError: an utterance cannot be read. The message names it.
        """
        cuts, counted = self.plan[index]
        features, lengths = collate([self._features(cut) for cut in cuts])
        targets = [torch.tensor(self._tokenizer.encode(text_of(cut)), dtype=torch.int64) for cut in cuts]
        padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
        target_lengths = torch.tensor([len(target) for target in targets])
        return Batch(
            features,
            lengths,
            padded,
            target_lengths,
            list(map(text_of, cuts)),
            [cut.id for cut in cuts],
            counted,
        )

    def _features(self, cut: Cut) -> Tensor:
        if (found := self._cache.get(cut.id)) is not None:
            return found
        features = load_cut(cut, self._settings, self._extract)
        size = features.numel() * features.element_size()
        if size <= self._room:
            self._room -= size
            self._cache[cut.id] = features
        return features


def load_cut(cut: Cut, settings: FeatureSettings, extract: Callable[[Tensor], Tensor]) -> Tensor:
    """Features of one utterance: [n_features, frames] float32.

    Raises:
        ValueError: it cannot be read. The message names it.
    """
    with _named(cut):
        if settings.kind == "stored":
            custom = cut.custom or {}
            if "features_path" not in custom:
                raise ValueError("features.kind: the manifest has no features_filepath for it, expected one")
            stored = Utterance(
                None, cut.duration, features_path=custom["features_path"], features_key=custom["features_key"]
            )
            return extract(_at_speed(load_features(stored), custom, settings.sample_rate))
        return extract(_read(cut, settings.sample_rate))


def _at_speed(features: Tensor, custom: dict[str, Any], sample_rate: int) -> Tensor:
    """Stored features [bins, frames] of the same speech, as fast as the cut says: between frames is interpolated."""
    if (speed := custom.get("features_speed", 1.0)) == 1:
        return features
    if custom["features_are_cepstra"]:
        features = cepstral_warp(features.shape[0], speed, sample_rate) @ features
    frames = max(1, round(features.shape[1] / speed))
    return torch.nn.functional.interpolate(features[None], frames, mode="linear", align_corners=True)[0]


def load_samples(cut: Cut, sample_rate: int) -> Tensor:
    """Audio of one utterance: [samples] float32, the mean of its channels.

    Raises:
        ValueError: it cannot be read. The message names it.
    """
    with _named(cut):
        return _read(cut, sample_rate)


@contextmanager
def _named(cut: Cut) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # lhotse's readers have exceptions of their own
        raise ValueError(f"{cut.id}: {_source(cut)}{brief(error)}") from error


def _read(cut: Cut, sample_rate: int) -> Tensor:
    if not cut.has_recording:
        raise ValueError(
            "expected a recording, received none (stored features need features.kind = 'stored')"
        )
    if (path := _whole_file(cut)) is None:
        samples = torch.from_numpy(cut.load_audio()).mean(0)
        return resample(samples, cut.sampling_rate, sample_rate)
    return load_audio(
        path,
        sample_rate,
        offset_seconds=cut.start,
        duration_seconds=cut.duration,
        tolerance_seconds=_TOLERANCE_SECONDS,
    )


def _whole_file(cut: Cut) -> str | None:
    """The file, if the cut is part of one file with all channels and without changes. None if lhotse has to read it.

    For formats that libsndfile does not read lhotse may find ffmpeg.
    """
    if not isinstance(cut, (MonoCut, MultiCut)) or cut.recording.transforms:
        return None
    sources, channels = cut.recording.sources, {cut.channel} if isinstance(cut, MonoCut) else set(cut.channel)
    if len(sources) != 1 or sources[0].type != "file" or set(sources[0].channels) != channels:
        return None
    return sources[0].source if is_readable(sources[0].source) else None


def _source(cut: Cut) -> str:
    return f"{cut.recording.sources[0].source!r}: " if cut.has_recording else ""


class EpochBatches:
    """The batches of one epoch, from some batch on. Its length is that of the whole epoch, which Lightning counts.

    Args:
        loader: its ``plan`` is the epoch's.
        start: how many batches have been taken before.
        workers: how many processes load.
    """

    def __init__(self, loader: Loader, start: int, workers: int) -> None:
        self._loader, self._start, self._workers = loader, start, workers

    def __len__(self) -> int:
        """How many batches the whole epoch has."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        # A generator of its own: otherwise it would draw from the one that training uses.
        yield from DataLoader(
            self._loader,
            batch_size=None,
            sampler=range(self._start, len(self._loader)),
            num_workers=self._workers,
            generator=torch.Generator(),
        )


def share(plan: list[list[Cut]], rank: int, world_size: int, *, again: bool) -> list[tuple[list[Cut], bool]]:
    """One process's batches, and whether each counts. Every process gets the same number.

    Args:
        again: whether batches that fill up the last round count, too (in training).
    """
    rounds = -(-len(plan) // world_size)
    taken = range(rank, rounds * world_size, world_size)
    return [(plan[i % len(plan)], again or i < len(plan)) for i in taken]
