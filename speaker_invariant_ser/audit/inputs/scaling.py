"""Round embeddings to the precision of their release, and bring values of very different sizes to one scale.

Attackers standardise each dimension by its mean and deviation. A few values of 1e17 would let all others shrink to one number,
and a leak in them with it. What is done against that uses no labels, and leaves dimensions of ordinary distributions as they are.

Shapes: N utterances, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from speaker_invariant_ser.audit.embeddings import Embeddings

RELEASED_BITS = 11  # significant binary digits of float16
MAX_BITS = 53  # of double precision
STEPS_PER_DEVIATION = 32  # rounding to steps of 1/32 of a deviation adds less than 0.01 % to the variance
MAX_SPANS = 10  # widths of the middle 80 % beyond which values are compressed: 25 deviations of a normal distribution
MAX_OFFSET = 1e6  # deviations; scikit-learn leaves dimensions as they are, as if they were constant, from about 1e12
CROWDED = 0.1  # share of the different values of a dimension ...
NARROW = 0.02  # ... that lie within so many deviations, where ranks are attacked too; 0.25 in a normal distribution
VALUES, MIN_VALUES = 1000, 20  # of a dimension, of which that is computed; and different ones among them that are worth ranks


def attackable(
    tables: Sequence[Embeddings], unseen: Sequence[Embeddings] | None, bits: int
) -> tuple[list[Embeddings], list[Embeddings] | None, int]:
    """Return tables as they are attacked, and at how many significant binary digits.

    Args:
        tables: Embeddings of each encoder.
        unseen: Other embeddings of the same encoders, if there are some; they are brought to the same scale.
        bits: Significant binary digits that are wanted; more are used where rounding would remove what attackers can see.
    """
    others = unseen or [table.select(np.zeros(len(table.id), dtype=bool)) for table in tables]
    rows = [np.concatenate([table.embedding, other.embedding]) for table, other in zip(tables, others, strict=True)]
    bits = max(significant_bits(compress_outliers(values), bits) for values in rows)
    scaled = [to_one_scale(round_significant(values, bits)) for values in rows]
    given = [replace(table, embedding=values[: len(table.id)]) for table, values in zip(tables, scaled, strict=True)]
    further = [replace(other, embedding=values[-len(other.id) :]) for other, values in zip(others, scaled, strict=True)]
    return given, further if unseen else None, bits


def round_significant(values: np.ndarray, bits: int) -> np.ndarray:
    """Round numbers to this many significant binary digits, as float16 (11) and float32 (24) do within their range.

    What would be rounded up beyond the largest number becomes that number.

    >>> round_significant(np.array([1 / 3, 1000.3, -0.1]), 11).tolist()
    [0.333251953125, 1000.5, -0.0999755859375]
    """
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(values.dtype)
    overflown = np.isinf(rounded) & np.isfinite(values)
    return np.where(overflown, np.copysign(np.finfo(rounded.dtype).max, values), rounded)


def significant_bits(embedding: np.ndarray, bits: int) -> int:
    """Return the precision at which embeddings are audited: `bits`, or more where rounding would remove what attackers can see.

    That is where a dimension has a large offset: values about 1000 that differ by 0.01. A step of rounding is then at most
    1 / `STEPS_PER_DEVIATION` of each dimension's standard deviation.

    Args:
        embedding: Embeddings [N, D].
        bits: Significant binary digits that are wanted.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values are reported by `require_auditable`
        deviation, largest = embedding.std(axis=0, dtype=np.float64), np.abs(embedding).max(axis=0).astype(float)
    varying = (deviation > 0) & np.isfinite(deviation)
    needed = np.ceil(np.log2(STEPS_PER_DEVIATION * largest[varying] / deviation[varying]))
    return min(max([bits, *needed.astype(int).tolist()]), MAX_BITS)


def to_one_scale(embedding: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] without extreme values, and further dimensions of what standardising would hide.

    These are ranks, where values are crowded, and the sign of zeros, where some are -0.0, which is released too.
    """
    compressed = without_offsets(compress_outliers(embedding))
    crowded = np.flatnonzero([is_crowded(values) for values in compressed.T])
    negative = (embedding == 0) & np.signbit(embedding)
    signed = negative[:, negative.any(axis=0)]
    if not (crowded.size or signed.size):
        return compressed
    ranks = stats.norm.ppf(stats.rankdata(embedding[:, crowded], axis=0) / (len(embedding) + 1))
    return np.concatenate([compressed, ranks.astype(embedding.dtype), signed.astype(embedding.dtype)], axis=1)


def without_offsets(embedding: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] without the median of dimensions whose values are very large compared with their differences."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values are reported by `require_auditable`
        deviation, median = embedding.std(axis=0, dtype=np.float64), np.median(embedding, axis=0)
        large = (np.abs(median) > MAX_OFFSET * deviation) & (deviation > 0)
    return np.where(large, embedding - median, embedding).astype(embedding.dtype) if large.any() else embedding


def compress_outliers(embedding: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] whose extreme values are compressed, in the same order, as the logarithm of a logarithm.

    Extreme are values that lie beyond the middle 80 % of their dimension by more than `MAX_SPANS` times its width. Where
    more than half of the values are one and the same, such as 0, that is the width of the others.
    """
    if not np.isfinite(embedding).all():
        return embedding  # reported by `require_auditable`
    low, high = np.array([middle(values) for values in embedding.T.astype(float)]).T
    span = high - low
    limited = np.clip(embedding, low - MAX_SPANS * span, high + MAX_SPANS * span)
    columns = (limited != embedding).any(axis=0) & (span > 0)
    if not columns.any():
        return embedding
    compressed, span, limited = embedding.astype(float), span[columns], limited[:, columns]
    beyond = (compressed[:, columns] - limited) / span
    compressed[:, columns] = limited + span * np.sign(beyond) * np.log1p(np.log1p(np.abs(beyond)))
    return compressed.astype(embedding.dtype)


def middle(values: np.ndarray) -> tuple[float, float]:
    """Return the range of the middle 80 % of the values of a dimension [N], which includes their median.

    >>> middle(np.arange(11.0)), middle(np.array([0.0] * 90 + [1.0, 2.0, 3.0]))
    ((1.0, 9.0), (0.0, 2.8))
    """
    median = np.median(values)
    others = values[values != median]
    ordinary = others if 0 < len(others) < len(values) / 2 else values
    low, high = np.quantile(ordinary, (0.1, 0.9))
    return float(min(low, median)), float(max(high, median))


def is_crowded(values: np.ndarray) -> bool:
    """Return whether many different values of a dimension [N] fall together when it is standardised.

    >>> rng = np.random.default_rng(0)
    >>> is_crowded(rng.normal(size=100)), is_crowded(rng.normal(size=100) * np.tile([1.0, 1000.0], 50))
    (False, True)
    """
    distinct = np.unique(np.quantile(values, np.linspace(0, 1, VALUES), method="nearest")).astype(float)
    if len(distinct) < MIN_VALUES or not np.isfinite(distinct).all():
        return False
    number = int(CROWDED * len(distinct))
    return bool((distinct[number:] - distinct[:-number]).min() < NARROW * values.std(dtype=float))
