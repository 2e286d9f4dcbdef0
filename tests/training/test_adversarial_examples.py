"""Moves of log-mels: how long, where, which way, and that finding them leaves no trace in the model."""

import pytest
import torch
import torch.nn.functional as F
from helpers import section

from speaker_invariant_ser.adversaries.discriminators import GradientReversal
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models import encoders
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.recipe import EmotionSection, EncoderSection, FeaturesSection
from speaker_invariant_ser.training.adversarial_examples import (
    PERTURBATIONS,
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
    """A model with its batch of 8 clips and a speaker reader, as one training step has them; the same for the same seed."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        encoder = EncoderSection(channels=(8, 12, 16), dim=16, dropout=dropout)
        sections = {"features": FeaturesSection(), "encoder": encoder, "emotion": EmotionSection(dropout=dropout)}
        self.model = SerModel(ModelSettings(labels=("a", "b", "c"), sample_rate=16000, **sections)).train()
        self.reader = torch.nn.Linear(16, 4)
        self.mels = (torch.randn(8, 64, 40) * mask_of(FRAMES, 40)[:, None] - 3).requires_grad_()
        torch.manual_seed(100 + seed)  # of dropout
        self.output = self.look(self.mels)

    def look(self, mels):
        return self.model.from_mels(mels, FRAMES)

    def emotion_losses(self, output):
        return F.cross_entropy(output.logits, EMOTION, reduction="none")

    def speaker_losses(self, output):
        return F.cross_entropy(self.reader(output.embedding), SPEAKER, reduction="none")

    def move(self, name, epsilon=EPSILON):
        emotion, speaker = mean_of(self.emotion_losses), mean_of(self.speaker_losses)
        return PERTURBATIONS[name](self.look, self.mels, FRAMES, self.output, emotion, speaker, epsilon)

    def random_move(self, epsilon=EPSILON):
        return scale_to_norm(torch.randn_like(self.mels), FRAMES, epsilon)

    @torch.no_grad()
    def at(self, move):
        """What the model says of the clips moved so far; batch norm as in training."""
        return self.look(self.mels + move)

    @property
    def buffers(self):
        return {name: one.clone() for name, one in self.model.named_buffers()}

    @property
    def gradients(self):
        return {name: one.grad for name, one in self.model.named_parameters() if one.requires_grad}


def mean_of(losses):
    return lambda output: losses(output).mean()


def lengths(move):
    return move.flatten(1).double().norm(dim=1)


def alike(some, others):
    return some.keys() == others.keys() and all(torch.equal(one, others[name]) for name, one in some.items())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_move_is_epsilon_long_and_leaves_padding_alone(name):
    setting = Setting()
    move = setting.move(name)
    assert move.shape == setting.mels.shape and not move.requires_grad
    assert (lengths(move) / EPSILON - 1).abs().max() < 1e-5
    padding = ~mask_of(FRAMES, 40)[:, None].expand_as(move)
    assert not move[padding].any() and move[~padding].count_nonzero() > 0.9 * (~padding).sum()
    assert not setting.move(name, epsilon=0.0).any()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_finding_the_move_leaves_gradients_and_statistics_to_the_bit(name):
    """With dropout, as in training: it is drawn before the move is looked for."""
    alone, moved = Setting(dropout=0.2), Setting(dropout=0.2)
    with preserve_statistics(moved.model):
        move = moved.move(name)
    assert move.any() and all(one is None for one in moved.gradients.values()) and moved.mels.grad is None
    assert all(one.grad is None for one in moved.reader.parameters())
    for setting in (alone, moved):
        setting.emotion_losses(setting.output).mean().backward()
    assert alike(alone.gradients, moved.gradients) and any(one.any() for one in alone.gradients.values())
    assert alike(alone.buffers, moved.buffers)


def test_without_keeping_them_a_pass_moves_the_statistics():
    """What the test above would see if nothing were kept."""
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        setting.move("vat")
        during = setting.buffers
    assert alike(before, setting.buffers) and not alike(before, during)
    setting.move("vat")
    after = setting.buffers
    counters = [name for name in after if name.endswith("num_batches_tracked")]
    assert counters and all(after[name] == before[name] + 2 == 3 for name in counters)
    assert all(not torch.equal(after[name], before[name]) for name in after if "running" in name)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_both_passes_are_trained_on_and_one_is_counted(name):
    """The backward of the first pass goes through layers whose statistics a second one has met since."""
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        output = setting.look(setting.mels.detach() + setting.move(name))
    first, second = (setting.emotion_losses(one).mean() for one in (setting.output, output))
    (first + 0.5 * second).backward()
    assert alike(before, setting.buffers)
    both = setting.gradients
    plain = Setting()
    plain.emotion_losses(plain.output).mean().backward()
    assert both.keys() == plain.gradients.keys()
    assert all(one.isfinite().all() for one in both.values()) and not alike(both, plain.gradients)


def test_statistics_that_processes_share_are_kept_as_well(monkeypatch):
    """One process that believes to be one of several: its batch norm writes the statistics itself, in place."""
    monkeypatch.setattr(encoders, "is_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: None)
    setting = Setting()
    before = setting.buffers
    with preserve_statistics(setting.model):
        output = setting.look(setting.mels.detach() + setting.move("vat"))
        assert not alike(before, setting.buffers)
    assert alike(before, setting.buffers)
    (setting.emotion_losses(setting.output) + setting.emotion_losses(output)).mean().backward()
    assert all(one.isfinite().all() for one in setting.gradients.values())


def test_statistics_are_kept_through_an_error():
    setting = Setting()
    before = dict(setting.model.named_buffers())
    with pytest.raises(ZeroDivisionError), preserve_statistics(setting.model):
        raise ZeroDivisionError
    assert all(one is before[name] for name, one in setting.model.named_buffers()), "the very same objects"


def test_a_gradient_that_is_no_direction_moves_nothing():
    good = torch.randn(1, 4, 6)
    nan, infinite, tiny, huge = (good.clone() for _ in range(4))
    nan[0, 1, 2], infinite[0, 3, 0] = torch.nan, -torch.inf
    gradient = torch.cat((good, nan, infinite, 0 * good, 1e-30 * tiny, 1e30 * huge))
    move = scale_to_norm(gradient, torch.full((6,), 6), 2.0)
    assert [round(length, 4) for length in lengths(move).tolist()] == [2, 0, 0, 0, 2, 2]
    assert torch.allclose(move[4], move[0]) and torch.allclose(move[5], move[0])
    assert torch.allclose(move[0], 2 * good[0] / good[0].norm())


def test_what_stands_in_padding_is_not_read():
    gradient = torch.randn(2, 4, 6)
    clean = scale_to_norm(gradient, torch.tensor([6, 3]), 1.0)
    gradient[1, :, 3:] = torch.nan
    assert torch.equal(scale_to_norm(gradient, torch.tensor([6, 3]), 1.0), clean) and clean[1, :, :3].any()


@pytest.mark.parametrize("name, losses", [("fgm", "emotion_losses"), ("cross", "speaker_losses")])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_higher_where_the_clip_is_moved_to(name, losses, seed):
    setting = Setting(seed)
    here, there, anywhere = (
        getattr(setting, losses)(setting.at(move)) for move in (0, setting.move(name), setting.random_move())
    )
    assert (there > here).float().mean() >= 0.75 and there.mean() > here.mean() + 0.05
    assert there.mean() - here.mean() > 3 * (anywhere.mean() - here.mean()).abs(), "not because anything was moved"


def test_each_move_is_along_its_own_loss():
    """A move along one loss says little of the other, and turned round it lowers its own."""
    setting = Setting()
    emotion, speaker = setting.move("fgm"), setting.move("cross")
    cosine = (emotion * speaker).flatten(1).sum(dim=1) / EPSILON**2
    assert cosine.abs().max() < 0.9
    assert setting.speaker_losses(setting.at(-speaker)).mean() < setting.speaker_losses(setting.at(0)).mean()
    assert setting.emotion_losses(setting.at(-emotion)).mean() < setting.emotion_losses(setting.at(0)).mean()


@pytest.mark.parametrize("seed", range(3))
def test_the_virtual_move_changes_the_prediction_more_than_a_random_one(seed):
    setting = Setting(seed)
    here = setting.at(0).logits
    found = kl_divergence(here, setting.at(setting.move("vat")).logits)
    random = torch.stack([kl_divergence(here, setting.at(setting.random_move()).logits) for _ in range(5)])
    assert found > 3 * random.max() > 0


def test_the_virtual_move_needs_no_label():
    setting = Setting()

    def refused(output):
        raise AssertionError("a label was asked for")

    move = PERTURBATIONS["vat"](setting.look, setting.mels, FRAMES, setting.output, refused, refused, EPSILON)
    assert move.any() and PERTURBATIONS["vat"].reference == "prediction"
    assert all(PERTURBATIONS[name].reference == "labels" for name in ("fgm", "cross"))


def test_what_vat_compares_differs_by_the_move_alone_not_by_dropout():
    setting, seen = Setting(dropout=0.5), []

    def look(mels):
        seen.append(setting.look(mels))
        return seen[-1]

    PERTURBATIONS["vat"](look, setting.mels, FRAMES, setting.output, None, None, 1e-3)
    look(setting.mels)
    here, there, again = (one.logits for one in seen)
    assert 0 < (here - there).abs().max() < 1e-2 * (here - again).abs().max()


def test_divergence_is_torchs_own_and_pulls_one_side_only():
    torch.manual_seed(0)
    logits, moved = (3 * torch.randn(5, 4, requires_grad=True) for _ in range(2))
    logits.retain_grad(), moved.retain_grad()
    of = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(of(logits=logits), of(logits=moved)).mean()
    found = kl_divergence(logits, moved)
    assert found.ndim == 0 and found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert logits.grad is None and moved.grad.any()
    assert kl_divergence(logits, logits).abs() < 1e-6


def test_weights_learn_after_vat_under_autocast():
    """The rounded weights of its pass under no_grad, which no gradient reaches, are not those of later passes."""
    setting = Setting()
    with torch.autocast("cpu", torch.bfloat16):
        output = setting.look(setting.mels.detach() + setting.move("vat"))
        loss = setting.emotion_losses(output).mean()
    loss.backward()
    convolution = setting.model.encoder.stages[0].convolution.weight
    assert convolution.grad is not None and convolution.grad.any()


@pytest.mark.parametrize(("name", "moves"), [("fgm", False), ("cross", False), ("vat", True)])
def test_a_clip_without_a_label_moves_only_where_none_is_asked_for(name, moves):
    """Batch norm lets it change the others' loss, so that it has a gradient, which says nothing of its own emotion."""
    setting, seen = Setting(), []
    reader = GradientReversal(16, 4, section("adversary"), 3)
    objective = Objective(setting.model, EmotionSection(), torch.full((3,), 1 / 3), section("perturb", name=name), reader)
    look, emotion = setting.model.from_mels, F.one_hot(EMOTION, 3).float()
    setting.model.from_mels = lambda mels, frames: seen.append(mels) or look(mels, frames)
    emotion[4:] = 0
    objective(setting.mels, FRAMES, emotion, F.one_hot(SPEAKER, 4).float())
    far = lengths((seen[-1] - setting.mels).detach())
    assert (far[:4] > 0.99 * EPSILON).all() and ((far[4:] > 0.99 * EPSILON) if moves else (far[4:] == 0)).all()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_clip_that_is_not_moved_is_seen_as_it_was_whatever_dropout_does(name):
    """Otherwise most of the loss at the moved clip, of VAT above all, would be dropout."""
    setting = Setting(dropout=0.5)
    reader = GradientReversal(16, 4, section("adversary"), 3)
    perturb, labels = section("perturb", name=name, epsilon=0), (F.one_hot(EMOTION, 3).float(), F.one_hot(SPEAKER, 4).float())
    objective = Objective(setting.model, EmotionSection(dropout=0.5), torch.full((3,), 1 / 3), perturb, reader)
    first, second = (objective(setting.mels, FRAMES, *labels)[0] for _ in range(2))
    assert torch.equal(first["perturbed"], first["logits"]) and not torch.equal(first["logits"], second["logits"])
