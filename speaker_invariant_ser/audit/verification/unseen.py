"""Everything that is measured on speakers whom an encoder, the scorers and the learned maps never saw."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification.enrolment import Enrolment, enrol
from speaker_invariant_ser.audit.verification.error_rates import (
    area_under_curve,
    auc_interval,
    eer_interval,
    pool_trials,
    pooled_eer,
)
from speaker_invariant_ser.audit.verification.judge import Judge
from speaker_invariant_ser.audit.verification.linkage import LINKAGE, link
from speaker_invariant_ser.audit.verification.per_speaker import SpeakerMeans, speaker_error_rates
from speaker_invariant_ser.audit.verification.ranks import pool_ranks, rank_speakers
from speaker_invariant_ser.audit.verification.scorers import HEADLINE, Scorer, fit_scorers
from speaker_invariant_ser.audit.verification.several_clips import CLIPS, make_trials_of_groups
from speaker_invariant_ser.audit.verification.trials import Trials, make_trials
from speaker_invariant_ser.audit.verification.verify import Verification, evaluate_scorer, verify

MIN_SPEAKERS = 4  # of a table without a background: two in each half


@dataclass(frozen=True)
class Encoder:
    """Embeddings of one encoder.

    Attributes:
        unseen: Speakers that it was not trained on.
        background: Other speakers, whom an attacker learns from.
        seed: Seed of samples.
    """

    unseen: Embeddings
    background: Embeddings
    seed: int = 0

    @cached_property
    def scorers(self) -> dict[str, Scorer]:
        """Scorers that were fitted on the background."""
        return fit_scorers(self.background.embedding, self.background.speaker)

    @cached_property
    def enrolment(self) -> Enrolment | None:
        """Probes and enrolled speakers among the unseen ones."""
        return enrol(self.unseen, self.seed)

    @property
    def headline(self) -> dict[str, Scorer]:
        """The scorer of the headline alone."""
        return {HEADLINE: self.scorers[HEADLINE]}

    def judged_by(self, judge: Judge) -> "Encoder":
        """Return the judge's embeddings of the same utterances."""
        unseen, background = (replace(table, embedding=judge.of(table.id)) for table in (self.unseen, self.background))
        return Encoder(unseen, background, self.seed)

    @property
    def trials(self) -> Trials | None:
        """Trials of pairs of utterances."""
        table = self.unseen
        labels = table.speaker, table.emotion, table.text
        return make_trials(table.embedding, *labels, self.scorers, seed=self.seed, recording=table.group)

    def trials_of_groups(self, clips: int) -> Trials | None:
        """Trials of pairs of groups of utterances."""
        table = self.unseen
        return make_trials_of_groups(table.embedding, table.speaker, self.headline, clips, self.seed, table.group)

    @property
    def ranks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Each probe's speaker and its rank; None with fewer than two speakers."""
        return None if self.enrolment is None else rank_speakers(self.unseen, self.enrolment, self.scorers[HEADLINE])

    def linkage(self, judge: Judge) -> Trials | None:
        """Trials of embeddings and voice prints; None with fewer than two speakers on either side."""
        if self.enrolment is None:
            return None
        unseen, background = (judge.of(table.id) for table in (self.unseen, self.background))
        return link(self.unseen, unseen, self.background, background, self.enrolment)


@dataclass(frozen=True)
class UnseenSpeakers:
    """Results on unseen speakers, pooled over encoders.

    Attributes:
        verification: Verification by both scorers.
        per_speaker: Equal error rate of each speaker, clipped at 50 %, by the trained scorer.
        ranks: Rank of the true speaker among those enrolled, 0 to 1, by the trained scorer.
        enrolled: Number of enrolled speakers, the maximum over encoders.
        clips: For each number of utterances of one person, the equal error rate with its interval and the numbers of trials; None
            where no speaker has so many.
        judge: Verification of the same speakers by the judge's embeddings, the recordings themselves; None without a judge.
        linkage: How well embeddings match voice prints; None without a judge.
    """

    verification: Verification
    per_speaker: SpeakerMeans | None = None
    ranks: SpeakerMeans | None = None
    enrolled: int = 0
    clips: dict[int, dict | None] = field(default_factory=dict)
    judge: dict | None = None
    linkage: dict | None = None

    @property
    def summary(self) -> dict:
        """The part `verification` of report.json."""
        return {
            **self.verification.summary,
            "per_speaker": self.per_speaker and self.per_speaker.summary,
            "rank": self.ranks and {**self.ranks.summary, "enrolled": self.enrolled},
            "judge": self.judge,
            "linkage": self.linkage,
        }


def halves(table: Embeddings, seed: int = 0) -> list[Encoder]:
    """Let each half of a table's speakers be the background of the other; none with fewer than four speakers."""
    names = np.random.default_rng(seed).permutation(np.unique(table.speaker))
    if len(names) < MIN_SPEAKERS:
        return []
    first = np.isin(table.speaker, names[: len(names) // 2])
    return [Encoder(table.select(half), table.select(~half), seed) for half in (first, ~first)]


def measure_unseen(encoders: Sequence[Encoder], judge: Judge | None = None) -> UnseenSpeakers | None:
    """Measure what embeddings reveal of unseen speakers.

    Args:
        encoders: Embeddings of each encoder.
        judge: Embeddings of the same utterances by a judge.

    Returns:
        The results; None where there is no pair of utterances of one speaker, or none of two.
    """
    trials = [encoder.trials for encoder in encoders]
    verification = verify(trials)
    if verification is None:
        return None
    tables = [table for table in trials if table is not None]
    ranks = [ranks for encoder in encoders if (ranks := encoder.ranks) is not None]
    single = {key: verification.summary[key] for key in ("eer", "low", "high", "target_trials", "nontarget_trials")}
    clips = {
        count: single if count == 1 else clip_summary([encoder.trials_of_groups(count) for encoder in encoders])
        for count in CLIPS
    }
    results = UnseenSpeakers(
        verification=verification,
        per_speaker=speaker_error_rates(tables, HEADLINE),
        ranks=pool_ranks(ranks),
        enrolled=max((len(encoder.enrolment.speakers) for encoder in encoders if encoder.enrolment), default=0),
        clips=clips,
    )
    if judge is None:
        return results
    judged = [table for encoder in encoders if (table := encoder.judged_by(judge).trials) is not None]
    linked = [table for encoder in encoders if (table := encoder.linkage(judge)) is not None]
    return replace(results, judge=evaluate_scorer(judged, HEADLINE), linkage=linkage_summary(linked) if linked else None)


def clip_summary(trials_by_encoder: Sequence[Trials | None]) -> dict | None:
    """Return the equal error rate for one number of utterances; None without any trials."""
    tables = [trials for trials in trials_by_encoder if trials is not None]
    if not tables:
        return None
    low, high = eer_interval(tables, HEADLINE)
    return {
        "eer": pooled_eer(tables, HEADLINE),
        "low": low,
        "high": high,
        "target_trials": int(sum(trials.target.sum() for trials in tables)),
        "nontarget_trials": int(sum((~trials.target).sum() for trials in tables)),
    }


def linkage_summary(tables: Sequence[Trials]) -> dict:
    """Return how well embeddings match voice prints: area under the curve and equal error rate, with intervals over speakers."""
    low, high = auc_interval(tables, LINKAGE)
    eer_low, eer_high = eer_interval(tables, LINKAGE)
    return {
        "auc": area_under_curve(*pool_trials(tables, LINKAGE)),
        "low": low,
        "high": high,
        "eer": pooled_eer(tables, LINKAGE),
        "eer_low": eer_low,
        "eer_high": eer_high,
        "speakers": len(np.unique(np.concatenate([trials.speakers for trials in tables]))),
        "trials": int(sum(len(trials.target) for trials in tables)),
    }
