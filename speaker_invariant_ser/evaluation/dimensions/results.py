"""Arousal, valence and dominance on unseen speakers: predicted and rated values, and how well they agree.

N rows, as in `Predictions`; R dimensions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import DIMENSIONS, Utterance
from speaker_invariant_ser.evaluation.dimensions.parts import Ccc, DimensionResult, MeanCcc

RATED = "rated_"  # before the name of a dimension: the column of its ratings in predictions.csv
Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class DimensionValues:
    """Values of dimensions, 0 to 1.

    Attributes:
        names: The R dimensions.
        predicted: What models predict [N, R].
        rated: The ratings [N, R]; NaN where an utterance has none.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    rated: np.ndarray

    @classmethod
    def of(
        cls, names: tuple[str, ...], predicted: np.ndarray | None, utterances: Sequence[Utterance]
    ) -> "DimensionValues | None":
        """Return what a model predicts for utterances, with their ratings; None for a model without dimensions."""
        if predicted is None:
            return None
        rated = np.array([[getattr(utterance, name) for name in names] for utterance in utterances], dtype=np.float64)
        return cls(names, predicted, rated.reshape(len(utterances), len(names)))

    def rows(self, selection: np.ndarray) -> "DimensionValues":
        """Return the rows given by a mask or by positions."""
        return DimensionValues(self.names, self.predicted[selection], self.rated[selection])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of predictions.csv: predictions by dimension, then ratings."""
        predicted = {name: self.predicted[:, column] for column, name in enumerate(self.names)}
        return predicted | {RATED + name: self.rated[:, column] for column, name in enumerate(self.names)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[str]]) -> "DimensionValues | None":
        """Return what `columns` gave, from cells of text; None if there are no such columns.

        Raises:
            ValueError: A cell is no number from 0 to 1.
        """
        names = tuple(name for name in columns if name in DIMENSIONS and RATED + name in columns)
        if not names:
            return None
        predicted = np.array([columns[name] for name in names], dtype=np.float64).T
        rated = np.array([[cell or "nan" for cell in columns[RATED + name]] for name in names], dtype=np.float64).T
        if not ((predicted >= 0) & (predicted <= 1)).all() or not (np.isnan(rated) | ((rated >= 0) & (rated <= 1))).all():
            raise ValueError(f"a value of {' or '.join(names)} is not from 0 to 1")
        return cls(names, predicted, rated)


def join_values(parts: Sequence[DimensionValues | None]) -> DimensionValues | None:
    """Concatenate the values of several models with the same dimensions; None if they have none."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return DimensionValues(
        known[0].names, np.concatenate([part.predicted for part in known]), np.concatenate([part.rated for part in known])
    )


def dimension_results(values: DimensionValues, speaker: np.ndarray, seed: np.ndarray) -> dict[str, DimensionResult]:
    """Compute the results on each dimension over the utterances that have a rating of it.

    Args:
        values: Predictions and ratings.
        speaker: Speakers [N].
        seed: Training seeds [N]; every utterance has one row for each. Scores are means of those of the seeds.

    Returns:
        Results by dimension; none for a dimension that no test utterance has a rating of.
    """
    results = {}
    for column, name in enumerate(values.names):
        rows = ~np.isnan(values.rated[:, column])
        if rows.any():
            results[name] = result(values.rated[rows, column], values.predicted[rows, column], speaker[rows], seed[rows])
    return results


def result(rated: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, seed: np.ndarray) -> DimensionResult:
    """Compute the results on one dimension, from ratings and predictions [N]."""
    by_seed = scores_by_seed(metrics.ccc, rated, predicted, seed)
    speakers = {str(name): over_seeds(metrics.ccc, speaker == name, rated, predicted, seed) for name in np.unique(speaker)}
    everyone = np.ones(len(rated), dtype=bool)
    low = high = math.nan
    if len(speakers) >= metrics.MIN_CLUSTERS:
        low, high = metrics.ccc_interval(rated, predicted, speaker, seed)
    defined = np.array([value for value in speakers.values() if value is not None])
    deviation = float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else None
    return DimensionResult(
        ccc=Ccc(
            value=over_seeds(metrics.ccc, everyone, rated, predicted, seed),
            low=metrics.none_if_nan(low),
            high=metrics.none_if_nan(high),
            seeds={name: value for name, value in by_seed.items() if not math.isnan(value)},
            deviation=None if deviation is None else metrics.none_if_nan(deviation),
        ),
        ccc_mean_over_speakers=mean_speaker_ccc(defined),
        pearson=over_seeds(metrics.pearson, everyone, rated, predicted, seed),
        rmse=over_seeds(metrics.rmse, everyone, rated, predicted, seed),
        utterances=len(rated) // len(np.unique(seed)),
        per_speaker=speakers,
    )


def scores_by_seed(measure: Measure, rated: np.ndarray, predicted: np.ndarray, seed: np.ndarray) -> dict[str, float]:
    """Return the score of each seed, by its number as text."""
    return {str(number): measure(rated[seed == number], predicted[seed == number]) for number in np.unique(seed)}


def over_seeds(measure: Measure, rows: np.ndarray, rated: np.ndarray, predicted: np.ndarray, seed: np.ndarray) -> float | None:
    """Return the mean over seeds of a score of some rows; None where it is undefined, as for a speaker with equal ratings."""
    if measure is metrics.ccc and np.ptp(rated[rows]) == 0:
        return None
    return metrics.none_if_nan(fmean(scores_by_seed(measure, rated[rows], predicted[rows], seed[rows]).values()))


def mean_speaker_ccc(values: np.ndarray) -> MeanCcc:
    """Return the mean of the speakers' CCCs [K] with its 95 % interval over speakers, None for fewer than three."""
    if not len(values):
        return MeanCcc(value=None, low=None, high=None)
    low, high = metrics.mean_interval(values) if len(values) >= metrics.MIN_CLUSTERS else (math.nan, math.nan)
    return MeanCcc(value=float(values.mean()), low=metrics.none_if_nan(low), high=metrics.none_if_nan(high))
