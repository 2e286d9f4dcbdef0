"""Baselines without a network: support vector machines on utterance-level features, on the folds of a recipe.

A classifier is fitted on every speaker that a fold does not test, dev speakers and held-out utterances included. Nothing is
selected: the hyperparameters in CLASSIFIERS were fixed beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from speaker_invariant_ser import metrics
from speaker_invariant_ser.audit.audit import AuditSettings, audit, today
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.words.verdict import emotion_verdict, speaker_verdict, unaudited_verdict
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.holdout import independent_units
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits, require_test_speakers
from speaker_invariant_ser.errors import AuditError, SetupError, quoted
from speaker_invariant_ser.evaluation.domains import domains_of, headline
from speaker_invariant_ser.evaluation.emotion import chance_uar, mean_speaker_uar, per_speaker, uar_with_interval
from speaker_invariant_ser.evaluation.predictions import Predictions, join
from speaker_invariant_ser.evaluation.summary import TableReport, UnauditedTableReport
from speaker_invariant_ser.evaluation.summary_parts import Baseline, BaselineClassifier, WorstSpeaker
from speaker_invariant_ser.features.functionals import compute_features
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.processes import TaskProgress, versions_of
from speaker_invariant_ser.recipe import Recipe, SplitSection
from speaker_invariant_ser.runs import split_hash

LINEAR_C, RBF_C = 0.01, 3.0
MAX_LOSO_SPEAKERS = 50  # with more, the default is ten groups of speakers
GROUPS = 10
MAX_UNTRACKED_HOURS = 2.0  # of audio without stored F0, for which `siser evaluate` still computes it: about two minutes

Kind = Literal["linear", "rbf"]


@dataclass(frozen=True)
class Classifier:
    """A classifier with its hyperparameters in words; `make` returns a new one behind a scaler."""

    settings: str
    make: Callable[[], Pipeline]


def linear_svm() -> Pipeline:
    """Return a scaler and a linear SVM."""
    return make_pipeline(StandardScaler(), LinearSVC(C=LINEAR_C, class_weight="balanced", max_iter=10_000, random_state=0))


def rbf_svm() -> Pipeline:
    """Return a scaler and an SVM with a Gaussian kernel."""
    return make_pipeline(StandardScaler(), SVC(C=RBF_C, kernel="rbf", gamma="scale", class_weight="balanced"))


CLASSIFIERS: dict[Kind, Classifier] = {
    "linear": Classifier(f"linear SVM, C = {LINEAR_C:g}, classes balanced", linear_svm),
    "rbf": Classifier(f"RBF SVM, C = {RBF_C:g}, gamma = 1 / (D variance), classes balanced", rbf_svm),
}
HEADLINES: dict[str, Kind] = {"prosody": "rbf"}  # by features; linear for the others, which have hundreds of dimensions


class UnauditedBaselineError(AuditError):
    """Features cannot be audited, but their emotion results are known.

    Attributes:
        report: The emotion results, and why there is no audit.
    """

    def __init__(self, report: UnauditedTableReport) -> None:
        """Keep the results beside the reason why there is no audit."""
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        """Return the reason why there is no audit."""
        return self.report.unaudited


def default_split(utterances: Sequence[Utterance]) -> SplitSection:
    """Return the split without a recipe: leave one speaker out, or ten groups of speakers where there are more than 50."""
    if len({utterance.speaker for utterance in utterances}) > MAX_LOSO_SPEAKERS:
        return SplitSection(scheme="group-kfold", folds=GROUPS, dev_speakers=1)
    return SplitSection(scheme="loso", dev_speakers=1)  # dev speakers are trained on as well


def measure_baseline(
    prepared: PreparedCorpus, recipe: Recipe, features: str, settings: AuditSettings, progress: TaskProgress | None = None
) -> TableReport:
    """Measure emotion and speaker information of features that need no network.

    Args:
        prepared: The prepared corpus, before a label map.
        recipe: Its sections [split] and [labels] are used.
        features: A key of `functionals.FEATURE_SETS`.
        settings: Settings of the audit.
        progress: Called with the step's name, the units done and the total.

    Returns:
        A report of the features, like that of `siser audit`, with the part `baseline`.

    Raises:
        SplitError: The speakers do not allow the split.
        SetupError: A package that the features need is not installed.
        UnauditedBaselineError: There are too few utterances to attack; it has the results on emotion.
    """
    progress = progress or (lambda name, done, total: None)
    prepared.require_audio()
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    splits = make_splits(recipe.split, prepared.utterances)
    require_test_speakers(splits, "baseline")
    labelled = [index for index, utterance in enumerate(prepared.utterances) if utterance.emotion]
    values = compute_features(features, prepared, labelled, lambda done, total: progress("computing features", done, total))
    table = feature_table(values, [prepared.utterances[index] for index in labelled])
    rows = {index: row for row, index in enumerate(labelled)}
    baseline = score_classifiers(features, values, rows, prepared.utterances, splits, recipe.split, progress)
    first = baseline.first
    assert first
    emotion = {"uar": first.uar.to_json(), "per_speaker": first.per_speaker, "chance": baseline.chance}
    verdict = f"{first.settings}, no network. {emotion_verdict(emotion)}"
    parts = {
        "run": f"{'-'.join(prepared.settings['corpora'])}-{features}",
        "note": prepared.settings.get("note", ""),
        "emotion": None,
        "against": None,
        "settings": describe(prepared, recipe, splits, baseline, settings),
        "baseline": baseline,
    }
    try:
        speaker = audit([table], settings=settings, progress=progress).summary
    except AuditError as error:
        unaudited = {"verdict": [verdict, unaudited_verdict(error)], "unaudited": str(error), "speaker": None}
        raise UnauditedBaselineError(UnauditedTableReport.model_validate(parts | unaudited)) from None
    audited = {"at_chance": speaker["at_chance"], "verdict": [verdict, speaker_verdict(speaker)], "speaker": speaker}
    return TableReport.model_validate(parts | audited)


def describe(
    prepared: PreparedCorpus, recipe: Recipe, splits: Sequence[Split], baseline: Baseline, settings: AuditSettings
) -> dict:
    """Describe all that is needed to repeat a baseline, in the form of `TableSettings`."""
    return {
        "table": {
            "features": baseline.features,
            "dimensions": baseline.dimensions,
            "clips": baseline.utterances,
            "data_sha256": prepared.settings["sha256"],
            "labels": prepared.mapped.table(),
            "split": recipe.split.model_dump(mode="json"),
            "folds": {split.name: split_hash(split, prepared) for split in splits},
        },
        "audit": settings.described,
        "date": today(),
        "versions": versions_of("scikit-learn", "numpy"),
    }


def baseline_of_run(
    prepared: PreparedCorpus,
    recipe: Recipe,
    splits: Sequence[Split],
    progress: TaskProgress | None = None,
    features: str = "prosody",
) -> tuple[Baseline, dict[str, np.ndarray]]:
    """Measure the baseline that is shown beside a run.

    Args:
        prepared: The run's corpus, after its label map.
        recipe: The run's recipe.
        splits: The run's folds.
        progress: Called with the step's name, the units done and the total.
        features: A key of `functionals.FEATURE_SETS`.

    Returns:
        The baseline without its part `speaker`, and the features of every utterance by id; no features where they cannot be
        computed, for a reason that the baseline states.
    """
    progress = progress or (lambda name, done, total: None)
    if recipe.features.front != "log-mel":
        return unavailable(features, f"it needs audio, and features.front = {recipe.features.front}"), {}
    used = sorted({index for split in splits for index in indices_of(split, prepared.utterances)})
    hours = sum(prepared.utterances[index].samples for index in used) / SAMPLE_RATE / 3600
    if not prepared.f0_start and hours > MAX_UNTRACKED_HOURS:
        return unavailable(
            features, f"the corpus holds no F0 of its {hours:.1f} hours: siser add-f0 {quoted(prepared.folder)}"
        ), {}
    try:
        values = compute_features(features, prepared, used, lambda done, total: progress("computing prosody", done, total))
    except SetupError as error:
        return unavailable(features, str(error)), {}
    rows = {index: row for row, index in enumerate(used)}
    baseline = score_classifiers(features, values, rows, prepared.utterances, splits, recipe.split, progress)
    return baseline, {prepared.utterances[index].id: values[row] for index, row in rows.items()}


def unavailable(features: str, reason: str) -> Baseline:
    """Return a baseline without results, and why there are none."""
    empty = dict.fromkeys(("dimensions", "headline", "chance", "utterances", "speaker"))
    return Baseline.model_validate({"features": features, "classifiers": {}, "unavailable": reason, **empty})


def indices_of(split: Split, utterances: Sequence[Utterance]) -> list[int]:
    """Return the indices of the utterances that a fold trains or tests a baseline on."""
    return [*training_indices(split, utterances), *split.indices("test", utterances)]


def training_indices(split: Split, utterances: Sequence[Utterance]) -> list[int]:
    """Return the indices of the utterances that a baseline is trained on: training, held-out and dev utterances."""
    return [index for part in ("train", "held_out", "dev") for index in split.indices(part, utterances)]


def feature_table(values: np.ndarray, utterances: Sequence[Utterance]) -> Embeddings:
    """Return features [N, D] as a table that can be audited; every utterance is scored, since no encoder was trained."""
    return Embeddings(
        embedding=values,
        id=np.array([utterance.id for utterance in utterances]),
        speaker=np.array([utterance.speaker for utterance in utterances]),
        emotion=np.array([utterance.emotion for utterance in utterances]),
        text=np.array([utterance.text for utterance in utterances]),
        scored=np.ones(len(values), dtype=bool),
        group=independent_units(utterances),
    )


def score_classifiers(
    features: str,
    values: np.ndarray,
    rows: dict[int, int],
    utterances: Sequence[Utterance],
    splits: Sequence[Split],
    split_section: SplitSection,
    progress: TaskProgress,
) -> Baseline:
    """Fit and score every classifier on every fold.

    Args:
        features: Name of the features.
        values: Features of N utterances [N, D].
        rows: Row of `values` by position in `utterances`.
        utterances: All utterances of the labelled corpus.
        splits: The folds.
        split_section: Which domain the headline is on.
        progress: Called after each fold.

    Returns:
        The baseline, without a part `speaker`.
    """
    results, predictions = {}, None
    for kind, classifier in CLASSIFIERS.items():
        parts = []
        for done, split in enumerate(splits, start=1):
            parts.append(predict_fold(classifier, values, rows, utterances, split))
            progress(f"fitting {kind} SVM", done, len(splits))
        predictions = join(parts)
        tested = [utterances[index] for split in splits for index in split.indices("test", utterances)]
        predictions = predictions.rows(headline(domains_of(split_section, tested)))
        results[kind] = classifier_results(classifier, predictions)
    assert predictions
    return Baseline(
        features=features,
        dimensions=values.shape[1],
        headline=HEADLINES.get(features, "linear"),
        chance=chance_uar(predictions),
        utterances=predictions.utterances,
        classifiers=dict(results),
        speaker=None,
        unavailable=None,
    )


def predict_fold(
    classifier: Classifier, values: np.ndarray, rows: dict[int, int], utterances: Sequence[Utterance], split: Split
) -> Predictions:
    """Fit a classifier on all but the test speakers of a fold, and predict the emotions of those.

    Returns:
        Predictions, with probability 1 for the predicted emotion: the margins of an SVM are no probabilities.
    """
    train, test = training_indices(split, utterances), split.indices("test", utterances)
    labels = tuple(sorted({utterance.emotion for utterance in utterances} - {""}))
    truth = {index: labels.index(utterances[index].emotion) for index in (*train, *test)}
    fitted = classifier.make().fit(values[[rows[index] for index in train]], [truth[index] for index in train])
    predicted = fitted.predict(values[[rows[index] for index in test]])
    tested = [utterances[index] for index in test]
    return Predictions(
        labels=labels,
        id=np.array([utterance.id for utterance in tested]),
        speaker=np.array([utterance.speaker for utterance in tested]),
        fold=np.full(len(test), split.name),
        seed=np.zeros(len(test), dtype=np.int64),
        truth=to_indices([utterance.emotion for utterance in tested], labels),
        probability=np.eye(len(labels), dtype=np.float32)[predicted],
    )


def classifier_results(classifier: Classifier, predictions: Predictions) -> BaselineClassifier:
    """Return one classifier's emotion results."""
    speakers = per_speaker(predictions)
    worst = min(speakers, key=lambda speaker: speakers[speaker].uar)
    return BaselineClassifier(
        settings=classifier.settings,
        uar=uar_with_interval(predictions),
        uar_mean_over_speakers=mean_speaker_uar(speakers),
        accuracy=metrics.accuracy(predictions.truth, predictions.predicted),
        per_speaker=speakers,
        worst_speaker=WorstSpeaker(speaker=worst, **speakers[worst].to_json()),
    )
