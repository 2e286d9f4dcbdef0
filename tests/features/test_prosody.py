"""Clip-relative prosody: the same alone or in a batch, unchanged by a shift of pitch or level, defined for silence and clicks."""

import numpy as np
import pytest
import soxr
import torch

from speaker_invariant_ser.data.f0.frames import HOP
from speaker_invariant_ser.data.f0.tracker import track_f0
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.features.prosody import CHANNELS, deltas, prosody_rows, quantiles, relative_prosody
from speaker_invariant_ser.recipe import FeaturesSection

RATE = 16_000
LOGMEL = LogMel(FeaturesSection(hop_ms=16.0), RATE)


def glide(seconds=1.2, base=150.0, octaves=0.5, seed=0):
    """A harmonic tone that glides upwards after a pause, with a little noise."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(base * 2 ** (octaves * time / seconds)) / RATE
    tone = sum(np.sin(n * phase) / n for n in range(1, 12)) * (time > 0.2) * (0.4 + 0.3 * np.sin(7 * time))
    return (0.1 * tone + 3e-4 * rng.standard_normal(len(time))).astype(np.float32)


def prosody_of(*clips):
    """Channels [B, 8, T] and frames [B] of utterances, in one batch."""
    samples = torch.tensor([len(clip) for clip in clips])
    audio, f0 = torch.zeros(len(clips), int(samples.max())), torch.zeros(len(clips), 2, 1 + int(samples.max()) // HOP)
    for row, clip in enumerate(clips):
        audio[row, : len(clip)] = torch.from_numpy(clip)
        tracked = track_f0(clip)
        f0[row, :, : tracked.shape[1]] = torch.from_numpy(tracked)
    mels, frames = LOGMEL(audio, samples)
    return relative_prosody(prosody_rows(mels, f0, LOGMEL.low_bands), frames), frames


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 512, 16_000, 16_001])
def test_f0_has_a_frame_for_each_log_mel_frame(samples):
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, samples).astype(np.float32)
    _, frames = LOGMEL(torch.from_numpy(clip)[None], torch.tensor([samples]))
    assert track_f0(clip).shape == (2, int(frames[0]))


def test_f0_of_a_tone_is_its_frequency():
    time = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 180 * n * time) / n for n in range(1, 10)).astype(np.float32) * 0.1
    f0, confidence = track_f0(tone)[:, 8:-8]
    assert (confidence > 0.5).all()
    assert np.abs(12 * np.log2(f0 / 180)).max() < 0.3  # semitones


def test_a_clip_has_the_same_prosody_alone_and_in_a_batch():
    long, short = glide(1.5, seed=1), glide(0.7, base=220, seed=2)
    together, frames = prosody_of(long, short)
    for row, clip in enumerate((long, short)):
        alone, _ = prosody_of(clip)
        assert torch.allclose(together[row, :, : frames[row]], alone[0], atol=1e-5)
    assert (together[1, :, int(frames[1]) :] == 0).all(), "padding is 0"


def test_ten_decibels_more_leave_the_channels_as_they_are():
    clip = glide()
    before, after = (prosody_of((clip * 10 ** (db / 20)).astype(np.float32))[0] for db in (0, 10))
    assert (before - after).abs().mean() < 0.02


def test_three_semitones_up_leave_the_channels_as_they_are():
    """The same glide, its harmonics 3 semitones higher."""
    before, after = (prosody_of(glide(base=150 * 2 ** (semitones / 12)))[0] for semitones in (0, 3))
    voiced = (before[0, 1] == 1) & (after[0, 1] == 1)
    assert voiced.float().mean() > 0.6
    assert (before - after)[0, 0, voiced].abs().mean() < 0.05  # of 4 semitones


def test_a_resampled_voice_moves_absolute_f0_by_what_relative_f0_ignores():
    clip = glide()
    higher = soxr.resample(clip, 2 ** (3 / 12) * RATE, RATE).astype(np.float32)  # 3 semitones up, and faster
    f0, raised = (track_f0(audio)[0] for audio in (clip, higher))
    shift = 12 * np.log2(np.median(raised[raised > 0]) / np.median(f0[f0 > 0]))
    assert shift == pytest.approx(3, abs=0.3)
    medians = [prosody_of(audio)[0][0, 0] for audio in (clip, higher)]
    assert abs(medians[0][medians[0] != 0].median() - medians[1][medians[1] != 0].median()) < 0.1


def test_a_glide_up_is_a_positive_slope_of_f0():
    channels, _ = prosody_of(glide(octaves=0.5))
    falling, _ = prosody_of(glide(octaves=-0.5))
    slope = CHANNELS.index("f0 delta")
    assert channels[0, slope].mean() > 0 > falling[0, slope].mean()


@pytest.mark.parametrize(
    "clip",
    [np.zeros(8000), np.zeros(1), np.ones(40) * 0.3, np.random.default_rng(0).uniform(-0.2, 0.2, 9000)],
    ids=["silence", "one sample", "a click", "noise"],
)
def test_unvoiced_silent_and_very_short_clips_are_defined(clip):
    channels, _ = prosody_of(clip.astype(np.float32))
    assert channels.isfinite().all()
    assert (channels[0, CHANNELS.index("f0")] == 0).all(), "nothing voiced, no F0"


def test_silence_has_no_prosody_at_all():
    assert (prosody_of(np.zeros(8000, dtype=np.float32))[0] == 0).all()


def test_deltas_of_a_line_are_its_slope():
    line = torch.arange(10.0).expand(1, 1, 10).clone()
    slope = deltas(line, torch.tensor([8]))
    assert torch.allclose(slope[0, 0, 2:6], torch.ones(4))
    assert (slope[0, 0, 8:] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 7, 400])
def test_quantiles_have_the_bits_of_torch(length):
    torch.manual_seed(length)
    values, chosen, shares = 10 * torch.randn(32, length), torch.rand(32, length) < torch.rand(32, 1), (0.05, 0.5, 0.75, 0.95)
    chosen[0], chosen[1] = False, True
    expected = values.masked_fill(~chosen, torch.nan).nanquantile(torch.tensor(shares), dim=1).nan_to_num(0.0)
    assert torch.equal(quantiles(values, chosen, shares), expected)
