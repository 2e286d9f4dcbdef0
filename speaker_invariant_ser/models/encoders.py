"""What every encoder offers, its parts, and the convolutional encoders: features to one embedding per utterance.

Padding has no effect on embeddings, except that batch norm counts it in training.

Shapes: B batch, I rows of the input (see `features.streams`), M mel bands, T frames, F frame-level feature dimension, T' frames
of the frame-level features, D embedding dimension.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from speaker_invariant_ser.distributed import SumOverProcesses, is_distributed
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.recipe_encoders import CnnSettings, ImageSettings


class Encoder(Protocol):
    """What every encoder offers.

    Attributes:
        dim: Dimension D of the embedding.
        frame_dim: Dimension F of the frame-level features.
        branch_dims: Dimensions of the parts that the embedding is joined from, which add up to D.
        stride: Input frames for each frame of the frame-level features.
    """

    dim: int
    frame_dim: int
    stride: int

    @property
    def branch_dims(self) -> tuple[int, ...]:
        """Dimensions of the parts that the embedding is joined from; one with a single branch."""
        ...

    def __call__(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of inputs [B, I, T], zero in padding, with frames [B]."""
        ...

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'], zero in padding, and their frames [B]: the part before pooling."""
        ...

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]: pooling and all that follows."""
        ...


class MaskedReLU(torch.autograd.Function):
    """ReLU that also sets padding to zero.

    The backward pass is that of ReLU alone, because a zero passes no gradient. Multiplying by the mask instead would take as
    long as a convolution (in bfloat16 on a CPU).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, mask: Tensor) -> Tensor:
        """Apply to x [B, channels, M, T]; mask [B, T] is false in padding."""
        y = torch.relu(x)
        y.permute(0, 3, 1, 2)[~mask] = 0
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient at x; the mask has none."""
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch adds it to the context at run time
        return torch.ops.aten.threshold_backward(gradient, y, 0), None


def synced_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Apply batch norm, in training, over the batch of all processes; x [B, channels, ...].

    torch's own SyncBatchNorm works on GPUs only. The variance is that of deviations from the mean, not a difference of two
    large numbers.
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    x, rest = x.float(), [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    count = SumOverProcesses.apply(x.new_tensor(float(x.numel() // x.shape[1])))
    mean = SumOverProcesses.apply(x.sum(dim=rest)) / count
    centred = x - mean.view(shape)
    variance = SumOverProcesses.apply(centred.square().sum(dim=rest)) / count
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
        norm.num_batches_tracked.add_(1)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return centred * scale.view(shape) + norm.bias.view(shape)


class Norm1d(nn.BatchNorm1d):
    """Batch norm over the whole batch, also where several processes share it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, channels] or [B, channels, T]."""
        return synced_norm(self, x) if self.training and is_distributed() else super().forward(x)


class Norm2d(nn.BatchNorm2d):
    """Batch norm over the whole batch, for [B, channels, M, T]; see `Norm1d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, channels, M, T]."""
        return synced_norm(self, x) if self.training and is_distributed() else super().forward(x)


class Stage(nn.Module):
    """Strided convolution, batch norm, ReLU; padding is set to zero, as the convolution sees it beyond the end of an utterance.

    With stride 2, output t is centred on input 2 t: n unpadded frames give ceil(n / 2), alone or in a batch.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Size of the kernel over bands and time.
        stride: Over bands and over time.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = Norm2d(outputs)
        self.stride = stride[1]

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for x [B, channels, M, T] with frames [B], and its frames [B]."""
        x = self.norm(self.convolution(x))
        frames = (frames + self.stride - 1) // self.stride
        return MaskedReLU.apply(x, mask_of(frames, x.shape[3])), frames


def build_stages(
    layout: Layout, channels: Sequence[int], kernel_and_stride: Callable[[int], tuple[int, tuple[int, int]]]
) -> tuple[nn.ModuleList, int, int]:
    """Return the stages over the log-mel and its deltas, their output channels times remaining bands, and their stride in time.

    Args:
        layout: Of the input.
        channels: Output channels of each stage.
        kernel_and_stride: From the number of a stage, counted from 0, to its kernel and its stride over bands and over time.
    """
    stages, inputs, bands, total_stride = [], layout.orders, layout.bands, 1
    for number, outputs in enumerate(channels):
        kernel, stride = kernel_and_stride(number)
        stages.append(Stage(inputs, outputs, kernel, stride))
        inputs, bands, total_stride = outputs, -(-bands // stride[0]), total_stride * stride[1]
    return nn.ModuleList(stages), inputs * bands, total_stride


class AttentivePooling(nn.Module):
    """Attentive statistics pooling: weighted mean and standard deviation over frames, with learned weights per channel.

    Okabe, Koshinaka and Shinoda, "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018. It was invented
    to recognise speakers: mean and deviation over time are what identifies a speaker best, so expect leakage.
    """

    outputs_per_channel = 2

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        first, last = nn.Conv1d(channels, hidden, 1), nn.Conv1d(hidden, channels, 1)
        self.score = nn.Sequential(first, nn.Tanh(), last)
        freeze(last.bias)  # softmax over frames cancels a constant

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Pool x [B, channels, T] with frames [B]: [B, 2 * channels]."""
        mask = mask_of(frames, x.shape[2])[:, None]
        weight = self.score(x).float().masked_fill(~mask, -torch.inf).softmax(dim=2)
        x = x.float()  # bfloat16 is too coarse for a deviation
        mean = (weight * x).sum(dim=2)
        variance = (weight * (x - mean[:, :, None]).square()).sum(dim=2)
        return torch.cat((mean, (variance + 1e-5).sqrt()), dim=1)  # the square root has no gradient at 0


class MeanPooling(nn.Module):
    """The mean over unpadded frames."""

    outputs_per_channel = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Pool x [B, channels, T] with frames [B]: [B, channels]."""
        return (x.float() * mask_of(frames, x.shape[2])[:, None]).sum(dim=2) / frames[:, None]


class SegmentPooling(nn.Module):
    """The mean of each of four equal segments of an utterance's unpadded frames, so that left and right are distinguished.

    A frame on the border of two segments counts in both by its share; with fewer frames than segments, frames count in several.
    """

    outputs_per_channel = 4

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Pool x [B, channels, T] with frames [B]: [B, 4 * channels]."""
        border = torch.arange(self.outputs_per_channel + 1, device=x.device) * frames[:, None] / self.outputs_per_channel
        frame = torch.arange(x.shape[2], device=x.device)[:, None]
        begin, end = torch.maximum(border[:, None, :-1], frame), torch.minimum(border[:, None, 1:], frame + 1)
        weight = (end - begin).clamp_min(0) * (self.outputs_per_channel / frames)[:, None, None]  # [B, T, segments]
        return (x.float() @ weight).flatten(1)


def freeze(bias: Tensor | None) -> None:
    """Exclude a bias from training that the next operation cancels: its gradient is rounding errors, which Adam amplifies."""
    assert bias is not None
    bias.requires_grad_(False)


class SingleBranch(nn.Module):
    """Base of encoders with one branch: `frame_features`, then `embed`."""

    dim: int
    frame_dim: int
    stride: int

    @property
    def branch_dims(self) -> tuple[int, ...]:
        """The whole embedding."""
        return (self.dim,)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of inputs [B, I, T], zero in padding, with frames [B]."""
        return self.embed(*self.frame_features(x, frames))

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'], zero in padding, and their frames [B]."""
        raise NotImplementedError

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        raise NotImplementedError


class Cnn(SingleBranch):
    """Convolution stages, attentive statistics pooling, and a linear layer to the embedding.

    The first stage halves time and bands with a wide kernel, because a CNN on spectrograms spends most of its time at full
    resolution. Each later stage halves the bands, the second also time. The remaining bands are pooled separately: the same
    pattern means something else in another band.

    Known failure: with few training speakers the embedding identifies them as well as the emotion (see the results page).

    Args:
        layout: Of the input: log-mel and its deltas.
        settings: Section [encoder] of the recipe.
    """

    pooling: type[AttentivePooling] | type[SegmentPooling] = AttentivePooling

    def __init__(self, layout: Layout, settings: CnnSettings | ImageSettings) -> None:
        super().__init__()
        self.layout = layout
        self.stages, self.frame_dim, self.stride = build_stages(layout, settings.channels, self.kernel_and_stride)
        self.pool = self.pooling(self.frame_dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(self.pool.outputs_per_channel * self.frame_dim, settings.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(settings.dim)
        self.dim = settings.dim

    @staticmethod
    def kernel_and_stride(number: int) -> tuple[int, tuple[int, int]]:
        """Return the kernel of a stage, counted from 0, and its stride over bands and over time."""
        return (5, (2, 2)) if number == 0 else (3, (2, 2 if number == 1 else 1))

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'], zero in padding, and their frames [B].

        F is the last stage's channels times the remaining bands.
        """
        x = self.layout.log_mel(x).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, frames = stage(x, frames)
        return x.flatten(1, 2), frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))


class ImageCnn(Cnn):
    """The same for images of a few pixels: full resolution first, halved both ways afterwards, position kept in pooling.

    Known failure: a pattern that moves by a segment looks different, so it does not suit speech.
    """

    pooling = SegmentPooling

    @staticmethod
    def kernel_and_stride(number: int) -> tuple[int, tuple[int, int]]:
        """Return the kernel of a stage, counted from 0, and its stride over rows and over columns."""
        return 3, (1, 1) if number == 0 else (2, 2)
