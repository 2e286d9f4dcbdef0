"""TensorBoard says what metrics.csv says: every epoch once, however often training was cut short."""

import shutil
import sys
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.files import partial_of
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.tensorboard import open_tensorboard, tag


def events(folder) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) by tag."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {name: [(one.step, one.value) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}


@pytest.fixture
def run(trained, tmp_path):
    """A finished run of three epochs."""
    return Run.open(shutil.copytree(trained.folder, tmp_path / "run"))


def require_same(folder, rows):
    found = events(folder)
    assert found.keys() == {tag(column) for column in rows[0] if column != "epoch"}
    for column in set(rows[0]) - {"epoch"}:
        assert found[tag(column)] == [(row["epoch"], pytest.approx(row[column], rel=1e-5)) for row in rows], column


def test_every_row_told_is_an_event_of_its_epoch(run):
    rows = run.fits[0].metrics()
    with closing(open_tensorboard(run.folder)) as told:
        for row in rows:
            told("fixed", row)
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_no_epoch_is_twice_where_a_model_goes_on_from_an_earlier_one(run):
    """Told of epochs 1 and 2, killed; goes on from a checkpoint in epoch 2. What was told before the kill is replaced."""
    fit, rows = run.fits[0], run.fits[0].metrics()
    shutil.move(fit.folder, partial_of(fit.folder))
    with closing(open_tensorboard(run.folder)) as told:
        told("fixed", rows[0])
        told("fixed", {**rows[1], "dev_uar": -1.0})
    assert events(run.folder / "tensorboard" / "fixed")["uar/dev"][1] == (2, -1.0)
    with closing(open_tensorboard(run.folder)) as told:
        told("fixed", rows[1])
        told("fixed", rows[2])
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_models_trained_before_there_was_a_board_are_written_at_the_end_and_once(run):
    rows = run.fits[0].metrics()
    for _ in range(2):
        with closing(open_tensorboard(run.folder)) as told:
            told.finish()
        require_same(run.folder / "tensorboard" / "fixed", rows)
    with closing(open_tensorboard(run.folder)) as told:
        told("fixed", rows[0])
        told.finish()
        told.finish()
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_seeds_have_folders_of_their_own_and_a_model_that_is_not_done_none(run):
    recipe = run.folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("seeds = 1", "seeds = 2"))
    place = run.folder / "folds" / "fixed"
    shutil.move(place, run.folder / "apart")
    place.mkdir()
    shutil.move(run.folder / "apart", place / "seed-1")
    with closing(open_tensorboard(run.folder)) as told:
        told.finish()
    assert [path.name for path in (run.folder / "tensorboard" / "fixed").iterdir()] == ["seed-1"]
    require_same(run.folder / "tensorboard" / "fixed" / "seed-1", Run.open(run.folder).fits[1].metrics())


def test_a_column_stands_with_those_of_its_unit():
    columns = "emotion_loss adversary_loss adversary_loss_uninformed dev_loss dev_uar seconds_dev seconds learning_rate lambda"
    told = [tag(column) for column in columns.split()]
    assert told[:5] == ["loss/emotion", "loss/adversary", "loss/adversary uninformed", "loss/dev", "uar/dev"]
    assert told[5:] == ["seconds/dev", "seconds/all", "learning_rate", "lambda"]


def test_without_tensorboard_the_command_line_says_so_before_anything_is_written(
    trained, prepared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = [str(trained.folder / "recipe.toml"), "--data", str(prepared.folder), "--out", str(tmp_path / "out")]
    assert siser(["train", *arguments, "--device", "cpu", "--tensorboard"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: TensorBoard is missing") and "pip install 'speaker-invariant-ser[tensorboard]'" in told
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_what_metrics_csv_says(trained, prepared, tmp_path):
    arguments = [str(trained.folder / "recipe.toml"), "--data", str(prepared.folder), "--out", str(tmp_path / "out")]
    assert siser(["train", *arguments, "--device", "cpu", "--jobs", "1", "--tensorboard"]) == 0
    require_same(tmp_path / "out" / "tensorboard" / "fixed", Run.open(tmp_path / "out").fits[0].metrics())
