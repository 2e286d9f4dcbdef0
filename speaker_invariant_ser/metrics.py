"""Metrics as pure functions: numpy in, float out. Labels are integers 0 .. C-1."""

import numpy as np

from speaker_invariant_ser.errors import SerError


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [C, C], row the true class, column the predicted one."""
    truth, predicted = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise SerError(f"truth {truth.shape} and predictions {predicted.shape} must be two lists of one length")
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class [..., C] from confusion matrices [..., C, C]; NaN for a class that never occurs."""
    occurs = matrix.sum(axis=-1)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.divide(hits, occurs, out=np.full(occurs.shape, np.nan), where=occurs > 0)


def uar(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Unweighted average recall: the mean over the classes that occur in `truth`, 0 to 1.

    Equal to scikit-learn's `balanced_accuracy_score(truth, predicted)`. NaN without any utterance.
    """
    return float(mean_recall(confusion(truth, predicted, classes)))


def mean_recall(matrix: np.ndarray) -> np.ndarray:
    """UAR [...] of confusion matrices [..., C, C]."""
    each = recalls(matrix)
    known = ~np.isnan(each)
    total = np.where(known, each, 0.0).sum(axis=-1)
    return np.divide(total, known.sum(axis=-1), out=np.full(total.shape, np.nan), where=known.any(axis=-1))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of right predictions, 0 to 1."""
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1: |confidence - accuracy| over equally wide bins of confidence, weighted by size.

    `probabilities` is [N, C]. Source: Naeini, Cooper, Hauskrecht, AAAI 2015.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def cluster_interval(
    truth: np.ndarray,
    predicted: np.ndarray,
    clusters: np.ndarray,
    classes: int,
    score=mean_recall,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of a score, resampling whole clusters: (low, high), both NaN with fewer than two clusters.

    Utterances of one speaker are alike, so an interval that resamples utterances is too narrow; `clusters` [N] names
    the speaker (or text) of each. `score` maps confusion matrices [..., C, C] to numbers [...]. Percentile method,
    Efron and Tibshirani 1993; clusters as units, Field and Welsh 2007.
    """
    names, members = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    cells = members * classes**2 + np.asarray(truth) * classes + np.asarray(predicted)
    tables = np.bincount(cells, minlength=len(names) * classes**2).reshape(len(names), classes**2)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    scores = score((drawn @ tables).reshape(resamples, classes, classes))
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)


def hit_rate(matrix: np.ndarray) -> np.ndarray:
    """Accuracy [...] of confusion matrices [..., C, C]."""
    return np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1) / matrix.sum(axis=(-2, -1))
