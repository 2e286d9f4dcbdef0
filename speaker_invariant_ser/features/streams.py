"""What an encoder gets: the rows of the streams that a recipe chooses, computed from log-mel and F0.

Shapes: B batch, M mel bands, T frames, P prosody channels, I rows of the encoder's input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from speaker_invariant_ser.features.clip_functionals import FUNCTIONALS, relative_functionals
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.prosody import CHANNELS, DELTAS, absolute_f0, deltas, relative_prosody
from speaker_invariant_ser.recipe import FeaturesSection


@dataclass(frozen=True)
class Layout:
    """Which rows of an encoder's input are which: the log-mel and its deltas, one order after another, prosody, functionals.

    Attributes:
        bands: Mel bands M; 0 without the stream "log-mel".
        deltas: Orders of deltas.
        prosody: Prosody channels P; 0 without the stream "prosody".
        functionals: Utterance-level functionals, each the same in every frame of an utterance.
    """

    bands: int
    deltas: int = 0
    prosody: int = 0
    functionals: int = 0

    @classmethod
    def of(cls, features: FeaturesSection) -> "Layout":
        """Return the layout that section [features] describes."""
        prosody = len(CHANNELS) + features.absolute_f0 if "prosody" in features.streams else 0
        functionals = len(FUNCTIONALS) if features.functionals else 0
        return cls(features.mels if "log-mel" in features.streams else 0, features.deltas, prosody, functionals)

    @property
    def orders(self) -> int:
        """Channels of the log-mel: static and deltas."""
        return 1 + self.deltas

    @property
    def rows(self) -> int:
        """Number I of rows."""
        return self.bands * self.orders + self.prosody + self.functionals

    def log_mel(self, x: Tensor) -> Tensor:
        """Return the log-mel and its deltas [B, 1 + deltas, M, T] of an encoder's input [B, I, T]."""
        return x[:, : self.bands * self.orders].unflatten(1, (self.orders, self.bands))

    def prosody_rows(self, x: Tensor) -> Tensor:
        """Return the prosody channels [B, P, T] of an encoder's input [B, I, T]."""
        return x[:, self.bands * self.orders :][:, : self.prosody]

    def functionals_of(self, x: Tensor) -> Tensor:
        """Return the utterance-level functionals [B, functionals] of an encoder's input [B, I, T]."""
        return x[:, self.rows - self.functionals :, 0]


def encoder_input(rows: Tensor, normalised: Tensor, frames: Tensor, features: FeaturesSection) -> Tensor:
    """Compute the input of an encoder.

    Args:
        rows: Log-mel, and the prosody rows where features.streams has prosody, [B, M, T] or [B, M + 4, T].
        normalised: Normalised log-mel, [B, M, T], 0 in the padding.
        frames: How many of the frames are real, [B].
        features: Section [features] of the recipe.

    Returns:
        [B, I, T], 0 in the padding; see `Layout`.
    """
    parts = []
    if "log-mel" in features.streams:
        parts.append(normalised)
        for _ in range(features.deltas):
            parts.append(deltas(parts[-1], frames) / DELTAS)
    if "prosody" in features.streams:
        prosody = rows[:, features.mels :]
        channels = relative_prosody(prosody, frames)
        if features.absolute_f0:
            channels = torch.cat((channels, absolute_f0(prosody, frames)[:, None]), dim=1)
        parts.append(channels)
        if features.functionals:
            real = mask_of(frames, rows.shape[2])[:, None]
            parts.append(torch.where(real, relative_functionals(prosody, frames)[:, :, None], 0))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
