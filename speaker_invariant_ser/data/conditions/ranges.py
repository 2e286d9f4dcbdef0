"""The range of recording conditions that a model was trained on, and what a new recording has outside it.

A range is made of percentiles over many utterances, rounded, so that it describes no single recording or speaker. A recording is
outside only if it is further away than margins that can be heard: speakers and sentences differ without any change of channel.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, FiniteFloat

from speaker_invariant_ser.data.conditions.measures import measure

if TYPE_CHECKING:
    from speaker_invariant_ser.data.manifest import Utterance

MAX_UTTERANCES = 1000  # measured for a range; more would not change a percentile noticeably
PERCENTILES = 1, 99
LENGTH_FACTOR = 2.0  # beyond the range
LEVEL_MARGIN = 6.0  # dB
BANDWIDTH_FACTOR = 1.2
CLIPPED_MARGIN = 0.005  # of the samples
RANGE_MARGIN = 3.0  # dB that pauses are closer to the speech

Limits = tuple[FiniteFloat, FiniteFloat]


class TrainedRange(BaseModel):
    """Percentiles 1 and 99 of the recording conditions of a model's training utterances, see `measures.measure`."""

    seconds: Limits
    level: Limits
    bandwidth: Limits
    clipped: Limits
    range: Limits


DIGITS = {"seconds": 2, "level": 1, "bandwidth": 0, "clipped": 4, "range": 1}


def range_of(utterances: Sequence["Utterance"], audio: np.ndarray) -> TrainedRange:
    """Measure the range of recording conditions of utterances.

    Args:
        utterances: The utterances that a model is trained on.
        audio: The audio of the prepared corpus, int16.
    """
    chosen = np.unique(np.linspace(0, len(utterances) - 1, min(len(utterances), MAX_UTTERANCES)).astype(int))
    clips = (audio[utterances[index].offset :][: utterances[index].samples] for index in chosen)
    measured = [measure(clip) for clip in clips]
    values = {name: np.array([row[name] for row in measured]) for name in DIGITS}
    known = {name: column[np.isfinite(column)] for name, column in values.items()}
    limits = {name: np.percentile(column, PERCENTILES) if len(column) else (0, 0) for name, column in known.items()}
    return TrainedRange.model_validate({name: [round(float(end), DIGITS[name]) for end in limits[name]] for name in DIGITS})


def join_ranges(ranges: Sequence[TrainedRange | None]) -> TrainedRange | None:
    """Return the range that covers those of all models; None if a model has none."""
    known = [part for part in ranges if part]
    if not known or len(known) < len(ranges):
        return None
    limits = {name: [getattr(part, name) for part in known] for name in DIGITS}
    return TrainedRange.model_validate(
        {name: (min(low for low, _ in ends), max(high for _, high in ends)) for name, ends in limits.items()}
    )


def outside(trained: TrainedRange, clip: np.ndarray) -> list[str]:
    """Say in which conditions an utterance, int16 or float32 [S] at 16 kHz, is outside the range that a model was trained on."""
    measured = measure(clip)
    return [
        f"{words(measured[name])} (the model was trained on {trained_on(*getattr(trained, name))})"
        for name, is_outside, words, trained_on in CHECKS
        if is_outside(measured[name], *getattr(trained, name))
    ]


def between(low: float, high: float, unit: str, digits: int = 1) -> str:
    """Return limits as text.

    >>> between(7.96, 8.0, "kHz"), between(-31.4, -17, "dB", 0)
    ('8.0 kHz', '-31 to -17 dB')
    """
    ends = dict.fromkeys(f"{end:.{digits}f}" for end in (low, high))
    return f"{' to '.join(ends)} {unit}"


def kilohertz(low: float, high: float) -> str:
    """Return limits in Hz as text."""
    return between(low / 1000, high / 1000, "kHz")


def decibels(low: float, high: float) -> str:
    """Return limits in dB as text."""
    return between(low, high, "dB", 0)


# Name of the number; whether a value is outside (low, high); words for the value; words for the range.
Check = tuple[str, Callable[[float, float, float], bool], Callable[[float], str], Callable[[float, float], str]]
CHECKS: tuple[Check, ...] = (
    (
        "bandwidth",
        lambda value, low, high: value < low / BANDWIDTH_FACTOR,
        lambda value: f"band limited to {value / 1000:.1f} kHz",
        kilohertz,
    ),
    (
        "bandwidth",
        lambda value, low, high: value > high * BANDWIDTH_FACTOR,
        lambda value: f"sound up to {value / 1000:.1f} kHz",
        kilohertz,
    ),
    (
        "level",
        lambda value, low, high: not low - LEVEL_MARGIN <= value <= high + LEVEL_MARGIN,
        lambda value: f"a level of {value:.0f} dB",
        decibels,
    ),
    (
        "seconds",
        lambda value, low, high: not low / LENGTH_FACTOR <= value <= high * LENGTH_FACTOR,
        lambda value: f"{value:.1f} s long",
        lambda low, high: between(low, high, "s"),
    ),
    (
        "clipped",
        lambda value, low, high: value > high + CLIPPED_MARGIN,
        lambda value: f"{value:.1%} of the samples at the peak, as in clipped audio",
        lambda low, high: f"at most {high:.1%}",
    ),
    (
        "range",
        lambda value, low, high: value < low - RANGE_MARGIN,
        lambda value: f"pauses only {value:.0f} dB below the speech, as with noise",
        decibels,
    ),
)
