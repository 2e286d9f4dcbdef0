"""Front ends: audio to log-mel spectrograms, or images as they are; and their normalisation.

Shapes: B batch, S samples, M mel bands, T frames.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.errors import RecipeError, SetupError
from speaker_invariant_ser.features.mel_scale import bands_below
from speaker_invariant_ser.recipe import FeaturesSection

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus

FLOOR = 1e-6  # mel power added before the logarithm: about 100 dB below a full-scale tone
TOGETHER = 4  # utterances whose spectra a CPU computes at once: those of more do not fit into its cache
SPLIT_HZ = 1000.0  # between the low and the high bands whose power ratio is the spectral tilt
DB = 10 / torch.log(torch.tensor(10.0)).item()  # natural logarithm of power -> dB


def import_torchaudio() -> ModuleType:
    """Import torchaudio.

    Its wheel is built for one CUDA version and fails to load its compiled part with another build of torch. The transforms used
    here are pure Python and need none of it.

    Raises:
        SetupError: torchaudio does not fit torch; the message says how to install a matching pair.
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


class FrontEnd(nn.Module):
    """What turns audio into the rows that the model gets.

    Attributes:
        bands: Number M of rows, prosody rows apart.
        needs_f0: Whether prosody rows follow.
        low_bands: Mel bands below 1 kHz, for these.
        value_bytes: Bytes of a value.
    """

    bands: int
    needs_f0 = False
    low_bands = 1
    value_bytes = 4

    def frames_of(self, samples: int) -> int:
        """Return the number of frames of an utterance."""
        raise NotImplementedError

    def use_cache(self, prepared: "PreparedCorpus") -> None:
        """Take from a prepared corpus what it has of this front end's results; nothing by default."""


class LogMel(FrontEnd):
    """Log-mel spectrogram of zero-padded batches.

    Frame t is centred on sample t * hop, with zeros beyond both ends. An utterance of S samples therefore has 1 + S // hop
    frames, and they are the same whether the utterance is alone or padded in a batch.

    Args:
        settings: Section [features] of the recipe.
        sample_rate: Sample rate of the audio, Hz.

    Raises:
        RecipeError: Not f_min < f_max <= half the sample rate.
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
        self.bands, self.needs_f0, self.low_bands = settings.mels, settings.needs_f0, bands_below(SPLIT_HZ, settings)
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

    def frames_of(self, samples: int) -> int:
        """Return the number of frames of an utterance."""
        return 1 + samples // self.hop

    def forward(self, audio: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-mels.

        Args:
            audio: Zero-padded utterances in [-1, 1], [B, S].
            samples: Their lengths, [B].

        Returns:
            Natural logarithm of mel power [B, M, T], and frames [B].
        """
        few = len(audio) <= TOGETHER or audio.device.type != "cpu"
        mel = self.mel(audio) if few else torch.cat([self.mel(clips) for clips in audio.split(TOGETHER)])
        return torch.log(mel + FLOOR), 1 + samples // self.hop


class Pixels(FrontEnd):
    """Images instead of audio: samples are pixels, column after column with `mels` pixels each; nothing is computed.

    The image [M, T] takes the place of the log-mel.
    """

    device_marker: Tensor

    def __init__(self, settings: FeaturesSection, sample_rate: int) -> None:
        super().__init__()
        self.bands = settings.mels
        self.register_buffer("device_marker", torch.empty(0), persistent=False)  # tells which device the module is on

    def frames_of(self, samples: int) -> int:
        """Return the number of columns of an image."""
        return samples // self.bands

    def forward(self, pixels: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, M, T] and their columns [B] of pixels [B, S] and pixel counts [B], multiples of M."""
        assert pixels.shape[1] <= self.bands * (self.bands + 1), "wider than an image may be"
        return pixels.unflatten(1, (-1, self.bands)).transpose(1, 2), samples // self.bands


FRONTS: dict[str, Callable[[FeaturesSection, int], FrontEnd]] = {"log-mel": LogMel, "pixels": Pixels}


def mask_of(frames: Tensor, length: int) -> Tensor:
    """Return the mask [B, length] of frames [B]: true where a frame is real, false where it is padding.

    >>> mask_of(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(length, device=frames.device) < frames[:, None]


def subtract_mean(rows: Tensor, mean: Tensor) -> Tensor:
    """Subtract means [B, M, 1] from log-mels [B, M, T]; rows beyond M, which prosody comes from, stay."""
    return rows - F.pad(mean, (0, 0, 0, rows.shape[1] - mean.shape[1]))


def sum_frames(mels: Tensor, frames: Tensor) -> Tensor:
    """Sum log-mels [B, M, T] over the unpadded frames [B] of each utterance, in double precision: [B, M]."""
    real = mask_of(frames, mels.shape[2])[:, None]
    return torch.where(real, mels, 0).sum(dim=2, dtype=torch.float64)


class Normalise(nn.Module):
    """Normalise every mel band to zero mean and unit variance; padding becomes zero, the mean.

    Three kinds:

    - "corpus": mean and standard deviation over the training speakers.
    - "utterance": each utterance's own mean, then the training speakers' deviation around such means. Whatever a channel or
      a speaker adds to every frame is removed, and so is what an emotion adds to every frame.
    - "speaker": as "corpus", of log-mels from which `speaker_means` have been subtracted before. What an emotion adds to every
      frame of an utterance stays. It is transductive: it needs unlabelled audio of the very speakers that are tested, and a
      mean over few utterances, or over one emotion, removes emotion too.

    Args:
        kind: One of the three.
        mels: Mel bands.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, kind: str, mels: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("scale", torch.ones(mels))

    def fit(self, clips: Iterable[Tensor]) -> None:
        """Estimate the statistics from log-mels [M, T] of training speakers, and of no other; further rows are ignored."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())  # double precision: a difference of two large sums
        for clip in (clip[: len(self.mean)].double() for clip in clips):
            clip = clip - clip.mean(dim=1, keepdim=True) if self.kind == "utterance" else clip
            count, total, squares = count + clip.shape[1], total + clip.sum(dim=1), squares + clip.square().sum(dim=1)
        mean = total / count
        self.mean.copy_(mean)
        self.scale.copy_(((squares - count * mean**2) / (count - 1)).clamp_min(0).sqrt().clamp_min(1e-3))

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """Normalise log-mels [B, M, T], without any further rows, with frames [B]: [B, M, T]."""
        mels = mels[:, : len(self.mean)]
        mask = mask_of(frames, mels.shape[2])[:, None]
        if self.kind == "utterance":
            mels = mels - (mels * mask).sum(dim=2, keepdim=True) / frames[:, None, None]
        return (mels - self.mean[:, None]) / self.scale[:, None] * mask
