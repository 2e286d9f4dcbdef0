"""What a run's models say of their test clips: predictions.csv, and all that report.json says of emotion.

N decisions, a test clip's once for each seed, and C emotions. Every number of emotion is computed from a `Predictions`, so that
two runs, a table read back and a fresh evaluation are measured by the same lines.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import GROUPABLE, Utterance, read_columns
from speaker_invariant_ser.errors import ManifestError, RunError, shorten, unknown
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.runs import with_seed

PREDICTIONS = "predictions.csv"
TEMPERATURES = 0.05, 20.0  # the least and the most that a temperature may be
GROUPS = ("sex", "corpus", "language", "session", "style", "intensity")  # results are broken down by these without being asked
MOST_GROUPS = 20  # and only where there are no more values than this


@dataclass(frozen=True)
class Predictions:
    """Every test clip of every fold, once for each seed.

    `truth`, `predicted` [N] are positions in `labels` [C]; `probability` is [N, C]. `temperatures` holds each
    model's temperature by the name of its fit; one that is not in it counts as 1, which changes nothing.

    All seeds are tested on the same clips, so that a class, a speaker or a group has as many rows of one seed as of another:
    a recall over all rows is the mean of the seeds' recalls, and UAR and accuracy are the means of theirs.
    """

    labels: tuple[str, ...]
    id: np.ndarray
    speaker: np.ndarray
    fold: np.ndarray
    seed: np.ndarray  # int
    truth: np.ndarray
    probability: np.ndarray
    temperatures: dict[str, float] = field(default_factory=dict)

    @property
    def predicted(self) -> np.ndarray:
        return self.probability.argmax(axis=1)

    @property
    def seeds(self) -> list[int]:
        return np.unique(self.seed).tolist()

    @property
    def clips(self) -> int:
        """Different test clips: a clip counts once, however many seeds were tested on it."""
        return len(self.truth) // len(self.seeds)

    @property
    def calibrated(self) -> np.ndarray:
        """Probabilities [N, C] after each model's temperature."""
        heat, models = self.temperatures, zip(self.fold, self.seed, strict=True)
        return soften(
            self.probability, np.array([[heat.get(with_seed(fold, seed), heat.get(fold, 1.0))] for fold, seed in models])
        )

    @property
    def confusion(self) -> np.ndarray:
        """Counts [C, C], row the true class; a clip counts once for each seed."""
        return metrics.confusion(self.truth, self.predicted, len(self.labels))

    def rows(self, chosen: np.ndarray) -> "Predictions":
        """Some of the rows, by mask or positions."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in ARRAYS})


ARRAYS = ("id", "speaker", "fold", "seed", "truth", "probability")


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several models as one table; all have the same labels."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    temperatures = {name: value for part in parts for name, value in part.temperatures.items()}
    return Predictions(parts[0].labels, **arrays, temperatures=temperatures)


def write_predictions(path: Path | str, predictions: Predictions) -> None:
    """Write one row a clip and seed as CSV, whole or not at all; probabilities are those of the model, before any temperature."""
    labels = np.array(predictions.labels)
    columns = {
        "id": predictions.id,
        "speaker": predictions.speaker,
        "fold": predictions.fold,
        "seed": predictions.seed,
        "emotion": labels[predictions.truth],
        "predicted": labels[predictions.predicted],
        "confidence": predictions.probability.max(axis=1),
        **{f"p_{label}": predictions.probability[:, column] for column, label in enumerate(labels)},
    }
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(columns), file)


def read_predictions(path: Path | str) -> Predictions:
    """Read what `write_predictions` wrote; temperatures are not in it. Raises RunError if it is missing or damaged.

    A table without the column seed is of a run of one seed, which counts as 0.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"no {path.name} in {path.parent}; evaluate it first with `siser evaluate {path.parent}`")
    try:
        return from_columns(read_columns(path, {}))
    except (ManifestError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}); evaluate it first with `siser evaluate {path.parent}`, which writes it anew"
        ) from None


def from_columns(columns: Mapping[str, list[str]]) -> Predictions:
    """Predictions from the cells of predictions.csv. Raises ValueError with what is wrong."""
    names = ARRAYS[:3]
    missing = [name for name in (*names, "emotion") if name not in columns]
    if missing:
        raise ValueError(f"no column {shorten(missing)}")
    labels = tuple(name.removeprefix("p_") for name in columns if name.startswith("p_"))
    unheard = set(columns["emotion"]) - set(labels)
    if unheard or not labels:
        raise ValueError(f"no column of probabilities for emotion {shorten(sorted(unheard))}")
    probability = np.array([columns[f"p_{label}"] for label in labels], dtype=np.float32).T
    if not len(probability) or not np.isfinite(probability).all():
        raise ValueError("no rows, or a probability that is not finite")
    truth = np.array([labels.index(emotion) for emotion in columns["emotion"]])
    seed = np.array(columns.get("seed", ["0"] * len(truth)), dtype=np.int64)
    found = Predictions(labels, *(np.array(columns[name]) for name in names), seed, truth, probability)
    require_same_clips_of_seeds(found)
    return found


def require_same_clips_of_seeds(predictions: Predictions) -> None:
    """Raise ValueError unless every seed was tested on the same clips, without which nothing pooled is a mean over seeds."""
    first, *others = (np.sort(predictions.id[predictions.seed == seed]) for seed in predictions.seeds)
    for seed, ids in zip(predictions.seeds[1:], others, strict=True):
        if not np.array_equal(first, ids):
            raise ValueError(f"seed {seed} has other clips than seed {predictions.seeds[0]}")


def soften(probability: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Probabilities [N, C] with their logarithms divided by a temperature (one, or [N, 1]): above 1 less sure, below 1 surer."""
    return softmax(logarithm(probability) / temperature, axis=1)


def logarithm(probability: np.ndarray) -> np.ndarray:
    """Finite also where a probability has underflowed to 0: no float32 is nearer to it than `tiny`."""
    return np.log(np.maximum(np.asarray(probability, dtype=float), np.finfo(np.float32).tiny))


def fit_temperature(truth: np.ndarray, probability: np.ndarray) -> float:
    """The temperature, 0.05 to 20, under which probabilities [N, C] give the true classes [N] the highest likelihood.

    Fit it on clips that were not trained on and are not tested on. The bounds keep it finite where all clips are right.
    Source: Guo, Pleiss, Sun, Weinberger, ICML 2017.
    """
    logits = logarithm(probability)

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[np.arange(len(truth)), truth].mean()

    return math.exp(minimize_scalar(loss, bounds=[math.log(bound) for bound in TEMPERATURES], method="bounded").x)


def emotion_summary(predictions: Predictions) -> dict:
    """The emotion part of report.json, but for its groups and folds.

    `utterances` are different clips, here, by speaker and by group. Counts of confusion and calibration, and so macro F1 and
    calibration errors, are over the rows of all seeds together.
    """
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.labels)
    speakers = per_speaker(predictions)
    worst = min(speakers, key=lambda speaker: speakers[speaker]["uar"])
    recalls = metrics.recalls(predictions.confusion)
    return {
        "uar": {**uar_with_interval(predictions), **over_seeds(uar_by_seed(predictions))},
        "accuracy": metrics.accuracy(truth, predicted),
        "macro_f1": metrics.macro_f1(truth, predicted, classes),
        "chance": 1 / len(set(truth.tolist())),
        "utterances": predictions.clips,
        "per_class": {label: number(recall) for label, recall in zip(predictions.labels, recalls, strict=True)},
        "per_speaker": speakers,
        "worst_speaker": {"speaker": worst, **speakers[worst]},
        "spread": deviation([one["uar"] for one in speakers.values()]),
        "confusion": {"labels": list(predictions.labels), "counts": predictions.confusion.tolist()},
        "ece": metrics.calibration_error(truth, predictions.probability),
        "calibration": {
            "temperatures": predictions.temperatures,
            "before": reliability_table(truth, predictions.probability),
            "after": reliability_table(truth, predictions.calibrated),
        },
    }


def uar_with_interval(predictions: Predictions) -> dict:
    """UAR with its 95 % interval over speakers, null with only one of them.

    A speaker's rows are one cluster, those of all seeds: what the seeds say of one clip is alike and must not count as news.
    """
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.labels)
    low, high = metrics.cluster_interval(truth, predicted, predictions.speaker, classes)
    return {"value": metrics.uar(truth, predicted, classes), "low": number(low), "high": number(high)}


def uar_by_seed(predictions: Predictions) -> dict[int, float]:
    parts = {seed: predictions.rows(predictions.seed == seed) for seed in predictions.seeds}
    return {seed: metrics.uar(part.truth, part.predicted, len(part.labels)) for seed, part in parts.items()}


def over_seeds(values: Mapping[int, float]) -> dict:
    """For report.json: each seed's value, and how far they are apart."""
    return {"seeds": {str(seed): value for seed, value in values.items()}, "deviation": deviation(list(values.values()))}


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample (n - 1); None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def per_speaker(predictions: Predictions) -> dict[str, dict]:
    """Each test speaker's UAR, accuracy and number of clips; with several seeds, the mean over them."""
    result = {}
    for speaker in np.unique(predictions.speaker):
        mine = predictions.rows(predictions.speaker == speaker)
        result[str(speaker)] = {
            "uar": metrics.uar(mine.truth, mine.predicted, len(mine.labels)),
            "accuracy": metrics.accuracy(mine.truth, mine.predicted),
            "utterances": mine.clips,
        }
    return result


def reliability_table(truth: np.ndarray, probability: np.ndarray) -> dict:
    """ECE, and the bins of a reliability diagram that hold any clip, from the least confident on."""
    rows = zip(*metrics.reliability(truth, probability), strict=True)
    bins = [{"confidence": float(sure), "accuracy": float(right), "clips": int(clips)} for sure, right, clips in rows if clips]
    return {"ece": metrics.calibration_error(truth, probability), "bins": bins}


def group_columns(utterances: Sequence[Utterance], by: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The columns [N] of tested clips to report by: those of GROUPS with 2 to 20 values, and all of `by`.

    What is empty is not known and counts as no value. Raises RunError for a column in `by` that is unknown or all empty.
    """
    columns = {name: np.array([getattr(one, name) for one in utterances]) for name in GROUPABLE}
    for name in by:
        if name not in columns:
            raise RunError(unknown("column", name, GROUPABLE))
        if not any(columns[name]):
            raise RunError(f"column '{name}' is empty for every test clip; filled are {shorten(filled(columns), 10)}")
    usual = [name for name in GROUPS if 2 <= len(set(columns[name]) - {""}) <= MOST_GROUPS]
    return {name: columns[name] for name in dict.fromkeys([*usual, *by])}


def filled(columns: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, values in columns.items() if any(values)]


def by_group(predictions: Predictions, columns: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Results for each value of each column [N]; clips whose value is not known ("") are in no group.

    Groups can differ in their speakers and emotions as well as in the column: a difference is a lead, not a cause.
    """
    return {
        name: {str(value): group(predictions.rows(values == value)) for value in np.unique(values) if value}
        for name, values in columns.items()
    }


def group(predictions: Predictions) -> dict:
    return {
        "uar": uar_with_interval(predictions),
        "accuracy": metrics.accuracy(predictions.truth, predictions.predicted),
        "utterances": predictions.clips,
        "speakers": len(set(predictions.speaker)),
    }


def number(value: float) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return None if math.isnan(value) else float(value)
