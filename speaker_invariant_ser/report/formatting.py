"""How numbers are written in reports and on the console; None, a value that is not defined, becomes a dash."""

from typing import Protocol

from speaker_invariant_ser.errors import counted

MARGIN = 0.03  # around chance, of an accuracy that is called at chance without a test
SMALL_P = 0.01  # a sign-flip test that cannot give a lower p value has few speakers


class HasInterval(Protocol):
    """A score with a 95 % confidence interval, None where it is not defined."""

    @property
    def low(self) -> float | None:
        """Lower end, 0 to 1."""

    @property
    def high(self) -> float | None:
        """Upper end, 0 to 1."""


class HasSeeds(Protocol):
    """A score that is a mean over several training seeds."""

    @property
    def seeds(self) -> dict[str, float]:
        """Value of each seed."""

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds, None for one seed."""


class HasAccuracy(HasInterval, Protocol):
    """An accuracy with a 95 % confidence interval."""

    @property
    def accuracy(self) -> float:
        """The accuracy, 0 to 1."""


def percent(value: float | None) -> str:
    """Write a share as a percentage.

    >>> percent(0.1234), percent(None)
    ('12.3 %', '-')
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(score: HasInterval) -> str:
    """Format a 95 % CI, or say why there is none: it resamples speakers, of an attacker texts, and needs three."""
    if score.low is None or score.high is None:
        return "none: fewer than 3 texts" if hasattr(score, "balanced_accuracy") else "none: fewer than 3 speakers"
    return f"{100 * score.low:.1f} to {100 * score.high:.1f} %"


def decimal_interval(score: HasInterval) -> str:
    """Format the 95 % CI of a coefficient with two digits, or say why there is none: it resamples speakers, and needs three."""
    if score.low is None or score.high is None:
        return "none: fewer than 3 speakers"
    return f"{score.low:.2f} to {score.high:.2f}"


def interval_or_dash(score: HasInterval) -> str:
    """Format a 95 % CI, or a dash if there is none."""
    return "-" if score.low is None else interval(score)


def points_interval(score: HasInterval) -> str:
    """Format the 95 % CI of a difference, in percentage points."""
    return "-" if score.low is None else f"{100 * score.low:+.1f} to {points(score.high)}"


def seed_deviation(score: HasSeeds) -> str:
    """Write the standard deviation over seeds as it follows an interval; nothing for a single seed."""
    if score.deviation is None:
        return ""
    return f", SD over {len(score.seeds)} seeds {100 * score.deviation:.1f}"


def points(value: float | None) -> str:
    """Write a difference of shares in percentage points.

    >>> points(-0.016)
    '-1.6 points'
    """
    return "-" if value is None else f"{100 * value:+.1f} points"


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number with `digits` digits after the point."""
    return "-" if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    """Write a p value with three digits."""
    return "< 0.001" if value is not None and value < 0.001 else decimal(value, 3)


def sign_flip_p_value(value: float | None, speakers: int) -> str:
    """Write the p value of a sign-flip test, with the smallest that few speakers can give.

    >>> sign_flip_p_value(0.125, 4), sign_flip_p_value(0.03, 20)
    ('0.125 (not below 0.125 with 4 speakers)', '0.030')
    """
    smallest = 2 / 2**speakers
    few = value is not None and smallest > SMALL_P
    return p_value(value) + (f" (not below {p_value(smallest)} with {counted(speakers, 'speaker')})" if few else "")


def against_chance(accuracy: float, chance: float, with_level: bool = True) -> str:
    """Write an accuracy with its place relative to chance; within 3 points of it counts as at chance.

    >>> against_chance(0.052, 0.143), against_chance(0.13, 0.143, with_level=False)
    ('5.2 % (below chance, 14.3 %)', '13.0 % (at chance)')
    """
    place = "at" if abs(accuracy - chance) <= MARGIN else "below" if accuracy < chance else "above"
    return f"{percent(accuracy)} ({place} chance{f', {percent(chance)}' if with_level else ''})"
