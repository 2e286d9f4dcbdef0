"""Batches: shuffled or balanced; independent of interruptions and of the number of processes."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers import unbalanced_dataset

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.features.log_mel_sources import padded_width
from speaker_invariant_ser.recipe import TrainSection
from speaker_invariant_ser.training.batching import BatchLoader, epoch_batches
from speaker_invariant_ser.training.timing import PhaseTimer

LABELS = ("falling", "level", "rising")


def test_batches_contain_every_utterance_once_and_similar_lengths():
    dataset = unbalanced_dataset()
    batches = epoch_batches(dataset, TrainSection(batch_size=5), 0, 1)
    assert sorted(np.concatenate(batches)) == list(range(len(dataset)))
    assert all(5 <= len(batch) < 10 for batch in batches)
    assert np.mean([np.ptp(dataset.frames[batch]) for batch in batches]) < np.ptp(dataset.frames) / 4


def same_batches(first, second):
    return all(np.array_equal(batch, other) for batch, other in zip(first, second, strict=True))


def test_an_epoch_is_reproducible_and_differs_from_others():
    dataset, settings = unbalanced_dataset(), TrainSection(batch_size=8)
    first, again, second, other_seed = (
        epoch_batches(dataset, settings, seed, epoch) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    assert same_batches(first, again)
    assert not same_batches(first, second)
    assert not same_batches(first, other_seed)


def test_balanced_epochs_contain_every_speaker_and_emotion_equally_often():
    dataset = unbalanced_dataset()
    batches = epoch_batches(dataset, TrainSection(batch_size=10, batches="balanced"), 0, 1)
    drawn = np.concatenate(batches)
    cells = Counter(zip(dataset.speaker[drawn], dataset.emotion[drawn], strict=True))
    assert (
        len(cells) == len(set(zip(dataset.speaker, dataset.emotion, strict=True))) >= 18
        and max(cells.values()) - min(cells.values()) <= 1
    )
    within = Counter(drawn[(dataset.speaker[drawn] == 4)])
    cell = {utterance: cells[dataset.speaker[utterance], dataset.emotion[utterance]] for utterance in within}
    members = Counter(zip(dataset.speaker, dataset.emotion, strict=True))
    for utterance, times in within.items():  # repeated as evenly as it can be
        assert abs(times - cell[utterance] / members[dataset.speaker[utterance], dataset.emotion[utterance]]) < 1


def test_balanced_batches_mix_emotions_and_have_similar_lengths():
    dataset = unbalanced_dataset()
    batches = epoch_batches(dataset, TrainSection(batch_size=10, batches="balanced"), 0, 1)
    shuffled = epoch_batches(dataset, TrainSection(batch_size=10), 0, 1)
    largest_share = [
        np.mean([max(Counter(dataset.emotion[batch]).values()) / len(batch) for batch in kind]) for kind in (batches, shuffled)
    ]
    assert largest_share[0] < 0.45 < 0.6 < largest_share[1]
    assert np.mean([np.ptp(dataset.frames[batch]) for batch in batches]) < np.ptp(dataset.frames) / 3


def test_short_epochs_draw_different_utterances():
    dataset, settings = unbalanced_dataset(), TrainSection(batch_size=8, epoch_clips=40)
    epochs = [np.concatenate(epoch_batches(dataset, settings, 0, number)) for number in range(1, 40)]
    assert all(len(epoch) == len(set(epoch)) == 40 for epoch in epochs)
    assert len(set(np.concatenate(epochs))) > 0.98 * len(dataset)


MIXED = {"concatenate": 0.3, "mixup_same_emotion": 0.2, "mixup_any_emotion": 0.3, "level_db": 6.0, "telephone": 0.4}


def make_loader(prepared, rank=0, world=1, **augment):
    recipe = make_recipe({**TINY, "augment": augment, "train": {"batch_size": 8}})
    logmel = LogMel(recipe.features, SAMPLE_RATE)
    telephone = "telephone" in augment
    dataset = open_dataset(prepared, range(40), LABELS, ("speaker",), logmel, 1.0, with_telephone=telephone)
    return BatchLoader(dataset, recipe, 3, (4,), 0, torch.device("cpu"), rank, world)


def test_processes_get_the_rows_of_the_same_batch(prepared):
    whole = make_loader(prepared, **MIXED)
    halves = [make_loader(prepared, rank, 2, **MIXED) for rank in (0, 1)]
    for (mels, frames, labels), *parts in zip(*(loader.epoch(1, 0, PhaseTimer()) for loader in (whole, *halves)), strict=True):
        assert mels.shape[2] == padded_width(mels.shape[2])
        for rank, (part, count, same) in enumerate(parts):
            assert torch.equal(labels.emotion, same.emotion) and torch.equal(labels.targets[0], same.targets[0])
            assert torch.equal(count, frames[rank::2])
            for actual, expected, length in zip(part, mels[rank::2], count.tolist(), strict=True):
                assert torch.allclose(actual[:, :length], expected[:, :length], atol=1e-5)


def test_an_epoch_resumes_at_the_next_batch(prepared):
    loader = make_loader(prepared, **MIXED)
    rest = list(loader.epoch(3, 2, PhaseTimer()))
    for (mels, _, labels), (same, _, others) in zip(list(loader.epoch(3, 0, PhaseTimer()))[2:], rest, strict=True):
        assert torch.equal(mels, same) and torch.equal(labels.emotion, others.emotion)


def test_labels_are_mixed_as_the_utterances_are(prepared):
    plain, paired = make_loader(prepared), make_loader(prepared, **MIXED)
    for _, _, labels in plain.epoch(1, 0, PhaseTimer()):
        assert set(labels.emotion.unique().tolist()) == set(labels.targets[0].unique().tolist()) == {0.0, 1.0}
    soft = [(labels.emotion, *labels.targets) for _, _, labels in paired.epoch(1, 0, PhaseTimer())]
    for emotion, target in soft:
        assert torch.allclose(emotion.sum(dim=1), torch.ones(len(emotion))) and torch.allclose(
            target.sum(dim=1), torch.ones(len(target))
        )
    mixed = [(labels.max(dim=1).values < 1).float().mean().item() for labels in map(torch.cat, zip(*soft, strict=True))]
    assert 0 < mixed[0] < mixed[1] < 1  # of emotions only mixup across; of speakers concatenation too


def test_a_share_of_utterances_and_of_partners_is_heard_by_telephone(prepared):
    """Nothing else that is drawn changes, so that a recipe without the telephone trains to the same bits as before."""
    mixed = {key: value for key, value in MIXED.items() if key != "telephone"}
    loaders = [make_loader(prepared, **mixed), make_loader(prepared, **MIXED), make_loader(prepared, **mixed, telephone=1.0)]
    plans = [[plan for epoch in range(1, 21) for plan in loader.plan_epoch(epoch)] for loader in loaders]
    for without, some, every in zip(*plans, strict=True):
        assert without.telephone is None and np.array_equal(without.draws, some.draws)
        assert np.array_equal(without.pairs.partner, some.pairs.partner)
        needed = loaders[0].needed(without)
        assert np.array_equal(loaders[0].positions(without), needed) and np.array_equal(loaders[2].positions(every), needed + 40)
        assert set(loaders[1].positions(some) - needed) <= {0, 40}
    shares = np.concatenate([loaders[1].positions(plan) >= 40 for plan in plans[1]])
    assert len(shares) > 1000 and shares.mean() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("batches", ["shuffled", "balanced"])
def test_class_shares_equal_the_frequencies_in_an_epoch(prepared, batches):
    dataset = unbalanced_dataset()
    recipe = make_recipe({"train": {"batches": batches, "batch_size": 19}})
    loader = BatchLoader(dataset, recipe, 4, (5,), 0, torch.device("cpu"))
    drawn = [np.concatenate(epoch_batches(dataset, recipe.train, 0, epoch)) for epoch in range(30)]
    frequencies = np.bincount(dataset.emotion[np.concatenate(drawn)], minlength=4) / sum(map(len, drawn))
    assert loader.class_shares().numpy() == pytest.approx(frequencies, abs=0.005)


def test_the_timer_assigns_every_moment_to_one_phase():
    timer = PhaseTimer()
    timer.end_phase("first")
    timer.end_phase("second")
    timer.end_phase("first")
    assert set(timer.seconds) == {"first", "second"} and all(seconds >= 0 for seconds in timer.seconds.values())
