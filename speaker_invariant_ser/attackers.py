"""Fresh classifiers that try to read the speaker from embeddings. scikit-learn's, untouched by the training that they judge.

Each standardises inside the fold it is fitted on, so nothing of the scored clips enters.
"""

from collections.abc import Callable

from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def logistic(seed: int) -> ClassifierMixin:
    """Multinomial logistic regression: what a linear reader sees."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))


def mlp(seed: int) -> ClassifierMixin:
    """One hidden layer of 128: what a non-linear reader sees, a code that no single direction shows included."""
    return make_pipeline(StandardScaler(), MLPClassifier((128,), alpha=1e-2, max_iter=300, random_state=seed))


ATTACKERS: dict[str, Callable[[int], ClassifierMixin]] = {"logistic": logistic, "mlp": mlp}
