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
HEADLINE = "trained"  # chosen in advance: the better of two scorers would be optimistic
MAX_DIMENSIONS = 1024  # of the trained back-end; wider embeddings are projected at random, which keeps distances
MIN_WITHIN_VARIANCE = 1e-10  # within speakers, where a standardised dimension has variance 1
MIN_BETWEEN_VARIANCE = 1e-3  # between speakers, relative to within: without any, distances would not count
INNER_PRODUCT_BLOCK = 20_000  # pairs; bounds the memory


class Scorer(Protocol):
    """Compares the two embeddings of each pair."""

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray, clips: np.ndarray | None = None) -> np.ndarray:
        """Compare pairs of embeddings, or of means of embeddings.

        Args:
            embedding: Embeddings [N, D], each that of an utterance or the mean over several utterances of one speaker.
            left: Position of one embedding of each pair [P].
            right: Position of the other [P].
            clips: Utterances behind each embedding [N]; 1 by default.

        Returns:
            Scores [P], higher for more similar pairs.
        """


def fit_scorers(background: np.ndarray, speaker: np.ndarray) -> dict[str, Scorer]:
    """Fit both scorers on embeddings of other speakers [M, D] and their speakers [M]."""
    return {"cosine": Cosine(background), "trained": TwoCovariance(background, speaker)}


class Cosine:
    """Cosine similarity of two embeddings after subtraction of the background's mean, -1 to 1.

    Args:
        background: Embeddings of other speakers [M, D].
    """

    def __init__(self, background: np.ndarray) -> None:
        self.prepare = make_pipeline(StandardScaler(with_std=False), Normalizer()).fit(background)

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray, clips: np.ndarray | None = None) -> np.ndarray:
        """Return the cosine [P] of embeddings [N, D] at positions left [P] and right [P], means of any number of utterances."""
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

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray, clips: np.ndarray | None = None) -> np.ndarray:
        """Return natural log-likelihood ratios [P] of embeddings [N, D] at positions left [P] and right [P].

        Above 0 they favour one speaker, below 0 two. A mean over n utterances has 1/n of the variance within speakers.
        """
        x = self.prepare.transform(embedding) @ self.transform
        if clips is None:
            return self.log_likelihood_ratios(x, left, right, 1, 1)
        ratios = np.empty(len(left))
        counts, kind = np.unique(np.column_stack([clips[left], clips[right]]), axis=0, return_inverse=True)
        for position, (left_clips, right_clips) in enumerate(counts.tolist()):
            rows = kind.ravel() == position
            ratios[rows] = self.log_likelihood_ratios(x, left[rows], right[rows], left_clips, right_clips)
        return ratios

    def log_likelihood_ratios(
        self, x: np.ndarray, left: np.ndarray, right: np.ndarray, left_clips: int, right_clips: int
    ) -> np.ndarray:
        """Return log-likelihood ratios [P] of transformed embeddings [N, D] that are means over these numbers of utterances."""
        left_total, right_total = self.between + 1 / left_clips, self.between + 1 / right_clips
        determinant = left_total * right_total - self.between**2  # of the covariance of both values in each dimension
        left_single = x**2 @ (1 / left_total - right_total / determinant) / 2
        right_single = x**2 @ (1 / right_total - left_total / determinant) / 2
        cross = inner_products(x * np.sqrt(self.between / determinant), left, right)
        constant = np.log(determinant / (left_total * right_total)).sum() / 2
        return cross + left_single[left] + right_single[right] - constant


def inner_products(x: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return inner products [P] of rows of x [N, D], block by block to bound the memory."""
    blocks = [slice(start, start + INNER_PRODUCT_BLOCK) for start in range(0, len(left), INNER_PRODUCT_BLOCK)]
    return np.concatenate([np.einsum("pd,pd->p", x[left[block]], x[right[block]]) for block in blocks])
