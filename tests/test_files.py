"""What a result replaces: files of its own names and nothing else, whoever made the folder."""

import json
import os
from pathlib import Path

import pytest
from reports import run_report, table_report

from speaker_invariant_ser import files, json_files, processes
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.options import require_former_report
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.data.tables.columns import read_columns
from speaker_invariant_ser.data.tables.custom import Request
from speaker_invariant_ser.data.tables.custom_formats import read_datasets
from speaker_invariant_ser.demos.folder import MARK
from speaker_invariant_ser.errors import ManifestError, RunError, SerError, WriteError
from speaker_invariant_ser.evaluation.summary import REPORT_FILES, read_report
from speaker_invariant_ser.inference.exported import Export
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.inference.parts.segments import read_segments
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.runs import ModelSpec
from speaker_invariant_ser.studies.measure import remove_run
from speaker_invariant_ser.studies.results import read_result

PACKAGE = Path(files.__file__).parent
OWN = {"notes.md": "mine", "report.json.bak": "mine", "thesis/chapter.tex": "mine"}


def with_own_files(folder: Path, own=tuple(OWN)) -> Path:
    for name in own:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(OWN[name])
    return folder


def assert_own_files(folder: Path, own=tuple(OWN)) -> None:
    assert {name: (folder / name).read_text() for name in own} == {name: OWN[name] for name in own}


def test_a_new_report_replaces_the_names_of_a_report_and_keeps_all_others(tmp_path):
    write_report(run_report(), tmp_path / "report")
    with_own_files(tmp_path / "report")
    assert (tmp_path / "report" / "confusion.png").exists()
    write_report(table_report(), tmp_path / "report")
    assert_own_files(tmp_path / "report")
    assert not (tmp_path / "report" / "confusion.png").exists(), "a plot that the new report does not have"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["emotion"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"], "nothing temporary is left"


def test_a_failed_report_leaves_the_former_one(tmp_path):
    before = write_report(table_report(), tmp_path).read_bytes()
    with pytest.raises(KeyError), files.replaced_files(tmp_path, REPORT_FILES) as partial:
        (partial / "report.html").write_text("half")
        raise KeyError
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_report_that_was_interrupted_while_it_got_its_name_is_known_as_one(tmp_path, monkeypatch):
    """The folder was new; the next call would otherwise refuse the part that is in it."""

    def interrupted(source, target):
        os.rename(source, target)
        if Path(target).parent.name == "out":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(table_report(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    require_former_report(tmp_path / "out")


@pytest.mark.parametrize("own", [*OWN, "report.json alone"])
@pytest.mark.parametrize("command", ["audit {tmp}/table.csv", "compare {tmp}/run", "baseline {tmp}/data"])
def test_a_folder_that_is_not_a_former_report_alone_is_refused(command, own, tmp_path, capsys):
    if own == "report.json alone":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "report.json").write_text('{"totals": {"lines": 5}}')
    else:
        write_report(table_report(), tmp_path / "out")
        with_own_files(tmp_path / "out", [own])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert siser([*command.format(tmp=tmp_path).split(), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "out") in error and "choose another --out; only a former report is replaced" in error
    assert own == "report.json alone" or own.split("/")[0] in error
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(WriteError, match="a part of the path is a file, not a folder"):
        write_report(table_report(), tmp_path / "report")
    assert (tmp_path / "report").read_text() == "mine"


@pytest.mark.parametrize("digits", [(), ("--digits",)])
def test_a_demo_removes_nothing_but_a_former_demo(digits, tmp_path, capsys):
    (tmp_path / MARK).touch()
    (tmp_path / "adversarial").mkdir()
    with_own_files(tmp_path)
    assert siser(["demo", *digits, "--out", str(tmp_path)]) == 2
    assert (
        "holds notes.md, report.json.bak, thesis: choose another --out; only a former demo is replaced" in capsys.readouterr().err
    )
    assert (tmp_path / "adversarial").exists()
    assert_own_files(tmp_path)


@pytest.mark.parametrize("digits", [(), ("--digits",)])
def test_a_demo_does_not_remove_what_another_one_is_computing(digits, tmp_path, capsys):
    (tmp_path / "out" / "corpus").mkdir(parents=True)
    (tmp_path / "out" / ".siser-demo").touch()
    with files.held(tmp_path / "out"):
        assert siser(["demo", *digits, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "out: another process is writing it" in capsys.readouterr().err and (tmp_path / "out" / "corpus").is_dir()


def test_a_study_removes_a_run_and_nothing_else(tmp_path):
    for name in ("recipe.toml", "split.json", "folds/1/metrics.csv", "predictions.csv", "report/report.json", "tensorboard/1/e"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).touch()
    with_own_files(tmp_path / "run")
    with_own_files(tmp_path / "run" / "report")
    remove_run(tmp_path / "run")
    assert_own_files(tmp_path / "run")
    assert_own_files(tmp_path / "run" / "report")
    for name in ("notes.md", "report.json.bak", "report", "thesis"):
        files.remove_known(tmp_path / "run", [name])
    assert not (tmp_path / "run").exists(), "with nothing else in it, the folder is removed as well"


def test_folders_are_removed_in_few_places():
    """Whoever adds one shows here that it cannot meet a user's folder: checkpoints and trials are hidden or in a sweep."""
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "rmtree(" in path.read_text()}
    assert modules == {"files.py", "training/checkpoints.py", "studies/sweep.py"}


READERS = {
    "table": lambda path: read_columns(path.with_suffix(".parquet"), {}),
    "segments": lambda path: read_segments(path.with_suffix(".rttm")),
    "model": lambda path: load_model(path.parent),
    "ONNX file": lambda path: OnnxModel(path.with_suffix(".onnx")),
    "report": lambda path: read_report(path.parent),
    "result of a study": lambda path: read_result(path),
    "labels of IEMOCAP": lambda path: list_corpus(get_corpus("iemocap"), path.parent),
    "dataset": lambda path: read_datasets(Request(path.parent)),
    "hashed file": files.sha256,
}
NAMES = {
    "table": "x.parquet",
    "segments": "x.rttm",
    "model": "model.json",
    "ONNX file": "x.onnx",
    "report": "report/report.json",
    "labels of IEMOCAP": "EmoEvaluation/x.txt",
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_and_devices_are_not_read(tmp_path, name):
    """Reading a pipe could block for ever, and /dev/zero does not end; /dev/null stands for both here."""
    if name == "dataset":
        pytest.importorskip("datasets")
    device = tmp_path / NAMES.get(name, "x")
    device.parent.mkdir(exist_ok=True)
    device.symlink_to("/dev/null")
    with pytest.raises(SerError, match=f"^{device} is not a regular file: a pipe, .* write the content into a file"):
        READERS[name](tmp_path / "x")


def too_large(path: Path, size: int) -> Path:
    """Write an empty file of a size; what is too large is refused before it is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def test_the_size_of_texts_is_limited(tmp_path):
    (tmp_path / "x.rttm").write_text(";; comment\n" * 500)  # nothing but zeros would be refused as such
    os.truncate(tmp_path / "x.rttm", 201_000_000)
    with pytest.raises(ManifestError, match=r"x.rttm cannot be read as RTTM \(201 MB, expected at most 200 MB\)"):
        read_segments(tmp_path / "x.rttm")


def test_files_that_are_too_large_for_what_they_hold_are_refused(tmp_path):
    too_large(tmp_path / "model.json", 11_000_000)
    with pytest.raises(RunError, match="model.json is damaged: 11 MB, expected at most 10 MB"):
        load_model(tmp_path)
    too_large(tmp_path / "export.json", 11_000_000)
    with pytest.raises(RunError, match="export.json is damaged .11 MB, expected at most 10 MB"):
        Export.open(tmp_path)
    too_large(tmp_path / "metrics.csv", 101_000_000)
    with pytest.raises(RunError, match="metrics.csv is damaged or missing: 101 MB, expected at most 100 MB"):
        ModelSpec(Split("a", ("1", "2"), (), ("3",)), 0, "a", tmp_path).metrics()


def test_json_that_takes_more_memory_than_there_is_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "available_memory", lambda: 20_000_000)
    monkeypatch.setattr(json_files.json, "loads", lambda *_, **__: bytearray(500_000_000))
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(MemoryError):
        json_files.read_json(tmp_path / "split.json")
