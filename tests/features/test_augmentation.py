"""Augmentation that keeps to the clip, noise as physics, and pairs of clips."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from speaker_invariant_ser.features import augmentation
from speaker_invariant_ser.features.augmentation import Augment, draw_masks, stretch, warp
from speaker_invariant_ser.features.log_mel import DB, FLOOR, LogMel, mask_of
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs, draw_partners, label_weight, mix_labels, pair_up
from speaker_invariant_ser.recipe import AugmentSection, FeaturesSection

RATE = 16_000
FEATURES = FeaturesSection()
SMALL = FeaturesSection(mels=16)
STILL = {"tempo": 0, "warp": 0, "equaliser_db": 0, "frequency_masks": 0, "time_masks": 0}
JUNK = 1e4  # in padding: whoever reads it is found out


def padded(lengths=(40, 31, 12, 25), mels=16):
    """Random log-mels with junk in the padding: (mels [B, M, T], frames [B])."""
    torch.manual_seed(0)
    frames = torch.tensor(lengths)
    return torch.where(mask_of(frames, max(lengths))[:, None], torch.randn(len(lengths), mels, max(lengths)), JUNK), frames


def own(mels, frames):
    return [clip[:, :length] for clip, length in zip(mels, frames.tolist(), strict=True)]


SETTINGS = {
    "tempo": {"tempo": 0.2},
    "warp": {"warp": 0.2},
    "level": {"level_db": 6.0},
    "equaliser": {"equaliser_db": 3.0},
    "frequency masks": {"frequency_masks": 2},
    "time masks": {"time_masks": 2},
    "noise": {"noise": 1.0},
}


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_each_setting_changes_clips_without_reading_padding_and_0_is_nothing(change):
    mels, frames = padded()
    augment = Augment(AugmentSection(**{**STILL, **change}), SMALL)
    draws = torch.rand(4, augment.columns)
    changed, lengths = augment(mels, frames, draws)
    clean, _ = padded()
    clean[clean == JUNK] = 0
    torch.manual_seed(1)
    first = augment(mels, frames, draws)[0]
    torch.manual_seed(1)
    second = augment(clean, frames, draws)[0]
    assert_close(own(first, lengths), own(second, lengths))
    assert changed.isfinite().all()
    assert not any(torch.equal(one, other) for one, other in zip(own(changed, lengths), own(mels, frames), strict=True))
    still = Augment(AugmentSection(**STILL), SMALL)
    nothing, lengths = still(mels, frames, torch.rand(4, still.columns))
    assert torch.equal(nothing, mels) and torch.equal(lengths, frames)
    assert torch.equal(mels, padded()[0])  # the caller's own are left alone


def test_a_batch_divided_is_changed_as_it_is_whole():
    mels, frames = padded()
    everything = AugmentSection(tempo=0.2, warp=0.2, level_db=6.0, equaliser_db=3.0, frequency_masks=3, time_masks=4)
    augment = Augment(everything, SMALL)
    draws = torch.rand(4, augment.columns)
    whole, lengths = augment(mels, frames, draws)
    for rows in ([0, 1], [2, 3], [3]):
        part, part_lengths = augment(mels[rows, :, : frames[rows].max()], frames[rows], draws[rows])
        assert torch.equal(part_lengths, lengths[rows])
        assert_close(own(part, part_lengths), own(whole[rows], lengths[rows]), rtol=0, atol=1e-5)
    other, _ = augment(mels, frames, draws.roll(1, 0))
    assert not torch.allclose(other[..., :10], whole[..., :10], atol=0.1)


def test_switching_one_off_leaves_the_others_as_they_were():
    mels, frames = padded()
    level, curve = {"level_db": 6.0}, {"equaliser_db": 3.0}
    both, *apart = (Augment(AugmentSection(**{**STILL, **change}), SMALL) for change in ({**level, **curve}, level, curve))
    draws = torch.rand(4, both.columns)
    moved = sum(one(mels, frames, draws)[0] - mels for one in apart)
    assert_close(own(both(mels, frames, draws)[0] - mels, frames), own(moved, frames), rtol=0, atol=1e-5)


def test_stretch_by_one_changes_nothing_and_by_two_halves():
    mels, frames = padded()
    same, lengths = stretch(mels, frames, torch.ones(4))
    assert torch.equal(lengths, frames)
    assert_close(own(same, frames), own(mels, frames))
    _, lengths = stretch(mels, frames, torch.full((4,), 2.0))
    assert lengths.tolist() == [20, 15, 6, 12]


def test_a_ramp_stretched_is_a_ramp_of_the_other_slope():
    ramp = torch.arange(50.0).expand(1, 3, 50)
    slow, frames = stretch(ramp, torch.tensor([50]), torch.tensor([0.8]))
    assert frames.item() == 62
    assert_close(slow[0, 0], 0.8 * torch.arange(62.0).clamp_max(61.25))


@pytest.mark.parametrize("hertz, alpha", [(500, 1.1), (1000, 0.9), (2000, 1.2), (3500, 0.85)])
def test_warp_moves_a_tone_by_the_factor_in_hertz(hertz, alpha):
    def peak(mels):  # the centre of gravity of the five strongest bands
        power, bands = mels[0, :, 50].exp().topk(5)
        return augmentation.band_to_hertz((power * bands).sum() / power.sum(), FEATURES).item()

    tone = torch.sin(2 * torch.pi * hertz * torch.arange(RATE) / RATE)
    mels, _ = LogMel(FEATURES, RATE)(tone[None], torch.tensor([RATE]))
    assert peak(mels) == pytest.approx(hertz, rel=0.03)
    # what is read at alpha * f comes to lie at f
    assert peak(warp(mels, torch.tensor([alpha]), FEATURES)) == pytest.approx(hertz / alpha, rel=0.03)


def test_the_warp_keeps_the_ends_rises_and_by_one_is_nothing():
    hertz = torch.linspace(0, 8000, 801)
    for alpha in (0.55, 0.8, 1.0, 1.2, 1.45):
        moved = augmentation.warp_frequency(hertz, torch.tensor(alpha), 8000.0)
        assert moved[0] == 0 and moved[-1].item() == pytest.approx(8000)
        assert (moved.diff() > 0).all()
        assert_close(moved[:300], alpha * hertz[:300])
    mels, _ = padded((40,), 64)
    assert_close(warp(mels, torch.ones(1), FEATURES), mels, rtol=0, atol=2e-3)


@pytest.mark.parametrize("alpha, hertz", [(1.25, {3840: 4800, 5920: 6400}), (0.8, {4800: 3840, 6400: 5920})])
def test_the_warp_bends_where_the_paper_has_it(alpha, hertz):
    """From 4.8 kHz on, of what is read or of what it is read for, a line leads to 8 kHz."""
    moved = augmentation.warp_frequency(torch.tensor([float(one) for one in hertz]), torch.tensor(alpha), 8000.0)
    assert moved.tolist() == pytest.approx(list(hertz.values()))


def test_bands_and_frequencies_are_each_others_inverse_and_torchaudios():
    bands = torch.linspace(-1, 64, 66)
    assert_close(augmentation.hertz_to_band(augmentation.band_to_hertz(bands, FEATURES), FEATURES), bands, rtol=0, atol=1e-3)
    filters = LogMel(FEATURES, RATE).mel.mel_scale.fb
    highest = filters.argmax(dim=0) * RATE / 2 / (len(filters) - 1)  # within half an FFT bin
    assert (augmentation.band_to_hertz(torch.arange(64), FEATURES) - highest).abs().max() < 12


def noisy_twice(snr_db, seconds=20):
    """(log-mel of a tone and white noise added in the waveform, log-mel of the tone with the same noise added to it)."""
    rng = torch.Generator().manual_seed(3)
    tone = 0.1 * torch.sin(2 * torch.pi * 1000 * torch.arange(seconds * RATE) / RATE)
    noise = torch.randn(len(tone), generator=rng) * (0.1**2 / 2 * 10 ** (-snr_db / 10)) ** 0.5
    logmel, samples = LogMel(FEATURES, RATE), torch.tensor([len(tone)])
    plain, frames = logmel(tone[None], samples)
    width, shape = augmentation.white_noise(FEATURES)
    profile = augmentation.tilt_noise(width, torch.zeros(1), FEATURES)
    torch.manual_seed(4)
    added = augmentation.add_noise(plain, frames, torch.tensor([float(snr_db)]), profile, shape)
    return logmel((tone + noise)[None], samples)[0][0], added[0], shape


@pytest.mark.parametrize("snr_db", [0, 20])
def test_noise_on_the_log_mel_is_noise_in_the_waveform(snr_db):
    waveform, added, shape = noisy_twice(snr_db)
    inner = slice(2, -1)  # of the first band and the last a part of the noise lies outside f_min .. f_max
    assert ((waveform.mean(dim=1) - added.mean(dim=1)) * DB)[inner].abs().max() < 0.5
    deviations = (waveform.std(dim=1) - added.std(dim=1)) * DB
    assert deviations[shape > 3].abs().max() < 0.5 and deviations[inner].abs().max() < 1.0


def test_the_signal_to_noise_ratio_is_over_all_bands_and_the_clips_own_frames():
    mels, frames = padded((400, 250), 64)
    width, shape = augmentation.white_noise(FEATURES)
    profile = augmentation.tilt_noise(width, torch.tensor([0.0, -6.0]), FEATURES)
    noisy = augmentation.add_noise(mels, frames, torch.tensor([10.0, -5.0]), profile, shape)
    for before, after, snr_db in zip(own(mels, frames), own(noisy, frames), (10.0, -5.0), strict=True):
        noise = after.exp() - before.exp()
        assert 10 * torch.log10(before.exp().sum() / noise.sum()).item() == pytest.approx(snr_db, abs=0.3)


@pytest.mark.parametrize("tilt", [0.0, -3.0, -6.0])
def test_tilted_noise_falls_by_so_many_db_per_octave(tilt):
    width, _ = augmentation.white_noise(FEATURES)
    profile = augmentation.tilt_noise(width, torch.tensor([tilt]), FEATURES)[0]
    density = 10 * torch.log10(profile / width)  # per hertz
    low, high = (augmentation.hertz_to_band(torch.tensor(hertz), FEATURES).round().int() for hertz in (500.0, 4000.0))
    assert (density[high] - density[low]).item() == pytest.approx(3 * tilt, abs=0.3)
    assert profile.sum().item() == pytest.approx(1)


def test_a_share_of_the_clips_is_noisy_and_the_others_are_as_they_were():
    mels, frames = padded([30] * 400)
    augment = Augment(AugmentSection(**STILL, noise=0.3, noise_snr_db=(0.0, 20.0)), SMALL)
    changed, _ = augment(mels, frames, torch.rand(400, augment.columns))
    untouched = (changed == mels).flatten(1).all(dim=1)
    assert 0.2 < 1 - untouched.float().mean() < 0.4
    before, after = mels[~untouched].exp().sum(dim=(1, 2)), changed[~untouched].exp().sum(dim=(1, 2))
    snr_db = 10 * torch.log10(before / (after - before))
    assert -1 < snr_db.min() < 2 and 18 < snr_db.max() < 21 and snr_db.mean().item() == pytest.approx(10, abs=1.5)


def test_silence_stays_finite():
    mels = torch.full((2, 16, 30), np.log(FLOOR))
    augment = Augment(AugmentSection(noise=1.0, level_db=60.0), SMALL)
    for draw in (0.0, 0.5, 1 - 2**-24):
        changed, _ = augment(mels, torch.tensor([30, 1]), torch.full((2, augment.columns), draw))
        assert changed.isfinite().all()


def test_masks_stay_in_the_clip_and_leave_most_of_it():
    torch.manual_seed(0)
    extent = torch.tensor([100, 20, 7])
    hidden = torch.stack([draw_masks(torch.rand(3, 4), extent, 100, 30) for _ in range(200)])
    assert not (hidden & ~mask_of(extent, 100)).any()
    assert (hidden.sum(dim=2).float() / extent).max() <= 0.4 + 1e-6
    alone = torch.stack([draw_masks(torch.rand(3, 2), extent, 100, 10) for _ in range(200)]).sum(dim=2)
    assert alone.amax(dim=0).tolist() == [10, 4, 1] and alone.amin(dim=0).tolist() == [0, 0, 0]
    assert hidden[:, 0].any(dim=0).all()  # every frame can be hidden, the first and the last too


def test_masks_hold_the_clips_mean():
    mels, frames = padded()
    augment = Augment(AugmentSection(**{**STILL, "frequency_masks": 2}), SMALL)
    changed, _ = augment(mels, frames, torch.rand(4, augment.columns))
    for before, after in zip(own(mels, frames), own(changed, frames), strict=True):
        hidden = after != before
        assert hidden.any()
        assert_close(after[hidden], before.mean().expand(int(hidden.sum())))


EMOTION = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
SPEAKER = np.array([0, 0, 1, 2, 0, 0, 0, 1, 2, 1])


def pairs_of(count=4000, **settings) -> tuple[np.ndarray, Pairs]:
    chosen = np.arange(count) % len(EMOTION)
    return chosen, draw_pairs(chosen, EMOTION, SPEAKER, AugmentSection(**settings), np.random.default_rng(0))


def test_without_shares_nothing_is_paired():
    chosen, pairs = pairs_of()
    assert (pairs.partner == chosen).all() and (pairs.weight == 1).all() and not pairs.follows.any()


def test_another_speaker_follows_in_the_same_emotion_where_there_is_one():
    chosen, pairs = pairs_of(concatenate=1.0)
    assert (EMOTION[pairs.partner] == EMOTION[chosen]).all() and (pairs.weight == 1).all()
    alone = chosen == 9  # the only clip of its emotion
    assert (pairs.follows == ~alone).all() and (pairs.partner[alone] == 9).all()
    one_speaker = EMOTION[chosen] == 1
    assert (pairs.partner != chosen)[~alone].all()
    assert (SPEAKER[pairs.partner] != SPEAKER[chosen])[~alone & ~one_speaker].all()
    assert set(pairs.partner[chosen == 0]) == {2, 3} and set(pairs.partner[chosen == 4]) == {5, 6}


@pytest.mark.parametrize("key, within", [("mixup_same_emotion", True), ("mixup_any_emotion", False)])
def test_mixup_takes_any_other_clip_within_or_across_emotions(key, within):
    chosen, pairs = pairs_of(**{key: 1.0})
    same = EMOTION[pairs.partner] == EMOTION[chosen]
    assert same.all() == within and not pairs.follows.any()
    assert set(pairs.partner[chosen == 0]) == ({1, 2, 3} if within else set(range(1, 10)))
    mixed = pairs.partner != chosen
    assert (mixed == (chosen != 9)).all() if within else mixed.all()
    assert (pairs.weight[~mixed] == 1).all() and pairs.weight.min() >= 0.5 and pairs.weight.dtype == np.float32
    assert 0.8 < pairs.weight[mixed].mean() < 0.9  # of Beta(0.4, 0.4)


def test_shares_of_clips_are_as_asked_and_a_clip_is_treated_once():
    _, pairs = pairs_of(concatenate=0.2, mixup_any_emotion=0.3)
    assert pairs.follows.mean() == pytest.approx(0.2 * 0.9, abs=0.03)  # one clip of ten has nobody
    assert (pairs.weight < 1).mean() == pytest.approx(0.3, abs=0.03)
    assert not (pairs.follows & (pairs.weight < 1)).any()


def test_partners_are_equally_likely():
    pick = np.random.default_rng(0).random(6000)
    drawn = draw_partners(np.zeros(6000, int), EMOTION, np.arange(10), pick)
    assert np.bincount(drawn, minlength=10)[:4].tolist() == pytest.approx([0, 2000, 2000, 2000], abs=150)


def test_a_mix_is_linear_and_repeats_the_partner():
    mels, frames = padded((8, 5))
    other, other_frames = padded((3, 6))
    weight = torch.tensor([0.75, 1.0])
    mixed, lengths = pair_up(mels, frames, other + 1, other_frames, weight, torch.zeros(2, dtype=torch.bool))
    assert mixed.shape == mels.shape and torch.equal(lengths, frames)
    repeated = (other + 1)[0, :, [0, 1, 2, 0, 1, 2, 0, 1]]
    assert_close(mixed[0], 0.75 * mels[0] + 0.25 * repeated)
    assert torch.equal(mixed[1], mels[1])


def test_a_partner_that_follows_is_heard_after_the_clip():
    mels, frames = padded((8, 5))
    other, other_frames = padded((3, 6))
    both, lengths = pair_up(mels, frames, other, other_frames, torch.ones(2), torch.tensor([False, True]))
    assert both.shape == (2, 16, 11) and lengths.tolist() == [8, 11]
    assert torch.equal(both[1], torch.cat((mels[1, :, :5], other[1]), dim=1))
    assert torch.equal(both[0, :, :8], mels[0])


def test_labels_are_shared_as_the_clips_are():
    follows = torch.tensor([False, True, False])
    part = label_weight(torch.tensor([8, 5, 9]), torch.tensor([3, 15, 2]), torch.tensor([0.75, 1.0, 1.0]), follows)
    assert_close(part, torch.tensor([0.75, 0.25, 1.0]))
    mixed = mix_labels(torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]), part, 3)
    assert_close(mixed, torch.tensor([[0.75, 0, 0.25], [0, 1.0, 0], [0, 0, 1.0]]))
