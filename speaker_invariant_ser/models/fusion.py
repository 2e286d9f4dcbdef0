"""Fusion of streams: an encoder for each, whose embeddings are joined.

Shapes: B batch, I rows of the input, T frames, T' frames of the frame-level features, F their dimension, D embedding
dimension.
"""

import torch
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.encoders import Cnn, SingleBranch
from speaker_invariant_ser.models.recurrent_encoders import Acrnn, Crnn, ProsodyEncoder
from speaker_invariant_ser.recipe_encoders import AcrnnSettings, CnnSettings, CrnnSettings, FusionSettings, ProsodySettings


class Fusion(nn.Module):
    """A log-mel encoder and a prosody encoder side by side; neither sees the other's stream.

    Each has its own emotion classifier (`models.emotion_heads.BranchHeads`), and training minimises the mean of both losses, so
    that each branch learns as if it were alone. The embedding leaks what either branch leaks. A linear bottleneck (vib) or eraser
    mixes the dimensions of both, and each classifier then gets a part of the mixture.

    Frame-level features have the frame rate of the prosody branch: those of a log-mel branch with a larger stride are repeated.
    `embed` undoes that.

    Args:
        layout: Of the input: log-mel with its deltas, and prosody.
        settings: Section [encoder] of the recipe.
    """

    stride = ProsodyEncoder.stride

    def __init__(self, layout: Layout, settings: FusionSettings) -> None:
        super().__init__()
        shared = {"dim": settings.dim, "dropout": settings.dropout}
        log_mel: SingleBranch
        if settings.log_mel == "crnn":
            log_mel = Crnn(layout, CrnnSettings.model_validate(shared))
        elif settings.log_mel == "cnn":
            log_mel = Cnn(layout, CnnSettings.model_validate(shared))
        else:
            log_mel = Acrnn(layout, AcrnnSettings.model_validate(shared))
        self.log_mel, self.prosody = log_mel, ProsodyEncoder(layout, ProsodySettings.model_validate(shared))
        self.frame_dim = log_mel.frame_dim + self.prosody.frame_dim
        self.dim = 2 * settings.dim
        self.repeats = log_mel.stride // self.stride

    @property
    def branch_dims(self) -> tuple[int, ...]:
        """Dimensions of the log-mel and of the prosody branch."""
        return self.log_mel.dim, self.prosody.dim

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of inputs [B, I, T], zero in padding, with frames [B]."""
        return self.embed(*self.frame_features(x, frames))

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T'] of both branches, and their frames [B]."""
        log_mel, _ = self.log_mel.frame_features(x, frames)
        prosody, frames = self.prosody.frame_features(x, frames)
        repeated = log_mel.float().repeat_interleave(self.repeats, dim=2)[:, :, : prosody.shape[2]]
        repeated = torch.where(mask_of(frames, prosody.shape[2])[:, None], repeated, 0)
        return torch.cat((repeated, prosody.float()), dim=1), frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, F, T'] with frames [B]."""
        log_mel, prosody = x.split([self.log_mel.frame_dim, self.prosody.frame_dim], dim=1)
        own = self.log_mel.embed(log_mel[:, :, :: self.repeats], (frames + self.repeats - 1) // self.repeats)
        return torch.cat((own, self.prosody.embed(prosody, frames)), dim=1)
