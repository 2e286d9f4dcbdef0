"""The results of a sweep: trials, Pareto front, the chosen recipe, and the files that hold them."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from speaker_invariant_ser.config import toml_value, write_toml
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.data.tables.columns import cell_for_people
from speaker_invariant_ser.errors import RunError, counted
from speaker_invariant_ser.files import write_json, writing
from speaker_invariant_ser.processes import versions_of
from speaker_invariant_ser.report.figure import Plot, add_legend, save
from speaker_invariant_ser.report.formatting import decimal, percent
from speaker_invariant_ser.report.palette import BLUE, GREY, INK, RUST
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.runs import split_hash
from speaker_invariant_ser.studies.sweep_folds import Scores
from speaker_invariant_ser.studies.sweep_space import Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRIALS, SUMMARY, BEST, FRONT = "trials.csv", "sweep.json", "best.toml", "front"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}  # by Optuna's name
MAX_COMMENT = 126  # characters of a line


@dataclass(frozen=True)
class TrialResult:
    """A trial that is finished.

    Attributes:
        number: Its number, from 0.
        state: "complete", "pruned" (stopped after some of the folds) or "failed".
        values: Value of each searched key.
        objective: Value of the objective on all folds; None unless it is complete.
        scores: Scores on its folds so far, after each fold.
        folds: Names of the folds it was trained on.
        seconds: Time of training and scoring.
        reason: Why it failed.
        same_as: Number of an earlier trial of the same configuration, whose results these are.
    """

    number: int
    state: str
    values: dict[str, Any]
    objective: float | None
    scores: tuple[Scores, ...]
    folds: tuple[str, ...]
    seconds: float
    reason: str
    same_as: int | None

    @classmethod
    def of(cls, trial: "FrozenTrial") -> "TrialResult":
        """Read a trial of Optuna."""
        facts = trial.user_attrs
        rows = [dict(row) for row in facts.get("scores", ())]
        return cls(
            number=trial.number,
            state=STATES[trial.state.name],
            values=facts["values"],
            objective=trial.value if trial.state.name == "COMPLETE" else None,
            folds=tuple(row.pop("fold") for row in rows),
            scores=tuple(Scores(**row) for row in rows),
            seconds=facts.get("seconds", 0.0),
            reason=facts.get("reason", ""),
            same_as=facts.get("same_as"),
        )

    @property
    def last(self) -> Scores:
        """Scores on all of its folds together."""
        return self.scores[-1]


@dataclass(frozen=True)
class SweepResult:
    """All results of a sweep.

    Attributes:
        sweep: The recipe and what was searched.
        folder: Folder of the study.
        prepared: The corpus with its labels mapped.
        all_splits: All folds of the recipe.
        splits: The folds that trials were trained on.
        trials: All finished trials, by number.
    """

    sweep: Sweep
    folder: Path
    prepared: PreparedCorpus
    all_splits: Sequence[Split]
    splits: Sequence[Split]
    trials: Sequence[TrialResult]

    @cached_property
    def complete(self) -> list[TrialResult]:
        """The complete trials, best first; of the same objective, the one with the lower leak, then the earlier one."""
        trials = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(trials, key=lambda trial: (-(trial.objective or 0.0), trial.last.excess, trial.number))

    @property
    def chosen(self) -> TrialResult:
        """The complete trial of the highest objective."""
        return self.complete[0]

    @cached_property
    def front(self) -> list[TrialResult]:
        """The complete trials on the Pareto front, by leak: no other has a UAR as high, a leak as low, and one of them better."""
        front: list[TrialResult] = []
        for trial in sorted(self.complete, key=lambda trial: (trial.last.excess, -trial.last.dev_uar, trial.number)):
            if not front or trial.last.dev_uar > front[-1].last.dev_uar:
                front.append(trial)
        return front

    @property
    def configurations(self) -> int:
        """Number of different configurations that were tried."""
        return sum(trial.same_as is None for trial in self.trials)

    @property
    def counts(self) -> str:
        """How many trials there were, and how they ended."""
        states = Counter(trial.state for trial in self.trials)
        ended = ", ".join(f"{states[state]} {state}" for state in STATES.values() if states[state])
        return f"{counted(len(self.trials), 'trial')} of {counted(self.configurations, 'configuration')} ({ended})"

    @property
    def objective(self) -> str:
        """The objective in words."""
        return f"dev UAR - {self.sweep.settings.leak_weight:g} * excess of the strongest closed-form attacker over chance"

    @property
    def folds(self) -> str:
        """The explored folds in words."""
        names = ", ".join(split.name for split in self.splits)
        return f"{counted(len(self.splits), 'fold')} of {len(self.all_splits)} ({names})"

    @property
    def tested_elsewhere(self) -> list[str]:
        """Dev or training speakers of the explored folds whom other folds test: the choice has seen their labels."""
        seen = {speaker for split in self.splits for speaker in (*split.train, *split.dev)}
        return sorted(seen & {speaker for split in self.all_splits for speaker in split.test})


def write_results(result: SweepResult) -> None:
    """Write trials.csv and, if a trial is complete, sweep.json, the plot of the front and the chosen recipe.

    Raises:
        RunError: Every trial failed.
        WriteError: A file cannot be written.
    """
    write_trials(result)
    if not result.complete:
        raise RunError(
            f"{result.folder}: no trial is complete of {counted(len(result.trials), 'trial')}, see {TRIALS}; the first failed: "
            f"{result.trials[0].reason}"
        )
    save(Plot(FRONT, f"Dev UAR against speaker leak of {result.counts}.", lambda axes: plot_front(axes, result)), result.folder)
    with writing(result.folder / BEST) as file:
        file.write(best_recipe(result))
    write_json(result.folder / SUMMARY, summary(result))


def write_trials(result: SweepResult) -> None:
    """Write a row for each trial."""
    keys = list(result.sweep.space)
    scores = ("dev_uar", "attacker_accuracy", "chance", "leak_excess", "attacker")
    columns = ["trial", "state", "objective", *scores, "folds", *keys, "same_as", "seconds", "reason"]
    with writing(result.folder / TRIALS) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        for trial in result.trials:
            facts = described(trial)
            values = [trial.values[key] if isinstance(trial.values[key], str) else toml_value(trial.values[key]) for key in keys]
            start = [facts[name] for name in ("trial", "state", "objective", *scores)]
            values = list(map(cell_for_people, values))
            table.writerow([*start, len(trial.folds), *values, *(facts[name] for name in ("same_as", "seconds", "reason"))])


def described(trial: TrialResult) -> dict[str, Any]:
    """Return what sweep.json says of a trial; scores are None if no fold was trained."""
    return {
        "trial": trial.number,
        "state": trial.state,
        "objective": trial.objective,
        **(score_columns(trial.last) if trial.scores else dict.fromkeys(score_columns(Scores(0, "", 0, 0)))),
        "after_each_fold": [{"fold": fold, **score_columns(row)} for fold, row in zip(trial.folds, trial.scores, strict=True)],
        "values": trial.values,
        "same_as": trial.same_as,
        "seconds": trial.seconds,
        "reason": trial.reason,
    }


def score_columns(scores: Scores) -> dict[str, Any]:
    """Return scores under the names that the files use."""
    return {
        "dev_uar": scores.dev_uar,
        "attacker_accuracy": scores.accuracy,
        "chance": scores.chance,
        "leak_excess": scores.excess,
        "attacker": scores.attacker,
    }


def summary(result: SweepResult) -> dict[str, Any]:
    """Return the content of sweep.json: all that is needed to judge and to repeat the search."""
    sweep, prepared = result.sweep, result.prepared
    return {
        "study": result.folder.resolve().name,
        "recipe_file": sweep.name,
        "objective": result.objective,
        "settings": sweep.settings.model_dump(mode="json"),
        "space": {key: {"kind": type(values).__name__.lower(), **asdict(values)} for key, values in sweep.space.items()},
        "trials_finished": len(result.trials),
        "configurations": result.configurations,
        "states": dict(Counter(trial.state for trial in result.trials)),
        "folds": {split.name: split_hash(split, prepared) for split in result.splits},
        "folds_of_recipe": len(result.all_splits),
        "dev_speakers": {split.name: list(split.dev) for split in result.splits},
        "tested_in_other_folds": result.tested_elsewhere,
        "chosen": result.chosen.number,
        "front": [trial.number for trial in result.front],
        "trials": [described(trial) for trial in result.trials],
        "recipe": sweep.recipe.model_dump(mode="json"),
        "labels": prepared.mapped.table(),
        "data_sha256": {name: prepared.settings["sha256"][name] for name in (AUDIO, MANIFEST)},
        "versions": versions_of("optuna", "torch", "scikit-learn", "numpy"),
    }


def best_recipe(result: SweepResult) -> str:
    """Return the chosen recipe as TOML, with a comment that says where it comes from."""
    chosen, scores = result.chosen, result.chosen.last
    values = ", ".join(f"{key} = {toml_value(value)}" for key, value in chosen.values.items())
    lines = [
        f"Chosen by `siser sweep` from {result.counts} of {result.sweep.name}: trial {chosen.number} of the study "
        f"{result.folder.resolve().name}.",
        f"Searched: {values}.",
        f"Objective, fixed beforehand: {result.objective} = {decimal(chosen.objective, 3)}, from dev UAR "
        f"{percent(scores.dev_uar)}, {scores.attacker} at {percent(scores.accuracy)}, chance {percent(scores.chance)}.",
        f"Measured on the dev speakers of {result.folds} and on held-out utterances of their training speakers, one seed. The "
        "best of many is measured too high: train this recipe on all folds and evaluate it.",
    ]
    return "".join(map(comment, lines)) + "\n" + write_toml(result.sweep.recipe_with(chosen.values), only_set=True)


def comment(text: str) -> str:
    """Return text as lines of a comment; names may hold characters that TOML does not allow in one."""
    lines = [""]
    for word in "".join(letter if letter.isprintable() else " " for letter in text).split():
        if lines[-1] and len(lines[-1]) + len(word) >= MAX_COMMENT:
            lines.append("")
        lines[-1] += f" {word}"
    return "".join(f"#{line}\n" for line in lines)


def best_table(result: SweepResult, rows: int = 5) -> Table:
    """Return the best trials as a table, the chosen one first."""
    keys = list(result.sweep.space)
    cells = [
        (
            str(trial.number),
            decimal(trial.objective, 3),
            percent(trial.last.dev_uar),
            percent(trial.last.accuracy),
            percent(trial.last.chance),
            *(toml_value(trial.values[key]) for key in keys),
        )
        for trial in result.complete[:rows]
    ]
    return Table(["trial", "objective", "dev UAR", "attacker", "chance", *keys], cells, strong=(0,))


def plot_front(axes: Axes, result: SweepResult) -> None:
    """Plot dev UAR against leak: complete trials filled, pruned ones hollow, the Pareto front, and the chosen trial marked."""
    pruned = [trial for trial in result.trials if trial.state == "pruned" and trial.scores]
    lines, texts = axes.plot(*positions(result.complete), "o", color=BLUE, markersize=5, alpha=0.8), ["complete"]
    if pruned:
        lines += axes.plot(*positions(pruned), "o", color=GREY, markersize=5, markerfacecolor="none", zorder=1)
        texts.append("pruned, on fewer folds")
    lines += axes.plot(*positions(result.front), color=INK, linewidth=1, linestyle=":", drawstyle="steps-post")
    lines += axes.plot(*positions([result.chosen]), "o", color=RUST, markersize=10, markerfacecolor="none", markeredgewidth=1.8)
    (x,), (y,) = positions([result.chosen])
    axes.margins(0.09)
    side, dx = ("left", 10) if x < sum(axes.get_xlim()) / 2 else ("right", -10)
    axes.annotate(f"trial {result.chosen.number}", (x, y), (dx, 0), textcoords="offset points", color=RUST, ha=side, va="center")
    axes.set(
        xlabel="strongest attacker above chance, points  (lower is better)",
        ylabel="dev UAR, %  (higher is better)",
    )
    add_legend(axes, lines, [*texts, "Pareto front", "chosen"], columns=2)


def positions(trials: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
    """Return leak and dev UAR of trials, percent."""
    return [100 * trial.last.excess for trial in trials], [100 * trial.last.dev_uar for trial in trials]
