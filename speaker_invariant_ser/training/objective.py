"""What training makes small: one forward pass of the model, and the emotion loss of what came out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.adversaries.base import Adversary
from speaker_invariant_ser.features.log_mel import Batch
from speaker_invariant_ser.models.model import Output, SerModel
from speaker_invariant_ser.recipe import EmotionSection
from speaker_invariant_ser.recipe_methods import PerturbSection
from speaker_invariant_ser.training.adversarial_examples import PERTURBATIONS, drawn_again, statistics_kept


class Objective(nn.Module):
    """The model as precision and processes are put around it: one forward pass, of the moved clips as well where asked.

    `shares` [C] says how much of an epoch each emotion has. `reader` is what the speaker's direction is asked of; it is no part
    of this module. `mapped`: the map before pooling is wanted as well.
    """

    def __init__(
        self,
        model: SerModel,
        settings: EmotionSection,
        shares: Tensor,
        perturb: PerturbSection | None = None,
        reader: Adversary | None = None,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.smoothing, self.mapped = model, settings.label_smoothing, mapped
        self.perturb, self.reader, self.branch = perturb, (reader,), None
        self.perturbation = PERTURBATIONS.get(perturb.name) if perturb else None
        self.register_buffer("weight", class_weights(shares) if settings.class_weights else torch.ones_like(shares))
        self.register_buffer("offset", settings.logit_adjustment * shares.clamp_min(1e-12).log())  # Menon et al., ICLR 2021

    def forward(self, mels: Tensor, frames: Tensor, emotion: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Log-mels of this process's clips, their labels -> the fields of `Output`, and `moved` [B, C], logits of moved clips."""
        if not self.perturbation:
            return self.found(self.model.from_mels(mels, frames))
        mels = mels.detach().requires_grad_()
        with drawn_again(mels):
            output = self.model.from_mels(mels, frames)
            step = self.step(mels, frames, output, emotion, target)
        with statistics_kept(self.model):
            moved = self.model.from_mels(mels.detach() + step, frames)
        return {**self.found(output), "moved": moved.logits}

    def step(self, mels: Tensor, frames: Tensor, output: Output, emotion: Tensor, target: Tensor) -> Tensor:
        """How clips are moved [B, M, T]. Along sums and no means, since through batch norm clips of other processes have a slope
        as well; and so have clips without a label, which stay where they are if one is asked for.
        """
        with statistics_kept(self.model):
            step = self.perturbation(
                lambda moved: self.model.from_mels(moved, frames),
                mels,
                frames,
                output,
                lambda found: self.emotion_loss(found.logits, emotion) * (emotion @ self.weight).sum(),
                lambda found: self.speaker_loss(found, emotion, target) * len(target),
                getattr(self.perturb, "epsilon", 0.0),
            )
        return step * (emotion.sum(dim=1) > 0)[:, None, None] if self.perturbation.against == "labels" else step

    def found(self, output: Output) -> dict[str, Tensor]:
        """The fields of an output, the map before pooling only where an adversary reads it: it is large."""
        self.branch = output.head_input, output.logits
        left_out = ("head_input", "bottleneck") if self.mapped else ("head_input", "bottleneck", "frame_features", "frame_counts")
        return {name: one for name, one in vars(output).items() if name not in left_out}

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient [B, D] at what the emotion was told from, in the latest pass, by that at the logits [B, C]: through the
        head alone, before any backward pass. Tensors of this module's own, since Fabric guards those that it hands out.
        """
        (told, logits), self.branch = self.branch, None
        return torch.autograd.grad(logits, told, gradient.to(logits.dtype), retain_graph=True)[0]

    def emotion_loss(self, logits: Tensor, emotion: Tensor) -> Tensor:
        """Weighted mean cross-entropy of logits [B, C] against label shares [B, C], over the clips that have a label."""
        return soft_cross_entropy(logits.float() + self.offset, emotion, self.weight, self.smoothing)

    def speaker_loss(self, output: Output, emotion: Tensor, target: Tensor) -> Tensor:
        """How badly the first adversary reads the speaker, through the model."""
        (reader,) = self.reader
        x = output.frame_features if reader.settings.on_frames else output.embedding
        return reader.classifier_loss(x.float(), Batch(output.frame_counts, emotion, target))


def soft_cross_entropy(logits: Tensor, shares: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    """Weighted mean cross-entropy of logits [B, C] against label shares [B, C]; with single labels that of torch.

    A row of shares that is all zero is a clip without a label, and counts nothing.
    """
    known = shares.sum(dim=1) > 0  # smoothing would give the others a label as well
    losses = F.cross_entropy(logits[known], shares[known], weight, reduction="sum", label_smoothing=smoothing)
    return losses / (shares @ weight).sum().clamp_min(1e-12)


def class_weights(shares: Tensor) -> Tensor:
    """Inverse shares [C], one on average over the clips; a class without clips gets 0."""
    return torch.where(shares > 0, 1 / ((shares > 0).sum() * shares.clamp_min(1e-12)), 0.0)
