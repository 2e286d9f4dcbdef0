"""How much of the speaker fresh attackers read from embeddings. N clips, D dimensions, K speakers.

The audit owns its folds, because how a probe is folded decides its number: stratified by speaker x emotion, and all
clips of one text in one fold where texts are known, so that an attacker cannot pass by remembering a sentence.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.attackers import ATTACKERS
from speaker_invariant_ser.errors import AuditError, shorten
from speaker_invariant_ser.metrics import cluster_interval, hit_rate


@dataclass(frozen=True)
class Embeddings:
    """One encoder's embeddings [N, D] of known people; `text` is "" where it is not known. All lists have N entries."""

    embedding: np.ndarray
    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class Score:
    """An attacker's accuracy over all scored clips; 95 % interval clustered by text if folds keep texts apart, else by clip."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Leakage:
    """What the attackers reached, beside what can be reached without any embedding."""

    speakers: int  # K of one encoder
    decisions: int  # scored clips, pooled over encoders
    left_out: tuple[str, ...]  # speakers with a single clip
    grouped_by_text: bool
    chance: dict[str, float]  # uniform, majority, given_emotion
    attackers: dict[str, Score]

    @property
    def strongest(self) -> str:
        """Name of the attacker with the highest accuracy."""
        return max(self.attackers, key=lambda name: self.attackers[name].accuracy)


def leakage(
    tables: Sequence[Embeddings], folds: int = 5, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Leakage:
    """Attack each encoder's embeddings by cross-validation; decisions are pooled over the encoders.

    A speaker with a single clip is left out: one cannot be learned and scored. Raises AuditError if fewer than two
    speakers are left, or if an embedding holds values that are not finite.
    """
    alone = sorted({speaker for table in tables for speaker in singles(table)})
    tables = [without_singles(table) for table in tables]
    for table in tables:
        check(table)
    plans = [make_folds(table, folds, seed) for table in tables]
    grouped = all(plan.grouped for plan in plans)
    units = np.concatenate([table.text if grouped else table.id for table in tables])
    done, scores = 0, {}
    for name in ATTACKERS:
        hits = []
        for table, plan in zip(tables, plans, strict=True):
            hits.append(attack(name, table, plan, seed) == table.speaker)
            done += 1
            if progress:
                progress(done, len(ATTACKERS) * len(tables))
        scores[name] = score(np.concatenate(hits), units)
    return Leakage(
        speakers=max(len(set(table.speaker)) for table in tables),
        decisions=sum(len(table.speaker) for table in tables),
        left_out=tuple(alone),
        grouped_by_text=grouped,
        chance={name: pooled(tables, share) for name, share in CHANCES.items()},
        attackers=scores,
    )


def singles(table: Embeddings) -> list[str]:
    return [str(speaker) for speaker, clips in Counter(table.speaker).items() if clips < 2]


def without_singles(table: Embeddings) -> Embeddings:
    rows = ~np.isin(table.speaker, singles(table))
    return Embeddings(*(getattr(table, field.name)[rows] for field in fields(table)))


def check(table: Embeddings) -> None:
    speakers = sorted(set(table.speaker))
    if len(speakers) < 2:
        raise AuditError(f"{len(speakers)} speakers with two clips or more ({shorten(speakers)}): an audit needs at least 2")
    broken = ~np.isfinite(table.embedding).all(axis=1)
    if broken.any():
        raise AuditError(f"embedding of {shorten(table.id[broken])} holds NaN or infinity")


def attack(name: str, table: Embeddings, plan: "Folds", seed: int) -> np.ndarray:
    """The speaker [N] that a fresh attacker names for each clip, fitted on the other folds' clips."""
    guessed = np.empty_like(table.speaker)
    for train, test in plan.parts:
        attacker = ATTACKERS[name](seed)
        # One thread: matrices this small are twice as fast without handing work around.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # an attacker stopped early is still an attacker
            attacker.fit(table.embedding[train], table.speaker[train])
        guessed[test] = attacker.predict(table.embedding[test])
    return guessed


@dataclass(frozen=True)
class Folds:
    """(train, test) positions, each clip in one test part; whether each text is in one part only."""

    parts: list[tuple[np.ndarray, np.ndarray]]
    grouped: bool


def make_folds(table: Embeddings, folds: int, seed: int) -> Folds:
    """Stratified by speaker x emotion, grouped by text where that leaves every speaker to learn from in every fold.

    Otherwise (texts unknown, or a speaker with all clips in one text) clips are dealt one by one: an attacker that has
    never met a speaker cannot name them, and leakage would read too low. Where cells are too small for that as well,
    by speaker alone, which always works: every speaker has two clips or more.
    """
    for parts, grouped in plans(table, folds, seed):
        if parts and all(set(table.speaker[train]) == set(table.speaker) for train, _ in parts):
            return Folds(parts, grouped)
    raise AssertionError("stratified by speaker alone, every speaker is in every training part")


def plans(table: Embeddings, folds: int, seed: int, attempts: int = 10) -> Iterator[tuple[list[tuple], bool]]:
    """Divisions of the table, the best first, each with whether it keeps texts apart."""
    cells = np.char.add(np.char.add(table.speaker.astype(str), "\n"), table.emotion.astype(str))
    fewest = min(Counter(table.speaker).values())
    if all(table.text):
        for attempt in range(attempts):
            yield divide(cells, table.text, min(folds, len(set(table.text))), seed + attempt), True
    yield divide(cells, None, min(folds, fewest), seed), False
    yield divide(table.speaker, None, min(folds, fewest), seed), False


def divide(strata: np.ndarray, groups: np.ndarray | None, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most `count` (train, test) parts by scikit-learn's splitters; none if the strata are too small for two."""
    count = min(count, max(Counter(strata).values()))
    if count < 2:
        return []
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # cells of few clips are usual
        return list(splitter.split(strata, strata, groups))


def score(hits: np.ndarray, units: np.ndarray) -> Score:
    low, high = cluster_interval(np.ones(len(hits), dtype=int), hits.astype(int), units, 2, hit_rate)
    return Score(float(hits.mean()), low, high)


def uniform(table: Embeddings) -> float:
    """1 / K."""
    return 1 / len(set(table.speaker))


def majority(table: Embeddings) -> float:
    """Always naming the speaker with most clips."""
    return max(Counter(table.speaker).values()) / len(table.speaker)


def given_emotion(table: Embeddings) -> float:
    """Naming, for each true emotion, the speaker with most clips of it: above 1 / K when speakers differ in their emotions."""
    best = {}
    for (emotion, _), clips in Counter(zip(table.emotion, table.speaker, strict=True)).items():
        best[emotion] = max(best.get(emotion, 0), clips)
    return sum(best.values()) / len(table.speaker)


CHANCES = {"uniform": uniform, "majority": majority, "given_emotion": given_emotion}


def pooled(tables: Sequence[Embeddings], share: Callable[[Embeddings], float]) -> float:
    """A share of each table, weighted by its clips."""
    return float(np.average([share(table) for table in tables], weights=[len(table.speaker) for table in tables]))
