"""Two-dimensional maps of embeddings, for the eye only: no number is computed from them."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.audit.attackers import sample_utterances
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.report.plots import Points

MAX_UTTERANCES, MIN_UTTERANCES = 1000, 10
COMPONENTS, PERPLEXITY = 50, 30


def map_points(table: Embeddings, seed: int = 0) -> Points | None:
    """Compute a t-SNE map of standardised principal components (van der Maaten and Hinton, JMLR 2008).

    Args:
        table: Embeddings of N utterances, of which at most 1,000 are drawn.
        seed: Seed of the draw and of the map.

    Returns:
        The map; None for fewer than ten utterances, or if all embeddings are the same.
    """
    if len(table.id) < MIN_UTTERANCES or not np.ptp(table.embedding, axis=0).any():
        return None
    table = table.select(sample_utterances(table.speaker, MAX_UTTERANCES, seed))
    standardised = StandardScaler().fit_transform(table.embedding)
    with threadpool_limits(1):
        reduced = PCA(min(COMPONENTS, *standardised.shape), random_state=seed).fit_transform(standardised)
        perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="random", random_state=seed)
        position = tsne.fit_transform(reduced.astype(np.float32))
    return Points(position, table.emotion, table.speaker)
