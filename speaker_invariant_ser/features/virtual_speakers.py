"""Virtual speakers: altered copies of the training speakers, as further classes of a speaker adversary.

Shapes: B batch, M mel bands, T frames.
"""

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.features.augmentation import EQUALISER_KNOTS, equaliser_curve, rescale, warp
from speaker_invariant_ser.features.log_mel import DB
from speaker_invariant_ser.recipe import FeaturesSection

WARP_RANGE = (0.05, 0.15)  # smallest and largest relative shift of frequencies: adult vocal tracts differ as much
EQUALISER_DB = 3.0  # standard deviation of the equaliser curve


class VirtualSpeakers:
    """Altered copies of each training speaker that the speaker adversary treats as speakers of their own.

    A copy is a vocal-tract warp (Jaitly and Hinton, ICML WDLASL 2013) and an equaliser curve, drawn once from the seed and the
    same throughout training. Speaker recognition does so with copies at another speed (Yamamoto et al., Interspeech 2019).

    Known failures: virtual speakers differ by one family of warps only, and an adversary may learn to recognise the warp
    instead of speakers. normalise = "utterance" removes the curve again, and a strong augment.warp blurs the warp.

    Args:
        speakers: Speakers K of the training part.
        copies: Virtual speakers of each.
        seed: Seed of the training.
        features: Section [features] of the recipe.
        device: Where log-mels are.
    """

    def __init__(self, speakers: int, copies: int, seed: int, features: FeaturesSection, device: torch.device) -> None:
        rng = np.random.default_rng([seed, 0, 2])  # epochs, which the second number stands for elsewhere, start at 1
        self.draws = torch.from_numpy(rng.random((speakers, copies, 2 + EQUALISER_KNOTS), dtype=np.float32)).to(device)
        self.features = features

    def __call__(self, mels: Tensor, speaker: Tensor, copy: Tensor) -> Tensor:
        """Turn log-mels [B, M, T] of speakers [B] into those of their copies [B], counted from 1; 0 leaves an utterance as it is.

        Prosody rows, which may follow the log-mels, stay as they are.
        """
        bands = self.features.mels
        if mels.shape[1] > bands:
            return torch.cat((self(mels[:, :bands], speaker, copy), mels[:, bands:]), dim=1)
        rows = (copy > 0).nonzero()[:, 0]
        draw = self.draws[speaker[rows], copy[rows] - 1]
        alpha = 1 + rescale(draw[:, 0], *WARP_RANGE) * torch.where(draw[:, 1] < 0.5, -1, 1)
        altered = warp(mels[rows], alpha, self.features) + equaliser_curve(draw[:, 2:], mels.shape[1], EQUALISER_DB / DB)
        return mels.index_copy(0, rows, altered)
