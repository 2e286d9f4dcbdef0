"""Embeddings with their labels: the input of an audit, whichever system computed them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from speaker_invariant_ser.data.tables.near_rows import copies
from speaker_invariant_ser.errors import AuditError, shorten
from speaker_invariant_ser.indexing import spread_order, to_indices

# What a quick audit uses of a table, at most: with as much it takes half a minute of one core.
MAX_UTTERANCES, MAX_SPEAKERS, MAX_DIMENSIONS = 4000, 100, 192
MIN_PER_SPEAKER = 10  # utterances of each speaker that a sample keeps, if there are as many

RELEASED_BITS = 11  # significant binary digits of float16
MAX_BITS = 53  # of double precision
MAX_SPANS = 10  # widths of the middle 80 % beyond which values are compressed
STEPS_PER_DEVIATION = 32  # rounding to steps of 1/32 of a deviation adds less than 0.01 % to the variance


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of N utterances by one encoder, with their labels. All columns have N entries.

    Attributes:
        embedding: Embeddings [N, D].
        id: Unique name of each utterance.
        speaker: Speaker of each utterance.
        emotion: Emotion of each utterance; the same value throughout where emotions are unknown.
        text: Spoken text or its code; "" where unknown.
        scored: Boolean mask of the utterances that attackers are scored on: those that the encoder was not trained on, or
            all where that is unknown. Attackers may be fitted on the others.
        frames: Frame-level features of the encoder before pooling, float16 [F, T] for each utterance, if available.
        group: Equal for utterances of which none may be scored by an attacker fitted on another, because they share audio or a
            recording; None if none do, as far as is known.
        code: Where the embedding is one of a few codes, its number or name; otherwise None.
    """

    embedding: np.ndarray
    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    text: np.ndarray
    scored: np.ndarray
    frames: list[np.ndarray] | None = None
    group: np.ndarray | None = None
    code: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> "Embeddings":
        """Return the utterances given by a boolean mask or by positions."""
        positions = np.arange(len(self.id))[rows]
        columns = {name: getattr(self, name)[positions] for name in ("embedding", "id", "speaker", "emotion", "text", "scored")}
        frames = self.frames and [self.frames[position] for position in positions]
        known = {name: values[positions] for name in ("group", "code") if (values := getattr(self, name)) is not None}
        return Embeddings(**columns, frames=frames, **known)

    @property
    def unit(self) -> np.ndarray:
        """What utterances are independent of each other by: their group, or themselves [N]."""
        return self.id if self.group is None else self.group

    @property
    def speaker_and_emotion(self) -> np.ndarray:
        """One label [N] for each combination of speaker and emotion, by which folds are stratified."""
        return np.char.add(np.char.add(self.speaker.astype(str), "\n"), self.emotion.astype(str))


def taken_once(table: Embeddings, notes: list[str]) -> tuple[Embeddings, list[str]]:
    """Leave out rows that are copies of another row of the same speaker, of two copies one that is not scored; with a note."""
    order = np.argsort(~table.scored, kind="stable")
    repeated = np.zeros(len(order), dtype=bool)
    repeated[order] = copies(table.embedding[order], table.speaker[order])
    if not repeated.any():
        return table, notes
    left_out = f"{repeated.sum()} of {len(order)} rows are equal or nearly equal to another row of the same speaker: taken once"
    return table.select(~repeated), [*notes, left_out]


def speakers_with_one_utterance(table: Embeddings) -> list[str]:
    """Return the speakers with a single utterance or group, which cannot serve both to fit and to score an attacker.

    Where fewer than two speakers have several groups, groups do not count: the audit then says that near copies are scored.
    """
    single = singles(table, table.unit)
    return single if len(set(table.speaker)) - len(single) > 1 else singles(table, table.id)


def singles(table: Embeddings, units: np.ndarray) -> list[str]:
    """Return the speakers with a single unit."""
    counts = Counter(speaker for speaker, _ in set(zip(table.speaker.tolist(), units.tolist(), strict=True)))
    return [str(speaker) for speaker in dict.fromkeys(table.speaker.tolist()) if counts[speaker] < 2]


def nested_texts(tables: Sequence[Embeddings]) -> float:
    """Return the share of scored utterances whose text occurs several times, always by the same speaker.

    Where it is large, the text names the speaker: an embedding of what is said cannot be told apart from one of the voice.
    """
    nested, scored = 0, 0
    for table in tables:
        speakers: dict[str, Counter] = {}
        for text, speaker in zip(table.text.tolist(), table.speaker.tolist(), strict=True):
            speakers.setdefault(text, Counter())[speaker] += 1
        alone = {text for text, counts in speakers.items() if text and len(counts) == 1 and counts.total() > 1}
        nested += int(np.isin(table.text[table.scored], list(alone)).sum())
        scored += int(table.scored.sum())
    return nested / max(scored, 1)


def round_significant(values: np.ndarray, bits: int) -> np.ndarray:
    """Round numbers to this many significant binary digits, as float16 (11) and float32 (24) do within their range.

    >>> round_significant(np.array([1 / 3, 1000.3, -0.1]), 11).tolist()
    [0.333251953125, 1000.5, -0.0999755859375]
    """
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(values.dtype)


def compress_outliers(embedding: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] whose extreme values are compressed, in the same order, as the logarithm of a logarithm.

    Attackers standardise by mean and deviation. A single value of 1e17 would let all others of its dimension shrink to one
    number, and a leak in them with it. Extreme are values that lie beyond the middle 80 % of their dimension by more than
    `MAX_SPANS` times its width, which is 25 standard deviations of a normal distribution.
    """
    if not np.isfinite(embedding).all():
        return embedding  # reported by `require_auditable`
    low, high = np.quantile(embedding.astype(float), (0.1, 0.9), axis=0)
    span = high - low
    limited = np.clip(embedding, low - MAX_SPANS * span, high + MAX_SPANS * span)
    columns = (limited != embedding).any(axis=0) & (span > 0)
    if not columns.any():
        return embedding
    compressed, span, limited = embedding.astype(float), span[columns], limited[:, columns]
    beyond = (compressed[:, columns] - limited) / span
    compressed[:, columns] = limited + span * np.sign(beyond) * np.log1p(np.log1p(np.abs(beyond)))
    return compressed.astype(embedding.dtype)


def significant_bits(tables: Sequence[Embeddings], bits: int) -> int:
    """Return the precision at which tables are audited: `bits`, or more where rounding would remove what attackers can see.

    That is where a dimension has a large offset: values about 1000 that differ by 0.01. A step of rounding is then at most
    1 / `STEPS_PER_DEVIATION` of each dimension's standard deviation.

    Args:
        tables: Embeddings of each encoder.
        bits: Significant binary digits that are wanted.
    """
    for table in tables:
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values are reported by `require_auditable`
            deviation, largest = table.embedding.std(axis=0, dtype=np.float64), np.abs(table.embedding).max(axis=0).astype(float)
        varying = (deviation > 0) & np.isfinite(deviation)
        needed = np.ceil(np.log2(STEPS_PER_DEVIATION * largest[varying] / deviation[varying]))
        bits = max([bits, *needed.astype(int).tolist()])
    return min(bits, MAX_BITS)


def without_single_utterances(table: Embeddings) -> Embeddings:
    """Return the table without the speakers who have a single utterance."""
    return table.select(~np.isin(table.speaker, speakers_with_one_utterance(table)))


def require_auditable(table: Embeddings) -> None:
    """Check that attackers can be fitted and scored on a table.

    Args:
        table: Embeddings in which every speaker has at least two utterances.

    Raises:
        AuditError: There are fewer than two speakers, no utterance is scored, or an embedding is not finite.
    """
    speakers = sorted(set(table.speaker))
    if len(speakers) < 2:
        found = f"there is 1 ({speakers[0]})" if speakers else "there are none"
        raise AuditError(f"an audit needs at least 2 speakers with 2 or more utterances each; {found}")
    if not table.scored.any():
        raise AuditError("no utterance is marked as scored; attackers need at least one to be scored on")
    not_finite = ~np.isfinite(table.embedding).all(axis=1)
    if not_finite.any():
        raise AuditError(f"the embedding of {shorten(table.id[not_finite])} contains NaN or infinity")


def to_common_indices(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Replace labels by the integers 0, 1, ... in sorted order, equal labels of different columns by the same integer.

    Args:
        columns: Arrays of labels, one for each encoder.

    Returns:
        Integer arrays of the same lengths.

    >>> [indices.tolist() for indices in to_common_indices([np.array(["b", "a"]), np.array(["c", "b"])])]
    [[1, 0], [2, 1]]
    """
    indices = to_indices(np.concatenate(columns))
    return np.split(indices, np.cumsum([len(column) for column in columns])[:-1])


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
    embedding = components.fit_transform(StandardScaler().fit_transform(table.embedding))
    return replace(table, embedding=embedding, frames=None), float(components.explained_variance_ratio_.sum())
