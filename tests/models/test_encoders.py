"""One contract for every encoder: shape, padding that never reaches the embedding, a gradient everywhere."""

import numpy as np
import pytest
import torch
from checkpoints import describe_checkpoint

from speaker_invariant_ser.config import METHODS, make_recipe
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.encoder_registry import ENCODERS
from speaker_invariant_ser.models.encoders import AttentivePooling, SegmentPooling
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.models.recurrent_encoders import AttentionPooling, Bidirectional
from speaker_invariant_ser.recipe import FeaturesSection, Recipe
from speaker_invariant_ser.recipe_encoders import CnnSettings, EmotionSection, FusionSettings

FROZEN = {
    "cnn": 2,
    "image": 1,
    "prosody": 2,
    "crnn": 2,
    "acrnn": 1,
    "fusion": 4,
    "pretrained": 2,
}  # parameters that are not trained: biases that the next operation cancels
LAYOUTS = {
    "cnn": Layout(64),
    "image": Layout(64),
    "prosody": Layout(0, prosody=8),
    "crnn": Layout(32, deltas=1),
    "acrnn": Layout(64, deltas=2),
    "fusion": Layout(64, prosody=8),
    "pretrained": Layout(3 * 256),
}
CHECKPOINT = {}  # where the pre-trained encoder is
SETTINGS = ModelSettings(
    labels=("a", "b"), sample_rate=16000, features=FeaturesSection(), encoder=CnnSettings(), emotion=EmotionSection()
)


def encoder_of(name: str, **keys) -> torch.nn.Module:
    """Return an untrained encoder with its default settings, apart from `keys`."""
    return ENCODERS[name](LAYOUTS[name], METHODS["encoder"][name](**(CHECKPOINT if name == "pretrained" else {}), **keys))


@pytest.fixture(scope="module", autouse=True)
def pretrained(tmp_path_factory):
    CHECKPOINT["source"] = str(describe_checkpoint(tmp_path_factory.mktemp("checkpoints") / "any", hidden_size=256))


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
    encoder, rows = with_random_statistics(encoder_of(name)), LAYOUTS[name].rows
    clip = torch.randn(1, rows, frames)
    alone = encoder(clip, torch.tensor([frames]))
    batch = torch.zeros(3, rows, 130)
    batch[0, :, :frames] = clip
    batch[1:] = torch.randn(2, rows, 130)
    lengths = torch.tensor([frames, 130, 111])
    padded = encoder(batch * mask_of(lengths, 130)[:, None], lengths)
    assert alone.shape == (1, encoder.dim) == (1, sum(encoder.branch_dims)) and alone.isfinite().all()
    assert (padded[0] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ENCODERS)
def test_frame_level_features_are_the_input_of_pooling(name):
    torch.manual_seed(0)
    encoder = with_random_statistics(encoder_of(name))
    lengths = torch.tensor([90, 41, 1])
    batch = torch.randn(3, LAYOUTS[name].rows, 90) * mask_of(lengths, 90)[:, None]
    x, frames = encoder.frame_features(batch, lengths)
    assert x.shape == (3, encoder.frame_dim, frames.max()) and frames.tolist() == [-(-n // encoder.stride) for n in (90, 41, 1)]
    assert torch.equal(encoder.embed(x, frames), encoder(batch, lengths)), "the embedding depends on nothing else"
    assert not x[~mask_of(frames, x.shape[2])[:, None].expand_as(x)].any(), "padding is zero"


def test_frame_level_features_of_clips_are_in_their_order_and_without_padding():
    torch.manual_seed(0)
    model = with_random_statistics(SerModel(SETTINGS))
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
    model = with_random_statistics(SerModel(SETTINGS))
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
    encoder = encoder_of(name, dropout=0.0)
    mels, frames = torch.randn(4, LAYOUTS[name].rows, 50), torch.tensor([50, 40, 30, 20])
    mels = mels * mask_of(frames, 50)[:, None]
    before = encoder(mels, frames)
    before.square().mean().backward()
    frozen = [parameter for parameter in encoder.parameters() if not parameter.requires_grad]
    assert name in FROZEN, f"add the number of frozen parameters of {name} to FROZEN in {__file__}"
    assert len(frozen) == FROZEN[name] and sum(1 for _ in encoder.parameters()) > 8
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
    model = SerModel(SETTINGS.model_copy(update={"labels": labels}))
    shapes = [tuple(layer.weight.shape) for layer in model.head if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(64, 128), (5, 64)]
    assert (model.logmel.mel.win_length, model.logmel.hop, model.logmel.mel.n_mels) == (400, 160, 64)


def test_an_unknown_encoder_is_refused_with_the_allowed_names():
    with pytest.raises(
        RecipeError, match=r"unknown encoder.name 'cn', did you mean 'cnn'\? Expected one of: cnn, image, prosody"
    ):
        make_recipe({"encoder": {"name": "cn"}})


@pytest.mark.parametrize("name", ENCODERS)
def test_the_default_size_is_small(name):
    """Trainable with two cores and some hundred utterances."""
    parameters = sum(parameter.numel() for parameter in encoder_of(name).parameters())
    assert 50_000 <= parameters <= 1_500_000


def test_deltas_are_further_input_channels():
    encoder = ENCODERS["cnn"](Layout(64, deltas=2), CnnSettings())
    assert encoder.stages[0].convolution.in_channels == 3
    assert encoder_of("cnn").stages[0].convolution.in_channels == 1


def test_a_bidirectional_layer_reads_each_clip_backwards_from_its_own_end():
    """The backward half of an utterance is the forward half of the reversed utterance, with the same weights."""
    torch.manual_seed(0)
    layer = Bidirectional(3, 4)
    layer.back.load_state_dict(layer.ahead.state_dict())
    x, frames = torch.randn(2, 3, 9), torch.tensor([9, 5])
    y = layer(x, frames)
    mirrored = layer(x[1:, :, :5].flip(2), torch.tensor([5]))
    assert torch.allclose(y[1, 4:, :5].flip(1), mirrored[0, :4], atol=1e-6)
    assert not y[1, :, 5:].any()


def test_attention_pooling_of_a_constant_is_the_constant_whatever_is_in_the_padding():
    x = torch.full((1, 3, 9), 2.0)
    x[:, :, 5:] = 100
    assert torch.allclose(AttentionPooling(3)(x, torch.tensor([5])), torch.tensor(2.0))


@pytest.mark.parametrize("log_mel", ["crnn", "cnn", "acrnn"])
def test_a_branch_of_the_fusion_does_not_depend_on_the_other_stream(log_mel):
    torch.manual_seed(0)
    layout, frames = LAYOUTS["fusion"], torch.tensor([40, 23])
    encoder = with_random_statistics(ENCODERS["fusion"](layout, FusionSettings(log_mel=log_mel)))
    x = torch.randn(2, layout.rows, 40) * mask_of(frames, 40)[:, None]
    first, second = encoder.branch_dims
    other_prosody, other_mels = x.clone(), x.clone()
    layout.prosody_rows(other_prosody).mul_(2)
    other_mels[:, : layout.bands].mul_(2)
    before = encoder(x, frames)
    assert torch.equal(encoder(other_prosody, frames)[:, :first], before[:, :first])
    assert torch.equal(encoder(other_mels, frames)[:, first:], before[:, first:]) and second == 64
    assert not torch.allclose(encoder(other_prosody, frames)[:, first:], before[:, first:], atol=1e-3)


def test_the_prediction_of_the_fusion_is_the_mean_of_both_classifiers_log_probabilities():
    torch.manual_seed(0)
    recipe = make_recipe(
        {"features": {"streams": ["log-mel", "prosody"], "hop_ms": 16, "mels": 24}, "encoder": {"name": "fusion", "dim": 8}}
    )
    settings = SETTINGS.model_copy(update={"features": recipe.features, "encoder": recipe.encoder})
    model = with_random_statistics(SerModel(settings))
    output = model(0.1 * torch.randn(2, 9001), torch.tensor([9001, 5000]))
    assert output.branch_logits.shape == (2, 2, 2) and output.embedding.shape == (2, 16)
    assert torch.allclose(output.logits, output.branch_logits.log_softmax(dim=2).mean(dim=1), atol=1e-6)
    own = model.head.classifiers[1](output.embedding[:, 8:])
    assert torch.allclose(output.branch_logits[:, 1], own, atol=1e-6)


@pytest.mark.parametrize(
    "tables, message",
    [
        ({"encoder": {"name": "prosody"}}, r'features.streams = \["log-mel"\]: expected features.streams = \["prosody"\]'),
        ({"features": {"streams": ["prosody"]}}, r"features.hop_ms = 10 .* expected features.hop_ms = 16"),
        ({"features": {"streams": ["prosody"], "hop_ms": 16}}, r"encoder.name = cnn with features.streams = \[\"prosody\"\]"),
        ({"features": {"streams": ["log-mel", "log-mel"]}}, "expected each stream once"),
        ({"features": {"streams": []}}, "features.streams"),
        ({"features": {"absolute_f0": True}}, 'features.absolute_f0 = true .* channel of the stream "prosody"'),
        ({"features": {"streams": ["prosody"], "hop_ms": 16, "deltas": 1}}, "features.deltas = 1"),
        ({"features": {"streams": ["prosody"], "hop_ms": 16, "front": "pixels"}}, "images have no prosody"),
        (
            {"features": {"front": "pixels"}, "encoder": {"name": "crnn"}},
            r"encoder.name = crnn with features.front.*image or cnn",
        ),
    ],
)
def test_streams_that_do_not_fit_are_refused(tables, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(tables)


@pytest.mark.parametrize("tables", [{"augment": {"concatenate": 0.2}}, {"perturb": {"name": "vat"}}])
def test_what_f0_has_no_meaning_in_is_refused_with_prosody(tables):
    prosody = {"features": {"streams": ["prosody"], "hop_ms": 16}, "encoder": {"name": "prosody"}}
    with pytest.raises(RecipeError, match='with the stream "prosody"'):
        make_recipe({**prosody, **tables})
    assert make_recipe(prosody) != Recipe()
