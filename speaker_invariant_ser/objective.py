"""What training makes small: the emotion loss and the adversary's, of one forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.adversaries import Adversary
from speaker_invariant_ser.config import EmotionSection
from speaker_invariant_ser.features import Batch
from speaker_invariant_ser.model import SerModel


class Objective(nn.Module):
    """Model and adversary as one module, so that precision and processes are put around one forward pass.

    `shares` [C] says how much of an epoch each emotion has.
    """

    def __init__(self, model: SerModel, adversary: Adversary, settings: EmotionSection, shares: Tensor) -> None:
        super().__init__()
        self.model, self.adversary, self.smoothing = model, adversary, settings.label_smoothing
        self.register_buffer("weight", class_weights(shares) if settings.class_weights else torch.ones_like(shares))
        self.register_buffer("offset", settings.logit_adjustment * shares.clamp_min(1e-12).log())  # Menon et al., ICLR 2021

    def forward(self, mels: Tensor, frames: Tensor, emotion: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """A batch and the progress of training, 0 to 1 -> both losses, each branch at the embedding, clips told rightly."""
        embedding = self.model.encode(mels, frames).float()
        branches = embedding.view_as(embedding), embedding.view_as(embedding)  # apart, for the norm of each one's gradient
        for branch in branches:
            branch.retain_grad()
        logits = self.model.head(branches[0]).float()
        adversary_loss = self.adversary(branches[1], Batch(mels, frames, emotion, target), progress)  # lambda acts inside, once
        with torch.no_grad():
            guessed = self.adversary.logits(embedding)
        return {
            "emotion_loss": soft_cross_entropy(logits + self.offset, emotion, self.weight, self.smoothing),
            "adversary_loss": adversary_loss.float(),
            "emotion_branch": branches[0],
            "adversary_branch": branches[1],
            "emotion_right": (logits.argmax(dim=1) == emotion.argmax(dim=1)).sum(),
            "adversary_right": (guessed.argmax(dim=1) == target.argmax(dim=1)).sum(),
        }


def soft_cross_entropy(logits: Tensor, shares: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    """Weighted mean cross-entropy of logits [B, C] against label shares [B, C]; with single labels that of torch."""
    losses = F.cross_entropy(logits, shares, weight, reduction="sum", label_smoothing=smoothing)
    return losses / (shares @ weight).sum()


def class_weights(shares: Tensor) -> Tensor:
    """Inverse shares [C], one on average over the clips; a class without clips gets 0."""
    return torch.where(shares > 0, 1 / ((shares > 0).sum() * shares.clamp_min(1e-12)), 0.0)
