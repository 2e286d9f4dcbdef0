"""Scorers compare the embeddings of two utterances; they are fitted on embeddings of *other* speakers, the background.

Shapes: N utterances, D dimensions, P pairs, M background utterances.
"""

from typing import Protocol

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import OAS, LedoitWolf
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection

from speaker_invariant_ser.indexing import to_indices

SCORERS = ("cosine", "trained")
MAX_DIMENSIONS = 1024  # of the trained back-end; wider embeddings are projected at random, which keeps distances
MIN_WITHIN_VARIANCE = 1e-10  # within speakers, where a standardised dimension has variance 1
MIN_BETWEEN_VARIANCE = 1e-3  # between speakers, relative to within: without any, distances would not count
INNER_PRODUCT_BLOCK = 20_000  # pairs; bounds the memory


class Scorer(Protocol):
    """Compares the two embeddings of each pair."""

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return scores [P], higher for more similar pairs, from embeddings [N, D] and positions [P]."""


class Cosine:
    """Cosine similarity of two embeddings after subtraction of the background's mean, -1 to 1.

    Args:
        background: Embeddings of other speakers [M, D].
    """

    def __init__(self, background: np.ndarray) -> None:
        self.prepare = make_pipeline(StandardScaler(with_std=False), Normalizer()).fit(background)

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the cosine [P] of embeddings [N, D] at positions left [P] and right [P]."""
        return inner_products(self.prepare.transform(embedding), left, right)


class TwoCovariance:
    """PLDA in its two-covariance form: log-likelihood ratio of one speaker against two speakers.

    Embeddings are modelled as mean + speaker + residual, with a covariance between speakers and one within speakers
    (Brümmer and de Villiers, Odyssey 2010), here estimated from scatter matrices instead of EM. Dimensions are standardised,
    then transformed so that the within-speaker covariance is the identity and the between-speaker covariance is diagonal.

    Both covariances are shrunk towards a multiple of the identity: within speakers as Ledoit and Wolf (2004), between speakers
    as Chen et al. (2010), which is better for a handful of speakers. With few utterances, or D > M, what remains is a distance
    after whitening. Background speakers with one utterance do not contribute to the within-speaker covariance; if all have
    one, the total variance is used instead. Embeddings are not length-normalised: that did worse on plain acoustic features.

    Args:
        background: Embeddings of other speakers [M, D].
        speaker: Their speakers [M].
    """

    def __init__(self, background: np.ndarray, speaker: np.ndarray) -> None:
        wide = background.shape[1] > MAX_DIMENSIONS
        projection = [GaussianRandomProjection(MAX_DIMENSIONS, random_state=0)] if wide else []
        self.prepare = make_pipeline(StandardScaler(), *projection).fit(background)
        x = self.prepare.transform(background)
        index = to_indices(speaker)
        sizes = np.bincount(index)
        means = np.stack([np.bincount(index, column) for column in x.T], axis=1) / sizes[:, None]
        several = sizes[index] > 1
        unbiased = np.sqrt(sizes[index] / np.maximum(sizes[index] - 1, 1))[:, None]
        residuals = ((x - means[index]) * unbiased)[several] if several.any() else x
        within, rotation = eigh(LedoitWolf(assume_centered=True).fit(residuals).covariance_)
        self.transform = rotation / np.sqrt(np.maximum(within, MIN_WITHIN_VARIANCE))
        between, rotation = np.zeros(len(within)), np.eye(len(within))
        if len(means) > 1:
            between, rotation = eigh(OAS(assume_centered=True).fit(means @ self.transform).covariance_)
        self.transform = self.transform @ rotation
        # the mean of n utterances still holds 1/n of the within-speaker variance
        self.between = np.maximum(between - np.mean(1 / sizes), MIN_BETWEEN_VARIANCE)

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return natural log-likelihood ratios [P] of embeddings [N, D] at positions left [P] and right [P].

        Above 0 they favour one speaker, below 0 two.
        """
        x, total = self.prepare.transform(embedding) @ self.transform, self.between + 1
        determinant = total**2 - self.between**2  # of the covariance of both embeddings' values in each dimension
        single = x**2 @ (1 / total - total / determinant) / 2
        cross = inner_products(x * np.sqrt(self.between / determinant), left, right)
        return cross + single[left] + single[right] - np.log(determinant / total**2).sum() / 2


def inner_products(x: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return inner products [P] of rows of x [N, D], block by block to bound the memory."""
    blocks = [slice(start, start + INNER_PRODUCT_BLOCK) for start in range(0, len(left), INNER_PRODUCT_BLOCK)]
    return np.concatenate([np.einsum("pd,pd->p", x[left[block]], x[right[block]]) for block in blocks])
