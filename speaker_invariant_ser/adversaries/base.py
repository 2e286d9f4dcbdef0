"""The adversary's interface, the schedules of lambda, and functions that change a loss's gradient but not its value."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speaker_invariant_ser.recipe_methods import AdversarySection, AdversarySettings


@dataclass(frozen=True)
class AdversaryBatch:
    """What an adversary gets in addition to its input: labels, and how many frames are real.

    Labels are shares that sum to 1: one-hot, unless utterances were mixed or concatenated. An utterance of unknown emotion
    has no share of any.

    Attributes:
        frames: Number of frames of the frame-level features, [B].
        emotion: Shares of the emotions, [B, C].
        target: Shares of the adversary's target, the speaker as a rule, [B, K].
    """

    frames: Tensor
    emotion: Tensor
    target: Tensor


class ReverseGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by -strength. Ganin and Lempitsky, ICML 2015."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        """Return x."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return -strength times the gradient."""
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x, with a gradient that is multiplied by -strength on its way back.

    Lambda acts here and nowhere else. The loss that follows keeps weight 1, so that the classifier learns as well as it can
    whatever lambda is; with lambda in the loss too, the encoder would get its square.

    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(x, 0.5).sum().backward()
    >>> x.grad
    tensor([-0.5000, -0.5000])
    """
    return ReverseGradient.apply(x, strength)


def gradient_only(term: Tensor) -> Tensor:
    """Return a term with value 0 and the gradient of `term`."""
    return term - term.detach()


def scale_gradient(term: Tensor, factor: float) -> Tensor:
    """Return a term with the value of `term` and `factor` times its gradient."""
    return term.detach() + factor * gradient_only(term)


def ganin_ramp(progress: float, steepness: float) -> float:
    """Return 2 / (1 + exp(-steepness * progress)) - 1. Ganin et al., JMLR 2016, section 5.2.2.

    Args:
        progress: Share of training that is done, 0 to 1. As nothing else enters, a resumed run continues the ramp.
        steepness: The paper's gamma, above 0; the paper's value is 10.

    Returns:
        0 at the start of training, about 1 at its end.

    >>> ganin_ramp(0.0, 10)
    0.0
    """
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def warm_up_ramp(progress: float, warm_up: float) -> float:
    """Return 0 during a warm-up, then a linear rise to 1 that takes as long again, or ends with training if that is sooner.

    Args:
        progress: Share of training that is done, 0 to 1.
        warm_up: Share of training that the warm-up takes, 0 to 1.

    >>> [warm_up_ramp(progress, 0.2) for progress in (0.1, 0.25, 0.5)]
    [0.0, 0.24999999999999994, 1.0]
    """
    rise = min(warm_up, 1 - warm_up)
    return min(1.0, max(0.0, (progress - warm_up) / rise)) if rise else float(progress >= warm_up)


SCHEDULES: dict[str, Callable[[float, AdversarySettings], float]] = {
    "ganin": lambda progress, settings: ganin_ramp(progress, settings.steepness),
    "constant": lambda progress, settings: 1.0,
    "warm-up": lambda progress, settings: warm_up_ramp(progress, settings.warm_up),
}


class Adversary(nn.Module):
    """A training-time opponent of speaker information in the embedding; it is never saved with the model.

    `adversary(x, batch, progress)` returns a scalar that always depends on `x`, a leaf of the whole batch: embeddings [B, D] or,
    with `settings.on_frames`, frame-level features [B, F, T']. After its backward pass `x.grad` is the gradient for the encoder,
    lambda in it once, and the adversary's own parameters have the gradient of learning to classify the target, whatever lambda
    is. The scalar's value is for the log: the classifier's cross-entropy in nats, or the term that is minimised.

    An adversary with a classifier also has `classifier_loss`. Before each call the training loop takes `separate_steps` steps
    down that loss, with the optimizer of the adversary's own.

    Args:
        settings: The adversary's section of the recipe.
    """

    has_classifier = False

    def __init__(self, settings: AdversarySection) -> None:
        super().__init__()
        self.settings: AdversarySettings = settings

    @property
    def separate_steps(self) -> int:
        """Updates of the adversary's own parameters before each encoder step, in addition to that of the shared backward pass."""
        return 0

    def strength(self, progress: float) -> float:
        """Return lambda at this share (0 to 1) of training."""
        return self.settings.strength * SCHEDULES[self.settings.schedule](progress, self.settings)

    def classifier_loss(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the loss that the adversary's classifier minimises, in nats.

        Args:
            x: Embeddings [B, D] or frame-level features [B, F, T'].
            batch: Labels and frame counts of the same utterances.
        """
        raise NotImplementedError

    def logits(self, x: Tensor, batch: AdversaryBatch) -> Tensor | None:
        """Return the classifier's raw logits of the target [B, K] for the log, or None without a classifier."""
        return None

    def reset_due(self, step: int, seed: int = 0) -> list[nn.Parameter]:
        """Re-initialise the classifier that is due before this step of training.

        Args:
            step: Number of steps taken so far.
            seed: Seed of the new parameters.

        Returns:
            The new parameters, whose optimizer state must be cleared; empty if nothing is due.
        """
        return []
