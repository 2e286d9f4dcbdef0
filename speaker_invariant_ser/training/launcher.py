"""A recipe and a prepared corpus -> a run: every fold and seed trained, in turn, side by side, or each by several processes."""

import csv
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.errors import RecipeError, RunError, SerError
from speaker_invariant_ser.files import partial_of
from speaker_invariant_ser.models.erasure import check_erase
from speaker_invariant_ser.models.model import choose_device
from speaker_invariant_ser.processes import cores, serve
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import METHODS, TrainedClassifierSettings
from speaker_invariant_ser.runs import METRICS, Fit, Run
from speaker_invariant_ser.training.adversary_step import Opponents, told_of
from speaker_invariant_ser.training.checkpoints import remove_checkpoint
from speaker_invariant_ser.training.optimisation import build_model, precision_of, targets_of
from speaker_invariant_ser.training.trainer import Progress, train_fit

OUTSIDE = "TORCHELASTIC_RUN_ID"  # in the environment of processes that torchrun or fabric run has started
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}  # Fabric's names


def train(
    recipe: Recipe,
    prepared: PreparedCorpus,
    out: Path | str,
    resume: bool = False,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
    devices: int = 1,
) -> Run:
    """Train every fold and seed of the recipe into the run folder `out`, and return the run.

    `jobs` models are trained at once; each batch is shared by `devices` processes, with a GPU each where there are GPUs. Started
    by `torchrun` or `fabric run`, the processes that these started share each batch instead. With `resume`, what is trained is
    kept, and what was begun goes on from its last checkpoint. Raises SplitError or RecipeError before anything is
    written, RunError, WriteError.
    """
    dim = check_names(recipe)
    place, several = choose_device(device), int(os.environ.get("WORLD_SIZE", 1)) if OUTSIDE in os.environ else devices
    if place.type == "cuda" and devices > torch.cuda.device_count():
        raise RecipeError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    require_pictures(recipe, prepared)
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    splits = hold_out(
        make_splits(recipe.split, prepared.utterances), prepared.utterances, recipe.audit.holdout, recipe.audit.seed
    )
    for split in splits:  # what is wrong is said before anything is written
        for number, one in enumerate(recipe.adversaries):
            with told_of(number):
                targets_of(prepared, split, one.target, recipe.augment.virtual_speakers)
        check_erase(recipe, dim, len(targets_of(prepared, split, "speaker")))
        clips = len(split.indices("train", prepared.utterances))
        require_enough(recipe, min(clips, recipe.train.epoch_clips or clips), split.name, several)
    if OUTSIDE in os.environ:
        return train_as_one_of_many(recipe, splits, prepared, Path(out), resume, place.type, progress)
    run = open_run(recipe, splits, prepared, Path(out), resume)
    waiting = [fit for fit in run.fits if not fit.done]
    jobs = min(jobs, len(run.fits))  # of all, not of those left: threads, and so the last bits, stay the same on resume
    if jobs * devices > 1 and waiting:
        train_side_by_side(run, prepared, waiting, place.type, jobs, progress, devices)
    else:
        with engine(recipe.train.precision, place.type) as fabric:
            for fit in waiting:
                train_fit(run, prepared, fit, fabric, progress)
    return run


def open_run(recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus, out: Path, resume: bool) -> Run:
    """A new run, or with `resume` the one that is there, without what a kill in the very last moment of a model left behind."""
    if not (resume and out.is_dir() and any(out.iterdir())):
        return Run.create(out, recipe, splits, prepared)
    run = Run.open(out)
    run.require_same(recipe, splits, prepared)
    for fit in run.fits:
        if fit.done:
            remove_checkpoint(fit.folder)
    return run


def require_enough(recipe: Recipe, clips: int, fold: str, processes: int) -> None:
    """Raise RecipeError unless each of the processes that share a batch gets a clip of it; `clips` are those of an epoch."""
    if recipe.train.batch_size < processes:
        raise RecipeError(f"train.batch_size = {recipe.train.batch_size}: {processes} processes share it; expected at least that")
    if clips < max(2, processes):  # batch norm needs two
        raise RecipeError(
            f"fold {fold} trains on {clips} clips an epoch with {processes} processes; expected {max(2, processes)} or more"
        )


def require_pictures(recipe: Recipe, prepared: PreparedCorpus) -> None:
    """Raise RecipeError where clips are to be pictures and are none: see `features.Pixels`."""
    rows = recipe.features.mels
    if recipe.features.front == "pixels":
        for one in prepared.utterances:
            if one.samples % rows or one.samples > rows * (rows + 1):
                raise RecipeError(
                    f'features.front = "pixels": {one.id} of {prepared.folder} has {one.samples} samples, which are no picture of '
                    f"{rows} rows (features.mels) and at most {rows + 1} columns; expected the digits, or features.front = "
                    '"log-mel" for sound'
                )


def check_names(recipe: Recipe) -> int:
    """The embedding's dimension. Raises RecipeError for wrong names, band limits, and settings of adversaries."""
    model = build_model(recipe, ("", ""))
    Opponents(recipe, model, [2 for _ in recipe.adversaries])
    if recipe.perturb.name == "cross" and not learns(recipe.adversary.name):
        raise RecipeError(
            f"perturb.name = cross moves clips along the loss of a reader that learns: adversary.name = {recipe.adversary.name} "
            "has none; expected grl or another with a reader"
        )
    return model.dim


def learns(adversary: str) -> bool:
    """Whether an adversary has a reader that gets better at reading."""
    return issubclass(METHODS["adversary"][adversary], TrainedClassifierSettings)


@contextmanager
def engine(precision: str, device: str, devices: Sequence[int] | int = 1, hosts: int = 1) -> Iterator[Fabric]:
    """Device, precision and processes; `devices` as Fabric has it. Several processes find each other by their environment."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # or it tells the precision for every model
    several = hosts > 1 or (devices if isinstance(devices, int) else len(devices)) > 1
    # Where nothing was started outside, what a cluster has in its environment is no business of this process.
    own = [] if OUTSIDE in os.environ else [LightningEnvironment()]
    strategy = "ddp" if several else "auto"
    place = {"accelerator": device, "strategy": strategy, "devices": devices, "num_nodes": hosts}
    fabric = Fabric(**place, precision=PRECISIONS[precision_of(precision, device)], plugins=own)
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has done it
        fabric.launch()
    try:
        yield fabric
    finally:
        if several:
            dist.destroy_process_group()


def train_as_one_of_many(
    recipe: Recipe,
    splits: Sequence[Split],
    prepared: PreparedCorpus,
    out: Path,
    resume: bool,
    device: str,
    progress: Progress | None,
) -> Run:
    """All models one after another, each batch shared by the processes that are started outside, here and on other hosts."""
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    with engine(recipe.train.precision, device, here, everywhere // here) as fabric:
        if fabric.is_global_zero:
            open_run(recipe, splits, prepared, out, resume)
        fabric.barrier()
        run = Run.open(out)
        for fit in [fit for fit in run.fits if not fit.done]:
            train_fit(run, prepared, fit, fabric, progress)
            fabric.barrier()
    return run


def train_side_by_side(
    run: Run, prepared: PreparedCorpus, fits: Sequence[Fit], device: str, jobs: int, progress: Progress | None, devices: int = 1
) -> None:
    """Models in worker processes, `jobs` at once, the cores shared evenly: one thread each is faster than many on one model.

    Each model takes `devices` workers. GPUs are dealt out in turn, several models to one where they are fewer.
    """
    before, waiting, told = set(active_children()), deque(enumerate(fits)), dict.fromkeys((fit.name for fit in fits), 0)
    threads = max(1, cores() // (jobs * devices))
    running: dict[Future, Fit] = {}
    with ProcessPoolExecutor(jobs * devices, get_context("spawn"), initializer=serve) as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= (jobs - 1) * devices:
                    number, fit = waiting.popleft()
                    port = free_port() if devices > 1 else 0
                    groups = [Group(rank, devices, port, number) for rank in range(devices)]
                    arguments = run, prepared.folder, fit, device
                    running |= {pool.submit(train_in_worker, *arguments, group, threads): fit for group in groups}
                wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
                tell(set(running.values()), told, progress)
                require_well(running, devices)
                running = {future: fit for future, fit in running.items() if not future.done()}
            tell(fits, told, progress)
        except BrokenProcessPool:
            raise RunError(
                f"{run.folder}: a training process was killed, perhaps for want of memory; "
                "what was trained is kept: continue with --resume and fewer --jobs"
            ) from None
        finally:
            if waiting or not all(future.done() for future in running):  # an error, or Ctrl-C: do not wait for the others
                for worker in set(active_children()) - before:
                    worker.terminate()


def require_well(running: Iterable[Future], devices: int) -> None:
    """Raise what went wrong in a worker. Of several that share a model, one has a reason, and the others miss it."""
    if any(future.done() and future.exception() for future in running):
        if devices > 1:
            wait(running, timeout=2)
        errors = [future.exception() for future in running if future.done() and future.exception()]
        raise next((error for error in errors if isinstance(error, SerError)), errors[0])


def tell(fits: Iterable[Fit], told: dict[str, int], progress: Progress | None) -> None:
    """Report the epochs that workers have written to metrics.csv since the last look; `told` is the last of each."""
    for fit in fits:
        for place in (partial_of(fit.folder), fit.folder):
            try:
                rows = list(csv.DictReader((place / METRICS).read_text(encoding="utf-8").splitlines()))
            except OSError:
                continue  # not begun, or just renamed
            for row in rows[told[fit.name] :]:  # a row for each epoch
                told[fit.name] += 1
                if progress:
                    progress(fit.name, {column: float(cell) for column, cell in row.items()})


@dataclass(frozen=True)
class Group:
    """The processes that share a model's batches: this one's rank among `size` that meet at `port`; `number` is the model's."""

    rank: int
    size: int
    port: int
    number: int


def train_in_worker(run: Run, data: Path, fit: Fit, device: str, group: Group, threads: int) -> None:
    torch.set_num_threads(threads)
    prepared = PreparedCorpus.open(data).labelled(run.recipe.labels.map, run.recipe.split)
    devices: Sequence[int] | int = group.size
    if device == "cuda" and group.size == 1:
        devices = [group.number % torch.cuda.device_count()]
    if group.size > 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": group.port, "WORLD_SIZE": group.size, "NODE_RANK": 0}
        os.environ.update({name: str(value) for name, value in {**meeting, "LOCAL_RANK": group.rank}.items()})
    with engine(run.recipe.train.precision, device, devices) as fabric:
        train_fit(run, prepared, fit, fabric)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
