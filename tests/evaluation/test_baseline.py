"""Baselines without a network: the folds are those of the recipe, test speakers are never trained on, numbers are right."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY
from sklearn.metrics import balanced_accuracy_score

from speaker_invariant_ser.audit.audit import AuditSettings
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import SetupError
from speaker_invariant_ser.evaluation import baseline as baselines
from speaker_invariant_ser.evaluation.baseline import (
    CLASSIFIERS,
    baseline_of_run,
    default_split,
    measure_baseline,
    predict_fold,
    training_indices,
)
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.recipe import Recipe

QUICK = AuditSettings(folds=2, permutations=20, quick=True)
LOSO = make_recipe({"split": {"scheme": "loso", "dev_speakers": 1}})


@pytest.fixture(scope="module")
def measured(prepared):
    return measure_baseline(prepared, LOSO, "prosody", QUICK)


def utterances(speakers: int) -> list[Utterance]:
    return [
        Utterance(id=f"{n}-{emotion}", corpus="c", speaker=f"{n:03}", emotion=emotion, samples=1)
        for n in range(speakers)
        for emotion in ("a", "b")
    ]


def test_a_glide_is_recognised_and_the_numbers_are_of_one_prediction_per_utterance(measured, prepared):
    """The emotion of the tones is their glide, which one of the numbers measures."""
    baseline = measured.baseline
    assert (baseline.utterances, baseline.dimensions, baseline.headline) == (len(prepared.utterances), 22, "rbf")
    assert baseline.chance == pytest.approx(1 / 3) and baseline.first.uar.value > 0.8
    for classifier in baseline.classifiers.values():
        uars = [result.uar for result in classifier.per_speaker.values()]
        assert set(classifier.per_speaker) == {utterance.speaker for utterance in prepared.utterances}
        assert classifier.worst_speaker.uar == min(uars)
        assert classifier.uar_mean_over_speakers.value == pytest.approx(np.mean(uars))
        assert classifier.uar.low <= classifier.uar.value <= classifier.uar.high


def test_the_features_are_audited_on_all_utterances(measured, prepared):
    speaker = measured.speaker
    assert (speaker.decisions, speaker.speakers, speaker.scored) == (len(prepared.utterances), 6, "given")
    assert {"logistic", "lda", "qda", "knn"} == set(speaker.attackers) and speaker.unseen is not None
    assert len(measured.verdict) == 2 and "no network" in measured.verdict[0]


def test_a_fold_is_fitted_on_every_speaker_but_its_own(prepared):
    (split, *_) = make_splits(LOSO.split, prepared.utterances)
    train = {prepared.utterances[index].speaker for index in training_indices(split, prepared.utterances)}
    assert train == {*split.train, *split.dev} and not train & set(split.test)


def test_labels_of_test_speakers_do_not_reach_the_classifier(prepared):
    """Other labels of the tested utterances change the truth and no prediction."""
    (split, *_) = make_splits(LOSO.split, prepared.utterances)
    values = np.random.default_rng(0).standard_normal((len(prepared.utterances), 3))
    rows = {index: index for index in range(len(values))}
    labels = {"rising": "falling", "falling": "level", "level": "rising"}
    changed = [
        replace(utterance, emotion=labels[utterance.emotion]) if utterance.speaker in split.test else utterance
        for utterance in prepared.utterances
    ]
    before, after = (predict_fold(CLASSIFIERS["rbf"], values, rows, given, split) for given in (prepared.utterances, changed))
    assert np.array_equal(before.predicted, after.predicted) and not np.array_equal(before.truth, after.truth)


def test_predictions_are_those_of_the_classifier_on_scaled_features(prepared):
    (split, *_) = make_splits(LOSO.split, prepared.utterances)
    values = np.random.default_rng(0).standard_normal((len(prepared.utterances), 3)) * [1, 100, 1e4]
    rows = {index: index for index in range(len(values))}
    predictions = predict_fold(CLASSIFIERS["linear"], values, rows, prepared.utterances, split)
    train, test = training_indices(split, prepared.utterances), split.indices("test", prepared.utterances)
    emotion = np.array([utterance.emotion for utterance in prepared.utterances])
    fitted = CLASSIFIERS["linear"].make().fit(values[train], emotion[train])
    assert np.array_equal(np.array(predictions.labels)[predictions.predicted], fitted.predict(values[test]))


@pytest.mark.parametrize(("speakers", "scheme"), [(4, "loso"), (50, "loso"), (51, "group-kfold")])
def test_without_a_recipe_one_speaker_is_left_out_or_ten_groups_of_many(speakers, scheme):
    split = default_split(utterances(speakers))
    assert split.scheme == scheme
    assert len(make_splits(split, utterances(speakers))) == (speakers if scheme == "loso" else 10)


def test_the_folds_of_a_recipe_are_used(prepared):
    report = measure_baseline(prepared, make_recipe(TINY), "functionals", QUICK)
    assert set(report.baseline.first.per_speaker) == {"05", "06"} and report.baseline.utterances == 24
    assert report.baseline.headline == "linear" and report.baseline.dimensions == 600
    assert list(report.settings.table["folds"]) == ["fixed"]


# ---- beside a run


@pytest.fixture(scope="module")
def evaluated(trained, prepared):
    return evaluate(trained, prepared, "cpu", quick=True)


def test_a_run_is_shown_beside_what_prosody_reaches_on_its_folds(evaluated, prepared, trained):
    baseline = evaluated.report.baseline
    assert set(baseline.first.per_speaker) == set(evaluated.report.emotion.per_speaker) == {"05", "06"}
    assert baseline.utterances == evaluated.report.emotion.utterances and baseline.chance == evaluated.report.emotion.chance
    alone, features = baseline_of_run(prepared.labelled("auto"), trained.recipe, trained.splits)
    assert alone.first == baseline.first and len(features) == len(prepared.utterances)


def test_the_attackers_of_the_baseline_see_the_utterances_of_the_embedding(evaluated):
    report = evaluated.report
    assert report.baseline.speaker == report.speaker.controls["prosody"]
    assert set(report.speaker.controls) == {"embedding", "prosody", "emotion", "shuffled"}


def test_the_baseline_can_be_left_out_and_changes_no_other_number(evaluated, trained, prepared):
    without = evaluate(trained, prepared, "cpu", quick=True, with_baseline=False).report.to_json()
    with_it = evaluated.report.to_json()
    assert without.pop("baseline") is None and with_it.pop("baseline")["classifiers"]
    del with_it["speaker"]["controls"]["prosody"]
    assert json.dumps(without) == json.dumps(with_it)


def test_without_a_package_the_run_is_evaluated_and_the_reason_given(trained, prepared, monkeypatch):
    def fail(*arguments):
        raise SetupError("torchaudio does not fit torch")

    monkeypatch.setattr(baselines, "compute_features", fail)
    report = evaluate(trained, prepared, "cpu", quick=True).report
    assert report.baseline.unavailable == "torchaudio does not fit torch"
    assert report.baseline.first is None and report.baseline.speaker is None and "prosody" not in report.speaker.controls
    assert report.emotion.uar.value > 0


def test_images_have_no_prosody(prepared, trained):
    recipe = Recipe.model_validate(
        {
            "features": {"front": "pixels"},
            "augment": dict.fromkeys(("tempo", "warp", "equaliser_db", "frequency_masks", "time_masks"), 0),
        }
    )
    baseline, features = baseline_of_run(prepared, recipe, trained.splits)
    assert baseline.unavailable == "it needs audio, and features.front = pixels" and not features


def test_a_long_corpus_without_f0_is_told_how_to_get_it_and_one_with_f0_is_measured(prepared, prepared_f0, trained, monkeypatch):
    monkeypatch.setattr(baselines, "MAX_UNTRACKED_HOURS", 0.001)
    baseline, features = baseline_of_run(prepared, trained.recipe, trained.splits)
    assert baseline.unavailable == f"the corpus holds no F0 of its 0.0 hours: siser add-f0 {prepared.folder}" and not features
    stored, features = baseline_of_run(prepared_f0, trained.recipe, trained.splits)
    assert stored.first and len(features) == len(prepared.utterances)


# ---- the command


def test_the_command_writes_a_page_and_prints_the_tables(prepared, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        siser(["baseline", str(prepared.folder), "--features", "functionals", "--quick", "--jobs", "1", "--out", str(out)]) == 0
    )
    printed = capsys.readouterr().out
    assert "linear SVM, C = 0.01" in printed and "RBF SVM, C = 3" in printed and "strongest (chosen per fold)" in printed
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["baseline"]["features"] == "functionals" and report["emotion"] is None
    assert "Functionals baseline" in (out / "report.html").read_text(encoding="utf-8")


def test_the_command_prints_json_and_takes_folds_of_a_recipe(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(write_toml(make_recipe(TINY)))
    options = ["--recipe", "recipe.toml", "--set", "split.dev=['04']", "--quick", "--json", "--jobs", "1"]
    assert siser(["baseline", str(prepared.folder), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["baseline"]["classifiers"]["rbf"]["per_speaker"]) == {"05", "06"}
    assert report["settings"]["table"]["split"]["dev"] == ["04"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]


def test_pooled_uar_is_that_of_scikit_learn(prepared):
    splits = make_splits(LOSO.split, prepared.utterances)
    values = np.random.default_rng(0).standard_normal((len(prepared.utterances), 2))
    rows = {index: index for index in range(len(values))}
    parts = [predict_fold(CLASSIFIERS["rbf"], values, rows, prepared.utterances, split) for split in splits]
    truth, predicted = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "predicted"))
    baseline = baselines.score_classifiers(
        "random", values, rows, prepared.utterances, splits, LOSO.split, lambda name, done, total: None
    )
    assert baseline.classifiers["rbf"].uar.value == pytest.approx(balanced_accuracy_score(truth, predicted))
