"""`siser train` says how long it takes, and asks before it trains very many models."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from conftest import TINY
from helpers import without_hashes

from speaker_invariant_ser.cli import progress as task_progress
from speaker_invariant_ser.cli import train as command
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.progress import TrainingLines, training_progress
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.recipe import TrainSection


@pytest.fixture
def lines(trained, tmp_path):
    """A function that tells of an epoch of a model at a time, seconds; the run has three models of 30 epochs, one is trained."""
    run = shutil.copytree(trained.folder, tmp_path / "run")
    (run / "recipe.toml").write_text((run / "recipe.toml").read_text().replace("seeds = 1", "seeds = 3"))
    without_hashes(run)
    (run / "folds" / "fixed").rename(run / "folds" / "seed-0")
    (run / "folds" / "fixed").mkdir()
    (run / "folds" / "seed-0").rename(run / "folds" / "fixed" / "seed-0")
    clock = [0.0]
    shown = TrainingLines(run, TrainSection(epochs=30), lambda: clock[0])

    def tell(seconds: float, seed: int, epoch: int) -> None:
        clock[0] = seconds
        shown(f"fixed, seed {seed}", {"epoch": epoch, "dev_uar": 0.5})

    return tell


def test_the_first_line_comes_after_seconds_and_estimates_the_rest(lines, capsys):
    lines(2.0, 1, 1)
    assert not capsys.readouterr().err
    lines(6.0, 1, 2)
    assert not capsys.readouterr().err  # one epoch after the first is no estimate
    lines(9.0, 1, 3)
    assert "1 of 3 models trained, dev UAR 0." in (shown := capsys.readouterr().err)
    assert shown.endswith("33 of 90 epochs; 9 s so far, about 3 min left\n") and shown.count("\n") == 1


def test_lines_have_a_pause_and_forget_the_slow_start(lines, capsys):
    """The first epoch takes 40 s with the start of workers, the others 4."""
    lines(40.0, 1, 1)
    lines(44.0, 1, 2)
    assert not capsys.readouterr().err
    lines(48.0, 1, 3)
    assert capsys.readouterr().err.endswith("33 of 90 epochs; 48 s so far, about 4 min left\n")
    lines(52.0, 1, 4)
    assert not capsys.readouterr().err  # a twentieth of the estimate has not passed
    lines(160.0, 1, 30)
    assert capsys.readouterr().err.endswith("60 of 90 epochs; 3 min so far, about 2 min left\n")
    lines(400.0, 2, 30)
    assert not capsys.readouterr().err  # the last epoch of all: what was trained is printed anyway


def test_very_slow_epochs_have_a_line_after_the_first(lines, capsys):
    lines(700.0, 1, 1)
    assert "31 of 90 epochs; 12 min so far, about 11 h left" in capsys.readouterr().err


def test_lines_are_for_what_is_no_terminal(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    for quiet, lines_wanted in ((False, True), (True, False)):
        with training_progress(quiet, tmp_path, TrainSection()) as progress:
            assert isinstance(progress, TrainingLines) == lines_wanted


@pytest.fixture
def many(prepared, tmp_path, monkeypatch):
    """A command that would train 6 folds with 2 seeds, where more than 10 models are many; the training itself is left out."""
    recipe = make_recipe({**TINY, "split": {"scheme": "loso"}, "train": {"epochs": 2, "seeds": 2, "batch_size": 8}})
    (tmp_path / "many.toml").write_text(write_toml(recipe))
    monkeypatch.setattr(command, "MANY_MODELS", 10)
    started = []
    run = SimpleNamespace(unbound=(), record={"data": "data"})
    monkeypatch.setattr("speaker_invariant_ser.training.launcher.train", lambda *words, **names: started.append(1) or run)
    monkeypatch.setattr(command, "show_trained", lambda run: None)
    return ["train", f"{tmp_path}/many.toml", "--data", str(prepared.folder), "--out", f"{tmp_path}/run"], started


def test_many_models_need_a_confirmation(many, monkeypatch, capsys):
    words, started = many
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert siser(words) == 2 and not started
    (shown,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: only 3 speakers")]
    assert shown.startswith("error: 12 models, 6 folds with 2 seed(s), 2 epochs each: about ")
    assert "train them all with --yes, or fewer: --set split.scheme=group-kfold" in shown
    for confirmed in ("--yes", "--resume"):
        assert siser([*words, confirmed]) == 0
    assert len(started) == 2
    assert siser([*words, "--set", "train.seeds=1"]) == 0 and len(started) == 3


@pytest.mark.parametrize("answer, code, trainings", [(True, 0, 1), (False, 2, 0)])
def test_a_terminal_is_asked(many, monkeypatch, capsys, answer, code, trainings):
    words, started = many
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command.typer, "confirm", lambda text, err: asked.append(text) or answer)
    assert siser(words) == code and len(started) == trainings
    assert asked[0].startswith("12 models") and asked[0].endswith("Train them all?")
    assert ("nothing was trained" in capsys.readouterr().err) == (not answer)


@pytest.mark.parametrize("quiet", [False, True])
def test_tasks_print_lines_where_there_is_no_terminal_fewer_as_time_goes_on(monkeypatch, capsys, quiet):
    seconds = 0.0
    monkeypatch.setattr(task_progress.time, "monotonic", lambda: seconds)
    with task_progress.progress_bars(quiet) as show:
        for step in range(100):
            seconds = float(step)
            show("attacking", step, 100)
    lines = [] if quiet else ["attacking: 30 of 100", "attacking: 90 of 100"]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines and not captured.out
