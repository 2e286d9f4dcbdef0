"""Waveform -> log-mel spectrogram, normalised; pictures as they are. Shapes: B batch, S samples, M mel bands, T frames."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speaker_invariant_ser.errors import RecipeError, SetupError
from speaker_invariant_ser.recipe import FeaturesSection

FLOOR = 1e-6  # mel power below which a band counts as silent: about 100 dB under a full-scale tone
DB = 10 / torch.log(torch.tensor(10.0)).item()  # natural logarithm of power -> dB


@dataclass(frozen=True)
class Batch:
    """What an adversary is told of the clips that it reads: frames [B] of their maps before pooling, emotion [B, C] and target
    [B, K], the speaker as a rule. These two are shares that add up to one: a single 1, unless clips were mixed or joined. A clip
    without a known emotion has no share of any.
    """

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


class Pixels(nn.Module):
    """Pictures in the place of sound: samples are pixels, column after column, `mels` of them in each; nothing is computed.

    What stands for a clip's log-mel is the picture [M, T] itself. `hop` is what training counts columns by, as 1 + S // hop:
    that is T where a picture is at most a column wider than it is high.
    """

    def __init__(self, settings: FeaturesSection, sample_rate: int) -> None:
        super().__init__()
        self.bands, self.hop = settings.mels, settings.mels + 1
        self.register_buffer("place", torch.empty(0), persistent=False)  # by which it is seen on which device it is

    def forward(self, pixels: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(pixels [B, S], samples [B], multiples of M) -> (pictures [B, M, T], columns [B])."""
        assert pixels.shape[1] <= self.bands * self.hop, "wider than it is counted"
        return pixels.unflatten(1, (-1, self.bands)).transpose(1, 2), samples // self.bands


FRONTS: dict[str, Callable[[FeaturesSection, int], nn.Module]] = {"log-mel": LogMel, "pixels": Pixels}


def mask_of(frames: Tensor, length: int) -> Tensor:
    """Frames [B] -> bool [B, T], true where a frame is real."""
    return torch.arange(length, device=frames.device) < frames[:, None]


def frame_sums(mels: Tensor, frames: Tensor) -> Tensor:
    """Log-mels [B, M, T] summed over each clip's own frames [B]: float64 [B, M]."""
    real = mask_of(frames, mels.shape[2])[:, None]
    return torch.where(real, mels, 0).sum(dim=2, dtype=torch.float64)


class Normalise(nn.Module):
    """Zero mean and unit variance per mel band; padding becomes zero, the mean.

    "corpus": mean and deviation over the training speakers. "utterance": each clip's own mean, then the training
    speakers' deviation around such means; what a channel or a voice adds to every frame is gone. "speaker": as "corpus", of
    log-mels from which the mean over all clips of their speaker has been taken already (`clips.speaker_means`, and
    `SerModel.mels` is told of it): the emotion that all of a clip's frames share stays, and the voice goes, but it takes
    unlabelled audio of the very people who are tested, and a mean over few clips, or of one emotion, takes emotion away too.
    """

    def __init__(self, kind: str, mels: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("scale", torch.ones(mels))

    def fit(self, clips: Iterable[Tensor]) -> None:
        """Set the statistics from log-mels [M, T] of training speakers (and of nobody else)."""
        count, total, squares = 0, 0.0, 0.0  # in double precision: a difference of sums as large as a corpus
        for clip in map(Tensor.double, clips):
            clip = clip - clip.mean(dim=1, keepdim=True) if self.kind == "utterance" else clip
            count, total, squares = count + clip.shape[1], total + clip.sum(dim=1), squares + clip.square().sum(dim=1)
        mean = total / count
        self.mean.copy_(mean)
        self.scale.copy_(((squares - count * mean**2) / (count - 1)).clamp_min(0).sqrt().clamp_min(1e-3))

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """(log-mel [B, M, T], frames [B]) -> normalised [B, M, T]."""
        mask = mask_of(frames, mels.shape[2])[:, None]
        if self.kind == "utterance":
            mels = mels - (mels * mask).sum(dim=2, keepdim=True) / frames[:, None, None]
        return (mels - self.mean[:, None]) / self.scale[:, None] * mask
