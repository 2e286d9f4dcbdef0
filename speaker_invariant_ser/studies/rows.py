"""The results of a study, gathered by corpus and arm: what the table and the picture show of each arm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev

from speaker_invariant_ser.evaluation.comparison import Comparison, compare_speakers
from speaker_invariant_ser.studies.results import Result, SpeakerNumbers, read_result, why_stale
from speaker_invariant_ser.studies.study import Arm, Study


@dataclass(frozen=True)
class Mean:
    """The mean of a score over seeds.

    Attributes:
        value: The mean, 0 to 1.
        low: Mean of the lower ends of the seeds' 95 % intervals; None where one has none.
        high: Mean of the upper ends.
        deviation: Standard deviation over the seeds; None for one.
    """

    value: float
    low: float | None
    high: float | None
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """An arm on a corpus with the results of its seeds; `stale` says for what reason some are stale, empty if none is."""

    arm: Arm
    results: tuple[Result, ...]
    stale: str = ""

    @property
    def baseline(self) -> bool:
        """Whether the arm is a baseline without a network."""
        return bool(self.arm.baseline)

    @property
    def speaker(self) -> list[SpeakerNumbers]:
        """What attackers identify, of each seed; empty where the utterances did not allow an audit."""
        return [result.numbers.speaker for result in self.results if result.numbers.speaker]

    @property
    def unaudited(self) -> str:
        """Why nothing is known of the speaker; "" where it is."""
        return next((result.numbers.unaudited for result in self.results if result.numbers.unaudited), "")

    @property
    def quick(self) -> bool:
        """Whether some of the results are of the closed-form attackers alone."""
        return any(speaker.quick for speaker in self.speaker)

    @property
    def scored_on_trained(self) -> bool:
        """Whether attackers were scored on utterances that the encoder was trained on."""
        return any(speaker.scored == "trained" for speaker in self.speaker)

    @property
    def uar(self) -> Mean:
        """Emotion UAR, pooled over test utterances."""
        scores = [result.numbers.emotion.uar for result in self.results]
        return mean([score.value for score in scores], [score.low for score in scores], [score.high for score in scores])

    @property
    def by_telephone(self) -> Mean | None:
        """Emotion UAR on the test utterances as a telephone transmits them; None where it was not measured."""
        scores = [uar for result in self.results if (uar := result.numbers.emotion.by_telephone)]
        if not scores:
            return None
        return mean([score.value for score in scores], [score.low for score in scores], [score.high for score in scores])

    @property
    def attacker(self) -> Mean:
        """Accuracy of the strongest attacker."""
        scores = [speaker.strongest for speaker in self.speaker]
        return mean([score.accuracy for score in scores], [score.low for score in scores], [score.high for score in scores])

    @property
    def attackers(self) -> str:
        """Names of the strongest attackers of the seeds."""
        return ", ".join(dict.fromkeys(speaker.strongest.name for speaker in self.speaker))

    @property
    def speakers(self) -> int:
        """Number of speakers that the attackers distinguish."""
        return self.speaker[0].speakers

    @property
    def chance(self) -> float:
        """Speaker accuracy from the true emotion alone."""
        return fmean(speaker.chance for speaker in self.speaker)

    @property
    def emotion_chance(self) -> float:
        """UAR of guessing."""
        return self.average(lambda result: result.numbers.emotion.chance)

    @property
    def uar_mean_over_speakers(self) -> float:
        """Mean of the speakers' UARs."""
        return self.average(lambda result: result.numbers.emotion.uar_mean_over_speakers.value)

    @property
    def uar_by_speaker(self) -> dict[str, float]:
        """UAR of each test speaker, the mean over the seeds; stale results may lack speakers that others have."""
        tables = [result.numbers.emotion.per_speaker for result in self.results]
        speakers = dict.fromkeys(chain.from_iterable(tables))
        return {speaker: fmean(table[speaker].uar for table in tables if speaker in table) for speaker in speakers}

    @property
    def worst_speaker(self) -> tuple[str, float]:
        """The speaker with the lowest UAR, mean over the seeds, and that UAR."""
        uars = self.uar_by_speaker
        worst = min(uars, key=lambda speaker: uars[speaker])
        return worst, uars[worst]

    @property
    def parameters(self) -> int | None:
        """Number of the network's parameters; None for a baseline."""
        training = self.results[0].numbers.training
        return training.parameters if training else None

    @property
    def cpu_seconds(self) -> float | None:
        """Processor seconds of training all folds, mean over the seeds; None for a baseline or where it is not known."""
        trainings = [result.numbers.training for result in self.results]
        known = [training.cpu_seconds for training in trainings if training and training.cpu_seconds is not None]
        return fmean(known) if len(known) == len(trainings) else None

    def average(self, value: Callable[[Result], float]) -> float:
        """Return the mean of a value over the seeds."""
        return fmean(value(result) for result in self.results)

    def compared_with(self, other: "Row") -> Comparison | None:
        """Compare the speakers' UARs with those of another arm, each the mean over its seeds; None without the same test data."""
        first, *others = (test_set(result) for result in (*self.results, *other.results))
        if any(tested != first for tested in others):
            return None
        return compare_speakers(self.uar_by_speaker, other.uar_by_speaker)


def test_set(result: Result) -> tuple[float, dict[str, int]]:
    """Return the chance UAR, which merged emotions raise, and the number of test utterances of each speaker."""
    emotion = result.numbers.emotion
    return emotion.chance, {speaker: score.utterances for speaker, score in emotion.per_speaker.items()}


def mean(values: Sequence[float], lows: Sequence[float | None], highs: Sequence[float | None]) -> Mean:
    """Return the mean of a score over seeds.

    >>> mean([0.5, 0.7], [0.4, 0.6], [0.6, None]).low is None
    True
    """
    low, high = [end for end in lows if end is not None], [end for end in highs if end is not None]
    whole = len(low) == len(high) == len(values)
    deviation = stdev(values) if len(values) > 1 else None
    return Mean(fmean(values), fmean(low) if whole else None, fmean(high) if whole else None, deviation)


def gather(study: Study, folder: Path) -> dict[str, list[Row]]:
    """Read all results of a study.

    Args:
        study: The study.
        folder: Folder of the result files.

    Returns:
        The rows of each corpus that has any, in the order of the study. Results that the study's recipe no longer describes are
        included, and marked.

    Raises:
        StudyError: A result file is damaged.
    """
    rows: dict[str, list[Row]] = {}
    for corpus in study.corpora:
        for arm in study.arms:
            results, reasons = [], []
            for cell in study.cells([arm.name], [corpus]):
                if result := read_result(folder / f"{cell.name}.json", cell):
                    results.append(result)
                    reasons.append(why_stale(result, cell.arm.resolved(cell.seed), None))
            if results:
                rows.setdefault(corpus, []).append(Row(arm, tuple(results), next(filter(None, reasons), "")))
    return rows
