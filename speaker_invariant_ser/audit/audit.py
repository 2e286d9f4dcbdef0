"""The complete audit of embeddings: leakage, controls, usable information, and verification of unseen speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from speaker_invariant_ser.audit.attackers import ATTACKERS, QUICK_ATTACKERS
from speaker_invariant_ser.audit.certificates.certificate import Certificate, certify
from speaker_invariant_ser.audit.embeddings import Embeddings, require_auditable, without_single_utterances
from speaker_invariant_ser.audit.folds import FOLDS, REPEATS
from speaker_invariant_ser.audit.further import FurtherAttacks, attack_further, reconsider
from speaker_invariant_ser.audit.information import measure_information
from speaker_invariant_ser.audit.inputs.sample import Sample, draw_sample
from speaker_invariant_ser.audit.inputs.scaling import RELEASED_BITS, attackable
from speaker_invariant_ser.audit.leakage import PERMUTATIONS, Leakage, measure_leakage
from speaker_invariant_ser.audit.verification.judge import Judge
from speaker_invariant_ser.audit.verification.several_clips import CLIPS
from speaker_invariant_ser.audit.verification.unseen import Encoder, UnseenSpeakers, halves, measure_unseen
from speaker_invariant_ser.audit.words.verdict import verdict
from speaker_invariant_ser.files import sha256
from speaker_invariant_ser.indexing import one_hot
from speaker_invariant_ser.metrics import none_if_nan
from speaker_invariant_ser.processes import TaskProgress, versions_of

JUDGE = "judge"  # name of the control
Scored = Literal["held-out", "trained", "given"]  # not trained on by the encoder, trained on, unknown


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is done.

    Attributes:
        folds: Folds of each cross-validation.
        seed: Seed of folds, attackers and permutations.
        permutations: Permutations for p values.
        quick: Run the closed-form attackers only and estimate usable information with linear classifiers only.
        jobs: Processes that fit attackers in parallel; results do not depend on it.
        significant_bits: Significant binary digits that embeddings are rounded to before they are attacked, 1 to 53. What is
            concluded holds for embeddings that are rounded so when they are released. 11 are those of float16.
    """

    folds: int = FOLDS
    seed: int = 0
    permutations: int = PERMUTATIONS
    quick: bool = False
    jobs: int = 1
    significant_bits: int = RELEASED_BITS

    @property
    def described(self) -> dict:
        """The settings that decide the numbers, for report.json."""
        return {name: value for name, value in asdict(self).items() if name != "jobs"}


@dataclass(frozen=True)
class Audit:
    """The results of an audit.

    Attributes:
        leakage: Leakage of the embedding under all attackers, or under the closed-form attackers of a quick audit.
        quick: Whether the audit is quick.
        scored: Which utterances attackers were scored on.
        controls: Leakage of other inputs and of the embedding, all under the closed-form attackers.
        information: Usable bits and online code length.
        unseen: Leakage of speakers that the encoder was not trained on, under the closed-form attackers; None if not measured.
        verification: Verification of unseen speakers, and what follows from it; None if not measured.
        sample: What a quick audit used of a large table; None where everything was used.
        significant_bits: Significant binary digits that the embeddings were rounded to.
        certificate: What bounds every attacker, where what is released is one of a few codes.
        further: Attacks with known sentences, and from scored utterances alone.
        copies: Share of the rows that are equal or nearly equal to another row of the same speaker, and were left out.
    """

    leakage: Leakage
    quick: bool
    scored: Scored
    controls: dict[str, Leakage]
    information: dict
    unseen: Leakage | None
    verification: UnseenSpeakers | None
    sample: Sample | None = None
    significant_bits: int = RELEASED_BITS
    certificate: Certificate | None = None
    further: FurtherAttacks = field(default_factory=FurtherAttacks)
    copies: float = 0.0

    @property
    def summary(self) -> dict:
        """The part `speaker` of report.json; keys are stable."""
        controls = {name: control_summary(leakage) for name, leakage in self.controls.items()}
        summary = self.leakage.summary
        if self.quick:
            not_run = {name: "not part of a quick audit" for name in ATTACKERS if name not in QUICK_ATTACKERS}
            summary["not_tried"] = not_run | summary["not_tried"]
        shares = {"copies": self.copies, "left_out": self.leakage.left_out_share}
        at_chance, reason = reconsider(
            summary["at_chance"], summary["reason"], self.further, summary["chance"]["given_emotion"], shares, self.quick
        )
        summary |= {"at_chance": at_chance, "reason": reason}
        return {
            **summary,
            "significant_bits": self.significant_bits,
            "scored": self.scored,
            "controls": controls,
            "selectivity": controls["embedding"]["accuracy"] - controls["shuffled"]["accuracy"],
            "information": self.information,
            "unseen": unseen_summary(self.unseen, self.verification),
            "clips": clips_summary(self.leakage, self.verification),
            **asdict(self.further),
            "copies": self.copies,
            **({"sample": asdict(self.sample)} if self.sample else {}),
            **({"certificate": self.certificate.summary} if self.certificate else {}),
        }


def audit(
    tables: Sequence[Embeddings],
    scored: Scored = "given",
    controls: Mapping[str, Sequence[np.ndarray]] | None = None,
    unseen: Sequence[Embeddings] | None = None,
    settings: AuditSettings | None = None,
    progress: TaskProgress | None = None,
    judge: Judge | None = None,
) -> Audit:
    """Audit the embeddings of one or several encoders; decisions are pooled over encoders.

    Args:
        tables: Embeddings of each encoder.
        scored: Which utterances the tables mark as scored.
        controls: For each control, other features [N, D'] of the same utterances for each encoder, attacked for comparison.
            The true emotion alone and shuffled speakers are always added.
        unseen: For each encoder, embeddings of speakers that it was not trained on. Without them, verification uses pairs of
            scored utterances of the first table.
        settings: Settings of the audit.
        progress: Called with the step's name, the units done and the total.
        judge: Embeddings of the same utterances by another encoder, attacked as a control and verified as a ceiling.

    Returns:
        The results.

    Raises:
        AuditError: A table has fewer than two usable speakers, nothing to score, or values that are not finite; or the judge
            lacks an utterance.
    """
    settings, progress = settings or AuditSettings(), progress or ignore_progress
    if judge:
        for table in (*tables, *(unseen or ())):
            judge.require(table.id)
        controls = {**(controls or {}), JUDGE: [judge.of(table.id) for table in tables]}
    tables, unseen, bits = attackable(tables, unseen, settings.significant_bits)
    leakage = measure_leakage(
        tables,
        QUICK_ATTACKERS if settings.quick else None,
        settings.folds,
        settings.seed,
        settings.permutations,
        settings.jobs,
        lambda done, total: progress("attacking embeddings", done, total),
    )
    return Audit(
        leakage=leakage,
        further=attack_further(tables, leakage, progress, settings.folds, settings.seed, settings.permutations, settings.jobs),
        quick=settings.quick,
        scored=scored,
        controls=attack_controls(tables, controls or {}, leakage if settings.quick else None, settings, progress),
        information=measure_information(
            tables,
            ("linear",) if settings.quick else ("linear", "mlp"),
            settings.folds,
            settings.seed,
            lambda done, total: progress("measuring information", done, total),
        ),
        unseen=attack_unseen(unseen or [], settings, progress),
        verification=verify_unseen(tables, unseen, judge, settings, progress),
        significant_bits=bits,
    )


def audit_table(
    table: Embeddings,
    settings: AuditSettings | None = None,
    progress: TaskProgress | None = None,
    judge: Judge | None = None,
    column: str = "",
) -> Audit:
    """Audit embeddings of any encoder; attackers are scored on the utterances that the table marks.

    A quick audit uses a sample of a large table (see `draw_sample`), so that it takes less than a minute. Codes are certified on
    the whole table.

    Args:
        table: The embeddings.
        settings: Settings of the audit.
        progress: Called with the step's name, the units done and the total.
        judge: As in `audit`; it needs a row of every utterance of the table.
        column: Name of the column that the codes of the table are from.

    Returns:
        The results.

    Raises:
        AuditError: There are fewer than two usable speakers, nothing to score, or values that are not finite; or the judge
            lacks an utterance.
    """
    settings = settings or AuditSettings()
    if judge:
        judge.require(table.id)
    require_auditable(without_single_utterances(table))  # before sampling, which leaves nothing of such a table
    scored: Scored = "given" if table.scored.all() else "held-out"
    drawn, sample = draw_sample(table, settings.seed) if settings.quick else (table, None)
    audited = replace(audit([drawn], scored, settings=settings, progress=progress, judge=judge), sample=sample)
    audited = replace(audited, copies=table.copies / (table.copies + len(table.id)))
    if table.code is None:
        return audited
    certified = certify([table], [""], "given", settings.seed)
    return replace(audited, certificate=Certificate(column, len(np.unique(table.code)), (certified,)))


def ignore_progress(step: str, done: int, total: int) -> None:
    """Show nothing."""


def attack_controls(
    tables: Sequence[Embeddings],
    controls: Mapping[str, Sequence[np.ndarray]],
    embedding_leakage: Leakage | None,
    settings: AuditSettings,
    progress: TaskProgress,
) -> dict[str, Leakage]:
    """Measure leakage of the embedding, of each control, of the true emotion and of shuffled speakers.

    All with the closed-form attackers and, but for a given `embedding_leakage`, one cross-validation: controls are compared,
    no conclusion is drawn from them.
    """
    inputs = {
        **({} if embedding_leakage else {"embedding": tables}),
        **{name: [with_embedding(*pair) for pair in zip(tables, arrays, strict=True)] for name, arrays in controls.items()},
        "emotion": [with_embedding(table, one_hot(table.given_emotion)) for table in tables],
        "shuffled": [with_shuffled_speakers(table, settings.seed) for table in tables],
    }
    leakages = {"embedding": embedding_leakage} if embedding_leakage else {}
    for done, (name, changed) in enumerate(inputs.items(), start=1):
        leakages[name] = quick_leakage(changed, settings, repeats=1)
        progress("attacking controls", done, len(inputs))
    return leakages


def quick_leakage(tables: Sequence[Embeddings], settings: AuditSettings, repeats: int = REPEATS) -> Leakage:
    """Measure leakage with the closed-form attackers and without permutation tests."""
    return measure_leakage(
        tables, QUICK_ATTACKERS, settings.folds, settings.seed, permutations=0, jobs=settings.jobs, repeats=repeats
    )


def with_embedding(table: Embeddings, embedding: np.ndarray) -> Embeddings:
    """Return the table with other features [N, D'] and without frame-level features."""
    return replace(table, embedding=embedding, frames=None)


def with_shuffled_speakers(table: Embeddings, seed: int) -> Embeddings:
    """Shuffle speakers among the utterances of each emotion: the control task of Hewitt and Liang (EMNLP 2019).

    An attacker that predicts these as well as the true speakers memorises, and says nothing about the embedding.
    """
    rng, speaker = np.random.default_rng(seed), table.speaker.copy()
    for emotion in np.unique(table.given_emotion):
        rows = np.flatnonzero(table.given_emotion == emotion)
        speaker[rows] = speaker[rng.permutation(rows)]
    return replace(table, speaker=speaker, frames=None)


def attack_unseen(unseen: Sequence[Embeddings], settings: AuditSettings, progress: TaskProgress) -> Leakage | None:
    """Measure leakage of speakers that encoders were not trained on; None if no encoder has two of them."""
    tables = [without_single_utterances(table) for table in unseen]
    tables = [table for table in tables if len(set(table.speaker)) > 1]
    progress("attacking unseen speakers", 0, 1)
    leakage = quick_leakage(tables, settings) if tables else None
    progress("attacking unseen speakers", 1, 1)
    return leakage


def verify_unseen(
    tables: Sequence[Embeddings],
    unseen: Sequence[Embeddings] | None,
    judge: Judge | None,
    settings: AuditSettings,
    progress: TaskProgress,
) -> UnseenSpeakers | None:
    """Verify unseen speakers with the training speakers as background, or a table's own speakers if there are no others."""
    if unseen is None:
        encoders = halves(tables[0].select(tables[0].scored), settings.seed)
    else:
        encoders = [Encoder(table, background, settings.seed) for table, background in zip(unseen, tables, strict=True)]
    progress("verifying unseen speakers", 0, 1)
    result = measure_unseen(encoders, judge)
    progress("verifying unseen speakers", 1, 1)
    return result


def control_summary(leakage: Leakage) -> dict:
    """Return the strongest attacker's score on one input for report.json."""
    score = leakage.strongest.score
    return {
        "accuracy": score.accuracy,
        "low": none_if_nan(score.low),
        "high": none_if_nan(score.high),
        "balanced_accuracy": score.balanced_accuracy,
        "attacker": leakage.strongest.name,
    }


def unseen_summary(leakage: Leakage | None, verification: UnseenSpeakers | None) -> dict | None:
    """Return the part about unseen speakers for report.json; None without either result, null values without one of them."""
    if leakage is None and verification is None:
        return None
    attacked = dict.fromkeys(("accuracy", "low", "high", "balanced_accuracy", "attacker", "chance", "speakers", "decisions"))
    if leakage is not None:
        sizes = {"chance": leakage.chance["given_emotion"], "speakers": leakage.speakers, "decisions": leakage.decisions}
        attacked = {**control_summary(leakage), **sizes}
    verified = verification and verification.summary
    return {
        **attacked,
        "eer": verified and verified["eer"],
        "linkability": verified and verified["trained"]["linkability"],
        "verification": verified,
    }


def clips_summary(leakage: Leakage, verification: UnseenSpeakers | None) -> list[dict]:
    """Return what is identified and verified from several utterances of one person, for report.json; null where not measured."""
    verified = verification.clips if verification else {}
    identified = {clips: score and asdict(score) for clips, score in leakage.clips.items()}
    return [{"clips": clips, "identification": identified.get(clips), "verification": verified.get(clips)} for clips in CLIPS]


def today() -> str:
    """Return the date, UTC, as in 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def table_summary(
    path: Path,
    table: Embeddings,
    speaker: dict,
    settings: AuditSettings,
    notes: Sequence[str] = (),
    judge: Judge | None = None,
) -> dict:
    """Return the content of report.json for the audit of a table of embeddings.

    Args:
        path: The table's file.
        table: Its embeddings.
        speaker: `Audit.summary`.
        settings: Settings of the audit.
        notes: What `read_embeddings` remarked on the table.
        judge: The judge, if there was one.

    Returns:
        The content, without results on emotion.
    """
    return {
        "run": path.name,
        "note": "",
        "at_chance": speaker["at_chance"],
        "verdict": verdict({"emotion": None, "speaker": speaker}),
        "emotion": None,
        "speaker": speaker,
        "against": None,
        "settings": {
            "table": {
                "sha256": sha256(path),
                "clips": len(table.id),
                "dimensions": table.embedding.shape[1],
                "notes": list(notes),
            },
            "audit": settings.described,
            "date": today(),
            "versions": versions_of("scikit-learn", "numpy"),
            "judge": judge and judge.described,
        },
        "baseline": None,
    }
