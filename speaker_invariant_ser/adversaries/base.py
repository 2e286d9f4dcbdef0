"""The interface between an adversary and the training loop."""

from dataclasses import dataclass

from torch import Tensor, nn

from speaker_invariant_ser.adversaries.schedules import STRENGTH_SCHEDULES
from speaker_invariant_ser.recipe_methods import AdversarySettings


@dataclass(frozen=True)
class AdversaryBatch:
    """What an adversary gets in addition to its input: labels, and numbers of unpadded frames.

    Labels are shares that sum to 1: one-hot, unless utterances were mixed or concatenated. An utterance of unknown emotion
    has no share of any.

    Attributes:
        frames: Number of frames of the frame-level features, [B].
        emotion: Shares of the emotions, [B, C].
        target: Shares of the adversary's target, the speaker as a rule, [B, K].
    """

    frames: Tensor
    emotion: Tensor
    target: Tensor


class Adversary(nn.Module):
    """A training-time opponent of speaker information in the embedding; it is never saved with the model.

    `adversary(x, batch, progress)` returns a scalar that always depends on `x`, a leaf of the whole batch: embeddings [B, D] or,
    with `settings.on_frames`, frame-level features [B, F, T']. After its backward pass `x.grad` is the gradient for the encoder,
    which contains lambda exactly once. The gradient of the adversary's own parameters is that of its classification loss with
    weight 1, whatever lambda is; the exception is `signed`, whose classifier receives -lambda times that gradient. The scalar's
    value is for the log: the classifier's cross-entropy in nats, or the term that is minimised.

    An adversary with a classifier also has `classifier_loss`. Before each call the training loop minimises that loss for
    `separate_steps` updates of the adversary's own optimizer.

    Args:
        settings: The adversary's section of the recipe.
    """

    has_classifier = False

    def __init__(self, settings: AdversarySettings) -> None:
        super().__init__()
        self.settings = settings

    @property
    def separate_steps(self) -> int:
        """Updates of the adversary's own parameters before each encoder step, in addition to that of the shared backward pass."""
        return 0

    def strength(self, progress: float) -> float:
        """Return lambda at this share (0 to 1) of training."""
        return self.settings.strength * STRENGTH_SCHEDULES[self.settings.schedule](progress, self.settings)

    def classifier_loss(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the loss that the adversary's classifier minimises, in nats.

        Args:
            x: Embeddings [B, D] or frame-level features [B, F, T'].
            batch: Labels and frame counts of the same utterances.
        """
        raise NotImplementedError

    def logits(self, x: Tensor, batch: AdversaryBatch) -> Tensor | None:
        """Return the classifier's raw logits of the target [B, K] for the log, or None without a classifier."""
        return None

    def reset_due(self, step: int, seed: int = 0) -> list[nn.Parameter]:
        """Re-initialise the classifier that is due before this step of training.

        Args:
            step: Number of steps taken so far.
            seed: Seed of the new parameters.

        Returns:
            The new parameters, whose optimizer state must be cleared; empty if nothing is due.
        """
        return []
