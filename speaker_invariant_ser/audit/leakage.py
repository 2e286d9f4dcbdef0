"""What fresh attackers read of the speaker: attackers x folds -> Leakage. K speakers, n scored clips."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.audit import statistics as chance
from speaker_invariant_ser.audit.attackers import ATTACKERS, Inputs, fit_tuned, select_rows
from speaker_invariant_ser.audit.embeddings import Embeddings, check, singles
from speaker_invariant_ser.audit.folds import FOLDS, REPEATS, Plan, PlannedPart, make_plan
from speaker_invariant_ser.audit.statistics import AtChance, Clips, Judgement, Score
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.processes import cores

PERMUTATIONS = 1000
STRONGEST = "strongest"

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
    hits: tuple[float, ...]  # of each encoder's scored clips
    clips: tuple[int, ...]  # scored, of each encoder

    def accuracy(self, encoders: Sequence[int]) -> float:
        """Accuracy on the scored clips of these encoders alone, by their positions."""
        return sum(self.hits[one] for one in encoders) / sum(self.clips[one] for one in encoders)


@dataclass(frozen=True)
class Leakage:
    """What the attackers reached, beside what can be reached without any embedding."""

    speakers: int  # K of one encoder
    emotions: int
    encoders: int
    decisions: int  # scored clips, pooled over encoders
    utterances: int  # different ones among them
    clusters: int  # texts, or clips where texts are not known or cannot keep folds apart
    left_out: tuple[str, ...]  # speakers with a single clip
    not_tried: dict[str, str]  # attacker -> why
    grouped_by_text: bool
    chance: dict[str, float]  # uniform, majority, given_emotion, given_emotion_balanced
    attackers: dict[str, Score]
    validation: dict[str, float]  # attacker -> accuracy on the validation parts
    strongest: Strongest
    permutations: int

    @property
    def judgement(self) -> Judgement:
        """Whether the embedding is at chance, and why: see `chance.judge`."""
        readers = {name: score for name, score in self.attackers.items() if ATTACKERS[name].input == "embedding"}
        return chance.judge(self.strongest.score, readers, self.chance)

    @property
    def at_chance(self) -> AtChance:
        """True, False or "undecided"."""
        return self.judgement.at_chance

    @property
    def summary(self) -> dict:
        """The part of report.json that is about attackers."""
        scores = {
            name: {**numbers(score), "validation": number(self.validation[name]), "reads": ATTACKERS[name].input}
            for name, score in self.attackers.items()
        }
        return {
            "speakers": self.speakers,
            "emotions": self.emotions,
            "encoders": self.encoders,
            "decisions": self.decisions,
            "utterances": self.utterances,
            "left_out": list(self.left_out),
            "not_tried": self.not_tried,
            "grouped_by_text": self.grouped_by_text,
            "clusters": self.clusters,
            "chance": self.chance,
            "attackers": scores,
            "strongest": {"name": self.strongest.name, "chosen": self.strongest.chosen, **numbers(self.strongest.score)},
            "permutations": self.permutations,
            "detection_limit": chance.detection_limit(self.utterances, self.chance["given_emotion"]),
            "margin": chance.MARGIN,
            "at_chance": self.at_chance,
            "reason": self.judgement.reason,
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
    repeats: int = REPEATS,
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
    plans = [make_plan(table, folds, seed, repeats) for table in tables]
    usable, unusable = divide_names(names or tuple(ATTACKERS), tables, plans)
    attacked = attack(tables, plans, usable, seed, jobs, progress)
    choices = choose(attacked, tables, [name for name in usable if ATTACKERS[name].input == "embedding"])
    votes = {name: [one.votes(name) for one in attacked] for name in usable}
    votes[STRONGEST] = [one.votes(choice) for one, choice in zip(attacked, choices, strict=True)]
    pool = Pool.of(tables, plans)
    permuted = chance.permuted_accuracies(votes, pool.clips, permutations, seed, any(plan.crossed for plan in plans))
    scores = {name: pool.score(each, permuted[name]) for name, each in votes.items()}
    chosen = Counter(name for choice in choices for name in choice)
    return Leakage(
        speakers=max(len(set(table.speaker)) for table in tables),
        emotions=len({emotion for table in tables for emotion in table.emotion}),
        encoders=len(tables),
        decisions=len(pool.speaker),
        utterances=pool.utterances,
        clusters=len(set(pool.cluster)),
        left_out=tuple(alone),
        not_tried=unusable,
        grouped_by_text=pool.grouped,
        chance=pool.chance(plans),
        attackers={name: scores[name] for name in usable},
        validation={name: float(np.concatenate([h for one in attacked for h in one.validation[name]]).mean()) for name in usable},
        strongest=Strongest(
            chosen.most_common(1)[0][0],
            {name: count / chosen.total() for name, count in chosen.most_common()},
            scores[STRONGEST],
            *pool.by_encoder(votes[STRONGEST]),
        ),
        permutations=permutations,
    )


@dataclass(frozen=True)
class Pool:
    """The scored clips of all encoders, one after another [n]."""

    clips: list[Clips]  # of each encoder, with those that are not scored
    speaker: np.ndarray
    cluster: np.ndarray  # texts where all folds keep them apart, otherwise clips
    grouped: bool
    utterances: int  # different clips

    @classmethod
    def of(cls, tables: Sequence[Embeddings], plans: Sequence[Plan]) -> "Pool":
        clips = []
        ids = np.split(numbered([table.id for table in tables]), np.cumsum([len(table.id) for table in tables])[:-1])
        for table, number in zip(tables, ids, strict=True):
            clips.append(Clips(number, numbered([table.speaker]), numbered([table.emotion]), table.scored))
        grouped = all(plan.grouped for plan in plans)
        cluster = np.concatenate([(table.text if grouped else table.id)[table.scored] for table in tables])
        speaker = np.concatenate([table.speaker[table.scored] for table in tables])
        different = len(set(np.concatenate([one.id[one.scored] for one in clips])))
        return cls(clips, speaker, cluster, grouped, different)

    def hits(self, votes: Sequence[np.ndarray]) -> np.ndarray:
        """Share of repeats [n] in which the right speaker was named."""
        each = zip(votes, self.clips, strict=True)
        return np.concatenate([vote[np.arange(len(vote)), one.speaker[one.scored]] for vote, one in each])

    def by_encoder(self, votes: Sequence[np.ndarray]) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """(hits, scored clips), each of every encoder."""
        clips = tuple(len(vote) for vote in votes)
        return tuple(float(hits.sum()) for hits in np.split(self.hits(votes), np.cumsum(clips)[:-1])), clips

    def score(self, votes: Sequence[np.ndarray], permuted: np.ndarray) -> Score:
        return chance.score(self.hits(votes), self.speaker, self.cluster, self.utterances, permuted)

    def chance(self, plans: Sequence[Plan]) -> dict[str, float]:
        """The chance levels; what the emotion gives is at least 1 / K, less would be bad luck in guessing."""
        weights = [one.scored.sum() for one in self.clips]
        plain = {
            name: float(np.average([level(one) for one in self.clips], weights=weights))
            for name, level in (("uniform", chance.uniform), ("majority", chance.majority))
        }
        pairs = list(zip(self.clips, plans, strict=True))
        guessed, balanced = (self.hits([self.guesses(*pair, kind) for pair in pairs]) for kind in (False, True))
        _, recall = chance.recalls(balanced, self.speaker)
        given = {"given_emotion": float(guessed.mean()), "given_emotion_balanced": float(recall.mean())}
        return {**plain, **{name: max(plain["uniform"], level) for name, level in given.items()}}

    @staticmethod
    def guesses(clips: Clips, plan: Plan, balanced: bool) -> np.ndarray:
        """Votes [n, K] of whoever knows the emotion alone, in the same folds as the attackers."""
        guessed = [chance.guess_by_emotion(clips, part.train, part.test, balanced) for part in plan.parts]
        speakers = clips.speaker.max() + 1
        return Attacked(plan, np.flatnonzero(clips.scored), speakers, {"emotion": guessed}, {}).votes("emotion")


def numbered(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The values of all columns, one after another, as numbers."""
    return to_indices(np.concatenate(columns))


def divide_names(
    names: Iterable[str], tables: Sequence[Embeddings], plans: Sequence[Plan]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """(the attackers that can be tried on all tables, the others with the reason)."""
    fewest = min(
        min(Counter(table.speaker[part.train][part.tuning[0]]).values())
        for table, plan in zip(tables, plans, strict=True)
        for part in plan.parts
    )
    reasons = {}
    for name in names:
        if ATTACKERS[name].input == "frames" and any(table.frames is None for table in tables):
            reasons[name] = "needs the encoder's map before pooling"
        elif ATTACKERS[name].min_utterances > fewest:
            reasons[name] = f"needs {ATTACKERS[name].min_utterances} clips of every speaker to be tuned on, one has {fewest}"
    return tuple(name for name in names if name not in reasons), reasons


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
        votes = np.zeros((len(self.scored), self.speakers))  # double: ties between sums of thirds have to be ties
        names = [chosen] * len(self.plan.parts) if isinstance(chosen, str) else chosen
        for place, (part, name) in enumerate(zip(self.plan.parts, names, strict=True)):
            votes[np.searchsorted(self.scored, part.test), self.guesses[name][place]] += 1 / self.plan.repeats
        return votes


def choose(attacked: Sequence[Attacked], tables: Sequence[Embeddings], names: Sequence[str]) -> list[list[str]]:
    """For each part of each encoder, the attacker that read most where settings are chosen; what the part scores has no say.

    Over all encoders and parts, for one part alone holds too few clips to choose by, but on other clips than the part's own.
    """
    ids = numbered([table.id for table in tables])
    own = np.split(ids, np.cumsum([len(table.id) for table in tables])[:-1])
    hits = {name: np.zeros(ids.max() + 1) for name in names}
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
    numbers = [numbered([table.speaker]) for table in tables]
    calls = ((name, inputs(tables[encoder], name), numbers[encoder], part, seed) for name, encoder, part in tasks)
    results = [
        Attacked(plan, np.flatnonzero(table.scored), who.max() + 1, {name: [] for name in names}, {name: [] for name in names})
        for table, plan, who in zip(tables, plans, numbers, strict=True)
    ]
    jobs = min(jobs, len(tasks), cores())
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
        known = select_rows(inputs, part.train), speaker[part.train]
        fitted, validation = fit_tuned(ATTACKERS[name], *known, part.tuning, seed + part.repeat)
        return fitted.predict(select_rows(inputs, part.test)), validation


def inputs(table: Embeddings, name: str) -> Inputs:
    return table.frames if ATTACKERS[name].input == "frames" else table.embedding
