"""Train and score the folds of a trial: emotion on the dev speakers, minus a weight times the leak of the training speakers.

Folds are trained in this process or in worker processes (`open_workers`). Nothing here gets a test speaker: the emotion is scored
on the dev speakers of each fold, and the attackers are fitted on training utterances and scored on held-out ones of the same
speakers, as in `siser evaluate --quick`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from speaker_invariant_ser import metrics
from speaker_invariant_ser.audit.audit import AuditSettings, quick_leakage
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.leakage import chance_levels
from speaker_invariant_ser.audit.statistics import leaves_room
from speaker_invariant_ser.config import saved_recipe
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import AuditError, RecipeError, RunError
from speaker_invariant_ser.evaluation.model_outputs import attacked_parts, classify, embed, table_of
from speaker_invariant_ser.features.speaker_means import compute_speaker_means
from speaker_invariant_ser.files import remove_known
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.json_files import parse_json
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.processes import set_up_worker
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import ModelSpec, Run
from speaker_invariant_ser.studies.sweep_space import Sweep
from speaker_invariant_ser.training.launcher import launched_fabric, with_checkpoint
from speaker_invariant_ser.training.refit import train_model


@dataclass(frozen=True)
class Scores:
    """What a configuration reached on some folds together.

    Attributes:
        dev_uar: UAR over the dev utterances of all folds, pooled.
        attacker: Name of the strongest closed-form attacker.
        accuracy: Its accuracy on held-out utterances of training speakers.
        chance: What is reached without embeddings, given the emotion.
    """

    dev_uar: float
    attacker: str
    accuracy: float
    chance: float

    @property
    def excess(self) -> float:
        """Accuracy above chance; an attacker below chance is no success, and counts as one at chance."""
        return max(0.0, self.accuracy - self.chance)

    def objective(self, leak_weight: float) -> float:
        """Return what is maximised; raise AuditError where no leak can be measured."""
        require_room(self.chance, leak_weight)
        return self.dev_uar - leak_weight * self.excess


def require_room(chance: float, leak_weight: float) -> None:
    """Raise AuditError where no leak can be measured, because the emotion names the speaker, unless leaks have no weight."""
    if leak_weight and not leaves_room(chance):
        raise AuditError(
            f"the emotion alone names {100 * chance:.0f} % of the speakers, so that no leak can be measured above it; "
            "set sweep.leak_weight = 0, or give each speaker several emotions"
        )


def check_attacks(sweep: Sweep, prepared: PreparedCorpus, splits: Sequence[Split]) -> None:
    """Check on the labels of the explored folds that the leak of a trial can be measured, before anything is trained.

    Raises:
        AuditError: It cannot be: too few speakers have several utterances, or the emotion names the speaker.
    """
    recipe, tables = sweep.recipe, []
    for split in splits:
        indices = [index for part in attacked_parts(recipe) for index in split.indices(part, prepared.utterances)]
        utterances = [prepared.utterances[index] for index in indices]
        tables.append(table_of(utterances, split, np.zeros((len(utterances), 1))))
    try:
        chance = chance_levels(tables, recipe.audit.folds, recipe.audit.seed)
    except AuditError as error:
        raise AuditError(f"{sweep.name}: a sweep attacks the training speakers of its folds: {error}") from None
    require_room(chance["given_emotion"], sweep.settings.leak_weight)


@dataclass(frozen=True)
class FoldOutputs:
    """Outputs of the model of one fold.

    Attributes:
        truth: True emotion of each dev utterance [N] as an integer.
        predicted: Predicted emotion [N].
        emotions: Number of emotions.
        table: Embeddings of training and held-out utterances.
    """

    truth: np.ndarray
    predicted: np.ndarray
    emotions: int
    table: Embeddings


@dataclass(frozen=True)
class FoldTask:
    """One fold of a trial, for whatever process trains it.

    Attributes:
        run: Run of the trial, in a folder of its own, with the explored folds alone.
        fold: Position of the fold.
        device: "cpu" or "cuda".
        number: Number of the trial; GPUs are assigned in turn.
        threads: Threads that torch may use; 0: as many as it wants.
    """

    run: Run
    fold: int
    device: str
    number: int
    threads: int


@dataclass(frozen=True)
class FoldResult:
    """Outputs of a fold, the scores of all folds of the trial so far, and the seconds that both took."""

    outputs: FoldOutputs
    scores: Scores
    seconds: float


def explore_fold(task: FoldTask, earlier: Sequence[FoldOutputs]) -> FoldResult:
    """Train a fold of a trial, unless its model is there already, and score it together with the earlier folds.

    Args:
        task: What to train.
        earlier: Outputs of the earlier folds of the same trial.

    Returns:
        The fold's outputs and the scores of all folds so far.

    Raises:
        RunError: Training diverged.
        AuditError: The embeddings cannot be attacked.
    """
    start = time.monotonic()
    if task.threads:
        torch.set_num_threads(task.threads)
    run = task.run
    assert run.data is not None, "a run in training has a corpus"
    prepared = PreparedCorpus.open(run.data).labelled(run.recipe.labels.map, run.recipe.split)
    spec = run.model_specs[task.fold]
    if not spec.done:
        devices: list[int] | int = [task.number % torch.cuda.device_count()] if task.device == "cuda" else 1
        with launched_fabric(run.recipe.train.precision, task.device, devices) as fabric:
            train_model(run, prepared, spec, fabric)
    outputs = apply_to_fold(spec, run.recipe, prepared, task.device)
    scores = score_folds([*earlier, outputs], run.recipe)
    return FoldResult(outputs, scores, time.monotonic() - start)


def apply_to_fold(spec: ModelSpec, recipe: Recipe, prepared: PreparedCorpus, device: str) -> FoldOutputs:
    """Apply a fold's model to its dev speakers and to its training speakers, and to no one else."""
    model, split = load_model(spec.folder, device), spec.split
    means = compute_speaker_means(prepared, model.logmel, {*split.train, *split.dev}) if recipe.features.transductive else None
    dev, outputs = classify(model, prepared, split, "dev", means)
    return FoldOutputs(
        truth=to_indices([utterance.emotion for utterance in dev], model.labels),
        predicted=outputs.probability.argmax(axis=1),
        emotions=len(model.labels),
        table=embed(model, prepared, split, attacked_parts(recipe), means),
    )


def score_folds(folds: Sequence[FoldOutputs], recipe: Recipe) -> Scores:
    """Score the folds of a trial together, as `siser evaluate --quick` does the folds of a run."""
    truth, predicted = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("truth", "predicted"))
    leakage = quick_leakage([fold.table for fold in folds], AuditSettings(recipe.audit.folds, recipe.audit.seed, quick=True))
    strongest = leakage.strongest
    return Scores(
        dev_uar=metrics.uar(truth, predicted, folds[0].emotions),
        attacker=strongest.name,
        accuracy=strongest.score.accuracy,
        chance=leakage.chance["given_emotion"],
    )


def with_same_checkpoint(sweep: Sweep, journal: Path, resume: bool) -> Sweep:
    """Return a sweep that says which checkpoint the pre-trained encoder of its recipe is, the same before and after `resume`.

    Where the checkpoint is searched itself, each trial chooses its own.
    """
    if {"encoder.name", "encoder.source", "encoder.revision"} & sweep.space.keys():
        return sweep
    held = held_recipe(journal) if resume and journal.is_file() else None
    return replace(sweep, recipe=with_checkpoint(sweep.recipe, held.encoder if held else None))


def held_recipe(journal: Path) -> Recipe | None:
    """Return the recipe of a study from its journal; None where that has none or is damaged, which opening it says."""
    with open(journal, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                request = parse_json(line).get("user_attr", {}).get("request")
                if request:
                    return saved_recipe(request["recipe"], str(journal))
            except (ValueError, AttributeError, KeyError, TypeError, RecipeError):
                continue
    return None


def trial_folder(study: Path, number: int) -> Path:
    """Return the folder of a trial's models while they are needed."""
    return study / "trials" / f"{number:04d}"


def remove_trials(study: Path, count: int) -> None:
    """Remove what is left of the folders of so many trials; whatever else is beside them stays."""
    folders = [trial_folder(study, number) for number in range(count)]
    remove_known(folders[0].parent, [folder.name for folder in folders])


# Where folds are trained

Result = Callable[[], FoldResult]  # returns the result, or raises what went wrong


class Workers(Protocol):
    """What trains folds."""

    size: int  # number of folds trained at the same time

    def start(self, task: FoldTask, earlier: Sequence[FoldOutputs]) -> None:
        """Train a fold, now or when `next_done` is called."""

    def next_done(self) -> tuple[int, Result]:
        """Wait for a fold, and return the number of its trial and its result."""


class ThisProcess:
    """Trains folds in this process, one after another."""

    size = 1

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Result]] = deque()

    def start(self, task: FoldTask, earlier: Sequence[FoldOutputs]) -> None:
        """Note a fold, which `next_done` trains."""
        self.waiting.append((task.number, partial(explore_fold, task, earlier)))

    def next_done(self) -> tuple[int, Result]:
        """Return the number of the trial, and what trains its fold when it is called."""
        return self.waiting.popleft()


class Processes:
    """Trains folds in a pool of processes."""

    def __init__(self, pool: ProcessPoolExecutor, size: int) -> None:
        self.pool, self.size = pool, size
        self.running: dict[Future[FoldResult], int] = {}

    def start(self, task: FoldTask, earlier: Sequence[FoldOutputs]) -> None:
        """Submit a fold."""
        self.running[self.pool.submit(explore_fold, task, earlier)] = task.number

    def next_done(self) -> tuple[int, Result]:
        """Wait for any fold."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        future = next(future for future in self.running if future in done)
        return self.running.pop(future), future.result


@contextmanager
def open_workers(size: int) -> Iterator[Workers]:
    """Open what trains `size` folds at the same time; an error or Ctrl-C ends worker processes at once.

    Raises:
        RunError: A worker process was killed.
    """
    if size == 1:
        yield ThisProcess()
        return
    existing, finished = set(active_children()), False
    with ProcessPoolExecutor(size, get_context("spawn"), initializer=set_up_worker) as pool:
        try:
            yield Processes(pool, size)
            finished = True
        except BrokenProcessPool:
            raise RunError(
                "a training process was killed, perhaps because memory ran out; finished trials are kept: continue with --resume "
                "and fewer --jobs"
            ) from None
        finally:
            if not finished:
                for process in set(active_children()) - existing:
                    process.terminate()
