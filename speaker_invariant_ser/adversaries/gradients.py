"""Functions that change the gradient of a tensor but not its value; the adversaries put lambda into the gradient with them."""

from typing import Any

import torch
from torch import Tensor


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

    The loss computed from the result keeps weight 1, so that the classifier behind it learns at the same rate whatever lambda
    is; with lambda in the loss as well, the encoder would receive lambda squared.

    Args:
        x: Any tensor.
        strength: Lambda, 0 or above.

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
