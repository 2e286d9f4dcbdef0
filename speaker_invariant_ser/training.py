"""The one visible loop: a model is trained on some speakers, selected on others, never shown the rest.

Alone, or as one of several processes that share each batch; on a processor or a GPU; cut short anywhere, it goes on
from its last checkpoint and, on a processor, ends with the same bits as if nothing had happened.
"""

import copy
import csv
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from speaker_invariant_ser import metrics
from speaker_invariant_ser.adversaries import ADVERSARIES
from speaker_invariant_ser.audio import SAMPLE_RATE
from speaker_invariant_ser.batches import Clock, Feed
from speaker_invariant_ser.checkpoints import CHECKPOINT, load_checkpoint, remove_checkpoint, save_checkpoint
from speaker_invariant_ser.clips import Clips, open_clips
from speaker_invariant_ser.config import Recipe
from speaker_invariant_ser.errors import RecipeError, RunError, shorten
from speaker_invariant_ser.features import Batch
from speaker_invariant_ser.files import partial_of, resumable_folder, writing
from speaker_invariant_ser.model import ModelSettings, SerModel, save_model
from speaker_invariant_ser.objective import Objective
from speaker_invariant_ser.runs import METRICS, Fit, Run
from speaker_invariant_ser.splits import Split
from speaker_invariant_ser.store import Store

SAVE_EVERY = 10.0  # seconds between checkpoints: what a kill costs at most

Row = dict[str, float]  # one line of metrics.csv
Progress = Callable[[str, Row], None]  # fold and seed, its latest epoch

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, float, int], lr_scheduler.LRScheduler]] = {
    "one-cycle": lambda optimizer, peak, steps: lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps),
    "cosine": lambda optimizer, peak, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, peak, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}

SUMS = ("clips", "emotion_loss", "adversary_loss", "emotion_right", "adversary_right", "emotion_gradient", "adversary_gradient")
PARTS = ("data", "features", "network", "update", "dev", "checkpoint")  # of an epoch's time
STATEFUL = ("objective", "optimizer", "schedule", "averaged")  # of a checkpoint, by their state_dict
PLAIN = ("epoch", "place", "step", "rate", "sums", "rows", "best", "kept")  # and as they are


class Training:
    """One model in training: all that changes, and the loop that changes it.

    `fabric` is the device, the precision and the processes that share each batch; `work` the folder for checkpoint and metrics.
    """

    def __init__(self, run: Run, store: Store, fit: Fit, fabric: Fabric, work: Path) -> None:
        recipe, column, device = run.recipe, run.recipe.adversary.target, fabric.device
        self.fit, self.fabric, self.work, self.recipe = fit, fabric, work, recipe
        self.precision = precision_of(recipe.train.precision, device.type)
        self.owner = owner_of(run, fit, self.precision)
        torch.manual_seed(fit.seed)
        labels = sorted({utterance.emotion for utterance in store.utterances})
        known = targets_of(store, fit.split, column)
        self.uninformed = math.log(len(known))  # the adversary's loss if it knows nothing
        model = build_model(recipe, labels).to(device, memory_format=torch.channels_last)
        adversary = ADVERSARIES[recipe.adversary.name](recipe.encoder.dim, len(known), recipe.adversary)
        clips, self.dev = self.open_parts(store, labels, model)
        model.normalise.fit(clips.some())
        self.feed = Feed(clips, recipe, len(labels), len(known), fit.seed, device, fabric.global_rank, fabric.world_size)
        self.objective = Objective(model, adversary, recipe.emotion, self.feed.class_shares()).to(device)
        self.steps = recipe.train.epochs * self.feed.steps
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(), lr=recipe.train.learning_rate, weight_decay=recipe.train.weight_decay, fused=True
        )
        self.schedule = SCHEDULES[recipe.train.schedule](self.optimizer, recipe.train.learning_rate, self.steps)
        self.averaged = AveragedModel(model, multi_avg_fn=moving_average(recipe.train.ema), use_buffers=True)
        self.epoch, self.place, self.step = 1, 0, 0  # the next batch: the place-th of the epoch, the step-th of all
        self.sums, self.rate = torch.zeros(len(SUMS), dtype=torch.float64, device=device), 0.0
        self.rows: list[Row] = []
        self.best, self.kept = (-1.0, 0.0), copy.deepcopy(model.state_dict())
        self.clock, self.saved = Clock(), time.monotonic()
        if (work / CHECKPOINT).exists():
            self.restore()
        self.module, self.stepper = fabric.setup(self.objective, self.optimizer)

    def open_parts(self, store: Store, labels: Sequence[str], model: SerModel) -> tuple[Clips, Clips]:
        """Training and dev clips; what the first leave of the memory is for the second."""
        found, free = [], self.recipe.train.resident_gb
        for part in ("train", "dev"):
            indices = self.fit.split.indices(part, store.utterances)
            found.append(open_clips(store, indices, labels, self.recipe.adversary.target, model.logmel, free))
            free -= found[-1].resident_gb
        return tuple(found)

    def go_on(self, progress: Progress | None) -> None:
        """All epochs that are left; then model.safetensors, model.json and metrics.csv are in the folder."""
        while self.epoch <= self.recipe.train.epochs and not gave_up(self.rows, self.recipe.train.patience):
            self.module.train()
            for batch, labels in self.feed.epoch(self.epoch, self.place, self.clock):
                self.take_step(batch, labels)
                self.place, self.step = self.place + 1, self.step + 1
                self.save_if_due()
            self.end_epoch()
            self.epoch, self.place = self.epoch + 1, 0
            self.save_if_due(epoch_ended=True)
            if progress and self.fabric.is_global_zero:
                progress(self.fit.name, self.rows[-1])
        if self.fabric.is_global_zero:
            self.objective.model.load_state_dict(self.kept)
            on = {"device": self.fabric.device.type, "precision": self.precision, "processes": self.fabric.world_size}
            save_model(self.objective.model, self.work, on)

    def take_step(self, batch: Batch, labels: tuple[Tensor, Tensor]) -> None:
        """One batch: forward, backward, update. `labels` are those of all processes' rows."""
        (emotion, _), processes, n = labels, self.fabric.world_size, len(labels[0])
        losses = self.module(self.as_wide(batch.mels), batch.frames, batch.emotion, batch.target, self.progress)
        if processes > 1:  # each has the mean over its rows, and Fabric takes the mean of these: make it that over all rows
            losses["emotion_loss"] *= processes * self.weight_of(batch.emotion) / self.weight_of(emotion)
            losses["adversary_loss"] *= processes * len(batch.target) / n
        self.fabric.backward(losses["emotion_loss"] + losses["adversary_loss"])
        self.clock.lap("network")
        for part in (self.objective.model, self.objective.adversary):
            if most := self.recipe.train.gradient_clip:  # apart, or a strong reversed gradient would slow the speaker head down
                nn.utils.clip_grad_norm_(part.parameters(), most)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.stepper.step()
        self.stepper.zero_grad()
        self.schedule.step()
        self.averaged.update_parameters(self.objective.model)
        found = {"clips": torch.tensor(len(batch.mels), device=self.sums.device)}
        for branch in ("emotion", "adversary"):  # summed over processes, losses and gradients are those of the whole batch
            found[f"{branch}_loss"] = n * losses[f"{branch}_loss"].detach() / processes
            found[f"{branch}_right"] = losses[f"{branch}_right"]
            found[f"{branch}_gradient"] = (losses[f"{branch}_branch"].grad / processes).square().sum()
        self.sums += torch.stack([found[name].double() for name in SUMS])
        self.clock.lap("update")

    @property
    def progress(self) -> float:
        """Of training, 0 to 1: a function of the step alone, so that lambda goes on where it was."""
        return self.step / max(1, self.steps - 1)

    def as_wide(self, mels: Tensor) -> Tensor:
        """Log-mels as wide as the widest of all processes: batch norm counts padding."""
        if self.fabric.world_size == 1:
            return mels
        widest = torch.tensor(mels.shape[2], device=mels.device)
        dist.all_reduce(widest, dist.ReduceOp.MAX)
        return F.pad(mels, (0, int(widest) - mels.shape[2]))

    def weight_of(self, shares: Tensor) -> Tensor:
        """What the clips weigh together in the emotion loss."""
        return (shares @ self.objective.weight).sum()

    def end_epoch(self) -> None:
        """The epoch's line of metrics.csv; its weights are kept if they are the best on the dev speakers so far."""
        sums = dict(zip(SUMS, self.fabric.all_reduce(self.sums, reduce_op="sum").tolist(), strict=True))
        self.sums.zero_()
        scores = score(self.averaged.module, self.dev) if self.fabric.is_global_zero else None
        dev_loss, dev_uar = self.fabric.broadcast(scores)
        self.clock.lap("dev")
        if not math.isfinite(sum(sums.values()) + dev_loss):
            raise RunError(
                f"fold {self.fit.name}: training diverged in epoch {self.epoch} (the loss is not finite); lower "
                f"train.learning_rate ({self.recipe.train.learning_rate}) or adversary.strength "
                f"({self.recipe.adversary.strength})"
            )
        better = (dev_uar, -dev_loss) > tuple(self.best)
        if better:
            self.best, self.kept = (dev_uar, -dev_loss), copy.deepcopy(self.averaged.module.state_dict())
        self.rows.append(self.row(sums, dev_loss, dev_uar, better))
        self.clock.parts.clear()
        if self.fabric.is_global_zero:
            write_rows(self.work / METRICS, self.rows)

    def row(self, sums: dict[str, float], dev_loss: float, dev_uar: float, better: bool) -> Row:
        """A line of metrics.csv; gradients are root mean squares of the norms of the steps, at the embedding."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.rate,
            "lambda": self.objective.adversary.strength((self.step - 1) / max(1, self.steps - 1)),
            "emotion_loss": sums["emotion_loss"] / sums["clips"],
            "emotion_accuracy": sums["emotion_right"] / sums["clips"],
            "emotion_gradient": math.sqrt(sums["emotion_gradient"] / self.feed.steps),
            "adversary_loss": sums["adversary_loss"] / sums["clips"],
            "adversary_loss_uninformed": self.uninformed,
            "adversary_accuracy": sums["adversary_right"] / sums["clips"],
            "adversary_gradient": math.sqrt(sums["adversary_gradient"] / self.feed.steps),
            "dev_loss": dev_loss,
            "dev_uar": dev_uar,
            "best": int(better),
            "seconds": sum(self.clock.parts.values()),
            **{f"seconds_{part}": self.clock.parts[part] for part in PARTS},
        }

    def save_if_due(self, epoch_ended: bool = False) -> None:
        """A checkpoint every ten seconds; of several processes, whose clocks would not agree, after every epoch."""
        alone = self.fabric.world_size == 1
        if time.monotonic() - self.saved > SAVE_EVERY if alone else epoch_ended:
            self.save()

    def save(self) -> None:
        """Everything that the rest of the training depends on, whole or as it was before."""
        if self.fabric.is_global_zero:
            held = {name: getattr(self, name).state_dict() for name in STATEFUL}
            save_checkpoint(self.work / CHECKPOINT, {**held, **{name: getattr(self, name) for name in PLAIN}}, self.owner)
        self.saved = time.monotonic()
        self.clock.lap("checkpoint")

    def restore(self) -> None:
        path = self.work / CHECKPOINT
        state = load_checkpoint(path, self.owner)
        try:
            for name in STATEFUL:
                getattr(self, name).load_state_dict(state[name])
            for name in PLAIN:
                setattr(self, name, state[name])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} is of another version ({reason}); remove it to train this fold from its beginning") from None
        self.sums = self.sums.to(self.fabric.device) if self.fabric.is_global_zero else torch.zeros_like(self.sums)


def train_fit(run: Run, store: Store, fit: Fit, fabric: Fabric, progress: Progress | None = None) -> None:
    """Train one model of a run, from its last checkpoint if it has one; its folder appears when all is done.

    What is kept is the moving average of the weights (Polyak and Juditsky 1992), of the epoch with the best UAR on the dev
    speakers, the lower dev loss where several are equal. Raises RunError if training diverges or a checkpoint cannot be used,
    WriteError.
    """
    folder = resumable_folder(fit.folder) if fabric.is_global_zero else nullcontext(partial_of(fit.folder))
    with folder as work:
        try:
            Training(run, store, fit, fabric, work).go_on(progress)
        except torch.OutOfMemoryError:
            raise RunError(
                f"{fit.folder}: the GPU's memory is full; continue with --resume and fewer --jobs, or train anew with another "
                f"train.batch_size ({run.recipe.train.batch_size}) or train.resident_gb ({run.recipe.train.resident_gb})"
            ) from None
    if fabric.is_global_zero:
        remove_checkpoint(fit.folder)  # not before, or a kill in between would have the fold trained again


def build_model(recipe: Recipe, labels: Sequence[str]) -> SerModel:
    """An untrained model. Raises RecipeError for an unknown encoder or impossible band limits."""
    sections = {"features": recipe.features, "encoder": recipe.encoder, "emotion": recipe.emotion}
    return SerModel(ModelSettings(labels=labels, sample_rate=SAMPLE_RATE, **sections))


def precision_of(chosen: str, device: str) -> str:
    """float32 or bfloat16. "auto" is bfloat16 where the device has units that multiply matrices of it; elsewhere it is emulated,
    and slower than float32.
    """
    if chosen != "auto":
        return chosen
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # which torch has not always had
    return "bfloat16" if capabilities.get("amx_bf16") else "float32"


def owner_of(run: Run, fit: Fit, precision: str) -> str:
    """SHA-256 of all that a training depends on beside its state: recipe, data, fold, seed, precision."""
    facts = [run.recipe.model_dump(mode="json"), run.hashes, asdict(fit.split), fit.seed, precision]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """How the moving average takes a step: by `decay`, less in the first steps, whose weights are not worth keeping."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        now = min(decay, (1 + int(number)) / (10 + int(number)))
        get_ema_multi_avg_fn(now)(averaged, current, number)

    return update


def targets_of(store: Store, split: Split, column: str) -> list[str]:
    """What the adversary tells apart: the values of a column among the fold's training clips, sorted. Raises RecipeError."""
    values = Counter(getattr(store.utterances[index], column) for index in split.indices("train", store.utterances))
    if values[""]:
        raise RecipeError(f"adversary.target = {column}: {values['']} training clips of fold {split.name} have no {column}")
    if len(values) < 2:
        raise RecipeError(f"adversary.target = {column}: fold {split.name} trains on one {column} only ({shorten(values)})")
    return sorted(values)


def gave_up(rows: Sequence[Row], patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; 0 never gives up."""
    since = next((number for number, row in enumerate(reversed(rows)) if row["best"]), 0)
    return 0 < patience <= since


@torch.inference_mode()
def score(model: SerModel, clips: Clips) -> tuple[float, float]:
    """(mean cross-entropy, UAR) of a model on clips, in evaluation mode and float32, as it will be used."""
    model.eval()
    batches = clips.in_order_of_length(8 if next(model.parameters()).device.type == "cpu" else 128)  # what fits a cache
    logits = torch.cat([model.from_mels(mels, frames).logits for mels, frames in clips.source.read(batches)]).cpu()
    truth = clips.emotion[np.concatenate(batches)]
    return F.cross_entropy(logits, torch.from_numpy(truth)).item(), metrics.uar(
        truth, logits.argmax(1).numpy(), len(model.labels)
    )


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """metrics.csv as it is so far, whole."""
    with writing(path) as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        for row in rows:
            table.writerow({name: value if isinstance(value, int) else format(value, ".6g") for name, value in row.items()})
