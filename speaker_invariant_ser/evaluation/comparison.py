"""Paired comparison of two runs on the same test utterances, where the unit is the speaker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import RunError, counted
from speaker_invariant_ser.evaluation.emotion import per_speaker
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, Predictions, read_predictions
from speaker_invariant_ser.evaluation.summary import Difference, SpeakerDifference
from speaker_invariant_ser.metrics import none_if_nan
from speaker_invariant_ser.runs import Run

MARGIN = 0.01  # of UAR: a smaller loss counts as none
MAX_EXACT_SPEAKERS = 14  # with more speakers, sign patterns are drawn at random instead of all being tried
RANDOM_PATTERNS = 10_000


@dataclass(frozen=True)
class Comparison:
    """UARs of two runs by speaker, and statistics of their differences, this minus other. NaN is undefined.

    Attributes:
        speakers: The K test speakers.
        this: UARs of this run [K].
        other: UARs of the other run [K].
        low: Lower end of the 95 % bootstrap interval of the mean difference.
        high: Upper end of that interval.
        p_value: Two-sided p value of no difference.
        effect_size: Mean of the differences divided by their standard deviation (Cohen's d_z).
        lower: One-sided 95 % lower bound of the mean difference.
        upper: One-sided 95 % upper bound of the mean difference.
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
        """UAR differences [K], this minus other, -1 to 1."""
        return self.this - self.other

    @property
    def mean_difference(self) -> Difference:
        """The mean difference with its bootstrap interval."""
        return Difference(value=float(self.difference.mean()), low=none_if_nan(self.low), high=none_if_nan(self.high))

    @property
    def p_value_or_none(self) -> float | None:
        """The p value, None where it is undefined."""
        return none_if_nan(self.p_value)

    @property
    def non_inferior(self) -> bool | Literal["undecided"]:
        """Whether `this` loses less than MARGIN against `other`."""
        if self.lower > -MARGIN:
            return True
        return False if self.upper < -MARGIN else "undecided"

    @property
    def summary(self) -> dict[str, Any]:
        """The fields of `against` in report.json that are computed from both runs' predictions."""
        columns = zip(self.speakers, self.this, self.other, self.difference, strict=True)
        return {
            "speakers": len(self.speakers),
            "difference": self.mean_difference,
            "per_speaker": {
                name: SpeakerDifference(this=float(this), other=float(other), difference=float(difference))
                for name, this, other, difference in columns
            },
            "p_value": self.p_value_or_none,
            "effect_size": none_if_nan(self.effect_size),
            "margin": MARGIN,
            "non_inferior": self.non_inferior,
            "lower_bound": none_if_nan(self.lower),
        }


def compare(this: Predictions, other: Predictions, seed: int = 0) -> Comparison:
    """Compare the UARs that two runs reach on each of the same test speakers; every speaker has the same weight.

    A run of several seeds enters with the mean of its seeds' UARs, and the two runs may have different numbers of seeds. The mean
    difference is not the difference of the pooled UARs. With one speaker everything but the difference is undefined, with two
    its interval.

    Args:
        this: Predictions of this run.
        other: Predictions of the other run.
        seed: Seed of bootstrap and permutations.

    Returns:
        The UARs by speaker and the statistics of their differences.

    Raises:
        RunError: The runs were tested on different utterances, or an utterance has another speaker or emotion.
    """
    require_same_utterances(speaker_and_emotion(this), speaker_and_emotion(other))
    results, other_results = per_speaker(this), per_speaker(other)
    uars = {speaker: result.uar for speaker, result in results.items()}
    return compare_speakers(uars, {speaker: other_results[speaker].uar for speaker in results}, seed)


def compare_speakers(this: Mapping[str, float], other: Mapping[str, float], seed: int = 0) -> Comparison:
    """Compare the UARs, by speaker, that two runs reach on the same test utterances.

    Args:
        this: UAR of this run on each speaker.
        other: UAR of the other run on the same speakers.
        seed: Seed of bootstrap and permutations.

    Returns:
        The UARs by speaker and the statistics of their differences.
    """
    uars, other_uars = (np.array([uar[speaker] for speaker in this]) for uar in (this, other))
    difference = uars - other_uars
    enough = len(difference) >= metrics.MIN_CLUSTERS
    low, high = metrics.mean_interval(difference, seed=seed) if enough else (float("nan"), float("nan"))
    lower, upper = bounds(difference)
    return Comparison(
        speakers=tuple(this),
        this=uars,
        other=other_uars,
        low=low,
        high=high,
        p_value=sign_flip_p(difference, seed),
        effect_size=effect_size(difference),
        lower=lower,
        upper=upper,
    )


def predictions_of(other: Run, tested: Sequence[Utterance]) -> Predictions:
    """Read the predictions of the run to compare with, before anything is computed.

    Raises:
        RunError: They are missing or damaged, or not of the utterances that are tested here.
    """
    others = read_predictions(other.folder / PREDICTIONS)
    these = {utterance.id: (utterance.speaker, utterance.emotion) for utterance in tested}
    require_same_utterances(these, speaker_and_emotion(others))
    return others


def require_same_utterances(these: Mapping[str, tuple[str, str]], others: Mapping[str, tuple[str, str]]) -> None:
    """Raise RunError unless two runs were tested on the same utterances with the same speakers and emotions.

    Args:
        these: Speaker and emotion of each test utterance of this run, by its id.
        others: The same of the other run.
    """
    only_this, only_other = len(these.keys() - others.keys()), len(others.keys() - these.keys())
    if only_this or only_other:
        raise RunError(
            f"the two runs were tested on different utterances: {only_this} of {len(these)} only here, "
            f"{only_other} of {len(others)} only in the other; compare runs of the same corpus, labels and split"
        )
    changed = sum(these[utterance] != others[utterance] for utterance in these)
    if changed:
        raise RunError(
            f"{changed} of "
            f"{counted(len(these), 'test utterance has', 'test utterances have')} another speaker or emotion in the other run; "
            "compare runs of the same corpus and labels"
        )


def speaker_and_emotion(predictions: Predictions) -> dict[str, tuple[str, str]]:
    """Map each utterance to its speaker and emotion, which are the same in every seed."""
    emotions = np.array(predictions.labels)[predictions.truth]
    return dict(zip(predictions.id, zip(predictions.speaker, emotions, strict=True), strict=True))


def sign_flip_p(difference: np.ndarray, seed: int = 0) -> float:
    """Compute the two-sided p value of a sign-flip permutation test of the mean difference (Fisher, 1935).

    All sign patterns are tried up to 2 ** 14 of them, otherwise 10,000 random ones, with the observed pattern counted as one of
    them (Phipson and Smyth, 2010). With K speakers p cannot be below 2 / 2 ** K; with one speaker it is NaN.
    """
    if len(difference) < 2:
        return float("nan")
    patterns = 2 ** len(difference) if len(difference) <= MAX_EXACT_SPEAKERS else RANDOM_PATTERNS
    result = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=patterns, vectorized=True, rng=seed
    )
    return float(result.pvalue)


def effect_size(difference: np.ndarray) -> float:
    """Compute Cohen's d_z, mean difference by standard deviation; NaN with one speaker or without any deviation."""
    if len(difference) < 2 or np.ptp(difference) < 1e-12:
        return float("nan")
    return float(difference.mean() / difference.std(ddof=1))


def bounds(difference: np.ndarray) -> tuple[float, float]:
    """Compute the one-sided 95 % lower and upper bounds of the mean difference; NaN with one speaker.

    Student's t over speakers is exact for normal differences. Bootstrap percentiles lie too close together for the few test
    speakers that a corpus has, and would declare non-inferiority too easily.
    """
    if len(difference) < 2:
        return float("nan"), float("nan")
    half_width = stats.t.ppf(0.95, len(difference) - 1) * stats.sem(difference)
    return float(difference.mean() - half_width), float(difference.mean() + half_width)
