"""What is shipped names nobody: no speaker, no file, no path of the machine, and infers as the run does."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import EMOTIONS, SPEAKERS, TEXTS, TINY, prepare_table
from helpers import occurrences
from reports import run_report

from speaker_invariant_ser import api
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.inference.exported import Export
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
    write_report(run_report(), run.folder / "report")
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
        tables.append(out.read_bytes())
    assert tables[0] == tables[1]
    assert api.predict(elsewhere, files, device="cpu") == api.predict(run, files, device="cpu")


def test_a_run_that_is_not_evaluated_is_exported_with_a_plain_card(trained, tmp_path):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    assert siser(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "Not evaluated" in (tmp_path / "out" / "README.md").read_text()


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
