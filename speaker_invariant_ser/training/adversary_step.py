"""The adversaries' part of a training step: train their classifiers and return the loss that the encoder is trained with."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from speaker_invariant_ser.adversaries.base import Adversary, AdversaryBatch
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import AdversarySection
from speaker_invariant_ser.training.batching import BatchLabels, seed_of


@dataclass(frozen=True)
class AdversaryInput:
    """What one adversary gets of a batch of all processes."""

    x: Tensor  # [B, D] embeddings, or [B, F, T'] frame-level features, in float32; part of the encoder's graph
    batch: AdversaryBatch


@dataclass(frozen=True)
class AdversaryResult:
    """What one adversary did in one training step, over the batch of all processes."""

    name: str  # "adversary", "adversary_2", ...: the prefix of its columns in metrics.csv
    loss: Tensor  # scalar, detached: its classifier's cross-entropy in nats, or the term that it makes small
    correct: Tensor | int  # utterances whose target its classifier predicts correctly; 0 if it has no classifier
    squared_gradient: Tensor  # squared norm of the gradient that the encoder gets at the adversary's input
    encoder_loss: Tensor  # scalar; its gradient with respect to the encoder's output is the one that the encoder gets


class Adversaries(nn.Module):
    """Every adversary of a recipe.

    They are trained with the model and are never part of what is saved of it.

    Args:
        recipe: The recipe; `recipe.adversaries` are the settings of each.
        model: The model whose embeddings or frame-level features they get.
        target_counts: K of each adversary: the number of values that its target can take.

    Raises:
        RecipeError: An adversary cannot be built with its settings.
    """

    def __init__(self, recipe: Recipe, model: SerModel, target_counts: Sequence[int]) -> None:
        super().__init__()
        self.settings = recipe.adversaries
        self.names = ["adversary", *(f"adversary_{number}" for number in range(2, len(self.settings) + 1))]
        self.uninformed = [math.log(count) for count in target_counts]  # ln K, the cross-entropy of a guess without input
        self.max_gradient_norm = recipe.train.gradient_clip
        self.each = nn.ModuleList()
        for index, (settings, count) in enumerate(zip(self.settings, target_counts, strict=True)):
            with errors_name_table(index):
                self.each.append(build_adversary(settings, model, count))

    @property
    def methods(self) -> list[Adversary]:
        """The adversaries in the order of the recipe."""
        return cast(list[Adversary], list(self.each))

    def entries(self) -> Iterator[tuple[str, Adversary, float]]:
        """Yield (name, adversary, cross-entropy of a guess without input) of each adversary."""
        yield from zip(self.names, self.methods, self.uninformed, strict=True)

    @property
    def need_frames(self) -> bool:
        """Whether an adversary gets frame-level features."""
        return any(settings.on_frames for settings in self.settings)

    def separate_groups(self) -> list[dict]:
        """Return parameter groups of adversaries with a learning rate of their own, as torch's optimizers take them."""
        return [
            {"params": [*adversary.parameters()], "lr": settings.own_learning_rate}
            for settings, adversary in zip(self.settings, self.methods, strict=True)
            if settings.own_learning_rate
        ]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the model's optimizer trains: those of all other adversaries."""
        separate = {id(parameter) for group in self.separate_groups() for parameter in group["params"]}
        return [parameter for parameter in self.parameters() if id(parameter) not in separate]

    def reset_due(self, step: int, seed: int) -> list[nn.Parameter]:
        """Re-initialise the classifiers that are due before this step, and return their parameters."""
        reset: list[nn.Parameter] = []
        for index, adversary in enumerate(self.methods):
            reset += adversary.reset_due(step, seed_of(seed, index) >> 1)
        return reset

    def inputs(self, outputs: Mapping[str, Tensor], labels: BatchLabels) -> list[AdversaryInput]:
        """Return what each adversary gets of a batch.

        Args:
            outputs: Fields of `models.model.Output` for the batch of all processes.
            labels: The labels of the same batch.
        """
        return [
            AdversaryInput(
                outputs["frame_features" if settings.on_frames else "embedding"].float(),
                AdversaryBatch(outputs["frame_counts"], labels.emotion, target),
            )
            for settings, target in zip(self.settings, labels.targets, strict=True)
        ]

    def train_classifiers(self, inputs: Sequence[AdversaryInput], update: Callable[[], None]) -> None:
        """Take the steps that classifiers with an optimizer of their own take before the encoder's step.

        Args:
            inputs: From `inputs`.
            update: Steps the adversaries' optimizer and clears its gradients.
        """
        for adversary, adversary_input in zip(self.methods, inputs, strict=True):
            for _ in range(adversary.separate_steps):
                adversary.classifier_loss(adversary_input.x.detach(), adversary_input.batch).backward()
                self.clip_gradients(adversary)
                update()

    def forward(self, inputs: Sequence[AdversaryInput], progress: float, emotion_gradient_norm: Tensor) -> list[AdversaryResult]:
        """Compute every adversary's loss, and its gradients for its own parameters and for the encoder.

        The gradient for the encoder is computed on a detached copy of the input, so that it can be measured, and with
        `balance_gradients` scaled, before it is added to that of the emotion loss. Classifiers' gradients are clipped apart from
        the model's: together, a strong reversed gradient would slow the classifiers down.

        Args:
            inputs: From `inputs`.
            progress: Share of training that is done, 0 to 1; decides lambda.
            emotion_gradient_norm: Norm of the emotion loss's gradient with respect to the embeddings, for `balance_gradients`.

        Returns:
            One result for each adversary; gradients of the adversaries' own parameters are in `.grad`.
        """
        results = []
        for name, settings, adversary, adversary_input in zip(self.names, self.settings, self.methods, inputs, strict=True):
            x = adversary_input.x.detach().requires_grad_()
            loss = adversary(x, adversary_input.batch, progress)
            loss.backward()
            self.clip_gradients(adversary)
            assert x.grad is not None, "an adversary's loss depends on its input"
            gradient = x.grad
            if settings.balance_gradients:
                ratio = adversary.strength(progress) * emotion_gradient_norm
                gradient = gradient * (ratio / gradient.norm().clamp_min(1e-12))
            correct = count_correct(adversary, x.detach(), adversary_input.batch)
            results.append(
                AdversaryResult(name, loss.detach(), correct, gradient.square().sum(), (gradient * adversary_input.x).sum())
            )
        return results

    def clip_gradients(self, adversary: Adversary) -> None:
        """Limit the gradient norm of one adversary's own parameters to `train.gradient_clip`."""
        parameters = [*adversary.parameters()]
        if self.max_gradient_norm and parameters:
            nn.utils.clip_grad_norm_(parameters, self.max_gradient_norm)


@contextmanager
def errors_name_table(index: int) -> Iterator[None]:
    """Make a RecipeError about an adversary name its table: [adversary] for index 0, else that of the extra adversary."""
    try:
        yield
    except RecipeError as error:
        table = f"extra_adversaries.{index - 1}." if index else "adversary."
        raise RecipeError(str(error).replace("adversary.", table)) from None


def build_adversary(settings: AdversarySection, model: SerModel, target_count: int) -> Adversary:
    """Return an untrained adversary for embeddings or frame-level features of a model."""
    dim = model.encoder.frame_dim if settings.on_frames else model.dim
    return ADVERSARIES[settings.name](dim, target_count, settings, len(model.labels))


@torch.no_grad()
def count_correct(adversary: Adversary, x: Tensor, batch: AdversaryBatch) -> Tensor | int:
    """Count the utterances whose target an adversary's classifier predicts correctly; 0 for one without a classifier."""
    logits = adversary.logits(x, batch)
    return 0 if logits is None else (logits.argmax(dim=1) == batch.target.argmax(dim=1)).sum()
