"""Predictions of a run's models for their test utterances, and predictions.csv.

N rows (a test utterance has one row for each seed), C emotions. All emotion results are computed from `Predictions`, so that two
runs, a table read from disk and a fresh evaluation are measured by the same code.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.tables.columns import read_columns
from speaker_invariant_ser.errors import ManifestError, RunError, quoted, shorten, shown
from speaker_invariant_ser.evaluation.dimensions.results import DimensionValues, join_values
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.models.calibration import apply_temperature, fit_temperature
from speaker_invariant_ser.runs import with_seed

PREDICTIONS = "predictions.csv"
ARRAYS = ("id", "speaker", "fold", "seed", "truth", "probability")
SUM_TOLERANCE = 1e-3  # of an utterance's probabilities


@dataclass(frozen=True)
class Predictions:
    """Predictions for all test utterances of all folds, one row for each utterance and seed.

    All seeds are tested on the same utterances. A class, a speaker or a group therefore has as many rows of one seed as of
    another: a recall over all rows is the mean of the seeds' recalls, and so are UAR and accuracy.

    Attributes:
        labels: Names of the C emotions.
        id: Utterance ids [N].
        speaker: Speakers [N].
        fold: Names of the folds [N].
        seed: Training seeds [N], integers.
        truth: True emotions [N] as positions in `labels`.
        probability: Emotion probabilities [N, C] of the model, before any temperature.
        temperatures: Temperature by the name of the model; a model without one has temperature 1.
        dimensions: Predictions of arousal, valence and dominance, where the models have them.
    """

    labels: tuple[str, ...]
    id: np.ndarray
    speaker: np.ndarray
    fold: np.ndarray
    seed: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    temperatures: dict[str, float] = field(default_factory=dict)
    dimensions: DimensionValues | None = None

    @property
    def predicted(self) -> np.ndarray:
        """The most probable emotion of each row [N], as positions in `labels`."""
        return self.probability.argmax(axis=1)

    @property
    def seeds(self) -> list[int]:
        """The different seeds, ascending."""
        return np.unique(self.seed).tolist()

    @property
    def utterances(self) -> int:
        """Number of different test utterances, whatever the number of seeds."""
        return len(self.truth) // len(self.seeds)

    @property
    def calibrated(self) -> np.ndarray:
        """Probabilities [N, C] after temperature scaling."""
        names = [(with_seed(fold, seed), fold) for fold, seed in zip(self.fold, self.seed, strict=True)]
        temperature = [self.temperatures.get(model, self.temperatures.get(fold, 1.0)) for model, fold in names]
        return apply_temperature(self.probability, np.array(temperature)[:, None])

    @property
    def confusion(self) -> np.ndarray:
        """Counts [C, C], row the true class; an utterance counts once for each seed."""
        return metrics.confusion(self.truth, self.predicted, len(self.labels))

    def rows(self, selection: np.ndarray) -> "Predictions":
        """Return the rows given by a mask or by positions."""
        dimensions = self.dimensions and self.dimensions.rows(selection)
        return replace(self, **{name: getattr(self, name)[selection] for name in ARRAYS}, dimensions=dimensions)


def join(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate the predictions of several models, which have the same labels."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    temperatures = {name: value for part in parts for name, value in part.temperatures.items()}
    dimensions = join_values([part.dimensions for part in parts])
    return Predictions(parts[0].labels, **arrays, temperatures=temperatures, dimensions=dimensions)


def with_temperatures_of_other_folds(predictions: Predictions) -> Predictions:
    """Fit the temperature of each model on what the models of the other folds predict of their own test speakers.

    No model has learned from the speakers that it predicts there, and no utterance of a model's test speakers decides about its
    temperature. The other models have learned from these speakers, as from all but their own.

    Args:
        predictions: Predictions without temperatures.

    Returns:
        The same with a temperature for each model, or without any where all folds test the same speakers.
    """
    temperatures = {}
    for seed in predictions.seeds:
        for fold in np.unique(predictions.fold[predictions.seed == seed]):
            tested = np.isin(predictions.speaker, predictions.speaker[predictions.fold == fold])
            others = predictions.rows((predictions.seed == seed) & ~tested)
            if len(others.truth):
                name = with_seed(str(fold), seed) if len(predictions.seeds) > 1 else str(fold)
                temperatures[name] = fit_temperature(others.truth, others.probability)
    return replace(predictions, temperatures=temperatures)


def write_predictions(path: Path | str, predictions: Predictions) -> None:
    """Write one CSV row for each utterance and seed, with the model's probabilities before any temperature.

    Raises:
        WriteError: The file cannot be written.
    """
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
    if predictions.dimensions:
        columns |= {name: pyarrow.array(values, from_pandas=True) for name, values in predictions.dimensions.columns().items()}
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(columns), file)


def read_predictions(path: Path | str) -> Predictions:
    """Read what `write_predictions` wrote; temperatures are not part of the table.

    A table without the column `seed` was written for a single seed, which is returned as 0.

    Raises:
        RunError: The table is missing or damaged; the message says how to write it again.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"no {path.name} in {path.parent}; evaluate it first with `siser evaluate {quoted(path.parent)}`")
    try:
        return from_columns(read_columns(path, {}))
    except (ManifestError, ValueError, OverflowError) as error:
        raise RunError(f"{path} is damaged ({error}); write it again with `siser evaluate {quoted(path.parent)}`") from None


def from_columns(columns: Mapping[str, list[str]]) -> Predictions:
    """Build predictions from the cells of predictions.csv.

    Raises:
        ValueError: A column is missing, or a cell has no valid value.
    """
    missing = [name for name in ("id", "speaker", "fold", "emotion") if name not in columns]
    if missing:
        raise ValueError(f"no column {shorten(missing)}")
    labels = tuple(name.removeprefix("p_") for name in columns if name.startswith("p_"))
    unknown_emotions = set(columns["emotion"]) - set(labels)
    if unknown_emotions or not labels:
        raise ValueError(f"no column of probabilities for emotion {shorten(sorted(unknown_emotions))}")
    with np.errstate(over="ignore"):  # a number beyond single precision is infinite
        probability = np.array([columns[f"p_{label}"] for label in labels], dtype=np.float32).T
    if not len(probability) or not np.isfinite(probability).all():
        raise ValueError("no rows, or a probability that is not finite")
    wrong = (probability < 0).any(axis=1) | (abs(probability.sum(axis=1) - 1) > SUM_TOLERANCE)
    if wrong.any():
        raise ValueError(f"the probabilities in row {wrong.argmax() + 1} are negative or do not add up to 1")
    seed = np.array(columns.get("seed", ["0"] * len(probability)), dtype=np.int64)
    rows = Counter(zip(columns["id"], columns["fold"], seed.tolist(), strict=True))
    if repeated := [row for row, count in rows.items() if count > 1]:
        raise ValueError(f"id, fold and seed {', '.join(map(shown, repeated[0]))} have two rows")
    predictions = Predictions(
        labels=labels,
        id=np.array(columns["id"]),
        speaker=np.array(columns["speaker"]),
        fold=np.array(columns["fold"]),
        seed=seed,
        truth=np.array([labels.index(emotion) for emotion in columns["emotion"]]),
        probability=probability,
        dimensions=DimensionValues.from_columns(columns),
    )
    require_same_utterances_of_seeds(predictions)
    return predictions


def require_same_utterances_of_seeds(predictions: Predictions) -> None:
    """Raise ValueError unless every seed was tested on the same utterances: pooled results are means over seeds only then."""
    first, *others = (np.sort(predictions.id[predictions.seed == seed]) for seed in predictions.seeds)
    for seed, ids in zip(predictions.seeds[1:], others, strict=True):
        if not np.array_equal(first, ids):
            raise ValueError(f"seed {seed} has other utterances than seed {predictions.seeds[0]}")
