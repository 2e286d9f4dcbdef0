"""Speaker leakage of embeddings: how accurately fresh attackers predict the speaker, compared with chance.

A fresh attacker is a classifier trained from scratch on the embeddings; it has no part in the training that it judges. An encoder
is one trained model, so that a run has one for every fold and seed.

`measure_leakage` runs in six steps:

1. plan cross-validation folds for each encoder (`folds`);
2. fit every attacker on every fold and collect its predictions (`cross_validation`);
3. choose the strongest attacker for each fold by validation accuracy (`cross_validation`);
4. pool the predictions of all encoders, and compute chance levels in the same folds (`pooled_labels`);
5. score every attacker: accuracy, interval (`statistics`), permutation tests (`permutations`);
6. test what the average hides: one speaker, one model, the surest utterances, and rare speakers (`tails`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from speaker_invariant_ser.audit import statistics
from speaker_invariant_ser.audit.attackers import ATTACKERS
from speaker_invariant_ser.audit.cross_validation import (
    EncoderPredictions,
    FitProgress,
    choose_strongest,
    run_attackers,
    usable_attackers,
)
from speaker_invariant_ser.audit.embeddings import (
    Embeddings,
    nested_texts,
    require_auditable,
    speakers_with_one_utterance,
    without_single_utterances,
)
from speaker_invariant_ser.audit.folds import FOLDS, REPEATS, FoldPlan, plan_folds
from speaker_invariant_ser.audit.permutations import permuted_accuracies
from speaker_invariant_ser.audit.pooled_labels import PooledLabels
from speaker_invariant_ser.audit.several_clips import Identification, identify_from_several_clips
from speaker_invariant_ser.audit.statistics import AtChance, Conclusion, Score
from speaker_invariant_ser.audit.tails import Tails, conclude, measure_tails
from speaker_invariant_ser.metrics import none_if_nan

PERMUTATIONS = 1000
STRONGEST = "strongest"  # a key in addition to the attackers' names


@dataclass(frozen=True)
class StrongestAttacker:
    """The attacker on the embedding that is strongest on validation utterances, chosen for each fold.

    Attackers on frame-level features are no candidates: a recipient of embeddings does not have those features.

    Attributes:
        name: The attacker that was chosen most often.
        chosen: Share of folds for which each attacker was chosen.
        score: Score of the chosen attackers on the scored utterances.
        correct: Correct predictions for each encoder: the sum over its utterances of the share of repeats that were correct.
        scored: Number of scored utterances of each encoder.
    """

    name: str
    chosen: dict[str, float]
    score: Score
    correct: tuple[float, ...]
    scored: tuple[int, ...]

    def accuracy(self, encoders: Sequence[int]) -> float:
        """Return the accuracy for some encoders alone, given by their positions."""
        return sum(self.correct[encoder] for encoder in encoders) / sum(self.scored[encoder] for encoder in encoders)


@dataclass(frozen=True)
class Leakage:
    """Scores of all attackers with chance levels and sample sizes.

    Attributes:
        speakers: Number of speakers K, the maximum over encoders.
        emotions: Number of emotions.
        encoders: Number of encoders whose embeddings were attacked.
        decisions: Number of scored (encoder, utterance) pairs.
        utterances: Number of different scored utterances.
        clusters: Number of texts, or of utterances or their groups where folds are not grouped by text.
        left_out: Speakers with a single utterance or group, who were removed.
        not_tried: Attackers that were not run, with the reason.
        grouped_by_text: Whether no text is in both training and test set of any fold.
        chance: Chance levels: uniform, majority, given_emotion, given_emotion_balanced.
        attackers: Score of each attacker.
        validation: Accuracy of each attacker on validation utterances.
        strongest: The strongest attacker.
        permutations: Number of permutations behind the p-values.
        near_copies: Share of scored utterances that share audio or a recording with one that the attackers were fitted on.
        converged: For each attacker, the share of its fits that converged before the limit of their iterations.
        nested_texts: Share of scored utterances whose text occurs several times, always by the same speaker.
        tails: The speaker and the model that are recognised best, the surest utterances, and the mean recall over speakers.
        clips: Identification from several utterances of one person by the strongest closed-form attacker.
        left_out_share: Share of the utterances to be scored, over all encoders, that are of speakers who were removed.
    """

    speakers: int
    emotions: int
    encoders: int
    decisions: int
    utterances: int
    clusters: int
    left_out: tuple[str, ...]
    not_tried: dict[str, str]
    grouped_by_text: bool
    chance: dict[str, float]
    attackers: dict[str, Score]
    validation: dict[str, float]
    strongest: StrongestAttacker
    permutations: int
    near_copies: float = 0.0
    converged: dict[str, float] = field(default_factory=dict)
    nested_texts: float = 0.0
    tails: Tails = field(default_factory=Tails)
    clips: dict[int, Identification | None] = field(default_factory=dict)
    left_out_share: float = 0.0

    @property
    def conclusion(self) -> Conclusion:
        """Whether attackers on the embedding are at chance, and why; see `tails.conclude`."""
        on_embedding = {name: score for name, score in self.attackers.items() if ATTACKERS[name].input == "embedding"}
        tails = self.tails.decisive(self.chance)
        known = self.emotions > 1 and self.grouped_by_text
        return conclude(self.strongest.score, on_embedding, self.chance, tails, self.nested_texts, known)

    @property
    def at_chance(self) -> AtChance:
        """True, False or "undecided"."""
        return self.conclusion.at_chance

    @property
    def summary(self) -> dict:
        """The attackers' share of the part `speaker` of report.json; keys are stable."""
        return {
            "speakers": self.speakers,
            "emotions": self.emotions,
            "encoders": self.encoders,
            "decisions": self.decisions,
            "utterances": self.utterances,
            "left_out": list(self.left_out),
            "left_out_share": self.left_out_share,
            "not_tried": self.not_tried,
            "grouped_by_text": self.grouped_by_text,
            "clusters": self.clusters,
            "chance": self.chance,
            "attackers": {
                name: {
                    **score_summary(score),
                    "validation": none_if_nan(self.validation[name]),
                    "reads": ATTACKERS[name].input,  # the attacker's input; key kept stable
                    "converged": self.converged.get(name),
                }
                for name, score in self.attackers.items()
            },
            "strongest": {
                "name": self.strongest.name,
                "chosen": self.strongest.chosen,
                **score_summary(self.strongest.score),
            },
            "permutations": self.permutations,
            "near_copies": self.near_copies,
            "detection_limit": statistics.detection_limit(self.utterances, self.chance["given_emotion"]),
            "nested_texts": self.nested_texts,
            "best_recognised_speaker": self.tails.speaker and self.tails.speaker.summary,
            "surest_utterances": self.tails.surest and self.tails.surest.summary,
            "balanced": self.tails.balanced and self.tails.balanced.summary,
            "best_recognised_model": self.tails.model and self.tails.model.summary,
            "margin": statistics.margin_of(self.chance["given_emotion"]),
            "at_chance": self.at_chance,
            "reason": self.conclusion.reason,
        }


def score_summary(score: Score) -> dict[str, float | None]:
    """Return a score for report.json."""
    return {key: none_if_nan(value) for key, value in asdict(score).items()}


def measure_leakage(
    tables: Sequence[Embeddings],
    names: Iterable[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    jobs: int = 1,
    progress: FitProgress | None = None,
    repeats: int = REPEATS,
) -> Leakage:
    """Attack the embeddings of one or several encoders by cross-validation.

    Encoders are attacked one by one, and the scored (encoder, utterance) pairs are pooled. A speaker with a single utterance
    is left out: one utterance cannot serve both to fit and to score an attacker.

    Args:
        tables: Embeddings of each encoder.
        names: Attackers, all by default; those on frame-level features are skipped where a table has none.
        folds: Number of folds of each cross-validation.
        seed: Seed of folds, attackers and permutations.
        permutations: Number of permutations for p-values; 0 for none.
        jobs: Number of processes that fit attackers in parallel; results do not depend on it.
        progress: Called after every fit with the number of fits done and the total.
        repeats: Number of cross-validations to average where there are few utterances.

    Returns:
        The leakage.

    Raises:
        AuditError: Fewer than two speakers are left, no utterance is scored, or an embedding is not finite.
    """
    left_out = sorted({speaker for table in tables for speaker in speakers_with_one_utterance(table)})
    given = sum(int(table.scored.sum()) for table in tables)
    tables, plans = plan_attacks(tables, folds, seed, repeats)
    usable, not_tried = usable_attackers(tuple(names or ATTACKERS), tables, plans)
    results = run_attackers(tables, plans, usable, seed, jobs, progress)
    candidates = [name for name in usable if ATTACKERS[name].input == "embedding"]
    choices = choose_strongest(results, tables, candidates)

    # The votes of an attacker on an encoder are the share of repeats that predict each speaker, [n, K].
    votes = {name: [result.votes([name] * len(result.plan.folds)) for result in results] for name in usable}
    votes[STRONGEST] = [result.votes(chosen) for result, chosen in zip(results, choices, strict=True)]
    pooled = PooledLabels.of(tables, plans)
    cross_validated = any(plan.trains_on_scored for plan in plans)
    permuted = permuted_accuracies(votes, pooled.labels, permutations, seed, cross_validated)
    of_texts = pooled.spread_over_texts(votes, permuted)
    if pooled.within_texts:
        of_texts = permuted_accuracies(votes, pooled.within_texts, permutations, seed, cross_validated)
    scores = {name: pooled.score(votes[name], permuted[name], of_texts.get(name)) for name in votes}
    tails, tails_within_texts = (
        measure_tails(
            {name: votes[name] for name in candidates},
            {name: [result.surest_votes(name) for result in results] for name in candidates},
            {name: [result.balanced_votes(name) for result in results] for name in candidates},
            labels,
            [np.unique(table.speaker) for table in tables],
            permutations if labels else 0,
            seed,
            cross_validated,
        )
        for labels in (pooled.labels, pooled.within_texts)
    )
    return Leakage(
        speakers=max(len(set(table.speaker)) for table in tables),
        emotions=len({emotion for table in tables for emotion in table.emotion}),
        encoders=len(tables),
        decisions=len(pooled.speaker),
        utterances=pooled.utterances,
        clusters=len(set(pooled.cluster)),
        left_out=tuple(left_out),
        not_tried=not_tried,
        grouped_by_text=pooled.grouped_by_text,
        chance=pooled.chance_levels(plans),
        attackers={name: scores[name] for name in usable},
        validation={name: validation_accuracy(results, name) for name in usable},
        strongest=strongest_attacker(choices, scores[STRONGEST], pooled.correct_by_encoder(votes[STRONGEST])),
        permutations=permutations,
        near_copies=relatives_share(tables, plans),
        converged={name: float(np.mean([fit for result in results for fit in result.converged[name]])) for name in usable},
        nested_texts=nested_texts(tables),
        tails=tails.with_p_values_over_texts(tails_within_texts),
        clips=identify_from_several_clips(results, tables, pooled.labels, seed),
        left_out_share=1 - len(pooled.speaker) / given,
    )


def plan_attacks(tables: Sequence[Embeddings], folds: int, seed: int, repeats: int) -> tuple[list[Embeddings], list[FoldPlan]]:
    """Return tables without speakers of a single utterance, and their folds; raise AuditError where attacks are impossible."""
    tables = [without_single_utterances(table) for table in tables]
    for table in tables:
        require_auditable(table)
    return tables, [plan_folds(table, folds, seed, repeats) for table in tables]


def chance_levels(tables: Sequence[Embeddings], folds: int = FOLDS, seed: int = 0, repeats: int = REPEATS) -> dict[str, float]:
    """Return the chance levels that `measure_leakage` would, which depend on the labels alone; raise its AuditError."""
    tables, plans = plan_attacks(tables, folds, seed, repeats)
    return PooledLabels.of(tables, plans).chance_levels(plans)


def relatives_share(tables: Sequence[Embeddings], plans: Sequence[FoldPlan]) -> float:
    """Return the share of scored utterances, over all folds, that share a group with an utterance attackers were fitted on."""
    related = [
        np.isin(table.unit[fold.test], table.unit[fold.train])
        for table, plan in zip(tables, plans, strict=True)
        for fold in plan.folds
    ]
    return float(np.concatenate(related).mean())


def validation_accuracy(results: Sequence[EncoderPredictions], name: str) -> float:
    """Return an attacker's accuracy on the validation utterances of all folds and encoders."""
    return float(np.concatenate([correct for result in results for correct in result.validation_correct[name]]).mean())


def strongest_attacker(
    choices: Sequence[Sequence[str]], score: Score, correct_by_encoder: Sequence[np.ndarray]
) -> StrongestAttacker:
    """Describe the strongest attacker from the choices for each encoder and fold and its correct predictions."""
    chosen = Counter(name for names in choices for name in names)
    return StrongestAttacker(
        name=chosen.most_common(1)[0][0],
        chosen={name: count / chosen.total() for name, count in chosen.most_common()},
        score=score,
        correct=tuple(float(correct.sum()) for correct in correct_by_encoder),
        scored=tuple(len(correct) for correct in correct_by_encoder),
    )
