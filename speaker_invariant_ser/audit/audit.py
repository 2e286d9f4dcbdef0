"""The whole audit: leakage under all attackers, beside controls, bits, and people that the encoder has never met."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from speaker_invariant_ser.audit.attackers import ATTACKERS, QUICK_ATTACKERS
from speaker_invariant_ser.audit.embeddings import Embeddings, singles
from speaker_invariant_ser.audit.folds import FOLDS, REPEATS, make_plan
from speaker_invariant_ser.audit.information import codelength, usable_bits
from speaker_invariant_ser.audit.leakage import PERMUTATIONS, Leakage, leakage, number
from speaker_invariant_ser.audit.verdict import verdict
from speaker_invariant_ser.audit.verification import Verification, make_trials, verify, verify_alone
from speaker_invariant_ser.files import sha256

Scored = Literal["held-out", "trained", "given"]  # clips that the encoder did not train on, or did, or a table that says nothing
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Settings:
    """How an audit is done. `quick` takes the attackers of a closed form or nearly, and leaves out what takes long."""

    folds: int = FOLDS
    seed: int = 0
    permutations: int = PERMUTATIONS
    quick: bool = False
    jobs: int = 1

    @property
    def described(self) -> dict:
        """What decides the numbers."""
        return {name: value for name, value in asdict(self).items() if name != "jobs"}


@dataclass(frozen=True)
class Audit:
    """All that can be said of the speaker. `controls` and `unseen` are attacked by the strongest quick attacker."""

    leakage: Leakage
    quick: bool
    scored: Scored
    controls: dict[str, Leakage]
    information: dict
    unseen: Leakage | None
    verification: Verification | None

    @property
    def summary(self) -> dict:
        """The part `speaker` of report.json."""
        controls = {name: control_summary(one) for name, one in self.controls.items()}
        found = self.leakage.summary
        if self.quick:
            found["not_tried"] = {name: "is not quick" for name in ATTACKERS if name not in QUICK_ATTACKERS} | found["not_tried"]
            if found["at_chance"] is True:  # a claim that the whole battery has to earn
                found |= {"at_chance": "undecided", "reason": "quick"}
        return {
            **found,
            "scored": self.scored,
            "controls": controls,
            "selectivity": controls["embedding"]["accuracy"] - controls["shuffled"]["accuracy"],
            "information": self.information,
            "unseen": unseen_summary(self.unseen, self.verification),
        }


def audit(
    tables: Sequence[Embeddings],
    scored: Scored = "given",
    controls: Mapping[str, Sequence[np.ndarray]] | None = None,
    unseen: Sequence[Embeddings] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit the embeddings of one or several encoders; decisions are pooled.

    `controls` are other arrays [N, D'] for the same clips of each encoder, attacked for comparison; the true emotion alone and
    speakers shuffled within emotion are added. `unseen` are embeddings of people that each encoder was not trained on;
    without them, clips of the table itself are verified against each other. Raises AuditError.
    """
    settings, told = settings or Settings(), progress or (lambda what, done, total: None)
    found = leakage(
        tables,
        QUICK_ATTACKERS if settings.quick else None,
        settings.folds,
        settings.seed,
        settings.permutations,
        settings.jobs,
        lambda *counts: told("attacking embeddings", *counts),
    )
    return Audit(
        leakage=found,
        quick=settings.quick,
        scored=scored,
        controls=attack_controls(tables, controls or {}, found if settings.quick else None, settings, told),
        information=information(tables, settings, told),
        unseen=attack_unseen(unseen or [], settings, told),
        verification=open_set(tables, unseen, settings, told),
    )


def table_summary(path: Path, table: Embeddings, speaker: dict, settings: Settings) -> dict:
    """What a report says of somebody's table of embeddings: the content of report.json, without emotion."""
    return {
        "run": path.name,
        "note": "",
        "at_chance": speaker["at_chance"],
        "verdict": verdict({"emotion": None, "speaker": speaker}),
        "emotion": None,
        "speaker": speaker,
        "against": None,
        "settings": {
            "table": {"sha256": sha256(path), "clips": len(table.id), "dimensions": table.embedding.shape[1]},
            "audit": settings.described,
            "versions": {name: version(name) for name in ("speaker-invariant-ser", "scikit-learn", "numpy")},
        },
    }


def attack_controls(
    tables: Sequence[Embeddings],
    controls: Mapping[str, Sequence[np.ndarray]],
    found: Leakage | None,
    settings: Settings,
    told: Progress,
) -> dict[str, Leakage]:
    """The embedding itself, each control, and the two that every table has, under the quick attackers.

    `found` is the embedding's leakage under these attackers, if that is known.
    """
    changed = {
        **({} if found else {"embedding": tables}),
        **{name: [with_embedding(*pair) for pair in zip(tables, arrays, strict=True)] for name, arrays in controls.items()},
        "emotion": [with_embedding(table, one_hot(table.emotion)) for table in tables],
        "shuffled": [shuffled(table, settings.seed) for table in tables],
    }
    attacked = {"embedding": found} if found else {}
    for done, (name, some) in enumerate(changed.items(), start=1):
        attacked[name] = quick(some, settings, 1)  # one division: a control is to be seen beside, not to be claimed
        told("attacking controls", done, len(changed))
    return attacked


def quick(tables: Sequence[Embeddings], settings: Settings, repeats: int = REPEATS) -> Leakage:
    return leakage(tables, QUICK_ATTACKERS, settings.folds, settings.seed, permutations=0, jobs=settings.jobs, repeats=repeats)


def with_embedding(table: Embeddings, embedding: np.ndarray) -> Embeddings:
    return replace(table, embedding=embedding, frames=None)


def one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)).astype(np.float32)


def shuffled(table: Embeddings, seed: int) -> Embeddings:
    """The control task of Hewitt and Liang (EMNLP 2019): speakers dealt anew among the clips of each emotion.

    An attacker that reads these as well as the true ones learns by heart and says nothing about the embedding.
    """
    rng, speaker = np.random.default_rng(seed), table.speaker.copy()
    for emotion in np.unique(table.emotion):
        rows = np.flatnonzero(table.emotion == emotion)
        speaker[rows] = speaker[rng.permutation(rows)]
    return replace(table, speaker=speaker, frames=None)


def information(tables: Sequence[Embeddings], settings: Settings, told: Progress) -> dict:
    """Usable bits about the speaker given the emotion, and the online code length, both pooled over encoders."""
    families = ("linear",) if settings.quick else ("linear", "mlp")
    tables = [table.rows(~np.isin(table.speaker, singles(table))) for table in tables]
    bits, lengths = {name: [] for name in families}, []
    for done, table in enumerate(tables, start=1):
        plan = make_plan(table, settings.folds, settings.seed)
        parts = [(part.train, part.test) for part in plan.parts if part.repeat == 0]
        groups = table.text if plan.grouped else None
        for name in families:
            bits[name].append(usable_bits(table.embedding, table.speaker, table.emotion, parts, name, groups, settings.seed))
        lengths.append(codelength(table.embedding, table.speaker, settings.seed))
        told("counting bits", done, len(tables))
    used, alone = np.sum(lengths, axis=0)
    return {
        "v_bits": {name: float(np.nanmean(np.concatenate(each))) for name, each in bits.items()},
        "mdl": {"codelength_bits": float(used), "uniform_bits": float(alone), "compression": float(alone / used)},
        "log2_speakers": float(np.log2(max(len(set(table.speaker)) for table in tables))),
    }


def attack_unseen(unseen: Sequence[Embeddings], settings: Settings, told: Progress) -> Leakage | None:
    """The quick attackers trained on people whom the encoder was not trained on; None where a fold has fewer than two."""
    tables = [table.rows(~np.isin(table.speaker, singles(table))) for table in unseen]
    tables = [table for table in tables if len(set(table.speaker)) > 1]
    told("attacking unseen speakers", 0, 1)
    attacked = quick(tables, settings) if tables else None
    told("attacking unseen speakers", 1, 1)
    return attacked


def open_set(
    tables: Sequence[Embeddings], unseen: Sequence[Embeddings] | None, settings: Settings, told: Progress
) -> Verification | None:
    """Verification of unseen people, the training speakers as background; of a table's own people if that is all there is."""
    told("verifying unseen speakers", 0, 1)
    if unseen is None:
        table = tables[0].rows(tables[0].scored)
        result = verify_alone(table.embedding, table.speaker, table.emotion, table.text, settings.seed)
    else:
        pairs = zip(unseen, tables, strict=True)
        result = verify([make_trials(*columns(new), known.embedding, known.speaker, seed=settings.seed) for new, known in pairs])
    told("verifying unseen speakers", 1, 1)
    return result


def columns(table: Embeddings) -> tuple[np.ndarray, ...]:
    return table.embedding, table.speaker, table.emotion, table.text


def control_summary(attacked: Leakage) -> dict:
    score = attacked.strongest.score
    return {
        "accuracy": score.accuracy,
        "low": number(score.low),
        "high": number(score.high),
        "balanced_accuracy": score.balanced_accuracy,
        "attacker": attacked.strongest.name,
    }


def unseen_summary(attacked: Leakage | None, verification: Verification | None) -> dict | None:
    """None if neither can be done; either half may be null."""
    if attacked is None and verification is None:
        return None
    read = dict.fromkeys(("accuracy", "low", "high", "balanced_accuracy", "attacker", "chance", "speakers", "decisions"))
    if attacked is not None:
        sizes = {"chance": attacked.chance["given_emotion"], "speakers": attacked.speakers, "decisions": attacked.decisions}
        read = {**control_summary(attacked), **sizes}
    verified = verification and verification.summary
    return {
        **read,
        "eer": verified and verified["eer"],
        "linkability": verified and verified["trained"]["linkability"],
        "verification": verified,
    }
