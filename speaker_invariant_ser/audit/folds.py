"""Cross-validation folds of an audit.

The audit defines its own folds, because the accuracy of a probe depends on how it is cross-validated. Folds are stratified by
speaker and emotion. Where texts are known, all utterances of a text are in one fold, so that no attacker is scored on a
sentence that it was fitted on. Only utterances that the encoder was not trained on are scored, where that is known; attackers
may be fitted on all others.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from speaker_invariant_ser.audit.attackers import MAX_TUNING_UTTERANCES, sample_utterances
from speaker_invariant_ser.audit.embeddings import Embeddings, speakers_with_one_utterance
from speaker_invariant_ser.errors import AuditError

FOLDS = 5
REPEATS = 3  # cross-validations averaged: accuracies on speaker-free data then vary a quarter less
MAX_REPEATED_UTTERANCES = 3000  # with more scored utterances one cross-validation varies little
TUNING_FOLDS = 3  # one third of a fold's training utterances validates the attackers' settings
GROUPED_ATTEMPTS = 10  # seeds tried to make folds by text in which every speaker has training utterances

TrainTest = tuple[np.ndarray, np.ndarray]  # positions of utterances (to fit on, to score)


@dataclass(frozen=True)
class AuditFold:
    """One fold of an audit.

    Attributes:
        train: Positions of the utterances that attackers are fitted on.
        test: Positions of the utterances that they are scored on.
        tuning: Positions within `train` (to fit on, to validate on) for the choice of settings.
        repeat: Number of the cross-validation that the fold belongs to, from 0.
    """

    train: np.ndarray
    test: np.ndarray
    tuning: TrainTest
    repeat: int


@dataclass(frozen=True)
class FoldPlan:
    """All folds of one encoder; every scored utterance is in one test set of each repeat.

    Attributes:
        folds: The folds, repeat by repeat.
        grouped_by_text: Whether no text is in both the training and the test set of a fold.
    """

    folds: list[AuditFold]
    grouped_by_text: bool

    @property
    def trains_on_scored(self) -> bool:
        """Whether some fold trains on utterances that another fold scores, as in plain cross-validation."""
        return any(np.isin(fold.train, other.test).any() for fold in self.folds for other in self.folds)

    @property
    def repeats(self) -> int:
        """How often each utterance is scored."""
        return 1 + max(fold.repeat for fold in self.folds)

    def known_emotions(self, emotion: np.ndarray) -> np.ndarray:
        """Return emotions [N] as integers 0, 1, ..., all as one that no attacker is fitted on where it is scored.

        No attacker knows which speaker such an emotion is of. If emotions were numbers, each with one utterance, speakers that
        are permuted within each would be the true ones, and no accuracy would be above what is expected of them.

        Args:
            emotion: Emotion of all utterances as integers [N].
        """
        known = [np.intersect1d(emotion[fold.train], emotion[fold.test]) for fold in self.folds]
        return np.unique(np.where(np.isin(emotion, np.concatenate(known)), emotion, -1), return_inverse=True)[1]


def plan_folds(table: Embeddings, folds: int = FOLDS, seed: int = 0, max_repeats: int = REPEATS) -> FoldPlan:
    """Plan the folds of an audit.

    Args:
        table: Embeddings in which every speaker has at least two utterances.
        folds: Folds of each cross-validation; fewer are made where a speaker has too few utterances.
        seed: Seed of the assignment.
        max_repeats: Cross-validations with different assignments; a single one where there are more than
            `MAX_REPEATED_UTTERANCES` scored utterances or only one assignment is possible.

    Returns:
        The plan.

    Raises:
        AuditError: A speaker would have no training utterance, however folds are made.
    """
    first, grouped_by_text, depends_on_seed = make_folds(table, folds, seed)
    cross_validations = [first]
    if depends_on_seed and table.scored.sum() <= MAX_REPEATED_UTTERANCES:
        cross_validations += [make_folds(table, folds, seed + 1000 * repeat)[0] for repeat in range(1, max_repeats)]
    return FoldPlan(
        [
            AuditFold(train, test, tuning_split(table, train, seed + repeat), repeat)
            for repeat, cross_validation in enumerate(cross_validations)
            for train, test in cross_validation
        ],
        grouped_by_text,
    )


def make_folds(table: Embeddings, folds: int, seed: int) -> tuple[list[TrainTest], bool, bool]:
    """Make the folds of one cross-validation.

    Stratified by speaker and emotion, and grouped by text if that leaves training utterances of every speaker in every fold.
    Otherwise (texts are unknown, or a speaker has a single text) utterances are assigned individually, or by groups where there
    are some: an attacker that was fitted on no utterance of a speaker cannot predict that speaker, and leakage would be
    underestimated. Where combinations of speaker and emotion are too rare as well, folds are stratified by speaker alone.

    Args:
        table: Embeddings in which every speaker has at least two utterances.
        folds: Number of folds at most.
        seed: Seed of the assignment.

    Returns:
        Train and test positions of each fold; whether folds are grouped by text; whether another seed gives other folds.

    Raises:
        AuditError: A speaker would have no training utterance, however folds are made.
    """
    for candidate, grouped_by_text, depends_on_seed in candidate_folds(table, folds, seed):
        if candidate and all(set(table.speaker[train]) == set(table.speaker) for train, _ in candidate):
            return candidate, grouped_by_text, depends_on_seed
    raise AuditError(
        "every assignment to folds leaves attackers without training utterances of some speaker; too few utterances are "
        "available that are not scored"
    )


def candidate_folds(table: Embeddings, folds: int, seed: int) -> Iterator[tuple[list[TrainTest], bool, bool]]:
    """Yield possible folds in order of preference, as `make_folds` returns them."""
    scored = np.flatnonzero(table.scored)
    texts = len(set(table.text[scored]))
    everything = np.arange(len(table.id))
    for strata in (table.speaker_and_emotion, table.speaker) if all(table.text) else ():
        for attempt in range(GROUPED_ATTEMPTS):
            tests = assign_test_sets(strata[scored], table.text[scored], min(folds, texts), seed + attempt)
            grouped = [(everything[~np.isin(table.text, table.text[scored[test]])], scored[test]) for test in tests]
            yield without_relatives(table, grouped), True, texts > folds
    for strata in (table.speaker_and_emotion, table.speaker) if table.group is not None else ():
        groups = len(set(table.unit[scored]))
        for attempt in range(GROUPED_ATTEMPTS):
            tests = assign_test_sets(strata[scored], table.unit[scored], min(folds, groups), seed + attempt)
            split = [(np.setdiff1d(everything, scored[test]), scored[test]) for test in tests if len(test)]
            yield without_relatives(table, split), False, groups > folds
    for strata in (table.speaker_and_emotion, table.speaker):
        for count in range(folds, 1, -1):  # fewer folds where a speaker with few utterances is in no training set
            tests = assign_test_sets(strata[scored], None, count, seed)
            yield [(np.setdiff1d(everything, scored[test]), scored[test]) for test in tests], False, len(tests) > 1
    if not table.scored.all():
        yield [(np.flatnonzero(~table.scored), scored)], False, False


def without_relatives(table: Embeddings, folds: list[TrainTest]) -> list[TrainTest]:
    """Remove from each training set the utterances that share a group with a test utterance."""
    if table.group is None:
        return folds
    return [(train[~np.isin(table.group[train], table.group[test])], test) for train, test in folds]


def assign_test_sets(strata: np.ndarray, groups: np.ndarray | None, count: int, seed: int) -> list[np.ndarray]:
    """Divide utterances into stratified test sets.

    Args:
        strata: Stratum of each utterance [n].
        groups: Text of each utterance [n], kept within one test set; None to assign utterances individually.
        count: Number of test sets at most.
        seed: Seed of the assignment.

    Returns:
        Positions of each test set: one set if there is a single group, none if no division is possible.
    """
    if groups is not None and len(set(groups)) == 1:
        return [np.arange(len(strata))]
    count = min(count, max(Counter(strata).values()))
    if count < 2:
        return []
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # small strata are normal here
        return [test for _, test in splitter.split(strata, strata, groups)]


def tuning_split(table: Embeddings, train: np.ndarray, seed: int) -> TrainTest:
    """Divide a fold's training utterances for the choice of attackers' settings, by the same rules as folds.

    Args:
        table: All utterances.
        train: Positions of the fold's training utterances.
        seed: Seed of the assignment and of the sample of `MAX_TUNING_UTTERANCES` if there are more.

    Returns:
        Positions within `train` to fit on and to validate on; both the same if fewer than two speakers have two utterances.
    """
    rows = sample_utterances(table.speaker[train], MAX_TUNING_UTTERANCES, seed)
    sampled = replace(table.select(train[rows]), scored=np.ones(len(rows), dtype=bool), frames=None)
    several = ~np.isin(sampled.speaker, speakers_with_one_utterance(sampled))
    if len(set(sampled.speaker[several])) < 2:
        return rows, rows
    folds, _, _ = make_folds(sampled.select(several), TUNING_FOLDS, seed)
    fitted_on, validated_on = folds[0]
    return rows[several][fitted_on], rows[several][validated_on]
