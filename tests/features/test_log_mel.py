"""Log-mels of known signals, and normalisation."""

import sys

import numpy as np
import pytest
import torch

from speaker_invariant_ser.errors import RecipeError, SetupError
from speaker_invariant_ser.features import log_mel as features
from speaker_invariant_ser.features.log_mel import LogMel, Normalise
from speaker_invariant_ser.recipe import FeaturesSection

RATE = 16_000


def tone(hertz, seconds=1.0, level=0.5):
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("hertz", [150, 440, 1000, 3000, 7000])
def test_a_tone_has_its_maximum_in_the_band_of_its_frequency(hertz):
    logmel = LogMel(FeaturesSection(), RATE)
    mels, frames = logmel(tone(hertz)[None], torch.tensor([RATE]))
    assert mels.shape == (1, 64, 101) and frames.tolist() == [101]
    # The mel scale of O'Shaughnessy 1987, as HTK uses it: 64 triangles, evenly spaced between 20 and 8000 Hz.
    scale = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    expected = (scale(hertz) - scale(20)) / (scale(8000) - scale(20)) * 65 - 1
    assert mels[0, :, 50].argmax().item() == pytest.approx(expected, abs=1)


def test_ten_times_the_amplitude_is_20_db_more():
    logmel = LogMel(FeaturesSection(), RATE)
    soft, loud = (logmel(tone(440, level=level)[None], torch.tensor([RATE]))[0].max() for level in (0.05, 0.5))
    assert (loud - soft).item() * features.DB == pytest.approx(20, abs=0.01)


def test_frames_of_a_clip_are_the_same_alone_and_padded():
    logmel = LogMel(FeaturesSection(), RATE)
    clip = torch.randn(5432) * 0.1
    alone, frames = logmel(clip[None], torch.tensor([5432]))
    padded, _ = logmel(torch.nn.functional.pad(clip, (0, 4000))[None], torch.tensor([5432]))
    assert frames.item() == alone.shape[2] == 1 + 5432 // 160
    assert torch.allclose(alone[0], padded[0, :, : frames.item()], atol=1e-5)


@pytest.mark.parametrize("settings", [{"f_max": 9000.0}, {"f_min": 500.0, "f_max": 400.0}])
def test_impossible_band_limits_are_refused(settings):
    with pytest.raises(RecipeError, match=r"features.f_min.*expected f_min < f_max <= 8000 Hz"):
        LogMel(FeaturesSection(**settings), RATE)


def test_normalisation_gives_zero_mean_unit_variance_and_zero_padding():
    clips = [torch.randn(4, n) * 3 + 7 for n in (50, 80)]
    normalise = Normalise("corpus", 4)
    normalise.fit(clips)
    normalised = torch.cat([normalise(clip[None], torch.tensor([clip.shape[1]]))[0] for clip in clips], dim=1)
    assert normalised.mean(dim=1).abs().max() < 1e-4 and (normalised.std(dim=1) - 1).abs().max() < 1e-4
    padded = normalise(torch.full((1, 4, 9), 5.0), torch.tensor([6]))
    assert (padded[..., 6:] == 0).all() and (padded[..., :6] != 0).all()


def test_utterance_normalisation_removes_channel_and_level():
    clips = [torch.randn(4, n) for n in (50, 80)]
    normalise = Normalise("utterance", 4)
    normalise.fit(clips)
    coloured = clips[0] + torch.tensor([3.0, -1.0, 0.0, 8.0])[:, None]
    frames = torch.tensor([50])
    assert torch.allclose(normalise(clips[0][None], frames), normalise(coloured[None], frames), atol=1e-5)


@pytest.mark.parametrize("raised", [OSError("libc10_cuda.so: cannot open shared object file"), ImportError("No module named x")])
def test_a_torchaudio_for_another_torch_is_an_error_with_instructions(monkeypatch, raised):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchaudio":
                raise raised

    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SetupError, match="torchaudio does not fit torch .* Install a matching pair"):
        features.import_torchaudio()
