"""Streams end to end: the same prosody and embedding whichever way an utterance comes, and what augmentation does to F0."""

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.testing import assert_close

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.features.augmentation import Augment, stretch, stretch_nearest, stretch_prosody
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import LogMel, Normalise
from speaker_invariant_ser.features.pairing import pair_up
from speaker_invariant_ser.features.prosody import CHANNELS, PROSODY_ROWS, deltas, prosody_rows
from speaker_invariant_ser.features.streams import Layout, encoder_input
from speaker_invariant_ser.features.virtual_speakers import VirtualSpeakers
from speaker_invariant_ser.models.apply import apply_to_clips, apply_to_dataset
from speaker_invariant_ser.training.objective import build_model

LABELS = ("falling", "level", "rising")
CHOSEN = [40, 3, 17, 60, 61]
RECIPES = {
    "prosody": {"features": {"streams": ["prosody"]}, "encoder": {"name": "prosody", "width": 8, "dim": 8}},
    "absolute": {"features": {"streams": ["prosody"], "absolute_f0": True}, "encoder": {"name": "prosody"}},
    "functionals": {
        "features": {"streams": ["prosody"], "functionals": True},
        "encoder": {"name": "prosody", "width": 8, "dim": 8},
    },
    "fusion": {"features": {"streams": ["log-mel", "prosody"], "deltas": 1}, "encoder": {"name": "fusion", "dim": 8}},
    "acrnn": {"features": {"streams": ["log-mel"], "deltas": 2}, "encoder": {"name": "acrnn", "width": 8, "cells": 8}},
    "crnn": {"features": {"deltas": 1}, "encoder": {"name": "crnn", "channels": [4, 8], "width": 8, "dim": 8}},
    "cnn": {"features": {"deltas": 2}, "encoder": {"channels": [4, 8]}},
}


def recipe_of(name: str, **sections):
    """A recipe for small models with a hop of 16 ms, and further sections."""
    tables = {**RECIPES[name], **sections}
    tables["features"] = {**TINY["features"], "hop_ms": 16, **RECIPES[name]["features"]}
    return make_recipe({"split": TINY["split"], "emotion": TINY["emotion"], **tables})


def model_of(name: str):
    """An untrained model in evaluation mode, its batch norm with other statistics than the initial ones."""
    torch.manual_seed(0)
    model = build_model(recipe_of(name), LABELS)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean, std=0.3)
    return model.eval()


@pytest.mark.parametrize("name", RECIPES)
def test_a_clip_has_the_same_embedding_alone_in_a_batch_prepared_and_from_its_file(name, prepared_f0, folder):
    model = model_of(name)
    clips = [prepared_f0.clip(index) for index in CHOSEN]
    expected = np.concatenate([apply_to_clips(model, [clip]).embedding for clip in clips])
    files = [audio.read(folder / prepared_f0.utterances[index].source) for index in CHOSEN]
    assert np.abs(expected[0] - expected[1]).max() > 1e-3, "clips differ"
    assert_close(apply_to_clips(model, clips).embedding, expected, atol=1e-5, rtol=0)
    assert_close(apply_to_clips(model, files).embedding, expected, atol=1e-5, rtol=0)
    for gigabytes in (1.0, 0.0):
        dataset = open_dataset(prepared_f0, CHOSEN, LABELS, (), model.logmel, cache_gb=gigabytes)
        assert_close(apply_to_dataset(model, dataset).embedding, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_sources_yield_the_prosody_rows_after_the_log_mels(prepared_f0, gigabytes):
    recipe = recipe_of("prosody")
    logmel, bands = LogMel(recipe.features, SAMPLE_RATE), recipe.features.mels
    dataset = open_dataset(prepared_f0, CHOSEN, LABELS, (), logmel, cache_gb=gigabytes)
    ((rows, frames),) = dataset.read([np.array([1, 3])])
    stored = torch.from_numpy(prepared_f0.f0_batch([3, 60]))
    assert rows.shape[1] == bands + PROSODY_ROWS
    for row, count, f0 in zip(rows, frames.tolist(), stored, strict=True):
        expected = prosody_rows(row[None, :bands, :count], f0[None, :, :count], logmel.low_bands)[0]
        assert torch.equal(row[bands : bands + 2, :count], f0[:, :count])
        assert_close(row[bands:, :count], expected)


def test_the_layout_finds_each_stream_in_the_input():
    recipe = recipe_of("fusion", augment={"tempo": 0})
    features = recipe.features.model_copy(update={"absolute_f0": True})
    layout, frames = Layout.of(features), torch.tensor([30, 21])
    rows = torch.randn(2, features.mels + PROSODY_ROWS, 30)
    rows[:, -4:-2] = rows[:, -4:-2].abs() * torch.tensor([150.0, 1.0])[:, None]
    normalised = Normalise("utterance", features.mels)(rows, frames)
    x = encoder_input(rows, normalised, frames, features)
    assert x.shape == (2, layout.rows, 30) and layout.rows == 2 * 24 + len(CHANNELS) + 1
    mels = layout.log_mel(x)
    assert torch.equal(mels[:, 0], normalised)
    assert torch.allclose(mels[:, 1], 3 * deltas(normalised, frames), atol=1e-6)
    prosody = layout.prosody_rows(x)
    voiced = (rows[:, -3] >= 0.5) & (rows[:, -4] > 0)
    octaves = (rows[:, -4] / 100).log2()
    assert torch.allclose(prosody[0, -1], torch.where(voiced, octaves, 0)[0], atol=1e-6)
    assert not x[1, :, 21:].any(), "padding is 0"


def test_the_default_input_is_the_normalised_log_mel_itself():
    features, frames = recipe_of("cnn").features.model_copy(update={"deltas": 0}), torch.tensor([9])
    normalised = torch.randn(1, 24, 9)
    assert encoder_input(torch.randn(1, 24, 9), normalised, frames, features) is normalised


# Augmentation


def rows_with_prosody(bands=24, frames=(60, 41)):
    """Log-mels of noise; F0 that tells which frame a value is from, with an unvoiced part; confidence, level, tilt likewise."""
    torch.manual_seed(0)
    count, length = torch.tensor(frames), max(frames)
    time = torch.arange(length).float()
    f0 = torch.where((time > 10) & (time < 20), 0.0, 100 + time)
    prosody = torch.stack((f0, time / 100, time, -time)).expand(2, -1, -1)
    return torch.cat((torch.randn(2, bands, length), prosody), dim=1), count


@pytest.mark.parametrize("tempo", [0.8, 1.0, 1.37])
def test_tempo_takes_f0_from_the_nearest_frame(tempo):
    rows, frames = rows_with_prosody()
    factor = torch.tensor([tempo, tempo])
    mels, stretched_frames = stretch(rows[:, :-4], frames, factor)
    prosody = stretch_prosody(rows[:, -4:], frames, factor)
    assert prosody.shape[2] == mels.shape[2]
    assert torch.equal(prosody[:, :2], stretch_nearest(rows[:, -4:-2], frames, factor))
    for row, count in enumerate(stretched_frames.tolist()):
        values, wanted = prosody[row, 0, :count], torch.arange(count) * tempo
        assert set(values.tolist()) <= set(rows[row, -4].tolist()), "nothing between unvoiced and an F0"
        assert (100 * prosody[row, 1, :count] - wanted).abs().max() <= 0.5 + 1e-3
        assert_close(prosody[row, 2, :count], wanted.clamp_max(frames[row] - 1.0), atol=1e-3, rtol=0)
        assert torch.equal(prosody[row, 3, :count], -prosody[row, 2, :count])


def test_only_tempo_and_time_masks_change_prosody():
    keys = {"warp": 0.1, "equaliser_db": 3.0, "level_db": 5.0, "noise": 1.0, "frequency_masks": 2, "tempo": 0, "time_masks": 0}
    recipe = recipe_of("prosody", augment=keys)
    augment = Augment(recipe.augment, recipe.features)
    rows, frames = rows_with_prosody()
    before = rows.clone()
    changed, _ = augment(rows, frames, torch.rand(2, augment.columns))
    assert torch.equal(rows, before), "not in place"
    assert torch.equal(changed[:, -4:], rows[:, -4:])
    assert (changed[:, :-4] - rows[:, :-4]).abs().mean() > 0.1


def test_a_time_mask_hides_prosody_where_it_hides_the_log_mel():
    keys = dict.fromkeys(("warp", "equaliser_db", "frequency_masks", "tempo"), 0) | {"time_masks": 2, "time_mask_ms": 150}
    recipe = recipe_of("prosody", augment=keys)
    augment = Augment(recipe.augment, recipe.features)
    rows, frames = rows_with_prosody()
    changed, _ = augment(rows, frames, torch.full((2, augment.columns), 0.7))
    masked = (changed[:, :-4] != rows[:, :-4]).all(dim=1)
    assert masked.any(dim=1).all() and not masked.all(dim=1).any()
    prosody, before = changed[:, -4:].transpose(1, 2), rows[:, -4:].transpose(1, 2)
    assert not prosody[masked][:, :2].any(), "unvoiced"
    for row, count in enumerate(frames.tolist()):
        mean = before[row, :count, 2:].mean(dim=0)
        assert_close(prosody[row, masked[row], 2:], mean.expand(int(masked[row].sum()), 2))
    assert torch.equal(prosody[~masked], before[~masked])


def test_a_virtual_speaker_keeps_prosody_and_a_mix_keeps_that_of_the_clip():
    recipe, (rows, frames) = recipe_of("prosody"), rows_with_prosody()
    virtual = VirtualSpeakers(2, 1, 0, recipe.features, torch.device("cpu"))
    altered = virtual(rows, torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert torch.equal(altered[:, -4:], rows[:, -4:]) and not torch.allclose(altered[0, :-4], rows[0, :-4])
    weight, follows = torch.tensor([0.6, 0.5]), torch.tensor([False, False])
    mixed, _ = pair_up(rows, frames, rows.flip(0) + 1, frames.flip(0), weight, follows, bands=24)
    assert torch.equal(mixed[:, -4:], rows[:, -4:]) and not torch.allclose(mixed[:, :-4], rows[:, :-4])


def test_speaker_means_are_not_subtracted_from_prosody(prepared_f0):
    features = recipe_of("prosody").features.model_copy(update={"normalise": "speaker"})
    logmel = LogMel(features, SAMPLE_RATE)
    plain, relative = (
        open_dataset(prepared_f0, CHOSEN, LABELS, (), logmel, 1.0, subtract_speaker_means=subtracted)
        for subtracted in (False, True)
    )
    ((rows, _),), ((shifted, _),) = plain.read([np.arange(3)]), relative.read([np.arange(3)])
    assert torch.equal(rows[:, -4:], shifted[:, -4:]) and not torch.allclose(rows[:, :-4], shifted[:, :-4])
