"""Start the training of a run: all folds and seeds, in sequence, in parallel, or each by several processes."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from speaker_invariant_ser.config import read_saved_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.errors import RunError, SerError
from speaker_invariant_ser.features.pretrained.checkpoint import pinned
from speaker_invariant_ser.features.pretrained.front import require_cache, use_cache
from speaker_invariant_ser.files import partial_of, require_no_links
from speaker_invariant_ser.processes import (
    EpochProgress,
    TaskProgress,
    cores,
    jobs_that_fit,
    require_address_space,
    set_up_worker,
)
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_encoders import EncoderSettings, PretrainedSettings
from speaker_invariant_ser.runs import RECIPE, ModelSpec, Run, rows_so_far
from speaker_invariant_ser.training.checkpoints import remove_checkpoint
from speaker_invariant_ser.training.checks import PROCESS_BYTES, check_device, check_recipe, model_memory
from speaker_invariant_ser.training.optimisation import choose_precision
from speaker_invariant_ser.training.refit import inner_splits, train_model

LAUNCHED = "TORCHELASTIC_RUN_ID"  # in the environment of processes that torchrun or `fabric run` has started
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}  # Fabric's names


def train(
    recipe: Recipe,
    prepared: PreparedCorpus,
    out: Path | str,
    resume: bool = False,
    device: str = "auto",
    jobs: int | None = 1,
    progress: EpochProgress | None = None,
    devices: int = 1,
    notify: Callable[[str], object] = lambda line: None,
) -> Run:
    """Train every fold and seed of a recipe.

    Started by `torchrun` or `fabric run`, the processes that these started share each batch, whatever `devices` says.

    Args:
        recipe: What to train.
        prepared: The corpus.
        out: Folder of the run.
        resume: Keep the models that are trained, and continue the others from their last checkpoints.
        device: "auto", "cpu" or "cuda".
        jobs: Number of models that are trained at the same time; None for as many as there are cores and memory for.
        progress: Called after each epoch with the model's name and its row of metrics.csv; the rows of inner folds have their
            number as `inner_fold`.
        devices: Number of processes that share each batch, with a GPU each where there are GPUs.
        notify: Called with a line for the user where memory limits the number of models, or may run out.

    Returns:
        The run.

    Raises:
        PreparedCorpusError: Audio or F0 was changed since it was prepared; before anything is written.
        SplitError: The corpus cannot be split so; before anything is written.
        RecipeError: The recipe does not fit the methods, the corpus or the machine; before anything is written.
        RunError: Training failed, or `resume` found another run.
        WriteError: The folder exists, or cannot be written.
    """
    device_type = check_device(device, devices).type
    recipe = with_checkpoint(recipe, held_encoder(Path(out)) if resume else None)
    prepared.require_audio()
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    splits = make_splits(recipe.split, prepared.utterances)
    splits = hold_out(splits, prepared.utterances, recipe.audit.holdout, recipe.audit.seed)
    inner = [inner for split in splits for inner in inner_splits(split, recipe, prepared.utterances)]
    processes = int(os.environ["WORLD_SIZE"]) if launched_externally() else devices
    check_recipe(recipe, prepared, [*splits, *inner], processes)
    if launched_externally():
        return train_in_external_processes(recipe, splits, prepared, Path(out), resume, device_type, progress)
    memory = model_memory(recipe, prepared)
    require_address_space(memory - PROCESS_BYTES)
    run = open_run(recipe, splits, prepared, Path(out), resume)
    cache_layers(recipe, prepared, device_type)
    waiting = [spec for spec in run.model_specs if not spec.done]
    # Of all models, not of those left, and whatever memory there is: threads, and so the last bits, stay the same on resume.
    wanted = min(jobs or cores(), cores(), len(run.model_specs))
    threads = max(1, cores() // (wanted * devices))
    fitting, line = wanted, ""
    if waiting and device_type == "cpu":  # what a process takes beside a GPU was not measured
        fitting, line = jobs_that_fit(jobs, len(waiting), devices * memory)
    if line:
        notify(line)
    if wanted * devices > 1 and waiting:
        train_in_parallel(run, prepared, waiting, device_type, fitting, progress, devices, threads)
    else:
        with launched_fabric(recipe.train.precision, device_type) as fabric:
            for spec in waiting:
                train_model(run, prepared, spec, fabric, progress)
    run.require_there()
    return run


def with_checkpoint(recipe: Recipe, held: EncoderSettings | None) -> Recipe:
    """Return a recipe that says which checkpoint its pre-trained encoder is.

    Args:
        recipe: The recipe.
        held: Section [encoder] of what is resumed, whose commit is used again; None if nothing is.
    """
    if not isinstance(recipe.encoder, PretrainedSettings):
        return recipe
    return recipe.model_copy(update={"encoder": pinned(recipe.encoder, held)})


def held_encoder(run: Path) -> EncoderSettings | None:
    """Return section [encoder] of a run's recipe; None if there is no run."""
    return read_saved_recipe(run / RECIPE).encoder if (run / RECIPE).is_file() else None


def launched_externally() -> bool:
    """Return whether torchrun or `fabric run` has started this process."""
    return LAUNCHED in os.environ


def open_run(recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus, out: Path, resume: bool) -> Run:
    """Create a run, or with `resume` open the one that is there; checkpoints of finished models are removed."""
    if not (resume and out.is_dir() and any(out.iterdir())):
        return Run.create(out, recipe, splits, prepared)
    run = replace(Run.open(out), data=prepared.folder.absolute())  # the corpus may have moved
    require_no_links(out.rglob("*"))
    run.require_same(recipe, splits, prepared)
    for spec in run.model_specs:
        if spec.done:
            remove_checkpoint(spec.folder)
    return run


def cache_layers(recipe: Recipe, prepared: PreparedCorpus, device: str, progress: TaskProgress | None = None) -> None:
    """Compute the layers of a frozen pre-trained encoder that the corpus does not have yet, and check those that it has."""
    use_cache(recipe.encoder, prepared, torch.device(device), progress)
    require_cache(recipe.encoder, prepared)


@contextmanager
def launched_fabric(precision: str, device: str, devices: list[int] | int = 1, hosts: int = 1) -> Iterator[Fabric]:
    """Set up device, precision and processes.

    Args:
        precision: `train.precision` of the recipe.
        device: "cpu" or "cuda".
        devices: Number of processes on this host, or the indices of its GPUs. Several find each other by their environment.
        hosts: Number of hosts.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would log the precision of every model
    several = hosts > 1 or (devices if isinstance(devices, int) else len(devices)) > 1
    # A process that was not launched externally ignores what a cluster's job has in its environment.
    plugins: list[Precision | ClusterEnvironment | CheckpointIO] = [] if launched_externally() else [LightningEnvironment()]
    fabric = Fabric(
        accelerator=device,
        strategy="ddp" if several else "auto",
        devices=devices,
        num_nodes=hosts,
        precision=PRECISIONS[choose_precision(precision, device)],
        plugins=plugins,
    )
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has launched it already
        fabric.launch()
    try:
        yield fabric
    finally:
        if several:
            dist.destroy_process_group()


def train_in_external_processes(
    recipe: Recipe,
    splits: Sequence[Split],
    prepared: PreparedCorpus,
    out: Path,
    resume: bool,
    device: str,
    progress: EpochProgress | None,
) -> Run:
    """Train all models one after another; processes launched externally, here and on other hosts, share each batch."""
    local_world, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    with launched_fabric(recipe.train.precision, device, local_world, world // local_world) as fabric:
        if fabric.is_global_zero:
            open_run(recipe, splits, prepared, out, resume)
            cache_layers(recipe, prepared, device)
        fabric.barrier()
        run = Run.open(out)
        for spec in [spec for spec in run.model_specs if not spec.done]:
            train_model(run, prepared, spec, fabric, progress)
            fabric.barrier()
    return run


def train_in_parallel(
    run: Run,
    prepared: PreparedCorpus,
    model_specs: Sequence[ModelSpec],
    device: str,
    jobs: int,
    progress: EpochProgress | None,
    devices: int = 1,
    threads: int = 1,
) -> None:
    """Train models in worker processes, several at the same time.

    The cores are shared evenly: several models with one thread each are faster than one with many. GPUs are assigned in turn.

    Args:
        run: The run.
        prepared: The corpus, which each worker opens again.
        model_specs: The models that are left.
        device: "cpu" or "cuda".
        jobs: Number of models at the same time.
        progress: Called after each epoch of every model.
        devices: Number of workers that share each batch of a model.
        threads: Number of threads of each worker.

    Raises:
        RunError: A worker was killed. An error in a worker is raised as it is.
    """
    existing, waiting = set(active_children()), deque(enumerate(model_specs))
    reported = dict.fromkeys((spec.name for spec in model_specs), 0)
    running: dict[Future[None], ModelSpec] = {}
    with ProcessPoolExecutor(jobs * devices, get_context("spawn"), initializer=set_up_worker) as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= (jobs - 1) * devices:
                    number, spec = waiting.popleft()
                    port = free_port() if devices > 1 else 0
                    for rank in range(devices):
                        worker = Worker(rank, devices, port, number, threads)
                        running[pool.submit(train_in_worker, run, prepared.folder, spec, device, worker)] = spec
                wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
                report_epochs(set(running.values()), reported, progress)
                raise_failure(running, devices)
                running = {future: spec for future, spec in running.items() if not future.done()}
            report_epochs(model_specs, reported, progress)
        except BrokenProcessPool:
            raise RunError(
                f"{run.folder}: a training process was killed, perhaps because memory ran out; trained models are kept: "
                "continue with --resume and fewer --jobs"
            ) from None
        finally:
            if waiting or not all(future.done() for future in running):  # an error, or Ctrl-C: do not wait for the others
                for process in set(active_children()) - existing:
                    process.terminate()


def raise_failure(running: Iterable[Future[None]], devices: int) -> None:
    """Raise what went wrong in a worker; of several that share a model, the error that made the others fail."""
    if any(future.done() and future.exception() for future in running):
        if devices > 1:
            wait(running, timeout=2)
        errors = [error for future in running if future.done() and (error := future.exception())]
        raise next((error for error in errors if isinstance(error, SerError)), errors[0])


def report_epochs(model_specs: Iterable[ModelSpec], reported: dict[str, int], progress: EpochProgress | None) -> None:
    """Report the epochs that workers have written; `reported` counts those of each model so far."""
    for spec in model_specs:
        for folder in (partial_of(spec.folder), spec.folder):
            try:
                rows = rows_so_far(folder)
            except OSError:
                continue  # just renamed
            for row in rows[reported[spec.name] :]:  # one row for each epoch
                reported[spec.name] += 1
                if progress:
                    progress(spec.name, row)


@dataclass(frozen=True)
class Worker:
    """One of the processes that share the batches of a model."""

    rank: int  # 0 .. size - 1
    size: int
    port: int  # where the processes of a model meet
    number: int  # of the model, counted over the run
    threads: int  # that torch may use


def train_in_worker(run: Run, data: Path, spec: ModelSpec, device: str, worker: Worker) -> None:
    """Train one model in this process, or share its batches with other workers."""
    torch.set_num_threads(worker.threads)
    prepared = PreparedCorpus.open(data).labelled(run.recipe.labels.map, run.recipe.split)
    devices: list[int] | int = worker.size
    if device == "cuda" and worker.size == 1:
        devices = [worker.number % torch.cuda.device_count()]
    if worker.size > 1:
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": worker.port, "WORLD_SIZE": worker.size, "NODE_RANK": 0}
        os.environ.update({name: str(value) for name, value in {**rendezvous, "LOCAL_RANK": worker.rank}.items()})
    with launched_fabric(run.recipe.train.precision, device, devices) as fabric:
        train_model(run, prepared, spec, fabric)


def free_port() -> int:
    """Return a port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
