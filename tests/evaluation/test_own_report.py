"""A report that was copied from another run is refused where it is compared, or shown on a card."""

import shutil

import pytest
from reports import of_run, run_report

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.evaluation.comparison import report_of
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.files import write_json
from speaker_invariant_ser.runs import Run


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> Run:
    return Run.open(shutil.copytree(trained.folder, tmp_path_factory.mktemp("own") / "run"))


def write(run: Run, **settings) -> None:
    """Write an invented report of the run, with settings of another."""
    content = of_run(run_report().to_json(), run)
    (run.folder / "report").mkdir(exist_ok=True)
    write_json(run.folder / "report" / "report.json", {**content, "settings": {**content["settings"], **settings}})


def test_the_own_report_is_read_also_with_keys_of_other_versions(run):
    recipe = recipe_without_path(run.recipe)
    recipe["train"] = {**recipe["train"], "later": 1}
    recipe.pop("audit")
    write(run, recipe=recipe)
    assert report_of(run).emotion.uar.value > 0


@pytest.mark.parametrize(
    "key, value, what",
    [
        ("data_sha256", {"audio.i16": "0", "manifest.csv": "0"}, "other data"),
        ("seeds", [1], "other seeds"),
        ("folds", [], "other folds"),
        ("recipe", {"train": {"epochs": 10_000}}, "another recipe"),
    ],
)
def test_the_report_of_another_run_is_refused(key, value, what, run, capsys):
    write(run, **{key: value})
    for command in ("compare", "card"):
        assert siser([command, str(run.folder)]) == 2
        assert f"report.json is of {what} than {run.folder}: evaluate" in " ".join(capsys.readouterr().err.split())
