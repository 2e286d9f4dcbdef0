"""Permutation tests of attackers: the accuracies that are expected if embeddings say nothing of the speaker.

Shapes: n scored utterances of one encoder, K its speakers, P permutations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speaker_invariant_ser.indexing import to_indices

CROSS_VALIDATION_INFLATION = 1.15  # 100 cross-validations on speaker-free data: sd 1.06 to 1.13 times that of permutations
BLOCK_SIZE = 2_000_000  # labels that are permuted or resampled at once; bounds the memory


@dataclass(frozen=True)
class IntegerLabels:
    """The labels of one encoder's N utterances as integers.

    Attributes:
        id: Utterance, or its recording; the same one has the same integer for every encoder.
        speaker: Speaker, 0 to K - 1.
        emotion: Emotion.
        scored: Boolean mask of the scored utterances.
        text: Text; the same text has the same integer for every encoder. None where folds do not keep texts apart.
    """

    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    scored: np.ndarray
    text: np.ndarray | None = None


def permuted_accuracies(
    votes: Mapping[str, Sequence[np.ndarray]],
    labels: Sequence[IntegerLabels],
    permutations: int,
    seed: int,
    cross_validated: bool = False,
) -> dict[str, np.ndarray]:
    """Compute accuracies after the scored utterances' speakers are permuted within encoder and emotion.

    Predictions are kept and true labels permuted, so that no attacker is fitted again. All attackers use the same
    permutations. Encoders that score the same utterances err alike on them, which permuting each encoder by itself does not
    show; so accuracies are spread around their mean by the root of the design effect. Accuracies of plain cross-validation are
    spread further by `CROSS_VALIDATION_INFLATION`, since its folds are fitted on each other's scored utterances.

    Args:
        votes: For each attacker and encoder, the share of repeats in which it predicted each speaker [n, K].
        labels: Labels of each encoder.
        permutations: Number of permutations.
        seed: Seed of the permutations.
        cross_validated: Whether scored utterances are also trained on in other folds.

    Returns:
        Accuracies [permutations] of each attacker.
    """
    rng = np.random.default_rng(seed)
    sums = {name: np.zeros(permutations) for name in votes}
    for encoder, encoder_labels in enumerate(labels):
        rows = np.arange(encoder_labels.scored.sum())
        for block, shuffled in permuted_speakers(encoder_labels, permutations, rng):
            for name, attacker_votes in votes.items():
                sums[name][block] += attacker_votes[encoder][rows, shuffled].sum(axis=1)
    inflation = CROSS_VALIDATION_INFLATION if cross_validated else 1.0
    scored = sum(encoder_labels.scored.sum() for encoder_labels in labels)
    spread = {name: float(np.sqrt(design_effect(votes[name], labels))) * inflation for name in votes}
    return {name: spread_by(spread[name], sums[name] / scored) for name in votes}


def spread_by(factor: float, permuted: np.ndarray) -> np.ndarray:
    """Return accuracies whose deviations from their mean are multiplied by a factor, which may be infinite."""
    centre = permuted.mean() if len(permuted) else 0.0
    deviation = permuted - centre
    return centre + np.multiply(factor, deviation, out=np.zeros(len(permuted)), where=deviation != 0)


def p_values(accuracy: float, permuted: np.ndarray) -> tuple[float, float]:
    """Compute permutation p values; the observed accuracy counts as one permutation (Phipson and Smyth, SAGMB 2010).

    Args:
        accuracy: Observed accuracy.
        permuted: Accuracies under permuted speakers [permutations].

    Returns:
        Shares of permutations with at least, and with at most, the observed accuracy.
    """
    tolerance = 1e-9  # equal accuracies may differ in the order of summation
    above, below = (permuted >= accuracy - tolerance).sum(), (permuted <= accuracy + tolerance).sum()
    return float((1 + above) / (1 + len(permuted))), float((1 + below) / (1 + len(permuted)))


def permuted_speakers(labels: IntegerLabels, permutations: int, rng: np.random.Generator) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield speakers of the scored utterances [count, n], permuted within each emotion, and which permutations these are."""
    speaker, emotion = labels.speaker[labels.scored], labels.emotion[labels.scored]
    by_emotion = np.argsort(emotion, kind="stable")
    inverse, done = np.argsort(by_emotion), 0
    for count in block_sizes(permutations, len(speaker)):
        keys = rng.random((count, len(speaker)), dtype=np.float32) + emotion[by_emotion]  # sorts within each emotion
        yield slice(done, done + count), speaker[by_emotion][np.argsort(keys, axis=1)][:, inverse]
        done += count


def design_effect(votes: Sequence[np.ndarray], labels: Sequence[IntegerLabels], apart: bool = False) -> float:
    """Compute by how much utterances scored by several encoders, or of one recording, inflate the variance of an accuracy.

    The design effect is the sum of squared sums of residuals over utterances, divided by the sum of squares.

    Args:
        votes: For each encoder, the share of repeats in which each speaker was predicted [n, K].
        labels: Labels of each encoder.
        apart: Whether the accuracy is of one encoder, for which the other encoders' decisions are no repetition.

    Returns:
        Variance ratio, at least 1; 1 if no utterance is scored twice.
    """
    ids = np.concatenate([encoder_labels.id[encoder_labels.scored] for encoder_labels in labels])
    if apart:
        encoder = np.repeat(np.arange(len(labels)), [encoder_labels.scored.sum() for encoder_labels in labels])
        ids = encoder * (ids.max() + 1) + ids
    if len(set(ids)) == len(ids):
        return 1.0
    residual = residuals(votes, labels)
    return max(1.0, (np.bincount(to_indices(ids), weights=residual) ** 2).sum() / max((residual**2).sum(), 1e-12))


def text_effect(
    votes: Sequence[np.ndarray],
    labels: Sequence[IntegerLabels],
    parts: Sequence[np.ndarray] | None = None,
    within: bool = False,
) -> float:
    """Compute by how much utterances of one text that stand or fall together inflate the variance of accuracies.

    An attacker that knows the text, and not the voice, predicts the same speaker wherever it is said: for all utterances of a
    text at once it is right, or wrong. Where all speakers say it, that evens out over them; where some do, or in the recall of
    one speaker, it does not. As in `design_effect`, with residuals minus their mean, so that a leak is not taken for such an
    effect, and corrected for the number of clusters as in `statistics.upper_bound`.

    Args:
        votes: As of `design_effect`; rows of zeros do not count.
        labels: Labels of each encoder.
        parts: For each encoder, the part that each scored utterance belongs to [n], such as its speaker, if accuracies are of
            one part each.
        within: Whether speakers are permuted within each part, so that in a part of one text the text explains nothing.

    Returns:
        Variance ratio, at least 1; infinite where no part has a second text, unless speakers are permuted within parts; NaN where
        texts are unknown.
    """
    texts = [encoder_labels.text[encoder_labels.scored] for encoder_labels in labels if encoder_labels.text is not None]
    if len(texts) < len(labels):
        return np.nan
    weight = np.concatenate([encoder_votes.sum(axis=1) for encoder_votes in votes])
    counted = weight > 0
    text = np.concatenate(texts)[counted]
    part = np.zeros(len(text), dtype=int) if parts is None else to_indices(np.concatenate(parts)[counted])
    weight, residual = weight[counted], residuals(votes, labels)[counted]
    residual = residual - weight * (np.bincount(part, residual) / np.bincount(part, weight))[part]
    cluster = to_indices(part * (text.max() + 1) + text)
    if within:  # parts of one text do not count
        texts_of_part = np.bincount(part[np.unique(cluster, return_index=True)[1]])
        counted = texts_of_part[part] > 1
        cluster, part, residual = to_indices(cluster[counted]), to_indices(part[counted]), residual[counted]
    clusters, several = len(np.unique(cluster)), len(np.unique(part))
    if clusters == several:
        return 1.0 if within else np.inf
    squared = (np.bincount(cluster, residual) ** 2).sum() * clusters / (clusters - several)
    return max(1.0, squared / max((residual**2).sum(), 1e-12))


def residuals(votes: Sequence[np.ndarray], labels: Sequence[IntegerLabels]) -> np.ndarray:
    """Return the correctness of each decision minus what is expected of the same votes for a random speaker of its emotion.

    Args:
        votes: As of `design_effect`.
        labels: Labels of each encoder.

    Returns:
        Residuals of all encoders, one after the other.
    """
    found = []
    for encoder_labels, encoder_votes in zip(labels, votes, strict=True):
        speaker, emotion = encoder_labels.speaker[encoder_labels.scored], encoder_labels.emotion[encoder_labels.scored]
        counts = np.zeros((emotion.max() + 1, encoder_votes.shape[1]))
        np.add.at(counts, (emotion, speaker), 1)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        expected = (encoder_votes * share[emotion]).sum(axis=1)
        found.append(encoder_votes[np.arange(len(encoder_votes)), speaker] - expected)
    return np.concatenate(found)


def block_sizes(total: int, values_each: int) -> Iterator[int]:
    """Yield sizes that sum to `total`, each at most `BLOCK_SIZE` values."""
    size = max(1, BLOCK_SIZE // max(1, values_each))
    for done in range(0, total, size):
        yield min(size, total - done)
