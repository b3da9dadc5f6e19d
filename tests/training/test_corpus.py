"""What is left out of a corpus and why; batches and their order."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrkern.data import collate
from asrkern.data.mel import cepstral_warp
from asrkern.recognizer.tasks import frames_needed as frames_needed_of_batch
from asrkern.recognizer.tokenizer import TokenizerSettings, make_tokenizer
from asrkern.training.batches import Loader, load_cut, plan_epoch, plan_valid, share
from asrkern.training.corpus import Corpus, frames_needed, prepare, with_labels
from asrkern.training.data import SpeechData
from asrkern.training.manifests import read_cuts
from asrkern.training.recipe import Recipe, make_recipe
from tests.training.tones import tiny_recipe, write_tones

ENGLISH = make_tokenizer(TokenizerSettings(), "ctc", [])


def corpus(
    path: Path, name: str = "train", tokenizer: Any = ENGLISH, **changes: Any
) -> tuple[Corpus, Recipe]:
    recipe = make_recipe(tiny_recipe(path, path, **changes))
    cuts = with_labels(read_cuts(path), recipe)
    return prepare(name, cuts, recipe, tokenizer, lambda frames: -(-frames // 2)), recipe


def edited(path: Path, folder: Path, **texts: str) -> Path:
    """A manifest with other transcripts for some utterances."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["text"] = texts.get(Path(line["audio_filepath"]).stem, line["text"])
        line["audio_filepath"] = str(path.parent / line["audio_filepath"])
    (folder / "edited.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder / "edited.jsonl"


def test_frames_that_a_target_needs() -> None:
    """A blank between equal neighbours, within the length only."""
    for tokens, needed in (([], 0), ([3], 1), ([3, 3], 3), ([3, 4, 4, 4, 3], 7)):
        assert frames_needed(tokens) == needed
    targets = torch.tensor([[3, 3, 3, 3], [3, 4, 4, 0]])
    assert frames_needed_of_batch(targets, torch.tensor([2, 3])).tolist() == [3, 4]


def test_targets_that_are_too_long_are_counted_named_and_left_out(
    tones: tuple[Path, Path], tmp_path: Path
) -> None:
    path = edited(tones[0], tmp_path, u3="a" * 300, u7="ab" * 300, u9="")
    found, _ = corpus(path)
    assert found.infeasible == ["u3", "u7"]
    assert found.left_out == {"target too long for the output": ["u3", "u7"]}
    assert len(found.cuts) == 21
    assert "left out, target too long for the output: 2 (u3, u7)" in found.describe()
    # What is measured stays whole.
    valid, _ = corpus(path, "valid")
    assert len(valid.cuts) == 23
    assert "do not fit into the output: 2 (u3, u7)" in valid.describe()


def test_output_frames_per_character_are_told(tones: tuple[Path, Path]) -> None:
    found, recipe = corpus(tones[0])
    frames = sum(-(-recipe.features.frames(cut.duration) // 2) for cut in found.cuts)
    characters = sum(map(len, found.texts))
    assert f"{frames / characters:.1f} output frames per character" in found.describe()


def test_characters_outside_of_the_vocabulary(tones: tuple[Path, Path], tmp_path: Path) -> None:
    path = edited(tones[0], tmp_path, u2="naïve ☃", u5="☃")
    with pytest.raises(
        ValueError, match=r"'☃' \(U\+2603 SNOWMAN, 2 transcripts, e\.g\. u2\), 'Ï'.*text\.replace"
    ):
        corpus(path)
    found, _ = corpus(path, data__leave_out_unknown=True)
    assert found.left_out == {"unknown characters": ["u2", "u5"]}


def test_utterances_of_other_lengths_are_left_out(tones: tuple[Path, Path]) -> None:
    found, _ = corpus(tones[0], data__max_seconds=0.4, data__min_seconds=0.2)
    assert all(0.2 <= cut.duration <= 0.4 for cut in found.cuts)
    assert set(found.left_out) == {
        "longer than 0.4 s (data.max_seconds)",
        "shorter than 0.2 s (data.min_seconds)",
    }
    with pytest.raises(ValueError, match=r"data\.train: no utterance is left"):
        corpus(tones[0], data__max_seconds=0.001)


def test_classes_that_are_unknown_or_missing(tmp_path: Path) -> None:
    path = write_tones(tmp_path / "a", 4, label="cat")
    values = tiny_recipe(path, path, model__name="conv_rnn")
    recipe = make_recipe({**values, "task": "classify", "metric": "accuracy", "features": {}})
    cuts = with_labels(read_cuts(path), recipe)
    tokenizer = make_tokenizer(TokenizerSettings(), "classify", ["bed", "dog"])
    with pytest.raises(
        ValueError, match=r"expected the classes \['bed', 'dog'\].*'cat' \(4 clips, e\.g\. u0\)"
    ):
        prepare("valid", cuts, recipe, tokenizer, lambda frames: frames)
    bare = write_tones(tmp_path / "b", 2)
    with pytest.raises(ValueError, match="expected the field 'label' of u0"):
        with_labels(read_cuts(bare), recipe)


def ids(plan: list[list[Any]]) -> list[list[str]]:
    return [[cut.id for cut in batch] for batch in plan]


def test_an_epoch_has_every_utterance_once_in_an_order_of_its_own(tones: tuple[Path, Path]) -> None:
    found, recipe = corpus(tones[0])
    everyone = sorted(cut.id for cut in found.cuts)
    for epoch in range(4):
        plan = plan_epoch(found, recipe, epoch)
        assert sorted(chain(*ids(plan))) == everyone
        assert max(map(len, plan)) <= 5
        assert ids(plan) == ids(plan_epoch(found, recipe, epoch))
    assert len({str(ids(plan_epoch(found, recipe, epoch))) for epoch in range(4)}) == 4
    durations = [cut.duration for batch in plan_epoch(found, recipe, 0) for cut in batch]
    assert durations == sorted(durations)
    durations = [cut.duration for batch in plan_epoch(found, recipe, 1) for cut in batch]
    assert durations != sorted(durations)


def test_batches_keep_to_their_budget_of_frames(tones: tuple[Path, Path]) -> None:
    found, recipe = corpus(tones[0], data__batch_frames=150, data__batch_utterances=100)
    for plan in (*(plan_epoch(found, recipe, epoch) for epoch in range(3)), plan_valid(found, recipe)):
        assert len(plan) > 3
        for batch in plan:
            assert len(batch) * max(cut.duration for cut in batch) <= 1.5 or len(batch) == 1


def test_buckets_keep_lengths_together(tmp_path: Path) -> None:
    path = write_tones(tmp_path, 80, words=6)
    found, recipe = corpus(path, data__sorted_epochs=0, data__batch_utterances=4)

    def padded(plan: list[list[Any]]) -> float:
        return sum(len(batch) * max(cut.duration for cut in batch) for batch in plan)

    mixed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"buckets": 1})})
    assert padded(plan_epoch(found, recipe, 1)) < 0.85 * padded(plan_epoch(found, mixed, 1))


def test_lengths_of_batches_come_in_an_order_of_the_epoch_and_the_seed(tmp_path: Path) -> None:
    path = write_tones(tmp_path, 80, words=6)
    orders = []
    for seed in range(3):
        found, recipe = corpus(path, seed=seed, data__sorted_epochs=0, data__batch_utterances=4)
        for epoch in range(3):
            plan = plan_epoch(found, recipe, epoch)
            orders.append([max(cut.duration for cut in batch) for batch in plan])
    shortest = min(map(len, orders))
    alike = np.corrcoef([order[:shortest] for order in orders])
    assert (alike.sum() - len(orders)) / (len(orders) * (len(orders) - 1)) < 0.3


def test_speeds_change_lengths_and_are_drawn_anew_each_epoch(tones: tuple[Path, Path]) -> None:
    found, recipe = corpus(tones[0], augment__speeds=[0.8, 1.25], data__sorted_epochs=0)
    usual = {cut.id: cut.duration for cut in found.cuts}
    drawn = []
    for epoch in range(2):
        cuts = list(chain(*plan_epoch(found, recipe, epoch)))
        factors = {cut.id.split("_sp")[0]: usual[cut.id.split("_sp")[0]] / cut.duration for cut in cuts}
        assert {round(factor, 2) for factor in factors.values()} == {0.8, 1.25}
        drawn.append({name: round(factor, 2) for name, factor in factors.items()})
    assert drawn[0] != drawn[1]
    # The pitch follows: a tone of 400 Hz at 1.25 is one of 500 Hz.
    cut = next(c for c in found.cuts if c.supervisions[0].text.startswith("A")).perturb_speed(1.25)
    spectrum = abs(torch.fft.rfft(torch.from_numpy(cut.load_audio())[0, :600], 8000))
    assert abs(int(spectrum.argmax()) - 500) < 15


def test_stored_features_are_stretched_in_time(tmp_path: Path) -> None:
    ramp = np.arange(41, dtype=np.float32)
    np.savez(tmp_path / "train.npz", u=np.stack([ramp, -3 * ramp], 1))
    line = {"features_filepath": "train.npz#u", "duration": 0.41, "text": "A"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    found, recipe = corpus(
        tmp_path / "train.jsonl",
        augment__speeds=[0.8, 1.25],
        features__kind="stored",
        features__bins=2,
        features__cmvn=False,
    )
    loaded = {}
    for epoch in range(8):
        ((cut,),) = plan_epoch(found, recipe, epoch)
        loaded[cut.id] = load_cut(cut, recipe.features, recipe.features.make()), cut.duration
    assert set(loaded) == {"u_sp0.8", "u_sp1.25"}
    for name, frames in (("u_sp0.8", 51), ("u_sp1.25", 33)):
        features, seconds = loaded[name]
        assert seconds == pytest.approx(0.41 / float(name[4:]))
        # The same ramp, in more or fewer frames.
        expected = torch.linspace(0, 40, frames)
        expected = torch.stack([expected, -3 * expected])
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-4)
        # Of cepstra the spectrum moves, too.
        augment = recipe.augment.model_copy(update={"cepstra": True, "speeds": (float(name[4:]),)})
        ((cut,),) = plan_epoch(found, recipe.model_copy(update={"augment": augment}), 0)
        warped = load_cut(cut, recipe.features, recipe.features.make())
        torch.testing.assert_close(
            warped,
            cepstral_warp(2, float(name[4:]), recipe.features.sample_rate) @ expected,
            rtol=1e-5,
            atol=1e-4,
        )


def test_a_batch_is_its_utterances(tones: tuple[Path, Path]) -> None:
    found, recipe = corpus(tones[0], data__cache_mib=1)
    loader = Loader(recipe, ENGLISH)
    plan = plan_epoch(found, recipe, 1)
    loader.plan = share(plan, 0, 1, again=True)
    extract = recipe.features.make()
    for _ in range(2):  # computed, and remembered
        batch = loader[0]
        features, lengths = collate([load_cut(cut, recipe.features, extract) for cut in plan[0]])
        assert torch.equal(batch.features, features)
        assert torch.equal(batch.lengths, lengths)
        assert [
            ENGLISH.decode(row[:n].tolist()) for row, n in zip(batch.targets, batch.target_lengths)
        ] == batch.texts
    part = batch.rows(1, 3)
    assert len(part) == 2
    assert part.features.shape[-1] == max(part.lengths)
    assert torch.equal(part.features[0, 0, :, : part.lengths[0]], features[1, 0, :, : lengths[1]])


def test_utterances_of_one_name_in_two_manifests(tmp_path: Path) -> None:
    """Features that are kept in memory are each one's own."""
    paths = [write_tones(tmp_path / name, 3, seed) for seed, name in enumerate("ab")]
    recipe = make_recipe(
        tiny_recipe(paths[0], paths[0], data__cache_mib=1, data__train=list(map(str, paths)))
    )
    data = SpeechData(recipe)
    data.check(lambda frames: -(-frames // 2))
    assert len({cut.id for cut in data.train.cuts}) == 6
    loader = Loader(recipe, data.tokenizer)
    loader.plan = [([cut], True) for cut in data.train.cuts]
    extract = recipe.features.make()
    for index, cut in enumerate(data.train.cuts):
        assert torch.equal(loader[index].features[0, 0], load_cut(cut, recipe.features, extract))


def test_processes_share_an_epoch_evenly() -> None:
    plan = [[name] for name in "abcde"]
    shares = [share(plan, rank, 2, again=False) for rank in (0, 1)]
    assert shares == [
        [(["a"], True), (["c"], True), (["e"], True)],
        [(["b"], True), (["d"], True), (["a"], False)],
    ]
    assert all(counted for _, counted in share(plan, 1, 2, again=True))
