"""Draw what a quick audit uses of a large table."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from speaker_invariant_ser.audit.embeddings import Embeddings, without_single_utterances
from speaker_invariant_ser.audit.inputs.scaling import to_one_scale
from speaker_invariant_ser.indexing import spread_order, to_indices

# What a quick audit uses of a table, at most: with as much it takes half a minute of one core.
MAX_UTTERANCES, MAX_SPEAKERS, MAX_DIMENSIONS = 4000, 100, 128
MIN_PER_SPEAKER = 10  # utterances of each speaker that a sample keeps, if there are as many


@dataclass(frozen=True)
class Sample:
    """What a quick audit used of a table: how many of how many, and how the sample was drawn.

    Attributes:
        utterances: Utterances used, stratified by speaker and emotion.
        of_utterances: Utterances of the table.
        speakers: Speakers used.
        of_speakers: Speakers of the table.
        dimensions: Principal components used of the standardised dimensions; all dimensions where that is their number.
        of_dimensions: Dimensions of the table.
        variance: Share of the variance of the standardised dimensions that is used.
        seed: Seed of the draw.
    """

    utterances: int
    of_utterances: int
    speakers: int
    of_speakers: int
    dimensions: int
    of_dimensions: int
    variance: float
    seed: int

    @property
    def described(self) -> str:
        """The sample in words."""
        parts = []
        if self.utterances < self.of_utterances:
            parts.append(f"{self.utterances:,} of {self.of_utterances:,} utterances")
        if self.speakers < self.of_speakers:
            parts.append(f"{self.speakers:,} of {self.of_speakers:,} speakers")
        if self.dimensions < self.of_dimensions:
            components = f"{self.dimensions} principal components of {self.of_dimensions:,} dimensions"
            parts.append(f"{components} ({100 * self.variance:.0f} % of their variance)")
        return f"a quick audit of a sample (seed {self.seed}): {', '.join(parts)}; without --quick, all is used"


def draw_sample(table: Embeddings, seed: int) -> tuple[Embeddings, Sample | None]:
    """Draw what a quick audit uses of a large table.

    Args:
        table: The table.
        seed: Seed of the draw.

    Returns:
        At most MAX_UTTERANCES utterances of MAX_SPEAKERS speakers, as many of each kind as in the table but at least
        MIN_PER_SPEAKER, in MAX_DIMENSIONS principal components; and what that is of the table, None for the whole table.
    """
    drawn = draw_rows(draw_speakers(table, seed), seed)
    drawn, variance = reduce_dimensions(drawn)
    if drawn is table:
        return table, None
    utterances, speakers, dimensions = len(drawn.id), len(np.unique(drawn.speaker)), drawn.embedding.shape[1]
    of_utterances, of_speakers, of_dimensions = len(table.id), len(np.unique(table.speaker)), table.embedding.shape[1]
    return drawn, Sample(utterances, of_utterances, speakers, of_speakers, dimensions, of_dimensions, variance, seed)


def draw_speakers(table: Embeddings, seed: int) -> Embeddings:
    """Return the utterances of at most MAX_SPEAKERS speakers who can be audited, those with scored utterances first."""
    if len(np.unique(table.speaker)) <= MAX_SPEAKERS:
        return table
    table = without_single_utterances(table)
    names = np.random.default_rng(seed).permutation(np.unique(table.speaker))
    names = names[np.argsort(~np.isin(names, table.speaker[table.scored]), kind="stable")]
    return table.select(np.isin(table.speaker, names[:MAX_SPEAKERS]))


def draw_rows(table: Embeddings, seed: int) -> Embeddings:
    """Return at most MAX_UTTERANCES utterances; half of them or more are scored ones, if there are as many."""
    if len(table.id) <= MAX_UTTERANCES:
        return table
    scored, others = np.flatnonzero(table.scored), np.flatnonzero(~table.scored)
    number = min(len(scored), max(MAX_UTTERANCES - len(others), MAX_UTTERANCES // 2))
    drawn = []
    for rows, count in ((scored, number), (others, MAX_UTTERANCES - number)):
        order = rows[spread_order(to_indices(table.speaker_and_emotion[rows]), seed)]
        rank = np.empty(len(order), dtype=int)  # of each utterance among those of its speaker
        for name in np.unique(table.speaker[order]):
            own = table.speaker[order] == name
            rank[own] = np.arange(own.sum())
        drawn.append(order[np.argsort(rank >= MIN_PER_SPEAKER, kind="stable")][:count])
    return table.select(np.sort(np.concatenate(drawn)))


def reduce_dimensions(table: Embeddings) -> tuple[Embeddings, float]:
    """Return the principal components of standardised embeddings, and their share of the variance.

    No labels enter, so that chance stays chance; speakers whom only the dimensions left out reveal are missed.
    """
    if min(table.embedding.shape) <= MAX_DIMENSIONS:
        return table, 1.0
    components = PCA(MAX_DIMENSIONS, svd_solver="covariance_eigh")
    embedding = components.fit_transform(StandardScaler().fit_transform(to_one_scale(table.embedding)))
    return replace(table, embedding=embedding, frames=None), float(components.explained_variance_ratio_.sum())
