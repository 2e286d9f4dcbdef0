"""A run -> an Evaluation: emotion on speakers that their fold has never heard, and what is left of those it was trained on."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv

from speaker_invariant_ser import metrics
from speaker_invariant_ser.audit import Embeddings, Leakage, leakage
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.model import SerModel, apply, choose_device, load_model
from speaker_invariant_ser.runs import Run, kept
from speaker_invariant_ser.splits import Split
from speaker_invariant_ser.store import Store

PREDICTIONS = "predictions.csv"
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Predictions:
    """Every test clip of every fold, once. `truth`, `predicted` [N] are positions in `labels`, `probability` is [N, C]."""

    labels: tuple[str, ...]
    id: np.ndarray
    speaker: np.ndarray
    fold: np.ndarray
    truth: np.ndarray
    probability: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        return self.probability.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """Counts [C, C], row the true class."""
        return metrics.confusion(self.truth, self.predicted, len(self.labels))


@dataclass(frozen=True)
class Evaluation:
    """All that a report needs."""

    name: str
    predictions: Predictions
    leakage: Leakage
    curves: dict[str, list[dict[str, float]]]  # fold -> metrics.csv
    settings: dict
    note: str

    @property
    def summary(self) -> dict:
        """The content of report.json; its keys are stable."""
        return {
            "run": self.name,
            "note": self.note,
            "emotion": emotion_summary(self.predictions, self.curves),
            "speaker": speaker_summary(self.leakage, self.curves, self.settings["recipe"]["adversary"]["target"]),
            "settings": self.settings,
        }


def evaluate(run: Run, store: Store, device: str = "auto", progress: Progress | None = None) -> Evaluation:
    """Apply every fold to its test speakers, audit every fold's embeddings of its training speakers.

    Writes predictions.csv into the run. Raises RunError if folds are missing or damaged.
    """
    splits = run.all_done()
    store = store.labelled(run.recipe.labels.map)
    tested, tables = [], []
    for done, split in enumerate(splits, start=1):
        model = load_model(run.fold_folder(split), str(choose_device(device)))
        tested.append(test(model, store, split))
        tables.append(embed(model, store, split))
        if progress:
            progress("applying models", done, len(splits))
    attacked = (lambda done, total: progress("attacking embeddings", done, total)) if progress else None
    predictions = join(tested)
    write_predictions(run.folder / PREDICTIONS, predictions)
    return Evaluation(
        name=run.folder.resolve().name,
        predictions=predictions,
        leakage=leakage(tables, run.recipe.audit.folds, run.recipe.audit.seed, attacked),
        curves={split.name: run.metrics(split) for split in splits},
        settings=describe(run, store),
        note=store.settings.get("note", ""),
    )


def test(model: SerModel, store: Store, split: Split) -> Predictions:
    """Predictions for the fold's test speakers."""
    indices = split.indices("test", store.utterances)
    _, probability = apply(model, [store.clip(index) for index in indices])
    utterances = [store.utterances[index] for index in indices]
    return Predictions(
        labels=model.labels,
        id=np.array([utterance.id for utterance in utterances]),
        speaker=np.array([utterance.speaker for utterance in utterances]),
        fold=np.full(len(indices), split.name),
        truth=np.array([model.labels.index(utterance.emotion) for utterance in utterances]),
        probability=probability,
    )


def embed(model: SerModel, store: Store, split: Split) -> Embeddings:
    """Embeddings of the fold's training speakers: those an adversary was to hide."""
    indices = split.indices("train", store.utterances)
    embedding, _ = apply(model, [store.clip(index) for index in indices])
    column = {
        key: np.array([getattr(store.utterances[index], key) for index in indices])
        for key in ("id", "speaker", "emotion", "text")
    }
    return Embeddings(embedding, **column)


def join(parts: list[Predictions]) -> Predictions:
    names = ("id", "speaker", "fold", "truth", "probability")
    return Predictions(parts[0].labels, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def write_predictions(path: Path, predictions: Predictions) -> None:
    labels = np.array(predictions.labels)
    columns = {
        "id": predictions.id,
        "speaker": predictions.speaker,
        "fold": predictions.fold,
        "emotion": labels[predictions.truth],
        "predicted": labels[predictions.predicted],
        "confidence": predictions.probability.max(axis=1),
        **{f"p_{label}": predictions.probability[:, column] for column, label in enumerate(labels)},
    }
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(columns), file)


def emotion_summary(predictions: Predictions, curves: dict[str, list[dict[str, float]]]) -> dict:
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.labels)
    low, high = metrics.cluster_interval(truth, predicted, predictions.speaker, classes)
    speakers = per_speaker(predictions)
    worst = min(speakers, key=lambda speaker: speakers[speaker]["uar"])
    recalls = metrics.recalls(predictions.confusion)
    return {
        "uar": {"value": metrics.uar(truth, predicted, classes), "low": number(low), "high": number(high)},
        "accuracy": metrics.accuracy(truth, predicted),
        "chance": 1 / len(set(truth.tolist())),
        "utterances": len(truth),
        "per_class": {label: number(recall) for label, recall in zip(predictions.labels, recalls, strict=True)},
        "per_speaker": speakers,
        "worst_speaker": {"speaker": worst, **speakers[worst]},
        "confusion": {"labels": list(predictions.labels), "counts": predictions.confusion.tolist()},
        "ece": metrics.calibration_error(truth, predictions.probability),
        "folds": {fold: selected(rows) for fold, rows in curves.items()},
    }


def per_speaker(predictions: Predictions) -> dict[str, dict]:
    """Each test speaker's UAR, accuracy and number of clips."""
    result = {}
    for speaker in np.unique(predictions.speaker):
        mine = predictions.speaker == speaker
        truth, predicted = predictions.truth[mine], predictions.predicted[mine]
        result[str(speaker)] = {
            "uar": metrics.uar(truth, predicted, len(predictions.labels)),
            "accuracy": metrics.accuracy(truth, predicted),
            "utterances": int(mine.sum()),
        }
    return result


def selected(rows: list[dict[str, float]]) -> dict:
    """What metrics.csv says of the epoch that was kept."""
    row = kept(rows)
    return {"epoch": int(row["epoch"]), "dev_uar": row["dev_uar"], "adversary_accuracy": row["adversary_accuracy"]}


def speaker_summary(leakage: Leakage, curves: dict[str, list[dict[str, float]]], target: str) -> dict:
    scores = {name: {key: number(value) for key, value in asdict(score).items()} for name, score in leakage.attackers.items()}
    own = float(np.mean([selected(rows)["adversary_accuracy"] for rows in curves.values()]))
    return {
        "speakers": leakage.speakers,
        "decisions": leakage.decisions,
        "left_out": list(leakage.left_out),
        "grouped_by_text": leakage.grouped_by_text,
        "chance": leakage.chance,
        "attackers": scores,
        "strongest": {"name": leakage.strongest, **scores[leakage.strongest]},
        "adversary_head": {"accuracy": own, "target": target, "evidence": False},
    }


def describe(run: Run, store: Store) -> dict:
    names = ("speaker-invariant-ser", "torch", "torchaudio", "scikit-learn", "numpy")
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        "corpora": store.settings["corpora"],
        "labels": store.mapped.table(),
        "data_sha256": run.hashes,
        "folds": [asdict(split) for split in run.splits],
        "versions": {name: version(name) for name in names},
    }


def number(value: float) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return None if math.isnan(value) else float(value)
