"""Can two clips be told to be of the same person, if nobody has met that person before?

An attacker who cannot name a speaker may still link their clips. Every pair of clips is a trial, a target trial if one
person speaks both. Two scorers judge how alike the clips are, both made from *other* people's embeddings, the background:
cosine, and a trained back-end. N clips, D dimensions, P pairs, K speakers, M clips of the background.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_array
from sklearn.covariance import OAS, LedoitWolf
from sklearn.metrics import roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection

SCORERS = ("cosine", "trained")
HEADLINE = "trained"  # chosen beforehand: the better of two would look better than it is
MOST_PAIRS = 200_000  # of one encoder
MOST_DIMENSIONS = 1024  # for the trained back-end; wider embeddings are projected at random, which keeps distances
LEAST_REST = 1e-10  # variance of anything but the speaker; a standardised dimension has 1
LEAST_BETWEEN = 1e-3  # variance between speakers, in units of the rest: where training finds none, nearness still counts
BINS = 10  # of scores, for linkability
FEWEST_SPEAKERS, LEVELS, RESAMPLES = 3, 1000, 200  # for the interval of the error rate


@dataclass(frozen=True)
class Trials:
    """Pairs of clips by one encoder, scored; all lists have P entries."""

    score: dict[str, np.ndarray]  # scorer -> float, higher is more alike
    target: np.ndarray  # bool, one speaker
    same_emotion: np.ndarray  # bool
    who: np.ndarray  # [P, 2] int, positions in people
    people: np.ndarray  # [K] str
    clips: int  # N
    same_text_left_out: bool

    def chosen(self, rows: np.ndarray) -> "Trials":
        score = {name: values[rows] for name, values in self.score.items()}
        return replace(self, score=score, target=self.target[rows], same_emotion=self.same_emotion[rows], who=self.who[rows])


@dataclass(frozen=True)
class Verification:
    """Error rates and linkability of each scorer, pooled over encoders."""

    scorers: dict[str, dict]
    target_trials: int
    nontarget_trials: int
    same_text_left_out: bool

    @property
    def summary(self) -> dict:
        """Part of report.json; None where undefined. `eer`, `low`, `high` are those of the trained back-end."""
        return {
            **{key: self.scorers[HEADLINE][key] for key in ("eer", "low", "high")},
            **self.scorers,
            "target_trials": self.target_trials,
            "nontarget_trials": self.nontarget_trials,
            "same_text_left_out": self.same_text_left_out,
        }


def verify(tables: Sequence[Trials | None]) -> Verification | None:
    """Pool the trials of several encoders; None if no encoder has both kinds of trials.

    Encoders weigh by their clips, among target trials as among others. If trials were merely thrown together, an encoder
    with high scores and many target trials (few speakers) would pass for one that knows its speakers.
    """
    tables = [table for table in tables if table is not None]
    if not tables:
        return None
    return Verification(
        scorers={name: judge(tables, name) for name in SCORERS},
        target_trials=int(sum(table.target.sum() for table in tables)),
        nontarget_trials=int(sum((~table.target).sum() for table in tables)),
        same_text_left_out=all(table.same_text_left_out for table in tables),
    )


def verify_without_background(
    embedding: np.ndarray, speaker: np.ndarray, emotion: np.ndarray, text: np.ndarray, seed: int = 0
) -> Verification | None:
    """The same for embeddings [N, D] that come without a background: each half of the speakers is that of the other half.

    None with fewer than four speakers. `per_encoder` then has an entry for each half.
    """
    names = np.random.default_rng(seed).permutation(np.unique(speaker))
    if len(names) < 4:
        return None
    first = np.isin(speaker, names[: len(names) // 2])
    return verify(
        [
            make_trials(embedding[half], speaker[half], emotion[half], text[half], embedding[~half], speaker[~half], seed=seed)
            for half in (first, ~first)
        ]
    )


def make_trials(
    embedding: np.ndarray,
    speaker: np.ndarray,
    emotion: np.ndarray,
    text: np.ndarray,
    background: np.ndarray,
    background_speaker: np.ndarray,
    most: int = MOST_PAIRS,
    seed: int = 0,
) -> Trials | None:
    """Score the pairs of the clips `embedding` [N, D], people on whom neither the encoder nor the back-end was trained.

    The scorers are made from `background` [M, D] and its speakers [M]. Beyond `most` pairs a seeded sample is drawn, half
    of it target pairs if there are as many. Pairs of one text are left out where texts are known ("" is not), for a sentence
    is like itself whoever says it; unless no target pair or no other pair is left without them. None if there is no target
    pair or no other pair at all: fewer than two speakers, or one clip of each.
    """
    people, who = np.unique(speaker, return_inverse=True)
    left, right = draw_pairs(who, most, seed).T
    target = who[left] == who[right]
    apart = (text[left] != text[right]) | (text[left] == "")
    leave_out = (text != "").any() and both_kinds(target[apart])
    if leave_out:
        left, right, target = left[apart], right[apart], target[apart]
    if not both_kinds(target):
        return None
    scorers = {"cosine": Cosine(background), "trained": TwoCovariance(background, background_speaker)}
    return Trials(
        score={name: scorer.compare(embedding, left, right) for name, scorer in scorers.items()},
        target=target,
        same_emotion=emotion[left] == emotion[right],
        who=np.column_stack([who[left], who[right]]),
        people=people,
        clips=len(speaker),
        same_text_left_out=bool(leave_out),
    )


def both_kinds(target: np.ndarray) -> bool:
    return bool(target.any() and not target.all())


def draw_pairs(who: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Pairs [P, 2] of positions in `who` [N], speakers 0 .. K-1: all, or a sample that takes no more memory than it must."""
    total = triangle(len(who))
    if total <= most:
        return unrank(np.arange(total))
    rng = np.random.default_rng(seed)
    sizes = np.bincount(who)
    until = np.cumsum(triangle(sizes))  # target pairs numbered speaker by speaker
    number = some(until[-1], most // 2, rng)
    whose = np.searchsorted(until, number, side="right")
    within = unrank(number - (until - triangle(sizes))[whose])
    same = np.argsort(who, kind="stable")[(np.cumsum(sizes) - sizes)[whose, None] + within]
    other = unrank(some(total, 2 * most, rng))
    other = other[who[other[:, 0]] != who[other[:, 1]]]
    return np.concatenate([same, other[: most - len(same)]])


def some(total: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most `most` of the numbers below `total`, without repetition, in random order."""
    return rng.choice(total, min(total, most), replace=False)


def triangle(count):
    """Pairs that can be made of so many clips."""
    return count * (count - 1) // 2


def unrank(number: np.ndarray) -> np.ndarray:
    """Pairs [P, 2] by their number [P] in the order (1, 0), (2, 0), (2, 1), (3, 0), ...

    >>> unrank(np.arange(4)).tolist()
    [[1, 0], [2, 0], [2, 1], [3, 0]]
    """
    larger = ((1 + np.sqrt(1 + 8 * number)) / 2).astype(np.int64)
    return np.column_stack([larger, number - triangle(larger)])


class Cosine:
    """Cosine of the angle between two embeddings, seen from the background's mean: -1 to 1."""

    def __init__(self, background: np.ndarray):
        self.prepare = make_pipeline(StandardScaler(with_std=False), Normalizer()).fit(background)

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return inner(self.prepare.transform(embedding), left, right)


class TwoCovariance:
    """PLDA in its two-covariance form: log-likelihood ratio of "one speaker" to "two" for embeddings x = mean + speaker + rest.

    Dimensions are standardised, then turned and scaled so that the rest has covariance 1 and the speakers' is diagonal.
    Both covariances are shrunk towards a ball (Ledoit and Wolf 2004; Chen et al. 2010, the better one for a handful of
    speakers): with few clips, or D > M, nearness after whitening is what remains. Background speakers with one clip say
    nothing of the rest; if all are such, all of the variance stands for it. Embeddings keep their length: to normalise it did
    worse on plain acoustic features. Source: Bruemmer and de Villiers, Odyssey 2010; scatter matrices instead of EM.
    """

    def __init__(self, background: np.ndarray, speaker: np.ndarray):
        wide = background.shape[1] > MOST_DIMENSIONS
        narrowed = [GaussianRandomProjection(MOST_DIMENSIONS, random_state=0)] if wide else []
        self.prepare = make_pipeline(StandardScaler(), *narrowed).fit(background)
        clips = self.prepare.transform(background)
        _, who, sizes = np.unique(speaker, return_inverse=True, return_counts=True)
        means = np.stack([np.bincount(who, column) for column in clips.T], axis=1) / sizes[:, None]
        several = sizes[who] > 1
        unbiased = np.sqrt(sizes[who] / np.maximum(sizes[who] - 1, 1))[:, None]
        rest = ((clips - means[who]) * unbiased)[several] if several.any() else clips
        variances, turn = eigh(LedoitWolf(assume_centered=True).fit(rest).covariance_)
        self.turn = turn / np.sqrt(np.maximum(variances, LEAST_REST))
        between, turn = np.zeros(len(variances)), np.eye(len(variances))
        if len(means) > 1:
            between, turn = eigh(OAS(assume_centered=True).fit(means @ self.turn).covariance_)
        self.turn = self.turn @ turn
        self.between = np.maximum(between - np.mean(1 / sizes), LEAST_BETWEEN)  # means still hold 1/n of the rest

    def compare(self, embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Natural logarithm of the ratio [P]: 0 says nothing, above 0 speaks for one speaker."""
        clips, total = self.prepare.transform(embedding) @ self.turn, self.between + 1
        unshared = total**2 - self.between**2
        own = clips**2 @ (1 / total - total / unshared) / 2
        together = inner(clips * np.sqrt(self.between / unshared), left, right)
        return together + own[left] + own[right] - np.log(unshared / total**2).sum() / 2


def inner(clips: np.ndarray, left: np.ndarray, right: np.ndarray, block: int = 20_000) -> np.ndarray:
    """Inner products [P] of rows of [N, D], block by block: P x D numbers at once would be too many."""
    starts = range(0, len(left), block)
    products = [np.einsum("pd,pd->p", clips[left[at : at + block]], clips[right[at : at + block]]) for at in starts]
    return np.concatenate(products)


def judge(tables: Sequence[Trials], name: str) -> dict:
    """What one scorer reaches: rates 0 to 1, linkability up to 1; None where a kind of trials is missing."""
    low, high = eer_interval(tables, name)
    return {
        "eer": pooled_eer(tables, name),
        "low": low,
        "high": high,
        "same_emotion": pooled_eer([table.chosen(table.same_emotion) for table in tables], name),
        "cross_emotion": pooled_eer([table.chosen(~table.same_emotion) for table in tables], name),
        "linkability": linkability(*pool(tables, name)),
        "per_encoder": [pooled_eer([table], name) for table in tables],
    }


def pooled_eer(tables: Sequence[Trials], name: str) -> float | None:
    tables = [table for table in tables if both_kinds(table.target)]
    return equal_error_rate(*pool(tables, name)) if tables else None


def pool(tables: Sequence[Trials], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, target and weight of all trials; of either kind, those of an encoder together weigh as much as its clips."""
    weights = [table.clips / np.where(table.target, table.target.sum(), (~table.target).sum()) for table in tables]
    columns = [table.score[name] for table in tables], [table.target for table in tables], weights
    return tuple(np.concatenate(column) for column in columns)


def equal_error_rate(score: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The rate at the threshold where as many target trials are refused as others are accepted, interpolated.

    0: told apart without error; 0.5: nothing to be told. Above 0.5 the scores point the wrong way round, reported as it
    is: far above, with many speakers, that is a leak as well, for whoever turns them round.
    """
    accepted, found, _ = roc_curve(target, score, sample_weight=weight)
    return float(np.interp(0.0, accepted - (1 - found), accepted))


def eer_interval(tables: Sequence[Trials], name: str, seed: int = 0) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the pooled error rate over speakers; None with fewer than three.

    Every speaker gets a random weight; a target trial weighs as its speaker, another as the product of its two (Owen,
    AOAS 2007). Weights are drawn instead of speakers (Bayesian bootstrap, Rubin 1981), or an encoder with two of them would
    often lose one; their variance K / (K - 1), K speakers to an encoder, makes up for what a bootstrap of few is short of.
    With few speakers the interval is still rough: it held the truth in 85 to 95 of 100 simulations with 8 to 40 of them.
    """
    names = np.unique(np.concatenate([table.people for table in tables]))
    if len(names) < FEWEST_SPEAKERS:
        return None, None
    shape = 1 - 1 / np.mean([len(table.people) for table in tables])
    drawn = np.random.default_rng(seed).gamma(shape, 1 / shape, (len(names), RESAMPLES)).astype(np.float32)
    score, _, weight = pool(tables, name)
    level = np.split(levels(score, weight, LEVELS), np.cumsum([len(table.target) for table in tables])[:-1])
    counts = {True: 0.0, False: 0.0}
    for table, at in zip(tables, level, strict=True):
        each = drawn[np.searchsorted(names, table.people)]
        for kind in counts:
            rows = table.target == kind
            couples, couple = np.unique(table.who[rows], axis=0, return_inverse=True)
            trials = coo_array((np.ones(rows.sum(), np.float32), (at[rows], couple)), (LEVELS, len(couples))).tocsr()
            weighed = trials @ (each[couples[:, 0]] if kind else each[couples[:, 0]] * each[couples[:, 1]])
            counts[kind] = counts[kind] + weighed / weighed.sum(axis=0) * (each.mean(axis=0) * table.clips)
    below = {kind: np.cumsum(count, axis=0) / count.sum(axis=0) for kind, count in counts.items()}
    refused, accepted = below[True], 1 - below[False]
    rates = [np.interp(0.0, one - other, one) for one, other in zip(refused.T, accepted.T, strict=True)]
    return tuple(float(bound) for bound in np.percentile(rates, [2.5, 97.5]))


def linkability(score: np.ndarray, target: np.ndarray, weight: np.ndarray, seed: int = 0) -> float | None:
    """Global linkability D_sys: 1 if every pair of one speaker can be told by its score, 0 if none can.

    The mean over target trials of p(one speaker | score) - p(two | score), where that is positive, both being as likely
    beforehand. Taken from one histogram it is above 0 on noise; so one half of the trials says where it is positive and
    the other half by how much, and the other way round. That comes out at 0 on noise, give or take, at times below.
    None with a single trial of a kind. Source: Gomez-Barrero, Galbally, Rathgeb, Busch, IEEE TIFS 2018.
    """
    if min(target.sum(), (~target).sum()) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(score))
    half = np.empty(len(score), dtype=np.int64)
    for kind in (True, False):
        rows = order[target[order] == kind]
        half[rows] = np.arange(len(rows)) % 2
    cells = np.bincount((half * 2 + target) * BINS + levels(score, weight, BINS), weight, 4 * BINS).reshape(2, 2, BINS)
    other, mated = (cells / cells.sum(axis=2, keepdims=True)).transpose(1, 0, 2)
    gain = np.divide(mated - other, mated + other, out=np.zeros_like(mated), where=mated + other > 0)
    return float(np.mean([(mated[told] * gain[told])[gain[teller] > 0].sum() for told, teller in ((0, 1), (1, 0))]))


def levels(score: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Scores [P] as whole numbers 0 .. count-1 in their order, each level of equal weight as far as equal scores allow."""
    order = np.argsort(score)
    share = np.cumsum(weight[order]) / weight.sum()
    edges = score[order][np.searchsorted(share, np.arange(1, count) / count)]
    return np.searchsorted(edges, score)
