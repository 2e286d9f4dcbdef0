"""What training does to log-mels, batched on any device. Shapes: B batch, M mel bands, T frames, N clips of a training part.

Everything that decides about a clip is a row of numbers in [0, 1), so that a batch divided over processes is changed as
it would be whole. Frames beyond a clip's own are never read into it; they must be finite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.features.log_mel import DB, LogMel, mask_of
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.recipe import AugmentSection, FeaturesSection

KNOTS = 6  # of the equaliser's curve
TILTS = (-6.0, 0.0)  # dB per octave of the noise: from brown, as rooms and streets hum, to white
BENT = 0.6  # share of the highest frequency above which the warp bends: 4.8 kHz of 8, as in the paper
FAINT = 1e-30  # power that keeps the logarithm of padding without noise finite
LEAST = 0.25  # cube root of the least power of noise, mean 1: below, Wilson and Hilferty's gamma of small shape falls too deep
SURE = 1e-6  # of a normal variable from a uniform one, so that it stays within 4.8 deviations
VOICE_WARP = (0.05, 0.15)  # least and largest relative shift of frequencies of a further voice: grown vocal tracts differ as much
VOICE_DB = 3.0  # deviation of its equaliser


class Augment:
    """Random changes of a batch of log-mels, in this order; a setting of 0 is nothing.

    Tempo; vocal-tract warp (Jaitly and Hinton 2013); level, which per-utterance normalisation takes away again; a smooth
    equaliser curve; noise; frequency and time masks (Park et al. 2019) at the clip's mean.
    """

    def __init__(self, settings: AugmentSection, features: FeaturesSection) -> None:
        self.settings, self.features = settings, features
        self.time_mask = round(settings.time_mask_ms / features.hop_ms)
        self.width, self.shape = white_noise(features)
        self.takes = {
            "tempo": 1,
            "warp": 1,
            "level": 1,
            "equaliser": KNOTS,
            "noise": 3,
            "bands": 2 * settings.frequency_masks,
            "times": 2 * settings.time_masks,
        }
        self.columns = sum(self.takes.values())  # numbers that a clip takes, whatever is switched off

    def __call__(self, mels: Tensor, frames: Tensor, draws: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(log-mel [B, M, T], frames [B], draws [B, columns] in [0, 1)) -> (log-mel [B, M, T'], frames [B]).

        Only the noise's own waveform comes from torch's generator. A speaker's `mean` [B, M, 1] is taken off before the masks,
        which would show it upside down otherwise.
        """
        s = self.settings
        draw = dict(zip(self.takes, draws.split(list(self.takes.values()), dim=1), strict=True))
        if s.tempo:
            mels, frames = stretch(mels, frames, between(draw["tempo"][:, 0], 1 - s.tempo, 1 + s.tempo))
        if s.warp:
            mels = warp(mels, between(draw["warp"][:, 0], 1 - s.warp, 1 + s.warp), self.features)
        if not (s.tempo or s.warp):
            mels = mels.clone()  # from here on in place, since fresh memory takes longer than the sums
        if s.level_db:
            mels += between(draw["level"], -s.level_db, s.level_db)[..., None] / DB
        if s.equaliser_db:
            mels += equaliser(draw["equaliser"], mels.shape[1], s.equaliser_db / DB)
        if s.noise:
            self.noise_(mels, frames, draw["noise"])
        if mean is not None:
            mels -= mean
        if s.frequency_masks or s.time_masks:
            self.mask_(mels, frames, draw["bands"], draw["times"])
        return mels, frames

    def noise_(self, mels: Tensor, frames: Tensor, draw: Tensor) -> None:
        """Make the chosen share of log-mels [B, M, T] noisy, in place; draw [B, 3]: whether, how loud, which tilt."""
        rows = (draw[:, 0] < self.settings.noise).nonzero()[:, 0]
        snr_db = between(draw[rows, 1], *self.settings.noise_snr_db)
        profile = tilted(self.width.to(mels.device), between(draw[rows, 2], *TILTS), self.features)
        mels[rows] = add_noise(mels[rows].contiguous(), frames[rows], snr_db, profile, self.shape.to(mels.device))

    def mask_(self, mels: Tensor, frames: Tensor, bands: Tensor, times: Tensor) -> None:
        """Hide bands and frames of log-mels [B, M, T] at the clip's mean, in place; bands and times are draws for `masks`."""
        mean, all_bands = mean_of(mels, frames)[:, None, None], torch.full_like(frames, mels.shape[1])
        hidden_bands = masks(bands, all_bands, mels.shape[1], self.settings.frequency_mask_bands)
        hidden_times = masks(times, frames, mels.shape[2], self.time_mask)
        mels.lerp_(mean, hidden_bands[:, :, None].to(mels.dtype)).lerp_(mean, hidden_times[:, None, :].to(mels.dtype))


class Voices:
    """Further voices of each speaker, for the adversary to tell apart: a vocal-tract warp and an equaliser curve that stay the
    same throughout a training, drawn from its seed. More speakers than a corpus has, as in speaker recognition, where copies
    at another speed count as other people (Yamamoto et al., Interspeech 2019; the warp is that of Jaitly and Hinton 2013).

    They are no new people: one family of warps is all that makes them different, and an adversary may learn that instead of
    voices. Per-utterance normalisation takes the curve away again, and a strong augment.warp blurs the warp.
    """

    def __init__(self, speakers: int, copies: int, seed: int, features: FeaturesSection, device: torch.device) -> None:
        rng = np.random.default_rng([seed, 0, 2])  # no epoch is the 0th
        self.draws = torch.from_numpy(rng.random((speakers, copies, 2 + KNOTS), dtype=np.float32)).to(device)
        self.features = features

    def __call__(self, mels: Tensor, speaker: Tensor, voice: Tensor) -> Tensor:
        """Log-mels [B, M, T] of speakers [B] in one of their voices [B] each; 0 is their own, which nothing changes."""
        rows = (voice > 0).nonzero()[:, 0]
        draw = self.draws[speaker[rows], voice[rows] - 1]
        alpha = 1 + between(draw[:, 0], *VOICE_WARP) * torch.where(draw[:, 1] < 0.5, -1, 1)
        spoken = warp(mels[rows], alpha, self.features) + equaliser(draw[:, 2:], mels.shape[1], VOICE_DB / DB)
        return mels.index_copy(0, rows, spoken)


def between(draw: Tensor, low: float, high: float) -> Tensor:
    """Numbers in [0, 1) spread evenly over [low, high)."""
    return low + (high - low) * draw


def mean_of(mels: Tensor, frames: Tensor) -> Tensor:
    """The mean of each clip's own frames over all bands, [B]."""
    sums = torch.where(mask_of(frames, mels.shape[2]), mels.sum(dim=1), 0)
    return sums.sum(dim=1) / (frames * mels.shape[1])


def stretch(mels: Tensor, frames: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
    """Frame t is read at t * tempo [B], between two frames by linear interpolation: (log-mel [B, M, T'], frames [B]).

    A bag of two weighted embeddings is that sum, in half the time of two gathers.
    """
    frames, last = (frames / tempo).floor().long().clamp_min(1), frames[:, None] - 1
    at = torch.minimum(torch.arange(int(frames.max()), device=mels.device) * tempo[:, None], last)
    columns = mels.transpose(1, 2)
    first = columns.shape[1] * torch.arange(len(mels), device=mels.device)[:, None]
    places = torch.stack((at.floor().long() + first, at.ceil().long() + first), dim=2)
    weights = torch.stack((1 - at.frac(), at.frac()), dim=2)
    bags = F.embedding_bag(places.flatten(0, 1), columns.flatten(0, 1), per_sample_weights=weights.flatten(0, 1), mode="sum")
    return bags.unflatten(0, at.shape).transpose(1, 2), frames


def warp(mels: Tensor, alpha: Tensor, features: FeaturesSection) -> Tensor:
    """Each band is read where its centre's frequency is warped to by alpha [B], between two bands by linear interpolation."""
    bands = torch.arange(features.mels, device=mels.device)
    at = band_of(warped(hertz_of(bands, features), alpha[:, None], features.f_max), features)
    return (1 - (at.clamp(0, features.mels - 1)[:, :, None] - bands).abs()).clamp_min(0) @ mels


def warped(hertz: Tensor, alpha: Tensor, top: float) -> Tensor:
    """Alpha * hertz up to the bend, then a straight line on which `top` stays: Jaitly and Hinton, ICML WDLASL 2013."""
    reached = BENT * top * alpha.clamp_max(1)
    bend = reached / alpha
    return torch.where(hertz <= bend, alpha * hertz, top - (top - reached) / (top - bend) * (top - hertz))


def mel(hertz: Tensor | float) -> Tensor:
    """The mel scale as HTK has it: O'Shaughnessy 1987."""
    return 2595 * torch.log10(1 + torch.as_tensor(hertz) / 700)


def band_of(hertz: Tensor, features: FeaturesSection) -> Tensor:
    """Frequency -> band, with fractions: M triangles stand evenly in mel between f_min, at -1, and f_max, at M."""
    low, high = mel(features.f_min), mel(features.f_max)
    return (mel(hertz) - low) / (high - low) * (features.mels + 1) - 1


def hertz_of(band: Tensor, features: FeaturesSection) -> Tensor:
    """Band, with fractions -> frequency of its centre: the inverse of `band_of`."""
    low, high = mel(features.f_min), mel(features.f_max)
    return 700 * (10 ** ((low + (band + 1) * (high - low) / (features.mels + 1)) / 2595) - 1)


def equaliser(draw: Tensor, bands: int, deviation: float) -> Tensor:
    """A smooth curve over the bands of each clip, [B, M, 1]: a normal value for each column of draw [B, .], joined by lines."""
    values = deviation * torch.special.ndtri(draw.clamp(SURE, 1 - SURE))
    return F.interpolate(values[:, None], size=bands, mode="linear", align_corners=True).transpose(1, 2)


def white_noise(features: FeaturesSection) -> tuple[Tensor, Tensor]:
    """(share of white noise's power in each band [M], shape of the gamma variable that its power in a frame is [M]).

    The FFT of Gaussian noise in a window h is normal in every bin, and bins d apart correlate as the transform of h squared;
    a band's power is a weighted sum over bins, whose shape is its squared mean over its variance. A bin alone has shape 1.
    """
    transform = LogMel(features, SAMPLE_RATE).mel
    filters = transform.mel_scale.fb  # [bins, M]
    related = torch.fft.fft(transform.spectrogram.window**2, transform.n_fft).abs() ** 2
    spread = torch.fft.fft(filters, transform.n_fft, dim=0) * torch.fft.fft(related / related[0])[:, None]
    variance = (filters * torch.fft.ifft(spread, dim=0).real[: len(filters)]).sum(dim=0)
    width = filters.sum(dim=0)
    return width / width.sum(), (width**2 / variance).clamp_min(0.5)  # the least that one real number can have


def tilted(width: Tensor, tilt: Tensor, features: FeaturesSection) -> Tensor:
    """Share of the power in each band [B, M] of noise that falls by tilt [B], dB per octave; `width` is that of white noise."""
    octaves = hertz_of(torch.arange(features.mels, device=width.device), features).log2()
    return (width.log() + tilt[:, None] / DB * octaves).softmax(dim=1)


def add_noise(mels: Tensor, frames: Tensor, snr_db: Tensor, profile: Tensor, shape: Tensor) -> Tensor:
    """Log-mels with noise added as power, at a signal-to-noise ratio [B] over all bands and the whole clip.

    The sum over bands is the power between f_min and f_max, since torchaudio's triangles add up to 1. The noise's mean
    power in the bands is as `profile` [B, M]; in a frame it is a gamma variable of `shape` [M], here the cube of a normal one:
    Wilson and Hilferty 1931. Neighbouring frames and bands are independent, which those of a real noise are not quite.
    """
    signal = torch.where(mask_of(frames, mels.shape[2])[:, None], mels, -math.inf).exp()
    level = signal.sum(dim=(1, 2)) / frames * 10 ** (-snr_db / 10)
    spread = 1 / (9 * shape)[:, None]
    noise = torch.randn_like(mels).mul_(spread.sqrt()).add_(1 - spread).clamp_min_(LEAST).pow_(3)
    return noise.mul_((level[:, None] * profile)[:, :, None]).add_(signal).add_(FAINT).log_()


def masks(draw: Tensor, extent: Tensor, length: int, widest: int) -> Tensor:
    """Bool [B, length], true in stretches of 0 .. widest positions inside each clip's extent [B].

    Two columns of draw [B, .] make a stretch: its width and its start. It is at most a fifth of the extent, so that short
    clips are not wiped out.
    """
    widest = torch.minimum(torch.full_like(extent, widest), extent // 5)[:, None]
    width, start = draw.chunk(2, dim=1)
    width = (width * (widest + 1)).floor()
    start = (start * (extent[:, None] - width + 1)).floor()
    position = torch.arange(length, device=extent.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=1)


@dataclass(frozen=True)
class Pairs:
    """What is done to each of B clips with another one. Where nothing is, the other is the clip itself."""

    other: np.ndarray  # [B] index of the partner among all training clips
    weight: np.ndarray  # [B] float32, of the clip itself in a mix, 0.5 .. 1; 1 where it is not mixed
    follows: np.ndarray  # [B] bool, whether the partner follows the clip

    def rows(self, chosen: slice) -> "Pairs":
        """Some of the clips."""
        return Pairs(self.other[chosen], self.weight[chosen], self.follows[chosen])


def draw_pairs(
    chosen: Sequence[int], emotion: np.ndarray, speaker: np.ndarray, settings: AugmentSection, rng: np.random.Generator
) -> Pairs:
    """Partners for the `chosen` clips; emotion and speaker [N] are integers, of all training clips.

    All clips are sorted, so this is best asked for a whole epoch at once. A clip that has no partner of the kind it was
    drawn for stays alone. Those without an emotion, -1, have one another for partners and nobody else.
    """
    chosen, each = np.asarray(chosen), np.arange(len(emotion))
    kind, pick = rng.random((2, len(chosen)))
    weight = rng.beta(settings.mixup_alpha, settings.mixup_alpha, len(chosen))
    first, second, third = np.cumsum([settings.concatenate, settings.mixup_within, settings.mixup_across])
    follows, within, across = kind < first, (kind >= first) & (kind < second), (kind >= second) & (kind < third)
    other, known = chosen.copy(), (emotion >= 0).astype(np.int64)
    for which, group, apart in ((follows, emotion, speaker), (within, emotion, each), (across, known, each)):
        if which.any():
            other[which] = partners(chosen[which], group, apart, pick[which])
    lonely = follows & (emotion[other] == emotion[chosen]) & (speaker[other] == speaker[chosen])
    if lonely.any():
        other[lonely] = partners(chosen[lonely], emotion, each, pick[lonely])
    mixed = (within | across) & (other != chosen)
    weight = np.where(mixed, np.maximum(weight, 1 - weight), 1).astype(np.float32)
    return Pairs(other, weight, follows & (other != chosen))


def partners(chosen: np.ndarray, group: np.ndarray, apart: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """For each chosen clip one of the same group, but not of the same `apart`; itself where there is none. pick is in [0, 1)."""
    apart = to_indices(apart)
    key = group.astype(np.int64) * (apart.max() + 1) + apart
    order = np.argsort(key, kind="stable")  # groups one after another, and in each those that must be apart
    start, stop = (np.searchsorted(group[order], group[chosen], side) for side in ("left", "right"))
    own_start, own_stop = (np.searchsorted(key[order], key[chosen], side) for side in ("left", "right"))
    others = (stop - start) - (own_stop - own_start)
    place = own_stop - start + (pick * others).astype(np.int64)  # counted on from one's own, and round
    return np.where(others > 0, order[start + place % (stop - start)], chosen)


def pair_up(
    mels: Tensor, frames: Tensor, other: Tensor, other_frames: Tensor, weight: Tensor, follows: Tensor
) -> tuple[Tensor, Tensor]:
    """(log-mel [B, M, T], frames [B]) of clips that their partner follows, or is mixed into; T is that of the longest.

    A mix is linear in the log-mel, which is the network's input (mixup: Zhang et al., ICLR 2018); the partner is repeated from
    its beginning to last as long as the clip. other is [B, M, T''], weight and follows (bool) are [B], see `Pairs`.
    """
    total = torch.where(follows, frames + other_frames, frames)
    length = int(total.max())
    position = torch.arange(length, device=mels.device)
    at = (position - follows[:, None] * frames[:, None]) % other_frames[:, None]
    clips = torch.arange(len(mels), device=mels.device)[:, None]
    partner = other.transpose(1, 2)[clips, at].transpose(1, 2)
    own = torch.where(follows[:, None], (position < frames[:, None]).float(), weight[:, None])[:, None]
    return torch.lerp(partner, F.pad(mels, (0, length - mels.shape[2])), own), total


def parts(frames: Tensor, other_frames: Tensor, weight: Tensor, follows: Tensor) -> Tensor:
    """How much of the label is the clip's own, [B]: its weight in a mix, its share of the frames where another follows."""
    return torch.where(follows, frames / (frames + other_frames), weight)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels [B] -> shares [B, classes], a single 1 each; nothing for a label of -1."""
    return F.one_hot(labels.clamp_min(0), classes).float() * (labels >= 0)[:, None]


def shares(own: Tensor, others: Tensor, part: Tensor, classes: int) -> Tensor:
    """Labels own and others [B] -> shares [B, classes] that add up to 1: `part` [B] of one's own, the rest the other's."""
    first, second = (one_hot(labels, classes).to(part.dtype) for labels in (own, others))
    return torch.lerp(second, first, part[:, None])
