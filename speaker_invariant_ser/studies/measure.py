"""Measure one cell of a study: train and evaluate a network, or measure a baseline, and write the result file."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from speaker_invariant_ser.audit.audit import AuditSettings
from speaker_invariant_ser.data.f0.stored import F0
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import RunError, StudyError, shorten
from speaker_invariant_ser.evaluation.baseline import UnauditedBaselineError, measure_baseline
from speaker_invariant_ser.evaluation.evaluate import UnauditedError, evaluate
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS
from speaker_invariant_ser.evaluation.summary import REPORT, REPORT_FILES, AnyRunReport, UnauditedReport
from speaker_invariant_ser.evaluation.summary_parts import Baseline, Emotion, Speaker, Uar
from speaker_invariant_ser.files import partial_of, remove_known, require_no_links
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.processes import cores, memory_errors, versions_of
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.report.write import write_run_report, write_unaudited_report
from speaker_invariant_ser.runs import FOLDS, RECIPE, SPLIT, Run, flattened, rows_so_far
from speaker_invariant_ser.studies.machine import describe_machine
from speaker_invariant_ser.studies.results import Numbers, Result, recorded_recipe, table_sha256, write_result
from speaker_invariant_ser.studies.study import Cell
from speaker_invariant_ser.training.launcher import train, with_checkpoint
from speaker_invariant_ser.training.tensorboard import EVENTS


@dataclass(frozen=True)
class Job:
    """One measurement with all that it needs; it is sent to another process.

    Args:
        cell: What is measured.
        data: Folder of the prepared corpus.
        run: Folder of the run; what an earlier start has left there is continued.
        result: The result file.
        command: What repeats the measurement.
        quick: Try closed-form attackers only.
        device: auto, cpu or cuda.
        jobs: Models trained, and then attackers fitted, in parallel.
        keep_run: Keep the run, with a report, when the result is written.
        telephone: Score test utterances as a telephone transmits them, too.
        discard_run: Remove what an earlier start has left if it is of another recipe or of other data.
    """

    cell: Cell
    data: Path
    run: Path
    result: Path
    command: str
    quick: bool = True
    device: str = "auto"
    jobs: int = 1
    keep_run: bool = True
    telephone: bool = False
    discard_run: bool = False


def measure(job: Job) -> None:
    """Measure a cell and write its result file.

    Raises:
        SerError: The recipe does not fit the corpus, a folder cannot be written ...
        MemoryError: Memory ran out, whatever a library says.
    """
    prepared = PreparedCorpus.open(job.data)
    recipe = job.cell.arm.resolved(job.cell.seed, prepared)
    assert recipe
    measure_arm = measure_network if job.cell.arm.recipe else measure_svm
    with memory_errors():
        numbers, versions = measure_arm(job, recipe, prepared)
    recorded = recorded_recipe(recipe, baseline=job.cell.arm.recipe is None)
    result = {
        "command": job.command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": describe_machine(),
        "versions": versions,
        "recipe": recorded,
        "recipe_sha256": table_sha256(recorded),
        "data_sha256": prepared.settings["sha256"],
        "corpus": job.cell.corpus,
        "arm": job.cell.arm.name,
        "seed": job.cell.seed,
        "numbers": numbers.to_json(),
    }
    write_result(job.result, Result.model_validate(result))
    if not job.keep_run:
        remove_run(job.run)


def measure_network(job: Job, recipe: Recipe, prepared: PreparedCorpus) -> tuple[Numbers, dict[str, str]]:
    """Train all folds, as far as they are not trained yet, and evaluate them; return the numbers and the packages' versions."""
    if why := why_other_run(job.run, recipe, prepared):
        if not job.discard_run:
            raise StudyError(f"{job.run} was started {why}; --refresh removes it, or choose another --runs")
        remove_run(job.run)
    run = train(recipe, prepared, job.run, resume=True, device=job.device, jobs=job.jobs)
    report = evaluate_run(job, run)
    numbers = {
        "emotion": emotion_numbers(report.emotion),
        "speaker": speaker_numbers(report.speaker, job.quick) if report.speaker else None,
        "training": training_numbers(run, report, job.jobs),
        "baseline": None,
        "unaudited": report.unaudited if isinstance(report, UnauditedReport) else "",
    }
    return Numbers.model_validate(numbers), report.settings.versions


def evaluate_run(job: Job, run: Run) -> AnyRunReport:
    """Evaluate a run, and write its report if it is kept."""
    data, telephone = run.open_data(job.data), job.telephone
    try:
        evaluation = evaluate(run, data, job.device, quick=job.quick, jobs=job.jobs, with_baseline=False, telephone=telephone)
    except UnauditedError as error:
        if job.keep_run:
            write_unaudited_report(error.report, error.curves, run.folder)
        return error.report
    if job.keep_run:
        write_run_report(evaluation, run.folder)
    return evaluation.report


def remove_run(folder: Path) -> None:
    """Remove a run; other files in its folder, or in that of its report, stay."""
    require_no_links([folder / REPORT])
    remove_known(folder / REPORT, REPORT_FILES)
    remove_known(folder, (FOLDS, PREDICTIONS, EVENTS, RECIPE, SPLIT))  # models first: what is left of an interruption is a run


def why_other_run(folder: Path, recipe: Recipe, prepared: PreparedCorpus) -> str:
    """Say with what else a run was started than these; empty if with these, or if there is no run."""
    if not (folder / SPLIT).is_file():
        return ""
    run = Run.open(folder)
    old, new = flattened(run.recipe), flattened(with_checkpoint(recipe, run.recipe.encoder))
    if changed := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
        return f"with another recipe ({shorten(changed, 3)})"
    expected = run.hashes | {name: run.record[name] for name in (F0,) if name in run.record}
    return "" if all(prepared.settings["sha256"].get(name) == value for name, value in expected.items()) else "on other data"


def emotion_numbers(emotion: Emotion) -> dict[str, Any]:
    """Return the emotion results that are kept of a run's report."""
    kept = ("accuracy", "worst_speaker", "chance", "utterances", "per_speaker")
    numbers = {"uar": uar_numbers(emotion.uar), "uar_mean_over_speakers": emotion.mean_over_speakers}
    heard = {"by_telephone": uar_numbers(emotion.by_telephone)} if emotion.by_telephone else {}
    return numbers | {key: getattr(emotion, key) for key in kept} | heard


def uar_numbers(uar: Uar) -> dict[str, float | None]:
    """Return a UAR with its interval."""
    return {key: getattr(uar, key) for key in ("value", "low", "high")}


def speaker_numbers(speaker: Speaker, quick: bool) -> dict[str, Any]:
    """Return the speaker results that are kept of a report."""
    kept = ("name", "accuracy", "low", "high", "balanced_accuracy")
    return {
        "strongest": {key: getattr(speaker.strongest, key) for key in kept},
        "chance": speaker.chance.given_emotion,
        "speakers": speaker.speakers,
        "quick": quick,
        "scored": speaker.scored,
        "controls": speaker.controls,
    }


def training_numbers(run: Run, report: AnyRunReport, jobs: int) -> dict[str, Any]:
    """Return what is kept of the training of a run."""
    rows = [row for spec in run.model_specs for row in rows_so_far(spec.folder)]
    folds = report.emotion.folds
    timed = all("seconds_cpu" in row for row in rows)  # not in a run that an earlier version began
    jobs = min(jobs, len(run.model_specs))
    return {
        "parameters": sum(weights.numel() for weights in load_model(run.model_specs[0].folder).parameters()),
        "epoch": {name: fold.epoch for name, fold in folds.items()},
        "dev_uar": {name: fold.dev_uar for name, fold in folds.items() if fold.dev_uar is not None},
        "seconds": sum(row["seconds"] for row in rows),
        "cpu_seconds": sum(row["seconds_cpu"] for row in rows) if timed else None,
        "jobs": jobs,
        "threads": torch.get_num_threads() if jobs == 1 else max(1, cores() // jobs),
        "trained": report.settings.trained,
    }


def measure_svm(job: Job, recipe: Recipe, prepared: PreparedCorpus) -> tuple[Numbers, dict[str, str]]:
    """Measure a baseline; return the numbers and the packages' versions."""
    settings = AuditSettings(recipe.audit.folds, recipe.audit.seed, quick=job.quick, jobs=job.jobs)
    speaker, reason = None, ""
    try:
        report = measure_baseline(prepared, recipe, job.cell.arm.baseline, settings)
        baseline, speaker = report.baseline, speaker_numbers(report.speaker, job.quick)
    except UnauditedBaselineError as error:
        baseline, reason = error.report.baseline, str(error)
    assert baseline
    numbers = {
        "emotion": emotion_of_baseline(baseline),
        "speaker": speaker,
        "training": None,
        "baseline": baseline_numbers(baseline),
        "unaudited": reason,
    }
    return Numbers.model_validate(numbers), versions_of("scikit-learn", "numpy")


def baseline_numbers(baseline: Baseline) -> dict[str, Any]:
    """Return what is kept of a baseline, its classifiers without the results by speaker."""
    results = {kind: results.to_json() for kind, results in baseline.classifiers.items()}
    classifiers = {kind: {key: value for key, value in kept.items() if key != "per_speaker"} for kind, kept in results.items()}
    return {**{key: getattr(baseline, key) for key in ("features", "dimensions", "headline")}, "classifiers": classifiers}


def emotion_of_baseline(baseline: Baseline) -> dict[str, Any]:
    """Return the emotion results of the classifier that stands first."""
    first = baseline.first
    assert first
    return {**first.to_json(), "chance": baseline.chance, "utterances": baseline.utterances}


def epochs_of(run: Path) -> tuple[int, int]:
    """Return how many epochs a run has finished so far, and how many it may have; zeros where there is no run yet."""
    try:
        opened = Run.open(run)
    except RunError:
        return 0, 0
    finished = 0
    for spec in opened.model_specs:
        for folder in (partial_of(spec.folder), spec.folder):
            with suppress(OSError):  # a model's folder gets its final name at any moment
                finished += len(rows_so_far(folder))
    settings = opened.recipe.train
    return finished, (settings.inner_epochs + settings.epochs) * len(opened.model_specs)
