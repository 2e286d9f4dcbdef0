"""Bottlenecks between encoder and embedding, which bound how much information an embedding can carry.

The bound is called rate and is in nats: no attacker can learn more about the speaker from one embedding.

Shapes: B batch, D embedding dimension.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from speaker_invariant_ser.recipe_methods import BottleneckSection, FsqSettings

INITIAL_LOG_VARIANCE = -4.0  # a standard deviation of 0.14: little enough noise to learn from the start
LOG_VARIANCE_LIMITS = -12.0, 6.0  # beyond these a rate or a sample could overflow


class Bottleneck(Protocol):
    """What every bottleneck offers.

    Attributes:
        dim: Dimension of what it returns.
        noisy: Whether it adds noise.
    """

    dim: int
    noisy: bool

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pass embeddings through.

        Args:
            x: Output of the encoder, [B, D].
            noise: Standard normal, [B, D]; drawn from torch's generator if needed and not given.

        Returns:
            What passes [B, D], and the rate of each [B]: an upper bound in nats, 0 where there is none.
        """
        ...


class IdentityBottleneck(nn.Module):
    """No bottleneck. The rate of 0 stands for "no bound": a real-valued vector can carry any amount of information."""

    noisy = False

    def __init__(self, dim: int, settings: BottleneckSection) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x as it is, and rates of 0."""
        return x, x.new_zeros(len(x))


class VariationalBottleneck(nn.Module):
    """Variational information bottleneck: z is sampled from a Gaussian whose mean and log-variance are linear in x.

    rate = KL(N(mean, variance) || N(0, 1)) = sum over dimensions of (mean^2 + variance - 1 - ln variance) / 2. Its mean over
    utterances is at least the mutual information of utterance and z. Training adds `weight` * rate to the loss. Alemi,
    Fischer, Dillon and Murphy, "Deep Variational Information Bottleneck", ICLR 2017.

    z is sampled in evaluation too: the bound holds for the sample, and nothing bounds the mean.

    Known failures: the bound holds on average, a single unusual utterance may carry more. It is loose and does not say what
    passes: ten bits have room for the three of the speaker as well as the two of the emotion. With too large a weight z
    collapses to the prior, with rate 0 and emotion at chance.
    """

    noisy = True

    def __init__(self, dim: int, settings: BottleneckSection) -> None:
        super().__init__()
        self.dim = dim
        self.mean, self.log_variance = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.constant_(self.log_variance.bias, INITIAL_LOG_VARIANCE)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return a sample for each x, and its rate."""
        mean, log_variance = self.mean(x).float(), self.log_variance(x).float().clamp(*LOG_VARIANCE_LIMITS)
        noise = torch.randn_like(mean) if noise is None else noise
        rate = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        return mean + (log_variance / 2).exp() * noise, rate


class FiniteScalarQuantisation(nn.Module):
    """Finite scalar quantisation: each dimension takes one of L values in (-1, 1).

    tanh maps to (-1, 1), which is divided into L cells of equal width 2 / L; z is the centre of the cell, (2 k + 1 - L) / L for
    k = 0 .. L-1, symmetric for even and odd L. (The paper rounds, and shifts where L is even; the cells are the same.)
    Rounding has no gradient, so that of the tanh is used: straight-through. Mentzer, Minnen, Agustsson and Tschannen, "Finite
    Scalar Quantization: VQ-VAE Made Simple", ICLR 2024.

    rate = D ln L for every utterance, because there are L^D different z. No weight changes it: choose fewer levels or
    dimensions.

    Known failure: with the usual dimension the bound is far above ln K and says nothing; each speaker may still have values
    of their own in several dimensions.
    """

    noisy = False

    def __init__(self, dim: int, settings: FsqSettings) -> None:
        super().__init__()
        self.dim, self.levels = dim, settings.levels

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the cell centre for each x, and the rate."""
        soft = torch.tanh(x.float())
        cell = ((soft + 1) / 2 * self.levels).floor().clamp(0, self.levels - 1)  # tanh rounds to 1 for large x
        z = (2 * cell + 1 - self.levels) / self.levels
        if self.training:
            z = soft + (z - soft).detach()  # not in evaluation: the rounding error of this sum depends on x
        return z, z.new_full((len(z),), self.dim * math.log(self.levels))


BOTTLENECKS: dict[str, Callable[..., Bottleneck]] = {
    "none": IdentityBottleneck,
    "vib": VariationalBottleneck,
    "fsq": FiniteScalarQuantisation,
}
