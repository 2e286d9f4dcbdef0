"""The audit's own folds, because how a probe is folded decides its number. N clips.

Stratified by speaker x emotion, and all clips of one text in one fold where texts are known, so that an attacker cannot pass
by remembering a sentence. Only clips that the encoder did not train on are scored, where that is known; attackers may learn
from all others.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from speaker_invariant_ser.audit.attackers import MAX_TUNING_UTTERANCES, sample_utterances
from speaker_invariant_ser.audit.embeddings import Embeddings, singles
from speaker_invariant_ser.errors import AuditError

FOLDS = 5
REPEATS = 3  # divisions into folds whose hits are averaged: a quarter less spread on speaker-free data
REPEATED = 3000  # scored clips up to which folds are repeated; beyond, the spread is small as it is
TUNING_SHARE = 3  # one in so many clips of a training fold is what settings are chosen on

Part = tuple[np.ndarray, np.ndarray]  # positions (train, test)


@dataclass(frozen=True)
class PlannedPart:
    """Clips to learn from and clips to score, and how those to learn from are divided again to choose settings."""

    train: np.ndarray
    test: np.ndarray
    tuning: Part  # positions within `train`
    repeat: int


@dataclass(frozen=True)
class Plan:
    """Every scored clip is in one test part of each repeat; whether each text is on one side only."""

    parts: list[PlannedPart]
    grouped: bool

    @property
    def crossed(self) -> bool:
        """Whether some part learns from clips that another one scores."""
        return any(np.isin(one.train, other.test).any() for one in self.parts for other in self.parts)

    @property
    def repeats(self) -> int:
        return 1 + max(part.repeat for part in self.parts)


def make_plan(table: Embeddings, folds: int = FOLDS, seed: int = 0, most: int = REPEATS) -> Plan:
    """Folds of the scored clips, repeated at `most` so often with other divisions, where there are others and few clips."""
    parts, grouped, varied = divide(table, folds, seed)
    repeats = [parts]
    if varied and table.scored.sum() <= REPEATED:
        repeats += [divide(table, folds, seed + 1000 * repeat)[0] for repeat in range(1, most)]
    return Plan(
        [
            PlannedPart(train, test, tuning_part(table, train, seed + repeat), repeat)
            for repeat, parts in enumerate(repeats)
            for train, test in parts
        ],
        grouped,
    )


def divide(table: Embeddings, folds: int, seed: int) -> tuple[list[Part], bool, bool]:
    """(train, test) positions, each scored clip in one test part; whether texts are kept apart; whether a seed matters.

    Stratified by speaker x emotion, grouped by text where that leaves every speaker to learn from in every fold. Otherwise
    (texts unknown, or a speaker with all clips in one text) clips are dealt one by one: an attacker that has never met a
    speaker cannot name them, and leakage would read too low. Where cells are too small for that as well, by speaker alone.
    """
    for parts, grouped, varied in divisions(table, folds, seed):
        if parts and all(set(table.speaker[train]) == set(table.speaker) for train, _ in parts):
            return parts, grouped, varied
    raise AuditError("no division leaves every speaker a clip to learn from: too few clips that are not scored")


def divisions(table: Embeddings, folds: int, seed: int, attempts: int = 10) -> Iterator[tuple[list[Part], bool, bool]]:
    """Divisions of the table, the best first."""
    scored = np.flatnonzero(table.scored)
    texts = len(set(table.text[scored]))
    everything = np.arange(len(table.id))
    for strata in (table.cells, table.speaker) if all(table.text) else ():
        for attempt in range(attempts):
            tests = split(strata[scored], table.text[scored], min(folds, texts), seed + attempt)
            apart = [(everything[~np.isin(table.text, table.text[scored[test]])], scored[test]) for test in tests]
            yield apart, True, texts > folds
    for strata in (table.cells, table.speaker):
        for count in range(folds, 1, -1):  # fewer where a speaker of few clips would be in no training part
            tests = split(strata[scored], None, count, seed)
            yield [(np.setdiff1d(everything, scored[test]), scored[test]) for test in tests], False, len(tests) > 1
    if not table.scored.all():
        yield [(np.flatnonzero(~table.scored), scored)], False, False


def split(strata: np.ndarray, groups: np.ndarray | None, count: int, seed: int) -> list[np.ndarray]:
    """At most `count` test parts by scikit-learn's splitters; one that holds all if the groups are one; none if none can be."""
    if groups is not None and len(set(groups)) == 1:
        return [np.arange(len(strata))]
    count = min(count, max(Counter(strata).values()))
    if count < 2:
        return []
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # cells of few clips are usual
        return [test for _, test in splitter.split(strata, strata, groups)]


def tuning_part(table: Embeddings, train: np.ndarray, seed: int) -> Part:
    """How a training fold is divided again to choose settings, by the same rules; `MAX_TUNING_UTTERANCES` of its clips where there are more."""
    rows = sample_utterances(table.speaker[train], MAX_TUNING_UTTERANCES, seed)
    inner = replace(table.rows(train[rows]), scored=np.ones(len(rows), dtype=bool), frames=None)
    known = ~np.isin(inner.speaker, singles(inner))
    if len(set(inner.speaker[known])) < 2:
        return rows, rows  # two clips of each speaker in all: nothing to choose by
    parts, _, _ = divide(inner.rows(known), TUNING_SHARE, seed)
    on, off = parts[0]
    return rows[known][on], rows[known][off]
