"""Pre-trained encoders: layers of a frozen network in, embeddings out.

Shapes: B batch, L layers, H dimension of a frame, T frames, D embedding dimension.
"""

import torch
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.encoders import AttentivePooling, Norm1d, SingleBranch, freeze
from speaker_invariant_ser.recipe_encoders import PretrainedSettings


class PretrainedEncoder(SingleBranch):
    """A learned weighted sum of the layers of a pre-trained encoder, attentive statistics pooling, and a linear layer.

    Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021. Every frame of every layer has
    mean 0 and variance 1, so that the weights say how much of each layer is used.

    Known failure: all layers carry the speaker, and the weights are chosen for the emotion alone; what of the speaker is left is
    for the audit to say.

    Args:
        layout: Of the input, which says nothing about it.
        settings: Section [encoder] of the recipe.
    """

    stride = 1

    def __init__(self, layout: Layout, settings: PretrainedSettings) -> None:
        super().__init__()
        checkpoint = open_checkpoint(settings)
        self.layers = checkpoint.layers(settings.layers)
        self.frame_dim, self.dim = checkpoint.width, settings.dim
        self.layer_weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.pool = AttentivePooling(self.frame_dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(self.pool.outputs_per_channel * self.frame_dim, self.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(self.dim)

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sum [B, H, T] of layers [B, L * H, T], zero in padding, and their frames [B]."""
        layers = x.float().unflatten(1, (len(self.layers), self.frame_dim))
        summed = torch.einsum("l,blht->bht", self.layer_weights.softmax(dim=0), layers)
        return summed * mask_of(frames, x.shape[2])[:, None], frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, H, T] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))
