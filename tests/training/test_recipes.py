"""Every shipped recipe trains, resumes to the same bits after an interruption, predicts, and ships no adversary."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from helpers import assert_same_bits, interrupt_training
from safetensors.torch import load_file

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.evaluation.model_outputs import predict_test_speakers
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, read_predictions
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.metrics import uar
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import flattened
from speaker_invariant_ser.studies.study import read_study
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.launcher import train

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
METHODS = [RECIPES / "default.toml", *sorted((RECIPES / "methods").glob("*.toml"))]
SMALL = {"encoder": TINY["encoder"], "emotion": TINY["emotion"], "split": TINY["split"], "features": TINY["features"]}


def small(path):
    """Return what a recipe adds to the default, with a log-mel model, a split and epochs that fit a corpus of 72 utterances.

    A tenth is held out whatever the recipe says: three tenths would leave a single batch.
    """
    recipe, default = (read_recipe(each).model_dump(exclude_unset=True) for each in (path, RECIPES / "no-adversary.toml"))
    tables = {name: dict(table) for name, table in SMALL.items()} | {"train": {"epochs": 3, "batch_size": 10}}
    for name, table in recipe.items():
        changed = {key: value for key, value in table.items() if default.get(name, {}).get(key) != value}
        if name not in ("split", "encoder", "audit"):
            tables[name] = {**tables.get(name, {}), **changed}
    tables["features"].pop("streams", None)
    if "reset_every" in tables["adversary"]:
        tables["adversary"]["reset_every"] = 3  # so that classifiers are reset before and after the interruption
    return make_recipe({**tables, "adversary": {"strength": 0.0, **tables["adversary"]}})


def is_evaluated(recipe, stem):
    """Whether what is evaluated depends on the method: on other parts of the model, or on an adversary of another kind.

    Everything else ends when training does; `default` and two more stand for it.
    """
    plain = small(RECIPES / "no-adversary.toml")
    tables = ("features", "encoder", "bottleneck", "erase", "release", "emotion")
    return stem in ("default", "conditional", "hsic") or any(getattr(recipe, name) != getattr(plain, name) for name in tables)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_recipe_trains_resumes_to_the_same_bits_and_is_evaluated(path, prepared, tmp_path, monkeypatch):
    recipe = small(path)
    whole = train(recipe, prepared, tmp_path / "whole", device="cpu")
    interrupt_training(monkeypatch, 4, recipe, prepared, tmp_path / "interrupted")  # in the second epoch
    assert_same_bits(whole, train(recipe, prepared, tmp_path / "interrupted", resume=True, device="cpu"))
    names = load_file(whole.model_specs[0].folder / "model.safetensors")
    assert all(name.split(".")[0] in MODEL_PARTS for name in names)
    if not is_evaluated(recipe, path.stem):
        (spec,) = whole.model_specs
        predictions = predict_test_speakers(load_model(spec.folder), prepared, spec, None, recipe)
        assert set(predictions.speaker) == {"05", "06"} and len(predictions.id) == 24
        return
    evaluation = evaluate(whole, prepared, device="cpu", quick=True, with_baseline=False)
    report = evaluation.report.to_json()
    predictions = read_predictions(whole.folder / PREDICTIONS)
    assert set(predictions.speaker) == {"05", "06"} and len(predictions.id) == 24
    recomputed = uar(predictions.truth, predictions.predicted, len(predictions.labels))
    assert report["emotion"]["uar"]["value"] == pytest.approx(recomputed)
    assert report["speaker"]["speakers"] == 3
    attackers = set(report["speaker"]["attackers"])  # LDA and QDA need more held-out utterances than there are after erasure
    assert attackers == set(QUICK_ATTACKERS) or (recipe.erase.name != "none" and attackers == {"logistic", "knn"})
    assert report["settings"]["recipe"]["adversary"]["name"] == recipe.adversary.name


STREAMS = {
    "emodb-prosody": {"encoder": {"name": "prosody", "width": 8, "dim": 8}},
    "emodb-fusion": {"encoder": {"name": "fusion", "dim": 8}, "adversary": {"input": "frames", "strength": 1.0, "hidden": 8}},
}


def small_streams(name):
    """A recipe with the prosody stream, and its own augmentation, with a model and a split for the tones."""
    recipe = read_recipe(RECIPES / f"{name}.toml").model_dump(exclude_unset=True)
    features = {**recipe["features"], "mels": 24, "window_ms": 40.0}
    train = {**recipe["train"], "epochs": 3, "batch_size": 10}
    tables = {**recipe, "split": TINY["split"], "features": features, "emotion": TINY["emotion"], "train": train}
    return make_recipe({**tables, **STREAMS[name]})


@pytest.mark.parametrize("name", STREAMS)
def test_a_recipe_with_prosody_trains_resumes_to_the_same_bits_and_is_used(name, prepared_f0, folder, tmp_path, monkeypatch):
    recipe = small_streams(name)
    whole = train(recipe, prepared_f0, tmp_path / "whole", device="cpu")
    interrupt_training(monkeypatch, 4, recipe, prepared_f0, tmp_path / "interrupted")
    assert_same_bits(whole, train(recipe, prepared_f0, tmp_path / "interrupted", resume=True, device="cpu"))
    evaluation = evaluate(whole, prepared_f0, device="cpu", quick=True)
    assert evaluation.report.speaker.speakers == 3
    stored = dict(zip(evaluation.predictions.id, evaluation.predictions.probability, strict=True))
    rows = list(predict(load_models(whole, device="cpu"), find_inputs([folder / "05_*.wav"])))
    assert len(rows) == 12 and not any(row["error"] for row in rows)
    for row in rows:
        probability = [row[f"p_{label}"] for label in evaluation.predictions.labels]
        before = stored[Path(row["file"]).name][None]
        expected = apply_temperature(before, evaluation.predictions.temperatures[whole.model_specs[0].name])[0]
        assert probability == pytest.approx(expected.tolist(), abs=1e-4)


def test_both_classifiers_of_a_fusion_learn_from_their_own_loss(prepared_f0, tmp_path, monkeypatch):
    losses = []
    step = trainer.Trainer.training_step

    def recording(self, mels, frames, labels):
        output = self.model.from_mels(mels, frames)
        alone = [self.objective.emotion_loss(output.branch_logits[:, branch], labels.emotion) for branch in range(2)]
        losses.append((self.objective.emotion_loss(output.branch_logits, labels.emotion).item(), sum(alone).item() / 2))
        before = [layers[0].weight.detach().clone() for layers in self.model.head.classifiers]
        step(self, mels, frames, labels)
        assert not any(
            torch.equal(layers[0].weight, old) for layers, old in zip(self.model.head.classifiers, before, strict=True)
        )

    monkeypatch.setattr(trainer.Trainer, "training_step", recording)
    recipe = small_streams("emodb-fusion")
    train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 1})}), prepared_f0, tmp_path / "run")
    assert losses and all(loss == pytest.approx(mean, rel=1e-5) for loss, mean in losses)


def test_the_textbook_recipe_writes_out_the_default_model():
    textbook, default = read_recipe(RECIPES / "textbook.toml"), Recipe()
    assert textbook.labels.map == "five"
    assert textbook == default.model_copy(update={"labels": textbook.labels})


@pytest.mark.parametrize(("name", "holdout"), [("no-adversary", 0.1), ("emodb", 0.0), ("nemo", 0.0)])
def test_a_recipe_for_a_corpus_differs_from_the_baseline_by_what_is_held_out(name, holdout):
    """The corpora's recipes are the arm that was measured: they are neither tuned to a corpus nor changed by accident."""
    study = read_study(RECIPES / "study-arms.toml")
    (arm,) = (arm for arm in study.arms if arm.name == "fusion-refit")
    measured, recipe = arm.resolved(0), read_recipe(RECIPES / f"{name}.toml")
    assert recipe.audit.holdout == holdout and measured.audit.holdout == 0.0
    assert recipe == measured.model_copy(update={"audit": recipe.audit})
    assert recipe.split.dev_speakers == 0 and recipe.train.refit and recipe.adversary.strength == 0.0


MODEL_PARTS = ("logmel", "normalise", "encoder", "bottleneck", "eraser", "release", "head")


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_recipe_is_the_baseline_with_a_method_that_it_describes(path):
    comment, _, tables = path.read_text().partition("\n\n")
    assert all(line.startswith("# ") for line in comment.splitlines()) and tables.startswith("[split]")
    recipe, default = (flattened(read_recipe(each)) for each in (path, RECIPES / "no-adversary.toml"))
    changed = {key.split(".")[0] for key in {**recipe, **default} if recipe.get(key) != default.get(key)}
    assert changed and changed <= {*METHOD_TABLES, "augment", "features", "encoder", "emotion", "train", "audit"}
    kept = ("train.epochs", "train.learning_rate", "train.refit", "split.scheme", "features.mels", "augment.tempo")
    assert all(recipe[key] == default[key] for key in kept)


def test_recipes_of_the_front_differ_from_their_baselines_by_the_adversary_or_the_release_alone():
    arms = {arm.name: arm for arm in read_study(RECIPES / "study-front.toml").arms}
    private, baseline = read_recipe(RECIPES / "private.toml"), read_recipe(RECIPES / "prosody.toml")
    default, none = read_recipe(RECIPES / "default.toml"), read_recipe(RECIPES / "no-adversary.toml")
    assert private.release.name == "decision" and arms["private-decision"].resolved(0) == private
    assert private == default.model_copy(update={"release": private.release}) and default.adversary.heads == 4
    assert arms["prosody-heads"].resolved(0) == baseline.model_copy(update={"adversary": default.adversary})
    assert default == none.model_copy(update={"adversary": default.adversary}) == arms["fusion-heads"].resolved(0)
    assert none == arms["fusion-lambda0"].resolved(0) and baseline == arms["prosody-lambda0"].resolved(0)


METHOD_TABLES = ("adversary", "bottleneck", "perturb", "erase", "release")


def test_every_method_is_an_arm_of_the_study_that_measures_methods():
    arms = {arm.recipe for arm in read_study(RECIPES / "study-methods.toml").arms}
    assert {path for path in METHODS if path not in arms} == set()
