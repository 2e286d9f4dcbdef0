"""One contract for every bottleneck; then the variational rate and its bound, and the cells of the scalar quantisation."""

import math

import pytest
import torch
from helpers import section
from torch.distributions import Normal, kl_divergence

from speaker_invariant_ser.models.bottlenecks import BOTTLENECKS, INITIAL_LOG_VARIANCE


def make(name, dim=6, **settings):
    torch.manual_seed(0)
    return BOTTLENECKS[name](dim, section("bottleneck", name=name, **settings))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BOTTLENECKS)
def test_every_bottleneck_has_a_finite_rate_and_a_gradient(name, training):
    bottleneck, x = make(name).train(training), torch.randn(5, 6, requires_grad=True)
    z, rate = bottleneck(x)
    assert z.shape == (5, bottleneck.dim) and rate.shape == (5,) and (rate >= 0).all()
    assert torch.isfinite(z).all() and torch.isfinite(rate).all()
    if name != "fsq" or training:
        (z.sum() + rate.sum()).backward()
        assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_no_bottleneck_overflows_for_large_inputs(name):
    z, rate = make(name)(torch.tensor([[1e9, -1e9, 0.0, 1e5, -1e5, 1.0]]))
    assert torch.isfinite(z).all() and torch.isfinite(rate).all()


def test_none_is_the_identity_without_parameters_and_random_numbers():
    bottleneck, x, before = make("none"), torch.randn(5, 6), torch.get_rng_state()
    z, rate = bottleneck(x)
    assert z is x and not rate.any() and not bottleneck.state_dict() and torch.equal(torch.get_rng_state(), before)


def test_the_variational_rate_is_the_kl_divergence_from_the_prior():
    bottleneck, x = make("vib"), 3 * torch.randn(50, 6)
    posterior = Normal(bottleneck.mean(x), (bottleneck.log_variance(x) / 2).exp())
    _, rate = bottleneck(x)
    assert torch.allclose(rate, kl_divergence(posterior, Normal(0, 1)).sum(dim=1), rtol=1e-5)
    with torch.no_grad():  # a mean of 0 and a variance of 1, whatever x
        for layer in (bottleneck.mean, bottleneck.log_variance):
            layer.weight.zero_()
            layer.bias.zero_()
    assert torch.equal(bottleneck(x)[1], torch.zeros(50)) and rate.min() > 1


@pytest.mark.parametrize("training", [True, False])
def test_the_variational_bottleneck_samples_in_evaluation_too(training):
    bottleneck, x, noise = make("vib").train(training), torch.randn(5, 6), torch.randn(5, 6)
    mean, deviation = bottleneck.mean(x), (bottleneck.log_variance(x) / 2).exp()
    assert torch.allclose(bottleneck(x, noise)[0], mean + deviation * noise, atol=1e-6)
    drawn = torch.stack([bottleneck(x)[0] for _ in range(2000)])
    assert torch.allclose(drawn.mean(dim=0), mean, atol=0.02)
    assert torch.allclose(drawn.std(dim=0), deviation, rtol=0.1) and deviation.min() > 0.05
    assert bottleneck.log_variance(x).mean().item() == pytest.approx(INITIAL_LOG_VARIANCE, abs=1)


def test_the_rate_bounds_the_mutual_information():
    """Eight codes through a channel with known parameters: the optimal classifier gets less information than the rate."""
    bottleneck = make("vib", dim=4)
    codes = torch.randn(8, 4)
    with torch.no_grad():
        bottleneck.mean.weight.copy_(torch.eye(4))
        for zero in (bottleneck.mean.bias, bottleneck.log_variance.weight, bottleneck.log_variance.bias):
            zero.zero_()
        information = {}
        for log_variance in (0.0, -3.0):
            bottleneck.log_variance.bias.fill_(log_variance)
            code = torch.arange(20_000) % 8
            z, rate = bottleneck(codes[code])
            log_likelihood = -(z[:, None] - codes).square().sum(dim=2) / (2 * math.exp(log_variance))
            correct = log_likelihood.log_softmax(dim=1)[torch.arange(len(code)), code]
            information[log_variance] = (correct + math.log(8)).mean().item(), rate.mean().item()
    assert all(0.1 < value < bound for value, bound in information.values())
    assert information[-3.0][0] > 1.9 > 1.5 > information[0.0][0], (
        "of ln 8 = 2.08 nats: less noise, more information, and a higher rate"
    )
    assert information[-3.0][1] > information[0.0][1] + 2


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8])
def test_quantisation_levels_are_all_used_evenly_spaced_and_symmetric(levels):
    x = torch.linspace(-9, 9, 20_001)[:, None]
    values = make("fsq", dim=1, levels=levels).eval()(x)[0].unique()
    assert values.tolist() == pytest.approx([(2 * k + 1 - levels) / levels for k in range(levels)])
    assert torch.equal(values, -values.flip(0)) and values.abs().max() < 1
    beyond = make("fsq", dim=1, levels=levels).eval()(torch.tensor([[-1e30], [1e30]]))[0]
    assert beyond[:, 0].tolist() == [values[0], values[-1]]


@pytest.mark.parametrize("levels", [4, 5])
def test_quantisation_errors_are_at_most_half_a_cell(levels):
    x = torch.randn(1000, 3)
    z, _ = make("fsq", dim=3, levels=levels).eval()(x)
    assert (z - torch.tanh(x)).abs().max() <= 1 / levels + 1e-6


def test_the_gradient_of_quantisation_is_that_of_tanh():
    bottleneck, x = make("fsq").train(), torch.randn(5, 6, requires_grad=True)
    bottleneck(x)[0].sum().backward()
    assert torch.allclose(x.grad, 1 - torch.tanh(x).square(), atol=1e-6)


def test_quantised_values_have_no_rounding_error_of_the_input_in_evaluation():
    """The straight-through estimator adds and subtracts x, and its rounding error would pass the bottleneck."""
    bottleneck, x = make("fsq", levels=6), torch.randn(100_000, 1)
    trained, released = bottleneck.train()(x)[0], bottleneck.eval()(x)[0]
    assert len(trained.unique()) > 6 and len(released.unique()) == 6
    assert torch.allclose(trained, released, atol=1e-6)


def test_the_rate_of_quantisation_is_the_logarithm_of_the_number_of_codes():
    z, rate = make("fsq", dim=2, levels=3).eval()(3 * torch.randn(10_000, 2))
    assert rate.tolist() == [pytest.approx(math.log(len(z.unique(dim=0))))] * 10_000 and not rate.requires_grad
