"""Augmentation of log-mels during training, batched on any device: tempo, vocal-tract warp, level, equaliser, noise, masks.

Shapes: B batch, M mel bands, T frames.

All random decisions about an utterance come from one row of uniform numbers in [0, 1), so that a batch divided over processes is
augmented as the whole batch would be. Padding never affects an utterance's frames; it must be finite.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.features.log_mel import DB, LogMel, mask_of
from speaker_invariant_ser.features.mel_scale import band_to_hertz, hertz_to_band
from speaker_invariant_ser.features.prosody import F0_ROWS
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import AugmentSection

EQUALISER_KNOTS = 6  # random values that an equaliser curve is interpolated from
NOISE_TILTS = (-6.0, 0.0)  # dB per octave: from brown noise, as of rooms and streets, to white noise
WARP_BEND = 0.6  # share of the highest frequency above which the warp bends: 4.8 kHz of 8, as in the paper
MIN_POWER = 1e-30  # keeps the logarithm of padding without noise finite
MIN_NOISE = 0.25  # smallest cube root of noise power of mean 1; below, the Wilson-Hilferty approximation is too small
TAIL = 1e-6  # probability cut from both tails of a normal variable: it stays within 4.8 standard deviations


class Augment:
    """Random changes to a batch of log-mels, in this order; a setting of 0 switches one off.

    1. Tempo.
    2. Vocal-tract length perturbation: a warp of the frequency axis (Jaitly and Hinton, ICML WDLASL 2013).
    3. Level, which normalise = "utterance" removes again.
    4. Equaliser: a smooth random curve over the bands.
    5. Noise, added as power.
    6. Frequency and time masks (SpecAugment: Park et al., Interspeech 2019), filled with the utterance's mean.

    Args:
        settings: Section [augment] of the recipe.
        features: Section [features]: the log-mels that come in.
        changes: False where what comes in are no log-mels, and stays as it is.
    """

    def __init__(self, settings: AugmentSection, features: FeaturesSection, changes: bool = True) -> None:
        self.settings, self.features, self.changes = settings, features, changes
        self.time_mask = round(settings.time_mask_ms / features.hop_ms)
        self.width, self.shape = white_noise(features)
        self.draws = {
            "tempo": 1,
            "warp": 1,
            "level": 1,
            "equaliser": EQUALISER_KNOTS,
            "noise": 3,
            "bands": 2 * settings.frequency_masks,
            "times": 2 * settings.time_masks,
        }
        self.columns = sum(self.draws.values())  # uniform numbers for each utterance, whatever is switched off

    def __call__(self, mels: Tensor, frames: Tensor, draws: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Prosody rows (`prosody.prosody_rows`), which may follow the log-mels, change with the tempo and are hidden by time masks
        alone: they describe the recording, not its altered spectrum.

        Args:
            mels: Log-mels, [B, M, T], or with prosody [B, M + 4, T]; not changed in place.
            frames: Number of unpadded frames, [B].
            draws: Uniform numbers in [0, 1), [B, columns]. Only the noise itself comes from torch's generator.
            mean: Speaker means to subtract, [B, M, 1]: before masking, or a mask would show the negative of the speaker's mean.

        Returns:
            Log-mel [B, M, T'] or [B, M + 4, T'], and frames [B].
        """
        if not self.changes:
            return mels, frames
        s = self.settings
        draw = dict(zip(self.draws, draws.split(list(self.draws.values()), dim=1), strict=True))
        mels, prosody = mels[:, : self.features.mels], mels[:, self.features.mels :]
        if s.tempo:
            tempo = rescale(draw["tempo"][:, 0], 1 - s.tempo, 1 + s.tempo)
            prosody = stretch_prosody(prosody, frames, tempo)
            mels, frames = stretch(mels, frames, tempo)
        if s.warp:
            mels = warp(mels, rescale(draw["warp"][:, 0], 1 - s.warp, 1 + s.warp), self.features)
        if not (s.tempo or s.warp):
            mels = mels.clone()  # changed in place from here on: allocating memory takes longer than adding
        if s.level_db:
            mels += rescale(draw["level"], -s.level_db, s.level_db)[..., None] / DB
        if s.equaliser_db:
            mels += equaliser_curve(draw["equaliser"], mels.shape[1], s.equaliser_db / DB)
        if s.noise:
            self.add_noise_(mels, frames, draw["noise"])
        if mean is not None:
            mels -= mean
        if s.frequency_masks or s.time_masks:
            masked = self.mask_(mels, frames, draw["bands"], draw["times"])
            prosody = mask_prosody(prosody, frames, masked)
        return (torch.cat((mels, prosody), dim=1) if prosody.shape[1] else mels), frames

    def add_noise_(self, mels: Tensor, frames: Tensor, draw: Tensor) -> None:
        """Add noise to the chosen share of log-mels [B, M, T], in place; draw [B, 3] sets whether, at which level and tilt."""
        rows = (draw[:, 0] < self.settings.noise).nonzero()[:, 0]
        snr_db = rescale(draw[rows, 1], *self.settings.noise_snr_db)
        profile = tilt_noise(self.width.to(mels.device), rescale(draw[rows, 2], *NOISE_TILTS), self.features)
        mels[rows] = add_noise(mels[rows].contiguous(), frames[rows], snr_db, profile, self.shape.to(mels.device))

    def mask_(self, mels: Tensor, frames: Tensor, bands: Tensor, times: Tensor) -> Tensor:
        """Mask bands and frames of log-mels [B, M, T] with the utterance's mean, in place; return the masked frames [B, T].

        bands and times go to `draw_masks`.
        """
        mean, all_bands = mean_level(mels, frames)[:, None, None], torch.full_like(frames, mels.shape[1])
        masked_bands = draw_masks(bands, all_bands, mels.shape[1], self.settings.frequency_mask_bands)
        masked_times = draw_masks(times, frames, mels.shape[2], self.time_mask)
        mels.lerp_(mean, masked_bands[:, :, None].to(mels.dtype)).lerp_(mean, masked_times[:, None, :].to(mels.dtype))
        return masked_times


def rescale(draw: Tensor, low: float, high: float) -> Tensor:
    """Map uniform numbers in [0, 1) to [low, high)."""
    return low + (high - low) * draw


def mean_level(mels: Tensor, frames: Tensor) -> Tensor:
    """Return each utterance's mean over its unpadded frames and all bands, [B]."""
    sums = torch.where(mask_of(frames, mels.shape[2]), mels.sum(dim=1), 0)
    return sums.sum(dim=1) / (frames * mels.shape[1])


def stretch(mels: Tensor, frames: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
    """Change the tempo: output frame t is input frame t * tempo, linearly interpolated.

    Args:
        mels: Log-mels, [B, M, T].
        frames: Number of unpadded frames, [B].
        tempo: Factor of each utterance, [B]; above 1 is faster.

    Returns:
        Log-mel [B, M, T'] and frames [B].
    """
    frames, last = (frames / tempo).floor().long().clamp_min(1), frames[:, None] - 1
    at = torch.minimum(torch.arange(int(frames.max()), device=mels.device) * tempo[:, None], last)
    columns = mels.transpose(1, 2)
    first = columns.shape[1] * torch.arange(len(mels), device=mels.device)[:, None]
    neighbours = torch.stack((at.floor().long() + first, at.ceil().long() + first), dim=2).flatten(0, 1)
    weights = torch.stack((1 - at.frac(), at.frac()), dim=2).flatten(0, 1)
    # a weighted sum of two rows: half the time of two gathers
    stretched = F.embedding_bag(neighbours, columns.flatten(0, 1), per_sample_weights=weights, mode="sum")
    return stretched.unflatten(0, at.shape).transpose(1, 2), frames


def stretch_nearest(rows: Tensor, frames: Tensor, tempo: Tensor) -> Tensor:
    """Change the tempo of rows that cannot be interpolated: output frame t is the input frame nearest to t * tempo.

    Between 0, which means unvoiced, and an F0 there is nothing.

    Args:
        rows: F0 and confidence, [B, 2, T].
        frames: How many of their frames are real, [B].
        tempo: Factor of each utterance, [B]; above 1 is faster.

    Returns:
        [B, 2, T'], with as many frames as `stretch` returns.
    """
    length = int((frames / tempo).floor().long().clamp_min(1).max())
    at = (torch.arange(length, device=rows.device) * tempo[:, None]).round().long()
    return rows.gather(2, torch.minimum(at, frames[:, None] - 1)[:, None].expand(-1, rows.shape[1], -1))


def stretch_prosody(rows: Tensor, frames: Tensor, tempo: Tensor) -> Tensor:
    """Change the tempo of prosody rows [B, 4, T], or of none [B, 0, T]: F0 and confidence nearest, level and tilt linearly."""
    if not rows.shape[1]:
        return rows
    f0, shape = rows.split((F0_ROWS, rows.shape[1] - F0_ROWS), dim=1)
    return torch.cat((stretch_nearest(f0, frames, tempo), stretch(shape, frames, tempo)[0]), dim=1)


def mask_prosody(rows: Tensor, frames: Tensor, masked: Tensor) -> Tensor:
    """Hide masked frames [B, T] of prosody rows [B, 4, T]: unvoiced, with the utterance's mean level and tilt."""
    if not rows.shape[1]:
        return rows
    mean = torch.where(mask_of(frames, rows.shape[2])[:, None], rows, 0).sum(dim=2) / frames[:, None]
    mean[:, :F0_ROWS] = 0
    return torch.where(masked[:, None], mean[:, :, None], rows)


def warp(mels: Tensor, alpha: Tensor, features: FeaturesSection) -> Tensor:
    """Warp the frequency axis: the output at f is the input at `warp_frequency(f)`, linearly interpolated between bands.

    Args:
        mels: Log-mels, [B, M, T].
        alpha: Factor of each utterance, [B].
        features: Section [features] of the recipe.

    Returns:
        Log-mels of the same shape.
    """
    bands = torch.arange(features.mels, device=mels.device)
    at = hertz_to_band(warp_frequency(band_to_hertz(bands, features), alpha[:, None], features.f_max), features)
    return (1 - (at.clamp(0, features.mels - 1)[:, :, None] - bands).abs()).clamp_min(0) @ mels


def warp_frequency(hertz: Tensor, alpha: Tensor, top: float) -> Tensor:
    """Return alpha * hertz up to a bend, then a line that maps `top` to itself (Jaitly and Hinton, ICML WDLASL 2013)."""
    bend_output = WARP_BEND * top * alpha.clamp_max(1)
    bend = bend_output / alpha
    return torch.where(hertz <= bend, alpha * hertz, top - (top - bend_output) / (top - bend) * (top - hertz))


def equaliser_curve(draw: Tensor, bands: int, deviation: float) -> Tensor:
    """Return random curves over the bands, [B, M, 1]: normal values, one for each column of draw [B, knots], interpolated."""
    values = deviation * torch.special.ndtri(draw.clamp(TAIL, 1 - TAIL))
    return F.interpolate(values[:, None], size=bands, mode="linear", align_corners=True).transpose(1, 2)


def white_noise(features: FeaturesSection) -> tuple[Tensor, Tensor]:
    """Return the distribution of white noise's power in the mel bands.

    The FFT of Gaussian noise in a window h is normal in every bin, and bins d apart correlate as the transform of h squared.
    The power of a band is a weighted sum over bins; the gamma variable of the same mean and variance has as shape the squared
    mean over the variance. A single bin has shape 1.

    Returns:
        Share of the power in each band [M], and shape of the gamma variable of the power in a frame [M].
    """
    transform = LogMel(features, SAMPLE_RATE).mel
    filters = transform.mel_scale.fb  # [bins, M]
    correlation = torch.fft.fft(transform.spectrogram.window**2, transform.n_fft).abs() ** 2
    spread = torch.fft.fft(filters, transform.n_fft, dim=0) * torch.fft.fft(correlation / correlation[0])[:, None]
    variance = (filters * torch.fft.ifft(spread, dim=0).real[: len(filters)]).sum(dim=0)
    width = filters.sum(dim=0)
    return width / width.sum(), (width**2 / variance).clamp_min(0.5)  # the shape for a single real number


def tilt_noise(width: Tensor, tilt: Tensor, features: FeaturesSection) -> Tensor:
    """Return the share of noise power in each band [B, M]: that of white noise, `width` [M], tilted by dB per octave [B]."""
    octaves = band_to_hertz(torch.arange(features.mels, device=width.device), features).log2()
    return (width.log() + tilt[:, None] / DB * octaves).softmax(dim=1)


def add_noise(mels: Tensor, frames: Tensor, snr_db: Tensor, profile: Tensor, shape: Tensor) -> Tensor:
    """Add noise to log-mels, as power.

    The power of a band in a frame is a gamma variable, approximated by the cube of a normal one (Wilson and Hilferty 1931).
    Neighbouring frames and bands are independent, which is not quite true of real noise.

    Args:
        mels: Log-mels, [B, M, T].
        frames: Number of unpadded frames, [B].
        snr_db: Signal-to-noise ratio over all bands and the whole utterance, dB, [B]. Torchaudio's triangular filters add up to
            1, so that the sum over bands is the power between f_min and f_max.
        profile: Share of the noise power in each band, [B, M].
        shape: Shape of the gamma variable of each band, [M].

    Returns:
        Log-mels of the same shape.
    """
    signal = torch.where(mask_of(frames, mels.shape[2])[:, None], mels, -math.inf).exp()
    level = signal.sum(dim=(1, 2)) / frames * 10 ** (-snr_db / 10)
    spread = 1 / (9 * shape)[:, None]
    noise = torch.randn_like(mels).mul_(spread.sqrt()).add_(1 - spread).clamp_min_(MIN_NOISE).pow_(3)
    return noise.mul_((level[:, None] * profile)[:, :, None]).add_(signal).add_(MIN_POWER).log_()


def draw_masks(draw: Tensor, extent: Tensor, length: int, widest: int) -> Tensor:
    """Draw masks of 0 to `widest` positions inside each utterance.

    Args:
        draw: Uniform numbers in [0, 1), [B, 2 n] for n masks: n widths, then n starts.
        extent: How many positions of each utterance are real, [B]. A mask covers at most a fifth of them, so that something is
            left of short utterances.
        length: Positions of the batch.
        widest: Width of a mask, at most.

    Returns:
        Bool [B, length], true where an utterance is masked.
    """
    limit = torch.minimum(torch.full_like(extent, widest), extent // 5)[:, None]
    width, start = draw.chunk(2, dim=1)
    width = (width * (limit + 1)).floor()
    start = (start * (extent[:, None] - width + 1)).floor()
    position = torch.arange(length, device=extent.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)
