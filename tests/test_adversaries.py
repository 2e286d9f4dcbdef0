"""The reversal exactly: its sign, its scale, where it acts and where it does not."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from speaker_invariant_ser.adversaries import ADVERSARIES, ramp, reverse_gradient
from speaker_invariant_ser.config import AdversarySection
from speaker_invariant_ser.features import Batch


def gradients(strength):
    """Gradients of linear1 and linear2 in linear1 -> reversal -> linear2; no reversal at all if strength is None."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(5, 4).double(), torch.nn.Linear(4, 3).double()
    hidden = first(torch.randn(7, 5, dtype=torch.float64))
    hidden = hidden if strength is None else reverse_gradient(hidden, strength)
    F.cross_entropy(second(hidden), torch.tensor([0, 1, 2, 0, 1, 2, 0])).backward()
    return first.weight.grad, second.weight.grad


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
def test_the_first_layer_gets_minus_lambda_times_its_gradient_and_the_second_its_own(strength):
    plain, reversed_ = gradients(None), gradients(strength)
    assert torch.allclose(reversed_[0], -strength * plain[0], rtol=1e-12, atol=0)
    assert torch.equal(reversed_[1], plain[1])


def test_forward_is_the_identity():
    x = torch.randn(3, 4)
    assert torch.equal(reverse_gradient(x, 0.7), x)


def test_the_ramp_is_ganins():
    assert ramp(0, 10) == 0
    assert ramp(0.5, 10) == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert ramp(1, 10) == pytest.approx(1, abs=1e-4)


def make(name, **settings):
    torch.manual_seed(0)
    return ADVERSARIES[name](6, 3, AdversarySection(name=name, **settings))


def batch(speakers=(0, 1, 2, 0)):
    n = len(speakers)
    return Batch(torch.zeros(n, 8, 5), torch.full((n,), 5), torch.ones(n, 1), F.one_hot(torch.tensor(speakers), 3).float())


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_loss_is_a_finite_number_even_with_a_speaker_missing(name):
    loss = make(name)(torch.randn(4, 6), batch((1, 1, 1, 1)), 0.5)
    assert loss.ndim == 0 and torch.isfinite(loss)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_strength_zero_leaves_the_encoders_gradient_to_the_emotion_loss(name):
    torch.manual_seed(1)
    encoder, x = torch.nn.Linear(9, 6), torch.randn(4, 9)
    alone = copy.deepcopy(encoder)
    alone(x).square().mean().backward()
    embedding = encoder(x)
    (embedding.square().mean() + make(name, strength=0.0)(embedding, batch(), 0.5)).backward()
    assert torch.allclose(encoder.weight.grad, alone.weight.grad, rtol=0, atol=1e-9)


def test_the_speaker_head_trains_with_weight_one_whatever_lambda_is():
    heads = []
    for strength in (0.0, 0.5, 5.0):
        adversary = make("grl", strength=strength)
        torch.manual_seed(2)
        adversary(torch.randn(4, 6), batch(), 1.0).backward()
        heads.append([parameter.grad.clone() for parameter in adversary.parameters()])
    assert all(torch.equal(a, b) for head in heads[1:] for a, b in zip(heads[0], head, strict=True))


def test_lambda_acts_once():
    """The encoder sees strength x ramp, not its square."""
    seen = []
    for strength in (1.0, 3.0):
        embedding = torch.ones(4, 6, requires_grad=True)
        make("grl", strength=strength)(embedding, batch(), 0.2).backward()
        seen.append(embedding.grad)
    assert torch.allclose(seen[1], 3 * seen[0], rtol=1e-5)


def test_the_loss_takes_raw_logits():
    """Sure and right logits give a loss near 0; with a softmax in front, 3 classes could not go below 0.55."""
    adversary = make("grl")
    with torch.no_grad():
        adversary.head[2].weight.zero_()
        adversary.head[2].bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    assert adversary(torch.randn(4, 6), batch((0, 0, 0, 0)), 0.5).item() < 1e-6


def test_the_shape_of_the_mission():
    adversary = ADVERSARIES["grl"](128, 11, AdversarySection())
    shapes = [tuple(layer.weight.shape) for layer in adversary.head if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(64, 128), (11, 64)]
