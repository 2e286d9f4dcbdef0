"""Every shipped recipe trains, goes on where it was cut short to the same bits, evaluates, and ships no adversary."""

import json
from pathlib import Path

import pytest
from conftest import TINY
from helpers import same_bits
from safetensors.torch import load_file

from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.launcher import train

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
METHODS = sorted((RECIPES / "methods").glob("*.toml"))
SMALL = {"encoder": TINY["encoder"], "emotion": TINY["emotion"], "split": TINY["split"], "features": TINY["features"]}


def small(path):
    """The recipe with a model, a split and an epoch count that fit a corpus of 72 clips; what it is about stays.

    A tenth is kept aside whatever it says: three tenths of so few would leave no second batch.
    """
    recipe = read_recipe(path).model_dump(exclude_unset=True, exclude={"audit"})
    tables = {
        name: {**SMALL.get(name, {}), **recipe.get(name, {})} for name in {**SMALL, **recipe} if name != "extra_adversaries"
    }
    tables |= {"split": TINY["split"], "extra_adversaries": recipe.get("extra_adversaries", ())}
    if "reset_every" in tables.get("adversary", {}):
        tables["adversary"]["reset_every"] = 3  # so that it happens, before and after the cut
    tables["train"] = {**recipe.get("train", {}), "epochs": 3, "batch_size": 10}
    return make_recipe(tables)


def stop_in_the_second_epoch(monkeypatch, recipe, prepared, out):
    taken, take_step = [], trainer.Training.take_step

    def stopping(self, *batch):
        if len(taken) == 4:
            raise KeyboardInterrupt
        taken.append(take_step(self, *batch))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "SAVE_EVERY", 0.0)
        patch.setattr(trainer.Training, "take_step", stopping)
        train(recipe, prepared, out, device="cpu")


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_recipe_trains_goes_on_and_evaluates(path, prepared, folder, tmp_path, monkeypatch):
    recipe = small(path)
    whole = train(recipe, prepared, tmp_path / "whole", device="cpu")
    stop_in_the_second_epoch(monkeypatch, recipe, prepared, tmp_path / "cut")
    same_bits(whole, train(recipe, prepared, tmp_path / "cut", resume=True, device="cpu"))
    names = load_file(whole.fits[0].folder / "model.safetensors")
    assert all(name.split(".")[0] in OF_A_MODEL for name in names)
    evaluation = evaluate(whole, prepared, device="cpu", quick=True)
    write_report(evaluation.summary, whole.folder / "report", evaluation.curves)
    report = json.loads((whole.folder / "report" / "report.json").read_text())
    assert 0 <= report["emotion"]["uar"]["value"] <= 1 and 0 <= report["speaker"]["strongest"]["accuracy"] <= 1
    assert report["settings"]["recipe"]["adversary"]["name"] == recipe.adversary.name


OF_A_MODEL = ("logmel", "normalise", "encoder", "bottleneck", "eraser", "release", "head")


def test_every_method_says_what_it_is_about():
    for path in METHODS:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) > 40, path
        assert read_recipe(path) != read_recipe(RECIPES / "emodb.toml"), path
