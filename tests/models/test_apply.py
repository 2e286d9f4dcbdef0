"""Applying a model to audio and to datasets: the same outputs, in the order of the utterances."""

import numpy as np
import pytest
import torch
from helpers import model_of, section

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.speaker_means import SpeakerMeans, compute_speaker_means, mean_log_mel
from speaker_invariant_ser.models.apply import apply_to_clips, apply_to_dataset
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.recipe import FeaturesSection

CHOSEN = [40, 3, 17, 60, 61, 5]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_audio_and_dataset_give_the_same_outputs_in_their_order(trained, prepared, batch_size):
    model = load_model(trained.model_specs[0].folder)
    dataset = open_dataset(prepared, CHOSEN, model.labels, (), model.logmel, cache_gb=1.0)
    from_audio = apply_to_clips(model, [prepared.clip(index) for index in CHOSEN], batch_size=batch_size)
    from_dataset = apply_to_dataset(model.train(), dataset, batch_size)
    assert not model.training
    for name in ("embedding", "logits", "probability", "rate", "bottleneck"):
        assert np.allclose(getattr(from_audio, name), getattr(from_dataset, name), atol=1e-4), name
    for row, index in enumerate(CHOSEN):
        single = apply_to_clips(model, [prepared.clip(index)])
        assert np.allclose(from_audio.embedding[row], single.embedding[0], atol=1e-4)
        assert np.allclose(from_audio.probability[row], single.probability[0], atol=1e-4)
    assert len(np.unique(from_audio.embedding.round(3), axis=0)) == len(CHOSEN), "all different, so order matters"


def test_clips_of_any_length_reach_the_network_in_few_widths(monkeypatch):
    """Kernels for every width would stay in memory."""
    model, widths = model_of(), set()
    original = model.from_mels
    monkeypatch.setattr(model, "from_mels", lambda mels, *rest: (widths.add(mels.shape[2]), original(mels, *rest))[1])
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000).astype(np.float32)
    lengths = range(8_000, 16_000, 160)
    embedding = apply_to_clips(model, [noise[:length] for length in lengths], batch_size=1).embedding
    assert len(embedding) == 50 and 3 <= len(widths) <= 6
    assert len(np.unique(embedding.round(4), axis=0)) == 50


def test_no_audio_gives_empty_outputs():
    outputs = apply_to_clips(model_of(), [], frame_features=True)
    assert outputs.embedding.shape == (0, 12) and outputs.probability.shape == (0, 3) and outputs.frame_features == []


def test_the_bottleneck_output_is_before_eraser_and_release():
    model = model_of(release=section("release", name="noise", sigma=3.0))
    model.release.fit(torch.randn(500, 12))
    outputs = apply_to_clips(model, [np.random.default_rng(0).uniform(-0.3, 0.3, 4000).astype(np.float32)])
    plain = apply_to_clips(model_of(), [np.random.default_rng(0).uniform(-0.3, 0.3, 4000).astype(np.float32)])
    assert np.array_equal(outputs.bottleneck, plain.embedding) and not np.allclose(outputs.embedding, plain.embedding, atol=0.5)


def test_speaker_means_are_subtracted_from_each_clips_log_mel(prepared):
    """Means are required with features.normalise = "speaker" and refused otherwise."""
    model, plain = model_of(features=FeaturesSection(mels=24, normalise="speaker")), model_of()
    speakers = [prepared.utterances[index].speaker for index in CHOSEN]
    means = compute_speaker_means(prepared, model.logmel, set(speakers))
    clips = [prepared.clip(index) for index in CHOSEN]
    embedding = apply_to_clips(model, clips, means.of(speakers), batch_size=2).embedding
    dataset = open_dataset(prepared, CHOSEN, ("falling", "level", "rising"), (), model.logmel, 1.0, subtract_speaker_means=True)
    assert np.allclose(embedding, apply_to_dataset(model, dataset).embedding, atol=1e-4)
    shuffled = apply_to_clips(model, clips, means.of(speakers[1:] + speakers[:1]), batch_size=2).embedding
    assert not np.allclose(embedding, shuffled, atol=1e-3)
    with pytest.raises(RunError, match="normalise = speaker needs the mean log-mel of each utterance's speaker"):
        apply_to_clips(model, clips)
    with pytest.raises(RunError, match="takes no speaker means"):
        apply_to_clips(plain, clips, means.of(speakers))


def test_the_mean_of_one_speakers_recordings_is_that_speakers_mean(prepared):
    logmel = model_of().logmel
    clips = [prepared.clip(index) for index, utterance in enumerate(prepared.utterances) if utterance.speaker == "05"]
    mean = mean_log_mel(logmel, [clips[:5], clips[5:]])
    assert np.allclose(mean, compute_speaker_means(prepared, logmel, ["05"])["05"].numpy(), atol=1e-4)
    assert not mean_log_mel(logmel, []).any()


def test_an_unknown_speaker_has_no_mean():
    with pytest.raises(KeyError, match="c"):
        SpeakerMeans(["a", "b"], torch.zeros(2, 4)).of(["a", "c"])
