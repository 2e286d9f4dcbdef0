"""The numbers of one epoch: totals over its training steps, and its row of metrics.csv."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from speaker_invariant_ser.files import writing
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.models.pretrained_encoder import PretrainedEncoder
from speaker_invariant_ser.runs import best_epoch
from speaker_invariant_ser.training.adversary_step import Adversaries, AdversaryResult
from speaker_invariant_ser.training.objective import TaskLosses

Row = dict[str, float]  # one line of metrics.csv
DIVERGED = 10.0  # times the loss of a classifier that knows nothing


class EpochTotals:
    """Sums over the training steps of an epoch.

    They stay on the training device until the epoch ends: reading a value in every step would make a GPU wait.

    Args:
        device: The training device.
        sums: Sums to continue from, by name; those of a checkpoint.
    """

    def __init__(self, device: torch.device, sums: Mapping[str, Tensor] | None = None) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self.sums: dict[str, Tensor] = defaultdict(zero.clone)
        self.sums |= {name: value.to(device) for name, value in (sums or {}).items()}

    def add_task(self, losses: TaskLosses, logits: Tensor, emotion: Tensor, gradient_norm: Tensor) -> None:
        """Add the emotion side of a step.

        Args:
            losses: Losses of the whole batch.
            logits: Emotion logits [B, C].
            emotion: Label shares [B, C]; a row of zeros is an utterance without a label.
            gradient_norm: Norm of the emotion loss's gradient with respect to the embeddings.
        """
        labelled = emotion.sum(dim=1) > 0
        self.sums["clips"] += len(emotion)
        self.sums["labelled"] += labelled.sum()
        self.sums["emotion_correct"] += (labelled & (logits.argmax(dim=1) == emotion.argmax(dim=1))).sum()
        self.sums["emotion_gradient"] += gradient_norm.square()
        for name, loss in losses.by_name().items():
            self.sums[f"{name}_loss"] += len(emotion) * loss.detach()

    def add_adversaries(self, results: Iterable[AdversaryResult], batch_size: int) -> None:
        """Add what each adversary did in a step."""
        for result in results:
            self.sums[f"{result.name}_loss"] += batch_size * result.loss
            self.sums[f"{result.name}_gradient"] += result.squared_gradient
            self.sums[f"{result.name}_correct"] += result.correct

    def require_possible(self, steps: int) -> None:
        """Raise ValueError unless these can be sums over so many steps."""
        values = self.values()
        negative = [name for name, value in values.items() if name.endswith("_gradient") and value < 0]
        if negative or (steps and not values.get("clips", 0) > 0):
            raise ValueError("totals are not those of an epoch")

    def values(self) -> dict[str, float]:
        """Return every sum as a number."""
        return {name: value.item() for name, value in self.sums.items()}


def task_columns(sums: Mapping[str, float], steps: int) -> Row:
    """Return the emotion columns of metrics.csv; the gradient is the root mean square of the steps' norms."""
    return {
        "emotion_loss": sums["emotion_loss"] / sums["clips"],
        "emotion_accuracy": sums["emotion_correct"] / max(1, sums["labelled"]),
        "emotion_gradient": math.sqrt(sums["emotion_gradient"] / steps),
        **({"dimensions_loss": sums["dimensions_loss"] / sums["clips"]} if "dimensions_loss" in sums else {}),
    }


def adversary_columns(sums: Mapping[str, float], adversaries: Adversaries, steps: int, progress: float) -> Row:
    """Return the columns of every adversary in metrics.csv.

    Args:
        sums: Totals of the epoch.
        adversaries: All adversaries of the recipe.
        steps: Training steps in an epoch.
        progress: Share of training that is done, 0 to 1: where lambda is taken.
    """
    row: Row = {}
    for name, adversary, uninformed in adversaries.entries():
        row[f"lambda{name.removeprefix('adversary')}"] = adversary.strength(progress)
        row[f"{name}_loss"] = sums[f"{name}_loss"] / sums["clips"]
        if adversary.has_classifier:
            accuracy = sums[f"{name}_correct"] / sums["clips"]
            row |= {f"{name}_loss_uninformed": uninformed, f"{name}_accuracy": accuracy}
        row[f"{name}_gradient"] = math.sqrt(sums[f"{name}_gradient"] / steps)
    return row


def layer_columns(model: SerModel) -> Row:
    """Return the weights of a pre-trained encoder's layers, which add up to 1; nothing for any other encoder."""
    encoder = model.encoder
    if not isinstance(encoder, PretrainedEncoder):
        return {}
    weights = encoder.layer_weights.detach().softmax(dim=0).tolist()
    return {f"layer_{layer}": weight for layer, weight in zip(encoder.layers, weights, strict=True)}


def write_metrics(path: Path, rows: Sequence[Row]) -> None:
    """Write metrics.csv with the rows of all epochs so far, whole or not at all."""
    with writing(path) as file:
        table = csv.DictWriter(
            file, list(rows[0]), extrasaction="ignore"
        )  # a resumed training keeps the columns of its first epoch
        table.writeheader()
        for row in rows:
            table.writerow({name: value if isinstance(value, int) else format(value, ".6g") for name, value in row.items()})


def why_diverged(rows: Sequence[Row], emotions: int) -> str:
    """Say why the weights of the selected epoch are not worth keeping; empty if they are.

    A classifier that knows nothing has a cross-entropy of log C. A training that works never gets ten times above that, with any
    loss of the recipe; one whose weights exploded is hundreds of times above it, with losses that are finite. Some come back from
    there with dead weights: the same answer for every utterance, and at best the loss of a classifier that knows nothing.

    Args:
        rows: Rows of metrics.csv, of all epochs.
        emotions: Number C of emotions.

    >>> exploded = {"epoch": 1, "best": 1, "emotion_loss": 250.0, "dev_loss": 1.2}
    >>> why_diverged([exploded], 3)
    'emotion loss 250 in the selected epoch 1; a classifier that knows nothing has 1.10'
    >>> why_diverged([exploded, {"epoch": 2, "best": 1, "emotion_loss": 1.2, "dev_loss": 1.1}], 3)
    'emotion loss 250 in epoch 1, and still 1.10 in the selected epoch 2; a classifier that knows nothing has 1.10'
    >>> why_diverged([exploded, {"epoch": 2, "best": 1, "emotion_loss": 0.8, "dev_loss": 1.1}], 3)
    ''
    """
    uninformed, selected = math.log(emotions), best_epoch(rows)
    worst = max(rows, key=largest_loss)
    if largest_loss(worst) <= DIVERGED * uninformed:
        return ""
    if (loss := largest_loss(selected)) > DIVERGED * uninformed:
        text = f"emotion loss {loss:.3g} in the selected epoch {selected['epoch']:.0f}"
    elif (loss := min(losses_of(selected))) >= uninformed:
        text = f"emotion loss {largest_loss(worst):.3g} in epoch {worst['epoch']:.0f}, "
        text += f"and still {loss:.2f} in the selected epoch {selected['epoch']:.0f}"
    else:
        return ""
    return f"{text}; a classifier that knows nothing has {uninformed:.2f}"


def losses_of(row: Row) -> list[float]:
    """Return the emotion losses of an epoch: of the training, and of the dev speakers if there are any."""
    return [row[name] for name in ("emotion_loss", "dev_loss") if name in row]


def largest_loss(row: Row) -> float:
    """Return the larger emotion loss of an epoch."""
    return max(losses_of(row))
