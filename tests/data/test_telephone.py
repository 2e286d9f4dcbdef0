"""The telephone passes 300 to 3400 Hz, adds the noise of mu-law, and changes neither length nor range."""

import numpy as np
import pytest

from speaker_invariant_ser.data.audio import to_int16
from speaker_invariant_ser.data.conditions.measures import bandwidth
from speaker_invariant_ser.data.conditions.telephone import telephone

RATE = 16_000


def sine(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)


def level(clip: np.ndarray) -> float:
    return 10 * np.log10(np.mean(clip[2000:-2000] ** 2) + 1e-12)


@pytest.mark.parametrize(
    ("hertz", "loss"), [(80, (40, 100)), (300, (2, 4)), (1000, (-0.5, 0.5)), (3400, (2, 4)), (3900, (30, 150)), (6000, (40, 150))]
)
def test_a_tone_passes_in_the_band_alone(hertz, loss):
    assert loss[0] <= level(sine(hertz)) - level(telephone(sine(hertz))) <= loss[1]


def test_mu_law_adds_noise_in_proportion_to_the_signal():
    for gain in (1.0, 0.1):
        heard = telephone(gain * sine(1000))
        spectrum = np.abs(np.fft.rfft(heard)) ** 2
        noise = spectrum.sum() - spectrum[995:1006].sum()
        assert 30 < 10 * np.log10(spectrum[995:1006].sum() / noise) < 45


@pytest.mark.parametrize("samples", [1600, 1601, 16_003])
def test_length_and_range_stay(samples):
    clip = np.sign(np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    heard = telephone(clip)
    assert len(heard) == samples and heard.dtype == np.float32 and np.abs(heard).max() <= 1
    assert np.array_equal(heard, telephone(clip)) and bandwidth(to_int16(telephone(0.2 * clip))) <= 4250
