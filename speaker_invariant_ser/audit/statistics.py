"""What an attacker's score means: chance levels, intervals, permutation tests, and when "at chance" may be said.

n scored clips, K speakers, G clusters (texts, or clips where texts are not known). A hit is the share of repeats, 0 to 1, in
which a clip's speaker was named rightly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from speaker_invariant_ser.indexing import to_indices

MARGIN = 0.03  # what counts as no leak: less than this above chance
BELOW = 0.01  # family-wise level at which an attacker is called worse than chance
ALPHA = 0.05
SHOWN = 0.025  # level of the strongest attacker's test, and family-wise of all the others': together they err in 1 of 20
CROSSED = 1.15  # speaker-free data, cross-validated: accuracies of 100 seeds spread 1.06 to 1.13 times as far as permutations
FEW_HITS = 30  # below so many, a bound from their spread is too low
BLOCK = 2_000_000  # labels permuted or resampled at once: bounds memory

AtChance = bool | Literal["undecided"]


@dataclass(frozen=True)
class Clips:
    """The clips of one encoder: numbers of clip, speaker and emotion [N], and which of them are scored [N]."""

    id: np.ndarray  # the same clip of another encoder has the same number
    speaker: np.ndarray
    emotion: np.ndarray
    scored: np.ndarray


def uniform(clips: Clips) -> float:
    """1 / K."""
    return 1 / len(set(clips.speaker))


def majority(clips: Clips) -> float:
    """Always naming the speaker with most clips."""
    return float(np.bincount(clips.speaker).max() / len(clips.speaker))


def guess_by_emotion(clips: Clips, train: np.ndarray, test: np.ndarray, balanced: bool) -> np.ndarray:
    """The speaker [n] whom one would name for each clip at `test`, knowing its true emotion and the clips at `train`.

    The one with most clips of that emotion, or, for `balanced` accuracy, with the largest share of own clips of it.
    Learned elsewhere than scored, as attackers are: the most frequent speaker among the scored clips themselves would be
    above chance by luck alone, by ten points and more where clips are few.
    """
    counts = np.zeros((clips.emotion.max() + 1, clips.speaker.max() + 1))
    np.add.at(counts, (clips.emotion[train], clips.speaker[train]), 1)
    heard = counts.sum(axis=0)
    likely = counts + 1e-6 * heard  # whoever is heard most, for an emotion that was never heard
    return (likely / np.maximum(heard, 1) if balanced else likely).argmax(axis=1)[clips.emotion[test]]


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


def score(
    hits: np.ndarray, speaker: np.ndarray, cluster: np.ndarray, utterances: int, permuted: np.ndarray | None = None
) -> Score:
    """Score of hits [n] of clips of these speakers [n] and clusters [n]; `permuted` are accuracies under permuted labels.

    Balanced accuracy is the mean over the speakers of the share of their clips that is named rightly. `utterances` is the
    number of different clips: several encoders may have scored the same.
    """
    who, recall = recalls(hits, speaker)
    accuracy, balanced = float(hits.mean()), float(recall.mean())
    low, high = interval(hits, cluster)
    p_value, p_below = (np.nan, np.nan) if permuted is None or not len(permuted) else p_values(accuracy, permuted)
    share = 1 / (len(recall) * np.bincount(who)[who])  # of each clip in balanced accuracy
    return Score(
        accuracy=accuracy,
        low=low,
        high=high,
        upper=upper_bound(accuracy, (hits - accuracy) / len(hits), cluster, utterances),
        balanced_accuracy=balanced,
        balanced_upper=upper_bound(balanced, share * (hits - recall[who]), cluster, utterances),
        p_value=p_value,
        p_below=p_below,
    )


def recalls(hits: np.ndarray, speaker: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(each clip's speaker as a number [n], the share of each speaker's clips that is named rightly [K])."""
    _, who, clips = np.unique(speaker, return_inverse=True, return_counts=True)
    return who, np.bincount(who, weights=hits) / clips


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


def upper_bound(value: float, influence: np.ndarray, cluster: np.ndarray, utterances: int) -> float:
    """One-sided 95 % upper bound of a mean whose clips have this influence [n] on it (sum 0), by clusters; NaN for one.

    With G clusters, t of G - 1 degrees of freedom: where they are few, a bootstrap is too sure of itself, and this bound
    is what "at chance" rests on. Cameron and Miller, J. Human Resources 2015. Where few hits would be right even just beyond
    the margin, the exact binomial bound if that is higher: Clopper and Pearson, Biometrika 1934.
    """
    member = to_indices(cluster)
    groups = member.max() + 1
    if groups < 2:
        return np.nan
    spread = np.sqrt(groups / (groups - 1) * (np.bincount(member, weights=influence) ** 2).sum())
    bound = value + stats.t.ppf(1 - ALPHA, groups - 1) * spread
    if utterances * (value + MARGIN) < FEW_HITS:
        hits = min(np.ceil(value * utterances - 1e-9), utterances - 1)
        bound = max(bound, stats.beta.ppf(1 - ALPHA, hits + 1, utterances - hits))
    return float(min(bound, 1.0))


def p_values(accuracy: float, permuted: np.ndarray) -> tuple[float, float]:
    """(share of permutations that read as much, share that read as little), the observed one counted: Phipson and Smyth 2010."""
    slack = 1e-9  # sums in another order
    above, below = (permuted >= accuracy - slack).sum(), (permuted <= accuracy + slack).sum()
    return float((1 + above) / (1 + len(permuted))), float((1 + below) / (1 + len(permuted)))


def permuted_accuracies(
    votes: Mapping[str, Sequence[np.ndarray]], clips: Sequence[Clips], permutations: int, seed: int, crossed: bool = False
) -> dict[str, np.ndarray]:
    """Attacker -> accuracies [permutations] when the scored clips' speakers are permuted within encoder and emotion.

    `votes` holds, for each encoder, the share of repeats [n, K] in which an attacker named each speaker; what it named is
    kept, so that a permutation costs no training. All attackers meet the same permutations. Encoders that score the same
    clips err alike on them, which permuting each by itself does not show: the accuracies are spread by `togetherness`.
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
    spread = {name: togetherness(each, clips) * (CROSSED if crossed else 1.0) for name, each in votes.items()}
    centre = {name: sums.mean() if permutations else 0.0 for name, sums in total.items()}
    return {name: (centre[name] + spread[name] * (sums - centre[name])) / scored for name, sums in total.items()}


def togetherness(votes: Sequence[np.ndarray], clips: Sequence[Clips]) -> float:
    """How much wider the sum of hits spreads because the same clips are scored by several encoders; 1 if none is.

    The root of the design effect: squared sums of each clip's residuals over their sum of squares. A residual is a hit less
    what the same votes would hit on average with the speakers of that emotion.
    """
    residuals, ids = [], np.concatenate([one.id[one.scored] for one in clips])
    if len(set(ids)) == len(ids):
        return 1.0
    for one, each in zip(clips, votes, strict=True):
        speaker, emotion = one.speaker[one.scored], one.emotion[one.scored]
        counts = np.zeros((emotion.max() + 1, each.shape[1]))
        np.add.at(counts, (emotion, speaker), 1)
        expected = (each * (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[emotion]).sum(axis=1)
        residuals.append(each[np.arange(len(each)), speaker] - expected)
    residual = np.concatenate(residuals)
    number = to_indices(ids)
    together = (np.bincount(number, weights=residual) ** 2).sum()
    return float(np.sqrt(max(1.0, together / max((residual**2).sum(), 1e-12))))


def blocks(times: int, each: int) -> Iterator[int]:
    """`times` in parts so that a part times `each` stays within bounds."""
    most = max(1, BLOCK // max(1, each))
    for done in range(0, times, most):
        yield min(most, times - done)


def detection_limit(clips: int, chance: float, power: float = 0.8) -> float | None:
    """The smallest accuracy that a binomial test at 5 % would notice in 4 of 5 cases, with so many different clips.

    None where chance leaves nothing to notice.
    """
    if not 0 < chance < 1 - 1e-9:
        return None
    noticed = stats.binom.ppf(1 - ALPHA, clips, chance) + 1  # hits
    grid = np.linspace(chance, 1, 2001)
    return float(grid[np.argmax(stats.binom.sf(noticed - 1, clips, grid) >= power)]) if noticed <= clips else 1.0


@dataclass(frozen=True)
class Judgement:
    """Whether the speaker is gone, and why that is said: within the margin, leak, below chance, or too few clips."""

    at_chance: AtChance
    reason: Literal["within", "leak", "below", "few"]


def judge(strongest: Score, attackers: Mapping[str, Score], chance: Mapping[str, float]) -> Judgement:
    """Whether the speaker is gone, as a test of equivalence (Schuirmann 1987): no evidence of a leak is not enough.

    True    the upper bounds of the strongest attacker are below given-emotion chance + 3 points, in accuracy and in
            balanced accuracy, and no attacker is far above or significantly below chance
    False   an attacker is significantly below chance (a leak too: its opposite reads the speaker), or a leak is shown
    "undecided"  neither: too few clips
    """
    bound = chance["given_emotion"] + MARGIN
    within = strongest.upper < bound and strongest.balanced_upper < chance["given_emotion_balanced"] + MARGIN
    significant = [one for one in attackers.values() if one.p_value * len(attackers) < SHOWN]
    if any(one.p_below * len(attackers) < BELOW for one in attackers.values()):
        return Judgement(False, "below")
    if within and not any(one.accuracy >= bound for one in significant):
        return Judgement(True, "within")
    return Judgement(False, "leak") if significant or strongest.p_value < SHOWN else Judgement("undecided", "few")
