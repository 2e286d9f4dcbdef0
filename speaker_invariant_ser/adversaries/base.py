"""What every adversary has: lambda and its schedule, and the ways to give a loss another gradient than its own."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from speaker_invariant_ser.config import toml_value
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import Batch
from speaker_invariant_ser.recipe import AdversarySection


class Adversary(Protocol):
    """An nn.Module that reads `x`, a leaf of the whole batch: the embedding [B, D], or the map before pooling [B, F, T'].

    The call gives a scalar that always depends on x. After its backward, x.grad is what the encoder gets, lambda in it once, and
    the gradients of the adversary's own parameters are those of learning to read, whatever lambda is. Its value is for the
    log: the cross-entropy of its reader, in nats, or the term that is made small. One that has a reader has
    `learn(x, batch) -> loss` too: before the call, the loop makes `own_steps` updates of the own parameters down its gradient.
    """

    has_reader: bool
    own_steps: int

    def __call__(self, x: Tensor, batch: Batch, progress: float) -> Tensor: ...

    def strength(self, progress: float) -> float: ...

    def logits(self, x: Tensor, batch: Batch) -> Tensor | None: ...

    def renewed(self, step: int, seed: int = 0) -> list[nn.Parameter]: ...


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


def silent(term: Tensor) -> Tensor:
    """The gradient of a term without its value."""
    return term - term.detach()


def scaled(term: Tensor, factor: float) -> Tensor:
    """The value of a term with `factor` times its gradient."""
    return term.detach() + factor * silent(term)


def ramp(progress: float, steepness: float) -> float:
    """2 / (1 + exp(-steepness * progress)) - 1: 0 at the start, about 1 at the end. `progress` is 0 to 1.

    A function of progress alone, so a resumed run continues where it was. Ganin et al., JMLR 2016, section 5.2.2.
    """
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def warmed(progress: float, warm_up: float) -> float:
    """0 until `progress` has reached `warm_up`, then straight up to 1 in as long again, or by the end if that comes first."""
    rise = min(warm_up, 1 - warm_up)
    return min(1.0, max(0.0, (progress - warm_up) / rise)) if rise else float(progress >= warm_up)


SCHEDULES: dict[str, Callable[[float, AdversarySection], float]] = {
    "ganin": lambda progress, settings: ramp(progress, settings.ramp),
    "constant": lambda progress, settings: 1.0,
    "warm-up": lambda progress, settings: warmed(progress, settings.warm_up),
}

OF_READERS = ("reads", "conditional", "heads", "learning_rate", "inner_steps", "gradient_penalty", "renew")


class Method(nn.Module):
    """An adversary that has no parameters of its own, until one is built on it.

    `takes` names the settings of readers that mean something to it; another one that is not at its default is refused, since
    nothing would come of it.
    """

    takes: tuple[str, ...] = ()
    has_reader = False  # a classifier of the target, with `learn`, `logits`, and a value in nats

    def __init__(self, settings: AdversarySection) -> None:
        super().__init__()
        for key in OF_READERS:
            value, off = getattr(settings, key), AdversarySection.model_fields[key].default
            if value != off and key not in self.takes:
                raise RecipeError(
                    f"adversary.{key} = {toml_value(value)}: means nothing to adversary.name = {toml_value(settings.name)}; "
                    f"expected {toml_value(off)}"
                )
        self.settings = settings

    @property
    def own_steps(self) -> int:
        """Updates of its own parameters for each of the encoder's, beside the one that the shared backward pass gives."""
        return 0

    def strength(self, progress: float) -> float:
        """Lambda at this progress (0 to 1) of training."""
        return self.settings.strength * SCHEDULES[self.settings.schedule](progress, self.settings)

    def logits(self, x: Tensor, batch: Batch) -> Tensor | None:
        """What its reader says of the target, raw logits [B, K], for the log; None: it has no reader."""
        return None

    def renewed(self, step: int, seed: int = 0) -> list[nn.Parameter]:
        """The parameters that start anew before this step of training: of these, an optimizer must forget what it held."""
        return []
