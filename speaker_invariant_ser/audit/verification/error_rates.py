"""Error rates and linkability of verification trials, pooled over encoders.

Shapes: P pairs.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.special import xlogy
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import roc_auc_score, roc_curve

from speaker_invariant_ser.audit.verification.trials import Trials, has_both_kinds

LINKABILITY_BINS = 10  # of scores
MIN_SPEAKERS = 3  # for an interval
SCORE_LEVELS, RESAMPLES = 1000, 200  # of intervals

Interval = tuple[float, float] | tuple[None, None]


def pooled_eer(tables: Sequence[Trials], name: str) -> float | None:
    """Return the equal error rate over the encoders that have both kinds of trials; None if there is none."""
    tables = [trials for trials in tables if has_both_kinds(trials.target)]
    return equal_error_rate(*pool_trials(tables, name)) if tables else None


def pool_trials(tables: Sequence[Trials], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concatenate the trials of all encoders.

    Returns:
        Scores, target flags and weights, each [P]; an encoder's target trials, and its nontarget trials, have a total weight
        of its number of utterances.
    """
    weights = [trials.utterances / np.where(trials.target, trials.target.sum(), (~trials.target).sum()) for trials in tables]
    scores, targets = [trials.score[name] for trials in tables], [trials.target for trials in tables]
    return np.concatenate(scores), np.concatenate(targets), np.concatenate(weights)


def equal_error_rate(score: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Compute the rate at the threshold where false rejections are as frequent as false acceptances, interpolated.

    0 means that speakers are verified without error, 0.5 that scores contain nothing about the speaker. Rates above 0.5 are
    reported as they are; far above, with many speakers, they are a leak too, since scores can be negated.

    Args:
        score: Scores [P], higher for more similar pairs.
        target: Whether one speaker speaks both utterances [P].
        weight: Weights of the trials [P].

    Returns:
        Rate, 0 to 1.

    >>> equal_error_rate(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False]))
    0.0
    """
    false_acceptance, acceptance, _ = roc_curve(target, score, sample_weight=weight)
    return float(np.interp(0.0, false_acceptance - (1 - acceptance), false_acceptance))


def area_under_curve(score: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the probability that a target trial scores higher than a nontarget trial, ties counted half; 0.5 is chance.

    >>> area_under_curve(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))
    0.75
    """
    return float(roc_auc_score(target, score, sample_weight=weight))


def minimum_cost(score: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Compute C_llr^min, the cost of log-likelihood ratios after the best monotonic calibration of the scores, bits.

    0 means that speakers are distinguished without error, 1 that scores contain nothing about the speaker. Unlike the equal error
    rate it counts every threshold. Target and nontarget trials weigh the same in total, so that posteriors after isotonic
    regression (pool adjacent violators) are those of equal priors, and the cost is their cross-entropy in bits (Brümmer and du
    Preez, Computer Speech and Language 2006). The calibration is fitted on the trials that it is scored on, as usual, so that
    noise costs slightly less than 1.

    Args:
        score: Scores [P], higher for more similar pairs.
        target: Whether one speaker speaks both utterances [P].
        weight: Weights of the trials [P].

    Returns:
        Cost, 0 to 1.

    >>> minimum_cost(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))
    0.5
    """
    weight = np.ones(len(score)) if weight is None else weight
    levels, level = np.unique(score, return_inverse=True)
    mated, other = (np.bincount(level[kind], weight[kind], len(levels)) / weight[kind].sum() / 2 for kind in (target, ~target))
    posterior = isotonic_regression(mated / (mated + other), sample_weight=mated + other, y_min=0, y_max=1)
    return float(-(xlogy(mated, posterior) + xlogy(other, 1 - posterior)).sum() / np.log(2))


def eer_interval(tables: Sequence[Trials], name: str, seed: int = 0) -> Interval:
    """Compute the 95 % confidence interval of the pooled equal error rate over speakers; see `resampled_levels`.

    Args:
        tables: Trials of each encoder.
        name: Name of the scorer.
        seed: Seed of the weights.

    Returns:
        Lower and upper end, 0 to 1; None with fewer than three speakers.
    """
    resampled = resampled_levels(tables, name, seed)
    if resampled is None:
        return None, None
    # from a threshold below all levels on, which rejects nothing: many scores may be tied at the lowest level, as those of codes
    false_rejection, true_rejection = (np.cumsum(np.pad(share, ((1, 0), (0, 0))), axis=0) for share in resampled)
    rates = [
        np.interp(0.0, rejected - accepted, rejected)
        for rejected, accepted in zip(false_rejection.T, (1 - true_rejection).T, strict=True)
    ]
    return percentiles(rates)


def auc_interval(tables: Sequence[Trials], name: str, seed: int = 0) -> Interval:
    """Compute the 95 % confidence interval of the area under the curve over speakers, as `eer_interval` does."""
    resampled = resampled_levels(tables, name, seed)
    if resampled is None:
        return None, None
    target, nontarget = resampled
    below = np.cumsum(nontarget, axis=0) - nontarget / 2  # nontarget trials below a level, and half of those at it
    return percentiles((target * below).sum(axis=0))


def percentiles(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the ends of the middle 95 % of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def resampled_levels(tables: Sequence[Trials], name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
    """Resample speakers by a Bayesian bootstrap: the distribution of target and of nontarget trials over levels of the score.

    Each speaker gets a random weight; a target trial weighs as its speaker, a nontarget trial as the product of its two
    speakers (Owen, Annals of Applied Statistics 2007). Weights are drawn instead of speakers (Rubin, Annals of Statistics
    1981), because an encoder with two speakers would often lose one. Their variance K / (K - 1), with K speakers per encoder,
    corrects for the variance that a bootstrap of few speakers lacks. With few speakers the interval is still approximate: it
    covered the truth in 85 to 95 of 100 simulations with 8 to 40 speakers.

    Args:
        tables: Trials of each encoder.
        name: Name of the scorer.
        seed: Seed of the weights.

    Returns:
        Shares of the target and of the nontarget trials at each level [SCORE_LEVELS, RESAMPLES], each of sum 1 over levels; None
        with fewer than three speakers.
    """
    names = np.unique(np.concatenate([trials.speakers for trials in tables]))
    if len(names) < MIN_SPEAKERS:
        return None
    shape = 1 - 1 / np.mean([len(trials.speakers) for trials in tables])
    speaker_weights = np.random.default_rng(seed).gamma(shape, 1 / shape, (len(names), RESAMPLES)).astype(np.float32)
    score, _, weight = pool_trials(tables, name)
    ends = np.cumsum([len(trials.target) for trials in tables])[:-1]
    levels_by_encoder = np.split(quantile_levels(score, weight, SCORE_LEVELS), ends)
    weight_by_level = {kind: np.zeros((SCORE_LEVELS, RESAMPLES), np.float32) for kind in (True, False)}  # nontarget: False
    for trials, levels in zip(tables, levels_by_encoder, strict=True):
        weights = speaker_weights[np.searchsorted(names, trials.speakers)]
        for kind in weight_by_level:
            resampled = resampled_histogram(trials, levels, kind, weights)
            weight_by_level[kind] = weight_by_level[kind] + resampled / resampled.sum(axis=0) * (
                weights.mean(axis=0) * trials.utterances
            )
    target, nontarget = (total / total.sum(axis=0) for total in weight_by_level.values())
    return target, nontarget


def resampled_histogram(trials: Trials, levels: np.ndarray, kind: bool, weights: np.ndarray) -> np.ndarray:
    """Sum the resampled weights of one kind of trials at each score level.

    Args:
        trials: Trials of one encoder.
        levels: Score level of each trial [P].
        kind: True for target trials, False for nontarget trials.
        weights: Weight of each speaker in each resample [K, resamples].

    Returns:
        Weights [SCORE_LEVELS, resamples].
    """
    rows = trials.target == kind
    couples, couple = np.unique(trials.speaker_pair[rows], axis=0, return_inverse=True)
    counts = coo_array((np.ones(rows.sum(), np.float32), (levels[rows], couple)), (SCORE_LEVELS, len(couples))).tocsr()
    return counts @ (weights[couples[:, 0]] if kind else weights[couples[:, 0]] * weights[couples[:, 1]])


def linkability(score: np.ndarray, target: np.ndarray, weight: np.ndarray, seed: int = 0) -> float | None:
    """Compute the global linkability D_sys: 1 if every target pair is recognisable by its score, 0 if none is.

    It is the mean over target trials of max(0, p(target | score) - p(nontarget | score)) with equal priors (Gomez-Barrero,
    Galbally, Rathgeb and Busch, IEEE TIFS 2018). Estimated from one histogram, it would be positive on noise. So one half of
    the trials decides where the difference is positive and the other half estimates it, and vice versa. This is 0 on average
    on noise, and may be slightly negative.

    Args:
        score: Scores [P].
        target: Whether one speaker speaks both utterances [P].
        weight: Weights of the trials [P].
        seed: Seed of the division into halves.

    Returns:
        Linkability, up to 1; None with a single trial of a kind.
    """
    if min(target.sum(), (~target).sum()) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(score))
    half = np.empty(len(score), dtype=np.int64)
    for kind in (True, False):
        rows = order[target[order] == kind]
        half[rows] = np.arange(len(rows)) % 2
    bins = quantile_levels(score, weight, LINKABILITY_BINS)
    histogram = np.bincount((half * 2 + target) * LINKABILITY_BINS + bins, weight, 4 * LINKABILITY_BINS)
    histogram = histogram.reshape(2, 2, LINKABILITY_BINS)  # half, target, bin
    nontarget, mated = (histogram / histogram.sum(axis=2, keepdims=True)).transpose(1, 0, 2)
    difference = np.divide(mated - nontarget, mated + nontarget, out=np.zeros_like(mated), where=mated + nontarget > 0)
    estimates = [
        (mated[estimated] * difference[estimated])[difference[deciding] > 0].sum() for estimated, deciding in ((0, 1), (1, 0))
    ]
    return float(np.mean(estimates))


def quantile_levels(score: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Replace scores [P] by levels 0 to count - 1 in their order, of equal total weight as far as ties allow."""
    order = np.argsort(score)
    share = np.cumsum(weight[order]) / weight.sum()
    edges = score[order][np.searchsorted(share, np.arange(1, count) / count)]
    return np.searchsorted(edges, score)
