"""Releases: noise or rounding applied to an embedding before it leaves the model, and noise as a function of the utterance.

Shapes: B batch, S samples, M mel bands, T frames, D embedding dimension, N utterances.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import to_int16
from speaker_invariant_ser.models.encoders import Norm1d, freeze
from speaker_invariant_ser.recipe_methods import NoiseSettings, QuantiseSettings, ReleaseSection

MIN_VARIANCE = 1e-3  # added to variances, so that nearly constant dimensions are not amplified
NOISE_VECTORS = 2  # for each utterance: one for the bottleneck, one for the release


class Release(Protocol):
    """What every release offers.

    Attributes:
        noisy: Whether it adds noise.
    """

    noisy: bool

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what leaves the model for embeddings x [B, D]; noise [B, D] is drawn if needed and not given."""
        ...

    def fit(self, x: Tensor) -> None:
        """Estimate statistics from embeddings [N, D] of training speakers (and of no other speaker)."""
        ...


class IdentityRelease(nn.Module):
    """No release: the embedding leaves the model as it is."""

    noisy = False

    def __init__(self, dim: int, settings: ReleaseSection) -> None:
        super().__init__()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return x as it is."""
        return x

    def fit(self, x: Tensor) -> None:
        """Do nothing: there are no statistics."""


class StandardisedRelease(nn.Module):
    """Standardise every dimension to mean 0 and variance 1, then `perturb`.

    In evaluation the statistics are those that were fitted on the training speakers; in training, with release.in_training,
    those of the batch. Without release.in_training, x is returned unchanged until the statistics are fitted. A dimension
    whose variance is below 0.001 stays smaller than the others, because most of it would be rounding errors.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [release] of the recipe.
    """

    fitted: Tensor

    noisy = False

    def __init__(self, dim: int, settings: NoiseSettings | QuantiseSettings) -> None:
        super().__init__()
        self.settings = settings
        self.norm = Norm1d(dim, eps=MIN_VARIANCE)
        freeze(self.norm.weight)  # fixed at 1 and 0: batch norm without an affine part
        freeze(self.norm.bias)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what leaves the model for embeddings x [B, D]."""
        active = self.settings.in_training or (not self.training and self.fitted)
        return self.perturb(self.norm(x), noise) if active else x

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add noise to, or round, standardised embeddings x [B, D]."""
        raise NotImplementedError

    @property
    def scale(self) -> Tensor:
        """What each dimension is divided by, [D]."""
        assert self.norm.running_var is not None
        return (self.norm.running_var + MIN_VARIANCE).sqrt()

    def fit(self, x: Tensor) -> None:
        """Estimate the statistics from embeddings [N, D] of training speakers (and of no other speaker)."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        x = x.double()
        self.norm.running_mean.copy_(x.mean(dim=0))
        self.norm.running_var.copy_((x.var(dim=0, unbiased=False) - MIN_VARIANCE).clamp_min(0))
        self.fitted.fill_(1)


class NoiseRelease(StandardisedRelease):
    """Gaussian noise: x + sigma * noise, where x has unit variance.

    The noise is a function of the utterance (`content_noise`): embedding it again gives the same bits, and nothing averages out.

    Known failures: over several utterances of a speaker the noise averages out, with the square root of their number. It is
    equally strong in every dimension while dimensions are redundant: an attacker that adds up 100 of them meets a tenth of
    sigma. It hides emotion and speaker alike.
    """

    noisy = True

    def __init__(self, dim: int, settings: NoiseSettings) -> None:
        super().__init__(dim, settings)
        self.sigma = settings.sigma

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add noise to x [B, D]."""
        return x + self.sigma * (torch.randn_like(x) if noise is None else noise)


class QuantisedRelease(StandardisedRelease):
    """Rounding: round(x / step) * step, where x has unit variance; with step 1 and a normal x about 2 bits per dimension.

    In training the gradient is that of the identity (straight-through).

    Known failures: D dimensions of 2 bits are many bits. The same cell again suggests the same speaker again. Two utterances
    on either side of a border differ by a whole step, however close they were.
    """

    def __init__(self, dim: int, settings: QuantiseSettings) -> None:
        super().__init__(dim, settings)
        self.step = settings.step

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Round x [B, D]."""
        rounded = (x / self.step).round() * self.step + 0.0  # without negative zeros, which show x's sign
        return x + (rounded - x).detach() if self.training else rounded  # the rounding error of that sum would depend on x


def content_noise(audio: Tensor, samples: Tensor, dim: int) -> Tensor:
    """Compute noise that is a function of each utterance alone.

    It depends on the utterance's own samples, rounded to 16 bits, without padding: it is the same alone or in a batch, on any
    device, in any process, so that embedding an utterance twice averages nothing out.

    The noise is not secret, because the model contains everything that determines it. A recipient of the audio and the model
    can compute the noise and subtract it; a recipient of the embedding alone cannot. A copy of the audio that differs in one
    bit has other noise, so that a recipient of the audio could also average over such copies. The noises of two different
    utterances are practically independent.

    Args:
        audio: Zero-padded clips in [-1, 1], [B, S].
        samples: Their lengths, [B].
        dim: Embedding dimension D.

    Returns:
        Standard normal numbers, [2, B, D].
    """
    clips = zip(audio.detach().cpu().numpy(), samples.tolist(), strict=True)
    return hashed_noise((to_int16(clip[:count]).astype("<i2") for clip, count in clips), dim).to(audio.device)


def mel_noise(mels: Tensor, frames: Tensor, dim: int) -> Tensor:
    """Compute such noise, [2, B, D], from log-mels [B, M, T] with frames [B] instead of audio.

    For evaluation during training, which has log-mels only; nothing embedded with it is released. It differs from
    `content_noise`, and between devices, whose log-mels differ in their last digits.
    """
    clips = zip(mels.detach().cpu().numpy(), frames.tolist(), strict=True)
    return hashed_noise((clip[:, :count].astype("<f4") for clip, count in clips), dim).to(mels.device)


def hashed_noise(clips: Iterable[np.ndarray], dim: int) -> Tensor:
    """Return standard normal numbers [2, B, D] that are a function of the bytes of each of B clips."""
    noise = [hashed_normal(clip.tobytes(), NOISE_VECTORS * dim) for clip in clips]
    return torch.stack(noise).view(-1, NOISE_VECTORS, dim).transpose(0, 1)


def hashed_normal(content: bytes, count: int) -> Tensor:
    """Return standard normal numbers [count]: SHAKE-256 (FIPS 202), 8 bytes a number, through the inverse normal distribution.

    No library's random generator, which another version might change.
    """
    digest = hashlib.shake_256(content).digest(8 * count)
    uniform = ((np.frombuffer(digest, "<u8") >> 12) + 0.5) / 2.0**52  # never 0 or 1, which 53 bits would round to
    return torch.special.ndtri(torch.from_numpy(uniform)).float()


RELEASES: dict[str, Callable[..., Release]] = {
    "none": IdentityRelease,
    "noise": NoiseRelease,
    "quantise": QuantisedRelease,
}
