"""What pushes the speaker out of the embedding during training. Nothing of it is saved with the model.

An adversary is an nn.Module called as `(embedding [B, D], batch, progress) -> loss`; the loss is added to the emotion
loss as it is, and the adversary's own parameters are trained by the same step. `strength` and `logits` are for the logs.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.config import AdversarySection
from speaker_invariant_ser.features import Batch


class Adversary(Protocol):
    def __call__(self, embedding: Tensor, batch: Batch, progress: float) -> Tensor: ...

    def strength(self, progress: float) -> float: ...

    def logits(self, embedding: Tensor) -> Tensor: ...


class ReverseGradient(torch.autograd.Function):
    """Identity forward; backward the gradient times -lambda. Ganin and Lempitsky, ICML 2015."""

    @staticmethod
    def forward(ctx, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """`x` unchanged; what comes back to it is -strength times the gradient.

    This is the only place where lambda acts. The loss behind it keeps weight 1, so that the speaker head learns
    as well as it can whatever lambda is; with lambda in the loss as well, it would act squared on the encoder.
    """
    return ReverseGradient.apply(x, strength)


def ramp(progress: float, steepness: float) -> float:
    """2 / (1 + exp(-steepness * progress)) - 1: 0 at the start, about 1 at the end. `progress` is 0 to 1.

    A function of progress alone, so a resumed run continues where it was. Ganin et al., JMLR 2016, section 5.2.2.
    """
    return 2 / (1 + math.exp(-steepness * progress)) - 1


class GradientReversal(nn.Module):
    """A speaker classifier D - hidden - K behind a gradient reversal layer, on raw logits (cross_entropy is the softmax)."""

    def __init__(self, dim: int, speakers: int, settings: AdversarySection) -> None:
        super().__init__()
        self.settings = settings
        self.head = nn.Sequential(nn.Linear(dim, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, speakers))

    def strength(self, progress: float) -> float:
        """lambda at this progress (0 to 1) of training."""
        return self.settings.strength * ramp(progress, self.settings.ramp)

    def logits(self, embedding: Tensor) -> Tensor:
        """[B, D] -> speaker logits [B, K]; its accuracy is shown, and is not evidence of anything."""
        return self.head(embedding)

    def forward(self, embedding: Tensor, batch: Batch, progress: float) -> Tensor:
        """Cross-entropy of the speaker, a scalar; `batch.target` [B, K] holds shares."""
        return F.cross_entropy(self.logits(reverse_gradient(embedding, self.strength(progress))), batch.target)


ADVERSARIES: dict[str, Callable[[int, int, AdversarySection], Adversary]] = {"grl": GradientReversal}
