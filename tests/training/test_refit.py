"""A refit: inner folds select the epoch without any test speaker, and one model is trained on all training speakers."""

import csv
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers import assert_same_bits, interrupt_training
from safetensors.torch import load_file

from speaker_invariant_ser import metrics
from speaker_invariant_ser.cli.console import show_trained
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.data.tables.columns import read_columns
from speaker_invariant_ser.errors import RecipeError, RunError, SplitError
from speaker_invariant_ser.evaluation.emotion import emotion_results
from speaker_invariant_ser.evaluation.evaluate import evaluate, refit_results, selected_epoch
from speaker_invariant_ser.evaluation.model_outputs import inner_temperature, predict_test_speakers
from speaker_invariant_ser.evaluation.predictions import from_columns
from speaker_invariant_ser.features import dataset
from speaker_invariant_ser.files import partial_of
from speaker_invariant_ser.models.calibration import fit_temperature
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.report.sections.blocks import Text
from speaker_invariant_ser.report.sections.emotion import emotion_sections
from speaker_invariant_ser.report.write import write_run_report
from speaker_invariant_ser.runs import INNER, INNER_METRICS, INNER_PREDICTIONS, Run, read_rows, rows_so_far
from speaker_invariant_ser.training import launcher, refit, trainer
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.optimisation import EpochEndAverage
from speaker_invariant_ser.training.refit import InnerScores, inner_splits

REFIT = {
    **TINY,
    "split": {"scheme": "fixed", "test": ["05", "06"], "dev_speakers": 0},
    "train": {"epochs": 3, "batch_size": 8, "learning_rate": 0.02, "refit": True, "inner_folds": 2},
}
WITHOUT = {**REFIT, "train": {**REFIT["train"], "epochs": 2, "inner_folds": 0}}


def of_refit(data=REFIT, **changes):
    return make_recipe({**data, "train": {**data["train"], **changes}})


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """An uninterrupted refit, and the (name, row) pairs that its progress was called with."""
    reported = []
    out = tmp_path_factory.mktemp("refit") / "run"
    return train(of_refit(), prepared, out, device="cpu", progress=lambda *call: reported.append(call)), reported


def test_a_final_model_learns_from_every_speaker_and_cannot_be_evaluated(prepared, tmp_path):
    recipe = make_recipe({**TINY, "train": {**TINY["train"], "epochs": 2}}, refit.FINAL)
    run = train(recipe, prepared, tmp_path / "final", device="cpu")
    (spec,) = run.trained_models()
    assert set(spec.split.train) == {utterance.speaker for utterance in prepared.utterances}
    assert (spec.folder / INNER_PREDICTIONS).is_file()  # for the temperature
    with pytest.raises(SplitError, match=r"final: split.scheme = \"all\" trains on all speakers and tests none"):
        evaluate(run, prepared)


def many_utterances(speakers=12):
    return [
        Utterance(f"{s}{t}{e}", "ab"[s % 2], f"s{s:02}", e, f"t{t}", sex=("female", "male")[s // 2 % 2], source=f"{s}{t}{e}")
        for s in range(speakers)
        for t in range(4)
        for e in ("happy", "sad")
    ]


# Inner folds


def test_every_training_speaker_is_scored_in_one_inner_fold_and_no_test_or_held_out_utterance_in_any():
    data, recipe = many_utterances(), of_refit(inner_folds=3)
    splits = hold_out(make_splits(make_recipe({"split": {"dev_speakers": 0}, "train": {"refit": True}}).split, data), data, 0.2)
    for split in splits:
        inner = inner_splits(split, recipe, data)
        assert sorted(speaker for fold in inner for speaker in fold.dev) == sorted(split.train)
        assert inner == inner_splits(split, recipe, data)
        for fold in inner:
            assert sorted((*fold.train, *fold.dev)) == sorted(split.train)
            used = {data[index].id for part in ("train", "dev") for index in fold.indices(part, data)}
            assert used == {data[index].id for index in split.indices("train", data)}
            assert not used & set(split.held_out) and split.held_out
            groups = {(speaker_group(speaker, data)) for speaker in fold.dev}
            assert len(groups) >= 3, "groups are balanced by corpus and sex"


def speaker_group(speaker, data):
    return next((utterance.corpus, utterance.sex) for utterance in data if utterance.speaker == speaker)


def test_text_folds_apply_to_inner_folds():
    data, recipe = many_utterances(), of_refit(inner_folds=2)
    for split in make_splits(make_recipe({**REFIT, "split": {"dev_speakers": 0, "text_folds": 2}}).split, data)[:4]:
        for fold in inner_splits(split, recipe, data):
            texts = {data[index].text for part in ("train", "dev") for index in fold.indices(part, data)}
            assert texts and texts.isdisjoint(split.texts)


@pytest.mark.parametrize(
    "speakers, folds, message",
    [
        (6, 7, r"fold s00: 5 training speakers cannot be divided into 7 .* expected train.inner_folds = 0, or 2 to 5"),
        (4, 2, r"3 training speakers cannot be divided into 2 inner folds that each train on at least 2; .* = 0, or 3 to 3"),
        (3, 2, r"2 training speakers .* expected train.inner_folds = 0, or prepare more speakers"),
    ],
)
def test_too_few_speakers_for_inner_folds_are_refused(speakers, folds, message):
    data = many_utterances(speakers)
    split = make_splits(make_recipe({"split": {"dev_speakers": 0}, "train": {"refit": True}}).split, data)[0]
    with pytest.raises(SplitError, match=message):
        inner_splits(split, of_refit(inner_folds=folds), data)
    assert inner_splits(split, of_refit(inner_folds=0), data) == []


def test_nothing_is_written_where_inner_folds_are_impossible(prepared, tmp_path):
    with pytest.raises(SplitError, match="4 training speakers cannot be divided into 5"):
        train(of_refit(inner_folds=5), prepared, tmp_path / "run", device="cpu")
    missing = [replace(utterance, emotion="" if utterance.speaker != "01" else "level") for utterance in prepared.utterances]
    utterances = [
        a if a.speaker == "01" else b
        for a, b in zip(missing, prepared.utterances, strict=True)
        if b.emotion != "level" or b.speaker == "01"
    ]
    split = make_splits(of_refit().split, utterances)[0]
    with pytest.raises(SplitError, match="inner fold .: emotion level has no training utterance"):
        inner_splits(split, of_refit(), utterances)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["split.dev_speakers=0"], "split.dev_speakers = 0 with train.refit = false: no speaker is left to select the epoch"),
        (["train.refit=true"], "train.refit = true with split.dev_speakers = 2: a refit trains on all speakers"),
        (["train.refit=true", "split.dev_speakers=0", 'split.dev=["03"]'], "train.refit = true with split.dev: a refit trains"),
        (["train.inner_folds=4"], "train.inner_folds = 4 with train.refit = false: there are no inner folds"),
        (["train.refit=true", "split.dev_speakers=0", "train.inner_folds=1"], "train.inner_folds = 1: .* expected 0, or 2 to 20"),
        (["train.refit=true", "split.dev_speakers=0", "train.patience=2"], "train.patience = 2 with train.refit = true"),
        (["train.swa_epochs=3"], "train.swa_epochs = 3 with train.ema = 0.98: only one average"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe({}, overrides)


# The training


def test_the_selected_epoch_has_the_best_uar_over_all_inner_folds(whole, prepared):
    run, _ = whole
    spec = run.model_specs[0]
    rows, labels = spec.metrics(), load_model(spec.folder).labels
    by_fold = read_rows(spec.folder / INNER_METRICS)
    assert [(row["inner_fold"], row["epoch"]) for row in by_fold] == [(fold, epoch) for fold in (1, 2) for epoch in (1, 2, 3)]
    predictions = from_columns(read_columns(spec.folder / INNER_PREDICTIONS, {}))
    assert sorted(predictions.id) == sorted(
        prepared.utterances[index].id for index in spec.split.indices("train", prepared.utterances)
    )
    assert predictions.labels == labels
    pooled = metrics.uar(predictions.truth, predictions.predicted, 3)
    assert rows[-1]["dev_uar"] == pytest.approx(pooled, rel=1e-5)
    of_truth = predictions.probability[range(len(predictions.truth)), predictions.truth]
    assert rows[-1]["dev_loss"] == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)
    assert rows[-1]["best"] == 1 and rows[-1]["dev_uar"] == max(row["dev_uar"] for row in rows)
    own = [row["dev_uar"] for row in by_fold if row["epoch"] == rows[-1]["epoch"]]
    uars = [metrics.uar(predictions.truth[predictions.fold == f], predictions.predicted[predictions.fold == f], 3) for f in "12"]
    assert own == pytest.approx(uars, rel=1e-5)


@pytest.mark.parametrize(
    "uar, loss, epoch",
    [((0.5, 0.7, 0.6), (1, 1, 1), 2), ((0.7, 0.7, 0.6), (1.0, 0.9, 0.1), 2), ((0.7, 0.7, 0.7), (1.0, 1.0, 1.0), 1)],
)
def test_of_equal_epochs_the_one_with_the_lower_loss_is_selected(uar, loss, epoch):
    assert InnerScores(loss, uar).epoch == epoch


def test_training_stops_after_the_selected_epoch_with_the_schedule_of_a_whole_training(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(InnerScores, "epoch", 2)  # of three
    run = train(of_refit(), prepared, tmp_path / "run", device="cpu")
    rows, inner = run.model_specs[0].metrics(), read_rows(run.model_specs[0].folder / INNER_METRICS)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["learning_rate"] == pytest.approx(inner[1]["learning_rate"], rel=0.02), "not annealed after two epochs"
    assert rows[1]["learning_rate"] > 10 * inner[2]["learning_rate"]


def test_the_final_model_is_trained_on_all_training_speakers(prepared, tmp_path, monkeypatch):
    opened = []
    original = dataset.open_dataset

    def noting(prepared, indices, *arguments, **options):
        opened.append({prepared.utterances[index].speaker for index in indices})
        opened_ids.update(prepared.utterances[index].id for index in indices)
        return original(prepared, indices, *arguments, **options)

    opened_ids = set()
    monkeypatch.setattr(trainer, "open_dataset", noting)
    run = train(of_refit(epochs=1), prepared, tmp_path / "run", device="cpu")
    training_speakers = {"01", "02", "03", "04"}
    first, second = opened[:2], opened[2:4]
    assert first[0] | first[1] == second[0] | second[1] == training_speakers and not first[0] & first[1] and first[1] == second[0]
    assert opened[4:] == [training_speakers]
    split = run.splits[0]
    assert opened_ids == {prepared.utterances[index].id for index in split.indices("train", prepared.utterances)}
    assert split.held_out and not opened_ids & set(split.held_out)


def test_only_small_tables_are_kept_of_the_inner_folds(whole):
    run, _ = whole
    names = {"model.safetensors", "model.json", "metrics.csv", INNER_METRICS, INNER_PREDICTIONS}
    assert {path.name for path in run.model_specs[0].folder.iterdir()} == names


def test_progress_counts_the_epochs_of_inner_folds(whole):
    run, reported = whole
    epochs = len(run.model_specs[0].metrics())
    expected = [(fold, epoch) for fold in (1, 2) for epoch in range(1, 4)] + [(None, epoch) for epoch in range(1, epochs + 1)]
    assert [(row.get("inner_fold"), row["epoch"]) for _, row in reported] == expected
    assert {name for name, _ in reported} == {"fixed"}
    assert [(row.get("inner_fold"), row["epoch"]) for row in rows_so_far(run.model_specs[0].folder)] == expected


@pytest.mark.parametrize("after", [3, 9, 15])
def test_a_refit_interrupted_in_any_part_resumes_to_the_same_bits(whole, prepared, tmp_path, monkeypatch, after):
    """Within the first and the second inner fold, and within the final training."""
    interrupt_training(monkeypatch, after, of_refit(), prepared, tmp_path / "run")
    work = partial_of(Run.open(tmp_path / "run").model_specs[0].folder)
    assert (work / INNER_METRICS).exists() == (after == 15) and (work / INNER / "2").exists() == (after > 3)
    torch.rand(17)
    again, training_step = [], trainer.Trainer.training_step
    monkeypatch.setattr(trainer.Trainer, "training_step", lambda self, *batch: again.append(training_step(self, *batch)))
    run = train(of_refit(), prepared, tmp_path / "run", resume=True, device="cpu")
    assert_same_bits(whole[0], run)
    table, expected = (each.model_specs[0].folder / INNER_PREDICTIONS for each in (run, whole[0]))
    assert table.read_bytes() == expected.read_bytes()
    final = run.model_specs[0].metrics()[-1]["step"]
    inner = sum(row["step"] for row in read_rows(run.model_specs[0].folder / INNER_METRICS) if row["epoch"] == 3)
    assert len(again) == inner + final - after, "no step is taken twice"


def test_a_kill_after_training_leaves_nothing_behind_on_resume(whole, prepared, tmp_path, monkeypatch):
    """Killed between the renaming of the model's folder and the removal of what is not kept."""
    monkeypatch.setattr(refit, "remove_checkpoint", lambda folder: None)
    train(of_refit(), prepared, tmp_path / "run", device="cpu")
    monkeypatch.undo()
    folder = Run.open(tmp_path / "run").model_specs[0].folder
    assert (folder / INNER).is_dir()
    run = train(of_refit(), prepared, tmp_path / "run", resume=True, device="cpu")
    assert_same_bits(whole[0], run)
    assert not (folder / INNER).exists()


def test_damaged_inner_predictions_are_refused(prepared, tmp_path, monkeypatch):
    def stop(name, row):
        if "inner_fold" not in row:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(of_refit(), prepared, tmp_path / "run", device="cpu", progress=stop)
    path = next((tmp_path / "run").rglob("epoch-2.npy"))
    whole = path.read_bytes()
    damaged = BytesIO()
    np.save(damaged, np.zeros((2, 3), np.float32))
    for content in (whole[:-9], b"PK\3\4" + bytes(99), damaged.getvalue()):
        path.write_bytes(content)
        with pytest.raises(RunError, match=f"{path} is damaged .*; remove {path.parent} to train this inner fold again"):
            train(of_refit(), prepared, tmp_path / "run", resume=True, device="cpu")


def test_parallel_and_sequential_refits_of_several_seeds_are_the_same(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "cores", lambda: 2)
    recipe, reported = of_refit(epochs=1, seeds=2), []
    run = train(recipe, prepared, tmp_path / "both", device="cpu", jobs=2, progress=lambda *call: reported.append(call))
    assert_same_bits(run, train(recipe, prepared, tmp_path / "turn", device="cpu"))
    for spec in run.model_specs:
        rows = [row for name, row in reported if name == spec.name]
        assert rows == rows_so_far(spec.folder) and len(rows) == 2 + len(spec.metrics())
    first, second = (load_file(spec.folder / "model.safetensors")["encoder.project.weight"] for spec in run.model_specs)
    assert not torch.equal(first, second)


def test_without_inner_folds_the_last_weights_are_kept(prepared, tmp_path, capsys):
    run = train(make_recipe(WITHOUT), prepared, tmp_path / "run", device="cpu")
    rows = run.model_specs[0].metrics()
    assert [row["epoch"] for row in rows] == [1, 2] and rows[-1]["best"] and "dev_uar" not in rows[0]
    show_trained(run)
    assert "fold fixed: trained on all 4 training speakers for 2 epochs, not selected" in capsys.readouterr().out
    spec = run.model_specs[0]
    tested = predict_test_speakers(load_model(spec.folder), prepared, spec, None, run.recipe)
    parts = refit_results(run, {spec.name: selected_epoch(spec, rows)}, tested)
    assert parts["refit"].to_json() == {"inner_folds": 0, "epochs": {"fixed": 2}, "calibrated": False, "calibrated_on": ""}
    emotion = emotion_results(tested).model_copy(update=parts)
    about = " ".join(block.text for section in emotion_sections(emotion) for block in section.blocks if isinstance(block, Text))
    assert (
        "No temperature was fitted: there are no dev speakers, no inner folds like the final model, and no other folds" in about
    )
    assert "for a fixed number of epochs: nothing was selected" in about and "dev speakers only" not in about


# Evaluation


def test_without_inner_folds_the_other_folds_calibrate(prepared, tmp_path):
    """The temperature of a fold depends on no prediction for its own test speakers."""
    recipe = make_recipe({**WITHOUT, "split": {"scheme": "group-kfold", "folds": 3, "dev_speakers": 0}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    outcome = evaluate(run, prepared, "cpu", quick=True, with_baseline=False)
    emotion, predictions = outcome.report.emotion, outcome.predictions
    assert emotion.refit.calibrated_on == "other folds" and emotion.refit.calibrated
    for fold in ("1", "2", "3"):
        others = predictions.rows(predictions.fold != fold)
        expected = fit_temperature(others.truth, others.probability)
        assert emotion.calibration.temperatures[fold] == pytest.approx(expected)
    about = " ".join(block.text for section in emotion_sections(emotion) for block in section.blocks if isinstance(block, Text))
    assert "fitted on the test speakers of the other folds, as predicted by the models that did not learn from them" in about


def test_the_report_says_how_epoch_and_temperature_were_chosen(whole, prepared, capsys):
    run, _ = whole
    spec = run.model_specs[0]
    outcome = evaluate(run, prepared, "cpu", quick=True, with_baseline=False)
    write_run_report(outcome, run.folder)
    epoch = len(spec.metrics())
    report = json.loads((run.folder / "report" / "report.json").read_text())
    refit = {"inner_folds": 2, "epochs": {"fixed": epoch}, "calibrated": True, "calibrated_on": "inner folds"}
    assert report["emotion"]["refit"] == refit
    assert report["emotion"]["folds"]["fixed"]["dev_uar"] == spec.metrics()[-1]["dev_uar"]
    predictions = from_columns(read_columns(spec.folder / INNER_PREDICTIONS, {}))
    temperature = fit_temperature(predictions.truth, predictions.probability)
    assert report["emotion"]["calibration"]["temperatures"] == {"fixed": pytest.approx(temperature)}
    assert load_model(spec.folder).settings.temperature == pytest.approx(temperature)
    page = (run.folder / "report" / "report.md").read_text()
    assert "up to the epoch that 2 inner folds over these speakers selected" in page
    assert "fitted on the speakers that its inner folds predicted" in page and "selected on dev speakers" not in page
    assert "UAR of inner folds" in page and "dev UAR" not in page
    show_trained(run)
    assert f"trained on all 4 training speakers for {epoch} epochs, UAR of 2 inner folds 0." in capsys.readouterr().out


def test_with_an_eraser_no_temperature_is_taken_from_inner_folds(whole):
    run, _ = whole
    spec = run.model_specs[0]
    model = load_model(spec.folder)
    assert inner_temperature(model, spec, run.recipe) is not None
    erased = make_recipe({**REFIT, "erase": {"name": "leace"}})
    assert inner_temperature(model, spec, erased) is None


def test_missing_and_foreign_inner_predictions_are_refused(whole, tmp_path):
    run, _ = whole
    spec = run.model_specs[0]
    moved, model = replace(spec, folder=tmp_path), load_model(spec.folder)
    with pytest.raises(RunError, match=f"{INNER_PREDICTIONS} is missing or damaged .*remove {tmp_path} and train it again"):
        inner_temperature(model, moved, run.recipe)
    with open(tmp_path / INNER_PREDICTIONS, "w", newline="") as file:
        csv.writer(file).writerows([["id", "speaker", "fold", "emotion", "p_a"], ["u", "01", "1", "a", "1.0"]])
    with pytest.raises(RunError, match="emotions a, expected falling, level, rising"):
        inner_temperature(model, moved, run.recipe)


# Stochastic weight averaging


def test_stochastic_weight_averaging_saves_the_mean_of_the_last_epochs_weights(prepared, tmp_path, monkeypatch):
    ends, after_epoch = [], EpochEndAverage.after_epoch

    def noting(self, model, batches):
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
        after_epoch(self, model, batches)

    monkeypatch.setattr(EpochEndAverage, "after_epoch", noting)
    run = train(of_refit(WITHOUT, epochs=4, ema=0.0, swa_epochs=3), prepared, tmp_path / "run", device="cpu")
    saved = load_file(run.model_specs[0].folder / "model.safetensors")
    assert len(ends) == 4
    learned = [name for name in saved if name.startswith(("encoder", "head")) and "running" not in name and "num_b" not in name]
    assert len(learned) > 5
    for name in learned:
        mean = torch.stack([weights[name] for weights in ends[1:]]).mean(dim=0)
        assert torch.equal(saved[name], mean)
    changed = [name for name in learned if not torch.equal(saved[name], ends[-1][name])]
    assert len(changed) > 5


def test_batch_norm_statistics_of_averaged_weights_are_those_of_the_training_batches(prepared, tmp_path):
    """A model that is averaged over a single epoch has the weights of that epoch, and statistics over all of its batches."""
    recipe = of_refit(WITHOUT, epochs=1, ema=0.0, swa_epochs=1)
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    model = load_model(run.model_specs[0].folder)
    with launcher.launched_fabric("float32", "cpu") as fabric:
        again = refit.RefitTrainer(run, prepared, run.model_specs[0], fabric, tmp_path / "none", None)
    norm, inputs = model.encoder.stages[0].norm, []
    again.model.load_state_dict(model.state_dict())
    again.model.train()
    hook = again.model.encoder.stages[0].norm.register_forward_hook(lambda module, given, result: inputs.append(given[0]))
    for mels, frames in again.epoch_inputs():
        again.model.from_mels(mels, frames)
    hook.remove()
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs])
    assert torch.allclose(norm.running_mean, means.mean(dim=0), atol=1e-5) and len(inputs) > 2
    assert not torch.allclose(norm.running_mean, means[-1], atol=1e-4)
    assert norm.momentum == pytest.approx(0.1)


def test_stochastic_weight_averaging_resumes_to_the_same_bits(prepared, tmp_path, monkeypatch):
    """Within the third epoch, when the weights of the first two are in the checkpoint alone."""
    recipe = make_recipe({**TINY, "train": {"epochs": 3, "batch_size": 8, "ema": 0.0, "swa_epochs": 3}})
    steps, training_step = [], trainer.Trainer.training_step

    def stopping(self, *batch):
        if self.state.epoch == 3 and self.state.batch == 1:
            raise KeyboardInterrupt
        steps.append(training_step(self, *batch))

    whole = train(recipe, prepared, tmp_path / "whole", device="cpu")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "training_step", stopping)
        train(recipe, prepared, tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert len(steps) == 7
    assert_same_bits(whole, train(recipe, prepared, tmp_path / "run", resume=True, device="cpu"))


def test_several_processes_share_the_batches_of_inner_folds(prepared, tmp_path, monkeypatch):
    """Also those that batch-norm statistics are estimated on; without dropout, which differs between processes."""
    monkeypatch.setattr(launcher, "cores", lambda: 2)
    plain = {**REFIT, "encoder": {**TINY["encoder"], "dropout": 0.0}, "emotion": {"hidden": 8, "dropout": 0.0}}
    recipe = of_refit(plain, epochs=1, ema=0.0, swa_epochs=1, precision="float32")
    one, two = (train(recipe, prepared, tmp_path / str(n), device="cpu", devices=n).model_specs[0] for n in (1, 2))
    assert two.trained["processes"] == 2
    for row, other in zip(rows_so_far(one.folder), rows_so_far(two.folder), strict=True):
        for key in (key for key in row if not key.startswith("seconds")):
            assert other[key] == pytest.approx(row[key], abs=1e-4), key
