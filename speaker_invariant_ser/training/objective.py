"""What training minimises apart from the adversaries' losses: one forward pass of the model, and the losses of its outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.adversaries.base import Adversary, AdversaryBatch
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.models.model import ModelSettings, Output, SerModel
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_encoders import EmotionSection
from speaker_invariant_ser.recipe_methods import NoPerturbation, PerturbationSettings, PerturbSection
from speaker_invariant_ser.training.adversarial_examples import (
    PERTURBATIONS,
    Perturbation,
    PerturbationInput,
    kl_divergence,
    preserve_statistics,
    repeat_random_numbers,
)

NO_PERTURBATION = NoPerturbation()


@dataclass(frozen=True)
class TaskLosses:
    """Scalar losses of a batch of all processes, adversaries apart."""

    emotion: Tensor
    rate: Tensor  # nats that the bottleneck lets through, mean over utterances
    perturbed: Tensor | None  # at the adversarially perturbed inputs; None without [perturb]
    dimensions: Tensor | None = None  # 1 - CCC, mean over `emotion.targets`; None without targets

    def by_name(self) -> dict[str, Tensor]:
        """Return the losses that there are, by name."""
        return {name: loss for name, loss in vars(self).items() if loss is not None}


class EmotionHeadPass:
    """The emotion head's part of one forward pass, for the gradient of the emotion loss with respect to the embeddings.

    A plain object, so that Fabric hands it through as it is: on tensors that Fabric returns, torch.autograd.grad raises
    under mixed precision.

    Args:
        head_input: What the emotion head got [B, D].
        logits: What the loss is computed from, see `scored_logits`.
    """

    def __init__(self, head_input: Tensor, logits: Tensor) -> None:
        self.head_input, self.logits = head_input, logits

    def input_gradient(self, logits_gradient: Tensor) -> Tensor:
        """Turn a gradient with respect to the logits into one with respect to the head's input [B, D].

        It goes through the head alone; no parameter gets a gradient, and the graph stays for the backward pass.
        """
        gradient = logits_gradient.to(self.logits.dtype)
        return torch.autograd.grad(self.logits, self.head_input, gradient, retain_graph=True)[0]


class Objective(nn.Module):
    """The model with its task losses: the module that Fabric wraps for precision and for several processes.

    Args:
        model: The model in training.
        settings: [emotion] of the recipe.
        shares: Share of an epoch's labelled utterances of each emotion [C].
        perturb: [perturb] of the recipe.
        adversary: Whose loss a perturbation along the speaker's gradient follows. It is no part of this module.
        need_frames: Whether an adversary gets frame-level features, which are then returned as well.
    """

    weight: Tensor  # [C] of the emotions in the loss
    offset: Tensor  # [C] added to their logits

    def __init__(
        self,
        model: SerModel,
        settings: EmotionSection,
        shares: Tensor,
        perturb: PerturbSection = NO_PERTURBATION,
        adversary: Adversary | None = None,
        need_frames: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.smoothing, self.need_frames = model, settings.label_smoothing, need_frames
        self.targets_weight = settings.targets_weight
        self.perturbation: Perturbation | None = None
        self.epsilon, self.perturbed_weight = 0.0, 0.0
        if isinstance(perturb, PerturbationSettings):
            self.perturbation = PERTURBATIONS[perturb.name]
            self.epsilon, self.perturbed_weight = perturb.epsilon, perturb.weight
        self.adversary = (adversary,)  # in a tuple, or its parameters would become this module's
        weight, offset = loss_terms(settings, shares)
        self.register_buffer("weight", weight)
        self.register_buffer("offset", offset)

    def forward(self, mels: Tensor, frames: Tensor, emotion: Tensor, target: Tensor) -> tuple[dict[str, Tensor], EmotionHeadPass]:
        """Run the model on the rows of one process.

        Args:
            mels: Log-mels [B, M, T].
            frames: Frames of each [B].
            emotion: Label shares [B, C].
            target: Shares of the first adversary's target [B, K].

        Returns:
            The fields of `models.model.Output` by name, with `perturbed` [B, C], the logits of the adversarially perturbed
            inputs, where the recipe has them; and the emotion head's part of the pass.
        """
        if self.perturbation is None:
            output = self.model.from_mels(mels, frames)
            return self.fields(output), EmotionHeadPass(output.head_input, scored_logits(vars(output)))
        mels = mels.detach().requires_grad_()
        with repeat_random_numbers(mels):
            output = self.model.from_mels(mels, frames)
            step = self.perturbation_of(self.perturbation, mels, frames, output, emotion, target)
        with preserve_statistics(self.model):
            perturbed = self.model.from_mels(mels.detach() + step, frames)
        return {**self.fields(output), "perturbed": perturbed.logits}, EmotionHeadPass(
            output.head_input, scored_logits(vars(output))
        )

    def fields(self, output: Output) -> dict[str, Tensor]:
        """Return the fields of an output; frame-level features, which are large, only where an adversary gets them."""
        left_out = ("head_input", "code") if self.need_frames else ("head_input", "code", "frame_features")
        return {name: value for name, value in vars(output).items() if name not in left_out and value is not None}

    def perturbation_of(
        self, method: Perturbation, mels: Tensor, frames: Tensor, output: Output, emotion: Tensor, target: Tensor
    ) -> Tensor:
        """Return what is added to log-mels [B, M, T].

        Losses are sums over utterances: a mean would be over the rows of this process, whose gradients batch norm mixes with
        those of the others. Batch norm also gives utterances without a label a gradient of the emotion loss; a method that
        needs labels leaves them unchanged.
        """
        with preserve_statistics(self.model):
            step = method(
                PerturbationInput(
                    forward=lambda changed: self.model.from_mels(changed, frames),
                    mels=mels,
                    frames=frames,
                    output=output,
                    emotion_loss=lambda changed: self.emotion_loss(changed.logits, emotion) * (emotion @ self.weight).sum(),
                    speaker_loss=lambda changed: self.speaker_loss(changed, emotion, target) * len(target),
                    epsilon=self.epsilon,
                )
            )
        return step * (emotion.sum(dim=1) > 0)[:, None, None] if method.reference == "labels" else step

    def losses(self, outputs: Mapping[str, Tensor], emotion: Tensor, dimensions: Tensor | None = None) -> TaskLosses:
        """Compute the losses of a batch of all processes from its outputs, its label shares [B, C] and its ratings [B, R]."""
        loss, rate = self.emotion_loss(scored_logits(outputs), emotion), outputs["rate"].mean()
        rated = None if dimensions is None else ccc_loss(outputs["dimensions"], dimensions)
        if self.perturbation is None:
            return TaskLosses(loss, rate, perturbed=None, dimensions=rated)
        if self.perturbation.reference == "labels":
            return TaskLosses(loss, rate, self.emotion_loss(outputs["perturbed"], emotion), rated)
        return TaskLosses(loss, rate, kl_divergence(outputs["logits"], outputs["perturbed"]), rated)

    def further(self, losses: TaskLosses) -> Tensor | float:
        """Return the weighted sum of the losses that only some recipes have: at perturbed inputs, and of dimensions."""
        perturbed = 0.0 if losses.perturbed is None else self.perturbed_weight * losses.perturbed
        return perturbed if losses.dimensions is None else perturbed + self.targets_weight * losses.dimensions

    def emotion_loss(self, logits: Tensor, emotion: Tensor) -> Tensor:
        """Return the weighted mean cross-entropy of logits and label shares [B, C], over utterances with a label.

        The logits are [B, C] or, of R classifiers whose losses are averaged, [B, R, C].
        """
        if logits.dim() == 3:
            return torch.stack([self.emotion_loss(branch, emotion) for branch in logits.unbind(1)]).mean()
        return soft_cross_entropy(logits.float() + self.offset, emotion, self.weight, self.smoothing)

    def speaker_loss(self, output: Output, emotion: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the first adversary's classifier, as a function of the model's input."""
        (adversary,) = self.adversary
        assert adversary is not None, "a recipe with perturb.name = cross has an adversary"
        x = output.frame_features if adversary.settings.on_frames else output.embedding
        return adversary.classifier_loss(x.float(), AdversaryBatch(output.frame_counts, emotion, target))


def scored_logits(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits that the emotion loss is computed from: those of each classifier [B, R, C], or of the only one [B, C]."""
    branch_logits = outputs.get("branch_logits")
    return outputs["logits"] if branch_logits is None else branch_logits


def soft_cross_entropy(logits: Tensor, shares: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    """Return the weighted mean cross-entropy of logits and label shares; with single labels, that of torch.

    Args:
        logits: [B, C].
        shares: [B, C], each row adding up to 1; a row of zeros is an utterance without a label and does not count.
        weight: Of the emotions [C].
        smoothing: Label smoothing, 0 to 1.
    """
    labelled = shares.sum(dim=1) > 0  # smoothing would give the others a label as well
    losses = F.cross_entropy(logits[labelled], shares[labelled], weight, reduction="sum", label_smoothing=smoothing)
    return losses / (shares @ weight).sum().clamp_min(1e-12)


def ccc_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - CCC over the utterances of a batch that have a rating, mean over the dimensions that two or more have.

    Trigeorgis et al., ICASSP 2016; Atmaja and Akagi, Journal of Physics: Conference Series 1896, 2021. Without two ratings of any
    dimension the loss is 0.

    Args:
        predicted: [B, R].
        truth: Ratings [B, R]; NaN where an utterance has none.
    """
    rated = ~truth.isnan()
    number = rated.sum(dim=0).clamp_min(1)
    x, y = predicted.float(), truth.float().nan_to_num()
    mean_x, mean_y = ((values * rated).sum(dim=0) / number for values in (x, y))
    off_x, off_y = ((values - mean) * rated for values, mean in ((x, mean_x), (y, mean_y)))
    covariance, spread = (off_x * off_y).sum(dim=0) / number, (off_x**2 + off_y**2).sum(dim=0) / number
    ccc = 2 * covariance / (spread + (mean_x - mean_y) ** 2).clamp_min(1e-8)
    possible = rated.sum(dim=0) >= 2
    return ((1 - ccc) * possible).sum() / possible.sum().clamp_min(1)


def loss_terms(settings: EmotionSection, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the class weights and the logit adjustment (Menon et al., ICLR 2021) of the emotion loss.

    Args:
        settings: [emotion] of the recipe.
        shares: Share of the training utterances of each emotion [C].

    Returns:
        Weights of the emotions [C], and what is added to their logits in training [C].
    """
    weight = class_weights(shares) if settings.class_weights else torch.ones_like(shares)
    return weight, settings.logit_adjustment * shares.clamp_min(1e-12).log()


def class_weights(shares: Tensor) -> Tensor:
    """Return inverse class frequencies.

    Args:
        shares: Share of the utterances of each class [C].

    Returns:
        Weights [C] whose mean over the utterances is 1; 0 for a class without utterances.
    """
    return torch.where(shares > 0, 1 / ((shares > 0).sum() * shares.clamp_min(1e-12)), 0.0)


def build_model(recipe: Recipe, labels: Sequence[str]) -> SerModel:
    """Return an untrained model.

    Args:
        recipe: The recipe.
        labels: Names of the C emotions.

    Raises:
        RecipeError: The band limits are impossible.
    """
    names = ("features", "encoder", "emotion", "bottleneck", "erase", "release")
    sections = {name: getattr(recipe, name) for name in names}
    return SerModel(ModelSettings(labels=tuple(labels), sample_rate=SAMPLE_RATE, **sections))
