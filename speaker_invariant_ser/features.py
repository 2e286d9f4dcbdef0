"""Waveform -> log-mel spectrogram, and what training does to it. Shapes: B batch, S samples, M mel bands, T frames."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.config import AugmentSection, FeaturesSection
from speaker_invariant_ser.errors import RecipeError, SetupError

FLOOR = 1e-6  # mel power below which a band counts as silent: about 100 dB under a full-scale tone
DB = 10 / torch.log(torch.tensor(10.0)).item()  # natural logarithm of power -> dB


@dataclass(frozen=True)
class Batch:
    """What a training step sees: log-mels [B, M, T], frames [B], emotion [B, C] and target [B, K], what the adversary reads, the
    speaker as a rule. These two are shares that add up to one: a single 1, unless clips were mixed or joined.
    """

    mels: Tensor
    frames: Tensor
    emotion: Tensor
    target: Tensor


def import_torchaudio():
    """torchaudio, or a SetupError that says how to install a pair that fits.

    Its wheel is built for one CUDA version; beside another torch its compiled part does not load. The transforms
    used here are pure Python and need none of it.
    """
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        raise SetupError(
            f"torchaudio does not fit torch {torch.__version__} ({str(error).splitlines()[0]}). Install a matching pair "
            "(https://pytorch.org/get-started/locally), or beside a CPU build of torch remove torchaudio's compiled "
            "libraries, torchaudio/lib/*.so in your virtual environment: only its pure Python transforms are used"
        ) from error
    return torchaudio


class LogMel(nn.Module):
    """Log-mel spectrogram of zero-padded batches.

    Frame t is centred on sample t * hop, with zeros beyond both ends, so that a clip has 1 + S // hop frames and
    they are the same whether it comes alone or padded in a batch.
    """

    def __init__(self, settings: FeaturesSection, sample_rate: int) -> None:
        super().__init__()
        if not settings.f_min < settings.f_max <= sample_rate / 2:
            raise RecipeError(
                f"features.f_min = {settings.f_min}, features.f_max = {settings.f_max}: "
                f"expected f_min < f_max <= {sample_rate / 2:.0f} Hz"
            )
        window = round(settings.window_ms * sample_rate / 1000)
        self.hop = round(settings.hop_ms * sample_rate / 1000)
        self.bands = settings.mels
        self.mel = import_torchaudio().transforms.MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=2 * 2 ** (window - 1).bit_length(),  # twice the window, or narrow low bands would fall between FFT bins
            win_length=window,
            hop_length=self.hop,
            f_min=settings.f_min,
            f_max=settings.f_max,
            n_mels=settings.mels,
            pad_mode="constant",
        )

    def forward(self, audio: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(audio [B, S] in [-1, 1], samples [B]) -> (natural log of mel power [B, M, T], frames [B])."""
        return torch.log(self.mel(audio) + FLOOR), 1 + samples // self.hop


def mask_of(frames: Tensor, length: int) -> Tensor:
    """frames [B] -> bool [B, T], true where a frame is real."""
    return torch.arange(length, device=frames.device) < frames[:, None]


class Normalise(nn.Module):
    """Zero mean and unit variance per mel band; padding becomes zero, the mean.

    "corpus": mean and deviation over the training speakers. "utterance": each clip's own mean, then the training
    speakers' deviation around such means; what a channel or a voice adds to every frame is gone.
    """

    def __init__(self, kind: str, mels: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("scale", torch.ones(mels))

    def fit(self, clips: Iterable[Tensor]) -> None:
        """Set the statistics from log-mels [M, T] of training speakers (and of nobody else)."""
        if self.kind == "utterance":
            clips = (clip - clip.mean(dim=1, keepdim=True) for clip in clips)
        frames = torch.cat(list(clips), dim=1)
        self.mean.copy_(frames.mean(dim=1))
        self.scale.copy_(frames.std(dim=1).clamp_min(1e-3))

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """(log-mel [B, M, T], frames [B]) -> normalised [B, M, T]."""
        mask = mask_of(frames, mels.shape[2])[:, None]
        if self.kind == "utterance":
            mels = mels - (mels * mask).sum(dim=2, keepdim=True) / frames[:, None, None]
        return (mels - self.mean[:, None]) / self.scale[:, None] * mask


class Augment(nn.Module):
    """Random changes of a batch of log-mels, seeded by torch's generator: one draw per clip.

    Order: tempo and vocal-tract warp (Jaitly and Hinton 2013) in one resampling of the time-mel plane, a random smooth
    equaliser curve, then frequency and time masks (Park et al. 2019) at the clip's mean.
    """

    def __init__(self, settings: AugmentSection, hop_ms: float) -> None:
        super().__init__()
        self.settings = settings
        self.time_mask = round(settings.time_mask_ms / hop_ms)

    def forward(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(log-mel [B, M, T], frames [B]) -> the same, changed; T may differ."""
        s = self.settings
        if s.warp or s.tempo:
            mels, frames = warp(mels, frames, spread(frames, s.warp), spread(frames, s.tempo))
        if s.equaliser_db:
            mels = mels + equaliser(mels, s.equaliser_db / DB)
        fill = (mels * mask_of(frames, mels.shape[2])[:, None]).sum(dim=(1, 2)) / (frames * mels.shape[1])
        bands = torch.full_like(frames, mels.shape[1])
        hidden = masks(bands, mels.shape[1], s.frequency_masks, s.frequency_mask_bands)[:, :, None]
        hidden = hidden | masks(frames, mels.shape[2], s.time_masks, self.time_mask)[:, None, :]
        return torch.where(hidden, fill[:, None, None], mels), frames


def spread(frames: Tensor, width: float) -> Tensor:
    """One factor per clip, [B], drawn evenly from [1 - width, 1 + width]."""
    return 1 + width * (2 * torch.rand(frames.shape, device=frames.device) - 1)


def warp(mels: Tensor, frames: Tensor, formants: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
    """Resample the plane: band m is read at m * formants, frame t at t * tempo. All factors [B].

    The mel axis is close to logarithmic in frequency only above 1 kHz; a linear stretch of it is a rough vocal tract
    warp, which is all that augmentation asks. Beyond the top band the last one is repeated.
    """
    _, bands, length = mels.shape
    new_frames = (frames / tempo).floor().long().clamp_min(1)
    new_length = int(new_frames.max())
    rows = torch.arange(bands, device=mels.device) * formants[:, None] / (bands - 1) * 2 - 1
    columns = torch.minimum(torch.arange(new_length, device=mels.device) * tempo[:, None], frames[:, None] - 1)
    columns = columns / max(length - 1, 1) * 2 - 1
    grid = torch.stack((columns[:, None, :].expand(-1, bands, -1), rows[:, :, None].expand(-1, -1, new_length)), dim=3)
    moved = F.grid_sample(mels[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return moved[:, 0], new_frames


def equaliser(mels: Tensor, deviation: float, knots: int = 6) -> Tensor:
    """A random smooth curve over the bands of each clip, [B, M, 1]: normal values at `knots` bands, joined by lines."""
    values = deviation * torch.randn(len(mels), 1, knots, device=mels.device)
    return F.interpolate(values, size=mels.shape[1], mode="linear", align_corners=True).transpose(1, 2)


def masks(extent: Tensor, length: int, count: int, widest: int) -> Tensor:
    """bool [B, length], true in `count` random stretches of 0 .. widest positions inside each clip's extent [B].

    A stretch is at most a fifth of the extent, so that short clips are not wiped out.
    """
    widest = torch.minimum(torch.full_like(extent, widest), extent // 5)
    draw = torch.rand(2, count, len(extent), device=extent.device)
    width = (draw[0] * (widest + 1)).floor()
    start = (draw[1] * (extent - width + 1)).floor()
    position = torch.arange(length, device=extent.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(dim=0)
