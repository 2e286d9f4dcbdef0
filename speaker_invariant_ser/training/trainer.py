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
from torch.optim.swa_utils import AveragedModel

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.labels import labels_of
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.distributed import gathered
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.features.dataset import LogMelDataset, open_dataset
from speaker_invariant_ser.files import partial_of, resumable_folder, writing
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.model import SerModel, save_model
from speaker_invariant_ser.runs import METRICS, Fit, Run
from speaker_invariant_ser.training.adversarial_examples import divergence
from speaker_invariant_ser.training.adversary_step import Opponents
from speaker_invariant_ser.training.batching import Clock, Feed, Labels
from speaker_invariant_ser.training.checkpoints import CHECKPOINT, load_checkpoint, remove_checkpoint, save_checkpoint
from speaker_invariant_ser.training.objective import Objective
from speaker_invariant_ser.training.online_probe import fresh_accuracy
from speaker_invariant_ser.training.optimisation import SCHEDULES, build_model, moving_average, precision_of, targets_of
from speaker_invariant_ser.training.post_training import finish

SAVE_EVERY = 10.0  # seconds between checkpoints: what a kill costs at most

Row = dict[str, float]  # one line of metrics.csv
Progress = Callable[[str, Row], None]  # fold and seed, its latest epoch

SUMS = ("clips", "labelled", "emotion_loss", "emotion_right", "emotion_gradient", "rate", "moved_loss")
PARTS = ("data", "features", "network", "adversary", "update", "dev", "checkpoint")  # of an epoch's time
STATEFUL = ("objective", "opponents", "optimizer", "own", "schedule", "averaged")  # of a checkpoint, by their state_dict
PLAIN = ("epoch", "place", "step", "rate", "sums", "rows", "best", "kept", "attacked")  # and as they are


class Training:
    """One model in training: all that changes, and the loop that changes it.

    `fabric` is the device, the precision and the processes that share each batch; `work` the folder for checkpoint and metrics.
    """

    def __init__(self, run: Run, prepared: PreparedCorpus, fit: Fit, fabric: Fabric, work: Path) -> None:
        recipe, device = run.recipe, fabric.device
        self.fit, self.fabric, self.work, self.recipe = fit, fabric, work, recipe
        self.precision = precision_of(recipe.train.precision, device.type)
        self.owner = owner_of(run, fit, self.precision)
        torch.manual_seed(fit.seed)
        labels = labels_of(prepared.utterances, recipe.split)
        known = [len(targets_of(prepared, fit.split, one.target, recipe.augment.virtual_speakers)) for one in recipe.adversaries]
        model = build_model(recipe, labels).to(device, memory_format=torch.channels_last)
        self.opponents = Opponents(recipe, model, known).to(device)
        clips, self.dev = self.open_parts(prepared, labels, model)
        self.probed = self.open_probed(prepared, labels, model, clips) if recipe.train.probe_every else ()
        model.normalise.fit(clips.sample())
        self.feed = Feed(clips, recipe, len(labels), known, fit.seed, device, fabric.global_rank, fabric.world_size)
        reader, mapped = self.opponents.each[0], self.opponents.mapped
        self.objective = Objective(model, recipe.emotion, self.feed.class_shares(), recipe.perturb, reader, mapped).to(device)
        self.steps = recipe.train.epochs * self.feed.steps
        trained = [*self.objective.parameters(), *self.opponents.optimized()]
        rates = {"lr": recipe.train.learning_rate, "weight_decay": recipe.train.weight_decay}
        self.optimizer, self.own = torch.optim.AdamW(trained, **rates, fused=True), self.opponents.own
        self.schedule = SCHEDULES[recipe.train.schedule](self.optimizer, recipe.train.learning_rate, self.steps)
        self.averaged = AveragedModel(model, multi_avg_fn=moving_average(recipe.train.ema), use_buffers=True)
        self.epoch, self.place, self.step = 1, 0, 0  # the next batch: the place-th of the epoch, the step-th of all
        self.sums, self.rate = self.no_sums(), 0.0
        self.rows: list[Row] = []
        self.attacked = 0.0  # share of speakers that the latest fresh attacker named rightly
        self.best, self.kept = (-1.0, 0.0), copy.deepcopy(model.state_dict())
        self.clock, self.saved = Clock(), time.monotonic()
        if (work / CHECKPOINT).exists():
            self.restore()
        self.module, self.stepper = fabric.setup(self.objective, self.optimizer)

    def no_sums(self) -> dict[str, Tensor]:
        """What is summed over an epoch, at its beginning."""
        zero = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        return {**{name: zero.clone() for name in SUMS}, **self.opponents.no_sums(self.fabric.device)}

    def open_parts(self, prepared: PreparedCorpus, labels: Sequence[str], model: SerModel) -> tuple[LogMelDataset, LogMelDataset]:
        """Training and dev clips; what the first leave of the memory is for the second."""
        found, free = [], self.recipe.train.resident_gb
        for part in ("train", "dev"):
            indices = self.fit.split.indices(part, prepared.utterances)
            unlabelled = self.fit.split.indices("unlabelled", prepared.utterances) if part == "train" else ()
            columns = [one.target for one in self.recipe.adversaries]
            transductive = self.recipe.features.transductive
            found.append(open_dataset(prepared, indices, labels, columns, model.logmel, free, unlabelled, transductive))
            free -= found[-1].cached_gb
        return tuple(found)

    def open_probed(self, prepared: PreparedCorpus, labels: Sequence[str], model: SerModel, clips: LogMelDataset) -> tuple:
        """What a fresh attacker learns from and is scored on: training clips and those kept aside, each with its speakers."""
        train, unlabelled, held = (self.fit.split.indices(p, prepared.utterances) for p in ("train", "unlabelled", "held_out"))
        speakers = [[prepared.utterances[index].speaker for index in indices] for indices in ([*train, *unlabelled], held)]
        aside = open_dataset(
            prepared, held, labels, (), model.logmel, 0.0, subtract_speaker_means=self.recipe.features.transductive
        )
        return clips, speakers[0], aside, speakers[1]

    def go_on(self, progress: Progress | None) -> None:
        """All epochs that are left; then model.safetensors, model.json and metrics.csv are in the folder."""
        while self.epoch <= self.recipe.train.epochs and not gave_up(self.rows, self.recipe.train.patience):
            self.module.train()
            for mels, frames, labels in self.feed.epoch(self.epoch, self.place, self.clock):
                self.take_step(mels, frames, labels)
                self.place, self.step = self.place + 1, self.step + 1
                self.save_if_due()
            self.end_epoch()
            self.epoch, self.place = self.epoch + 1, 0
            self.save_if_due(epoch_ended=True)
            if progress and self.fabric.is_global_zero:
                progress(self.fit.name, self.rows[-1])
        if self.fabric.is_global_zero:
            self.objective.model.load_state_dict(self.kept)
            finish(self.objective.model, self.feed.clips, self.recipe, self.fit.seed)
            on = {"device": self.fabric.device.type, "precision": self.precision, "processes": self.fabric.world_size}
            save_model(self.objective.model, self.work, on)

    def take_step(self, mels: Tensor, frames: Tensor, labels: Labels) -> None:
        """One batch: forward, what the adversaries want, backward, update. `labels` are those of all processes' rows.

        Losses are those of the whole batch, in every process the same: an adversary sees all of it, and no process has to know of
        the others' gradients but for the model's own, which Fabric averages.
        """
        own, n = labels.rows(self.feed.rows), len(labels.emotion)
        found = self.module(self.as_wide(mels), frames, own.emotion, own.targets[0])
        seen = {name: gathered(one, n) for name, one in found.items()}
        losses = {"emotion_loss": self.objective.emotion_loss(seen["logits"], labels.emotion), "rate": seen["rate"].mean()}
        if "moved" in seen:
            losses["moved_loss"] = self.moved_loss(seen, labels.emotion)
        total = losses["emotion_loss"] + self.recipe.bottleneck.rate_weight * losses["rate"]
        if self.recipe.perturb.name != "none":
            total = total + self.recipe.perturb.weight * losses["moved_loss"]
        length = self.emotion_pull(seen["logits"], labels.emotion)
        self.count(n, losses, seen["logits"], labels.emotion, length)
        self.clock.lap("network")
        self.opponents.forget(self.step, self.fit.seed, self.optimizer)
        total = total + sum(self.opponents.pulls(seen, labels, self.progress, length, self.sums))
        self.clock.lap("adversary")
        self.fabric.backward(total)
        self.clock.lap("network")
        if self.recipe.train.gradient_clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.train.gradient_clip)
        self.rate = self.optimizer.param_groups[0]["lr"]
        for optimizer in (self.stepper, *([self.own] if self.own else ())):
            optimizer.step()
            optimizer.zero_grad()
        self.schedule.step()
        self.averaged.update_parameters(self.objective.model)
        self.clock.lap("update")

    def moved_loss(self, seen: dict[str, Tensor], emotion: Tensor) -> Tensor:
        """The loss at the moved clips: against their labels, or against what the model says of them where they were."""
        if self.objective.perturbation.against == "labels":
            return self.objective.emotion_loss(seen["moved"], emotion)
        return divergence(seen["logits"], seen["moved"])

    def count(self, n: int, losses: dict[str, Tensor], logits: Tensor, emotion: Tensor, length: Tensor) -> None:
        """Add a step's emotion side to the epoch's sums."""
        known = emotion.sum(dim=1) > 0
        self.sums["clips"] += n
        self.sums["labelled"] += known.sum()
        self.sums["emotion_right"] += (known & (logits.argmax(dim=1) == emotion.argmax(dim=1))).sum()
        self.sums["emotion_gradient"] += length.square()
        for name, loss in losses.items():
            self.sums[name] += n * loss.detach()

    def emotion_pull(self, logits: Tensor, emotion: Tensor) -> Tensor:
        """How hard the emotion loss pulls at the embedding: the norm of its gradient there, over the whole batch."""
        leaf = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.objective.emotion_loss(leaf, emotion), leaf)
        squared = self.objective.slope(gradient[self.feed.rows]).float().square().sum()
        return self.fabric.all_reduce(squared, reduce_op="sum").sqrt()

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

    def end_epoch(self) -> None:
        """The epoch's line of metrics.csv; its weights are kept if they are the best on the dev speakers so far."""
        sums, self.sums = {name: one.item() for name, one in self.sums.items()}, self.no_sums()
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
        probed = self.probe()  # before the row reads the clock
        self.rows.append(self.row(sums, dev_loss, dev_uar, better) | probed)
        self.clock.parts.clear()
        if self.fabric.is_global_zero:
            write_rows(self.work / METRICS, self.rows)

    def row(self, sums: dict[str, float], dev_loss: float, dev_uar: float, better: bool) -> Row:
        """A line of metrics.csv; gradients are root mean squares of the steps' norms, at what is read."""
        clips, progress = sums["clips"], (self.step - 1) / max(1, self.steps - 1)
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.rate,
            "emotion_loss": sums["emotion_loss"] / clips,
            "emotion_accuracy": sums["emotion_right"] / max(1, sums["labelled"]),
            "emotion_gradient": math.sqrt(sums["emotion_gradient"] / self.feed.steps),
        }
        row |= self.opponents.row(sums, clips, self.feed.steps, progress)
        if self.recipe.bottleneck.name != "none":
            row["rate_bits"] = sums["rate"] / clips / math.log(2)
        if self.objective.perturbation:
            row["moved_loss"] = sums["moved_loss"] / clips
        return {
            **row,
            "dev_loss": dev_loss,
            "dev_uar": dev_uar,
            "best": int(better),
            "seconds": sum(self.clock.parts.values()),
            **{f"seconds_{part}": self.clock.parts[part] for part in PARTS},
        }

    def probe(self) -> Row:
        """A fresh attacker's accuracy now, or the last one's."""
        if not (every := self.recipe.train.probe_every):
            return {}
        if self.fabric.is_global_zero and (self.epoch % every == 0 or not self.rows):
            self.attacked = fresh_accuracy(self.averaged.module, *self.probed)
            self.clock.lap("dev")
        return {"attacker_accuracy": self.attacked}

    def save_if_due(self, epoch_ended: bool = False) -> None:
        """A checkpoint every ten seconds; of several processes, whose clocks would not agree, after every epoch."""
        alone = self.fabric.world_size == 1
        if time.monotonic() - self.saved > SAVE_EVERY if alone else epoch_ended:
            self.save()

    def save(self) -> None:
        """Everything that the rest of the training depends on, whole or as it was before."""
        if self.fabric.is_global_zero:
            held = {name: getattr(self, name).state_dict() for name in STATEFUL if getattr(self, name) is not None}
            save_checkpoint(self.work / CHECKPOINT, {**held, **{name: getattr(self, name) for name in PLAIN}}, self.owner)
        self.saved = time.monotonic()
        self.clock.lap("checkpoint")

    def restore(self) -> None:
        path = self.work / CHECKPOINT
        state = load_checkpoint(path, self.owner)
        try:
            for name in STATEFUL:
                if getattr(self, name) is not None:
                    getattr(self, name).load_state_dict(state[name])
            for name in PLAIN:
                setattr(self, name, state[name])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} is of another version ({reason}); remove it to train this fold from its beginning") from None
        self.sums = {name: one.to(self.fabric.device) for name, one in self.sums.items()}


def train_fit(run: Run, prepared: PreparedCorpus, fit: Fit, fabric: Fabric, progress: Progress | None = None) -> None:
    """Train one model of a run, from its last checkpoint if it has one; its folder appears when all is done.

    What is kept is the moving average of the weights (Polyak and Juditsky 1992), of the epoch with the best UAR on the dev
    speakers, the lower dev loss where several are equal. Raises RunError if training diverges or a checkpoint cannot be used,
    WriteError.
    """
    folder = resumable_folder(fit.folder) if fabric.is_global_zero else nullcontext(partial_of(fit.folder))
    with folder as work:
        try:
            Training(run, prepared, fit, fabric, work).go_on(progress)
        except torch.OutOfMemoryError:
            raise RunError(
                f"{fit.folder}: the GPU's memory is full; continue with --resume and fewer --jobs, or train anew with another "
                f"train.batch_size ({run.recipe.train.batch_size}) or train.resident_gb ({run.recipe.train.resident_gb})"
            ) from None
    if fabric.is_global_zero:
        remove_checkpoint(fit.folder)  # not before, or a kill in between would have the fold trained again


def owner_of(run: Run, fit: Fit, precision: str) -> str:
    """SHA-256 of all that a training depends on beside its state: recipe, data, fold, seed, precision."""
    facts = [run.recipe.model_dump(mode="json"), run.hashes, asdict(fit.split), fit.seed, precision]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def gave_up(rows: Sequence[Row], patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; 0 never gives up."""
    since = next((number for number, row in enumerate(reversed(rows)) if row["best"]), 0)
    return 0 < patience <= since


def score(model: SerModel, dataset: LogMelDataset) -> tuple[float, float]:
    """Return mean cross-entropy and UAR of a model on a dataset, in evaluation mode and float32, as it will be used."""
    order = np.argsort(dataset.frames, kind="stable")  # of the sum in the mean, which rounds
    logits, truth = apply_to_dataset(model, dataset).logits[order], dataset.emotion[order]
    loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth)).item()
    return loss, metrics.uar(truth, logits.argmax(axis=1), len(model.labels))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """metrics.csv as it is so far, whole."""
    with writing(path) as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        for row in rows:
            table.writerow({name: value if isinstance(value, int) else format(value, ".6g") for name, value in row.items()})
