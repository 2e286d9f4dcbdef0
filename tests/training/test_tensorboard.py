"""TensorBoard events equal metrics.csv: every epoch once, however often training was interrupted."""

import shutil
import sys
from contextlib import closing

import pytest
from helpers import without_hashes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.files import partial_of
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.tensorboard import open_tensorboard, tag


def events(folder) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, value) pairs by tag."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in accumulator.Tags()["scalars"]}


@pytest.fixture
def run(trained, tmp_path):
    """A finished run of three epochs."""
    return Run.open(shutil.copytree(trained.folder, tmp_path / "run"))


def require_same(folder, rows):
    written = events(folder)
    assert written.keys() == {tag(column) for column in rows[0] if column != "epoch"}
    for column in set(rows[0]) - {"epoch"}:
        assert written[tag(column)] == [(row["epoch"], pytest.approx(row[column], rel=1e-5)) for row in rows], column


def test_every_row_becomes_an_event_of_its_epoch(run):
    rows = run.model_specs[0].metrics()
    with closing(open_tensorboard(run.folder)) as log:
        for row in rows:
            log("fixed", row)
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_inner_folds_have_no_events(run):
    rows = run.model_specs[0].metrics()
    with closing(open_tensorboard(run.folder)) as log:
        for row in rows:
            log("fixed", {"inner_fold": 1, **row, "dev_uar": -1.0})
        assert not (run.folder / "tensorboard").exists()
        for row in rows:
            log("fixed", row)
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_a_resumed_model_writes_no_epoch_twice(run):
    """Killed after epoch 2 and resumed within it: the events written before the kill are replaced."""
    spec, rows = run.model_specs[0], run.model_specs[0].metrics()
    shutil.move(spec.folder, partial_of(spec.folder))
    with closing(open_tensorboard(run.folder)) as log:
        log("fixed", rows[0])
        log("fixed", {**rows[1], "dev_uar": -1.0})
    assert events(run.folder / "tensorboard" / "fixed")["uar/dev"][1] == (2, -1.0)
    with closing(open_tensorboard(run.folder)) as log:
        log("fixed", rows[1])
        log("fixed", rows[2])
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_finish_writes_models_trained_earlier_once(run):
    rows = run.model_specs[0].metrics()
    for _ in range(2):
        with closing(open_tensorboard(run.folder)) as log:
            log.finish()
        require_same(run.folder / "tensorboard" / "fixed", rows)
    with closing(open_tensorboard(run.folder)) as log:
        log("fixed", rows[0])
        log.finish()
        log.finish()
    require_same(run.folder / "tensorboard" / "fixed", rows)


def test_each_seed_has_a_folder_and_an_unfinished_model_has_none(run):
    without_hashes(run.folder)
    recipe = run.folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("seeds = 1", "seeds = 2"))
    fold = run.folder / "folds" / "fixed"
    shutil.move(fold, run.folder / "model")
    fold.mkdir()
    shutil.move(run.folder / "model", fold / "seed-1")
    with closing(open_tensorboard(run.folder)) as log:
        log.finish()
    assert [path.name for path in (run.folder / "tensorboard" / "fixed").iterdir()] == ["seed-1"]
    require_same(run.folder / "tensorboard" / "fixed" / "seed-1", Run.open(run.folder).model_specs[1].metrics())


def test_columns_are_grouped_by_unit():
    columns = "emotion_loss adversary_loss adversary_loss_uninformed dev_loss dev_uar seconds_dev seconds learning_rate lambda"
    output = [tag(column) for column in columns.split()]
    assert output[:5] == ["loss/emotion", "loss/adversary", "loss/adversary uninformed", "loss/dev", "uar/dev"]
    assert output[5:] == ["seconds/dev", "seconds/all", "learning_rate", "lambda"]


def test_missing_tensorboard_is_reported_before_anything_is_written(trained, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = [str(trained.folder / "recipe.toml"), "--data", str(prepared.folder), "--out", str(tmp_path / "out")]
    assert siser(["train", *arguments, "--device", "cpu", "--tensorboard"]) == 2
    output = capsys.readouterr().err
    assert "\nerror: TensorBoard is missing" in output and "pip install 'speaker-invariant-ser[tensorboard]'" in output
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_the_numbers_of_metrics_csv(trained, prepared, tmp_path):
    arguments = [str(trained.folder / "recipe.toml"), "--data", str(prepared.folder), "--out", str(tmp_path / "out")]
    assert siser(["train", *arguments, "--device", "cpu", "--jobs", "1", "--tensorboard"]) == 0
    require_same(tmp_path / "out" / "tensorboard" / "fixed", Run.open(tmp_path / "out").model_specs[0].metrics())
