"""The demo on images: the overlays, the separation of images between the sides of a split, and the demo's results."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import find_recipe, make_recipe, read_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.demos import digits
from speaker_invariant_ser.demos.digits import GROUPS, attack, make_overlays, without_adversary, write_corpus
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.evaluation.model_outputs import embed
from speaker_invariant_ser.features.log_mel import FRONTS
from speaker_invariant_ser.recipe_methods import MmdSettings
from speaker_invariant_ser.runs import Run, best_epoch
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.objective import build_model

PATH = Path(__file__).resolve().parents[2] / "recipes" / "digits.toml"
IMAGES, DIGIT = load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("digits") / "data")


def recipe(*overrides):
    return read_recipe(PATH, overrides)


def images_of(utterances):
    """Row numbers of all images in these overlays."""
    return [int(number) for utterance in utterances for number in utterance.id.split("+")]


def test_labels_are_the_digits_that_the_images_show(prepared):
    for utterance in prepared.utterances:
        shown = sorted(DIGIT[images_of([utterance])].tolist())
        other = int(utterance.speaker)
        assert shown == ([0, other] if utterance.emotion == "zero" else [other, other]), utterance


def test_every_digit_and_group_has_as_many_overlays_with_a_zero_as_without(prepared):
    counts = {}
    for utterance in prepared.utterances:
        cell = counts.setdefault((utterance.speaker, utterance.text), {"zero": 0, "none": 0})
        cell[utterance.emotion] += 1
    assert len(counts) == 9 * GROUPS and all(cell["zero"] == cell["none"] > 10 for cell in counts.values())
    ids = {utterance.id for utterance in prepared.utterances}
    assert len(ids) == len(prepared.utterances) == prepared.settings["counts"]["utterances"]
    assert len(set(images_of(prepared.utterances))) == len(DIGIT), "every image is used"


def test_no_image_is_on_two_sides_of_the_split(prepared):
    """The sides: training, held out, dev, test. Within a side, an image is in several overlays."""
    settings = recipe()
    (split,) = hold_out(make_splits(settings.split, prepared.utterances), prepared.utterances, settings.audit.holdout)
    sides = {}
    for part in ("train", "held_out", "dev", "test"):
        images = images_of(prepared.utterances[index] for index in split.indices(part, prepared.utterances))
        sides[part] = set(images)
        assert 100 < len(sides[part]) < len(images) / 2
    assert not any(sides[part] & sides[other] for part, other in combinations(sides, 2))
    assert set().union(*sides.values()) == set(range(len(DIGIT)))


def test_the_model_gets_the_pixelwise_maximum_of_both_images_upright(prepared):
    model = build_model(recipe(), ("none", "zero"))
    for index in (0, 1234, len(prepared.utterances) - 1):
        over, under = IMAGES[images_of([prepared.utterances[index]])].reshape(2, 8, 8)
        samples, lengths = prepared.batch([index])
        mels, frames = model.logmel(torch.from_numpy(prepared.clip(index))[None], torch.from_numpy(lengths))
        assert frames.tolist() == [8] and mels.shape == (1, 8, 8)
        assert torch.allclose(mels[0] * 2**15 / 2000, torch.from_numpy(np.maximum(over, under)).float())
        assert np.array_equal(samples[0], (mels[0].T.flatten() * 2**15).numpy())


def test_images_of_several_widths_in_a_batch():
    front = FRONTS["pixels"](recipe().features, 16000)
    pixels = torch.arange(2 * 32.0).reshape(2, 32)
    mels, frames = front(pixels, torch.tensor([32, 16]))
    assert mels.shape == (2, 8, 4) and frames.tolist() == [4, 2] and mels[1, :, 0].tolist() == list(range(32, 40))
    assert [front.frames_of(8 * width) for width in range(1, 10)] == list(range(1, 10)), "frames as training counts them"
    with pytest.raises(AssertionError, match="wider than an image may be"):
        front(torch.zeros(1, 80), torch.tensor([80]))


def test_overlays_depend_on_the_seed_alone(prepared, tmp_path):
    again = write_corpus(tmp_path / "data")
    assert again.settings == prepared.settings
    assert make_overlays(DIGIT) == make_overlays(DIGIT) != make_overlays(DIGIT, seed=1)


def test_augmentation_made_for_sound_is_refused():
    tables = {"features": {"front": "pixels", "mels": 8}}
    with pytest.raises(RecipeError, match=r"augment.tempo = 0.1, augment.warp = 0.1, .*set it to 0 with features.front"):
        make_recipe(tables)
    with pytest.raises(RecipeError, match=r"augment.concatenate = 0.5: applies to audio only"):
        recipe("augment.concatenate=0.5")
    assert recipe("augment.mixup_same_emotion=0.5").augment.mixup_same_emotion == 0.5


def test_a_short_training_detects_zeros_over_unseen_digits(prepared, tmp_path):
    settings = recipe("train.epochs=3")
    run = train(settings, prepared, tmp_path / "run", device="cpu")
    (spec,) = run.model_specs
    rows = spec.metrics()
    assert set(spec.split.train).isdisjoint(settings.split.dev + settings.split.test)
    assert best_epoch(rows)["dev_uar"] > 0.8 and rows[-1]["emotion_accuracy"] > 0.9, "chance is 0.5"
    assert rows[-1]["adversary_accuracy"] < 0.4 < 0.6 < rows[-1]["attacker_accuracy"], (
        "a fresh attacker still finds what the adversary's classifier does not"
    )
    attacked = attack(run, prepared, "cpu", jobs=1)
    assert attacked.name == "run" and attacked.leakage.speakers == 5 and attacked.leakage.decisions > 500
    assert attacked.number("dev_uar") == best_epoch(rows)["dev_uar"] and attacked.number("nothing") is None


def test_the_baseline_differs_by_the_adversary_alone():
    settings = recipe().model_copy(update={"extra_adversaries": (MmdSettings(strength=0.5),)})
    baseline = without_adversary(settings)
    assert (settings.adversary.strength, baseline.adversary.strength) == (1.0, 0.0)
    assert [extra.strength for extra in baseline.extra_adversaries] == [0.0] and settings.extra_adversaries[0].strength == 0.5
    adversaries = {"adversary", "extra_adversaries"}
    assert baseline.model_dump(exclude=adversaries) == settings.model_dump(exclude=adversaries)


def test_the_demo_trains_the_recipe_of_the_repository():
    assert find_recipe("digits") == PATH


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo on two epochs of few overlays: its folder, and what it printed."""
    out, shown = tmp_path_factory.mktemp("cli") / "digits", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        short = ["train.epochs=2", "train.epoch_clips=320"]
        patch.setattr(digits, "read_recipe", lambda path, overrides: read_recipe(path, [*overrides, *short]))
        for _ in range(2):  # the second replaces the first
            assert siser(["demo", "--digits", "--out", str(out), "--device", "cpu", "--jobs", "1", "--seed", "3"]) == 0
    return out, shown.getvalue()


def test_the_demo_prints_both_runs_and_plots_their_curves(demo):
    out, shown = demo
    assert {"data", "adversarial", "baseline", "curves.png"} <= {path.name for path in out.iterdir()}
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    runs = [Run.open(out / name) for name in ("adversarial", "baseline")]
    assert [run.recipe.train.seed for run in runs] == [3, 3]
    with_adversary, without = ([row["lambda"] for row in run.model_specs[0].metrics()] for run in runs)
    assert without == [0, 0] < with_adversary
    for words, column in (("zero: training digits", "emotion_accuracy"), ("zero: unseen digits (dev)", "dev_uar")):
        (line,) = (line for line in shown.splitlines()[: len(shown.splitlines()) // 2] if words in line)
        assert [f"{100 * best_epoch(run.model_specs[0].metrics())[column]:.1f} %" for run in runs] == re.findall(
            r"[\d.]+ %", line
        )
    assert f"curves: {out / 'curves.png'}" in shown
    assert re.search(r"other digit: adversary's classifier +[\d.]+ % \((at|above|below) chance, [\d.]+ %\)", shown)


def test_runs_of_the_demo_are_evaluated_but_do_not_infer(demo, tmp_path, capsys):
    run = demo[0] / "adversarial"
    assert siser(["evaluate", str(run), "--quick", "--device", "cpu", "--jobs", "1", "--quiet"]) == 0
    report = json.loads((run / "report" / "report.json").read_text())
    assert set(report["emotion"]["per_speaker"]) == {"4", "9"} and report["speaker"]["speakers"] == 5
    assert "claim nothing about speech" in report["note"]
    capsys.readouterr()
    assert siser(["infer", str(run), str(PATH), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]) == 2
    assert "was trained on images, not on speech" in capsys.readouterr().err


def test_the_corpus_of_the_demo_trains_other_recipes(demo, tmp_path, capsys):
    """So is the recipe varied; features.front still has to fit the corpus, and --preview needs log-mel features."""
    command = ["train", str(PATH), "--data", str(demo[0] / "data"), "--device", "cpu", "--jobs", "1"]
    short = ["--set", "train.epochs=1", "--set", "train.epoch_clips=320"]
    assert siser([*command, *short, "--set", "adversary.strength=2", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert siser([*command, "--preview", str(tmp_path / "preview.png")]) == 2
    assert "--preview plots log-mel features; features.front of this recipe is pixels" in capsys.readouterr().err
    assert siser([*command, "--set", "augment.noise=0.5", "--out", str(tmp_path / "out")]) == 2
    assert "augment.noise = 0.5: applies to audio only" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_an_interrupted_training_resumes_to_the_same_bits(demo, tmp_path, monkeypatch):
    command = ["train", str(PATH), "--data", str(demo[0] / "data"), "--device", "cpu", "--jobs", "1", "--seed", "3"]
    command += ["--set", "train.epochs=2", "--set", "train.epoch_clips=320", "--out", str(tmp_path / "cut")]
    steps, training_step = [], trainer.Trainer.training_step

    def interrupted(self, *batch):
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(training_step(self, *batch))

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(trainer.Trainer, "training_step", interrupted)
        assert siser(command) == 130
    assert not list((tmp_path / "cut").rglob("model.safetensors"))
    assert siser([*command, "--resume"]) == 0
    whole, resumed = (load_file(run / "folds/fixed/model.safetensors") for run in (demo[0] / "adversarial", tmp_path / "cut"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_speech_is_refused_by_a_recipe_for_images(prepared, tmp_path):
    longer = replace(prepared.utterances[0], samples=16000)
    speech = replace(prepared, utterances=(longer, *prepared.utterances[1:]))
    with pytest.raises(RecipeError, match="expects images of 8 rows .* has 16,000 samples .is this an audio corpus"):
        train(recipe(), speech, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_attackers_do_not_learn_from_clips_that_an_eraser_was_fitted_on(prepared, tmp_path, monkeypatch):
    """On those, the eraser leaves nothing to learn; the others may still differ."""
    parts = []
    monkeypatch.setattr(digits, "embed", lambda *given: parts.append(given[-1]) or embed(*given))
    for name in ("none", "leace"):
        settings = recipe("train.epochs=1", "train.epoch_clips=256", "train.probe_every=0", f"erase.name={name}")
        attack(train(settings, prepared, tmp_path / name, device="cpu"), prepared, "cpu", jobs=1)
    assert parts == [("train", "held_out"), ("held_out",)]
