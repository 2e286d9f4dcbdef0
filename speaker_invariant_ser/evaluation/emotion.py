"""Emotion results of predictions: overall, by class, by speaker, by group, and calibration."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import GROUPABLE, Utterance
from speaker_invariant_ser.errors import RunError, shorten, unknown
from speaker_invariant_ser.evaluation.dimensions.results import dimension_results
from speaker_invariant_ser.evaluation.predictions import Predictions
from speaker_invariant_ser.evaluation.summary_parts import (
    Calibration,
    Confusion,
    Emotion,
    GroupResult,
    MeanUar,
    Reliability,
    ReliabilityBin,
    SpeakerResult,
    Uar,
    WorstSpeaker,
)
from speaker_invariant_ser.evaluation.votes import VoteResults, vote_results

DEFAULT_GROUPS = ("sex", "corpus", "language", "session", "style", "intensity")
MAX_GROUPS = 20  # a default column with more values is not reported


def emotion_results(predictions: Predictions, utterances: Sequence[Utterance] = ()) -> Emotion:
    """Compute the emotion part of report.json, except for its groups, domains and folds.

    Confusion, macro F1 and calibration are computed over the rows of all seeds together; the field `utterances` counts every test
    utterance once.

    Args:
        predictions: Predictions for the test utterances.
        utterances: Utterances with the votes of annotators, the tested ones among them.

    Returns:
        The emotion part; `votes` only where a tested utterance has votes.
    """
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.labels)
    speakers = per_speaker(predictions)
    worst = min(speakers, key=lambda speaker: speakers[speaker].uar)
    recalls = metrics.recalls(predictions.confusion)
    before, rated = reliability(truth, predictions.probability), predictions.dimensions
    emotion = Emotion(
        uar=uar_over_seeds(predictions),
        accuracy=metrics.accuracy(truth, predicted),
        macro_f1=metrics.macro_f1(truth, predicted, classes),
        chance=chance_uar(predictions),
        utterances=predictions.utterances,
        per_class={label: metrics.none_if_nan(recall) for label, recall in zip(predictions.labels, recalls, strict=True)},
        per_speaker=speakers,
        worst_speaker=WorstSpeaker(speaker=worst, **speakers[worst].to_json()),
        spread=deviation([result.uar for result in speakers.values()]),
        confusion=Confusion(labels=list(predictions.labels), counts=predictions.confusion.tolist()),
        ece=before.ece,
        calibration=Calibration(
            temperatures=predictions.temperatures, before=before, after=reliability(truth, predictions.calibrated)
        ),
        uar_mean_over_speakers=mean_speaker_uar(speakers),
        **({"dimensions": dimension_results(rated, predictions.speaker, predictions.seed)} if rated else {}),
    )
    return emotion.model_copy(update=vote_parts(predictions, utterances))


def vote_parts(predictions: Predictions, utterances: Sequence[Utterance]) -> dict[str, VoteResults]:
    """Return the field `votes` of the emotion part, nothing for a corpus without votes of annotators."""
    votes = {utterance.id: utterance.votes for utterance in utterances}
    texts = [votes.get(name, "") for name in predictions.id.tolist()]
    arrays = (predictions.truth, predictions.speaker, predictions.seed, predictions.probability)
    results = vote_results(texts, *arrays, predictions.labels) if any(texts) else None
    return {"votes": results} if results else {}


def chance_uar(predictions: Predictions) -> float:
    """Return the UAR of guessing: 1 by the number of emotions that occur."""
    return 1 / len(set(predictions.truth.tolist()))


def uar_with_interval(predictions: Predictions) -> Uar:
    """Compute UAR with its 95 % confidence interval over speakers, None for fewer than three.

    The rows of a speaker, of all seeds, are one cluster: predictions of several seeds for one utterance are not independent.
    """
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.labels)
    low = high = math.nan
    if len(set(predictions.speaker)) >= metrics.MIN_CLUSTERS:
        low, high = metrics.cluster_interval(truth, predicted, predictions.speaker, classes)
    return Uar(value=metrics.uar(truth, predicted, classes), low=metrics.none_if_nan(low), high=metrics.none_if_nan(high))


def uar_over_seeds(predictions: Predictions) -> Uar:
    """Compute UAR with its interval over speakers, the UAR of each seed, and the standard deviation over seeds."""
    return uar_with_interval(predictions).model_copy(update=over_seeds(uar_by_seed(predictions)))


def uar_by_seed(predictions: Predictions) -> dict[int, float]:
    """Compute the UAR of each seed."""
    parts = {seed: predictions.rows(predictions.seed == seed) for seed in predictions.seeds}
    return {seed: metrics.uar(part.truth, part.predicted, len(part.labels)) for seed, part in parts.items()}


def over_seeds(values: Mapping[int, float]) -> dict[str, dict[str, float] | float | None]:
    """Return the fields `seeds` and `deviation` of a score that several seeds have."""
    return {"seeds": {str(seed): value for seed, value in values.items()}, "deviation": deviation(list(values.values()))}


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (n - 1), None for a single value.

    >>> deviation([0.5]), deviation([0.5, 1.0, 0.0])
    (None, 0.5)
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def per_speaker(predictions: Predictions) -> dict[str, SpeakerResult]:
    """Compute each test speaker's results; with several seeds, the mean over them."""
    results = {}
    for speaker in np.unique(predictions.speaker):
        part = predictions.rows(predictions.speaker == speaker)
        results[str(speaker)] = SpeakerResult(
            uar=metrics.uar(part.truth, part.predicted, len(part.labels)),
            accuracy=metrics.accuracy(part.truth, part.predicted),
            utterances=part.utterances,
        )
    return results


def mean_speaker_uar(results: Mapping[str, SpeakerResult]) -> MeanUar:
    """Compute the mean of the speakers' UARs, with its 95 % interval over speakers, None for fewer than three."""
    uars = np.array([result.uar for result in results.values()])
    low, high = metrics.mean_interval(uars) if len(uars) >= metrics.MIN_CLUSTERS else (math.nan, math.nan)
    return MeanUar(value=float(uars.mean()), low=metrics.none_if_nan(low), high=metrics.none_if_nan(high))


def reliability(truth: np.ndarray, probability: np.ndarray) -> Reliability:
    """Compute the expected calibration error and the bins of a reliability diagram that hold any row."""
    bins = [
        ReliabilityBin(confidence=float(confidence), accuracy=float(accuracy), clips=int(count))
        for confidence, accuracy, count in zip(*metrics.reliability(truth, probability), strict=True)
        if count
    ]
    return Reliability(ece=metrics.calibration_error(truth, probability), bins=bins)


def group_columns(utterances: Sequence[Utterance], by: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Select the manifest columns to break results down by.

    Args:
        utterances: The N tested utterances.
        by: Columns to report in any case, in addition to those of DEFAULT_GROUPS that have 2 to 20 values.

    Returns:
        Column -> values [N]; "" means that the value is not known.

    Raises:
        RunError: A column in `by` is unknown, or empty for every utterance.
    """
    columns = {name: np.array([getattr(utterance, name) for utterance in utterances]) for name in GROUPABLE}
    for name in by:
        if name not in columns:
            raise RunError(unknown("column", name, GROUPABLE))
        if not any(columns[name]):
            filled = [column for column, values in columns.items() if any(values)]
            raise RunError(f"column '{name}' is empty for every test utterance; filled are {shorten(filled, 10)}")
    default = [name for name in DEFAULT_GROUPS if 2 <= len(set(columns[name]) - {""}) <= MAX_GROUPS]
    return {name: columns[name] for name in dict.fromkeys([*default, *by])}


def by_group(predictions: Predictions, columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, GroupResult]]:
    """Compute results for each value of each column [N]; rows with an unknown value ("") are in no group.

    Groups can differ in their speakers and emotions as well as in the column, so a difference does not prove a cause.
    """
    return {
        name: {str(value): group_result(predictions.rows(values == value)) for value in np.unique(values) if value}
        for name, values in columns.items()
    }


def group_result(predictions: Predictions) -> GroupResult:
    """Compute the results on a part of the test utterances."""
    return GroupResult(
        uar=uar_with_interval(predictions),
        accuracy=metrics.accuracy(predictions.truth, predictions.predicted),
        utterances=predictions.utterances,
        speakers=len(set(predictions.speaker)),
        chance=chance_uar(predictions),
    )
