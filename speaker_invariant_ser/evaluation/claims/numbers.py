"""Emotion results that follow from each other: the numbers by speaker decide their mean, the accuracy and the worst speaker."""

from collections.abc import Mapping
from statistics import fmean
from typing import Protocol

from speaker_invariant_ser.errors import shown
from speaker_invariant_ser.evaluation.part import ROUNDING
from speaker_invariant_ser.evaluation.summary_parts import MeanUar, SpeakerResult, WorstSpeaker


class BySpeaker(Protocol):
    """Emotion results with those of each speaker."""

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""

    @property
    def per_speaker(self) -> dict[str, SpeakerResult]:
        """The results on each test speaker."""

    @property
    def uar_mean_over_speakers(self) -> MeanUar:
        """The mean of the speakers' UARs."""

    @property
    def worst_speaker(self) -> WorstSpeaker:
        """The speaker with the lowest UAR."""


def contradictions(results: BySpeaker, utterances: int) -> list[str]:
    """Return in words what does not follow from the numbers by speaker.

    Args:
        results: Emotion results.
        utterances: The number of tested utterances that is stated beside them.
    """
    speakers = results.per_speaker
    if not (total := sum(speaker.utterances for speaker in speakers.values())):
        return ["no speaker has an utterance"]
    accuracy = sum(speaker.accuracy * speaker.utterances for speaker in speakers.values()) / total
    mean, worst = fmean(speaker.uar for speaker in speakers.values()), results.worst_speaker
    stated = {
        "utterances": (utterances, total),
        "accuracy": (results.accuracy, accuracy),
        "uar_mean_over_speakers": (results.uar_mean_over_speakers.value, mean),
        "worst_speaker.uar": (worst.uar, min(speaker.uar for speaker in speakers.values())),
    }
    return [*differences(stated), *([] if is_listed(worst, speakers) else ["worst_speaker is not as per_speaker has it"])]


def is_listed(worst: WorstSpeaker, speakers: Mapping[str, SpeakerResult]) -> bool:
    """Return whether the worst speaker has the results that are listed under this name."""
    listed = speakers.get(worst.speaker)
    return listed is not None and all(same(getattr(worst, key), getattr(listed, key)) for key in SpeakerResult.model_fields)


def differences(stated: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return in words which numbers are not what they follow from.

    >>> differences({"uar": (0.9, 0.7), "accuracy": (0.5, 0.5)})
    ['uar is 0.9, expected 0.7']
    """
    return [differing(key, *values) for key, values in stated.items() if not same(*values)]


def same(stated: object, own: object) -> bool:
    """Return whether two values are equal but for rounding."""
    if isinstance(stated, int | float) and isinstance(own, int | float):
        return abs(stated - own) <= ROUNDING
    return stated == own


def differing(name: str, stated: object, own: object) -> str:
    """Say that a value is not what it should be."""
    return f"{name} is {brief(stated)}, expected {brief(own)}"


def brief(value: object) -> str:
    """Return a value in few characters."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
