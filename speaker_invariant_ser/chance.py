"""What an attacker's score means: chance levels, intervals, permutation tests, and when "at chance" may be said.

n scored clips, K speakers, G clusters (texts, or clips where texts are not known). A hit is the share of repeats, 0 to 1, in
which a clip's speaker was named rightly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from speaker_invariant_ser.errors import AuditError

MARGIN = 0.03  # what counts as no leak: less than this above chance
BELOW = 0.01  # family-wise level at which an attacker is called worse than chance
ALPHA = 0.05
BLOCK = 2_000_000  # labels permuted or resampled at once: bounds memory

AtChance = bool | Literal["undecided"]


@dataclass(frozen=True)
class Clips:
    """The clips of one encoder: numbers of speaker and emotion [N], and which of them are scored [N]."""

    speaker: np.ndarray
    emotion: np.ndarray
    scored: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """All clips by emotion and speaker [C, K]."""
        counts = np.zeros((self.emotion.max() + 1, self.speaker.max() + 1))
        np.add.at(counts, (self.emotion, self.speaker), 1)
        return counts


def uniform(clips: Clips) -> float:
    """1 / K."""
    return 1 / len(set(clips.speaker))


def majority(clips: Clips) -> float:
    """Always naming the speaker with most clips."""
    return float(clips.counts.sum(axis=0).max() / len(clips.speaker))


def given_emotion(clips: Clips) -> float:
    """Naming, for each true emotion, the speaker with most clips of it: above 1 / K when speakers differ in their emotions.

    Counted over all clips of the encoder, scored or not, since attackers learn from all; weighted by the emotions scored.
    """
    counts = clips.counts
    share = np.bincount(clips.emotion[clips.scored], minlength=len(counts)) / clips.scored.sum()
    return float(share @ (counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1)))


def given_emotion_balanced(clips: Clips) -> float:
    """The same in balanced accuracy: for each emotion, the speaker who has it most often among the own clips."""
    counts = clips.counts
    heard = counts.sum(axis=0)
    return float((counts[:, heard > 0] / heard[heard > 0]).max(axis=1).sum() / (heard > 0).sum())


CHANCES = {
    "uniform": uniform,
    "majority": majority,
    "given_emotion": given_emotion,
    "given_emotion_balanced": given_emotion_balanced,
}


@dataclass(frozen=True)
class Score:
    """How many speakers an attacker names rightly, 0 to 1; NaN where undefined.

    `low` and `high` are the 95 % bootstrap interval over clusters, `upper` the one-sided 95 % bound that a claim of chance
    has to respect; `p_value` is against naming no better than chance within each emotion, `p_below` against no worse.
    """

    accuracy: float
    low: float
    high: float
    upper: float
    balanced_accuracy: float
    balanced_upper: float
    p_value: float = np.nan
    p_below: float = np.nan


def score(hits: np.ndarray, speaker: np.ndarray, cluster: np.ndarray, permuted: np.ndarray | None = None) -> Score:
    """Score of hits [n] of clips of these speakers [n] and clusters [n]; `permuted` are accuracies under permuted labels.

    Balanced accuracy is the mean over the speakers of the share of their clips that is named rightly.
    """
    _, who, clips = np.unique(speaker, return_inverse=True, return_counts=True)
    recall = np.bincount(who, weights=hits) / clips
    accuracy, balanced = float(hits.mean()), float(recall.mean())
    low, high = interval(hits, cluster)
    p_value, p_below = (np.nan, np.nan) if permuted is None else p_values(accuracy, permuted)
    return Score(
        accuracy=accuracy,
        low=low,
        high=high,
        upper=upper_bound(accuracy, (hits - accuracy) / len(hits), cluster),
        balanced_accuracy=balanced,
        balanced_upper=upper_bound(balanced, (hits - recall[who]) / (len(clips) * clips[who]), cluster),
        p_value=p_value,
        p_below=p_below,
    )


def interval(hits: np.ndarray, cluster: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean hit, resampling whole clusters: clips of one text are alike. NaN for one cluster."""
    _, member, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return np.nan, np.nan
    sums = np.bincount(member, weights=hits)
    rng, means = np.random.default_rng(seed), []
    for count in blocks(resamples, len(sizes)):
        drawn = rng.integers(len(sizes), size=(count, len(sizes)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def upper_bound(value: float, influence: np.ndarray, cluster: np.ndarray) -> float:
    """One-sided 95 % upper bound of a mean whose clips have this influence [n] on it (sum 0), by clusters; NaN for one.

    With G clusters, t of G - 1 degrees of freedom: where they are few, a bootstrap is too sure of itself, and this bound
    is what "at chance" rests on. Cameron and Miller, J. Human Resources 2015.
    """
    _, member = np.unique(cluster, return_inverse=True)
    groups = member.max() + 1
    if groups < 2:
        return np.nan
    spread = np.sqrt(groups / (groups - 1) * (np.bincount(member, weights=influence) ** 2).sum())
    return float(value + stats.t.ppf(1 - ALPHA, groups - 1) * spread)


def p_values(accuracy: float, permuted: np.ndarray) -> tuple[float, float]:
    """(share of permutations that read as much, share that read as little), the observed one counted: Phipson and Smyth 2010."""
    slack = 1e-9  # sums in another order
    above, below = (permuted >= accuracy - slack).sum(), (permuted <= accuracy + slack).sum()
    return float((1 + above) / (1 + len(permuted))), float((1 + below) / (1 + len(permuted)))


def permuted_accuracies(
    votes: Mapping[str, Sequence[np.ndarray]], clips: Sequence[Clips], permutations: int, seed: int
) -> dict[str, np.ndarray]:
    """Attacker -> accuracies [permutations] when the scored clips' speakers are permuted within encoder and emotion.

    `votes` holds, for each encoder, the share of repeats [n, K] in which an attacker named each speaker; what it named is
    kept, so that a permutation costs no training. All attackers meet the same permutations.
    """
    rng = np.random.default_rng(seed)
    total = {name: np.zeros(permutations) for name in votes}
    for encoder, one in enumerate(clips):
        speaker, emotion = one.speaker[one.scored], one.emotion[one.scored]
        order = np.argsort(emotion, kind="stable")
        inverse, rows = np.argsort(order), np.arange(len(speaker))
        done = 0
        for count in blocks(permutations, len(speaker)):
            keys = rng.random((count, len(speaker)), dtype=np.float32) + emotion[order]  # sorts within each emotion
            shuffled = speaker[order][np.argsort(keys, axis=1)][:, inverse]
            for name, each in votes.items():
                total[name][done : done + count] += each[encoder][rows, shuffled].sum(axis=1)
            done += count
    scored = sum(one.scored.sum() for one in clips)
    return {name: sums / scored for name, sums in total.items()}


def blocks(times: int, each: int) -> Iterator[int]:
    """`times` in parts so that a part times `each` stays within bounds."""
    most = max(1, BLOCK // max(1, each))
    for done in range(0, times, most):
        yield min(most, times - done)


def detection_limit(clips: int, chance: float, power: float = 0.8) -> float:
    """The smallest accuracy that a binomial test at 5 % would notice in 4 of 5 cases, with this many scored clips."""
    if not 0 < chance < 1:
        raise AuditError(f"chance = {chance}: expected a share between 0 and 1")
    noticed = stats.binom.ppf(1 - ALPHA, clips, chance) + 1  # hits
    grid = np.linspace(chance, 1, 2001)
    return float(grid[np.argmax(stats.binom.sf(noticed - 1, clips, grid) >= power)]) if noticed <= clips else 1.0


def at_chance(strongest: Score, attackers: Mapping[str, Score], chance: Mapping[str, float]) -> AtChance:
    """Whether the speaker is gone, as a test of equivalence (Schuirmann 1987): no evidence of a leak is not enough.

    True    the upper bounds of the strongest attacker are below given-emotion chance + 3 points, in accuracy and in
            balanced accuracy, and no attacker is far above or significantly below chance
    False   an attacker is significantly below chance (a leak too: its opposite reads the speaker), or a leak is shown
    "undecided"  neither: too few clips
    """
    bound = chance["given_emotion"] + MARGIN
    within = strongest.upper < bound and strongest.balanced_upper < chance["given_emotion_balanced"] + MARGIN
    below = any(one.p_below * len(attackers) < BELOW for one in attackers.values())
    far = any(one.p_value * len(attackers) < ALPHA and one.accuracy >= bound for one in attackers.values())
    shown = strongest.p_value < ALPHA or any(one.p_value * len(attackers) < ALPHA for one in attackers.values())
    if within and not below and not far:
        return True
    return False if below or shown else "undecided"
