"""Statistics of an audit: chance levels, confidence intervals, scores and the equivalence test.

Shapes: n scored utterances (pooled over encoders, or of one encoder), K speakers, G clusters (texts, or utterances where texts
are unknown). `correct` [n] is the share of repeats, 0 to 1, in which an utterance's speaker was predicted correctly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from speaker_invariant_ser.audit.permutations import IntegerLabels, block_sizes, p_values
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.metrics import MIN_CLUSTERS

MARGIN = 0.03  # of the equivalence test; see `margin_of`
ALPHA = 0.05
LEAK_ALPHA = 0.025  # for the strongest attacker, and family-wise for all attackers: together at most 5 % false alarms
BELOW_CHANCE_ALPHA = 0.01  # family-wise
TAIL_ALPHA = 0.005  # for one speaker, and for the surest utterances, each corrected for the number of attackers
TAIL_DOUBT = 0.025  # for each of the two: together 5 %, above which neither is in the way of a claim
MIN_EXPECTED_CORRECT = 30  # with fewer correct predictions the t bound is too low

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
        p_value_texts: The first p value if the text may explain accuracies (see `tails.conclude`); NaN where texts are unknown.
        p_below_texts: The second one likewise.
    """

    accuracy: float
    low: float
    high: float
    upper: float
    balanced_accuracy: float
    balanced_upper: float
    p_value: float = np.nan
    p_below: float = np.nan
    p_value_texts: float = np.nan
    p_below_texts: float = np.nan

    @property
    def over_texts(self) -> "Score":
        """The score with the p values over texts where these are known."""
        known = {"p_value": self.p_value_texts, "p_below": self.p_below_texts}
        return replace(self, **{name: value for name, value in known.items() if not np.isnan(value)})


def compute_score(
    correct: np.ndarray,
    speaker: np.ndarray,
    cluster: np.ndarray,
    utterances: int,
    permuted: np.ndarray | None = None,
    permuted_texts: np.ndarray | None = None,
) -> Score:
    """Summarise an attacker's predictions.

    Args:
        correct: Share of repeats with a correct prediction [n].
        speaker: True speaker [n].
        cluster: Text, or utterance where texts are unknown [n].
        utterances: Number of different utterances; several encoders may score the same ones.
        permuted: Accuracies under permuted speakers, for p values.
        permuted_texts: The same where the text may explain accuracies; None where texts are unknown.

    Returns:
        The score.
    """
    speaker_code, recall = recall_by_speaker(correct, speaker)
    accuracy, balanced = float(correct.mean()), float(recall.mean())
    low, high = cluster_bootstrap_interval(correct, cluster)
    (p_value, p_below), (p_value_texts, p_below_texts) = (
        (np.nan, np.nan) if accuracies is None or not len(accuracies) else p_values(accuracy, accuracies)
        for accuracies in (permuted, permuted_texts)
    )
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
        p_value_texts=p_value_texts,
        p_below_texts=p_below_texts,
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
