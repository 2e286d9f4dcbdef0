"""Statistics of an audit: chance levels, confidence intervals, permutation tests and the equivalence test.

Shapes: n scored utterances (pooled over encoders, or of one encoder), K speakers, G clusters (texts, or utterances where texts
are unknown). `correct` [n] is the share of repeats, 0 to 1, in which an utterance's speaker was predicted correctly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.metrics import MIN_CLUSTERS

MARGIN = 0.03  # of the equivalence test; see `margin_of`
ALPHA = 0.05
LEAK_ALPHA = 0.025  # for the strongest attacker, and family-wise for all attackers: together at most 5 % false alarms
BELOW_CHANCE_ALPHA = 0.01  # family-wise
TAIL_ALPHA = 0.005  # for one speaker, and for the surest utterances, each corrected for the number of attackers
TAIL_DOUBT = 0.025  # for each of the two: together 5 %, above which neither is in the way of a claim
CROSS_VALIDATION_INFLATION = 1.15  # 100 cross-validations on speaker-free data: sd 1.06 to 1.13 times that of permutations
MIN_EXPECTED_CORRECT = 30  # with fewer correct predictions the t bound is too low
BLOCK_SIZE = 2_000_000  # labels that are permuted or resampled at once; bounds the memory

AtChance = bool | Literal["undecided"]
Reason = Literal[
    "within",
    "leak",
    "below",
    "uneven",
    "few",
    "no_room",
    "speaker",
    "surest",
    "balanced",
    "model",
    "tail",
    "text_leak",
    "text",
    "same_text",
    "own_texts",
    "scored_alone",
    "copies",
    "left_out",
]


@dataclass(frozen=True)
class IntegerLabels:
    """The labels of one encoder's N utterances as integers.

    Attributes:
        id: Utterance; the same utterance has the same integer for every encoder.
        speaker: Speaker, 0 to K - 1.
        emotion: Emotion.
        scored: Boolean mask of the scored utterances.
    """

    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    scored: np.ndarray


def uniform_chance(labels: IntegerLabels) -> float:
    """Return the accuracy of random guessing, 1 / K."""
    return 1 / len(set(labels.speaker))


def majority_chance(labels: IntegerLabels) -> float:
    """Return the accuracy of always predicting the speaker with most utterances."""
    return float(np.bincount(labels.speaker).max() / len(labels.speaker))


def margin_of(chance: float) -> float:
    """Return by how much an accuracy may exceed chance and count as no leak: at most chance itself, as speakers may be many."""
    return min(MARGIN, chance)


def leaves_room(chance: float) -> bool:
    """Return whether an attacker who recognises every speaker would be above a chance level by more than the margin."""
    return chance + margin_of(chance) < 1


def predict_from_emotion(labels: IntegerLabels, train: np.ndarray, test: np.ndarray, balanced: bool) -> np.ndarray:
    """Predict speakers from the true emotion alone, which defines chance given the emotion.

    Predicts the speaker with most training utterances of the emotion. Counting on the scored utterances instead would be
    above chance by luck, by ten points and more where utterances are few; so counts come from the attackers' training sets.

    Args:
        labels: Labels of all utterances.
        train: Positions of the utterances that are counted.
        test: Positions of the n utterances to predict.
        balanced: Maximise balanced accuracy: predict the speaker of whose own utterances the largest share has the emotion.

    Returns:
        Predicted speakers [n].
    """
    counts = np.zeros((labels.emotion.max() + 1, labels.speaker.max() + 1))
    np.add.at(counts, (labels.emotion[train], labels.speaker[train]), 1)
    per_speaker = counts.sum(axis=0)
    likely = counts + 1e-6 * per_speaker  # the most frequent speaker for an emotion without training utterances
    return (likely / np.maximum(per_speaker, 1) if balanced else likely).argmax(axis=1)[labels.emotion[test]]


@dataclass(frozen=True)
class Score:
    """Accuracy of an attacker with bounds and tests, all 0 to 1; NaN where undefined.

    Attributes:
        accuracy: Share of correct predictions.
        low: Lower end of the 95 % cluster-bootstrap interval of the accuracy.
        high: Upper end of it.
        upper: One-sided 95 % upper bound of the accuracy, on which a claim of "at chance" rests.
        balanced_accuracy: Mean recall over speakers.
        balanced_upper: One-sided 95 % upper bound of the balanced accuracy.
        p_value: Permutation p value against accuracy no better than chance within each emotion.
        p_below: Permutation p value against accuracy no worse than chance within each emotion.
    """

    accuracy: float
    low: float
    high: float
    upper: float
    balanced_accuracy: float
    balanced_upper: float
    p_value: float = np.nan
    p_below: float = np.nan


def compute_score(
    correct: np.ndarray, speaker: np.ndarray, cluster: np.ndarray, utterances: int, permuted: np.ndarray | None = None
) -> Score:
    """Summarise an attacker's predictions.

    Args:
        correct: Share of repeats with a correct prediction [n].
        speaker: True speaker [n].
        cluster: Text, or utterance where texts are unknown [n].
        utterances: Number of different utterances; several encoders may score the same ones.
        permuted: Accuracies under permuted speakers, for p values.

    Returns:
        The score.
    """
    speaker_code, recall = recall_by_speaker(correct, speaker)
    accuracy, balanced = float(correct.mean()), float(recall.mean())
    low, high = cluster_bootstrap_interval(correct, cluster)
    p_value, p_below = (np.nan, np.nan) if permuted is None or not len(permuted) else p_values(accuracy, permuted)
    weight = 1 / (len(recall) * np.bincount(speaker_code)[speaker_code])  # of each utterance in balanced accuracy
    return Score(
        accuracy=accuracy,
        low=low,
        high=high,
        upper=upper_bound(accuracy, (correct - accuracy) / len(correct), cluster, utterances),
        balanced_accuracy=balanced,
        balanced_upper=upper_bound(balanced, weight * (correct - recall[speaker_code]), cluster, utterances),
        p_value=p_value,
        p_below=p_below,
    )


def recall_by_speaker(correct: np.ndarray, speaker: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each utterance's speaker as an integer [n], and the share of correct predictions for each speaker [K]."""
    code = to_indices(speaker)
    return code, np.bincount(code, weights=correct) / np.bincount(code)


def cluster_bootstrap_interval(
    correct: np.ndarray, cluster: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of the accuracy.

    Whole clusters are resampled, since utterances of one text are alike. With few clusters the interval is too narrow; see
    `upper_bound`.

    Args:
        correct: Share of repeats with a correct prediction [n].
        cluster: Cluster of each utterance [n].
        resamples: Bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end; NaN with fewer than three clusters.
    """
    member = to_indices(cluster)
    sizes = np.bincount(member)
    if len(sizes) < MIN_CLUSTERS:
        return np.nan, np.nan
    sums = np.bincount(member, weights=correct)
    rng, means = np.random.default_rng(seed), []
    for count in block_sizes(resamples, len(sizes)):
        drawn = rng.integers(len(sizes), size=(count, len(sizes)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def upper_bound(value: float, influence: np.ndarray, cluster: np.ndarray, utterances: int) -> float:
    """Compute the one-sided 95 % upper bound of an accuracy from clustered utterances.

    The standard error is cluster-robust, with a t quantile of G - 1 degrees of freedom (Cameron and Miller, J. Human
    Resources 2015): a bootstrap is too narrow with few clusters. Where fewer than `MIN_EXPECTED_CORRECT` correct predictions
    are expected at the margin, the exact binomial bound (Clopper and Pearson, Biometrika 1934) is taken if it is higher.

    Args:
        value: The accuracy, 0 to 1.
        influence: Influence of each utterance on it [n], of sum 0.
        cluster: Cluster of each utterance [n].
        utterances: Number of different utterances.

    Returns:
        The bound, at most 1; NaN with a single cluster.
    """
    member = to_indices(cluster)
    clusters = member.max() + 1
    if clusters < 2:
        return np.nan
    standard_error = np.sqrt(clusters / (clusters - 1) * (np.bincount(member, weights=influence) ** 2).sum())
    bound = value + stats.t.ppf(1 - ALPHA, clusters - 1) * standard_error
    if utterances * (value + margin_of(value)) < MIN_EXPECTED_CORRECT:
        correct = min(np.ceil(value * utterances - 1e-9), utterances - 1)
        bound = max(bound, stats.beta.ppf(1 - ALPHA, correct + 1, utterances - correct))
    return float(min(bound, 1.0))


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
    spread = {name: float(np.sqrt(design_effect(votes[name], labels))) * inflation for name in votes}
    centre = {name: sums[name].mean() if permutations else 0.0 for name in votes}
    scored = sum(encoder_labels.scored.sum() for encoder_labels in labels)
    return {name: (centre[name] + spread[name] * (sums[name] - centre[name])) / scored for name in votes}


def permuted_speakers(labels: IntegerLabels, permutations: int, rng: np.random.Generator) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield speakers of the scored utterances [count, n], permuted within each emotion, and which permutations these are."""
    speaker, emotion = labels.speaker[labels.scored], labels.emotion[labels.scored]
    by_emotion = np.argsort(emotion, kind="stable")
    inverse, done = np.argsort(by_emotion), 0
    for count in block_sizes(permutations, len(speaker)):
        keys = rng.random((count, len(speaker)), dtype=np.float32) + emotion[by_emotion]  # sorts within each emotion
        yield slice(done, done + count), speaker[by_emotion][np.argsort(keys, axis=1)][:, inverse]
        done += count


def design_effect(votes: Sequence[np.ndarray], labels: Sequence[IntegerLabels]) -> float:
    """Compute by how much scoring the same utterances with several encoders inflates the variance of an accuracy.

    The residual of a decision is its correctness minus the expected correctness of the same votes for a random speaker of
    that emotion. The design effect is the sum of squared sums of residuals over utterances, divided by the sum of squares.

    Args:
        votes: For each encoder, the share of repeats in which each speaker was predicted [n, K].
        labels: Labels of each encoder.

    Returns:
        Variance ratio, at least 1; 1 if no utterance is scored twice.
    """
    residuals, ids = [], np.concatenate([encoder_labels.id[encoder_labels.scored] for encoder_labels in labels])
    if len(set(ids)) == len(ids):
        return 1.0
    for encoder_labels, encoder_votes in zip(labels, votes, strict=True):
        speaker, emotion = encoder_labels.speaker[encoder_labels.scored], encoder_labels.emotion[encoder_labels.scored]
        counts = np.zeros((emotion.max() + 1, encoder_votes.shape[1]))
        np.add.at(counts, (emotion, speaker), 1)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        expected = (encoder_votes * share[emotion]).sum(axis=1)
        residuals.append(encoder_votes[np.arange(len(encoder_votes)), speaker] - expected)
    residual = np.concatenate(residuals)
    utterance = to_indices(ids)
    return max(1.0, (np.bincount(utterance, weights=residual) ** 2).sum() / max((residual**2).sum(), 1e-12))


def block_sizes(total: int, values_each: int) -> Iterator[int]:
    """Yield sizes that sum to `total`, each at most `BLOCK_SIZE` values."""
    size = max(1, BLOCK_SIZE // max(1, values_each))
    for done in range(0, total, size):
        yield min(size, total - done)


def detection_limit(utterances: int, chance: float, power: float = 0.8) -> float | None:
    """Compute the smallest accuracy that a one-sided binomial test at 5 % detects with the given power.

    Args:
        utterances: Number of different scored utterances.
        chance: Chance level, 0 to 1.
        power: Probability of detection.

    Returns:
        The accuracy, 1 if none below is detected; None if chance is 0 or 1.

    >>> round(detection_limit(110, 1 / 11), 2)
    0.17
    """
    if not 0 < chance < 1 - 1e-9:
        return None
    critical = stats.binom.ppf(1 - ALPHA, utterances, chance) + 1  # smallest significant number of correct predictions
    grid = np.linspace(chance, 1, 2001)
    return float(grid[np.argmax(stats.binom.sf(critical - 1, utterances, grid) >= power)]) if critical <= utterances else 1.0


@dataclass(frozen=True)
class Conclusion:
    """Whether attackers are at chance, and why.

    Attributes:
        at_chance: True, False or "undecided".
        reason: "within" the margin of chance, a "leak", ...; `words.conclusions` explains each.
    """

    at_chance: AtChance
    reason: Reason


def equivalence_test(
    strongest: Score, attackers: Mapping[str, Score], chance: Mapping[str, float], tails: Mapping[Reason, float] | None = None
) -> Conclusion:
    """Decide whether attackers are at chance given the emotion.

    Missing evidence of a leak is no evidence of absence. As in equivalence tests (Schuirmann, J. Pharmacokin. Biopharm. 1987):

    - True if the upper bounds of the strongest attacker, in accuracy and balanced accuracy, are less than `margin_of` above
      chance, no attacker is significantly above that or below chance, and nothing in `tails` is significant;
    - False if an attacker is significantly below chance (its opposite identifies speakers), if the attackers are significantly
      above chance, or if one of the tails is;
    - "undecided" otherwise: too few utterances, a tail that may be one, or no room between chance and certainty.

    Args:
        strongest: Score of the strongest attacker, chosen without the scored utterances.
        attackers: Scores of all attackers on the embedding.
        chance: Chance levels with the keys "given_emotion" and "given_emotion_balanced".
        tails: Corrected p values by the reason that they give, as `tails.decisive` has them; none by default.

    Returns:
        The conclusion.
    """
    bound, balanced_bound = (level + margin_of(level) for level in (chance["given_emotion"], chance["given_emotion_balanced"]))
    room = leaves_room(chance["given_emotion"]) and leaves_room(chance["given_emotion_balanced"])
    within = room and strongest.upper < bound and strongest.balanced_upper < balanced_bound
    significant = [score for score in attackers.values() if score.p_value * len(attackers) < LEAK_ALPHA]
    if any(score.p_below * len(attackers) < BELOW_CHANCE_ALPHA for score in attackers.values()):
        return Conclusion(False, "below")
    within = within and not any(score.accuracy >= bound for score in significant)
    if not within and (significant or strongest.p_value < LEAK_ALPHA):
        return Conclusion(False, "leak")
    for reason, p_value in (tails or {}).items():
        if p_value < TAIL_ALPHA:
            return Conclusion(False, reason)
    if within:
        doubtful = any(p_value < TAIL_DOUBT for p_value in (tails or {}).values())
        return Conclusion("undecided", "tail") if doubtful else Conclusion(True, "within")
    return Conclusion("undecided", "few" if room else "no_room")
