"""The complete audit of embeddings: leakage, controls, usable information, and verification of unseen speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from speaker_invariant_ser import __version__
from speaker_invariant_ser.audit.attackers import ATTACKERS, QUICK_ATTACKERS
from speaker_invariant_ser.audit.embeddings import (
    RELEASED_BITS,
    Embeddings,
    Sample,
    draw_sample,
    round_significant,
    significant_bits,
    without_single_utterances,
)
from speaker_invariant_ser.audit.folds import FOLDS, REPEATS, plan_folds
from speaker_invariant_ser.audit.information import codelength, usable_bits
from speaker_invariant_ser.audit.leakage import PERMUTATIONS, Leakage, finite_or_none, measure_leakage
from speaker_invariant_ser.audit.verdict import verdict
from speaker_invariant_ser.audit.verification.trials import make_trials
from speaker_invariant_ser.audit.verification.verify import Verification, verify, verify_without_background
from speaker_invariant_ser.files import sha256
from speaker_invariant_ser.indexing import one_hot, to_indices
from speaker_invariant_ser.processes import TaskProgress

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
        verification: Verification of unseen speakers; None if not measured.
        sample: What a quick audit used of a large table; None where everything was used.
        significant_bits: Significant binary digits that the embeddings were rounded to.
    """

    leakage: Leakage
    quick: bool
    scored: Scored
    controls: dict[str, Leakage]
    information: dict
    unseen: Leakage | None
    verification: Verification | None
    sample: Sample | None = None
    significant_bits: int = RELEASED_BITS

    @property
    def summary(self) -> dict:
        """The part `speaker` of report.json; keys are stable."""
        controls = {name: control_summary(leakage) for name, leakage in self.controls.items()}
        summary = self.leakage.summary
        if self.quick:
            not_run = {name: "not part of a quick audit" for name in ATTACKERS if name not in QUICK_ATTACKERS}
            summary["not_tried"] = not_run | summary["not_tried"]
            if summary["at_chance"] is True:  # a claim that needs all attackers
                summary |= {"at_chance": "undecided", "reason": "quick"}
        return {
            **summary,
            "significant_bits": self.significant_bits,
            "scored": self.scored,
            "controls": controls,
            "selectivity": controls["embedding"]["accuracy"] - controls["shuffled"]["accuracy"],
            "information": self.information,
            "unseen": unseen_summary(self.unseen, self.verification),
            **({"sample": asdict(self.sample)} if self.sample else {}),
        }


def audit(
    tables: Sequence[Embeddings],
    scored: Scored = "given",
    controls: Mapping[str, Sequence[np.ndarray]] | None = None,
    unseen: Sequence[Embeddings] | None = None,
    settings: AuditSettings | None = None,
    progress: TaskProgress | None = None,
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

    Returns:
        The results.

    Raises:
        AuditError: A table has fewer than two usable speakers, nothing to score, or values that are not finite.
    """
    settings, progress = settings or AuditSettings(), progress or ignore_progress
    bits = significant_bits(tables, settings.significant_bits)
    tables, unseen = rounded(tables, bits), unseen and rounded(unseen, bits)
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
        quick=settings.quick,
        scored=scored,
        controls=attack_controls(tables, controls or {}, leakage if settings.quick else None, settings, progress),
        information=measure_information(tables, settings, progress),
        unseen=attack_unseen(unseen or [], settings, progress),
        verification=verify_unseen(tables, unseen, settings, progress),
        significant_bits=bits,
    )


def rounded(tables: Sequence[Embeddings], bits: int) -> list[Embeddings]:
    """Round all embeddings to this many significant binary digits."""
    return [replace(table, embedding=round_significant(table.embedding, bits)) for table in tables]


def audit_table(table: Embeddings, settings: AuditSettings | None = None, progress: TaskProgress | None = None) -> Audit:
    """Audit embeddings of any encoder; attackers are scored on the utterances that the table marks.

    A quick audit uses a sample of a large table (see `draw_sample`), so that it takes less than a minute.

    Args:
        table: The embeddings.
        settings: Settings of the audit.
        progress: Called with the step's name, the units done and the total.

    Returns:
        The results.

    Raises:
        AuditError: There are fewer than two usable speakers, nothing to score, or values that are not finite.
    """
    settings = settings or AuditSettings()
    scored: Scored = "given" if table.scored.all() else "held-out"
    drawn, sample = draw_sample(table, settings.seed) if settings.quick else (table, None)
    return replace(audit([drawn], scored, settings=settings, progress=progress), sample=sample)


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
        "emotion": [with_embedding(table, one_hot(table.emotion)) for table in tables],
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
    for emotion in np.unique(table.emotion):
        rows = np.flatnonzero(table.emotion == emotion)
        speaker[rows] = speaker[rng.permutation(rows)]
    return replace(table, speaker=speaker, frames=None)


def measure_information(tables: Sequence[Embeddings], settings: AuditSettings, progress: TaskProgress) -> dict:
    """Compute usable bits about the speaker given the emotion and the online code length, both pooled over encoders."""
    families = ("linear",) if settings.quick else ("linear", "mlp")
    tables = [without_single_utterances(table) for table in tables]
    bits: dict[str, list[np.ndarray]] = {family: [] for family in families}
    code_lengths = []
    for done, table in enumerate(tables, start=1):
        plan = plan_folds(table, settings.folds, settings.seed)
        folds = [(fold.train, fold.test) for fold in plan.folds if fold.repeat == 0]
        groups = table.text if plan.grouped_by_text else table.group
        for family in families:
            bits[family].append(usable_bits(table.embedding, table.speaker, table.emotion, folds, family, groups, settings.seed))
        code_lengths.append(codelength(table.embedding, table.speaker, settings.seed))
        progress("measuring information", done, len(tables))
    with_embedding_bits, uniform_bits = np.sum(code_lengths, axis=0)
    return {
        "v_bits": {family: float(np.nanmean(np.concatenate(encoder_bits))) for family, encoder_bits in bits.items()},
        "mdl": {
            "codelength_bits": float(with_embedding_bits),
            "uniform_bits": float(uniform_bits),
            "compression": float(uniform_bits / with_embedding_bits),
        },
        "log2_speakers": float(np.log2(max(len(set(table.speaker)) for table in tables))),
        "given_emotion_bits": float(np.mean([speaker_bits_given_emotion(table) for table in tables])),
    }


def speaker_bits_given_emotion(table: Embeddings) -> float:
    """Return the conditional entropy of the speaker given the emotion, bits: 0 where the emotion names the speaker."""
    names, emotions = to_indices(table.speaker), to_indices(table.emotion)
    joint = np.zeros((names.max() + 1, emotions.max() + 1))
    np.add.at(joint, (names, emotions), 1 / len(names))
    share = joint / joint.sum(axis=0)
    return float(-(joint * np.log2(np.where(share > 0, share, 1))).sum())


def attack_unseen(unseen: Sequence[Embeddings], settings: AuditSettings, progress: TaskProgress) -> Leakage | None:
    """Measure leakage of speakers that encoders were not trained on; None if no encoder has two of them."""
    tables = [without_single_utterances(table) for table in unseen]
    tables = [table for table in tables if len(set(table.speaker)) > 1]
    progress("attacking unseen speakers", 0, 1)
    leakage = quick_leakage(tables, settings) if tables else None
    progress("attacking unseen speakers", 1, 1)
    return leakage


def verify_unseen(
    tables: Sequence[Embeddings], unseen: Sequence[Embeddings] | None, settings: AuditSettings, progress: TaskProgress
) -> Verification | None:
    """Verify unseen speakers with the training speakers as background, or a table's own speakers if there are no others."""
    progress("verifying unseen speakers", 0, 1)
    if unseen is None:
        table = tables[0].select(tables[0].scored)
        result = verify_without_background(table.embedding, table.speaker, table.emotion, table.text, settings.seed)
    else:
        result = verify(
            [
                make_trials(
                    table.embedding,
                    table.speaker,
                    table.emotion,
                    table.text,
                    background.embedding,
                    background.speaker,
                    seed=settings.seed,
                )
                for table, background in zip(unseen, tables, strict=True)
            ]
        )
    progress("verifying unseen speakers", 1, 1)
    return result


def control_summary(leakage: Leakage) -> dict:
    """Return the strongest attacker's score on one input for report.json."""
    score = leakage.strongest.score
    return {
        "accuracy": score.accuracy,
        "low": finite_or_none(score.low),
        "high": finite_or_none(score.high),
        "balanced_accuracy": score.balanced_accuracy,
        "attacker": leakage.strongest.name,
    }


def unseen_summary(leakage: Leakage | None, verification: Verification | None) -> dict | None:
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


def today() -> str:
    """Return the date, UTC, as in 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def table_summary(path: Path, table: Embeddings, speaker: dict, settings: AuditSettings, notes: Sequence[str] = ()) -> dict:
    """Return the content of report.json for the audit of a table of embeddings.

    Args:
        path: The table's file.
        table: Its embeddings.
        speaker: `Audit.summary`.
        settings: Settings of the audit.
        notes: What `read_embeddings` remarked on the table.

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
        },
        "baseline": None,
    }


def versions_of(*packages: str) -> dict[str, str]:
    """Return the version of this package, of the code that runs and not of what is installed, and those of others."""
    return {"speaker-invariant-ser": __version__, **{name: version(name) for name in packages}}
