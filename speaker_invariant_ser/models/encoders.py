"""Normalised log-mel -> one embedding per clip. Padding never reaches it, but that batch norm counts it in training.

An encoder is an nn.Module with `dim` (D), `frame_dim` (F), and two halves that `forward(mels [B, M, T], frames [B]) -> [B, D]`
joins: `frames` gives the map [B, F, T'] that pooling reads, `embed` makes the embedding of it.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from speaker_invariant_ser.distributed import Summed, together
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.recipe import EncoderSection


class Encoder(Protocol):
    dim: int
    frame_dim: int

    def __call__(self, mels: Tensor, frames: Tensor) -> Tensor: ...

    def frame_features(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def embed(self, x: Tensor, frames: Tensor) -> Tensor: ...


class MaskedReLU(torch.autograd.Function):
    """ReLU that also sets padding to zero; (x [B, channels, M, T], mask bool [B, T], true where real) -> the same shape.

    Backward is that of ReLU alone, since a zero passes no gradient: nothing is multiplied by a mask, which in bfloat16 on a
    processor takes as long as a convolution.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor) -> Tensor:
        y = torch.relu(x)
        y.permute(0, 3, 1, 2)[~mask] = 0
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.threshold_backward(gradient, *ctx.saved_tensors, 0), None


def synced_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm in training over the batch of all processes; (x [B, channels, ...]) -> the same shape.

    torch's own SyncBatchNorm does this on GPUs only. Mean first, then deviations from it: no difference of large squares.
    """
    x, rest = x.float(), [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    count = Summed.apply(x.new_tensor(float(x.numel() // x.shape[1])))
    mean = Summed.apply(x.sum(dim=rest)) / count
    centred = x - mean.view(shape)
    variance = Summed.apply(centred.square().sum(dim=rest)) / count
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
        norm.num_batches_tracked += 1
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return centred * scale.view(shape) + norm.bias.view(shape)


class Norm1d(nn.BatchNorm1d):
    """Batch norm whose statistics are those of the whole batch, also where several processes share it."""

    def forward(self, x: Tensor) -> Tensor:
        return synced_norm(self, x) if self.training and together() else super().forward(x)


class Norm2d(nn.BatchNorm2d):
    """As Norm1d, over [B, channels, M, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return synced_norm(self, x) if self.training and together() else super().forward(x)


class Stage(nn.Module):
    """Convolution with stride, batch norm, ReLU; padding is set back to zero, as it is beyond a clip's own end.

    With stride 2, output t is centred on input 2t: n real frames give ceil(n / 2), alone or in a batch.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = Norm2d(outputs)
        self.stride = stride[1]

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(x [B, channels, M, T], frames [B]) -> (the stage's output, its frames [B])."""
        x = self.norm(self.convolution(x))
        frames = (frames + self.stride - 1) // self.stride
        return MaskedReLU.apply(x, mask_of(frames, x.shape[3])), frames


class AttentivePooling(nn.Module):
    """Weighted mean and deviation over frames, the weights learned per channel. Okabe, Koshinaka, Shinoda, Interspeech 2018."""

    times = 2  # what comes out, as a multiple of the channels

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, channels, 1))
        freeze(self.score[-1].bias)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """(x [B, channels, T], frames [B]) -> [B, 2 * channels]."""
        mask = mask_of(frames, x.shape[2])[:, None]
        weight = self.score(x).float().masked_fill(~mask, -torch.inf).softmax(dim=2)
        x = x.float()  # a deviation needs more digits than bfloat16 has
        mean = (weight * x).sum(dim=2)
        variance = (weight * (x - mean[:, :, None]).square()).sum(dim=2)
        return torch.cat((mean, (variance + 1e-5).sqrt()), dim=1)  # the square root has no slope at 0


class Parts(nn.Module):
    """The mean of each of `times` equal parts of a clip's own frames: what stands left stays apart from what stands right.

    A frame across the border of two parts counts in both by its share; fewer frames than parts are read more than once.
    """

    times = 4

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """(x [B, channels, T], frames [B]) -> [B, channels * times]."""
        border = torch.arange(self.times + 1, device=x.device) * frames[:, None] / self.times
        frame = torch.arange(x.shape[2], device=x.device)[:, None]
        begin, end = torch.maximum(border[:, None, :-1], frame), torch.minimum(border[:, None, 1:], frame + 1)
        weight = (end - begin).clamp_min(0) * (self.times / frames)[:, None, None]  # [B, T, times]
        return (x.float() @ weight).flatten(1)


def freeze(bias: nn.Parameter) -> None:
    """Leave a bias as it is whose effect the next operation takes away: its gradient is rounding errors, and Adam would make
    full steps of them.
    """
    bias.requires_grad_(False)


class Cnn(nn.Module):
    """Convolution stages, then attentive statistics pooling, then a linear layer to the embedding.

    The first stage halves time and bands with a wide kernel: full resolution is where a CNN on spectrograms spends
    most of its time. Each later one halves the bands, the second also time. What is left of the bands stays apart
    in pooling, since the same pattern means something else in another band.
    """

    pooling = AttentivePooling

    def __init__(self, mels: int, settings: EncoderSection) -> None:
        super().__init__()
        stages, inputs, bands = [], 1, mels
        for number, outputs in enumerate(settings.channels):
            kernel, stride = self.form(number)
            stages.append(Stage(inputs, outputs, kernel, stride))
            inputs, bands = outputs, -(-bands // stride[0])
        self.stages = nn.ModuleList(stages)
        self.frame_dim = inputs * bands
        self.pool = self.pooling(self.frame_dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(self.pool.times * self.frame_dim, settings.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(settings.dim)
        self.dim = settings.dim

    @staticmethod
    def form(number: int) -> tuple[int, tuple[int, int]]:
        """(kernel, its stride over bands and over time) of a stage, counted from 0."""
        return (5, (2, 2)) if number == 0 else (3, (2, 2 if number == 1 else 1))

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """(normalised log-mel [B, M, T], frames [B]) -> embedding [B, D]."""
        return self.embed(*self.frame_features(mels, frames))

    def frame_features(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(normalised log-mel [B, M, T], frames [B]) -> (what is handed to pooling [B, F, T'], its frames [B]).

        F is the last stage's channels times the bands that are left; padding is zero.
        """
        x = mels[:, None].contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, frames = stage(x, frames)
        return x.flatten(1, 2), frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """(the map [B, F, T'], its frames [B]) -> embedding [B, D]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))


class Image(Cnn):
    """The same for pictures of a few pixels: full resolution first, then halved both ways, and what stands where is kept.

    Known failure: what moves sideways by a part looks like something else, so this is nothing for speech.
    """

    pooling = Parts

    @staticmethod
    def form(number: int) -> tuple[int, tuple[int, int]]:
        return 3, (1, 1) if number == 0 else (2, 2)


ENCODERS: dict[str, Callable[[int, EncoderSection], Encoder]] = {"cnn": Cnn, "image": Image}
