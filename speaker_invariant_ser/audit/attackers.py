"""Fresh classifiers that try to read the speaker. None of them has met the training that it judges.

Each standardises inside the fold that it is fitted on, and its setting is chosen on a part of that fold: nothing of the
scored clips enters. All but the frame-level probe are scikit-learn's.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

TUNING = 3000  # clips at most that a setting is chosen on
MOST_DIMENSIONS = 512  # of attackers that hold covariances [D, D] of every speaker; wider embeddings are reduced
STOPPED = "Training interrupted by user"  # what scikit-learn's networks make of Ctrl-C, going on half trained
Inputs = np.ndarray | Sequence[np.ndarray]  # embeddings [N, D], or N maps [F, T]


@dataclass(frozen=True)
class Attacker:
    """A kind of classifier: how one is made of a setting and a seed, and the settings to choose from."""

    make: Callable[[float, int], ClassifierMixin]
    settings: tuple[float, ...]
    linear: bool = False
    quick: bool = False  # is in the short battery, and attacks the controls
    reads: str = "embedding"  # or "frames", the encoder's map before pooling
    least: int = 1  # clips of every speaker that it needs
    covariances: bool = False
    most: int = 200_000  # clips that it is fitted on at most: a stratified sample of more


def logistic(strength: float, seed: int) -> ClassifierMixin:
    """Multinomial logistic regression; `strength` is the inverse regularisation."""
    return LogisticRegression(C=strength, max_iter=500, random_state=seed)


def lda(shrinkage: float, seed: int) -> ClassifierMixin:
    """Linear discriminant analysis, covariance shrunk by this much (0: as Ledoit and Wolf choose, J. Multivar. Anal. 2004)."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or "auto")


def qda(shrinkage: float, seed: int) -> ClassifierMixin:
    """Quadratic discriminant analysis: reads variances and correlations, whatever the means say."""
    return QuadraticDiscriminantAnalysis(solver="eigen", covariance_estimator=Shrunk(shrinkage))


class Shrunk(BaseEstimator):
    """Covariance shrunk towards the identity, the features being standardised: of full rank for a handful of equal clips too."""

    def __init__(self, shrinkage: float) -> None:
        self.shrinkage = shrinkage

    def fit(self, x: np.ndarray) -> "Shrunk":
        """X [N, D] -> covariance_ [D, D]."""
        own = np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], x.shape[1])
        self.covariance_ = (1 - self.shrinkage) * own + self.shrinkage * np.eye(x.shape[1])
        return self


def knn(neighbours: float, seed: int) -> ClassifierMixin:
    """The vote of the nearest clips: reads a speaker who sits in several places."""
    return Nearest(int(neighbours))


class Nearest(KNeighborsClassifier):
    """k-NN that takes as many neighbours as there are, if fewer."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Nearest":
        self.n_neighbors = min(self.n_neighbors, len(x))
        return super().fit(x, y)


def svm(strength: float, seed: int) -> ClassifierMixin:
    """Support vectors with a Gaussian kernel of the usual width, 1 / D."""
    return SVC(C=strength, random_state=seed)


def mlp(decay: float, seed: int) -> ClassifierMixin:
    """One hidden layer of 128; `decay` is the L2 penalty."""
    return network((128,), decay, seed)


def mlp_deep(decay: float, seed: int) -> ClassifierMixin:
    """Two hidden layers, 256 and 128."""
    return network((256, 128), decay, seed)


def network(hidden: tuple[int, ...], decay: float, seed: int) -> ClassifierMixin:
    return MLPClassifier(hidden, alpha=decay, max_iter=80, n_iter_no_change=5, tol=1e-3, random_state=seed)


def boosting(rate: float, seed: int) -> ClassifierMixin:
    """Gradient boosting of small trees, one a speaker in each round; few rounds, for time."""
    return HistGradientBoostingClassifier(
        max_iter=30, learning_rate=rate, max_leaf_nodes=8, max_bins=32, early_stopping=False, random_state=seed
    )


def frames(rate: float, seed: int) -> ClassifierMixin:
    """Attention over the encoder's map before pooling: what pooling hides from the embedding, it does not hide from this."""
    from speaker_invariant_ser.audit.frame_attacker import FrameProbe  # torch, which auditing a table does without

    return FrameProbe(seed, learning_rate=rate)


ATTACKERS: dict[str, Attacker] = {
    "logistic": Attacker(logistic, (0.003, 0.03, 0.5), linear=True, quick=True),
    "lda": Attacker(lda, (0.0, 0.8), linear=True, quick=True, least=2, covariances=True),
    "qda": Attacker(qda, (0.2, 0.7), quick=True, least=2, covariances=True),
    "knn": Attacker(knn, (1, 5, 15), quick=True),
    "svm": Attacker(svm, (0.3, 3.0, 30.0), most=10_000),
    "mlp": Attacker(mlp, (0.01, 1.0)),
    "mlp_deep": Attacker(mlp_deep, (0.01, 1.0), most=10_000),
    "boosting": Attacker(boosting, (0.05, 0.15), most=5_000),
    "frames": Attacker(frames, (0.003,), reads="frames", most=3_000),
}


def fit_tuned(
    attacker: Attacker, inputs: Inputs, speaker: np.ndarray, tuning: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[ClassifierMixin, np.ndarray]:
    """An attacker fitted on all clips with the setting that reads best in `tuning`, and the hits [V] of that one there.

    `tuning` is (fitted on, validated on), positions within these clips; what is read there may serve to choose among attackers.
    """
    on, off = tuning
    hits = []
    for setting in attacker.settings:
        trial = fit(attacker, setting, take(inputs, on), speaker[on], seed)
        hits.append(trial.predict(take(inputs, off)) == speaker[off])
    best = int(np.argmax([each.mean() for each in hits]))
    return fit(attacker, attacker.settings[best], inputs, speaker, seed), hits[best]


def fit(attacker: Attacker, setting: float, inputs: Inputs, speaker: np.ndarray, seed: int) -> ClassifierMixin:
    """One attacker of one setting, on at most `most` of the clips."""
    rows = sample(speaker, attacker.most, seed)
    steps = [StandardScaler()] if attacker.reads == "embedding" else []
    if attacker.covariances and inputs.shape[1] > MOST_DIMENSIONS:
        steps.append(PCA(min(MOST_DIMENSIONS, len(rows)), svd_solver="full", random_state=seed))
    model = make_pipeline(*steps, attacker.make(setting, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an attacker stopped early, or fitted on singular data, is still an attacker
        warnings.filterwarnings("error", message=STOPPED)
        try:
            return model.fit(take(inputs, rows), speaker[rows])
        except UserWarning:
            raise KeyboardInterrupt from None


def sample(speaker: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Positions of at most `most` clips, every speaker in proportion and none without a clip."""
    rows = np.arange(len(speaker))
    if len(rows) <= most:
        return rows
    _, first = np.unique(speaker, return_index=True)
    rest = np.setdiff1d(rows, first)
    kept, _ = train_test_split(rest, train_size=most - len(first), random_state=seed)
    return np.sort(np.concatenate([first, kept]))


def take(inputs: Inputs, rows: np.ndarray) -> Inputs:
    """These clips of embeddings or of maps."""
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows]
