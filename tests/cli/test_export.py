"""What is shipped names nobody: no speaker, no file, no path of the machine, and infers as the run does."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from conftest import EMOTIONS, SPEAKERS, TEXTS, TINY, prepare_table
from helpers import occurrences
from reports import put_report, run_report

from speaker_invariant_ser import api
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.summary import RunReport
from speaker_invariant_ser.inference.exported import Export
from speaker_invariant_ser.report.card import render_card
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.training.launcher import train

NAMES = {name: f"Speaker-{name}-Annegret" for name in SPEAKERS}


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of named speakers with a report; the path of an evaluated one is looked for in test_pipeline.py."""
    home = tmp_path_factory.mktemp("private-home")
    named = prepare_table(
        folder / "corpus.csv",
        home / "corpora" / "secret-data",
        lambda utterances: [replace(u, speaker=NAMES[u.speaker], id=f"private-{u.id}") for u in utterances],
    )
    recipe = {**TINY, "split": {"scheme": "fixed", "test": [NAMES["05"], NAMES["06"]], "dev": [NAMES["03"]]}}
    run = train(make_recipe({**recipe, "train": {"epochs": 1}}), named, home / "runs" / "run", device="cpu")
    write_report(RunReport.model_validate(put_report(run, run_report().to_json())), run.folder / "report")
    return run


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    assert siser(["export", str(run.folder), "--out", str(out), "--licence", "cc0-1.0"]) == 0
    return out


def test_a_run_that_moved_away_from_its_corpus_says_so(run, tmp_path, capsys):
    moved = shutil.copytree(run.folder, tmp_path / "moved")
    assert siser(["evaluate", str(moved)]) == 2
    assert "secret-data is not a prepared corpus (does not exist)" in capsys.readouterr().err
    record = json.loads((moved / "split.json").read_text())
    (moved / "split.json").write_text(json.dumps({**record, "data": ""}))
    assert siser(["evaluate", str(moved)]) == 2
    assert "does not say where its prepared corpus is: name it with --data FOLDER" in capsys.readouterr().err


def test_an_export_names_no_speaker_no_utterance_and_no_path(run, exported):
    secrets = "Annegret|private|secret-data|held_out|_level_|" + "|".join(map(re.escape, (str(run.folder), str(run.data))))
    assert occurrences(run.folder, secrets), "they are in the run"
    assert occurrences(exported, secrets) == []
    names = {"README.md", "export.json", "models/1/model.json", "models/1/model.safetensors"}
    assert set(occurrences(exported, "")) == names
    card = (exported / "README.md").read_text()
    assert 'license: "cc0-1.0"' in card and "UAR" in card


def test_an_export_infers_as_its_run_does(run, exported, folder, tmp_path):
    files = [folder / f"05_{emotion}_{text}.wav" for emotion in EMOTIONS for text in TEXTS[:1]]
    elsewhere = shutil.copytree(exported, tmp_path / "elsewhere")
    tables = []
    for source in (run.folder, elsewhere):
        out = tmp_path / f"{source.name}.csv"
        assert siser(["infer", str(source), *map(str, files), "--out", str(out), "--device", "cpu"]) == 0
        tables.append(out.read_text().replace(f",{source},", ",MODEL,"))
    assert tables[0] == tables[1] and tables[0].count(",MODEL,") == len(files)
    rows = [api.predict(source, files, device="cpu") for source in (elsewhere, run)]
    assert [{**row, "model": ""} for row in rows[0]] == [{**row, "model": ""} for row in rows[1]]


def test_the_card_of_a_run_that_is_not_evaluated_says_so(trained, tmp_path, capsys):
    run, moved = shutil.copytree(trained.folder, tmp_path / "run"), tmp_path / "moved" / "run"
    assert siser(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert siser(["card", str(run)]) == 0
    exported, printed = (tmp_path / "out" / "README.md").read_text(), capsys.readouterr().out
    for card in (exported, printed):
        for part in (
            "Not evaluated: ",
            "Its confidence is calibrated",
            "Not measured. ",
            "It knows 4 speakers",
            "; 2 more were",
            "## Not to be used",
        ):
            assert part in card, part
        assert "model-index" not in card and "UAR" not in card
    moved.parent.mkdir()
    run.rename(moved)
    record = json.loads((moved / "split.json").read_text())
    (moved / "split.json").write_text(json.dumps({**record, "corpora": []}))  # as before the run said so itself
    assert siser(["card", str(moved)]) == 0
    assert "Not known: the run is not evaluated, and its prepared corpus is not where it was" in capsys.readouterr().out


def test_the_card_of_a_run_that_could_not_be_audited_has_its_emotions_and_the_reason(run, tmp_path):
    report = json.loads((run.folder / "report" / "report.json").read_text())
    unaudited = {key: report[key] for key in ("run", "note", "verdict", "emotion", "settings", "baseline")}
    copy = shutil.copytree(run.folder, tmp_path / "run")
    (copy / "report" / "report.json").write_text(json.dumps({**unaudited, "unaudited": "too few utterances", "speaker": None}))
    out = tmp_path / "README.md"
    assert siser(["card", str(copy), "--out", str(out), "--licence", "mit"]) == 0
    card = out.read_text()
    assert "UAR of the worst speaker" in card and "Not measured: too few utterances." in card and 'license: "mit"' in card
    assert yaml.safe_load(card.split("---")[1])["model-index"][0]["results"][0]["metrics"][0]["value"] > 0


def test_the_card_of_a_known_corpus_says_who_recorded_it_and_what_the_model_knows(run, tmp_path, capsys):
    report = run_report()
    known = report.model_copy(update={"settings": report.settings.model_copy(update={"corpora": ["emodb", "mine"]})})
    splits = [replace(run.splits[0], name=name, train=train, dev=(), test=test) for name, train, test in FOLDS]
    for folds, part in (
        (splits, "together they know all 4 speakers"),
        ([replace(splits[0], test=())], "It knows all 2 speakers of"),
    ):
        card = render_card(several(run, folds), known, "other", "name")
        metadata = yaml.safe_load(card.split("---")[1])
        assert metadata["language"] == ["de"] and metadata["model-index"][0]["results"][0]["dataset"]["type"] == "emodb-mine"
        assert part in card and "**EMO-DB**, recorded and described by Burkhardt" in card
        assert "**mine**, own data of whoever trained the model. Licence: not known to the program." in card
        assert "strongest attacker" in card and "chance, given the emotion" in card and "baseline: " in card


@pytest.mark.parametrize(
    "at_chance, reason, end",
    [
        (False, "balanced", "Embeddings are personal data."),
        (True, "within", "This is no proof of anonymity."),
        ("undecided", "few", "Treat embeddings as personal data."),
    ],
)
def test_the_card_says_of_the_speaker_what_the_verdict_says(at_chance, reason, end, run):
    """Also what an average at chance hides, such as one speaker, or several utterances of one."""
    spoken = "only one speaker is recognised, and from 10 utterances everybody"
    report = run_report()
    speaker = report.speaker.model_copy(update={"at_chance": at_chance, "reason": reason})
    report = report.model_copy(update={"speaker": speaker, "verdict": [report.verdict[0], f"{spoken}."]})
    assert f"{spoken}. {end}" in render_card(run, report, "other", "name")


def test_the_card_of_one_of_several_models_says_that_the_numbers_are_of_all(run):
    splits = [replace(run.splits[0], name=name, train=train, dev=(), test=test) for name, train, test in FOLDS]
    models = several(run, splits)
    card = render_card(models, run_report(), "other", "name", single=models.trained_models()[0])
    assert "These numbers are of 2 models of the same recipe" in card and "| weights | 1 model, " in card
    assert "It knows 2 speakers of these recordings; 2 more were neither" in card


@pytest.mark.parametrize(
    "release, row",
    [
        ({"name": "none"}, None),
        ({"name": "codes", "cells": 8}, "one of 8 codes: embedding and probabilities are those of the code"),
        ({"name": "decision"}, "the predicted emotion alone: all its recordings have the same embedding and probabilities"),
    ],
)
def test_the_card_says_that_codes_or_decisions_are_all_that_leaves_the_model(release, row, run, tmp_path):
    folder = shutil.copytree(run.model_specs[0].folder, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "release": release}))
    models = SimpleNamespace(trained_models=lambda: [replace(run.model_specs[0], folder=folder)])
    card = render_card(models, run_report(), "other", "name")
    assert (f"| what leaves the model | {row} |" in card) if row else "what leaves the model" not in card


@pytest.mark.parametrize(
    "streams, said",
    [
        (["log-mel"], "alone: no pre-trained model and no other data went in.\n"),
        (
            ["log-mel", "prosody"],
            "alone; but its input F0 is from a tracker (swift-f0) that its publisher trained on other\nrecordings.\n",
        ),
    ],
)
def test_the_card_says_that_f0_is_from_a_network_trained_elsewhere(streams, said, run, tmp_path):
    folder = shutil.copytree(run.model_specs[0].folder, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    described["features"]["streams"] = streams
    (folder / "model.json").write_text(json.dumps(described))
    models = SimpleNamespace(trained_models=lambda: [replace(run.model_specs[0], folder=folder)])
    assert said in render_card(models, run_report(), "other", "name")


@pytest.mark.parametrize(
    "temperature, measured, said",
    [
        (1.5, True, "Confidence is calibrated by temperature: expected calibration error 3.1 %"),
        (1.5, False, "what that changes on unseen speakers was not measured. Expected calibration error before:"),
        (None, True, "Confidence is not calibrated: expected calibration error"),  # `evaluate` fits temperatures of its own
        (None, False, "Confidence is not calibrated: expected calibration error"),
    ],
)
def test_the_card_calls_confidence_calibrated_where_the_model_has_a_temperature(temperature, measured, said, run, tmp_path):
    report = run_report()
    if not measured:
        calibration = report.emotion.calibration.model_copy(update={"temperatures": {}, "after": None})
        report = report.model_copy(update={"emotion": report.emotion.model_copy(update={"calibration": calibration})})
    folder = shutil.copytree(run.model_specs[0].folder, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "temperature": temperature}))
    models = SimpleNamespace(trained_models=lambda: [replace(run.model_specs[0], folder=folder)])
    assert said in render_card(models, report, "other", "name")


FOLDS = (("1", ("a", "b"), ("c", "d")), ("2", ("c", "d"), ("a", "b")))


def several(run, splits):
    """A run with these folds, whose models are all that of the given one."""
    specs = [replace(run.model_specs[0], split=split, name=split.name) for split in splits]
    return SimpleNamespace(trained_models=lambda: specs)


def test_the_card_of_an_export_is_the_one_that_comes_with_it(run, exported, tmp_path, capsys):
    assert siser(["card", str(exported)]) == 0
    assert capsys.readouterr().out == (exported / "README.md").read_text()
    assert siser(["card", "emodb-five"]) == 0 and "# emodb-five" in capsys.readouterr().out
    (tmp_path / "README.md").touch()
    large = shutil.copytree(exported, tmp_path / "large")
    (large / "README.md").write_bytes(b" " * 10_000_001)
    bare = shutil.copytree(exported, tmp_path / "bare", ignore=shutil.ignore_patterns("README.md"))
    for words, message in (
        ([str(bare)], "bare has no README.md: expected a run, or a folder that `siser export` wrote"),
        ([str(large)], "README.md cannot be read as a model card (10 MB, expected at most 10 MB)"),
        ([str(run.folder / "folds" / "fixed")], "fixed has no README.md: expected a run"),
        (["model.onnx"], "model.onnx: an ONNX file has no card: expected the run that it was exported from"),
        ([str(tmp_path / "none")], "none is not a run folder (does not exist)"),
        ([str(exported), "--licence", "mit"], "--evaluated, --licence and --training-data are for the card of a run"),
        ([str(run.folder), "--out", str(tmp_path / "README.md")], "exists already: choose another --out"),
    ):
        assert siser(["card", *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_export_refuses_what_is_not_a_new_folder_and_an_untrained_fold(run, exported, tmp_path, capsys):
    assert siser(["export", str(run.folder), "--out", str(exported)]) == 2
    assert "exists already: choose another --out" in capsys.readouterr().err
    half = shutil.copytree(run.folder, tmp_path / "half")
    shutil.rmtree(half / "folds" / "fixed")
    assert siser(["export", str(half), "--out", str(tmp_path / "new")]) == 2
    assert "1 of 1 fold not trained" in capsys.readouterr().err and not (tmp_path / "new").exists()


def add_label(path):
    described = json.loads((path / "models/1/model.json").read_text())
    (path / "models/1/model.json").write_text(json.dumps({**described, "labels": described["labels"][::-1]}))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda path: shutil.rmtree(path / "models" / "1"), "models/1/model.json is missing, one of the 1 of the export"),
        (add_label, "models/1/model.json was changed since it was exported"),
        (lambda path: (path / "export.json").write_text('{"format": 1, "models": {"../x": "0"}}'), "export.json is damaged"),
        (lambda path: (path / "export.json").write_text("[" * 10**5), "export.json is damaged"),
    ],
)
def test_a_damaged_export_is_refused(change, message, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    change(copy)
    with pytest.raises(RunError, match=message):
        Export.open(copy)


def test_an_export_has_no_folds(exported, folder, tmp_path, capsys):
    command = ["infer", str(exported), str(folder / "05_level_a.wav"), "--out", str(tmp_path / "p.csv"), "--fold", "fixed"]
    assert siser(command) == 2
    assert "--fold fixed: " in capsys.readouterr().err
