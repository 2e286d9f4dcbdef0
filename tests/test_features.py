"""Log-mel as physics, and augmentation that keeps to the clip."""

import sys

import numpy as np
import pytest
import torch

from speaker_invariant_ser import features
from speaker_invariant_ser.config import AugmentSection, FeaturesSection
from speaker_invariant_ser.errors import RecipeError, SetupError
from speaker_invariant_ser.features import Augment, LogMel, Normalise, mask_of, masks, warp

RATE = 16_000


def tone(hertz, seconds=1.0, level=0.5):
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("hertz", [150, 440, 1000, 3000, 7000])
def test_a_tone_lies_in_the_band_around_its_frequency(hertz):
    logmel = LogMel(FeaturesSection(), RATE)
    mels, frames = logmel(tone(hertz)[None], torch.tensor([RATE]))
    assert mels.shape == (1, 64, 101) and frames.tolist() == [101]
    # The mel scale of O'Shaughnessy 1987, as HTK uses it: 64 triangles, evenly spaced between 20 and 8000 Hz.
    scale = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    expected = (scale(hertz) - scale(20)) / (scale(8000) - scale(20)) * 65 - 1
    assert mels[0, :, 50].argmax().item() == pytest.approx(expected, abs=1)


def test_ten_times_the_amplitude_is_20_db():
    logmel = LogMel(FeaturesSection(), RATE)
    soft, loud = (logmel(tone(440, level=level)[None], torch.tensor([RATE]))[0].max() for level in (0.05, 0.5))
    assert (loud - soft).item() * features.DB == pytest.approx(20, abs=0.01)


def test_frames_are_the_same_alone_and_padded():
    logmel = LogMel(FeaturesSection(), RATE)
    clip = torch.randn(5432) * 0.1
    alone, frames = logmel(clip[None], torch.tensor([5432]))
    padded, _ = logmel(torch.nn.functional.pad(clip, (0, 4000))[None], torch.tensor([5432]))
    assert frames.item() == alone.shape[2] == 1 + 5432 // 160
    assert torch.allclose(alone[0], padded[0, :, : frames.item()], atol=1e-5)


@pytest.mark.parametrize("settings", [{"f_max": 9000.0}, {"f_min": 500.0, "f_max": 400.0}])
def test_impossible_bands_are_refused(settings):
    with pytest.raises(RecipeError, match=r"features.f_min.*expected f_min < f_max <= 8000 Hz"):
        LogMel(FeaturesSection(**settings), RATE)


def test_normalisation_gives_zero_mean_unit_variance_and_zero_padding():
    clips = [torch.randn(4, n) * 3 + 7 for n in (50, 80)]
    normalise = Normalise("corpus", 4)
    normalise.fit(clips)
    together = torch.cat([normalise(clip[None], torch.tensor([clip.shape[1]]))[0] for clip in clips], dim=1)
    assert together.mean(dim=1).abs().max() < 1e-4 and (together.std(dim=1) - 1).abs().max() < 1e-4
    padded = normalise(torch.full((1, 4, 9), 5.0), torch.tensor([6]))
    assert (padded[..., 6:] == 0).all() and (padded[..., :6] != 0).all()


def test_utterance_normalisation_forgets_channel_and_level():
    clips = [torch.randn(4, n) for n in (50, 80)]
    normalise = Normalise("utterance", 4)
    normalise.fit(clips)
    coloured = clips[0] + torch.tensor([3.0, -1.0, 0.0, 8.0])[:, None]
    frames = torch.tensor([50])
    assert torch.allclose(normalise(clips[0][None], frames), normalise(coloured[None], frames), atol=1e-5)


def test_warp_by_one_changes_nothing_and_tempo_shortens():
    mels, frames = torch.randn(2, 8, 20), torch.tensor([20, 12])
    same, length = warp(mels, frames, torch.ones(2), torch.ones(2))
    assert length.tolist() == [20, 12]
    assert torch.allclose(same[0], mels[0], atol=1e-5) and torch.allclose(same[1, :, :12], mels[1, :, :12], atol=1e-5)
    _, length = warp(mels, frames, torch.ones(2), torch.full((2,), 2.0))
    assert length.tolist() == [10, 6]


def test_warp_moves_a_band_and_never_reads_padding():
    mels = torch.zeros(1, 64, 10)
    mels[0, 30] = 1
    moved, _ = warp(mels, torch.tensor([10]), torch.tensor([1.25]), torch.ones(1))
    assert moved[0, :, 4].argmax() == 24  # band 24 * 1.25 = 30
    padded = torch.full((1, 4, 10), -1e6)
    padded[..., :6] = 1.0
    stretched, frames = warp(padded, torch.tensor([6]), torch.ones(1), torch.tensor([0.93]))
    assert (stretched[..., : frames.item()] == 1).all()


def test_masks_stay_in_the_clip_and_leave_most_of_it():
    torch.manual_seed(0)
    extent = torch.tensor([100, 20, 7])
    hidden = torch.stack([masks(extent, 100, 2, 30) for _ in range(200)])
    assert not (hidden & ~mask_of(extent, 100)).any()
    assert (hidden.sum(dim=2).float() / extent).max() <= 0.4 + 1e-6
    assert hidden.any()


def test_augmentation_follows_the_seed_and_can_be_switched_off():
    mels, frames = torch.randn(3, 16, 40), torch.tensor([40, 31, 12])
    augment = Augment(AugmentSection(), hop_ms=10)
    outcomes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outcomes.append(augment(mels, frames)[0])
    assert torch.equal(outcomes[0], outcomes[1]) and not torch.equal(outcomes[0], outcomes[2])
    off = Augment(AugmentSection(frequency_masks=0, time_masks=0, warp=0, tempo=0, equaliser_db=0), hop_ms=10)
    assert torch.equal(off(mels, frames)[0], mels)


@pytest.mark.parametrize("raised", [OSError("libc10_cuda.so: cannot open shared object file"), ImportError("No module named x")])
def test_a_torchaudio_for_another_torch_is_told(monkeypatch, raised):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchaudio":
                raise raised

    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SetupError, match="torchaudio does not fit torch .* Install a matching pair"):
        features.import_torchaudio()
