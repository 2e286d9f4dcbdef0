"""Encoders with a recurrent layer: small ones over prosody and over log-mels, and the 3-D ACRNN.

Shapes: B batch, I rows of the input, P prosody channels, M mel bands, T frames, T' frames of the frame-level features, F their
dimension, D embedding dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.encoders import (
    AttentivePooling,
    Cnn,
    MaskedReLU,
    Norm1d,
    Norm2d,
    SingleBranch,
    build_stages,
    freeze,
)
from speaker_invariant_ser.recipe_encoders import AcrnnSettings, CrnnSettings, ProsodySettings


class Bidirectional(nn.Module):
    """An LSTM in both directions over zero-padded utterances; the backward one begins at each utterance's own last frame.

    An LSTM and not a GRU, whose gradient takes torch twice as long on a CPU.

    Args:
        inputs: Input channels.
        units: Units in each direction.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.ahead, self.back = nn.LSTM(inputs, units, batch_first=True), nn.LSTM(inputs, units, batch_first=True)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return [B, 2 * units, T], zero in padding, for x [B, inputs, T] with frames [B]."""
        mask = mask_of(frames, x.shape[2])
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16, errors add up over hundreds of steps
            columns, order = with_contiguous_gradient(x.float()).transpose(1, 2), reversal(frames, x.shape[2])
            ahead, _ = self.ahead(columns)
            back, _ = self.back(take_frames(columns, order))
            both = torch.cat((ahead, take_frames(back, order)), dim=2)
        return torch.where(mask[:, :, None], both, 0).transpose(1, 2).contiguous()


def with_contiguous_gradient(x: Tensor) -> Tensor:
    """Return x, whose gradient will be contiguous: with that of a transposed view, the layers before take twice as long."""
    if x.requires_grad:
        x = x.view_as(x)
        x.register_hook(Tensor.contiguous)
    return x


def reversal(frames: Tensor, length: int) -> Tensor:
    """Return the frame order [B, length] that reverses the real frames [B] of each utterance and leaves padding in its place.

    >>> reversal(torch.tensor([2, 3]), 3).tolist()
    [[1, 0, 2], [2, 1, 0]]
    """
    position = torch.arange(length, device=frames.device)[None]
    return torch.where(position < frames[:, None], frames[:, None] - 1 - position, position)


def take_frames(columns: Tensor, order: Tensor) -> Tensor:
    """Return the frames of columns [B, T, channels] in the order [B, T]."""
    return columns.gather(1, order[:, :, None].expand(-1, -1, columns.shape[2]))


class ProsodyEncoder(SingleBranch):
    """Convolutions over time, a bidirectional LSTM, attentive statistics pooling, a linear layer.

    The first convolution halves the frame rate, which halves the cost of everything behind it; three dilated ones with residual
    connections see about a second. About 100,000 parameters. Known failure: where speech is voiced badly or overlaps, F0 and
    with it most of the input is wrong.

    Utterance-level functionals, where the input has them, pass a linear layer and join the frame-level features as channels that
    are the same in every frame, which pooling leaves as they are.

    Args:
        layout: Of the input: prosody, perhaps with functionals.
        settings: Section [encoder] of the recipe.
    """

    stride = 2
    dilations = (1, 2, 4)
    kernel = 5

    def __init__(self, layout: Layout, settings: ProsodySettings) -> None:
        super().__init__()
        self.layout, width = layout, settings.width
        steps = [(self.stride, 1), *((1, dilation) for dilation in self.dilations)]
        inputs = [layout.prosody, *[width] * len(self.dilations)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, width, self.kernel, stride, dilation * (self.kernel // 2), dilation, bias=False)
            for channels, (stride, dilation) in zip(inputs, steps, strict=True)
        )
        self.norms = nn.ModuleList(Norm1d(width) for _ in steps)
        self.dropout = nn.Dropout(settings.dropout)
        self.recurrent = Bidirectional(width, width // 2)
        self.functionals: nn.Module | None = None
        if layout.functionals:
            self.functionals = nn.Sequential(
                Norm1d(layout.functionals), nn.Linear(layout.functionals, width // 2), nn.ReLU(), nn.Dropout(settings.dropout)
            )
        self.frame_dim = width + (width // 2 if layout.functionals else 0)
        self.pool = AttentivePooling(self.frame_dim)
        self.project = nn.Linear(AttentivePooling.outputs_per_channel * self.frame_dim, settings.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(settings.dim)
        self.dim = settings.dim

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'] of inputs [B, I, T], T' half of T, and their frames [B]."""
        functionals = None if self.functionals is None else self.functionals(self.layout.functionals_of(x))
        x, frames = self.layout.prosody_rows(x), (frames + self.stride - 1) // self.stride
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(convolution(x)).relu()
            y = torch.where(mask_of(frames, y.shape[2])[:, None], y, 0)
            x = x + y if number else y
        x = self.recurrent(self.dropout(x), frames)
        if functionals is not None:
            repeated = torch.where(mask_of(frames, x.shape[2])[:, None], functionals.float()[:, :, None], 0)
            x = torch.cat((x.float(), repeated), dim=1)
        return x, frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))


class Crnn(SingleBranch):
    """Convolution stages over log-mels and their deltas, a bidirectional LSTM, attentive statistics pooling, a linear layer.

    The stages are those of `Cnn`, with fewer channels: the first and the second halve the frame rate, each halves the bands. With
    32 mel bands about 105,000 parameters. Known failure: as with any encoder of the spectrum, the embedding identifies the
    training speakers where these are few.

    Args:
        layout: Of the input: log-mel and its deltas.
        settings: Section [encoder] of the recipe.
    """

    def __init__(self, layout: Layout, settings: CrnnSettings) -> None:
        super().__init__()
        self.layout = layout
        self.stages, columns, self.stride = build_stages(layout, settings.channels, Cnn.kernel_and_stride)
        self.dropout = nn.Dropout(settings.dropout)
        self.columns = nn.Conv1d(columns, settings.width, 1, bias=False)
        self.columns_norm = Norm1d(settings.width)
        self.recurrent = Bidirectional(settings.width, settings.width // 2)
        self.frame_dim = settings.width
        self.pool = AttentivePooling(self.frame_dim)
        self.project = nn.Linear(AttentivePooling.outputs_per_channel * self.frame_dim, settings.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(settings.dim)
        self.dim = settings.dim

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'] of inputs [B, I, T], T' a quarter of T from two stages on, and frames [B]."""
        x = self.layout.log_mel(x).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, frames = stage(x, frames)
        x = self.columns_norm(self.columns(self.dropout(x.flatten(1, 2)))).relu()
        x = torch.where(mask_of(frames, x.shape[2])[:, None], x, 0)
        return self.recurrent(self.dropout(x), frames), frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))


class AttentionPooling(nn.Module):
    """Weighted mean over frames; one learned weight for each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv1d(channels, 1, 1, bias=False)  # softmax over frames would cancel a bias

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Pool x [B, channels, T] with frames [B]: [B, channels]."""
        mask = mask_of(frames, x.shape[2])[:, None]
        weight = self.score(x).float().masked_fill(~mask, -torch.inf).softmax(dim=2)
        return (weight * x.float()).sum(dim=2)


class Acrnn(SingleBranch):
    """3-D attention-based convolutional recurrent network: Chen, He, Yang, Zhang, IEEE Signal Processing Letters 25 (10), 2018.

    Convolutions of 5 frames by 3 bands over log-mel, deltas and delta-deltas, maximum pooling by 2 in time and 4 in bands after
    the first, a linear layer for each frame, a bidirectional LSTM, attention over time, and a fully connected layer.

    Differences from the paper: two convolutions with 64 channels instead of six with 128 and 256, a linear layer of 256 units
    instead of 768, which makes 0.7 million parameters; batch norm; ReLU instead of leaky ReLU; whole utterances instead of
    segments of three seconds; the number of mel bands is the recipe's. Deltas are what features.deltas says, 2 in the paper.

    Args:
        layout: Of the input: log-mel and its deltas.
        settings: Section [encoder] of the recipe.
    """

    stride = 2
    pooled_bands = 4

    def __init__(self, layout: Layout, settings: AcrnnSettings) -> None:
        super().__init__()
        self.layout = layout
        inputs = [layout.orders, *settings.channels[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, outputs, (3, 5), padding=(1, 2), bias=False)  # bands, frames
            for channels, outputs in zip(inputs, settings.channels, strict=True)
        )
        self.norms = nn.ModuleList(Norm2d(outputs) for outputs in settings.channels)
        bands = -(-layout.bands // self.pooled_bands)
        self.linear = nn.Linear(settings.channels[-1] * bands, settings.width)
        self.recurrent = Bidirectional(settings.width, settings.cells)
        self.frame_dim = 2 * settings.cells
        self.pool = AttentionPooling(self.frame_dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(self.frame_dim, settings.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(settings.dim)
        self.dim = settings.dim

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'] of inputs [B, I, T], T' half of T, and their frames [B]."""
        x = self.layout.log_mel(x).contiguous(memory_format=torch.channels_last)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = MaskedReLU.apply(norm(convolution(x)), mask_of(frames, x.shape[3]))
            if number == 0:  # padding is 0 and nothing is below 0: it never is a maximum
                x = F.max_pool2d(x, (self.pooled_bands, self.stride), ceil_mode=True)
                frames = (frames + self.stride - 1) // self.stride
        columns = self.linear(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        return self.recurrent(self.dropout(columns), frames), frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))
