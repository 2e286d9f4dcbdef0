"""Utterance-relative functionals of a whole batch: the 22 numbers of `prosody_functionals`, for the input of an encoder.

They are computed from the prosody rows (`prosody.prosody_rows`), so that they follow tempo and time masks in training. Level and
tilt come from the recipe's own mel bands; otherwise the definitions are those of the prosody baseline.

Shapes: B batch, T frames, V voiced frames.
"""

import torch
from torch import Tensor

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.prosody import REFERENCE_HZ, VOICED, quantiles
from speaker_invariant_ser.features.prosody_functionals import FRAME_SECONDS, MIN_VOICED, PROSODY

FUNCTIONALS = tuple(PROSODY)


def relative_functionals(rows: Tensor, frames: Tensor) -> Tensor:
    """Compute the functionals of zero-padded utterances.

    Args:
        rows: As `prosody.prosody_rows` returns them, [B, 4, T].
        frames: Number of unpadded frames, [B].

    Returns:
        The numbers in the order of FUNCTIONALS, [B, 22], finite for any utterance. With fewer than six voiced frames all F0
        numbers are 0.
    """
    real = mask_of(frames, rows.shape[2])
    f0, confidence, level, tilt = torch.where(real[:, None], rows, 0).unbind(dim=1)
    voiced = (confidence >= VOICED) & (f0 > 0) & real
    semitones = 12 * torch.log2(torch.where(voiced, f0 / REFERENCE_HZ, 1.0))
    f0_numbers = shape_of_f0(*voiced_first(semitones, voiced))
    enough = voiced.sum(dim=1, keepdim=True) >= MIN_VOICED
    tilt_change, _ = changes(tilt, real)
    single = torch.stack((deviation(tilt, real), tilt_change, deviation(confidence, real)), dim=1)
    return torch.cat((torch.where(enough, f0_numbers, 0), shape_of_level(level, real), single, rhythm(voiced, frames)), dim=1)


def shape_of_f0(semitones: Tensor, real: Tensor) -> Tensor:
    """Return the eight F0 numbers [B, 8] of voiced frames [B, V] and their mask [B, V]."""
    p5, p10, median, p90, p95 = quantiles(semitones, real, (0.05, 0.1, 0.5, 0.9, 0.95))
    change, spread = changes(semitones, real)
    numbers = (p95 - p5, change, spread, skewness(semitones, real), p90 - median, median - p10, trend(semitones, real))
    return torch.stack((deviation(semitones, real), *numbers), dim=1)


def shape_of_level(level: Tensor, real: Tensor) -> Tensor:
    """Return the six level numbers [B, 6] of levels and their mask, [B, T] both."""
    low, high = quantiles(level, real, (0.05, 0.95))
    numbers = (deviation(level, real), high - low, *changes(level, real), skewness(level, real), trend(level, real))
    return torch.stack(numbers, dim=1)


def rhythm(voiced: Tensor, frames: Tensor) -> Tensor:
    """Return share, mean and deviation of duration, mean pause and rate of voiced stretches [B, 5], from their mask [B, T]."""
    begins = voiced & ~torch.nn.functional.pad(voiced, (1, -1))
    count, total = begins.sum(dim=1), voiced.sum(dim=1)
    # The length of each stretch, at the index of its number; index 0 collects the unvoiced frames.
    number = torch.where(voiced, begins.cumsum(dim=1), 0)
    length = torch.zeros(len(voiced), voiced.shape[1] + 1, device=voiced.device)
    length = length.scatter_add(1, number, torch.ones_like(number, dtype=length.dtype))[:, 1:]
    stretches = mask_of(count, length.shape[1])
    position = torch.arange(voiced.shape[1], device=voiced.device)
    first = torch.where(voiced, position, voiced.shape[1]).amin(dim=1)
    last = torch.where(voiced, position, -1).amax(dim=1)
    paused = (last - first + 1 - total).clamp_min(0)
    numbers = (
        total / frames,
        FRAME_SECONDS * mean(length, stretches),
        FRAME_SECONDS * deviation(length, stretches),
        FRAME_SECONDS * paused / (count - 1).clamp_min(1),
        count / (frames * FRAME_SECONDS),
    )
    return torch.stack(numbers, dim=1)


def voiced_first(values: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
    """Return the voiced values of each row [B, T] at its beginning, in their order, and the mask of where they are."""
    position = torch.arange(voiced.shape[1], device=voiced.device)
    order = torch.where(voiced, position, position + voiced.shape[1]).argsort(dim=1)  # ONNX has no stable sort
    return values.gather(1, order), mask_of(voiced.sum(dim=1), values.shape[1])


def mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values of each row, [B]; 0 for a row without any."""
    return torch.where(chosen, values, 0).sum(dim=1) / chosen.sum(dim=1).clamp_min(1)


def deviation(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the standard deviation of the chosen values of each row, [B]."""
    return mean((values - mean(values, chosen)[:, None]).square(), chosen).sqrt()


def skewness(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the skewness of the chosen values of each row, [B]; 0 where they do not differ."""
    centred, spread = values - mean(values, chosen)[:, None], deviation(values, chosen)
    cubed = mean((centred / spread.clamp_min(1e-6)[:, None]) ** 3, chosen)
    return torch.where(spread > 1e-6, cubed, 0)


def changes(values: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean absolute change and deviation of the change, [B] both, between values [B, T] at the beginning of rows."""
    change, both = values.diff(dim=1), real[:, 1:]
    return mean(change.abs(), both), deviation(change, both)


def trend(values: Tensor, real: Tensor) -> Tensor:
    """Return the slope of a line through the values [B, T] at the beginning of each row, from first to last, [B]."""
    count = real.sum(dim=1, keepdim=True)
    position = torch.arange(values.shape[1], device=values.device) / (count - 1).clamp_min(1) - 0.5
    position = torch.where(real & (count > 1), position, 0)
    return (position * values).sum(dim=1) / position.square().sum(dim=1).clamp_min(1e-12)
