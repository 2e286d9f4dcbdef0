"""The training loop of one model: `Trainer.train` runs the epochs, `Trainer.training_step` is one update.

It runs in one or several processes, on CPU or GPU; interrupted, it resumes (`Trainer.resume`), on a CPU to the same bits.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.conditions.ranges import range_of
from speaker_invariant_ser.data.labels import labels_of
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.distributed import gather_rows
from speaker_invariant_ser.errors import RunError, first_line
from speaker_invariant_ser.features.dataset import LogMelDataset, open_dataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.calibration import fit_temperature
from speaker_invariant_ser.models.model import SerModel, save_model
from speaker_invariant_ser.processes import EpochProgress
from speaker_invariant_ser.runs import METRICS, ModelSpec, Run
from speaker_invariant_ser.training.adversary_step import Adversaries
from speaker_invariant_ser.training.batching import BatchLabels, BatchLoader
from speaker_invariant_ser.training.checkpoints import (
    CHECKPOINT,
    LoopState,
    Stateful,
    fingerprint_of,
    load_checkpoint,
    require_like,
    restore,
    save_checkpoint,
)
from speaker_invariant_ser.training.checks import target_values
from speaker_invariant_ser.training.epoch_metrics import (
    EpochTotals,
    Row,
    adversary_columns,
    layer_columns,
    task_columns,
    why_diverged,
    write_metrics,
)
from speaker_invariant_ser.training.objective import EmotionHeadPass, Objective, build_model, scored_logits
from speaker_invariant_ser.training.online_probe import OnlineProbe
from speaker_invariant_ser.training.optimisation import (
    LEARNING_RATE_SCHEDULES,
    STATISTICS_BATCHES,
    Optimizers,
    choose_precision,
    weight_average,
)
from speaker_invariant_ser.training.post_training import fit_eraser_and_release
from speaker_invariant_ser.training.timing import PhaseTimer

CHECKPOINT_SECONDS = 10.0  # between checkpoints: the most that an interruption costs


class Trainer:
    """Train one model: a fold and a seed of a run.

    Args:
        run: The run with its recipe.
        prepared: The corpus, its labels mapped.
        spec: The fold, the seed, and the model's name.
        fabric: Device, precision, and the processes that share each batch.
        work: Folder for the checkpoint and metrics.csv; a checkpoint in it is resumed from.

    Raises:
        RunError: The checkpoint is damaged or belongs to another training.
    """

    def __init__(self, run: Run, prepared: PreparedCorpus, spec: ModelSpec, fabric: Fabric, work: Path) -> None:
        recipe, device = run.recipe, fabric.device
        self.run, self.recipe, self.spec, self.fabric, self.work, self.prepared = run, recipe, spec, fabric, work, prepared
        self.precision = choose_precision(recipe.train.precision, device.type)
        self.fingerprint = fingerprint_of(run, spec, self.precision)
        torch.manual_seed(spec.seed)

        labels = labels_of(prepared.utterances, recipe.split)
        target_counts = [
            len(target_values(prepared, spec.split, adversary.target, recipe.augment.virtual_speakers))
            for adversary in recipe.adversaries
        ]
        self.model = build_model(recipe, labels)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.adversaries = Adversaries(recipe, self.model, target_counts).to(device)
        self.train_data, self.dev_data = self.open_data(prepared, labels)
        self.probe = OnlineProbe.open(prepared, spec.split, self.model, self.train_data) if recipe.train.probe_every else None
        if not recipe.encoder.on_waveform:
            self.model.normalise.fit(self.train_data.sample())
        self.batches = BatchLoader(
            self.train_data, recipe, len(labels), target_counts, spec.seed, device, fabric.global_rank, fabric.world_size
        )
        shares, first_adversary = self.batches.class_shares(), self.adversaries.methods[0]
        need_frames = self.adversaries.need_frames
        self.objective = Objective(self.model, recipe.emotion, shares, recipe.perturb, first_adversary, need_frames).to(device)

        self.total_steps = recipe.train.epochs * self.batches.steps
        parameters = [*self.objective.parameters(), *self.adversaries.shared_parameters()]
        self.optimizers = Optimizers(parameters, self.adversaries.separate_groups(), recipe.train, self.model.fine_tuned())
        schedule = LEARNING_RATE_SCHEDULES[recipe.train.schedule]
        self.learning_rate_schedule = schedule(self.optimizers.model, self.total_steps)
        self.average = weight_average(self.model, recipe.train)

        self.state = LoopState(best_weights=copy.deepcopy(self.model.state_dict()))
        self.totals = EpochTotals(device)
        self.timer, self.last_checkpoint = PhaseTimer(), time.monotonic()
        if (work / CHECKPOINT).exists():
            self.resume()
        # From here on, `module` is the objective with Fabric's precision and gradient averaging around it.
        self.module, self.optimizers.model = fabric.setup(self.objective, self.optimizers.model)

    def open_data(self, prepared: PreparedCorpus, labels: Sequence[str]) -> tuple[LogMelDataset, LogMelDataset | None]:
        """Open the training and, if any, the dev utterances; both together keep `train.cache_gb` of log-mels in memory."""
        split, columns = self.spec.split, [adversary.target for adversary in self.recipe.adversaries]
        train, unlabelled, dev = (split.indices(part, prepared.utterances) for part in ("train", "unlabelled", "dev"))
        transductive, memory_gb = self.recipe.features.transductive, self.recipe.train.cache_gb
        logmel = self.model.logmel
        settings = (logmel, memory_gb, unlabelled, transductive, self.recipe.augment.telephone > 0)
        soft, targets = self.recipe.emotion.labels == "soft", self.recipe.emotion.targets
        train_data = open_dataset(prepared, train, labels, columns, *settings, soft=soft, dimensions=targets)
        if not dev:
            return train_data, None
        memory_gb -= train_data.cached_gb
        return train_data, open_dataset(prepared, dev, labels, columns, logmel, memory_gb, (), transductive)

    # The loop

    def train(self, progress: EpochProgress | None = None) -> None:
        """Train all epochs that are left, and write model.safetensors, model.json and metrics.csv.

        Args:
            progress: Called after each epoch, in the first process.

        Raises:
            RunError: Training diverged; no model is written then.
        """
        while self.state.epoch <= self.last_epoch and not stops_early(self.state.rows, self.recipe.train.patience):
            self.train_epoch()
            self.end_epoch()
            self.state.epoch, self.state.batch = self.state.epoch + 1, 0
            self.save_checkpoint_if_due(epoch_ended=True)
            if progress and self.fabric.is_global_zero:
                progress(self.spec.name, self.state.rows[-1])
        if reason := why_diverged(self.state.rows, len(self.model.labels)):
            raise RunError(f"fold {self.spec.name}: training diverged ({reason}); {self.remedy}")
        if self.fabric.is_global_zero:
            self.save_best()

    @property
    def remedy(self) -> str:
        """What to change where training diverges."""
        recipe = self.recipe
        return f"lower train.learning_rate ({recipe.train.learning_rate}) or adversary.strength ({recipe.adversary.strength})"

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends, unless `train.patience` ends it before."""
        return self.recipe.train.epochs

    def train_epoch(self) -> None:
        """Take the training steps of an epoch that are left."""
        self.module.train()
        for mels, frames, labels in self.batches.epoch(self.state.epoch, self.state.batch, self.timer):
            self.training_step(mels, frames, labels)
            self.state.batch, self.state.step = self.state.batch + 1, self.state.step + 1
            self.save_checkpoint_if_due()

    def training_step(self, mels: Tensor, frames: Tensor, labels: BatchLabels) -> None:
        """Update the model and the adversaries once.

        Every process computes the losses of the whole batch, since an adversary compares all of its utterances. Only gradients of
        the model itself are averaged over processes, by Fabric.

        Args:
            mels: Log-mels [B', M, T] of this process's rows of the batch.
            frames: Frames of each [B'].
            labels: Labels of all B rows.
        """
        outputs, emotion_head = self.forward(mels, frames, labels)
        losses = self.objective.losses(outputs, labels.emotion, labels.dimensions)
        emotion_gradient = self.emotion_gradient_norm(scored_logits(outputs), labels.emotion, emotion_head)
        self.timer.end_phase("network")

        self.optimizers.reset_state(self.adversaries.reset_due(self.state.step, self.spec.seed))
        inputs = self.adversaries.inputs(outputs, labels)
        self.adversaries.train_classifiers(inputs, self.optimizers.step_adversaries)
        results = self.adversaries(inputs, self.share_done, emotion_gradient)

        # Each adversary has reversed its gradient (gradient reversal) or computed another one that makes the speaker harder
        # to predict, and has scaled it by lambda; `encoder_loss` carries that gradient to the encoder.
        adversarial_loss = sum(result.encoder_loss for result in results)
        loss = losses.emotion + self.recipe.bottleneck.rate_weight * losses.rate + adversarial_loss
        loss = loss + self.objective.further(losses)
        self.timer.end_phase("adversary")

        self.fabric.backward(loss)
        self.timer.end_phase("network")

        if self.recipe.train.gradient_clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.train.gradient_clip)
        self.state.learning_rate = self.optimizers.model.param_groups[0]["lr"]
        self.optimizers.step()
        self.learning_rate_schedule.step()
        self.model.release.after_step(outputs["bottleneck"].detach(), self.share_done)
        self.average.after_step(self.model)
        self.totals.add_task(losses, outputs["logits"], labels.emotion, emotion_gradient)
        self.totals.add_adversaries(results, len(labels.emotion))
        self.timer.end_phase("update")

    def forward(self, mels: Tensor, frames: Tensor, labels: BatchLabels) -> tuple[dict[str, Tensor], EmotionHeadPass]:
        """Run the model on this process's rows, and return the outputs of the batch of all processes by name."""
        rows = labels.rows(self.batches.rows)
        outputs, emotion_head = self.module(self.pad_to_widest(mels), frames, rows.emotion, rows.targets[0])
        return {name: gather_rows(output, len(labels.emotion)) for name, output in outputs.items()}, emotion_head

    def pad_to_widest(self, mels: Tensor) -> Tensor:
        """Pad log-mels to the widest of all processes, because batch-norm statistics include the padding."""
        if self.fabric.world_size == 1:
            return mels
        widest = torch.tensor(mels.shape[2], device=mels.device)
        dist.all_reduce(widest, dist.ReduceOp.MAX)
        return F.pad(mels, (0, int(widest) - mels.shape[2]))

    def emotion_gradient_norm(self, logits: Tensor, emotion: Tensor, emotion_head: EmotionHeadPass) -> Tensor:
        """Return the norm of the emotion loss's gradient at the emotion head's input [B, D], over the whole batch.

        By the chain rule through the head alone, so that the encoder is not traversed twice.
        """
        leaf = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.objective.emotion_loss(leaf, emotion), leaf)
        squared = emotion_head.input_gradient(gradient[self.batches.rows]).float().square().sum()
        total = self.fabric.all_reduce(squared, reduce_op="sum")
        assert isinstance(total, Tensor), "as it was given"
        return total.sqrt()

    @property
    def share_done(self) -> float:
        """Share of training that is done, 0 to 1: a function of the step alone, so that lambda resumes where it was."""
        return self.state.step / max(1, self.total_steps - 1)

    # Epoch selection

    def end_epoch(self) -> None:
        """Score the dev speakers, keep the weights if they are the best so far, and write the epoch's row of metrics.csv."""
        sums, self.totals = self.totals.values(), EpochTotals(self.fabric.device)
        self.average.after_epoch(self.model, self.epoch_inputs())
        scores = self.score_dev()
        self.timer.end_phase("dev")
        if not math.isfinite(sum(sums.values()) + sum(scores.values())):
            raise RunError(
                f"fold {self.spec.name}: training diverged in epoch {self.state.epoch} (the loss is not finite); {self.remedy}"
            )
        best = self.select(scores)
        attacker = self.attacker_columns()
        row = self.row(sums) | scores | {"best": int(best)}
        self.state.rows.append(row | self.timer.columns() | attacker)
        self.timer.reset()
        if self.fabric.is_global_zero:
            write_metrics(self.work / METRICS, self.state.rows)

    def epoch_inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-mels and frames of this process's rows of the batches of the epoch, or of its first ones."""
        for mels, frames, _ in islice(self.batches.epoch(self.state.epoch, 0, self.timer), STATISTICS_BATCHES):
            yield self.pad_to_widest(mels), frames

    def score_dev(self) -> Row:
        """Return loss and UAR of the averaged weights on the dev speakers, computed in the first process."""
        assert self.dev_data is not None, "a training without dev speakers has other scores (see `refit`)"
        loss, uar = score(self.average.averaged, self.dev_data) if self.fabric.is_global_zero else (0.0, 0.0)
        return self.fabric.broadcast({"dev_loss": loss, "dev_uar": uar})

    def select(self, scores: Row) -> bool:
        """Keep the averaged weights if their dev UAR is the best so far, or as good with a lower loss."""
        dev_loss, dev_uar = scores["dev_loss"], scores["dev_uar"]
        best = (dev_uar, -dev_loss) > (self.state.best_dev_uar, -self.state.best_dev_loss)
        if best:
            self.state.best_dev_uar, self.state.best_dev_loss = dev_uar, dev_loss
            self.state.best_weights = copy.deepcopy(self.average.averaged.state_dict())
        return best

    def save_best(self) -> None:
        """Fit the recipe's eraser and release to the selected weights, then the temperature, and write the model."""
        self.model.load_state_dict(self.state.best_weights)
        fit_eraser_and_release(self.model, self.train_data, self.recipe, self.spec.seed)
        self.model.settings = self.model.settings.model_copy(update={"temperature": self.temperature()})
        trained_on: dict[str, str | int] = {
            "device": self.fabric.device.type,
            "precision": self.precision,
            "processes": self.fabric.world_size,
        }
        if self.recipe.features.front == "log-mel":  # an image has no recording conditions
            indices = [i for part in ("train", "unlabelled") for i in self.spec.split.indices(part, self.prepared.utterances)]
            trained_range = range_of([self.prepared.utterances[index] for index in indices], self.prepared.audio)
            self.model.settings = self.model.settings.model_copy(update={"trained_range": trained_range})
        save_model(self.model, self.work, trained_on, self.run.facts(self.spec))

    def temperature(self) -> float | None:
        """Fit the temperature of the confidence on the dev speakers; None without any."""
        if self.dev_data is None:
            return None
        probability = apply_to_dataset(self.model, self.dev_data).probability
        return fit_temperature(self.dev_data.emotion, probability)

    def row(self, sums: dict[str, float]) -> Row:
        """Return the epoch's row of metrics.csv, without dev scores and seconds."""
        steps, state = self.batches.steps, self.state
        row: Row = {"epoch": state.epoch, "step": state.step, "learning_rate": state.learning_rate}
        row |= task_columns(sums, steps) | layer_columns(self.average.averaged)
        row |= adversary_columns(sums, self.adversaries, steps, progress=(state.step - 1) / max(1, self.total_steps - 1))
        if self.recipe.bottleneck.name != "none":
            row["rate_bits"] = sums["rate_loss"] / sums["clips"] / math.log(2)
        row |= self.model.release.columns()
        if self.objective.perturbation:
            row["moved_loss"] = sums["perturbed_loss"] / sums["clips"]  # the stable name of the column
        return row

    def attacker_columns(self) -> Row:
        """Return the accuracy of the latest online probe, trained every `train.probe_every` epochs and in the first."""
        if not self.probe:
            return {}
        due = self.state.epoch % self.recipe.train.probe_every == 0 or not self.state.rows
        if self.fabric.is_global_zero and due:
            self.state.attacker_accuracy = self.probe.accuracy(self.average.averaged)
            self.timer.end_phase("dev")
        return {"attacker_accuracy": self.state.attacker_accuracy}

    # Checkpoints

    def save_checkpoint_if_due(self, epoch_ended: bool = False) -> None:
        """Save a checkpoint every CHECKPOINT_SECONDS; with several processes, whose clocks differ, after every epoch."""
        elapsed = time.monotonic() - self.last_checkpoint
        due = epoch_ended if self.fabric.world_size > 1 else elapsed > CHECKPOINT_SECONDS
        if due:
            self.save_checkpoint()

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts with a state_dict that a checkpoint holds."""
        return {
            "objective": self.objective,
            "adversaries": self.adversaries,
            "optimizers": self.optimizers,
            "learning_rate_schedule": self.learning_rate_schedule,
            "moving_average": self.average,
        }

    def save_checkpoint(self) -> None:
        """Write everything that the rest of the training depends on, atomically."""
        if self.fabric.is_global_zero:
            state = {name: part.state_dict() for name, part in self.stateful_parts().items()}
            state |= {"loop": vars(self.state), "totals": dict(self.totals.sums)}
            save_checkpoint(self.work / CHECKPOINT, state, self.fingerprint)
        self.last_checkpoint = time.monotonic()
        self.timer.end_phase("checkpoint")

    def resume(self) -> None:
        """Continue from the checkpoint in the work folder."""
        path = self.work / CHECKPOINT
        state = load_checkpoint(path, self.fingerprint)
        try:
            for name, part in self.stateful_parts().items():
                restore(part, state, name)
            require_like(state["loop"], {**vars(self.state), "rows": []}, "loop")
            self.state = LoopState(**state["loop"])
            self.state.require_possible(self.batches.steps)
            self.totals = EpochTotals(self.fabric.device, state["totals"])
            self.totals.require_possible(self.state.batch)
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{path} is damaged or of another version ({first_line(error)})"
            raise RunError(f"{reason}; remove it to train this fold from its beginning") from None


def stops_early(rows: Sequence[Row], patience: int) -> bool:
    """Return whether `patience` epochs have passed since the best one; a patience of 0 never stops."""
    epochs_since_best = next((number for number, row in enumerate(reversed(rows)) if row["best"]), 0)
    return 0 < patience <= epochs_since_best


def score(model: SerModel, dataset: LogMelDataset) -> tuple[float, float]:
    """Return (mean cross-entropy, UAR) of a model on a dataset, in evaluation mode and float32, as it will be used."""
    order = np.argsort(dataset.frames, kind="stable")  # the mean is rounded, so its order matters to the last bit
    return score_logits(apply_to_dataset(model, dataset).logits[order], dataset.emotion[order])


def score_logits(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy, UAR) of logits [N, C] and true emotions [N]."""
    uar = metrics.uar(truth, logits.argmax(axis=1), logits.shape[1])
    return F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth)).item(), uar
