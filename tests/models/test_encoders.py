"""One contract for every encoder: shape, padding that never reaches the embedding, a gradient everywhere."""

import numpy as np
import pytest
import torch

from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.encoders import ENCODERS, AttentivePooling, SegmentPooling
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.recipe import EmotionSection, EncoderSection, FeaturesSection

FROZEN = {"cnn": 2, "image": 1}  # number of parameters excluded from training: biases that the next operation cancels


def with_random_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module in evaluation mode, with batch norm statistics that are not the initial ones."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            torch.nn.init.normal_(part.running_mean, std=0.5)
            torch.nn.init.uniform_(part.running_var, 0.5, 2)
            torch.nn.init.normal_(part.bias)
    return module.eval()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("frames", [1, 2, 7, 64, 99])
def test_the_same_clip_alone_or_padded_gives_the_same_embedding(name, frames):
    torch.manual_seed(frames)
    encoder = with_random_statistics(ENCODERS[name](64, EncoderSection()))
    clip = torch.randn(1, 64, frames)
    alone = encoder(clip, torch.tensor([frames]))
    batch = torch.zeros(3, 64, 130)
    batch[0, :, :frames] = clip
    batch[1:] = torch.randn(2, 64, 130)
    lengths = torch.tensor([frames, 130, 111])
    padded = encoder(batch * mask_of(lengths, 130)[:, None], lengths)
    assert alone.shape == (1, encoder.dim) == (1, 128)
    assert (padded[0] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ENCODERS)
def test_frame_level_features_are_the_input_of_pooling(name):
    torch.manual_seed(0)
    encoder = with_random_statistics(ENCODERS[name](64, EncoderSection()))
    lengths = torch.tensor([90, 41, 1])
    batch = torch.randn(3, 64, 90) * mask_of(lengths, 90)[:, None]
    x, frames = encoder.frame_features(batch, lengths)
    assert x.shape[0] == 3 and x.ndim == 3 and x.shape[2] == frames.max() and (frames >= 1).all()
    assert not x[~mask_of(frames, x.shape[2])[:, None].expand_as(x)].any(), "padding is zero"
    assert isinstance(getattr(encoder, "pool", None), torch.nn.Module), f"{name} needs the attribute `pool`, its pooling module"
    pooled = []
    encoder.pool.register_forward_pre_hook(lambda _, inputs: pooled.extend(inputs))
    encoder(batch, lengths)
    assert torch.equal(pooled[0], x) and torch.equal(pooled[1], frames)


def test_frame_level_features_of_clips_are_in_their_order_and_without_padding():
    torch.manual_seed(0)
    settings = ModelSettings(
        labels=("a", "b"), sample_rate=16000, features=FeaturesSection(), encoder=EncoderSection(), emotion=EmotionSection()
    )
    model = with_random_statistics(SerModel(settings))
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (16000, 400, 9001, 32000, 8000)]
    features = apply_to_clips(model, clips, batch_size=2, frame_features=True).frame_features
    assert [clip_features.shape for clip_features in features] == [(512, -(-(1 + len(clip) // 160) // 4)) for clip in clips]
    assert all(clip_features.dtype == np.float16 and clip_features.base is None for clip_features in features)
    for clip_features, clip in zip(features, clips, strict=True):
        (alone,) = apply_to_clips(model, [clip], frame_features=True).frame_features
        assert np.allclose(clip_features.astype(float), alone.astype(float), atol=2e-2) and clip_features.any()


def test_the_same_audio_alone_or_padded_gives_the_same_embedding(tiny):
    torch.manual_seed(0)
    settings = ModelSettings(
        labels=("a", "b"), sample_rate=16000, features=FeaturesSection(), encoder=EncoderSection(), emotion=EmotionSection()
    )
    model = with_random_statistics(SerModel(settings))
    clip = 0.1 * torch.randn(1, 9001)
    other = 0.1 * torch.randn(1, 20000)
    alone = model(clip, torch.tensor([9001]))
    batch = torch.cat([torch.nn.functional.pad(clip, (0, 10999)), other])
    padded = model(batch, torch.tensor([9001, 20000]))
    assert (padded.embedding[0] - alone.embedding[0]).abs().max() < 1e-5
    assert padded.logits.shape == (2, 2)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_trained_parameter_has_a_gradient(name):
    """Frozen parameters have no effect on the output in training."""
    torch.manual_seed(0)
    encoder = ENCODERS[name](64, EncoderSection(dropout=0.0))
    mels, frames = torch.randn(4, 64, 50), torch.tensor([50, 40, 30, 20])
    before = encoder(mels, frames)
    before.square().mean().backward()
    frozen = [parameter for parameter in encoder.parameters() if not parameter.requires_grad]
    assert name in FROZEN, f"add the number of frozen parameters of {name} to FROZEN in {__file__}"
    assert len(frozen) == FROZEN[name] and sum(1 for _ in encoder.parameters()) > 10
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in encoder.parameters() if weight.requires_grad)
    for parameter in frozen:
        parameter.add_(torch.randn_like(parameter))
    assert torch.allclose(encoder(mels, frames), before, atol=1e-4)


def test_attentive_pooling_of_a_constant_is_the_constant_with_deviation_0():
    pool = AttentivePooling(3)
    mean, deviation = pool(torch.full((1, 3, 9), 2.0), torch.tensor([5])).chunk(2, dim=1)
    assert torch.allclose(mean, torch.tensor(2.0)) and deviation.max() < 0.01


@pytest.mark.parametrize("frames", [1, 3, 4, 6, 8, 11])
def test_segment_pooling_returns_the_mean_of_each_segment(frames):
    """Compared with frames repeated until segments are whole numbers of frames; padding has no effect."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, frames)
    padded = torch.cat((x, torch.full((2, 3, 5), 100.0)), dim=2)
    expected = x.repeat_interleave(4, dim=2).unflatten(2, (4, frames)).mean(dim=3).flatten(1)
    assert torch.allclose(SegmentPooling(3)(padded, torch.tensor([frames, frames])), expected, atol=1e-5)


def test_segment_pooling_distinguishes_a_mirrored_image():
    """Mean and deviation over the columns do not."""
    torch.manual_seed(0)
    image, frames = torch.randn(1, 3, 8), torch.tensor([8])
    mirrored = image.flip(2)
    assert (SegmentPooling(3)(image, frames) - SegmentPooling(3)(mirrored, frames)).abs().max() > 0.1
    pool = AttentivePooling(3)
    assert torch.allclose(pool(image, frames), pool(mirrored, frames), atol=1e-5)


def test_the_default_model_has_the_documented_shapes():
    labels = ("angry", "fearful", "happy", "neutral", "sad")
    settings = ModelSettings(
        labels=labels, sample_rate=16000, features=FeaturesSection(), encoder=EncoderSection(), emotion=EmotionSection()
    )
    model = SerModel(settings)
    shapes = [tuple(layer.weight.shape) for layer in model.head if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(64, 128), (5, 64)]
    assert (model.logmel.mel.win_length, model.logmel.hop, model.logmel.mel.n_mels) == (400, 160, 64)


def test_an_unknown_encoder_is_refused_with_the_allowed_names():
    settings = ModelSettings(
        labels=("a", "b"),
        sample_rate=16000,
        features=FeaturesSection(),
        encoder=EncoderSection(name="cn"),
        emotion=EmotionSection(),
    )
    with pytest.raises(RecipeError, match=r"unknown encoder.name 'cn'.*cnn"):
        SerModel(settings)
