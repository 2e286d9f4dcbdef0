"""Normalised log-mel -> one embedding per clip. Padding never reaches it.

An encoder is an nn.Module with `dim` (D), `forward(mels [B, M, T], frames [B]) -> [B, D]`, and `frames` of the same arguments,
the map that its pooling reads.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from speaker_invariant_ser.config import EncoderSection
from speaker_invariant_ser.features import mask_of


class Encoder(Protocol):
    dim: int

    def __call__(self, mels: Tensor, frames: Tensor) -> Tensor: ...

    def frames(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]: ...


class Stage(nn.Module):
    """Convolution with stride, batch norm, ReLU; padding is set back to zero, as it is beyond a clip's own end.

    With stride 2, output t is centred on input 2t: n real frames give ceil(n / 2), alone or in a batch.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.stride = stride[1]

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(x [B, channels, M, T], frames [B]) -> (the stage's output, its frames [B])."""
        x = torch.relu(self.norm(self.convolution(x)))
        frames = (frames + self.stride - 1) // self.stride
        return x * mask_of(frames, x.shape[3])[:, None, None], frames


class AttentivePooling(nn.Module):
    """Weighted mean and deviation over frames, the weights learned per channel. Okabe, Koshinaka, Shinoda, Interspeech 2018."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, channels, 1))

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """(x [B, channels, T], frames [B]) -> [B, 2 * channels]."""
        mask = mask_of(frames, x.shape[2])[:, None]
        weight = self.score(x).masked_fill(~mask, -torch.inf).softmax(dim=2)
        mean = (weight * x).sum(dim=2)
        variance = (weight * (x - mean[:, :, None]).square()).sum(dim=2)
        return torch.cat((mean, (variance + 1e-5).sqrt()), dim=1)  # the square root has no slope at 0


class Cnn(nn.Module):
    """Convolution stages, then attentive statistics pooling, then a linear layer to the embedding.

    The first stage halves time and bands with a wide kernel: full resolution is where a CNN on spectrograms spends
    most of its time. Each later one halves the bands, the second also time. What is left of the bands stays apart
    in pooling, since the same pattern means something else in another band.
    """

    def __init__(self, mels: int, settings: EncoderSection) -> None:
        super().__init__()
        stages, inputs, bands = [], 1, mels
        for number, outputs in enumerate(settings.channels):
            kernel, stride = (5, (2, 2)) if number == 0 else (3, (2, 2 if number == 1 else 1))
            stages.append(Stage(inputs, outputs, kernel, stride))
            inputs, bands = outputs, (bands + 1) // 2
        self.stages = nn.ModuleList(stages)
        self.pool = AttentivePooling(inputs * bands)
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(2 * inputs * bands, settings.dim)
        self.norm = nn.BatchNorm1d(settings.dim)
        self.dim = settings.dim

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """(normalised log-mel [B, M, T], frames [B]) -> embedding [B, D]."""
        return self.norm(self.project(self.dropout(self.pool(*self.frames(mels, frames)))))

    def frames(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(normalised log-mel [B, M, T], frames [B]) -> (what is handed to pooling [B, F, T'], its frames [B]).

        F is the last stage's channels times the bands that are left; padding is zero.
        """
        x = mels[:, None].contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, frames = stage(x, frames)
        return x.flatten(1, 2), frames


ENCODERS: dict[str, Callable[[int, EncoderSection], Encoder]] = {"cnn": Cnn}
