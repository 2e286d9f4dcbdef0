"""Embeddings laid out on paper, for the eye alone: no number rests on it."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.audit.attackers import sample_utterances
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.report.plots import Points

MOST, FEWEST = 1000, 10  # clips
COMPONENTS, PERPLEXITY = 50, 30


def map_points(table: Embeddings, seed: int = 0) -> Points | None:
    """Where at most 1,000 clips lie in two dimensions, neighbours near each other; None for fewer than ten or all the same.

    t-SNE of the standardised principal components: van der Maaten and Hinton, JMLR 2008.
    """
    if len(table.id) < FEWEST or not np.ptp(table.embedding, axis=0).any():
        return None
    table = table.select(sample_utterances(table.speaker, MOST, seed))
    standardised = StandardScaler().fit_transform(table.embedding)
    with threadpool_limits(1):
        reduced = PCA(min(COMPONENTS, *standardised.shape), random_state=seed).fit_transform(standardised)
        perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
        place = TSNE(2, perplexity=perplexity, init="random", random_state=seed).fit_transform(reduced.astype(np.float32))
    return Points(place, table.emotion, table.speaker)
