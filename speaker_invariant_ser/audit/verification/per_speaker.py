"""What an average over trials hides: results of single speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from speaker_invariant_ser.audit.statistics import cluster_bootstrap_interval
from speaker_invariant_ser.audit.verification.error_rates import pooled_eer
from speaker_invariant_ser.audit.verification.trials import Trials

CHANCE = 0.5


@dataclass(frozen=True)
class SpeakerMeans:
    """A measure of which lower values are worse for the speaker, averaged over speakers.

    Attributes:
        mean: Mean over speakers.
        low: Lower end of its 95 % confidence interval over speakers; None with fewer than three.
        high: Upper end of it.
        worst: Lowest value of a speaker.
        speaker: That speaker.
        speakers: Number of speakers.
    """

    mean: float
    low: float | None
    high: float | None
    worst: float
    speaker: str
    speakers: int

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "SpeakerMeans":
        """Average the values of speakers, at least one."""
        numbers, worst = np.array(list(values.values())), min(values, key=lambda speaker: values[speaker])
        low, high = (None if np.isnan(end) else end for end in cluster_bootstrap_interval(numbers, np.array(list(values))))
        return cls(float(numbers.mean()), low, high, values[worst], worst, len(values))

    @property
    def summary(self) -> dict:
        """Content of report.json."""
        return asdict(self)


def speaker_error_rates(tables: Sequence[Trials], name: str) -> SpeakerMeans | None:
    """Compute the equal error rate of each speaker's trials, clipped at 50 %, and average it over speakers.

    The trials of a speaker are the target trials of this speaker and the nontarget trials that the speaker takes part in. A rate
    above 50 % counts as 50 %: a speaker whom scores mislead about must not make up for one whom they reveal. On noise the mean
    is therefore slightly below 50 %, and the lowest of many rates further below.

    Args:
        tables: Trials of each encoder.
        name: Name of the scorer.

    Returns:
        The rates; None where no speaker has both kinds of trials.
    """
    rates, of_speaker = {}, [trials_of_speakers(trials) for trials in tables]
    for speaker in np.unique(np.concatenate([trials.speakers for trials in tables])):
        own = [trials.select(rows[speaker]) for trials, rows in zip(tables, of_speaker, strict=True) if speaker in rows]
        rate = pooled_eer(own, name)
        if rate is not None:
            rates[str(speaker)] = min(rate, CHANCE)
    return SpeakerMeans.of(rates) if rates else None


def trials_of_speakers(trials: Trials) -> dict[str, np.ndarray]:
    """Return the positions of the trials that each speaker takes part in."""
    position = np.concatenate([np.arange(len(trials.target)), np.flatnonzero(~trials.target)])
    speaker = np.concatenate([trials.speaker_pair[:, 0], trials.speaker_pair[~trials.target, 1]])
    ends = np.cumsum(np.bincount(speaker, minlength=len(trials.speakers)))[:-1]
    return dict(zip(trials.speakers.tolist(), np.split(position[np.argsort(speaker, kind="stable")], ends), strict=True))
