"""Virtual speakers: deterministic copies of training speakers, further classes of a speaker adversary, off by default."""

import numpy as np
import pytest
import torch
from conftest import TINY

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.augmentation import warp_frequency
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.features.mel_scale import band_to_hertz, hertz_to_band
from speaker_invariant_ser.features.virtual_speakers import WARP_RANGE, VirtualSpeakers
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.training import adversary_step
from speaker_invariant_ser.training.batching import BatchLoader
from speaker_invariant_ser.training.checks import target_values
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.timing import PhaseTimer

LABELS = ("falling", "level", "rising")
OFF = dict.fromkeys(("warp", "tempo", "equaliser_db", "time_masks", "frequency_masks"), 0)
CPU = torch.device("cpu")


def make_virtual_speakers(speakers=3, copies=2, seed=0):
    return VirtualSpeakers(speakers, copies, seed, FeaturesSection(), CPU)


def test_a_virtual_speaker_is_deterministic_and_differs_by_speaker_copy_and_seed():
    mels = torch.randn(1, 64, 30).repeat(6, 1, 1)
    speaker, copy = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 1, 1, 2, 2, 2])
    altered = make_virtual_speakers()(mels, speaker, copy)
    assert torch.equal(altered, make_virtual_speakers()(mels, speaker, copy))
    assert torch.allclose(altered[4:5], make_virtual_speakers()(mels[:1], speaker[4:5], copy[4:5]), atol=1e-5), (
        "independent of the rest of the batch"
    )
    copies = [*altered, *make_virtual_speakers(seed=1)(mels, speaker, copy)]
    assert min((copy - other).abs().mean() for index, copy in enumerate(copies) for other in copies[:index]) > 0.1


def test_copy_0_is_the_clip_itself():
    mels = torch.randn(4, 64, 30)
    altered = make_virtual_speakers()(mels, torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 2]))
    assert torch.equal(altered[[0, 2]], mels[[0, 2]]) and not torch.allclose(altered[[1, 3]], mels[[1, 3]], atol=0.1)


def test_a_virtual_speaker_shifts_formants_and_has_the_same_curve_in_every_frame():
    """A spectral peak moves by a warp within WARP_RANGE, in either direction."""
    features, mels = FeaturesSection(), torch.zeros(40, 64, 5)
    mels[:, 30] = 40.0
    altered = VirtualSpeakers(40, 1, 0, features, CPU)(mels, torch.arange(40), torch.ones(40, dtype=torch.int64))
    peak, hertz = altered[:, :, 0].argmax(dim=1), band_to_hertz(torch.tensor(30), features)
    peaks = {direction: peak[(peak > 30) == direction] for direction in (True, False)}
    for up, bands in peaks.items():
        ends = [
            hertz_to_band(warp_frequency(hertz, torch.tensor(1 + (-1 if up else 1) * shift), features.f_max), features)
            for shift in WARP_RANGE
        ]
        reach = sorted(abs(end.item() - 30) for end in ends)
        assert len(bands) > 5 and all(reach[0] - 1 <= abs(band - 30) <= reach[1] + 1 for band in bands.tolist())
    assert torch.allclose(altered, altered[:, :, :1].expand_as(altered), atol=1e-5)


def make_loader(prepared, virtual, columns=("speaker",), transductive=False, rank=0, world=1, **augment):
    recipe = make_recipe({**TINY, "augment": {**OFF, "virtual_speakers": virtual, **augment}, "train": {"batch_size": 8}})
    clips = open_dataset(
        prepared, range(40), LABELS, columns, LogMel(recipe.features, SAMPLE_RATE), 1.0, subtract_speaker_means=transductive
    )
    sizes = [clips.targets[at].max() + 1 for at in range(len(columns))]
    sizes[0] *= 1 + virtual
    return BatchLoader(clips, recipe, 3, sizes, 0, CPU, rank, world)


def test_every_row_is_altered_as_its_target_says(prepared):
    """The log-mel is that of the target's virtual speaker, copies are equally frequent, and the emotion is the utterance's."""
    loader, all_targets = make_loader(prepared, 2), []
    for step, (mels, frames, labels) in zip(loader.plan_epoch(1), loader.epoch(1, 0, PhaseTimer()), strict=True):
        target = labels.targets[0].argmax(dim=1)
        assert labels.targets[0].shape[1] == 12 and torch.equal(labels.targets[0].sum(dim=1), torch.ones(len(target)))
        ((plain, count),) = loader.dataset.source.read([step.chosen])
        speaker = torch.from_numpy(loader.dataset.speaker[step.chosen])
        assert torch.equal(target % 4, speaker)
        expected = loader.virtual_speakers(plain, speaker, target // 4)
        for row, length in enumerate(count.tolist()):
            assert frames[row] == length and torch.allclose(mels[row, :, :length], expected[row, :, :length], atol=1e-5)
        assert torch.equal(labels.emotion.argmax(dim=1), torch.from_numpy(loader.dataset.emotion[step.chosen]))
        all_targets += target.tolist()
    drawn = [int(virtual) for epoch in range(1, 30) for step in loader.plan_epoch(epoch) for virtual in step.virtual[:, 0]]
    assert len(set(all_targets)) > 8 and np.allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.05)


def test_partners_are_altered_independently(prepared):
    loader = make_loader(prepared, 1, concatenate=1.0)
    for step, (mels, _, labels) in zip(loader.plan_epoch(1), loader.epoch(1, 0, PhaseTimer()), strict=True):
        ((own, count),), ((others, _),) = (loader.dataset.source.read([which]) for which in (step.chosen, step.pairs.partner))
        first, second = (torch.from_numpy(virtual.copy()) for virtual in step.virtual.T)
        speaker, other = (torch.from_numpy(loader.dataset.speaker[which]) for which in (step.chosen, step.pairs.partner))
        altered, partner = loader.virtual_speakers(own, speaker, first), loader.virtual_speakers(others, other, second)
        for row, length in enumerate(count.tolist()):
            assert torch.allclose(mels[row, :, :length], altered[row, :, :length], atol=1e-5)
            assert torch.allclose(mels[row, :, length : length + 10], partner[row, :, :10], atol=1e-5)
            shares = labels.targets[0][row]
            assert set(shares.nonzero()[:, 0].tolist()) == {(speaker + 4 * first)[row].item(), (other + 4 * second)[row].item()}
            assert shares.sum().item() == pytest.approx(1) and labels.emotion[row].max() == 1


def test_processes_sharing_a_batch_agree_with_a_single_process(prepared):
    settings = {"transductive": True, "concatenate": 0.3, "mixup_same_emotion": 0.3}
    whole, *halves = (make_loader(prepared, 2, rank=rank, world=world, **settings) for rank, world in ((0, 1), (0, 2), (1, 2)))
    for (mels, frames, labels), *parts in zip(*(loader.epoch(1, 0, PhaseTimer()) for loader in (whole, *halves)), strict=True):
        for rank, (part, count, same) in enumerate(parts):
            assert torch.equal(labels.targets[0], same.targets[0]) and torch.equal(count, frames[rank::2])
            for actual, expected, length in zip(part, mels[rank::2], count.tolist(), strict=True):
                assert torch.allclose(actual[:, :length], expected[:, :length], atol=1e-5)


def test_the_speaker_mean_of_a_virtual_speaker_is_altered_too(prepared):
    """Warp and curve of a virtual speaker are in the mean over its utterances."""
    loader = make_loader(prepared, 2, transductive=True)
    every, copy = np.arange(len(loader.dataset)), torch.ones(len(loader.dataset), dtype=torch.int64)
    ((mels, frames),) = loader.dataset.source.read([every])
    speaker = torch.from_numpy(loader.dataset.speaker)
    altered, mean = (
        loader.virtual_speakers(mels, speaker, copy),
        loader.virtual_speakers(loader.dataset.speaker_mean(every), speaker, copy),
    )
    own = [altered[row, :, : frames[row]] for row in every if speaker[row] == 0]
    whole = open_dataset(prepared, range(12), LABELS, (), LogMel(make_recipe(TINY).features, SAMPLE_RATE), 1.0)
    assert len(own) == len(whole) == 12, "all utterances of speaker 01"
    assert torch.allclose(torch.cat(own, dim=1).mean(dim=1), mean[0, :, 0], atol=1e-3)
    for step, (mels, count, labels) in zip(loader.plan_epoch(1), loader.epoch(1, 0, PhaseTimer()), strict=True):
        row, virtual = 0, labels.targets[0].argmax(dim=1)[0] // 4
        ((plain, _),) = loader.dataset.source.read([step.chosen])
        speaker = torch.from_numpy(loader.dataset.speaker[step.chosen[:1]])
        speaker_mean = loader.virtual_speakers(loader.dataset.speaker_mean(step.chosen[:1]), speaker, virtual[None])
        expected = loader.virtual_speakers(plain[:1], speaker, virtual[None]) - speaker_mean
        assert torch.allclose(mels[row, :, : count[row]], expected[0, :, : count[row]], atol=1e-4)


def test_only_speaker_adversaries_have_virtual_speakers(prepared):
    recipe = make_recipe(
        {**TINY, "augment": {"virtual_speakers": 2}, "adversary": {"target": "sex"}, "extra_adversaries": [{"target": "speaker"}]}
    )
    clips = open_dataset(prepared, range(40), LABELS, ("sex", "speaker"), LogMel(recipe.features, SAMPLE_RATE), 1.0)
    loader = BatchLoader(clips, recipe, 3, (2, 12), 0, CPU)
    (split,) = make_splits(recipe.split, prepared.utterances)
    assert target_values(prepared, split, "sex", 2) == ["female", "male"]
    assert target_values(prepared, split, "speaker", 1) == [
        "01",
        "02",
        "04",
        "01, virtual speaker 1",
        "02, virtual speaker 1",
        "04, virtual speaker 1",
    ]
    for step in loader.plan_epoch(1):
        labels = loader.labels_of(step)
        assert torch.equal(labels.targets[0].argmax(dim=1), torch.from_numpy(clips.targets[0][step.chosen]))
        voice = torch.from_numpy(step.virtual[:, 0].copy())
        assert torch.equal(labels.targets[1].argmax(dim=1), torch.from_numpy(clips.speaker[step.chosen]) + 4 * voice)


def test_virtual_speakers_do_not_change_what_else_is_drawn(prepared):
    off, on = make_loader(prepared, 0, mixup_any_emotion=0.5), make_loader(prepared, 3, mixup_any_emotion=0.5)
    assert off.virtual_speakers is None and len(on.plan_epoch(1)) > 1
    for before, after in zip(off.plan_epoch(1), on.plan_epoch(1), strict=True):
        assert before.virtual is None and after.virtual.shape == (len(before.chosen), 2)
        assert np.array_equal(before.chosen, after.chosen) and np.array_equal(before.draws, after.draws)
        assert np.array_equal(before.pairs.partner, after.pairs.partner) and np.array_equal(
            before.pairs.weight, after.pairs.weight
        )


def test_a_speaker_adversary_has_a_class_for_each_virtual_speaker(prepared, tmp_path, monkeypatch):
    heads, grl = [], adversary_step.ADVERSARIES["grl"]
    monkeypatch.setitem(adversary_step.ADVERSARIES, "grl", lambda *given: heads.append(given[1]) or grl(*given))
    recipe = make_recipe({**TINY, "augment": {"virtual_speakers": 2}, "train": {"epochs": 1, "batch_size": 8}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    assert run.model_specs[0].metrics()[0]["adversary_loss_uninformed"] == pytest.approx(np.log(9), rel=1e-4) and heads[-1] == 9


def test_virtual_speakers_without_a_speaker_adversary_are_refused():
    with pytest.raises(
        RecipeError,
        match="augment.virtual_speakers = 2 with adversary.target = sex: virtual speakers are classes of a speaker adversary",
    ):
        make_recipe({"augment": {"virtual_speakers": 2}, "adversary": {"target": "sex"}})
    make_recipe(
        {"augment": {"virtual_speakers": 2}, "adversary": {"target": "sex"}, "extra_adversaries": [{"target": "speaker"}]}
    )
