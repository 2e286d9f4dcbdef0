"""Two runs on the same test clips: does one read emotion better, worse, or no worse? The unit is the speaker."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.predictions import Predictions, number, per_speaker

MARGIN = 0.01  # of UAR: a loss that is smaller is none worth speaking of
EXACT = 14  # up to this many speakers every pattern of signs is tried, 2 ** 14 of them
RANDOM = 10_000  # patterns of signs for more speakers
RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """UAR of `this` and `other` [K] by speaker, and what their differences (this - other) tell.

    `low`, `high`: bootstrap interval (95 %) of the mean difference. `lower`, `upper`: its one-sided 95 % bounds. `p_value`:
    two-sided, of no difference. `effect_size`: mean of the differences by their deviation. NaN is undefined.
    """

    speakers: tuple[str, ...]
    this: np.ndarray
    other: np.ndarray
    low: float
    high: float
    p_value: float
    effect_size: float
    lower: float
    upper: float

    @property
    def difference(self) -> np.ndarray:
        """This - other [K], -1 to 1."""
        return self.this - self.other

    @property
    def non_inferior(self) -> bool | str:
        """Whether `this` loses less than MARGIN against `other`: True, False, or "undecided"."""
        if self.lower > -MARGIN:
            return True
        return False if self.upper < -MARGIN else "undecided"

    @property
    def summary(self) -> dict:
        """For report.json: the keys of "against" that are not copied from the other run's own report."""
        columns = zip(self.speakers, self.this, self.other, self.difference, strict=True)
        return {
            "speakers": len(self.speakers),
            "difference": {"value": float(self.difference.mean()), "low": number(self.low), "high": number(self.high)},
            "per_speaker": {
                name: {"this": float(this), "other": float(other), "difference": float(difference)}
                for name, this, other, difference in columns
            },
            "p_value": number(self.p_value),
            "effect_size": number(self.effect_size),
            "margin": MARGIN,
            "non_inferior": self.non_inferior,
            "lower_bound": number(self.lower),
        }


def compare(this: Predictions, other: Predictions, seed: int = 0) -> Comparison:
    """Compare the UARs that two runs reach on each of the same test speakers; each speaker weighs the same.

    A run of several seeds reaches the mean of its seeds' UARs; the other may have another number of them.
    The mean difference need not be that of the pooled UARs. With one speaker all but the difference is undefined. Raises
    RunError unless both were tested on the same clips, with the same speakers and emotions.
    """
    require_same_clips(this, other)
    ours, theirs = per_speaker(this), per_speaker(other)
    uars = [np.array([one[name]["uar"] for name in ours]) for one in (ours, theirs)]
    difference = uars[0] - uars[1]
    return Comparison(
        tuple(ours),
        *uars,
        *bootstrap_interval(difference, seed),
        sign_flip_p(difference, seed),
        effect_size(difference),
        *bounds(difference),
    )


def require_same_clips(this: Predictions, other: Predictions) -> None:
    ours, theirs = known(this), known(other)
    only_ours, only_theirs = len(ours.keys() - theirs), len(theirs.keys() - ours)
    if only_ours or only_theirs:
        raise RunError(
            f"the two runs were tested on different clips: {only_ours} of {len(ours)} only here, {only_theirs} of {len(theirs)} "
            "only in the other; compare runs of the same corpus, labels and split"
        )
    changed = sum(ours[clip] != theirs[clip] for clip in ours)
    if changed:
        raise RunError(
            f"{changed} of {len(ours)} test clips have another speaker or emotion in the other run; "
            "compare runs of the same corpus and labels"
        )


def known(predictions: Predictions) -> dict[str, tuple[str, str]]:
    """Clip -> its speaker and emotion, which are the same in every seed."""
    emotions = np.array(predictions.labels)[predictions.truth]
    return dict(zip(predictions.id, zip(predictions.speaker, emotions, strict=True), strict=True))


def bootstrap_interval(difference: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean difference, resampling speakers; NaN with one. Percentile method, Efron and Tibshirani 1993."""
    speakers = len(difference)
    if speakers < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(speakers, size=(RESAMPLES, speakers))
    low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def sign_flip_p(difference: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of a mean difference this large if each speaker's sign were a coin's; NaN with one speaker.

    All patterns of signs up to 2 ** 14 of them, otherwise 10,000 random ones, the observed one counted among them
    (Phipson and Smyth 2010). With K speakers p cannot be below 2 / 2 ** K. Source: Fisher 1935.
    """
    if len(difference) < 2:
        return float("nan")
    patterns = 2 ** len(difference) if len(difference) <= EXACT else RANDOM
    result = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=patterns, vectorized=True, rng=seed
    )
    return float(result.pvalue)


def effect_size(difference: np.ndarray) -> float:
    """Cohen's d for pairs: mean difference by the differences' deviation; NaN with one speaker or without any deviation."""
    if len(difference) < 2 or np.ptp(difference) < 1e-12:
        return float("nan")
    return float(difference.mean() / difference.std(ddof=1))


def bounds(difference: np.ndarray) -> tuple[float, float]:
    """One-sided 95 % lower and upper bound of the mean difference; NaN with one speaker.

    Student's t over speakers: a handful of them is the rule, and for a handful the bootstrap's percentiles lie too close
    together, which would call a run no worse too easily; t is exact for normal differences.
    """
    if len(difference) < 2:
        return float("nan"), float("nan")
    reach = stats.t.ppf(0.95, len(difference) - 1) * stats.sem(difference)
    return float(difference.mean() - reach), float(difference.mean() + reach)
