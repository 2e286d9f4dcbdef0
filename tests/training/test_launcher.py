"""Runs are the same whether interrupted and resumed, trained in parallel, with several seeds, or by several processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent import futures
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers import assert_same_bits, interrupt_training
from safetensors.torch import load_file

from speaker_invariant_ser import processes
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import RecipeError, RunError, WriteError
from speaker_invariant_ser.files import locked, partial_of
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training import launcher, trainer
from speaker_invariant_ser.training.checkpoints import CHECKPOINT
from speaker_invariant_ser.training.checks import model_memory
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.objective import build_model

LONG = {
    **TINY,
    "train": {"epochs": 8, "batch_size": 8, "learning_rate": 0.01},
    "augment": {"noise": 0.3, "mixup_any_emotion": 0.3, "concatenate": 0.2},
}


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """An uninterrupted training."""
    return train(make_recipe(LONG), prepared, tmp_path_factory.mktemp("whole") / "run", device="cpu")


def train_often_saved(data: Path, out: Path, resume: bool) -> None:
    """Train with a checkpoint after every step, in a process that may be killed at any moment."""
    torch.set_num_threads(1)
    trainer.CHECKPOINT_SECONDS = 0.0
    train(make_recipe(LONG), PreparedCorpus.open(data), out, resume, device="cpu")


def test_twelve_kills_at_random_moments_leave_the_same_bits(whole, prepared, tmp_path):
    """Kill real processes at any stage; each resumes where the previous one was killed.

    Twelve or more, until three have been killed amid training, which how busy the machine is decides, too.
    """
    random.seed(0)
    context = get_context("forkserver")  # no other test may start this server, or it lacks what is preloaded here
    context.set_forkserver_preload(["speaker_invariant_ser.training.launcher"])
    context.Process(target=print).start()  # the server
    longest = 0.0
    for name in ("first", "undisturbed"):
        started, process = (
            time.monotonic(),
            context.Process(target=train_often_saved, args=(prepared.folder, tmp_path / name, False)),
        )
        process.start()
        process.join()
        longest = time.monotonic() - started
    out, kills, steps = tmp_path / "run", 0, []
    while True:
        enough = kills >= 12 and sum(steps) >= 3
        process = context.Process(target=train_often_saved, args=(prepared.folder, out, out.exists()))
        process.start()
        process.join(None if enough else random.uniform(0.0, 0.7 * longest))
        if process.exitcode is not None:
            assert process.exitcode == 0
            if enough:
                break
            shutil.rmtree(out)  # it was complete before it could be killed: start again
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        steps.append((out / "folds").is_dir() and any((out / "folds").rglob(CHECKPOINT)))
        assert kills < 100, "too few trainings were interrupted"
    assert_same_bits(whole, Run.open(out))
    assert not list(out.rglob(CHECKPOINT)) and not list(out.rglob(".*"))


@pytest.mark.parametrize("after", [1, 5, 12, 21, 23])
def test_a_training_interrupted_after_any_step_resumes_to_the_same_bits(whole, prepared, tmp_path, monkeypatch, after):
    """Within an epoch, at its end, and in the last epoch; the resuming process has another state of its random generator."""
    interrupt_training(monkeypatch, after, make_recipe(LONG), prepared, tmp_path / "run")
    torch.rand(17)
    run = train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu")
    assert_same_bits(whole, run)


def interrupted(prepared, out, monkeypatch, recipe=LONG):
    """Interrupt a run after its first epoch and return the path of its checkpoint."""

    def stop(fold, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(make_recipe(recipe), prepared, out, device="cpu", progress=stop)
    return next(out.rglob(CHECKPOINT))


def test_a_damaged_checkpoint_is_refused_and_kept(prepared, tmp_path, monkeypatch):
    path = interrupted(prepared, tmp_path / "run", monkeypatch)
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(RunError, match=f"{path} is damaged .*remove {path} to train this fold from its beginning"):
        train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu")
    assert path.read_bytes() == content[:-3]


def test_a_checkpoint_of_another_seed_is_refused(whole, prepared, tmp_path, monkeypatch):
    other = {**LONG, "train": {**LONG["train"], "seed": 5}}
    foreign = interrupted(prepared, tmp_path / "other", monkeypatch, other)
    path = interrupted(prepared, tmp_path / "run", monkeypatch)
    shutil.copy(foreign, path)
    with pytest.raises(RunError, match=f"{path} belongs to another run, fold, seed or precision"):
        train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu")
    path.unlink()
    assert_same_bits(whole, train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu"))


def test_two_trainings_cannot_write_the_same_run(prepared, tmp_path, monkeypatch):
    interrupted(prepared, tmp_path / "run", monkeypatch)
    folder = Run.open(tmp_path / "run").model_specs[0].folder
    with locked(folder, "lock"), pytest.raises(WriteError, match=f"cannot write {folder}: another process is writing it"):
        train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu")
    assert train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu").model_specs[0].done


def test_resume_keeps_trained_models_and_trains_the_others(prepared, tmp_path):
    recipe = make_recipe({**TINY, "split": {"scheme": "group-kfold", "folds": 3, "dev_speakers": 1}})
    whole = train(recipe, prepared, tmp_path / "whole", device="cpu")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    part = Run.open(tmp_path / "part")
    shutil.rmtree(part.model_specs[1].folder)
    partial_of(part.model_specs[1].folder).mkdir()  # left by a kill
    (part.model_specs[0].folder / CHECKPOINT).touch()  # left by a kill just before training was complete
    kept = (part.model_specs[0].folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(RunError, match=r"1 of 3 folds not trained \(2\)"):
        part.all_models()
    train(recipe, prepared, tmp_path / "part", resume=True, device="cpu")
    assert (part.model_specs[0].folder / "model.safetensors").stat().st_mtime_ns == kept
    assert_same_bits(whole, part)
    assert not list(part.folder.rglob(".*")) and not list(part.folder.rglob(CHECKPOINT))


@pytest.mark.parametrize("folds", [1, 2])
def test_a_run_that_is_moved_while_it_is_trained_is_an_error(folds, prepared, tmp_path):
    recipe = make_recipe({**TINY, "train": {"epochs": 1, "batch_size": 8, "seeds": folds}})
    out, moved = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(RunError, match="run was moved or removed while it was trained; continue where it is now"):
        train(recipe, prepared, out, device="cpu", progress=lambda *_: None if moved.exists() else out.rename(moved))
    assert not any((out / "folds").glob("*/seed-1")) and not list(out.rglob(".*"))
    assert all(spec.done for spec in train(recipe, prepared, moved, resume=True, device="cpu").model_specs)


def test_parallel_and_sequential_training_give_the_same_models(prepared, tmp_path, monkeypatch):
    """Although the one in parallel continues an interrupted run, of which one model has been trained for an epoch."""
    monkeypatch.setattr(launcher, "cores", lambda: 2)  # one thread each, as in this process: sums depend on the number of threads
    split = {"scheme": "group-kfold", "folds": 2, "dev_speakers": 1}
    recipe = make_recipe({**TINY, "split": split, "train": {"epochs": 2, "batch_size": 8, "seeds": 2, "seed": 7}})
    interrupted(prepared, tmp_path / "run", monkeypatch, recipe.model_dump())
    reported = []

    def report(name, row):
        reported.append((name, row["epoch"]))

    run = train(recipe, prepared, tmp_path / "run", resume=True, device="cpu", jobs=2, progress=report)
    names = ["1, seed 7", "2, seed 7", "1, seed 8", "2, seed 8"]
    assert [spec.name for spec in run.all_models()] == names
    assert sorted(reported) == sorted((name, epoch) for name in names for epoch in (1, 2))
    assert_same_bits(run, train(recipe, prepared, tmp_path / "turn", device="cpu"))
    alone = train(
        make_recipe({**recipe.model_dump(), "train": {**recipe.train.model_dump(), "seeds": 1, "seed": 8}}),
        prepared,
        tmp_path / "8",
    )
    weights = [
        load_file(spec.folder / "model.safetensors")["encoder.project.weight"] for spec in (*run.model_specs, *alone.model_specs)
    ]
    assert torch.equal(weights[2], weights[4]) and torch.equal(weights[3], weights[5]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("available", "at_once"), [(None, 4), (10**12, 4), (11 * 10**8, 2), (1, 1)])
def test_memory_limits_the_models_at_a_time_but_not_their_threads(prepared, tmp_path, monkeypatch, available, at_once):
    """A run that is resumed while more memory is free has the same bits: the number of threads decides about them."""
    started, lines = [], []
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.setattr(processes, "available_memory", lambda: available)
    monkeypatch.setattr(launcher, "train_in_parallel", lambda *arguments: started.append((arguments[4], arguments[7])))
    recipe = make_recipe(TINY, ["train.seeds=4"])
    train(recipe, prepared, tmp_path / "run", device="cpu", jobs=None, notify=lines.append)
    assert started == [(at_once, 2)] and len(lines) == (at_once < 4)


def test_the_memory_of_a_model_grows_with_its_batches_and_what_it_keeps(prepared):
    small, uncached, large, finer = (
        model_memory(make_recipe(TINY, [change]), prepared)
        for change in ("train.epochs=1", "train.cache_gb=0", "train.batch_size=80", "features.hop_ms=10")
    )
    frames = sum(1 + utterance.samples // 320 for utterance in prepared.utterances)
    assert small - uncached == 4 * 24 * frames
    assert 4.5e8 < uncached < small < finer < large and (large - uncached) > 9 * (uncached - 4.5e8)


def test_a_training_that_may_not_fit_is_warned_of(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "available_memory", lambda: 10**6)
    (tmp_path / "recipe.toml").write_text(write_toml(make_recipe(TINY, ["train.epochs=1"])))
    command = ["train", tmp_path / "recipe.toml", "--data", prepared.folder, "--out", tmp_path / "run", "--device", "cpu"]
    assert siser([*map(str, command), "--jobs", "1"]) == 0
    warning = capsys.readouterr().err
    assert "warning: training 1 model at a time may run out of memory: 0.0 GB of memory are available, " in warning


@pytest.fixture
def long_run(prepared, tmp_path):
    """A run of two models that train for minutes."""
    recipe = make_recipe({**LONG, "split": {"scheme": "group-kfold", "folds": 2, "dev_speakers": 1}}, ["train.epochs=1000"])
    return Run.create(tmp_path / "run", recipe, launcher.make_splits(recipe.split, prepared.utterances), prepared)


def workers_of(run, prepared, monkeypatch, meanwhile):
    """Train in two workers, call a function with them once they have been started; return them and what was raised."""
    others, workers = set(active_children()), []

    def wait(*arguments, **options):
        if not workers:
            workers.extend(set(active_children()) - others)
            meanwhile(workers)
        return futures.wait(*arguments, **options)

    monkeypatch.setattr(launcher, "wait", wait)
    with pytest.raises((RunError, KeyboardInterrupt)) as raised:
        launcher.train_in_parallel(run, prepared, run.model_specs, "cpu", 2, None)
    assert len(workers) == 2
    return workers, raised.value


def test_a_killed_worker_is_reported(long_run, prepared, monkeypatch):
    """The kernel kills a worker when memory runs out."""
    _, error = workers_of(long_run, prepared, monkeypatch, lambda workers: workers[0].kill())
    assert "a training process was killed, perhaps because memory ran out" in str(error)


def test_workers_are_ended_by_an_interruption(long_run, prepared, monkeypatch):

    def interrupt(workers):
        raise KeyboardInterrupt

    workers, _ = workers_of(long_run, prepared, monkeypatch, interrupt)
    assert [worker.exitcode for worker in workers] == [-signal.SIGTERM] * 2


def test_workers_end_with_the_main_process(prepared, tmp_path):
    """When it is killed: the pipe of its output closes only when the last of two workers, which train for hours, has ended."""
    out, data = str(tmp_path / "run"), str(prepared.folder)
    recipe = make_recipe(LONG, ["train.seeds=4", "train.epochs=40000"]).model_dump()
    code = (
        "from speaker_invariant_ser.training.launcher import *\n"
        "if __name__ == '__main__':\n"
        f"    train(Recipe.model_validate({recipe}), PreparedCorpus.open({data!r}), {out!r}, device='cpu', jobs=2)\n"
    )
    (tmp_path / "train.py").write_text(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "train.py")], stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while len(list((tmp_path / "run").rglob("metrics.csv"))) < 2 and time.monotonic() < started + 100:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = sum("spawn_main" in Path(f"/proc/{pid}/cmdline").read_text() for pid in children)
    process.kill()
    process.communicate(timeout=200)
    assert workers == 2


def test_an_error_in_a_worker_reaches_the_user(long_run, prepared):
    (long_run.folder / "folds").write_text("a file in the way")
    with pytest.raises(WriteError, match=r"cannot write .*: (a part of the path is a file|a file of that name exists)"):
        launcher.train_in_parallel(long_run, prepared, long_run.model_specs, "cpu", 1, None)


SEVERAL = {  # a loss that compares all utterances of a batch, and others; an optimizer of its own; perturbations
    "adversary": {"name": "hsic", "strength": 0.5, "balance_gradients": True},
    "extra_adversaries": [
        {"strength": 0.5, "hidden": 8},
        {"strength": 0.3, "input": "frames", "learning_rate": 0.01, "inner_steps": 2, "hidden": 8},
    ],
    "perturb": {"name": "fgm"},
}


def test_two_processes_with_half_a_batch_each_train_as_one_with_a_whole_batch(prepared, tmp_path, monkeypatch):
    """Over gloo, with batch norm and losses over both halves; without dropout and noise, which differ between processes.

    In the environment of a cluster job, which describes other processes than these.
    """
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "siser")
    sections = {
        "encoder": {**TINY["encoder"], "dropout": 0.0},
        "emotion": {"hidden": 8, "dropout": 0.0},
        "augment": {"mixup_any_emotion": 0.4, "concatenate": 0.2},
        "train": {"epochs": 2, "batch_size": 10, "precision": "float32"},
        **SEVERAL,
    }
    runs = [train(make_recipe({**TINY, **sections}), prepared, tmp_path / str(n), device="cpu", devices=n) for n in (1, 2)]
    for row, other in zip(*(run.model_specs[0].metrics() for run in runs), strict=True):
        assert row["step"] == other["step"]
        for key in (key for key in row if not key.startswith("seconds")):
            assert other[key] == pytest.approx(row[key], abs=1e-4), key
    clips = [prepared.clip(index) for index in range(0, 72, 5)]
    first, second = (apply_to_clips(load_model(run.model_specs[0].folder), clips).embedding for run in runs)
    assert np.abs(first - second).max() < 1e-4
    untrained = build_model(runs[0].recipe, ("falling", "level", "rising")).eval()
    assert np.abs(first - apply_to_clips(untrained, clips).embedding).max() > 0.1  # training has changed the embeddings


def test_every_process_needs_an_utterance_of_each_batch(prepared, tmp_path):
    with pytest.raises(RecipeError, match="train.batch_size = 8: 9 processes share it; expected at least that"):
        train(make_recipe(TINY), prepared, tmp_path / "run", device="cpu", devices=9)
    large_batches = make_recipe(TINY, ["train.batch_size=64"])
    with pytest.raises(RecipeError, match="fold fixed trains on 30 utterances an epoch with 31 processes; expected 31 or more"):
        train(large_batches, prepared, tmp_path / "run", device="cpu", devices=31)
    with pytest.raises(RecipeError, match="fold fixed trains on 1 utterance an epoch with 1 process; expected 2 or more"):
        train(make_recipe(TINY, ["train.epoch_clips=1"]), prepared, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_without_a_recipe_is_refused(whole, prepared, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    (tmp_path / "run" / "recipe.toml").unlink()
    with pytest.raises(RunError, match=r"is not a run folder \(has no recipe.toml\)"):
        train(make_recipe(LONG), prepared, tmp_path / "run", resume=True, device="cpu")


def test_torchrun_resumes_after_a_kill(prepared, tmp_path, monkeypatch):
    """Two processes of torchrun, killed and restarted with --resume, train the same model as `devices=2`."""
    monkeypatch.setattr(launcher, "cores", lambda: 2)
    recipe = make_recipe(TINY, ["train.epochs=6", "train.batch_size=10"])
    expected = train(recipe, prepared, tmp_path / "expected", device="cpu", devices=2)
    (tmp_path / "recipe.toml").write_text(write_toml(recipe))
    verb = [
        "-m",
        "speaker_invariant_ser.cli",
        "train",
        tmp_path / "recipe.toml",
        "--data",
        prepared.folder,
        "--out",
        tmp_path / "run",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, verb), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    started = time.monotonic()
    while not list((tmp_path / "run").rglob(CHECKPOINT)) and time.monotonic() < started + 100:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    again = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0 and again.stdout.count("fold fixed: epoch") == 1, again.stderr
    assert_same_bits(expected, Run.open(tmp_path / "run"))
