"""Metrics as pure functions: numpy in, float out. Labels are integers 0 .. C-1."""

from collections.abc import Callable

import numpy as np

from speaker_invariant_ser.errors import SerError


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [C, C], row the true class, column the predicted one. Raises SerError for empty or unequal lists, or odd labels."""
    truth, predicted = checked(truth, classes, "truth"), checked(predicted, classes, "predictions")
    require_same_length(truth, predicted)
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def checked(labels: np.ndarray, classes: int, name: str) -> np.ndarray:
    """Labels as integers [N]. Raises SerError if there are none, or if one is no integer from 0 to C-1."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise SerError(f"{name}: a list of at least one label is needed, not an array of shape {labels.shape}")
    wrong = labels[~np.isin(labels, np.arange(classes))]
    if wrong.size:
        raise SerError(f"{name}: label {wrong[0]} is none of the integers 0 to {classes - 1}")
    return labels.astype(np.int64)


def require_same_length(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.shape != predicted.shape:
        raise SerError(f"truth {truth.shape} and predictions {predicted.shape} must be two lists of one length")


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class [..., C] from confusion matrices [..., C, C]; NaN for a class that never occurs."""
    occurs = matrix.sum(axis=-1)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.divide(hits, occurs, out=np.full(occurs.shape, np.nan), where=occurs > 0)


def uar(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Unweighted average recall: the mean over the classes that occur in `truth`, 0 to 1.

    Equal to scikit-learn's `balanced_accuracy_score(truth, predicted)`. Raises SerError without any utterance.
    """
    return float(mean_recall(confusion(truth, predicted, classes)))


def mean_recall(matrix: np.ndarray) -> np.ndarray:
    """UAR [...] of confusion matrices [..., C, C]; NaN where a matrix counts nothing."""
    each = recalls(matrix)
    known = ~np.isnan(each)
    total = np.where(known, each, 0.0).sum(axis=-1)
    return np.divide(total, known.sum(axis=-1), out=np.full(total.shape, np.nan), where=known.any(axis=-1))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of right predictions, 0 to 1. Raises SerError without any, or for lists of different length."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    require_same_length(truth, predicted)
    if not truth.size:
        raise SerError("accuracy of no predictions is undefined; at least one is needed")
    return float(np.mean(truth == predicted))


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Mean F1 over the classes that occur in `truth`, 0 to 1: the classes that UAR has.

    A class that is only ever predicted has no F1 of its own; it costs the recall of the true ones. Equal to scikit-learn's
    `f1_score(truth, predicted, average="macro", labels=np.unique(truth))`.
    """
    matrix = confusion(truth, predicted, classes)
    occurs, named = matrix.sum(axis=1), matrix.sum(axis=0)
    return float(np.mean((2 * np.diagonal(matrix) / np.maximum(1, occurs + named))[occurs > 0]))


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean confidence, accuracy, clips), each [bins], of clips in equally wide bins of confidence from 0 to 1.

    `probabilities` is [N, C]; confidence is a clip's highest. NaN where a bin is empty. Source: DeGroot and Fienberg 1983.
    Raises SerError for empty input, labels out of 0 .. C-1, or probabilities of another shape or range.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise SerError(f"probabilities of {len(truth)} clips must be [{len(truth)}, classes], not {list(probabilities.shape)}")
    truth = checked(truth, probabilities.shape[1], "truth")
    confidence = probabilities.max(axis=1).astype(float)
    if not (confidence >= 0).all() or not (confidence <= 1 + 1e-5).all():
        raise SerError("probabilities must lie between 0 and 1; these do not, or hold NaN")
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    clips = np.bincount(bin_of, minlength=bins)
    right = probabilities.argmax(axis=1) == truth
    sums = (np.bincount(bin_of, weights=weights, minlength=bins) for weights in (confidence, right))
    return *(np.divide(total, clips, out=np.full(bins, np.nan), where=clips > 0) for total in sums), clips


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1: |confidence - accuracy| over equally wide bins of confidence, weighted by size.

    `probabilities` is [N, C]. Source: Naeini, Cooper, Hauskrecht, AAAI 2015. Raises SerError as `reliability` does.
    """
    confidence, right, clips = reliability(truth, probabilities, bins)
    return float(np.nansum(clips * np.abs(confidence - right)) / clips.sum())


def cluster_interval(
    truth: np.ndarray,
    predicted: np.ndarray,
    clusters: np.ndarray,
    classes: int,
    score: Callable[[np.ndarray], np.ndarray] = mean_recall,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of a score, resampling whole clusters: (low, high), both NaN with fewer than two clusters.

    Utterances of one speaker are alike, so an interval that resamples utterances is too narrow; `clusters` [N] names
    the speaker (or text) of each. `score` maps confusion matrices [..., C, C] to numbers [...]; a resample that lacks a
    class is scored on those it has, and one whose score is NaN is passed over. A drawn cluster comes with all its
    utterances: to draw among these again would count their noise twice. A handful of clusters tells little of how much
    they vary: with ten, the interval holds the truth about 9 times in 10. Percentile method, Efron and Tibshirani 1993;
    clusters as units, Field and Welsh 2007. Raises SerError as `confusion` does, or unless there are N clusters.
    """
    truth, predicted = checked(truth, classes, "truth"), checked(predicted, classes, "predictions")
    require_same_length(truth, predicted)
    if len(clusters) != len(truth):
        raise SerError(f"{len(clusters)} clusters for {len(truth)} predictions: each prediction needs one")
    names, members = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    cells = (members * classes + truth) * classes + predicted
    tables = np.bincount(cells, minlength=len(names) * classes**2).reshape(len(names), classes**2)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    scores = score((drawn @ tables).reshape(resamples, classes, classes))
    if np.isnan(scores).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)


def hit_rate(matrix: np.ndarray) -> np.ndarray:
    """Accuracy [...] of confusion matrices [..., C, C]."""
    return np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1) / matrix.sum(axis=(-2, -1))
