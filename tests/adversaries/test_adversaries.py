"""Adversaries: the contract with the training loop, each method against its formula, and its effect on a toy problem."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import section
from toy import SPEAKERS, judge, train

from speaker_invariant_ser.adversaries.base import AdversaryBatch
from speaker_invariant_ser.adversaries.discriminators import ARCHITECTURES, ClassifierAdversary, divergence_from_uniform
from speaker_invariant_ser.adversaries.gradients import reverse_gradient
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.adversaries.schedules import ganin_ramp, warm_up_ramp
from speaker_invariant_ser.config import METHODS
from speaker_invariant_ser.errors import RecipeError

REQUIRED = {"learning_rate": 0.003}  # a value for every key of [adversary] that has no default


def required_settings(name):
    """Return values for the keys without which the settings of an adversary cannot be built."""
    assert name in METHODS["adversary"], f"add the settings of {name} to recipe_methods.py and to its union AdversarySection"
    keys = [key for key, field in METHODS["adversary"][name].model_fields.items() if field.is_required()]
    missing = [key for key in keys if key not in REQUIRED]
    assert not missing, f"adversary.{missing[0]} of {name} has no default: add a value to REQUIRED in {__file__}"
    return {key: REQUIRED[key] for key in keys}


CLASSIFIERS = [name for name in ADVERSARIES if issubclass(ADVERSARIES[name], ClassifierAdversary)]
D, K, C, T = 6, 3, 2, 5


def make(name, **settings):
    """Return an adversary with a constant lambda of 1, unless `settings` say otherwise."""
    torch.manual_seed(0)
    settings = {"strength": 1.0, "schedule": "constant", **required_settings(name), **settings}
    if name in CLASSIFIERS:
        settings.setdefault("hidden", 8)
    return ADVERSARIES[name](D, K, section("adversary", name=name, **settings), C)


def shares(values, classes):
    """Return one-hot rows; -1 gives a row of zeros."""
    values = torch.tensor(values)
    return F.one_hot(values.clamp_min(0), classes).float() * (values >= 0)[:, None]


def batch(speakers=(0, 1, 2, 0, 1, 2, 0, 1), emotions=(0, 0, 0, 0, 1, 1, 1, 1), frames=None):
    frames = [T] * len(speakers) if frames is None else frames
    return AdversaryBatch(frames=torch.tensor(frames), emotion=shares(emotions, C), target=shares(speakers, K))


def clips(count=8, seed=1, shape=(D,)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def loss_and_gradient(adversary, x, labels, progress=0.5):
    """Return the loss, and the gradient for the encoder."""
    x = x.clone().requires_grad_()
    loss = adversary(x, labels, progress)
    loss.backward()
    return loss.detach(), x.grad


def own_gradients(adversary):
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in adversary.parameters()]


def equal(first, second):
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True))


# the reversal and lambda


def gradients(strength):
    """Return the gradients of linear1 and linear2 in linear1 -> reversal -> linear2, without reversal if strength is None."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(5, 4).double(), torch.nn.Linear(4, 3).double()
    hidden = first(torch.randn(7, 5, dtype=torch.float64))
    hidden = hidden if strength is None else reverse_gradient(hidden, strength)
    F.cross_entropy(second(hidden), torch.tensor([0, 1, 2, 0, 1, 2, 0])).backward()
    return first.weight.grad, second.weight.grad


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
def test_reversal_multiplies_the_gradient_before_it_by_minus_lambda(strength):
    plain, reversed_ = gradients(None), gradients(strength)
    assert torch.allclose(reversed_[0], -strength * plain[0], rtol=1e-12, atol=0)
    assert torch.equal(reversed_[1], plain[1])


def test_reversal_is_the_identity_in_the_forward_pass():
    x = torch.randn(3, 4)
    assert torch.equal(reverse_gradient(x, 0.7), x)


def test_ganin_ramp():
    assert ganin_ramp(0, 10) == 0
    assert ganin_ramp(0.5, 10) == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert ganin_ramp(1, 10) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "warm_up, at, expected",
    [
        *((0.2, 0.1, 0), (0.2, 0.2, 0), (0.2, 0.3, 0.5), (0.2, 0.4, 1), (0.2, 1, 1)),
        *((0.8, 0.9, 0.5), (0.8, 1, 1), (0, 0, 1), (1, 0.99, 0), (1, 1, 1)),
    ],
)
def test_lambda_rises_linearly_after_the_warm_up(warm_up, at, expected):
    assert warm_up_ramp(at, warm_up) == pytest.approx(expected)


def test_lambda_follows_the_schedule_of_the_recipe():
    assert make("grl", strength=2.0, schedule="constant").strength(0.0) == 2.0
    assert make("hsic", strength=2.0, schedule="ganin", steepness=5.0).strength(0.3) == 2 * ganin_ramp(0.3, 5)
    assert make("entropy", strength=2.0, schedule="warm-up", warm_up=0.4).strength(0.6) == pytest.approx(1.0)
    assert section("adversary").schedule == "ganin"


# the contract that all adversaries keep


def test_every_adversary_is_registered_and_has_settings_and_a_toy_configuration():
    assert list(ADVERSARIES) == list(METHODS["adversary"]), (
        "ADVERSARIES in adversaries/registry.py and the union AdversarySection in recipe_methods.py differ in names or order"
    )
    missing = [name for name in ADVERSARIES if name not in TOY]
    assert not missing, f"add settings that suit the toy problem for {missing} to TOY in {__file__}"


CASES = {
    "complete": batch(),
    "a speaker missing": batch((0, 1, 0, 1, 0, 1), (0, 0, 0, 1, 1, 1)),
    "one speaker": batch((1,) * 6, (0, 0, 0, 1, 1, 1)),
    "one emotion": batch((0, 1, 2, 0), (1, 1, 1, 1)),
    "one utterance of an emotion": batch((0, 1, 2, 0), (1, 1, 1, 0)),
    "some unlabelled": batch((0, 1, 2, 0, 1), (0, -1, 1, -1, 1)),
    "all unlabelled": batch((0, 1, 2, 0), (-1,) * 4),
    "two utterances": batch((0, 1), (0, 0)),
    "two utterances of two emotions": batch((0, 1), (0, 1)),
    "two utterances of one speaker": batch((1, 1), (0, 0)),
}
CASES["mixed"] = AdversaryBatch(
    frames=torch.full((4,), T),
    emotion=torch.tensor([[0.7, 0.3], [1, 0], [0.5, 0.5], [0, 1]]),
    target=torch.tensor([[0.7, 0.3, 0], [1, 0, 0], [0, 0.5, 0.5], [0, 0, 1]]),
)
POSITIONS = {
    "distinct": lambda n: clips(n),
    "all the same": lambda n: torch.ones(n, D),
    "pairs of the same": lambda n: clips(n).repeat_interleave(2, dim=0)[:n],
    "zero": lambda n: torch.zeros(n, D),
    "far": lambda n: 1000 * clips(n),
    "close": lambda n: 1e-4 * clips(n),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ADVERSARIES)
def test_losses_and_gradients_are_finite_for_any_batch(name, case):
    labels = CASES[case]
    for position in POSITIONS.values():
        adversary = make(name, **({"heads": 4} if name in CLASSIFIERS else {}))
        loss, gradient = loss_and_gradient(adversary, position(len(labels.target)), labels)
        assert loss.ndim == 0 and torch.isfinite(loss) and torch.isfinite(gradient).all()
        for _ in range(adversary.separate_steps):
            adversary.classifier_loss(position(len(labels.target)), labels).backward()
        assert all(torch.isfinite(gradient).all() for gradient in own_gradients(adversary) if gradient is not None)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_encoder_gets_no_gradient_at_strength_zero_only(name):
    assert torch.equal(loss_and_gradient(make(name, strength=0.0), clips(), batch())[1], torch.zeros(8, D))
    assert loss_and_gradient(make(name), clips(), batch())[1].norm() > 1e-4


@pytest.mark.parametrize("name", ADVERSARIES)
def test_lambda_scales_the_gradient_once_and_not_the_value(name):
    """The encoder gets strength times the schedule, not its square."""
    results = [
        loss_and_gradient(make(name, strength=strength, schedule="ganin"), clips(), batch(), 0.2) for strength in (1.0, 3.0)
    ]
    assert torch.allclose(results[1][1], 3 * results[0][1], rtol=1e-4, atol=1e-9)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(
        results[0][1], ganin_ramp(0.2, 10) * loss_and_gradient(make(name), clips(), batch())[1], rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("name", [name for name in ADVERSARIES if name != "signed"])
def test_classifiers_learn_with_weight_one_whatever_lambda_is(name):
    gradients = []
    for strength in (0.0, 0.5, 5.0):
        adversary = make(name, strength=strength)
        loss_and_gradient(adversary, clips(), batch())
        gradients.append(own_gradients(adversary))
    assert all(equal(gradients[0], other) for other in gradients[1:])


def test_classifiers_of_the_signed_sum_get_minus_lambda_times_the_gradient():
    learning, signed = make("grl"), make("signed", strength=3.0)
    loss_and_gradient(learning, clips(), batch())
    loss_and_gradient(signed, clips(), batch())
    pairs = zip(own_gradients(learning), own_gradients(signed), strict=True)
    assert all(torch.allclose(reversed_, -3 * plain, rtol=1e-5, atol=1e-8) for plain, reversed_ in pairs)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_state_dict_is_the_whole_state(name):
    original, restored = make(name), make(name)
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter)
    if name in CLASSIFIERS:
        assert not torch.equal(original.logits(clips(), batch()), restored.logits(clips(), batch()))
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    (loss, gradient), restored_results = (
        loss_and_gradient(original, clips(), batch()),
        loss_and_gradient(restored, clips(), batch()),
    )
    assert torch.equal(loss, restored_results[0]) and torch.equal(gradient, restored_results[1])


@pytest.mark.parametrize("name", ADVERSARIES)
def test_only_adversaries_with_a_classifier_return_logits(name):
    logits = make(name).logits(clips(), batch())
    assert logits.shape == (8, K) if name in CLASSIFIERS else logits is None


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_global_random_state_does_not_change(name):
    adversary = make(name, **({"reset_every": 5} if name in CLASSIFIERS and name != "signed" else {}))
    before = torch.get_rng_state()
    loss_and_gradient(adversary, clips(), batch())
    adversary.reset_due(5)
    assert torch.equal(torch.get_rng_state(), before)


# classifiers


def test_the_default_is_reversal_and_one_hidden_layer():
    """Initial parameters, loss and both gradients equal those of plain modules to the bit."""
    settings = section("adversary", hidden=8)
    torch.manual_seed(0)
    adversary = ADVERSARIES["grl"](D, K, settings, C)
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.ReLU(), torch.nn.Linear(8, K))
    x = clips().requires_grad_()
    expected = F.cross_entropy(classifier(reverse_gradient(x, 0.1 * ganin_ramp(0.5, 10))), batch().target)
    expected.backward()
    loss, gradient = loss_and_gradient(adversary, clips(), batch())
    assert torch.equal(loss, expected.detach()) and torch.equal(gradient, x.grad)
    assert equal(own_gradients(adversary), [parameter.grad for parameter in classifier.parameters()])
    assert (adversary.separate_steps, adversary.reset_due(100)) == (0, [])


def test_default_layer_shapes():
    adversary = ADVERSARIES["grl"](128, 11, section("adversary"), 7)
    shapes = [tuple(layer.weight.shape) for layer in adversary.classifiers[0] if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(64, 128), (11, 64)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_loss_takes_raw_logits(name):
    """Certain and correct logits give a loss near 0; with a softmax in front, that of 3 classes is at least 0.55."""
    adversary = make(name)
    with torch.no_grad():
        adversary.classifiers[0][2].weight.zero_()
        adversary.classifiers[0][2].bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    assert abs(adversary(clips(4).requires_grad_(), batch((0,) * 4, (0, 1, 0, 1)), 0.5).item()) < 1e-6


def test_architectures_of_several_classifiers_alternate():
    adversary = make("grl", heads=5)
    hidden = [
        tuple(layer.out_features for layer in classifier if isinstance(layer, torch.nn.Linear))[:-1]
        for classifier in adversary.classifiers
    ]
    assert hidden == [(8,), (), (8, 8), (32,), (8,)] and len(ARCHITECTURES) == 4
    assert not torch.equal(adversary.classifiers[0][0].weight, adversary.classifiers[4][0].weight)


def test_the_encoder_gets_the_mean_gradient_of_several_classifiers_and_each_learns_as_if_alone():
    together = make("grl", heads=3)
    loss, gradient = loss_and_gradient(together, clips(), batch())
    results = []
    for classifier in copy.deepcopy(together.classifiers):
        single = make("grl")
        single.classifiers = torch.nn.ModuleList([classifier])
        classifier.zero_grad()
        results.append(loss_and_gradient(single, clips(), batch()))
    assert torch.allclose(gradient, torch.stack([single_gradient for _, single_gradient in results]).mean(dim=0), atol=1e-8)
    assert torch.allclose(loss, torch.stack([single_loss for single_loss, _ in results]).mean())
    assert torch.allclose(together.classifiers[2][0].weight.grad, classifier[0].weight.grad, atol=1e-8)


def learned(adversary, x, labels, steps=150):
    optimizer = torch.optim.Adam(adversary.parameters(), 0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = adversary.classifier_loss(x, labels)
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_conditional_classifier_learns_from_the_emotion_alone():
    """Each emotion has one speaker, and the embedding is constant."""
    labels, empty = batch((0, 0, 0, 0, 1, 1, 1, 1)), torch.zeros(8, D)
    assert learned(make("grl", conditional=True), empty, labels) < 0.05
    assert learned(make("grl"), empty, labels) > 0.6


def test_a_conditional_classifier_has_weights_for_each_emotion():
    adversary = make("grl", conditional=True)
    assert adversary.classifiers[0][0].weight.shape == (8, C * (D + 1))
    loss_and_gradient(adversary, clips(4), batch((0, 1, 2, 0), (1, 1, 1, 1)))
    first, second = adversary.classifiers[0][0].weight.grad.split(D + 1, dim=1)
    assert torch.equal(first, torch.zeros_like(first)) and second.abs().sum() > 0


@pytest.mark.parametrize("shape", [(D,), (4, D)])
def test_a_conditional_classifier_gets_the_outer_product_with_the_emotion(shape):
    labels, x = batch((0, 1, 2, 0), (0, 1, 1, 0)), clips(4, shape=shape)
    shares = torch.tensor([[1.0, 0], [0, 1], [0.3, 0.7], [0.5, 0.5]])
    for classifier in make("grl", conditional=True, heads=4).classifiers:
        with_constant = torch.cat((x, torch.ones(*x.shape[:-1], 1)), dim=-1)
        product = shares.view(4, *[1] * (x.ndim - 2), C, 1) * with_constant[..., None, :]
        assert torch.allclose(classifier(x, shares), classifier(product.flatten(-2)), atol=1e-6)
        assert not torch.allclose(classifier(x, shares), classifier(x, labels.emotion), atol=1e-3)


def test_unlabelled_utterances_have_uniform_emotion_shares():
    adversary, x = make("grl", conditional=True), clips(4)
    unlabelled, even = batch((0, 1, 2, 0), (-1,) * 4), batch((0, 1, 2, 0), (0,) * 4)
    even = AdversaryBatch(frames=even.frames, emotion=torch.full((4, C), 1 / C), target=even.target)
    assert torch.equal(adversary.logits(x, unlabelled), adversary.logits(x, even))
    assert not torch.allclose(adversary.logits(x, unlabelled), adversary.logits(x, batch((0, 1, 2, 0), (0,) * 4)))


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_padding_frames_do_not_count(name, conditional):
    adversary = make(name, input="frames", conditional=conditional)
    labels, x = batch((0, 1, 2, 0), (0, 1, 0, 1), frames=(5, 3, 1, 4)), clips(4, shape=(D, T))
    padded = F.pad(x, (0, 3), value=7.0)
    padded[1, :, 3:], padded[2, :, 1:], padded[3, :, 4:] = 5.0, -5.0, 9.0
    (loss, gradient), (again, wide) = loss_and_gradient(adversary, x, labels), loss_and_gradient(adversary, padded, labels)
    assert torch.allclose(loss, again, atol=1e-6) and torch.allclose(gradient, wide[:, :, :T], atol=1e-7)
    assert wide[0, :, 5:].abs().sum() == 0 and wide[2, :, 1:].abs().sum() == 0 and wide[2, :, 0].abs().sum() > 0
    assert torch.allclose(adversary.logits(x, labels), adversary.logits(padded, labels), atol=1e-5)


def test_utterances_count_equally_whatever_their_number_of_frames():
    adversary, x = make("grl", input="frames"), clips(3, shape=(D, T))
    frames = (5, 3, 1)
    loss, _ = loss_and_gradient(adversary, x, batch((0, 1, 2), (0, 0, 1), frames))
    expected = 0
    for row, count in enumerate(frames):
        logits = adversary.classifiers[0](x[row, :, :count].T)
        expected += F.cross_entropy(logits, torch.full((count,), row)) / len(frames)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["embedding", "frames"])
def test_the_penalty_is_the_squared_norm_of_each_loss_gradient_at_the_input(kind):
    """The gradient of a linear classifier is W^T (softmax - target)."""
    adversary = make("grl", heads=2, input=kind)
    adversary.classifiers = adversary.classifiers[1:]  # the linear classifier
    labels = batch(frames=[3] * 8)
    x = clips() if kind == "embedding" else clips()[:, :, None].repeat(1, 1, T)
    gradient = (adversary.classifiers[0](clips()).softmax(dim=1) - labels.target) @ adversary.classifiers[0][0].weight
    assert torch.allclose(adversary.gradient_penalty(x, labels), gradient.square().sum(dim=1).mean(), rtol=1e-5)


def test_the_penalty_acts_on_the_classifiers_alone_and_not_on_the_value():
    plain, damped = make("grl", heads=3), make("grl", heads=3, gradient_penalty=10.0)
    (loss, gradient), (same, alike) = loss_and_gradient(plain, clips(), batch()), loss_and_gradient(damped, clips(), batch())
    assert torch.equal(loss, same) and torch.equal(gradient, alike)
    parameters = list(damped.parameters())
    expected = torch.autograd.grad(10 * damped.gradient_penalty(clips(), batch()), parameters, allow_unused=True)
    for parameter, before, penalty in zip(parameters, own_gradients(plain), expected, strict=True):
        assert torch.allclose(parameter.grad, before + (0 if penalty is None else penalty), atol=1e-6)
    assert sum(gradient.abs().sum() for gradient in expected if gradient is not None) > 0.1


def test_separate_and_shared_steps_train_the_classifiers_alike():
    shared, separate = make("grl", heads=2, gradient_penalty=1.0), make("grl", heads=2, gradient_penalty=1.0)
    loss_and_gradient(shared, clips(), batch())
    separate.classifier_loss(clips(), batch()).backward()
    assert equal(own_gradients(shared), own_gradients(separate))


def test_number_of_separate_steps():
    inner = {"inner_steps": 3, "learning_rate": 0.01}
    assert {name: make(name, **inner).separate_steps for name in ("grl", "entropy", "minmax", "vclub")} == {
        **dict.fromkeys(("grl", "entropy"), 2),  # the encoder's step trains them as well
        **dict.fromkeys(("minmax", "vclub"), 3),
    }
    assert all(make(name).separate_steps == (name in ("minmax", "vclub")) for name in ADVERSARIES)


@pytest.mark.parametrize("name", ["minmax", "vclub"])
def test_classifiers_are_constant_in_the_encoder_step(name):
    adversary = make(name, heads=2)
    loss_and_gradient(adversary, clips(), batch())
    assert own_gradients(adversary) == [None] * len(own_gradients(adversary))
    adversary.classifier_loss(clips(), batch()).backward()
    assert all(gradient.abs().sum() > 0 for gradient in own_gradients(adversary))


def test_classifiers_are_reset_in_turn():
    adversary = make("grl", heads=2, reset_every=10)
    before, changed = copy.deepcopy(adversary.state_dict()), {}
    for step in range(31):
        if reset := adversary.reset_due(step):
            state = adversary.state_dict()
            changed[step] = {key.split(".")[1] for key in state if not torch.equal(state[key], before[key])}
            assert {id(parameter) for parameter in reset} == {
                id(parameter) for parameter in adversary.classifiers[int(min(changed[step]))].parameters()
            }
            before = copy.deepcopy(state)
    assert changed == {10: {"0"}, 20: {"1"}, 30: {"0"}}


def test_reset_parameters_depend_on_step_and_seed_alone():
    untrained, trained = make("grl", reset_every=10), make("grl", reset_every=10)
    learned(trained, clips(), batch(), steps=3)
    torch.manual_seed(99)
    assert not torch.equal(untrained.classifiers[0][0].weight, trained.classifiers[0][0].weight)
    untrained.reset_due(20)
    torch.rand(5)
    trained.reset_due(20)
    assert equal(untrained.parameters(), trained.parameters())
    untrained.reset_due(30)
    assert not torch.equal(untrained.classifiers[0][0].weight, trained.classifiers[0][0].weight)


def test_minmax_has_the_encoder_gradient_of_reversal():
    reversal, alternating = (loss_and_gradient(make(name, heads=2), clips(), batch()) for name in ("grl", "minmax"))
    assert torch.allclose(reversal[0], alternating[0]) and torch.allclose(reversal[1], alternating[1], atol=1e-8)


def test_divergence_from_uniform_is_symmetric_and_bounded_by_ln_k():
    even, correct, incorrect = torch.zeros(K), torch.tensor([60.0, 0, 0]), torch.tensor([0, 60.0, 0])
    assert [divergence_from_uniform(logits).item() for logits in (even, correct, incorrect)] == pytest.approx(
        [0, math.log(K), math.log(K)], abs=1e-6
    )
    assert divergence_from_uniform(torch.tensor([1e4, -1e4, 0])).item() == pytest.approx(math.log(K))
    p = torch.tensor([0.5, 0.25, 0.25])
    assert divergence_from_uniform(p.log()).item() == pytest.approx(math.log(K) - 1.5 * math.log(2), abs=1e-6)


def test_maximum_entropy_minimises_the_divergence_and_returns_cross_entropy():
    adversary = make("entropy", strength=2.0)
    loss, gradient = loss_and_gradient(adversary, clips(), batch())
    x = clips().requires_grad_()
    (2 * divergence_from_uniform(adversary.classifiers[0](x)).mean()).backward()
    assert torch.allclose(gradient, x.grad, atol=1e-8)
    assert torch.equal(loss, F.cross_entropy(adversary.logits(clips(), batch()), batch().target).detach())


def bound(adversary, x, labels):
    return adversary.bound(adversary.all_logits(x, labels), labels)


def test_vclub_is_the_difference_of_true_and_all_pairs():
    adversary, labels = make("vclub", conditional=True), batch()
    log_q = adversary.logits(clips(), labels).log_softmax(dim=1).detach()
    speaker, emotion = labels.target.argmax(dim=1), labels.emotion.argmax(dim=1)
    bounds = []
    for i in range(8):
        peers = [j for j in range(8) if emotion[j] == emotion[i]]
        bounds.append(log_q[i, speaker[i]] - torch.stack([log_q[i, speaker[j]] for j in peers]).mean())
    assert bound(adversary, clips(), labels).item() == pytest.approx(torch.stack(bounds).mean().item(), abs=1e-6)
    plain = make("vclub")
    log_q = plain.logits(clips(), labels).log_softmax(dim=1).detach()
    expected = log_q[range(8), speaker].mean() - log_q[:, speaker].mean()
    assert bound(plain, clips(), labels).item() == pytest.approx(expected.item(), abs=1e-6)


def test_vclub_minimises_the_bound_and_returns_cross_entropy():
    adversary, x = make("vclub", strength=2.0), clips().requires_grad_()
    loss, gradient = loss_and_gradient(adversary, clips(), batch())
    (2 * bound(adversary, x, batch())).backward()
    assert torch.allclose(gradient, x.grad, atol=1e-8) and gradient.norm() > 1e-3
    assert torch.equal(loss, F.cross_entropy(adversary.logits(clips(), batch()), batch().target).detach())


def test_vclub_is_an_upper_bound_with_a_trained_classifier():
    """With separate speakers the information is ln K nats, with a constant embedding 0."""
    speaker = torch.arange(60) % K
    labels = AdversaryBatch(frames=torch.full((60,), T), emotion=shares([0] * 60, C), target=F.one_hot(speaker, K).float())
    separate = 3 * F.one_hot(speaker, D).float()
    bounds = []
    for x in (separate, torch.zeros(60, D)):
        adversary = make("vclub")
        learned(adversary, x, labels)
        bounds.append(bound(adversary, x, labels).item())
    assert bounds[0] > math.log(K) and abs(bounds[1]) < 1e-6


# matching


def balanced_batch(count=60, seed=4):
    """Return a balanced batch of random embeddings, and the same with a mean per speaker or per emotion added."""
    speaker, emotion = torch.arange(count) % K, torch.arange(count) // K % C
    labels = AdversaryBatch(
        frames=torch.full((count,), T), emotion=F.one_hot(emotion, C).float(), target=F.one_hot(speaker, K).float()
    )
    x = clips(count, seed)
    return labels, x, x + 2 * F.one_hot(speaker, D), x + 2 * F.one_hot(emotion + K, D)


@pytest.mark.parametrize("name", ["hsic", "mmd", "coral"])
def test_matching_terms_depend_on_the_speaker_and_not_the_emotion(name):
    labels, nothing, speaker, emotion = balanced_batch()
    values = [loss_and_gradient(make(name), x, labels)[0].item() for x in (nothing, speaker, emotion)]
    assert values[1] > 3 * values[0]
    assert values[2] == pytest.approx(values[0], rel=1e-3)  # the emotions' means are the same for all speakers


def direct_gaussian(x, median):
    kernel = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in range(len(x)):
            squared = float((x[i] - x[j]).square().sum())
            kernel[i, j] = np.mean([math.exp(-squared / (2 * width**2 * median)) for width in (0.5, 1.0, 2.0)])
    return kernel


def median_within(x, emotion):
    n = range(len(x))
    squared = [float((x[i] - x[j]).square().sum()) for i in n for j in n if i != j and emotion[i] == emotion[j]]
    return float(torch.tensor(squared).median())


def test_hsic_equals_the_textbook_formula_within_each_emotion():
    """tr(K H L H) / n^2 of Gretton et al. 2005."""
    labels, x = batch((0, 1, 2, 0, 1, 2, 0, 1, 1), (0, 0, 0, 0, 0, 1, 1, 1, 1)), clips(9)
    emotion, speaker = labels.emotion.argmax(dim=1).numpy(), labels.target.argmax(dim=1).numpy()
    kernel, expected = direct_gaussian(x, median_within(x, emotion)), 0.0
    for label in (0, 1):
        rows = np.flatnonzero(emotion == label)
        n, same = len(rows), (speaker[rows, None] == speaker[rows]).astype(float)
        h = np.eye(n) - 1 / n
        expected += n / 9 * np.trace(kernel[np.ix_(rows, rows)] @ h @ same @ h) / n**2
    assert loss_and_gradient(make("hsic"), x, labels)[0].item() == pytest.approx(expected, rel=1e-4)


def test_mmd_equals_the_distance_of_kernel_means():
    labels, x = batch((0, 1, 2, 0, 1, 2, 0, 1, 1), (0, 0, 0, 0, 0, 1, 1, 1, 1)), clips(9)
    emotion, speaker = labels.emotion.argmax(dim=1).numpy(), labels.target.argmax(dim=1).numpy()
    kernel, expected = direct_gaussian(x, median_within(x, emotion)), 0.0
    for label in (0, 1):
        of_emotion = np.flatnonzero(emotion == label)
        for index in range(K):
            of_speaker = np.flatnonzero((emotion == label) & (speaker == index))
            if len(of_speaker):
                parts = [
                    kernel[np.ix_(a, b)].mean()
                    for a, b in ((of_speaker, of_speaker), (of_speaker, of_emotion), (of_emotion, of_emotion))
                ]
                expected += len(of_speaker) / 9 * (parts[0] - 2 * parts[1] + parts[2])
    assert loss_and_gradient(make("mmd"), x, labels)[0].item() == pytest.approx(expected, rel=1e-4)


def test_hsic_is_mmd_divided_by_the_number_of_balanced_speakers():
    labels, _, x, _ = balanced_batch()
    assert loss_and_gradient(make("hsic"), x, labels)[0].item() == pytest.approx(
        loss_and_gradient(make("mmd"), x, labels)[0].item() / K, rel=1e-4
    )


@pytest.mark.parametrize("name", ["hsic", "mmd"])
def test_kernel_widths_scale_with_the_embedding(name):
    labels, _, x, _ = balanced_batch()
    assert loss_and_gradient(make(name), 10 * x, labels)[0].item() == pytest.approx(
        loss_and_gradient(make(name), x, labels)[0].item(), rel=1e-3
    )
    narrow = loss_and_gradient(make(name, kernel_widths=(0.1,)), x, labels)[0].item()
    assert narrow != pytest.approx(loss_and_gradient(make(name), x, labels)[0].item(), rel=0.1)


def test_coral_equals_the_difference_of_means_and_second_moments():
    labels, _, x, _ = balanced_batch()
    centred = x.clone()
    for label in range(C):
        rows = labels.emotion[:, label] == 1
        centred[rows] -= x[rows].mean(dim=0)
    expected = 0.0
    for index in range(K):
        of_speaker = centred[labels.target[:, index] == 1]
        moments = of_speaker.T @ of_speaker / len(of_speaker) - centred.T @ centred / len(centred)
        expected += len(of_speaker) / len(x) * (of_speaker.mean(dim=0).square().sum() / D + moments.square().sum() / (4 * D**2))
    assert loss_and_gradient(make("coral"), x, labels)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_coral_detects_a_speaker_that_differs_in_variance_alone():
    labels, x, _, _ = balanced_batch(count=300)
    wide = torch.where(labels.target[:, :1] == 1, 2 * x, x)
    assert loss_and_gradient(make("coral"), wide, labels)[0] > 3 * loss_and_gradient(make("coral"), x, labels)[0]


@pytest.mark.parametrize("name", ["hsic", "mmd", "coral"])
def test_unlabelled_utterances_are_compared_with_all(name):
    """Of the first corpus all labels are known and of the second none: the corpora can only be compared as wholes."""
    corpus = torch.arange(60) % 2
    emotion = F.one_hot(torch.arange(60) // 2 % C, C).float() * (corpus == 0)[:, None]
    labels = AdversaryBatch(frames=torch.full((60,), T), emotion=emotion, target=F.one_hot(corpus, K).float())
    x = clips(60, seed=5)
    apart = loss_and_gradient(make(name), x + 2 * F.one_hot(corpus, D), labels)[0]
    assert apart > 3 * loss_and_gradient(make(name), x, labels)[0]


def test_contrastive_equals_the_formula_of_khosla_across_speakers():
    labels, x = batch(), clips()
    emotion, speaker = labels.emotion.argmax(dim=1), labels.target.argmax(dim=1)
    direction, losses = F.normalize(x, dim=1), []
    for i in range(8):
        scores = (direction @ direction[i] / 0.2).tolist()
        positives = [j for j in range(8) if emotion[j] == emotion[i] and speaker[j] != speaker[i]]
        negatives = [j for j in range(8) if emotion[j] != emotion[i]]
        total = sum(math.exp(scores[j]) for j in positives + negatives)
        losses.append(np.mean([math.log(total) - scores[j] for j in positives]))
    assert loss_and_gradient(make("contrastive"), x, labels)[0].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrastive_is_smallest_with_separate_emotions_and_shared_speakers():
    """20 positives, 30 negatives of which 10 by the same speaker; cosine / 0.2 is 5, 0, or 2.5 for half overlap."""
    labels, noise, speaker, emotion = balanced_batch()
    apart, shared = emotion - noise, (emotion - noise) + (speaker - noise)
    assert loss_and_gradient(make("contrastive"), apart, labels)[0].item() == pytest.approx(
        math.log(20 + 30 * math.exp(-5)), rel=1e-5
    )
    assert loss_and_gradient(make("contrastive"), shared, labels)[0].item() == pytest.approx(
        math.log(30 + 20 * math.exp(-2.5)), rel=1e-5
    )


def test_contrastive_leaves_out_utterances_without_a_positive():
    x = clips(6)
    assert loss_and_gradient(make("contrastive"), x, batch((1,) * 6, (0, 0, 0, 1, 1, 1)))[0] == 0
    with_one = batch((0, 1, 0, 1, 2, 2), (0, 0, 1, 1, -1, -1))
    without = batch((0, 1, 0, 1), (0, 0, 1, 1))
    loss, gradient = loss_and_gradient(make("contrastive"), x, with_one)
    assert loss.item() == pytest.approx(loss_and_gradient(make("contrastive"), x[:4], without)[0].item(), rel=1e-6)
    assert gradient[4:].abs().sum() == 0 and gradient[:4].abs().sum() > 0


def test_a_lower_temperature_gives_a_larger_contrastive_loss():
    values = [loss_and_gradient(make("contrastive", temperature=t), clips(), batch())[0].item() for t in (0.1, 0.2, 10.0)]
    assert values[0] > values[1] > values[2]


# invalid settings


@pytest.mark.parametrize(
    "name, settings, text",
    [
        (
            "hsic",
            {"input": "frames"},
            r'adversary.input = "frames": does nothing with adversary.name = "hsic".*: .*kernel_widths$',
        ),
        ("mmd", {"conditional": True}, r'adversary.conditional = true: does nothing with adversary.name = "mmd"'),
        ("coral", {"heads": 2}, r'adversary.heads = 2: does nothing with adversary.name = "coral", which takes: name, target, '),
        ("contrastive", {"learning_rate": 0.1}, r"adversary.learning_rate = 0.1: does nothing with .*: .*temperature$"),
        ("signed", {"learning_rate": 0.1}, r'adversary.learning_rate = 0.1: does nothing with adversary.name = "signed"'),
        ("signed", {"gradient_penalty": 1.0}, r"adversary.gradient_penalty = 1.0: does nothing"),
        ("minmax", {"learning_rate": 0.0}, r"adversary.learning_rate = 0.0: should be greater than 0"),
        ("vclub", {"learning_rate": 0.0}, r"adversary.learning_rate = 0.0: should be greater than 0"),
    ],
)
def test_settings_that_do_nothing_are_refused(name, settings, text):
    with pytest.raises(RecipeError, match=text):
        make(name, **settings)


# the toy problem

QUICK = {"learning_rate": 0.03, "inner_steps": 3}  # classifiers that keep up with the encoder; see the test of a slow one
TOY = {
    "grl": QUICK,
    "minmax": QUICK,
    "entropy": QUICK,
    "vclub": QUICK,
    "signed": {"strength": 0.1},
    "hsic": {"strength": 10.0},  # its values are small: at most about 1 / SPEAKERS of mmd's
    "mmd": {"strength": 3.0},  # at most about 1, where a classifier's loss is ln SPEAKERS and more
    "coral": {"strength": 1.0},
    "contrastive": {"strength": 10.0},  # most of its gradient teaches the emotion, which is easy here
    "baseline": {"name": "grl", "strength": 0.0},
    "slow": {"name": "grl"},
    "several": {"name": "grl", "heads": 3, "reset_every": 50, "gradient_penalty": 0.1, **QUICK},
    "conditional": {"name": "entropy", "conditional": True, **QUICK},
    "frames": {"name": "grl", "input": "frames", **QUICK},
}
MARGIN = 0.15  # smallest loss of accuracy of a fresh attacker; chance is 0.25


@cache
def trained(configuration):
    assert configuration in TOY, f"add settings that suit the toy problem for {configuration} to TOY in {__file__}"
    settings = {"name": configuration, "strength": 1.0, **TOY[configuration]}
    hidden = {"hidden": 16} if settings["name"] in CLASSIFIERS else {}
    return train(section("adversary", **settings, **hidden))


@cache
def toy(configuration):
    return judge(trained(configuration))


def test_the_baseline_solves_the_toy_and_reveals_the_speakers():
    assert toy("baseline").task > 0.95
    assert toy("baseline").attacker > 0.7 and toy("baseline").frame_attacker > 0.8 and toy("baseline").classifier > 0.6


@pytest.mark.parametrize(
    "configuration", [*(name for name in ADVERSARIES if name != "signed"), "several", "conditional", "frames"]
)
def test_an_adversary_lowers_the_accuracy_of_a_fresh_attacker_and_keeps_the_task(configuration):
    assert toy(configuration).attacker < toy("baseline").attacker - MARGIN
    assert toy(configuration).task > 0.95 * toy("baseline").task


def test_a_frame_level_adversary_also_protects_the_frame_level_features():
    assert toy("frames").frame_attacker < toy("baseline").frame_attacker - 2 * MARGIN


def test_the_signed_sum_trains_its_classifier_to_fail_and_removes_nothing():
    """Its classifier falls below chance, its loss grows without bound, and a fresh attacker still identifies the speaker."""
    signed = toy("signed")
    assert signed.classifier < 0.5 / SPEAKERS
    assert trained("signed").values[-1] > 10 * math.log(SPEAKERS) > 10 * max(trained("baseline").values[-20:])
    assert signed.attacker > 2 / SPEAKERS and signed.task < 0.9 * toy("baseline").task
    assert max(max(trained(name).values[-20:]) for name in ("minmax", "entropy", "grl")) < 2 * math.log(SPEAKERS)


def test_a_slow_classifier_is_fooled_and_a_fresh_attacker_is_not():
    """Why an adversary at chance proves nothing: the encoder only outpaces this classifier."""
    assert toy("slow").classifier < toy("baseline").classifier - MARGIN
    assert toy("slow").attacker > toy("baseline").attacker - 0.05


@pytest.mark.parametrize("name", ADVERSARIES)
def test_every_method_has_the_same_lambda_zero_baseline(name):
    """At strength 0 a few steps of training give the baseline's encoder to the bit."""
    encoders = []
    for method in ("grl", name):
        settings = section("adversary", name=method, strength=0.0, **required_settings(method))
        encoders.append(train(settings, steps=5).encoder.state_dict())
    assert all(torch.equal(encoders[0][key], encoders[1][key]) for key in encoders[0])
