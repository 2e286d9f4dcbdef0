"""The adversaries of a training, together: each takes its own steps, and says what it wants of the encoder."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from speaker_invariant_ser.adversaries.base import Adversary
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import Batch
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import AdversarySection
from speaker_invariant_ser.training.batching import Labels, seed_of

SUMS = ("loss", "right", "gradient")  # of an epoch, for each of them


class Opponents(nn.Module):
    """Every adversary of a recipe, untrained; `targets` says how many values each tells apart.

    `own` is the optimizer of those that have one, None if none has. Adam with a short memory of gradients, since what they read
    changes under them: Radford et al., ICLR 2016. Raises RecipeError for an adversary that cannot be.
    """

    def __init__(self, recipe: Recipe, model: SerModel, targets: Sequence[int]) -> None:
        super().__init__()
        self.settings = recipe.adversaries
        self.names = ["adversary", *(f"adversary_{number}" for number in range(2, len(self.settings) + 1))]
        self.uninformed = [math.log(number) for number in targets]  # the loss of a reader that knows nothing
        self.most = recipe.train.gradient_clip
        self.each = nn.ModuleList()
        for number, (one, values) in enumerate(zip(self.settings, targets, strict=True)):
            with told_of(number):
                self.each.append(build(one, model, values))
        self.own: Optimizer | None = None

    @property
    def mapped(self) -> bool:
        """Whether one of them reads the map before pooling."""
        return any(one.on_frames for one in self.settings)

    def optimized(self) -> list[nn.Parameter]:
        """Make `own`; the parameters that are left for the model's optimizer."""
        groups, shared = [], []
        for settings, adversary in zip(self.settings, self.each, strict=True):
            if settings.own_learning_rate:
                groups.append({"params": [*adversary.parameters()], "lr": settings.own_learning_rate})
            else:
                shared += adversary.parameters()
        self.own = torch.optim.Adam(groups, betas=(0.5, 0.999)) if groups else None
        return shared

    def no_sums(self, device: torch.device) -> dict[str, Tensor]:
        """What is summed over an epoch, at its beginning."""
        names = [f"{name}_{what}" for name in self.names for what in SUMS]
        return {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}

    def forget(self, step: int, seed: int, shared: Optimizer) -> None:
        """Where a reader begins anew, so does what its optimizer remembers."""
        for number, adversary in enumerate(self.each):
            for parameter in adversary.reset_due(step, seed_of(seed, number) >> 1):
                for optimizer in (shared, *([self.own] if self.own else ())):
                    optimizer.state.pop(parameter, None)

    def pulls(
        self, seen: Mapping[str, Tensor], labels: Labels, progress: float, length: Tensor, sums: dict[str, Tensor]
    ) -> Iterator[Tensor]:
        """Train each on a batch; terms whose gradients by the encoder are what they want of it.

        `seen` are fields of `model.Output` of the whole batch, `length` how hard the emotion loss pulls at the embedding. An
        adversary's gradient is computed apart, on a copy that the encoder knows nothing of, so that it can be measured, and
        with `balance` be made so long, before it goes on.
        """
        read = [seen["frame_features" if one.on_frames else "embedding"].float() for one in self.settings]
        batches = [Batch(seen.get("frame_counts"), labels.emotion, target) for target in labels.targets]
        for adversary, x, batch in zip(self.each, read, batches, strict=True):  # all before any gradient waits for `own`
            self.learn(adversary, x.detach(), batch)
        for name, settings, adversary, x, batch in zip(self.names, self.settings, self.each, read, batches, strict=True):
            leaf = x.detach().requires_grad_()
            loss = adversary(leaf, batch, progress)
            loss.backward()
            self.clip(adversary)  # apart from the model, or a strong reversed gradient would slow the readers down
            pull = leaf.grad
            if settings.balance_gradients:
                pull = pull * (adversary.strength(progress) * length / pull.norm().clamp_min(1e-12))
            sums[f"{name}_loss"] += len(x) * loss.detach()
            sums[f"{name}_gradient"] += pull.square().sum()
            sums[f"{name}_right"] += named_rightly(adversary, x.detach(), batch)
            yield (pull * x).sum()

    def learn(self, adversary: Adversary, x: Tensor, batch: Batch) -> None:
        """The steps that an adversary takes before the encoder's."""
        for _ in range(adversary.separate_steps):
            adversary.classifier_loss(x, batch).backward()
            self.clip(adversary)
            self.own.step()
            self.own.zero_grad()

    def clip(self, adversary: nn.Module) -> None:
        parameters = [*adversary.parameters()]
        if self.most and parameters:
            nn.utils.clip_grad_norm_(parameters, self.most)

    def row(self, sums: Mapping[str, float], clips: float, steps: int, progress: float) -> dict[str, float]:
        """Their columns in metrics.csv, of an epoch's sums."""
        row = {}
        for name, adversary, uninformed in zip(self.names, self.each, self.uninformed, strict=True):
            row[f"lambda{name.removeprefix('adversary')}"] = adversary.strength(progress)
            row[f"{name}_loss"] = sums[f"{name}_loss"] / clips
            if adversary.has_classifier:
                row |= {f"{name}_loss_uninformed": uninformed, f"{name}_accuracy": sums[f"{name}_right"] / clips}
            row[f"{name}_gradient"] = math.sqrt(sums[f"{name}_gradient"] / steps)
        return row


@contextmanager
def told_of(number: int) -> Iterator[None]:
    """Inside, what is wrong with an adversary is said of the table that it stands in; `number` is 0 for [adversary]."""
    try:
        yield
    except RecipeError as error:
        table = f"extra_adversaries.{number - 1}." if number else "adversary."
        raise RecipeError(str(error).replace("adversary.", table)) from None


def build(settings: AdversarySection, model: SerModel, targets: int) -> Adversary:
    dim = model.encoder.frame_dim if settings.on_frames else model.dim
    return ADVERSARIES[settings.name](dim, targets, settings, len(model.labels))


@torch.no_grad()
def named_rightly(adversary: Adversary, x: Tensor, batch: Batch) -> Tensor | int:
    """Clips whose target an adversary's reader names rightly; 0 for one that has no reader."""
    logits = adversary.logits(x, batch)
    return 0 if logits is None else (logits.argmax(dim=1) == batch.target.argmax(dim=1)).sum()
