"""The one visible loop: a fold is a model trained on some speakers, selected on others, never shown the rest."""

import copy
import csv
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from speaker_invariant_ser import metrics
from speaker_invariant_ser.adversaries import ADVERSARIES
from speaker_invariant_ser.audio import SAMPLE_RATE
from speaker_invariant_ser.augmentation import Augment
from speaker_invariant_ser.config import Recipe
from speaker_invariant_ser.errors import RecipeError, RunError, shorten, unknown
from speaker_invariant_ser.features import Batch
from speaker_invariant_ser.files import new_folder, partial_of
from speaker_invariant_ser.holdout import hold_out
from speaker_invariant_ser.model import ModelSettings, SerModel, choose_device, save_model
from speaker_invariant_ser.runs import METRICS, Fit, Run
from speaker_invariant_ser.splits import Split, make_splits
from speaker_invariant_ser.store import Store

Row = dict[str, float]  # one line of metrics.csv
Progress = Callable[[str, Row], None]  # fold, its latest epoch


@dataclass(frozen=True)
class Clips:
    """Some speakers' clips in memory as log-mels, computed once: at 64 bands and 10 ms, smaller than their 16-bit audio."""

    mels: list[Tensor]  # each [M, T]
    emotion: Tensor
    target: Tensor  # what the adversary reads

    def batch(self, indices: Sequence[int]) -> Batch:
        mels = [self.mels[index] for index in indices]
        frames = torch.tensor([clip.shape[1] for clip in mels], device=self.emotion.device)
        padded = nn.utils.rnn.pad_sequence([clip.T for clip in mels], batch_first=True).transpose(1, 2)
        chosen = torch.as_tensor(indices, device=self.emotion.device)
        return Batch(padded, frames, self.emotion[chosen], self.target[chosen])


def train(
    recipe: Recipe,
    store: Store,
    out: Path | str,
    resume: bool = False,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
) -> Run:
    """Train every fold of the recipe into the run folder `out`, `jobs` folds at once, and return the run.

    With `resume`, folds that are already trained are kept and the others are trained. Raises SplitError, RecipeError,
    RunError or WriteError before any training starts.
    """
    check_names(recipe)
    store = store.labelled(recipe.labels.map)
    splits = hold_out(make_splits(recipe.split, store.utterances), store.utterances, recipe.audit.holdout, recipe.audit.seed)
    for split in splits:
        targets_of(store, split, recipe.adversary.target)  # says what is wrong before anything is written
    choose_device(device)
    if resume and (Path(out) / "recipe.toml").exists():
        run = Run.open(out)
        run.require_same(recipe, splits, store)
    else:
        run = Run.create(out, recipe, splits, store)
    waiting = [fit for fit in run.fits if not fit.done]
    jobs = min(jobs, len(run.fits))  # of all, not of those left: threads, and so the last bits, stay the same on resume
    if jobs > 1 and waiting:
        train_side_by_side(run, store, waiting, device, jobs, progress)
    else:
        for fit in waiting:
            train_fold(recipe, store, fit, device, progress)
    return run


def check_names(recipe: Recipe) -> None:
    build_model(recipe, ("", ""))  # says what is wrong with band limits or the encoder before anything is written
    if recipe.adversary.name not in ADVERSARIES:
        raise RecipeError(unknown("adversary.name", recipe.adversary.name, ADVERSARIES))


def train_side_by_side(run: Run, store: Store, fits: Sequence[Fit], device: str, jobs: int, progress: Progress | None) -> None:
    """Folds in worker processes, the cores shared evenly: one thread each is faster than many threads on one fold."""
    context = get_context("spawn")
    before = set(active_children())
    threads = max(1, (os.cpu_count() or 1) // jobs)
    for fit in fits:  # what a kill left behind would be told as news
        shutil.rmtree(partial_of(fit.folder), ignore_errors=True)
    with ProcessPoolExecutor(jobs, context) as pool:
        folders = {fit.name: fit.folder for fit in fits}
        futures = [pool.submit(train_in_worker, run.recipe, store.folder, fit, device, threads) for fit in fits]
        told = dict.fromkeys(folders, 0)
        try:
            while pending := [future for future in futures if not future.done()]:
                wait(pending, timeout=0.3, return_when=FIRST_EXCEPTION)
                tell(folders, told, progress)
                for future in futures:
                    if future.done():
                        future.result()  # raises what went wrong in the worker
        except BrokenProcessPool:
            raise RunError(
                f"{run.folder}: a training process was killed, perhaps for want of memory; "
                "finished folds are kept: continue with --resume and fewer --jobs"
            ) from None
        finally:
            if not all(future.done() for future in futures):  # an error, or Ctrl-C: do not wait for the other folds
                for worker in set(active_children()) - before:
                    worker.terminate()


def tell(folders: dict[str, Path], told: dict[str, int], progress: Progress | None) -> None:
    """Report the epochs that workers have written to metrics.csv since the last look; `told` counts them per fold."""
    for fold, folder in folders.items():
        for place in (partial_of(folder), folder):
            try:
                lines = (place / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
            except OSError:
                continue  # not begun, or just renamed
            rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
            for row in rows[told[fold] :]:
                told[fold] += 1
                if progress:
                    progress(fold, {name: float(cell) for name, cell in row.items()})


def train_in_worker(recipe: Recipe, data: Path, fit: Fit, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    train_fold(recipe, Store.open(data).labelled(recipe.labels.map), fit, device, stop_if_orphaned)


def stop_if_orphaned(fold: str, row: Row) -> None:
    """A worker whose main process was killed must not go on writing into the run, nor wait for work for ever."""
    if not parent_process().is_alive():
        signal.raise_signal(signal.SIGTERM)


def train_fold(recipe: Recipe, store: Store, fit: Fit, device: str = "cpu", progress: Progress | None = None) -> None:
    """Train one fold and write its model and metrics.csv to its folder, which appears when all is done.

    What is kept is the moving average of the weights (Polyak and Juditsky 1992), of the epoch with the best UAR on the dev
    speakers, the lower dev loss where several are equal.
    """
    torch.manual_seed(fit.seed)
    order, split = np.random.default_rng(fit.seed), fit.split
    target = choose_device(device)
    labels = sorted({utterance.emotion for utterance in store.utterances})
    model = build_model(recipe, labels).to(target, memory_format=torch.channels_last)
    training = load_clips(store, split.indices("train", store.utterances), model, target, recipe.adversary.target)
    dev = load_clips(store, split.indices("dev", store.utterances), model, target, recipe.adversary.target)
    known = targets_of(store, split, recipe.adversary.target)
    model.normalise.fit(training.mels)
    adversary = ADVERSARIES[recipe.adversary.name](recipe.encoder.dim, len(known), recipe.adversary).to(target)
    augment = Augment(recipe.augment, recipe.features)
    weight = class_weights(training.emotion, len(labels)) if recipe.emotion.class_weights else None

    steps = recipe.train.epochs * steps_per_epoch(len(training.mels), recipe.train.batch_size)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *adversary.parameters()], lr=recipe.train.learning_rate, weight_decay=recipe.train.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.train.learning_rate, total_steps=steps)
    averaged = AveragedModel(model, multi_avg_fn=moving_average(recipe.train.ema), use_buffers=True)
    best, kept, step = (-1.0, 0.0), model.state_dict(), 0

    with new_folder(fit.folder) as partial, open(partial / METRICS, "w", encoding="utf-8", newline="") as file:
        for epoch in range(1, recipe.train.epochs + 1):
            started, sums = time.perf_counter(), np.zeros(5)
            model.train()
            for indices in epoch_batches(training, recipe.train.batch_size, order):
                batch = training.batch(indices)
                through = step / max(1, steps - 1)
                draws = torch.rand(len(indices), augment.columns, device=target)
                output = model.from_mels(*augment(batch.mels, batch.frames, draws))
                emotion_loss = F.cross_entropy(
                    output.logits, batch.emotion, weight, label_smoothing=recipe.emotion.label_smoothing
                )
                adversary_loss = adversary(output.embedding, batch, through)  # lambda acts inside, once
                with torch.no_grad():
                    guessed = adversary.logits(output.embedding).argmax(dim=1)
                optimizer.zero_grad()
                (emotion_loss + adversary_loss).backward()
                for part in (model, adversary):  # apart, or a strong reversed gradient would slow the speaker head down
                    nn.utils.clip_grad_norm_(part.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                averaged.update_parameters(model)
                step += 1
                right = (output.logits.argmax(dim=1) == batch.emotion).sum(), (guessed == batch.target).sum()
                n = len(indices)
                sums += [n, n * emotion_loss.item(), n * adversary_loss.item(), right[0].item(), right[1].item()]

            dev_loss, dev_uar = score(averaged.module, dev)
            if not math.isfinite(sums.sum() + dev_loss):
                raise RunError(
                    f"fold {split.name}: training diverged in epoch {epoch} (the loss is not finite); lower train.learning_rate "
                    f"({recipe.train.learning_rate}) or adversary.strength ({recipe.adversary.strength})"
                )
            better = (dev_uar, -dev_loss) > best
            if better:
                best, kept = (dev_uar, -dev_loss), copy.deepcopy(averaged.module.state_dict())
            row = {
                "epoch": epoch,
                "step": step,
                "learning_rate": schedule.get_last_lr()[0],
                "lambda": adversary.strength(through),
                "emotion_loss": sums[1] / sums[0],
                "emotion_accuracy": sums[3] / sums[0],
                "adversary_loss": sums[2] / sums[0],
                "adversary_loss_uninformed": math.log(len(known)),
                "adversary_accuracy": sums[4] / sums[0],
                "dev_loss": dev_loss,
                "dev_uar": dev_uar,
                "best": int(better),
                "seconds": time.perf_counter() - started,
            }
            write_row(file, row)
            if progress:
                progress(fit.name, row)
        model.load_state_dict(kept)
        save_model(model, partial)


def build_model(recipe: Recipe, labels: Sequence[str]) -> SerModel:
    """An untrained model. Raises RecipeError for an unknown encoder or impossible band limits."""
    sections = {"features": recipe.features, "encoder": recipe.encoder, "emotion": recipe.emotion}
    return SerModel(ModelSettings(labels=labels, sample_rate=SAMPLE_RATE, **sections))


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


def load_clips(store: Store, indices: Sequence[int], model: SerModel, device: torch.device, target: str = "speaker") -> Clips:
    """These clips as log-mels on the device, emotion and the adversary's target as positions in sorted order."""
    mels = []
    with torch.inference_mode():
        for index in indices:
            audio = torch.from_numpy(store.clip(index)).to(device)
            mels.append(model.logmel(audio[None], torch.tensor([len(audio)]))[0][0])
    emotions = [model.labels.index(store.utterances[index].emotion) for index in indices]
    values = [getattr(store.utterances[index], target) for index in indices]
    place = {value: position for position, value in enumerate(sorted(set(values)))}
    who = [place[value] for value in values]
    # clone: what is made in inference mode may not enter training
    return Clips([clip.clone() for clip in mels], torch.tensor(emotions, device=device), torch.tensor(who, device=device))


def class_weights(emotion: Tensor, classes: int) -> Tensor:
    """Inverse frequency [C], one on average over the clips; a class without clips gets 0."""
    counts = torch.bincount(emotion, minlength=classes)
    return torch.where(counts > 0, len(emotion) / ((counts > 0).sum() * counts.clamp_min(1)), 0.0)


def steps_per_epoch(clips: int, batch_size: int) -> int:
    return max(1, clips // batch_size)


def epoch_batches(clips: Clips, batch_size: int, order: np.random.Generator) -> Iterator[list[int]]:
    """All clips once, in random batches of similar length: padding costs time and dilutes batch norm.

    Batches hold `batch_size` clips or a few more; a leftover batch of one would break batch norm.
    """
    lengths = np.array([clip.shape[1] for clip in clips.mels])
    jittered = lengths * order.uniform(0.9, 1.1, len(lengths))
    batches = np.array_split(np.argsort(jittered), steps_per_epoch(len(lengths), batch_size))
    for position in order.permutation(len(batches)):
        yield batches[position].tolist()


@torch.inference_mode()
def score(model: SerModel, clips: Clips, batch_size: int = 64) -> tuple[float, float]:
    """(mean cross-entropy, UAR) of a model on clips, in evaluation mode."""
    model.eval()
    order = np.argsort([clip.shape[1] for clip in clips.mels])
    logits = []
    for start in range(0, len(order), batch_size):
        batch = clips.batch(order[start : start + batch_size].tolist())
        logits.append(model.from_mels(batch.mels, batch.frames).logits)
    logits = torch.cat(logits)
    truth = clips.emotion[torch.as_tensor(order, device=clips.emotion.device)]
    predicted = logits.argmax(dim=1).cpu().numpy()
    return F.cross_entropy(logits, truth).item(), metrics.uar(truth.cpu().numpy(), predicted, len(model.labels))


def write_row(file, row: Row) -> None:
    """Append one epoch to metrics.csv at once, so that a look at the file shows where training is."""
    writer = csv.DictWriter(file, row)
    if row["epoch"] == 1:
        writer.writeheader()
    writer.writerow({name: format(value, ".6g") for name, value in row.items()})
    file.flush()
