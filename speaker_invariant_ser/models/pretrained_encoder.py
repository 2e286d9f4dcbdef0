"""Pre-trained encoders: layers of a frozen network, or the waveform, in; embeddings out.

Shapes: B batch, S samples, L layers, H dimension of a frame, T frames, D embedding dimension.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.pretrained.backbone import Backbone, trained_part
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.encoders import AttentivePooling, MeanPooling, Norm1d, SingleBranch, freeze
from speaker_invariant_ser.recipe_encoders import PretrainedSettings

POOLING: dict[str, type[AttentivePooling] | type[MeanPooling]] = {"attentive": AttentivePooling, "mean": MeanPooling}


class PretrainedEncoder(SingleBranch):
    """A learned weighted sum of the layers of a pre-trained encoder, pooling over the frames, and a linear layer.

    Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021. With `normalise_layers` every
    frame of every layer has mean 0 and variance 1, so that the weights say how much of each layer is used.

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
        self.pool = POOLING[settings.pooling](self.frame_dim)
        self.normalise_layers = settings.normalise_layers
        self.dropout = nn.Dropout(settings.dropout)
        self.project = nn.Linear(self.pool.outputs_per_channel * self.frame_dim, self.dim)
        freeze(self.project.bias)
        self.norm = Norm1d(self.dim)
        self.network: tuple[Backbone, ...] = ()
        if not settings.frozen:
            with torch.random.fork_rng(devices=[]):  # what is drawn for weights that are loaded changes no others
                backbone = Backbone(checkpoint)
            self.trained = trained_part(backbone, settings)
            self.network = (backbone,)  # in a tuple, so that weights that are not trained are no part of the model

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PretrainedEncoder":
        """Move the network with the model."""
        for network in self.network:
            network._apply(fn)
        return super()._apply(fn, recurse)

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of layers [B, H, T], zero in padding, and their frames [B].

        Args:
            x: Layers [B, L * H, T] of a frozen encoder, or the waveform [B, 1, S].
            frames: Unpadded frames, or samples, of each utterance, [B].
        """
        for network in self.network:
            x, frames = self.compute_layers(network, x[:, 0], frames)
        layers = x.float().unflatten(1, (len(self.layers), self.frame_dim))
        summed = torch.einsum("l,blht->bht", self.layer_weights.softmax(dim=0), layers)
        return summed * mask_of(frames, x.shape[2])[:, None], frames

    def compute_layers(self, network: Backbone, audio: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return layers [B, L * H, T], zero in padding, and frames [B] of utterances [B, S]; those of equal length together."""
        counts = [network.checkpoint.frames_of(count) for count in samples.tolist()]
        groups, rows = [], []
        for length in samples.unique().tolist():
            rows.append((samples == length).nonzero()[:, 0])
            layers = network(audio[rows[-1], :length], self.layers, self.normalise_layers).transpose(2, 3).flatten(1, 2)
            groups.append(F.pad(layers, (0, max(counts) - layers.shape[2])))
        return torch.cat(groups)[torch.cat(rows).argsort()], torch.tensor(counts, device=audio.device)

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return embeddings [B, D] of frame-level features [B, H, T] with frames [B]."""
        return self.norm(self.project(self.dropout(self.pool(x, frames))))
