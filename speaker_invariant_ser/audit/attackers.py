"""Attackers: fresh classifiers that predict the speaker from embeddings.

An attacker takes no part in the training that it judges. It is fitted within one fold of the audit: it standardises its
inputs with the statistics of that fold's training utterances, and its setting (regularisation, neighbours ...) is chosen on
a part of them, so that the scored utterances influence neither. All but the frame-level attacker are scikit-learn's.

To add an attacker, write a function `(setting, seed) -> classifier` and enter it in `ATTACKERS`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_chunked
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

MAX_TUNING_UTTERANCES = 3000  # a setting is chosen on at most this many utterances
MAX_LDA_DIMENSIONS, MAX_QDA_DIMENSIONS = 1024, 512  # of wider embeddings these see the first principal components
TRACE = 1e-7  # of shrinkage: finds what is in directions of almost no variance, down to the rounding of 11 binary digits
MAX_ITERATIONS = 500  # of the logistic regression
MIN_PROBABILITY, MIN_DISTANCE = 1e-300, 1e-9  # whose logarithms and inverses are finite
MIN_LOG_POSTERIOR = -1000.0  # of a speaker whom an attacker rules out; finite in half precision
INTERRUPTED = "Training interrupted by user"  # warning of scikit-learn's networks, which swallow Ctrl-C and return half trained

Inputs = np.ndarray | Sequence[np.ndarray]  # embeddings [N, D], or frame-level features of N utterances, each [F, T]


@dataclass(frozen=True)
class Attacker:
    """A kind of classifier and the settings to choose from.

    Attributes:
        make: Returns an unfitted classifier for a setting and a seed.
        settings: Candidates of what is tuned.
        linear: Whether decision boundaries are linear.
        quick: Whether the attacker is closed-form or nearly so; these are the ones that `--quick` and the controls use.
        input: "embedding", or "frames" for the encoder's frame-level features before pooling.
        min_utterances: Utterances of a speaker that are needed to fit it; it does not know speakers who have fewer.
        max_dimensions: Dimensions that it is fitted on; the first principal components of more. None: all.
        max_utterances: Utterances that it is fitted on; a sample of more.
    """

    make: Callable[[Any, int], ClassifierMixin]
    settings: tuple
    linear: bool = False
    quick: bool = False
    input: str = "embedding"
    min_utterances: int = 1
    max_dimensions: int | None = None
    max_utterances: int = 200_000


def fit_tuned(
    attacker: Attacker, inputs: Inputs, speaker: np.ndarray, tuning: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[ClassifierMixin, np.ndarray, bool]:
    """Choose an attacker's setting by validation accuracy, then fit it on all given utterances.

    Args:
        attacker: The attacker.
        inputs: Embeddings [N, D] or frame-level features of N utterances.
        speaker: Speaker of each utterance [N].
        tuning: Positions within these utterances (to fit on, to validate on [V]) for the choice of the setting.
        seed: Seed of the classifier and of subsampling.

    Returns:
        The fitted classifier; whether the chosen setting was correct on each validation utterance [V], which may serve to choose
        among attackers; and whether the fit converged.
    """
    fitted_on, validated_on = tuning
    correct_by_setting = []
    for setting in attacker.settings:
        trial, _ = fit(attacker, setting, select_rows(inputs, fitted_on), speaker[fitted_on], seed)
        correct_by_setting.append(trial.predict(select_rows(inputs, validated_on)) == speaker[validated_on])
    best = int(np.argmax([correct.mean() for correct in correct_by_setting]))
    fitted, converged = fit(attacker, attacker.settings[best], inputs, speaker, seed)
    return fitted, correct_by_setting[best], converged


def fit(attacker: Attacker, setting: object, inputs: Inputs, speaker: np.ndarray, seed: int) -> tuple[Pipeline, bool]:
    """Fit an attacker with a given setting on at most `max_utterances` of the utterances.

    Args:
        attacker: The attacker.
        setting: One of its settings.
        inputs: Embeddings [N, D] or frame-level features of N utterances.
        speaker: Speaker of each utterance [N].
        seed: Seed of the classifier and of subsampling.

    Returns:
        The fitted pipeline of standardisation (embeddings only), PCA where needed, and classifier; and whether it converged
        before the limit of its iterations. An attacker that did not is still an attacker.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C, also where scikit-learn turned that into a warning.
    """
    known = np.flatnonzero(np.bincount(speaker)[speaker] >= attacker.min_utterances)
    rows = known[sample_utterances(speaker[known], attacker.max_utterances, seed)]
    steps: list[BaseEstimator] = [StandardScaler()] if attacker.input == "embedding" else []
    if attacker.max_dimensions and isinstance(inputs, np.ndarray) and inputs.shape[1] > attacker.max_dimensions:
        steps.append(PCA(min(attacker.max_dimensions, len(rows)), svd_solver="full", random_state=seed))
    model = make_pipeline(*steps, attacker.make(setting, seed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # such as that of singular data
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.filterwarnings("error", message=INTERRUPTED)
        try:
            return model.fit(select_rows(inputs, rows), speaker[rows]), not caught
        except UserWarning:
            raise KeyboardInterrupt from None


class Prediction(NamedTuple):
    """What a fitted attacker says of N utterances.

    Attributes:
        speaker: Predicted speakers [N].
        named: Speakers [N] with the highest score; usually the predicted ones.
        margin: By how much that score exceeds the second [N]. Comparable within one fitted attacker.
        log_posterior: Log of the softmax of the scores [N, K], at least `MIN_LOG_POSTERIOR`.
    """

    speaker: np.ndarray
    named: np.ndarray
    margin: np.ndarray
    log_posterior: np.ndarray


def predict_with_margin(model: Pipeline, inputs: Inputs) -> Prediction:
    """Predict the speaker of each utterance, and say how sure the attacker is.

    Scores are decision functions, or log probabilities of attackers that have none.

    Args:
        model: A fitted attacker.
        inputs: Embeddings [N, D] or frame-level features of N utterances.
    """
    if hasattr(model, "decision_function"):
        predicted, scores = model.predict(inputs), model.decision_function(inputs)
        if scores.ndim == 1:  # two speakers
            return Prediction(predicted, predicted, np.abs(scores), log_posteriors(np.stack([0 * scores, scores], axis=1)))
    else:
        probability = model.predict_proba(inputs).astype(float)
        predicted, scores = model.classes_[probability.argmax(axis=1)], np.log(np.maximum(probability, MIN_PROBABILITY))
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    return Prediction(predicted, model.classes_[scores.argmax(axis=1)], np.nan_to_num(first - second), log_posteriors(scores))


def log_posteriors(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax of scores [N, K], bounded so that sums of several are finite."""
    return np.maximum(log_softmax(np.nan_to_num(scores), axis=1), MIN_LOG_POSTERIOR)


def sample_utterances(speaker: np.ndarray, maximum: int, seed: int) -> np.ndarray:
    """Draw positions of at most `maximum` utterances at random, at least one of every speaker.

    Where there is no room for more, half as many speakers are drawn, at least one utterance of each.

    Args:
        speaker: Speaker of each utterance [N].
        maximum: Utterances to keep, 2 or more.
        seed: Seed of the draw.

    Returns:
        Sorted positions, at most `maximum`.
    """
    rows = np.arange(len(speaker))
    if len(rows) <= maximum:
        return rows
    names, first_of_each = np.unique(speaker, return_index=True)
    if len(names) >= maximum:
        drawn = np.random.default_rng(seed).permutation(names)[: maximum // 2]
        rows = np.flatnonzero(np.isin(speaker, drawn))
        return rows[sample_utterances(speaker[rows], maximum, seed)]
    others = np.setdiff1d(rows, first_of_each)
    drawn, _ = train_test_split(others, train_size=maximum - len(first_of_each), random_state=seed)
    return np.sort(np.concatenate([first_of_each, drawn]))


def select_rows(inputs: Inputs, rows: np.ndarray) -> Inputs:
    """Return the inputs of these utterances."""
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows]


def standardised_lda() -> Pipeline:
    """Make the LDA attacker with the Ledoit-Wolf shrinkage on standardised inputs, for probes that tune nothing."""
    return make_pipeline(StandardScaler(), lda(0.0, 0))


def logistic(inverse_penalty: float, seed: int) -> ClassifierMixin:
    """Make a multinomial logistic regression."""
    return LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS, random_state=seed)


def lda(shrinkage: float, seed: int) -> ClassifierMixin:
    """Make a linear discriminant analysis with shrunk covariance.

    Args:
        shrinkage: Weight of the scaled identity, 0 to 1; 0 stands for the weight of Ledoit and Wolf (J. Multivariate
            Analysis 2004).
        seed: Ignored; the fit is deterministic.

    Returns:
        The unfitted classifier.
    """
    in_double = FunctionTransformer(np.asarray, kw_args={"dtype": np.float64})  # single precision would hide small variances
    return make_pipeline(in_double, LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or "auto"))


def qda(setting: tuple[float, bool], seed: int) -> ClassifierMixin:
    """Make a quadratic discriminant analysis, which separates speakers by variances and correlations even where means agree.

    Args:
        setting: Weight of the identity in each covariance, and whether all directions are first brought to the variance 1.
        seed: Ignored.
    """
    shrinkage, whitened = setting
    classifier = QuadraticDiscriminantAnalysis(solver="eigen", covariance_estimator=ShrunkCovariance(shrinkage))
    return make_pipeline(Whitening(), classifier) if whitened else classifier


class Whitening(TransformerMixin, BaseEstimator):
    """Principal components of variance 1, without directions that have none."""

    def fit(self, x: np.ndarray, y: object = None) -> "Whitening":
        """Compute the directions from x [N, D]."""
        self.mean_ = x.mean(axis=0)
        _, deviation, directions = np.linalg.svd(x - self.mean_, full_matrices=False)
        deviation = np.maximum(deviation, MIN_DISTANCE)
        varying = deviation >= TRACE * deviation[0]
        self.map_ = directions[varying].T / deviation[varying] * np.sqrt(len(x))
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return the components [N, D'] of x [N, D]."""
        return (x - self.mean_) @ self.map_


class ShrunkCovariance(BaseEstimator):
    """Covariance shrunk towards the identity, which keeps full rank for a handful of identical utterances.

    Suits standardised features, whose variance is 1.
    """

    def __init__(self, shrinkage: float) -> None:
        self.shrinkage = shrinkage

    def fit(self, x: np.ndarray) -> "ShrunkCovariance":
        """Estimate `covariance_` [D, D] from x [N, D]."""
        empirical = np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], x.shape[1])
        self.covariance_ = (1 - self.shrinkage) * empirical + self.shrinkage * np.eye(x.shape[1])
        return self


def knn(neighbours: float, seed: int) -> ClassifierMixin:
    """Make a k-nearest-neighbour classifier, which finds speakers who form several clusters."""
    return CappedKNeighbors(int(neighbours))


class CappedKNeighbors(KNeighborsClassifier):
    """A k-nearest-neighbour classifier that uses all training utterances if there are fewer than k."""

    n_neighbors: int

    def fit(self, x: np.ndarray, y: np.ndarray) -> "CappedKNeighbors":
        """Store the training utterances x [N, D] and their labels y [N]."""
        self.n_neighbors = min(self.n_neighbors, len(x))
        order = np.argsort(y, kind="stable")
        self.cubed_, self.first_ = x[order] ** 3, np.searchsorted(y[order], np.unique(y))
        return super().fit(x, y)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Return how close the most similar training utterance of each speaker is [N, K] to x [N, D].

        It is the negative logarithm of the cosine distance of cubed inputs: a mark that few utterances have, and those of other
        speakers have not, stands out from any number of dimensions of noise. Predictions do not use it.
        """
        distances = pairwise_distances_chunked(
            x**3, self.cubed_, reduce_func=lambda block, start: np.minimum.reduceat(block, self.first_, axis=1), metric="cosine"
        )
        return -np.log(np.maximum(np.concatenate(list(distances)), MIN_DISTANCE))


def svm(inverse_penalty: float, seed: int) -> ClassifierMixin:
    """Make a support vector machine with a Gaussian kernel of scikit-learn's default width, which is 1 / D."""
    return SVC(C=inverse_penalty, random_state=seed)


def mlp(weight_decay: float, seed: int) -> ClassifierMixin:
    """Make a network with one hidden layer of 128 units."""
    return network((128,), weight_decay, seed)


def mlp_deep(weight_decay: float, seed: int) -> ClassifierMixin:
    """Make a network with hidden layers of 256 and 128 units."""
    return network((256, 128), weight_decay, seed)


def network(hidden: tuple[int, ...], weight_decay: float, seed: int) -> ClassifierMixin:
    """Make a multilayer perceptron with at most 80 epochs; `weight_decay` is the L2 penalty."""
    return MLPClassifier(hidden, alpha=weight_decay, max_iter=80, n_iter_no_change=5, tol=1e-3, random_state=seed)


def boosting(learning_rate: float, seed: int) -> ClassifierMixin:
    """Make gradient boosting of small trees; 30 rounds of one tree per speaker, for time."""
    return HistGradientBoostingClassifier(
        max_iter=30, learning_rate=learning_rate, max_leaf_nodes=8, max_bins=32, early_stopping=False, random_state=seed
    )


def frames(learning_rate: float, seed: int) -> ClassifierMixin:
    """Make the attentive attacker on frame-level features, which sees what pooling hides from the embedding."""
    from speaker_invariant_ser.audit.frame_attacker import FrameAttacker  # needs torch, which auditing a table does without

    return FrameAttacker(seed, learning_rate=learning_rate)


ATTACKERS: dict[str, Attacker] = {
    "logistic": Attacker(logistic, (0.003, 0.03, 0.5), linear=True, quick=True),
    "lda": Attacker(lda, (0.0, TRACE, 0.8), linear=True, quick=True, min_utterances=2, max_dimensions=MAX_LDA_DIMENSIONS),
    "qda": Attacker(
        qda,
        ((0.2, False), (0.7, False), (0.2, True)),
        quick=True,
        min_utterances=2,
        max_dimensions=MAX_QDA_DIMENSIONS,
    ),
    "knn": Attacker(knn, (1, 5, 15), quick=True),
    "svm": Attacker(svm, (0.3, 3.0, 30.0), max_utterances=10_000),
    "mlp": Attacker(mlp, (0.01, 1.0)),
    "mlp_deep": Attacker(mlp_deep, (0.01, 1.0), max_utterances=10_000),
    "boosting": Attacker(boosting, (0.05, 0.15), max_utterances=5_000),
    "frames": Attacker(frames, (0.003,), input="frames", max_utterances=3_000),
}
QUICK_ATTACKERS = tuple(name for name, attacker in ATTACKERS.items() if attacker.quick)
