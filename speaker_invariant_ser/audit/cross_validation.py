"""Cross-validation of attackers: fit every attacker on every fold of every encoder and collect its predictions."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.audit.attackers import (
    ATTACKERS,
    MIN_LOG_POSTERIOR,
    Inputs,
    fit_tuned,
    predict_with_margin,
    select_rows,
)
from speaker_invariant_ser.audit.embeddings import Embeddings, to_common_indices
from speaker_invariant_ser.audit.folds import AuditFold, FoldPlan
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.processes import bounded_jobs

CLEARLY_BETTER = 4.0  # standard errors, which the luckiest of ten attackers exceeds in 1 of 3,000 cases
MIN_VALIDATED = 200  # predictions of scored utterances, below which the choice among attackers would be one by luck
SUREST_SHARE = 0.01  # of a fold's test utterances, by an attacker's margin

FitProgress = Callable[[int, int], None]  # fits done, fits in total


class FoldResult(NamedTuple):
    """What an attacker contributes to `EncoderPredictions` in one fold."""

    predicted: np.ndarray
    validation_correct: np.ndarray
    converged: bool
    named: np.ndarray
    margin: np.ndarray
    balanced: np.ndarray
    log_posterior: np.ndarray | None


@dataclass(frozen=True)
class EncoderPredictions:
    """What the attackers predicted for the n scored utterances of one encoder.

    Attributes:
        plan: The folds.
        scored: Positions of the scored utterances [n], sorted.
        speakers: Number of speakers K.
        predicted: For each attacker and fold, the predicted speaker of each test utterance as an integer.
        validation_correct: For each attacker and fold, whether it was correct on each utterance that validated its setting.
        converged: For each attacker and fold, whether its fit converged.
        named: For each attacker and fold, the speaker it would name if it were sure, see `attackers.Prediction`.
        margin: For each attacker and fold, how sure it was of each test utterance.
        balanced: For each attacker and fold, the speaker it would name if all speakers were equally frequent.
        log_posterior: For each closed-form attacker and fold, log posteriors of the speakers for each test utterance, float16.
    """

    plan: FoldPlan
    scored: np.ndarray
    speakers: int
    predicted: dict[str, list[np.ndarray]]
    validation_correct: dict[str, list[np.ndarray]]
    converged: dict[str, list[bool]] = field(default_factory=dict)
    named: dict[str, list[np.ndarray]] = field(default_factory=dict)
    margin: dict[str, list[np.ndarray]] = field(default_factory=dict)
    balanced: dict[str, list[np.ndarray]] = field(default_factory=dict)
    log_posterior: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def votes(self, attackers: Sequence[str]) -> np.ndarray:
        """Return the share of repeats that predict each speaker [n, K], from the attacker given for each fold."""
        predicted = [self.predicted[name][index] for index, name in enumerate(attackers)]
        return count_votes(self.plan, self.scored, self.speakers, predicted)

    def surest_votes(self, name: str) -> np.ndarray:
        """Return the votes of an attacker [n, K] for the utterances alone that it is surest about; see `surest_weight`."""
        weights = [surest_weight(margin) for margin in self.margin[name]]
        return count_votes(self.plan, self.scored, self.speakers, self.named[name], weights)

    def balanced_votes(self, name: str) -> np.ndarray:
        """Return the votes of an attacker [n, K] that takes all speakers as equally frequent."""
        return count_votes(self.plan, self.scored, self.speakers, self.balanced[name])


def surest_weight(margin: np.ndarray) -> np.ndarray:
    """Weight the utterances of one fold [n]: 1 for the surest `SUREST_SHARE`, at least one, 0 for all others.

    Utterances with the margin of the last of them share the weight that is left. Any choice among them would be one by position,
    and positions in folds, which are sorted and stratified, go with the speaker.

    >>> surest_weight(np.array([0.1, 0.9, 0.3, 0.2])).tolist(), surest_weight(np.array([0.5, 0.1, 0.5])).tolist()
    ([0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5])
    """
    count = int(np.ceil(SUREST_SHARE * len(margin)))
    last = np.sort(margin)[-count]
    equal = np.isclose(margin, last, rtol=1e-9, atol=1e-12)
    above = (margin > last) & ~equal
    return above + equal * (count - above.sum()) / equal.sum()


def count_votes(
    plan: FoldPlan,
    scored: np.ndarray,
    speakers: int,
    predicted: Sequence[np.ndarray],
    weights: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Compute in which share of repeats each speaker was predicted.

    Args:
        plan: The folds.
        scored: Positions of the scored utterances [n], sorted.
        speakers: Number of speakers K.
        predicted: For each fold, the predicted speaker of each test utterance.
        weights: For each fold, a weight of each prediction; 1 by default.

    Returns:
        Shares [n, K], 0 to 1.
    """
    votes = np.zeros((len(scored), speakers))  # double precision: sums of thirds that should be equal have to be equal
    for index, (fold, speaker) in enumerate(zip(plan.folds, predicted, strict=True)):
        votes[np.searchsorted(scored, fold.test), speaker] += (1.0 if weights is None else weights[index]) / plan.repeats
    return votes


def usable_attackers(
    names: Iterable[str], tables: Sequence[Embeddings], plans: Sequence[FoldPlan]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Determine which attackers can be fitted on all tables.

    Args:
        names: Attackers that are asked for.
        tables: Embeddings of each encoder.
        plans: Folds of each encoder.

    Returns:
        The usable attackers, and for each other attacker the reason, as in "svm needs ...".
    """
    fewest = min(
        sorted(Counter(table.speaker[fold.train][fold.tuning[0]]).values())[-2:][0]
        for table, plan in zip(tables, plans, strict=True)
        for fold in plan.folds
    )
    reasons = {}
    for name in names:
        needed = ATTACKERS[name].min_utterances
        if ATTACKERS[name].input == "frames" and any(table.frames is None for table in tables):
            reasons[name] = "needs the encoder's frame-level features"
        elif needed > fewest:
            reasons[name] = f"needs {needed} utterances of two speakers for tuning (all but one have {fewest} or fewer)"
    return tuple(name for name in names if name not in reasons), reasons


def run_attackers(
    tables: Sequence[Embeddings],
    plans: Sequence[FoldPlan],
    names: Sequence[str],
    seed: int,
    jobs: int = 1,
    progress: FitProgress | None = None,
) -> list[EncoderPredictions]:
    """Fit every attacker on every fold of every encoder.

    Args:
        tables: Embeddings of each encoder.
        plans: Folds of each encoder.
        names: Attackers.
        seed: Seed of the attackers.
        jobs: Processes that fit attackers in parallel; results do not depend on it.
        progress: Called after every fit.

    Returns:
        The predictions for each encoder.
    """
    tasks = [(name, encoder, fold) for name in names for encoder, plan in enumerate(plans) for fold in plan.folds]
    speakers = [to_indices(table.speaker) for table in tables]
    results = [
        EncoderPredictions(
            plan,
            np.flatnonzero(table.scored),
            indices.max() + 1,
            defaultdict(list),
            defaultdict(list),
            defaultdict(list),
            named=defaultdict(list),
            margin=defaultdict(list),
            balanced=defaultdict(list),
            log_posterior=defaultdict(list),
        )
        for table, plan, indices in zip(tables, plans, speakers, strict=True)
    ]
    calls = ((name, inputs_of(tables[encoder], name), speakers[encoder], fold, seed) for name, encoder, fold in tasks)
    fits = in_parallel(calls, bounded_jobs(jobs, len(tasks)))
    for done, ((name, encoder, _), fitted) in enumerate(zip(tasks, fits, strict=True), start=1):
        result = results[encoder]
        result.predicted[name].append(fitted.predicted)
        result.validation_correct[name].append(fitted.validation_correct)
        result.converged[name].append(fitted.converged)
        result.named[name].append(fitted.named)
        result.margin[name].append(fitted.margin)
        result.balanced[name].append(fitted.balanced)
        if fitted.log_posterior is not None:
            result.log_posterior[name].append(fitted.log_posterior)
        if progress:
            progress(done, len(tasks))
    return results


def inputs_of(table: Embeddings, name: str) -> Inputs:
    """Return what an attacker is fitted on: embeddings or frame-level features."""
    if ATTACKERS[name].input == "embedding":
        return table.embedding
    assert table.frames is not None, "usable_attackers leaves out attackers without input"
    return table.frames


def in_parallel(calls: Iterable[tuple], jobs: int) -> Iterator[FoldResult]:
    """Yield `attack_fold(*call)` for each call, in order, computed by up to `jobs` processes; 1 uses this process."""
    if jobs == 1:
        return (attack_fold(*call) for call in calls)
    return Parallel(jobs, return_as="generator", batch_size=1)(delayed(attack_fold)(*call) for call in calls)


def attack_fold(name: str, inputs: Inputs, speaker: np.ndarray, fold: AuditFold, seed: int) -> FoldResult:
    """Fit a fresh attacker on one fold.

    Args:
        name: The attacker.
        inputs: Embeddings [N, D] or frame-level features of N utterances.
        speaker: Speaker of each utterance [N] as an integer.
        fold: The fold.
        seed: Seed; another one is derived for each repeat.

    Returns:
        Predictions and margins for the test utterances, whether the tuned attacker was correct on each validation utterance, and
        whether its fit converged.
    """
    with threadpool_limits(1):  # matrices of this size gain nothing from more threads
        fitted, validation_correct, converged = fit_tuned(
            ATTACKERS[name], select_rows(inputs, fold.train), speaker[fold.train], fold.tuning, seed + fold.repeat
        )
        prediction = predict_with_margin(fitted, select_rows(inputs, fold.test))
        frequency = np.bincount(speaker[fold.train])[fitted.classes_]
        log_posterior = np.full((len(fold.test), speaker.max() + 1), MIN_LOG_POSTERIOR, dtype=np.float16)
        log_posterior[:, fitted.classes_] = prediction.log_posterior
        return FoldResult(
            prediction.speaker,
            validation_correct,
            converged,
            prediction.named,
            prediction.margin,
            fitted.classes_[(prediction.log_posterior - np.log(frequency)).argmax(axis=1)],
            log_posterior if ATTACKERS[name].quick else None,
        )


def choose_strongest(
    results: Sequence[EncoderPredictions], tables: Sequence[Embeddings], names: Sequence[str]
) -> list[list[str]]:
    """Choose the strongest attacker for each fold by validation accuracy, without the utterances that the fold scores.

    The best of many attackers by test accuracy would be above chance by luck. So correct predictions on validation utterances
    are counted, over all encoders and folds because a single fold has too few, but never on the fold's own test utterances. They
    are utterances that other folds score: the encoder may hide its training utterances from other attackers than new ones. All
    count where these are fewer than `MIN_VALIDATED`, as where one text is held out, which is scored in a single fold.

    What is validated was fitted on two thirds of a training set, on which a network may fail that succeeds on all of it. So an
    attacker that is better than the chosen one by `CLEARLY_BETTER` standard errors on the test utterances of the *other* folds
    takes its place. Neither count includes an utterance that the fold scores.

    Args:
        results: Predictions for each encoder.
        tables: Embeddings of each encoder.
        names: Attackers to choose from.

    Returns:
        For each encoder, the name chosen for each fold.
    """
    ids = to_common_indices([table.id for table in tables])
    size = max(indices.max() for indices in ids) + 1
    validated = {name: np.zeros((2, size)) for name in names}  # correct ones, over all folds: all, and scored ones
    predictions = np.zeros(size)  # of scored utterances that validated, by each attacker
    tested = {name: np.zeros(size) for name in names}
    for result, table, indices in zip(results, tables, ids, strict=True):
        speaker = to_indices(table.speaker)
        for index, fold in enumerate(result.plan.folds):
            validated_on = fold.train[fold.tuning[1]]
            scored = table.scored[validated_on]
            np.add.at(predictions, indices[validated_on], scored)
            for name in names:
                correct = result.validation_correct[name][index]
                np.add.at(validated[name][0], indices[validated_on], correct)
                np.add.at(validated[name][1], indices[validated_on], correct & scored)
                np.add.at(tested[name], indices[fold.test], result.predicted[name][index] == speaker[fold.test])

    def strongest_for(scored: np.ndarray) -> str:
        suffice = int(np.delete(predictions, scored).sum() >= MIN_VALIDATED)
        best = max(names, key=lambda name: np.delete(validated[name][suffice], scored).sum())
        gains = {name: np.delete(tested[name] - tested[best], scored) for name in names}
        clear = [name for name in names if gains[name].sum() > CLEARLY_BETTER * np.sqrt((gains[name] ** 2).sum())]
        return max(clear, key=lambda name: gains[name].sum(), default=best)

    return [
        [strongest_for(indices[fold.test]) for fold in result.plan.folds] for result, indices in zip(results, ids, strict=True)
    ]
