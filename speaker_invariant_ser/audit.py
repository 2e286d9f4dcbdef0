"""How much of the speaker fresh attackers read from embeddings. N clips, D dimensions, K speakers.

The audit owns its folds, because how a probe is folded decides its number: stratified by speaker x emotion, and all
clips of one text in one fold where texts are known, so that an attacker cannot pass by remembering a sentence.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """An attacker's accuracy over all scored clips with its 95 % interval (clustered by text, by clip where unknown)."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Leakage:
    """What the attackers reached, beside what can be reached without any embedding."""

    speakers: int  # K of one encoder
    decisions: int  # scored clips, pooled over encoders
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

    Raises AuditError if a table has fewer than two speakers, a speaker with a single clip, or values that are not finite.
    """
    for table in tables:
        check(table)
    done, scores = 0, {}
    for name in ATTACKERS:
        hits = []
        for table in tables:
            hits.append(attack(name, table, folds, seed) == table.speaker)
            done += 1
            if progress:
                progress(done, len(ATTACKERS) * len(tables))
        scores[name] = score(np.concatenate(hits), np.concatenate([clusters(table) for table in tables]))
    return Leakage(
        speakers=max(len(set(table.speaker)) for table in tables),
        decisions=sum(len(table.speaker) for table in tables),
        grouped_by_text=all(grouped(table) for table in tables),
        chance={name: pooled(tables, share) for name, share in CHANCES.items()},
        attackers=scores,
    )


def check(table: Embeddings) -> None:
    counts = Counter(table.speaker)
    if len(counts) < 2:
        raise AuditError(f"{len(counts)} speaker in the embeddings: an audit needs at least 2")
    alone = [speaker for speaker, clips in counts.items() if clips < 2]
    if alone:
        raise AuditError(
            f"speaker {shorten(alone)} has a single clip: an audit needs at least 2 of each, to learn one and score one"
        )
    if not np.isfinite(table.embedding).all():
        rows = np.flatnonzero(~np.isfinite(table.embedding).all(axis=1))
        raise AuditError(f"embedding of {shorten(table.id[rows])} holds NaN or infinity")


def attack(name: str, table: Embeddings, folds: int, seed: int) -> np.ndarray:
    """The speaker [N] that a fresh attacker names for each clip, fitted on the other folds' clips."""
    guessed = np.empty_like(table.speaker)
    for train, test in make_folds(table, folds, seed):
        attacker = ATTACKERS[name](seed)
        # One thread: matrices this small are twice as fast without handing work around.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # an attacker stopped early is still an attacker
            attacker.fit(table.embedding[train], table.speaker[train])
        guessed[test] = attacker.predict(table.embedding[test])
    return guessed


def make_folds(table: Embeddings, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) positions, each clip in one test part: stratified by speaker x emotion, grouped by text if known."""
    groups, strata = None, np.char.add(np.char.add(table.speaker.astype(str), "\n"), table.emotion.astype(str))
    if grouped(table):
        groups = table.text
        splitter = StratifiedGroupKFold(min(folds, len(set(table.text))), shuffle=True, random_state=seed)
    else:
        fewest = min(Counter(table.speaker).values())
        splitter = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed)
        if max(Counter(strata).values()) < splitter.n_splits:
            strata = table.speaker
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # cells of few clips are usual
        return list(splitter.split(table.embedding, strata, groups))


def grouped(table: Embeddings) -> bool:
    """Whether texts can keep folds apart: all are known, and every speaker says at least two."""
    texts = {}
    for speaker, text in zip(table.speaker, table.text, strict=True):
        texts.setdefault(speaker, set()).add(text)
    return all(table.text) and min(map(len, texts.values())) > 1


def clusters(table: Embeddings) -> np.ndarray:
    """What the interval resamples: texts where known, since clips of one text are alike; single clips otherwise."""
    return np.where(table.text != "", np.char.add("text ", table.text.astype(str)), np.char.add("clip ", table.id.astype(str)))


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
