"""Adversarial perturbations: their norm, direction and padding, and that computing them leaves the model unchanged."""

import pytest
import torch
import torch.nn.functional as F
from helpers import section

from speaker_invariant_ser.adversaries.discriminators import GradientReversal
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models import encoders
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import CnnSettings, EmotionSection
from speaker_invariant_ser.training.adversarial_examples import (
    PERTURBATIONS,
    PerturbationInput,
    kl_divergence,
    preserve_statistics,
    scale_to_norm,
)
from speaker_invariant_ser.training.objective import Objective

FRAMES = torch.tensor([40, 33, 40, 17, 28, 9, 40, 36])
EMOTION = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
SPEAKER = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
EPSILON = 5.0


class Setting:
    """A model, a batch of 8 utterances and a speaker classifier, reproducible for a seed."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        encoder = CnnSettings(channels=(8, 12, 16), dim=16, dropout=dropout)
        sections = {"features": FeaturesSection(), "encoder": encoder, "emotion": EmotionSection(dropout=dropout)}
        self.model = SerModel(ModelSettings(labels=("a", "b", "c"), sample_rate=16000, **sections)).train()
        self.classifier = torch.nn.Linear(16, 4)
        self.mels = (torch.randn(8, 64, 40) * mask_of(FRAMES, 40)[:, None] - 3).requires_grad_()
        torch.manual_seed(100 + seed)  # of dropout
        self.output = self.forward(self.mels)

    def forward(self, mels):
        return self.model.from_mels(mels, FRAMES)

    def emotion_losses(self, output):
        return F.cross_entropy(output.logits, EMOTION, reduction="none")

    def speaker_losses(self, output):
        return F.cross_entropy(self.classifier(output.embedding), SPEAKER, reduction="none")

    def perturbation(self, name, epsilon=EPSILON):
        emotion, speaker = mean_of(self.emotion_losses), mean_of(self.speaker_losses)
        return PERTURBATIONS[name](PerturbationInput(self.forward, self.mels, FRAMES, self.output, emotion, speaker, epsilon))

    def random_perturbation(self, epsilon=EPSILON):
        return scale_to_norm(torch.randn_like(self.mels), FRAMES, epsilon)

    @torch.no_grad()
    def at(self, perturbation):
        """The model's output for perturbed inputs; batch norm as in training."""
        return self.forward(self.mels + perturbation)

    @property
    def buffers(self):
        return {name: buffer.clone() for name, buffer in self.model.named_buffers()}

    @property
    def gradients(self):
        return {name: parameter.grad for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def mean_of(losses):
    return lambda output: losses(output).mean()


def norms(perturbation):
    return perturbation.flatten(1).double().norm(dim=1)


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_perturbation_has_norm_epsilon_and_is_zero_in_padding(name):
    setting = Setting()
    perturbation = setting.perturbation(name)
    assert perturbation.shape == setting.mels.shape and not perturbation.requires_grad
    assert (norms(perturbation) / EPSILON - 1).abs().max() < 1e-5
    padding = ~mask_of(FRAMES, 40)[:, None].expand_as(perturbation)
    assert not perturbation[padding].any() and perturbation[~padding].count_nonzero() > 0.9 * (~padding).sum()
    assert not setting.perturbation(name, epsilon=0.0).any()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_computing_a_perturbation_changes_no_gradient_and_no_statistic(name):
    """With dropout, as in training."""
    alone, perturbed = Setting(dropout=0.2), Setting(dropout=0.2)
    with preserve_statistics(perturbed.model):
        perturbation = perturbed.perturbation(name)
    assert (
        perturbation.any() and all(gradient is None for gradient in perturbed.gradients.values()) and perturbed.mels.grad is None
    )
    assert all(parameter.grad is None for parameter in perturbed.classifier.parameters())
    for setting in (alone, perturbed):
        setting.emotion_losses(setting.output).mean().backward()
    assert are_equal(alone.gradients, perturbed.gradients) and any(gradient.any() for gradient in alone.gradients.values())
    assert are_equal(alone.buffers, perturbed.buffers)


def test_without_preserve_statistics_a_pass_changes_them():
    """The previous test would fail without preserve_statistics."""
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        setting.perturbation("vat")
        during = setting.buffers
    assert are_equal(before, setting.buffers) and not are_equal(before, during)
    setting.perturbation("vat")
    after = setting.buffers
    counters = [name for name in after if name.endswith("num_batches_tracked")]
    assert counters and all(after[name] == before[name] + 2 == 3 for name in counters)
    assert all(not torch.equal(after[name], before[name]) for name in after if "running" in name)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_both_passes_have_gradients_and_one_updates_the_statistics(name):
    """The backward pass of the first goes through layers that a second pass has used since."""
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        output = setting.forward(setting.mels.detach() + setting.perturbation(name))
    first, second = (setting.emotion_losses(result).mean() for result in (setting.output, output))
    (first + 0.5 * second).backward()
    assert are_equal(before, setting.buffers)
    both = setting.gradients
    plain = Setting()
    plain.emotion_losses(plain.output).mean().backward()
    assert both.keys() == plain.gradients.keys()
    assert all(gradient.isfinite().all() for gradient in both.values()) and not are_equal(both, plain.gradients)


def test_statistics_of_shared_batch_norm_are_preserved(monkeypatch):
    """One process that acts as one of several: its batch norm updates the statistics in place."""
    monkeypatch.setattr(encoders, "is_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: None)
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        output = setting.forward(setting.mels.detach() + setting.perturbation("vat"))
        assert not are_equal(before, setting.buffers)
    assert are_equal(before, setting.buffers)
    (setting.emotion_losses(setting.output) + setting.emotion_losses(output)).mean().backward()
    assert all(gradient.isfinite().all() for gradient in setting.gradients.values())


def test_statistics_are_restored_after_an_error():
    setting = Setting()
    before = dict(setting.model.named_buffers())
    with pytest.raises(ZeroDivisionError), preserve_statistics(setting.model):
        raise ZeroDivisionError
    assert all(buffer is before[name] for name, buffer in setting.model.named_buffers()), "the very same objects"


def test_a_zero_or_non_finite_gradient_gives_no_perturbation():
    good = torch.randn(1, 4, 6)
    nan, infinite, tiny, huge = (good.clone() for _ in range(4))
    nan[0, 1, 2], infinite[0, 3, 0] = torch.nan, -torch.inf
    gradient = torch.cat((good, nan, infinite, 0 * good, 1e-30 * tiny, 1e30 * huge))
    perturbation = scale_to_norm(gradient, torch.full((6,), 6), 2.0)
    assert [round(length, 4) for length in norms(perturbation).tolist()] == [2, 0, 0, 0, 2, 2]
    assert torch.allclose(perturbation[4], perturbation[0]) and torch.allclose(perturbation[5], perturbation[0])
    assert torch.allclose(perturbation[0], 2 * good[0] / good[0].norm())


def test_values_in_padding_are_ignored():
    gradient = torch.randn(2, 4, 6)
    clean = scale_to_norm(gradient, torch.tensor([6, 3]), 1.0)
    gradient[1, :, 3:] = torch.nan
    assert torch.equal(scale_to_norm(gradient, torch.tensor([6, 3]), 1.0), clean) and clean[1, :, :3].any()


@pytest.mark.parametrize("name, losses", [("fgm", "emotion_losses"), ("cross", "speaker_losses")])
@pytest.mark.parametrize("seed", range(3))
def test_the_perturbation_increases_its_loss(name, losses, seed):
    setting = Setting(seed)
    original, perturbed, random = (
        getattr(setting, losses)(setting.at(perturbation))
        for perturbation in (0, setting.perturbation(name), setting.random_perturbation())
    )
    assert (perturbed > original).float().mean() >= 0.75 and perturbed.mean() > original.mean() + 0.05
    increase = perturbed.mean() - original.mean()
    assert increase > 3 * (random.mean() - original.mean()).abs(), "a random perturbation has a smaller effect"


def test_each_method_follows_its_own_loss():
    """A perturbation along one loss is not along the other, and reversed it lowers its own."""
    setting = Setting()
    emotion, speaker = setting.perturbation("fgm"), setting.perturbation("cross")
    cosine = (emotion * speaker).flatten(1).sum(dim=1) / EPSILON**2
    assert cosine.abs().max() < 0.9
    assert setting.speaker_losses(setting.at(-speaker)).mean() < setting.speaker_losses(setting.at(0)).mean()
    assert setting.emotion_losses(setting.at(-emotion)).mean() < setting.emotion_losses(setting.at(0)).mean()


@pytest.mark.parametrize("seed", range(3))
def test_vat_changes_the_prediction_more_than_a_random_perturbation(seed):
    setting = Setting(seed)
    original = setting.at(0).logits
    divergence = kl_divergence(original, setting.at(setting.perturbation("vat")).logits)
    random = torch.stack([kl_divergence(original, setting.at(setting.random_perturbation()).logits) for _ in range(5)])
    assert divergence > 3 * random.max() > 0


def test_vat_needs_no_label():
    setting = Setting()

    def refused(output):
        raise AssertionError("a label was asked for")

    batch = PerturbationInput(setting.forward, setting.mels, FRAMES, setting.output, refused, refused, EPSILON)
    perturbation = PERTURBATIONS["vat"](batch)
    assert perturbation.any() and PERTURBATIONS["vat"].reference == "prediction"
    assert all(PERTURBATIONS[name].reference == "labels" for name in ("fgm", "cross"))


def test_vat_compares_passes_with_the_same_dropout():
    setting, outputs = Setting(dropout=0.5), []

    def forward(mels):
        outputs.append(setting.forward(mels))
        return outputs[-1]

    PERTURBATIONS["vat"](PerturbationInput(forward, setting.mels, FRAMES, setting.output, None, None, 1e-3))
    forward(setting.mels)
    original, perturbed, other_dropout = (output.logits for output in outputs)
    assert 0 < (original - perturbed).abs().max() < 1e-2 * (original - other_dropout).abs().max()


def test_kl_divergence_equals_torch_and_has_no_gradient_for_the_reference():
    torch.manual_seed(0)
    logits, perturbed = (3 * torch.randn(5, 4, requires_grad=True) for _ in range(2))
    logits.retain_grad(), perturbed.retain_grad()
    of = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(of(logits=logits), of(logits=perturbed)).mean()
    divergence = kl_divergence(logits, perturbed)
    assert divergence.ndim == 0 and divergence.item() == pytest.approx(expected.item(), rel=1e-5)
    divergence.backward()
    assert logits.grad is None and perturbed.grad.any()
    assert kl_divergence(logits, logits).abs() < 1e-6


def test_weights_get_gradients_after_vat_under_autocast():
    """Weights that autocast has cast under no_grad must not be reused in later passes."""
    setting = Setting()
    with torch.autocast("cpu", torch.bfloat16):
        output = setting.forward(setting.mels.detach() + setting.perturbation("vat"))
        loss = setting.emotion_losses(output).mean()
    loss.backward()
    convolution = setting.model.encoder.stages[0].convolution.weight
    assert convolution.grad is not None and convolution.grad.any()


@pytest.mark.parametrize(("name", "is_perturbed"), [("fgm", False), ("cross", False), ("vat", True)])
def test_an_unlabelled_utterance_is_perturbed_only_by_a_method_without_labels(name, is_perturbed):
    """Through batch norm it has a gradient of the others' loss, which is unrelated to its own emotion."""
    setting, inputs = Setting(), []
    adversary = GradientReversal(16, 4, section("adversary"), 3)
    objective = Objective(setting.model, EmotionSection(), torch.full((3,), 1 / 3), section("perturb", name=name), adversary)
    forward, emotion = setting.model.from_mels, F.one_hot(EMOTION, 3).float()
    setting.model.from_mels = lambda mels, frames: inputs.append(mels) or forward(mels, frames)
    emotion[4:] = 0
    objective(setting.mels, FRAMES, emotion, F.one_hot(SPEAKER, 4).float())
    far = norms((inputs[-1] - setting.mels).detach())
    assert (far[:4] > 0.99 * EPSILON).all() and ((far[4:] > 0.99 * EPSILON) if is_perturbed else (far[4:] == 0)).all()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_zero_perturbation_gives_the_same_logits_despite_dropout(name):
    """Otherwise dropout would dominate the loss at the perturbed input."""
    setting = Setting(dropout=0.5)
    adversary = GradientReversal(16, 4, section("adversary"), 3)
    perturb, labels = section("perturb", name=name, epsilon=0), (F.one_hot(EMOTION, 3).float(), F.one_hot(SPEAKER, 4).float())
    objective = Objective(setting.model, EmotionSection(dropout=0.5), torch.full((3,), 1 / 3), perturb, adversary)
    first, second = (objective(setting.mels, FRAMES, *labels)[0] for _ in range(2))
    assert torch.equal(first["perturbed"], first["logits"]) and not torch.equal(first["logits"], second["logits"])
