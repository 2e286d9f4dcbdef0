"""Measure the cells of a study one after another: what is there is kept, what was interrupted is continued."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Literal

from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError, SetupError, StudyError, WriteError
from speaker_invariant_ser.files import locked
from speaker_invariant_ser.processes import TaskProgress, set_up_worker
from speaker_invariant_ser.studies.measure import Job, epochs_of, measure
from speaker_invariant_ser.studies.results import Result, read_result, why_stale
from speaker_invariant_ser.studies.study import Cell, Study

POLL = 1.0  # seconds between two updates of the progress of a training
Status = Literal["measured", "there", "stale", "skipped", "failed"]
Submit = Callable[[Job], AbstractContextManager[Future[None]]]


@dataclass(frozen=True)
class Options:
    """How a study is measured.

    Args:
        results: Folder of the result files.
        runs: Folder of the runs.
        full: Use all attackers; a result of closed-form attackers alone is then not enough.
        refresh: Measure stale results again.
        keep_runs: Keep runs after their result is written.
        device: auto, cpu or cuda.
        jobs: Models trained, and attackers fitted, in parallel.
    """

    results: Path
    runs: Path
    full: bool = False
    refresh: bool = False
    keep_runs: bool = True
    device: str = "auto"
    jobs: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: `reason` says why it is stale, skipped or failed, `error` is what it failed with."""

    cell: Cell
    status: Status
    result: Result | None = None
    reason: str = ""
    error: BaseException | None = None


def open_corpora(study: Study, cells: Sequence[Cell]) -> dict[str, PreparedCorpus]:
    """Open the corpora of cells, by name.

    Raises:
        StudyError: A corpus is not there, or is damaged.
    """
    corpora = {}
    for name in dict.fromkeys(cell.corpus for cell in cells):
        try:
            corpora[name] = PreparedCorpus.open(study.corpora[name])
        except PreparedCorpusError as error:
            raise StudyError(
                f"{study.path}: corpus {name}: {error}; give --corpus {name}=FOLDER, or name others with --corpora"
            ) from None
    return corpora


@contextmanager
def in_child(job: Job) -> Iterator[Future[None]]:
    """Measure in a process of its own, whose memory is freed at its end, and which ends with this one."""
    existing = set(active_children())
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=set_up_worker) as pool:
        future = pool.submit(measure, job)
        try:
            yield future
        finally:
            if not future.done():  # Ctrl-C: do not wait; the next start continues from the last checkpoint
                for process in set(active_children()) - existing:
                    process.terminate()


def run_study(
    study: Study, cells: Sequence[Cell], options: Options, progress: TaskProgress | None = None, submit: Submit | None = None
) -> Iterator[Outcome]:
    """Measure cells that have no result yet.

    A failed cell does not end the study. Several processes may measure the same study: a cell that another one is measuring is
    skipped.

    Args:
        study: The study.
        cells: Some of its cells.
        options: How to measure.
        progress: Called with a cell's name, its epochs done and in total.
        submit: Starts a measurement; `in_child` if None.

    Yields:
        The outcome of each cell, in order, as soon as it is there.

    Raises:
        StudyError: A corpus is not there, or a result file is damaged.
    """
    corpora = open_corpora(study, cells)
    for cell in cells:
        yield run_cell(
            study, cell, corpora[cell.corpus], options, progress or (lambda name, done, total: None), submit or in_child
        )


def run_cell(
    study: Study, cell: Cell, prepared: PreparedCorpus, options: Options, progress: TaskProgress, submit: Submit
) -> Outcome:
    """Measure one cell if its result is missing, stale and to be refreshed, or lacks attackers."""
    job = Job(
        cell=cell,
        data=prepared.folder.absolute(),
        run=options.runs / cell.name,
        result=options.results / f"{cell.name}.json",
        command=command_of(study, cell, options),
        quick=not options.full,
        device=options.device,
        jobs=options.jobs,
        keep_run=options.keep_runs,
        telephone=study.telephone,
        discard_run=options.refresh,
    )
    with ExitStack() as held:
        try:
            held.enter_context(locked(job.run, "study-lock"))
        except WriteError:
            return Outcome(cell, "skipped", reason="another process is measuring it")
        former = read_result(job.result, cell)
        recipe = cell.arm.resolved(cell.seed, prepared)
        why = why_stale(former, recipe, prepared.settings["sha256"]) if former else ""
        if former and why and not options.refresh:
            return Outcome(cell, "stale", former, why)
        if former and not why and not (options.full and former.numbers.speaker and former.numbers.speaker.quick):
            return Outcome(cell, "there", former)
        return outcome_of(job, wait_for(job, progress, submit))


def wait_for(job: Job, progress: TaskProgress, submit: Submit) -> BaseException | None:
    """Run a job to its end, reporting its progress; return what it failed with, if it did."""
    with submit(job) as future:
        while not future.done():
            wait([future], timeout=POLL)
            done, total = epochs_of(job.run) if job.cell.arm.recipe else (0, 0)
            if done:
                progress(job.cell.name, done, total)
        return future.exception()


def outcome_of(job: Job, error: BaseException | None) -> Outcome:
    """Return the outcome of a job that has ended."""
    if error is None:
        return Outcome(job.cell, "measured", read_result(job.result, job.cell))
    if isinstance(error, SetupError):  # an extra that is not installed
        return Outcome(job.cell, "skipped", reason=str(error))
    if isinstance(error, BrokenProcessPool):
        text = "its process was killed, perhaps because memory ran out; the same command continues it"
        return Outcome(job.cell, "failed", reason=text, error=StudyError(text))
    ran_out = "memory ran out: " if isinstance(error, MemoryError) else ""
    return Outcome(job.cell, "failed", reason=f"{ran_out}{error}", error=error)


def command_of(study: Study, cell: Cell, options: Options) -> str:
    """Return the command that measures one cell, without paths of this machine."""
    path = study.path if not study.path.is_absolute() else Path(study.path.name)
    words = ["siser", "study", path.as_posix(), "--only", cell.arm.name, "--corpora", cell.corpus]
    return shlex.join([*words, *(["--full"] if options.full else [])])
