"""Metrics as pure functions of numpy arrays. Labels are integers from 0 to C-1."""

import numpy as np

from speaker_invariant_ser.errors import SerError, counted
from speaker_invariant_ser.indexing import to_indices


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count predictions by true and predicted class.

    Args:
        truth: True labels [N].
        predicted: Predicted labels [N].
        classes: Number of classes C.

    Returns:
        Counts [C, C], rows true classes, columns predicted ones.

    Raises:
        SerError: A list is empty, the lists differ in length, or a label is not an integer from 0 to C-1.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    truth, predicted = valid_labels(truth, classes, "truth"), valid_labels(predicted, classes, "predictions")
    require_same_length(truth, predicted)
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def valid_labels(labels: np.ndarray, classes: int, name: str) -> np.ndarray:
    """Return labels as integers [N]; raise SerError if there are none, or if one is not an integer from 0 to C-1."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise SerError(f"{name}: expected a list of at least one label, not an array of shape {labels.shape}")
    wrong = labels[~np.isin(labels, np.arange(classes))]
    if wrong.size:
        raise SerError(f"{name}: label {wrong[0]} is not an integer from 0 to {classes - 1}")
    return labels.astype(np.int64)


def require_same_length(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Raise SerError unless two lists have the same length."""
    if truth.shape != predicted.shape:
        raise SerError(f"truth {truth.shape} and predictions {predicted.shape} must be two lists of one length")


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Return the recall of each class [..., C] from confusion matrices [..., C, C]; NaN for a class that does not occur."""
    true = matrix.sum(axis=-1)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.divide(correct, true, out=np.full(true.shape, np.nan), where=true > 0)


def uar(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Compute the unweighted average recall (UAR), the mean recall of the classes that occur in `truth`.

    It equals scikit-learn's `balanced_accuracy_score(truth, predicted)`.

    Args:
        truth: True labels [N].
        predicted: Predicted labels [N].
        classes: Number of classes C.

    Returns:
        The UAR, 0 to 1.

    Raises:
        SerError: As `confusion`.

    >>> uar(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    0.75
    """
    return float(mean_recall(confusion(truth, predicted, classes)))


def mean_recall(matrix: np.ndarray) -> np.ndarray:
    """Return the UAR [...] of confusion matrices [..., C, C]; NaN where a matrix is empty."""
    by_class = recalls(matrix)
    known = ~np.isnan(by_class)
    total = np.where(known, by_class, 0.0).sum(axis=-1)
    return np.divide(total, known.sum(axis=-1), out=np.full(total.shape, np.nan), where=known.any(axis=-1))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of correct predictions, 0 to 1; raise SerError for empty lists or lists of different length."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    require_same_length(truth, predicted)
    if not truth.size:
        raise SerError("accuracy of no predictions is undefined; at least one is needed")
    return float(np.mean(truth == predicted))


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Compute the mean F1 of the classes that occur in `truth`, which are those of the UAR.

    A class that is predicted but does not occur has no F1; it lowers the recall of others. The result equals scikit-learn's
    `f1_score(truth, predicted, average="macro", labels=np.unique(truth))`.

    Args:
        truth: True labels [N].
        predicted: Predicted labels [N].
        classes: Number of classes C.

    Returns:
        The macro F1, 0 to 1.

    Raises:
        SerError: As `confusion`.
    """
    matrix = confusion(truth, predicted, classes)
    true, predictions = matrix.sum(axis=1), matrix.sum(axis=0)
    return float(np.mean((2 * np.diagonal(matrix) / np.maximum(1, true + predictions))[true > 0]))


MIN_CLUSTERS = 3  # for an interval that is shown: two clusters have three different resamples, and too narrow an interval


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute a reliability diagram, over bins of equal width in confidence. DeGroot and Fienberg, 1983.

    Args:
        truth: True labels [N].
        probabilities: Class probabilities [N, C]; the highest of an utterance is its confidence.
        bins: Number of bins between 0 and 1.

    Returns:
        Mean confidence, accuracy, and number of utterances of each bin, each [bins]; the first two are NaN for an empty bin.

    Raises:
        SerError: Empty input, an invalid label, or probabilities of another shape or range.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise SerError(
            f"probabilities of {counted(len(truth), 'utterance')} must be [{len(truth)}, C], not {list(probabilities.shape)}"
        )
    truth = valid_labels(truth, probabilities.shape[1], "truth")
    confidence = probabilities.max(axis=1).astype(float)
    if not (confidence >= 0).all() or not (confidence <= 1 + 1e-5).all():
        raise SerError("probabilities must lie between 0 and 1; some do not, or are NaN")
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    correct = probabilities.argmax(axis=1) == truth
    sums = (np.bincount(bin_of, weights=weights, minlength=bins) for weights in (confidence, correct))
    mean_confidence, share_correct = (np.divide(s, counts, out=np.full(bins, np.nan), where=counts > 0) for s in sums)
    return mean_confidence, share_correct, counts


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Compute the expected calibration error: |confidence - accuracy| of the bins of `reliability`, weighted by their size.

    Naeini, Cooper and Hauskrecht, AAAI 2015.

    Args:
        truth: True labels [N].
        probabilities: Class probabilities [N, C].
        bins: Number of bins between 0 and 1.

    Returns:
        The error, 0 to 1.

    Raises:
        SerError: As `reliability`.
    """
    confidence, correct, counts = reliability(truth, probabilities, bins)
    return float(np.nansum(counts * np.abs(confidence - correct)) / counts.sum())


def cluster_interval(
    truth: np.ndarray,
    predicted: np.ndarray,
    clusters: np.ndarray,
    classes: int,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95 % bootstrap confidence interval of the UAR by resampling whole clusters.

    Utterances of a speaker are correlated, so that resampling utterances gives too narrow an interval. A drawn cluster comes with
    all its utterances: resampling these as well would count their noise twice. A resample without some class is scored on the
    others. With few clusters the interval is too narrow: with ten, its coverage is about 90 %. Percentile method, Efron and
    Tibshirani, 1993; clusters as units, Field and Welsh, 2007.

    Args:
        truth: True labels [N].
        predicted: Predicted labels [N].
        clusters: Speaker (or text) of each utterance [N].
        classes: Number of classes C.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Lower and upper bound, both NaN with fewer than two clusters.

    Raises:
        SerError: As `confusion`, or the number of clusters is not N.
    """
    truth, predicted = valid_labels(truth, classes, "truth"), valid_labels(predicted, classes, "predictions")
    require_same_length(truth, predicted)
    if len(clusters) != len(truth):
        raise SerError(
            f"{counted(len(clusters), 'cluster')} for {counted(len(truth), 'prediction')}: expected one per prediction"
        )
    members = to_indices(clusters)
    count = int(members.max()) + 1
    if count < 2:
        return float("nan"), float("nan")
    cells = (members * classes + truth) * classes + predicted
    tables = np.bincount(cells, minlength=count * classes**2).reshape(count, classes**2)
    drawn = draw_clusters(count, resamples, seed)
    return central_interval(mean_recall((drawn @ tables).reshape(resamples, classes, classes)))


def draw_clusters(count: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each of so many clusters is in each bootstrap resample, [resamples, count]."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)


def central_interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the central 95 % of the scores of resamples [R], undefined ones (NaN) left out; both bounds are NaN without any."""
    if np.isnan(scores).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of a mean (Efron and Tibshirani, 1993).

    Args:
        values: One value for each speaker [K].
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Lower and upper bound, both NaN with fewer than two values.

    >>> mean_interval(np.array([0.5, 0.5])), mean_interval(np.array([0.5]))
    ((0.5, 0.5), (nan, nan))
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def ccc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the concordance correlation coefficient (CCC): 1 for predictions that equal the truth. Lin, Biometrics 45, 1989.

    It is Pearson's correlation, reduced where predictions have another mean or deviation than the truth. A constant prediction
    has 0. Variances are those of the population (1 / N).

    Args:
        truth: True values [N].
        predicted: Predicted values [N].

    Returns:
        The coefficient, -1 to 1; NaN where truth and predictions are the same constant.

    Raises:
        SerError: The lists are empty, of different length, or hold a value that is not finite.

    >>> ccc(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))  # 2 * 2/3 / (2/3 + 2/3 + 1)
    0.571428...
    """
    return float(ccc_of_moments(moments(*valid_values(truth, predicted)).sum(axis=0)))


def valid_values(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two lists of numbers as float64 [N]; raise SerError if they are empty, of different length, or not finite."""
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    require_same_length(truth, predicted)
    if truth.ndim != 1 or not truth.size:
        raise SerError(f"truth and predictions: expected lists of at least one value, not arrays of shape {truth.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(predicted).all()):
        raise SerError("truth and predictions must be finite; some are NaN or infinite")
    return truth, predicted


def moments(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return what a CCC is computed from the sums of, for lists x and y [N]: 1, x, y, x x, y y and x y, [N, 6]."""
    return np.stack((np.ones_like(truth), truth, predicted, truth * truth, predicted * predicted, truth * predicted), axis=1)


def ccc_of_moments(sums: np.ndarray) -> np.ndarray:
    """Return the CCC [...] of sums [..., 6], see `moments`; NaN where it is undefined."""
    number, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    # N squared times covariance, variances and squared difference of the means
    both, each = number * xy - x * y, number * (xx + yy) - x * x - y * y + (x - y) ** 2
    defined = each > 1e-12 * np.maximum(number, 1) ** 2
    return np.clip(np.divide(2 * both, each, out=np.full(np.shape(number), np.nan), where=defined), -1, 1)


def ccc_interval(
    truth: np.ndarray,
    predicted: np.ndarray,
    clusters: np.ndarray,
    seeds: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of the CCC by resampling whole clusters, as `cluster_interval` does for the UAR.

    Args:
        truth: True values [N].
        predicted: Predicted values [N].
        clusters: Speaker of each utterance [N].
        seeds: Training seed of each prediction [N]; the score of a resample is the mean of the CCCs of all seeds.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Lower and upper bound, both NaN with fewer than two clusters.

    Raises:
        SerError: As `ccc`.
    """
    truth, predicted = valid_values(truth, predicted)
    members, runs = to_indices(clusters), to_indices(np.zeros(len(truth)) if seeds is None else seeds)
    count, parts = int(members.max()) + 1, int(runs.max()) + 1
    if count < 2:
        return float("nan"), float("nan")
    sums = np.zeros((count, parts, 6))
    np.add.at(sums, (members, runs), moments(truth, predicted))
    drawn = draw_clusters(count, resamples, seed)
    return central_interval(ccc_of_moments(np.tensordot(drawn, sums, axes=1)).mean(axis=1))


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Pearson's correlation of two lists [N]; NaN where one is constant; raise SerError as `ccc` does."""
    truth, predicted = valid_values(truth, predicted)
    deviations = truth - truth.mean(), predicted - predicted.mean()
    scale = np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum())
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 1e-12 else float("nan")


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the root of the mean squared error of two lists [N]; raise SerError as `ccc` does."""
    truth, predicted = valid_values(truth, predicted)
    return float(np.sqrt(np.mean((truth - predicted) ** 2)))


def none_if_nan(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)
