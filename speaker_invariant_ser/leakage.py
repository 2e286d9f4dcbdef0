"""What fresh attackers read of the speaker: attackers x folds -> Leakage. K speakers, n scored clips."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from speaker_invariant_ser import chance
from speaker_invariant_ser.attackers import ATTACKERS, Inputs, fit_tuned, take
from speaker_invariant_ser.chance import AtChance, Clips, Score
from speaker_invariant_ser.embeddings import Embeddings, check, singles
from speaker_invariant_ser.folds import FOLDS, Plan, PlannedPart, make_plan

PERMUTATIONS = 1000
STRONGEST = "strongest"
QUICK = tuple(name for name, attacker in ATTACKERS.items() if attacker.quick)

Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Strongest:
    """The attacker of the embedding that reads most where settings are chosen, and its hits on the scored clips.

    `name` is the one most often chosen. What reads the encoder's map before pooling stands beside it and is not among these:
    nobody who is given embeddings has the map.
    """

    name: str
    chosen: dict[str, float]  # attacker -> share of folds
    score: Score


@dataclass(frozen=True)
class Leakage:
    """What the attackers reached, beside what can be reached without any embedding."""

    speakers: int  # K of one encoder
    encoders: int
    decisions: int  # scored clips, pooled over encoders
    clusters: int  # texts, or clips where texts are not known or cannot keep folds apart
    left_out: tuple[str, ...]  # speakers with a single clip
    grouped_by_text: bool
    chance: dict[str, float]  # uniform, majority, given_emotion, given_emotion_balanced
    attackers: dict[str, Score]
    validation: dict[str, float]  # attacker -> accuracy on the validation parts
    strongest: Strongest
    permutations: int

    @property
    def at_chance(self) -> AtChance:
        """True, False or "undecided", of the embedding: see `chance.at_chance`."""
        readers = {name: score for name, score in self.attackers.items() if ATTACKERS[name].reads == "embedding"}
        return chance.at_chance(self.strongest.score, readers, self.chance)

    @property
    def summary(self) -> dict:
        """The part of report.json that is about attackers."""
        scores = {
            name: {**numbers(score), "validation": number(self.validation[name]), "reads": ATTACKERS[name].reads}
            for name, score in self.attackers.items()
        }
        return {
            "speakers": self.speakers,
            "encoders": self.encoders,
            "decisions": self.decisions,
            "left_out": list(self.left_out),
            "grouped_by_text": self.grouped_by_text,
            "clusters": self.clusters,
            "chance": self.chance,
            "attackers": scores,
            "strongest": {"name": self.strongest.name, "chosen": self.strongest.chosen, **numbers(self.strongest.score)},
            "permutations": self.permutations,
            "detection_limit": chance.detection_limit(self.decisions, self.chance["given_emotion"]),
            "margin": chance.MARGIN,
            "at_chance": self.at_chance,
        }


def numbers(score: Score) -> dict[str, float | None]:
    return {key: number(value) for key, value in asdict(score).items()}


def number(value: float) -> float | None:
    """JSON has no NaN: what is undefined is null."""
    return None if np.isnan(value) else float(value)


def leakage(
    tables: Sequence[Embeddings],
    names: Sequence[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Leakage:
    """Attack each encoder's embeddings by cross-validation; decisions are pooled over the encoders.

    `names` are attackers (all by default; those that read frames only where all tables have them). A speaker with a single
    clip is left out: one cannot be learned and scored. Raises AuditError if fewer than two speakers are left, nothing is
    scored, or an embedding holds values that are not finite.
    """
    alone = sorted({speaker for table in tables for speaker in singles(table)})
    tables = [table.rows(~np.isin(table.speaker, singles(table))) for table in tables]
    for table in tables:
        check(table)
    plans = [make_plan(table, folds, seed) for table in tables]
    names = usable(names or tuple(ATTACKERS), tables, plans)
    attacked = attack(tables, plans, names, seed, jobs, progress)
    clips = [table.clips for table in tables]
    votes = {name: [one.votes(name) for one in attacked] for name in names}
    choices = choose(attacked, tables, [name for name in names if ATTACKERS[name].reads == "embedding"])
    together = [one.votes(choice) for one, choice in zip(attacked, choices, strict=True)]
    permuted = chance.permuted_accuracies({**votes, STRONGEST: together}, clips, permutations, seed)
    grouped = all(plan.grouped for plan in plans)
    cluster = np.concatenate([(table.text if grouped else table.id)[table.scored] for table in tables])
    speaker = np.concatenate([table.speaker[table.scored] for table in tables])

    def scored(name: str, votes: Sequence[np.ndarray]) -> Score:
        hits = [each[np.arange(len(each)), one.speaker[one.scored]] for each, one in zip(votes, clips, strict=True)]
        return chance.score(np.concatenate(hits), speaker, cluster, permuted[name])

    chosen = Counter(name for choice in choices for name in choice)
    return Leakage(
        speakers=max(len(set(table.speaker)) for table in tables),
        encoders=len(tables),
        decisions=len(speaker),
        clusters=len(set(cluster)),
        left_out=tuple(alone),
        grouped_by_text=grouped,
        chance={name: pooled(clips, share) for name, share in chance.CHANCES.items()},
        attackers={name: scored(name, votes[name]) for name in names},
        validation={
            name: float(np.concatenate([hits for one in attacked for hits in one.validation[name]]).mean()) for name in names
        },
        strongest=Strongest(
            chosen.most_common(1)[0][0],
            {name: count / chosen.total() for name, count in chosen.most_common()},
            scored(STRONGEST, together),
        ),
        permutations=permutations,
    )


def usable(names: Iterable[str], tables: Sequence[Embeddings], plans: Sequence["Plan"]) -> tuple[str, ...]:
    """The attackers that can be tried on all tables: some need the encoder's map, or more clips of every speaker."""
    fewest = min(
        min(Counter(table.speaker[part.train][part.tuning[0]]).values())
        for table, plan in zip(tables, plans, strict=True)
        for part in plan.parts
    )
    has = {"embedding": True, "frames": all(table.frames is not None for table in tables)}
    return tuple(name for name in names if has[ATTACKERS[name].reads] and ATTACKERS[name].least <= fewest)


def pooled(clips: Sequence[Clips], share: Callable[[Clips], float]) -> float:
    """A chance level of each encoder, weighted by its scored clips."""
    return float(np.average([share(one) for one in clips], weights=[one.scored.sum() for one in clips]))


@dataclass(frozen=True)
class Attacked:
    """What each attacker said of one encoder's scored clips, part by part of the plan."""

    plan: Plan
    scored: np.ndarray  # positions [n] of the scored clips
    speakers: int
    guesses: dict[str, list[np.ndarray]]  # attacker -> for each part, the number of the speaker named for each clip
    validation: dict[str, list[np.ndarray]]  # attacker -> for each part, its hits where settings are chosen

    def votes(self, chosen: str | Sequence[str]) -> np.ndarray:
        """Share of repeats [n, K] in which each speaker was named, by one attacker or by another in each part."""
        votes = np.zeros((len(self.scored), self.speakers), dtype=np.float32)
        names = [chosen] * len(self.plan.parts) if isinstance(chosen, str) else chosen
        for place, (part, name) in enumerate(zip(self.plan.parts, names, strict=True)):
            votes[np.searchsorted(self.scored, part.test), self.guesses[name][place]] += 1 / self.plan.repeats
        return votes


def choose(attacked: Sequence[Attacked], tables: Sequence[Embeddings], names: Sequence[str]) -> list[list[str]]:
    """For each part of each encoder, the attacker that read most where settings are chosen; what the part scores has no say.

    Over all encoders and parts, for one part alone holds too few clips to choose by, but on other clips than the part's own.
    """
    ids, numbers = np.unique(np.concatenate([table.id for table in tables]), return_inverse=True)
    own = np.split(numbers, np.cumsum([len(table.id) for table in tables])[:-1])
    hits = {name: np.zeros(len(ids)) for name in names}
    for one, clips in zip(attacked, own, strict=True):
        for place, part in enumerate(one.plan.parts):
            for name in names:
                np.add.at(hits[name], clips[part.train[part.tuning[1]]], one.validation[name][place])
    total = {name: each.sum() for name, each in hits.items()}

    def strongest(scored: np.ndarray) -> str:
        return max(names, key=lambda name: total[name] - hits[name][scored].sum())

    return [[strongest(clips[part.test]) for part in one.plan.parts] for one, clips in zip(attacked, own, strict=True)]


def attack(
    tables: Sequence[Embeddings], plans: Sequence[Plan], names: Sequence[str], seed: int, jobs: int, progress: Progress | None
) -> list[Attacked]:
    """Fit every attacker on every part of every table, `jobs` at once."""
    tasks = [(name, encoder, part) for name in names for encoder, plan in enumerate(plans) for part in plan.parts]
    numbers = [table.clips.speaker for table in tables]
    calls = ((name, inputs(tables[encoder], name), numbers[encoder], part, seed) for name, encoder, part in tasks)
    results = [
        Attacked(plan, np.flatnonzero(table.scored), who.max() + 1, {name: [] for name in names}, {name: [] for name in names})
        for table, plan, who in zip(tables, plans, numbers, strict=True)
    ]
    tried = map(attempt, *zip(*calls, strict=True)) if jobs == 1 else side_by_side(calls, jobs)
    for done, ((name, encoder, _), (guessed, validation)) in enumerate(zip(tasks, tried, strict=True), start=1):
        results[encoder].guesses[name].append(guessed)
        results[encoder].validation[name].append(validation)
        if progress:
            progress(done, len(tasks))
    return results


def side_by_side(calls: Iterable[tuple], jobs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return Parallel(jobs, return_as="generator", batch_size=1)(delayed(attempt)(*call) for call in calls)


def attempt(name: str, inputs: Inputs, speaker: np.ndarray, part: PlannedPart, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the speaker named for each scored clip of a part, hits where settings are chosen) of a fresh attacker."""
    with threadpool_limits(1):  # matrices this small gain nothing from more
        known = take(inputs, part.train), speaker[part.train]
        fitted, validation = fit_tuned(ATTACKERS[name], *known, part.tuning, seed + part.repeat)
        return fitted.predict(take(inputs, part.test)), validation


def inputs(table: Embeddings, name: str) -> Inputs:
    return table.frames if ATTACKERS[name].reads == "frames" else table.embedding
