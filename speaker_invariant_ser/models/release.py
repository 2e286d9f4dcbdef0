"""What happens to an embedding before it leaves the model, and the noise that a model takes from the utterance itself.

A release is an nn.Module, `(x [B, D], noise [B, D] or None) -> [B, D]`: dimensions of unit variance, and then noise or rounding.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import to_int16
from speaker_invariant_ser.models.encoders import Norm1d, freeze
from speaker_invariant_ser.recipe import ReleaseSection

LEAST = 1e-3  # variance: a dimension that hardly moves is not blown up beyond it
ROWS = 2  # of noise for each clip: one for a bottleneck, one for the release


class Release(Protocol):
    noisy: bool  # whether it takes noise

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> Tensor: ...

    def fit(self, x: Tensor) -> None: ...


class Unchanged(nn.Module):
    """The embedding leaves as it is."""

    noisy = False

    def __init__(self, dim: int, settings: ReleaseSection) -> None:
        super().__init__()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return x

    def fit(self, x: Tensor) -> None:
        """Nothing to do."""


class Standardised(nn.Module):
    """Every dimension with mean 0 and variance 1, then `change`.

    With the statistics of the training speakers' embeddings, once they are fitted; in training with those of the batch. Where
    training does not see the release, x stays as it is until then. A dimension whose variance is below 0.001 stays
    smaller than the others: blown up, it would be all rounding.
    """

    noisy = False

    def __init__(self, dim: int, settings: ReleaseSection) -> None:
        super().__init__()
        self.settings = settings
        self.norm = Norm1d(dim, eps=LEAST)
        freeze(self.norm.weight)  # at 1 and 0: batch norm without an affine part
        freeze(self.norm.bias)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        acts = self.settings.trained or (not self.training and self.fitted)
        return self.change(self.norm(x), noise) if acts else x

    def change(self, x: Tensor, noise: Tensor | None) -> Tensor:
        raise NotImplementedError

    @property
    def scale(self) -> Tensor:
        """What each dimension is divided by [D]."""
        return (self.norm.running_var + LEAST).sqrt()

    def fit(self, x: Tensor) -> None:
        """Take the statistics from embeddings [N, D] of training speakers (and of nobody else)."""
        x = x.double()
        self.norm.running_mean.copy_(x.mean(dim=0))
        self.norm.running_var.copy_((x.var(dim=0, unbiased=False) - LEAST).clamp_min(0))
        self.fitted.fill_(1)


class Noise(Standardised):
    """x + sigma * noise, standard normal, where x has unit variance.

    The noise is a function of the utterance (`content_noise`), so that asking again gives the same bits.

    Known failures: over many clips of one person it averages out, as the square root of their number. It is as loud in every
    dimension, while what an embedding says is spread over many that say much the same: an attacker who adds up 100 of them
    meets a tenth of sigma. And it hides emotion and speaker alike.
    """

    noisy = True

    def change(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x + self.settings.sigma * (torch.randn_like(x) if noise is None else noise)


class Quantise(Standardised):
    """round(x / step) * step, where x has unit variance: with step 1 and a normal x about 2 bits a dimension.

    In training the gradient passes as if nothing were rounded. Known failures: D dimensions of 2 bits are many bits; the same
    cell again is the same person again; and two clips on either side of an edge differ by a whole step, whatever lay between.
    """

    def change(self, x: Tensor, noise: Tensor | None) -> Tensor:
        whole = (x / self.settings.step).round() * self.settings.step + 0.0  # no zero with a sign, which would tell x's
        return x + (whole - x).detach() if self.training else whole  # the last digits of that sum would know x


RELEASES: dict[str, Callable[[int, ReleaseSection], Release]] = {"none": Unchanged, "noise": Noise, "quantise": Quantise}


def content_noise(audio: Tensor, samples: Tensor, dim: int) -> Tensor:
    """Standard normal noise [2, B, D] that is a function of each clip (audio [B, S] in [-1, 1], samples [B]) alone.

    Of its own samples, rounded to 16 bits, without padding: the same alone or in a batch, on any device, in any process, so that
    asking twice averages nothing out.

    There is no secret in it, for what ships with the model is none: whoever has the very audio and the model computes the noise
    and takes it off again (and has the voice anyway); whoever has the embedding alone cannot. A copy that differs in one bit has
    other noise, so whoever has the audio could also average over such copies. Between two different clips the noise is as good
    as independent.
    """
    clips = zip(audio.detach().cpu().numpy(), samples.tolist(), strict=True)
    return noise_of((to_int16(clip[:count]).astype("<i2") for clip, count in clips), dim).to(audio.device)


def mel_noise(mels: Tensor, frames: Tensor, dim: int) -> Tensor:
    """The same for log-mels [B, M, T], frames [B], in single precision: for training, which has them alone, and never released.

    Other noise than that of the samples, and on another device, where the last digits differ, other noise again.
    """
    clips = zip(mels.detach().cpu().numpy(), frames.tolist(), strict=True)
    return noise_of((clip[:, :count].astype("<f4") for clip, count in clips), dim).to(mels.device)


def noise_of(clips: Iterable[np.ndarray], dim: int) -> Tensor:
    """Standard normal numbers [2, B, D] of B clips, whatever their bytes are."""
    return torch.stack([normal_of(clip.tobytes(), ROWS * dim) for clip in clips]).view(-1, ROWS, dim).transpose(0, 1)


def normal_of(content: bytes, count: int) -> Tensor:
    """Standard normal numbers [count]: SHAKE-256 (FIPS 202) as long as it takes, 8 bytes a number, through the inverse of the
    normal distribution. No generator of a library, which another version might change.
    """
    digest = hashlib.shake_256(content).digest(8 * count)
    uniform = ((np.frombuffer(digest, "<u8") >> 12) + 0.5) / 2.0**52  # never 0 nor 1, as with a bit more it would round to
    return torch.special.ndtri(torch.from_numpy(uniform)).float()
