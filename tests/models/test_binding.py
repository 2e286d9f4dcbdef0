"""A run that was changed by hand since training is refused; runs of versions without hashes open with a note."""

import json
import shutil
import tomllib

import pytest
from helpers import without_hashes
from safetensors.torch import load_file, save_file

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.files import portable_path, sha256
from speaker_invariant_ser.models.binding import digest
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import train

FOLD = "folds/fixed"
MODEL, WEIGHTS, SPLIT = f"{FOLD}/model.json", f"{FOLD}/model.safetensors", "split.json"


def edit(name):
    """Return a decorator for a function that changes the content of a JSON file of a run."""

    def decorate(change):
        def apply(run):
            content = json.loads((run / name).read_text())
            change(content)
            (run / name).write_text(json.dumps(content))

        return apply

    return decorate


@edit(SPLIT)
def swap_test_and_train(record):
    fold = record["folds"][0]
    fold["test"], fold["train"] = fold["train"][:2], [*fold["test"], *fold["train"][2:]]


@edit(SPLIT)
def empty_held_out(record):
    record["folds"][0]["held_out"] = []


@edit(SPLIT)
def other_data(record):
    record["sha256"]["audio.i16"] = "0" * 64


@edit(SPLIT)
def repeat_fold(record):
    record["folds"] *= 2


@edit(SPLIT)
def name_by_a_list(record):
    record["folds"][0]["name"] = ["fixed"]


@edit(MODEL)
def permute_labels(described):
    described["labels"] = described["labels"][1:] + described["labels"][:1]


@edit(MODEL)
def change_hop(described):
    described["features"]["hop_ms"] = 10.0


@edit(MODEL)
def remove_entry(described):
    del described["emotion"]


@edit(MODEL)
def remove_hashes(described):
    del described["sha256"]


@edit(MODEL)
def damage_hashes(described):
    described["sha256"]["run"] = [1]


@edit(MODEL)
def remove_hashes_of_files(described):
    described["sha256"]["files"] = {}


def foreign_file(name):
    """Return a change by which model.json names a file that is not beside it."""

    @edit(MODEL)
    def apply(described):
        described["sha256"]["files"][name] = "0" * 64

    return apply


def weights_changed(change):
    def apply(run):
        save_file({name: change(value) for name, value in load_file(run / WEIGHTS).items()}, run / WEIGHTS)

    return apply


def edit_recipe(run):
    text = (run / "recipe.toml").read_text()
    assert "holdout = 0.1" in text
    (run / "recipe.toml").write_text(text.replace("holdout = 0.1", "holdout = 0.2"))


def edit_metrics(run):
    path = run / FOLD / "metrics.csv"
    path.write_text(path.read_text().replace("0.", "0.9", 1))


CHANGES = {
    "test and train swapped": (swap_test_and_train, f"{SPLIT}: fixed: train = .* is not what .*{MODEL} was trained with"),
    "held_out emptied": (empty_held_out, rf"{SPLIT}: fixed: held_out = \[\] is not what"),
    "other data": (other_data, rf"{SPLIT}: sha256 = .* is not what"),
    "a fold twice": (repeat_fold, "expected names as texts, and every fold once"),
    "a list as a name": (name_by_a_list, "expected names as texts, and every fold once"),
    "permuted labels": (permute_labels, rf"{MODEL}: labels = \[.*\] is not what"),
    "another hop": (change_hop, rf"{MODEL}: features = \{{.* is not what"),
    "an entry removed": (remove_entry, "was trained with emotion, which was removed since"),
    "hashes removed": (remove_hashes, f"{MODEL} has no sha256, which every model of this run was written with"),
    "damaged hashes": (damage_hashes, f"{MODEL} is damaged: sha256 = .*, expected hashes of files, model and run"),
    "no hashes of files": (remove_hashes_of_files, f"{MODEL} is damaged: it has no hash of model.safetensors"),
    "a file above": (
        foreign_file("../../recipe.toml"),
        'sha256.files has "../../recipe.toml", expected names of files beside it',
    ),
    "an absolute file": (foreign_file("/etc/passwd"), 'sha256.files has "/etc/passwd", expected names'),
    "the folder above": (foreign_file(".."), r"sha256.files has \"\.\.\", expected names"),
    "int weights": (weights_changed(lambda value: value.int()), f"{WEIGHTS} is damaged or was changed since training"),
    "a flipped sign": (weights_changed(lambda value: -value), "its SHA-256 is .*, expected .* by model.json; restore it"),
    "recipe": (edit_recipe, r"recipe.toml: recipe.toml: audit = \{.* is not what"),
    "metrics": (edit_metrics, "metrics.csv is damaged or was changed since training"),
}


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "run")


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_a_run_that_was_changed_since_training_is_refused(change, message, run):
    Run.open(run)
    change(run)
    with pytest.raises(RunError, match=message):
        Run.open(run)


@pytest.mark.parametrize("command", ["evaluate {run}", "infer {run} {folder} --out {tmp}/p.csv", "compare {run}", "train"])
def test_every_command_checks_a_run(command, run, folder, prepared, tmp_path, capsys):
    shutil.copyfile(run / "recipe.toml", tmp_path / "recipe.toml")
    swap_test_and_train(run)
    command += " {tmp}/recipe.toml --data {data} --out {run} --resume" * (command == "train")
    assert siser(command.format(run=run, folder=folder, tmp=tmp_path, data=prepared.folder).split()) == 2
    assert "is not what" in capsys.readouterr().err and not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("change, message", [CHANGES[name] for name in ("permuted labels", "another hop", "a flipped sign")])
def test_a_model_alone_checks_what_it_holds(change, message, run):
    change(run)
    with pytest.raises(RunError, match=message):
        load_model(run / FOLD)


def test_a_run_without_hashes_opens_with_a_note(run, folder, tmp_path, capsys):
    without_hashes(run)
    assert Run.open(run).unbound == ("fixed",)
    assert siser(["infer", str(run), str(folder / "05_level_a.wav"), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]) == 0
    assert f"warning: {run}: 1 of 1 model without hashes" in capsys.readouterr().err
    save_file({name: value.int() for name, value in load_file(run / WEIGHTS).items()}, run / WEIGHTS)
    with pytest.raises(RunError, match=r"model.safetensors is damaged: .* is torch.int32, expected torch.float32"):
        load_model(run / FOLD)


def test_models_of_two_folds_that_change_places_are_noticed(prepared, tmp_path):
    tiny = {"train": {"epochs": 1}, "features": {"mels": 16}, "encoder": {"channels": [4], "dim": 4}}
    run = train(
        make_recipe({**tiny, "split": {"scheme": "group-kfold", "folds": 2, "dev_speakers": 1}}),
        prepared,
        tmp_path / "run",
        device="cpu",
    )
    folds = tmp_path / "run" / "folds"
    for old, new in (("1", "x"), ("2", "1"), ("x", "2")):
        (folds / old).rename(folds / new)
    with pytest.raises(RunError, match=r"split.json: 1: name = .* was removed since|split.json: 1: name = \"1\" is not what"):
        Run.open(run.folder)


def test_hashes_are_the_same_on_every_machine(trained):
    """The hash of a fixed value, and of values read from files, whatever their line ends and the order of their keys."""
    assert digest({"b": [0.1, 1e-7, "ä"], "a": None}) == "a84e7625dd56bfbebe3ad58aabecd559c302feae8702e7d470533b7c2990d981"
    toml = write_toml(trained.recipe)
    assert digest(tomllib.loads(toml.replace("\n", "\r\n"))) == digest(tomllib.loads(toml)) == digest(trained.table)


@pytest.mark.parametrize(
    "data, run, stored",
    [
        ("/home/ann/data/x", "/home/ann/runs/a", "../../data/x"),
        ("/mnt/data/x", "/mnt/runs/a", "../../data/x"),
        ("/home/ann/data/x", "/mnt/runs/a", "~/data/x"),
        ("/mnt/ann/x", "/home/ann/runs/a", ""),
        ("/home/bob/data/x", "/home/ann/runs/a", ""),
    ],
)
def test_a_run_stores_no_absolute_path_and_no_user_name(data, run, stored, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert portable_path(data, run) == stored


@pytest.mark.parametrize("place", ["report", "report-quick", "folds"])
def test_no_command_writes_through_a_link_in_a_run(place, run, prepared, tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(run / place, ignore_errors=True)
    (run / place).symlink_to(outside)
    shutil.copyfile(run / "recipe.toml", tmp_path / "recipe.toml")
    command = f"train {tmp_path}/recipe.toml --out {run} --resume" if place == "folds" else f"evaluate {run}"
    assert siser([*command.split(), "--data", str(prepared.folder), "--device", "cpu"]) == 2
    assert f"error: {run / place} is a link, to which this command would write" in capsys.readouterr().err
    assert not any(outside.iterdir())


def test_a_folder_in_place_of_a_file_of_the_report_is_an_error_before_the_work(run, prepared, capsys):
    shutil.rmtree(run / "report", ignore_errors=True)
    (run / "predictions.csv").unlink(missing_ok=True)
    (run / "report" / "report.html").mkdir(parents=True)
    assert siser(["evaluate", str(run), "--data", str(prepared.folder), "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: cannot write {run}/report/report.html: a folder of that name exists\n" and not captured.out
    assert not (run / "predictions.csv").exists()


def test_a_run_is_bound_to_the_f0_that_it_was_trained_with(prepared_f0, tmp_path):
    """Another tracker, or another person's file, gives other F0 of the same audio, with a hash that fits."""
    features = {"streams": ["log-mel", "prosody"], "hop_ms": 16.0, "mels": 24}
    recipe = make_recipe(
        {"split": {"scheme": "fixed", "test": ["05", "06"], "dev": ["03"]}, "features": features, "encoder": {"name": "fusion"}}
    )
    splits = make_splits(recipe.split, prepared_f0.utterances)
    run = Run.create(tmp_path / "run", recipe, splits, prepared_f0)
    assert run.facts(run.model_specs[0])["f0.f32"] == prepared_f0.settings["sha256"]["f0.f32"]  # which go into model.json
    data = shutil.copytree(prepared_f0.folder, tmp_path / "data")
    Run.open(run.folder).open_data(data)
    content = bytearray((data / "f0.f32").read_bytes())
    content[: len(content) // 2] = content[len(content) // 2 :][: len(content) // 2]
    (data / "f0.f32").write_bytes(content)
    settings = json.loads((data / "prepare.json").read_text())
    settings["sha256"]["f0.f32"] = sha256(data / "f0.f32")
    (data / "prepare.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match=r"run was trained with other F0 than .*data/f0.f32 holds \(SHA-256 .*\); restore it from"):
        Run.open(run.folder).open_data(data)
    record = json.loads((run.folder / SPLIT).read_text())
    del record["f0.f32"]  # as in runs of earlier versions
    (run.folder / SPLIT).write_text(json.dumps(record))
    Run.open(run.folder).open_data(data)
