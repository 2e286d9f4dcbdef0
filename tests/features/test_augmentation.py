"""Augmentation that ignores padding, noise compared with noise in the waveform, and pairs of utterances."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from speaker_invariant_ser.features import augmentation, mel_scale
from speaker_invariant_ser.features.augmentation import Augment, draw_masks, stretch, warp
from speaker_invariant_ser.features.log_mel import DB, FLOOR, LogMel, mask_of
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs, draw_partners, label_weight, mix_labels, pair_up
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import AugmentSection

RATE = 16_000
FEATURES = FeaturesSection()
SMALL = FeaturesSection(mels=16)
OFF = {"tempo": 0, "warp": 0, "equaliser_db": 0, "frequency_masks": 0, "time_masks": 0}
PADDING = 1e4  # so large that any use of padding shows


def padded(lengths=(40, 31, 12, 25), mels=16):
    """Return random log-mels [B, M, T] with large values in the padding, and frames [B]."""
    torch.manual_seed(0)
    frames = torch.tensor(lengths)
    return torch.where(mask_of(frames, max(lengths))[:, None], torch.randn(len(lengths), mels, max(lengths)), PADDING), frames


def without_padding(mels, frames):
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
def test_each_setting_changes_clips_independently_of_padding_and_0_changes_nothing(change):
    mels, frames = padded()
    augment = Augment(AugmentSection(**{**OFF, **change}), SMALL)
    draws = torch.rand(4, augment.columns)
    changed, lengths = augment(mels, frames, draws)
    clean, _ = padded()
    clean[clean == PADDING] = 0
    torch.manual_seed(1)
    first = augment(mels, frames, draws)[0]
    torch.manual_seed(1)
    second = augment(clean, frames, draws)[0]
    assert_close(without_padding(first, lengths), without_padding(second, lengths))
    assert changed.isfinite().all()
    assert not any(
        torch.equal(clip, expected)
        for clip, expected in zip(without_padding(changed, lengths), without_padding(mels, frames), strict=True)
    )
    off = Augment(AugmentSection(**OFF), SMALL)
    unchanged, lengths = off(mels, frames, torch.rand(4, off.columns))
    assert torch.equal(unchanged, mels) and torch.equal(lengths, frames)
    assert torch.equal(mels, padded()[0])  # not changed in place


def test_parts_of_a_batch_are_augmented_as_the_whole_batch():
    mels, frames = padded()
    everything = AugmentSection(tempo=0.2, warp=0.2, level_db=6.0, equaliser_db=3.0, frequency_masks=3, time_masks=4)
    augment = Augment(everything, SMALL)
    draws = torch.rand(4, augment.columns)
    whole, lengths = augment(mels, frames, draws)
    for rows in ([0, 1], [2, 3], [3]):
        part, part_lengths = augment(mels[rows, :, : frames[rows].max()], frames[rows], draws[rows])
        assert torch.equal(part_lengths, lengths[rows])
        assert_close(without_padding(part, part_lengths), without_padding(whole[rows], lengths[rows]), rtol=0, atol=1e-5)
    other, _ = augment(mels, frames, draws.roll(1, 0))
    assert not torch.allclose(other[..., :10], whole[..., :10], atol=0.1)


def test_settings_draw_independently_of_each_other():
    mels, frames = padded()
    level, curve = {"level_db": 6.0}, {"equaliser_db": 3.0}
    both, *single = (Augment(AugmentSection(**{**OFF, **change}), SMALL) for change in ({**level, **curve}, level, curve))
    draws = torch.rand(4, both.columns)
    total = sum(augment(mels, frames, draws)[0] - mels for augment in single)
    assert_close(without_padding(both(mels, frames, draws)[0] - mels, frames), without_padding(total, frames), rtol=0, atol=1e-5)


def test_stretch_by_one_changes_nothing_and_by_two_halves():
    mels, frames = padded()
    same, lengths = stretch(mels, frames, torch.ones(4))
    assert torch.equal(lengths, frames)
    assert_close(without_padding(same, frames), without_padding(mels, frames))
    _, lengths = stretch(mels, frames, torch.full((4,), 2.0))
    assert lengths.tolist() == [20, 15, 6, 12]


def test_stretching_a_ramp_scales_its_slope():
    ramp = torch.arange(50.0).expand(1, 3, 50)
    slow, frames = stretch(ramp, torch.tensor([50]), torch.tensor([0.8]))
    assert frames.item() == 62
    assert_close(slow[0, 0], 0.8 * torch.arange(62.0).clamp_max(61.25))


@pytest.mark.parametrize("hertz, alpha", [(500, 1.1), (1000, 0.9), (2000, 1.2), (3500, 0.85)])
def test_warp_moves_a_tone_by_the_factor_in_hertz(hertz, alpha):
    def peak(mels):  # the centroid of the five strongest bands
        power, bands = mels[0, :, 50].exp().topk(5)
        return mel_scale.band_to_hertz((power * bands).sum() / power.sum(), FEATURES).item()

    tone = torch.sin(2 * torch.pi * hertz * torch.arange(RATE) / RATE)
    mels, _ = LogMel(FEATURES, RATE)(tone[None], torch.tensor([RATE]))
    assert peak(mels) == pytest.approx(hertz, rel=0.03)
    # the input at alpha * f becomes the output at f
    assert peak(warp(mels, torch.tensor([alpha]), FEATURES)) == pytest.approx(hertz / alpha, rel=0.03)


def test_the_warp_is_monotonic_keeps_both_ends_and_is_the_identity_for_1():
    hertz = torch.linspace(0, 8000, 801)
    for alpha in (0.55, 0.8, 1.0, 1.2, 1.45):
        warped = augmentation.warp_frequency(hertz, torch.tensor(alpha), 8000.0)
        assert warped[0] == 0 and warped[-1].item() == pytest.approx(8000)
        assert (warped.diff() > 0).all()
        assert_close(warped[:300], alpha * hertz[:300])
    mels, _ = padded((40,), 64)
    assert_close(warp(mels, torch.ones(1), FEATURES), mels, rtol=0, atol=2e-3)


@pytest.mark.parametrize("alpha, hertz", [(1.25, {3840: 4800, 5920: 6400}), (0.8, {4800: 3840, 6400: 5920})])
def test_the_warp_bends_at_4800_hz(alpha, hertz):
    """From 4.8 kHz of the input or of the output, whichever is lower, a line leads to 8 kHz (Jaitly and Hinton)."""
    warped = augmentation.warp_frequency(torch.tensor([float(frequency) for frequency in hertz]), torch.tensor(alpha), 8000.0)
    assert warped.tolist() == pytest.approx(list(hertz.values()))


def test_bands_and_frequencies_are_inverse_and_match_torchaudio():
    bands = torch.linspace(-1, 64, 66)
    assert_close(mel_scale.hertz_to_band(mel_scale.band_to_hertz(bands, FEATURES), FEATURES), bands, rtol=0, atol=1e-3)
    filters = LogMel(FEATURES, RATE).mel.mel_scale.fb
    highest = filters.argmax(dim=0) * RATE / 2 / (len(filters) - 1)  # within half an FFT bin
    assert (mel_scale.band_to_hertz(torch.arange(64), FEATURES) - highest).abs().max() < 12


def noise_in_waveform_and_log_mel(snr_db, seconds=20):
    """Return the log-mel of a tone plus white noise, and the log-mel of the tone with such noise added to the log-mel."""
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
def test_noise_added_to_the_log_mel_is_distributed_as_noise_in_the_waveform(snr_db):
    waveform, added, shape = noise_in_waveform_and_log_mel(snr_db)
    inner = slice(2, -1)  # part of the noise in the first and last bands lies outside f_min .. f_max
    assert ((waveform.mean(dim=1) - added.mean(dim=1)) * DB)[inner].abs().max() < 0.5
    deviations = (waveform.std(dim=1) - added.std(dim=1)) * DB
    assert deviations[shape > 3].abs().max() < 0.5 and deviations[inner].abs().max() < 1.0


def test_the_signal_to_noise_ratio_is_over_all_bands_and_real_frames():
    mels, frames = padded((400, 250), 64)
    width, shape = augmentation.white_noise(FEATURES)
    profile = augmentation.tilt_noise(width, torch.tensor([0.0, -6.0]), FEATURES)
    noisy = augmentation.add_noise(mels, frames, torch.tensor([10.0, -5.0]), profile, shape)
    for before, after, snr_db in zip(without_padding(mels, frames), without_padding(noisy, frames), (10.0, -5.0), strict=True):
        noise = after.exp() - before.exp()
        assert 10 * torch.log10(before.exp().sum() / noise.sum()).item() == pytest.approx(snr_db, abs=0.3)


@pytest.mark.parametrize("tilt", [0.0, -3.0, -6.0])
def test_the_tilt_of_noise_is_in_db_per_octave(tilt):
    width, _ = augmentation.white_noise(FEATURES)
    profile = augmentation.tilt_noise(width, torch.tensor([tilt]), FEATURES)[0]
    density = 10 * torch.log10(profile / width)  # per hertz
    low, high = (mel_scale.hertz_to_band(torch.tensor(hertz), FEATURES).round().int() for hertz in (500.0, 4000.0))
    assert (density[high] - density[low]).item() == pytest.approx(3 * tilt, abs=0.3)
    assert profile.sum().item() == pytest.approx(1)


def test_noise_is_added_to_the_given_share_of_clips():
    mels, frames = padded([30] * 400)
    augment = Augment(AugmentSection(**OFF, noise=0.3, noise_snr_db=(0.0, 20.0)), SMALL)
    changed, _ = augment(mels, frames, torch.rand(400, augment.columns))
    untouched = (changed == mels).flatten(1).all(dim=1)
    assert 0.2 < 1 - untouched.float().mean() < 0.4
    before, after = mels[~untouched].exp().sum(dim=(1, 2)), changed[~untouched].exp().sum(dim=(1, 2))
    snr_db = 10 * torch.log10(before / (after - before))
    assert -1 < snr_db.min() < 2 and 18 < snr_db.max() < 21 and snr_db.mean().item() == pytest.approx(10, abs=1.5)


def test_augmented_silence_is_finite():
    mels = torch.full((2, 16, 30), np.log(FLOOR))
    augment = Augment(AugmentSection(noise=1.0, level_db=60.0), SMALL)
    for draw in (0.0, 0.5, 1 - 2**-24):
        changed, _ = augment(mels, torch.tensor([30, 1]), torch.full((2, augment.columns), draw))
        assert changed.isfinite().all()


def test_masks_lie_in_real_frames_and_cover_at_most_a_fifth_each():
    torch.manual_seed(0)
    extent = torch.tensor([100, 20, 7])
    masked = torch.stack([draw_masks(torch.rand(3, 4), extent, 100, 30) for _ in range(200)])
    assert not (masked & ~mask_of(extent, 100)).any()
    assert (masked.sum(dim=2).float() / extent).max() <= 0.4 + 1e-6
    single = torch.stack([draw_masks(torch.rand(3, 2), extent, 100, 10) for _ in range(200)]).sum(dim=2)
    assert single.amax(dim=0).tolist() == [10, 4, 1] and single.amin(dim=0).tolist() == [0, 0, 0]
    assert masked[:, 0].any(dim=0).all()  # every frame can be masked, the first and the last too


def test_masks_are_filled_with_the_clips_mean():
    mels, frames = padded()
    augment = Augment(AugmentSection(**{**OFF, "frequency_masks": 2}), SMALL)
    changed, _ = augment(mels, frames, torch.rand(4, augment.columns))
    for before, after in zip(without_padding(mels, frames), without_padding(changed, frames), strict=True):
        masked = after != before
        assert masked.any()
        assert_close(after[masked], before.mean().expand(int(masked.sum())))


EMOTION = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
SPEAKER = np.array([0, 0, 1, 2, 0, 0, 0, 1, 2, 1])


def pairs_of(count=4000, **settings) -> tuple[np.ndarray, Pairs]:
    chosen = np.arange(count) % len(EMOTION)
    return chosen, draw_pairs(chosen, EMOTION, SPEAKER, AugmentSection(**settings), np.random.default_rng(0))


def test_no_clip_is_paired_by_default():
    chosen, pairs = pairs_of()
    assert (pairs.partner == chosen).all() and (pairs.weight == 1).all() and not pairs.follows.any()


def test_clips_are_concatenated_with_another_speaker_of_the_same_emotion():
    chosen, pairs = pairs_of(concatenate=1.0)
    assert (EMOTION[pairs.partner] == EMOTION[chosen]).all() and (pairs.weight == 1).all()
    alone = chosen == 9  # the only utterance of its emotion
    assert (pairs.follows == ~alone).all() and (pairs.partner[alone] == 9).all()
    one_speaker = EMOTION[chosen] == 1
    assert (pairs.partner != chosen)[~alone].all()
    assert (SPEAKER[pairs.partner] != SPEAKER[chosen])[~alone & ~one_speaker].all()
    assert set(pairs.partner[chosen == 0]) == {2, 3} and set(pairs.partner[chosen == 4]) == {5, 6}


@pytest.mark.parametrize("key, within", [("mixup_same_emotion", True), ("mixup_any_emotion", False)])
def test_mixup_partners_have_the_same_emotion_or_any(key, within):
    chosen, pairs = pairs_of(**{key: 1.0})
    same = EMOTION[pairs.partner] == EMOTION[chosen]
    assert same.all() == within and not pairs.follows.any()
    assert set(pairs.partner[chosen == 0]) == ({1, 2, 3} if within else set(range(1, 10)))
    mixed = pairs.partner != chosen
    assert (mixed == (chosen != 9)).all() if within else mixed.all()
    assert (pairs.weight[~mixed] == 1).all() and pairs.weight.min() >= 0.5 and pairs.weight.dtype == np.float32
    assert 0.8 < pairs.weight[mixed].mean() < 0.9  # of Beta(0.4, 0.4)


def test_given_shares_of_clips_are_paired_and_each_in_one_way():
    _, pairs = pairs_of(concatenate=0.2, mixup_any_emotion=0.3)
    assert pairs.follows.mean() == pytest.approx(0.2 * 0.9, abs=0.03)  # one utterance of ten has no partner
    assert (pairs.weight < 1).mean() == pytest.approx(0.3, abs=0.03)
    assert not (pairs.follows & (pairs.weight < 1)).any()


def test_all_possible_partners_are_equally_likely():
    pick = np.random.default_rng(0).random(6000)
    drawn = draw_partners(np.zeros(6000, int), EMOTION, np.arange(10), pick)
    assert np.bincount(drawn, minlength=10)[:4].tolist() == pytest.approx([0, 2000, 2000, 2000], abs=150)


def test_a_mix_is_linear_and_repeats_a_shorter_partner():
    mels, frames = padded((8, 5))
    other, other_frames = padded((3, 6))
    weight = torch.tensor([0.75, 1.0])
    mixed, lengths = pair_up(mels, frames, other + 1, other_frames, weight, torch.zeros(2, dtype=torch.bool))
    assert mixed.shape == mels.shape and torch.equal(lengths, frames)
    repeated = (other + 1)[0, :, [0, 1, 2, 0, 1, 2, 0, 1]]
    assert_close(mixed[0], 0.75 * mels[0] + 0.25 * repeated)
    assert torch.equal(mixed[1], mels[1])


def test_a_concatenated_partner_comes_after_the_clip():
    mels, frames = padded((8, 5))
    other, other_frames = padded((3, 6))
    both, lengths = pair_up(mels, frames, other, other_frames, torch.ones(2), torch.tensor([False, True]))
    assert both.shape == (2, 16, 11) and lengths.tolist() == [8, 11]
    assert torch.equal(both[1], torch.cat((mels[1, :, :5], other[1]), dim=1))
    assert torch.equal(both[0, :, :8], mels[0])


def test_labels_are_weighted_as_the_clips_are():
    follows = torch.tensor([False, True, False])
    part = label_weight(torch.tensor([8, 5, 9]), torch.tensor([3, 15, 2]), torch.tensor([0.75, 1.0, 1.0]), follows)
    assert_close(part, torch.tensor([0.75, 0.25, 1.0]))
    single = torch.eye(3)
    mixed = mix_labels(single, single.flip(0), part)
    assert_close(mixed, torch.tensor([[0.75, 0, 0.25], [0, 1.0, 0], [0, 0, 1.0]]))
