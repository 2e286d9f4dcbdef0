"""The digits: what the overlays are, that no picture is on two sides, and that the whole road goes over them."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.demos import digits
from speaker_invariant_ser.demos.digits import (
    GROUPS,
    compare_with_twin,
    corpus_beside,
    outcome,
    overlays,
    without_adversary,
    write_corpus,
)
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.evaluation.evaluate import embed
from speaker_invariant_ser.features.log_mel import FRONTS
from speaker_invariant_ser.runs import kept
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.optimisation import build_model

PATH = Path(__file__).resolve().parents[2] / "recipes" / "digits.toml"
IMAGES, DIGIT = load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("digits") / "data")


def recipe(*overrides):
    return read_recipe(PATH, overrides)


def pictures(utterances):
    """Positions of all pictures in these overlays."""
    return [int(number) for one in utterances for number in one.id.split("+")]


def test_labels_are_what_the_pictures_show(prepared):
    for one in prepared.utterances:
        shown = sorted(DIGIT[pictures([one])].tolist())
        assert shown == ([0, int(one.speaker)] if one.emotion == "zero" else [int(one.speaker)] * 2), one


def test_every_digit_and_group_has_as_many_with_a_zero_as_without(prepared):
    counted = {}
    for one in prepared.utterances:
        cell = counted.setdefault((one.speaker, one.text), {"zero": 0, "none": 0})
        cell[one.emotion] += 1
    assert len(counted) == 9 * GROUPS and all(cell["zero"] == cell["none"] > 10 for cell in counted.values())
    assert len({one.id for one in prepared.utterances}) == len(prepared.utterances) == prepared.settings["counts"]["utterances"]
    assert len(set(pictures(prepared.utterances))) == len(DIGIT), "every picture is used"


def test_no_picture_is_on_two_sides(prepared):
    """Of digits trained on, selected by, tested, and kept aside; within a side they come again and again."""
    settings = recipe()
    (split,) = hold_out(make_splits(settings.split, prepared.utterances), prepared.utterances, settings.audit.holdout)
    sides = {}
    for part in ("train", "held_out", "dev", "test"):
        found = pictures(prepared.utterances[index] for index in split.indices(part, prepared.utterances))
        sides[part] = set(found)
        assert 100 < len(sides[part]) < len(found) / 2
    assert not any(sides[one] & sides[other] for one, other in combinations(sides, 2))
    assert set().union(*sides.values()) == set(range(len(DIGIT)))


def test_the_model_gets_the_brighter_of_both_pictures_the_right_way_up(prepared):
    model = build_model(recipe(), ("none", "zero"))
    for index in (0, 1234, len(prepared.utterances) - 1):
        over, under = IMAGES[pictures([prepared.utterances[index]])].reshape(2, 8, 8)
        samples, lengths = prepared.batch([index])
        mels, frames = model.logmel(torch.from_numpy(prepared.clip(index))[None], torch.from_numpy(lengths))
        assert frames.tolist() == [8] and mels.shape == (1, 8, 8)
        assert torch.allclose(mels[0] * 2**15 / 2000, torch.from_numpy(np.maximum(over, under)).float())
        assert np.array_equal(samples[0], (mels[0].T.flatten() * 2**15).numpy())


def test_pictures_of_several_widths_in_a_batch():
    front = FRONTS["pixels"](recipe().features, 16000)
    pixels = torch.arange(2 * 32.0).reshape(2, 32)
    mels, frames = front(pixels, torch.tensor([32, 16]))
    assert mels.shape == (2, 8, 4) and frames.tolist() == [4, 2] and mels[1, :, 0].tolist() == list(range(32, 40))
    widths = torch.arange(1, 10)
    assert torch.equal(1 + 8 * widths // front.hop, widths), "what training counts by"
    with pytest.raises(AssertionError, match="wider than it is counted"):
        front(torch.zeros(1, 80), torch.tensor([80]))


def test_the_overlays_are_the_same_every_time(prepared, tmp_path):
    again = write_corpus(tmp_path / "data")
    assert again.settings == prepared.settings
    assert overlays(DIGIT) == overlays(DIGIT) != overlays(DIGIT, seed=1)


def test_what_is_made_for_sound_is_refused():
    tables = {"features": {"front": "pixels", "mels": 8}}
    with pytest.raises(RecipeError, match=r"augment.tempo = 0.1, augment.warp = 0.1, .*expected 0 where features.front"):
        make_recipe(tables)
    with pytest.raises(RecipeError, match=r"augment.concatenate = 0.5: made for sound"):
        recipe("augment.concatenate=0.5")
    assert recipe("augment.mixup_within=0.5").augment.mixup_within == 0.5


def test_a_short_training_tells_a_zero_under_digits_it_has_not_met(prepared, tmp_path):
    settings = recipe("train.epochs=3")
    run = train(settings, prepared, tmp_path / "run", device="cpu")
    (fit,) = run.fits
    rows = fit.metrics()
    assert set(fit.split.train).isdisjoint(settings.split.dev + settings.split.test)
    assert kept(rows)["dev_uar"] > 0.8 and rows[-1]["emotion_accuracy"] > 0.9, "chance is a half"
    assert rows[-1]["adversary_accuracy"] < 0.4 < 0.6 < rows[-1]["attacker_accuracy"], (
        "what the adversary no longer sees is there"
    )


def test_the_twin_differs_by_the_adversary_alone(prepared, tmp_path):
    settings = recipe("train.epochs=1", "train.epoch_clips=256")
    run = train(settings, prepared, tmp_path / "run", device="cpu")
    with_it, without = compare_with_twin(run, prepared, device="cpu")
    twin = without_adversary(settings)
    assert (settings.adversary.strength, twin.adversary.strength) == (1.0, 0.0)
    assert twin.model_dump(exclude={"adversary"}) == settings.model_dump(exclude={"adversary"})
    assert [row["lambda"] for row in without.curves[0]] == [0] < [row["lambda"] for row in with_it.curves[0]]
    assert with_it.leak.speakers == without.leak.speakers == 5 and with_it.leak.decisions > 500
    assert without.number("dev_uar") == kept(without.curves[0])["dev_uar"] and without.number("nothing") is None
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    silent = train(twin, prepared, tmp_path / "silent", device="cpu")
    assert len(compare_with_twin(silent, prepared, device="cpu")) == 1, "without an adversary there is no twin"


SHORT = ["--device", "cpu", "--jobs", "1", "--quiet", "--set", "train.epochs=2", "--set", "train.epoch_clips=320"]


def command(out, *more):
    return ["train", str(PATH), "--out", str(out), *SHORT, *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert siser(command(out)) == 0
    return out


def test_no_data_is_needed_and_the_road_goes_on(run, capsys):
    assert {"recipe.toml", "folds", "curves.png", "twin"} <= {path.name for path in run.iterdir()}
    before = (run / "folds" / "fixed" / "metrics.csv").stat().st_mtime_ns
    assert siser(command(run, "--resume")) == 0, "which trains nothing and tells all again"
    shown = " ".join(capsys.readouterr().out.split())
    assert "a zero: digits trained on" in shown and "by a fresh attacker" in shown and "the other digit of 5" in shown
    assert (run / "folds" / "fixed" / "metrics.csv").stat().st_mtime_ns == before
    assert siser(["evaluate", str(run), "--quick", "--device", "cpu", "--jobs", "1", "--quiet"]) == 0
    report = json.loads((run / "report" / "report.json").read_text())
    assert set(report["emotion"]["per_speaker"]) == {"4", "9"} and report["speaker"]["speakers"] == 5
    assert "claim nothing about speech" in report["note"]


def test_cut_short_it_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    taken, take_step = [], trainer.Training.take_step

    def stopping(self, *batch):
        if len(taken) == 7:
            raise KeyboardInterrupt
        taken.append(take_step(self, *batch))

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY", 0.0)
        patch.setattr(trainer.Training, "take_step", stopping)
        assert siser(command(tmp_path / "cut")) == 130
    assert not list((tmp_path / "cut").rglob("model.safetensors"))
    shutil.rmtree(tmp_path / "cut-data")  # it is made again, the same
    assert siser(command(tmp_path / "cut", "--resume")) == 0
    for place in ("folds/fixed", "twin/folds/fixed"):
        whole, cut = (load_file(folder / place / "model.safetensors") for folder in (run, tmp_path / "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--set", "encoder.name=imag"], "unknown encoder.name 'imag', did you mean 'image'"),
        (["--set", "split.test=['0']"], "unknown speaker '0'"),
        (["--set", "augment.noise=0.5"], "augment.noise = 0.5: made for sound"),
        (["--set", "features.mels=16"], "features.mels = 16: the digits have 8 rows, expected 8"),
        (["--preview", "seen.png"], "--preview draws log-mels"),
    ],
)
def test_a_wrong_request_leaves_nothing(more, message, tmp_path, capsys):
    assert siser(command(tmp_path / "out", *more)) == 2
    told = capsys.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sound_is_no_picture(prepared, tmp_path):
    longer = replace(prepared.utterances[0], samples=16000)
    sound = replace(prepared, utterances=(longer, *prepared.utterances[1:]))
    with pytest.raises(RecipeError, match="has 16000 samples, which are no picture of 8 rows .*expected the digits"):
        train(recipe(), sound, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_not_touched(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert siser(command(tmp_path / "out")) == 2
    assert "exists already" in capsys.readouterr().err and [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]
    (tmp_path / "other-data").mkdir()
    assert siser(command(tmp_path / "other")) == 2
    assert "other-data is not a prepared corpus" in capsys.readouterr().err
    assert siser(["infer", str(run), str(PATH), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]) == 2
    assert "was trained on pictures, not on sound" in capsys.readouterr().err


def test_several_processes_are_told_to_bring_their_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("RANK", "0")
    assert siser(command(tmp_path / "out")) == 2
    assert "expected --data FOLDER" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_corpus_goes_if_no_run_comes_of_it(tmp_path):
    with pytest.raises(ZeroDivisionError), corpus_beside(tmp_path / "run") as made:
        assert made.folder == tmp_path / "run-data"
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with corpus_beside(tmp_path / "run") as made:
        (tmp_path / "run").mkdir()
    assert made.folder.is_dir()


def test_attackers_learn_from_no_clip_that_an_eraser_was_fitted_on(prepared, tmp_path, monkeypatch):
    """It has made all alike on these, so that they teach nothing of others."""
    asked = []
    monkeypatch.setattr(digits, "embed", lambda *given: asked.append(given[-1]) or embed(*given))
    for name in ("none", "leace"):
        settings = recipe("train.epochs=1", "train.epoch_clips=256", "train.probe_every=0", f"erase.name={name}")
        outcome(name, train(settings, prepared, tmp_path / name, device="cpu"), prepared, "cpu", 1)
    assert asked == [("train", "held_out"), ("held_out",)]
