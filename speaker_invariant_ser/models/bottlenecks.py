"""What the encoder's output passes through to become the embedding: how much it can carry at all.

A bottleneck is an nn.Module with `dim` (D'), called as `(x [B, D], noise [B, D'] or None) -> (z [B, D'], rate [B])`. The rate
is in nats, an upper bound on what z can say of the clip, and so on what any attacker can say of the speaker from one z;
0 where nothing bounds it. Without noise to use, a bottleneck that needs some draws it from torch's generator.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from speaker_invariant_ser.recipe import BottleneckSection

START = -4.0  # log-variance that training begins with: a deviation of 0.14, so that something gets through to be learned from
LIMITS = -12.0, 6.0  # of the log-variance: beyond, a rate or a sample could overflow


class Bottleneck(Protocol):
    dim: int
    noisy: bool  # whether it takes noise

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


class Open(nn.Module):
    """No bottleneck: x as it is. Nothing bounds what a real-valued vector carries, and the rate of 0 says no more than that."""

    noisy = False

    def __init__(self, dim: int, settings: BottleneckSection) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(len(x))


class Variational(nn.Module):
    """A Gaussian whose mean and variance are linear in x; z is a sample of it. Alemi et al., ICLR 2017.

    rate = KL(N(mean, variance) || N(0, 1)) = sum over dimensions of (mean^2 + variance - 1 - ln variance) / 2. Its mean over
    clips is at least the mutual information of clip and z. `weight` * rate is added to the loss.

    z is sampled in evaluation as well, since the bound is that of the sample: the mean alone is not bounded by anything.
    Known failures: the bound is one on average, a single odd clip may say more. It is loose: ten bits let through may hold the
    speaker's three as well as the emotion's two, and the rate does not say which. Too large a weight and everything collapses
    to the prior: rate 0, emotion at chance.
    """

    noisy = True

    def __init__(self, dim: int, settings: BottleneckSection) -> None:
        super().__init__()
        self.dim = dim
        self.mean, self.log_variance = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.constant_(self.log_variance.bias, START)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.mean(x).float(), self.log_variance(x).float().clamp(*LIMITS)
        noise = torch.randn_like(mean) if noise is None else noise
        rate = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        return mean + (log_variance / 2).exp() * noise, rate


class Scalar(nn.Module):
    """Finite scalar quantisation: each dimension takes one of L values in (-1, 1). Mentzer et al., ICLR 2024.

    tanh squashes to (-1, 1), which is cut into L cells of equal width 2 / L; z is the middle of the cell, (2 k + 1 - L) / L for
    k = 0 .. L-1: symmetric for even L and odd. (The paper rounds, and shifts where L is even; the cells are the same.) Rounding
    has no slope, so the gradient is that of the tanh: straight-through.

    rate = D ln L, whatever the clip, for there are L^D different z. No weight acts on it: choose fewer levels or dimensions.
    Known failure: with the usual dimension the bound is far above ln K, and says nothing; the speaker may have a value to
    itself in each of several dimensions.
    """

    noisy = False

    def __init__(self, dim: int, settings: BottleneckSection) -> None:
        super().__init__()
        self.dim, self.levels = dim, settings.levels

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        soft = torch.tanh(x.float())
        cell = ((soft + 1) / 2 * self.levels).floor().clamp(0, self.levels - 1)  # tanh reaches 1 where digits end
        z = (2 * cell + 1 - self.levels) / self.levels
        if self.training:
            z = soft + (z - soft).detach()  # not in evaluation: the last digits of this sum still know x
        return z, z.new_full((len(z),), self.dim * math.log(self.levels))


BOTTLENECKS: dict[str, Callable[[int, BottleneckSection], Bottleneck]] = {"none": Open, "vib": Variational, "fsq": Scalar}
