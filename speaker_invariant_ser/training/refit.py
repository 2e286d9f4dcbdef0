"""Train one model of a run; with `train.refit` on all speakers that are not tested, up to an epoch that inner folds select.

The training speakers are divided into groups. For each group, a model is trained on the others and predicts the group after every
epoch. The epoch with the highest UAR over all these predictions together is the one after which the final training stops. Test
speakers, test texts and held-out utterances are in no inner fold.

Every inner training is a `Trainer` with a folder of its own in that of the unfinished model, and resumes as any other does:

inner/2/metrics.csv     its epochs
inner/2/epoch-7.npy     its predictions after epoch 7, logits [N, C]
"""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import torch
from lightning_fabric import Fabric

from speaker_invariant_ser.data.dev_speakers import distribute, speaker_table
from speaker_invariant_ser.data.labels import labels_of
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, require_emotions
from speaker_invariant_ser.errors import RunError, SplitError
from speaker_invariant_ser.files import partial_of, require_regular, resumable_folder, writing
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.calibration import fit_temperature
from speaker_invariant_ser.processes import EpochProgress
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import INNER, INNER_METRICS, INNER_PREDICTIONS, METRICS, ModelSpec, Run, inner_rows, read_rows
from speaker_invariant_ser.training.checkpoints import remove_checkpoint
from speaker_invariant_ser.training.epoch_metrics import Row, write_metrics
from speaker_invariant_ser.training.trainer import Trainer, score_logits

FINAL = (  # replaces values of any recipe: one model of all speakers, its epoch and temperature from inner folds
    "split.scheme=all",
    "split.dev_speakers=0",
    "split.text_folds=0",
    "split.test=[]",
    "split.dev=[]",
    "split.source=[]",
    "split.unlabelled=[]",
    "train.refit=true",
    "train.inner_folds=3",
    "train.patience=0",
    "train.probe_every=0",
    "train.seeds=1",
    "audit.holdout=0",
)


def train_model(
    run: Run, prepared: PreparedCorpus, spec: ModelSpec, fabric: Fabric, progress: EpochProgress | None = None
) -> None:
    """Train one model of a run, from its last checkpoint if there is one; its folder appears when it is complete.

    Args:
        run: The run.
        prepared: The corpus, its labels mapped.
        spec: The model's fold, seed, name and folder.
        fabric: Device, precision, and the processes that share each batch.
        progress: Called after each epoch, also those of inner folds.

    Raises:
        RunError: Training diverged, a checkpoint cannot be used, the GPU's memory is full, or the run was moved meanwhile.
        WriteError: The folder cannot be written.
    """
    run.require_there()
    folder = resumable_folder(spec.folder) if fabric.is_global_zero else nullcontext(partial_of(spec.folder))
    with folder as work:
        try:
            open_trainer(run, prepared, spec, fabric, work, progress).train(progress)
        except torch.OutOfMemoryError:
            raise RunError(
                f"{spec.folder}: the GPU's memory is full; continue with --resume and fewer --jobs, or train again with another "
                f"train.batch_size ({run.recipe.train.batch_size}) or train.cache_gb ({run.recipe.train.cache_gb})"
            ) from None
    if fabric.is_global_zero:
        remove_checkpoint(spec.folder)  # not before, or an interruption in between would repeat the whole training


def open_trainer(
    run: Run, prepared: PreparedCorpus, spec: ModelSpec, fabric: Fabric, work: Path, progress: EpochProgress | None
) -> Trainer:
    """Return the training of a model; where inner folds select its epoch, these are trained first."""
    if not run.recipe.train.refit:
        return Trainer(run, prepared, spec, fabric, work)
    scores = train_inner_folds(run, prepared, spec, fabric, work, progress) if run.recipe.train.inner_folds else None
    return RefitTrainer(run, prepared, spec, fabric, work, scores)


def inner_splits(split: Split, recipe: Recipe, utterances: Sequence[Utterance]) -> list[Split]:
    """Divide the training speakers of a fold into inner folds: each group is `dev` once, the others are trained on.

    Groups are balanced by corpus and sex and depend on the speakers and `split.seed` alone. Speakers without labels are trained
    on in every inner fold.

    Args:
        split: The fold, utterances for the audit already held out.
        recipe: The recipe.
        utterances: All utterances of the prepared corpus.

    Returns:
        `train.inner_folds` splits; none without `train.refit`.

    Raises:
        SplitError: There are too few training speakers, or an emotion is trained on in some inner folds only.
    """
    count = recipe.train.inner_folds if recipe.train.refit else 0
    if not count:
        return []
    number = len(split.train)
    possible = [folds for folds in range(2, min(20, number) + 1) if number - math.ceil(number / folds) >= 2]
    if count not in possible:
        allowed = f"0, or {possible[0]} to {possible[-1]}" if possible else "0, or prepare more speakers"
        raise SplitError(
            f"fold {split.name}: {number} training speakers cannot be divided into {count} inner folds that each train on at "
            f"least 2; expected train.inner_folds = {allowed}"
        )
    groups = speaker_table(recipe.split, utterances).groups
    scored = distribute({speaker: groups[speaker] for speaker in split.train}, count, recipe.split.seed)
    inner = [
        replace(
            split,
            name=f"{split.name}, inner fold {fold}",
            train=tuple(speaker for speaker in split.train if speaker not in group),
            dev=group,
        )
        for fold, group in enumerate(scored, start=1)
    ]
    for fold in inner:
        require_emotions(fold, utterances)
    return inner


@dataclass(frozen=True)
class InnerScores:
    """Loss and UAR of each epoch, from the first, over the predictions of all inner folds together.

    `temperature` is fitted on these after the selected epoch; None with `Recipe.fits_after_training`.
    """

    loss: tuple[float, ...]
    uar: tuple[float, ...]
    temperature: float | None = None

    @property
    def epoch(self) -> int:
        """The epoch with the highest UAR; of equal ones that with the lowest loss, then the first.

        >>> InnerScores(loss=(0.9, 0.7, 0.8), uar=(0.5, 0.6, 0.6)).epoch
        2
        """
        return 1 + max(range(len(self.uar)), key=lambda index: (self.uar[index], -self.loss[index]))


class InnerTrainer(Trainer):
    """Train on most of the training speakers, and keep the predictions for the others after each epoch instead of a model."""

    def score_dev(self) -> Row:
        """Predict the group that is not trained on, and return loss and UAR."""
        loss, uar = 0.0, 0.0
        if self.fabric.is_global_zero:
            assert self.dev_data is not None, "an inner fold has a group to score"
            logits = apply_to_dataset(self.average.averaged, self.dev_data).logits
            content = BytesIO()  # not the file: numpy's error of an incomplete write does not say that the disk is full
            np.save(content, logits, allow_pickle=False)
            with writing(logits_file(self.work, self.state.epoch), "wb") as file:
                file.write(content.getbuffer())
            loss, uar = score_logits(logits, self.dev_data.emotion)
        return self.fabric.broadcast({"dev_loss": loss, "dev_uar": uar})

    def save_best(self) -> None:
        """Save nothing: the predictions are saved already."""


class RefitTrainer(Trainer):
    """Train on all training speakers up to the epoch that inner folds have selected, with the schedule of a whole training.

    Its dev scores are those of the inner folds, so that the selected epoch is the last and the best.

    Args:
        scores: Scores of the inner folds; without them all epochs are trained, and the last weights are kept.
        others: Of `Trainer`.
    """

    def __init__(
        self, run: Run, prepared: PreparedCorpus, spec: ModelSpec, fabric: Fabric, work: Path, scores: InnerScores | None
    ) -> None:
        super().__init__(run, prepared, spec, fabric, work)
        self.scores = scores

    def temperature(self) -> float | None:
        """Return the temperature of the inner folds."""
        return self.scores.temperature if self.scores else None

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends."""
        return self.scores.epoch if self.scores else super().last_epoch

    def score_dev(self) -> Row:
        """Return the scores of the inner folds after this epoch; none if there are no inner folds."""
        index = self.state.epoch - 1
        return {"dev_loss": self.scores.loss[index], "dev_uar": self.scores.uar[index]} if self.scores else {}

    def select(self, scores: Row) -> bool:
        """Keep the averaged weights, as any training does, if the scores are the best so far; always if there are none."""
        if scores:
            return super().select(scores)
        self.state.best_weights = copy.deepcopy(self.average.averaged.state_dict())
        return True


def train_inner_folds(
    run: Run, prepared: PreparedCorpus, spec: ModelSpec, fabric: Fabric, work: Path, progress: EpochProgress | None
) -> InnerScores:
    """Train the inner folds that are left, write inner-metrics.csv and inner-predictions.csv, and return the pooled scores."""
    settings = run.recipe.train.model_copy(update={"probe_every": 0})  # a probe of a model that is not kept is of no use
    inner_run = replace(run, recipe=run.recipe.model_copy(update={"train": settings}))
    splits = inner_splits(spec.split, run.recipe, prepared.utterances)
    for number, split in enumerate(splits, start=1):
        folder = work / INNER / str(number)
        if fabric.broadcast(is_trained(folder, settings.epochs)):
            continue
        inner = ModelSpec(split, spec.seed, f"{spec.name}, inner fold {number}", folder)
        InnerTrainer(inner_run, prepared, inner, fabric, folder).train(progress and report_as(spec.name, number, progress))
        if fabric.is_global_zero:
            remove_checkpoint(folder)
    scores = pool(work, splits, prepared, run.recipe) if fabric.is_global_zero else InnerScores((), ())
    return fabric.broadcast(scores)


def is_trained(folder: Path, epochs: int) -> bool:
    """Return whether an inner fold is trained; its metrics.csv is written after the predictions of an epoch."""
    return (folder / METRICS).is_file() and len(read_rows(folder / METRICS)) == epochs


def report_as(name: str, number: int, progress: EpochProgress) -> EpochProgress:
    """Return a function that reports the epochs of an inner fold as those of the model `name`."""
    return lambda _, row: progress(name, {"inner_fold": number, **row})


def logits_file(folder: Path, epoch: int) -> Path:
    """Return the path of an inner fold's predictions after an epoch."""
    return folder / f"epoch-{epoch}.npy"


def pool(work: Path, splits: Sequence[Split], prepared: PreparedCorpus, recipe: Recipe) -> InnerScores:
    """Score the predictions of all inner folds together, and write their epochs and the predictions of the selected one.

    Raises:
        RunError: Predictions are missing or damaged.
    """
    labels = labels_of(prepared.utterances, recipe.split)
    scored = [[prepared.utterances[index] for index in split.indices("dev", prepared.utterances)] for split in splits]
    truth = to_indices([utterance.emotion for group in scored for utterance in group], labels)

    def logits(epoch: int) -> np.ndarray:
        files = [logits_file(work / INNER / str(number), epoch) for number, _ in enumerate(splits, 1)]
        return np.concatenate([read_logits(path, (len(group), len(labels))) for path, group in zip(files, scored, strict=True)])

    loss, uar = zip(*(score_logits(logits(epoch), truth) for epoch in range(1, recipe.train.epochs + 1)), strict=True)
    scores = InnerScores(loss, uar)
    write_metrics(work / INNER_METRICS, [*inner_rows(work)])
    probability = torch.from_numpy(logits(scores.epoch)).softmax(dim=1).numpy()
    write_predictions(work / INNER_PREDICTIONS, scored, labels, probability)
    return scores if recipe.fits_after_training else replace(scores, temperature=fit_temperature(truth, probability))


def read_logits(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the logits [N, C] that an inner fold has written."""
    try:
        with open(require_regular(path), "rb") as file:
            logits = np.lib.format.read_array(file, allow_pickle=False)
        if logits.shape != shape or not np.isfinite(logits).all():
            raise ValueError(f"expected finite numbers, {shape[0]} x {shape[1]}")
        return logits
    except (OSError, ValueError, TypeError, MemoryError) as error:
        raise RunError(f"{path} is damaged ({error}); remove {path.parent} to train this inner fold again") from None


def write_predictions(path: Path, scored: Sequence[Sequence[Utterance]], labels: Sequence[str], probability: np.ndarray) -> None:
    """Write a table of predictions with the columns of predictions.csv that describe them; `fold` is the inner fold.

    Args:
        path: The table.
        scored: Utterances that each inner fold has predicted.
        labels: Names of the C emotions.
        probability: Predictions for all of them, [N, C].
    """
    utterances = [utterance for group in scored for utterance in group]
    columns = {
        "id": [utterance.id for utterance in utterances],
        "speaker": [utterance.speaker for utterance in utterances],
        "fold": [number for number, group in enumerate(scored, start=1) for _ in group],
        "emotion": [utterance.emotion for utterance in utterances],
        **{f"p_{label}": probability[:, column] for column, label in enumerate(labels)},
    }
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(columns), file)
