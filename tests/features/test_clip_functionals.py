"""Clip-level functionals of a batch: the numbers of the prosody baseline, whatever is in the padding."""

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.testing import assert_close

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.clip_functionals import FUNCTIONALS, relative_functionals
from speaker_invariant_ser.features.prosody import REFERENCE_HZ
from speaker_invariant_ser.features.prosody_functionals import (
    FRAME_SECONDS,
    f0_numbers,
    level_numbers,
    mean_change,
    rhythm_numbers,
)
from speaker_invariant_ser.features.streams import Layout, encoder_input


def track(frames: int, seed: int) -> np.ndarray:
    """Prosody rows [4, T] with voiced stretches and pauses."""
    rng = np.random.default_rng(seed)
    voiced = np.repeat(rng.random(-(-frames // 5)) < 0.6, 5)[:frames]
    f0 = np.where(voiced, 180 * np.exp(0.2 * rng.standard_normal(frames)), 0)
    return np.stack((f0, np.where(voiced, 0.9, 0.1), rng.gamma(2, 2, frames), rng.standard_normal(frames))).astype(np.float32)


def expected(rows: np.ndarray) -> np.ndarray:
    """The definition, of one utterance, with the functions of the baseline."""
    f0, confidence, level, tilt = rows.astype(np.float64)
    voiced = (confidence >= 0.5) & (f0 > 0)
    semitones = 12 * np.log2(f0[voiced] / REFERENCE_HZ) if voiced.sum() >= 6 else np.zeros(6)
    single = [tilt.std(), mean_change(tilt), confidence.std()]
    rates = rhythm_numbers(voiced, len(f0) * FRAME_SECONDS)
    return np.array([*f0_numbers(semitones), *level_numbers(level), *single, *rates])


def batch(*clips: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-padded utterances of a batch, with noise in the padding."""
    frames = torch.tensor([clip.shape[1] for clip in clips])
    rows = 100 + torch.randn(len(clips), 4, int(frames.max()) + 3)
    for row, clip in zip(rows, clips, strict=True):
        row[:, : clip.shape[1]] = torch.from_numpy(clip)
    return rows, frames


def test_each_clip_of_a_batch_has_the_numbers_of_the_baseline():
    clips = [track(frames, seed) for seed, frames in enumerate((120, 7, 63, 40))]
    numbers = relative_functionals(*batch(*clips)).numpy()
    assert numbers.shape == (4, len(FUNCTIONALS))
    for row, clip in zip(numbers, clips, strict=True):
        np.testing.assert_allclose(row, expected(clip), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("frames", [1, 2, 30])
@pytest.mark.parametrize("kind", ["silent", "voiced"])
def test_silent_and_very_short_clips_are_defined(frames, kind):
    clip = np.zeros((4, frames), dtype=np.float32)
    if kind == "voiced":
        clip[:2] = [[150.0], [0.9]]
    numbers = relative_functionals(*batch(clip, track(50, 1)))[0]
    assert numbers.isfinite().all()
    np.testing.assert_allclose(numbers.numpy(), expected(clip), atol=1e-5)


def test_a_shift_of_pitch_or_level_changes_no_number():
    clip = track(80, 3)
    shifted = clip * np.array([2 ** (3 / 12), 1, 1, 1], dtype=np.float32)[:, None]
    shifted[2] += 2.3
    assert_close(relative_functionals(*batch(clip)), relative_functionals(*batch(shifted)), atol=1e-4, rtol=1e-4)


def test_the_encoder_gets_them_as_rows_that_are_the_same_in_every_frame():
    tables = {"streams": ["prosody"], "functionals": True, "hop_ms": 16}
    features = make_recipe({**TINY, "features": {**TINY["features"], **tables}, "encoder": {"name": "prosody"}}).features
    rows, frames = batch(track(50, 0), track(31, 1))
    mels = torch.zeros(2, features.mels, rows.shape[2])
    x, layout = encoder_input(torch.cat((mels, rows), dim=1), mels, frames, features), Layout.of(features)
    assert x.shape[1] == layout.rows == 8 + len(FUNCTIONALS)
    assert_close(layout.functionals_of(x), relative_functionals(rows, frames))
    assert torch.equal(x[0, 8:, 0], x[0, 8:, 49]) and not x[1, :, 31:].any()


def test_functionals_without_the_stream_are_refused():
    with pytest.raises(RecipeError, match="features.functionals = true"):
        make_recipe({"features": {"functionals": True}})
