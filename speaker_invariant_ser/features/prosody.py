"""Utterance-relative prosody: frame-level channels that describe how something is said, relative to the utterance itself.

F0 comes from `data.f0`, everything else is computed from the log-mel spectrogram. F0 is measured from the utterance's own median,
level and spectral tilt from the utterance's own, so that a shift of pitch or of level leaves the channels as they are.

What prosody is computed from are four rows that follow the log-mel: F0, confidence, level and tilt, in absolute units. They
are computed before any augmentation of the spectrum, since a warp, an equaliser or a masked band would change level and tilt.

Shapes: B batch, S samples, M mel bands, T frames.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.data.f0.frames import frames_of
from speaker_invariant_ser.data.f0.tracker import track_f0
from speaker_invariant_ser.features.log_mel import mask_of

F0_ROWS = 2  # F0 in Hz and confidence
PROSODY_ROWS = 4  # these, level and tilt, which follow the log-mel's rows where a model uses prosody
VOICED = 0.5  # confidence from which a frame counts as voiced: the tracker's own calibration
LOUD = 6.0  # nepers of power below the 95th percentile of the level, down to which a frame counts as loud: 26 dB
MIN_VOICED = 4  # frames, below which a median F0 means nothing
REFERENCE_HZ = 100.0  # that absolute F0 is measured from

# What each channel is divided by, so that all have a deviation of about 1 on speech.
SEMITONES, NEPERS, DELTAS = 4.0, 3.0, 1 / 3

CHANNELS = ("f0", "voicing", "confidence", "level", "tilt", "f0 delta", "level delta", "tilt delta")


def track_batch(audio: Tensor, samples: Tensor) -> Tensor:
    """Track F0 of each utterance of a batch, alone.

    Args:
        audio: Zero-padded utterances in [-1, 1], [B, S].
        samples: Their lengths, [B].

    Returns:
        F0 in Hz and confidence [B, 2, T], see `data.f0.tracker.compute_f0`, on the device of the audio; 0 in the padding.
    """
    counts: Sequence[int] = samples.tolist()
    batch = np.zeros((len(counts), F0_ROWS, frames_of(audio.shape[1])), dtype=np.float32)
    for row, clip, count in zip(batch, audio.cpu().numpy(), counts, strict=True):
        row[:, : frames_of(count)] = track_f0(clip[:count])
    return torch.from_numpy(batch).to(audio.device)


def prosody_rows(mels: Tensor, f0: Tensor, low_bands: int) -> Tensor:
    """Compute the rows that prosody is computed from.

    Args:
        mels: Natural logarithm of mel power, [B, M, T], with a hop of 16 ms.
        f0: F0 in Hz, 0 where there is none, and the confidence that a frame is voiced, [B, 2, T].
        low_bands: Number of mel bands below 1 kHz.

    Returns:
        F0, confidence, level (the mean log-mel over bands) and tilt (the log power ratio of low to high bands), both in nepers
        of power, [B, 4, T].
    """
    tilt = mels[:, :low_bands].logsumexp(dim=1) - mels[:, low_bands:].logsumexp(dim=1)
    return torch.cat((f0, mels.mean(dim=1, keepdim=True), tilt[:, None]), dim=1)


def absolute_f0(rows: Tensor, frames: Tensor) -> Tensor:
    """Return F0 in octaves from 100 Hz, 0 where unvoiced and in the padding, [B, T], of prosody rows [B, 4, T], frames [B]."""
    f0, confidence = rows[:, 0], rows[:, 1]
    voiced = (confidence >= VOICED) & (f0 > 0) & mask_of(frames, f0.shape[1])
    return torch.log2(torch.where(voiced, f0 / REFERENCE_HZ, 1.0))


def relative_prosody(rows: Tensor, frames: Tensor) -> Tensor:
    """Compute the prosody channels of zero-padded utterances.

    Args:
        rows: As `prosody_rows` returns them, [B, 4, T].
        frames: Number of real frames, [B].

    Returns:
        CHANNELS, each scaled to a deviation of about 1, [B, 8, T]; 0 in the padding. F0 is in semitones from the utterance's
        median over voiced frames and 0 where unvoiced; an utterance with fewer than four voiced frames has F0 0 throughout. Level
        is the mean log-mel from the utterance's 75th percentile. Tilt is the log power ratio of low to high bands from the
        utterance's median over loud frames.
    """
    f0, confidence, level, tilt = rows.unbind(dim=1)
    real = mask_of(frames, rows.shape[2])
    voiced = (confidence >= VOICED) & (f0 > 0) & real
    semitones = 12 * torch.log2(torch.where(voiced, f0, 1.0))
    enough = (voiced.sum(dim=1) >= MIN_VOICED)[:, None]
    relative_f0 = torch.where(voiced & enough, semitones - median_where(semitones, voiced & enough), 0) / SEMITONES
    loud = real & (level > quantile_where(level, real, 0.95) - LOUD)
    static = torch.stack(
        (
            relative_f0,
            voiced.to(rows.dtype),
            confidence,
            (level - quantile_where(level, real, 0.75)) / NEPERS,
            (tilt - median_where(tilt, loud)) / NEPERS,
        ),
        dim=1,
    )
    static = torch.where(real[:, None], static, 0)
    return torch.cat((static, deltas(static[:, [0, 3, 4]], frames) / DELTAS), dim=1)


def deltas(x: Tensor, frames: Tensor) -> Tensor:
    """Compute regression slopes over five frames; the first and last real frame are repeated beyond the ends.

    Furui, IEEE Transactions on Acoustics, Speech, and Signal Processing 34 (1), 1986.

    Args:
        x: Channels of zero-padded utterances, [B, C, T].
        frames: Number of real frames, [B].

    Returns:
        Change per frame, [B, C, T]; 0 in the padding.
    """
    length = x.shape[2]
    position = torch.arange(-2, length + 2, device=x.device).clamp_min(0)
    index = torch.minimum(position[None], frames[:, None] - 1)[:, None].expand(-1, x.shape[1], -1)
    padded = x.gather(2, index)
    slope = sum(
        step * (padded[:, :, 2 + step : 2 + step + length] - padded[:, :, 2 - step : 2 - step + length]) for step in (1, 2)
    )
    return torch.where(mask_of(frames, length)[:, None], slope / 10, 0)


def quantiles(values: Tensor, chosen: Tensor, shares: Sequence[float]) -> Tensor:
    """Return quantiles of the chosen values of each row, [shares, B]; 0 for a row without any. values, chosen: [B, T].

    The bits are those of `torch.nanquantile`, but the others are put last as infinity: no NaN is sorted, whose order ONNX leaves
    open.
    """
    ordered = values.masked_fill(~chosen, torch.inf).sort(dim=1).values
    last = (chosen.sum(dim=1, keepdim=True) - 1).clamp_min(0)
    rank = torch.tensor(shares, dtype=values.dtype, device=values.device) * last
    below, above = ordered.gather(1, rank.long()), ordered.gather(1, rank.ceil().long())
    return torch.where(chosen.any(dim=1), below.lerp(above, rank - rank.floor()).T, 0)


def quantile_where(values: Tensor, chosen: Tensor, q: float) -> Tensor:
    """Return the q-quantile of the chosen values of each row, [B, 1]; 0 for a row without any. values, chosen: [B, T]."""
    return quantiles(values, chosen, (q,)).T


def median_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the median of the chosen values of each row, [B, 1]; 0 for a row without any. values, chosen: [B, T]."""
    return quantile_where(values, chosen, 0.5)
