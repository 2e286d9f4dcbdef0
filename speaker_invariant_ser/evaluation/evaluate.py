"""Evaluate a run: emotion on unseen speakers, and an audit of what is left of the training speakers in the embeddings.

The steps: apply every model (`model_outputs`), compare with another run, audit the embeddings, assemble the report.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speaker_invariant_ser.audit.audit import Audit, AuditSettings, audit, today
from speaker_invariant_ser.audit.controls import describe_threat_model, posteriors_bypass_release
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification.judge import Judge, read_judge
from speaker_invariant_ser.audit.words.verdict import emotion_verdict, unaudited_verdict, verdict
from speaker_invariant_ser.data.copies import known_by_copies
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import require_test_speakers
from speaker_invariant_ser.errors import AuditError, RunError
from speaker_invariant_ser.evaluation.baseline import baseline_of_run
from speaker_invariant_ser.evaluation.certificates import certify_run
from speaker_invariant_ser.evaluation.claims.conclusion import concluded
from speaker_invariant_ser.evaluation.claims.report import report_of
from speaker_invariant_ser.evaluation.comparison import compare, predictions_of
from speaker_invariant_ser.evaluation.domains import domain_differences, domain_results, domains_of, headline
from speaker_invariant_ser.evaluation.emotion import by_group, emotion_results, group_columns, over_seeds, uar_over_seeds
from speaker_invariant_ser.evaluation.model_outputs import (
    ModelOutputs,
    apply_models,
    attacked_parts,
    has_inner_temperature,
    learned_from,
    predict_by_telephone,
    require_held_out,
    scored_on,
)
from speaker_invariant_ser.evaluation.predicted_emotion import attack_predictions
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, Predictions, write_predictions
from speaker_invariant_ser.evaluation.summary import (
    QUICK_REPORT,
    REPORT,
    Against,
    AnyRunReport,
    RunReport,
    RunSettings,
    UnauditedReport,
    require_report_folder,
)
from speaker_invariant_ser.evaluation.summary_parts import (
    AdversaryClassifier,
    Baseline,
    Emotion,
    Outputs,
    Refit,
    SelectedEpoch,
    Speaker,
)
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.files import held, require_no_links
from speaker_invariant_ser.processes import TaskProgress, versions_of
from speaker_invariant_ser.runs import ModelSpec, Run, best_epoch, split_hash

# Columns of metrics.csv that are averaged over the models for report.json.
CURVE_COLUMNS = "adversary_loss", "adversary_loss_uninformed", "adversary_accuracy", "adversary_gradient", "emotion_gradient"
Curves = Mapping[str, list[dict[str, float]]]  # name of a model -> rows of its metrics.csv


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a run.

    Attributes:
        report: The content of report.json.
        predictions: Predictions that the headline numbers are computed from.
        curves: Rows of metrics.csv by the name of the model.
        table: Embeddings of the first model, for an embedding map.
    """

    report: RunReport
    predictions: Predictions
    curves: Curves
    table: Embeddings


class UnauditedError(AuditError):
    """A run cannot be audited, but its emotion results are known.

    Attributes:
        report: Emotion results on the test speakers, and the reason.
        curves: Rows of metrics.csv by the name of the model.
    """

    def __init__(self, report: UnauditedReport, curves: Curves) -> None:
        """Keep the results beside the reason why there is no audit."""
        super().__init__(report, curves)  # both, so that the error can be pickled
        self.report, self.curves = report, curves

    def __str__(self) -> str:
        """Return the reason."""
        return self.report.unaudited

    @property
    def emotion(self) -> Emotion:
        """Emotion results on the test speakers."""
        return self.report.emotion


def evaluate(
    run: Run,
    prepared: PreparedCorpus,
    device: str = "auto",
    progress: TaskProgress | None = None,
    by: Sequence[str] = (),
    against: Run | None = None,
    quick: bool = False,
    jobs: int = 1,
    with_baseline: bool = True,
    telephone: bool = False,
    judge: Path | None = None,
) -> Evaluation:
    """Evaluate emotion on the test speakers and audit the embeddings of all models; write predictions.csv into the run.

    Args:
        run: A run whose models are all trained.
        prepared: The corpus it was trained on.
        device: auto, cpu or cuda.
        progress: Called with task, steps done and steps in total.
        by: Manifest columns to break results down by, in addition to those of `group_columns`.
        against: Another run, evaluated already, that was tested on the same utterances.
        quick: Use the closed-form attackers only.
        jobs: Attackers fitted in parallel.
        with_baseline: Measure what the 22 prosody functionals reach on the same folds without a network.
        telephone: Also score the test utterances as a telephone transmits them.
        judge: Table of embeddings of the same utterances by another encoder, joined by id: what the recordings themselves reveal.

    Raises:
        AuditError: The judge's table cannot be read, or lacks an utterance.
        RunError: A fold is missing or damaged, a column is unknown, or the two runs do not match or are one.
        UnauditedError: The speakers have too few utterances for an audit; it has the results on emotion.
        WriteError: Another process is evaluating the run, its report's folder is a link, or it cannot be written.
    """
    progress = progress or (lambda *_: None)
    if against and against.folder.samefile(run.folder):
        raise RunError(f"{against.folder} is the run that is evaluated: expected another one to compare with")
    require_no_links(run.folder / name for name in (REPORT, QUICK_REPORT))
    for name in (REPORT, QUICK_REPORT):
        require_report_folder(run.folder / name)
    with held(run.folder / PREDICTIONS):
        return evaluate_alone(run, prepared, device, progress, by, against, quick, jobs, with_baseline, telephone, judge)


def evaluate_alone(
    run: Run,
    prepared: PreparedCorpus,
    device: str,
    progress: TaskProgress,
    by: Sequence[str],
    against: Run | None,
    quick: bool,
    jobs: int,
    with_baseline: bool,
    telephone: bool,
    judge: Path | None,
) -> Evaluation:
    """Do what `evaluate` does, while no other process evaluates the run."""
    model_specs = run.all_models()
    require_test_speakers(run.splits, str(run.folder))
    prepared = prepared.labelled(run.recipe.labels.map, run.recipe.split)
    tested = [prepared.utterances[index] for spec in model_specs for index in spec.split.indices("test", prepared.utterances)]
    domains = domains_of(run.recipe.split, tested)
    columns = group_columns(list(compress(tested, headline(domains))), by)
    require_held_out(run, prepared)
    other = (against, predictions_of(against, tested), report_of(against)) if against else None

    judged = judge_of(judge, run, prepared) if judge else None
    heard = predict_by_telephone(run, prepared, device, progress).rows(headline(domains)) if telephone else None
    outputs = apply_models(run, prepared, device, quick, progress)
    paired = compare_with(*other, outputs.predictions, domains) if other else None
    write_predictions(run.folder / PREDICTIONS, outputs.predictions)
    baseline, features = baseline_of_run(prepared, run.recipe, run.splits, progress) if with_baseline else (None, {})
    controls = dict(outputs.controls)
    if baseline and features:
        controls[baseline.features] = [np.array([features[name] for name in table.id]) for table in outputs.tables]
    settings = AuditSettings(run.recipe.audit.folds, run.recipe.audit.seed, quick=quick, jobs=jobs)
    predictions = outputs.predictions.rows(headline(domains))
    curves = {spec.name: spec.metrics() for spec in model_specs}
    folds = {spec.name: selected_epoch(spec, curves[spec.name]) for spec in model_specs}
    groups, results = by_group(predictions, columns), domain_results(run.recipe.split, outputs.predictions, domains)
    parts: dict[str, Any] = {"groups": groups, "domains": results, "folds": folds, "near_copies": copies_share(run, prepared)}
    parts["known_by_copies"] = speakers_known(run, prepared, set(predictions.speaker))
    if heard:
        parts["by_telephone"] = uar_over_seeds(heard)
    parts |= refit_results(run, folds, predictions)
    emotion = emotion_results(predictions, prepared.utterances).model_copy(update=parts)
    described, note = describe(run, prepared, settings, judged), prepared.settings.get("note", "")
    try:
        audited = audit(outputs.tables, scored_on(run.splits), controls, outputs.unseen, settings, progress, judged)
    except AuditError as error:
        raise UnauditedError(unaudited_report(run, note, emotion, paired, described, baseline, str(error)), curves) from None
    audited = replace(audited, certificate=certify_run(run, outputs))
    speaker = speaker_results(run, audited, outputs, paired, mean_adversary_classifier(run, folds, curves))
    progress("attacking predicted emotions", 0, 1)
    predicted = attack_predictions(predictions, prepared.utterances, settings)
    progress("attacking predicted emotions", 1, 1)
    speaker = speaker.model_copy(update={"predicted_emotion": predicted})
    if baseline and features:
        baseline = baseline.model_copy(update={"speaker": speaker.controls[baseline.features]})
    report = assemble(run, note, emotion, speaker, paired, described, baseline)
    return Evaluation(report, predictions, curves, outputs.tables[0])


def judge_of(path: Path, run: Run, prepared: PreparedCorpus) -> Judge:
    """Read the table of a judge, and check before anything is computed that it has every utterance that is audited."""
    judge, parts = read_judge(path), (*attacked_parts(run.recipe), "dev", "test")
    rows = {index for split in run.splits for part in parts for index in split.indices(part, prepared.utterances)}
    judge.require([prepared.utterances[index].id for index in sorted(rows)])
    return judge


def copies_share(run: Run, prepared: PreparedCorpus) -> float:
    """Return the share of test utterances, over all folds, that share audio with an utterance the model learned from."""
    shared = []
    for split in run.splits:
        parts = ("train", "dev", *(("unlabelled",) if split.unlabelled else ()))
        learned = {prepared.utterances[i].copies for part in parts for i in split.indices(part, prepared.utterances)} - {""}
        shared += [prepared.utterances[i].copies in learned for i in split.indices("test", prepared.utterances)]
    return float(np.mean(shared))


def speakers_known(run: Run, prepared: PreparedCorpus, tested: set[str]) -> int:
    """Return how many tested speakers have a copy of a recording that a speaker has whom the same fold learns from."""
    folds = ((split, {*split.train, *split.dev, *split.unlabelled}) for split in run.splits)
    return len({name for split, learned in folds for name in known_by_copies(prepared.utterances, learned, split.test)} & tested)


def compare_with(
    other: Run, others: Predictions, other_report: AnyRunReport, predictions: Predictions, domains: np.ndarray
) -> Against:
    """Compare with another run, whose predictions and report are given, on the same test utterances."""
    these = predictions.rows(headline(domains))
    same = others.rows(np.isin(others.id, these.id))
    speaker = other_report.speaker.to_json() if other_report.speaker else {}
    return Against.model_validate(
        {
            "run": other.folder.resolve().name,
            "strength": max(adversary.strength for adversary in other.recipe.adversaries),
            "transductive": other.recipe.features.transductive,
            **compare(these, same).summary,
            "domains": domain_differences(predictions, others, domains),
            "emotion": {"uar": uar_over_seeds(same)},
            "speaker": {key: speaker.get(key) for key in ("strongest", "chance", "controls", "learned")} if speaker else None,
            "unaudited": other_report.unaudited if isinstance(other_report, UnauditedReport) else "",
        }
    )


def assemble(
    run: Run,
    note: str,
    emotion: Emotion,
    speaker: Speaker,
    against: Against | None,
    settings: RunSettings,
    baseline: Baseline | None,
) -> RunReport:
    """Put the parts of report.json together, with the verdict on them."""
    parts = {"emotion": emotion.to_json(), "speaker": speaker.to_json(), "settings": settings.to_json()}
    return RunReport(
        run=run.folder.resolve().name,
        note=note,
        at_chance=speaker.at_chance,
        verdict=verdict(parts),
        emotion=emotion,
        speaker=speaker,
        against=against,
        settings=settings,
        baseline=baseline,
    )


def unaudited_report(
    run: Run,
    note: str,
    emotion: Emotion,
    against: Against | None,
    settings: RunSettings,
    baseline: Baseline | None,
    reason: str,
) -> UnauditedReport:
    """Put the parts of report.json together for a run that cannot be audited."""
    return UnauditedReport(
        run=run.folder.resolve().name,
        note=note,
        verdict=[
            emotion_verdict(emotion.to_json(), settings.transductive),
            unaudited_verdict(reason),
        ],
        unaudited=reason,
        emotion=emotion,
        speaker=None,
        against=against,
        settings=settings,
        baseline=baseline,
    )


def speaker_results(
    run: Run, audited: Audit, outputs: ModelOutputs, against: Against | None, classifier: AdversaryClassifier | None
) -> Speaker:
    """Assemble the speaker part of report.json from the audit and from what is known of the run."""
    has_rate = run.recipe.bottleneck.name != "none"
    parts: dict[str, Any] = audited.summary
    parts["strongest"] = {**parts["strongest"], **over_seeds(strongest_by_seed(run.model_specs, audited))}
    if against and against.strength == 0 and against.speaker and against.speaker.controls:
        parts["controls"]["without_adversary"] = against.speaker.controls["embedding"].to_json()
    parts |= {
        "rate_bits": float(outputs.rates.mean() / np.log(2)) if has_rate else None,
        "learned": learned_from(run.recipe),
        "outputs": None,
        "adversary_head": classifier,
        **({"given": outputs.given} if outputs.given else {}),
    }
    speaker = Speaker.model_validate(parts)
    if posteriors_bypass_release(run.recipe.release):
        both = Outputs(attackers="quick", embedding=speaker.controls["embedding"], posteriors=speaker.controls["posteriors"])
        speaker = speaker.model_copy(update={"outputs": both})
    at_chance, reason = concluded(speaker, audited.quick)  # not the audit's own, which does not know what an eraser was fitted on
    return speaker.model_copy(update={"at_chance": at_chance, "reason": reason})


def strongest_by_seed(model_specs: Sequence[ModelSpec], audited: Audit) -> dict[int, float]:
    """Return the strongest attacker's accuracy on the models of each seed."""
    models = defaultdict(list)
    for position, spec in enumerate(model_specs):
        models[spec.seed].append(position)
    return {seed: audited.leakage.strongest.accuracy(positions) for seed, positions in models.items()}


def selected_epoch(spec: ModelSpec, rows: list[dict[str, float]]) -> SelectedEpoch:
    """Return what metrics.csv says of the epoch whose weights were kept."""
    row = best_epoch(rows)
    known = {"dev_uar": row.get("dev_uar")} | {name: row[name] for name in ("adversary_accuracy",) if name in row}
    return SelectedEpoch.model_validate({"fold": spec.split.name, "seed": spec.seed, "epoch": int(row["epoch"]), **known})


def refit_results(run: Run, folds: Mapping[str, SelectedEpoch], predictions: Predictions) -> dict[str, Refit]:
    """Return the part `refit` of the emotion results; nothing for a run that has dev speakers."""
    if not run.recipe.train.refit:
        return {}
    epochs = {name: fold.epoch for name, fold in folds.items()}
    source: Literal["inner folds", "other folds", ""] = ""
    if predictions.temperatures:
        source = "inner folds" if has_inner_temperature(run.recipe) else "other folds"
    inner_folds, calibrated = run.recipe.train.inner_folds, bool(source)
    return {"refit": Refit(inner_folds=inner_folds, epochs=epochs, calibrated=calibrated, calibrated_on=source)}


def mean_adversary_classifier(run: Run, folds: Mapping[str, SelectedEpoch], curves: Curves) -> AdversaryClassifier | None:
    """Average the training accuracy of the first adversary's classifier; None for an adversary that has none."""
    accuracies = [fold.adversary_accuracy for fold in folds.values() if fold.adversary_accuracy is not None]
    if len(accuracies) < len(folds):
        return None
    target = run.recipe.adversary.target
    return AdversaryClassifier(accuracy=float(np.mean(accuracies)), target=target, evidence=False, curve=mean_curve(curves))


def mean_curve(curves: Curves) -> dict[str, list[float]]:
    """Average columns of metrics.csv about the adversary, epoch by epoch, over the models that were trained for so long."""
    longest = max(len(rows) for rows in curves.values())
    epochs = [[rows[epoch] for rows in curves.values() if epoch < len(rows)] for epoch in range(longest)]
    names = [name for name in (*CURVE_COLUMNS, "attacker_accuracy") if all(name in row for rows in epochs for row in rows)]
    return {name: [float(np.mean([row[name] for row in rows])) for rows in epochs] for name in names}


def describe(run: Run, prepared: PreparedCorpus, settings: AuditSettings, judge: Judge | None) -> RunSettings:
    """Describe all that is needed to repeat the evaluation."""
    folds = [{**asdict(split), "held_out": len(split.held_out), "sha256": split_hash(split, prepared)} for split in run.splits]
    return RunSettings.model_validate(
        {
            "threat": describe_threat_model(run.recipe),
            "recipe": recipe_without_path(run.recipe),
            "transductive": run.recipe.features.transductive,
            "corpora": prepared.settings["corpora"],
            "labels": prepared.mapped.table(),
            "seeds": list(run.seeds),
            "trained": run.model_specs[0].trained,
            "data_sha256": run.hashes,
            "folds": folds,
            "versions": versions_of("torch", "torchaudio", "scikit-learn", "numpy"),
            "audit": settings.described,
            "date": today(),
            "judge": judge and judge.described,
        }
    )
