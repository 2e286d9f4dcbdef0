"""Noise as a function of the utterance, and the releases."""

import numpy as np
import pytest
import torch
from helpers import model_of, section
from scipy import stats

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models.release import RELEASES, content_noise, mel_noise


def random_audio(seed=0):
    rng, samples = np.random.default_rng(seed), torch.tensor([900, 400, 1600])
    audio = torch.from_numpy(rng.uniform(-0.5, 0.5, (3, 1600))).float()
    return audio * mask_of(samples, 1600), samples


def test_noise_is_the_same_again_alone_or_padded_in_any_order():
    audio, samples = random_audio()
    noise = content_noise(audio, samples, 7)
    assert noise.shape == (2, 3, 7) and torch.equal(noise, content_noise(audio, samples, 7))
    order = torch.tensor([2, 0, 1])
    assert torch.equal(content_noise(audio[order], samples[order], 7), noise[:, order])
    for row, count in enumerate(samples.tolist()):
        alone = content_noise(audio[row : row + 1, :count], samples[row : row + 1], 7)
        assert torch.equal(alone, noise[:, row : row + 1])


def test_any_change_of_the_16_bit_samples_changes_the_noise():
    audio, samples = random_audio()
    changed = audio.clone()
    changed[0, 5] += 1 / 32768
    changed[1, 399] += 0.2 / 32768 * (1 if (audio[1, 399] * 32768).frac().abs() < 0.25 else 0)  # rounds to the same sample
    noise, other = content_noise(audio, samples, 500), content_noise(changed, samples, 500)
    assert (noise[:, 0] - other[:, 0]).abs().mean() > 0.5 and torch.equal(noise[:, 1:], other[:, 1:])
    rows = noise.transpose(0, 1).flatten(0, 1)
    assert (torch.corrcoef(rows) - torch.eye(6)).abs().max() < 0.2, (
        "uncorrelated between utterances, and between bottleneck and release"
    )


def test_noise_from_log_mels_is_deterministic_in_evaluation_and_drawn_in_training():
    """Scores of dev speakers must not depend on what was drawn before."""
    torch.manual_seed(0)
    mels, frames = torch.randn(3, 8, 50), torch.tensor([50, 20, 40])
    noise, before = mel_noise(mels, frames, 7), torch.get_rng_state()
    alone = mel_noise(mels[1:2, :, :20], frames[1:2], 7)
    assert torch.equal(alone, noise[:, 1:2]) and (noise[:, 0] - noise[:, 2]).abs().mean() > 0.5
    model = model_of(bottleneck=section("bottleneck", name="vib"))
    mels, frames = torch.randn(3, 24, 50), torch.tensor([50, 20, 40])
    first, second = (model.from_mels(mels, frames).embedding for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(model.train().from_mels(mels, frames).embedding, first)
    assert not torch.equal(torch.get_rng_state(), before), "drawn in training"


def test_the_noise_is_standard_normal():
    audio, samples = random_audio()
    assert stats.kstest(content_noise(audio, samples, 5000).flatten().numpy(), "norm").pvalue > 0.01


def test_noise_is_the_same_in_every_version():
    """The noise of a released embedding must not change with the version of a library."""
    noise = content_noise(torch.tensor([[0.0, 0.5, -0.25]]), torch.tensor([3]), 2)
    assert noise.flatten().tolist() == pytest.approx(GOLDEN, abs=1e-6)


GOLDEN = [-0.15349998, 1.34693122, 0.12703247, 0.89341474]


def release(name, dim=6, **settings):
    return RELEASES[name](dim, section("release", name=name, **settings), 3).eval()


def embeddings_of_unequal_scale(utterances=4000, dim=6):
    torch.manual_seed(0)
    return 5 + torch.randn(utterances, dim) * torch.logspace(-1, 2, dim)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_noise_of_standard_deviation_sigma_is_added_to_standardised_embeddings(sigma):
    x, noise = embeddings_of_unequal_scale(), torch.randn(4000, 6)
    fitted, quiet = release("noise", sigma=sigma), release("noise", sigma=0.0)
    assert torch.equal(fitted(x, noise), x), "unchanged before the statistics are fitted"
    for module in (fitted, quiet):
        module.fit(x)
    plain, released = quiet(x, noise), fitted(x, noise)
    assert torch.allclose(plain.mean(dim=0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(plain.std(dim=0), torch.ones(6), atol=1e-3)
    assert torch.allclose((released - plain).std(dim=0), torch.full((6,), sigma), rtol=0.05)
    assert torch.allclose(released, plain + sigma * noise, atol=1e-5)


def test_embedding_again_does_not_average_the_noise_out_as_it_would_with_drawn_noise():
    (audio, samples), x = random_audio(), embeddings_of_unequal_scale(3)
    fitted = release("noise")
    fitted.fit(embeddings_of_unequal_scale())
    clean = fitted(x, torch.zeros_like(x))

    def error_of_the_mean(noises):
        return (torch.stack([fitted(x, noise) for noise in noises]).mean(dim=0) - clean).square().mean().sqrt().item()

    once = error_of_the_mean([content_noise(audio, samples, 6)[1]])
    assert error_of_the_mean([content_noise(audio, samples, 6)[1] for _ in range(100)]) == pytest.approx(once)
    assert error_of_the_mean([None] * 100) < 0.3 * once, "drawn again each time"


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_quantised_embeddings_are_multiples_of_the_step_without_negative_zero(step):
    fitted, x = release("quantise", step=step), embeddings_of_unequal_scale()
    fitted.fit(x)
    released, plain = fitted(x), fitted.norm(x)
    assert torch.equal(released, (released / step).round() * step) and (released - plain).abs().max() <= step / 2 + 1e-5
    assert (released == 0).float().mean() > 0.02 and not torch.signbit(released[released == 0]).any()
    assert len(released.unique()) < 100 < len(plain.unique())


@pytest.mark.parametrize("name", ["noise", "quantise"])
def test_the_release_acts_in_training_only_with_in_training(name):
    x = embeddings_of_unequal_scale(50).requires_grad_()
    assert release(name).train()(x) is x
    trained = release(name, in_training=True, **({"sigma": 0.0} if name == "noise" else {"step": 1e-4})).train()
    released = trained(x)
    assert torch.allclose(released.std(dim=0), torch.ones(6), atol=0.06), "with the statistics of the batch"
    (released * torch.randn(50, 6)).sum().backward()
    assert x.grad.abs().sum() > 0 and trained.norm.running_mean.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_a_nearly_constant_dimension_is_not_amplified():
    x = torch.cat((torch.randn(100, 1), 3 + 1e-5 * torch.randn(100, 1)), dim=1)
    fitted = release("noise", dim=2, sigma=0.0)
    fitted.fit(x)
    released = fitted(x)
    assert released[:, 0].std().item() == pytest.approx(1, abs=0.02) and released[:, 1].std() < 1e-3


def trained_codes(cells=8, utterances=64, dim=6, share_done=0.0):
    """Return a release in training whose codes have been moved to embeddings, and the embeddings [N, D]."""
    torch.manual_seed(0)
    module, x = release("codes", dim=dim, cells=cells).train(), torch.randn(utterances, dim)
    module.after_step(x, share_done)
    return module, x


def test_what_leaves_the_model_is_the_nearest_code_to_the_last_bit():
    module, x = trained_codes()
    codes, expected = module.codes, torch.cdist(x, module.codes).argmin(dim=1)
    assert torch.equal(module.eval()(x), codes[expected]) and torch.equal(module.code(x), expected)
    assert len(expected.unique()) > 4, "or nothing was tested"
    tied = codes[:1].clone()
    with torch.no_grad():
        codes[[2, 5]] = tied
    assert module.code(tied).item() == 0, "of equal ones the first"
    with torch.no_grad():
        codes[0] += 1
    assert module.code(tied).item() == 2


def test_in_training_codes_follow_their_embeddings_and_hand_on_the_gradient():
    module, x = trained_codes()
    released, direction = module(x.requires_grad_()), torch.randn(64, 6)
    assert torch.allclose(released, module.codes[module.code(x)], atol=1e-6)
    assert torch.equal(torch.autograd.grad((released * direction).sum(), x)[0], direction), "straight-through"
    for _ in range(300):
        module.after_step(x.detach(), 0.9)
    code = module.code(x)
    means = torch.stack([x[code == number].mean(dim=0) for number in range(8)])
    assert torch.allclose(module.codes, means, atol=1e-4), "a fixed point of k-means"


def test_codes_of_no_utterance_are_moved_to_utterances_of_the_batch_until_half_of_training():
    module, x = trained_codes(cells=8)
    rows = [(x == code).all(dim=1).nonzero().flatten().tolist() for code in module.codes]
    assert rows == [[4], [12], [20], [28], [36], [44], [52], [60]], "all at first, evenly spread over the batch"
    for share_done in (0.2, 0.6):
        module.codes[3] = 100.0
        for _ in range(40):
            module.after_step(x, share_done)
        assert (module.codes[3] == 100).all().item() == (share_done > 0.5) and module.codes[[0, 1, 2, 4, 5, 6, 7]].max() < 5
    assert module.used.tolist() == [number != 3 for number in range(8)] and module.columns()["codes_used"] == 7
    few, x = trained_codes(cells=64, utterances=10)
    assert int((few.usage > 0).sum()) >= 10, "more codes than utterances: the rest are moved by the next batches"


def test_the_perplexity_is_that_of_the_codes_shares_and_one_where_they_collapse():
    module, x = trained_codes(cells=8)
    for _ in range(200):
        module.after_step(x, 0.9)
    share = torch.bincount(module.code(x), minlength=8) / 64
    assert module.columns()["codes_perplexity"] == pytest.approx(torch.special.entr(share).sum().exp().item(), rel=1e-3)
    for _ in range(200):
        module.after_step(x[:1].expand(64, 6), 0.9)
    assert module.columns() == {"codes_used": 1, "codes_perplexity": pytest.approx(1, abs=1e-3)}


def decisions(weight):
    """Return a linear classifier [D] -> [C] with these weights, as a function."""
    return lambda x: x @ torch.tensor(weight).T


def test_only_the_decision_of_the_classifier_leaves_the_model():
    """The code is the mean of what is classified alike; the classifier decides on it as on the embedding."""
    torch.manual_seed(0)
    module, x, classify = release("decision", dim=2), torch.randn(500, 2), decisions([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    assert torch.equal(module(x, None, classify), x), "before the codes are fitted"
    module.fit(x, classify)
    decided, released = classify(x).argmax(dim=1), module(x, None, classify)
    assert torch.equal(module.code(x, classify), decided) and len(released.unique(dim=0)) == 3
    for emotion in range(3):
        assert torch.allclose(module.codes[emotion], x[decided == emotion].mean(dim=0), atol=1e-6)
    assert torch.equal(classify(released).argmax(dim=1), decided)
    assert module.train()(x, None, classify) is x, "training is that of the model without it"


def test_the_code_of_an_emotion_without_a_typical_utterance_is_the_most_probable_one():
    module, x = release("decision", dim=1), torch.tensor([[-3.0], [-2.0], [0.1], [2.0], [3.0]])
    module.fit(x, lambda x: torch.cat((x.abs() - 1, 0 * x, x - 100), dim=1))
    assert module.codes[0].item() == -3, "the mean of -3, -2, 2 and 3 is classified as the second emotion"
    assert module.codes[1].item() == pytest.approx(0.1) and module.codes[2].item() == 3, "never the third: its most probable"
