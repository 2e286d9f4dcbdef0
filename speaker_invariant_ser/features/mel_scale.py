"""Frequencies and the mel bands that they lie in."""

import torch
from torch import Tensor

from speaker_invariant_ser.recipe import FeaturesSection


def hertz_to_mel(hertz: Tensor | float) -> Tensor:
    """Return mel of hertz, as in HTK (O'Shaughnessy 1987)."""
    return 2595 * torch.log10(1 + torch.as_tensor(hertz) / 700)


def hertz_to_band(hertz: Tensor, features: FeaturesSection) -> Tensor:
    """Return the fractional band of a frequency: band centres are spaced evenly in mel, f_min is at -1 and f_max at M."""
    low, high = hertz_to_mel(features.f_min), hertz_to_mel(features.f_max)
    return (hertz_to_mel(hertz) - low) / (high - low) * (features.mels + 1) - 1


def band_to_hertz(band: Tensor, features: FeaturesSection) -> Tensor:
    """Return the frequency of a fractional band, the inverse of `hertz_to_band`."""
    low, high = hertz_to_mel(features.f_min), hertz_to_mel(features.f_max)
    return 700 * (10 ** ((low + (band + 1) * (high - low) / (features.mels + 1)) / 2595) - 1)


def bands_below(hertz: float, features: FeaturesSection) -> int:
    """Return how many mel bands are centred below a frequency, at least one and not all.

    >>> bands_below(1000.0, FeaturesSection())
    22
    """
    below = int(hertz_to_band(torch.tensor(hertz), features).floor()) + 1
    return min(max(below, 1), features.mels - 1)
