"""Adversaries with a classifier of the target, usually the speaker.

The classifiers are trained alike in all of them, by cross-entropy; what the encoder does with their output differs.
"""

import math
from dataclasses import replace
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from speaker_invariant_ser.adversaries.base import Adversary, AdversaryBatch
from speaker_invariant_ser.adversaries.gradients import gradient_only, reverse_gradient, scale_gradient
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.recipe_methods import ClassifierSettings, TrainedClassifierSettings

ARCHITECTURES = ((1,), (), (1, 1), (4,))  # widths of hidden layers in units of `adversary.hidden`; classifiers alternate


class Discriminator(nn.Sequential):
    """A multilayer perceptron that returns raw logits."""

    def forward(self, x: Tensor, emotion: Tensor | None = None) -> Tensor:
        """Return logits [B, K] or [B, T', K].

        Args:
            x: Embeddings [B, D] or frame-level features [B, T', F].
            emotion: Shares of the emotions [B, C] if the classifier is conditional.
        """
        first, *others = self
        x = first(x) if emotion is None else conditional_layer(cast(nn.Linear, first), x, emotion)
        for layer in others:
            x = layer(x)
        return x


def make_discriminator(index: int, inputs: int, hidden: int, outputs: int) -> Discriminator:
    """Return an untrained classifier; `index` chooses its architecture, counting through ARCHITECTURES."""
    widths = (inputs, *(times * hidden for times in ARCHITECTURES[index % len(ARCHITECTURES)]), outputs)
    layers = [layer for width, following in pairwise(widths) for layer in (nn.Linear(width, following), nn.ReLU())]
    return Discriminator(*layers[:-1])


def conditional_layer(layer: nn.Linear, x: Tensor, emotion: Tensor) -> Tensor:
    """Apply a layer of C * (D + 1) inputs to the outer product of emotion shares and x with a constant 1.

    It has weights of its own for each emotion: Long et al., NeurIPS 2018 (CDAN), with the true emotion in place of the predicted
    one. The constant is our addition: each emotion has a bias too, so that what the emotion alone reveals about the speaker is
    known without x. Mixing each utterance's weights gives the same as the product, ten times faster for frames.
    """
    weight = torch.einsum("bc,hcd->bdh", emotion, layer.weight.unflatten(1, (emotion.shape[1], -1)))
    rows = F.pad(x, (0, 1), value=1.0).reshape(len(x), -1, x.shape[-1] + 1)
    return (rows @ weight + layer.bias).reshape(*x.shape[:-1], -1)


def with_constant_parameters(classifier: Discriminator, *inputs: Tensor | None) -> Tensor:
    """Return a classifier's logits with its parameters taken as constants, so that only its inputs get a gradient."""
    constants = {name: parameter.detach() for name, parameter in classifier.named_parameters()}
    return cast(Tensor, functional_call(classifier, constants, inputs))


def uniform_where_unlabelled(emotion: Tensor) -> Tensor:
    """Return emotion shares [B, C], uniform for utterances without a label."""
    return torch.where(emotion.sum(dim=1, keepdim=True) > 0, emotion, 1 / emotion.shape[1])


def mean_over_frames(values: Tensor, frames: Tensor) -> Tensor:
    """Return the means [B, ...] of values [B, T', ...] over each utterance's frames [B]."""
    mask = mask_of(frames, values.shape[1]).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    return (values * mask).sum(dim=1) / frames.reshape(-1, *[1] * (values.ndim - 2))


def mean_over_utterances(values: Tensor, batch: AdversaryBatch) -> Tensor:
    """Return the mean over utterances of [B], or of [B, T'] after each utterance's own frames are averaged."""
    return (values if values.ndim == 1 else mean_over_frames(values, batch.frames)).mean()


def broadcast_target(logits: Tensor, batch: AdversaryBatch) -> Tensor:
    """Return the target's shares, shaped to broadcast with logits [B, K] or [B, T', K]."""
    return batch.target if logits.ndim == 2 else batch.target[:, None]


def cross_entropies(logits: Tensor, batch: AdversaryBatch) -> Tensor:
    """Return cross-entropies [B] or [B, T'] in nats of raw logits [B, K] or [B, T', K]."""
    return -(broadcast_target(logits, batch) * logits.log_softmax(dim=-1)).sum(dim=-1)


def cross_entropy(logits: Tensor, batch: AdversaryBatch) -> Tensor:
    """Return the mean cross-entropy over utterances of raw logits, in nats: 0 is certain and right, ln K uninformed."""
    return (
        F.cross_entropy(logits, batch.target) if logits.ndim == 2 else mean_over_utterances(cross_entropies(logits, batch), batch)
    )


class ClassifierAdversary(Adversary):
    """`heads` classifiers of different architecture, on the embedding or on every frame of the frame-level features.

    Each learns by cross-entropy with weight 1, however many there are; the encoder gets the mean of their gradients. Known
    failure of all of them: the encoder learns to fool these classifiers, and a fresh one may still identify nearly all speakers
    (Elazar and Goldberg, EMNLP 2018). Several architectures, inner steps and resets make that harder, not impossible.

    Args:
        dim: Dimension D of the input.
        targets: Number K of the target's values.
        settings: The adversary's section of the recipe.
        emotions: Number C of emotions.
    """

    has_classifier = True

    def __init__(self, dim: int, targets: int, settings: ClassifierSettings, emotions: int) -> None:
        super().__init__(settings)
        self.classifier_settings = settings
        self.inputs = (dim + 1) * emotions if settings.conditional else dim
        self.targets = targets
        self.classifiers = nn.ModuleList(self.make_classifier(index) for index in range(settings.heads))

    def make_classifier(self, index: int) -> Discriminator:
        """Return an untrained classifier."""
        return make_discriminator(index, self.inputs, self.classifier_settings.hidden, self.targets)

    def all_logits(self, x: Tensor, batch: AdversaryBatch, constant: bool = False) -> list[Tensor]:
        """Return each classifier's logits.

        Args:
            x: Embeddings [B, D] or frame-level features [B, F, T'].
            batch: Labels and frame counts of the same utterances.
            constant: Take the classifiers' parameters as constants, so that they get no gradient.

        Returns:
            Logits [B, K] of embeddings, or [B, T', K] of frames.
        """
        x = x.transpose(1, 2) if self.settings.on_frames else x
        emotion = uniform_where_unlabelled(batch.emotion) if self.classifier_settings.conditional else None
        classifiers = [cast(Discriminator, classifier) for classifier in self.classifiers]
        return [
            with_constant_parameters(classifier, x, emotion) if constant else classifier(x, emotion) for classifier in classifiers
        ]

    def logits(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the mean logits [B, K] over classifiers and frames; their accuracy is no evidence about other attackers."""
        mean = torch.stack(self.all_logits(x, batch)).mean(dim=0)
        return mean if mean.ndim == 2 else mean_over_frames(mean, batch.frames)


class TrainedClassifierAdversary(ClassifierAdversary):
    """An adversary whose classifiers minimise their own cross-entropy, with inner steps, gradient penalty and resets."""

    def __init__(self, dim: int, targets: int, settings: TrainedClassifierSettings, emotions: int) -> None:
        super().__init__(dim, targets, settings, emotions)
        self.training_settings = settings

    @property
    def separate_steps(self) -> int:
        """One less than `inner_steps`: the encoder's backward pass trains the classifiers as well."""
        return self.training_settings.inner_steps - 1

    def classifier_loss(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the classifiers' mean cross-entropy, with the gradient of their sum and of the gradient penalty."""
        cross = torch.stack([cross_entropy(logits, batch) for logits in self.all_logits(x, batch)])
        loss = cross.sum()
        if weight := self.training_settings.gradient_penalty:
            loss = loss + weight * self.gradient_penalty(x, batch)
        return cross.mean().detach() + gradient_only(loss)

    def gradient_penalty(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the mean squared norm of each utterance's (or frame's) gradient at the input, summed over classifiers.

        R1 of Mescheder, Geiger and Nowozin, ICML 2018, which damps oscillations. It acts on the classifiers alone.
        """
        x = x.detach().requires_grad_()
        total = torch.zeros((), device=x.device)
        for logits in self.all_logits(x, batch):
            (gradient,) = torch.autograd.grad(cross_entropies(logits, batch).sum(), x, create_graph=True)
            total = total + mean_over_utterances(gradient.square().sum(dim=1), batch)
        return total

    def reset_due(self, step: int, seed: int = 0) -> list[nn.Parameter]:
        """Re-initialise the next classifier in turn every `reset_every` steps.

        The new parameters depend on step and seed alone and are drawn on the CPU, so that all processes, all devices and a
        resumed run get the same, and no other random numbers change.

        Args:
            step: Number of steps taken so far.
            seed: Seed of the new parameters.

        Returns:
            The new parameters, whose optimizer state must be cleared; empty if nothing is due.
        """
        every = self.training_settings.reset_every
        if not (every and step and step % every == 0):
            return []
        index = (step // every - 1) % len(self.classifiers)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + step)
            self.classifiers[index].load_state_dict(self.make_classifier(index).state_dict())
        return list(self.classifiers[index].parameters())


class GradientReversal(TrainedClassifierAdversary):
    """Classifiers behind a gradient reversal layer: one backward pass trains them and, with reversed sign, the encoder.

    Ganin and Lempitsky, ICML 2015: loss = cross-entropy, and the encoder gets -lambda times its gradient. Known failures: a
    confident misclassification rewards the encoder without bound; a classifier at chance proves nothing.
    """

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the classifiers' mean cross-entropy, with reversed gradient at x."""
        return self.classifier_loss(reverse_gradient(x, self.strength(progress) / len(self.classifiers)), batch)


class SeparateClassifierAdversary(TrainedClassifierAdversary):
    """An adversary whose classifiers are trained in separate steps alone and are constant in the encoder's step."""

    @property
    def separate_steps(self) -> int:
        """All of `inner_steps`."""
        return self.training_settings.inner_steps


class MinMax(SeparateClassifierAdversary):
    """Alternating min-max with two optimizers: `inner_steps` steps of the classifiers, then one of the encoder.

    Goodfellow et al., NeurIPS 2014, algorithm 1, with a classifier of K speakers as the discriminator. The encoder ascends the
    cross-entropy of constant classifiers: the game of gradient reversal in alternating steps, with the same known failures, and
    with oscillations where the classifiers learn too slowly.
    """

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the classifiers' mean cross-entropy, with -lambda times its gradient at x."""
        cross = [cross_entropy(logits, batch) for logits in self.all_logits(x, batch, constant=True)]
        return scale_gradient(torch.stack(cross).mean(), -self.strength(progress))


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """Return ln K - H(softmax(logits)) over the last dimension, in nats: 0 for uniform output, ln K for certainty.

    >>> divergence_from_uniform(torch.zeros(3)).item()
    0.0
    """
    log = logits.log_softmax(dim=-1)
    return (log.exp() * (log + math.log(log.shape[-1]))).sum(dim=-1)


class MaximumEntropy(TrainedClassifierAdversary):
    """The encoder makes the classifiers' output uniform, not wrong: it descends ln K - H(output), between 0 and ln K.

    Roy and Boddeti, CVPR 2019 (MaxEnt-ARL), where the classifiers learn by cross-entropy as well. The confusion loss of Tzeng
    et al., ICCV 2015, cross-entropy with the uniform distribution, has its minimum at the same output, but no bound. A certain
    wrong output is as bad as a certain right one, so that fooling the classifiers is no gain. Known failure: where a classifier
    is nearly certain, right or wrong, the gradient vanishes.
    """

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the classifiers' mean cross-entropy, with lambda times the gradient of the divergence at x."""
        divergences = [
            mean_over_utterances(divergence_from_uniform(logits), batch) for logits in self.all_logits(x, batch, constant=True)
        ]
        return self.classifier_loss(x.detach(), batch) + self.strength(progress) * gradient_only(torch.stack(divergences).mean())


class SignedSum(ClassifierAdversary):
    """`emotion loss - lambda * speaker loss`, minimised by one optimizer. A demonstration of a failure: do not use it.

    The sum should be minimised over the encoder and maximised over the classifiers; one optimizer minimises it over both. The
    classifiers are trained to be wrong, which is far easier than to remove the speaker from the embedding: their loss grows
    without bound, their accuracy falls below chance, and a fresh attacker identifies the speaker as before. The only adversary
    whose own parameters get -lambda times the gradient.
    """

    def classifier_loss(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the classifiers' mean cross-entropy, with the gradient of their sum."""
        cross = torch.stack([cross_entropy(logits, batch) for logits in self.all_logits(x, batch)])
        return cross.mean().detach() + gradient_only(cross.sum())

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the classifiers' mean cross-entropy, with -lambda times its gradient at x and at the classifiers."""
        cross = [cross_entropy(logits, batch) for logits in self.all_logits(x, batch)]
        return scale_gradient(torch.stack(cross).mean(), -self.strength(progress))


class VariationalClub(SeparateClassifierAdversary):
    """vCLUB: the classifiers learn q(s | x); the encoder minimises an upper bound of the mutual information I(x; s).

    Cheng et al., ICML 2020: mean log q(s_i | x_i) over the batch's true pairs minus mean log q(s_j | x_i) over all its pairs, in
    nats. With `conditional`, q depends on the emotion and pairs are taken within it, for I(x; s | emotion). Known failure: it is
    a bound only where q is close to the true posterior. It falls below 0 where q is wrong, which rewards the encoder as gradient
    reversal does; keep q well trained (learning_rate, inner_steps).
    """

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the classifiers' mean cross-entropy, with lambda times the gradient of the bound at x."""
        all_logits = self.all_logits(x, batch, constant=True)
        cross = torch.stack([cross_entropy(logits, batch) for logits in all_logits])
        return cross.mean().detach() + self.strength(progress) * gradient_only(self.bound(all_logits, batch))

    def bound(self, all_logits: list[Tensor], batch: AdversaryBatch) -> Tensor:
        """Return the bound in nats, the mean over classifiers; the mean over all pairs is taken with the mean target."""
        expected = batch.target.mean(dim=0).expand_as(batch.target)
        if self.training_settings.conditional:
            expected = peer_weights(uniform_where_unlabelled(batch.emotion)) @ batch.target
        pairs = replace(batch, target=expected)
        bounds = [
            mean_over_utterances(cross_entropies(logits, pairs) - cross_entropies(logits, batch), batch) for logits in all_logits
        ]
        return torch.stack(bounds).mean()


def peer_weights(shares: Tensor) -> Tensor:
    """Return weights [B, B], with sum 1 in each row, of the utterances of the same emotion, from emotion shares [B, C]."""
    alike = shares @ shares.T
    return alike / alike.sum(dim=1, keepdim=True)
